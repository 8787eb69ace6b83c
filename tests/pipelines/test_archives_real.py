"""Real archives of 32 projects: no crash, every byte charged, every record that warcio or FastWARC finds is found.

Compared are (offset, record id); of ARC, whose records have no id, the offset. In a file whose members hold several
records the libraries have other offsets (FastWARC's is the end of the member, warcio stops), so there ids are compared.
Counted are the records whose header says a type and a length and whose body is whole. PHANTOMS are records of a library
that are none; a phantom that is not listed fails.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections import Counter
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator as FastIterator
from warcio.archiveiterator import ArchiveIterator

from pipelines.archive import Record, records
from pipelines.form import form_of
from pipelines.member import Limits, RawFile
from pipelines.read import ReadOptions, read_slice
from pipelines.record import Page, Slice, Source, Unreadable
from pipelines.sources import cut, find_sources

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
WARCS = DATA / "warc"
OPTIONS = ReadOptions()
needs_data = pytest.mark.skipif(not WARCS.is_dir(), reason="the folder of real archives is not beside the checkout")

# What a library takes for a record: file name -> (offsets, why it is none).
PHANTOMS: dict[str, tuple[frozenset[int], str]] = {
    "3-metadata-2.arc": (
        frozenset({324, 523, 732}),
        "warcio reads `metadata file 3 block 1`, a body, as an ARC header",
    ),
}


def files() -> list[Path]:
    if not WARCS.is_dir():
        return []
    found = (path for path in WARCS.rglob("*") if path.is_file())
    return sorted(path for path in found if path.name not in ("LICENSE.upstream", "SOURCE.txt"))


def folders() -> list[str]:
    return sorted({path.relative_to(WARCS).parts[0] for path in files()})


def in_folder(folder: str) -> list[Path]:
    return [path for path in files() if path.relative_to(WARCS).parts[0] == folder]


def source_of(path: Path) -> Source:
    return Source(path=path.name, url=f"file://{path}", size=path.stat().st_size, version="1")


Found = set[tuple[int, str | None]]


def is_arc(path: Path) -> bool:
    return ".arc" in path.name.lower()


def warcio_records(path: Path) -> Found:
    """What warcio finds before it stops; what it prints of stray bytes is not shown."""
    found: Found = set()
    quiet = io.StringIO()
    # Whatever warcio raises at damage is its affair: what it found before is compared.
    with contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet), contextlib.suppress(Exception):
        iterator = ArchiveIterator(io.BytesIO(path.read_bytes()), arc2warc=True)
        for record in iterator:
            headers = record.rec_headers
            if _is_complete(headers.get_header("WARC-Type"), headers.get_header("Content-Length")):
                record_id = (headers.get_header("WARC-Record-ID") or "").strip() or None
                found.add((iterator.get_record_offset(), None if is_arc(path) else record_id))
            record.raw_stream.read()
    return found


def fast_records(path: Path) -> Found:
    found: Found = set()
    with contextlib.suppress(Exception), path.open("rb") as file:
        for record in FastIterator(file, parse_http=False):
            length = record.headers.get("Content-Length")
            read = len(record.reader.read())
            if _is_complete(record.headers.get("WARC-Type"), length) and read == int(length):
                found.add((record.stream_pos, (record.headers.get("WARC-Record-ID") or "").strip() or None))
    return found


def _is_complete(kind: str | None, length: str | None) -> bool:
    return bool(kind) and re.fullmatch(r"\s*\d+\s*", length or "") is not None


def our_records(path: Path) -> list[Record]:
    with path.open("rb") as file:
        raw = RawFile(file, path.stat().st_size)
        form = form_of(raw)
        if form is None or form.kind not in ("warc", "arc"):
            return []
        found = records(raw, form, Limits(), 0, raw.size)
        return [record for record in found if isinstance(record, Record)]


def not_found(theirs: Found, ours: list[Record], path: Path) -> Found:
    ids = {record.header.fields.get("warc-record-id") for record in ours}
    offsets = {record.position.offset for record in ours}
    if is_arc(path):
        return {place for place in theirs if place[0] not in offsets}
    if any(record.position.inner for record in ours):
        return theirs if len(theirs) > len(ours) else {place for place in theirs if place[1] not in ids}
    return theirs - {(record.position.offset, record.header.fields.get("warc-record-id")) for record in ours}


@needs_data
@pytest.mark.parametrize("folder", folders())
def test_every_byte_of_every_file_is_charged_once(folder: str) -> None:
    for path in in_folder(folder):
        source = source_of(path)
        at = 0
        for event in read_slice(Slice(source=source, start=0, end=source.size), OPTIONS):
            if isinstance(event, Unreadable):
                assert event.start == at, path
                at = event.end
            else:
                assert event.position.offset <= at, path
                at += event.length
        assert at == source.size, path


@needs_data
@pytest.mark.parametrize("folder", folders())
def test_every_record_that_warcio_or_fastwarc_finds_is_found(folder: str) -> None:
    for path in in_folder(folder):
        ours = our_records(path)
        phantoms, _ = PHANTOMS.get(path.name, (frozenset(), ""))
        for theirs in (warcio_records(path), fast_records(path)):
            missing = {place for place in not_found(theirs, ours, path) if place[0] not in phantoms}
            assert not missing, path


@needs_data
def test_every_listed_phantom_is_still_one() -> None:
    for name in PHANTOMS:
        for path in (path for path in files() if path.name == name):
            assert not_found(warcio_records(path) | fast_records(path), our_records(path), path), name


@needs_data
@pytest.mark.parametrize("name", ["chatnoir-eu+chatnoir-resiliparse", "webrecorder+warcio", "iipc+warc-specifications"])
def test_cutting_real_files_changes_no_event(name: str) -> None:
    for path in in_folder(name):
        source = source_of(path)
        whole = list(read_slice(Slice(source=source, start=0, end=source.size), OPTIONS))
        pieces = [piece for task in cut([source], max(source.size // 7, 1)) for piece in task]
        assert [event for piece in pieces for event in read_slice(piece, OPTIONS)] == whole, path


@needs_data
def test_pages_of_the_synthetic_crawl_are_all_read() -> None:
    (source,) = find_sources(["crawl/part-00006.warc.gz"], relative_to=DATA)
    events = list(read_slice(Slice(source=source, start=0, end=source.size), OPTIONS))
    with Path(source.url.removeprefix("file://")).open("rb") as file:
        expected = Counter(record.rec_type for record in ArchiveIterator(file))
    assert sum(isinstance(event, Page) for event in events) == expected["response"] == len(events)


@needs_data
def test_the_archives_in_every_readable_wacz_are_found() -> None:
    wacz = [str(path) for path in files() if path.suffix == ".wacz" and not path.name.startswith("invalid_example_1")]
    sources = find_sources(wacz)
    assert {source.path.split("!/")[0] for source in sources} == set(wacz)
    for source in sources:
        assert any(
            isinstance(event, Page) for event in read_slice(Slice(source=source, start=0, end=source.size), OPTIONS)
        )
