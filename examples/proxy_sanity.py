"""The two ends of examples/proxy_sanity.sh: texts cut into a pool and what is held out, and what the scores say."""

from __future__ import annotations

import gzip
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import vl_convert

from infra.calibration import calibration_said
from infra.calibration_page import effects, losses
from infra.options import plain_count
from proxy_eval.panel import held_out, pieces

CHARACTERS = 6_000_000
"""Of each domain, so that none is most of the pool; a smaller one is taken whole."""
PIECE = 8_000
HELD_OUT = 0.05


def texts_of(path: Path) -> Iterator[str]:
    """The texts of a JSONL file in pieces: one novel is 50 documents."""
    taken = 0
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            for piece in pieces(json.loads(line)["text"], PIECE):
                if piece.strip() and taken < CHARACTERS:
                    taken += len(piece)
                    yield piece


def split(corpora: Path, out: Path, domains: Sequence[str]) -> None:
    """Write `pool/DOMAIN.jsonl` and `held/DOMAIN/DOMAIN.jsonl`; which texts are held out is a hash of theirs."""
    coming = out.with_name(f".{out.name}")
    for domain in domains:
        texts = list(dict.fromkeys(texts_of(corpora / f"{domain}.jsonl.gz")))
        held = held_out(texts, "sanity", HELD_OUT)
        for folder, wanted in ((coming / "pool", False), (coming / "held" / domain, True)):
            folder.mkdir(parents=True, exist_ok=True)
            lines = [
                json.dumps({"id": f"{domain}/{at}", "text": text})
                for at, text in enumerate(texts)
                if held[at] == wanted
            ]
            (folder / f"{domain}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    coming.rename(out)


def report(out: Path, budgets: Sequence[str]) -> bool:
    """Print bits per byte at both budgets by seed; True where twice the tokens is better beyond twice the noise."""
    found: dict[int, dict[int, float]] = {}
    for one in json.loads((out / "scores.json").read_text(encoding="utf-8")):
        name = one["model"].split("-")  # ARM-SIZE-TOKENS-seedN-...
        found.setdefault(int(name[2]), {})[int(name[3].removeprefix("seed"))] = one["panel"]["macro"]
    less, more = (found[plain_count(budget)] for budget in budgets)
    gains = [less[seed] - more[seed] for seed in sorted(less)]
    noise = statistics.stdev(less.values())
    error = statistics.stdev(gains) / len(gains) ** 0.5
    print(f"\nbits per byte at {budgets[0]}: " + " ".join(f"{less[seed]:.4f}" for seed in sorted(less)))
    print(f"bits per byte at {budgets[1]}: " + " ".join(f"{more[seed]:.4f}" for seed in sorted(more)))
    gain = statistics.mean(gains)
    print(f"twice the tokens gains {gain:.4f} ± {error:.4f}, {gain / noise:.0f} times the spread over seeds")
    plot(out)
    return gain > 2 * noise


def plot(out: Path) -> None:
    """Draw effect and loss by learning rate, side by side, into `sanity.svg`."""
    found = calibration_said(json.loads((out / "calibration.json").read_text(encoding="utf-8")))
    parts = [{**drawn(found), "width": 380} for drawn in (effects, losses)]
    for part in parts[1:]:
        del part["$schema"], part["config"], part["background"]
    whole = {name: parts[0].pop(name) for name in ("$schema", "config", "background")}
    whole |= {"hconcat": parts, "spacing": 40, "resolve": {"scale": {"color": "independent"}}}
    (out / "sanity.svg").write_text(vl_convert.vegalite_to_svg(whole), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "split":
        split(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
    elif not report(Path(sys.argv[2]), sys.argv[3:]):
        sys.exit("twice the tokens is not better beyond the noise")
