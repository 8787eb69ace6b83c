"""One entry of a zip (a WACZ) as a file of its own. One that is stored as it is can be read at any place at once."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any, BinaryIO, cast

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


class _Entry(io.RawIOBase):
    """Bytes [start, start + size) of another file. `held` is closed with it, in this order."""

    def __init__(self, file: BinaryIO, start: int, size: int, held: list[Any]) -> None:
        self._file, self._start, self._size, self._held, self._at = file, start, size, held, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to `offset` from the start, from here or from the end."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def readall(self) -> bytes:
        """What is left of the entry, in blocks of 1 MiB. The default would read 8 KiB each time."""
        blocks = []
        while block := self.read(1 << 20):
            blocks.append(block)
        return b"".join(blocks)

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
