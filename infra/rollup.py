"""What became of the process tasks of a run, in segments of `SEGMENT` tasks: a run of 10^6 tasks reads 100 objects.

A segment is put if absent as soon as its tasks are committed, so a run that is continued reads segments, and manifests
only of tasks whose segment was not full. It holds no more than the manifests say. Retries come later and are laid over
it from their own manifests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat, zip_longest
from typing import Any

import zstandard

from filters.errors import VerifyFailed
from infra.commit import FileEntry, Manifest, committed, read_manifest, read_manifests
from infra.failpoints import failpoint
from infra.stored import ATTEMPTS, Store, read_decoded, usable
from infra.work import PROCESS, RETRY, identity
from pipelines.accounts import Accounts, total

ROLLUPS = "_work/rollups"
SEGMENT = 10_000
FINGERPRINTS = ("signatures", "urls", "texts", "twins", "bands")
"""The files of a task that a dedup step compares (pipelines/dedup/fingerprints.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOutcome:
    """A process task with its retries, by level: the files in force, and the account of all.

    `text` and `signals` are empty where the run annotates nothing. `fingerprints` are those of each file of `kept`, by
    name. `removal` holds what a dedup step took of the task's kept rows, by name; it is empty where there was none.
    """

    task: str
    retries: tuple[str, ...]
    kept: tuple[FileEntry, ...]
    dropped: tuple[FileEntry, ...]
    text: tuple[FileEntry, ...]
    signals: tuple[FileEntry, ...]
    documents: FileEntry
    quarantined: FileEntry
    losses: FileEntry
    accounts: Accounts
    fingerprints: tuple[Mapping[str, FileEntry], ...]
    removal: Mapping[str, FileEntry] = field(default_factory=dict)


def task_files(outcome: TaskOutcome) -> tuple[FileEntry, ...]:
    """Every file in force of a task."""
    added = (*outcome.kept, *outcome.dropped, *outcome.text, *outcome.signals)
    prints = (entry for files in outcome.fingerprints for entry in files.values())
    return (*added, *prints, *outcome.removal.values(), outcome.documents, outcome.quarantined, outcome.losses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollup:
    """The segments of a run's process tasks, in order, how many tasks they hold, and the levels of those retried.

    `removed` are the segments of what a dedup step took from the same tasks, in the same order; none before it.
    """

    segments: tuple[str, ...]
    tasks: int
    retries: Mapping[str, tuple[str, ...]]
    removed: tuple[str, ...] = ()


def segments_of(tasks: Sequence[str]) -> list[Sequence[str]]:
    """The ids of tasks in order, `SEGMENT` at a time."""
    return [tasks[start : start + SEGMENT] for start in range(0, len(tasks), SEGMENT)]


def segment_name(stage: str, tasks: Sequence[str]) -> str:
    """Where the segment of these tasks lies, or would lie."""
    return f"{ROLLUPS}/{identity(stage, list(tasks))}.jsonl.zst"


class Segments:
    """Segments of one stage while its tasks are being done. Memory: the encoded outcomes of segments that are begun,
    not full.
    """

    def __init__(self, store: Store, tasks: Sequence[str], stage: str = PROCESS) -> None:
        self._store, self._stage = store, stage
        self._segments = segments_of(tasks)
        self._names = tuple(segment_name(stage, segment) for segment in self._segments)
        self._of = {task: index for index, segment in enumerate(self._segments) for task in segment}
        self._open: dict[int, dict[str, bytes]] = {}
        stored = {one.name for one in store.listed(ROLLUPS)}
        self._full = {index for index, name in enumerate(self._names) if name in stored}
        self._missing = [len(segment) for segment in self._segments]

    def done_before(self) -> set[str]:
        """Tasks that are committed. Those of segments that were not full are read, and may fill them."""
        full = {task for index in self._full for task in self._segments[index]}
        if len(self._full) == len(self._segments):
            return full
        found = committed(self._store, self._stage)
        before = [task for task in self._of if task in found and self._of[task] not in self._full]
        for manifest in read_manifests(self._store, self._stage, before):
            self.add(manifest)
        return full | set(before)

    def add(self, manifest: Manifest) -> None:
        """Take the manifest of a task; the segment that it fills is stored."""
        index = self._of[manifest.task]
        held = self._open.setdefault(index, {})
        if index in self._full or manifest.task in held:
            return
        held[manifest.task] = encoded(manifest)
        self._missing[index] -= 1
        if self._missing[index] == 0:
            del self._open[index]
            self._full.add(index)
            with usable(f"{self._store.url}/{self._names[index]}"):
                failpoint("run.rollup")
            lines = b"".join(held[task] for task in self._segments[index])
            self._store.create(self._names[index], zstandard.compress(lines, level=3))

    @property
    def names(self) -> tuple[str, ...]:
        """Where the segments lie, all of them full at the end."""
        return self._names

    def rollup(self) -> Rollup:
        """The segments, all full, with the retries that are committed."""
        return with_retries(self._store, Rollup(segments=self._names, tasks=len(self._of), retries={}))


def with_retries(store: Store, rollup: Rollup) -> Rollup:
    """The roll-up with the retries that are committed now, by one listing; what a dedup step removed is left out of it,
    for another set of documents may lose others.
    """
    levels: dict[str, list[str]] = {}
    for name in sorted(committed(store, RETRY)):
        task, level = name.split("/")
        levels.setdefault(task, []).append(level)
    return replace(rollup, retries={task: tuple(found) for task, found in levels.items()}, removed=())


def decompressed(data: bytes) -> list[bytes]:
    """The lines of a segment. Raises ValueError where it is not whole."""
    try:
        return zstandard.ZstdDecompressor().decompress(data).splitlines()
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def encoded(manifest: Manifest) -> bytes:
    """One line of a segment."""
    files = {
        name: [one.path.removeprefix(f"{ATTEMPTS}/"), one.sha256, one.bytes, one.rows]
        for name, one in manifest.files.items()
    }
    said = {"task": manifest.task, "files": files, "accounts": manifest.accounts.as_json()}
    return json.dumps(said, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def decoded_line(line: bytes) -> tuple[str, dict[str, FileEntry], Accounts]:
    """The task, its files by name and its account in one line of a segment."""
    said = json.loads(line)
    files = {
        name: FileEntry(path=f"{ATTEMPTS}/{path}", sha256=sha256, bytes=size, rows=rows)
        for name, (path, sha256, size, rows) in said["files"].items()
    }
    return said["task"], files, Accounts(**said["accounts"])


def decoded(line: bytes) -> TaskOutcome:
    """The outcome in one line of a segment."""
    task, files, accounts = decoded_line(line)
    return TaskOutcome(
        task=task,
        retries=(),
        kept=(files["kept"],),
        dropped=(files["dropped"],),
        text=(files["text"],) if "text" in files else (),
        signals=(files["signals"],) if "signals" in files else (),
        documents=files["documents"],
        quarantined=files["quarantined"],
        losses=files["losses"],
        accounts=accounts,
        fingerprints=(fingerprints_of(files),),
    )


def fingerprints_of(files: Mapping[str, FileEntry]) -> dict[str, FileEntry]:
    """Those of a task's files that a dedup step compares."""
    return {name: files[name] for name in FINGERPRINTS if name in files}


def outcomes(store: Store, rollup: Rollup) -> Iterator[TaskOutcome]:
    """What is committed for each task, in order. Holds one segment. Raises VerifyFailed where a segment is gone."""
    for name, removed in zip_longest(rollup.segments, rollup.removed):
        lines = segment_lines(store, name)
        removals = repeat(None) if removed is None else segment_lines(store, removed)
        for line, removal in zip(lines, removals, strict=removed is not None):
            outcome = decoded(line)
            if levels := rollup.retries.get(outcome.task, ()):
                outcome = retried(store, outcome, levels)
            yield outcome if removal is None else without_removed(outcome, removal)


def segment_lines(store: Store, name: str) -> list[bytes]:
    """The lines of a segment. Raises VerifyFailed where it is gone or damaged."""
    try:
        return read_decoded(store, name, decompressed)
    except (FileNotFoundError, VerifyFailed):
        raise VerifyFailed(
            f"{store.url}/{name} is gone or damaged. Delete it and run the same command again: it is made anew."
        ) from None


def without_removed(outcome: TaskOutcome, line: bytes) -> TaskOutcome:
    """The outcome after a dedup step, whose segment says in `line` what it took away."""
    _, files, change = decoded_line(line)
    return replace(outcome, removal=files, accounts=outcome.accounts + change)


def retried(store: Store, base: TaskOutcome, levels: Sequence[str]) -> TaskOutcome:
    """The outcome with its retries: each adds rows, and replaces the files of documents and of quarantined ones."""
    manifests = [read_manifest(store, f"{RETRY}/{base.task}", level) for level in levels]

    def added(name: str) -> Iterator[FileEntry]:
        return (manifest.files[name] for manifest in manifests if name in manifest.files)

    return TaskOutcome(
        task=base.task,
        retries=tuple(levels),
        kept=(*base.kept, *added("kept")),
        dropped=(*base.dropped, *added("dropped")),
        text=(*base.text, *added("text")),
        signals=(*base.signals, *added("signals")),
        documents=manifests[-1].files["documents"],
        quarantined=manifests[-1].files["quarantined"],
        losses=base.losses,
        accounts=total((base.accounts, *(manifest.accounts for manifest in manifests))),
        fingerprints=(*base.fingerprints, *(fingerprints_of(manifest.files) for manifest in manifests)),
    )


def rollup_json(rollup: Rollup) -> dict[str, Any]:
    """What `run.json` says of it."""
    return {
        "segments": list(rollup.segments),
        "tasks": rollup.tasks,
        "retries": dict(rollup.retries),
        "removed": list(rollup.removed),
    }


def rollup_from(said: Mapping[str, Any]) -> Rollup:
    """The roll-up that `run.json` says."""
    retries = {task: tuple(levels) for task, levels in said["retries"].items()}
    return Rollup(
        segments=tuple(said["segments"]), tasks=said["tasks"], retries=retries, removed=tuple(said["removed"])
    )
