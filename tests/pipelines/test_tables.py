"""Rows of Parquet and lines of JSONL are documents; a bad one costs itself only."""

from __future__ import annotations

import bz2
import datetime
import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from filters.errors import InputError
from pipelines.member import RawFile
from pipelines.read import ReadOptions, read_at, read_slice
from pipelines.record import Damaged, Event, Page, Position, Refused, Skipped, Slice, Source, Unreadable
from pipelines.sources import cut
from pipelines.tables import parquet_events

OPTIONS = ReadOptions()
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "lz4": lz4.frame.compress,
    "bz2": bz2.compress,
}


def source_of(path: Path) -> Source:
    return Source(path=path.name, url=f"file://{path}", size=path.stat().st_size, version="1")


def events_of(path: Path, options: ReadOptions = OPTIONS) -> list[Event]:
    source = source_of(path)
    events = list(read_slice(Slice(source=source, start=0, end=source.size), options))
    sizes = [event.end - event.start if isinstance(event, Unreadable) else event.length for event in events]
    assert sum(sizes) == source.size
    return events


def in_parts(path: Path, task_bytes: int) -> list[Event]:
    tasks = cut([source_of(path)], task_bytes)
    return [event for task in tasks for piece in task for event in read_slice(piece, OPTIONS)]


def texts(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Page)]


def lines(count: int) -> list[bytes]:
    rows = ({"id": f"n{n}", "text": f"text {n} " + "é" * (n % 70), "url": f"http://e.org/{n}"} for n in range(count))
    return [json.dumps(row).encode() + b"\n" for row in rows]


@pytest.mark.parametrize("codec", PACKERS)
def test_lines_of_every_codec_are_read(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(PACKERS[codec](b"".join(lines(50))))
    events = events_of(path)
    assert [event.record_id for event in events if isinstance(event, Page)] == [f"n{n}" for n in range(50)]
    last = events[-1]
    assert isinstance(last, Page)
    assert read_at(source_of(path), last.position, OPTIONS).position == last.position


def test_a_bad_line_costs_itself_only(tmp_path: Path) -> None:
    path = tmp_path / "a"
    bad = [
        b'{"text": "cut\n',
        b"[1, 2]\n",
        b"\n",
        b'{"id": 5}\n',
        b'{"text": null}\n',
        b'{"text": "\xff"}\n',
        b"[" * 99999,
    ]
    path.write_bytes(b"".join([*lines(2), *bad[:6], *lines(1), bad[6]]))
    kinds = [(type(event).__name__, getattr(event, "reason", "")) for event in events_of(path)]
    assert kinds == [
        *[("Page", "")] * 2,
        ("Damaged", "json"),
        ("Damaged", "json"),
        ("Skipped", "empty"),
        ("Skipped", "no_text"),
        ("Skipped", "no_text"),
        ("Damaged", "json"),
        ("Page", ""),
        ("Damaged", "json"),
    ]


def test_surrogates_and_nul_in_a_row_become_replacement_characters(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b'{"text": "a\\ud800b\\u0000c"}\n')
    assert texts(events_of(path)) == ["a\ufffdb\ufffdc"]


def test_what_a_row_lacks_is_sought_in_its_metadata_and_an_id_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b'{"text": "a", "metadata": {"url": "http://e.org", "date": "2024"}}\n')
    (event,) = events_of(path)
    assert isinstance(event, Page)
    assert (event.url, event.date) == ("http://e.org", "2024")
    assert event.record_id.startswith("urn:gristmill:")


@pytest.mark.parametrize("codec", PACKERS)
def test_a_line_beyond_the_limit_is_refused(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a"
    noise = random.Random(0).randbytes(200_000).hex()
    long = json.dumps({"text": noise}).encode() + b"\n"
    path.write_bytes(PACKERS[codec](b"".join([*lines(1), long, *lines(1)])))
    events = events_of(path, ReadOptions(max_body_bytes=100_000))
    assert [type(event) for event in events] == [Page, Refused, Page]


def test_a_truncated_file_of_lines_loses_only_its_last(tmp_path: Path) -> None:
    path = tmp_path / "a"
    members = [gzip.compress(line) for line in lines(9)]
    path.write_bytes(b"".join(members)[:-5])
    events = events_of(path)
    assert len(texts(events)) == 8
    assert isinstance(events[-1], Damaged)


@pytest.mark.parametrize("codec", PACKERS)
@pytest.mark.parametrize("task_bytes", [1, 300, 2000])
def test_cutting_lines_anywhere_changes_no_event(tmp_path: Path, codec: str, task_bytes: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"".join(PACKERS[codec](b"".join(lines(40)[at : at + 3])) for at in range(0, 40, 3)))
    assert in_parts(path, task_bytes) == events_of(path)


def parquet(path: Path, count: int = 100, groups: int = 30) -> None:
    table = pa.table(
        {
            "id": [f"n{n}" for n in range(count)],
            "text": [None if n == 7 else f"text {n}" for n in range(count)],
            "url": [f"http://e.org/{n}" for n in range(count)],
            "date": [datetime.datetime(2024, 1, 2, 3, 4, 5)] * count,
            "other": list(range(count)),
        }
    )
    pq.write_table(table, path, row_group_size=groups)


def test_parquet_rows_are_read_and_a_null_text_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet(path)
    events = events_of(path)
    assert texts(events) == [f"text {n}" for n in range(100) if n != 7]
    (skipped,) = [event for event in events if isinstance(event, Skipped)]
    assert skipped.reason == "no_text"
    page = next(event for event in events if isinstance(event, Page))
    assert (page.record_id, page.url, page.date) == ("n0", "http://e.org/0", "2024-01-02T03:04:05")
    assert {event.reason for event in events if isinstance(event, Unreadable)} == {"format"}


def test_a_parquet_row_can_be_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet(path)
    for event in events_of(path):
        if isinstance(event, Page):
            assert read_at(source_of(path), event.position, OPTIONS) == event
    with pytest.raises(InputError, match="no record begins at offset 5"):
        read_at(source_of(path), Position(offset=5), OPTIONS)


@pytest.mark.parametrize("task_bytes", [1, 1000, 2500])
def test_cutting_parquet_anywhere_changes_no_event(tmp_path: Path, task_bytes: int) -> None:
    path = tmp_path / "a.parquet"
    parquet(path)
    assert in_parts(path, task_bytes) == events_of(path)


def test_a_damaged_row_group_costs_itself_only(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet(path)
    second = pq.read_metadata(path).row_group(1).column(1)
    data = bytearray(path.read_bytes())
    at = second.dictionary_page_offset
    data[at : at + 60] = bytes(60)
    path.write_bytes(bytes(data))
    events = events_of(path)
    kept = {event.record_id for event in events if isinstance(event, Page)}
    assert kept == {f"n{n}" for n in range(100) if n != 7 and not 30 <= n < 60}
    assert [event.reason for event in events if isinstance(event, Unreadable)] == ["format", "damaged", "format"]


def test_a_failing_store_is_an_error_and_not_a_damaged_row_group(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet(path)
    source = source_of(path)

    class LostConnection(io.BytesIO):
        lost = False

        def read(self, size: int | None = -1) -> bytes:
            if self.lost:
                raise ConnectionResetError("the store hung up")
            return super().read(size)

    file = LostConnection(path.read_bytes())
    events = parquet_events(RawFile(file, source.size), source, OPTIONS, 0, source.size)
    next(events)
    file.lost = True
    with pytest.raises(ConnectionResetError):
        list(events)


def test_a_parquet_without_its_footer_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    (event,) = events_of(path)
    assert isinstance(event, Unreadable)
    assert event.reason == "damaged"


def test_a_table_without_the_text_column_says_which_it_has(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet(path)
    with pytest.raises(InputError, match="no column 'body'; it has id, text, url"):
        events_of(path, ReadOptions(text_column="body"))


def test_a_text_that_packs_too_well_is_not_inflated(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a" * (64 << 20)]}), path, compression="zstd", use_dictionary=False)
    events = events_of(path)
    assert "compression_ratio" in {event.reason for event in events if isinstance(event, Unreadable)}
