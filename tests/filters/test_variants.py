"""The versions of April 2024 and of the paper differ from datatrove 0.10 exactly where they are said to."""

import pytest

from filters import fineweb, gopher
from filters.batch import TextBatch
from filters.rule import Family
from filters.tokens import Vocabulary
from pipelines.words import unicode_words


def failing(family: Family, text: str) -> set[str]:
    signals = family.measure(TextBatch([text], Vocabulary(unicode_words())))
    return {
        rule.name.removeprefix(f"{family.name}.")
        for rule in family.rules
        if not rule.passes(signals[rule.signal.name].value)[0]
    }


LINE = "{} and a good many words that make up one full line"
ENDS = "\n".join(LINE.format(n) + ("." if n < 3 else "") for n in range(25))  # 3 of 25 lines, 0.12, end with a mark
QUOTED = "\n".join(LINE.format(n) + '"' for n in range(20))
SHORT = "\n".join([f"yes, {n}." for n in range(67)] + [LINE.format(n) + "." for n in range(33)])
BLANKS = "\n\n\n".join(LINE.format(n) + "." for n in range(20))
PARTLY = "\n".join([*(LINE.format(n) + "." for n in range(30)), LINE.format(1) + "."])  # 1 of 31 lines is a repeat


@pytest.mark.parametrize(
    ("text", "now", "then", "paper"),
    [
        (ENDS, set(), {"line_punct_ratio"}, {"line_punct_ratio"}),
        (QUOTED, {"line_punct_ratio"}, set(), {"line_punct_ratio"}),
        (SHORT, set(), {"short_line_ratio"}, {"short_line_ratio"}),
        (BLANKS, set(), set(), set()),
        (PARTLY, {"char_dup_ratio"}, {"char_dup_ratio"}, set()),
        ("", {"empty", "line_punct_ratio", "short_line_ratio", "char_dup_ratio", "list_ratio"},
         {"line_punct_ratio", "short_line_ratio", "char_dup_ratio", "list_ratio"},
         {"line_punct_ratio", "short_line_ratio", "char_dup_ratio"}),
    ],
    ids=["at the share of marks", "quotes", "at the share of short lines", "blank lines", "a few repeats", "empty"],
)  # fmt: skip
def test_fineweb_rules(text: str, now: set[str], then: set[str], paper: set[str]) -> None:
    assert failing(fineweb.QUALITY, text) == now
    assert failing(fineweb.QUALITY_2024_04, text) == then
    assert failing(fineweb.QUALITY_PAPER, text) == paper


def test_blank_lines_were_duplicates_in_april_2024() -> None:
    text = "\n\n".join(f"{n} words make line {n * n}" for n in range(20))
    assert "dup_line_frac" not in failing(gopher.REPETITION, text)
    assert "dup_line_frac" in failing(gopher.REPETITION_2024_04, text)


def test_one_stop_word_twice_was_enough_in_april_2024() -> None:
    text = "the cat saw the dog"
    assert "stop_words" in failing(gopher.QUALITY, text)
    assert "stop_words" not in failing(gopher.QUALITY_2024_04, text)


def test_marks_of_other_scripts_were_words_in_april_2024() -> None:
    text = "word ؟ " * 30
    assert "words_low" in failing(gopher.QUALITY, text)
    assert "words_low" not in failing(gopher.QUALITY_2024_04, text)
