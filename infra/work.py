"""What a worker does: one task from its slices or rows to its manifest. Plain functions of picklable values."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from filters.errors import InputChanged
from infra.commit import FileEntry, Manifest, file_entry
from infra.failpoints import failpoint
from infra.stored import Attempt, Store
from pipelines.accounts import Accounts
from pipelines.decide import Decider
from pipelines.dedup.step import Dedup
from pipelines.pack import Run, smallest, write_part, write_rows
from pipelines.process import TaskOptions, process, reprocess
from pipelines.read import record_starts
from pipelines.recipe import FORMAT
from pipelines.record import Position, Slice, Source
from pipelines.schema import CLUSTERS, DATASET, SHOWN_DUPLICATES
from pipelines.signals import signals_identity
from pipelines.sources import current_version
from pipelines.storage import StoredFile


class Report(Protocol):
    """Told a task's id and its account so far, and whether that was all; for display only.

    A task that makes no account of documents tells what its own command shows; where that has a `step` that grows, its
    deadline counts anew with each (infra/schedule.py).
    """

    def __call__(self, task: str, account: Any, ended: bool = False, /) -> None:
        """Show it."""


CUT, PROCESS, RETRY, PACK = "cut", "process", "retry", "pack"
KINDS = ("dataset", "dropped", "quarantined", "losses", "text", "signals", "duplicates", "clusters")
"""The folders that a run publishes: text and signals where it annotates, the last two where it has a dedup step."""


def published_schemas(options: TaskOptions) -> dict[str, pa.Schema]:
    """The schema of each kind of file that a run with these options publishes."""
    schemas = options.schemas | {"dataset": DATASET}
    if options.recipe.step(Dedup) is not None:
        schemas |= {"duplicates": SHOWN_DUPLICATES, "clusters": CLUSTERS}
    return {kind: schemas[kind] for kind in KINDS if kind in schemas}


def identity(*parts: Any) -> str:
    """Task id: hash of what bears on the output. Never a path of this machine, a worker or a time."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def said_of(schema: pa.Schema) -> list[list[str]]:
    """A schema as plain data: names, types, and what the fields' metadata say."""
    said = {field.name: sorted((field.metadata or {}).items()) for field in schema}
    return [
        [field.name, str(field.type), *(f"{key!r}={value!r}" for key, value in said[field.name])] for field in schema
    ]


@dataclass(frozen=True, kw_only=True)
class ProcessTask:
    """Slices of input to decide and write."""

    store: Store
    slices: tuple[Slice, ...]
    options: TaskOptions

    @property
    def id(self) -> str:
        """Hash of the stage, its parameters, and the identity of the bytes it reads."""
        inputs = [[one.source.path, one.source.size, one.source.version, one.start, one.end] for one in self.slices]
        options = self.options
        annotated = options.annotate and signals_identity(options.recipe, all_signals=options.all_signals)
        return identity(
            PROCESS, options.recipe.process_sha256, options.dump, options.dropped_samples, annotated, inputs
        )


@dataclass(frozen=True, kw_only=True)
class RetryTask:
    """Quarantined documents of a process task to decide again under other limits.

    `level` counts the retries of that task. `documents` and `quarantined` are its present files.
    """

    store: Store
    of: str
    level: int
    slices: tuple[Slice, ...]
    options: TaskOptions
    positions: tuple[tuple[str, Position], ...]
    documents: FileEntry
    quarantined: FileEntry

    @property
    def id(self) -> str:
        """The level: of two retries at once the first to commit is that level, and the other builds on nothing."""
        return f"{self.level:04d}"


@dataclass(frozen=True, kw_only=True)
class PackTask:
    """Rows of the runs that make one part of `kind`; where `limit` is given, those of smallest key for each rule."""

    store: Store
    kind: str
    schema: pa.Schema
    index: int
    runs: tuple[Run, ...]
    skip: int
    rows: int
    limit: int | None

    @property
    def id(self) -> str:
        """Hash of what is packed, by content, and which rows of it."""
        content, schema = [run.content for run in self.runs], said_of(self.schema)
        return identity(PACK, FORMAT, self.kind, schema, self.index, content, self.skip, self.rows, self.limit)


@dataclass(frozen=True, kw_only=True)
class CutTask:
    """A file too large for one task: find where it may be cut."""

    store: Store
    source: Source
    task_bytes: int

    @property
    def id(self) -> str:
        """Hash of the file's identity and the size wanted."""
        return identity(CUT, FORMAT, self.source.path, self.source.size, self.source.version, self.task_bytes)


class Task(Protocol):
    """A value that pickles, and says all that bears on what it makes. Its id names that."""

    @property
    def store(self) -> Store:
        """Where it reads and writes."""
        ...

    @property
    def id(self) -> str:
        """Hash of what bears on the output; the name of its manifest."""
        ...


_held: dict[str, Decider] = {}


def decider_of(options: TaskOptions) -> Decider:
    """A new decider that measures what these options ask for."""
    return Decider(options.recipe, annotate=options.annotate, all_signals=options.all_signals)


def held_decider(options: TaskOptions) -> Decider:
    """The decider of these options, kept in this process from task to task: its vocabulary is warm, its parser up."""
    name = identity(options.recipe.sha256, options.annotate, options.all_signals)
    if name not in _held:
        release_decider()
        _held[name] = decider_of(options)
    return _held[name]


def release_decider() -> None:
    """Close the decider that this process holds, if it holds one."""
    while _held:
        _held.popitem()[1].close()


def perform_cut(task: CutTask, report: Report) -> Manifest:
    """Walk the file; the manifest holds where records begin, about `task_bytes` apart."""
    starts = record_starts(task.source, task.task_bytes)
    report(task.id, Accounts())
    check_unchanged((Slice(source=task.source, start=0, end=task.source.size),))
    return Manifest(stage=CUT, task=task.id, says={"starts": starts}, files={})


def check_unchanged(slices: tuple[Slice, ...]) -> None:
    """Raise InputChanged naming the first source that is not the one that the task was made for."""
    for source in {one.source.path: one.source for one in slices}.values():
        if (found := current_version(source)) != source.version:
            raise InputChanged(
                f"{source.path} has changed since the run was planned (version {source.version}, now {found}). "
                "Run the same command again: it plans anew and redoes only what changed."
            )


def perform_process(task: ProcessTask, report: Report) -> Manifest:
    """Decide and write the documents of the task's slices."""
    check_unchanged(task.slices)
    decider = held_decider(task.options)
    decider.timing_dependent = False
    with task.store.attempt(task.id) as attempt:
        accounts = process(
            task.slices, task.options, attempt.folder, decider=decider, report=lambda now: report(task.id, now)
        )
        check_unchanged(task.slices)
        return Manifest(
            stage=PROCESS,
            task=task.id,
            says={"recipe": task.options.recipe.process_sha256, "slices": [asdict(one) for one in task.slices]},
            files=entries(task.store, attempt),
            accounts=accounts,
            timing_dependent=decider.timing_dependent or has_deadline(attempt.folder / "quarantined.parquet"),
        )


def perform_retry(task: RetryTask, report: Report) -> Manifest:
    """Decide the quarantined documents again; the account is the difference that this makes."""
    check_unchanged(task.slices)
    with task.store.attempt(f"{task.of}-{task.id}") as attempt, decider_of(task.options) as decider:
        accounts = reprocess(
            task.slices,
            task.positions,
            task.options,
            attempt.folder,
            decider=decider,
            documents=file_of(task.store, task.documents),
            quarantined=file_of(task.store, task.quarantined),
        )
        report(task.id, accounts)
        check_unchanged(task.slices)
        return Manifest(
            stage=f"{RETRY}/{task.of}",
            task=task.id,
            says={"of": task.of, "level": task.level, "recipe": task.options.recipe.sha256},
            files=entries(task.store, attempt),
            accounts=accounts,
            timing_dependent=True,
        )


def perform_pack(task: PackTask, report: Report) -> Manifest:
    """Write one part."""
    schema = task.schema
    with task.store.attempt(task.id) as attempt:
        path = attempt.folder / f"part-{task.index:05d}.parquet"
        if task.limit is None:
            rows = write_part(path, task.runs, skip=task.skip, rows=task.rows, schema=schema)
        else:
            rows = write_rows(path, task.runs, smallest(task.runs, column="rule", limit=task.limit), schema)
        report(task.id, Accounts())
        failpoint("attempt.written")
        entry = file_entry(task.store, attempt, path, rows)
        return Manifest(stage=PACK, task=task.id, says={"kind": task.kind}, files={path.name: entry})


def entries(store: Store, attempt: Attempt) -> dict[str, FileEntry]:
    """An entry for each Parquet file of an attempt, by name without suffix."""
    failpoint("attempt.written")
    return {
        path.stem: file_entry(store, attempt, path, pq.read_metadata(path).num_rows)
        for path in sorted(attempt.folder.glob("*.parquet"))
    }


def file_of(store: Store, entry: FileEntry) -> StoredFile:
    """A committed file as the pipeline reads it."""
    return StoredFile(url=f"{store.url}/{entry.path}", bytes=entry.bytes)


def has_deadline(path: Path) -> bool:
    """True where a document of this quarantine was stopped by a deadline."""
    return any(pq.read_table(path, columns=["timing_dependent"], partitioning=None).column(0).to_pylist())
