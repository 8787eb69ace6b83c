"""The demo crawl holds what its accounts say, byte for byte; readers that nobody here wrote agree."""

from __future__ import annotations

import gzip
import os
import random
import re
import subprocess
import sys
import zlib
from collections import Counter
from importlib.metadata import distribution
from pathlib import Path

import brotli
import pytest
from fastwarc.warc import ArchiveIterator as FastIterator
from fastwarc.warc import WarcRecordType
from warcio.archiveiterator import ArchiveIterator

from infra.demo_crawl import DAMAGES, SPOIL_MEMBER, DemoCrawl, DemoRecord, build_demo_crawl
from infra.demo_pages import BOMB_MIB, MIB, DemoPage, coded, hostile_pages, in_charset, written_pages
from infra.demo_sources import installed, licence_pages, marked_up, reference_pages
from pipelines.read import ReadOptions, read_slice
from pipelines.record import Page, Refused, Slice, Source

PAGES = 400
HOSTILE, DAMAGED, WET = 4, 5, 6  # among `DemoCrawl.files`; the ordinary ones come first


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def crawl(root: Path) -> DemoCrawl:
    return build_demo_crawl(root, pages=PAGES)


def of_file(crawl: DemoCrawl, number: int) -> list[DemoRecord]:
    return [record for record in crawl.records if crawl.files[number].as_posix().endswith(record.file)]


def inflated(member: bytes) -> bytes:
    """Return what one whole gzip member holds; raise where it is none."""
    return zlib.decompress(member, wbits=31)


def test_every_byte_lies_in_exactly_one_record(crawl: DemoCrawl) -> None:
    assert len(crawl.files) == 7
    for number, path in enumerate(crawl.files):
        end = 0
        for record in of_file(crawl, number):
            if record.length:
                assert record.offset == end
            end = max(end, record.offset + record.length)
        assert end == path.stat().st_size


def test_undamaged_records_are_whole_members_with_their_own_ids(crawl: DemoCrawl) -> None:
    ids = [record.record_id for record in crawl.records if record.record_id]
    assert len(ids) == len(set(ids))
    for number, path in enumerate(crawl.files):
        data = path.read_bytes()
        for record in of_file(crawl, number):
            if record.damage is None and record.length and record.warc_type and record.kind != "hostile:member_bomb":
                member = inflated(data[record.offset : record.offset + record.length])
                assert member.startswith(f"WARC/1.0\r\nWARC-Type: {record.warc_type}\r\n".encode())
                assert record.record_id.encode() in member


@pytest.mark.parametrize("number", [0, 1, 2, 3, WET])
def test_warcio_reads_the_same_records_with_true_digests(crawl: DemoCrawl, number: int) -> None:
    with crawl.files[number].open("rb") as file:
        read = []
        for record in ArchiveIterator(file, check_digests="raise"):
            record.raw_stream.read()
            read.append((record.rec_type, record.rec_headers["WARC-Record-ID"]))
    assert read == [(record.warc_type, record.record_id) for record in of_file(crawl, number)]


@pytest.mark.parametrize("number", [0, 1, 2, 3, HOSTILE, WET])
def test_fastwarc_reads_the_same_records(crawl: DemoCrawl, number: int) -> None:
    with crawl.files[number].open("rb") as file:
        read = [record.record_id for record in FastIterator(file, parse_http=False)]
    assert read == [record.record_id for record in of_file(crawl, number)]


def test_ordinary_pages_arrive_whole_through_every_coding(crawl: DemoCrawl) -> None:
    decoded = {None: bytes, "gzip": gzip.decompress, "deflate": zlib.decompress, "br": brotli.decompress}
    kinds = {record.record_id: record.kind for record in crawl.records if record.warc_type == "response"}
    kinds = {name: kind for name, kind in kinds.items() if kind not in ("binary", "redirect", "html_file")}
    codings: Counter[tuple[str | None, str | None]] = Counter()
    for path in crawl.files[:HOSTILE]:
        with path.open("rb") as file:
            # Not auto_decode="all": FastWARC 2.0.1 ends the file after a response that is both gzip and chunked.
            for record in FastIterator(file, record_types=WarcRecordType.response, auto_decode="transfer"):
                kind = kinds.get(record.record_id)
                if kind is None:
                    continue
                coding = record.http_headers.get("Content-Encoding")
                codings[coding, record.http_headers.get("Transfer-Encoding")] += 1
                text = decoded[coding](record.reader.read()).decode("utf-16" if kind == "charset:utf-16" else "latin-1")
                assert text.rstrip().endswith("</html>"), kind
    assert sum(codings.values()) == sum(
        record.record_id in kinds for n in range(HOSTILE) for record in of_file(crawl, n)
    )
    assert {(None, None), ("gzip", None), ("br", None), ("deflate", None)} <= set(codings)
    assert {(None, "chunked"), ("gzip", "chunked")} <= set(codings)


def test_as_many_pages_are_written_as_asked_for(crawl: DemoCrawl) -> None:
    answers = {"binary", "redirect", "missing"}
    pages = [
        r for n in range(HOSTILE) for r in of_file(crawl, n) if r.warc_type == "response" and r.kind not in answers
    ]
    assert len(pages) == PAGES
    assert all(record.is_document and record.status == 200 for record in pages)
    kinds = Counter(record.kind.partition(":")[0] for record in pages)
    assert {"manual", "module", "licence", "description", "reference", "guide", "language"} <= set(kinds)
    assert {"copy", "near_copy", "blocked", "spam", "lorem", "javascript", "repeated", "charset"} <= set(kinds)


def test_documents_are_whole_html_responses_and_wet_texts(crawl: DemoCrawl) -> None:
    assert {record.warc_type for record in crawl.documents} == {"response", "conversion"}
    assert {record.media for record in crawl.documents if record.warc_type == "response"} == {"text/html"}
    assert not any(record.damage for record in crawl.documents)
    types = {record.warc_type for record in crawl.records}
    assert types == {"warcinfo", "request", "response", "metadata", "revisit", "conversion", None}


@pytest.mark.parametrize("number", range(7))
def test_gristmill_reads_the_documents_of_the_accounts(crawl: DemoCrawl, number: int) -> None:
    path = crawl.files[number]
    source = Source(path=path.name, url=str(path), size=path.stat().st_size, version="1")
    events = read_slice(Slice(source=source, start=0, end=source.size), ReadOptions())
    read = [event.record_id for event in events if isinstance(event, Page | Refused)]
    broken = {record.record_id for record in of_file(crawl, number) if record.damage}  # what becomes of them is open
    assert [name for name in read if name not in broken] == [
        r.record_id for r in of_file(crawl, number) if r.is_document
    ]


def test_each_damage_is_there_once_between_whole_records(crawl: DemoCrawl) -> None:
    records = of_file(crawl, DAMAGED)
    assert [record.damage for record in records if record.damage] == list(DAMAGES)
    assert records[-1].damage == "cut_at_end"
    for before, record in zip(records, records[1:], strict=False):
        assert record.damage is None or before.damage is None


def test_spoiled_members_cannot_be_inflated(crawl: DemoCrawl) -> None:
    data = crawl.files[DAMAGED].read_bytes()
    for record in of_file(crawl, DAMAGED):
        if record.damage in SPOIL_MEMBER:
            with pytest.raises(zlib.error):
                inflated(data[record.offset : record.offset + record.length])


def test_spoiled_lengths_are_wrong_by_100(crawl: DemoCrawl) -> None:
    data = crawl.files[DAMAGED].read_bytes()
    wrong = {}
    for record in of_file(crawl, DAMAGED):
        if record.damage in ("length_long", "length_short"):
            header, _, rest = inflated(data[record.offset : record.offset + record.length]).partition(b"\r\n\r\n")
            said = re.search(rb"Content-Length: (\d+)", header)
            assert said is not None
            wrong[record.damage] = int(said[1]) - (len(rest) - 4)
    assert wrong == {"length_long": 100, "length_short": -100}


def test_bytes_of_no_record_hold_no_gzip_member(crawl: DemoCrawl) -> None:
    data = crawl.files[DAMAGED].read_bytes()
    lost = {
        record.kind: data[record.offset : record.offset + record.length]
        for record in crawl.records
        if not record.warc_type
    }
    assert set(lost) == {"garbage", "padding"}
    assert all(b"\x1f\x8b" not in part for part in lost.values())


@pytest.mark.full
def test_the_same_seed_gives_the_same_bytes_in_another_process(crawl: DemoCrawl, tmp_path: Path) -> None:
    script = f"from infra.demo_crawl import *; build_demo_crawl(Path({str(tmp_path)!r}), pages={PAGES})"
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONHASHSEED": "77"})
    for path in crawl.files:
        assert path.read_bytes() == (tmp_path / path.parent.name / path.name).read_bytes(), path.name


def test_what_is_on_the_path_by_chance_makes_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [one.name for one in installed()]
    (tmp_path / "stray-1.0.dist-info").mkdir()
    (tmp_path / "stray-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: stray\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [one.name for one in installed()] == before


def test_blocked_urls_and_no_others_hold_listed_words(crawl: DemoCrawl) -> None:
    assets = Path(str(distribution("datatrove").locate_file("datatrove/assets")))
    hard, soft, parts = (
        {line.strip() for line in (assets / f"{name}.txt").read_text().splitlines() if line[:1] not in ("", "#")}
        for name in ("banned_words", "soft_banned_words", "banned_subwords")
    )
    for record in crawl.documents:
        words = set(re.split(r"[^a-zA-Z0-9]+", record.url))
        joined = re.sub(r"[^a-zA-Z0-9]+", "", record.url).lower()
        listed = words & hard or len(words & soft) >= 2 or any(part in joined for part in parts)
        if record.kind.startswith("blocked:") and record.kind not in ("blocked:domain", "blocked:host"):
            assert listed, record.url
        elif not record.kind.startswith("blocked:"):
            assert not listed, record.url
            assert re.match(r"https://[^/]+\.(example|test|invalid)/", record.url)


def test_hostile_pages_are_as_large_as_they_say() -> None:
    pages = hostile_pages()
    assert pages["deep_divs"].body.count(b"<div>") >= 100_000
    assert pages["many_attributes"].body.count(b'="') >= 100_000
    assert pages["long_table"].body.count(b"<tr>") == 100_000
    bomb = pages["body_bomb"]
    assert len(bomb.body) < MIB < max(len(page.body) for page in pages.values()) < 9 * MIB
    unpacker = zlib.decompressobj(31)
    size, left = 0, bomb.body
    while left:
        size += len(unpacker.decompress(left, MIB))
        left = unpacker.unconsumed_tail
    assert size + len(unpacker.flush()) == BOMB_MIB * MIB


def test_a_page_in_another_charset_reads_the_same() -> None:
    page = DemoPage(url="https://a.example/", kind="story", body='<meta charset="utf-8"><p>Müller, 水車</p>'.encode())
    assert "Müller, 水車" in in_charset(page, "utf-16").body.decode("utf-16")
    assert "M\xfcller, &#27700;".encode("latin-1") in in_charset(page, "windows-1252").body
    assert b"charset" not in in_charset(page, "windows-1252", says=False).body


def test_codings_stack_and_are_announced_in_order() -> None:
    page = DemoPage(url="https://a.example/", kind="story", body=b"grist" * 2000)
    both = coded(coded(page, "gzip"), "chunked")
    assert both.headers[-2:] == (("Content-Encoding", "gzip"), ("Transfer-Encoding", "chunked"))
    assert both.body.endswith(b"\r\n0\r\n\r\n")


def test_written_pages_differ_from_each_other() -> None:
    pages = written_pages(random.Random(3), 90)
    assert len({page.url for page in pages}) == len({page.body for page in pages}) == 90


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("# Mill\nIt grinds.", "<h2>Mill</h2>\n<p>It grinds.</p>"),
        ("Mill\n====\n\nIt *does* grind.", "<h2>Mill</h2>\n\n<p>It <em>does</em> grind.</p>"),
        ("- rye\n- wheat\n  flour", "<ul><li>rye</li><li>wheat flour</li></ul>"),
        ("See `the mill <https://a.example/>`_.", '<p>See <a href="https://a.example/">the mill</a>.</p>'),
        ("See [it](https://a.example/).", '<p>See <a href="https://a.example/">it</a>.</p>'),
        ("Call :func:`grind`.", "<p>Call <code>grind</code>.</p>"),
        ("```python\na < b\n```\nDone.", "<pre><code>\na &lt; b\n</code></pre>\n<p>Done.</p>"),
        (">>> 1 < 2", "<pre><code>&gt;&gt;&gt; 1 &lt; 2</code></pre>"),
        ("<b>Bold</b> & plain", "<p>Bold &amp; plain</p>"),
    ],
)
def test_markup_becomes_html(text: str, made: str) -> None:
    assert marked_up(text) == made


@pytest.mark.full
def test_many_real_pages_pass_the_english_rules(crawl: DemoCrawl) -> None:
    """The demo must end with a corpus; which pages pass depends on what is installed, so the bar is low."""
    filters = pytest.importorskip("datatrove.pipeline.filters")
    from datatrove.data import Document
    from trafilatura import extract
    from trafilatura.meta import reset_caches

    dists = installed()
    guides = [page for page in reference_pages(dists) if page.kind == "guide"][:30]
    rules = (
        filters.GopherRepetitionFilter(),
        filters.GopherQualityFilter(),
        filters.C4QualityFilter(filter_no_terminal_punct=False),
        filters.FineWebQualityFilter(),
    )
    kept = 0
    for page in [*guides, *licence_pages(dists)[:30]]:
        reset_caches()
        text = extract(page.body.decode(), favor_precision=True, include_comments=False, deduplicate=True)
        document = Document(text=text or "", id=page.url)
        kept += all(rule.filter(document) is True for rule in rules)
    assert kept >= 15
