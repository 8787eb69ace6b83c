"""Chunks are those of `str.split()`, and equal numbers are equal chunks."""

import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from filters import kernels_chunks, kernels_lines
from filters.tokens import SPACE, Lexicon, code_points, spaced

SPACES = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000"
TEXTS = st.lists(st.text(f"ab{SPACES}\U0001f600\ud800\x00") | st.text("a ") | st.text(), max_size=8)


def chunks_of(lexicon: Lexicon, texts: list[str], *, marked: bool = False) -> list[list[str]]:
    found = lexicon.chunked(*code_points(texts), marked=marked)
    names = [lexicon.chunks[number] for number in found.numbers.tolist()]
    return [names[first:last] for first, last in zip(found.offsets, found.offsets[1:], strict=False)]


def test_white_space_and_line_breaks_are_those_of_str() -> None:
    characters = [chr(point) for point in range(sys.maxunicode + 1)]
    assert [one for one in characters if kernels_chunks.is_space(ord(one)) != one.isspace()] == []
    breaks = [one for one in characters if len(f"a{one}b".splitlines()) == 2]
    assert [one for one in characters if kernels_lines.is_break(ord(one))] == breaks


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_chunks_are_those_of_split_whatever_came_before(before: list[str], texts: list[str]) -> None:
    lexicon = Lexicon()
    lexicon.chunked(*code_points(before))
    assert chunks_of(lexicon, texts) == [text.split() for text in texts]
    assert chunks_of(lexicon, texts, marked=True) == [spaced(text) for text in texts]


def test_numbers_stay_right_while_the_table_grows() -> None:
    lexicon = Lexicon()
    words = [f"{number:x}" for number in range(50_000)]
    assert chunks_of(lexicon, [" ".join(words)]) == [words]
    assert len(set(lexicon.chunks)) == len(lexicon.chunks) == len(words) + 1
    assert lexicon.numbered([*words[:3], SPACE]).tolist() == [1, 2, 3, 0]
    assert chunks_of(lexicon, [" ".join(words[::-1])]) == [words[::-1]]


@settings(deadline=None)
@given(TEXTS)
def test_lines_are_those_of_splitlines(texts: list[str]) -> None:
    points, offsets = code_points(texts)
    starts, stops, words, longest, ends = kernels_lines.worded_lines(points, offsets)
    lines = [text.splitlines() for text in texts]
    assert np.diff(ends).tolist() == list(map(len, lines))
    flat = [line for some in lines for line in some]
    together = "".join(texts)
    found = [together[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
    assert found == [line.strip() for line in flat]
    assert words.tolist() == [len(line.split()) for line in flat]
    assert longest.tolist() == [max(map(len, line.split()), default=0) for line in flat]
