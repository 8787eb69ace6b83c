"""Archives of every encoding, whole and damaged: every intact record is found, every byte is charged once."""

from __future__ import annotations

import bz2
import gzip
import io
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.archive import records
from pipelines.member import Form, RawFile
from pipelines.read import ReadOptions, read_at, read_slice, record_starts
from pipelines.record import Damaged, Event, Page, Position, Refused, Skipped, Slice, Source, Unreadable
from pipelines.sources import cut

OPTIONS = ReadOptions()
HTTP = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
    "lz4": lambda data: lz4.frame.compress(data, content_checksum=True),
    "bz2": bz2.compress,
}
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def warc(
    number: int,
    body: bytes,
    *,
    kind: str = "response",
    length: str | None = None,
    end: bytes = b"\r\n",
    close: bytes | None = None,
) -> bytes:
    declared = str(len(body)) if length is None else length
    lines = [
        b"WARC/1.0",
        b"WARC-Type: " + kind.encode(),
        b"WARC-Record-ID: <urn:test:%d>" % number,
        b"WARC-Target-URI: http://example.org/%d" % number,
        b"WARC-Date: 2024-01-02T03:04:05Z",
        b"Content-Type: application/http; msgtype=response",
        *([b"Content-Length: " + declared.encode()] if declared else []),
    ]
    return end.join(lines) + end * 2 + body + (end * 2 if close is None else close)


def page(number: int, filler: int = 40) -> bytes:
    noise = random.Random(number).randbytes(filler).hex().encode()
    return HTTP + b"<html><body><p>page %d %s</p></body></html>" % (number, noise)


def source_of(path: Path) -> Source:
    return Source(path=path.name, url=f"file://{path}", size=path.stat().st_size, version="1")


def events_of(path: Path, data: bytes, options: ReadOptions = OPTIONS) -> list[Event]:
    """The events of the file, once their lengths are seen to close."""
    path.write_bytes(data)
    source = source_of(path)
    events = list(read_slice(Slice(source=source, start=0, end=source.size), options))
    assert charged(events) == len(data)
    return events


def charged(events: list[Event]) -> int:
    """The bytes that the events hold; none may begin after what is charged before it ends."""
    at = events[0].start if isinstance(events[0], Unreadable) else events[0].position.offset
    begin = at
    for event in events:
        if isinstance(event, Unreadable):
            assert event.start == at
            at = event.end
        else:
            assert event.position.offset <= at
            at += event.length
    return at - begin


def numbers(events: list[Event]) -> list[int]:
    return [int(event.url.rsplit("/", 1)[1]) for event in events if isinstance(event, Page)]


def kinds(events: list[Event]) -> list[tuple[str, str]]:
    return [(type(event).__name__, getattr(event, "reason", "")) for event in events]


@pytest.mark.parametrize("codec", PACKERS)
def test_every_record_of_every_codec_is_found_in_its_own_member(tmp_path: Path, codec: str) -> None:
    packed = [PACKERS[codec](warc(number, page(number))) for number in range(20)]
    events = events_of(tmp_path / "a", b"".join(packed))
    assert numbers(events) == list(range(20))
    starts = [sum(map(len, packed[:number])) for number in range(20)]
    assert [event.position for event in events if isinstance(event, Page)] == [Position(offset=at) for at in starts]


@pytest.mark.parametrize("codec", PACKERS)
def test_a_file_that_is_one_member_charges_its_bytes_to_the_first_record(tmp_path: Path, codec: str) -> None:
    whole = b"".join(warc(number, page(number)) for number in range(20))
    events = events_of(tmp_path / "a", PACKERS[codec](whole))
    assert numbers(events) == list(range(20))
    if codec != "plain":
        assert [event.length for event in events if isinstance(event, Page)][1:] == [0] * 19


@pytest.mark.parametrize("size", [100, 700, 5000])
@pytest.mark.parametrize("codec", ["gzip", "zstd", "lz4", "bz2"])
def test_records_may_span_members_that_are_not_aligned_with_them(tmp_path: Path, codec: str, size: int) -> None:
    whole = b"".join(warc(number, page(number)) for number in range(20))
    members = [PACKERS[codec](whole[at : at + size]) for at in range(0, len(whole), size)]
    assert numbers(events_of(tmp_path / "a", b"".join(members))) == list(range(20))


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r\r\n"])
@pytest.mark.parametrize("version", [b"WARC/0.17", b"WARC/0.18", b"WARC/1.0", b"WARC/1.1"])
def test_line_ends_and_versions_do_not_matter(tmp_path: Path, end: bytes, version: bytes) -> None:
    data = b"".join(warc(number, page(number), end=end) for number in range(3)).replace(b"WARC/1.0", version)
    assert numbers(events_of(tmp_path / "a", data)) == [0, 1, 2]


def test_headers_in_odd_case_folded_or_not_utf8_are_read(tmp_path: Path) -> None:
    odd = (
        warc(0, page(0))
        .replace(b"WARC-Target-URI: http", b"warc-TARGET-uri:\r\n  <http")
        .replace(b"/0\r\n", b"/\xe9 a/0>\r\nX-Odd: \xff\xfe\r\n")
    )
    (event,) = events_of(tmp_path / "a", odd)
    assert isinstance(event, Page)
    assert event.url == "http://example.org/\xe9%20a/0"


@pytest.mark.parametrize("codec", ["plain", "gzip"])
@pytest.mark.parametrize("length", ["+50", "-50", "-7", "", "nonsense", "99999999999999", "0", "+5000"])
def test_a_wrong_length_costs_no_record(tmp_path: Path, codec: str, length: str) -> None:
    body = page(3)
    wrong = {"+50": len(body) + 50, "-50": len(body) - 50, "+5000": len(body) + 5000}.get(length, length)
    records = [warc(number, page(number)) for number in range(8)]
    records[3] = warc(3, body, length=str(wrong))
    events = events_of(tmp_path / "a", b"".join(map(PACKERS[codec], records)))
    assert numbers(events) == list(range(8))
    assert [event.text for event in events if isinstance(event, Page)][3] == body.decode().split("\r\n\r\n", 1)[1]


def test_wrong_lengths_in_every_record_cost_no_record(tmp_path: Path) -> None:
    records = [warc(number, page(number), length=str(number * 1000)) for number in range(30)]
    assert numbers(events_of(tmp_path / "a", b"".join(records))) == list(range(30))


def test_a_warc_inside_a_record_is_not_taken_for_records(tmp_path: Path) -> None:
    inside = b"".join(warc(100 + number, page(number)) for number in range(3))
    stored = zlib.compressobj(0, wbits=31)
    carrier = warc(1, inside, kind="resource")
    data = (
        PACKERS["gzip"](warc(0, page(0)))
        + stored.compress(carrier)
        + stored.flush()
        + PACKERS["gzip"](warc(2, page(2)))
    )
    for packed in (data, warc(0, page(0)) + carrier + warc(2, page(2))):
        events = events_of(tmp_path / "a", packed)
        assert kinds(events) == [("Page", ""), ("Skipped", "resource"), ("Page", "")]


def test_no_cut_falls_into_members_stored_inside_a_member(tmp_path: Path) -> None:
    inside = b"".join(PACKERS["gzip"](warc(100 + number, page(number))) for number in range(20))
    stored = zlib.compressobj(0, wbits=31)
    carrier = stored.compress(warc(1, inside, kind="resource")) + stored.flush()
    first = PACKERS["gzip"](warc(0, page(0)))
    path = tmp_path / "a"
    path.write_bytes(first + carrier + PACKERS["gzip"](warc(2, page(2))))
    assert record_starts(source_of(path), 1) == [len(first), len(first) + len(carrier)]


@pytest.mark.parametrize("codec", ["plain", "gzip", "zstd"])
def test_garbage_between_records_is_named_and_costs_none(tmp_path: Path, codec: str) -> None:
    packed = [PACKERS[codec](warc(number, page(number))) for number in range(6)]
    packed.insert(3, random.Random(1).randbytes(256))
    events = events_of(tmp_path / "a", b"".join(packed))
    assert numbers(events) == list(range(6))
    start = sum(map(len, packed[:3]))
    assert [event for event in events if isinstance(event, Unreadable)] == [
        Unreadable(start=start, end=start + 256, reason="garbage")
    ]


@pytest.mark.parametrize("codec", ["plain", "gzip", "zstd"])
def test_trailing_zeros_are_padding(tmp_path: Path, codec: str) -> None:
    data = PACKERS[codec](warc(0, page(0)))
    events = events_of(tmp_path / "a", data + bytes(3_000_000))
    assert kinds(events) == [("Page", ""), ("Unreadable", "padding")]


@pytest.mark.parametrize("codec", ["gzip", "zstd", "lz4", "bz2"])
def test_a_member_with_flipped_bytes_costs_itself_only(tmp_path: Path, codec: str) -> None:
    packed = [bytearray(PACKERS[codec](warc(number, page(number, 400)))) for number in range(20)]
    middle = len(packed[9]) // 2
    for at in range(middle, middle + 40):
        packed[9][at] ^= 0x55
    events = events_of(tmp_path / "a", b"".join(packed))
    assert numbers(events) == [number for number in range(20) if number != 9]
    (lost,) = [event for event in events if isinstance(event, Damaged | Unreadable)]
    assert lost.reason == "damaged"


def test_a_damaged_member_whose_header_can_be_read_is_damaged_under_its_own_id(tmp_path: Path) -> None:
    packed = [bytearray(PACKERS["gzip"](warc(number, page(number, 4000)))) for number in range(3)]
    packed[1][-100] ^= 0xFF
    events = events_of(tmp_path / "a", b"".join(packed))
    assert kinds(events) == [("Page", ""), ("Damaged", "damaged"), ("Page", "")]
    assert isinstance(events[1], Damaged)
    assert events[1].record_id == "<urn:test:1>"


@pytest.mark.parametrize("codec", PACKERS)
def test_a_truncated_last_record_is_damaged_not_lost(tmp_path: Path, codec: str) -> None:
    data = b"".join(PACKERS[codec](warc(number, page(number, 3000))) for number in range(5))
    events = events_of(tmp_path / "a", data[:-900])
    assert numbers(events) == [0, 1, 2, 3]
    assert kinds(events)[-1][0] in ("Damaged", "Unreadable")
    if codec in ("plain", "gzip"):
        assert kinds(events)[-1] == ("Damaged", "truncated")


def test_records_cut_mid_file_are_damaged(tmp_path: Path) -> None:
    records = [warc(number, page(number, 500)) for number in range(5)]
    records[2] = records[2][:-300]
    events = events_of(tmp_path / "a", b"".join(records))
    assert numbers(events) == [0, 1, 3, 4]
    assert kinds(events)[2] == ("Damaged", "length")


def test_a_damaged_beginning_does_not_hide_the_file(tmp_path: Path) -> None:
    packed = [bytearray(PACKERS["gzip"](warc(number, page(number)))) for number in range(5)]
    packed[0][12:80] = bytes(68)
    assert numbers(events_of(tmp_path / "a", b"".join(packed))) == [1, 2, 3, 4]


class LostConnection(io.BytesIO):
    """A file whose store answers the first reads only."""

    def __init__(self, data: bytes, reads: int) -> None:
        super().__init__(data)
        self.reads = reads

    def read(self, size: int | None = -1) -> bytes:
        self.reads -= 1
        if self.reads < 0:
            raise ConnectionResetError("the store hung up")
        return super().read(size)


@pytest.mark.parametrize("codec", ["plain", "gzip", "bz2"])
def test_a_failing_store_is_an_error_and_not_damage(codec: str) -> None:
    packed = [bytearray(PACKERS[codec](warc(number, page(number, 300_000)))) for number in range(9)]
    packed[2][-200:-100] = bytes(100)
    data = b"".join(packed)
    form = Form(codec=codec, kind="warc")  # type: ignore[arg-type]
    seen = 0
    while True:
        file = LostConnection(data, seen)
        try:
            list(records(RawFile(file, len(data)), form, OPTIONS.limits, 0, len(data)))
            break
        except ConnectionResetError:
            seen += 1
    assert seen > 2


def test_empty_and_unrecognised_files(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"")
    assert list(read_slice(Slice(source=source_of(path), start=0, end=0), OPTIONS)) == []
    assert kinds(events_of(path, b"neither this nor that\n" * 5)) == [("Unreadable", "unrecognised")]


def test_a_zstd_warc_may_begin_with_its_dictionary(tmp_path: Path) -> None:
    samples = [warc(number, page(number, 200)) for number in range(200)]
    dictionary = zstandard.train_dictionary(4096, samples)
    packer = zstandard.ZstdCompressor(dict_data=dictionary)
    for content in (dictionary.as_bytes(), zstandard.compress(dictionary.as_bytes())):
        head = b"\x5d\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content
        events = events_of(tmp_path / "a", head + b"".join(packer.compress(record) for record in samples[:9]))
        assert kinds(events)[0] == ("Unreadable", "format")
        assert numbers(events) == list(range(9))


@pytest.mark.parametrize("codec", ["plain", "gzip"])
def test_arc_of_both_versions_is_read(tmp_path: Path, codec: str) -> None:
    body = page(1)
    head = b"1 0 test\nURL IP-address Archive-date Content-type Archive-length\n"
    records = [
        b"filedesc://a.arc 0.0.0.0 20240102030405 text/plain %d\n" % len(head) + head + b"\n",
        b"http://example.org/1 1.2.3.4 20240102030405 text/html %d\n" % len(body) + body + b"\n",
        b"http://example.org/a b/2 1.2.3.4 20240102030405 text/html 200 - - 9 a.arc %d\n" % len(body) + body + b"\n",
        b"http://example.org/3 1.2.3.4 20240102030405  %d\n" % len(body) + body + b"\n",
        b"dns:example.org 1.2.3.4 20240102030405 text/dns 4\nabcd\n",
    ]
    events = events_of(tmp_path / "a", b"".join(map(PACKERS[codec], records)))
    assert numbers(events) == [1, 2, 3]
    assert kinds(events) == [("Skipped", "filedesc"), *[("Page", "")] * 3, ("Skipped", "resource")]
    assert isinstance(events[1], Page)
    assert events[1].date == "2024-01-02T03:04:05Z"
    assert events[1].record_id.startswith("urn:gristmill:")


@pytest.mark.parametrize("codec", ["gzip", "zstd", "bz2"])
def test_a_bomb_is_refused_and_its_neighbours_kept(tmp_path: Path, codec: str) -> None:
    options = ReadOptions(max_body_bytes=1 << 20, max_member_bytes=8 << 20)
    bomb = PACKERS[codec](warc(1, HTTP + b"<html>" + bytes(30 << 20)))
    data = PACKERS[codec](warc(0, page(0))) + bomb + PACKERS[codec](warc(2, page(2)))
    events = events_of(tmp_path / "a", data, options)
    assert kinds(events) == [("Page", ""), ("Refused", "compression_ratio"), ("Page", "")]


def test_a_body_beyond_the_limit_is_refused_if_it_is_html_and_skipped_if_not(tmp_path: Path) -> None:
    options = ReadOptions(max_body_bytes=100_000)
    html = HTTP + b"<html>" + random.Random(0).randbytes(100_000).hex().encode()
    film = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n\r\n" + random.Random(0).randbytes(300_000)
    for codec in ("plain", "gzip"):
        data = b"".join(map(PACKERS[codec], (warc(0, html), warc(1, film), warc(2, page(2)))))
        events = events_of(tmp_path / "a", data, options)
        assert kinds(events) == [("Refused", "body_bytes"), ("Skipped", "media_type"), ("Page", "")]


@st.composite
def archives(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    """A codec and the packed records of a file: pages, requests and large bodies, one member each or several."""
    codec = draw(st.sampled_from(sorted(PACKERS)))
    count = draw(st.integers(2, 14))
    records = []
    for number in range(count):
        kind = draw(st.sampled_from(["response", "response", "request", "warcinfo"]))
        records.append(warc(number, page(number, draw(st.sampled_from([0, 40, 3000, 70_000]))), kind=kind))
    together = draw(st.sampled_from([1, 1, 1, 3]))
    groups = [b"".join(records[at : at + together]) for at in range(0, count, together)]
    return codec, [PACKERS[codec](group) for group in groups]


@quick
@given(archive=archives(), task_bytes=st.integers(1, 60_000), seed=st.integers(0, 2**32))
def test_cutting_a_file_anywhere_changes_no_event(
    tmp_path: Path, archive: tuple[str, list[bytes]], task_bytes: int, seed: int
) -> None:
    data = bytearray(b"".join(archive[1]))
    choice = random.Random(seed)
    for _ in range(choice.choice([0, 0, 1, 3])):
        data[choice.randrange(len(data))] ^= choice.randrange(1, 256)
    path = tmp_path / "a"
    whole = events_of(path, bytes(data))
    parts: list[Event] = []
    tasks = cut([source_of(path)], task_bytes)
    assert sum(piece.end - piece.start for task in tasks for piece in task) == len(data)
    for task in tasks:
        for piece in task:
            events = list(read_slice(piece, OPTIONS))
            assert charged(events) == piece.end - piece.start
            parts.extend(events)
    assert parts == whole


@quick
@given(archive=archives(), seed=st.integers(0, 2**32), how=st.sampled_from(["flip", "cut", "insert"]))
def test_damage_costs_only_the_records_whose_members_it_touches(
    tmp_path: Path, archive: tuple[str, list[bytes]], seed: int, how: str
) -> None:
    codec, packed = archive
    data = b"".join(packed)
    before = events_of(tmp_path / "a", data)
    choice = random.Random(seed)
    at = choice.randrange(len(data))
    count = min(choice.randrange(1, 50), len(data) - at)
    inside = {"flip": bytes(byte ^ 0xA5 for byte in data[at : at + count]), "cut": b"", "insert": choice.randbytes(60)}
    after = events_of(tmp_path / "a", data[:at] + inside[how] + data[at + (0 if how == "insert" else count) :])
    bounds = [sum(map(len, packed[:index])) for index in range(len(packed) + 1)]
    # In a plain file damage to the end of one record may be damage to the boundary with the next one.
    reach = 80 if codec == "plain" else 0
    hit = {
        start for start, end in zip(bounds, bounds[1:], strict=False) if start < at + count + reach and at - reach < end
    }
    untouched = [e.record_id for e in before if isinstance(e, Page) and e.position.offset not in hit]
    if codec == "plain":
        spans = [(e.position.offset, e.position.offset + e.length, e.record_id) for e in before if isinstance(e, Page)]
        untouched = [name for start, end, name in spans if end < at - reach or start > at + count + reach]
    found = {event.record_id for event in after if isinstance(event, Page)}
    assert set(untouched) <= found


@quick
@given(archive=archives())
def test_every_record_can_be_read_alone(tmp_path: Path, archive: tuple[str, list[bytes]]) -> None:
    path = tmp_path / "a"
    events = events_of(path, b"".join(archive[1]))
    source = source_of(path)
    for event in events:
        assert isinstance(event, Page | Refused | Skipped | Damaged)
        assert read_at(source, event.position, OPTIONS) == event
