"""One entry of a zip (a WACZ) as a file of its own. One that is stored as it is can be read at any place at once."""

from __future__ import annotations

import struct
import zipfile
from typing import Any, BinaryIO, cast

from pipelines.random_access import RandomAccess

_LOCAL_HEADER = struct.Struct("<26xHH")


def entry_facts(file: BinaryIO, name: str) -> dict[str, Any]:
    """The entry's `size` and `CRC`. Raises FileNotFoundError where the zip has none of this name, BadZipFile."""
    info = _info(zipfile.ZipFile(file), name)
    return {"size": info.file_size, "CRC": info.CRC}


def entry_file(file: BinaryIO, name: str) -> BinaryIO:
    """The entry for random access; closing it closes the zip `file`.

    Archives in a WACZ are stored uncompressed, and are read in place. Seeking back in a compressed entry begins anew.
    """
    archive = zipfile.ZipFile(file)
    info = _info(archive, name)
    if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
        file.seek(info.header_offset)
        start = info.header_offset + _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size)))
        return cast(BinaryIO, _Entry(file, start, info.file_size, [file]))
    entry = archive.open(info)
    return cast(BinaryIO, _Entry(cast(BinaryIO, entry), 0, info.file_size, [entry, archive, file]))


def _info(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(name)
    except KeyError as error:
        raise FileNotFoundError(f"the zip has no entry {name!r}") from error


class _Entry(RandomAccess):
    """Bytes [start, start + size) of another file. `held` is closed with it, in this order."""

    def __init__(self, file: BinaryIO, start: int, size: int, held: list[Any]) -> None:
        super().__init__(size)
        self._file, self._start, self._held = file, start, held

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as the entry goes and one read of the file gives."""
        view = memoryview(buffer).cast("B")
        self._file.seek(self._start + self._at)
        data = self._file.read(max(0, min(len(view), self._size - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Close what it was made of."""
        if not self.closed:
            for one in self._held:
                one.close()
        super().close()
