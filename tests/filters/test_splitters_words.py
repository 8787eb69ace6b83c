"""Words of UAX #29 against its own examples, and phrases against `in`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters import kernels_web, kernels_words
from filters.batch import TextBatch
from filters.characters import point_classes
from filters.phrases import phrases
from filters.splitter import WordSplitter
from filters.splitters_words import UAX29, UAX29_FIRST, WHITESPACE
from filters.tokens import Vocabulary
from filters.word_break import word_break_classes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('The quick (“brown”) fox can’t jump 32.3 feet, right?',
         ["The", "quick", "brown", "fox", "can’t", "jump", "32.3", "feet", "right"]),
        ("3,456.789 a.b a..b 1.a", ["3,456.789", "a.b", "a", "b", "1", "a"]),
        ("a1b_c_1 __ _a", ["a1b_c_1", "_a"]),
        ('צה"ל צה" א\'', ['צה"ל', "צה", "א'"]),
        ("カタカナ ひら 漢字", ["カタカナ", "ひ", "ら", "漢", "字"]),
        ("ไทย", ["ไ", "ท", "ย"]),
        ("e\u0301te\u0301 a\u00adb a\u200bb", ["e\u0301te\u0301", "a\u00adb", "a", "b"]),
        ("don't 'tis x:y a: b", ["don't", "tis", "x:y", "a", "b"]),
        ("½ ② 🎉 \x00 \ud800 -", ["½", "②"]),
        ("", []),
    ],
)  # fmt: skip
def test_words_are_those_of_unicode_text_segmentation(text: str, words: list[str]) -> None:
    assert [word for chunk in UAX29.words(text.split()) for word in chunk] == words


def test_a_word_that_begins_with_no_letter_or_digit_is_left_out_on_demand() -> None:
    assert UAX29_FIRST.words(["_a", "a_", "_1", "½"]) == [[], ["a_"], [], ["½"]]


@pytest.mark.parametrize("splitter", [WHITESPACE, UAX29, UAX29_FIRST], ids=lambda splitter: splitter.name)
@given(st.lists(st.text(), max_size=4))
def test_words_of_texts_are_those_of_their_chunks(splitter: WordSplitter, texts: list[str]) -> None:
    found = TextBatch(texts, Vocabulary(splitter)).tokens
    words = [[found.table.words[code] for code in found.codes[a:b]] for a, b in zip(found.offsets, found.offsets[1:])]  # noqa: B905
    assert words == [[word for chunk in splitter.words(text.split()) for word in chunk] for text in texts]


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("aZ1.,:'\" -_\nא漢カ\u0301"), max_size=30), min_size=1, max_size=4))
def test_words_are_counted_as_they_are_cut(texts: list[str]) -> None:
    values = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
    offsets = np.cumsum([0, *map(len, texts)])
    counts = kernels_words.word_totals(values, offsets[:-1], offsets[1:], word_break_classes(), point_classes())
    assert counts.tolist() == [len(words) for words in UAX29.words(texts)]


@settings(deadline=None)
@given(st.lists(st.text("aBc", min_size=1, max_size=4), min_size=1, max_size=5), st.text("aAbBcC d", max_size=40))
def test_a_phrase_is_found_where_it_occurs(wanted: list[str], text: str) -> None:
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    for any_case in (False, True):
        table = phrases(tuple(wanted), any_case=any_case)
        found = kernels_web.has_phrase(points, 0, len(text), table.symbols, table.steps, table.found)
        assert found == any((one.lower() in text.lower()) if any_case else (one in text) for one in wanted)
