"""A small crawl to try Gristmill on, made without network: real pages out of what is installed, and what crawls add.

`build_demo_crawl` writes WARC files (one gzip member a record) into `CC-MAIN-2024-10/`: ordinary ones, one of hostile
pages, one with damage, and a WET file. `DemoCrawl.records` accounts for every byte of them. The same installed
distributions and the same seed give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import random
import re
import uuid
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

from infra.demo_pages import (
    BOMB_MIB,
    MIB,
    DemoPage,
    answers,
    blocked_pages,
    bomb,
    coded,
    copied,
    gzipped,
    hostile_pages,
    in_charset,
    near_copied,
    written_pages,
)
from infra.demo_sources import real_pages

DUMP = "CC-MAIN-2024-10"
FIRST = datetime(2024, 2, 21, 3, 0, tzinfo=UTC)
ORDINARY_FILES = 4
WET_PAGES = 60
COPIED_KINDS = ("manual", "description", "licence", "guide")
HTML_MEDIA = ("text/html", "application/xhtml+xml")
LANGUAGE_CHARSETS = {"ru": "koi8-r", "ja": "shift_jis", "de": "windows-1252", "fr": "windows-1252", "en": "utf-16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRecord:
    """Bytes [offset, offset + length) of a file: one record, or (`warc_type` None) bytes that belong to no record.

    `kind` is the page's kind, or the reason why the bytes are there. `media` and `status` are None where the record
    holds no response. `damage` names what was broken in the record on purpose. A record that shares the member of the
    one before it has its offset and the length 0.
    """

    file: str
    offset: int = 0
    length: int = 0
    kind: str
    warc_type: str | None
    record_id: str = ""
    url: str = ""
    media: str | None = None
    status: int | None = None
    damage: str | None = None

    @property
    def is_document(self) -> bool:
        """True of what datatrove's reader takes for a document: a whole HTML response of any status, a WET text."""
        if self.damage is not None:
            return False
        return self.warc_type == "conversion" or (self.warc_type == "response" and self.media in HTML_MEDIA)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoCrawl:
    """What was written: the files in order, and every byte of them in `records`, in order of file and offset."""

    files: tuple[Path, ...]
    records: tuple[DemoRecord, ...]

    @property
    def documents(self) -> tuple[DemoRecord, ...]:
        """The undamaged documents, the hostile pages among them."""
        return tuple(record for record in self.records if record.is_document)


Piece = tuple[DemoRecord, bytes]
"""Bytes of a file, and what they are."""


# --- records ----------------------------------------------------------------------------------------------------------

_REQUEST = ("Content-Type", "application/http; msgtype=request")
_RESPONSE = ("Content-Type", "application/http; msgtype=response")
_FIELDS = ("Content-Type", "application/warc-fields")
_SAME = ("WARC-Profile", "http://netpreserve.org/warc/1.0/revisit/identical-payload-digest")


def _digest(data: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


def _packed(data: bytes) -> bytes:
    return zlib.compress(data, 6, wbits=31)


def _http(page: DemoPage) -> bytes:
    """Return the response as it came over the wire."""
    fields = [*page.headers, ("Server", "quern/1.4")]
    if "Transfer-Encoding" not in dict(page.headers):
        fields.append(("Content-Length", str(len(page.body))))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    phrase = {200: "OK", 301: "Moved Permanently", 404: "Not Found"}[page.status]
    return f"HTTP/1.1 {page.status} {phrase}\r\n{lines}\r\n".encode() + page.body


class _Records:
    """Gives the records of one file their numbers; seed, file and number give a record its id, the number its date."""

    def __init__(self, file: str, seed: int) -> None:
        self.file = file
        self.seed = seed
        self.number = 0

    def new(self, warc_type: str, kind: str, page: DemoPage | None = None) -> DemoRecord:
        self.number += 1
        name = uuid.uuid5(uuid.NAMESPACE_URL, f"{self.seed}/{self.file}/{self.number}")
        answer = page if warc_type == "response" else None
        return DemoRecord(
            file=self.file,
            kind=kind,
            warc_type=warc_type,
            record_id=f"<urn:uuid:{name}>",
            url="" if page is None else page.url,
            media=None if answer is None else answer.media,
            status=None if answer is None else answer.status,
        )

    def header(self, record: DemoRecord, length: int, *fields: tuple[str, str]) -> bytes:
        """Return the WARC header of the newest record, whose block has `length` bytes."""
        date = FIRST + timedelta(seconds=3 * self.number)
        lines = [
            ("WARC-Type", record.warc_type),
            ("WARC-Date", f"{date:%Y-%m-%dT%H:%M:%SZ}"),
            ("WARC-Record-ID", record.record_id),
            ("Content-Length", length),
            *([("WARC-Target-URI", record.url)] if record.url else []),
            *fields,
        ]
        return ("WARC/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines) + "\r\n").encode()

    def plain(self, record: DemoRecord, block: bytes, *fields: tuple[str, str]) -> bytes:
        """Return the uncompressed bytes of the newest record."""
        header = self.header(record, len(block), *fields, ("WARC-Block-Digest", _digest(block)))
        return header + block + b"\r\n\r\n"

    def info(self) -> Piece:
        """Return the record that begins a file."""
        record = self.new("warcinfo", "warcinfo")
        block = f"isPartOf: {DUMP}\r\nformat: WARC File Format 1.0\r\nsoftware: gristmill demo\r\n".encode()
        return record, _packed(self.plain(record, block, _FIELDS))

    def response(self, page: DemoPage) -> Piece:
        """Return the response record of a page, uncompressed."""
        record = self.new("response", page.kind, page)
        fields = [_RESPONSE, ("WARC-Payload-Digest", _digest(page.body))]
        # One page in 20 says no payload type, as in crawls before 2016: a reader has to look at the bytes.
        if self.number % 20 or not page.body.startswith(b"<!DOCTYPE html>"):
            fields.append(("WARC-Identified-Payload-Type", page.media))
        return record, self.plain(record, _http(page), *fields)

    def exchange(self, page: DemoPage) -> list[Piece]:
        """Return the request, response and metadata records of a page; after some the revisit of a later day too."""
        where = urlsplit(page.url)
        asked = self.new("request", "request", page)
        request = f"GET {where.path or '/'} HTTP/1.1\r\nHost: {where.netloc}\r\nUser-Agent: demo\r\n\r\n".encode()
        pieces = [(asked, _packed(self.plain(asked, request, _REQUEST)))]
        answer, data = self.response(page)
        pieces.append((answer, _packed(data)))
        noted = self.new("metadata", "metadata", page)
        refers = ("WARC-Refers-To", answer.record_id)
        pieces.append((noted, _packed(self.plain(noted, b"fetchTimeMs: 120\r\n", _FIELDS, refers))))
        if self.number % 25 == 0:
            again = self.new("revisit", "revisit", page)
            head = _http(replace(page, body=b""))
            pieces.append((again, _packed(self.plain(again, head, _RESPONSE, _SAME, refers))))
        return pieces


def _written(folder: Path, pieces: list[Piece]) -> tuple[Path, list[DemoRecord]]:
    """Write the pieces to the file they name; return its path and the records with their places in it."""
    path = folder / pieces[0][0].file
    path.parent.mkdir(parents=True, exist_ok=True)
    records: list[DemoRecord] = []
    offset = 0
    for record, data in pieces:
        at = offset if data else records[-1].offset
        records.append(replace(record, offset=at, length=len(data)))
        offset += len(data)
    path.write_bytes(b"".join(data for _, data in pieces))
    return path, records


# --- files ------------------------------------------------------------------------------------------------------------


def _crawled(rng: random.Random, real: list[DemoPage], count: int) -> list[DemoPage]:
    """Return `count` HTML pages, 7 of 10 of them `real` where there are so many, and other answers, shuffled."""
    some = rng.sample(real, min(len(real), count * 7 // 10))
    long = [page for page in some if page.kind in COPIED_KINDS and page.body.count(b"<p>") >= 6]
    pages = [
        *some,
        *(copied(page, number) for number, page in enumerate(rng.choices(long, k=count // 20 if long else 0))),
        *(
            near_copied(page, number, rng)
            for number, page in enumerate(rng.choices(long, k=count // 16 if long else 0))
        ),
        *blocked_pages(rng)[: count // 10],
    ]
    pages += written_pages(rng, count - len(pages))
    rng.shuffle(pages)
    pages = [_as_served(page, rng) for page in pages] + answers(rng, count // 20)
    rng.shuffle(pages)
    return pages


def _as_served(page: DemoPage, rng: random.Random) -> DemoPage:
    """Return the page in a charset of its language, or under a content coding, or (4 of 5) as it is."""
    lang = page.kind.partition("language:")[2]
    roll = rng.random()
    if lang in LANGUAGE_CHARSETS or (page.kind == "story" and roll < 0.3):
        return in_charset(page, LANGUAGE_CHARSETS.get(lang, "utf-16"), says=roll < 0.15)
    if roll < 0.06:
        return coded(page, "gzip")
    if roll < 0.10:
        return coded(page, "br")
    if roll < 0.13:
        return coded(page, "deflate")
    if roll < 0.18:
        return coded(page, "chunked")
    return coded(coded(page, "gzip"), "chunked") if roll < 0.20 else page


def _ordinary_file(file: str, seed: int, pages: Iterable[DemoPage]) -> list[Piece]:
    records = _Records(file, seed)
    return [records.info(), *(piece for page in pages for piece in records.exchange(page))]


def _wet_file(file: str, seed: int, pages: Iterable[DemoPage]) -> list[Piece]:
    """Return the texts of pages as Common Crawl's WET files hold them; a page without text has none."""
    records = _Records(file, seed)
    pieces = [records.info()]
    for page in pages:
        body = re.split("<body[^>]*>", page.body.decode("utf-8", "replace"), maxsplit=1)[-1]
        text = html.unescape(re.sub(r"<[^>]+>", "", body))
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines:
            continue
        record = records.new("conversion", page.kind, page)
        block = "\n".join(lines).encode()
        pieces.append((record, _packed(records.plain(record, block, ("Content-Type", "text/plain")))))
    return pieces


def member_bomb(records: _Records) -> Piece:
    """Return a response whose gzip member is the bomb: the WARC header announces its length truly."""
    page = DemoPage(url="https://www.hostile.invalid/member_bomb", kind="hostile:member_bomb", body=b"")
    record = records.new("response", page.kind, page)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    media = ("WARC-Identified-Payload-Type", page.media)
    header = records.header(record, len(head) + BOMB_MIB * MIB, _RESPONSE, media)
    return record, gzipped(chain([header, head], bomb(BOMB_MIB), [b"\r\n\r\n"]))


def _hostile_file(file: str, seed: int) -> list[Piece]:
    records = _Records(file, seed)
    pieces = [records.info()]
    for page in hostile_pages().values():
        pieces += records.exchange(page)
    return [*pieces, member_bomb(records)]


# --- damage -----------------------------------------------------------------------------------------------------------


def _flipped(data: bytes, start: int, end: int) -> bytes:
    return data[:start] + bytes(byte ^ 0xFF for byte in data[start:end]) + data[end:]


def _said_length(data: bytes, more: int) -> bytes:
    return re.sub(rb"Content-Length: (\d+)", lambda said: b"Content-Length: %d" % (int(said[1]) + more), data, count=1)


SPOIL_PAGE: Mapping[str, Callable[[DemoPage], DemoPage]] = {
    "coding_lie": lambda page: replace(page, headers=(*page.headers, ("Content-Encoding", "gzip"))),
    "coding_cut": lambda page: _half(coded(page, "br")),
    "chunk_cut": lambda page: _half(coded(page, "chunked")),
}
SPOIL_RECORD: Mapping[str, Callable[[bytes], bytes]] = {
    "length_long": lambda data: _said_length(data, 100),
    "length_short": lambda data: _said_length(data, -100),
    "length_missing": lambda data: re.sub(rb"Content-Length: \d+\r\n", b"", data, count=1),
    "no_http_end": lambda data: data.replace(b"\r\n\r\n<!DOCTYPE", b"\r\n<!DOCTYPE", 1),
}
SPOIL_MEMBER: Mapping[str, Callable[[bytes], bytes]] = {
    "cut": lambda member: member[: len(member) // 2],
    "flipped_body": lambda member: _flipped(member, len(member) * 6 // 10, len(member) * 6 // 10 + 16),
    "flipped_magic": lambda member: _flipped(member, 0, 2),
    "flipped_crc": lambda member: _flipped(member, len(member) - 8, len(member) - 4),
    "uncompressed": lambda member: zlib.decompress(member, wbits=31),
    "cut_at_end": lambda member: member[: len(member) * 3 // 4],
}
DAMAGES = (*SPOIL_PAGE, *SPOIL_RECORD, *SPOIL_MEMBER)


def _half(page: DemoPage) -> DemoPage:
    return replace(page, body=page.body[: len(page.body) // 2])


def _damaged_file(file: str, seed: int, pages: list[DemoPage]) -> list[Piece]:
    """Return one response for each of `DAMAGES`, whole exchanges between them, and bytes that belong to no record."""
    records = _Records(file, seed)
    whole = iter(pages)
    lost = {
        "garbage": random.Random(seed).randbytes(777).replace(b"\x1f", b"\x20"),  # no gzip magic in it
        "padding": bytes(512),
    }
    pieces = [records.info()]
    for kind, data in lost.items():
        pieces += records.exchange(next(whole))
        pieces.append((DemoRecord(file=file, kind=kind, warc_type=None), data))
    pieces += records.exchange(next(whole))
    first, data = records.response(next(whole))
    second, more = records.response(next(whole))
    pieces += [
        (replace(first, kind="shared_member"), _packed(data + more)),
        (replace(second, kind="shared_member"), b""),
    ]
    for damage in DAMAGES:  # the last one ends the file
        pieces += records.exchange(next(whole))
        page = next(whole)
        record, data = records.response(SPOIL_PAGE[damage](page) if damage in SPOIL_PAGE else page)
        member = _packed(SPOIL_RECORD[damage](data) if damage in SPOIL_RECORD else data)
        broken = SPOIL_MEMBER[damage](member) if damage in SPOIL_MEMBER else member
        pieces.append((replace(record, damage=damage), broken))
    return pieces


def build_demo_crawl(folder: Path, *, pages: int = 1500, seed: int = 1) -> DemoCrawl:
    """Write the demo crawl under `folder`, with `pages` HTML pages in its ordinary files; say what was written.

    Needs no network and some 12 s on one core. Files of the same names are replaced. What the other files hold does
    not grow with `pages`.
    """
    rng = random.Random(seed)
    real = [page for source in real_pages().values() for page in source]
    rng.shuffle(real)
    for_wet, for_damage, real = real[:WET_PAGES], real[WET_PAGES : 2 * WET_PAGES], real[2 * WET_PAGES :]
    crawled = _crawled(rng, real, pages)
    files = [
        _ordinary_file(f"{DUMP}/demo-{number:05}.warc.gz", seed, crawled[number::ORDINARY_FILES])
        for number in range(ORDINARY_FILES)
    ]
    files.append(_hostile_file(f"{DUMP}/demo-{ORDINARY_FILES:05}.warc.gz", seed))
    files.append(_damaged_file(f"{DUMP}/demo-{ORDINARY_FILES + 1:05}.warc.gz", seed, for_damage))
    files.append(_wet_file(f"{DUMP}/demo-00000.warc.wet.gz", seed, for_wet))
    written = [_written(folder, pieces) for pieces in files]
    return DemoCrawl(
        files=tuple(path for path, _ in written),
        records=tuple(record for _, records in written for record in records),
    )
