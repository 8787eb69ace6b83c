"""The ends of examples/first_verdicts.sh: good texts with planted garbage, the experiment, and what came of it."""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from fastwarc.warc import ArchiveIterator, WarcRecordType
from proxy_sanity import texts_of
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from infra.options import plain_count
from proxy_eval.panel import held_out, pieces

DOMAINS = ("openstax_textbooks", "english_novels_100", "reuters21578", "gov_blog_18f")
GARBAGE = 0.3
"""Characters of each kind of garbage over those of the good texts: each kind is a quarter of what a run reads that has
the rules against the others alone."""
LANGUAGES = ("ca", "cs", "da", "de", "es", "fr", "it", "nl", "pt", "ro", "sv")
HELD_OUT = 0.05
PIECE = 4_000
SHORT = 30  # characters of a line that `fineweb.short_line_ratio` calls short
KEEP = {
    "one-language": "without:language.wanted",
    "no-furniture": "without:fineweb.short_line_ratio",
    "no-salad": "without:pattern.broken_sentence",
}
"""Each rule is left out: one kind of garbage and next to nothing else comes back."""
LINES = "fineweb.line_punct_ratio"
REJECT = {"wrong-side": f"set:{LINES}.high=0.12"}
"""FineWeb's bound turned around: documents whose lines end like sentences go, two thirds of the good ones."""


def pages(archives: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """URL and all visible text of each page, the furniture with the rest."""
    for archive in archives:
        with archive.open("rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response, parse_http=True):
                body = record.reader.read()
                html = bytes_to_str(body, detect_encoding(body) or "utf-8")
                yield record.headers["WARC-Target-URI"], extract_plain_text(html, main_content=False, alt_texts=False)


def shuffled(texts: Iterable[str]) -> Iterator[str]:
    """Each text with its words in any order, on one line as word salad comes."""
    for at, text in enumerate(texts):
        words = text.split()
        random.Random(at).shuffle(words)
        yield " ".join(words)


def boilerplate(archives: Iterable[Path]) -> Iterator[str]:
    """The short lines of real pages, as menus, buttons and footers are, those of ten pages together."""
    found: list[str] = []
    for at, (_, text) in enumerate(pages(archives), 1):
        found += [line.strip() for line in text.splitlines() if 0 < len(line.strip()) <= SHORT]
        if at % 10 == 0 and found:
            yield "\n".join(found)
            found = []


def foreign(archive: Path) -> Iterator[str]:
    """The pages of a manual that are in other languages of the Latin script."""
    for url, text in pages([archive]):
        if any(f"/{language}/" in url for language in LANGUAGES):
            yield text


def up_to(texts: Iterable[str], characters: int) -> list[str]:
    """Distinct pieces of the texts, until there are so many characters."""
    found: dict[str, None] = {}
    left = characters
    for piece in (piece for text in texts for piece in pieces(text, PIECE)):
        if left > 0 and piece.strip() and piece not in found:
            found[piece] = None
            left -= len(piece)
    return list(found)


def plant(data: Path, out: Path) -> None:
    """Write `pool/KIND.jsonl` of good texts and garbage, and `held/DOMAIN/DOMAIN.jsonl` for the panel."""
    coming = out.with_name(f".{out.name}")
    kinds: dict[str, list[str]] = {"good": [], "shuffled": []}
    for domain in DOMAINS:
        texts = list(dict.fromkeys(texts_of(data / "corpora" / f"{domain}.jsonl.gz")))
        held = held_out(texts, "verdicts", HELD_OUT)
        spoiled = held_out(texts, "shuffled", GARBAGE / (1 + GARBAGE)) & ~held
        kinds["good"] += [text for text, no, gone in zip(texts, held, spoiled, strict=True) if not (no or gone)]
        kinds["shuffled"] += shuffled(text for text, gone in zip(texts, spoiled, strict=True) if gone)
        write(coming / "held" / domain, domain, [text for text, no in zip(texts, held, strict=True) if no])
    wanted = round(GARBAGE * sum(map(len, kinds["good"])))
    kinds["boilerplate"] = up_to(boilerplate(sorted((data / "crawl").glob("part-*.warc.gz"))), wanted)
    kinds["foreign"] = up_to(foreign(data / "crawl" / "languages.warc.gz"), wanted)
    for kind, texts in kinds.items():
        write(coming / "pool", kind, texts)
        print(f"{kind:12}{len(texts):7,} documents {sum(map(len, texts)):12,} characters")
    coming.rename(out)


def write(folder: Path, name: str, texts: Sequence[str]) -> None:
    """One JSON object a line, with `id` and `text`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"id": f"{name}/{at}", "text": text}) for at, text in enumerate(texts))
    (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def experiment(out: Path, *, size: str, tokens: int, seeds: int) -> None:
    """Write `experiment.yaml`: the gain by twice the tokens is that of one model's two ends, the ROPE one standard
    error of a paired difference, or 1 %. One learning rate: with two it takes twice as long.
    """
    swept = read(out / "calibration.json")
    if swept["learning_rate"] is None:
        sys.exit(
            "the sweep chose no learning rate (calibration.json says why): set RATES to others, or take more TOKENS"
        )
    found = next(rate for rate in swept["rates"] if rate["learning_rate"] == swept["learning_rate"])
    less, more = sorted(read(out / "gain.json"), key=lambda one: int(one["model"].split("-")[2]))
    gain = less["panel"]["macro"] - more["panel"]["macro"]
    error = found["standard_error"] * math.sqrt(len(swept["seeds"]) / seeds)
    rope = max(0.01, 2 ** (error / gain) - 1)
    said = {
        "name": "first-verdicts",
        "says": "Does each rule that removes planted garbage come out KEEP, and one that removes good texts REJECT?",
        "pool": "pool",
        "base": "rules",
        "panel": "panel",
        "tasks": "tasks",
        "rope": round(rope, 4),
        "arms": [{"name": name, "mask": mask} for name, mask in (KEEP | REJECT).items()],
        "rungs": [
            {
                "size": size,
                "tokens": tokens,
                "seeds": seeds,
                "learning_rates": [swept["learning_rate"]],
                "expected": {"gain": round(gain, 4)},
            }
        ],
        "bank": "noise-bank.json",
    }
    (out / "experiment.yaml").write_text(yaml.safe_dump(said, sort_keys=False, width=120), encoding="utf-8")
    print(f"noise {found['spread']:.4f} bits per byte, twice the tokens gains {gain:.4f}: ROPE {rope:.2%}")


def read(path: Path) -> Any:
    """What a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def report(out: Path) -> bool:
    """Print what came of the experiment; True where every verdict is the one that was planted."""
    results = read(out / "verdicts" / "results.json")
    wanted = dict.fromkeys(KEEP, "KEEP") | dict.fromkeys(REJECT, "REJECT")
    found = {arm["name"]: arm["verdict"] for arm in results["arms"]}
    placebos = {arm["name"]: arm["verdict"] for arm in results["placebos"]}
    for name, verdict in found.items():
        print(f"{name:20}{verdict:11}wanted {wanted[name]}")
    rung = results["rungs"][-1]
    same = next(arm for arm in results["placebos"] if arm["name"] == "same")
    print(f"rho {rung['fixed']['rho']:.2f}; {spread(same['runs'], rung['learning_rates'][0])}")
    return found == wanted and placebos["random"] not in ("KEEP", "REJECT") and not results["faults"]


def spread(runs: Sequence[Any], rate: float) -> str:
    """How far the A/A placebo's runs at a learning rate lie apart, and how many of them stopped."""
    found = [run["metric"] for run in runs if run["learning_rate"] == rate]
    whole = [bits for bits in found if bits is not None]
    said = f"A/A spread {statistics.stdev(whole):.4f} bits per byte over " if len(whole) > 1 else "no A/A spread: "
    return f"{said}{len(whole)} seeds" + (f", {len(found) - len(whole)} diverged" if len(whole) < len(found) else "")


if __name__ == "__main__":
    command, folder = sys.argv[1], Path(sys.argv[2])
    if command == "plant":
        plant(folder, Path(sys.argv[3]))
    elif command == "experiment":
        experiment(folder, size=sys.argv[3], tokens=plain_count(sys.argv[4]), seeds=int(sys.argv[5]))
    elif not report(folder):
        sys.exit("not the verdicts that were planted")
