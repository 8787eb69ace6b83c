"""Which records are documents, what a page carries, and why a record is none."""

from __future__ import annotations

import gzip
import random
from dataclasses import replace
from pathlib import Path

import pytest
import xxhash

from filters.errors import InputError
from pipelines.read import ReadOptions, read_at, read_slice, record_starts
from pipelines.record import Damaged, Event, Page, Position, Refused, Skipped, Slice, Source, Unreadable

HTML = b"<html><body><p>hello"
OPTIONS = ReadOptions()


def warc(block: bytes, **fields: str) -> bytes:
    named = {"WARC-Type": "response", "WARC-Target-URI": "http://e.org/", "WARC-Record-ID": "<urn:test:1>"}
    named |= {"WARC-Date": "2024-01-02T03:04:05Z", "Content-Type": "application/http"}
    named |= {name.replace("_", "-"): value for name, value in fields.items()}
    lines = [f"{name}: {value}" for name, value in named.items() if value] + [f"Content-Length: {len(block)}"]
    return "\r\n".join(["WARC/1.0", *lines]).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


def http(body: bytes = HTML, status: int = 200, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} OK", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def source_of(path: Path) -> Source:
    return Source(path=path.name, url=f"file://{path}", size=path.stat().st_size, version="1")


def event_of(tmp_path: Path, data: bytes, options: ReadOptions = OPTIONS) -> Event:
    path = tmp_path / "a.warc"
    path.write_bytes(data)
    source = source_of(path)
    (event,) = read_slice(Slice(source=source, start=0, end=source.size), options)
    return event


def test_a_page_carries_what_its_record_says(tmp_path: Path) -> None:
    data = warc(http(Content_Type="text/html"))
    assert event_of(tmp_path, data) == Page(
        position=Position(offset=0),
        length=len(data),
        record_id="<urn:test:1>",
        url="http://e.org/",
        date="2024-01-02T03:04:05Z",
        text=HTML.decode(),
        is_html=True,
        digest=xxhash.xxh3_128_digest(HTML),
    )


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (warc(b"GET / HTTP/1.1\r\n\r\n", WARC_Type="request"), "request"),
        (warc(b"software: x", WARC_Type="warcinfo"), "warcinfo"),
        (warc(http(), WARC_Type="revisit"), "revisit"),
        (warc(HTML, WARC_Type="resource", Content_Type="text/html"), "resource"),
        (warc(b"x", WARC_Type="future"), "other_type"),
        (warc(http(b"{}", Content_Type="application/json")), "media_type"),
        (warc(http(b"%PDF-1.4 ...", Content_Type="text/html")), "media_type"),
        (warc(http(), WARC_Identified_Payload_Type="application/pdf"), "media_type"),
        (warc(b"20240101 1.2.3.4", Content_Type="text/dns"), "not_http"),
        (warc(http(b"", status=302)), "empty"),
    ],
)
def test_what_is_no_document_is_skipped_by_reason(tmp_path: Path, record: bytes, reason: str) -> None:
    assert event_of(tmp_path, record) == Skipped(position=Position(offset=0), length=len(record), reason=reason)


@pytest.mark.parametrize("record", [warc(HTML), warc(HTML, Content_Type="text/html"), warc(http())])
def test_html_is_a_page_without_http_headers_or_content_type(tmp_path: Path, record: bytes) -> None:
    event = event_of(tmp_path, record)
    assert isinstance(event, Page)
    assert event.text == HTML.decode()


def test_a_conversion_of_wet_is_plain_text(tmp_path: Path) -> None:
    record = warc("Größe\nzwei".encode(), WARC_Type="conversion", Content_Type="text/plain")
    event = event_of(tmp_path, record)
    assert isinstance(event, Page)
    assert (event.text, event.is_html) == ("Größe\nzwei", False)


def test_statuses_are_all_admitted_unless_the_options_name_some(tmp_path: Path) -> None:
    record = warc(http(status=404, Content_Type="text/html"))
    assert isinstance(event_of(tmp_path, record), Page)
    event = event_of(tmp_path, record, ReadOptions(statuses=((200, 299),)))
    assert isinstance(event, Skipped)
    assert event.reason == "status:404"


def test_record_types_and_media_types_can_be_chosen(tmp_path: Path) -> None:
    record = warc(b"words", WARC_Type="resource", Content_Type="text/plain")
    options = ReadOptions(record_types=("resource",), media_types=("text/plain",))
    assert isinstance(event_of(tmp_path, record, options), Page)


def test_a_broken_coding_is_damaged_unless_the_record_says_it_was_cut(tmp_path: Path) -> None:
    body = gzip.compress(HTML + random.Random(0).randbytes(50_000).hex().encode())[:-2000]
    block = http(body, Content_Type="text/html", Content_Encoding="gzip")
    event = event_of(tmp_path, warc(block))
    assert isinstance(event, Damaged)
    assert event.reason == "http_body"
    event = event_of(tmp_path, warc(block, WARC_Truncated="length"))
    assert isinstance(event, Page)
    assert event.text.startswith(HTML.decode())


def test_a_bomb_in_the_http_body_is_refused(tmp_path: Path) -> None:
    body = gzip.compress(HTML + bytes(9 << 20))
    event = event_of(tmp_path, warc(http(body, Content_Type="text/html", Content_Encoding="gzip")))
    assert isinstance(event, Refused)
    assert event.reason == "compression_ratio"


def test_a_record_without_an_id_gets_the_same_one_each_time_and_another_elsewhere(tmp_path: Path) -> None:
    record = warc(http(), WARC_Record_ID="")
    path = tmp_path / "a.warc"
    path.write_bytes(record * 2)
    source = source_of(path)
    ids = [
        e.record_id for e in read_slice(Slice(source=source, start=0, end=source.size), OPTIONS) if isinstance(e, Page)
    ]
    again = read_at(source, Position(offset=len(record)), OPTIONS)
    assert isinstance(again, Page)
    assert len(set(ids)) == 2
    assert again.record_id == ids[1]


def test_a_record_without_a_type_is_damaged(tmp_path: Path) -> None:
    event = event_of(tmp_path, warc(http(), WARC_Type=""))
    assert isinstance(event, Damaged)
    assert event.reason == "header"


def test_spaces_and_brackets_in_the_uri_are_mended(tmp_path: Path) -> None:
    event = event_of(tmp_path, warc(http(), WARC_Target_URI="<http://e.org/a b>"))
    assert isinstance(event, Page)
    assert event.url == "http://e.org/a%20b"


def test_an_offset_where_no_record_begins_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.warc"
    path.write_bytes(warc(http()) * 2)
    with pytest.raises(InputError, match="no record begins at offset 7"):
        read_at(source_of(path), Position(offset=7), OPTIONS)


def test_a_file_that_is_gone_is_an_error_that_names_it(tmp_path: Path) -> None:
    source = Source(path="gone.warc", url=f"file://{tmp_path}/gone.warc", size=9, version="1")
    with pytest.raises(InputError, match=r"gone\.warc cannot be opened"):
        list(read_slice(Slice(source=source, start=0, end=9), OPTIONS))


def test_a_file_shorter_than_planned_closes_its_account_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.warc"
    path.write_bytes(warc(http()))
    source = replace(source_of(path), size=path.stat().st_size + 500)
    page, missing = read_slice(Slice(source=source, start=0, end=source.size), OPTIONS)
    assert isinstance(page, Page)
    assert missing == Unreadable(start=page.length, end=source.size, reason="missing")


def test_starts_are_at_records_and_as_far_apart_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.warc"
    record = warc(http())
    path.write_bytes(record * 10)
    assert record_starts(source_of(path), 3 * len(record)) == [n * len(record) for n in (3, 6, 9)]
