"""Bytes of a page -> text, as a browser would read them; never raises.

Order: byte order mark; strict UTF-8 (valid multi-byte UTF-8 is never an accident, so it wins over a label that says
otherwise); the HTTP label; `<meta>`; detection. What no candidate decodes strictly is decoded with U+FFFD by the
candidate that needs the fewest. The text holds no surrogates, and every NUL is U+FFFD.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from functools import cache

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

# The WHATWG `encoding` names these for the web; Python's codecs of the WHATWG name decode a smaller set.
_WIDER = {
    "gbk": "gb18030",
    "gb2312": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "iso2022_jp": "iso2022_jp_ext",
    "iso8859-11": "cp874",
}
# Labels that resiliparse does not map and pages use all the same.
_UNMAPPED = {
    "cp932": "cp932",
    "ms932": "cp932",
    "cp949": "cp949",
    "uhc": "cp949",
    "ms949": "cp949",
    "cp936": "gb18030",
    "cp950": "big5hkscs",
    "hz-gb-2312": "hz",
    "mac-cyrillic": "mac_cyrillic",
    "x-mac-cyrillic": "mac_cyrillic",
    "x-mac-ukrainian": "mac_cyrillic",
    "iso-2022-kr": "iso2022_kr",
    "utf-32": "utf-32",
    "utf-32le": "utf-32-le",
    "utf-32be": "utf-32-be",
}
# 7-bit encodings are valid ASCII: only these bytes betray them.
_ESCAPED = {"iso2022_jp_ext": b"\x1b", "iso2022_kr": b"\x0e", "hz": b"~{"}
_MARKS = (  # UTF-32 LE begins with the mark of UTF-16 LE
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_META = re.compile(
    rb"""<(?:meta\b[^>]{0,1024}?\bcharset|\?xml\b[^>]{0,256}?\bencoding)\s*=\s*["']?\s*([\w.:+-]{2,40})""", re.I
)
# A browser looks at 1,024 bytes; pages put scripts before the label.
_META_BYTES = 4096
_SAMPLE = 1024
_SURROGATE = re.compile("[\ud800-\udfff]")
# Errors are counted here only: a replacing decoder takes 0.3 s per MiB of noise.
_ERROR_SAMPLE = 256 << 10


def text_from_bytes(body: bytes, label: str | None) -> tuple[str, str]:
    """Return the text and the name of the encoding that gave it; `label` is the charset the HTTP header names."""
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            return _clean(body[len(mark) :].decode(encoding, "replace")), encoding
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        # A body cut within a character is still UTF-8.
        if error.start >= len(body) - 3 and not body[: error.start].isascii():
            return _clean(body.decode("utf-8", "replace")), "utf-8"
        return _text_by_candidate(body, label)
    if text.isascii():
        hidden = _seven_bit(body, label) or _markless_utf16(body)
        if hidden is not None:
            return _clean(body.decode(hidden, "replace")), hidden
    # Sought in the bytes: memchr is 10 times faster than a search in wide text.
    return (text.replace("\0", "\ufffd") if b"\0" in body else text), "utf-8"


def encoding_of(label: str | None) -> str | None:
    """Return the Python codec a browser means by this label, or None where it knows no such label."""
    if not label:
        return None
    known = label.strip().strip("\"'").lower()
    if known in _UNMAPPED:
        return _UNMAPPED[known]
    mapped = map_encoding_to_html5(known, fallback_utf8=False)
    return None if mapped is None else _WIDER.get(mapped, mapped)


def clean_text(text: str) -> str:
    """Return the text without surrogates and NUL; both become U+FFFD."""
    return _clean(text)


def _clean(text: str) -> str:
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    if text.isascii():
        return text
    return _SURROGATE.sub("\ufffd", text)


def _candidates(body: bytes, label: str | None) -> Iterator[str]:
    """Yield encodings in order of trust; detection, the dearest, only when asked for."""
    for named in (encoding_of(label), _meta_encoding(body)):
        if named is not None:
            yield named
    detected = encoding_of(detect_encoding(body, html5_compatible=False))
    if detected is not None:
        yield detected
    yield "cp1252"


def _text_by_candidate(body: bytes, label: str | None) -> tuple[str, str]:
    errors: dict[str, int] = {}
    sample = body[:_ERROR_SAMPLE]
    for encoding in _candidates(body, label):
        if encoding in errors:
            continue
        if encoding == "cp1252":
            # It decodes anything: named it is believed; unnamed, where all others fail at more than 2 % of the bytes.
            named = encoding in (encoding_of(label), _meta_encoding(body))
            if named or not errors or min(errors.values()) * 50 > len(sample):
                return _cp1252_text(body), encoding
            continue
        try:
            return _clean(body.decode(encoding)), encoding
        except UnicodeDecodeError:
            errors[encoding] = sample.decode(encoding, "replace").count("\ufffd")
    best = min(errors, key=lambda name: errors[name])
    return _clean(body.decode(best, "replace")), best


def _cp1252_text(body: bytes) -> str:
    text, _ = codecs.charmap_decode(body, "strict", _cp1252_table())
    return _clean(text)


@cache
def _cp1252_table() -> str:
    """WHATWG windows-1252: the five bytes that Python's cp1252 refuses are the C1 controls."""
    return "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(256))


def _meta_encoding(body: bytes) -> str | None:
    found = _META.search(body, 0, _META_BYTES)
    if found is None:
        return None
    encoding = encoding_of(found.group(1).decode("ascii", "replace"))
    # A label that could be read as ASCII cannot be UTF-16 (WHATWG: then it means UTF-8).
    return "utf-8" if encoding in ("utf-16-le", "utf-16-be") else encoding


def _seven_bit(body: bytes, label: str | None) -> str | None:
    for sign in _ESCAPED.values():
        if sign in body:
            break
    else:
        return None
    for encoding in (encoding_of(label), _meta_encoding(body)):
        if encoding in _ESCAPED and _ESCAPED[encoding] in body:
            return encoding
    if b"\x1b$" in body or b"\x1b(J" in body:
        return "iso2022_jp_ext"
    return None


def _markless_utf16(body: bytes) -> str | None:
    """Return UTF-16 LE or BE where nearly every other byte is NUL: Latin text in UTF-16 is valid ASCII."""
    sample = body[:_SAMPLE]
    if sample.count(0) * 5 < len(sample) * 2 or len(sample) < 4:
        return None
    odd, even = sample[1::2].count(0), sample[0::2].count(0)
    return "utf-16-le" if odd > even else "utf-16-be"
