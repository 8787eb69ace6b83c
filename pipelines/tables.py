"""Rows of Parquet and lines of JSONL as documents; their text is plain text.

Bytes: a row group's belong to its first row, what lies around the row groups is `Unreadable("format")`; a line's
belong to the line, and those of a compressed member to the first line that begins in it. A bad line or row group
costs itself only. Memory: one batch of BATCH_ROWS rows, or one line of at most `max_body_bytes`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from filters.errors import InputError
from pipelines.archive_header import looks_like
from pipelines.charset import clean_text, text_from_bytes
from pipelines.http_body import FREE_BYTES
from pipelines.member import Form, RawFile, Run, gap_at
from pipelines.record import Damaged, Event, Given, Page, Position, Refused, Skipped, Source, Unreadable

if TYPE_CHECKING:
    from pipelines.read import ReadOptions

BATCH_ROWS = 64
# A column whose header admits to more, and to a higher ratio, is not read.
_MAX_COLUMN_BYTES = 4 << 30


def substitute_id(path: str, position: Position) -> str:
    """Return the id of a record that has none: the same for the same place in the same file."""
    place = f"{path}\n{position.offset}\n{position.inner}"
    return f"urn:gristmill:{xxhash.xxh3_64_hexdigest(place.encode('utf-8', 'surrogateescape'))}"


def row_event(row: Mapping[str, Any], source: Source, position: Position, length: int, options: ReadOptions) -> Event:
    """Return the document of one row, or why it is none. `metadata` is searched for what the row itself lacks."""
    text = row.get(options.text_column)
    if isinstance(text, bytes):
        text, _ = text_from_bytes(text, None)
    if not isinstance(text, str):
        return Skipped(position=position, length=length, reason="no_text")
    more = row.get("metadata")
    more = more if isinstance(more, Mapping) else {}
    named = [row.get(name, more.get(name)) for name in (options.id_column, options.url_column, options.date_column)]
    record_id, url, when = (clean_text(_as_text(value)) for value in named)
    record_id = record_id or substitute_id(source.path, position)
    text = clean_text(text)
    data = text.encode()
    most = options.limits.max_body_bytes
    if len(data) > most:
        return Refused(
            position=position,
            length=length,
            record_id=record_id,
            url=url,
            date=when,
            reason="body_bytes",
            detail=f"text of {len(data):,} bytes, more than {most:,}",
        )
    return Page(
        position=position,
        length=length,
        record_id=record_id,
        url=url,
        date=when,
        text=text,
        is_html=False,
        digest=xxhash.xxh3_128_digest(data),
        given=given_by(row),
    )


GIVEN = {"dump": str, "language": str, "language_score": float, "token_count": int}
"""FineWeb's columns that a recipe may leave as they are."""


def given_by(row: Mapping[str, Any]) -> Given | None:
    """What the row says of its text; a value of another type is not taken."""
    found = {name: value if type(value := row.get(name)) is kind else None for name, kind in GIVEN.items()}
    return None if all(value is None for value in found.values()) else Given(**found)  # type: ignore[arg-type]


def _as_text(value: object) -> str:
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, datetime | date) else str(value)


# JSONL


def jsonl_events(
    raw: RawFile, form: Form, source: Source, options: ReadOptions, start: int, stop: int
) -> Iterator[tuple[Event, bool]]:
    """Yield the lines that begin in [start, stop), and whether reading can begin at each."""
    looks = partial(looks_like, "jsonl")
    at = start
    while at < stop:
        run = Run(raw, form, at, options.limits, looks)
        for owner, event, alone in _run_lines(run, source, options):
            if owner >= stop:
                break
            yield event, alone
            at = event.end if isinstance(event, Unreadable) else at + event.length
        if at < stop and run.ended == "gap":
            end, reason = gap_at(raw, form, at, looks)
            yield Unreadable(start=at, end=min(end, stop), reason=reason), False
            at = end
        elif at < stop and run.ended == "end":
            yield Unreadable(start=at, end=stop, reason="missing"), False
            return


def _run_lines(run: Run, source: Source, options: ReadOptions) -> Iterator[tuple[int, Event, bool]]:
    most = options.limits.max_body_bytes
    cursor, charged, at = run.start, -1, 0
    while run.have(at + 1):
        owner = run.start + at if run.plain else run.member_at(at).start
        begin = at if run.plain else run.member_at(at).begin
        position = Position(offset=owner, inner=at - begin)
        line, end, whole = _line(run, at, most)
        more = run.have(end + 1)
        ended_at = cursor
        alone = owner != charged and (run.plain or at == begin)
        charged = owner
        if not more:
            apart = not run.plain and run.members[-1].broken and run.members[-1].begin >= end
            cursor = run.members[-1].start if apart else run.next
        elif run.plain:
            cursor = run.start + end
        else:
            member = run.member_at(end)
            cursor = run.end_of(member) if member.start == charged else member.start
        broken = not more and run.ended not in ("end", "gap") and cursor == run.next
        yield owner, _line_event(line, whole, broken, source, position, cursor - ended_at, options), alone
        run.forget(end)
        at = end
    if cursor < run.next:
        reason = "padding" if run.ended in ("end", "gap") else "damaged"
        yield cursor, Unreadable(start=cursor, end=run.next, reason=reason), False


def _line(run: Run, at: int, most: int) -> tuple[bytes, int, bool]:
    """Return the line at coordinate `at`, where the next begins, and whether it was kept whole."""
    scanned, whole = at, True
    while (found := run.data.find(b"\n", scanned - run.base)) < 0:
        scanned = run.limit
        if scanned - at > most:
            whole = False
            run.drop(scanned)
        if not run.fill():
            return (run.taken(at, run.limit) if whole else b"", run.limit, whole)
    end = run.base + found + 1
    return (run.taken(at, end) if whole else b"", end, whole)


def _line_event(
    line: bytes, whole: bool, broken: bool, source: Source, position: Position, length: int, options: ReadOptions
) -> Event:
    record_id = substitute_id(source.path, position)
    if broken:
        return Damaged(position=position, length=length, record_id=record_id, reason="damaged")
    if not whole:
        detail = f"a line of more than {options.limits.max_body_bytes:,} bytes"
        return Refused(
            position=position, length=length, record_id=record_id, url="", date="", reason="body_bytes", detail=detail
        )
    if len(line) > FREE_BYTES and 0 < length * options.limits.max_ratio < len(line):
        detail = f"a line of {len(line):,} bytes out of {length:,}"
        return Refused(
            position=position,
            length=length,
            record_id=record_id,
            url="",
            date="",
            reason="compression_ratio",
            detail=detail,
        )
    if not line.strip(b"\0 \t\r\n"):
        return Skipped(position=position, length=length, reason="empty")
    try:
        row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return Damaged(position=position, length=length, record_id=record_id, reason="json")
    if not isinstance(row, dict):
        return Damaged(position=position, length=length, record_id=record_id, reason="json")
    return row_event(row, source, position, length, options)


# Parquet


def row_group_starts(raw: RawFile) -> list[int] | None:
    """Return where each row group begins, and where the last one ends; None where the footer cannot be read."""
    table = _opened(raw)
    return None if table is None else _bounds(table.parquet, raw.size)


def parquet_events(raw: RawFile, source: Source, options: ReadOptions, start: int, stop: int) -> Iterator[Event]:
    """Yield the rows of the row groups that begin in [start, stop); the lengths add up to stop - start."""
    table = _opened(raw)
    if table is None:
        yield Unreadable(start=start, end=stop, reason="damaged")
        return
    names = table.parquet.schema_arrow.names
    if options.text_column not in names:
        raise InputError(
            f"{source.path} has no column {options.text_column!r}; it has {', '.join(names)}. Name the column of the "
            "text in the recipe: read: {text_column: ...}."
        )
    bounds = _bounds(table.parquet, raw.size)
    at = start
    for group, (begin, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
        if not start <= begin < stop:
            continue
        if at < begin:
            yield Unreadable(start=at, end=begin, reason="format")
        yield from _group_events(table, group, source, options, begin, end)
        at = end
    if at < stop:
        yield Unreadable(start=at, end=stop, reason="format")


def parquet_row(raw: RawFile, source: Source, options: ReadOptions, position: Position) -> Event | None:
    """Return the row `inner` of the row group at `offset`, or None where there is none."""
    table = _opened(raw)
    if table is None:
        return None
    bounds = _bounds(table.parquet, raw.size)
    if position.offset not in bounds[:-1]:
        return None
    group = bounds.index(position.offset)
    for event in _group_events(table, group, source, options, bounds[group], bounds[group + 1]):
        if not isinstance(event, Unreadable) and event.position == position:
            return event
    return None


class _Watched(io.RawIOBase):
    """A file that remembers its own failure: Arrow raises the same OSError for a bad page and for a lost connection."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failed = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        self.failed = True
        data = self._file.read(size)
        self.failed = False
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """An open Parquet file and the file below it."""

    parquet: pq.ParquetFile
    file: _Watched


def _opened(raw: RawFile) -> _Table | None:
    """Return the table, or None where its footer is damaged."""
    file = _Watched(raw.file)
    try:
        file.seek(0)
        return _Table(parquet=pq.ParquetFile(file, pre_buffer=False), file=file)
    except (pa.ArrowException, OSError, ValueError):
        if file.failed:
            raise
        return None


def _bounds(table: pq.ParquetFile, size: int) -> list[int]:
    """Return the first byte of each row group, then the byte after the last column; rising, within the file."""
    starts: list[int] = []
    end = 4
    for group in range(table.metadata.num_row_groups):
        chunks = table.metadata.row_group(group)
        firsts, lasts = [], []
        for column in range(chunks.num_columns):
            chunk = chunks.column(column)
            pages = [chunk.data_page_offset]
            if chunk.dictionary_page_offset:
                pages.append(chunk.dictionary_page_offset)
            firsts.append(min(pages))
            lasts.append(min(pages) + chunk.total_compressed_size)
        begin = min(firsts, default=end)
        starts.append(min(max(begin, starts[-1] + 1 if starts else 4), size))
        end = min(max([end, *lasts]), size)
    return [*starts, end]


def _group_events(
    table: _Table, group: int, source: Source, options: ReadOptions, begin: int, end: int
) -> Iterator[Event]:
    length = end - begin
    wanted = (options.text_column, options.id_column, options.url_column, options.date_column, "metadata", *GIVEN)
    if (bomb := _bomb(table.parquet, group, options)) is not None:
        yield Unreadable(start=begin, end=end, reason=bomb)
        return
    row = 0
    try:
        present = [name for name in wanted if name in table.parquet.schema_arrow.names]
        for batch in table.parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=present, use_threads=False):
            for values in batch.to_pylist():
                yield row_event(values, source, Position(offset=begin, inner=row), length, options)
                row, length = row + 1, 0
    except (pa.ArrowException, OSError, ValueError, OverflowError):
        if table.file.failed:
            raise
        if row == 0:
            yield Unreadable(start=begin, end=end, reason="damaged")
            return
        position = Position(offset=begin, inner=row)
        record_id = substitute_id(source.path, position)
        yield Damaged(position=position, length=0, record_id=record_id, reason="row_group")
        return
    if row == 0:
        yield Unreadable(start=begin, end=end, reason="format")


def _bomb(table: pq.ParquetFile, group: int, options: ReadOptions) -> str | None:
    chunks = table.metadata.row_group(group)
    for index in range(chunks.num_columns):
        chunk = chunks.column(index)
        if chunk.path_in_schema.split(".")[0] != options.text_column or chunk.total_uncompressed_size < FREE_BYTES:
            continue
        ratio = chunk.total_uncompressed_size / max(chunk.total_compressed_size, 1)
        if ratio > options.limits.max_ratio or chunk.total_uncompressed_size > _MAX_COLUMN_BYTES:
            return "compression_ratio" if ratio > options.limits.max_ratio else "body_bytes"
    return None
