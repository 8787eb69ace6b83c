"""The decompressed bytes of an archive, and which compressed member of the file each of them came from.

A `Run` is an unbroken sequence of members (or a plain file); it ends where the file does, where something else than a
member begins, or at damage. Everything it says depends on its first byte only, so a run that begins at a later member
gives the same. Memory: READ_BYTES, OUT_BYTES and what the caller keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Literal

from pipelines.inflate import MAGIC, SKIPPABLE, Codec, Inflater, codec_of, inflated, inflater

READ_BYTES = 1 << 20
FEED_BYTES = 32 << 10
OUT_BYTES = 1 << 20
# A member that begins with no record is believed after damage only if it is whole and followed by another.
_TRIAL_BYTES = 1 << 20
_FORGET_BYTES = 256 << 10
_FORGET_MEMBERS = 64
_SALVAGE_BYTES = 4 << 20
_SALVAGE_STEP = 64

Ending = Literal["end", "gap", "damaged", "truncated", "bomb"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may be kept of one body, and when a member is a bomb.

    A member is left unread once it has given `max_member_bytes` at more than `max_ratio` times its own bytes.
    """

    max_body_bytes: int = 32 << 20
    max_ratio: float = 200.0
    max_member_bytes: int = 512 << 20


class RawFile:
    """Random access to a file through one block of READ_BYTES."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size
        self._block = b""
        self._at = 0

    def read(self, at: int, count: int) -> bytes:
        """Return up to `count` bytes at `at`; fewer only at the end of the file."""
        count = min(count, self.size - at)
        if count <= 0:
            return b""
        skip = at - self._at
        if skip < 0 or skip + count > len(self._block):
            self.file.seek(at)
            self._block = _read_fully(self.file, min(max(count, READ_BYTES), self.size - at))
            self._at, skip = at, 0
        return self._block[skip : skip + count]


def _read_fully(file: BinaryIO, count: int) -> bytes:
    block = file.read(count)
    while len(block) < count and (more := file.read(count - len(block))):
        block += more
    return block


Kind = Literal["warc", "arc", "jsonl", "parquet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a file is written: its codec, what it holds, and the dictionary that its zstd frames need."""

    codec: Codec
    kind: Kind
    dictionary: bytes | None = None


class Member:
    """One compressed member: file bytes [start, end), and `begin`, where its output begins in the run."""

    __slots__ = ("begin", "broken", "end", "start")

    def __init__(self, start: int, begin: int) -> None:
        self.start = start
        self.begin = begin
        self.end: int | None = None
        self.broken = False


class Run:
    """`data` holds the run's output from coordinate `base` on; coordinate 0 is the output of file offset `start`.

    `looks` tells whether decompressed bytes begin with a record: it finds the way back after damage.
    """

    def __init__(self, raw: RawFile, form: Form, start: int, limits: Limits, looks: Callable[[bytes], bool]) -> None:
        self.raw = raw
        self.form = form
        self.start = start
        self.limits = limits
        self.looks = looks
        self.plain = form.codec == "plain"
        self.data = bytearray()
        self.base = 0
        self.members: list[Member] = []
        self.ended: Ending | None = None
        self._at = start
        self._next: int | None = None
        self._inflater: Inflater | None = None
        self._produced = 0  # output of the current member

    @property
    def limit(self) -> int:
        """The coordinate after the last byte in `data`."""
        return self.base + len(self.data)

    def have(self, end: int) -> bool:
        """Read until `data` reaches coordinate `end`; false where the run ends before it."""
        while self.base + len(self.data) < end:
            if not self.fill():
                return False
        return True

    def fill(self) -> bool:
        """Add at least one byte to `data`, all of one member; false at the end of the run."""
        while self.ended is None:
            part = self._plain_part() if self.plain else self._inflated_part()
            if part:
                self.data += part
                return True
        return False

    def drop(self, before: int) -> None:
        """Forget the bytes before coordinate `before`."""
        count = min(before - self.base, len(self.data))
        if count > 0:
            del self.data[:count]
            self.base += count

    def forget(self, before: int) -> None:
        """Forget the bytes before coordinate `before` once they are many, and the members that gave them."""
        if before - self.base >= _FORGET_BYTES or before == self.limit:
            self.drop(before)
        if len(self.members) > _FORGET_MEMBERS:
            del self.members[: self._index(before)]

    def taken(self, begin: int, end: int) -> bytes:
        """Return the bytes of coordinates [begin, end); they must be in `data`."""
        with memoryview(self.data) as view:
            return bytes(view[begin - self.base : end - self.base])

    def member_at(self, at: int) -> Member:
        """Return the member that gave the byte at coordinate `at`."""
        return self.members[self._index(at)]

    def _index(self, at: int) -> int:
        for index in range(len(self.members) - 1, 0, -1):
            if self.members[index].begin <= at:
                return index
        return 0

    def end_of(self, member: Member) -> int:
        """Return the file offset after the member; reads ahead, keeping nothing, where that is not yet known."""
        if member.end is None:
            if member.broken:
                member.end = self.next
            else:
                ahead = Run(RawFile(self.raw.file, self.raw.size), self.form, member.start, self.limits, self.looks)
                while ahead.members[:1] == [] or (ahead.members[0].end is None and ahead.ended is None):
                    ahead.fill()
                    ahead.drop(ahead.limit)
                first = ahead.members[0]
                member.end = ahead.next if first.end is None else first.end
        return member.end

    @property
    def next(self) -> int:
        """The file offset after an ended run: of the first member that can be read again, where it ended at damage."""
        assert self.ended is not None, "the run has not ended"
        if self._next is None:
            if self.ended in ("end", "gap"):
                self._next = self._at
            else:
                # A damaged member may have been read too far: its successor is sought from its second byte on.
                fed = self._at - FEED_BYTES if self.ended == "bomb" else 0  # a bomb ends after the last step but one
                begin = max(self.members[-1].start + 1, fed)
                self._next = next_member(self.raw, self.form, begin, self.looks)
        return self._next

    def rewind(self, at: int) -> None:
        """Make coordinate `at` the first byte that `fill` gives; its member must not have been dropped."""
        self.data.clear()
        self.ended = self._next = None
        if self.plain:
            self.base, self._at = at, self.start + at
            return
        index = self._index(at)
        member = self.members[index]
        del self.members[index:]
        self.base, self._at, self._inflater = member.begin, member.start, None
        while self.base < at and self.fill():
            self.drop(at)

    def jump(self, at: int) -> None:
        """Go on at coordinate `at` of a plain file without reading what lies between."""
        self.data.clear()
        self.base, self._at, self.ended = at, self.start + at, None

    def _plain_part(self) -> bytes:
        part = self.raw.read(self._at, FEED_BYTES * 8)
        self._at += len(part)
        if not part:
            self.ended = "end"
        return part

    def _inflated_part(self) -> bytes:
        if self._inflater is None:
            self._open_member()
            return b""
        step = self.raw.read(self._at, FEED_BYTES) if self._inflater.needs_input else b""
        if self._inflater.needs_input and not step:
            return self._broken("truncated")
        out = inflated(self._inflater, step, OUT_BYTES)
        if out is None:
            return self._broken("damaged")
        self._at += len(step)
        self._produced += len(out)
        member = self.members[-1]
        if self._inflater.eof:
            self._at -= len(self._inflater.unused_data or b"")
            member.end = self._at
            self._inflater = None
        elif self._produced > max(self.limits.max_member_bytes, self.limits.max_ratio * (self._at - member.start)):
            member.broken, self.ended, self._inflater = True, "bomb", None
        return out

    def _open_member(self) -> None:
        head = self.raw.read(self._at, 16)
        if not head:
            self.ended = "end"
        elif codec_of(head) != self.form.codec:
            self.ended = "gap"
        else:
            begin = self.limit
            self.members.append(Member(self._at, begin))
            self._inflater = inflater(self.form.codec, self.form.dictionary)
            self._produced = 0

    def _broken(self, ending: Ending) -> bytes:
        """End the run in its current member and return what can still be had of it, in small steps, by zlib itself."""
        member = self.members[-1]
        member.broken, self.ended, self._inflater = True, ending, None
        again = inflater(self.form.codec, self.form.dictionary, reference=True)
        saved = bytearray()
        skip, at = self._produced, member.start
        while not again.eof and len(saved) < _SALVAGE_BYTES:
            step = b""
            if again.needs_input:
                step = self.raw.read(at, FEED_BYTES if at + FEED_BYTES <= self._at else _SALVAGE_STEP)
                if not step:
                    break
            at += len(step)
            out = inflated(again, step, OUT_BYTES)
            if out is None:
                break
            saved += out[skip:]
            skip = max(skip - len(out), 0)
        return bytes(saved)


def next_member(raw: RawFile, form: Form, at: int, looks: Callable[[bytes], bool]) -> int:
    """Return the offset of the first member from `at` on that can be believed, else the end of the file.

    Believed is one whose output begins with a record, or that is whole and followed by another member or the end.
    """
    magic = MAGIC[form.codec]
    while at < raw.size:
        block = raw.read(at, READ_BYTES)
        if not block:
            break
        for found in magic.finditer(block):
            if _believed(RawFile(raw.file, raw.size), form, at + found.start(), looks):
                return at + found.start()
        if len(block) < 16:
            break
        at += len(block) - 15  # no magic number is longer
    return raw.size


def _believed(raw: RawFile, form: Form, at: int, looks: Callable[[bytes], bool]) -> bool:
    trial = inflater(form.codec, form.dictionary, reference=True)
    head = bytearray()
    produced = 0
    feed = 1024
    while not trial.eof and produced < _TRIAL_BYTES:
        step = raw.read(at, feed) if trial.needs_input else b""
        if trial.needs_input and not step:
            return looks(bytes(head))
        at, feed = at + len(step), FEED_BYTES
        out = inflated(trial, step, FEED_BYTES)
        if out is None:
            return False
        produced += len(out)
        if len(head) < FEED_BYTES:
            head += out
            if looks(bytes(head)):
                return True
    if not trial.eof:
        return False
    after = raw.read(at - len(trial.unused_data or b""), 16)
    return not after or codec_of(after) == form.codec


def gap_at(raw: RawFile, form: Form, at: int, looks: Callable[[bytes], bool]) -> tuple[int, str]:
    """Return where the bytes that are no member end, and what they are: `format`, `padding` or `garbage`."""
    head = raw.read(at, 8)
    if form.codec in ("zstd", "lz4") and SKIPPABLE.match(head) and len(head) == 8:
        return min(at + 8 + int.from_bytes(head[4:], "little"), raw.size), "format"
    end = next_member(raw, form, at, looks)
    blank = True
    while blank and at < end:
        block = raw.read(at, min(READ_BYTES, end - at))
        blank = not block.strip(b"\0\r\n \t")
        at += max(len(block), 1)
    return end, "padding" if blank else "garbage"
