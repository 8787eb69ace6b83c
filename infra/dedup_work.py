"""What a worker does for a dedup step: hashes of a range to copies, bands of a range to pairs, pairs to verified edges,
edges to who falls, and that to what each task of the run loses.

Every task is cut by a range of hashes, of documents or of rows, and reads its part of the files of the tasks before it.
What is large is held by nobody but `survivors`; how much each kind of task holds says `infra.dedup_memory`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from infra.commit import FileEntry, Manifest, file_entry
from infra.failpoints import failpoint
from infra.rollup import Rollup, TaskOutcome, outcomes
from infra.stored import Store
from infra.work import Report, file_of, identity
from pipelines.accounts import Accounts
from pipelines.dedup.edges import Share, attached, counted, edges_of, numbers, pairs_of
from pipelines.dedup.fingerprints import FILES, fingerprint_schemas, write_sorted
from pipelines.dedup.ranges import (
    Bits,
    Range,
    Unit,
    add_bits,
    bits_of,
    copies_of,
    equal_ranges,
    hashed_rows,
    index_rows,
)
from pipelines.dedup.removal import (
    Removed,
    fallen,
    fallen_blocks,
    fallen_said,
    heads_of,
    named,
    removal_of,
    shares_of,
    with_ids,
)
from pipelines.dedup.step import Dedup, NearDuplicates
from pipelines.recipe import FORMAT
from pipelines.schema import read_table
from pipelines.storage import StoredFile

DEDUP = "dedup"
STAGES = 2
"""Raise where the stages write other files for the same corpus."""
BAND_BYTES = 448 << 20
"""Rows of bands in one range: 16 Mi of them, and 5 Mi with the eight minima that datatrove's survivors hang on."""
HASH_ROWS = 4 << 20
"""Rows of 128-bit hashes in one range; each has an id."""
DOCUMENTS = 2 << 20
"""Documents in one range, and those that fall in one piece, whose ids one task holds."""
SAMPLED_UNITS, SAMPLED_HASHES = 64, 4 << 20
"""Of how many units hashes are sampled, and about how many of them."""
INDEX, AFTER = "index_", "after_"
"""Before the name of a file of hashes: the stage that merges those of all tasks, by ranges. Before that of an exact
method: the stage that says who has fallen with it and those before it.
"""

Inputs = Mapping[str, Sequence[FileEntry]]
Blocks = Iterable[tuple[str, pa.Table]]
"""Tables by the name of their file; those of one file one after the other."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """The hashes of one kind of all documents of a run: ranges of them, ascending, and the file of each."""

    ranges: Sequence[Range]
    files: Sequence[StoredFile]


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """A finished run against whose kept documents another is deduplicated. `documents`: before its own step.

    band_rows: rows of bands that they have. gone: a bit for each of them, set where its own step removed it. index: by
    the name of the tasks' files that it merges.
    """

    store: Store
    rollup: Rollup
    documents: int
    band_rows: int
    gone: StoredFile
    index: Mapping[str, Index]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The kept documents of a run, the step that looks for copies among them, and the runs that come before it."""

    store: Store
    rollup: Rollup
    step: Dedup
    documents: int
    earlier: tuple[Earlier, ...] = ()

    @cached_property
    def id(self) -> str:
        """Hash of the step and of what was committed; a retry makes another corpus."""
        return self.id_for(None)

    def id_for(self, kind: str | None) -> str:
        """The same with as much as bears on this kind of task: another threshold finds no pairs anew, and other earlier
        runs merge no hashes anew.
        """
        retries = {task: list(levels) for task, levels in sorted(self.rollup.retries.items())}
        step = self.step.identity if kind is None else self.step.identity_for(kind)
        before = () if kind is not None and kind.startswith(INDEX) else self.earlier
        earlier = [[one.store.url, *one.rollup.segments, *one.rollup.removed] for one in before]
        return identity(DEDUP, FORMAT, STAGES, step, list(self.rollup.segments), retries, earlier)

    @property
    def near(self) -> NearDuplicates:
        """What near-duplicates are, in a stage that looks for them."""
        assert self.step.minhash is not None
        return self.step.minhash

    @property
    def before(self) -> int:
        """How many documents the earlier runs have."""
        return sum(one.documents for one in self.earlier)

    @property
    def count(self) -> int:
        """How many documents there are in all."""
        return self.before + self.documents

    @property
    def ranges(self) -> list[Range]:
        """Ranges of documents."""
        return equal_ranges(self.count, max(1, -(-self.count // DOCUMENTS)))

    def units(self, within: Range | None = None) -> Iterator[Unit]:
        """The units in order, those of earlier runs first; without the runs that have no document within a range."""
        first = 0
        runs = [(one.store, one.rollup, one.documents) for one in self.earlier]
        for store, rollup, documents in (*runs, (self.store, self.rollup, self.documents)):
            if within is None or (first <= within.high and first + documents > within.low):
                yield from units_of_run(store, rollup, first)
            first += documents

    def files(self, entries: Sequence[FileEntry]) -> list[StoredFile]:
        """Committed files as the pipeline reads them."""
        return [file_of(self.store, entry) for entry in entries]


def units_of_run(store: Store, rollup: Rollup, first: int) -> Iterator[Unit]:
    """The units of a run, the first of which begins with this document."""
    for outcome in outcomes(store, rollup):
        for unit in units_of(store, outcome, first):
            yield unit
            first += unit.rows


def units_of(store: Store, outcome: TaskOutcome, first: int) -> Iterator[Unit]:
    """The units of one task, the first of which begins with this document."""
    for kept, prints in zip(outcome.kept, outcome.fingerprints, strict=True):
        files = {"kept": kept, **prints}
        yield Unit(first=first, rows=kept.rows, files={name: file_of(store, entry) for name, entry in files.items()})
        first += kept.rows


@dataclass(frozen=True, kw_only=True)
class DedupTask:
    """One piece of the work: its share of hashes, documents or rows. `inputs` are files of the tasks before it by name,
    `index` the hashes of its range, a unit for each file of each run.
    """

    corpus: Corpus
    kind: str
    share: Share
    inputs: Inputs
    index: tuple[Unit, ...] = ()

    @property
    def store(self) -> Store:
        """Where it reads and writes."""
        return self.corpus.store

    @property
    def stage(self) -> str:
        """The stage of this kind of task, for this corpus."""
        return stage_name(self.corpus, self.kind)

    @property
    def id(self) -> str:
        """Which share: all else follows from the corpus, and with it from the stage's name."""
        part = f"-{self.share.part}-of-{self.share.parts}" if self.share.parts > 1 else ""
        return f"{self.share.within.low:x}-{self.share.within.high:x}{part}"


@dataclass(frozen=True, kw_only=True)
class RemoveTask:
    """What one process task loses. `first` is the number of its first document; `removed` and `clusters` are the files
    that speak of its documents.
    """

    corpus: Corpus
    outcome: TaskOutcome
    first: int
    removed: tuple[FileEntry, ...]
    clusters: tuple[FileEntry, ...]

    @property
    def store(self) -> Store:
        """Where it reads and writes."""
        return self.corpus.store

    @property
    def stage(self) -> str:
        """The stage of these tasks, for this corpus."""
        return remove_stage(self.corpus)

    @property
    def id(self) -> str:
        """Hash of the corpus and the task: the name of a segment is a hash of such ids alone."""
        return remove_id(self.corpus, self.outcome.task)


def stage_name(corpus: Corpus, kind: str) -> str:
    """The stage of a kind of task, for this corpus."""
    return f"{DEDUP}/{corpus.id_for(kind)}/{kind}"


def remove_stage(corpus: Corpus) -> str:
    """The stage of the tasks that say what each process task loses."""
    return f"{DEDUP}/{corpus.id}/remove"


def remove_id(corpus: Corpus, task: str) -> str:
    """The id of the task that says what this process task loses."""
    return identity(DEDUP, corpus.id, task)


def read_column(file: StoredFile, name: str) -> Any:
    """One column of a stored Parquet file as an array, row group by row group joined."""
    return read_table(file, columns=[name]).column(0).to_numpy()


def removed_before(task: DedupTask) -> Bits:
    """A bit for every document that earlier methods removed."""
    files = task.corpus.files(task.inputs.get("gone", ()))
    bits: Bits = read_column(files[0], "bits") if files else bits_of((), task.corpus.count)
    return bits


def bit_table(bits: Bits) -> pa.Table:
    """Bits as they are stored."""
    return pa.table({"bits": bits})


def perform_earlier(task: DedupTask) -> tuple[Blocks, dict[str, Any]]:
    """The documents that earlier runs removed as copies: they stand for nothing any more."""
    bits, first = bits_of((), task.corpus.count), 0
    for one in task.corpus.earlier:
        add_bits(bits, read_column(one.gone, "bits"), first)
        first += one.documents
    return [("gone", bit_table(bits))], {}


def perform_index(task: DedupTask) -> tuple[Blocks, dict[str, Any]]:
    """The hashes of a range of all documents of this run."""
    corpus, name = task.corpus, task.kind.removeprefix(INDEX)
    units = units_of_run(corpus.store, corpus.rollup, 0)
    return [("index", index_rows(units, name, task.share.within, fingerprint_schemas(corpus.step)[name]))], {}


def perform_copies(task: DedupTask) -> tuple[Blocks, dict[str, Any]]:
    """Documents of a range of hashes that are copies by the method that the task is called after."""
    columns = ["high", "low", "order", "id"]
    table = hashed_rows(task.index, FILES[task.kind], task.share.within, removed_before(task), columns)
    return [("copies", copies_of(table, task.corpus.before))], {}


def perform_after(task: DedupTask) -> tuple[Blocks, dict[str, Any]]:
    """A bit for every document that the method removed, or one before it."""
    copies = (read_column(file, "document") for file in task.corpus.files(task.inputs["copies"]))
    return [("gone", bit_table(bits_of(copies, task.corpus.count) | removed_before(task)))], {}


def perform_hashes(task: DedupTask) -> tuple[Blocks, dict[str, Any]]:
    """A sorted sample of the hashes of all bands: as many of each `SAMPLED_UNITS`th part of the units."""
    units = list(units_of_run(task.corpus.store, task.corpus.rollup, 0))
    units = units[:: max(1, len(units) // SAMPLED_UNITS)]
    stride = max(1, sum(unit.rows for unit in units) * task.corpus.near.bands // SAMPLED_HASHES)
    found = [np.zeros(0, np.uint64), *(read_column(unit.files["bands"], "hash")[::stride] for unit in units)]
    return [("hashes", pa.table({"hash": np.sort(np.concatenate(found))}))], {}


def perform_pairs(task: DedupTask) -> tuple[Blocks, dict[str, Any]]:
    """Candidate pairs of a range of bands, how large its buckets are, and how many pairs each cell of first documents
    has.
    """
    corpus, near = task.corpus, task.corpus.near
    columns = ["hash", "order", "tie"] + (["values"] if near.values_bytes else [])
    table = hashed_rows(task.index, "bands", task.share.within, removed_before(task), columns)
    tables, said = pairs_of(table, near, corpus.before)
    return counting(corpus, "pairs", "first", tables), said


def counting(corpus: Corpus, name: str, column: str, tables: Iterable[pa.Table]) -> Blocks:
    """These tables of pairs, and at the end how many of them each cell of documents has by this column."""
    rows = counted(np.zeros(0, np.int64), corpus.count, corpus.near)
    for table in tables:
        rows += counted(numbers(table, column), corpus.count, corpus.near)
        yield name, table
    yield "counts", pa.table({"rows": rows})


def perform_counts(task: DedupTask) -> tuple[Blocks, dict[str, Any]]:
    """The counts of several tasks added up."""
    rows = counted(np.zeros(0, np.int64), task.corpus.count, task.corpus.near)
    for file in task.corpus.files(task.inputs["counts"]):
        rows += read_column(file, "rows")
    return [("counts", pa.table({"rows": rows}))], {}


def perform_attach(task: DedupTask) -> tuple[Blocks, dict[str, Any]]:
    """Pairs whose first document lies in a range of documents, with its sketch."""
    corpus = task.corpus
    files = corpus.files(task.inputs["pairs"])
    found = attached(corpus.units(task.share.within), files, task.share, corpus.near)
    return counting(corpus, "attached", "second", found), {}


def perform_edges(task: DedupTask) -> tuple[Blocks, dict[str, Any]]:
    """Pairs whose second document lies in a range of documents and whose sketches agree well enough."""
    corpus = task.corpus
    files = corpus.files(task.inputs["attached"])
    found, said = edges_of(corpus.units(task.share.within), files, task.share, corpus.near, corpus.before)
    return [("edges", found)], said


def perform_survivors(task: DedupTask) -> tuple[Blocks, dict[str, Any]]:
    """Everything that falls, with what stands for it, by ranges of documents; the same by what stands for it, in
    pieces; and a bit for each document of this run that falls.
    """
    corpus = task.corpus
    copies = {method: corpus.files(task.inputs[method]) for method in corpus.step.exact}
    edges, pairs = (corpus.files(task.inputs.get(name, ())) for name in ("edges", "pairs"))
    fell = fallen(corpus.step, corpus.units, copies, edges, pairs, corpus.count, corpus.before)
    heads = heads_of(fell)
    gone = bits_of([fell.documents - corpus.before], corpus.documents)
    blocks = fallen_blocks(fell, heads, corpus.ranges, DOCUMENTS)
    return chain([("gone", bit_table(gone))], blocks), fallen_said(fell, heads)


def perform_named(task: DedupTask) -> tuple[Blocks, dict[str, Any]]:
    """The id of what stands for each document of a piece."""
    (members,) = task.corpus.files(task.inputs["members"])
    return [("named", named(task.corpus.units(), members))], {}


def perform_removed(task: DedupTask) -> tuple[Blocks, dict[str, Any]]:
    """All that is known of each document of a range that falls."""
    corpus = task.corpus
    (fell,) = corpus.files(task.inputs["fallen"])
    earlier = [(one.store.url, one.documents) for one in corpus.earlier]
    return [("removed", with_ids(fell, corpus.files(task.inputs["named"]), task.share.within, earlier))], {}


def perform_shares(task: DedupTask) -> tuple[Blocks, dict[str, Any]]:
    """How much each domain and each folder of input lost."""
    return [("shares", shares_of(task.corpus.files(task.inputs["shares"]), task.corpus.step.alarm))], {}


PERFORMED: dict[str, Callable[[DedupTask], tuple[Blocks, dict[str, Any]]]] = {
    **dict.fromkeys((INDEX + name for name in (*FILES.values(), "bands")), perform_index),
    "earlier": perform_earlier,
    **dict.fromkeys(FILES, perform_copies),
    **dict.fromkeys((AFTER + method for method in FILES), perform_after),
    "hashes": perform_hashes,
    "pairs": perform_pairs,
    "firsts": perform_counts,
    "attach": perform_attach,
    "seconds": perform_counts,
    "edges": perform_edges,
    "survivors": perform_survivors,
    "named": perform_named,
    "removed": perform_removed,
    "shares": perform_shares,
}
"""By kind of task."""


def perform_dedup(task: DedupTask, report: Report) -> Manifest:
    """Do one piece and write its tables."""
    report(task.id, Accounts())
    blocks, said = PERFORMED[task.kind](task)
    with written(task, f"{task.kind}-{task.corpus.id_for(task.kind)[:8]}-{task.id}", blocks) as files:
        return Manifest(stage=task.stage, task=task.id, says=said, files=files)


def perform_remove(task: RemoveTask, report: Report) -> Manifest:
    """Write what a process task loses; the account is the change of its account."""
    report(task.id, Accounts())
    units = list(units_of(task.store, task.outcome, task.first))
    removed = Removed(removed=task.corpus.files(task.removed), clusters=task.corpus.files(task.clusters))
    tables, change = removal_of(units, removed)
    with written(task, f"remove-{task.id}", tables.items()) as files:
        return Manifest(stage=task.stage, task=task.id, says={}, files=files, accounts=change)


@contextmanager
def written(task: DedupTask | RemoveTask, name: str, blocks: Blocks) -> Iterator[dict[str, FileEntry]]:
    """The entries of these tables, each name a file of an attempt."""
    with task.store.attempt(name) as attempt:
        folder = Path(attempt.folder)
        rows = {
            stem: write_sorted(folder / f"{stem}.parquet", (table for _, table in tables))
            for stem, tables in groupby(blocks, key=itemgetter(0))
        }
        failpoint("attempt.written")
        yield {stem: file_entry(task.store, attempt, folder / f"{stem}.parquet", count) for stem, count in rows.items()}
