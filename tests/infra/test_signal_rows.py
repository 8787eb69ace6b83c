"""The rows of signals/ are read as they were written, and counted the same by any number of processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.errors import VerifyFailed
from infra.annotated import parts, processes_for, run_rules
from infra.cli_thresholds import thresholds_json
from infra.commands import run_recipe
from infra.rule_removals import removals_of
from infra.rule_report import report_json, rule_report
from infra.run import Finished, read_run
from infra.side_changes import changes_of
from infra.signal_rows import NAMES, WEIGHTS, codes, groups, values, verdicts
from infra.store import open_store
from infra.thresholds import thresholds
from infra.what_if import changed_rules, compared, comparison_json
from pipelines.recipe import load_recipe, parse_recipe
from pipelines.signals import KINDS, values_of
from tests.conftest import page_html, warc_record

MOVED = ["gopher_quality.words_low.low=800"]
NUMBERS = st.one_of(st.none(), st.integers(0, 3), st.integers(0, 2**32 - 1))
RATIOS = st.one_of(st.none(), st.fixed_dictionaries({"n": NUMBERS, "d": NUMBERS}))
SCORES = st.one_of(st.none(), st.floats(width=32))


@pytest.fixture(scope="module")
def made(small_crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An annotated run of several parts."""
    recipe = load_recipe("fineweb-resiliparse")
    recipe = type(recipe).model_validate(recipe.model_dump(mode="json") | {"target_bytes": 20_000})
    out = tmp_path_factory.mktemp("rows") / "out"
    return run_recipe(recipe, [str(small_crawl)], out, runner="inprocess", quiet=True, annotate=True)


def whole(made: Finished) -> pa.Table:
    fixed = ["key", "id", "url", "domain", *NAMES, *WEIGHTS]
    wanted = [*fixed, *(name for _, name in run_rules(made))]
    return pa.concat_tables([table for part in parts(made) for table in groups(part, wanted)])


def both_groupings(made: Finished, workers: int) -> list[Any]:
    report = rule_report(made, domains=True, workers=workers)
    return [report_json(report, by=by, top=99) for by in ("language", "domain")]


REPORTS: dict[str, Callable[[Finished, int], Any]] = {
    "rules": both_groupings,
    "whatif": lambda made, workers: comparison_json(
        compared(made, run_rules(made), changed_rules(made, bounds=MOVED), show=5, workers=workers)
    ),
    "thresholds": lambda made, workers: thresholds_json(thresholds(made, sample=40, workers=workers)),
}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS.keys())
def test_two_processes_say_what_one_says(
    report: Callable[[Finished, int], Any], made: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(made.files["signals"]) > 2
    assert processes_for([made], 2) == 1, "they are not worth their start"
    alone = report(made, 2)
    monkeypatch.setattr("infra.annotated.PROCESS_ROWS", 1)
    assert processes_for([made], 2) == 2
    assert report(made, 2) == alone


@pytest.mark.parametrize("cuts", [[1], [7, 8], [20, 40], [59]])
def test_what_is_counted_adds(made: Finished, cuts: list[int]) -> None:
    table, before, after = whole(made), run_rules(made), changed_rules(made, bounds=MOVED)
    some = [table.slice(start, end - start) for start, end in zip([0, *cuts], [*cuts, table.num_rows], strict=True)]
    once = removals_of(table, verdicts(table, before))
    added = reduce(add, (removals_of(one, verdicts(one, before)) for one in some))
    for name in ("documents", "kept", "overlap", "removed", "without_text"):
        assert np.array_equal(getattr(added, name), getattr(once, name)), name
    assert added.languages.keys() == once.languages.keys()
    for first, second in ((before, after), (after, before)):
        changed, _ = changes_of(table, first, second, show=3)
        summed = reduce(add, (changes_of(one, first, second, show=3)[0] for one in some))
        for name in ("totals", "held", "falls", "without_text", "gained", "lost"):
            assert np.array_equal(getattr(summed, name), getattr(changed, name)), name
        assert len(changed.lost) + len(changed.gained) == 3 < changed.totals[3:, 0].sum()


def test_under_no_rules_everything_is_kept(made: Finished) -> None:
    table = whole(made)
    found = verdicts(table, ())
    assert found.kept.all()
    assert removals_of(table, found).kept.tolist() == removals_of(table, found).documents.tolist()
    changed, _ = changes_of(table, (), run_rules(made), show=1)
    assert (changed.totals[1, 0], changed.totals[2, 0]) == (table.num_rows, made.accounts.kept)


@given(
    st.one_of(
        st.lists(NUMBERS, max_size=20).map(lambda rows: pa.array(rows, KINDS["count"])),
        st.lists(RATIOS, max_size=20).map(lambda rows: pa.array(rows, KINDS["ratio"])),
        st.lists(SCORES, max_size=20).map(lambda rows: pa.array(rows, KINDS["score"])),
    ),
    st.integers(0, 20),
    st.integers(0, 20),
)
@settings(max_examples=200, deadline=None)
def test_values_are_those_that_the_run_saw(stored: pa.Array, start: int, cut: int) -> None:
    for column in (pa.chunked_array([stored.slice(start)]), pa.chunked_array([stored[:cut], stored[cut:]])):
        np.testing.assert_array_equal(values(column), values_of(column))


@given(
    st.lists(st.lists(st.sampled_from([None, "en", "de", "", "zh"]), min_size=1, max_size=6), min_size=1, max_size=3)
)
@settings(max_examples=50, deadline=None)
def test_codes_stand_for_the_names(chunks: list[list[str | None]]) -> None:
    found, names = codes(pa.chunked_array([pa.array(chunk, pa.string()).dictionary_encode() for chunk in chunks]))
    assert [names[code] for code in found] == [name for chunk in chunks for name in chunk]


NO_RULES = "name: none\nsays: none\ntokenizer: null\nsteps:\n  - extract: {engine: resiliparse}\n"
TWO_SIGNALS = "  - pattern: {name: mill, regex: mill}\n  - pattern: {name: river, regex: river, per: character}\n"


@pytest.mark.parametrize("kind", ["response", "request"])
def test_a_run_without_bounds_and_one_without_documents_have_nothing_to_remove(kind: str, tmp_path: Path) -> None:
    crawl = tmp_path / "a.warc.gz"
    crawl.write_bytes(b"".join(warc_record(number, page_html(number).encode(), kind=kind) for number in range(3)))
    recipe = parse_recipe(NO_RULES + TWO_SIGNALS, where="none.yaml")
    run = run_recipe(recipe, [str(crawl)], tmp_path / "out", runner="inprocess", quiet=True, annotate=True)
    documents = 3 if kind == "response" else 0
    report = rule_report(run, domains=True)
    assert report.documents[0] == report.kept[0] == documents
    assert report.removed[:, :, 0].sum() == 0
    rules = run_rules(run)
    assert compared(run, rules, rules, show=2).after.documents == documents
    assert {one.pool.count for one in thresholds(run, names=["pattern.mill"]).signals} == {documents}


def gone(path: Path) -> None:
    path.unlink()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def overwritten(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:100] + bytes(3000) + data[3100:])


def of_other_rows(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(1), path)


@pytest.mark.parametrize("damage", [gone, cut_short, overwritten, of_other_rows])
def test_a_part_that_is_not_what_was_written_is_named(
    made: Finished, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    copy = shutil.copytree(made.store.url, tmp_path / "copy")
    part = copy / "signals" / "part-00001.parquet"
    data = part.read_bytes()
    part.unlink()  # a link to what is committed
    part.write_bytes(data)
    damage(part)
    copied = read_run(open_store(copy))
    rules = run_rules(copied)
    for report in (rule_report, thresholds, lambda run: compared(run, rules, rules)):
        with pytest.raises(VerifyFailed, match=r"signals/part-00001\.parquet cannot be read"):
            report(copied)


def test_a_part_that_cannot_be_read_is_named_by_another_process(
    made: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.annotated.PROCESS_ROWS", 1)
    copy = shutil.copytree(made.store.url, tmp_path / "copy")
    gone(copy / "signals" / "part-00002.parquet")
    with pytest.raises(VerifyFailed, match=r"signals/part-00002\.parquet cannot be read"):
        rule_report(read_run(open_store(copy)), workers=2)


def test_processes_do_not_share_memory(made: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.annotated.PROCESS_ROWS", 1)
    assert processes_for([made, made], 3) == 3
    assert processes_for([made, replace(made, store=open_store("memory://rows/out"))], 3) == 1


def test_what_a_process_loads_before_it_counts_is_little() -> None:
    """Half a second and 30 MB of its own; with the recipes and what they need it is a second and 80 MB."""
    counting = "import sys, infra.rule_removals, infra.side_changes, infra.distributions, infra.processes"
    shown = [sys.executable, "-c", f"{counting}; print(*sys.modules)"]
    loaded = subprocess.run(shown, capture_output=True, text=True, check=True).stdout.split()
    assert "pyarrow.parquet" in loaded
    assert {"numba", "polars", "pydantic", "ray", "resiliparse"}.isdisjoint(loaded)
