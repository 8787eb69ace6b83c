"""StarCoder's signals count as The Stack's columns do, and its rules are closed at their thresholds."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from filters import starcoder
from filters.batch import TextBatch
from filters.rule import Family
from filters.tokens import Vocabulary
from pipelines.words import unicode_words

Share = tuple[int, int | None]


def measured(text: str, family: Family = starcoder.QUALITY) -> dict[str, Share]:
    signals = family.measure(TextBatch([text], Vocabulary(unicode_words())))
    assert set(signals) == {signal.name for signal in family.signals}
    return {
        name.removeprefix("starcoder."): (
            int(of.numerator[0]),  # type: ignore[index]
            None if of.denominator is None else int(of.denominator[0]),
        )
        for name, of in signals.items()
    }


def failing(text: str, family: Family = starcoder.QUALITY) -> set[str]:
    signals = family.measure(TextBatch([text], Vocabulary(unicode_words())))
    return {rule.name for rule in family.rules if not rule.passes(signals[rule.signal.name].value)[0]}


def test_line_feeds_count_in_the_mean_and_an_empty_line_follows_the_last() -> None:
    assert measured("def f():\n    return a_1\n") == {
        "max_line_length": (14, None),
        "mean_line_length": (24, 3),
        "alphanum_fraction": (13, 24),  # "a_1" counts for three
        "xml_header": (0, None),
        "alpha_fraction": (11, 24),
    }


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("x" * 99 + "\n" + "y" * 100, set()),  # 200 characters in two lines
        ("x" * 100 + "\n" + "y" * 100, {"mean_line_length"}),
        ("\n".join(["x" * 1000, *["y" * 10] * 20]), set()),
        ("\n".join(["x" * 1001, *["y" * 10] * 20]), {"max_line_length"}),
        ("a---\n---", {"alphanum_fraction"}),
        ("a---", set()),  # a quarter
        ("a" * 86 + "<?xml version=", {"xml_header"}),  # the last of the first 100 characters is its last
        ("a" * 86 + "\n<?xml version=", set()),
        ("<?XML version=aaaa", set()),
        ("", {"alphanum_fraction"}),
    ],
)  # fmt: skip
def test_the_rules_that_drop_a_file(text: str, rules: set[str]) -> None:
    assert failing(text) == {f"starcoder.{name}" for name in rules}


@pytest.mark.parametrize(("size", "kept"), [(99, False), (100, True), (5000, True), (5001, False)])
def test_data_files_are_neither_small_nor_large(size: int, kept: bool) -> None:
    assert (not failing("x" * size, starcoder.DATA)) == kept


def expected(text: str) -> dict[str, Share]:
    lines = text.split("\n")
    return {
        "max_line_length": (max(map(len, lines)), None),
        "mean_line_length": (len(text), len(lines)),
        "alphanum_fraction": (sum(character.isalnum() or character == "_" for character in text), len(text)),
        "xml_header": (int("<?xml version=" in text[:100]), None),
        "alpha_fraction": (sum(map(str.isalpha, text)), len(text)),
    }


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["ab_1", " ", "\n", "\r\n", "\u2028", "<?xml version=", "½", "日", "\ud800"]), max_size=40)
)
@example([])
@example(["\n"])
def test_every_signal_is_that_of_its_definition(parts: list[str]) -> None:
    assert measured("".join(parts)) == expected("".join(parts))
