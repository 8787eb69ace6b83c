"""Annotate mode keeps every document with its signals, and keeps in the dataset what the fast mode keeps."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from filters.errors import InputError, RecipeError, VerifyFailed
from infra.commands import retry_quarantined, run_recipe
from infra.demo_crawl import build_demo_crawl
from infra.run import Finished, read_run
from infra.verify import verify
from pipelines.accounts import Accounts
from pipelines.recipe import Recipe, load_recipe, parse_recipe
from pipelines.signals import rule_columns, signals_schema, values_of

RESILIPARSE = load_recipe("fineweb-resiliparse")


def run(inputs: Sequence[Path | str], out: Path, *, recipe: Recipe = RESILIPARSE, **options: object) -> Finished:
    settings = {"runner": "inprocess", "quiet": True, "task_bytes": 1 << 20} | options
    return run_recipe(recipe, [str(one) for one in inputs], out, **settings)  # type: ignore[arg-type]


def decided(accounts: Accounts) -> Accounts:
    """The account without what depends on how far documents were measured."""
    return replace(accounts, failed={}, gate={}, raw_characters=0)


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo crawl: pages of every fate."""
    folder = tmp_path_factory.mktemp("annotate") / "crawl"
    folder.mkdir()
    build_demo_crawl(folder)
    return folder


@pytest.fixture(scope="module")
def annotated(crawl: Path) -> Finished:
    """The demo crawl, annotated with every signal."""
    return run([crawl], crawl.parent / "annotated", annotate=True, all_signals=True)


def gated() -> Recipe:
    """A gate and resiliparse: the quick way to meet every step."""
    said = load_recipe("fineweb-gated").model_dump(mode="json")
    for step in said["steps"]:
        if step["extract"] is not None:
            step["extract"]["engine"] = "resiliparse"
    return Recipe.model_validate(said)


@pytest.mark.parametrize("recipe", [RESILIPARSE, gated()], ids=["plain", "gated"])
def test_fast_and_annotate_mode_keep_the_same_documents_for_the_same_reasons(
    recipe: Recipe, crawl: Path, tmp_path: Path
) -> None:
    fast = run([crawl], tmp_path / "fast", recipe=recipe)
    slow = run([crawl], tmp_path / "slow", recipe=recipe, annotate=True)
    assert slow.dataset_sha256 == fast.dataset_sha256
    assert decided(slow.accounts) == decided(fast.accounts)
    assert slow.accounts.failed != fast.accounts.failed
    assert fast.files.keys() == slow.files.keys() - {"text", "signals"}


def tables(made: Finished, kind: str) -> pl.DataFrame:
    return pl.concat(
        pl.from_arrow(pq.read_table(Path(made.store.url) / entry.path, partitioning=None))  # type: ignore[misc]
        for entry in made.files[kind]
    )


def test_every_document_but_the_quarantined_has_its_text_and_its_signals(annotated: Finished) -> None:
    text, signals = tables(annotated, "text"), tables(annotated, "signals")
    accounts = annotated.accounts
    assert len(signals) == accounts.kept + sum(accounts.dropped.values())
    assert text["key"].equals(signals["key"])
    counted = dict(signals.filter(pl.col("outcome") == "dropped")["reason"].value_counts().iter_rows())
    assert counted == dict(accounts.dropped)
    assert signals["characters"].fill_null(0).sum() == text["text"].str.len_chars().sum() == accounts.raw_characters
    assert verify(annotated) > 0


def test_the_stored_signals_give_the_decisions_again(annotated: Finished) -> None:
    table = pq.read_table(Path(annotated.store.url) / "signals" / "part-00000.parquet", partitioning=None)
    rules = rule_columns(annotated.recipe)
    failed = np.array([~rule.passes(values_of(table.column(name))) for rule, name in rules])
    reasons = [rules[at][0].name if any_ else None for at, any_ in zip(failed.argmax(0), failed.any(0), strict=True)]
    assert reasons == table.column("reason").to_pylist()


def test_every_signal_that_the_schema_names_is_measured(annotated: Finished) -> None:
    signals = tables(annotated, "signals")
    schema = signals_schema(RESILIPARSE, all_signals=True)
    assert signals.columns == schema.names
    assert [name for name in signals.columns if signals[name].is_null().all()] == []
    stored = pq.read_schema(Path(annotated.store.url) / "signals" / "part-00000.parquet")
    assert stored.field("c4.sentences").metadata == schema.field("c4.sentences").metadata
    assert stored.field("fineweb.list_ratio@c4_lines").metadata[b"view"] == b"c4_lines"


def test_stored_signals_do_not_depend_on_how_the_work_was_cut(small_crawl: Path, tmp_path: Path) -> None:
    made = [run([small_crawl], tmp_path / str(size), task_bytes=size, annotate=True).files for size in (3_000, 1 << 20)]
    for kind in ("text", "signals", "dataset"):
        assert [entry.sha256 for entry in made[0][kind]] == [entry.sha256 for entry in made[1][kind]]


def test_parts_of_text_and_signals_hold_the_same_rows(small_crawl: Path, tmp_path: Path) -> None:
    small_parts = RESILIPARSE.model_copy(update={"target_bytes": 20_000})
    made = run([small_crawl], tmp_path / "out", recipe=small_parts, annotate=True)
    rows = [[entry.rows for entry in made.files[kind]] for kind in ("text", "signals")]
    assert len(rows[0]) > 2
    assert rows[0] == rows[1]
    signals = made.files["signals"]
    moved = replace(made, files={**made.files, "signals": (signals[1], signals[0], *signals[2:])})
    with pytest.raises(VerifyFailed, match="do not hold the same documents in one order"):
        verify(moved)


def test_a_document_dropped_before_its_text_was_refused_is_dropped_in_both_modes(
    write_warc: Callable[[str, list[bytes]], Path], make_page: Callable[..., str], tmp_path: Path
) -> None:
    deep = b"<html><body>" + b"<div>" * 6_000 + b"text" + b"</div>" * 6_000
    written = write_warc("pages.warc.gz", [make_page(0).encode(), deep, deep])
    members = [gzip.decompress(written.read_bytes())]
    unlisted, listed = b"https://mill.example/1\r\n", b"https://mill.example/porn-sex/\r\n"
    path = tmp_path / "listed.warc"
    path.write_bytes(members[0].replace(unlisted, listed))
    fast = run([path], tmp_path / "fast", allow_quarantined=True)
    slow = run([path], tmp_path / "slow", allow_quarantined=True, annotate=True)
    assert decided(fast.accounts) == decided(slow.accounts)
    assert fast.accounts.quarantined == {"nesting": 1}
    (dropped,) = tables(slow, "signals").filter(pl.col("outcome") == "dropped").to_dicts()
    assert dropped["reason"].startswith("url.")
    assert dropped["characters"] is None
    assert dropped["gopher_quality.words"] is None
    assert dropped["url.present"] == 1


def test_a_retry_adds_text_and_signals_in_order(
    write_warc: Callable[[str, list[bytes]], Path], make_page: Callable[..., str], tmp_path: Path
) -> None:
    recipe = RESILIPARSE.model_dump(mode="json")
    for step in recipe["steps"]:
        if step["extract"] is not None:
            step["extract"]["limits"]["max_elements"] = 60
    body = make_page(1).replace("<p>", "<p>" + "<b></b>" * 60, 1)
    path = write_warc("pages.warc.gz", [make_page(0).encode(), body.encode(), make_page(2).encode()])
    narrow = Recipe.model_validate(recipe)
    made = run([path], tmp_path / "out", recipe=narrow, annotate=True, allow_quarantined=True)
    assert made.accounts.quarantined == {"elements": 1}
    again = retry_quarantined(
        tmp_path / "out", deadline_seconds=60, memory_bytes=1 << 30, runner="inprocess", workers=None, quiet=True
    )
    assert again.accounts.quarantined == {"elements": 1}  # a retry widens time and memory, not the shape of pages
    assert verify(again) > 0
    assert len(tables(again, "signals")) == 2


def test_all_signals_without_annotate_is_refused(small_crawl: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--annotate"):
        run([small_crawl], tmp_path / "out", all_signals=True)


def test_one_signal_with_two_splitters_is_refused_before_the_run(small_crawl: Path, tmp_path: Path) -> None:
    text = """
name: two
says: two
steps:
  - extract: {engine: resiliparse}
  - rules: {families: [gopher_repetition], words: spacy_english}
  - rules: {families: [gopher_repetition_2024_04], words: unicode_words}
"""
    with pytest.raises(
        RecipeError, match="measures gopher_repetition.dup_para_frac with the words of spacy_english and of unicode"
    ):
        run([small_crawl], tmp_path / "out", recipe=parse_recipe(text, where="two.yaml"), annotate=True)


def test_a_finished_run_says_that_it_is_annotated(annotated: Finished) -> None:
    options = read_run(annotated.store).options
    assert (options.annotate, options.all_signals) == (True, True)


def test_a_text_above_the_limit_is_quarantined_by_size(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "a", "text": "' + "é" * 600 + '"}\n{"id": "b", "text": "' + "e" * 600 + '"}\n')
    recipe = parse_recipe(
        "{name: t, says: t, read: {max_text_bytes: 1000}, steps: [{rules: {families: [gopher_quality]}}]}", where="t"
    )
    made = run([rows], tmp_path / "out", recipe=recipe, allow_quarantined=True)
    assert made.accounts.quarantined == {"text_bytes": 1}
