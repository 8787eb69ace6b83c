"""Two texts word by word: both whole, what is equal equal, and bounded for texts that are made to take long."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import word_diff as module
from infra.word_diff import CHARACTERS, COMPARED, STRAY, Stretch, word_diff, words_of

WORDS = st.lists(st.sampled_from(["mill", "the", "a", "river", "1,000", "我", "们", "ไ"]), max_size=40).map(" ".join)


def sides(found: tuple[Stretch, ...]) -> tuple[str, str]:
    return "".join(word for one in found for word in one.first), "".join(word for one in found for word in one.second)


def kinds(found: tuple[Stretch, ...]) -> list[str]:
    return [one.kind for one in found]


@given(first=WORDS, second=WORDS)
def test_both_texts_are_whole_and_what_is_equal_is_equal(first: str, second: str) -> None:
    found = word_diff(first, second)
    assert sides(found) == (first, second)
    assert all(one != other for one, other in zip(kinds(found), kinds(found)[1:], strict=False))
    for one in found:
        if one.kind == "equal":
            assert [word.rstrip() for word in one.first] == [word.rstrip() for word in one.second]
        else:
            assert one.kind == "changed"
            assert one.first != one.second


def test_equal_texts_are_one_stretch_whatever_their_white_space() -> None:
    (one,) = word_diff("The  old\nmill", " The old\tmill ")
    assert (one.kind, one.first) == ("equal", ("The ", "old ", "mill"))
    assert word_diff("", " \n") == ()


def test_words_that_were_put_in_taken_out_and_exchanged_are_told() -> None:
    found = word_diff("the price rose 3 pct to 5 dlrs a share", "the price rose 4 pct to 6 dlrs today a share")
    changed = [(one.first, one.second) for one in found if one.kind == "changed"]
    assert changed == [(("3 ",), ("4 ",)), (("5 ",), ("6 ",)), ((), ("today ",))]


def test_a_word_shared_by_chance_between_longer_differences_is_part_of_them() -> None:
    first, second = "alpha beta gamma of delta epsilon zeta", "one two three of four five six"
    assert kinds(word_diff(first, second)) == ["changed"]
    shared = " ".join(["of"] * (STRAY + 1))
    assert kinds(word_diff(first.replace("of", shared), second.replace("of", shared))) == [
        "changed",
        "equal",
        "changed",
    ]


def test_scripts_without_blanks_are_compared_by_character() -> None:
    found = word_diff("我们喜欢吃苹果 and pears", "我们喜欢喝苹果 and pears")
    assert [(one.first, one.second) for one in found if one.kind == "changed"] == [(("吃",), ("喝",))]
    assert words_of("ab 我们 c") == ["ab ", "我", "们 ", "c"]


def test_long_texts_are_compared_as_far_as_the_bound_and_at_their_common_end() -> None:
    rng = random.Random(3)
    one, other = (" ".join(rng.choice("ab") for _ in range(10_000)) for _ in range(2))
    found = word_diff(f"begin {one} end", f"begin {other} end")
    (left_out,) = (stretch for stretch in found if stretch.kind == "uncompared")
    assert max(len(left_out.first), len(left_out.second)) >= 10_000 - COMPARED - 1
    assert found[-1].kind == "equal"
    assert sides(found) == (f"begin {one} end", f"begin {other} end")


def test_what_lies_beyond_the_characters_is_told_and_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CHARACTERS >= 1 << 20
    monkeypatch.setattr(module, "CHARACTERS", 8)
    found = word_diff("one two three", "one two four")
    assert kinds(found) == ["equal", "uncompared"]
    assert found[-1].first == ("three",)
    assert sides(found) == ("one two three", "one two four")
