"""CCNet's length is that of the lines its reader leaves, without the title."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from filters import ccnet
from filters.batch import TextBatch
from filters.tokens import Vocabulary
from pipelines.words import unicode_words


def measured(*texts: str) -> list[tuple[int, ...]]:
    signals = ccnet.QUALITY.measure(TextBatch(texts, Vocabulary(unicode_words())))
    columns = [signals[signal.name].value.astype(int).tolist() for signal in ccnet.QUALITY.signals]
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize(
    ("text", "characters", "whole", "lines"),
    [
        ("Title\nab\ncde", 6, 12, 2),
        ("\n  Title \r\n\n\tab  \n \u3000\ncde\n", 6, 12, 2),
        ("Title", 0, 5, 0),
        ("", 0, 0, 0),
        (" \n\n ", 0, 0, 0),
    ],
)
def test_blank_lines_and_the_title_do_not_count(text: str, characters: int, whole: int, lines: int) -> None:
    assert measured(text) == [(characters, whole, lines)]


def test_a_document_of_300_characters_is_kept() -> None:
    signals = ccnet.QUALITY.measure(
        TextBatch([f"Title\n{'x' * 300}", f"Title\n{'x' * 299}"], Vocabulary(unicode_words()))
    )
    assert ccnet.QUALITY.rules[0].passes(signals["ccnet.characters"].value).tolist() == [True, False]


def expected(text: str) -> tuple[int, int, int]:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return len("\n".join(lines[1:])), len("\n".join(lines)), len(lines[1:])


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("ab \t\r\n\u2028\u3000日\ud800\x00"), max_size=30), min_size=1, max_size=5))
@example(["", "a\n", "\na", "a\nb", ""])
def test_lengths_are_those_of_the_lines_that_are_left(texts: list[str]) -> None:
    assert measured(*texts) == [expected(text) for text in texts]
