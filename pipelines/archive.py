"""WARC and ARC records in file order, with every byte of the file in exactly one record or one `Unreadable` range.

A record ends where its Content-Length says if a record, a member or the file ends there too, or the blank lines that
close a record follow; otherwise at the next sure beginning of a record, since lengths are wrong more often than
records are cut. A record that shares its member with an earlier one has length 0; the member's bytes are the first
one's. What is said of a record depends on nothing before its first byte, except where its member begins.

Memory: one body of at most `max_body_bytes`, twice while it is handed over, and some MiB (READ_BYTES, OUT_BYTES). A
body beyond that is counted, never kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from pipelines.archive_header import Header, header_at, looks_like, searched_header
from pipelines.http_body import FREE_BYTES
from pipelines.member import Form, Limits, RawFile, Run, gap_at
from pipelines.record import Position, Unreadable

_BLANK = re.compile(rb"[\r\n \t]*")
_PADDING = re.compile(rb"[\r\n\0 \t]*")
_CLOSING = {"warc": re.compile(rb"\r?\n\r?\n\Z"), "arc": re.compile(rb"\r?\n\Z")}
_TERMINATORS = (b"\r\n\r\n", b"\n\n")
# Enough to tell the media type of a body too large to be kept.
_PREFIX_BYTES = 64 << 10
_BROKEN = ("damaged", "truncated", "bomb")

Fault = Literal["damaged", "truncated", "length", "header"]
Refusal = Literal["body_bytes", "compression_ratio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record as stored. `fault` says why its body cannot be trusted, `refused` why it must not be parsed.

    `body` is whole, unless `refused`: then it is the beginning. `alone` is true where reading can begin at this
    record's offset and give the same.
    """

    position: Position
    length: int
    header: Header
    body: bytes
    fault: Fault | None
    refused: Refusal | None
    alone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Body:
    """A body, its size, and the coordinate where it ends. `kept` is false where `data` is only its beginning."""

    data: bytes
    size: int
    end: int
    kept: bool
    fault: Literal["truncated", "length"] | None = None


def records(raw: RawFile, form: Form, limits: Limits, start: int, stop: int) -> Iterator[Record | Unreadable]:
    """Yield what begins in [start, stop) of the file; the lengths add up to stop - start."""
    looks = partial(looks_like, form.kind)
    at = start
    while at < stop:
        run = Run(raw, form, at, limits, looks)
        for owner, event in _run_records(run):
            if owner >= stop:
                break
            if isinstance(event, Record):
                yield event if at + event.length <= stop else replace(event, length=stop - at)
                at = min(at + event.length, stop)
            else:
                yield Unreadable(start=event.start, end=min(event.end, stop), reason=event.reason)
                at = min(event.end, stop)
        if at < stop and run.ended == "gap":
            end, reason = gap_at(raw, form, at, looks)
            yield Unreadable(start=at, end=min(end, stop), reason=reason)
            at = end
        elif at < stop and run.ended == "end":
            yield Unreadable(start=at, end=stop, reason="missing")
            return


def record_at(raw: RawFile, form: Form, limits: Limits, position: Position) -> Record | None:
    """Return the record at this position, or None where none begins there; its length is 0 where `inner` is not."""
    run = Run(raw, form, position.offset, limits, partial(looks_like, form.kind))
    if position.inner:
        run.fill()
        run.drop(position.inner)
        while run.limit < position.inner and run.fill():
            run.drop(position.inner)
    if not run.have(position.inner + 1) or (header := header_at(run, position.inner)) is None:
        return None
    body = _body(run, header, position.inner + header.size)
    account = _Account(run)
    record = account.record(position.inner, header, body, _after(_BLANK, run, body.end))
    return replace(record, length=0) if position.inner else record


def _run_records(run: Run) -> Iterator[tuple[int, Record | Unreadable]]:
    """Yield the run's events, each with the file offset of the member (or the byte) in which it begins."""
    account = _Account(run)
    at = 0
    while True:
        at = _after(_PADDING, run, at)
        run.forget(at)
        if not run.have(at + 1):
            if account.cursor < run.next:
                reason = "damaged" if run.ended in _BROKEN else "padding"
                yield account.cursor, Unreadable(start=account.cursor, end=run.next, reason=reason)
            return
        owner = account.owner(at)
        if account.cursor < owner and not account.holds(owner):
            yield account.cursor, Unreadable(start=account.cursor, end=owner, reason="padding")
            account.cursor = owner
        header = header_at(run, at)
        if header is not None:
            body = _body(run, header, at + header.size)
            after = _after(_BLANK, run, body.end)
            record = account.record(at, header, body, after)
            run.forget(after)
            yield owner, record
        else:
            found = searched_header(run, at + 1, keep=_PREFIX_BYTES)
            after = run.limit if found is None else found
            yield owner, account.unreadable(at, after)
        at = after


class _Account:
    """Charges the file's bytes to the events of a run: each member to the first event that begins in it.

    `cursor` is the offset up to which bytes are charged; an event gets what lies between it and the next event's.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.cursor = run.start
        self._charged = -1  # start of the member whose bytes are charged to an event that began in it
        self._ended = 0  # coordinate where the last event's own bytes end

    def owner(self, at: int) -> int:
        """The file offset of the member that holds coordinate `at`; of the byte itself in a plain file."""
        return self.run.start + at if self.run.plain else self.run.member_at(at).start

    def holds(self, owner: int) -> bool:
        """Whether an earlier event has the bytes of this member."""
        return owner == self._charged

    def record(self, at: int, header: Header, body: _Body, after: int) -> Record:
        """Return the record at `at` with its share of bytes; the next event begins at `after`."""
        run, owner = self.run, self.owner(at)
        alone = not self.holds(owner) and (run.plain or self._ended <= run.member_at(at).begin)
        inner = 0 if run.plain else at - run.member_at(at).begin
        broken = _ends_broken(run, body.end, after)
        length = self._charge(at, body.end, after)
        fault: Fault | None = body.fault
        refused: Refusal | None = None
        if broken == "bomb" or self._inflates(body, length):
            fault, refused = None, "compression_ratio"
        elif broken is not None:
            fault = broken
        elif not header.fields.get("warc-type"):
            fault = "header"
        elif not body.kept:
            refused = "body_bytes"
        return Record(
            position=Position(offset=owner, inner=inner),
            length=length,
            header=header,
            body=body.data if refused is None else body.data[:_PREFIX_BYTES],
            fault=fault,
            refused=refused,
            alone=alone,
        )

    def unreadable(self, at: int, after: int) -> Unreadable:
        """Return the range from `at` to `after`, empty where a record in the same member has its bytes."""
        begin = self.cursor
        length = self._charge(at, after, after)
        damaged = after == self.run.limit and self.run.ended in _BROKEN
        return Unreadable(start=begin, end=begin + length, reason="damaged" if damaged else "garbage")

    def _charge(self, at: int, end: int, after: int) -> int:
        run = self.run
        self._ended = end
        begin = self.cursor
        if not run.plain:
            self._charged = self.owner(at)
        if not run.have(after + 1):
            apart = not run.plain and run.members[-1].broken and run.members[-1].begin >= end
            self.cursor = run.members[-1].start if apart else run.next
        elif run.plain:
            self.cursor = run.start + after
        else:
            member = run.member_at(after)
            self.cursor = run.end_of(member) if member.start == self._charged else member.start
        return self.cursor - begin

    def _inflates(self, body: _Body, length: int) -> bool:
        size = body.size
        return not self.run.plain and size > FREE_BYTES and 0 < length * self.run.limits.max_ratio < size


def _ends_broken(run: Run, end: int, after: int) -> Literal["damaged", "truncated", "bomb"] | None:
    """Return how the run ended if it did so in the member that holds the end of this record, and nothing follows."""
    if run.plain or run.have(after + 1) or run.members[-1].begin >= end:
        return None
    return run.ended if run.ended in ("damaged", "truncated", "bomb") else None


def _after(blank: re.Pattern[bytes], run: Run, at: int) -> int:
    """Return the coordinate of the next byte from `at` on that is not blank, else of the run's end."""
    while run.have(at + 1):
        found = blank.match(run.data, at - run.base)
        assert found is not None, "the pattern matches nothing, too"
        at = run.base + found.end()
        if at < run.limit:
            break
    return at


def _body(run: Run, header: Header, start: int) -> _Body:
    """Return the body that begins at `start`."""
    length = header.length
    if length is not None and not (run.plain and run.start + start + length > run.raw.size):
        body = _declared_body(run, start, start + length)
        if body is not None:
            return body
    if run.base > start:
        run.rewind(start)
    return _searched_body(run, start, length)


def _declared_body(run: Run, start: int, end: int) -> _Body | None:
    """Return the body [start, end), or None where that is not where the record ends."""
    kept = end - start <= run.limits.max_body_bytes
    prefix = b""
    if not kept:
        run.have(start + _PREFIX_BYTES)
        prefix = run.taken(start, min(start + _PREFIX_BYTES, run.limit))
    if not kept and run.plain:
        run.jump(end)
    elif not _reach(run, start, end, kept=kept):
        bomb = run.ended == "bomb" and not kept
        return _Body(data=prefix, size=run.limit - start, end=run.limit, kept=False) if bomb else None
    data = run.taken(start, end) if kept else prefix
    after = _after(_BLANK, run, end)
    if not run.have(after + 1) or (not run.plain and run.member_at(after).begin >= end) or header_at(run, after):
        return _Body(data=data, size=end - start, end=end, kept=kept)
    # Blank lines close it: the length was right and what follows is no record.
    if run.form.kind == "warc" and run.base <= end and run.taken(end, end + 4).startswith(_TERMINATORS):
        return _Body(data=data, size=end - start, end=end, kept=kept)
    return None


def _reach(run: Run, start: int, end: int, *, kept: bool) -> bool:
    """Read up to `end`; false where the run ends, or a member with a record of its own begins, before it."""
    checked = start - 1
    while True:
        if not run.plain and run.members[-1].begin > checked:
            for member in run.members:
                if checked < member.begin < end and member.begin >= start and header_at(run, member.begin):
                    return False
            checked = run.members[-1].begin
        if run.limit >= end:
            return True
        if not kept:
            run.drop(run.limit)
        if not run.fill():
            return False


def _searched_body(run: Run, start: int, length: int | None) -> _Body:
    """Return the body up to the next sure beginning of a record, or to the end of the run."""
    run.have(start + _PREFIX_BYTES)
    prefix = run.taken(start, min(start + _PREFIX_BYTES, run.limit))
    found = searched_header(run, start, keep=run.limits.max_body_bytes)
    end = run.limit if found is None else found
    kept = run.base <= start and end - start <= run.limits.max_body_bytes
    if not kept:
        return _Body(data=prefix, size=end - start, end=end, kept=False)
    data = run.taken(start, end)
    closing = _CLOSING[run.form.kind].search(data, max(len(data) - 4, 0))
    if closing is not None:
        return _Body(data=data[: closing.start()], size=closing.start(), end=end, kept=True)
    cut = length is not None and length > len(data)
    fault: Literal["truncated", "length"] = "truncated" if found is None and run.plain else "length"
    return _Body(data=data, size=len(data), end=end, kept=True, fault=fault if cut else None)
