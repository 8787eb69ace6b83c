"""A task's output exists if, and only if, its manifest does; a manifest is created once, and never changed.

An attempt writes files into a folder of its own. Then one manifest is put if absent, naming the files, their sha256
and the account. The loser of a race compares: equal output is done; a difference raises, except where the committed
manifest holds a quarantine by deadline, which depends on the machine.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filters.errors import CommitConflict, InputChanged, VerifyFailed
from infra.failpoints import failpoint
from infra.stored import CONFLICTS, MANIFESTS, Attempt, Store, read_decoded, usable
from pipelines.accounts import Accounts
from pipelines.resources import file_sha256
from pipelines.storage import REQUESTS


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of a task: path below the output folder, hash, bytes, rows."""

    path: str
    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a task made. `measured` (seconds, memory) is told apart: it is no part of what two attempts must agree
    on.
    """

    stage: str
    task: str
    says: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    accounts: Accounts = field(default_factory=Accounts)
    timing_dependent: bool = False
    measured: Mapping[str, float] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """The manifest as JSON with sorted keys."""
        said = {
            "stage": self.stage,
            "task": self.task,
            "says": self.says,
            "files": {name: asdict(entry) for name, entry in self.files.items()},
            "accounts": self.accounts.as_json(),
            "timing_dependent": self.timing_dependent,
            "measured": self.measured,
        }
        return json.dumps(said, sort_keys=True).encode()

    @classmethod
    def decoded(cls, data: bytes) -> Manifest:
        """The manifest in `data`. Raises ValueError where it holds none."""
        said = json.loads(data)
        try:
            return cls(
                stage=said["stage"],
                task=said["task"],
                says=said["says"],
                files={name: FileEntry(**entry) for name, entry in said["files"].items()},
                accounts=Accounts(**said["accounts"]),
                timing_dependent=said["timing_dependent"],
                measured=said["measured"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no manifest: {error}") from error

    @property
    def outcome(self) -> dict[str, Any]:
        """What two attempts of the task must agree on: the bytes of the files, the account, and where a file is cut."""
        hashes = {name: [entry.sha256, entry.rows] for name, entry in self.files.items()}
        return {"files": hashes, "accounts": self.accounts.as_json(), "starts": self.says.get("starts")}


def manifest_name(stage: str, task: str) -> str:
    """Where the manifest of a task lies, or would lie."""
    return f"{MANIFESTS}/{stage}/{task}.json"


def file_entry(store: Store, attempt: Attempt, path: Path, rows: int) -> FileEntry:
    """The entry of a file that was written whole; its bytes are in the store before this returns."""
    sha256, size = file_sha256(path), path.stat().st_size
    return FileEntry(path=store.keep(attempt, path), sha256=sha256, bytes=size, rows=rows)


def commit(store: Store, manifest: Manifest) -> Manifest:
    """Put the manifest if absent and return the one that is in force.

    Raises CommitConflict where another attempt of the task made something else.
    """
    name = manifest_name(manifest.stage, manifest.task)
    with usable(f"{store.url}/{name}"):
        failpoint("attempt.stored")
    if store.create(name, manifest.encoded()):
        return manifest
    winner = read_decoded(store, name, Manifest.decoded)
    if winner.outcome == manifest.outcome:
        return winner
    store.create(f"{CONFLICTS}/{manifest.task}-{uuid.uuid4().hex}.json", manifest.encoded())
    if not (winner.timing_dependent or manifest.timing_dependent):
        raise CommitConflict(
            f"{manifest.stage} task {manifest.task}: two attempts made different output. The first stays; "
            f"compare {store.url}/{name} with {[entry.path for entry in manifest.files.values()]}."
        )
    return winner


def committed(store: Store, stage: str) -> set[str]:
    """Ids of the tasks of a stage that have a manifest, by one listing. A stage within it reads `level/task`."""
    folder = f"{MANIFESTS}/{stage}"
    return {
        one.name.removeprefix(f"{folder}/").removesuffix(".json")
        for one in store.listed(folder)
        if one.name.endswith(".json")
    }


def read_manifest(store: Store, stage: str, task: str) -> Manifest:
    """The manifest of a task that is committed."""
    return read_decoded(store, manifest_name(stage, task), Manifest.decoded)


def read_manifests(store: Store, stage: str, tasks: Iterable[str]) -> Iterator[Manifest]:
    """The manifests of committed tasks, in order, some requests ahead."""
    return read_ahead(store, (manifest_name(stage, task) for task in tasks))


def read_ahead(store: Store, names: Iterable[str]) -> Iterator[Manifest]:
    """The manifests of these names, in order, some requests ahead."""
    with ThreadPoolExecutor(REQUESTS) as pool:
        waiting: deque[Future[Manifest]] = deque()
        for name in names:
            waiting.append(pool.submit(read_decoded, store, name, Manifest.decoded))
            if len(waiting) > 4 * REQUESTS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def check_file(store: Store, entry: FileEntry) -> None:
    """Raise VerifyFailed where a file is absent or not what its entry says."""
    where = f"{store.url}/{entry.path}"
    digest = hashlib.sha256()
    try:
        size = store.size(entry.path)
        if size == entry.bytes:  # else nothing is read: one that is shorter would be asked for again and again
            with store.open(entry.path, entry.bytes) as file, usable(where):
                while block := file.read(1 << 20):
                    digest.update(block)
    except FileNotFoundError:
        raise VerifyFailed(
            f"{where} is gone. Run the same command again into an empty folder, or restore the file."
        ) from None
    except InputChanged as error:
        raise VerifyFailed(f"{where} was overwritten while it was read. Restore it.") from error
    if size != entry.bytes or digest.hexdigest() != entry.sha256:
        found = f"{size:,} bytes for {entry.bytes:,}" if size != entry.bytes else "sha256"
        raise VerifyFailed(f"{where} is not what was committed ({found}). Restore it, or run into an empty folder.")
