"""What each rule removes is counted from the stored signals, agrees with the run's account, and is checked to."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.errors import InputError, VerifyFailed
from infra.cli import main
from infra.cli_signals import short
from infra.commands import run_recipe
from infra.rule_removals import added_up, first_losses
from infra.rule_report import DomainLosses, largest_overlaps, report_json, rule_report
from infra.run import Finished, read_run
from infra.store import open_store
from pipelines.recipe import load_recipe, parse_recipe
from pipelines.signals import rule_columns, values_of
from tests.conftest import page_html, warc_record

REPEATED = "<p>The same sentence stands here again and again, with no change at all.</p>" * 30
CODE = "<p>Write if (x) { return 5; } into the old mill's ledger and close the door behind you.</p>"


def bodies() -> list[str]:
    """Pages that many rules drop, alone and together."""
    pages = [page_html(number) for number in range(12)]
    pages += [page_html(number).replace("</article>", f"{CODE}</article>") for number in range(12, 16)]
    pages += [f"<html><body><article>{REPEATED}</article></body></html>"] * 3
    pages += [f"<html><body><article>{REPEATED}{CODE * 4}</article></body></html>"] * 2
    pages += ["<html><body><p>Too short to keep.</p></body></html>"] * 3
    pages += ["<html><body><p>" + "Die Mühle steht am Fluss, und niemand weiß, wer sie gebaut hat. " * 20] * 4
    return pages


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "pages.warc.gz"
    path.write_bytes(b"".join(warc_record(number, body.encode()) for number, body in enumerate(bodies())))
    return path


@pytest.fixture(scope="module")
def made(crawl: Path) -> Finished:
    recipe = load_recipe("fineweb-resiliparse")
    return run_recipe(recipe, [str(crawl)], crawl.parent / "out", runner="inprocess", annotate=True, quiet=True)


def typed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Run the command line in this process, and see that it ends well."""
    monkeypatch.setattr(sys, "argv", ["gristmill", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code


def stored(made: Finished) -> pa.Table:
    return pa.concat_tables([pq.read_table(Path(made.store.url) / entry.path) for entry in made.files["signals"]])


def test_each_count_is_that_of_the_documents_one_by_one(made: Finished) -> None:
    table, report = stored(made), rule_report(made)
    ruled = rule_columns(made.recipe)
    failed = [~rule.passes(values_of(table.column(name))) for rule, name in ruled]
    first, at_all, alone, pairs = Counter(), Counter(), Counter(), Counter()
    characters: Counter[int] = Counter()
    for document, size in enumerate(table.column("characters").to_pylist()):
        fails = [at for at in range(len(ruled)) if failed[at][document]]
        at_all.update(fails)
        pairs.update((a, b) for a in fails for b in fails)
        if fails:
            first[fails[0]] += 1
            characters[fails[0]] += size
        if len(fails) == 1:
            alone[fails[0]] += 1
    for at in range(len(ruled)):
        assert report.removed[at, :, 0].tolist() == [first[at], at_all[at], alone[at]]
        assert report.removed[at, 0, 1] == characters[at]
        assert report.overlap[at].tolist() == [pairs[at, other] for other in range(len(ruled))]
    assert sum(alone.values()) > 0
    assert sum(at_all.values()) > sum(first.values()) > sum(alone.values())
    assert report.documents[0] == table.num_rows == report.kept[0] + sum(first.values())


def test_languages_and_domains_add_up_to_the_whole(made: Finished) -> None:
    report = rule_report(made, domains=True)
    assert np.array_equal(sum(removed for removed, _ in report.languages.values()), report.removed)
    assert sum(seen for _, seen in report.languages.values()) == report.documents[0]
    assert {"en", "de"} <= report.languages.keys()
    assert report.domains is not None
    for at, found in enumerate(report.domains):
        assert sum(count for _, count in found) == report.removed[at, 0, 0]
    assert not any(report.domains_short_by)


def test_an_account_that_says_otherwise_is_refused(made: Finished) -> None:
    dropped = {**made.accounts.dropped, "language.wanted": made.accounts.dropped["language.wanted"] + 1}
    with pytest.raises(VerifyFailed, match=r"dropped by language\.wanted"):
        rule_report(replace(made, accounts=replace(made.accounts, dropped=dropped)))
    failed = {**made.accounts.failed, "c4.curly_bracket": 0}
    with pytest.raises(VerifyFailed, match=r"failing c4\.curly_bracket"):
        rule_report(replace(made, accounts=replace(made.accounts, failed=failed)))


def test_numbers_that_give_another_reason_are_refused(made: Finished) -> None:
    said = made.recipe.model_dump(mode="json")
    said["steps"][-1]["rules"]["set"] = {"c4.curly_bracket": {"low": None, "high": 9.0}}
    with pytest.raises(VerifyFailed, match=r"was dropped by c4\.curly_bracket, and by its stored signals it is kept"):
        rule_report(replace(made, recipe=type(made.recipe).model_validate(said)))


def test_without_a_tokenizer_tokens_are_unknown_and_not_zero(crawl: Path, tmp_path: Path) -> None:
    recipe = parse_recipe(
        "name: plain\nsays: plain\ntokenizer: null\nsteps:\n  - extract: {engine: resiliparse}\n"
        "  - rules: {families: [gopher_quality], words: unicode_words}\n",
        where="plain.yaml",
    )
    out = tmp_path / "out"
    made = run_recipe(recipe, [str(crawl)], out, runner="inprocess", annotate=True, quiet=True)
    said = report_json(rule_report(made), by="language", top=3)
    assert said["kept"]["tokens"] is None
    assert said["kept"]["characters"] > 0


def test_a_run_without_signals_names_the_command_that_makes_them(
    crawl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("fineweb-resiliparse")
    out = tmp_path / "fast"
    fast = run_recipe(recipe, [str(crawl)], out, runner="inprocess", quiet=True)
    with pytest.raises(InputError) as refused:
        rule_report(fast)
    command = str(refused.value).splitlines()[-1].strip()
    assert command.endswith("--annotate")
    typed(monkeypatch, *shlex.split(command)[1:], "--runner", "inprocess", "--quiet")
    again = read_run(open_store(out))
    assert again.dataset_sha256 == fast.dataset_sha256
    assert rule_report(again).documents[0] == fast.accounts.documents


def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    typed(monkeypatch, *arguments)
    return capsys.readouterr().out


def test_inspect_prints_and_gives_it_as_data(made: Finished, monkeypatch, capsys) -> None:
    out = made.store.url
    for by in ("language", "domain"):
        said: dict[str, Any] = json.loads(printed(monkeypatch, capsys, "inspect", out, "--rules", "--by", by, "--json"))
        (german,) = [one for one in said["rules"] if one["rule"] == "language.wanted"]
        assert german["first"]["documents"] == made.accounts.dropped["language.wanted"]
        assert german[f"{by}s"]
        assert len(said["overlap"]["documents"]) == len(said["overlap"]["rules"]) == len(said["rules"])
        shown = printed(monkeypatch, capsys, "inspect", out, "--rules", "--by", by, "--workers", "2")
        assert "language.wanted" in shown
        assert "rules that remove the same documents" in shown


def test_the_largest_overlaps_are_of_rules_that_do_the_same_work(made: Finished) -> None:
    report = rule_report(made)
    each = {rule.name: int(count) for (rule, _), count in zip(report.ruled, report.removed[:, 1, 0], strict=True)}
    found = largest_overlaps(report, 5)
    assert found
    for one, other, both, share in found:
        assert 0 < both <= each[one] <= each[other]
        assert share == both / each[one]


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 12)), max_size=200), st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_domains_beyond_the_bound_are_too_low_by_no_more_than_said(rows: list[tuple[int, int]], held: int) -> None:
    losses = DomainLosses(3, held=held)
    for start in range(0, len(rows), 7):
        part = rows[start : start + 7]
        domains = pa.chunked_array([pa.array([f"d{domain}" for _, domain in part], pa.string())])
        losses.add(first_losses(domains, np.array([rule for rule, _ in part], np.intp)))
        losses._compress()
    exact = Counter((rule, f"d{domain}") for rule, domain in rows if rule >= 0)
    for rule, found in enumerate(losses.most()):
        assert len(found) <= held
        counted = dict(found)
        for (of, domain), count in exact.items():
            if of == rule:
                assert 0 <= count - counted.get(domain, 0) <= losses.short_by[rule]


@given(st.lists(st.tuples(st.integers(-1, 2), st.sampled_from([None, "", "a", "b"])), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_domains_are_counted_by_the_rule_that_removed_first(rows: list[tuple[int, str | None]]) -> None:
    tables = [
        first_losses(
            pa.chunked_array([pa.array([domain for _, domain in part], pa.string())]), np.array(first, np.intp)
        )
        for part in (rows[start : start + 9] for start in range(0, len(rows), 9))
        for first in [[rule for rule, _ in part]]
    ]
    found = added_up(pa.concat_tables(tables)).to_pylist()
    counted = {(row["rule"], row["domain"]): row["documents"] for row in found}
    assert len(counted) == len(found)
    assert counted == Counter(row for row in rows if row[0] >= 0)


@pytest.mark.parametrize(
    ("count", "said"),
    [(None, "-"), (0, "0"), (9_999, "9,999"), (10_000, "10.0k"), (999_499, "999k"), (999_500, "1.00M")]
    + [(12_345_678, "12.3M"), (10**10, "10.0G"), (10**15, "1000T")],
)
def test_counts_are_short(count: int | None, said: str) -> None:
    assert short(count) == said
    assert len(said) <= 5
