"""One entry of a zip (a WACZ) as a file of its own. One that is stored as it is can be read at any place at once."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, cast

from filters.errors import InputError
from pipelines.random_access import RandomAccess

_LOCAL_HEADER = struct.Struct("<26xHH")


def entry_facts(file: BinaryIO, name: str) -> dict[str, Any]:
    """The entry's `size` and `CRC`. Raises FileNotFoundError where the zip has none of this name, BadZipFile."""
    info = _info(zipfile.ZipFile(file), name)
    return {"size": info.file_size, "CRC": info.CRC}


def entry_file(file: BinaryIO, name: str, *, url: str) -> BinaryIO:
    """The entry for random access; closing it closes the zip `file`, which is closed too where this raises.

    Archives in a WACZ are stored uncompressed, and are read in place. Seeking back in a compressed entry begins anew.
    What is damaged raises InputError naming `url`, here or when it is read. Raises FileNotFoundError.
    """
    with ExitStack() as held, unpacking(url):
        held.callback(file.close)
        archive = zipfile.ZipFile(file)
        info = _info(archive, name)
        if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
            file.seek(info.header_offset)
            lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            start = info.header_offset + _LOCAL_HEADER.size + sum(lengths)
            return cast(BinaryIO, _Entry(file, start, info.file_size, url, held.pop_all()))
        entry = held.enter_context(archive.open(info))
        return cast(BinaryIO, _Entry(cast(BinaryIO, entry), 0, info.file_size, url, held.pop_all()))


@contextmanager
def unpacking(url: str) -> Iterator[None]:
    """Raise InputError naming the entry where it cannot be unpacked: it is damaged, encrypted, or packed strangely."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error, RuntimeError) as error:
        raise InputError(
            f"{url}: the zip is damaged there, or packed in a way that cannot be read ({error}). Leave it out, or pack "
            "it again with its archives stored as they are."
        ) from error


def _info(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(name)
    except KeyError as error:
        raise FileNotFoundError(f"the zip has no entry {name!r}") from error


class _Entry(RandomAccess):
    """Bytes [start, start + size) of another file. `held` is closed with it."""

    def __init__(self, file: BinaryIO, start: int, size: int, url: str, held: ExitStack) -> None:
        super().__init__(size)
        self._file, self._start, self._url, self._held = file, start, url, held

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as the entry goes and one read of the file gives. Raises InputError where it breaks."""
        view = memoryview(buffer).cast("B")
        with unpacking(self._url):
            self._file.seek(self._start + self._at)
            data = self._file.read(max(0, min(len(view), self._size - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Close what it was made of."""
        if not self.closed:
            self._held.close()
        super().close()
