"""Recipes: what is wrong is named with file, line and the nearest right name; what a recipe is bears its hash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from filters import catalogue
from filters.errors import RecipeError, ResourceMissing
from infra.commands import WARM_PAGE
from pipelines.decide import Decider, check_here
from pipelines.recipe import Extract, Language, Recipe, load_recipe, parse_recipe, recipe_names
from pipelines.record import Page

GOOD = """\
name: mine
says: a recipe for a test
steps:
  - extract: {engine: resiliparse}
  - language: {keep: [en]}
  - rules:
      families: [gopher_quality]
      set:
        gopher_quality.words_low: {low: 40}
"""


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed("says:", "sais:"), "mine.yaml:2: unknown key 'sais' in the recipe; did you mean 'says'?"),
        (changed("says:", "sais:"), "says is missing"),
        (changed("keep:", "kep:"), "mine.yaml:5: unknown key 'kep' in steps.2.language; did you mean 'keep'?"),
        (changed("resiliparse", "reziliparse"), "mine.yaml:4: steps.1.extract.engine"),
        (changed("[gopher_quality]", "[gopher_qualitty]"), "did you mean 'gopher_quality'?"),
        (changed("[gopher_quality]", "[gopher_qualitty]"), "mine.yaml:6: steps.3.rules"),
        (changed("words_low:", "words_lo:"), "did you mean 'gopher_quality.words_low'?"),
        (changed("low: 40", "low: forty"), "mine.yaml:9: steps.3.rules.set.gopher_quality.words_low.low"),
        (changed("keep: [en]", "keep: en"), "mine.yaml:5: steps.2.language.keep"),
        (changed("  - language", "  - langauge"), "unknown key 'langauge' in steps.2; did you mean 'language'?"),
        (GOOD + "steps: []\n", "mine.yaml:10: a key is a single word, given once ('steps')"),
        (changed("[en]", "&a [en]"), "mine.yaml:5: anchors and aliases are not read"),
        (changed("a recipe for", "!!python/object:os.system"), "mine.yaml:2: the tag"),
        (changed("says: a", "says: [a"), "mine.yaml:3: not YAML"),
        ("", "mine.yaml: empty"),
        ("[" * 5000, "mine.yaml"),
        ("x" * (2 << 20), "a recipe has at most"),
        (
            changed("  - extract: {engine: resiliparse}\n", "").replace("  - rules:", "  - gate: {}\n  - rules:"),
            "a gate needs",
        ),
        (changed("  - language: {keep: [en]}\n", "  - language: {}\n  - language: {}\n"), "language stands 2 times"),
        (GOOD + "  - url: {}\n", "put them before rules and edit"),
        (changed("low: 40", "low: .nan"), "finite number"),
        (GOOD + "read: {statuses: [[200]]}\n", "read.statuses.1"),
        (GOOD + "read: {record_types: [respnse]}\n", "read.record_types.1"),
        (
            GOOD + "  - pattern: {name: p, regex: '(a)\\1'}\n",
            "mine.yaml:10: steps.4.pattern: RE2 does not read this regex",
        ),
        (GOOD + "  - pattern: {name: p, rgex: a}\n", "unknown key 'rgex' in steps.4.pattern; did you mean 'regex'?"),
        (GOOD + 2 * "  - pattern: {name: p, regex: a}\n", "two steps measure pattern.p"),
        (GOOD.replace("steps:\n", "steps:\n  - pattern: {name: p, regex: a}\n"), "put them before rules and edit"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse_recipe(text, where="mine.yaml")
    assert message in str(error.value)


def test_a_pattern_bounds_matches_or_matches_per_character_or_nothing() -> None:
    steps = ("high: 0}", "high: 0.5, per: character}", "per: character}")
    (first,), (second,), third = (
        parse_recipe(f"name: a\nsays: b\nsteps:\n  - pattern: {{name: p, regex: a, {step}\n", where="a.yaml").rules
        for step in steps
    )
    assert (first.name, first.signal.name, first.bounds) == ("pattern.p", "pattern.p", "(-∞, 0]")
    assert (second.name, second.signal.name, second.bounds) == ("pattern.p", "pattern.p_per_character", "(-∞, 0.5]")
    assert third == ()


def test_extraction_after_language_is_refused() -> None:
    text = "name: a\nsays: b\nsteps:\n  - language: {}\n  - extract: {engine: resiliparse}\n"
    with pytest.raises(RecipeError, match="put extract before them"):
        parse_recipe(text, where="a.yaml")


def test_a_recipe_file_is_read_and_its_bounds_take_the_place_of_the_papers(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD)
    recipe = load_recipe(str(tmp_path / "mine.yaml"))
    (low,) = [rule for rule in recipe.rules if rule.name == "gopher_quality.words_low"]
    assert low.low == 40
    assert next(rule for rule in catalogue.FAMILIES[1].rules if rule.name == low.name).low == 50


def test_a_rule_can_be_left_out() -> None:
    text = changed(
        "      set:\n        gopher_quality.words_low: {low: 40}", "      without: [gopher_quality.words_low]"
    )
    names = [rule.name for rule in parse_recipe(text, where="a").rules]
    assert "gopher_quality.words_low" not in names
    assert "gopher_quality.words_high" in names


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_comes_with_us_loads_by_its_name(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.deviations
    assert len({rule.name for rule in recipe.rules}) == len(recipe.rules) > 20
    language = recipe.step(Language)
    assert isinstance(language, Language)
    assert language.keep == ["en"]


def test_fineweb_is_the_parity_profile_and_a_wrong_name_finds_the_nearest() -> None:
    assert load_recipe("fineweb").name == "fineweb@datatrove-0.10"
    with pytest.raises(RecipeError, match="did you mean 'fineweb'"):
        load_recipe("finweb")
    with pytest.raises(RecipeError, match=r"no/such\.yaml"):
        load_recipe("no/such.yaml")


def test_the_hash_is_of_what_bears_on_the_output_and_of_nothing_else() -> None:
    recipe = load_recipe("fineweb")
    said = recipe.model_dump(mode="json")
    renamed = Recipe.model_validate(said | {"name": "other", "says": "other", "target_bytes": 5})
    assert renamed.sha256 == recipe.sha256
    said["steps"][2]["language"]["above"] = 0.6
    assert Recipe.model_validate(said).sha256 != recipe.sha256


def test_bounds_that_differ_in_the_last_digit_are_another_recipe() -> None:
    hashes = {
        parse_recipe(changed("low: 40", f"low: {low}"), where="a").sha256
        for low in ("0.1234561", "0.1234562", "1000000", "1000001")
    }
    assert len(hashes) == 4


def test_the_extractors_version_is_part_of_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_recipe("fineweb").sha256
    monkeypatch.setattr(Extract, "engine_version", "trafilatura 99")
    assert load_recipe("fineweb").sha256 != before


def test_the_papers_thresholds_are_the_papers() -> None:
    bounds = {rule.name: rule.bounds for rule in load_recipe("fineweb@paper").rules if rule.name.startswith("fineweb")}
    assert bounds["fineweb_paper.char_dup_ratio"] in ("(-∞, 0.1)", "(-∞, 0.1]")
    assert bounds["fineweb_paper.line_punct_ratio"] == "(0.12, ∞)"
    assert bounds["fineweb_paper.short_line_ratio"] == "(-∞, 0.67)"


def test_datatroves_tokenizers_are_named_by_language_and_checked_before_a_run() -> None:
    text = "{name: t, says: t, steps: [{rules: {families: [fineweb2_fra_Latn], words: 'datatrove:%s'}}]}"
    assert parse_recipe(text % "fra_Latn", where="t").words == "datatrove:fra_Latn"
    with pytest.raises(RecipeError, match="fra_Latm.*fra_Latn"):
        parse_recipe(text % "fra_Latm", where="t")
    with pytest.raises(ResourceMissing, match="datatrove:jpn_Jpan lacks a package"):
        check_here(parse_recipe(text % "jpn_Jpan", where="t"))


def test_a_gate_before_the_url_is_refused() -> None:
    text = "{name: t, says: t, steps: [{gate: {}}, {url: {}}, {extract: {engine: resiliparse}}, {language: {}}]}"
    with pytest.raises(RecipeError, match="put url before gate"):
        parse_recipe(text, where="t")


def test_the_packages_of_every_splitter_bear_on_a_recipe() -> None:
    text = "{name: t, says: t, steps: [{rules: {families: [fineweb2_kor_Hang], words: 'datatrove:%s'}}]}"
    assert {"datatrove", "spacy"} <= set(parse_recipe(text % "fra_Latn", where="t").packages)
    plain = parse_recipe("{name: t, says: t, steps: [{rules: {families: [dolma]}}]}", where="t")
    assert "spacy" not in plain.packages  # the family has its own words


@pytest.mark.parametrize(
    "step",
    [
        "pattern: {name: shop, regex: x, low: 5, high: 3}",
        "rules: {families: [gopher_quality], set: {gopher_quality.words_low: {low: 30, high: 10}}}",
    ],
)
def test_bounds_that_nothing_passes_are_refused(step: str) -> None:
    with pytest.raises(RecipeError, match="which is nothing: low lies above high"):
        parse_recipe(f"{{name: t, says: t, steps: [{step}]}}", where="t")


def test_a_recipe_without_extractor_meets_no_html(make_page: Callable[..., str]) -> None:
    recipe = parse_recipe("{name: t, says: t, steps: [{rules: {families: [ccnet]}}]}", where="t")
    with pytest.raises(RecipeError, match="no extract step"):
        Decider(recipe).decide([replace(Page(**WARM_PAGE), text=make_page(1))])
