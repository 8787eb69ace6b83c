"""What inputs name is found once, in a fixed order, and cut without losing a byte."""

from __future__ import annotations

import gzip
import os
import zipfile
from pathlib import Path

import fsspec
import pytest

from filters.errors import InputError
from pipelines.read import ReadOptions, read_slice
from pipelines.record import Page, Slice
from pipelines.sources import current_version, cut, find_sources

BODY = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>hello"
RECORD = (
    b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:test:1>\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    + BODY
    + b"\r\n\r\n"
)


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    """A folder with archives in two layers and a file that is none."""
    (tmp_path / "crawl" / "deep").mkdir(parents=True)
    for name, count in (("b.warc.gz", 1), ("a.warc", 2), ("deep/c.warc.wet.gz", 3), ("notes.txt", 1)):
        data = RECORD * count
        (tmp_path / "crawl" / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    return tmp_path


def paths(inputs: list[str], base: Path) -> list[str]:
    return [source.path for source in find_sources(inputs, relative_to=base)]


def test_a_folder_gives_the_files_in_it_that_are_recognised(crawl: Path) -> None:
    assert paths(["crawl"], crawl) == ["crawl/a.warc", "crawl/b.warc.gz", "crawl/deep/c.warc.wet.gz"]


def test_a_path_stays_as_it_was_given_and_its_url_is_absolute(crawl: Path) -> None:
    (relative,) = find_sources(["crawl/a.warc"], relative_to=crawl)
    (absolute,) = find_sources([str(crawl / "crawl/a.warc")])
    assert (relative.path, absolute.path) == ("crawl/a.warc", str(crawl / "crawl/a.warc"))
    assert relative.url == absolute.url == f"file://{crawl}/crawl/a.warc"
    assert relative.size == len(RECORD) * 2


def test_the_order_of_inputs_and_repetition_do_not_matter(crawl: Path) -> None:
    inputs = ["crawl/b.warc.gz", "crawl", "crawl/*.warc", "crawl/deep/../a.warc"]
    assert find_sources(inputs, relative_to=crawl) == find_sources(inputs[::-1], relative_to=crawl)
    assert len(paths(inputs, crawl)) == 3


def test_globs_may_be_recursive(crawl: Path) -> None:
    assert paths(["crawl/**/*.gz"], crawl) == ["crawl/b.warc.gz", "crawl/deep/c.warc.wet.gz"]


@pytest.mark.parametrize("name", ["list.paths", "list.paths.gz"])
def test_lines_of_a_list_stand_against_its_own_folder(crawl: Path, name: str) -> None:
    lines = f"a.warc\n\ndeep/c.warc.wet.gz\n{crawl}/crawl/b.warc.gz\n".encode()
    (crawl / "crawl" / name).write_bytes(gzip.compress(lines) if name.endswith("gz") else lines)
    found = paths([f"crawl/{name}"], crawl)
    assert found == sorted(["crawl/a.warc", "crawl/deep/c.warc.wet.gz", f"{crawl}/crawl/b.warc.gz"])


def test_a_wacz_gives_the_archives_in_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.wacz", "w") as archive:
        archive.writestr("archive/data.warc.gz", gzip.compress(RECORD))
        archive.writestr("pages/pages.jsonl", "{}")
        archive.writestr("indexes/index.cdx", "")
    (source,) = find_sources(["x.wacz"], relative_to=tmp_path)
    assert source.path == "x.wacz!/archive/data.warc.gz"
    assert source.url == f"zip://archive/data.warc.gz::file://{tmp_path}/x.wacz"
    events = list(read_slice(Slice(source=source, start=0, end=source.size), ReadOptions()))
    assert [type(event) for event in events] == [Page]


def test_urls_of_any_store_are_found_and_read() -> None:
    store = fsspec.filesystem("memory")
    for name in ("/crawl/b.warc", "/crawl/a.warc", "/crawl/notes.txt"):
        store.pipe_file(name, RECORD)
    try:
        sources = find_sources(["memory://crawl"])
        assert [source.path for source in sources] == ["memory:///crawl/a.warc", "memory:///crawl/b.warc"]
        assert find_sources(["memory://crawl/*.warc"]) == sources
        (event,) = read_slice(Slice(source=sources[0], start=0, end=sources[0].size), ReadOptions())
        assert isinstance(event, Page)
        assert current_version(sources[0]) == sources[0].version
    finally:
        store.rm("/crawl", recursive=True)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("nowhere.warc", "nowhere.warc does not exist"),
        ("crawl/*.zst", "nothing matches"),
        ("empty", "holds no file that ends in one of .warc"),
        ("nonsense://bucket/a", "the protocol 'nonsense' cannot be used"),
        ("memory://none/at/all.warc", "cannot be found"),
        ("none.paths.gz", "the list cannot be read"),
        ("bad.wacz", "cannot be read as a WACZ"),
    ],
)
def test_an_input_that_names_nothing_is_an_error_that_says_so(crawl: Path, given: str, says: str) -> None:
    (crawl / "empty").mkdir()
    (crawl / "bad.wacz").write_bytes(b"no zip")
    with pytest.raises(InputError, match=says):
        find_sources([given], relative_to=crawl)


def test_a_changed_file_has_another_version(crawl: Path) -> None:
    (source,) = find_sources(["crawl/a.warc"], relative_to=crawl)
    assert current_version(source) == source.version
    path = crawl / "crawl/a.warc"
    os.utime(path, ns=(1, 1))
    assert current_version(source) != source.version
    path.unlink()
    with pytest.raises(InputError, match=r"crawl/a\.warc cannot be read"):
        current_version(source)


def test_small_files_share_a_task_in_their_order_and_large_ones_are_cut(tmp_path: Path) -> None:
    for name, count in (("a", 2), ("b", 2), ("c", 9), ("d", 1), ("e", 1)):
        (tmp_path / f"{name}.warc").write_bytes(RECORD * count)
    sources = find_sources(["*.warc"], relative_to=tmp_path)
    one = len(RECORD)
    tasks = cut(sources, 4 * one)
    shape = [[(piece.source.path[0], piece.start // one, piece.end // one) for piece in task] for task in tasks]
    assert shape == [
        [("a", 0, 2), ("b", 0, 2)],
        [("c", 0, 4)],
        [("c", 4, 8)],
        [("c", 8, 9)],
        [("d", 0, 1), ("e", 0, 1)],
    ]


def test_a_file_that_is_one_member_is_one_slice(tmp_path: Path) -> None:
    (tmp_path / "a.warc.gz").write_bytes(gzip.compress(RECORD * 50))
    (source,) = find_sources(["a.warc.gz"], relative_to=tmp_path)
    assert cut([source], 10) == [(Slice(source=source, start=0, end=source.size),)]
