"""datatrove's filters are used as they are: the same verdicts, for each document by itself, whatever the batch."""

from __future__ import annotations

import json
from typing import Any

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.filters.base_filter import BaseFilter

from filters.errors import RecipeError, ResourceMissing
from pipelines import datatrove_filter
from pipelines.datatrove_filter import Datatrove, filter_classes, verdicts
from pipelines.decide import Decider
from pipelines.recipe import Recipe, parse_recipe
from pipelines.signals import signal_columns
from tests.pages import pages

SENTENCE = "The old miller walked along the river and counted the wheels that turned before the bridge"
TEXTS = [
    "Too short.",
    "\n".join(f"{SENTENCE} number {at}." for at in range(8)),
    "\n".join([f"{SENTENCE}."] * 8),
    "\n".join(f"{SENTENCE} number {at}." for at in range(8)) + "\nNo end\nAccept cookies, please, or use cookies.",
    "# " * 60 + SENTENCE,
    " ".join(f"word{at}" for at in range(200)),
]


class Picky(BaseFilter):
    """Keeps texts with an even number of characters; some texts it cannot bear, and it judges four at a time."""

    name = "picky"

    def __init__(self, shout: bool = False, **more: int) -> None:
        super().__init__(batch_size=4)
        self.shout = shout

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        if "KeyError" in doc.text:
            raise KeyError("a text that it cannot bear")
        if "OSError" in doc.text:
            raise OSError("no route to host")
        if self.shout:
            doc.text = doc.text.upper()
        return len(doc.text) % 2 == 0 or (False, "odd")

    def filter_batch(self, batch: list[Document]) -> list[bool | tuple[bool, str]]:
        return [self.filter(doc) for doc in batch]


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Picky` as if a distribution had added it."""
    classes = {**filter_classes(), "Picky": Picky}
    monkeypatch.setattr(datatrove_filter, "filter_classes", lambda: classes)


def recipe_of(*steps: dict[str, Any]) -> Recipe:
    return parse_recipe(
        json.dumps(
            {"name": "a", "says": "b", "steps": [{"datatrove": step} for step in steps], "tokenizer": None}, indent=1
        ),
        where="a.yaml",
    )


@pytest.mark.parametrize(
    ("step", "oracle"),
    [
        ({"filter": "GopherQualityFilter"}, lambda: GopherQualityFilter()),
        (
            {"filter": "GopherQualityFilter", "args": {"min_doc_words": 100, "max_avg_word_length": None}},
            lambda: GopherQualityFilter(min_doc_words=100, max_avg_word_length=None),
        ),
        (
            {"filter": "GopherRepetitionFilter", "args": {"top_n_grams": [[2, 0.2]]}},
            lambda: GopherRepetitionFilter(top_n_grams=((2, 0.2),)),
        ),
    ],
)
def test_the_verdicts_are_the_filters_own(step: dict[str, Any], oracle: Any) -> None:
    judge = oracle()
    said = [judge.filter(Document(text=text, id="")) for text in TEXTS]
    expected = [at for at, one in enumerate(said) if one is True]
    with Decider(recipe_of(step), annotate=True) as decider:
        decided = decider.decide(pages(TEXTS))
    assert decided.kept == expected
    assert 0 < len(expected) < len(TEXTS)
    (column,) = signal_columns(decider.recipe)
    assert column.name == f"datatrove.{step['filter']}"
    rows, measured = decided.measured[column.name]
    assert rows[measured.value == 1].tolist() == expected


def test_the_text_that_a_filter_leaves_is_a_view_of_its_own() -> None:
    args = {"min_num_sentences": 2}
    recipe = recipe_of(
        {"filter": "C4QualityFilter", "name": "c4", "args": args, "rewrites": True},
        {"filter": "GopherQualityFilter", "args": {"min_doc_words": 10}},
    )
    with Decider(recipe) as decider:
        decided = decider.decide(pages(TEXTS))
    document = Document(text=TEXTS[3], id="")
    assert C4QualityFilter(**args).filter(document) is True
    assert decided.text[3] == document.text != TEXTS[3] == decided.raw[3]
    assert 0 not in decided.kept
    names = [column.name for column in signal_columns(recipe)]
    assert names == ["datatrove.c4", "datatrove.GopherQualityFilter@datatrove.c4"]


def test_a_filter_that_changes_texts_unannounced_ends_the_run_by_name(picky: None) -> None:
    recipe = recipe_of({"filter": "Picky", "args": {"shout": True}})
    with Decider(recipe) as decider, pytest.raises(RecipeError, match=r"datatrove\.Picky changed the text of <0>"):
        decider.decide(pages(["abcd"]))
    with Decider(recipe_of({"filter": "Picky", "args": {"shout": True}, "rewrites": True})) as decider:
        decided = decider.decide(pages(["abcd", "abc"]))
    assert decided.text == ["ABCD", "abc"]


@pytest.mark.parametrize("annotate", [False, True])
def test_a_document_at_which_a_filter_raises_is_quarantined_alone(picky: None, annotate: bool) -> None:
    texts = ["ab", "abc", "KeyError", "abcd", "ab", "KeyError", "abc"]
    with Decider(recipe_of({"filter": "Picky"}), annotate=annotate) as decider:
        decided = decider.decide(pages(texts))
    assert sorted(decided.refused) == [2, 5]
    assert decided.refused[2].refused == "filter_error"
    assert decided.refused[2].detail == "datatrove.Picky: KeyError: 'a text that it cannot bear'"
    assert decided.kept == [0, 3, 4]


def test_verdicts_do_not_depend_on_the_batch(picky: None) -> None:
    texts = ["ab", "abc", "KeyError", "abcd", "abcde"]
    documents = [{"text": text, "id": str(at)} for at, text in enumerate(texts)]
    judge = Datatrove(filter="Picky").made()
    whole = verdicts(judge, documents)
    assert whole == [verdict for one in documents for verdict in verdicts(judge, [one])]
    assert whole[::-1] == verdicts(judge, documents[::-1])


def test_what_a_filter_cannot_fetch_is_no_documents_fault(picky: None) -> None:
    with pytest.raises(ResourceMissing, match="no route to host"):
        verdicts(Datatrove(filter="Picky").made(), [{"text": "OSError", "id": ""}])


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"filter": "GopherQualitFilter"}, "did you mean 'GopherQualityFilter'?"),
        (
            {"filter": "GopherQualityFilter", "args": {"min_doc_word": 1}},
            "takes no 'min_doc_word'; did you mean 'min_doc_words'?",
        ),
        (
            {"filter": "GopherQualityFilter", "args": {"min_doc_words": "9"}},
            "takes int or NoneType for min_doc_words, not '9'",
        ),
        ({"filter": "GopherQualityFilter", "args": {"exclusion_writer": {}}}, "exclusion_writer is not for recipes"),
        ({"filter": "RegexFilter"}, "RegexFilter needs 'regex_exp' in args"),
        ({"filter": "C4QualityFilter"}, "say `rewrites: true`"),
        ({"filter": "C4BadWordsFilter", "args": {"keep_fraction": 0.5}}, "draws random numbers"),
        ({"filter": "LambdaFilter"}, "it takes code"),
        ({"filter": "SamplerFilter"}, "it draws random numbers"),
        ({"filter": "LanguageFilter"}, "use the `language` step"),
    ],
)
def test_what_cannot_be_is_refused_before_a_run_with_its_line(step: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipe_of(step)
    assert str(error.value).startswith("a.yaml:6: steps.1.datatrove: ")
    assert message in str(error.value)


def test_arguments_that_the_constructor_refuses_are_named() -> None:
    with pytest.raises(RecipeError, match=r"datatrove\.RegexFilter: RegexFilter cannot be made"):
        Decider(recipe_of({"filter": "RegexFilter", "args": {"regex_exp": "(a"}}))


def test_the_same_filter_twice_needs_two_names() -> None:
    with pytest.raises(RecipeError, match=r"the same rule stands twice: datatrove\.GopherQualityFilter"):
        recipe_of({"filter": "GopherQualityFilter"}, {"filter": "GopherQualityFilter"})
    recipe = recipe_of({"filter": "GopherQualityFilter"}, {"filter": "GopherQualityFilter", "name": "again"})
    assert [rule.name for rule in recipe.rules] == ["datatrove.GopherQualityFilter", "datatrove.again"]


def test_filter_arguments_and_datatroves_release_are_part_of_the_hash() -> None:
    one = recipe_of({"filter": "GopherQualityFilter"})
    other = recipe_of({"filter": "GopherQualityFilter", "args": {"min_doc_words": 51}})
    assert one.sha256 != other.sha256
    assert {"datatrove", "spacy"} <= set(one.packages)


def test_every_filter_of_datatrove_can_be_named_or_is_refused_with_a_reason() -> None:
    from datatrove.pipeline import filters

    public = {name for name, one in vars(filters).items() if isinstance(one, type) and issubclass(one, BaseFilter)}
    assert public == filter_classes().keys() | datatrove_filter.REFUSED.keys()
