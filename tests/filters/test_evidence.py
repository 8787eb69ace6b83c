"""The marked places of a text add up to the number that was measured."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters import c4, c4_t5, fineweb, gopher
from filters.batch import TextBatch
from filters.evidence import EVIDENCE, Passage, Span, evidence, located
from filters.rule import Family, Measured, Rule, Signal
from filters.splitter import WordSplitter
from filters.tokens import Lexicon
from pipelines.words import punkt_english, spacy_english, unicode_words

FAMILIES = (
    gopher.REPETITION,
    gopher.QUALITY,
    c4.QUALITY,
    c4_t5.QUALITY,
    c4_t5.PAPER_QUALITY,
    fineweb.QUALITY,
    gopher.REPETITION_2024_04,
    gopher.QUALITY_2024_04,
    fineweb.QUALITY_2024_04,
    fineweb.QUALITY_PAPER,
)
TEXTS = (
    "",
    " \n \n",
    "One line without an end\nOne line without an end\n\nOne line without an end",
    "the cat sat on the mat the cat sat on the mat the cat sat on the mat, and the cat sat on the mat again.",
    "# Heading #1 ...\n- a bullet that ends…\n• another ... \n\n\n- a bullet that ends…\n",
    "This site uses cookies today, please.\nTurn on JavaScript to read all this.\nLorem ipsum dolor sit amet.\n"
    "Write if (x) { return 5; } in code.\nThere is more lorem ipsum here.\nTwo words.",
    'He said "to be or not to be" and "to be" again; see [1] and [citation needed].\r\nTwo words.\r\nTwo words.\r\n',
    "a\x0bb\u2028c \u00a0 3 4 5 -- !! 3 4 5 -- !! 3 4 5 -- !!\n" * 3,
    f"{'x' * 1200} is a word of more than a thousand\nshort\n12 34 56 78\n12 34 56 78",
)
PIECES = ("the ", "cat ", "of", ". ", "...", "…", "\n", "\n\n", "#", "- ", "• ", "{", "12 ", "lorem ipsum ", "é", "“")


def measured(family: Family, text: str, splitter: WordSplitter) -> dict[str, Measured]:
    return dict(family.measure(TextBatch([text], Lexicon().vocabulary(splitter))))


def number(found: Measured, sums: str) -> int:
    assert found.numerator is not None
    if sums == "numerator":
        return int(found.numerator[0])
    assert found.denominator is not None
    return int(found.denominator[0]) - int(found.numerator[0])


def rules_of(family: Family) -> list[Rule]:
    """The rules, and one made up for every signal that has evidence and no rule."""
    bounded = {rule.signal.name for rule in family.rules}
    rest = [signal for signal in family.unruled if signal.name in EVIDENCE and signal.name not in bounded]
    return [*family.rules, *(stand_in(signal, family) for signal in rest)]


def stand_in(signal: Signal, family: Family) -> Rule:
    return Rule(name=signal.name, signal=signal, high=0, paper=family.rules[0].paper)


def check(text: str, splitter: WordSplitter) -> int:
    sums = 0
    for family in FAMILIES:
        values = measured(family, text, splitter)
        for rule in rules_of(family):
            found = evidence(rule, text, splitter)
            if found is None:
                continue
            how, spans = found
            assert all(0 <= span.start <= span.end <= len(text) for span in spans)
            if how.sums != "nothing":
                assert sum(span.adds for span in spans) == number(values[rule.signal.name], how.sums), rule.name
                sums += bool(spans)
    return sums


@pytest.mark.parametrize("splitter", [spacy_english, unicode_words, punkt_english])
def test_what_is_marked_adds_up_to_what_was_measured(splitter) -> None:
    assert sum(check(text, splitter()) for text in TEXTS) > 100


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
@settings(max_examples=60, deadline=None)
def test_it_adds_up_for_any_text(text: str) -> None:
    check(text, unicode_words())


def kinds_marked(text: str, family: Family, signals: Sequence[Signal]) -> dict[str, int]:
    splitter = unicode_words()
    found = {}
    for signal in signals:
        if (how := EVIDENCE.get(signal.name)) is not None and how.sums == "numerator":
            rule = stand_in(signal, family)
            found[signal.name] = sum(span.adds for span in how.spans(Passage(text=text, splitter=splitter, rule=rule)))
    return found


@pytest.mark.parametrize(
    ("edit", "family"),
    [(c4.LINES, c4.QUALITY), (c4_t5.LINES, c4_t5.QUALITY), (c4_t5.PAPER_LINES, c4_t5.PAPER_QUALITY)],
    ids=lambda one: one.name,
)
def test_lines_that_an_edit_drops_are_marked_by_their_reason(edit, family: Family) -> None:
    seen = set()
    for text in TEXTS:
        signals = edit.apply(TextBatch([text], Lexicon().vocabulary(unicode_words()))).signals
        marked = kinds_marked(text, family, edit.notices)
        for name, count in marked.items():
            assert count == int(signals[name].numerator[0]), (name, text)
        seen |= {name.split(".")[1] for name, count in marked.items() if count}
    assert {"lines_too_few_words", "lines_javascript", "lines_policy", "curly_bracket", "lorem_ipsum_first"} <= seen


def test_sentences_show_every_line_that_is_not_counted() -> None:
    text = "Two words.\nThis line stays as it is.\nWe use cookies on this site."
    (rule,) = [rule for rule in c4.QUALITY.rules if rule.name == "c4.sentences"]
    _, spans = evidence(rule, text, unicode_words()) or pytest.fail("there is evidence")
    assert [(text[span.start : span.end], span.label) for span in spans] == [
        ("Two words.", "line dropped for having fewer than 3 words"),
        ("We use cookies on this site.", "line dropped for a phrase of privacy or cookie policies"),
    ]


def test_the_top_gram_is_marked_at_all_its_places() -> None:
    text = "red fish, blue fish, red fish"
    (rule,) = [rule for rule in gopher.REPETITION.rules if rule.name.endswith("top_2_gram")]
    _, spans = evidence(rule, text, unicode_words()) or pytest.fail("there is evidence")
    assert [(span.start, span.end) for span in spans] == [(0, 8), (21, 29)]


def test_words_beyond_the_mean_that_a_rule_allows_are_marked() -> None:
    text = "an extraordinarily long word, !!!!!!!!!!!!"
    (rule,) = [rule for rule in gopher.QUALITY.rules if rule.name.endswith("mean_word_length_high")]
    _, spans = evidence(rule, text, unicode_words()) or pytest.fail("there is evidence")
    assert [text[span.start : span.end] for span in spans] == ["extraordinarily"]


def test_words_that_a_splitter_rewrote_are_found_where_they_stand() -> None:
    text = 'He said "to be" twice.'
    words = punkt_english().words([text])[0]
    assert "``" in words
    assert [text[start:end] for start, end, _ in located(words, text)] == [
        "He",
        "said",
        '"',
        "to",
        "be",
        '"',
        "twice",
        ".",
    ]


def test_a_number_that_no_place_makes_has_no_evidence() -> None:
    from filters import language

    assert evidence(language.IN_LANGUAGE, "some text", unicode_words()) is None
    assert Span(start=0, end=1, label="x").adds == 0
