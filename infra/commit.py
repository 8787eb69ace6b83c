"""A task's output exists if, and only if, its manifest does; a manifest is created once, and never changed.

An attempt writes files into a folder of its own. Then one manifest is put if absent, naming the files, their sha256
and the account. The loser of a race compares: equal output is done; a difference raises, except where the committed
manifest holds a quarantine by deadline, which depends on the machine.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filters.errors import CommitConflict, OutputError, VerifyFailed
from pipelines.accounts import Accounts
from pipelines.resources import file_sha256

ATTEMPTS, MANIFESTS, CONFLICTS = Path("_work/attempts"), Path("_work/manifests"), Path("_work/conflicts")


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
        return json.dumps(said, sort_keys=True, indent=1).encode()

    @classmethod
    def decoded(cls, data: bytes) -> Manifest:
        """The manifest in `data`."""
        said = json.loads(data)
        return cls(
            stage=said["stage"],
            task=said["task"],
            says=said["says"],
            files={name: FileEntry(**entry) for name, entry in said["files"].items()},
            accounts=Accounts(**said["accounts"]),
            timing_dependent=said["timing_dependent"],
            measured=said["measured"],
        )

    @property
    def outcome(self) -> dict[str, Any]:
        """What two attempts of the task must agree on: the bytes of the files, and the account."""
        hashes = {name: [entry.sha256, entry.rows] for name, entry in self.files.items()}
        return {"files": hashes, "accounts": self.accounts.as_json()}


def manifest_path(out: Path, stage: str, task: str) -> Path:
    """Where the manifest of a task lies, or would lie."""
    return out / MANIFESTS / stage / f"{task}.json"


def new_attempt(out: Path, task: str) -> Path:
    """Make and return a folder that no other attempt uses."""
    folder = out / ATTEMPTS / task / uuid.uuid4().hex
    folder.mkdir(parents=True)
    return folder


def file_entry(out: Path, path: Path, rows: int) -> FileEntry:
    """The entry of a file that was written whole; its bytes reach the disk before this returns."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return FileEntry(path=str(path.relative_to(out)), sha256=file_sha256(path), bytes=path.stat().st_size, rows=rows)


def create_if_absent(path: Path, data: bytes) -> bool:
    """Create `path` holding `data`, whole or not at all; return False and change nothing where it exists.

    A temporary file is linked to the name: link(2) fails where the name exists, on every local file system and on NFS.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, path)
    except FileExistsError:
        return False
    except OSError as error:
        raise OutputError(f"{path}: cannot be created ({error}). Free space, or choose another --out.") from error
    finally:
        partial.unlink(missing_ok=True)
    return True


def commit(out: Path, manifest: Manifest) -> Manifest:
    """Put the manifest if absent and return the one that is in force.

    Raises CommitConflict where another attempt of the task made something else.
    """
    path = manifest_path(out, manifest.stage, manifest.task)
    if create_if_absent(path, manifest.encoded()):
        return manifest
    winner = Manifest.decoded(path.read_bytes())
    if winner.outcome == manifest.outcome:
        return winner
    create_if_absent(out / CONFLICTS / f"{manifest.task}-{uuid.uuid4().hex}.json", manifest.encoded())
    if not (winner.timing_dependent or manifest.timing_dependent):
        raise CommitConflict(
            f"{manifest.stage} task {manifest.task}: two attempts made different output. The first stays; "
            f"compare {path} with {[entry.path for entry in manifest.files.values()]}."
        )
    return winner


def committed(out: Path, stage: str) -> set[str]:
    """Ids of the tasks of a stage that have a manifest, by one listing."""
    folder = out / MANIFESTS / stage
    return {path.stem for path in folder.glob("*.json")} if folder.is_dir() else set()


def read_manifest(out: Path, stage: str, task: str) -> Manifest:
    """The manifest of a task that is committed."""
    return Manifest.decoded(manifest_path(out, stage, task).read_bytes())


def check_file(out: Path, entry: FileEntry) -> None:
    """Raise VerifyFailed where a file is absent or not what its entry says."""
    path = out / entry.path
    if not path.is_file():
        raise VerifyFailed(f"{path} is gone. Run the same command again into an empty folder, or restore the file.")
    if path.stat().st_size != entry.bytes or file_sha256(path) != entry.sha256:
        raise VerifyFailed(f"{path} is not what was committed (sha256). Restore it, or run into an empty folder.")
