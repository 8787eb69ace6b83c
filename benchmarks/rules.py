"""datatrove 0.10.1's four quality filters against our families of rules: decisions and CPU time on the same documents.

    python benchmarks/rules.py [--quick] [--json] [--crawl FOLDER]

Documents are English main texts (resiliparse, lid.176) of the crawl's pages, in two halves by a hash of their ids;
without a crawl, those of the demo crawl. GopherRepetitionFilter, GopherQualityFilter,
C4QualityFilter(filter_no_terminal_punct=False) and FineWebQualityFilter judge every document, each given its raw text:
no filter spares the next one work, and datatrove's own cache of words serves all four. Both sides in one thread,
models, lists and kernels loaded outside the clock; process CPU seconds, median of 3 runs. Ratios are ours over
datatrove's in documents a second:

four_warm   our four families, with a vocabulary that has met the documents of the other half
four_cold   the same with an empty vocabulary, which learns under the clock

Agreement, by filter, is the share of documents with the same decision, and with the same reason as well. Beside them:
the cost of each family alone, and of all families over that of the four, with and without those whose words are NLTK's;
and the peak of resident memory.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import xxhash
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

from benchmarks.oracle import CRAWL, crawl_pages
from filters import c4, fineweb, gopher
from filters.batch import TextBatch
from filters.catalogue import FAMILIES
from filters.errors import ResourceMissing
from filters.rule import Family, first_failing
from filters.tokens import Lexicon
from infra.demo_crawl import build_demo_crawl
from pipelines.extract import Parser
from pipelines.langid import best_and_wanted
from pipelines.memory import peak_memory
from pipelines.process import BATCH_PAGES
from pipelines.recipe import Extract, Language, load_recipe
from pipelines.words import words_by_name

RUNS = 3
FOUR = (gopher.REPETITION, gopher.QUALITY, c4.QUALITY, fineweb.QUALITY)
SPLITTER = "spacy_english"
PUNKT = "punkt_english"  # NLTK's own code, over every text anew: no vocabulary helps


@dataclass(frozen=True, kw_only=True)
class Halves:
    """Texts to judge, and other texts of the same kind for the vocabulary to meet first."""

    judged: list[str]
    others: list[str]


def english_texts(crawl: Path | None, judged: int, others: int) -> Halves:
    """At most so many texts of each half, by the smallest hash of the record's id; `crawl` None: the demo crawl."""
    if crawl is None:
        with tempfile.TemporaryDirectory() as folder:
            build_demo_crawl(Path(folder))
            return english_texts(Path(folder), judged, others)
    recipe = load_recipe("fineweb-resiliparse")
    extract, language = recipe.step(Extract), recipe.step(Language)
    assert extract is not None, "the recipe extracts"
    assert language is not None, "the recipe identifies languages"
    found: tuple[list[str], list[str]] = [], []
    wanted = judged, others
    names = [str(path.relative_to(crawl)) for path in sorted(crawl.rglob("*.warc.gz"))]
    pages = {page.record_id: page for page in crawl_pages(*names, folder=crawl) if page.is_html}
    with Parser(extract, None, None) as parser:
        for rank, name in sorted((xxhash.xxh64_intdigest(name.encode()), name) for name in pages):
            if len(found[rank % 2]) < wanted[rank % 2]:
                text = parser.parse(pages[name].text).text
                if text and best_and_wanted(language.model, text, ["en"])[2] > language.above:
                    found[rank % 2].append(text)
    return Halves(judged=found[0], others=found[1])


def batched(texts: Sequence[str], lexicon: Lexicon, splitter: str) -> Iterator[TextBatch]:
    """The texts as a worker takes them: so many at a time, with one lexicon."""
    vocabulary = lexicon.vocabulary(words_by_name(splitter))
    for at in range(0, len(texts), BATCH_PAGES):
        yield TextBatch(texts[at : at + BATCH_PAGES], vocabulary)


Reasons = dict[str, list[str | None]]
"""By family, for every document the reason of its drop; None where it is kept."""


def our_reasons(texts: Sequence[str], lexicon: Lexicon, families: Sequence[Family]) -> Reasons:
    """Judge every text by every family; families with the same words share a batch."""
    reasons: Reasons = {family.name: [] for family in families}
    for splitter in dict.fromkeys(family.words or SPLITTER for family in families):
        for batch in batched(texts, lexicon, splitter):
            for family in families:
                if (family.words or SPLITTER) == splitter:
                    first, _ = first_failing(family.measure(batch), family.rules, len(batch))
                    reasons[family.name] += [family.rules[at].reason if at >= 0 else None for at in first.tolist()]
    return reasons


def their_reasons(texts: Sequence[str], steps: dict[str, Any]) -> Reasons:
    """The same by datatrove's filters, document by document, as they come in its executor."""
    reasons: Reasons = {name: [] for name in steps}
    for text in texts:
        for name, step in steps.items():
            said = step.filter(Document(text=text, id=""))
            reasons[name].append(None if said is True else said[1])
    return reasons


def our_seconds(texts: Sequence[str], lexicon: Lexicon, families: Sequence[Family]) -> float:
    """Median CPU seconds of `RUNS` runs, each with a copy of the lexicon."""
    seconds = []
    for _ in range(RUNS):
        copied = copy.deepcopy(lexicon)
        started = time.process_time()
        our_reasons(texts, copied, families)
        seconds.append(time.process_time() - started)
    return median(seconds)


def their_seconds(texts: Sequence[str], steps: dict[str, Any]) -> tuple[float, Reasons]:
    """Median CPU seconds of `RUNS` runs, and the reasons."""
    seconds, reasons = [], {}
    for _ in range(RUNS):
        started = time.process_time()
        reasons = their_reasons(texts, steps)
        seconds.append(time.process_time() - started)
    return median(seconds), reasons


def measurable(families: Sequence[Family]) -> tuple[list[Family], dict[str, str]]:
    """The families whose words can be had here, and why those of the others cannot."""
    absent = {}
    for family in families:
        try:
            words_by_name(family.words or SPLITTER)
        except ResourceMissing as missing:
            absent[family.name] = str(missing)
    return [family for family in families if family.name not in absent], absent


def agreement(ours: Reasons, theirs: Reasons) -> dict[str, float]:
    """By filter, the share of documents with the same decision and with the same reason."""
    shares = {}
    for name, reasons in theirs.items():
        pairs = list(zip(ours[name], reasons, strict=True))
        shares[name] = round(sum((our is None) == (their is None) for our, their in pairs) / len(pairs), 4)
        shares[f"{name}, reason"] = round(sum(our == their for our, their in pairs) / len(pairs), 4)
    return shares


def peak_mib() -> float:
    """The most memory that this process has held so far, in MiB."""
    return round(peak_memory() / 2**20, 1)


def measured(texts: Halves, *, each: bool) -> dict[str, Any]:
    """Both sides on the texts; with `each`, also what every family costs alone."""
    everything, absent = measurable(FAMILIES)
    few = texts.others[:8]
    our_reasons(few, Lexicon(), everything)  # loads and compiles
    before = peak_mib()
    cold, warm, warm_for_all = Lexicon(), Lexicon(), Lexicon()
    our_reasons(texts.others, warm, FOUR)
    our_reasons(texts.others, warm_for_all, everything)
    by_chunk = [family for family in everything if family.words != PUNKT]
    ours = {
        "four_warm": our_seconds(texts.judged, warm, FOUR),
        "four_cold": our_seconds(texts.judged, cold, FOUR),
        "all_warm": our_seconds(texts.judged, warm_for_all, everything),
        "all_warm_but_punkt": our_seconds(texts.judged, warm_for_all, by_chunk),
        **{family.name: our_seconds(texts.judged, warm_for_all, [family]) for family in everything if each},
    }
    after = peak_mib()
    steps = {
        "gopher_repetition": GopherRepetitionFilter(),
        "gopher_quality": GopherQualityFilter(),
        "c4": C4QualityFilter(filter_no_terminal_punct=False),
        "fineweb": FineWebQualityFilter(),
    }
    their_reasons(few, steps)
    theirs, their_verdicts = their_seconds(texts.judged, steps)
    count = len(texts.judged)
    return {
        "ratios": {name: round(theirs / ours[name], 2) for name in ("four_warm", "four_cold")},
        "agreement": agreement(our_reasons(texts.judged, cold, FOUR), their_verdicts),
        "all_over_four": round(ours["all_warm"] / ours["four_warm"], 2),
        "all_but_punkt_over_four": round(ours["all_warm_but_punkt"] / ours["four_warm"], 2),
        "documents": {
            "judged": count,
            "others": len(texts.others),
            "characters": round(sum(map(len, texts.judged)) / count),
        },
        "documents_per_second": {
            "datatrove": round(count / theirs, 2),
            **{name: round(count / ours[name], 2) for name in ("four_warm", "four_cold", "all_warm")},
        },
        "milliseconds": {name: round(1000 * seconds / count, 3) for name, seconds in ours.items()},
        "peak_mib": {"loaded": before, "ours": after, "both": peak_mib()},
        "absent": absent,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer documents and no family alone, at most 50 s")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--crawl", type=Path, default=CRAWL, help="folder with *.warc.gz")
    options = parser.parse_args()
    crawl = options.crawl if options.crawl.is_dir() else None
    counts = (30, 150) if options.quick else (400, 800)
    found = measured(english_texts(crawl, *counts), each=not options.quick)
    found["pages_from"] = "the crawl" if crawl else f"the demo crawl: {options.crawl} does not exist"
    if options.json:
        print(json.dumps(found))
        return
    speed = found["documents_per_second"]
    for name, ratio in found["ratios"].items():
        print(f"{name} ours {speed[name]:.1f}  datatrove {speed['datatrove']:.1f} documents/CPU s  ratio {ratio}")
    print(
        f"all families cost {found['all_over_four']} of the four, "
        f"without those on {PUNKT} {found['all_but_punkt_over_four']}"
    )
    print("milliseconds a document: ", ", ".join(f"{name} {spent}" for name, spent in found["milliseconds"].items()))
    print("agreement: ", ", ".join(f"{name} {share:.2%}" for name, share in found["agreement"].items()))
    print("documents: ", found["documents"], "from", found["pages_from"], " peak MiB: ", found["peak_mib"])
    for name, reason in found["absent"].items():
        print(f"{name} is left out: {reason}")


if __name__ == "__main__":
    main()
