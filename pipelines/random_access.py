"""What every file that is read at any place has in common: where the next read begins."""

from __future__ import annotations

import io
from typing import ClassVar


class RandomAccess(io.RawIOBase):
    """A file of `_size` bytes whose next read begins at `_at`. Subclasses give `readinto`."""

    block_bytes: ClassVar[int] = 1 << 20
    """Read at a time where all that is left is asked for. The default of io would be 8 KiB."""

    def __init__(self, size: int) -> None:
        self._size, self._at = size, 0

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
        """What is left of the file."""
        blocks = []
        while block := self.read(self.block_bytes):
            blocks.append(block)
        return b"".join(blocks)
