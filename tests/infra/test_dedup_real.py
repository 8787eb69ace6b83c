"""Copies that others planted or marked are found, and nothing else falls. Skipped where the data is not here."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from benchmarks.oracle import DATA
from infra.commands import run_recipe
from infra.run import Finished
from infra.verify import verify
from pipelines.recipe import Recipe

PLANTED = DATA / "dedup" / "ndd_r8.zip"
MARKED = DATA / "dedup" / "dpk_dedup_data.tar.gz"


def here(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"shared/data/dedup/{path.name} is not here")
    return path


def found(rows: Iterable[Mapping[str, str]], step: dict[str, Any], folder: Path) -> tuple[Finished, pl.DataFrame]:
    """The run of this step over these documents, and its duplicates."""
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = {"name": "real", "says": "A test.", "steps": [{"dedup": step}], "tokenizer": None}
    out = folder / "out"
    made = run_recipe(Recipe.model_validate(said), [str(folder / "in")], out, runner="inprocess", quiet=True)
    assert verify(made) > 0
    return made, pl.read_parquet(out / "duplicates" / "*.parquet")


def test_the_near_duplicates_planted_in_news_wire_are_found_and_nothing_else(tmp_path: Path) -> None:
    """1,000 articles, of which file00 to file49 were edited into near-duplicates of one another or of others."""
    with zipfile.ZipFile(here(PLANTED)) as archive:
        names = [name for name in archive.namelist() if name.endswith(".txt")]
        rows = [{"id": Path(name).stem, "text": archive.read(name).decode("utf-8", "replace")} for name in names]
    made, gone = found(rows, {"text": {}, "minhash": {}}, tmp_path)
    planted = {f"file{number:02d}" for number in range(50)}
    removed, standing = set(gone["id"].to_list()), set(gone["representative_id"].to_list())
    assert planted <= removed | standing
    assert len(removed - planted) <= 1
    assert made.accounts.kept == len(rows) - len(removed)


def marked(part: str) -> list[dict[str, str]]:
    """The documents of an input of another system's deduplication."""
    with tarfile.open(here(MARKED)) as archive:
        names = sorted(name for name in archive.getnames() if part in name and name.endswith(".parquet"))
        frames = [pl.read_parquet(archive.extractfile(name).read()) for name in names]  # type: ignore[union-attr]
    text = next(name for name in ("contents", "document") if name in frames[0].columns)
    identity = next(name for name in frames[0].columns if "id" in name and name != text)
    rows = pl.concat([frame.select(identity, text).cast(pl.String) for frame in frames])
    return [{"id": row[0], "text": row[1]} for row in rows.iter_rows()]


def test_exact_copies_that_another_system_marks_are_those_that_fall(tmp_path: Path) -> None:
    rows = marked("ededup/test-data/input/")
    left = marked("ededup/test-data/expected/")
    made, _ = found(rows, {"text": {}}, tmp_path)
    assert (made.accounts.documents, made.accounts.kept) == (len(rows), len(left))
