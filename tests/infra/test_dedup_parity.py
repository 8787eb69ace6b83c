"""Unverified `components` with datatrove's survivor remove what the four stages of datatrove 0.10.1 remove."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import xxhash
from datatrove.data import Document
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.utils.hashing import HashConfig

from benchmarks.oracle import DATA
from infra.commands import run_recipe
from pipelines.recipe import Recipe

FILES = 5
REUTERS = DATA / "corpora" / "reuters21578.jsonl.gz"


def removed_by_datatrove(files: list[list[Mapping[str, Any]]], folder: Path, hash_name: str) -> set[str]:
    """The ids that datatrove's own stages remove, run one file a task."""
    config = MinhashConfig(hash_config=HashConfig(hash_fc=hash_name))
    for rank, rows in enumerate(files):
        signature = MinhashDedupSignature(str(folder / "signatures"), config=config)
        if hash_name == "xxhash":  # its own hands a str over, which xxhash 4 refuses
            signature._hash_func = lambda data: xxhash.xxh64_intdigest(data.encode())
        signature.run(documents(rows), rank, len(files))
    for rank in range(config.num_buckets):
        buckets = MinhashDedupBuckets(str(folder / "signatures"), str(folder / "buckets"), config=config)
        buckets.run(None, rank, config.num_buckets)
    MinhashDedupCluster(str(folder / "buckets"), str(folder / "clusters"), config=config).run(None, 0, 1)
    left = {
        document.id
        for rank, rows in enumerate(files)
        for document in MinhashDedupFilter(str(folder / "clusters")).run(documents(rows), rank, len(files))
    }
    return {row["id"] for rows in files for row in rows} - left


def documents(rows: Iterable[Mapping[str, Any]]) -> Iterable[Document]:
    return (Document(text=row["text"], id=row["id"]) for row in rows)


def removed_by_us(files: list[list[Mapping[str, Any]]], folder: Path, hash_name: str) -> set[str]:
    source = folder / "in"
    source.mkdir()
    for index, rows in enumerate(files):
        lines = (json.dumps({"id": row["id"], "text": row["text"]}) + "\n" for row in rows)
        (source / f"{index:02d}.jsonl").write_text("".join(lines))
    near = {"hash": hash_name, "mode": "components", "threshold": None, "survivor": "datatrove"}
    said = {"name": "parity", "says": "datatrove's.", "steps": [{"dedup": {"minhash": near}}], "tokenizer": None}
    out = folder / "out"
    run_recipe(Recipe.model_validate(said), [str(source)], out, runner="inprocess", quiet=True, task_bytes=200_000)
    found = [pl.read_parquet(path, columns=["id"]) for path in sorted((out / "duplicates").glob("*.parquet"))]
    return set(pl.concat(found)["id"].to_list())


def reuters(count: int | None) -> list[list[Mapping[str, Any]]]:
    """News wire with its real duplicates, dealt to files so that most copies lie in others."""
    if not REUTERS.exists():
        pytest.skip("the corpora of shared/data are not here")
    with gzip.open(REUTERS, "rt") as lines:
        rows = [json.loads(line) for line in lines][:count]
    return [rows[index::FILES] for index in range(FILES)]


@pytest.mark.parametrize("hash_name", ["xxhash", "sha1"])
def test_what_is_removed_of_news_wire_is_what_datatrove_removes(tmp_path: Path, hash_name: str) -> None:
    check(reuters(700), tmp_path, hash_name)


@pytest.mark.full
def test_what_is_removed_of_all_news_wire_is_what_datatrove_removes(tmp_path: Path) -> None:
    check(reuters(None), tmp_path, "xxhash")


def check(files: list[list[Mapping[str, Any]]], folder: Path, hash_name: str) -> None:
    ours = removed_by_us(files, folder, {"xxhash": "xxhash64"}.get(hash_name, hash_name))
    theirs = removed_by_datatrove(files, folder / "datatrove", hash_name)
    assert ours == theirs
    assert ours
