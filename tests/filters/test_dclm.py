"""DCLM's numbers: the figures of its own tests, and its mappers written down naively."""

import random
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters import dclm, dolma, dolma3, madlad, refinedweb
from filters.batch import TextBatch
from filters.rule import first_failing
from filters.splitters_words import WHITESPACE
from filters.tokens import Vocabulary

STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
WORDS = st.sampled_from(["the", "With", "a", "bb", "ccc", "(a", "b).", "...", ". . .", "…", "#", "•", "12", "-", "*"])
BLANKS = st.sampled_from([" ", " ", "\n", "\n\n", "\n\n\n", "\n \n", "\r\n", "\t", "\u2028", "\x00 "])
PROSE = st.lists(st.tuples(WORDS, BLANKS).map("".join), max_size=60).map("".join)


def values(text: str) -> dict[str, float]:
    signals = dclm.QUALITY.measure(TextBatch([text], Vocabulary(WHITESPACE)))
    return {name.removeprefix("dclm."): float(signal.value[0]) for name, signal in signals.items()}


def gram_ratio(words: list[str], n: int) -> float:
    grams = [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
    counts = Counter(grams)
    most = max(counts.values(), default=0)
    if most < 2:
        return 0
    total = sum(map(len, words))
    if n <= 4:
        return most * max(sum(map(len, gram)) for gram, count in counts.items() if count == most) / total
    under = {place for at, gram in enumerate(grams) if counts[gram] > 1 for place in range(at, at + n)}
    return sum(len(words[place]) for place in under) / total


def repeats(parts: list[str]) -> tuple[float, float]:
    counts = Counter(parts)
    again = sum(count for count in counts.values() if count > 1) / len(parts)
    return again, sum(len(part) * count for part, count in counts.items() if count > 1) / sum(map(len, parts))


def filled(text: str, separator: str) -> list[str]:
    return [part for piece in text.split(separator) if (part := piece.strip())]


def naive(text: str) -> dict[str, float]:
    words, lines = text.split(), filled(text, "\n")
    tokens = re.split(r"[ \n\r\t\v\f\0]+", text)
    line_repeats, paragraph_repeats = repeats(lines), repeats(filled(text, "\n\n"))
    return {
        "words": sum(bool(token) and token[0].isalnum() for token in tokens),
        "mean_word_length": sum(map(len, words)) / len(words),
        "symbol_ratio": sum(text.count(mark) for mark in ("#", "...", ". . .", "…")) / len(words),
        "bullet_line_ratio": sum(line[0] in "●•*-" for line in lines) / len(lines),
        "ellipsis_line_ratio": sum(line.endswith(("...", ". . .", "…")) for line in lines) / len(lines),
        "non_alpha_word_ratio": sum(not any(map(str.isalpha, word)) for word in words) / len(words),
        "stop_words": sum(word.lower() in STOP_WORDS for word in words),
        "dup_line_frac": line_repeats[0],
        "dup_para_frac": paragraph_repeats[0],
        "dup_line_char_frac": line_repeats[1],
        "dup_para_char_frac": paragraph_repeats[1],
        **{f"top_{n}_gram": gram_ratio(re.findall(r"[a-zA-Z0-9]+", text), n) for n in range(2, 5)},
        **{f"dup_{n}_gram": gram_ratio(re.findall(r"[a-zA-Z0-9]+", text), n) for n in range(5, 11)},
    }


@settings(deadline=None, max_examples=200)
@given(PROSE.filter(str.split))
def test_numbers_are_those_of_the_mappers(text: str) -> None:
    assert values(text) == naive(text)


@pytest.mark.parametrize("distinct", [2, 30, 5000])
def test_ngrams_of_a_long_page_are_counted_as_those_of_a_short_one(distinct: int) -> None:
    # Long enough for the kernel to sort its keys into parts.
    rng = random.Random(distinct)
    words = [f"w{rng.randrange(distinct)}" for _ in range(20_000)]
    found = values(" ".join(words))
    assert [found[f"top_{n}_gram"] for n in (2, 3, 4)] == [gram_ratio(words, n) for n in (2, 3, 4)]
    assert [found[f"dup_{n}_gram"] for n in (5, 10)] == [gram_ratio(words, n) for n in (5, 10)]


def test_numbers_do_not_depend_on_the_batch() -> None:
    rng = random.Random(1)
    texts = ["", "\ud800 a", *("".join(rng.choices(["a ", "b\n", "c. ", "\n", "é "], k=200)) for _ in range(20))]
    families = (dolma.QUALITY, dclm.QUALITY, dolma3.QUALITY, dolma3.REMOVAL, refinedweb.QUALITY, madlad.QUALITY)
    shared = Vocabulary(WHITESPACE, max_chunks=3)
    for family in families:
        together = family.measure(TextBatch(texts, Vocabulary(WHITESPACE)))
        assert set(together) == {signal.name for signal in family.signals}
        for at in reversed(range(len(texts))):
            alone = family.measure(TextBatch([texts[at]], shared))
            for name, signal in together.items():
                np.testing.assert_equal(alone[name].value[0], signal.value[at], err_msg=name)


# Figures of mlfoundations/dclm, tests/baselines/mappers/filters/test_content_filters.py.
@pytest.mark.parametrize(
    ("text", "signal", "value"),
    [
        ("Hello\nHello\n\n\n\nHello", "dup_line_frac", 1),
        ("Hello, World.\nHello, World.\n\nHello", "dup_line_frac", 2 / 3),
        ("Hello, World.\nHello, World.\n\nHello", "dup_line_char_frac", 26 / 31),
        ("Hello, World.\n\nHello, World.\n\nHello, World.\nHello", "dup_para_frac", 2 / 3),
        ("Hello, World.\n\nHello, World.\n\nHello, World.\nHello", "dup_para_char_frac", 26 / 45),
        ("hello world hello world hello world", "top_2_gram", 1),
        ("hello      world hello apple.... world hello\n world hello", "top_2_gram", 30 / 40),
        ("hello      world hello apple.... world hello\n world hello", "top_3_gram", 30 / 40),
        ("hello      world hello apple.... world hello\n world hello", "top_4_gram", 0),
        ("a b a b a b ab cd ab cd ab cd abc def abc def", "top_2_gram", 12 / 30),
        ("a b a b a b abc def abc def ab cd ab cd ab cd", "top_2_gram", 12 / 30),
        ("hello world hello\n world hello. apple world hello world hello world hello world", "dup_5_gram", 60 / 65),
        ("Hello world. This is a test.", "words", 6),
        ("Mr. Smith bought 2.5 kilograms of fruit.", "words", 7),
        ("The best of the best", "stop_words", 3),
        ("Then Tom and Sally withheld bees", "stop_words", 1),
        ("The average word length is 4.33", "mean_word_length", 26 / 6),
        ("#hashtags and ellipses both count. . .", "symbol_ratio", 2 / 7),
        ("#hashtags and ellipses both count…", "symbol_ratio", 2 / 5),
        ("● one\n- two\n three", "bullet_line_ratio", 2 / 3),
        ("with . . .\n and without", "ellipsis_line_ratio", 1 / 2),
        ("This sentence contains <1,000     non-alphabetic \nw0rd5 within it but >1.", "non_alpha_word_ratio", 2 / 10),
        ("One repeated. One repeated.", "dup_10_gram", 0),
    ],
)  # fmt: skip
def test_a_text_has_the_number_dclm_publishes(text: str, signal: str, value: float) -> None:
    assert values(text)[signal] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(("text", "kept"), [
    ("This is a complex sentence with unique words.\n Here is another one.", True),
    ("Repeat repeat repeat repeat.", False),
    ("", False),
])  # fmt: skip
def test_repetition_decides_as_dclm_publishes(text: str, kept: bool) -> None:
    rules = tuple(rule for rule in dclm.QUALITY.rules if rule.name.split(".")[1].startswith(("dup", "top")))
    first, _ = first_failing(dclm.QUALITY.measure(TextBatch([text], Vocabulary(WHITESPACE))), rules, 1)
    assert (first[0] < 0) == kept


def test_blanks_beyond_ascii_part_no_words_of_a_page_but_those_of_a_ratio() -> None:
    found = values("a\u00a0b\u3000c d")
    assert found["words"] == 2
    assert found["mean_word_length"] == 1


@pytest.mark.parametrize("text", ["", " \n ", "\u2028"])
def test_a_page_without_words_has_undefined_ratios(text: str) -> None:
    found = values(text)
    assert found["words"] == 0
    assert np.isnan(found["mean_word_length"])
    assert np.isnan(found["dup_line_frac"])
