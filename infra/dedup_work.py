"""What a worker does for a dedup step: hashes of a range to copies, bands of a range to pairs, pairs to verified edges,
edges to who falls, and that to what each task of the run loses.

Every task is cut by a range of hashes or of documents, and reads its part of the files of all tasks before it. What
is large is held by nobody: a range of bands is about `BAND_ROWS` rows of 24 bytes, a range of documents about
`DOCUMENTS` sketches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
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
from pipelines.dedup.edges import attached, edges_of, pairs_within
from pipelines.dedup.fingerprints import FILES, write_sorted
from pipelines.dedup.ranges import Bits, Unit, bits_of, copies_within, document_range, hash_range
from pipelines.dedup.removal import Removed, fallen, removal_of, shares_of
from pipelines.dedup.step import Dedup
from pipelines.recipe import FORMAT
from pipelines.schema import read_table
from pipelines.storage import StoredFile

DEDUP = "dedup"
BAND_ROWS = 16 << 20
"""Rows of bands in one range."""
HASH_ROWS = 4 << 20
"""Rows of 128-bit hashes in one range; each has an id."""
DOCUMENTS = 2 << 20
"""Documents whose sketches one task holds: 450 MiB of them at 14 x 8."""


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """A finished run against whose kept documents another is deduplicated. `documents`: before its own step."""

    store: Store
    rollup: Rollup
    documents: int


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
        """The same with as much of the step as bears on this kind of task: another threshold finds no pairs anew."""
        retries = {task: list(levels) for task, levels in sorted(self.rollup.retries.items())}
        step = self.step.identity if kind is None else self.step.identity_for(kind)
        earlier = [[one.store.url, *one.rollup.segments, *one.rollup.removed] for one in self.earlier]
        return identity(DEDUP, FORMAT, step, list(self.rollup.segments), retries, earlier)

    @property
    def before(self) -> int:
        """How many documents the earlier runs have."""
        return sum(one.documents for one in self.earlier)

    @property
    def count(self) -> int:
        """How many documents there are in all."""
        return self.before + self.documents

    @property
    def units(self) -> Iterator[Unit]:
        """The units in order, those of earlier runs first."""
        first = 0
        runs = [(one.store, one.rollup) for one in self.earlier]
        for store, rollup in (*runs, (self.store, self.rollup)):
            for outcome in outcomes(store, rollup):
                for unit in units_of(store, outcome, first):
                    yield unit
                    first += unit.rows

    def files(self, entries: Sequence[FileEntry]) -> list[StoredFile]:
        """Committed files as the pipeline reads them."""
        return [file_of(self.store, entry) for entry in entries]


def units_of(store: Store, outcome: TaskOutcome, first: int) -> Iterator[Unit]:
    """The units of one task, the first of which begins with this document."""
    for kept, prints in zip(outcome.kept, outcome.fingerprints, strict=True):
        files = {"kept": kept, **prints}
        yield Unit(first=first, rows=kept.rows, files={name: file_of(store, entry) for name, entry in files.items()})
        first += kept.rows


@dataclass(frozen=True, kw_only=True)
class DedupTask:
    """One piece of the work. `index` of `count` is its range; `inputs` are files of the tasks before it, by name."""

    corpus: Corpus
    kind: str
    index: int
    count: int
    inputs: Mapping[str, tuple[FileEntry, ...]]

    @property
    def store(self) -> Store:
        """Where it reads and writes."""
        return self.corpus.store

    @property
    def stage(self) -> str:
        """The stage of this kind of task, for this corpus."""
        return f"{DEDUP}/{self.corpus.id_for(self.kind)}/{self.kind}"

    @property
    def id(self) -> str:
        """Which range: all else follows from the corpus, and with it from the stage's name."""
        return f"{self.index:06d}-of-{self.count:06d}"


@dataclass(frozen=True, kw_only=True)
class RemoveTask:
    """What one process task loses. `first` is the number of its first document; `removed` and `clusters` are those of
    all documents.
    """

    corpus: Corpus
    outcome: TaskOutcome
    first: int
    removed: FileEntry
    clusters: FileEntry

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


def remove_stage(corpus: Corpus) -> str:
    """The stage of the tasks that say what each process task loses."""
    return f"{DEDUP}/{corpus.id}/remove"


def remove_id(corpus: Corpus, task: str) -> str:
    """The id of the task that says what this process task loses."""
    return identity(DEDUP, corpus.id, task)


def removed_before(task: DedupTask) -> Bits:
    """A bit for every document that an earlier method removed."""
    return gathered_bits(task.corpus, task.inputs.get("removed", ()))


def gathered_bits(corpus: Corpus, entries: Sequence[FileEntry]) -> Bits:
    """A bit for every document of these files."""
    columns = (read_column(file, "document") for file in corpus.files(entries))
    return bits_of(columns, corpus.count)


def read_column(file: StoredFile, name: str) -> Any:
    """One column of a stored Parquet file as an array, row group by row group joined."""
    return read_table(file, columns=[name]).column(0).to_numpy()


def perform_earlier(task: DedupTask) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """The documents that earlier runs removed as copies: they stand for nothing any more."""
    gone, first = [np.zeros(0, np.int64)], 0
    for one in task.corpus.earlier:
        for outcome in outcomes(one.store, one.rollup):
            starts = []
            for unit in units_of(one.store, outcome, first):
                starts.append(unit.first)
                first += unit.rows
            if outcome.removal:
                rows = read_table(file_of(one.store, outcome.removal["duplicates"]), columns=["file", "row"])
                file, row = (rows.column(name).to_numpy().astype(np.int64) for name in ("file", "row"))
                gone.append(np.sort(np.array(starts, np.int64)[file] + row))
    return {"gone": pa.table({"document": np.concatenate(gone)})}, {}


def perform_copies(task: DedupTask) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """Documents of a range of hashes that are copies by the method that the task is called after."""
    within = hash_range(task.index, task.count)
    corpus = task.corpus
    found = copies_within(corpus.units, FILES[task.kind], within, removed_before(task), corpus.before)
    return {"copies": found}, {}


def perform_pairs(task: DedupTask) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """Candidate pairs of a range of bands, and how large its buckets are."""
    near = task.corpus.step.minhash
    assert near is not None
    within = hash_range(task.index, task.count)
    table, said = pairs_within(task.corpus.units, within, removed_before(task), near, task.corpus.before)
    return {"pairs": table}, said


def perform_attach(task: DedupTask) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """Pairs whose first document lies in a range of documents, with its sketch."""
    near = task.corpus.step.minhash
    assert near is not None
    within = document_range(task.index, task.count, task.corpus.count)
    found = attached(task.corpus.units, task.corpus.files(task.inputs["pairs"]), within, near)
    return {"attached": found}, {}


def perform_edges(task: DedupTask) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """Pairs whose second document lies in a range of documents and whose sketches agree well enough."""
    near = task.corpus.step.minhash
    assert near is not None
    corpus = task.corpus
    within = document_range(task.index, task.count, corpus.count)
    found, said = edges_of(corpus.units, corpus.files(task.inputs["attached"]), within, near, corpus.before)
    return {"edges": found}, said


def perform_survivors(task: DedupTask) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """Everything that falls, with what stands for it, and how many each of those stands for."""
    corpus = task.corpus
    copies = {method: corpus.files(task.inputs[method]) for method in corpus.step.exact}
    edges = corpus.files(task.inputs.get("edges", ()))
    pairs = corpus.files(task.inputs.get("pairs", ()))
    earlier = [(one.store.url, one.documents) for one in corpus.earlier]
    result = fallen(corpus.step, lambda: corpus.units, copies, edges, pairs, corpus.count, earlier)
    return {"removed": result.removed, "clusters": result.clusters}, dict(result.says)


def perform_shares(task: DedupTask) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """How much each domain and each folder of input lost."""
    return {"shares": shares_of(task.corpus.files(task.inputs["shares"]), task.corpus.step.alarm)}, {}


PERFORMED: dict[str, Callable[[DedupTask], tuple[dict[str, pa.Table], dict[str, Any]]]] = {
    "earlier": perform_earlier,
    **dict.fromkeys(FILES, perform_copies),
    "pairs": perform_pairs,
    "attach": perform_attach,
    "edges": perform_edges,
    "survivors": perform_survivors,
    "shares": perform_shares,
}
"""By kind of task."""


def perform_dedup(task: DedupTask, report: Report) -> Manifest:
    """Do one piece and write its tables."""
    report(task.id, Accounts())
    tables, said = PERFORMED[task.kind](task)
    with written(task, f"{task.kind}-{task.corpus.id_for(task.kind)[:8]}-{task.index}", tables) as files:
        return Manifest(stage=task.stage, task=task.id, says=said, files=files)


def perform_remove(task: RemoveTask, report: Report) -> Manifest:
    """Write what a process task loses; the account is the change of its account."""
    report(task.id, Accounts())
    units = list(units_of(task.store, task.outcome, task.first))
    removed = Removed(removed=file_of(task.store, task.removed), clusters=file_of(task.store, task.clusters))
    tables, change = removal_of(units, removed)
    with written(task, f"remove-{task.id}", tables) as files:
        return Manifest(stage=task.stage, task=task.id, says={}, files=files, accounts=change)


@contextmanager
def written(task: DedupTask | RemoveTask, name: str, tables: Mapping[str, pa.Table]) -> Iterator[dict[str, FileEntry]]:
    """The entries of these tables, each a file of an attempt."""
    with task.store.attempt(name) as attempt:
        for stem, table in tables.items():
            write_sorted(Path(attempt.folder) / f"{stem}.parquet", table)
        failpoint("attempt.written")
        yield {
            stem: file_entry(task.store, attempt, Path(attempt.folder) / f"{stem}.parquet", table.num_rows)
            for stem, table in tables.items()
        }
