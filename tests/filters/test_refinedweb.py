"""RefinedWeb's corrections of lines: figures of DCLM's tests, and DCLM's modifiers written down naively."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters import refinedweb
from filters.batch import TextBatch
from filters.splitters_words import WHITESPACE
from filters.tokens import Vocabulary

UNITS = ["likes", "shares", "comments", "retweets", "reposts", "quotes", "bookmarks", "upvotes", "downvotes",
         "downloads", "views", "followers"]  # fmt: skip
COUNTER = re.compile(rf"^\W*\d(?:,|\.|\d)*(?:K|k|M|m|B|b)?\s+(?:{'|'.join(UNITS)})\W*$")
PATTERNS = [r"\s?(?:items in cart)", r"\s?(?:read more...)$", r"^(?:sign-in)\s?"]
PARTS = st.sampled_from(
    ["one two", "THIS LINE", "a B", "12345", "٣", "3 likes", "123K Quotes!", "5.1M  views", "Items in Cart",
     " Read more...", "read moreand", "Sign-in ", "x", "  ", "word " * 11, "ſign-in", "SIGN-IN", "\u2028", "\x1c",
     "the end."]
)  # fmt: skip
TEXTS = st.lists(st.tuples(PARTS, st.sampled_from(["", " ", "\n", "\n", "\n\n"])).map("".join), max_size=30).map(
    "".join
)


def edited(text: str) -> tuple[str, dict[str, int], float]:
    found = refinedweb.LINES.apply(TextBatch([text], Vocabulary(WHITESPACE)))
    values = {name.removeprefix("refinedweb."): float(signal.value[0]) for name, signal in found.signals.items()}
    removed = values.pop("removed_word_ratio")
    return found.texts[0], {name: int(value) for name, value in values.items() if value}, removed


def naive(text: str) -> str:
    def joined(lines: list[str]) -> str:
        return "\n".join(lines).strip()

    for bad in (str.isupper, str.isdigit):
        limit = 0.5 if bad is str.isupper else 0.999999
        text = joined([line for line in text.split("\n") if not line or sum(map(bad, line)) / len(line) <= limit])
    text = joined([line for line in text.split("\n") if not COUNTER.search(line.lower())])
    text = "\n".join(line for line in text.split("\n") if not line or len(line.split()) >= 2)
    for pattern in PATTERNS:
        lines = []
        for line in text.split("\n"):
            left = re.sub(pattern, "", line, flags=re.IGNORECASE) if len(line.split()) <= 10 else line
            if not line or (left and not left.isspace()) or len(line.split()) > 10:
                lines.append(left)
        text = joined(lines)
    return text


def words(text: str) -> int:
    return sum(bool(word) and word[0].isalnum() for word in re.split(r"[ \n\r\t\v\f\0]", text))


@settings(deadline=None, max_examples=300)
@given(TEXTS)
def test_lines_are_those_that_dclm_leaves(text: str) -> None:
    left, _, removed = edited(text)
    assert left == naive(text)
    if words(text):
        assert removed == max(0, words(text) - words(left)) / words(text)
    else:
        assert np.isnan(removed)


# Figures of mlfoundations/dclm, tests/baselines/mappers/modifiers/test_modifiers.py, where the other corrections allow.
@pytest.mark.parametrize(
    ("text", "left", "noticed"),
    [
        ("HELLO WORLD\n\nhello world\nHello, World", "hello world\nHello, World", {"lines_uppercase": 1}),
        ("12345\nhello world", "hello world", {"lines_numeric": 1}),
        ("123K quotes\n\nHello, World.\n\nHello, World with 3 views.\n3 views",
         "Hello, World.\n\nHello, World with 3 views.", {"lines_counter": 2}),
        ("Short line\n\na b c\n  There are words in this line here\nHi",
         "Short line\n\na b c\n  There are words in this line here", {"lines_one_word": 1}),
        ("You have 7 items in cart right now\n  items in cart  \nYou have 7 items in cart right now but you can add"
         " more by clicking back onto the homepage.",
         "You have 7 right now\nYou have 7 items in cart right now but you can add more by clicking back onto the"
         " homepage.", {"lines_phrase": 2}),
        ("sign-in for full access\nThis is an article about how to sign-in.",
         "for full access\nThis is an article about how to sign-in.", {"lines_phrase": 1}),
        ("Please now read more...\n  read more...\nRead more...and find out!\n\nSee it",
         "Please now\nRead more...and find out!\n\nSee it", {"lines_phrase": 2}),
        ("12345" * 10 + "\n" + "12345" * 10 + " likes", "", {"lines_numeric": 1, "lines_counter": 1}),
    ],
)  # fmt: skip
def test_a_text_is_corrected_as_dclm_publishes(text: str, left: str, noticed: dict[str, int]) -> None:
    assert edited(text)[:2] == (left, noticed)


@pytest.mark.parametrize("unit", UNITS)
def test_counters_of_every_unit_go(unit: str) -> None:
    text = f"3 {unit}\n3,000 {unit}\n123K {unit}!\n 5.1M   {unit}  \nThis line does not contain a counter."
    assert edited(text)[:2] == ("This line does not contain a counter.", {"lines_counter": 4})


def test_half_capitals_stay() -> None:
    assert edited("AB cd ")[0] == "AB cd"
    assert edited("AB c")[0] == "AB c"
    assert edited("AB C")[0] == ""


@pytest.mark.parametrize(("lost", "kept"), [(5, True), (6, False)])
def test_a_page_may_lose_one_word_in_twenty(lost: int, kept: bool) -> None:
    text = "one\n" * lost + " ".join(["word"] * (100 - lost))
    signals = refinedweb.QUALITY.measure(TextBatch([text], Vocabulary(WHITESPACE)))
    (rule,) = refinedweb.QUALITY.rules
    assert rule.passes(signals[rule.signal.name].value).tolist() == [kept]


def test_an_empty_text_and_no_text_at_all_are_defined() -> None:
    assert edited("")[:2] == ("", {})
    assert refinedweb.LINES.apply(TextBatch([], Vocabulary(WHITESPACE))).texts == []
