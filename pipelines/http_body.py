"""An HTTP message as stored in an archive -> its payload, whatever the headers claim.

Transfer and content codings are undone where the body really has them: a header that promises gzip over a plain body
is ignored, and a gzip body no header speaks of is undone. `X-Crawl-*` headers keep what Common Crawl undid itself.
No decoding gives more than `max_bytes`, nor more than `max_ratio` times its input once it exceeds FREE_BYTES.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import brotli

from pipelines.inflate import DECODE_ERRORS, Inflater, ZlibInflater, ZstdInflater

FREE_BYTES = 4 << 20
"""Output up to here is never a bomb: the ratio is asked for only beyond."""

# Servers write these bytes: no two neighbours of a pattern may match the same run, or its time grows with the square.
_STATUS = re.compile(rb"HTTP(?:/\d{0,3}(?:\.\d{0,3})?)?[ \t]{1,9}(\d{3})\b[^\n]*\n?")
_END = re.compile(rb"\n[ \t\r]{0,9}\n")
_HEADER = re.compile(rb"^([^\s:][^:\r\n]*):[ \t]*([^\r\n]*(?:\r?\n[ \t]+[^\r\n]+)*)", re.M)
_CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_FOLD = re.compile(r"\r*\n[ \t]+")
_MAX_HEADER = 256 << 10
_MAX_LAYERS = 5
_STEP = 32 << 10
_OUT = 256 << 10
_GZIP = b"\x1f\x8b\x08"
_ZSTD = b"\x28\xb5\x2f\xfd"
_TEXT_BYTES = bytes([9, 10, 12, 13, 27, *range(32, 256)])


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpMessage:
    """Status and headers (names lower case, first of each wins) and the body as stored."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What the body says once decoded. `whole` is false where a coding ended early or broke."""

    data: bytes
    whole: bool


class TooLarge(Exception):
    """The decoded body passes a limit; `reason` is `body_bytes` or `compression_ratio`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def http_message(block: bytes) -> HttpMessage | None:
    """Return the message in a record's block, or None where it does not begin with a status line."""
    line = _STATUS.match(block)
    if line is None:
        return None
    # The status line's own newline takes part: a message may have no header at all.
    end = _END.search(block, max(line.end() - 2, 0), _MAX_HEADER)
    stop, start = (len(block), len(block)) if end is None else (end.start() + 1, end.end())
    tag = block.find(b"\n<", line.end() - 1, stop)
    if tag >= 0:  # no blank line was sent: no header begins with "<"
        stop = start = tag + 1
    head, body = block[line.end() : stop], block[start:]
    headers: dict[str, str] = {}
    for name, value in _HEADER.findall(head[:_MAX_HEADER]):
        headers.setdefault(name.decode("latin-1").strip().lower(), _FOLD.sub(" ", value.decode("latin-1")).strip())
    return HttpMessage(status=int(line.group(1)), headers=headers, body=body)


def payload(message: HttpMessage, *, max_bytes: int, max_ratio: float) -> Payload:
    """Return the decoded body. Raises TooLarge."""
    data, whole = message.body, True
    if "chunked" in message.headers.get("transfer-encoding", "").lower():
        data = dechunked(data)
    for coding in _codings(message.headers):
        data, complete = _decoded(data, coding, max_bytes, max_ratio)
        whole &= complete
    layers = 0
    while data.startswith(_GZIP) and _claims_text(message.headers) and layers < _MAX_LAYERS:
        data, complete = _decoded(data, "gzip", max_bytes, max_ratio)
        whole &= complete
        layers += 1
    return Payload(data=data, whole=whole)


def dechunked(body: bytes) -> bytes:
    """Return the body without its chunk lines; from the first line that is none on, as it stands."""
    parts: list[bytes] = []
    at = 0
    while line := _CHUNK.match(body, at):
        size = int(line.group(1), 16)
        if size == 0:  # what follows are trailers
            return b"".join(parts)
        after = line.end() + size
        ended = 2 if body.startswith(b"\r\n", after) else 1 if body.startswith(b"\n", after) else 0
        if not parts and not ended and after < len(body):  # a first line that looks like a size, over a plain body
            return body
        parts.append(body[line.end() : after])
        at = after + ended
    if not parts:
        return body
    parts.append(body[at:])
    return b"".join(parts)


def _codings(headers: dict[str, str]) -> list[str]:
    """Content codings in the order in which they must be undone; unknown names are no coding."""
    named = headers.get("content-encoding", "").lower().replace('"', "")
    parts = [part.strip().removeprefix("x-") for part in named.split(",")]
    return [part for part in reversed(parts) if part in ("gzip", "deflate", "br", "zstd")][:_MAX_LAYERS]


def _claims_text(headers: dict[str, str]) -> bool:
    media_type = headers.get("content-type", "").lower()
    return not media_type or media_type.startswith("text/") or "html" in media_type or "xml" in media_type


def _decoded(data: bytes, coding: str, max_bytes: int, max_ratio: float) -> tuple[bytes, bool]:
    """Return the output of one coding and whether it came to its end; the data itself where it is not so coded."""
    if (
        not data
        or (coding == "gzip" and not data.startswith(_GZIP))
        or (coding == "zstd" and not data.startswith(_ZSTD))
    ):
        return data, True
    best = b""
    for parts in _outputs(data, coding):
        out, whole = _within_limits(parts, len(data), max_bytes, max_ratio)
        if whole:
            return out, True
        best = max(best, out, key=len)
    # deflate and br have no magic number: what cannot be undone and looks like text was never coded.
    if coding in ("deflate", "br") and _reads_as_text(data):
        return data, True
    return best, False


def _outputs(data: bytes, coding: str) -> Iterator[Iterator[bytes]]:
    """Yield the ways to undo the coding, likeliest first: `deflate` is sent as zlib, as raw deflate and as gzip."""
    if coding == "gzip":
        yield _unit_output(data, lambda: ZlibInflater(31), _GZIP)
    elif coding == "zstd":
        yield _unit_output(data, ZstdInflater, _ZSTD)
    elif coding == "br":
        yield _brotli_output(data)
    else:
        yield _unit_output(data, lambda: ZlibInflater(15), None)
        yield _unit_output(data, lambda: ZlibInflater(-15), None)
        yield _unit_output(data, lambda: ZlibInflater(31), None)


def _unit_output(data: bytes, fresh: Callable[[], Inflater], again: bytes | None) -> Iterator[bytes]:
    """Yield the output of the unit at the start of `data`, and of those that follow it beginning with `again`."""
    at = 0
    while at == 0 or (again is not None and data.startswith(again, at)):
        unit = fresh()
        while not unit.eof:
            step = data[at : at + _STEP] if unit.needs_input else b""
            if unit.needs_input and not step:
                raise EOFError("the coded body ends early")
            at += len(step)
            yield unit.decompress(step, _OUT)
        at -= len(unit.unused_data or b"")


def _brotli_output(data: bytes) -> Iterator[bytes]:
    stream = brotli.Decompressor()
    at = 0
    while not stream.is_finished():
        wanting = stream.can_accept_more_data()
        step = data[at : at + _STEP] if wanting else b""
        if wanting and not step:
            raise EOFError("the coded body ends early")
        at += len(step)
        yield stream.process(step, output_buffer_limit=_OUT)


def _within_limits(parts: Iterator[bytes], coded: int, max_bytes: int, max_ratio: float) -> tuple[bytes, bool]:
    """Join the parts; false where decoding broke. Raises TooLarge as soon as a limit is passed."""
    kept: list[bytes] = []
    length = 0
    try:
        for part in parts:
            kept.append(part)
            length += len(part)
            if length > FREE_BYTES and length > max_ratio * coded:
                raise TooLarge("compression_ratio", f"more than {max_ratio:g} times its {coded:,} coded bytes")
            if length > max_bytes:
                raise TooLarge("body_bytes", f"more than {max_bytes:,} bytes")
    except DECODE_ERRORS:
        return b"".join(kept), False
    return b"".join(kept), True


def _reads_as_text(data: bytes) -> bool:
    return not data[:512].translate(None, _TEXT_BYTES)
