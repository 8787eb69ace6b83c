"""The values that reading gives: where a record lies, and what became of it.

Every record of an input becomes exactly one event, and every byte of a slice lies in exactly one event:
records = Page + Refused + Skipped + Damaged; documents = Page + Refused; `Unreadable` ranges hold the bytes of no
record.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Source:
    """One input file. `path` is what the dataset's `file_path` says, `url` what fsspec opens.

    `version` is the store's ETag, or size and modification time: a changed file is another input. `anonymous` files are
    read without credentials.
    """

    path: str
    url: str
    size: int
    version: str
    anonymous: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Slice:
    """The bytes [start, end) of a source; a record belongs to the slice that holds its first byte."""

    source: Source
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Position:
    """Where a record begins: `offset` in the file (of its compressed member), `inner` in the uncompressed member.

    `inner` is 0 unless several records share a member. In Parquet, `offset` is the row group's and `inner` the row.
    """

    offset: int
    inner: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a row of a table says of its text beyond what is read of every document; None where it does not."""

    dump: str | None
    language: str | None
    language_score: float | None
    token_count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A document: a `response` with an HTML payload, a WET `conversion`, or a row of a table.

    `text` is HTML where `is_html`, else plain text; it holds no surrogates. `length` counts the file's bytes of this
    record (0 where an earlier record of the same member holds them). `digest` is the xxh3-128 of the payload's bytes.
    `given` is what a table says of it: it stands where the recipe does not find out itself.
    """

    position: Position
    length: int
    record_id: str
    url: str
    date: str
    text: str
    is_html: bool
    digest: bytes
    given: Given | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A document that must not be parsed (too large, a decompression bomb, undecodable): it is quarantined."""

    position: Position
    length: int
    record_id: str
    url: str
    date: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A whole record that is no document: a request, a revisit, another media type."""

    position: Position
    length: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """A record whose header was read but whose body is not complete or cannot be decoded."""

    position: Position
    length: int
    record_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Bytes [start, end) of the file that belong to no record."""

    start: int
    end: int
    reason: str


Event = Page | Refused | Skipped | Damaged | Unreadable
