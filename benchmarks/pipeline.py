"""datatrove's own FineWeb steps against ours, from WARC to Parquet, on the same records.

    python benchmarks/pipeline.py [--quick] [--json] [--crawl FOLDER]

Both sides read the same WARC file and write Parquet, on one trafilatura, in one environment. Lists, models, kernels
and the vocabulary are warmed on other pages outside the clock. CPU seconds include child processes; each figure is
the median of 3 runs. Ratios are ours over datatrove's in pages per CPU second:

parity        fineweb@datatrove-0.10, on pages of part-*
gated         fineweb-gated, on 450 pages of part-* and 550 of languages
resiliparse   fineweb-resiliparse, on pages of part-*

The vocabulary has seen 200 other pages. It goes on learning under the clock, so `--quick`, with its few pages, shows
the resiliparse profile slower than it is: most of its time goes into words never met before.

Agreement is the share of documents that both sides keep or both drop.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import resource
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import fsspec
import pyarrow.parquet as pq
import xxhash

from benchmarks.oracle import CRAWL, datatrove_steps
from filters.tokens import Vocabulary
from pipelines.decide import Decider, Decisions
from pipelines.extract import cpu_seconds
from pipelines.process import TaskOptions, batches, process
from pipelines.read import ReadOptions, read_slice
from pipelines.recipe import Recipe, load_recipe
from pipelines.record import Page, Slice
from pipelines.sources import find_sources

RUNS = 3


def chosen_members(pattern: str, count: int, seed: int, folder: Path) -> bytes:
    """The gzip members of `count` pages of the files that match, by smallest hash of their ids."""
    found = []
    for source in find_sources([str(folder / pattern)]):
        with fsspec.open(source.url) as file:
            data = file.read()
        for event in read_slice(Slice(source=source, start=0, end=source.size), ReadOptions()):
            if isinstance(event, Page):
                start = event.position.offset
                rank = xxhash.xxh64_intdigest(event.record_id.encode(), seed=seed)
                found.append((rank, data[start : start + event.length]))
    return b"".join(identified(member) for _, member in sorted(found)[:count])


def identified(member: bytes) -> bytes:
    """The record with a WARC-Identified-Payload-Type, as Common Crawl's have: else datatrove asks libmagic, which takes
    a good part of these pages for something else and drops them unread.
    """
    version, _, rest = gzip.decompress(member).partition(b"\r\n")
    return gzip.compress(version + b"\r\nWARC-Identified-Payload-Type: text/html\r\n" + rest, mtime=0)


def whole(path: Path) -> Slice:
    """The slice that is the whole of a file."""
    (source,) = find_sources([str(path)])
    return Slice(source=source, start=0, end=source.size)


def used() -> float:
    """CPU seconds of this process and of the children it has waited for."""
    mine, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + children.ru_utime + children.ru_stime


class Theirs:
    """datatrove: its WARC reader, its steps of examples/fineweb.py, its Parquet writer."""

    def __init__(self) -> None:
        self.steps = datatrove_steps()
        self.measured: dict[Path, tuple[float, set[str]]] = {}

    def run(self, warc: Path, out: Path) -> tuple[float, set[str]]:
        """CPU seconds from file to file, and the ids that are kept."""
        from datatrove.pipeline.readers import WarcReader
        from datatrove.pipeline.writers import ParquetWriter

        reader = WarcReader(str(warc.parent), glob_pattern=warc.name)
        writer = ParquetWriter(str(out), compression="zstd")
        kept: set[str] = set()
        started = used()
        stream = reader.run(None, 0, 1)
        for step in self.steps:
            stream = step.run(stream, 0, 1)
        for document in writer.run(stream, 0, 1):
            kept.add(document.id)
        return used() - started, kept


class Timed(Decider):
    """A decider that notes the CPU seconds of each of its steps."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def _clock(self, name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        self.seconds[name] += time.process_time() - started

    def _extract(self, batch: Decisions, *args: Any) -> None:
        with self._clock("extract, this side"):
            super()._extract(batch, *args)

    def _identify(self, batch: Decisions, *args: Any) -> None:
        with self._clock("language"):
            super()._identify(batch, *args)

    def _measure(self, batch: Decisions, *args: Any) -> None:
        with self._clock("rules"):
            super()._measure(batch, *args)

    def _edit(self, batch: Decisions, *args: Any) -> None:
        with self._clock("edit"):
            super()._edit(batch, *args)


def process_events(decider: Decider, warc: Path) -> Iterator[Decisions]:
    """Decide the pages of a file and forget them."""
    for events in batches(read_slice(whole(warc), ReadOptions())):
        yield decider.decide([event for event in events if isinstance(event, Page)])


def warmed(warm: Path) -> dict[str, Vocabulary]:
    """Vocabularies, by splitter, that have seen the texts of these pages."""
    with Decider(
        Recipe.model_validate(load_recipe("fineweb-resiliparse").model_dump() | {"tokenizer": None})
    ) as decider:
        for _ in process_events(decider, warm):
            pass
        return decider._vocabularies


class Ours:
    """One recipe, through the code that a worker runs for a task."""

    def __init__(self, name: str, few: Path, vocabularies: dict[str, Vocabulary]) -> None:
        self.recipe = Recipe.model_validate(load_recipe(name).model_dump() | {"tokenizer": None})
        self.few = few
        self.vocabularies = vocabularies
        self.seconds: Counter[str] = Counter()

    def run(self, warc: Path, out: Path) -> tuple[float, set[str]]:
        """CPU seconds from file to file, the parser child's included, and the ids that are kept.

        Every run begins with a parser that has met a few pages, and with a copy of a vocabulary that has seen the warm
        pages alone.
        """
        out.mkdir()
        with Timed(self.recipe) as decider:
            for _ in process_events(decider, self.few):
                pass
            decider._vocabularies = copy.deepcopy(self.vocabularies)
            decider.seconds.clear()
            child = decider.parser._started().pid
            started, parsing = used(), cpu_seconds(child)
            process([whole(warc)], TaskOptions(recipe=self.recipe), out, decider=decider)
            own, parsed = used() - started, cpu_seconds(child) - parsing
            if decider.parser.restarts:
                raise RuntimeError("a parser died under the clock: its CPU time is not known")
        reading = time.process_time()
        for _ in read_slice(whole(warc), ReadOptions()):
            pass
        reading = time.process_time() - reading
        rest = own - reading - sum(decider.seconds.values())
        self.seconds = decider.seconds + Counter(
            {"extract, parser child": parsed, "read": reading, "url, write, rest": rest}
        )
        return own + parsed, set(pq.read_table(out / "kept.parquet", columns=["id"]).column("id").to_pylist())


def medians(run: Callable[[Path, Path], tuple[float, set[str]]], warc: Path, folder: Path) -> tuple[float, set[str]]:
    """Median CPU seconds of `RUNS` runs, and the ids kept."""
    seconds, kept = [], set()
    for number in range(RUNS):
        spent, kept = run(warc, folder / f"out-{number}")
        seconds.append(spent)
    return median(seconds), kept


def compare(name: str, ours: Ours, theirs: Theirs, warc: Path) -> dict[str, Any]:
    """Both sides on one file: pages a CPU second, ratio, agreement, and the share of each of our stages."""
    pages = {event.record_id for event in read_slice(whole(warc), ReadOptions()) if isinstance(event, Page)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "ours").mkdir()
        (folder / "theirs").mkdir()
        our_seconds, our_kept = medians(ours.run, warc, folder / "ours")
        if warc not in theirs.measured:
            theirs.measured[warc] = medians(theirs.run, warc, folder / "theirs")
        their_seconds, their_kept = theirs.measured[warc]
    whole_seconds = sum(ours.seconds.values())
    return {
        "name": name,
        "pages": len(pages),
        "ours_pages_per_second": round(len(pages) / our_seconds, 2),
        "theirs_pages_per_second": round(len(pages) / their_seconds, 2),
        "ratio": round(their_seconds / our_seconds, 3),
        "agreement": round(1 - len(our_kept ^ their_kept) / len(pages), 4),
        "kept": [len(our_kept), len(their_kept)],
        "shares": {stage: round(spent / whole_seconds, 3) for stage, spent in ours.seconds.most_common()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few pages, at most 50 s")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--crawl", type=Path, default=CRAWL, help="folder with part-*.warc.gz and languages.warc.gz")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    scale = 0.025 if options.quick else 1.0
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        articles, mixed = folder / "articles.warc.gz", folder / "mixed.warc.gz"
        few, warm = folder / "few.warc.gz", folder / "warm.warc.gz"
        articles.write_bytes(chosen_members("part-*.warc.gz", int(1000 * scale), 1, options.crawl))
        mixed.write_bytes(
            chosen_members("part-*.warc.gz", int(450 * scale), 2, options.crawl)
            + chosen_members("languages.warc.gz", int(550 * scale), 2, options.crawl)
        )
        few.write_bytes(chosen_members("part-*.warc.gz", 8, 3, options.crawl))
        warm.write_bytes(chosen_members("part-*.warc.gz", 200, 3, options.crawl))
        vocabularies = warmed(warm)
        theirs = Theirs()
        theirs.run(few, folder / "warm")
        for name, recipe, warc in (
            ("parity", "fineweb@datatrove-0.10", articles),
            ("gated", "fineweb-gated", mixed),
            ("resiliparse", "fineweb-resiliparse", articles),
        ):
            results.append(compare(name, Ours(recipe, few, vocabularies), theirs, warc))
    if options.json:
        ratios = {one["name"]: one["ratio"] for one in results}
        agreement = {one["name"]: one["agreement"] for one in results}
        print(json.dumps({"ratios": ratios, "agreement": agreement, "details": results}))
        return
    for one in results:
        print(
            f"{one['name']:12} {one['pages']:5} pages  ours {one['ours_pages_per_second']:7.2f}  "
            f"datatrove {one['theirs_pages_per_second']:6.2f} pages/CPU s  ratio {one['ratio']:.2f}  "
            f"agreement {one['agreement']:.2%}"
        )
        print("             " + ", ".join(f"{stage} {share:.1%}" for stage, share in one["shares"].items()))


if __name__ == "__main__":
    main()
