"""The media type of a payload by its own bytes (WHATWG MIME Sniffing, section 7.1), then by its Content-Type header."""

from __future__ import annotations

import re

HTML = "text/html"
XHTML = "application/xhtml+xml"
OTHER = "application/octet-stream"

_SNIFFED = 4096
_BLANK = re.compile(rb"[\s\0]*(?:<!--.*?-->[\s\0]*)*", re.S)
_TAG = re.compile(
    rb"<(?:!doctype\s+html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p|meta|link|base|frameset)"
    rb"[\s>/]",
    re.I,
)
_UNCLOSED_COMMENT = re.compile(rb"<!--")
_XML = re.compile(rb"<\?xml\b", re.I)
_XHTML = re.compile(rb"<html\b|<!doctype\s+html\b", re.I)
_BINARY = re.compile(
    rb"%PDF-|%!PS-Adobe-|\x89PNG\r\n|GIF8[79]a|\xff\xd8\xff|BM.{4}\0\0\0\0|RIFF.{4}(?:WEBP|WAVE|AVI )"
    rb"|PK\x03\x04|\x1f\x8b\x08"
    rb"|7z\xbc\xaf|Rar!|BZh\d1AY|OggS|ID3|\xff\xfb|fLaC|wOF[F2]|\0\0\x01\0|\0asm|\x7fELF|MZ\x90|CWS|FWS|II\*\0|MM\0\*"
    rb"|\xd0\xcf\x11\xe0|.{4}ftyp|\{\\rtf",
    re.S,
)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def media_type_of(header: str | None, body: bytes) -> str:
    """Return the media type; `header` is the Content-Type. HTML by its first tag; binary signatures beat the header."""
    claimed = (header or "").split(";", 1)[0].split(",", 1)[0].strip().lower()
    head = body[:_SNIFFED]
    if head.startswith(_UTF16):  # the patterns are ASCII
        head = head[2:].replace(b"\0", b"")
    head = head.removeprefix(b"\xef\xbb\xbf")
    start = _BLANK.match(head)
    at = start.end() if start is not None else 0
    if _TAG.match(head, at):
        return XHTML if claimed == XHTML else HTML
    if _XML.match(head, at) and _XHTML.search(head, at):
        return XHTML
    if _UNCLOSED_COMMENT.match(head, at) and claimed in ("", OTHER):
        return HTML
    if _BINARY.match(head) or b"\0" in head:
        return OTHER if claimed in (HTML, XHTML, "", "text/plain") else claimed
    return claimed or OTHER
