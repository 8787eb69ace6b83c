"""Annotate mode keeps every document with its signals, and keeps in the dataset what the fast mode keeps."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters import catalogue, redpajama
from filters.errors import InputError, RecipeError, VerifyFailed
from infra.commands import WARM_PAGE, retry_quarantined, run_recipe
from infra.demo_crawl import build_demo_crawl
from infra.run import Finished, read_run
from infra.store import open_store
from infra.verify import verify
from infra.work import ProcessTask
from pipelines.accounts import Accounts
from pipelines.decide import Decider
from pipelines.extract import Extracted
from pipelines.process import TaskOptions
from pipelines.recipe import Recipe, load_recipe, parse_recipe
from pipelines.record import Page
from pipelines.schema import write_parquet
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


@pytest.mark.full
@pytest.mark.parametrize("recipe", [pytest.param(RESILIPARSE, id="plain"), pytest.param(gated(), id="gated")])
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


def rows_recipe(*steps: str) -> Recipe:
    return parse_recipe(f"{{name: t, says: t, steps: [{', '.join(steps)}]}}", where="t.yaml")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"id": "{at}", "text": "{"word " * at}"}}\n' for at in range(40)))
    return path


def test_a_later_run_leaves_no_texts_and_signals_of_an_earlier_one(rows: Path, tmp_path: Path) -> None:
    recipe, out = rows_recipe("{rules: {families: [ccnet]}}"), tmp_path / "out"
    run([rows], out, recipe=recipe, annotate=True)
    assert (out / "signals").exists()
    made = run([rows], out, recipe=recipe)
    assert list(out.glob("signals/*")) == list(out.glob("text/*")) == []
    assert verify(made) > 0
    assert run([rows], out, recipe=recipe).done_now == 0


def test_parts_without_rows_are_packed_anew_for_other_signals(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f'{{"id": "a", "text": "{"e" * 600}"}}\n')
    for family in ("ccnet", "oscar"):
        recipe = rows_recipe(f"{{rules: {{families: [{family}]}}}}").model_copy(
            update={"read": RESILIPARSE.read.model_copy(update={"max_text_bytes": 100})}
        )
        made = run([rows], tmp_path / "out", recipe=recipe, annotate=True, allow_quarantined=True)
        names = pq.read_schema(tmp_path / "out" / "signals" / "part-00000.parquet").names
        assert any(name.startswith(f"{family}.") for name in names)
        assert made.accounts.quarantined == {"text_bytes": 1}


def task_id(recipe: Recipe, *, annotate: bool = True, all_signals: bool = False) -> str:
    options = TaskOptions(recipe=recipe, annotate=annotate, all_signals=all_signals)
    return ProcessTask(store=open_store("memory://t"), slices=(), options=options).id


def test_a_task_is_named_after_all_that_it_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = rows_recipe("{rules: {families: [redpajama]}}")
    before = [task_id(recipe), task_id(recipe, all_signals=True), task_id(recipe, annotate=False)]
    assert len(set(before)) == 3
    moved = replace(redpajama.QUALITY, unruled=tuple(replace(one, revision=9) for one in redpajama.QUALITY.unruled))
    everything = tuple(moved if family.name == moved.name else family for family in catalogue.FAMILIES)
    monkeypatch.setattr(catalogue, "FAMILIES", everything)
    assert task_id(recipe) not in before
    assert task_id(recipe, annotate=False) == before[2]


def test_row_groups_of_signals_per_line_are_bounded_by_their_items(tmp_path: Path) -> None:
    schema = pa.schema([("lines", pa.list_(pa.uint32()))])
    batch = pa.record_batch([pa.array([list(range(1_000_000))] * 40, schema.field("lines").type)], schema=schema)
    write_parquet(tmp_path / "lines.parquet", [batch], schema)
    assert pq.ParquetFile(tmp_path / "lines.parquet").num_row_groups == 5  # 8 MB a row, 64 MiB a group


class Slow:
    """A parser of which no page has a text within its deadline, unless the gate spares it."""

    def __init__(self, wanted: float) -> None:
        self.wanted = wanted

    def parse(self, html: str, *, despite_gate: bool = False) -> Extracted:
        if self.wanted < 0.1 and not despite_gate:
            return Extracted(gated=True, wanted=self.wanted)
        return Extracted(refused="deadline", detail="slow", timing_dependent=True)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("annotate", "sample", "asked"), [(True, 0.0, True), (False, 1.0, True), (False, 0.0, False)])
def test_a_deadline_that_a_gate_would_have_spared_quarantines_nothing_and_is_remembered(
    annotate: bool, sample: float, asked: bool, make_page: Callable[..., str]
) -> None:
    said = gated().model_dump(mode="json")
    said["steps"] = [step for step in said["steps"] if step["url"] is None]
    said["steps"][0]["gate"]["sample"] = sample
    page = replace(Page(**WARM_PAGE), text=make_page(1))
    decider = Decider(Recipe.model_validate(said), parser=Slow(0.01), annotate=annotate)  # type: ignore[arg-type]
    decided = decider.decide([page])
    assert decided.refused == {}
    assert decided.first.tolist() == [0]
    assert (decided.raw == [None]) == annotate
    assert decided.gate["stopped"] == 1
    assert decider.timing_dependent == asked
