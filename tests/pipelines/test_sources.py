"""What inputs name is found once, in a fixed order, and cut without losing a byte."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from filters.errors import InputError
from pipelines import web
from pipelines.read import ReadOptions, read_slice
from pipelines.record import Page, Slice
from pipelines.sources import current_version, cut, find_sources
from tests.servers.fault_proxy import FaultProxy, Faults
from tests.servers.seaweed import S3
from tests.servers.web_server import WebServer, web_server

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


def test_globs_follow_links_but_not_in_circles_and_leave_hidden_files_alone(crawl: Path) -> None:
    (crawl / "elsewhere").mkdir()
    (crawl / "elsewhere" / "d.warc").write_bytes(RECORD)
    (crawl / "crawl" / "linked").symlink_to(crawl / "elsewhere")
    (crawl / "crawl" / "deep" / "up").symlink_to(crawl / "crawl")
    (crawl / "crawl" / ".hidden.warc").write_bytes(RECORD)
    assert paths(["crawl/**/*.warc"], crawl) == ["crawl/a.warc", "crawl/linked/d.warc"]
    assert paths(["crawl/.h*"], crawl) == ["crawl/.hidden.warc"]
    assert paths(["./crawl/../elsewhere/?.warc"], crawl) == ["./crawl/../elsewhere/d.warc"]
    assert paths([f"{crawl}/*/d.warc"], Path("/")) == [f"{crawl}/elsewhere/d.warc"]


@pytest.mark.parametrize("given", ["crawl", "crawl/*/*.gz", "crawl/**/*.gz"])
def test_a_folder_that_may_not_be_read_is_an_error_that_names_it(
    crawl: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    scandir = os.scandir

    def refusing(path: str | Path) -> object:
        if str(path).rstrip("/").endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(InputError, match="crawl/deep.*Permission denied"):
        find_sources([given], relative_to=crawl)


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


@pytest.mark.parametrize("damage", ["checksum", "stream", "header", "directory"])
def test_a_damaged_entry_of_a_wacz_is_an_error_that_names_it(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.wacz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.warc", RECORD * 100)
    (source,) = find_sources(["x.wacz"], relative_to=tmp_path)
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    if damage == "checksum":
        data[directory + 16] ^= 1
    elif damage == "stream":
        data[45:60] = os.urandom(15)
    elif damage == "header":
        data[:4] = b"none"
    else:
        del data[directory + 10 :]
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"archive/data\.warc.*damaged"):
        list(read_slice(Slice(source=source, start=0, end=source.size), ReadOptions()))


def test_a_file_that_cannot_be_read_on_is_an_error_that_names_it(crawl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = find_sources(["crawl/a.warc"], relative_to=crawl)

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("pipelines.read.opened", lambda *_, **__: Failing())
    with pytest.raises(InputError, match=r"crawl/a\.warc cannot be read on.*Input/output"):
        list(read_slice(Slice(source=source, start=0, end=source.size), ReadOptions()))


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
        ("memory://none/at/all.warc", "does not exist"),
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
    with pytest.raises(InputError, match=r"crawl/a\.warc does not exist"):
        current_version(source)


# Stores

FILES = {
    "crawl/b.warc.gz": gzip.compress(RECORD),
    "crawl/a.warc": RECORD * 2,
    "crawl/deep/c.warc.wet.gz": gzip.compress(RECORD * 3),
    "crawl/notes.txt": b"no archive",
    "crawl2/d.warc": RECORD,
    "lists/own.paths": b"../crawl/a.warc\n# a comment\n\nd.warc\n",
    "lists/d.warc": RECORD,
}


@pytest.fixture
def filled(s3: S3, bucket: str) -> str:
    """The URL of a bucket that holds FILES."""
    client = s3.client(attempts=5)
    for name, data in FILES.items():
        client.put_object(Bucket=bucket.removeprefix("s3://"), Key=name, Body=data)
    client.close()
    return bucket


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """A web server that holds FILES, and a page of links for the folder."""
    monkeypatch.setattr(web, "REQUEST_SECONDS", 0.0)
    links = "".join(f'<a href="{name.removeprefix("crawl/")}">x</a>' for name in FILES if name.startswith("crawl/"))
    with web_server(FILES | {"crawl/": links.encode()}) as served:
        yield served


def test_a_prefix_of_a_bucket_is_a_folder_told_of_by_listings_alone(
    filled: str, faulty: Callable[[Faults], FaultProxy]
) -> None:
    proxy = faulty(Faults(seed=0, odds={}))
    sources = find_sources([f"{filled}/crawl"])
    names = ["a.warc", "b.warc.gz", "deep/c.warc.wet.gz"]
    assert [source.path for source in sources] == [f"{filled}/crawl/{name}" for name in names]
    assert [source.size for source in sources] == [len(FILES[f"crawl/{name}"]) for name in names]
    assert {request.split()[0] for request in proxy.requests} == {"GET"}
    assert proxy.calls <= 2
    assert find_sources([f"{filled}/crawl/"]) == sources
    assert find_sources([f"{filled}/crawl/**/*.gz"]) == sources[1:]
    assert [current_version(source) for source in sources] == [source.version for source in sources]


def test_a_file_named_by_itself_may_be_called_anything(filled: str) -> None:
    assert [source.path for source in find_sources([f"{filled}/crawl/notes.txt"])] == [f"{filled}/crawl/notes.txt"]


def test_a_folder_that_is_called_like_a_file_is_read_as_a_folder_or_refused(filled: str) -> None:
    client = fsspec.filesystem("s3")
    client.pipe_file(f"{filled}/table.parquet/part-0.parquet", b"x")
    client.pipe_file(f"{filled}/table.parquet/_SUCCESS", b"")
    with pytest.raises(InputError, match=r"table\.parquet is a folder.*slash"):
        find_sources([f"{filled}/table.parquet"])
    (source,) = find_sources([f"{filled}/table.parquet/"])
    assert (source.path, source.size) == (f"{filled}/table.parquet/part-0.parquet", 1)


@pytest.mark.parametrize("given", ["none", "none/*.warc", "crawl/none.warc", "lists/none.paths"])
def test_what_a_bucket_does_not_hold_is_an_error_that_names_it(filled: str, given: str) -> None:
    with pytest.raises(InputError, match=f"{filled}/{given.split('*')[0]}"):
        find_sources([f"{filled}/{given}"])


def test_a_web_folder_is_what_its_page_links_to(site: WebServer) -> None:
    sources = find_sources([f"{site.url}/crawl/"])
    assert [source.path for source in sources] == [
        f"{site.url}/crawl/{name}" for name in ("a.warc", "b.warc.gz", "deep/c.warc.wet.gz")
    ]
    assert find_sources([f"{site.url}/crawl/*.warc"]) == sources[:1]
    assert site.asked("GET").count("crawl/a.warc") == 0, "no file is read to learn what it is"


def test_relative_lines_of_a_remote_list_stand_against_its_folder(site: WebServer, filled: str) -> None:
    over_web = find_sources([f"{site.url}/lists/own.paths"])
    assert [source.url for source in over_web] == [f"{site.url}/crawl/a.warc", f"{site.url}/lists/d.warc"]
    (source,) = find_sources([f"{filled}/lists/d.warc"])
    client = fsspec.filesystem("s3")
    client.pipe_file(f"{filled}/lists/own.paths", gzip.compress(f"d.warc\n{filled}/crawl/a.warc\n".encode()))
    listed = find_sources([f"{filled}/lists/own.paths"])
    assert [one.url for one in listed] == [f"{filled}/crawl/a.warc", f"{filled}/lists/d.warc"]
    assert source in listed


def test_a_list_cannot_bring_in_credentials(tmp_path: Path) -> None:
    (tmp_path / "a.paths").write_text("https://user:secret@host/a.warc\n")
    with pytest.raises(InputError, match="carries credentials"):
        find_sources(["a.paths"], relative_to=tmp_path)


def test_only_remote_files_are_read_without_credentials(crawl: Path, site: WebServer) -> None:
    sources = find_sources(["crawl/a.warc", f"{site.url}/crawl/a.warc"], relative_to=crawl, anonymous=True)
    assert [(source.path, source.anonymous) for source in sources] == [
        ("crawl/a.warc", False),
        (f"{site.url}/crawl/a.warc", True),
    ]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archives_in_a_remote_wacz_are_read_in_place(
    site: WebServer, monkeypatch: pytest.MonkeyPatch, compression: int
) -> None:
    monkeypatch.setattr("pipelines.storage.READ_BYTES", 1 << 16)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", compression) as archive:
        archive.writestr("archive/first.warc", os.urandom(1 << 20))
        archive.writestr("archive/data.warc.gz", gzip.compress(RECORD) * 20)
        archive.writestr("archive/last.warc", os.urandom(1 << 20))
    site.files["x.wacz"] = sink.getvalue()
    (source,) = (one for one in find_sources([f"{site.url}/x.wacz"]) if one.path.endswith("data.warc.gz"))
    before = len(site.requests)
    half = source.size // 20 * 10
    events = list(read_slice(Slice(source=source, start=half, end=source.size), ReadOptions()))
    assert [type(event) for event in events] == [Page] * 10
    ranges = [request.headers["range"] for request in site.requests[before:] if request.method == "GET"]
    assert len(ranges) <= 6, "what lies before and behind the entry is left alone"
    assert current_version(source) == source.version


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
