"""What other bounds would keep, from the stored signals, is what a run with these bounds keeps."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest

from filters.errors import InputError, VerifyFailed
from infra.annotated import run_rules
from infra.cli import main
from infra.commands import run_recipe
from infra.look import rows_of
from infra.rule_report import rule_report
from infra.run import Finished
from infra.what_if import changed_rules, compared
from pipelines.recipe import Recipe, load_recipe
from tests.conftest import page_html, warc_record

GERMAN = "<html><body><p>" + "Die Mühle steht am Fluss, und niemand weiß, wer sie gebaut hat. " * 20
CODE = "<p>Write if (x) { return 5; } into the old mill's ledger and close the door behind you.</p>"
BLOCKED = "http://0-dix.com/1"


def at_url(record: bytes, url: str) -> bytes:
    """The record under another URL."""
    head, rest = gzip.decompress(record).split(b"\r\nWARC-Date", 1)
    head = head.split(b"\r\nWARC-Target-URI")[0] + f"\r\nWARC-Target-URI: {url}".encode()
    return gzip.compress(head + b"\r\nWARC-Date" + rest, mtime=0)


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pages = [page_html(number, sentences=5 * (1 + number % 6)) for number in range(24)]
    pages += [page_html(number).replace("</article>", f"{CODE}</article>") for number in range(24, 28)]
    pages += ["<html><body><p>Too short to keep.</p></body></html>"] * 3 + [GERMAN] * 4
    records = [warc_record(number, body.encode()) for number, body in enumerate(pages)]
    records.append(at_url(warc_record(50, page_html(50).encode()), BLOCKED))
    records.append(at_url(warc_record(51, ("<div>" * 6_000).encode()), BLOCKED))  # nothing can parse it
    path = tmp_path_factory.mktemp("whatif") / "pages.warc.gz"
    path.write_bytes(b"".join(records))
    return path


def run(recipe: Recipe, crawl: Path, out: Path, **options: bool) -> Finished:
    return run_recipe(recipe, [str(crawl)], out, runner="inprocess", quiet=True, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(crawl: Path) -> Finished:
    return run(load_recipe("fineweb-resiliparse"), crawl, crawl.parent / "out", annotate=True)


def typed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Run the command line in this process, and see that it ends well."""
    monkeypatch.setattr(sys, "argv", ["gristmill", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code


def ids(made: Finished) -> set[str]:
    return {row["id"] for row in rows_of(made, "dataset")}


def changed_recipe(recipe: Recipe, *, above: float, bounds: dict[str, dict[str, float]], without: list[str]) -> Recipe:
    said = recipe.model_dump(mode="json")
    for step in said["steps"]:
        if step["language"]:
            step["language"]["above"] = above
        if rules := step["rules"]:
            own = {rule.name for one in Recipe.model_validate(said).steps if one.rules for rule in one.rules.rules}
            own = {name for name in own if name.split(".")[0] in rules["families"]}
            rules["set"] = {name: moved for name, moved in bounds.items() if name in own}
            rules["without"] = [name for name in without if name in own]
    return Recipe.model_validate(said)


def test_it_keeps_what_a_run_with_these_bounds_keeps(made: Finished, crawl: Path, tmp_path: Path) -> None:
    asked = ["gopher_quality.words_low.low=120", "language.wanted.low=0.5", "c4.sentences.low=1"]
    then = changed_rules(made, bounds=asked, without=["c4.curly_bracket"])
    found = compared(made, run_rules(made), then, show=1_000)
    bounds = {"gopher_quality.words_low": {"low": 120.0}, "c4.sentences": {"low": 1.0}}
    recipe = changed_recipe(made.recipe, above=0.5, bounds=bounds, without=["c4.curly_bracket"])
    again = run(recipe, crawl, tmp_path / "again")
    assert found.before.documents == made.accounts.kept
    assert found.after.documents == again.accounts.kept
    assert {one.id for one in found.gained_examples} == ids(again) - ids(made)
    assert {one.id for one in found.lost_examples} == ids(made) - ids(again)
    assert found.gained.documents > 0
    assert found.lost.documents > 0
    assert {one.rule for one in found.lost_examples} == found.falls.keys() == {"gopher_quality.words_low"}
    assert sum(one.documents for one in found.held.values()) == found.gained.documents
    for one in found.lost_examples:
        assert one.value is not None
        assert one.value < 120


def test_without_a_rule_just_the_documents_come_that_it_drops_alone(made: Finished) -> None:
    report = rule_report(made)
    own = run_rules(made)
    gains = 0
    for at, (rule, _) in enumerate(own):
        found = compared(made, own, changed_rules(made, without=[rule.name]))
        assert found.gained.documents == report.removed[at, 2, 0], rule.name
        assert found.gained.characters == report.removed[at, 2, 1]
        assert found.lost.documents == 0
        gains += found.gained.documents
    assert gains > 0


def test_the_same_rules_change_nothing(made: Finished) -> None:
    own = run_rules(made)
    found = compared(made, own, changed_rules(made, bounds=["gopher_quality.words_low.low=50"]), show=3)
    assert found.before == found.after
    assert (found.gained.documents, found.lost.documents, found.held, found.falls) == (0, 0, {}, {})
    assert found.gained_examples == found.lost_examples == ()


def test_documents_that_were_dropped_before_they_had_a_text_are_counted_apart(made: Finished) -> None:
    blocked = [rule.name for rule, _ in run_rules(made) if rule.name.startswith("url.")]
    found = compared(made, run_rules(made), changed_rules(made, without=blocked), show=5)
    assert found.without_text == 1
    assert [one.url for one in found.gained_examples] == [BLOCKED]
    assert rule_report(made).without_text == 1


def test_a_rule_of_another_family_is_added_where_its_signal_is_stored(
    made: Finished, crawl: Path, tmp_path: Path
) -> None:
    then = changed_rules(made, added=["fineweb_paper.char_dup_ratio"], bounds=["fineweb_paper.char_dup_ratio.high=-1"])
    assert then[-1][1] == "fineweb.char_dup_ratio@c4_lines"
    found = compared(made, run_rules(made), then)
    assert found.after.documents == 0
    assert found.falls.keys() == {"fineweb_paper.char_dup_ratio"}
    with pytest.raises(InputError, match=r"gopher_quality\.stop_words_2024_04 is not stored") as refused:
        changed_rules(made, added=["gopher_quality_2024_04.stop_words"])
    assert "--annotate --all-signals" in str(refused.value)
    everything = run(made.recipe, crawl, tmp_path / "all", annotate=True, all_signals=True)
    (rule, column) = changed_rules(everything, added=["gopher_quality_2024_04.stop_words"])[-1]
    assert (rule.name, column) == ("gopher_quality_2024_04.stop_words", "gopher_quality.stop_words_2024_04")
    assert changed_rules(everything, added=["fineweb_paper.char_dup_ratio@raw"])[-1][1] == "fineweb.char_dup_ratio"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bounds": ["gopher_quality.word_low.low=3"]}, "did you mean 'gopher_quality.words_low'?"),
        ({"bounds": ["gopher_quality.words_low=3"]}, "say which bound of gopher_quality.words_low: RULE.low=3.5"),
        ({"bounds": ["gopher_quality.words_low.hihg=3"]}, "say which bound"),
        ({"bounds": ["gopher_quality.words_low.low"]}, "a bound is a number"),
        ({"bounds": ["gopher_quality.words_low.low=many"]}, "a bound is a number"),
        ({"bounds": ["gopher_quality.words_low.low=nan"]}, "To be rid of the rule: --without"),
        ({"bounds": ["gopher_repetition.top_2_gram.low=0.9"]}, "which is nothing"),
        ({"bounds": ["fineweb_paper.char_dup_ratio.high=1"]}, "Add it: --with fineweb_paper.char_dup_ratio"),
        ({"bounds": ["language.low=0.2"]}, "did you mean 'language.wanted'?"),
        ({"bounds": ["c4.sentences.low=1", "c4.sentences.low=1"]}, "c4.sentences.low is set twice"),
        ({"added": 2 * ["fineweb_paper.char_dup_ratio"]}, "fineweb_paper.char_dup_ratio is added twice"),
        ({"without": ["c4.curly_brackt"]}, "did you mean 'c4.curly_bracket'?"),
        ({"without": ["c4.sentences"], "bounds": ["c4.sentences.low=1"]}, "take one of them"),
        ({"added": ["c4.sentences"]}, "is a rule of this run already"),
        ({"added": ["c4.sentence"]}, "did you mean 'c4.sentences'?"),
        ({"added": ["fineweb_paper.char_dup_ratio@lines"]}, "the run has raw, c4_lines"),
    ],
)
def test_what_is_asked_wrongly_is_named_with_what_is_right(
    made: Finished, options: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(InputError) as refused:
        changed_rules(made, **options)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "key", ["extract.engine=trafilatura", "rules.words=unicode_words", "c4_lines=off", "tokenizer=none"]
)
def test_what_changes_the_texts_names_the_run_that_would_tell(made: Finished, crawl: Path, key: str) -> None:
    with pytest.raises(InputError) as refused:
        changed_rules(made, bounds=[key])
    assert f"gristmill run RECIPE.yaml -i {crawl} -o {made.store.url}-2 --annotate" in str(refused.value)


def test_signals_that_are_not_those_of_the_run_are_refused(made: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = changed_rules(made, bounds=["gopher_quality.words_low.low=120"])
    monkeypatch.setattr("infra.what_if.run_rules", lambda _: moved)
    with pytest.raises(VerifyFailed, match="do not keep what the run kept"):
        compared(made, moved, moved)


def test_the_command_prints_and_gives_it_as_data(made: Finished, monkeypatch, capsys) -> None:
    asked = ["whatif", made.store.url, "--set", "gopher_quality.words_low.low=120", "--without", "c4.curly_bracket"]
    typed(monkeypatch, *asked, "--show", "1", "--json")
    said = json.loads(capsys.readouterr().out)
    assert [(one["rule"], one["now"], one["then"]) for one in said["rules"]] == [
        ("gopher_quality.words_low", "[50, ∞)", "[120, ∞)"),
        ("c4.curly_bracket", "(-∞, 0]", None),
    ]
    assert (
        said["after"]["documents"]
        == said["before"]["documents"] + said["gained"]["documents"] - said["lost"]["documents"]
    )
    typed(monkeypatch, *asked, "--show", "1", "--workers", "2")
    shown = capsys.readouterr().out
    for words in (
        "kept now",
        "kept then",
        "left out",
        "gained, by the rule that held them back",
        "https://mill.example/",
    ):
        assert words in shown
