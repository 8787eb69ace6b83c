"""The header of a WARC or ARC record, read as leniently as the records in the wild need.

WARC 0.17 to 1.1 (ISO 28500) with bare line feeds, continuation lines, any case, any bytes. ARC 1 and 2 (Internet
Archive, "Arc File Format"): one line, URL first and length last; URL may hold spaces, the type may be missing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipelines.member import Run

_VERSION = re.compile(rb"WARC/\d+(?:\.\d+)+[ \t\r]*\n", re.I)
_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")
_FIELD = re.compile(
    rb"^(warc-type|warc-record-id|warc-target-uri|warc-date|warc-truncated|warc-identified-payload-type"
    rb"|content-type|content-length)[ \t]*:[ \t]*([^\r\n]*(?:\r*\n[ \t]+[^\r\n]+)*)",
    re.I | re.M,
)
_FOLD = re.compile(r"\r*\n[ \t]+")
_ARC = re.compile(
    rb"(?P<url>[a-zA-Z][a-zA-Z0-9+.-]*:[^\r\n]*?)[ \t]+(?P<ip>[0-9A-Za-z.:\[\]-]+)[ \t]+(?P<date>\d{8,18})"
    rb"(?:[ \t]+(?P<type>[^\r\n]*?))??(?:[ \t]+(?P<length>\S+))?[ \t\r]*\n"
)
# Literals to begin with: `re` seeks them 10 times faster than a class. The group is the record.
_SEARCHED: dict[str, tuple[re.Pattern[bytes], ...]] = {
    "warc": (re.compile(rb"(WARC/\d\.\d+[ \t\r]*\n)"),),
    "arc": (
        re.compile(rb"\n([a-zA-Z][a-zA-Z0-9+.-]*:[^\r\n]+ \d{14,18} [^\r\n]*\d\r*\n)"),
        re.compile(rb"(https?://[^\s]+ \d{1,3}(?:\.\d{1,3}){3} \d{14} [^\r\n]*\d\r*\n)"),  # its predecessor was cut
    ),
}
_TYPES = frozenset(("warcinfo", "response", "resource", "request", "metadata", "revisit", "conversion", "continuation"))
_LOOKS = {
    "warc": re.compile(rb"[\r\n\0 \t]*WARC/\d+(?:\.\d+)+[ \t\r]*\n", re.I),
    "arc": re.compile(rb"[\r\n\0 \t]*(?:filedesc:|[a-zA-Z][a-zA-Z0-9+.-]*:[^\r\n]+ \d{8,18}(?: [^\r\n]*)?\r*\n)"),
    "jsonl": re.compile(rb"\s*\{"),
}
MAX_HEADER = 1 << 20
# The longest URL line seen is 64 KiB; a search keeps so much of what it has passed.
OVERLAP = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """`fields` by lower-case WARC name (an ARC line's are given WARC names); `length` None where it is no number."""

    size: int
    fields: dict[str, str]
    length: int | None


def looks_like(kind: str, head: bytes) -> bool:
    """Whether decompressed bytes begin with a record of this kind."""
    return _LOOKS[kind].match(head) is not None


def header_at(run: Run, at: int) -> Header | None:
    """Return the header that begins at coordinate `at`, or None where there is none."""
    return _arc_header(run, at) if run.form.kind == "arc" else _warc_header(run, at)


def searched_header(run: Run, begin: int, *, keep: int | None = None) -> int | None:
    """Return the first coordinate from `begin` on that surely begins a record; None where the run ends before.

    Surely: at the start of a member; or at the start of a line with a known type, and a length field or a blank line
    before it; or anywhere with a known type, length and id. With `keep`, bytes further than that behind the search
    are dropped.
    """
    at = begin
    while True:
        edge = _possible_header(run, at)
        if edge is not None:
            if _is_sure(run, edge):
                return edge
            at = edge + 1
            continue
        at = max(at, run.limit - (OVERLAP if run.form.kind == "arc" else 32))
        if keep is not None and at - begin > keep:
            run.drop(at - 1)
        if not run.fill():
            return None


def _possible_header(run: Run, at: int) -> int | None:
    """Return the first coordinate in `data` from `at` on that begins a member or what looks like a header."""
    found = [member.begin for member in run.members if at <= member.begin < run.limit][:1]
    for pattern in _SEARCHED[run.form.kind]:
        line = pattern.search(run.data, max(at - 1 - run.base, 0))
        while line is not None and run.base + line.start(1) < at:
            line = pattern.search(run.data, line.start(1) + 1)
        if line is not None:
            found.append(run.base + line.start(1))
    return min(found, default=None)


def _is_sure(run: Run, at: int) -> bool:
    header = header_at(run, at)
    if header is None:
        return False
    if run.form.kind == "arc" or (not run.plain and run.member_at(at).begin == at):
        return True
    fields = header.fields
    if fields.get("warc-type", "").lower() not in _TYPES:
        return False
    before = bytes(run.data[max(at - run.base - 3, 0) : at - run.base])
    if before.endswith(b"\n"):
        return "content-length" in fields or before.endswith((b"\n\r\n", b"\n\n"))
    # In the middle of a line: the record before it was cut. A page that shows a WARC writes &lt;urn:...&gt;.
    record_id = fields.get("warc-record-id", "")
    return header.length is not None and record_id.startswith("<") and record_id.endswith(">")


def _warc_header(run: Run, at: int) -> Header | None:
    run.have(at + 32)
    version = _VERSION.match(run.data, at - run.base)
    if version is None:
        return None
    size, start = len(version[0]), version.end() - 1
    while (blank := _BLANK_LINE.search(run.data, start)) is None:
        start = max(len(run.data) - 3, start)
        if run.limit - at > MAX_HEADER:
            return None
        if not run.fill():
            break
    end = len(run.data) if blank is None else blank.end()
    if end - (at - run.base) > MAX_HEADER:
        return None
    block = run.taken(at + size, run.base + end)
    if blank is None and (run.ended != "end" or not block.endswith(b"\n")):
        return None
    fields: dict[str, str] = {}
    for name, value in _FIELD.findall(block):
        fields.setdefault(name.decode("ascii").lower(), _text(value))
    if not any(fields.get(name) for name in ("warc-type", "warc-record-id", "content-length")):
        return None
    return Header(size=size + len(block), fields=fields, length=_number(fields.get("content-length", "")))


def _arc_header(run: Run, at: int) -> Header | None:
    run.have(at + 1)
    if not run.data[at - run.base : at - run.base + 1].isalpha():
        return None
    while (end := run.data.find(b"\n", at - run.base)) < 0:
        if run.limit - at > OVERLAP or not run.fill():
            return None
    if end - (at - run.base) > OVERLAP:
        return None
    line = _ARC.fullmatch(run.data, at - run.base, end + 1)
    if line is None:
        return None
    url = _text(line["url"])
    kind = "warcinfo" if url.startswith("filedesc:") else "response" if url[:4].lower() == "http" else "resource"
    kind = "filedesc" if kind == "warcinfo" else kind
    first_type = _text(line["type"] or b"").split(" ", 1)[0]
    fields = {
        "warc-type": kind,
        "warc-target-uri": url,
        "warc-date": _iso_date(line["date"].decode("ascii")),
        "content-type": first_type,
    }
    return Header(size=len(line[0]), fields=fields, length=_number(_text(line["length"] or b"")))


def _text(value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return (_FOLD.sub(" ", text) if "\n" in text else text).strip()


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _iso_date(digits: str) -> str:
    """Return an ARC date in WARC's form, or as it stands where it has no fourteen digits."""
    if len(digits) < 14:
        return digits
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}T{digits[8:10]}:{digits[10:12]}:{digits[12:14]}Z"
