"""Documents with planted copies, and runs of a dedup step over them, as several files of tests need them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import infra.dedup
from infra.commands import run_recipe
from infra.run import Finished
from pipelines.recipe import Recipe

NEAR = {"threshold": 0.75}
EVERY: dict[str, Any] = {"url": {}, "text": {}, "minhash": NEAR}
Document = dict[str, Any]


def recipe(**step: Any) -> Recipe:
    """A recipe of one dedup step."""
    said = {"name": "dedup", "says": "A test.", "steps": [{"dedup": step}], "tokenizer": None}
    return Recipe.model_validate(said)


def changed(text: str, rng: random.Random, words: int) -> str:
    """The text with so many words exchanged."""
    parts = text.split(" ")
    for place in rng.sample(range(len(parts)), words):
        parts[place] = f"changed{rng.randrange(10**6)}"
    return " ".join(parts)


def planted(make_sentences: Callable[[int], str]) -> list[Document]:
    """120 texts; of every third a near copy or two, of every tenth an exact one, of every eighth one of its URL."""
    rng = random.Random(5)
    found: list[Document] = []

    def add(text: str, url: str) -> None:
        number = len(found)
        day = 1 + number * 7 % 28
        found.append({"id": f"doc-{number:04d}", "text": text, "url": url, "date": f"2024-02-{day:02d}T00:00:00Z"})

    for number in range(120):
        text = make_sentences(number)
        url = f"https://mill{number % 7}.example/{number}"
        add(text, url)
        for _ in range(number % 3 == 0 and 1 + number % 2):
            add(changed(text, rng, 1 + number % 9), f"https://copy.example/{len(found)}")
        if number % 10 == 0:
            add(text.upper().replace(" ", "  "), "")
        if number % 8 == 0:
            add(make_sentences(1000 + number), f"http://www.mill{number % 7}.example/{number}/?utm_source=x")
    add("", "https://empty.example/1")
    add("", "https://empty.example/2")
    add("only four words here", "https://short.example/1")
    return found


def written(folder: Path, documents: Sequence[Document], files: int) -> Path:
    """The documents, one after the other, in so many JSONL files."""
    folder.mkdir(parents=True)
    size = -(-len(documents) // files)
    for index in range(files):
        lines = [json.dumps(one) for one in documents[index * size : (index + 1) * size]]
        (folder / f"part-{index}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def ran(step: Recipe, source: Path, out: Path, **options: Any) -> Finished:
    return run_recipe(step, [str(source)], out, runner="inprocess", quiet=True, task_bytes=150_000, **options)


def rows(made: Finished, kind: str) -> pl.DataFrame:
    files = [f"{made.store.url}/{entry.path}" for entry in made.files[kind]]
    return pl.concat([pl.read_parquet(path.removeprefix("file://")) for path in files])


def kept(made: Finished) -> set[str]:
    return set(rows(made, "dataset")["id"].to_list())


def dumps(documents: Sequence[Document], folder: Path) -> list[Path]:
    """The documents as three dumps, dealt so that copies lie in several."""
    found = []
    for index in range(3):
        some = [one | {"dump": f"CC-MAIN-2024-{10 + 8 * index}"} for one in documents[index::3]]
        found.append(written(folder / f"CC-MAIN-2024-{10 + 8 * index}", some, 2))
    return found


def cut_small(patch: pytest.MonkeyPatch) -> None:
    """Ranges of a few rows each, and pairs of one document in several parts."""
    patch.setattr(infra.dedup, "BAND_BYTES", 300 * 28)
    patch.setattr(infra.dedup, "HASH_ROWS", 50)
    patch.setattr("infra.dedup_work.DOCUMENTS", 40)
    patch.setattr("pipelines.dedup.edges.CELLS", 50)
    patch.setattr("pipelines.dedup.edges.SKETCH_BYTES", 20 * 2 * 112)
    patch.setattr("pipelines.dedup.edges.PAIR_BYTES", 2 * (24 + 2 * 112))
    patch.setattr("pipelines.dedup.edges.BLOCK_PAIRS", 1)
