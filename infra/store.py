"""Where a run writes: a local folder, or a prefix of an object store. Both are frozen values that pickle.

A store can create a name if it is absent (what commits rest on), read, list and remove. Data files are written in a
folder of this machine first: on a local store that folder is their place, to an object store they go in one put each,
so no half-written upload is ever left behind.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol, TypeVar

from filters.errors import InputError, OutputError, VerifyFailed
from infra.failpoints import failpoint
from pipelines.patience import ShortRead, patiently
from pipelines.storage import file_system, local_path, opened

T = TypeVar("T")

ATTEMPTS, MANIFESTS, CONFLICTS = "_work/attempts", "_work/manifests", "_work/conflicts"
LOCK = "_work/lock"
CONDITIONAL = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")
"""Protocols whose `pipe_file(mode="create")` is one conditional request. Elsewhere fsspec looks first and writes then,
which two machines can both do."""
PUT_BYTES = 5 << 30
REQUESTS = 16
"""Requests at a time where many small ones are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Files in the making: `folder` on this machine, `name` in the store. No other attempt has either."""

    folder: Path
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One file of a store: its name, bytes, and when it was written by the store's clock, in seconds."""

    name: str
    bytes: int
    written: float


class Store(Protocol):
    """Names are relative, with slashes. Every method raises OutputError where the store cannot be used."""

    @property
    def url(self) -> str:
        """What a person calls it."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Create `name` holding `data`, whole or not at all; return False, and change nothing, where it exists.

        True also where it exists because this very call stored it and the answer was lost.
        """
        ...

    def read(self, name: str) -> bytes:
        """The bytes of `name`. Raises FileNotFoundError."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Store `data` as `name`, whatever was there."""
        ...

    def listed(self, folder: str, prefix: str = "") -> Iterable[Stored]:
        """Every file below `folder` whose name in it begins with `prefix`, in no order."""
        ...

    def open(self, name: str, size: int) -> BinaryIO:
        """Open a file of `size` bytes for reading at any place."""
        ...

    def attempt(self, task: str) -> Any:
        """A context that yields an Attempt."""
        ...

    def keep(self, attempt: Attempt, path: Path) -> str:
        """Return the name of a file of the attempt, now that its bytes are in the store and outlive this machine."""
        ...

    def show(self, folder: str, files: Sequence[tuple[str, str]]) -> None:
        """Let `folder` hold these files, (stored name, name in the folder), and nothing else."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are gone already are no error."""
        ...

    def now(self) -> float:
        """Seconds on the clock that `Stored.written` is read from."""
        ...

    def locked(self, *, take_over: bool) -> Any:
        """A context that one command at a time can be in. Raises OutputError where another is."""
        ...


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder of a file system with link(2): local ones and NFS."""

    root: Path

    @property
    def url(self) -> str:
        """The folder's path."""
        return str(self.root)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file beside the name and link it there: link(2) fails where the name exists."""
        path = self.root / name
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        failpoint("create.before")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError as error:
            raise unusable(path, error) from error
        finally:
            partial.unlink(missing_ok=True)
        failpoint("create.after")
        return True

    def read(self, name: str) -> bytes:
        """Read the file."""
        return (self.root / name).read_bytes()

    def replace(self, name: str, data: bytes) -> None:
        """Write a file beside the name and move it there."""
        path = self.root / name
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            partial.write_bytes(data)
            partial.replace(path)
        except OSError as error:
            raise unusable(path, error) from error
        finally:
            partial.unlink(missing_ok=True)

    def listed(self, folder: str, prefix: str = "") -> Iterator[Stored]:
        """Walk the folder; what another process removes meanwhile is not there."""
        for where, _, names in os.walk(self.root / folder):
            inside = Path(where).relative_to(self.root / folder)
            for name in names:
                if not str(inside / name).startswith(prefix):
                    continue
                try:
                    status = (Path(where) / name).stat()
                except FileNotFoundError:
                    continue
                yield Stored(name=str(folder / inside / name), bytes=status.st_size, written=status.st_mtime)

    def open(self, name: str, size: int) -> BinaryIO:
        """Open the file."""
        return opened(str(self.root / name), size=size)

    @contextmanager
    def attempt(self, task: str) -> Iterator[Attempt]:
        """Yield a new folder in the store. It stays, whatever comes: `gc` removes what no manifest names."""
        name = f"{ATTEMPTS}/{task}/{uuid.uuid4().hex}"
        with writable(self.root / name):
            (self.root / name).mkdir(parents=True)
            failpoint("attempt.begun")
            yield Attempt(folder=self.root / name, name=name)

    def keep(self, attempt: Attempt, path: Path) -> str:
        """Have the file's bytes reach the disk."""
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return f"{attempt.name}/{path.name}"

    def show(self, folder: str, files: Sequence[tuple[str, str]]) -> None:
        """Link the files: they take no space of their own."""
        shown = self.root / folder
        try:
            shutil.rmtree(shown, ignore_errors=True)
            shown.mkdir()
            for name, short in files:
                os.link(self.root / name, shown / short)
                failpoint("publish.half")
        except OSError as error:
            raise unusable(shown, error) from error

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, and the folders that this leaves empty."""
        for name in names:
            path = self.root / name
            path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self.root or not folder.is_dir() or any(folder.iterdir()):
                    break
                folder.rmdir()

    def now(self) -> float:
        """The file system's clock: that of a server where the folder is one of its."""
        with tempfile.NamedTemporaryFile(dir=self.root) as file:
            return Path(file.name).stat().st_mtime

    @contextmanager
    def locked(self, *, take_over: bool) -> Iterator[None]:
        """Hold a lock of the kernel, which goes with its process: there is nothing to take over."""
        self._prepare()
        with (self.root / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(
                    f"{self.url}: another gristmill command works there. Wait for it, or choose another --out."
                ) from None
            yield

    def _prepare(self) -> None:
        """Make the folder, or raise OutputError where it holds something that is not ours."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            strangers = [] if (self.root / "_work").is_dir() else [path.name for path in self.root.iterdir()]
            if not strangers:
                (self.root / "_work").mkdir(exist_ok=True)
        except OSError as error:
            raise unusable(self.root, error) from error
        if strangers:
            raise OutputError(
                f"{self.url} holds other things ({', '.join(sorted(strangers)[:3])}). Choose an empty folder for --out."
            )


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A prefix of an object store that can create an object only if it is absent. Credentials are the client's own."""

    url: str

    def _at(self, name: str) -> tuple[Any, str]:
        system, root = file_system(self.url)
        return system, f"{root.rstrip('/')}/{name}"

    def create(self, name: str, data: bytes) -> bool:
        """Put if absent. Where the name is taken, what it holds says whether this call took it."""
        system, path = self._at(name)
        failpoint("create.before")
        try:
            patiently(system.pipe_file, path, data, mode="create")
        except (OSError, ValueError) as error:
            # Stores differ in how they say that the name is taken; that it is readable they all say alike.
            try:
                return self.read(name) == data
            except FileNotFoundError:
                raise unusable(f"{self.url}/{name}", error) from error
        failpoint("create.after")
        return True

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
        narrowed = {"prefix": prefix} if prefix and "s3" in system.protocol else {}
        try:
            found = patiently(system.find, path, detail=True, **narrowed)
        except FileNotFoundError:
            return
        except OSError as error:
            raise unusable(f"{self.url}/{folder}", error) from error
        for full, facts in found.items():
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
        """Put the file in one request: nothing of it is there until all of it is."""
        name = f"{attempt.name}/{path.name}"
        system, target = self._at(name)
        try:
            patiently(system.put_file, str(path), target, chunksize=PUT_BYTES)
        except OSError as error:
            raise unusable(f"{self.url}/{name}", error) from error
        return name

    def show(self, folder: str, files: Sequence[tuple[str, str]]) -> None:
        """Copy the files inside the store, then remove what else the folder held."""
        shown = {f"{folder}/{short}" for _, short in files}
        self.remove(one.name for one in list(self.listed(folder)) if one.name not in shown)
        with ThreadPoolExecutor(REQUESTS) as pool:
            for _ in pool.map(lambda pair: self._copy(pair[0], f"{folder}/{pair[1]}"), files):
                failpoint("publish.half")

    def _copy(self, name: str, target: str) -> None:
        system, source = self._at(name)
        try:
            patiently(system.cp_file, source, self._at(target)[1])
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

        The lock keeps two people from one folder; what is committed does not rest on it.
        """
        self._probe()
        mine = json.dumps({"host": socket.gethostname(), "boot": boot_id(), "pid": os.getpid(), "of": uuid.uuid4().hex})
        while not self.create(LOCK, mine.encode()):
            try:
                holder = read_decoded(self, LOCK, json.loads)
            except FileNotFoundError:
                continue
            if not take_over and not is_gone(holder):
                raise OutputError(
                    f"{self.url}: a gristmill command on {holder['host']} (process {holder['pid']}) works there. Wait "
                    "for it or choose another --out; if that process is dead, add --take-over."
                )
            self.remove([LOCK])
            take_over = False
        try:
            yield
        finally:
            self._unlock(mine.encode())

    def _unlock(self, mine: bytes) -> None:
        try:
            held = self.read(LOCK)
        except FileNotFoundError:
            return
        if held == mine:
            self.remove([LOCK])

    def _probe(self) -> None:
        """Raise OutputError where two puts of one name both succeed, or where there are other things already."""
        system, root = self._at("")
        try:
            found = {PurePosixPath(name).name for name in patiently(system.ls, root.rstrip("/"), detail=False)}
        except FileNotFoundError:
            found = set()
        except OSError as error:
            raise unusable(self.url, error) from error
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


def read_decoded(store: Store, name: str, decode: Callable[[bytes], T]) -> T:
    """What `decode` makes of an object that was written whole. Some servers cut an answer short and call it whole:
    what cannot be decoded is read again. Raises VerifyFailed where it stays so, and FileNotFoundError.
    """

    def once() -> T:
        try:
            return decode(store.read(name))
        except ValueError as error:
            raise ShortRead(str(error)) from error

    try:
        return once() if isinstance(store, LocalStore) else patiently(once)
    except ShortRead as error:
        raise VerifyFailed(f"{store.url}/{name} is not what was written ({error}). Restore it.") from error


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder of this machine, and remove it at the end, with those whose process died before it could.

    The owner holds a lock of the kernel on its folder: that goes with the process, in any container.
    """
    base = Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="gristmill-scratch-", dir=base))
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for other in base.glob("gristmill-scratch-*"):
            if other != folder:
                remove_if_abandoned(other)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def remove_if_abandoned(folder: Path) -> None:
    """Remove a scratch folder that no process holds."""
    try:
        held = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(held)


def open_store(given: str | Path) -> LocalStore | ObjectStore:
    """The store at a path or URL. Nothing is asked of it yet.

    Raises OutputError where the protocol has no put-if-absent, or cannot be used here.
    """
    if isinstance(given, Path) or (local := local_path(given)) is not None:
        return LocalStore(Path(given if isinstance(given, Path) else local).absolute())  # type: ignore[arg-type]
    protocol = given.split("://", 1)[0]
    if "::" in given or protocol not in CONDITIONAL:
        raise OutputError(
            f"{given}: {protocol} offers no put-if-absent, on which every commit rests. Write to a local folder, or to "
            f"one of {', '.join(CONDITIONAL[:-1])}."
        )
    try:
        file_system(given)
    except InputError as error:
        raise OutputError(str(error)) from error
    return ObjectStore(given.rstrip("/"))


def unusable(where: object, error: BaseException) -> OutputError:
    """What to say of a store that fails."""
    return OutputError(
        f"{where}: cannot be used ({error}). Free space, check your access, or choose another --out; what is committed "
        "stays, and the same command continues."
    )


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Say what to do where a disk is full or may not be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise unusable(folder, error) from error
        raise


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


def boot_id() -> str:
    """What tells this machine, since it was started, from all others; empty where the system has no such thing."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.is_file() else ""


def is_gone(holder: dict[str, Any]) -> bool:
    """True where the process was one of this machine and lives no more."""
    if not holder["boot"] or (holder["boot"], holder["host"]) != (boot_id(), socket.gethostname()):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
