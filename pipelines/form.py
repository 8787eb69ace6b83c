"""What a file is, told by its bytes and never by its name."""

from __future__ import annotations

from pipelines.archive_header import looks_like
from pipelines.inflate import MAGIC, SKIPPABLE, Codec, codec_of, inflated, inflater
from pipelines.member import READ_BYTES, Form, Kind, Limits, RawFile, Run, next_member

_KINDS: tuple[Kind, ...] = ("warc", "arc", "jsonl")
_HEAD_BYTES = 64 << 10
# The zstd WARC specification sets no bound; the dictionaries in use are below 1 MiB.
_MAX_DICTIONARY = 16 << 20
_MAGIC_OF_DICTIONARY_FRAME = b"\x5d\x2a\x4d\x18"


def form_of(raw: RawFile) -> Form | None:
    """Return how the file is written, or None where nothing in it can be recognised.

    Where the beginning is damaged, the first member that begins with a record decides; in a plain file, the first
    line within _HEAD_BYTES that does.
    """
    head = raw.read(0, _HEAD_BYTES)
    if head.startswith(b"PAR1"):
        return Form(codec="plain", kind="parquet")
    dictionary = _dictionary(raw, head)
    codec = codec_of(head)
    if codec is None:
        for kind in _KINDS:
            if looks_like(kind, head.removeprefix(b"\xef\xbb\xbf")):
                return Form(codec="plain", kind=kind)
        codec = "zstd" if dictionary is not None else _codec_within(head)
    if codec is not None and (form := _compressed_form(raw, codec, dictionary)) is not None:
        return form
    for line in head.split(b"\n")[1:]:
        if looks_like("warc", line + b"\n") and not line[:1].isspace():
            return Form(codec="plain", kind="warc")
    return None


def _compressed_form(raw: RawFile, codec: Codec, dictionary: bytes | None) -> Form | None:
    trial = Form(codec=codec, kind="warc", dictionary=dictionary)
    at = 0
    while (at := next_member(raw, trial, at, _looks_like_any)) < raw.size:
        run = Run(RawFile(raw.file, raw.size), trial, at, Limits(), _looks_like_any)
        while run.fill() and run.limit < READ_BYTES and not run.data.strip():
            pass
        for kind in _KINDS:
            if looks_like(kind, bytes(run.data[:READ_BYTES])):
                return Form(codec=codec, kind=kind, dictionary=dictionary)
        at += 1
    return None


def _looks_like_any(head: bytes) -> bool:
    return any(looks_like(kind, head) for kind in _KINDS)


def _codec_within(head: bytes) -> Codec | None:
    """Return the codec of the first magic number in the head."""
    found = [(match.start(), codec) for codec, magic in MAGIC.items() if (match := magic.search(head))]
    return min(found)[1] if found else None


def _dictionary(raw: RawFile, head: bytes) -> bytes | None:
    """Return the dictionary in the skippable frame that a zstd WARC may begin with (itself perhaps compressed)."""
    if not head.startswith(_MAGIC_OF_DICTIONARY_FRAME) or not SKIPPABLE.match(head):
        return None
    size = int.from_bytes(head[4:8], "little")
    if not 0 < size <= _MAX_DICTIONARY:
        return None
    content = raw.read(8, size)
    if codec_of(content) != "zstd":
        return content
    unit = inflater("zstd")
    parts: list[bytes] = []
    length = 0
    while not unit.eof and length <= _MAX_DICTIONARY:
        part = inflated(unit, b"" if parts else content, READ_BYTES)
        if part is None or (unit.needs_input and not unit.eof):
            return None
        parts.append(part)
        length += len(part)
    return b"".join(parts)
