"""A store that is a prefix of an object store with conditional puts.

Data files are written in a scratch folder of this machine and put whole, so that no half-written upload is left behind.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from filters.errors import OutputError
from infra.failpoints import failpoint
from infra.holder import holder_of, is_gone, this_process
from infra.local_store import writable
from infra.scratch import scratch
from infra.stored import ATTEMPTS, LOCK, Attempt, Stored, read_decoded, unusable
from pipelines.patience import patiently
from pipelines.storage import REQUESTS, file_system, opened

CONDITIONAL = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")
"""Protocols whose `pipe_file(mode="create")` is one conditional request. Elsewhere fsspec looks first and writes then,
which two machines can both do."""
PUT_BYTES = 5 << 30
SHORT_READS = 5


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A prefix of an object store that can create an object only if it is absent. Credentials are the client's own."""

    url: str

    @property
    def is_remote(self) -> bool:
        """True."""
        return True

    def _at(self, name: str) -> tuple[Any, str]:
        system, root = file_system(self.url)
        return system, f"{root.rstrip('/')}/{name}"

    def create(self, name: str, data: bytes) -> bool:
        """Put if absent. Where the name is taken, what it holds says whether this call took it."""
        system, path = self._at(name)
        failpoint("create.before")
        for last in (False, True):
            try:
                patiently(system.pipe_file, path, data, mode="create")
                break
            except (OSError, ValueError) as error:
                # Stores differ in how they say that the name is taken; that it is readable they all say alike. One
                # that was removed in between is free again.
                try:
                    return self._holds(name, data)
                except FileNotFoundError:
                    if last:
                        raise unusable(f"{self.url}/{name}", error) from error
        failpoint("create.after")
        return True

    def _holds(self, name: str, data: bytes) -> bool:
        """True where `name` holds `data`; an answer that may be cut short is asked for again."""
        held = self.read(name)
        for _ in range(SHORT_READS):
            if held == data or not data.startswith(held):
                break
            held = self.read(name)
        return held == data

    def read(self, name: str) -> bytes:
        """Get the object."""
        system, path = self._at(name)
        try:
            data: bytes = patiently(system.cat_file, path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unusable(f"{self.url}/{name}", error) from error
        return data

    def replace(self, name: str, data: bytes) -> None:
        """Put."""
        system, path = self._at(name)
        try:
            patiently(system.pipe_file, path, data)
        except OSError as error:
            raise unusable(f"{self.url}/{name}", error) from error

    def listed(self, folder: str, prefix: str = "") -> Iterator[Stored]:
        """List, 1,000 names a request."""
        system, path = self._at(folder)
        root = path.removesuffix(folder)
        narrowed = {"prefix": prefix} if prefix and is_s3(system) else {}
        try:
            found = patiently(system.find, path, detail=True, **narrowed)
        except FileNotFoundError:
            return
        except OSError as error:
            raise unusable(f"{self.url}/{folder}", error) from error
        for full, facts in found.items():
            if facts.get("type") == "directory":  # the folder itself, where nothing is in it
                continue
            name = full.removeprefix(root)
            if name.removeprefix(f"{folder}/").startswith(prefix):
                yield Stored(name=name, bytes=facts["size"], written=written(facts))

    def open(self, name: str, size: int) -> BinaryIO:
        """Open the object for range requests."""
        return opened(f"{self.url}/{name}", size=size)

    @contextmanager
    def attempt(self, task: str) -> Iterator[Attempt]:
        """Yield a new folder of this machine, removed at the end."""
        with scratch() as folder, writable(folder):
            failpoint("attempt.begun")
            yield Attempt(folder=folder, name=f"{ATTEMPTS}/{task}/{uuid.uuid4().hex}")

    def keep(self, attempt: Attempt, path: Path) -> str:
        """Put the file: nothing of it is there until all of it is. One request to S3, so that no parts can be left."""
        name = f"{attempt.name}/{path.name}"
        system, target = self._at(name)
        try:
            patiently(system.put_file, str(path), target, **({"chunksize": PUT_BYTES} if is_s3(system) else {}))
        except OSError as error:
            raise unusable(f"{self.url}/{name}", error) from error
        return name

    def show(self, folder: str, files: Sequence[tuple[str, str]]) -> None:
        """Remove parts that the folder held before, then copy the files inside the store."""
        shown = {f"{folder}/{short}" for _, short in files}
        found = [one.name for one in self.listed(folder, "part-")]
        self.remove(name for name in found if name not in shown)
        with ThreadPoolExecutor(REQUESTS) as pool:
            for _ in pool.map(lambda pair: self._copy(pair[0], f"{folder}/{pair[1]}"), files):
                failpoint("publish.half")

    def _copy(self, name: str, target: str) -> None:
        system, source = self._at(name)
        try:
            if is_s3(system) or "gs" in system.protocol:
                patiently(system.cp_file, source, self._at(target)[1])
            else:  # Azure copies after it has answered
                patiently(system.pipe_file, self._at(target)[1], patiently(system.cat_file, source))
        except OSError as error:
            raise unusable(f"{self.url}/{target}", error) from error

    def remove(self, names: Iterable[str]) -> None:
        """Delete the objects."""
        with ThreadPoolExecutor(REQUESTS) as pool:
            for _ in pool.map(self._remove, names):
                pass

    def _remove(self, name: str) -> None:
        system, path = self._at(name)
        try:
            patiently(system.rm_file, path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise unusable(f"{self.url}/{name}", error) from error

    def now(self) -> float:
        """Write an object and ask the store when that was."""
        name = f"_work/clock-{uuid.uuid4().hex}"
        self.replace(name, b"")
        system, path = self._at(name)
        seconds = written(patiently(system.info, path))
        self._remove(name)
        return seconds

    @contextmanager
    def locked(self, *, take_over: bool) -> Iterator[None]:
        """Hold an object that names this process. One whose process is gone from this machine is taken over.

        A holder is succeeded by at most one other, by put-if-absent of `lock-` and the holder's mark, so two that take
        over cannot both be in. The lock keeps two people from one folder; what is committed does not rest on it.
        """
        self._probe()
        mine = this_process()
        name, held = LOCK, [LOCK]
        while not self.create(name, json.dumps(mine).encode()):
            try:
                holder = read_decoded(self, name, holder_of)
            except FileNotFoundError:
                name, held = LOCK, [LOCK]
                continue
            name = f"{LOCK}-{holder['mark']}"
            held.append(name)
            succeeded = any(True for _ in self.listed("_work", name.removeprefix("_work/")))
            if not succeeded and not take_over and not is_gone(holder):
                raise OutputError(
                    f"{self.url}: a gristmill command on {holder['host']} (process {holder['pid']}) works there. Wait "
                    "for it or choose another --out; if that process is dead, add --take-over."
                )
        try:
            yield
        finally:
            self._unlock(mine, held)

    def _unlock(self, mine: dict[str, Any], held: Sequence[str]) -> None:
        """Remove the lock with those that it succeeded, unless this one has a successor of its own."""
        try:
            self.read(f"{LOCK}-{mine['mark']}")
        except FileNotFoundError:
            self.remove(held)

    def _probe(self) -> None:
        """Raise OutputError where two puts of one name both succeed, or where there are other things already."""
        system, root = self._at("")
        try:
            found = {PurePosixPath(name).name for name in patiently(system.ls, root.rstrip("/"), detail=False)}
        except FileNotFoundError:
            found = set()
        except OSError as error:
            raise unusable(self.url, error) from error
        found.discard(PurePosixPath(root.rstrip("/")).name)  # what a console makes of an empty folder
        if found and "_work" not in found:
            raise OutputError(
                f"{self.url} holds other things ({', '.join(sorted(found)[:3])}). Choose an empty prefix for --out."
            )
        name = f"_work/probe/{uuid.uuid4().hex}"
        first, second = self.create(name, b"1"), self.create(name, b"2")
        held = self.read(name)
        self.remove([name])
        if (first, second, held) != (True, False, b"1"):
            raise OutputError(
                f"{self.url}: this store overwrites an object that a request asked to create only if absent "
                "(If-None-Match), so two attempts of a task could both win. Use a store that honours it."
            )


def written(facts: dict[str, Any]) -> float:
    """When an object was written, in seconds."""
    for name in ("LastModified", "last_modified", "updated", "mtime", "created"):
        value = facts.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, str):
            return datetime.fromisoformat(value).timestamp()
        if isinstance(value, int | float):
            return float(value)
    raise OutputError(f"{facts.get('name')}: the store does not say when it was written.")


def is_s3(system: Any) -> bool:
    """True for a file system of s3fs."""
    return "s3" in system.protocol
