"""How much of the main text each extractor finds: word-level precision, recall and F1 against gold texts, by page type.

    python benchmarks/extraction.py [--quick] [--json] [--crawl FOLDER]

Words are runs of letters and digits in lower case; a page's scores compare bags of words (WCXB's own measure),
averages are over pages. Snippet scores: the share of must-have snippets found and of must-not-have snippets found,
white space apart.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import xxhash

from benchmarks.oracle import CRAWL, crawl_pages
from pipelines.extract import Parser
from pipelines.recipe import load_recipe

WORD = re.compile(r"\w+")
ENGINES = {"trafilatura": "fineweb@datatrove-0.10", "resiliparse": "fineweb-resiliparse"}


def word_scores(found: str, gold: str) -> tuple[float, float, float]:
    """Precision, recall and F1 of the bags of words of two texts."""
    ours, theirs = (Counter(WORD.findall(text.lower())) for text in (found, gold))
    both = (ours & theirs).total()
    precision = both / ours.total() if ours else 0.0
    recall = both / theirs.total() if theirs else 0.0
    return precision, recall, 2 * both / (ours.total() + theirs.total()) if both else 0.0


def squeezed(text: str) -> str:
    return "".join(text.split())


def snippet_scores(found: str, wanted: Iterable[str], unwanted: Iterable[str]) -> tuple[int, int, int, int]:
    """Must-have snippets found and in all, must-not-have snippets found and in all."""
    text = squeezed(found)
    wanted, unwanted = list(wanted), list(unwanted)
    return (
        sum(squeezed(one) in text for one in wanted),
        len(wanted),
        sum(squeezed(one) in text for one in unwanted),
        len(unwanted),
    )


def evaluate(engine: str, gold: dict[str, dict[str, Any]], crawl: Path) -> dict[str, Any]:
    """Scores of one engine, over all pages with a gold text and by page type."""
    extract = next(step.extract for step in load_recipe(ENGINES[engine]).steps if step.extract)
    by_type: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    snippets = Counter[str]()
    with Parser(extract, None, None) as parser:
        for page in crawl_pages("part-*.warc.gz", folder=crawl):
            said = gold.get(page.record_id)
            if said is None:
                continue
            text = parser.parse(page.text).text
            if said.get("gold"):
                kind = said.get("page_type") or said["dataset"]
                scores = word_scores(text, said["gold"])
                by_type[kind].append(scores)
                by_type["all"].append(scores)
            hits, all_hits, misses, all_misses = snippet_scores(
                text, said.get("with_") or (), said.get("without") or ()
            )
            snippets.update({"hits": hits, "wanted": all_hits, "misses": misses, "unwanted": all_misses})
    return {
        "pages": {
            kind: {
                "pages": len(scores),
                **{
                    name: round(fmean(column), 4)
                    for name, column in zip(("P", "R", "F1"), zip(*scores, strict=True), strict=True)
                },
            }
            for kind, scores in sorted(by_type.items())
        },
        "snippets": {
            "must_have_found": round(snippets["hits"] / max(1, snippets["wanted"]), 4),
            "must_not_have_found": round(snippets["misses"] / max(1, snippets["unwanted"]), 4),
            "counts": dict(snippets),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a hash sample of the pages, at most 50 s")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--crawl", type=Path, default=CRAWL, help="folder with part-*.warc.gz and gold.jsonl.gz")
    options = parser.parse_args()
    with gzip.open(options.crawl / "gold.jsonl.gz", "rt", encoding="utf-8") as lines:
        gold = {said["record_id"]: said for said in map(json.loads, lines)}
    if options.quick:
        gold = {name: said for name, said in gold.items() if xxhash.xxh64_intdigest(name.encode()) % 8 == 0}
    results = {engine: evaluate(engine, gold, options.crawl) for engine in ENGINES}
    if options.json:
        f1 = {engine: found["pages"]["all"]["F1"] for engine, found in results.items()}
        print(json.dumps({"ratios": {}, "agreement": f1, "details": results}))
        return
    for engine, found in results.items():
        print(f"\n{engine}\n{'page type':24} {'pages':>6} {'P':>7} {'R':>7} {'F1':>7}")
        for kind, scores in found["pages"].items():
            print(f"{kind:24} {scores['pages']:6} {scores['P']:7.3f} {scores['R']:7.3f} {scores['F1']:7.3f}")
        snippets = found["snippets"]
        print(
            f"snippets: {snippets['must_have_found']:.1%} of {snippets['counts']['wanted']} must-have found, "
            f"{snippets['must_not_have_found']:.1%} of {snippets['counts']['unwanted']} must-not-have found"
        )


if __name__ == "__main__":
    main()
