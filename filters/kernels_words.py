"""Compiled loops that find words in code points: those of UAX #29, and those of fastText.

`points` are the code points of some texts, `kinds` is the table of `word_break_classes`, `classes` that of
`point_classes`. A word of UAX #29 is a segment with a letter or a digit in it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from filters.characters import ALNUM
from filters.kernels import Counts, Offsets, compiled
from filters.word_break import BREAK, BRIDGED, CONNECTOR, EXTEND, HEBREW, JOINED, MID_LETTER, MID_NUMBER, SINGLE_QUOTE

Points = npt.NDArray[np.uint32]
Classes = npt.NDArray[np.uint16]
Kinds = npt.NDArray[np.uint8]

BLANK, TAB, RETURN = 0x20, 0x09, 0x0D


@compiled
def past_marks(points: Points, kinds: Kinds, at: int, end: int) -> int:
    """The first place from `at` on that is no mark or joiner (WB4)."""
    while at < end and kinds[points[at]] == EXTEND:
        at += 1
    return at


@compiled
def segment_end(points: Points, kinds: Kinds, start: int, end: int) -> int:
    """Where the segment of UAX #29 ends that begins at `start`; `end` is that of the text."""
    left = kinds[points[start]]
    if left == BREAK:
        return start + 1
    at = start + 1
    if not 1 <= left <= CONNECTOR:
        return past_marks(points, kinds, at, end)
    while at < end:
        right = kinds[points[at]]
        if right == left:  # most neighbours
            at += 1
            continue
        if right == EXTEND:
            at = past_marks(points, kinds, at, end)
            continue
        if JOINED[left, right]:
            left = right
            at += 1
            continue
        if not MID_LETTER <= right <= MID_NUMBER:
            return at
        beyond = past_marks(points, kinds, at + 1, end)
        if beyond < end and BRIDGED[left, right, kinds[points[beyond]]]:
            left = kinds[points[beyond]]
            at = past_marks(points, kinds, beyond + 1, end)
        else:
            return beyond if left == HEBREW and right == SINGLE_QUOTE else at  # WB7a
    return at


@compiled
def has_alnum(points: Points, classes: Classes, start: int, end: int) -> bool:
    """Say whether a letter or a digit lies in the span."""
    for point in points[start:end]:  # noqa: SIM110 (Numba compiles no generators)
        if classes[point] & ALNUM:
            return True
    return False


@compiled
def word_spans(
    points: Points, offsets: Offsets, kinds: Kinds, classes: Classes, first: bool
) -> tuple[Counts, Counts, Counts]:
    """Return the words of each text: starts, ends, and how many there are. With `first`, only those that begin with
    a letter or a digit.
    """
    starts, ends = np.empty(len(points), np.int64), np.empty(len(points), np.int64)
    counts = np.zeros(len(offsets) - 1, np.int64)
    found = 0
    for text in range(len(offsets) - 1):
        at = offsets[text]
        while at < offsets[text + 1]:
            end = segment_end(points, kinds, at, offsets[text + 1])
            if has_alnum(points, classes, at, at + 1 if first else end):
                starts[found], ends[found] = at, end
                found += 1
                counts[text] += 1
            at = end
    return starts[:found], ends[:found], counts


@compiled
def word_total(points: Points, start: int, end: int, kinds: Kinds, classes: Classes, most: int) -> int:
    """Count the words of UAX #29 in a span, but no more than `most`."""
    count, at = 0, start
    while at < end and count < most:
        if not 1 <= kinds[points[at]] <= CONNECTOR:
            count += bool(classes[points[at]] & ALNUM)
            at += 1
            continue
        to = segment_end(points, kinds, at, end)
        count += has_alnum(points, classes, at, to)
        at = to
    return count


@compiled
def word_totals(points: Points, starts: Offsets, ends: Offsets, kinds: Kinds, classes: Classes) -> Counts:
    """Count the words of UAX #29 in each span."""
    counts = np.zeros(len(starts), np.int64)
    for span in range(len(starts)):
        counts[span] = word_total(points, starts[span], ends[span], kinds, classes, len(points))
    return counts


@compiled
def fasttext_words(points: Points, starts: Offsets, ends: Offsets, classes: Classes) -> Counts:
    """Count, in each span, the words of fastText's tokeniser that begin with a letter or a digit.

    They lie between NUL and the six blanks of ASCII; other white space is part of a word.
    """
    counts = np.zeros(len(starts), np.int64)
    for span in range(len(starts)):
        between, count = True, 0
        for point in points[starts[span] : ends[span]]:
            blank = TAB <= point <= RETURN or not point & ~BLANK
            if between and not blank and classes[point] & ALNUM:
                count += 1
            between = blank
        counts[span] = count
    return counts
