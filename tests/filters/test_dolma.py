"""Dolma 1.6's numbers: those its own tests publish, and those of its tagger written down naively."""

from collections import Counter
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters import dolma
from filters.batch import TextBatch
from filters.splitters_words import WHITESPACE
from filters.tokens import Vocabulary

STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
WORDS = st.sampled_from(["the", "with", "The", "a", "bb", "ccc", "…", "#x", "-", "*", "12", "日本", "🎉", "x" * 300])
BLANKS = st.sampled_from([" ", " ", "\n", "\n\n", "\r\n", "\t", "\u2028"])
PROSE = st.lists(st.tuples(WORDS, BLANKS).map("".join), max_size=60).map("".join)


def values(text: str) -> dict[str, float]:
    signals = dolma.QUALITY.measure(TextBatch([text], Vocabulary(WHITESPACE)))
    return {name.removeprefix("dolma."): float(signal.value[0]) for name, signal in signals.items()}


def grams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]


def size(gram: tuple[str, ...]) -> int:
    return sum(map(len, gram))


def naive(text: str) -> dict[str, float]:
    words, lines = text.split(), text.split("\n")
    characters = sum(map(len, words))
    seen = Counter(lines)
    found = {
        "words": len(words),
        "median_word_length": median(map(len, words)),
        "symbol_ratio": sum("#" in word or "…" in word for word in words) / len(words),
        "alpha_word_ratio": sum(any(c.isalpha() for c in word) for word in words) / len(words),
        "required_words": sum(word in STOP_WORDS for word in words),
        "bullet_line_ratio": sum(line.startswith(("*", "-")) for line in lines) / len(lines),
        "ellipsis_line_ratio": sum(line.endswith("…") for line in lines) / len(lines),
        "dup_line_frac": sum(count for count in seen.values() if count > 1) / len(lines),
        "dup_line_char_frac": sum(len(line) * count for line, count in seen.items() if count > 1) / characters,
    }
    for n in range(2, 11):
        counts = Counter(grams(words, n))
        if n <= 4:
            [(gram, count)] = counts.most_common(1) or [((), 0)]
            found[f"top_{n}_gram"] = count * size(gram) / characters
        else:
            every = sum(size(gram) * count for gram, count in counts.items()) or 1
            found[f"dup_{n}_gram"] = sum(size(gram) * c for gram, c in counts.items() if c > 1) / every
    return found


@settings(deadline=None, max_examples=200)
@given(PROSE.filter(str.split))
def test_numbers_are_those_of_the_tagger(text: str) -> None:
    assert values(text) == naive(text)


# Figures of allenai/dolma, tests/python/test_gopher.py.
def test_a_short_text_has_the_numbers_dolma_publishes() -> None:
    found = values("This is a test.")
    published = {"top_2_gram": 0.5, "top_3_gram": 7 / 12, "top_4_gram": 1, "words": 4, "median_word_length": 3}
    assert {name: found[name] for name in published} == published
    assert found["symbol_ratio"] == found["required_words"] == found["dup_line_frac"] == found["dup_5_gram"] == 0
    assert found["alpha_word_ratio"] == 1


def test_a_text_of_lines_has_the_numbers_dolma_publishes() -> None:
    found = values("This is a sentence. \n  \n This is another sentence.\n\n  This is a third sentence.")
    published = {"top_2_gram": 18 / 59, "top_3_gram": 14 / 59, "top_4_gram": 16 / 59, "words": 13}
    assert {name: found[name] for name in published} == published
    assert found["median_word_length"] == 4
    assert all(found[f"dup_{n}_gram"] == 0 for n in range(5, 11))


@pytest.mark.parametrize(("text", "stop_words"), [("The.and.that", 0), ("The and that", 2)])
def test_stop_words_are_whole_words_in_lower_case(text: str, stop_words: int) -> None:
    assert values(text)["required_words"] == stop_words


def test_a_repeated_line_counts_at_all_its_places() -> None:
    found = values("a b c\nx\na b c\n\n\n")
    # Lines: a b c, x, a b c, and three empty ones that repeat; 7 letters in words, 10 characters in the two lines.
    assert found["dup_line_frac"] == 5 / 6
    assert found["dup_line_char_frac"] == 10 / 7


def test_overlapping_ngrams_each_count_in_full() -> None:
    assert values("a a a a a a b")["dup_5_gram"] == 10 / 15
    assert values("a a a a a a b")["top_2_gram"] == 10 / 7


@pytest.mark.parametrize("text", ["", " \n ", "\u2028"])
def test_a_text_without_words_fails_by_every_ratio_of_words(text: str) -> None:
    found = values(text)
    assert found["words"] == 0
    assert all(np.isnan(found[name]) for name in ("median_word_length", "symbol_ratio", "top_2_gram", "dup_10_gram"))
