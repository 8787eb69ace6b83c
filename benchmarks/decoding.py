"""What datatrove's own WarcReader makes of the pages that we read: the differences that parity tests leave out.

    python benchmarks/decoding.py [--quick] [--json] [--crawl FOLDER]

Both sides read the same files. A page is `same` where both give the same text; else the line says what differs.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import magic
from datatrove.pipeline.readers.warc import process_record
from warcio.archiveiterator import ArchiveIterator

from benchmarks.oracle import CRAWL, crawl_pages


def their_pages(path: Path) -> dict[str, tuple[str | None, str]]:
    """By record id: the text that datatrove reads (None: dropped), and what libmagic takes the payload for."""
    found: dict[str, tuple[str | None, str]] = {}
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type != "response":
                continue
            body = record.content_stream().read()
            media = magic.from_buffer(body, mime=True)
            record.content_stream = lambda body=body: Body(body)
            said = process_record(record)
            found[record.rec_headers["WARC-Record-ID"]] = (said["text"] if said else None, media)
    return found


class Body:
    """A stream that gives a payload once more."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self) -> bytes:
        return self._body


def compared(ours: str, theirs: str | None, media: str) -> str:
    """What is said of one page in the table."""
    if theirs is None:
        html = media in ("text/html", "application/xhtml+xml")
        return "datatrove drops it: no charset decodes it" if html else f"datatrove drops it: libmagic says {media}"
    if ours == theirs:
        return "same"
    if ours.replace("\ufffd", "") == theirs.replace("\x00", "").removeprefix("\ufeff"):
        return "same but for NUL (ours U+FFFD) or a byte order mark (ours without)"
    return "another charset"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one file of each kind, at most 50 s")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--crawl", type=Path, default=CRAWL, help="folder with part-*.warc.gz and languages.warc.gz")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    pattern = "part-00000.warc.gz" if options.quick else "*.warc.gz"
    for path in sorted(options.crawl.glob(pattern)):
        theirs = their_pages(path)
        for page in crawl_pages(path.name, folder=options.crawl):
            text, media = theirs.pop(page.record_id)
            counts[compared(page.text, text, media)] += 1
        counts["we do not read it"] += sum(text is not None for text, _ in theirs.values())
    if options.json:
        print(json.dumps({"ratios": {}, "agreement": {"decoding": counts["same"] / counts.total()}, "details": counts}))
        return
    print("| pages | difference |\n|--:|---|")
    for said, count in counts.most_common():
        print(f"| {count:,} | {said} |")


if __name__ == "__main__":
    main()
