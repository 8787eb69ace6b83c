"""Sources -> events (`pipelines.record`), in file order: every record once, every byte of the slice charged once.

Reasons, all of them.
Skipped: the type of a record that is no document (`warcinfo`, `request`, `metadata`, `revisit`, `resource`,
    `continuation`, `filedesc`, `other_type`, or `response`/`conversion` where the options leave them out); `not_http`;
    `media_type`; `status:NNN`; `empty`; `no_text` (a row without text).
Refused: `body_bytes`, `compression_ratio`.
Damaged: `damaged` (the compressed member breaks or its checksum is wrong), `truncated` (the file ends first), `length`
    (the record was cut: another begins before its declared end), `header` (no WARC-Type), `http_body` (its content
    coding breaks), `json`, `row_group` (the rows from here on).
Unreadable: `unrecognised` (the whole file), `damaged`, `garbage`, `padding`, `format` (footers, dictionaries),
    `missing` (the file is shorter than planned), and for Parquet columns `body_bytes`, `compression_ratio`.

Offsets of a file that is one compressed member: `offset` is the member's (0), `inner` counts its output.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import xxhash

from filters.errors import InputError
from pipelines.archive import Record, record_at, records
from pipelines.charset import text_from_bytes
from pipelines.form import form_of
from pipelines.http_body import HttpMessage, TooLarge, http_message, payload
from pipelines.media_type import HTML, XHTML, media_type_of
from pipelines.member import Form, Limits, RawFile
from pipelines.record import Damaged, Event, Page, Position, Refused, Skipped, Slice, Source, Unreadable
from pipelines.storage import opened
from pipelines.tables import (
    jsonl_events,
    parquet_events,
    parquet_row,
    row_group_starts,
    substitute_id,
)

PLAIN = "text/plain"
_CHARSET = re.compile(r"""charset\s{0,9}=[\s"']{0,9}([\w.:+-]{1,99})""", re.I)
_TYPES = frozenset(
    ("warcinfo", "response", "resource", "request", "metadata", "revisit", "conversion", "continuation", "filedesc")
)


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Which records are documents, and how large one may be. The defaults are datatrove's meaning.

    `statuses` are closed ranges of HTTP statuses; None admits every status. A `conversion` may be text/plain, too.
    `max_ratio` is decompressed over compressed, of a member and of a content coding, beyond 4 MiB of output.
    """

    record_types: tuple[str, ...] = ("response", "conversion")
    media_types: tuple[str, ...] = (HTML, XHTML)
    statuses: tuple[tuple[int, int], ...] | None = None
    max_body_bytes: int = 32 << 20
    max_ratio: float = 200.0
    max_member_bytes: int = 512 << 20
    text_column: str = "text"
    id_column: str = "id"
    url_column: str = "url"
    date_column: str = "date"

    @property
    def limits(self) -> Limits:
        """The part of the options that bounds memory."""
        return Limits(
            max_body_bytes=self.max_body_bytes, max_ratio=self.max_ratio, max_member_bytes=self.max_member_bytes
        )


def read_slice(slice: Slice, options: ReadOptions) -> Iterator[Event]:
    """Yield the events of the slice; their lengths and unreadable ranges add up to its bytes.

    Raises InputError where the file cannot be opened or read on, or a table lacks the text column.
    """
    if slice.start >= slice.end:
        return
    source = slice.source
    with _opened(source) as raw:
        form = form_of(raw)
        if form is None:
            yield Unreadable(start=slice.start, end=slice.end, reason="unrecognised")
        elif form.kind == "parquet":
            yield from parquet_events(raw, source, options, slice.start, slice.end)
        elif form.kind == "jsonl":
            for event, _ in jsonl_events(raw, form, source, options, slice.start, slice.end):
                yield event
        else:
            for record in records(raw, form, options.limits, slice.start, slice.end):
                yield record if isinstance(record, Unreadable) else event_of(record, source, options)


def read_at(source: Source, position: Position, options: ReadOptions) -> Page | Refused | Skipped | Damaged:
    """Return the event of the record at this position, read without what lies before its member.

    Its length is 0 where `inner` is not. Raises InputError where no record begins there.
    """
    event: Event | None = None
    with _opened(source) as raw:
        form = form_of(raw)
        if form is not None and form.kind == "parquet":
            event = parquet_row(raw, source, options, position)
        elif form is not None and form.kind == "jsonl":
            event = _line_at(raw, form, source, position, options)
        elif form is not None:
            record = record_at(raw, form, options.limits, position)
            event = None if record is None else event_of(record, source, options)
    if event is None or isinstance(event, Unreadable) or event.position != position:
        raise InputError(
            f"{source.path}: no record begins at offset {position.offset}, inner {position.inner}. Take positions "
            "from a run over this very file."
        )
    return event


def record_starts(source: Source, every_bytes: int) -> list[int]:
    """Return offsets, at least `every_bytes` apart, at which reading can begin and gives the same events.

    Archives and compressed lines are read through once: a magic number inside a record is no member.
    """
    starts: list[int] = []
    with _opened(source) as raw:
        for offset in _possible_starts(raw, source, ReadOptions()):
            if offset >= (starts[-1] if starts else 0) + every_bytes:
                starts.append(offset)
    return starts


def event_of(record: Record, source: Source, options: ReadOptions) -> Page | Refused | Skipped | Damaged:
    """Return what the record is to the corpus."""
    fields = record.header.fields
    position, length = record.position, record.length
    if record.fault is not None:
        record_id = fields.get("warc-record-id") or substitute_id(source.path, position)
        return Damaged(position=position, length=length, record_id=record_id, reason=record.fault)
    kind = fields.get("warc-type", "").lower()
    if kind not in options.record_types:
        return Skipped(position=position, length=length, reason=kind if kind in _TYPES else "other_type")
    content = _content(record, kind, options)
    if isinstance(content, str):
        return Skipped(position=position, length=length, reason=content)
    return _document(record, content, source)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """A document's payload; `data` is only its beginning where `refused` says why."""

    data: bytes
    whole: bool
    media_type: str
    label: str | None
    refused: tuple[str, str] | None


def _content(record: Record, kind: str, options: ReadOptions) -> _Content | str:
    """Return the payload of a record of a wanted type, or the reason why it is no document."""
    fields = record.header.fields
    message = http_message(record.body) if kind in ("response", "revisit") else None
    if message is None:
        message = HttpMessage(status=0, headers={"content-type": fields.get("content-type", "")}, body=record.body)
    elif not _admitted(message.status, options):
        return f"status:{message.status}"
    claimed = message.headers.get("content-type")
    refused: tuple[str, str] | None = None
    data, whole = message.body, True
    if record.refused is not None:
        refused = record.refused, f"the body passes {options.max_body_bytes:,} bytes or {options.max_ratio:g}:1"
    else:
        try:
            decoded = payload(message, max_bytes=options.max_body_bytes, max_ratio=options.max_ratio)
            data, whole = decoded.data, decoded.whole
        except TooLarge as error:
            data, refused = b"", (error.reason, error.detail)
    if not data and whole and refused is None:
        return "empty"
    if kind == "conversion":
        found = (fields.get("warc-identified-payload-type") or claimed or PLAIN).split(";")[0].strip().lower()
    else:
        found = fields.get("warc-identified-payload-type", "").lower() or media_type_of(claimed, data)
    if found not in options.media_types and not (kind == "conversion" and found == PLAIN):
        return "media_type" if message.status or kind != "response" else "not_http"
    return _Content(data=data, whole=whole, media_type=found, label=_charset(claimed), refused=refused)


def _document(record: Record, content: _Content, source: Source) -> Page | Refused | Damaged:
    fields = record.header.fields
    position, length = record.position, record.length
    record_id = fields.get("warc-record-id") or substitute_id(source.path, position)
    # wget writes angle brackets around the URI; a space in it is escaped, as warcio does.
    url = fields.get("warc-target-uri", "").strip("<>").replace(" ", "%20")
    date = fields.get("warc-date", "")
    if content.refused is not None:
        reason, detail = content.refused
        return Refused(
            position=position, length=length, record_id=record_id, url=url, date=date, reason=reason, detail=detail
        )
    if not content.whole and (not content.data or not fields.get("warc-truncated")):
        return Damaged(position=position, length=length, record_id=record_id, reason="http_body")
    text, _ = text_from_bytes(content.data, content.label)
    return Page(
        position=position,
        length=length,
        record_id=record_id,
        url=url,
        date=date,
        text=text,
        is_html=content.media_type in (HTML, XHTML),
        digest=xxhash.xxh3_128_digest(content.data),
    )


def _admitted(status: int, options: ReadOptions) -> bool:
    return options.statuses is None or any(low <= status <= high for low, high in options.statuses)


def _charset(content_type: str | None) -> str | None:
    found = _CHARSET.search(content_type or "")
    return None if found is None else found.group(1)


def _line_at(raw: RawFile, form: Form, source: Source, position: Position, options: ReadOptions) -> Event | None:
    for event, _ in jsonl_events(raw, form, source, options, position.offset, source.size):
        if isinstance(event, Unreadable) or event.position >= position:
            return event
    return None


def _possible_starts(raw: RawFile, source: Source, options: ReadOptions) -> Iterator[int]:
    """Yield every offset after 0 at which reading can begin, rising."""
    form = form_of(raw)
    if form is None:
        return
    if form.kind == "parquet":
        yield from (row_group_starts(raw) or [])[1:-1]
    elif form.kind == "jsonl":
        for event, alone in jsonl_events(raw, form, source, options, 0, source.size):
            if alone and not isinstance(event, Unreadable) and event.position.offset:
                yield event.position.offset
    else:
        for record in records(raw, form, options.limits, 0, source.size):
            if isinstance(record, Record) and record.alone and record.position.offset:
                yield record.position.offset


@contextmanager
def _opened(source: Source) -> Iterator[RawFile]:
    """Yield the file for random access. Raises InputError where it cannot be opened, or not read on."""
    try:
        file = opened(source.url, size=source.size, version=source.version, anonymous=source.anonymous)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise InputError(f"{source.path} cannot be opened: {error}. Check that it exists and may be read.") from error
    with file:
        try:
            yield RawFile(file, source.size)
        except OSError as error:
            raise InputError(
                f"{source.path} cannot be read on: {error}. The same command continues from what is committed."
            ) from error
