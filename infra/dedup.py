"""The stages of a dedup step, one after the other, from what the process tasks stored to what each of them loses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from filters.errors import InputError, SourceEmptied
from infra.commit import FileEntry, Manifest
from infra.dedup_work import (
    AFTER,
    BAND_BYTES,
    DEDUP,
    HASH_ROWS,
    INDEX,
    Corpus,
    DedupTask,
    Earlier,
    Index,
    Inputs,
    RemoveTask,
    read_column,
    remove_id,
    remove_stage,
    stage_name,
)
from infra.finish import OnStage, finish_stage
from infra.rollup import Rollup, Segments, outcomes
from infra.runner import Runner
from infra.stored import Store
from infra.work import Report, file_of
from pipelines.dedup.edges import Share, shares_of_pairs
from pipelines.dedup.fingerprints import FILES
from pipelines.dedup.ranges import HASHES, Range, Unit, equal_ranges, ranges_between, ranges_overlapping
from pipelines.dedup.step import Alarm, Dedup
from pipelines.schema import read_table
from pipelines.storage import StoredFile

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
    # Where the hashes of earlier runs lie is told each task for its range: all of it is a megabyte a run.
    known = tuple(replace(one, index={}) for one in earlier)
    corpus = Corpus(store=store, rollup=rollup, step=step, documents=documents, earlier=known)
    stages = Stages(corpus=corpus, runner=runner, report=report, on_stage=on_stage, indexes=())
    own = index_stages(stages, band_rows)
    stages = replace(stages, indexes=[*(one.index for one in earlier), own])
    exact = exact_stages(stages)
    near = near_stages(stages, band_rows + sum(one.band_rows for one in earlier), exact.gone)
    (survivors,) = stages.whole("survivors", {**exact.inputs, **near.inputs})
    removed = removed_stages(stages, survivors)
    lost = remove(stages, removed, numbered(survivors, "clusters"))
    (shared,) = stages.whole("shares", {"shares": lost.shares})
    files = {
        "gone": [survivors.files["gone"]],
        "removed": removed,
        "clusters": numbered(survivors, "clusters"),
        "shares": [shared.files["shares"]],
    }
    return Deduplicated(
        rollup=replace(rollup, removed=lost.segments),
        says={
            "corpus": corpus.id,
            "documents": documents,
            "band_rows": band_rows,
            **survivors.says,
            **near.says,
            "files": {name: [asdict(entry) for entry in entries] for name, entries in files.items()},
            "index": {name: index_said(one, store) for name, one in own.items()},
        },
        shares=shared.files["shares"],
    )


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Where the tasks of a corpus are done. `indexes` are those of the earlier runs, and its own at the end."""

    corpus: Corpus
    runner: Runner
    report: Report
    on_stage: OnStage
    indexes: Sequence[Mapping[str, Index]]

    def do(self, kind: str, pieces: Sequence[tuple[Share, Inputs]], hashes: str | None = None) -> list[Manifest]:
        """Do the tasks of one kind and return their manifests in order. `hashes` is the file of the index they read."""
        tasks = [
            DedupTask(
                corpus=self.corpus,
                kind=kind,
                share=share,
                inputs=inputs,
                index=() if hashes is None else self.indexed(hashes, share.within),
            )
            for share, inputs in pieces
        ]
        made = finish_stage(
            self.corpus.store,
            stage_name(self.corpus, kind),
            tasks,
            len(tasks),
            self.runner,
            report=self.report,
            on_stage=lambda _, total, before: self.on_stage(f"{DEDUP} {kind}", total, before),
        )
        return [made[task.id] for task in tasks]

    def whole(self, kind: str, inputs: Inputs) -> list[Manifest]:
        """Do the one task of a kind that is not cut."""
        return self.do(kind, [(Share(within=Range(low=0, high=self.corpus.count - 1)), inputs)])

    def indexed(self, name: str, within: Range) -> tuple[Unit, ...]:
        """The files of this name in the indexes that have hashes in a range, as units of their runs."""
        found, first = [], 0
        sizes = [*(one.documents for one in self.corpus.earlier), self.corpus.documents]
        for documents, index in zip(sizes, (one[name] for one in self.indexes), strict=True):
            some = index.files[ranges_overlapping(index.ranges, within)]
            found += [Unit(first=first, rows=documents, files={name: file}) for file in some]
            first += documents
        return tuple(found)


def pieces(ranges: Sequence[Range], inputs: Inputs) -> list[tuple[Share, Inputs]]:
    """Each of these ranges with the same inputs."""
    return [(Share(within=within), inputs) for within in ranges]


def counted_ranges(rows: int, each: int) -> int:
    """Into how many ranges so many rows are cut."""
    return max(1, -(-rows // each))


def files_of(made: Sequence[Manifest], name: str) -> tuple[FileEntry, ...]:
    """One file of each of these tasks."""
    return tuple(manifest.files[name] for manifest in made)


def numbered(made: Manifest, name: str) -> list[FileEntry]:
    """The files of one task that are called by this name and a number, in order."""
    return [entry for stem, entry in sorted(made.files.items()) if stem.startswith(f"{name}-")]


def index_said(index: Index, store: Store) -> list[list[Any]]:
    """An index as run.json has it, and `index_from` reads it: low, high, name in the store, bytes."""
    prefix = f"{store.url}/"
    return [
        [one.low, one.high, file.url.removeprefix(prefix), file.bytes]
        for one, file in zip(index.ranges, index.files, strict=True)
    ]


def index_from(store: Store, said: Sequence[Sequence[Any]]) -> Index:
    """The index that a run.json says."""
    return Index(
        ranges=[Range(low=low, high=high) for low, high, _, _ in said],
        files=[StoredFile(url=f"{store.url}/{name}", bytes=size) for _, _, name, size in said],
    )


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
    said = made.dedup
    return Earlier(
        store=made.store,
        rollup=made.rollup,
        documents=said["documents"],
        band_rows=said["band_rows"],
        gone=file_of(made.store, FileEntry(**said["files"]["gone"][0])),
        index={name: index_from(made.store, files) for name, files in said["index"].items()},
    )


def index_stages(stages: Stages, band_rows: int) -> dict[str, Index]:
    """The hashes of all tasks of the run merged by ranges, by the name of their files: each task's are read once a
    range here, and by no stage or later run again.
    """
    corpus, near = stages.corpus, stages.corpus.step.minhash
    hashed = equal_ranges(HASHES, counted_ranges(corpus.documents, HASH_ROWS))
    ranges = {FILES[method]: hashed for method in corpus.step.exact}
    if near is not None:
        count = counted_ranges(band_rows * near.band_bytes, BAND_BYTES)
        ranges["bands"] = crowded_ranges(stages, count) if near.values_bytes else equal_ranges(HASHES, count)
    return {
        name: Index(ranges=some, files=corpus.files(files_of(stages.do(INDEX + name, pieces(some, {})), "index")))
        for name, some in ranges.items()
    }


def crowded_ranges(stages: Stages, count: int) -> list[Range]:
    """Ranges of datatrove's hashes, which crowd near the least of each band, cut by a sample."""
    (made,) = stages.whole("hashes", {})
    sample = read_column(file_of(stages.corpus.store, made.files["hashes"]), "hash")
    return ranges_between(sample, count)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What some methods found: figures, the files for the survivors by name, and the bits of all that fell by them or
    before.
    """

    says: Mapping[str, Any]
    inputs: Inputs
    gone: tuple[FileEntry, ...]


def exact_stages(stages: Stages) -> Found:
    """Copies by each exact method among what those before it left."""
    corpus = stages.corpus
    copies: dict[str, tuple[FileEntry, ...]] = {}
    gone = files_of(stages.whole("earlier", {}), "gone") if corpus.earlier else ()
    ranges = equal_ranges(HASHES, counted_ranges(corpus.count, HASH_ROWS))
    for method in corpus.step.exact:
        copies[method] = files_of(stages.do(method, pieces(ranges, {"gone": gone}), FILES[method]), "copies")
        gone = files_of(stages.whole(AFTER + method, {"gone": gone, "copies": copies[method]}), "gone")
    return Found(says={}, inputs=copies, gone=gone)


def near_stages(stages: Stages, band_rows: int, gone: tuple[FileEntry, ...]) -> Found:
    """Pairs, and edges where they are verified."""
    near = stages.corpus.step.minhash
    if near is None:
        return Found(says={}, inputs={}, gone=gone)
    ranges = equal_ranges(HASHES, counted_ranges(band_rows * near.band_bytes, BAND_BYTES))
    if near.values_bytes:
        ranges = list(stages.indexes[-1]["bands"].ranges)
    made = stages.do("pairs", pieces(ranges, {"gone": gone}), "bands")
    pairs = files_of(made, "pairs")
    said = {"buckets": added(made, "buckets"), "left_out": sum(one.says.get("left_out", 0) for one in made)}
    if near.threshold is None:
        return Found(says=said, inputs={"pairs": pairs}, gone=gone)
    made = stages.do("attach", [(share, {"pairs": pairs}) for share in shares(stages, "firsts", made)])
    attached = files_of(made, "attached")
    made = stages.do("edges", [(share, {"attached": attached}) for share in shares(stages, "seconds", made)])
    said |= {name: sum(one.says[name] for one in made) for name in ("compared", "verified")}
    return Found(says=said, inputs={"edges": files_of(made, "edges")}, gone=gone)


def shares(stages: Stages, kind: str, made: Sequence[Manifest]) -> list[Share]:
    """The shares of the pairs that these tasks counted."""
    (found,) = stages.whole(kind, {"counts": files_of(made, "counts")})
    corpus = stages.corpus
    return shares_of_pairs(read_column(file_of(corpus.store, found.files["counts"]), "rows"), corpus.count, corpus.near)


def added(made: Sequence[Manifest], name: str) -> dict[str, int]:
    """Counts by size of several tasks, added up, the small sizes first."""
    found: dict[int, int] = {}
    for manifest in made:
        for size, count in manifest.says.get(name, {}).items():
            found[int(size)] = found.get(int(size), 0) + count
    return {str(size): count for size, count in sorted(found.items())}


def removed_stages(stages: Stages, survivors: Manifest) -> list[FileEntry]:
    """What is known of every document that falls, a file for each range of documents."""
    members, at = [], 0
    for entry in numbered(survivors, "members"):
        members.append((Share(within=Range(low=at, high=at + entry.rows - 1)), {"members": [entry]}))
        at += entry.rows
    named = files_of(stages.do("named", members), "named")
    fell = zip(stages.corpus.ranges, numbered(survivors, "fallen"), strict=True)
    made = stages.do("removed", [(Share(within=one), {"fallen": [entry], "named": named}) for one, entry in fell])
    return list(files_of(made, "removed"))


@dataclass(frozen=True, kw_only=True)
class Removals:
    """The segments of what tasks lose, and the files of their shares."""

    segments: tuple[str, ...]
    shares: tuple[FileEntry, ...]


def remove(stages: Stages, removed: Sequence[FileEntry], clusters: Sequence[FileEntry]) -> Removals:
    """Do what each process task loses as a task of its own, and roll it up as those are. Holds their ids."""
    corpus, ranges = stages.corpus, stages.corpus.ranges
    ids = [remove_id(corpus, outcome.task) for outcome in outcomes(corpus.store, corpus.rollup)]
    segments = Segments(corpus.store, ids, remove_stage(corpus))
    before = segments.done_before()

    def todo() -> Iterator[RemoveTask]:
        first = corpus.before
        for outcome in outcomes(corpus.store, corpus.rollup):
            rows = sum(entry.rows for entry in outcome.kept)
            some = ranges_overlapping(ranges, Range(low=first, high=first + rows - 1))
            files = {"removed": tuple(removed[some]), "clusters": tuple(clusters[some])}
            task = RemoveTask(corpus=corpus, outcome=outcome, first=first, **files)
            first += rows
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
        f"dedup would take more than {alarm.fraction:.0%} of {len(emptied)} sources (a domain with all its hosts, a "
        f"folder of input): {said}{more}. "
        "What was found is committed. Raise `threshold`, leave the source out, or accept it: the same command with "
        "--allow-emptied packs it, and `gristmill clusters` then shows what was taken for the same."
    )
