"""How two recipes differ, and which documents of a run change sides between them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from infra.cli import main
from infra.commands import run_recipe
from infra.look import rows_of
from infra.run import Finished
from infra.sides import sides
from pipelines.recipe import Recipe, load_recipe, parse_recipe
from pipelines.recipe_diff import RecipeDiff, recipe_diff
from tests.conftest import page_html, warc_record

BASE = """
name: base
says: base
steps:
  - extract: {engine: resiliparse}
  - language: {model: lid.176.ftz, keep: [en], above: 0.65}
  - rules: {families: [gopher_quality], words: unicode_words}
  - edit: {name: c4_lines, words: unicode_words}
  - rules: {families: [c4, fineweb], words: unicode_words}
"""
GERMAN = "<html><body><p>" + "Die Mühle steht am Fluss, und niemand weiß, wer sie gebaut hat. " * 20


def recipe(*changes: tuple[str, str]) -> Recipe:
    text = BASE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_recipe(text, where="base.yaml")


def rule_changes(found: RecipeDiff) -> dict[str, tuple[str | None, str | None, tuple[str, ...]]]:
    return {
        (pair.first or pair.second).rule.name: (  # type: ignore[union-attr]
            pair.first.rule.bounds if pair.first else None,
            pair.second.rule.bounds if pair.second else None,
            pair.changed,
        )
        for pair in found.rules
    }


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pages = [page_html(number, sentences=5 * (1 + number % 6)) for number in range(24)] + [GERMAN] * 3
    path = tmp_path_factory.mktemp("diff") / "pages.warc.gz"
    path.write_bytes(b"".join(warc_record(number, body.encode()) for number, body in enumerate(pages)))
    return path


def run(made_of: Recipe, crawl: Path, out: Path, *, annotate: bool = False) -> Finished:
    return run_recipe(made_of, [str(crawl)], out, runner="inprocess", quiet=True, annotate=annotate)


@pytest.fixture(scope="module")
def made(crawl: Path) -> Finished:
    return run(recipe(), crawl, crawl.parent / "out", annotate=True)


def test_a_recipe_is_the_same_as_itself_whatever_its_name_and_prose() -> None:
    found = recipe_diff(recipe(), recipe(("name: base", "name: other"), ("says: base", "says: something else")))
    assert found.same
    assert (found.settings, found.steps, found.rules, found.reordered) == ((), (), (), False)
    assert found.equal_rules == len(recipe().rules)


def test_bounds_that_move_and_rules_left_out_are_told() -> None:
    other = recipe(
        ("above: 0.65", "above: 0.5"),
        (
            "[gopher_quality],",
            "[gopher_quality], set: {gopher_quality.words_low: {low: 30}}, without: [gopher_quality.hash_ratio],",
        ),
    )
    found = recipe_diff(recipe(), other)
    assert not found.same
    assert rule_changes(found) == {
        "language.wanted": ("(0.65, ∞)", "(0.5, ∞)", ("bounds",)),
        "gopher_quality.words_low": ("[50, ∞)", "[30, ∞)", ("bounds",)),
        "gopher_quality.hash_ratio": ("(-∞, 0.1]", None, ()),
    }
    assert found.steps == ()


def test_rules_of_another_family_stand_beside_those_they_replace() -> None:
    found = rule_changes(recipe_diff(recipe(), recipe(("[c4, fineweb]", "[c4, fineweb_paper]"))))
    assert found["fineweb.short_line_ratio"] == ("(-∞, 0.67]", "(-∞, 0.67)", ("rule", "bounds"))  # open there
    assert found["fineweb.char_dup_ratio"] == ("(-∞, 0.01]", "(-∞, 0.1)", ("rule", "bounds"))
    assert found["fineweb.list_ratio"][1] is None


def test_steps_words_and_settings_are_told() -> None:
    other = recipe(
        ("{engine: resiliparse}", "{engine: trafilatura, favor_precision: false}"),
        ("  - edit: {name: c4_lines, words: unicode_words}\n", ""),
        ("says: base", "says: base\ntokenizer: null"),
    )
    found = recipe_diff(recipe(), other)
    said = {(one.where, one.what) for one in (*found.settings, *found.steps)}
    assert {
        ("recipe", "tokenizer"),
        ("extract", "engine"),
        ("extract", "favor_precision"),
        ("edit c4_lines", "step"),
    } <= said
    changed = rule_changes(found)
    assert "view" in changed["fineweb.list_ratio"][2]
    assert "gopher_quality.words_low" not in changed


def test_another_order_is_told() -> None:
    found = recipe_diff(recipe(), recipe(("[c4, fineweb]", "[fineweb, c4]")))
    assert found.reordered
    assert found.rules == ()
    assert not found.same


def test_documents_that_change_sides_are_those_of_two_runs(made: Finished, crawl: Path, tmp_path: Path) -> None:
    strict = recipe(("[gopher_quality],", "[gopher_quality], set: {gopher_quality.words_low: {low: 120}},"))
    loose = recipe(("above: 0.65", "above: 0.0"), ("[c4, fineweb]", "[c4]"), ("[gopher_quality]", "[]"))
    found = sides(made, strict, loose, ("strict", "loose"), show=1_000)
    assert found.changes is not None
    kept = [
        {row["id"] for row in rows_of(run(one, crawl, tmp_path / name), "dataset")}
        for name, one in (("strict", strict), ("loose", loose))
    ]
    assert (found.changes.before.documents, found.changes.after.documents) == (len(kept[0]), len(kept[1]))
    assert {one.id for one in found.changes.gained_examples} == kept[1] - kept[0] != set()
    assert {one.id for one in found.changes.lost_examples} == kept[0] - kept[1]
    assert {"gopher_quality.words_low"} <= found.changes.held.keys()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{engine: resiliparse}", "{engine: trafilatura}", "its step `extract` is another"),
        ("keep: [en]", "keep: [de]", "its step `language` is another"),
        ("[gopher_quality]", "[gopher_quality, gopher_repetition]", "gopher_repetition.dup_para_frac"),
        ("[c4, fineweb], words: unicode_words", "[c4, fineweb], words: punkt_english", "fineweb.lines@c4_lines"),
        ("says: base", "says: base\nread: {media_types: [text/plain]}", "it reads other documents"),
        ("  - extract: {engine: resiliparse}\n", "", "its step `extract` is another"),
    ],
)
def test_what_is_not_measured_as_the_recipe_would_is_named_with_the_run(
    made: Finished, crawl: Path, old: str, new: str, said: str
) -> None:
    found = sides(made, recipe(), recipe((old, new)), ("a.yaml", "b.yaml"))
    assert found.changes is None
    assert any(one.startswith("b.yaml: ") and said in one for one in found.missing), found.missing
    assert not any(one.startswith("a.yaml") for one in found.missing)
    assert list(found.rerun) == [f"gristmill run b.yaml -i {crawl} -o {made.store.url}-2 --annotate"]


def test_limits_of_the_parser_change_no_number(made: Finished) -> None:
    wider = recipe(("{engine: resiliparse}", "{engine: resiliparse, limits: {deadline_seconds: 99}}"))
    assert sides(made, recipe(), wider, ("a", "b")).missing == ()


def test_the_command_prints_and_gives_it_as_data(made: Finished, tmp_path: Path, monkeypatch, capsys) -> None:
    files = []
    for name, one in (("a", BASE), ("b", BASE.replace("above: 0.65", "above: 0.5"))):
        files.append(str(tmp_path / f"{name}.yaml"))
        Path(files[-1]).write_text(one)
    for more in ([], ["--on", made.store.url, "--workers", "2"]):
        for form in ([], ["--json"]):
            monkeypatch.setattr(sys, "argv", ["gristmill", "diff", *files, *more, *form])
            with pytest.raises(SystemExit) as end:
                main()
            assert not end.value.code
            said = capsys.readouterr().out
            if form:
                assert [one["first"]["bounds"] for one in json.loads(said)["rules"]] == ["(0.65, ∞)"]
                assert (json.loads(said)["on"] is None) == (not more)
            else:
                assert "(0.5, ∞)" in said
                assert ("gained" in said) == bool(more)


@pytest.mark.parametrize("other", ["fineweb@paper", "fineweb@release-2024-04", "fineweb-gated", "fineweb-resiliparse"])
def test_the_recipes_that_come_along_can_be_compared(other: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["gristmill", "diff", "fineweb", other])
    with pytest.raises(SystemExit):
        main()
    assert "rules are equal" in capsys.readouterr().out
    assert recipe_diff(load_recipe("fineweb"), load_recipe(other)).equal_rules > 5
