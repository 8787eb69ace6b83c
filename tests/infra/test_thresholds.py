"""`gristmill thresholds`: what it says agrees with the run, and its page loads nothing and trusts no name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.errors import InputError, OutputError, VerifyFailed
from infra.cli_thresholds import thresholds_json
from infra.commands import run_recipe
from infra.distributions import QUANTILES
from infra.run import Finished, read_run
from infra.store import open_store
from infra.terminal import page_written
from infra.thresholds import thresholds
from infra.thresholds_page import thresholds_page, vega
from pipelines.recipe import load_recipe
from pipelines.signals import values_of


@pytest.fixture(scope="module")
def annotated(small_crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_recipe(
        load_recipe("fineweb-resiliparse"),
        [str(small_crawl)],
        tmp_path_factory.mktemp("thresholds") / "out",
        runner="inprocess",
        quiet=True,
        annotate=True,
    )


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory, make_sentences: Callable[[int], str]) -> Finished:
    """A reference: longer texts, all English."""
    folder = tmp_path_factory.mktemp("reference")
    rows = [json.dumps({"id": str(number), "text": make_sentences(number)}) for number in range(60)]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    recipe = load_recipe("fineweb-resiliparse").model_dump(mode="json")
    recipe["steps"] = [step for step in recipe["steps"] if step["url"] is None and step["extract"] is None]
    return run_recipe(
        load_recipe("fineweb-resiliparse").model_validate(recipe),
        [str(folder / "rows.jsonl")],
        folder / "out",
        runner="inprocess",
        quiet=True,
        annotate=True,
    )


def test_every_document_is_counted_once_for_every_signal(annotated: Finished) -> None:
    found = thresholds(annotated)
    assert found.documents == found.sampled == 60
    for one in found.signals:
        assert one.pool.count + one.pool.undefined + one.pool.missing == 60
    now = {bound.rule.name: bound.documents for one in found.signals for bound in one.rules}
    assert now["language.wanted"] == pytest.approx(annotated.accounts.failed["language.wanted"] / 60)
    assert set(now) == {rule.name for rule in annotated.recipe.rules}


def test_what_a_bound_removes_is_what_the_run_counted(annotated: Finished) -> None:
    failed = annotated.accounts.failed
    for one in thresholds(annotated).signals:
        for now in one.rules:
            removed = now.documents * (one.pool.count + one.pool.undefined)
            assert removed == pytest.approx(failed.get(now.rule.name, 0)), now.rule.name


def test_a_page_that_cannot_be_written_is_refused_before_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Choose another file"):
        page_written(tmp_path / "absent" / "page.html", lambda: pytest.fail("made for nothing"))


def test_a_damaged_file_of_signals_is_named(annotated: Finished, tmp_path: Path) -> None:
    copy = shutil.copytree(Path(annotated.store.url), tmp_path / "copy")
    part = copy / "signals" / "part-00000.parquet"
    size = part.stat().st_size
    part.unlink()
    part.write_bytes(bytes(size))
    with pytest.raises(VerifyFailed, match="gristmill verify"):
        thresholds(read_run(open_store(copy)), names=["gopher_quality.words"])


def test_a_sample_is_the_same_each_time_and_within_its_size(annotated: Finished) -> None:
    first, second = (thresholds(annotated, sample=20) for _ in range(2))
    assert first.sampled == second.sampled == 20
    assert [one.pool for one in first.signals] == [one.pool for one in second.signals]
    stored = pa.concat_tables(
        [pq.read_table(Path(annotated.store.url) / entry.path) for entry in annotated.files["signals"]]
    )
    smallest = stored.take(pa.array(sorted(range(60), key=stored.column("key").to_pylist().__getitem__)[:20]))
    for one in first.signals:
        numbers = values_of(smallest.column(one.column.name))
        numbers = numbers[~np.isnan(numbers)]
        assert one.pool.count == len(numbers)
        assert one.pool.quantiles == tuple(np.quantile(numbers, QUANTILES) if len(numbers) else ())


def test_a_sample_that_the_keys_expected_do_not_fill_is_drawn_again(
    annotated: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = thresholds(annotated, sample=20)
    monkeypatch.setattr("infra.thresholds.SIGMAS", -4)
    again = thresholds(annotated, sample=20)
    assert again.sampled == 20
    assert [one.pool for one in again.signals] == [one.pool for one in expected.signals]


def test_many_signals_are_looked_at_a_few_at_a_time(
    annotated: Finished, texts: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = thresholds_json(thresholds(annotated, texts))
    monkeypatch.setattr("infra.thresholds.COLUMNS", 7)
    assert thresholds_json(thresholds(annotated, texts)) == expected


def test_a_reference_is_compared_where_it_stores_the_same_signal(annotated: Finished, texts: Finished) -> None:
    found = thresholds(annotated, texts)
    assert {name for name in found.not_compared if not name.startswith("url.")} == {"extract.characters"}
    assert [one.distance for one in found.signals] == sorted((one.distance for one in found.signals), reverse=True)
    said = json.loads(json.dumps(thresholds_json(found)))
    assert {"distance", "proposals"} <= said["signals"][0].keys()


def test_a_run_without_signals_and_an_unknown_signal_are_refused_by_name(annotated: Finished) -> None:
    fast = replace(annotated, options=replace(annotated.options, annotate=False))
    with pytest.raises(InputError, match="--annotate"):
        thresholds(fast)
    with pytest.raises(InputError, match=r"gopher_quality\.words"):
        thresholds(annotated, names=["gopher_quality.word"])


def test_the_page_loads_nothing_and_trusts_no_name(annotated: Finished, texts: Finished) -> None:
    hostile = "</script><script>alert(1)</script>"
    page = thresholds_page(thresholds(annotated, texts), pool=hostile, reference=hostile).replace(vega(), "")
    assert hostile not in page
    assert re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", page) == []
    start = page.index('id="charts">') + len('id="charts">')
    charts = json.loads(page[start : page.index("</script>", start)])
    assert sorted(charts) == sorted(re.findall(r'class="chart" data-chart="(\d+)"', page))
    assert all(len(chart["hconcat"]) == 2 for chart in charts.values())


def test_a_signal_that_does_not_vary_is_its_value_and_no_empty_chart(annotated: Finished, texts: Finished) -> None:
    for reference in (None, texts):
        found = thresholds(annotated, reference)
        page = thresholds_page(found, pool="pool", reference=None if reference is None else "reference")
        shown = [one for one in found.signals if one.histogram is not None]
        constant = [one for one in shown if one.constant is not None]
        assert 0 < len(constant) < len(shown)
        assert page.count("<p>constant: ") == len(constant) == len(shown) - page.count('class="chart"')
    varies = [one for one in constant if one.pool.constant != (one.reference or one.pool).constant]
    assert varies == []
