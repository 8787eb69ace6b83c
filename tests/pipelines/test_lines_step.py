"""A `lines` step is data: what may stand in it, what of it bears on the corpus, and what its rules judge."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from filters.batch import TextBatch
from filters.errors import RecipeError
from filters.rule import first_failing
from filters.tokens import Lexicon
from pipelines.decide import Decider
from pipelines.dedup import lines, paragraphs
from pipelines.dedup.lines import SETTINGS, Lines
from pipelines.recipe import Recipe, parse_recipe
from pipelines.record import Page, Position
from pipelines.signals import signal_columns, views
from pipelines.words import words_by_name


def recipe(*steps: Any) -> Recipe:
    """A recipe of these steps; a mapping with a `method` is a `lines` step."""
    said = [{"lines": step} if "method" in step else step for step in steps]
    return Recipe.model_validate({"name": "t", "says": "A test.", "steps": said, "tokenizer": None})


def pages(texts: Sequence[str]) -> list[Page]:
    return [
        Page(
            position=Position(offset=at),
            length=0,
            record_id=f"doc-{at}",
            url="",
            date="",
            text=text,
            is_html=False,
            digest=b"",
        )
        for at, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def texts(make_sentences: Callable[[int], str]) -> list[str]:
    """Texts of one to five paragraphs of few: many lose some, some lose all, and many are short."""
    rng = random.Random(1)
    some = make_sentences(3).split("\n") + ["One sentence alone.", "", "  ", "Two. Of them."]
    return ["\n".join(rng.choices(some, k=rng.randrange(1, 6))) for _ in range(60)] + ["", "One sentence."]


@pytest.mark.parametrize("method", SETTINGS)
def test_what_is_left_out_is_the_methods_and_survives_a_second_reading(method: str) -> None:
    step = Lines(method=method)  # type: ignore[arg-type]
    assert (step.expected, step.rate, step.words) == (
        SETTINGS[method].expected,
        SETTINGS[method].of.rate,
        SETTINGS[method].words,
    )
    assert step.of == SETTINGS[method].of
    exact = Lines(method=method, rate=None)  # type: ignore[arg-type]
    assert exact.rate is None
    assert [Lines.model_validate(one.model_dump(mode="json")) for one in (step, exact)] == [step, exact]
    assert step.memory <= 60_000_000


def test_a_rate_may_be_written_as_yaml_does_not_read_it() -> None:
    read = parse_recipe("{name: t, says: t, steps: [{lines: {method: dclm_bff, rate: 1e-3}}]}", where="t")
    assert read.step(Lines) == Lines(method="dclm_bff", rate=0.001)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("{method: dolma_paragraphs, words: spacy_english}", "needs no word splitter: leave `words` out"),
        ("{method: c4_spans, words: null}", "finds sentences by `words`"),
        ("{method: c4_spans, words: unicode_words}", "does not say where sentences end"),
        ("{method: c4_t5_paragraphs, words: spacy_englisch}", "spacy_english"),
        ("{method: dclm_bff, rate: 1e-30}", "A false-positive rate of 1e-30"),
        ("{method: dclm_bff, rate: 2}", "steps.1.lines.rate"),
        ("{method: dclm_bff, expected: 0}", "steps.1.lines.expected"),
        ("{method: ccnet_paragraphs}", "steps.1.lines.method"),
        ("{}", "steps.1.lines.method is missing"),
        ("[]", "steps.1.lines"),
    ],
)
def test_what_cannot_be_is_refused_by_name(step: str, said: str) -> None:
    with pytest.raises(RecipeError) as raised:
        parse_recipe(f"{{name: t, says: t, steps: [{{lines: {step}}}]}}", where="t")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("{lines: {method: dclm_bff}}, {lines: {method: c4_spans}}", "lines stands 2 times"),
        ("{lines: {method: dclm_bff}}, {language: {}}", "put them before rules and edit"),
        ("{dedup: {text: {}}}, {lines: {method: dclm_bff}}", "put dedup last"),
    ],
)
def test_it_stands_once_where_an_edit_may_stand(steps: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe(f"{{name: t, says: t, steps: [{steps}]}}", where="t")


def test_what_bears_on_the_corpus_is_its_identity_and_nothing_else() -> None:
    """Room for exact hashes is enough or an error; the size of a filter decides which hashes it takes for met."""

    def sha256(**step: Any) -> str:
        return recipe({"method": "dolma_paragraphs", **step}).sha256

    assert sha256(rate=None, expected=10) == sha256(rate=None, expected=20)
    different = [sha256(rate=None), sha256(), sha256(expected=10), sha256(rate=0.1)]
    different += [recipe({"method": name}).sha256 for name in ("c4_spans", "dclm_bff", "c4_t5_paragraphs")]
    different.append(recipe({"method": "c4_spans", "words": "datatrove:deu_Latn"}).sha256)
    assert len(set(different)) == len(different)


def test_another_revision_makes_another_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    before = recipe({"method": "c4_spans"}).sha256
    monkeypatch.setattr(lines, "REVISION", lines.REVISION + 1)
    assert recipe({"method": "c4_spans"}).sha256 != before


def test_it_makes_a_view_and_its_splitter_is_a_package() -> None:
    one = recipe({"method": "c4_spans"}, {"rules": {"families": ["ccnet"], "words": "unicode_words"}})
    assert [view for _, view in views(one)] == ["raw", "c4_spans"]
    assert {"spacy", "xxhash"} <= set(one.packages)
    assert "spacy" not in recipe({"method": "dclm_bff"}).packages
    assert {column.view for column in signal_columns(one) if not column.name.startswith("c4_spans.")} == {"c4_spans"}
    assert all(column.words == "" for column in signal_columns(recipe({"method": "dclm_bff"})))


@pytest.mark.parametrize("method", SETTINGS)
def test_bounds_on_the_stored_numbers_say_what_the_method_says(method: str, texts: list[str]) -> None:
    step = Lines(method=method, expected=100_000)  # type: ignore[arg-type]
    vocabulary = Lexicon().vocabulary(words_by_name(step.splitter))
    batch = TextBatch(texts, vocabulary)
    found = lines.edited(step, lines.begin(step), batch, "")
    wanted = paragraphs.failing(batch, found, step.of.rules)
    first, _ = first_failing(found.signals, step.rules, len(texts))
    assert first.tolist() == wanted.tolist()
    assert 0 < np.count_nonzero(wanted >= 0) < len(texts)
    assert found.signals.keys() == {signal.name for signal in step.notices}


def test_a_short_document_that_lost_nothing_is_kept() -> None:
    with Decider(recipe({"method": "c4_t5_paragraphs"})) as decider:
        decided = decider.decide(pages(["One sentence.", "Another.\nOne sentence.", ""]))
    assert decided.kept == [0, 2]
    assert decided.value[1] == 2  # sentences missing to three


@pytest.mark.parametrize("method", SETTINGS)
@pytest.mark.parametrize("size", [1, 7])
def test_batches_change_nothing(method: str, size: int, texts: list[str]) -> None:
    one = recipe({"method": method, "expected": 100_000})
    with Decider(one) as decider:
        whole = decider.decide(pages(texts))
        decider.begin_file("again")
        parts = [decider.decide(pages(texts[at : at + size])) for at in range(0, len(texts), size)]
    assert [text for part in parts for text in part.text] == whole.text
    assert [first for part in parts for first in part.first.tolist()] == whole.first.tolist()
    assert whole.text != texts


@pytest.mark.parametrize("method", SETTINGS)
@pytest.mark.parametrize("annotate", [False, True])
def test_a_batch_of_which_nothing_reaches_the_step_passes(method: str, annotate: bool) -> None:
    every = {"pattern": {"name": "every", "regex": "a", "high": 0}}
    with Decider(recipe(every, {"method": method}), annotate=annotate) as decider:
        assert decider.decide(pages(["a cat", "a hat"])).kept == []
        assert decider.decide([]).kept == []


def test_another_file_is_another_window() -> None:
    text = "A paragraph.\nAnd one more."
    with Decider(recipe({"method": "dolma_paragraphs"})) as decider:
        assert decider.decide(pages([text, text])).kept == [0]
        assert decider.decide(pages([text])).kept == []
        decider.begin_file("another")
        assert decider.decide(pages([text])).kept == [0]


def test_only_documents_that_no_rule_has_dropped_enter_the_window_in_both_modes(texts: list[str]) -> None:
    before = {"pattern": {"name": "alone", "regex": "alone", "high": 0}}
    after = {"pattern": {"name": "two", "regex": "Two", "high": 0}}
    one = recipe(before, {"method": "dolma_paragraphs"}, after)
    with Decider(one) as fast, Decider(one, annotate=True) as slow:
        quick, full = fast.decide(pages(texts)), slow.decide(pages(texts))
    kept = quick.kept
    assert kept == full.kept
    assert [quick.text[at] for at in kept] == [full.text[at] for at in kept]
    assert quick.first.tolist() == full.first.tolist()
    dropped = [at for at in range(len(texts)) if full.first[at] == 0]
    assert dropped
    assert all(full.text[at] == texts[at] for at in dropped)
    within, _ = full.measured["dolma_paragraphs.removed"]
    assert not set(dropped) & set(within.tolist())
    everywhere, missing = full.measured["dolma_paragraphs.missing_characters"]
    assert everywhere.tolist() == list(range(len(texts)))
    assert not missing.value[dropped].any()


def test_where_more_comes_than_was_expected_the_file_and_what_to_set_are_named() -> None:
    some = pages(["\n".join(f"Paragraph {at} of {number}." for at in range(10)) for number in range(10)])
    step = {"method": "dolma_paragraphs", "rate": None}
    with Decider(recipe({**step, "expected": 60})) as decider:
        decider.begin_file("crawl/a.jsonl")
        with pytest.raises(RecipeError, match=r"crawl/a\.jsonl has more than the 60 .*`expected: 120`"):
            decider.decide(some)
    with Decider(recipe({**step, "expected": 120})) as decider:
        assert len(decider.decide(some).kept) == 10


def test_a_document_is_replaced_in_its_place_and_the_pages_given_are_not_changed() -> None:
    given = pages(["Once.\nTwice.", "Twice.\nThrice."])
    with Decider(recipe({"method": "dolma_paragraphs"})) as decider:
        decided = decider.decide(given)
    assert decided.text == ["Once.\nTwice.", "Thrice."]
    assert decided.raw == [page.text for page in given] == ["Once.\nTwice.", "Twice.\nThrice."]
