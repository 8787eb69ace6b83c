"""The stages of a dedup step, one after the other, from what the process tasks stored to what each of them loses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from filters.errors import InputError, SourceEmptied
from infra.commit import FileEntry, Manifest
from infra.dedup_work import (
    BAND_ROWS,
    DEDUP,
    DOCUMENTS,
    HASH_ROWS,
    Corpus,
    DedupTask,
    Earlier,
    RemoveTask,
    remove_id,
    remove_stage,
)
from infra.finish import OnStage, finish_stage
from infra.rollup import Rollup, Segments, outcomes
from infra.runner import Runner
from infra.stored import Store
from infra.work import Report, file_of
from pipelines.dedup.step import Alarm, Dedup
from pipelines.schema import read_table

if TYPE_CHECKING:
    from infra.run import Finished

SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Deduplicated:
    """The roll-up with what the step removed, what its stages counted, and who lost how much."""

    rollup: Rollup
    says: Mapping[str, Any]
    shares: FileEntry


def deduplicate(
    store: Store,
    rollup: Rollup,
    step: Dedup,
    runner: Runner,
    *,
    earlier: Sequence[Earlier],
    report: Report,
    on_stage: OnStage,
) -> Deduplicated:
    """Find the copies among the kept documents of a run, and of the earlier runs, and what each task loses by that."""
    documents, band_rows = sizes(store, rollup)
    corpus = Corpus(store=store, rollup=rollup, step=step, documents=documents, earlier=tuple(earlier))
    stages = Stages(corpus=corpus, runner=runner, report=report, on_stage=on_stage)
    gone = files_of(stages.do("earlier", 1, {}), "gone") if earlier else ()
    copies: dict[str, tuple[FileEntry, ...]] = {}
    for method in step.exact:
        before = gone + tuple(chain.from_iterable(copies.values()))
        made = stages.do(method, ranges(corpus.count, HASH_ROWS), {"removed": before})
        copies[method] = files_of(made, "copies")
    band_rows += sum(sizes(one.store, one.rollup)[1] for one in earlier)
    said, inputs = near_stages(stages, band_rows, gone + tuple(chain.from_iterable(copies.values())))
    (survivors,) = stages.do("survivors", 1, copies | inputs)
    removed = remove(stages, survivors)
    (shared,) = stages.do("shares", 1, {"shares": removed.shares})
    return Deduplicated(
        rollup=replace(rollup, removed=removed.segments),
        says={
            "corpus": corpus.id,
            "documents": documents,
            **survivors.says,
            **said,
            "files": files_said(survivors, shared),
        },
        shares=shared.files["shares"],
    )


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Where the tasks of a corpus are done."""

    corpus: Corpus
    runner: Runner
    report: Report
    on_stage: OnStage

    def do(self, kind: str, count: int, inputs: Mapping[str, tuple[FileEntry, ...]]) -> list[Manifest]:
        """Do the tasks of one kind and return their manifests in order."""
        tasks = [
            DedupTask(corpus=self.corpus, kind=kind, index=index, count=count, inputs=inputs) for index in range(count)
        ]
        made = finish_stage(
            self.corpus.store,
            tasks[0].stage,
            tasks,
            count,
            self.runner,
            report=self.report,
            on_stage=lambda _, total, before: self.on_stage(f"{DEDUP} {kind}", total, before),
        )
        return [made[task.id] for task in tasks]


def ranges(rows: int, each: int) -> int:
    """Into how many ranges so many rows are cut."""
    return max(1, -(-rows // each))


def files_of(made: Sequence[Manifest], name: str) -> tuple[FileEntry, ...]:
    """One file of each of these tasks."""
    return tuple(manifest.files[name] for manifest in made)


def files_said(*made: Manifest) -> dict[str, Any]:
    """The files of these tasks by name, as run.json has them."""
    return {name: asdict(entry) for manifest in made for name, entry in manifest.files.items()}


def sizes(store: Store, rollup: Rollup) -> tuple[int, int]:
    """How many documents the tasks of a run kept before its dedup step, and how many rows of bands they stored."""
    documents = bands = 0
    for outcome in outcomes(store, rollup):
        documents += sum(entry.rows for entry in outcome.kept)
        bands += sum(prints["bands"].rows for prints in outcome.fingerprints if "bands" in prints)
    return documents, bands


def earlier_run(made: Finished, step: Dedup) -> Earlier:
    """A finished run to deduplicate against. Raises InputError where it did not store what this step compares."""
    theirs, ours = made.recipe.step(Dedup), step.fingerprints
    if theirs is None:
        raise InputError(
            f"--against {made.store.url}: its recipe has no dedup step, so nothing was stored to compare with."
        )
    if not set(step.exact) <= set(theirs.exact) or theirs.fingerprints.get("minhash") != ours.get("minhash"):
        raise InputError(
            f"--against {made.store.url}: it was fingerprinted otherwise. It has {theirs.fingerprints}, this recipe "
            f"{ours}. Take the same methods, ngram, bands, rows, hash, seed, words; threshold and precedence are free."
        )
    if step.minhash is not None and step.minhash.survivor == "datatrove":
        raise InputError(f"--against {made.store.url}: datatrove's survivors know no earlier run. Set mode: greedy.")
    return Earlier(store=made.store, rollup=made.rollup, documents=sizes(made.store, made.rollup)[0])


def near_stages(
    stages: Stages, band_rows: int, removed: tuple[FileEntry, ...]
) -> tuple[dict[str, Any], dict[str, tuple[FileEntry, ...]]]:
    """Pairs, and edges where they are verified: what was counted, and the files for the survivors."""
    near = stages.corpus.step.minhash
    if near is None:
        return {}, {}
    made = stages.do("pairs", ranges(band_rows, BAND_ROWS), {"removed": removed})
    pairs = files_of(made, "pairs")
    said = {"buckets": added(made, "buckets"), "left_out": sum(one.says.get("left_out", 0) for one in made)}
    if near.threshold is None:
        return said, {"pairs": pairs}
    count = ranges(stages.corpus.count, DOCUMENTS)
    attached = files_of(stages.do("attach", count, {"pairs": pairs}), "attached")
    made = stages.do("edges", count, {"attached": attached})
    said |= {name: sum(one.says[name] for one in made) for name in ("compared", "verified")}
    return said, {"edges": files_of(made, "edges")}


def added(made: Sequence[Manifest], name: str) -> dict[str, int]:
    """Counts by size of several tasks, added up, the small sizes first."""
    found: dict[int, int] = {}
    for manifest in made:
        for size, count in manifest.says.get(name, {}).items():
            found[int(size)] = found.get(int(size), 0) + count
    return {str(size): count for size, count in sorted(found.items())}


@dataclass(frozen=True, kw_only=True)
class Removals:
    """The segments of what tasks lose, and the files of their shares."""

    segments: tuple[str, ...]
    shares: tuple[FileEntry, ...]


def remove(stages: Stages, survivors: Manifest) -> Removals:
    """Do what each process task loses as a task of its own, and roll it up as those are. Holds their ids."""
    corpus = stages.corpus
    ids = [remove_id(corpus, outcome.task) for outcome in outcomes(corpus.store, corpus.rollup)]
    segments = Segments(corpus.store, ids, remove_stage(corpus))
    before = segments.done_before()

    def todo() -> Iterator[RemoveTask]:
        first = corpus.before
        removed, clusters = survivors.files["removed"], survivors.files["clusters"]
        for outcome in outcomes(corpus.store, corpus.rollup):
            task = RemoveTask(corpus=corpus, outcome=outcome, first=first, removed=removed, clusters=clusters)
            first += sum(entry.rows for entry in outcome.kept)
            if task.id not in before:
                yield task

    stages.on_stage(f"{DEDUP} remove", len(ids), len(before))
    for manifest in stages.runner.run(todo(), stages.report):
        stages.report(manifest.task, manifest.accounts, True)
        segments.add(manifest)
    rollup = replace(corpus.rollup, removed=segments.names)
    shares = tuple(outcome.removal["shares"] for outcome in outcomes(corpus.store, rollup))
    return Removals(segments=segments.names, shares=shares)


def check_shares(store: Store, shares: FileEntry, alarm: Alarm) -> None:
    """Raise SourceEmptied where a domain or a folder of input lost more than the alarm allows."""
    rows = read_table(file_of(store, shares)).to_pylist()
    emptied = [
        row
        for row in rows
        if row["documents"] >= alarm.documents and row["removed"] > alarm.fraction * row["documents"]
    ]
    if not emptied:
        return
    said = ", ".join(
        f"{row['kind']} {row['name']} loses {row['removed']:,} of {row['documents']:,}" for row in emptied[:SHOWN]
    )
    more = f", and {len(emptied) - SHOWN} more" if len(emptied) > SHOWN else ""
    raise SourceEmptied(
        f"dedup would take more than {alarm.fraction:.0%} of {len(emptied)} sources: {said}{more}. "
        "What was found is committed. Raise `threshold`, leave the source out, or accept it: the same command with "
        "--allow-emptied packs it, and `gristmill clusters` then shows what was taken for the same."
    )
