"""A pattern counts its matches, never hangs, and says at once what it cannot read."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.pattern import MOST, MOST_CHARACTERS, compiled, matches


def counts(regex: str, *texts: str) -> list[int]:
    return matches("p", regex, texts)["pattern.p"].value.astype(int).tolist()


def test_matches_are_counted_without_overlap_and_per_character() -> None:
    measured = matches("shop", r"(?i)buy now|\d+ €", ["Buy now: 5 € or buy NOW", "café, 12 €", "", "nothing"])
    assert measured["pattern.shop"].value.tolist() == [3, 1, 0, 0]
    per_character = measured["pattern.shop_per_character"]
    assert per_character.denominator is not None
    assert per_character.denominator.tolist() == [23, 10, 0, 7]
    assert np.isnan(per_character.value[2])


def test_a_character_beyond_ascii_is_one_character() -> None:
    assert counts(r"é", "été") == [2]
    assert counts(r"^.{3}$", "été", "日本語", "abcd") == [1, 1, 0]
    assert counts(r"\pL", "aé日1") == [3]


@given(st.text("ab\n", max_size=40), st.sampled_from(["ab", "a+b", "b\n", "[ab]{2}"]))
def test_the_count_is_that_of_the_definition(text: str, regex: str) -> None:
    import re

    assert counts(regex, text) == [len(re.findall(regex, text))]


def test_an_expression_that_makes_others_hang_takes_time_linear_in_the_text() -> None:
    def seconds(length: int) -> float:
        begun = time.thread_time()
        assert counts(r"(a+)+$", "a" * length + "b") == [0]
        return time.thread_time() - begun

    seconds(1_000)
    # Backtracking would take 2^30 steps for the first 30 letters already.
    assert seconds(4_000_000) < 5


def test_matches_that_each_read_to_the_end_are_counted_up_to_a_limit() -> None:
    begun = time.thread_time()
    assert counts(r"a+$|a", "a" * 200_000 + "b") == [MOST]
    assert time.thread_time() - begun < 60


@pytest.mark.parametrize(
    ("regex", "message"),
    [
        (r"(a)\1", "invalid escape sequence"),
        (r"(?=a)b", "invalid perl operator"),
        (r"(a", "missing )"),
        (r"a*", "matches the empty text"),
        ("a" * (MOST_CHARACTERS + 1), "1,001 characters; at most 1,000"),
        (r"((a{100}){100}){100}", "invalid repetition size"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_the_reason(regex: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        compiled(regex)
    assert message in str(error.value)
