"""The process that parses hostile pages: `python -m pipelines.parser_child SETTINGS_JSON`.

Reads requests on standard input and answers each on standard output, in order. It has a memory limit, no network where
the kernel allows to give it up, no secrets in its environment, and dies with its parent.

Request: `<IB` length and flags (bit 0: extract even where the gate drops), then UTF-8 HTML.
Answer: `<BfI` status, gate probability (NaN without a gate), length, then UTF-8 text (TEXT), nothing (GATED), or what
went wrong (FAILED).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

REQUEST = struct.Struct("<IB")
ANSWER = struct.Struct("<BfI")
TEXT, GATED, FAILED = 0, 1, 2
OUT_OF_MEMORY = 12
"""Exit status of a parser that reached its memory limit: what is left of its memory is not worth going on with."""
READY = b"ready"

CLONE_NEWUSER, CLONE_NEWNET, PR_SET_PDEATHSIG = 0x10000000, 0x40000000, 1

Extractor = Callable[[str], str]


def trafilatura_text(html: str, options: dict[str, Any]) -> str:
    """Main text by trafilatura with FineWeb's settings.

    A cache of its own for every document: the library's is shared by a process, so the same page would give its text
    three times and nothing from then on.
    """
    from trafilatura import extract
    from trafilatura.deduplication import LRUCache
    from trafilatura.settings import LRU_SIZE

    return (
        extract(
            html,
            favor_precision=options["favor_precision"],
            include_comments=options["include_comments"],
            deduplicate=LRUCache(maxsize=LRU_SIZE) if options["deduplicate"] else False,
        )
        or ""
    )


def resiliparse_text(html: str, options: dict[str, Any]) -> str:
    """Main text by resiliparse with DCLM's options (DCLM, arXiv 2406.11794, 4.1 and its released extraction script)."""
    from resiliparse.extract.html2text import extract_plain_text

    text: str = extract_plain_text(
        html,
        main_content=True,
        alt_texts=False,
        links=False,
        list_bullets=True,
        preserve_formatting=True,
        comments=options["include_comments"],
    )
    return text


EXTRACTORS: tuple[tuple[str, Callable[[str, dict[str, Any]], str]], ...] = (
    ("trafilatura", trafilatura_text),
    ("resiliparse", resiliparse_text),
)


def extracted(engine: Callable[[str, dict[str, Any]], str], options: dict[str, Any], html: str) -> str:
    """The text that an engine with these options finds in a page."""
    return engine(html, options)


def gate_probability(html: str, gate: dict[str, Any]) -> float:
    """The larger probability of a wanted language at the head and in the middle of the page's plain text.

    On 1,000 real pages head and middle together lost no page of 337 that end in English; the head alone lost 2.
    """
    from resiliparse.extract.html2text import extract_plain_text

    from pipelines.langid import best_and_wanted

    text = extract_plain_text(html)
    size = gate["characters"]
    middle = max(size, (len(text) - size) // 2)
    pieces = [text[:size], text[middle : middle + size]]
    return max(
        best_and_wanted(gate["model"], piece, gate["keep"])[2] for piece in pieces if piece or piece is pieces[0]
    )


def answer(html: str, flags: int, extract: Extractor, gate: dict[str, Any] | None) -> tuple[int, float, str]:
    """The status, the gate's probability and the text of one page."""
    wanted = float("nan")
    if gate is not None:
        wanted = gate_probability(html, gate)
        if wanted < gate["low"] and not flags & 1:
            return GATED, wanted, ""
    return TEXT, wanted, extract(html)


def confine(memory_bytes: int) -> None:
    """Limit memory, core dumps and network; be the first to go when memory is short; die with the parent."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)  # refused in some containers; memory limit and deadline remain
    with suppress(OSError):  # not Linux, or not allowed
        Path("/proc/self/oom_score_adj").write_text("1000")


def serve(requests: BinaryIO, answers: BinaryIO, extract: Extractor, gate: dict[str, Any] | None) -> None:
    """Answer requests until the parent closes its end."""
    while len(header := requests.read(REQUEST.size)) == REQUEST.size:
        length, flags = REQUEST.unpack(header)
        html = requests.read(length).decode("utf-8")
        try:
            status, wanted, text = answer(html, flags, extract, gate)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except Exception as error:  # noqa: BLE001 - whatever a parser raises on a hostile page costs that page alone
            status, wanted, text = FAILED, float("nan"), f"{type(error).__name__}: {error}"[:500]
        body = text.encode("utf-8", "replace")
        answers.write(ANSWER.pack(status, wanted, len(body)) + body)
        answers.flush()


def main() -> None:
    """Load the parsers, then say ready, confine this process, and serve."""
    settings = json.loads(sys.argv[1])
    extract = partial(extracted, dict(EXTRACTORS)[settings["engine"]], settings)
    gate = settings["gate"]
    # Libraries may print: keep the answers' channel for answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    confine(settings["memory_bytes"])
    answer("<p>warm</p>", 1, extract, gate)
    answers.write(READY)
    answers.flush()
    serve(sys.stdin.buffer, answers, extract, gate)


if __name__ == "__main__":
    main()
