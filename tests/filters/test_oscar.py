"""OSCAR's annotations: every signal is that of its definition, and a rule drops what is annotated."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from filters import oscar
from filters.batch import TextBatch
from filters.tokens import Vocabulary
from pipelines.words import unicode_words

LONG, SHORT = "word " * 24, "a short line"
Share = tuple[int, int | None]


def batch(*texts: str) -> TextBatch:
    return TextBatch(texts, Vocabulary(unicode_words()))


def measured(text: str) -> dict[str, Share]:
    return {
        name.removeprefix("oscar."): (
            int(of.numerator[0]),  # type: ignore[index]
            None if of.denominator is None else int(of.denominator[0]),
        )
        for name, of in oscar.QUALITY.measure(batch(text)).items()
    }


def annotated(text: str) -> set[str]:
    signals = oscar.QUALITY.measure(batch(text))
    return {
        rule.name.removeprefix("oscar.")
        for rule in oscar.QUALITY.rules
        if not rule.passes(signals[rule.signal.name].value)[0]
    }


def lines(*lengths: int) -> str:
    return "\n".join("x" * length for length in lengths)


@pytest.mark.parametrize(
    ("text", "annotations"),
    [
        ("\n".join([LONG] * 10), set()),
        ("\n".join([LONG] * 4), {"tiny", "header", "footer"}),  # no fifth of four lines: undefined, and tiny anyway
        ("\n".join([SHORT, SHORT, *[LONG] * 8]), {"header"}),
        ("\n".join([*[LONG] * 8, SHORT, SHORT]), {"footer"}),
        ("\n".join([SHORT, LONG, *[LONG] * 8]), set()),  # one of two: half is not more than half
        ("\n".join([LONG, *[SHORT] * 6, *[LONG] * 3]), {"short_sentences"}),
        (lines(*[100] * 5), {"short_sentences"}),  # 100 characters: short there, and nowhere else
        (lines(*[101] * 5), set()),
        ("\n".join(["é" * 60] * 20), {"short_sentences", "long_line_characters"}),  # 120 bytes are no short header
        ("\n".join(["/ + a " * 20] * 5), {"noisy"}),
        ("\n".join(["a1" * 60] * 5), {"noisy"}),  # line feeds are no letters: 304 of 604
        ("\n".join(["की" * 60] * 5), set()),  # a mark counts as a letter
        ("", {"tiny", "short_sentences", "header", "footer", "noisy", "long_line_characters"}),
    ],
)
def test_a_text_is_annotated(text: str, annotations: set[str]) -> None:
    assert annotated(text) == annotations


def test_a_record_of_short_lines_fails_as_in_the_tests_of_ungoliant() -> None:
    assert "long_line_characters" in annotated(lines(14, 22, 22, *[18] * 7, 0, 160, 8))
    assert measured(lines(14, 22, 22, *[18] * 7, 0, 160, 8))["long_line_characters"] == (160, 352)


def rust_lines(text: str) -> list[str]:
    parts = text.split("\n")
    closed = [part[:-1] if part.endswith("\r") else part for part in parts[:-1]]
    return closed + [part for part in parts[-1:] if part]


def expected(text: str) -> dict[str, Share]:
    of = rust_lines(text)
    edge = len(of) // 5
    letters = sum(character.isalpha() or 0x93E <= ord(character) <= 0x94D for character in text)

    def short_bytes(some: list[str]) -> int:
        return sum(len(line.encode("utf-8", "surrogatepass")) < 100 for line in some)

    return {
        "lines": (len(of), None),
        "short_sentences": (sum(len(line) <= 100 for line in of), len(of)),
        "header": (short_bytes(of[:edge]), edge),
        "footer": (short_bytes(of[len(of) - edge :]), edge),
        "noisy": (len(text) - letters, len(text)),
        "long_line_characters": (sum(len(line) for line in of if len(line) >= 100), sum(map(len, of))),
    }


LINES = st.sampled_from(
    [SHORT, LONG, "", "\r", "é" * 49, "é" * 50, "日" * 34, "x" * 99, "x" * 100, "x" * 101, "की", "\ud800"]
)
TEXTS = st.lists(LINES, max_size=30).map("\n".join) | st.lists(LINES, max_size=30).map("\r\n".join)


@settings(deadline=None)
@given(TEXTS)
@example("\n")
@example("\r\n\r")
@example("a\n\n")
def test_every_signal_is_that_of_its_definition(text: str) -> None:
    assert measured(text) == expected(text)


@pytest.mark.parametrize(
    ("text", "left", "cut"),
    [
        (f"{SHORT}\n\n{LONG}\n{SHORT}\r\n{LONG}\n{SHORT}\n", f"{LONG}\n{SHORT}\n{LONG}", 3),
        (f"{SHORT}\n{SHORT}", "", 2),
        (lines(100, 101, 100), lines(101), 2),
        ("", "", 0),
    ],
)
def test_short_lines_are_cut_from_both_ends(text: str, left: str, cut: int) -> None:
    edited = oscar.EDIT.apply(batch(text))
    assert edited.texts == [left]
    assert edited.signals["oscar.lines_trimmed"].value.tolist() == [cut]
