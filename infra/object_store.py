"""A store that is a prefix of an object store with conditional puts.

Data files are written in a scratch folder of this machine and put whole, so that no half-written upload is left behind.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from filters.errors import GristmillError, OutputError
from infra.failpoints import failpoint
from infra.holder import holder_of, is_gone, this_process
from infra.local_store import writable
from infra.scratch import scratch
from infra.stored import ATTEMPTS, LOCK, Attempt, Stored, read_decoded, unusable, usable
from pipelines.listing import s3_entries
from pipelines.patience import patiently
from pipelines.storage import REQUESTS, file_system, is_s3, opened

CONDITIONAL = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")
"""Protocols whose `pipe_file(mode="create")` is one conditional request. Elsewhere fsspec looks first and writes then,
which two machines can both do."""
PUT_BYTES = 5 << 30
SHORT_READS = 5
REMOVED_AT_ONCE = 1000
"""Names held while they are removed: a million would be 1 GB of futures."""


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
        with usable(f"{self.url}/{name}"):
            failpoint("create.before")
            if not self._create(name, data):
                return False
            failpoint("create.after")
        return True

    def _create(self, name: str, data: bytes) -> bool:
        system, path = self._at(name)
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
        """Get the object, by one request."""
        system, path = self._at(name)
        # Above 50 MB s3fs would ask for parts at the same time, and not look whether they came whole.
        whole = {"max_concurrency": 1} if is_s3(system) else {}
        with self._existing(name):
            data: bytes = patiently(system.cat_file, path, **whole)
        return data

    def size(self, name: str) -> int:
        """Ask for the object's head."""
        system, path = self._at(name)
        with self._existing(name):
            return int(patiently(system.info, path)["size"])

    @contextmanager
    def _existing(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unusable(f"{self.url}/{name}", error) from error

    def replace(self, name: str, data: bytes) -> None:
        """Put."""
        system, path = self._at(name)
        with usable(f"{self.url}/{name}"):
            patiently(system.pipe_file, path, data)

    def listed(self, folder: str, prefix: str = "") -> Iterator[Stored]:
        """List, 1,000 names a request: in S3 each page as it is wanted, and patiently by itself."""
        system, path = self._at(folder)
        path = path.rstrip("/") + "/"
        root = path.removesuffix(f"{folder}/" if folder else "")
        with usable(f"{self.url}/{folder}"), suppress(FileNotFoundError):
            for full, facts in _found(system, path, prefix):
                if full.removeprefix(path).startswith(prefix):
                    yield Stored(name=full.removeprefix(root), bytes=facts["size"], written=written(facts))

    def top(self) -> set[str]:
        """List the prefix itself."""
        system, root = self._at("")
        root = root.rstrip("/")
        try:
            with self._existing(""):
                names = {PurePosixPath(name).name for name in patiently(system.ls, root, detail=False)}
        except FileNotFoundError:
            return set()
        return names - {PurePosixPath(root).name}  # what a console makes of an empty folder

    def open(self, name: str, size: int) -> BinaryIO:
        """Open the object for range requests."""
        with self._existing(name):
            return opened(f"{self.url}/{name}", size=size)

    @contextmanager
    def attempt(self, task: str) -> Iterator[Attempt]:
        """Yield a new folder of this machine, removed at the end."""
        with scratch() as folder, writable(folder):
            with usable(folder):
                failpoint("attempt.begun")
            yield Attempt(folder=folder, name=f"{ATTEMPTS}/{task}/{uuid.uuid4().hex}")

    def keep(self, attempt: Attempt, path: Path) -> str:
        """Put the file: nothing of it is there until all of it is. One request to S3, so that no parts can be left."""
        name = f"{attempt.name}/{path.name}"
        system, target = self._at(name)
        with usable(f"{self.url}/{name}"):
            patiently(system.put_file, str(path), target, **({"chunksize": PUT_BYTES} if is_s3(system) else {}))
        return name

    def show(self, folder: str, files: Sequence[tuple[str, str]]) -> None:
        """Remove parts that the folder held before, then copy the files inside the store."""
        shown = {f"{folder}/{short}" for _, short in files}
        found = [one.name for one in self.listed(folder, "part-")]
        self.remove(name for name in found if name not in shown)
        with usable(f"{self.url}/{folder}"), ThreadPoolExecutor(REQUESTS) as pool:
            for _ in pool.map(lambda pair: self._copy(pair[0], f"{folder}/{pair[1]}"), files):
                failpoint("publish.half")

    def _copy(self, name: str, target: str) -> None:
        system, source = self._at(name)
        with usable(f"{self.url}/{target}"):
            if is_s3(system) or "gs" in system.protocol:
                patiently(system.cp_file, source, self._at(target)[1])
            else:  # Azure copies after it has answered
                patiently(system.pipe_file, self._at(target)[1], patiently(system.cat_file, source))

    def remove(self, names: Iterable[str]) -> None:
        """Delete the objects, one a request: not every store that speaks S3 deletes several at once."""
        coming = iter(names)
        with ThreadPoolExecutor(REQUESTS) as pool:
            while some := list(islice(coming, REMOVED_AT_ONCE)):
                list(pool.map(self._remove, some))

    def _remove(self, name: str) -> None:
        system, path = self._at(name)
        with suppress(FileNotFoundError), self._existing(name):
            patiently(system.rm_file, path)

    def prune(self, folder: str, before: float) -> None:
        """An object store has no folders."""

    def now(self) -> float:
        """Write an object and ask the store when that was."""
        name = f"_work/clock-{uuid.uuid4().hex}"
        self.replace(name, b"")
        system, path = self._at(name)
        with usable(f"{self.url}/{name}"):
            seconds = written(patiently(system.info, path))
        self._remove(name)
        return seconds

    @contextmanager
    def locked(self, *, take_over: bool) -> Iterator[None]:
        """Hold an object that names this process. One whose process is gone from this machine is taken over.

        A holder is succeeded by at most one other, by put-if-absent of `lock-` and the holder's mark: the names from
        `lock` on are a chain, whose last holder is in, and who ends removes the chain, from `lock` on. An object is
        removed only while it holds the mark that was seen there. Two can be in where `--take-over` is used on a
        process that lives and is just ending: the lock keeps two people from one folder; what is committed does not
        rest on it.
        """
        self._probe()
        mine, chain = this_process(), dict[str, str]()
        done = False
        try:
            self._enter(mine, chain, take_over=take_over)
            yield
            done = True
        finally:
            if done:
                self._leave(mine["mark"], chain)
            else:  # what was raised is what the caller should hear of
                with suppress(GristmillError):
                    self._leave(mine["mark"], chain)

    def _enter(self, mine: dict[str, Any], chain: dict[str, str], *, take_over: bool) -> None:
        """Join the chain at its end; `chain` then maps its names to the marks that hold them, the last of them mine.

        Raises OutputError where the last holder may still be at work.
        """
        said, name = json.dumps(mine).encode(), LOCK
        while True:
            chain[name] = mine["mark"]  # before it is asked for: a put may be done, and its answer not come
            holder = None
            if not self.create(name, said):
                holder = self._holder(name)
            elif name == LOCK or self._mark(LOCK) == chain[LOCK]:
                return
            else:
                self._remove_mark(name, mine["mark"])
            if holder is None:  # the chain was removed while this joined it
                chain.clear()
                name = LOCK
                continue
            chain[name] = holder["mark"]
            name = f"{LOCK}-{holder['mark']}"
            if not take_over and not is_gone(holder) and self._mark(name) is None:
                raise OutputError(
                    f"{self.url}: a gristmill command on {holder['host']} (process {holder['pid']}) works there. Wait "
                    "for it or choose another --out; if that process is dead, add --take-over."
                )

    def _leave(self, mark: str, chain: dict[str, str]) -> None:
        """Remove the chain, from `lock` on, where this process is its last holder: never a link that another holds."""
        last = next(reversed(chain), None)
        if last is None or self._mark(last) != mark or self._mark(f"{LOCK}-{mark}") is not None:
            return
        for name, held in chain.items():
            self._remove_mark(name, held)

    def _holder(self, name: str) -> dict[str, Any] | None:
        """Who holds this name of the lock; None where nobody does."""
        try:
            return read_decoded(self, name, holder_of)
        except FileNotFoundError:
            return None

    def _mark(self, name: str) -> str | None:
        holder = self._holder(name)
        return None if holder is None else str(holder["mark"])

    def _remove_mark(self, name: str, mark: str) -> None:
        """Delete a name of the lock while it holds this mark. Looks again before it deletes again: a delete may be
        done, its answer lost, and the name be another's by then.
        """
        system, path = self._at(name)

        def once() -> None:
            if self._mark(name) == mark:
                system.rm_file(path)

        with suppress(FileNotFoundError), self._existing(name):
            patiently(once)

    def lock_names(self) -> set[str]:
        """The chain of holders, and the name that the next one would take."""
        name, names = LOCK, {LOCK}
        while (mark := self._mark(name)) is not None:
            name = f"{LOCK}-{mark}"
            names.add(name)
        return names

    def _probe(self) -> None:
        """Raise OutputError where two puts of one name both succeed, or where there are other things already."""
        found = self.top()
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


def _found(system: Any, path: str, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and facts of every object below a path; in S3 only of those whose names in it begin with the prefix."""
    if is_s3(system):
        yield from ((one.name, dict(one.said)) for one in s3_entries(system, path, prefix, flat=True))
        return
    for name, facts in patiently(system.find, path.rstrip("/"), detail=True).items():
        if facts.get("type") != "directory":  # the folder itself, where nothing is in it
            yield name, facts
