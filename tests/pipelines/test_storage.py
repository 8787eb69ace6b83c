"""Remote files are read whole or not at all, politely, and never two versions of one file."""

from __future__ import annotations

import io
import random
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.errors import InputChanged, InputError
from pipelines import patience, storage
from pipelines.listing import listed
from pipelines.read import ReadOptions, read_slice
from pipelines.record import Page, Slice
from pipelines.sources import current_version, find_sources
from pipelines.storage import RangeFile, described, file_system, opened, refuse_credentials
from tests.pipelines.web_files import DATA, page, quick
from tests.servers.fault_proxy import Fault as S3Fault
from tests.servers.fault_proxy import FaultProxy, Faults
from tests.servers.seaweed import S3
from tests.servers.web_server import Fault, WebServer, web_server

PASSING = [
    Fault(cut=1000),
    Fault(cut=1000, silently=True),
    Fault(status=500),
    Fault(status=503),
    Fault(status=429, headers={"Retry-After": "0"}),
    Fault(cut=0),
]
Faulty = Callable[[Faults], FaultProxy]


def whole(url: str) -> bytes:
    facts = described(url)
    with opened(url, size=facts.size, version=facts.version) as file:
        return file.read()


# Reading


def test_a_web_file_is_read_at_any_place_by_ranges(server: WebServer) -> None:
    url = f"{server.url}/data.bin"
    facts = described(url)
    with RangeFile(url, size=facts.size, version=facts.version) as file:
        for at, count in ((0, 10), (299_990, 10), (150_000, 5), (299_995, 100)):
            file.seek(at)
            assert file.read(count) == DATA[at : at + count]
        assert file.seek(-4, io.SEEK_END) == file.tell() == 299_996
        assert file.read() == DATA[-4:]
    assert facts.size == len(DATA)
    assert server.asked("HEAD") == ["data.bin"]


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_a_fault_that_passes_is_got_over_and_the_bytes_are_right(server: WebServer, fault: Fault) -> None:
    server.faults = deque([fault] * 3)
    assert whole(f"{server.url}/data.bin") == DATA
    assert not server.faults


def test_a_description_is_asked_for_again_too(server: WebServer) -> None:
    server.faulty = lambda method, path: True
    server.faults = deque([Fault(status=503)] * 3)
    assert described(f"{server.url}/data.bin").size == len(DATA)


def test_a_fault_that_stays_is_an_error_that_names_the_file(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "ATTEMPTS", 3)
    facts = described(f"{server.url}/data.bin")
    server.faults = deque([Fault(status=500)] * 3)
    with opened(f"{server.url}/data.bin", size=facts.size) as file, pytest.raises(InputError, match=r"data\.bin.*500"):
        file.read()
    assert not server.faults


def test_a_server_without_ranges_is_refused_and_not_read_through(server: WebServer) -> None:
    server.ranges = False
    with (
        RangeFile(f"{server.url}/data.bin", size=len(DATA)) as file,
        pytest.raises(InputError, match="whole files only"),
    ):
        file.read(100)


def test_a_small_file_needs_no_ranges(server: WebServer) -> None:
    server.ranges = False
    assert whole(f"{server.url}/data.bin") == DATA


def test_a_server_that_knows_no_head_is_asked_for_one_byte(server: WebServer) -> None:
    server.heads = False
    server.files["empty"] = b""
    assert described(f"{server.url}/data.bin").size == len(DATA)
    assert described(f"{server.url}/empty").size == 0
    assert {one.headers["range"] for one in server.requests if one.method == "GET"} == {"bytes=0-0"}


@pytest.mark.parametrize("new", [DATA[::-1], DATA[:-1], DATA + b"x", b""])
def test_a_web_file_that_is_overwritten_is_noticed(server: WebServer, new: bytes) -> None:
    url = f"{server.url}/data.bin"
    facts = described(url)
    with RangeFile(url, size=facts.size, version=facts.version) as file:
        file.read(10)
        server.files["data.bin"] = new
        with pytest.raises(InputChanged, match=r"data\.bin"):
            file.read(10)


def test_a_web_file_that_is_removed_is_noticed(server: WebServer) -> None:
    facts = described(f"{server.url}/data.bin")
    with RangeFile(f"{server.url}/data.bin", size=facts.size, version=facts.version) as file:
        del server.files["data.bin"]
        with pytest.raises(InputChanged, match="removed"):
            file.read(10)


def test_bytes_come_as_they_are_stored_whatever_the_server_calls_them(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.servers import web_server as module

    plain = module.content
    monkeypatch.setattr(module, "content", lambda *given: encoded(*plain(*given)))
    assert whole(f"{server.url}/data.bin") == DATA


def encoded(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
    return status, headers | {"Content-Encoding": "gzip"}, body


def test_without_an_etag_the_last_change_or_the_size_tells_versions(server: WebServer) -> None:
    server.tags = False
    facts = described(f"{server.url}/data.bin")
    assert facts.version == str(len(DATA))
    with RangeFile(f"{server.url}/data.bin", size=facts.size, version=facts.version) as file:
        assert file.read(10) == DATA[:10]


# Errors


def test_no_answer_at_all_passes_and_a_name_that_is_none_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    monkeypatch.setattr(patience, "ATTEMPTS", 2)
    with web_server() as served:
        gone = served.url
    with pytest.raises(InputError, match="cannot be looked at"):
        described(f"{gone}/data.bin")
    started = time.monotonic()
    monkeypatch.setattr(patience, "ATTEMPTS", 1)
    with pytest.raises(InputError):
        described("http://nowhere.invalid/data.bin")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@host/a.warc",
        "https://secret@host/a.warc",
        "s3://AKIA:secret@bucket/a.warc",
        "zip://a.warc::https://user:secret@host/a.wacz",
        "https://bucket.s3.amazonaws.com/a.warc?X-Amz-Signature=secret",
        "https://x.blob.core.windows.net/c/a.warc?sv=1&sig=secret",
        "https://host/a.warc?api_key=secret",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    for ask in (refuse_credentials, described, file_system, lambda given: find_sources([given])):
        with pytest.raises(InputError, match="carries credentials") as caught:
            ask(url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["abfss://container@account.dfs.core.windows.net/a.warc", "https://host/a.warc?page=2"])
def test_other_urls_are_not_taken_for_credentials(url: str) -> None:
    refuse_credentials(url)


# S3


def put(s3: S3, url: str, data: bytes) -> None:
    split = urlsplit(url)
    client = s3.client(attempts=5)
    client.put_object(Bucket=split.netloc, Key=split.path.lstrip("/"), Body=data)
    client.close()


def test_an_s3_file_is_read_by_ranges_and_its_version_is_its_etag(s3: S3, bucket: str) -> None:
    url = f"{bucket}/crawl/data.bin"
    put(s3, url, DATA)
    facts = described(url)
    assert listed(f"{bucket}/crawl") == {url: facts}
    assert whole(url) == DATA
    with RangeFile(url, size=facts.size, version=facts.version) as file:
        file.seek(100_000)
        assert file.read(1000) == DATA[100_000:101_000]


@pytest.mark.parametrize("new", [DATA[::-1], DATA[:1000], None])
def test_an_s3_file_that_changes_while_it_is_read_is_noticed(s3: S3, bucket: str, new: bytes | None) -> None:
    url = f"{bucket}/data.bin"
    put(s3, url, DATA)
    facts = described(url)
    with RangeFile(url, size=facts.size, version=facts.version) as file:
        assert file.read(10) == DATA[:10]
        if new is None:
            client = s3.client()
            client.delete_object(Bucket=urlsplit(bucket).netloc, Key="data.bin")
            client.close()
        else:
            put(s3, url, new)
        with pytest.raises(InputChanged, match=r"data\.bin"):
            file.read(10)
    if new is not None:
        with pytest.raises(InputChanged, match="since the run was planned"):
            RangeFile(url, size=facts.size, version=facts.version)


@pytest.mark.parametrize(
    "fault",
    [S3Fault.SLOW_DOWN, S3Fault.INTERNAL_ERROR, S3Fault.RESET, S3Fault.CUT_BODY, S3Fault.SHORT_BODY],
    ids=lambda fault: fault.name,
)
def test_s3_faults_that_pass_are_got_over(
    s3: S3, bucket: str, faulty: Faulty, monkeypatch: pytest.MonkeyPatch, fault: S3Fault
) -> None:
    quick(monkeypatch)
    url = f"{bucket}/data.bin"
    put(s3, url, DATA)
    proxy = faulty(Faults(seed=1, odds={fault: 1.0}, at_most=4))
    assert whole(url) == DATA, proxy
    assert proxy.made[fault] == 4, proxy
    assert proxy.calls <= 8, proxy


def test_listings_with_faults_are_whole(s3: S3, bucket: str, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    for name in ("a", "b/c"):
        put(s3, f"{bucket}/{name}.warc", b"x")
    proxy = faulty(Faults(seed=2, odds={S3Fault.SLOW_DOWN: 0.5, S3Fault.RESET: 0.3}))
    assert sorted(listed(bucket)) == [f"{bucket}/a.warc", f"{bucket}/b/c.warc"], proxy
    assert sorted(listed(f"{bucket}/**/*.warc")) == [f"{bucket}/a.warc", f"{bucket}/b/c.warc"], proxy


SEGMENTS = [f"crawl/{segment}/{kind}/{name}" for segment in "abc" for kind in ("warc", "wat") for name in ("1", "2")]


@pytest.mark.parametrize("pattern", ["crawl/*/warc/*.gz", "crawl/[a-c]/w*c/?.gz", "crawl/**/warc/*.gz", "c*/?/warc/*"])
def test_no_folder_is_left_out_of_a_pattern_because_its_listing_failed(
    s3: S3, bucket: str, faulty: Faulty, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    quick(monkeypatch)
    for name in SEGMENTS:
        put(s3, f"{bucket}/{name}.gz", b"x")
    proxy = faulty(Faults(seed=2, odds={S3Fault.SLOW_DOWN: 0.4, S3Fault.RESET: 0.2}))
    expected = [f"{bucket}/{name}.gz" for name in SEGMENTS if "/warc/" in name]
    assert sorted(listed(f"{bucket}/{pattern}")) == expected, proxy
    assert all(facts is not None and facts.size == 1 for facts in listed(f"{bucket}/{pattern}").values())
    assert proxy.made.total() > 1 or "**" in pattern, proxy


def test_a_folder_of_a_pattern_that_cannot_be_listed_is_an_error(
    s3: S3, bucket: str, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    monkeypatch.setattr(patience, "ATTEMPTS", 2)
    for name in SEGMENTS:
        put(s3, f"{bucket}/{name}.gz", b"x")
    faulty(Faults(seed=2, odds={S3Fault.INTERNAL_ERROR: 1.0}, where=r"prefix=crawl%2Fb%2Fwarc"))
    assert len(listed(f"{bucket}/crawl/*/wat/*.gz")) == 6
    with pytest.raises(InputError, match="cannot be listed"):
        listed(f"{bucket}/crawl/*/warc/*.gz")


def test_only_folders_that_a_pattern_leads_to_are_asked_for(s3: S3, bucket: str, faulty: Faulty) -> None:
    for name in SEGMENTS:
        put(s3, f"{bucket}/{name}.gz", b"x")
    proxy = faulty(Faults(seed=0, odds={}))
    assert len(listed(f"{bucket}/crawl/*/warc/*.gz")) == 6
    assert proxy.calls == 4, proxy.requests


def test_a_page_of_a_listing_that_failed_is_asked_for_again_and_no_other(
    s3: S3, bucket: str, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    monkeypatch.setattr("pipelines.listing.PAGE_NAMES", 2)
    for name in SEGMENTS:
        put(s3, f"{bucket}/{name}.gz", b"x")
    proxy = faulty(Faults(seed=4, odds={S3Fault.SLOW_DOWN: 0.4}))
    assert len(listed(f"{bucket}/crawl/")) == len(SEGMENTS), proxy
    assert proxy.made.total() > 2, proxy
    assert proxy.calls == len(SEGMENTS) / 2 + proxy.made.total(), proxy


def test_a_pattern_over_web_folders_sees_every_link(server: WebServer) -> None:
    server.files |= {
        "crawl/": page("a/", "b/", "c/warc/3.gz", "./", "?C=N;O=D"),
        "crawl/a/": page("warc/", "one/x.gz", "two/x.gz"),
        "crawl/a/warc/": page("1.gz", "../"),
        "crawl/b/": page("warc/"),
        "crawl/b/warc/": page("1.gz", "deep/2.gz"),
    }
    server.faults = deque([Fault(status=503), Fault(cut=5)])
    named = [f"{server.url}/crawl/{name}" for name in ("a/warc/1.gz", "b/warc/1.gz", "c/warc/3.gz")]
    assert sorted(listed(f"{server.url}/crawl/*/warc/*.gz")) == named
    deep = [f"{server.url}/crawl/{name}" for name in ("a/one/x.gz", "a/two/x.gz", "b/warc/deep/2.gz")]
    assert sorted(listed(f"{server.url}/crawl/**/*.gz")) == sorted(named + deep)
    assert sorted(name for name in listed(f"{server.url}/crawl/") if name.endswith("gz")) == sorted(named + deep)


@pytest.mark.parametrize("given", ["nobody", "wrong", "expired"])
def test_a_store_that_refuses_is_an_error_that_names_the_ways_in(
    s3: S3, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str
) -> None:
    put(s3, f"{bucket}/a.warc", b"x")
    if given == "nobody":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, str(tmp_path / "none"))
    elif given == "wrong":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    else:
        monkeypatch.setenv("AWS_SESSION_TOKEN", "of yesterday")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAOFYESTERDAY")
    for asked in (f"{bucket}/a.warc", f"{bucket}/folder/", f"{bucket}/*.warc"):
        started = time.monotonic()
        with pytest.raises(InputError, match="AWS_PROFILE.*--anonymous"):
            find_sources([asked])
        assert time.monotonic() - started < 10, "a refusal does not pass, and is not waited for"


def test_anonymous_reading_signs_nothing(s3: S3, bucket: str, faulty: Faulty) -> None:
    put(s3, f"{bucket}/a.warc", b"x")
    proxy = faulty(Faults(seed=0, odds={}))
    with pytest.raises(InputError, match="cannot be looked at"):
        find_sources([f"{bucket}/a.warc"], anonymous=True)
    assert proxy.calls == 1


# Tables


def table(rows: int) -> pa.Table:
    text = [f"{number} " + random.Random(number).randbytes(500).hex() for number in range(rows)]
    return pa.table({"text": text, "id": [str(number) for number in range(rows)], "other": text})


def parquet(rows: int) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table(rows), sink, row_group_size=rows // 4, compression="none")
    return sink.getvalue()


def pages(url: str) -> list[Page]:
    (source,) = find_sources([url])
    events = read_slice(Slice(source=source, start=0, end=source.size), ReadOptions())
    return [event for event in events if isinstance(event, Page)]


def test_parquet_on_a_web_server_is_read_by_few_requests(server: WebServer) -> None:
    server.files["t.parquet"] = parquet(400)
    found = pages(f"{server.url}/t.parquet")
    assert [page.record_id for page in found] == [str(number) for number in range(400)]
    assert len(server.asked("GET")) <= 4, "a file below READ_BYTES is asked for once, and its footer"


def test_parquet_in_s3_is_read_through_faults(
    s3: S3, bucket: str, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    put(s3, f"{bucket}/t.parquet", parquet(400))
    proxy = faulty(Faults(seed=3, odds={S3Fault.CUT_BODY: 0.3, S3Fault.SLOW_DOWN: 0.2}))
    assert len(pages(f"{bucket}/t.parquet")) == 400, proxy


def test_a_table_that_changes_while_it_is_read_is_no_damaged_table(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "READ_BYTES", 4096)
    server.files["t.parquet"] = parquet(400)
    (source,) = find_sources([f"{server.url}/t.parquet"])
    events = read_slice(Slice(source=source, start=0, end=source.size), ReadOptions())
    assert isinstance(next(event for event in events if isinstance(event, Page)), Page)
    server.files["t.parquet"] = parquet(404)
    with pytest.raises(InputChanged):
        list(events)
    assert current_version(source) != source.version
