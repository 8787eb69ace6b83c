"""A dump of Common Crawl is named, found and read; the dataset does not depend on the way it is read."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from filters.errors import InputError
from infra.commands import run_recipe
from pipelines import patience, web
from pipelines.common_crawl import BASE_VARIABLE, BUCKET, LIST_FROM, WEB, Crawl, crawl_of
from pipelines.recipe import load_recipe
from pipelines.schema import read_table
from pipelines.sources import current_version, find_sources
from pipelines.storage import StoredFile
from tests.servers.fault_proxy import FaultProxy, Faults
from tests.servers.seaweed import S3
from tests.servers.web_server import WebServer, web_server

ROOT = Path(__file__).parents[2]
DUMP = "crawl-data/CC-MAIN-2024-10"
Faulty = Callable[[Faults], FaultProxy]


def laid_out(warcs: list[bytes]) -> dict[str, bytes]:
    """These files as a dump of two segments, with its list; the list is in the crawl's order, which is not sorted."""
    lines = [
        f"{DUMP}/segments/{2 - number % 2}/warc/CC-MAIN-20240301-{number:05d}.warc.gz" for number in range(len(warcs))
    ]
    files = dict(zip(lines, warcs, strict=True))
    return files | {f"{DUMP}/warc.paths.gz": gzip.compress("".join(f"{line}\n" for line in lines).encode())}


@pytest.fixture
def dump(small_crawl: Path) -> dict[str, bytes]:
    return laid_out([path.read_bytes() for path in sorted(small_crawl.glob("*.warc.gz"))])


@pytest.fixture
def site(dump: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """A web server that `cc:` reads from."""
    monkeypatch.setattr(web, "REQUEST_SECONDS", 0.0)
    monkeypatch.setattr(web, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(patience, "WAIT_SECONDS", 0.001)
    with web_server(dump) as served:
        monkeypatch.setenv(BASE_VARIABLE, served.url)
        yield served


@pytest.mark.parametrize(
    ("given", "crawl"),
    [
        ("cc:CC-MAIN-2024-10", ("CC-MAIN-2024-10", "warc", 0, None, WEB)),
        ("cc:CC-MAIN-2024-10:3", ("CC-MAIN-2024-10", "warc", 3, 3, WEB)),
        ("cc:CC-MAIN-2024-10:0-9", ("CC-MAIN-2024-10", "warc", 0, 9, WEB)),
        ("cc+s3:CC-MAIN-2024-10/wet:7-7", ("CC-MAIN-2024-10", "wet", 7, 7, BUCKET)),
        ("cc:CC-MAIN-2008-2009/arc", ("CC-MAIN-2008-2009", "arc", 0, None, WEB)),
        ("cc:CC-MAIN-2012/arc", ("CC-MAIN-2012", "arc", 0, None, WEB)),
    ],
)
def test_a_dump_is_named_with_a_kind_and_positions(
    given: str, crawl: tuple[str, str, int, int | None, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(BASE_VARIABLE, raising=False)
    name, kind, first, last, base = crawl
    assert crawl_of(given) == Crawl(name=name, kind=kind, first=first, last=last, base=base)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("cc:CC-MAIN-24-10", "names no dump"),
        ("cc:CC-MAIN-2024-10:", "names no dump"),
        ("cc:CC-MAIN-2024-10:-3", "names no dump"),
        ("cc:CC-MAIN-2024-10:1-", "names no dump"),
        ("cc:CC-MAIN-2024-10:1-2-3", "names no dump"),
        ("cc:../../etc", "names no dump"),
        ("cc:CC-MAIN-2024-10/wat", "no 'wat' files.*warc, wet, arc"),
        ("cc:CC-MAIN-2024-10:5-2", "position 2 lies before 5"),
        ("cc:CC-MAIN-2024-10:0-3", "lists 3 files, at positions 0 to 2"),
        ("cc:CC-MAIN-2024-10:7", "lists 3 files"),
        ("cc:CC-MAIN-2031-01", "CC-MAIN-2031-01/warc.paths.gz does not exist"),
        ("cc:CC-MAIN-2024-10/wet", "wet.paths.gz does not exist"),
    ],
)
def test_what_names_no_files_is_an_error_that_says_what_to_do(site: WebServer, given: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        find_sources([given])
    assert given in str(caught.value)


def test_a_list_that_is_no_list_is_an_error(site: WebServer) -> None:
    for data in (b"<html>", gzip.compress(b"x" * 99)[:-9], b""):
        site.files[f"{DUMP}/warc.paths.gz"] = data
        with pytest.raises(InputError, match=r"CC-MAIN-2024-10:0-1.*"):
            find_sources(["cc:CC-MAIN-2024-10:0-1"])


def test_positions_choose_from_the_list_and_paths_are_those_of_the_bucket(
    site: WebServer, dump: dict[str, bytes]
) -> None:
    found = find_sources(["cc:CC-MAIN-2024-10:1-2"])
    lines = list(dump)[1:3]
    assert [source.path for source in found] == sorted(f"s3://commoncrawl/{line}" for line in lines)
    assert {source.url for source in found} == {f"{site.url}/{line}" for line in lines}
    assert {source.size for source in found} == {len(dump[line]) for line in lines}
    assert [current_version(source) for source in found] == [source.version for source in found]
    assert site.asked("HEAD").count(lines[0]) == 2, "once to find it, once for its version now"


def test_a_file_of_the_list_that_is_absent_is_named(site: WebServer, dump: dict[str, bytes]) -> None:
    del site.files[list(dump)[1]]
    with pytest.raises(InputError, match=rf"{list(dump)[1]} does not exist"):
        find_sources(["cc:CC-MAIN-2024-10"])


def test_parts_of_a_dump_that_overlap_are_read_once(site: WebServer) -> None:
    found = find_sources(["cc:CC-MAIN-2024-10:0-1", "cc:CC-MAIN-2024-10:1-2"])
    assert sum(path.endswith(".warc.gz") for path in site.asked("HEAD")) == 3
    assert found == find_sources(["cc:CC-MAIN-2024-10"])


def fill_bucket(s3: S3, files: dict[str, bytes]) -> None:
    """Put the files, and nothing else, into a bucket that is called as Common Crawl's."""
    client = s3.client(attempts=5)
    try:
        client.create_bucket(Bucket="commoncrawl")
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
            raise
    for one in client.list_objects_v2(Bucket="commoncrawl").get("Contents", []):
        client.delete_object(Bucket="commoncrawl", Key=one["Key"])
    for name, data in files.items():
        client.put_object(Bucket="commoncrawl", Key=name, Body=data)
    client.close()


def test_in_the_bucket_one_listing_a_segment_tells_of_all_files(s3: S3, faulty: Faulty) -> None:
    files = laid_out([b"x" * number for number in range(1, 2 * LIST_FROM + 1)])
    fill_bucket(s3, files)
    proxy = faulty(Faults(seed=0, odds={}))
    found = find_sources(["cc+s3:CC-MAIN-2024-10"])
    assert len(found) == 2 * LIST_FROM
    assert sum("list-type=2" in request for request in proxy.requests) == 2
    assert proxy.calls <= 2 + 3, "beside the listings: what the list is, and the list"
    assert [current_version(source) for source in found] == [source.version for source in found]


def test_a_dump_named_on_the_web_and_in_the_bucket_is_read_once(
    s3: S3, site: WebServer, dump: dict[str, bytes]
) -> None:
    fill_bucket(s3, dump)
    inputs = ["cc+s3:CC-MAIN-2024-10:0-1", "cc:CC-MAIN-2024-10:0-1"]
    found = find_sources(inputs)
    assert [source.path for source in found] == sorted(f"s3://commoncrawl/{line}" for line in list(dump)[:2])
    assert find_sources(inputs[::-1]) == found
    site.files[list(dump)[0]] += b"x"
    with pytest.raises(InputError, match="named twice.*differ"):
        find_sources(inputs)


def test_a_file_that_the_bucket_lacks_is_named(s3: S3) -> None:
    files = laid_out([b"x"] * 2 * LIST_FROM)
    absent = list(files)[3]
    del files[absent]
    fill_bucket(s3, files)
    with pytest.raises(InputError, match=rf"s3://commoncrawl/{absent} is on the list of CC-MAIN-2024-10 but not there"):
        find_sources(["cc+s3:CC-MAIN-2024-10"])


def corpus(out: Path, given: str) -> tuple[str, set[str], set[str]]:
    """Hash of the dataset of a run over `given`, its file paths and dumps."""
    made = run_recipe(load_recipe("fineweb-resiliparse"), [given], out, runner="inprocess", quiet=True)
    paths, dumps = set(), set()
    for path in (out / "dataset").glob("*.parquet"):
        table = read_table(StoredFile(url=str(path), bytes=path.stat().st_size), columns=["file_path", "dump"])
        paths |= set(table.column("file_path").to_pylist())
        dumps |= set(table.column("dump").to_pylist())
    return made.dataset_sha256, paths, dumps


def test_the_web_the_bucket_and_a_copy_give_the_same_dataset(
    site: WebServer, s3: S3, dump: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over_web = corpus(tmp_path / "web", "cc:CC-MAIN-2024-10:0-1")
    fill_bucket(s3, dump)
    from_bucket = corpus(tmp_path / "bucket", "cc+s3:CC-MAIN-2024-10:0-1")
    for name, data in dump.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(data)
    monkeypatch.setenv(BASE_VARIABLE, f"file://{tmp_path}/copy")
    from_copy = corpus(tmp_path / "copied", "cc:CC-MAIN-2024-10:0-1")
    assert over_web == from_bucket == from_copy
    _, paths, dumps = over_web
    assert paths == {f"s3://commoncrawl/{line}" for line in list(dump)[:2]}
    assert dumps == {"CC-MAIN-2024-10"}


def test_a_task_asks_for_its_file_as_often_as_the_page_says(
    s3: S3, dump: dict[str, bytes], faulty: Faulty, tmp_path: Path
) -> None:
    """Three HEADs beside the one that planned it, and a GET for each 8 MiB: docs/common-crawl.md, What it costs."""
    fill_bucket(s3, dump)
    proxy = faulty(Faults(seed=0, odds={}))
    corpus(tmp_path, "cc+s3:CC-MAIN-2024-10:1")
    asked = [request.split()[0] for request in proxy.requests if request.endswith(".warc.gz")]
    assert sorted(asked) == ["GET", "HEAD", "HEAD", "HEAD", "HEAD"]
