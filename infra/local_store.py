"""A store that is a folder. Data files are written where they stay, and published as hard links."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filters.errors import OutputError
from infra.failpoints import failpoint
from infra.stored import ATTEMPTS, LOCK, Attempt, Stored, unusable, usable
from pipelines.storage import opened

_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder of a file system with link(2): local ones and NFS."""

    root: Path

    @property
    def url(self) -> str:
        """The folder's path."""
        return str(self.root)

    @property
    def is_remote(self) -> bool:
        """False, also on NFS: its answers are whole."""
        return False

    def create(self, name: str, data: bytes) -> bool:
        """Write a file beside the name and link it there: link(2) fails where the name exists."""
        path = self.root / name
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            failpoint("create.before")
            for last in (False, True):
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    write_synced(partial, data)
                    break
                except FileNotFoundError:  # the folder was empty, and somebody removed it
                    if last:
                        raise
            try:
                os.link(partial, path)
            except FileExistsError:
                return False
            failpoint("create.after")
        except OSError as error:
            raise unusable(path, error) from error
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        return True

    def read(self, name: str) -> bytes:
        """Read the file."""
        with existing(self.root / name) as path:
            return path.read_bytes()

    def size(self, name: str) -> int:
        """Look at the file."""
        with existing(self.root / name) as path:
            return path.stat().st_size

    def replace(self, name: str, data: bytes) -> None:
        """Write a file beside the name and move it there."""
        path = self.root / name
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with usable(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_synced(partial, data)
                partial.replace(path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def listed(self, folder: str, prefix: str = "") -> Iterator[Stored]:
        """Walk the folder; what another process removes meanwhile is not there."""
        for where, _, names in self._walk(folder):
            inside = where.relative_to(self.root / folder)
            for name in names:
                if not str(inside / name).startswith(prefix):
                    continue
                with usable(where / name):
                    try:
                        status = (where / name).stat()
                    except FileNotFoundError:
                        continue
                yield Stored(name=str(folder / inside / name), bytes=status.st_size, written=status.st_mtime)

    def _walk(self, folder: str) -> Iterator[tuple[Path, list[str], list[str]]]:
        """Each folder with its folders and files. One that cannot be read is an error, and not empty: `gc` believes."""

        def told(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise unusable(error.filename, error) from error

        for where, folders, names in os.walk(self.root / folder, onerror=told):
            yield Path(where), folders, names

    def top(self) -> set[str]:
        """List the folder."""
        try:
            with existing(self.root) as root:
                return {path.name for path in root.iterdir()}
        except FileNotFoundError:
            return set()

    def open(self, name: str, size: int) -> BinaryIO:
        """Open the file."""
        with existing(self.root / name) as path:
            return opened(str(path), size=size)

    @contextmanager
    def attempt(self, task: str) -> Iterator[Attempt]:
        """Yield a new folder in the store. It stays, whatever comes: `gc` removes what no manifest names."""
        name = f"{ATTEMPTS}/{task}/{uuid.uuid4().hex}"
        with writable(self.root / name):
            with usable(self.root / name):
                (self.root / name).mkdir(parents=True)
                failpoint("attempt.begun")
            yield Attempt(folder=self.root / name, name=name)

    def keep(self, attempt: Attempt, path: Path) -> str:
        """Have the file's bytes reach the disk. From here on it is read only: what is published is a link to it."""
        with usable(path):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.chmod(0o444)
        return f"{attempt.name}/{path.name}"

    def show(self, folder: str, files: Sequence[tuple[str, str]]) -> None:
        """Link the files: they take no space of their own. Other things that a user put there stay."""
        shown = self.root / folder
        with usable(shown):
            shown.mkdir(parents=True, exist_ok=True)
            for name, short in files:
                partial = shown / f".{short}.{uuid.uuid4().hex}"
                os.link(self.root / name, partial)
                partial.replace(shown / short)
                partial.unlink(missing_ok=True)  # where both were links to one file already
                failpoint("publish.half")
            for other in shown.glob("part-*.parquet"):
                if other.name not in {short for _, short in files}:
                    other.unlink()

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, and the folders that this leaves empty."""
        for name in names:
            path = self.root / name
            with usable(path):
                path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self.root or not removed_if_empty(folder):
                    break

    def prune(self, folder: str, before: float) -> None:
        """Look at every folder, then remove the old ones from the innermost outwards."""
        old = []
        for where, _, names in self._walk(folder):
            with suppress(FileNotFoundError), existing(where):
                if where != self.root / folder and not names and where.stat().st_mtime <= before:
                    old.append(where)
        for empty in reversed(old):
            removed_if_empty(empty)

    def now(self) -> float:
        """The file system's clock: that of a server where the folder is one of its."""
        with usable(self.root), tempfile.NamedTemporaryFile(dir=self.root / "_work", prefix=".clock-") as file:
            return Path(file.name).stat().st_mtime

    @contextmanager
    def locked(self, *, take_over: bool) -> Iterator[None]:
        """Hold a lock of the kernel, which goes with its process: there is nothing to take over."""
        self._prepare()
        try:
            file = (self.root / LOCK).open("w")
        except OSError as error:
            raise unusable(self.root / LOCK, error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(
                    f"{self.url}: another gristmill command works there. Wait for it, or choose another --out."
                ) from None
            except OSError as error:
                raise unusable(self.root / LOCK, error) from error
            yield

    def lock_names(self) -> set[str]:
        """The one file that is locked."""
        return {LOCK}

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


def write_synced(path: Path, data: bytes) -> None:
    """Create a file holding `data`; its bytes are on the disk before this returns."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def removed_if_empty(folder: Path) -> bool:
    """True where the folder was empty and is removed; what comes into it meanwhile stays, and so does the folder."""
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


@contextmanager
def existing(path: Path) -> Iterator[Path]:
    """Yield the path. Raises FileNotFoundError where there is no such file, OutputError where that cannot be said."""
    try:
        yield path
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise FileNotFoundError(error.errno, error.strerror, str(path)) from error
    except OSError as error:
        raise unusable(path, error) from error


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Say what to do where the disk under `folder` is full, may not be written, or fails.

    What fails elsewhere, as far as an error says where, is not the folder's matter.
    """
    try:
        yield
    except OSError as error:
        inside = error.filename is None or str(error.filename).startswith(str(folder))
        if error.errno in _NOT_WRITABLE or (inside and error.errno in (errno.EIO, errno.ESTALE)):
            raise unusable(folder, error) from error
        raise
