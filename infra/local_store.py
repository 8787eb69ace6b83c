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
from infra.stored import ATTEMPTS, LOCK, Attempt, Stored, unusable
from pipelines.storage import opened


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
        failpoint("create.before")
        try:
            for last in (False, True):
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    write_synced(partial, data)
                    break
                except FileNotFoundError:  # the folder was empty, and somebody removed it
                    if last:
                        raise
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError as error:
            raise unusable(path, error) from error
        finally:
            with suppress(OSError):
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
            write_synced(partial, data)
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
        """Have the file's bytes reach the disk. From here on it is read only: what is published is a link to it."""
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.chmod(0o444)
        return f"{attempt.name}/{path.name}"

    def show(self, folder: str, files: Sequence[tuple[str, str]]) -> None:
        """Link the files: they take no space of their own. Other things that a user put there stay."""
        shown = self.root / folder
        try:
            shown.mkdir(exist_ok=True)
            for name, short in files:
                partial = shown / f".{short}.{uuid.uuid4().hex}"
                os.link(self.root / name, partial)
                partial.replace(shown / short)
                partial.unlink(missing_ok=True)  # where both were links to one file already
                failpoint("publish.half")
            for other in shown.glob("part-*.parquet"):
                if other.name not in {short for _, short in files}:
                    other.unlink()
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


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Say what to do where a disk is full or may not be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise unusable(folder, error) from error
        raise
