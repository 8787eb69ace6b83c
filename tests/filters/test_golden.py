"""Every signal of every family over 200 documents written for it: a number that moves needs a new revision.

`python -m tests.filters.test_golden` writes the numbers of signals that are new or whose revision has risen, and
refuses to touch any other.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from filters.batch import TextBatch
from filters.catalogue import EDITS, FAMILIES
from filters.edit import Edit
from filters.rule import Family, Measured, Signal
from filters.tokens import Lexicon
from pipelines.words import words_by_name

FOLDER = Path(__file__).parent / "golden"
DOCUMENTS = [json.loads(line) for line in (FOLDER / "documents.jsonl").read_text().splitlines()]
NUMBERS = FOLDER / "signals.jsonl"
WORDS = "spacy_english"

Golden = dict[str, Any]


def golden() -> dict[str, Golden]:
    """What is pinned, by signal or edit."""
    lines = NUMBERS.read_text().splitlines() if NUMBERS.exists() else []
    return {said["name"]: said for said in map(json.loads, lines)}


@cache
def batch(words: str | None) -> TextBatch:
    """The documents, cut by this splitter; what is measured on them is measured once."""
    texts = [document["text"] for document in DOCUMENTS]
    return TextBatch(texts, Lexicon().vocabulary(words_by_name(words or WORDS)))


def numbers(signal: Signal, measured: Measured) -> Golden:
    """The numbers of a signal as JSON; scores to six digits, which every machine agrees on."""
    said: Golden = {"revision": signal.revision}
    if measured.numerator is not None:
        said["n"] = measured.numerator.tolist()
    if measured.denominator is not None:
        said["d"] = measured.denominator.tolist()
    if measured.score is not None:
        said["score"] = [None if score != score else float(f"{score:.6g}") for score in measured.score.tolist()]
    if measured.offsets is not None:
        said["offsets"] = measured.offsets.tolist()
    return said


def family_numbers(family: Family) -> dict[str, Golden]:
    """The numbers of a family's signals on the raw texts."""
    found = batch(family.words).measured(family)
    assert found.keys() == {signal.name for signal in family.signals}
    return {signal.name: numbers(signal, found[signal.name]) for signal in family.signals}


def edit_numbers(edit: Edit) -> dict[str, Golden]:
    """The texts that an edit makes, by their lengths and hashes, under its revision."""
    import xxhash

    texts = edit.apply(batch(edit.words)).texts
    hashes = [xxhash.xxh3_64_hexdigest(text.encode("utf-8", "surrogatepass")) for text in texts]
    return {f"edit {edit.name}": {"revision": edit.revision, "texts": hashes}}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_no_signal_of_a_family_has_moved_without_a_new_revision(family: Family) -> None:
    compare(family_numbers(family))


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_no_text_of_an_edit_has_moved_without_a_new_revision(edit: Edit) -> None:
    compare(edit_numbers(edit))


def compare(found: dict[str, Golden]) -> None:
    pinned = golden()
    for name, now in found.items():
        assert name in pinned, f"{name} is new: pin it by `python -m tests.filters.test_golden`"
        before = pinned[name]
        for part in now.keys() - {"revision"}:
            moved = [
                DOCUMENTS[at]["id"]
                for at in range(len(DOCUMENTS))
                if part != "offsets" and len(now[part]) == len(DOCUMENTS) and now[part][at] != before[part][at]
            ]
            assert now[part] == before[part], f"{name} has moved in {part}, of documents {moved}: raise its revision"
        assert now["revision"] == before["revision"], f"{name}: pin revision {now['revision']}"


def write() -> None:
    """Pin what is new or has a higher revision."""
    pinned, lines = golden(), []
    found = {name: said for family in FAMILIES for name, said in family_numbers(family).items()}
    found |= {name: said for edit in EDITS for name, said in edit_numbers(edit).items()}
    for name, now in sorted(found.items()):
        before = pinned.get(name)
        if before is not None and before["revision"] >= now["revision"] and before != {"name": name, **now}:
            sys.exit(f"{name} has moved: raise its revision first")
        lines.append(json.dumps({"name": name, **now}, separators=(",", ":")))
    NUMBERS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write()
