"""Small crawls that tests share: written here, by us, so that every test runs without the real data."""

from __future__ import annotations

import gzip
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.growth import KEPT, USUAL, manage_memory
from tests.servers.fixtures import bucket, faulty, s3, s3_server  # noqa: F401 - fixtures

NOUNS = (
    "miller river stone wheel bridge brook sack grain meadow village market winter harvest baker road barn ledger "
    "letter window carpenter orchard lantern horse ferry tower garden kitchen harbour teacher neighbour mountain forest"
)
VERBS = (
    "carried watched repaired counted followed painted remembered crossed opened measured borrowed guarded weighed "
    "planted described collected admired visited answered finished"
)
QUALITIES = (
    "old narrow quiet heavy bright wooden distant careful honest frozen crowded gentle broken famous early hidden "
    "patient silver empty steady"
)
JOINTS = "of behind near under along across before after beside above without until during with and for to that"


def sentence(rng: random.Random) -> str:
    """One English sentence whose runs of five words hardly ever come again."""
    nouns, verbs, qualities = NOUNS.split(), VERBS.split(), QUALITIES.split()
    words = ["the", rng.choice(qualities), rng.choice(nouns), rng.choice(verbs)]
    for _ in range(rng.randint(2, 4)):
        words += [
            rng.choice(["a", "the", "this", "our"]),
            rng.choice(qualities),
            rng.choice(nouns),
            rng.choice(JOINTS.split()),
        ]
    words += ["the", rng.choice(nouns)]
    return " ".join(words).capitalize() + "."


def page_html(number: int, *, sentences: int = 40) -> str:
    """An English page of its own for each number, that FineWeb's rules keep."""
    rng = random.Random(number)
    paragraphs = (" ".join(sentence(rng) for _ in range(5)) for _ in range(0, sentences, 5))
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    head = f"<title>Mill {number}</title>"
    return f"<html><head>{head}</head><body><article><h1>Mill {number}</h1>{body}</article></body></html>"


def warc_record(
    number: int, body: bytes, *, kind: str = "response", content_type: str = "text/html; charset=utf-8"
) -> bytes:
    """One WARC record of its own gzip member."""
    http = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012d}>\r\n"
        f"WARC-Target-URI: https://mill.example/{number}\r\nWARC-Date: 2024-03-01T00:00:00Z\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + http + b"\r\n\r\n", mtime=0)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Processes started meanwhile end on SIGINT, also where the tests run in a shell's background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def kept_memory() -> Iterator[None]:
    """Memory that was freed is used again, and not given back to the system.

    At 64 MB a third to a half of the time, and on some machines most of it, goes into the system's giving pages of new
    memory, at a price that differs between two runs of the same work by a half and more.
    """
    manage_memory(KEPT)
    yield
    manage_memory(USUAL)


@pytest.fixture(scope="session")
def small_crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three WARC files of 60 pages: English ones, German ones, short ones, requests."""
    folder = tmp_path_factory.mktemp("crawl") / "CC-MAIN-2024-10"
    folder.mkdir()
    german = (
        "<html><body><p>" + "Die Mühle steht seit vielen Jahren am Fluss und niemand weiß, wer sie gebaut hat. " * 20
    )
    for file in range(3):
        records = []
        for k in range(20):
            number = file * 20 + k
            body = (
                german
                if k % 7 == 3
                else "<html><body><p>Too short to keep.</p></body></html>"
                if k % 7 == 5
                else page_html(number)
            )
            records.append(warc_record(number, body.encode()))
            records.append(warc_record(1000 + number, b"GET / HTTP/1.1", kind="request"))
        (folder / f"part-{file}.warc.gz").write_bytes(b"".join(records))
    return folder


@pytest.fixture
def write_warc(tmp_path: Path) -> Callable[[str, list[bytes]], Path]:
    """Write a WARC file of these bodies into the test's own folder."""

    def write(name: str, bodies: list[bytes]) -> Path:
        path = tmp_path / name
        path.write_bytes(b"".join(warc_record(number, body) for number, body in enumerate(bodies)))
        return path

    return write


@pytest.fixture(scope="session")
def make_sentences() -> Callable[[int], str]:
    """For each number a plain English text of its own, of 60 sentences in paragraphs."""

    def text(number: int) -> str:
        rng = random.Random(number)
        return "\n".join(" ".join(sentence(rng) for _ in range(5)) for _ in range(12))

    return text


@pytest.fixture(scope="session")
def make_page() -> Callable[..., str]:
    """`page_html`, for tests that make pages of their own."""
    return page_html
