"""The simplified text is datatrove 0.10.1's, and so are the words of its chunks, one by one."""

import sys
import time
import unicodedata
from itertools import product

import pytest
from datatrove.utils.text import PUNCTUATION as THEIR_PUNCTUATION
from datatrove.utils.text import simplify_text
from datatrove.utils.word_tokenizers import load_word_tokenizer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from filters.tokens import Vocabulary
from pipelines.dedup.simplified import BLANKS, MOVED, simplified, simplified_words
from pipelines.words import words_by_name
from tests.pipelines.dedup.hostile_texts import hostile

NAMED = [chr(point) for point in range(0x20000) if not 0xD800 <= point < 0xE000]  # planes 0 and 1
REST = [chr(point) for point in range(0x20000, sys.maxunicode + 1)]  # ideographs, tags and private use


@pytest.mark.parametrize("points", [NAMED, pytest.param(REST, marks=pytest.mark.full)], ids=["named", "rest"])
def test_every_character_is_simplified_as_datatrove_does(points: list[str]) -> None:
    for at in range(0, len(points), 1 << 12):
        text = "a".join(points[at : at + (1 << 12)])
        assert simplified(text) == simplify_text(text), f"from {ascii(points[at])}"


def test_the_punctuation_is_datatroves() -> None:
    assert {chr(point) for point in BLANKS} == set(THEIR_PUNCTUATION)


def test_every_character_that_nfd_puts_in_order_is_known() -> None:
    ordered = [one for one in NAMED if unicodedata.combining(one) and unicodedata.category(one) != "Mn"]
    assert len(ordered) > 20
    assert [one for one in ordered if not MOVED.match(one)] == []


@settings(max_examples=400, deadline=None)
@given(hostile)
@example("\U0001d165\u0301\U0001d16d\u0316\U0001d165")  # NFD puts some of these before others, and marks go
@example("\u302e\u034f\U00016ff0 \u0301 \u0301")
def test_hostile_texts_are_simplified_as_datatrove_does(text: str) -> None:
    assert simplified(text) == simplify_text(text)


@settings(max_examples=400, deadline=None)
@given(hostile)
@example("ΑΣ Α ΑΣ\u0301 \u0301Σ")  # the last sigma of a word is another letter
@example("1 , 5 1, 5 1 .5")
def test_a_text_is_simplified_chunk_by_chunk(text: str) -> None:
    by_chunk = [word for chunk in text.split() for word in simplified(chunk).split()]
    assert by_chunk == simplify_text(text).split()


@settings(max_examples=150, deadline=None)
@given(st.lists(hostile, max_size=3))
@example(["≮space≯ ‘s ‘ s ‘‘s s‘s ≮ space ≯ ≮space ≯ ≮space≯space≯ ‘s—s ‘—s"])
@example(["‘\u0301 \u0301 s", "‘s\x00s"])
def test_words_are_those_that_datatrove_makes_of_the_simplified_text(texts: list[str]) -> None:
    spacy = load_word_tokenizer("eng_Latn")
    encoded = Vocabulary(simplified_words(words_by_name("spacy_english"))).encode(texts)
    words = [encoded.table.words[code] for code in encoded.codes]
    ours = [words[first:last] for first, last in zip(encoded.offsets, encoded.offsets[1:], strict=False)]
    assert ours == [spacy.word_tokenize(simplify_text(text)) for text in texts]


@pytest.mark.parametrize("text", ["1 2", "Rose 3.5% to 1,024.50 in Q4", "٣٫٥ and ½ — 2024-06-01T10:30", "1ST 8am x2"])
def test_figures_stay_where_they_are_kept_and_all_else_is_simplified(text: str) -> None:
    kept = simplified(text, "keep")
    assert [one for one in kept if one.isdigit()] == [one for one in text if one.isdigit()]
    digits = {ord(one): "7" for one in text if unicodedata.category(one) == "Nd"}
    assert kept.translate(digits) == simplify_text(text.translate(digits).translate({ord("7"): "z"})).replace("z", "7")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(hostile, st.text("0123456789.,:-/ apmkx°%$", max_size=30)), max_size=3))
@example(["8am 10a.m. 5,6 0_o 8) 12:30 3x3 1e-5 $9.99 4th"])
def test_words_with_figures_are_those_of_each_chunk(texts: list[str]) -> None:
    spacy = load_word_tokenizer("eng_Latn")
    encoded = Vocabulary(simplified_words(words_by_name("spacy_english"), "keep")).encode(texts)
    words = [encoded.table.words[code] for code in encoded.codes]
    ours = [words[first:last] for first, last in zip(encoded.offsets, encoded.offsets[1:], strict=False)]
    assert ours == [spacy.word_tokenize(simplified(text, "keep")) for text in texts]


def test_special_cases_that_outlive_simplification_never_overlap() -> None:
    """Of overlapping matches only the longest counts, blanks in it or not: that is how chunks could change others."""
    import spacy

    tokenizer = spacy.blank("en").tokenizer
    left = set(simplify_text(" ".join(NAMED)))
    plain = type(tokenizer)(
        tokenizer.vocab,
        prefix_search=tokenizer.prefix_search,
        suffix_search=tokenizer.suffix_search,
        infix_finditer=tokenizer.infix_finditer,
        url_match=tokenizer.url_match,
    )
    cases = [case for case in tokenizer.rules if left.issuperset(case)]
    phrases = [words for case in cases if len(words := [token.text for token in plain(case)]) > 1]
    assert len(phrases) == 2
    overlaps = [
        (one, other)
        for one, other in product(phrases, phrases)
        for size in range(1, min(len(one), len(other)) + (one is not other))
        if one[-size:] == other[:size]
    ]
    assert overlaps == []


@pytest.mark.parametrize("text", ["a" + "\u0301\u0316" * 200_000, "\U0001d16d\U0001d165" * 100_000, "Σ" * 400_000])
def test_time_is_linear_in_the_length_of_a_text(text: str) -> None:
    started = time.process_time()
    simplified(text)
    assert time.process_time() - started < 5  # `unicodedata.normalize` takes two minutes for the first
