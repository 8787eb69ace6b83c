"""Stored HTTP messages give their payload, whatever their headers claim."""

from __future__ import annotations

import gzip
import random
import time
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard

from pipelines.http_body import Payload, TooLarge, dechunked, http_message, payload
from pipelines.media_type import media_type_of
from pipelines.read import _charset

HTML = b"<html><body>" + b"".join(b"<p>%d %s" % (n, random.Random(n).randbytes(9).hex().encode()) for n in range(900))


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "gzip called deflate": ("deflate", gzip.compress),
    "brotli": ("br", brotli.compress),
    "zstd": ("zstd", zstandard.compress),
    "gzip, then br": ("gzip, br", lambda data: brotli.compress(gzip.compress(data))),
    "gzip twice, named twice": ("gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
    "gzip twice, named once": ("gzip", lambda data: gzip.compress(gzip.compress(data))),
    "gzip in two members": ("gzip", lambda data: gzip.compress(data[:500]) + gzip.compress(data[500:])),
    "gzip, then garbage": ("gzip", lambda data: gzip.compress(data) + b"garbage"),
    "gzip unnamed": ("", gzip.compress),
    "plain called gzip": ("gzip", bytes),
    "plain called br": ("br", bytes),
    "plain called deflate": ("deflate", bytes),
    "plain called zstd": ("zstd", bytes),
    "plain called utf-8": ("utf-8", bytes),
    "identity": ("identity", bytes),
}


def chunked(data: bytes, size: int = 700, end: bytes = b"\r\n", trailer: bytes = b"") -> bytes:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    lines = b"".join(b"%x%s%s%s" % (len(part), end, part, end) for part in parts)
    return lines + b"0" + end + trailer + end


def payload_of(block: bytes, max_bytes: int = 32 << 20) -> Payload:
    message = http_message(block)
    assert message is not None
    return payload(message, max_bytes=max_bytes, max_ratio=200)


def block_of(body: bytes, coding: str = "", transfer: str = "") -> bytes:
    lines = [b"HTTP/1.1 200 OK", b"Content-Type: text/html"]
    if coding:
        lines.append(b"Content-Encoding: " + coding.encode())
    if transfer:
        lines.append(b"Transfer-Encoding: " + transfer.encode())
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.mark.parametrize("name", CODINGS)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_every_coding_is_undone(name: str, is_chunked: bool) -> None:
    coding, pack = CODINGS[name]
    body = chunked(pack(HTML)) if is_chunked else pack(HTML)
    found = payload_of(block_of(body, coding, "chunked" if is_chunked else ""))
    assert found == Payload(data=HTML, whole=True)


@pytest.mark.parametrize("name", ["gzip", "zlib", "raw deflate", "brotli", "zstd"])
def test_a_cut_coding_is_not_whole(name: str) -> None:
    coding, pack = CODINGS[name]
    packed = pack(HTML)
    found = payload_of(block_of(packed[: len(packed) * 2 // 3], coding))
    assert not found.whole
    assert HTML.startswith(found.data)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (chunked(HTML), HTML),
        (chunked(HTML, end=b"\n"), HTML),
        (chunked(HTML, trailer=b"X-Trailer: yes\r\n"), HTML),
        (chunked(HTML)[:-5], HTML),
        (b"5;name=value\r\nhello\r\n0\r\n\r\n", b"hello"),
        (HTML, HTML),
        (b"add this\r\nto that", b"add this\r\nto that"),
        (b"5\r\nhello\r\nnot a size\r\n<p>", b"hellonot a size\r\n<p>"),
        (b"", b""),
    ],
)
def test_chunks_are_undone_where_there_are_any(stored: bytes, expected: bytes) -> None:
    assert dechunked(stored) == expected


@pytest.mark.parametrize(
    ("block", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody", 200, b"body"),
        (b"HTTP/1.0 302 \nA: b\n\nbody", 302, b"body"),
        (b"HTTP/2 404\r\n\r\nbody", 404, b"body"),
        (b"HTTP/1.1 200 OK\r\r\nA: b\r\r\n\r\r\nbody", 200, b"body"),
        (b"HTTP/1.1 200 OK\nA: b\n<html>", 200, b"<html>"),
        (b"HTTP/1.1 500", 500, b""),
    ],
)
def test_lenient_status_lines_and_line_ends(block: bytes, status: int, body: bytes) -> None:
    message = http_message(block)
    assert message is not None
    assert (message.status, message.body) == (status, body)


def test_folded_headers_are_joined_and_the_first_of_each_wins() -> None:
    message = http_message(b"HTTP/1.1 200 OK\r\nContent-Type: text/html;\r\n charset=x\r\ncontent-type: b\r\n\r\n")
    assert message is not None
    assert message.headers == {"content-type": "text/html; charset=x"}


def test_what_begins_with_no_status_line_is_no_message() -> None:
    assert http_message(b"<html>") is None


@pytest.mark.parametrize("name", ["gzip", "zlib", "brotli", "zstd"])
def test_a_bomb_in_a_coding_is_refused(name: str) -> None:
    coding, pack = CODINGS[name]
    with pytest.raises(TooLarge) as caught:
        payload_of(block_of(pack(bytes(40 << 20)), coding))
    assert caught.value.reason in ("compression_ratio", "body_bytes")


def test_a_body_beyond_the_limit_is_refused_whatever_its_ratio() -> None:
    with pytest.raises(TooLarge, match="more than 1,000 bytes") as caught:
        payload_of(block_of(gzip.compress(HTML), "gzip"), max_bytes=1000)
    assert caught.value.reason == "body_bytes"


@pytest.mark.parametrize(
    ("header", "body", "expected"),
    [
        (None, b"\xef\xbb\xbf \n<!-- a -->\n<!-- b --><!DOCTYPE html>", "text/html"),
        ("text/plain", b"<HTML>", "text/html"),
        ("application/xhtml+xml", b"<html xmlns='x'>", "application/xhtml+xml"),
        ("text/xml", b"<?xml version='1.0'?><!DOCTYPE html PUBLIC>", "application/xhtml+xml"),
        ("text/xml", b"<?xml version='1.0'?><rss>", "text/xml"),
        ("text/html; charset=x", b"just words", "text/html"),
        ("text/html", b"%PDF-1.4", "application/octet-stream"),
        ("text/html", b"\x89PNG\r\n\x1a\n", "application/octet-stream"),
        ("image/png", b"\x89PNG\r\n\x1a\n", "image/png"),
        (None, "<html>".encode("utf-16"), "text/html"),
        (None, b"just words", "application/octet-stream"),
        ("application/json", b'{"a": 1}', "application/json"),
    ],
)
def test_the_media_type_is_told_by_the_bytes_first(header: str | None, body: bytes, expected: str) -> None:
    assert media_type_of(header, body) == expected


@pytest.mark.parametrize(
    "block",
    [
        b"HTTP/" + b"1" * 400_000,
        b"HTTP/1.1 200 OK\r\n" + b" " * 400_000,
        b"HTTP/1.1 200 OK\r\n" + b"\r" * 400_000,
        b"HTTP/1.1 200 OK\r\nA" + b" " * 400_000,
        b"HTTP/1.1 200 OK\r\nA: b" + b"\r\n c" * 100_000,
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=" + b" " * 200_000 + b"\r\n\r\nx",
    ],
)
def test_a_hostile_header_takes_no_quadratic_time(block: bytes) -> None:
    started = time.process_time()
    message = http_message(block)
    if message is not None:
        assert _charset(message.headers.get("content-type")) is None
    assert time.process_time() - started < 1.0
