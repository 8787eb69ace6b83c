"""C4's edit: which lines go, what stays of the others, what is noticed."""

import pytest

from filters import c4
from filters.batch import TextBatch
from filters.rule import first_failing
from filters.tokens import Vocabulary
from pipelines.words import unicode_words

LONG = "x" * 1001


def edited(text: str) -> tuple[str, dict[str, int]]:
    found = c4.LINES.apply(TextBatch([text], Vocabulary(unicode_words())))
    values = {name.removeprefix("c4."): int(signal.value[0]) for name, signal in found.signals.items()}
    return found.texts[0], {name: value for name, value in values.items() if value}


@pytest.mark.parametrize(
    ("text", "left", "noticed"),
    [
        ("one two three", "one two three", {"lines_kept": 1, "sentences": 1}),
        ("one two", "", {"lines_too_few_words": 1}),
        (f"one two three {LONG}", "", {"lines_too_long_word": 1}),
        ("x" * 1000 + " two three", "x" * 1000 + " two three", {"lines_kept": 1, "sentences": 1}),
        ("Enable JavaScript to go on", "", {"lines_javascript": 1}),
        ("enable java[edit]script to go on", "", {"lines_javascript": 1}),
        ("we Use Cookies for this", "", {"lines_policy": 1}),
        ("as known[12] by all[citation needed].", "as known by all.", {"lines_kept": 1, "sentences": 1}),
        ("  a  b  c  ", "a  b  c", {"lines_kept": 1, "sentences": 1}),
        ("a { b", "a { b", {"curly_bracket": 1, "lines_kept": 1, "sentences": 1}),
        ("javascript { is gone", "", {"lines_javascript": 1}),
        (
            "Lorem ipsum dolor. Sit amet.",
            "Lorem ipsum dolor. Sit amet.",
            {"lorem_ipsum": 1, "lorem_ipsum_first": 1, "lines_kept": 1, "sentences": 2},
        ),
    ],
)  # fmt: skip
def test_a_line_is_kept_or_dropped(text: str, left: str, noticed: dict[str, int]) -> None:
    assert edited(text) == (left, noticed)


def test_lines_of_all_kinds_of_breaks_are_joined_by_line_feeds() -> None:
    assert edited("one two three\r\nfour five six\u2028seven eight nine\n\n")[0].count("\n") == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("lorem ipsum a\nb { c", "lorem_ipsum"),
        ("b { c\nlorem ipsum a", "curly_bracket"),
        ("b { lorem ipsum", "lorem_ipsum"),
        ("b { c", "curly_bracket"),
        ("one two three.", "too_few_sentences"),
    ],
)
def test_the_first_reason_is_that_of_the_first_line_that_condemns(text: str, reason: str) -> None:
    signals = c4.QUALITY.measure(TextBatch([text], Vocabulary(unicode_words())))
    first, _ = first_failing(signals, c4.QUALITY.rules, 1)
    assert c4.QUALITY.rules[first[0]].reason == reason
