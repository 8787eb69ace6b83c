"""Dolma 3's numbers and edit: figures of datamap-rs's own tests, and its processors written down naively."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters import dolma3
from filters.batch import TextBatch
from filters.splitters_words import UAX29
from filters.tokens import Vocabulary

STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
WORDS = st.sampled_from(["the", "With", "a", "bb", "ccc", "é", "(a", "b).", "...", ". . .", "…", "#", "•", "12", "-x"])
BLANKS = st.sampled_from([" ", " ", "\n", "\n\n", "\n\n\n", "\n \n", "\r\n", "\t", "\u2028"])
PROSE = st.lists(st.tuples(WORDS, BLANKS).map("".join), max_size=60).map("".join)
PARTS = st.sampled_from(
    ["one two", "THIS LINE", "ÄÖ", "12345", "٣ ٣", "3 likes", "123K Quotes!", "items in cart", "no Items in cart",
     " Read more...", "Read moreand", "Sign-in ", "sign-in", "x", "  ", "word " * 11, "the end.", "a_b"]
)  # fmt: skip
LINES = st.lists(
    st.tuples(PARTS, st.sampled_from(["", " ", "\n", "\n", "\n\n", "\r\n", "\n\n\n"])).map("".join), max_size=30
).map("".join)


def values(text: str) -> dict[str, float]:
    signals = dolma3.QUALITY.measure(TextBatch([text], Vocabulary(UAX29)))
    return {name.removeprefix("dolma3."): float(signal.value[0]) for name, signal in signals.items()}


def size(part: str) -> int:
    return len(part.encode())


def gram_ratio(words: list[str], n: int) -> float:
    grams = [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
    counts = Counter(grams)
    again = {gram: count for gram, count in counts.items() if count > 1}
    if not again:
        return 0
    if n <= 4:
        best = max(again, key=lambda gram: (again[gram], sum(map(size, gram))))
        again = {best: again[best]}
    under = {place for at, gram in enumerate(grams) if gram in again for place in range(at, at + n)}
    return sum(size(words[place]) for place in under) / sum(map(size, words))


def repeats(parts: list[str]) -> tuple[float, float]:
    parts = [part for part in parts if part]
    again = [part for part in parts if parts.count(part) > 1]
    return (len(again) / len(parts), sum(map(size, again)) / sum(map(size, parts))) if parts else (np.nan, np.nan)


def naive(text: str) -> dict[str, float]:
    words, lines = text.split(), text.split("\n")
    filled = [line for line in dolma3.rust_lines(text) if line]
    tokens = re.findall(r"[a-zA-Z0-9é]+", text)
    bare = sum(not any(map(str.isalpha, word)) for word in words)
    line_repeats, paragraph_repeats = repeats(lines), repeats(text.split("\n\n"))
    return {
        "characters": len(text),
        "words": len(tokens),
        "mean_word_length": sum(map(size, words)) / len(words),
        "symbol_ratio": sum(text.count(mark) for mark in ("#", "...", ". . .", "…"))
        / max(len(text.replace(". . .", "...").split()), 1),
        "bullet_line_ratio": sum(line.startswith(("●", "•", "*", "-")) for line in lines) / len(lines),
        "ellipsis_line_ratio": sum(line.endswith(("...", ". . .", "…")) for line in filled) / max(len(filled), 1),
        "non_alpha_word_ratio": np.nan if len(words) == 1 else bare / len(words),
        "stop_words": sum(word.lower() in STOP_WORDS for word in words),
        "dup_line_frac": line_repeats[0],
        "dup_para_frac": paragraph_repeats[0],
        "dup_line_byte_frac": line_repeats[1],
        "dup_para_byte_frac": paragraph_repeats[1],
        **{f"top_{n}_gram": gram_ratio(tokens, n) for n in range(2, 5)},
        **{f"dup_{n}_gram": gram_ratio(tokens, n) for n in range(5, 11)},
    }


@settings(deadline=None, max_examples=200)
@given(PROSE.filter(str.split))
def test_numbers_are_those_of_the_processors(text: str) -> None:
    np.testing.assert_equal(values(text), naive(text))


# Figures of allenai/datamap-rs, tests/map_fxn_tests.
@pytest.mark.parametrize(
    ("text", "signal", "value"),
    [
        ("a b c a b d", "top_2_gram", 4 / 6),
        ("a b c d a b c e", "top_3_gram", 6 / 8),
        ("a a a a a a b c d f", "top_4_gram", 6 / 10),
        ("short a b c short a b d", "top_4_gram", 0),
        ("a b c", "top_3_gram", 0),
        ("a b c a b c", "top_3_gram", 1),
        ("the quick brown fox jumps over the lazy dog the quick brown fox jumps over the lazy cat",
         "dup_8_gram", 64 / 70),
        ("to be or not to be that is the question to be or not to be I don't know the answer.", "top_2_gram", 16 / 62),
        ("a\nb\na\nc\nb\nd", "dup_line_frac", 4 / 6),
        ("short\nlooooong\nshort\nmedium", "dup_line_byte_frac", 10 / 24),
        ("hello", "dup_line_frac", 0),
        ("one, two. three!", "words", 3),
        (".,;!?", "words", 0),
        ("This #post has #hashtags but should still pass the filter.", "symbol_ratio", 0.2),
        ("This text... has one ellipsis... and should pass.", "symbol_ratio", 2 / 8),
        ("Too many . . . of these . . . ellipses . . . in this text.", "symbol_ratio", 3 / 11),
        ("", "symbol_ratio", 0),
    ],
)  # fmt: skip
def test_a_text_has_the_number_datamap_publishes(text: str, signal: str, value: float) -> None:
    assert values(text)[signal] == pytest.approx(value, abs=1e-12)


def test_words_of_an_ascii_page_are_runs_of_letters_and_digits() -> None:
    assert values("don't 3.14 a_b")["words"] == 6
    assert values("don't 3.14 a_b é")["words"] == 4


def test_one_word_alone_and_no_word_at_all_are_dropped() -> None:
    assert np.isnan(values("word")["non_alpha_word_ratio"])
    assert np.isnan(values("")["non_alpha_word_ratio"])
    assert np.isnan(values("")["dup_line_frac"])


def edited(text: str) -> tuple[str, float]:
    found = dolma3.EDIT.apply(TextBatch([text], Vocabulary(UAX29)))
    return found.texts[0], float(found.signals["dolma3_lines.removed_word_ratio"].value[0])


def uax29(text: str) -> int:
    return sum(map(len, UAX29.words(text.split())))


def naive_edit(text: str) -> str:
    text = re.sub("\n{3,}", "\n\n", text)
    for bad in (str.isupper, lambda c: c in "0123456789"):
        limit = 0.5 if bad is str.isupper else 0.999999
        text = "\n".join(line for line in text.split("\n") if not line or sum(map(bad, line)) / size(line) <= limit)
    units = "likes|shares|comments|retweets|reposts|quotes|bookmarks|upvotes|downvotes|downloads|views|followers"
    counter = re.compile(rf"^\W*\d(?:,|\.|\d)*(?:K|k|M|m|B|b)?\s+(?:{units})\W*$")
    text = "\n".join(line for line in text.split("\n") if not counter.search(line.lower()))
    text = "\n".join(line for line in text.split("\n") if not line or uax29(line) >= 2)
    cuts = [(r"\s?(?:items in cart)\s?", " "), (r"\s?(?:Read more...)$", ""), (r"^(?:Sign-in)\s?", "")]
    for pattern, instead in cuts:
        lines = text.split("\n")
        lines = [line.removesuffix("\r") for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
        cut = [re.sub(pattern, instead, line) for line in lines]
        text = "\n".join(left for line, left in zip(lines, cut, strict=True) if not line or left.strip())
    return re.sub("\n{3,}", "\n\n", text)


@settings(deadline=None, max_examples=300)
@given(LINES)
def test_lines_are_those_that_datamap_leaves(text: str) -> None:
    left, removed = edited(text)
    assert left == naive_edit(text)
    expected = (uax29(text) - uax29(left)) / uax29(text) if uax29(text) else np.nan
    np.testing.assert_equal(removed, expected)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("\n\nThis is a normal line\n\nTHIS IS UPPERCASE\nthe end", "\n\nThis is a normal line\n\nthe end"),
        ("See: items in cart now\nno Items in cart", "See: now\nno Items in cart"),
        ("End of line Read more...\nMiddle Read more... word.", "End of line\nMiddle Read more... word."),
        ("Sign-in to go on\nPlease Sign-in", "to go on\nPlease Sign-in"),
        ("AAAaaa bbb\nALL CAPITALS", "AAAaaa bbb"),
        ("ÄÖÜ ÄÖÜ\nthe end", "ÄÖÜ ÄÖÜ\nthe end"),  # 6 capitals of 13 bytes
    ],
)
def test_a_text_is_corrected_as_datamap_reads_it(text: str, left: str) -> None:
    assert edited(text)[0] == left
