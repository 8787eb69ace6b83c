"""Compiled loop for OSCAR's annotations: one walk over the lines of every document."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from filters.characters import ALPHA, MARK
from filters.kernels import Counts, Offsets, compiled

Points = npt.NDArray[np.uint32]
CARRIAGE_RETURN = np.uint32(13)
LETTERS = ALPHA | MARK


@compiled
def bytes_of(points: Points, first: int, last: int) -> int:
    """Bytes of points[first:last] in UTF-8; a lone surrogate takes three."""
    size = 0
    for at in range(first, last):
        size += 1 + (points[at] > 0x7F) + (points[at] > 0x7FF) + (points[at] > 0xFFFF)
    return size


@compiled
def line_counts(
    points: Points,
    offsets: Offsets,
    starts: Offsets,
    ends: Offsets,
    line_offsets: Offsets,
    classes: npt.NDArray[np.uint16],
    short: int,
    share: int,
) -> Counts:
    """Return eight columns: lines; short ones; lines of a head (or foot); short ones of the head, of the foot;
    characters in lines; those in lines that are not short; characters that are no letters and no marks.

    A line is short with at most `short` characters, in head and foot with fewer than `short` bytes, and among the
    characters in lines with fewer than `short` of them. Head and foot are one line of `share` each, rounded down.
    """
    counts = np.zeros((len(offsets) - 1, 8), np.int64)
    for document in range(len(offsets) - 1):
        first, last = line_offsets[document], line_offsets[document + 1]
        unfinished = last - 1  # what follows the last line feed: no line feed closes it, and if empty it is no line
        if starts[unfinished] == ends[unfinished]:
            last -= 1
        edge = (last - first) // share
        counts[document, 0], counts[document, 2] = last - first, edge
        for line in range(first, last):
            start, stop = starts[line], ends[line]
            if line != unfinished and stop > start and points[stop - 1] == CARRIAGE_RETURN:
                stop -= 1
            counts[document, 1] += stop - start <= short
            counts[document, 5] += stop - start
            if stop - start >= short:
                counts[document, 6] += stop - start
            if line < first + edge:
                counts[document, 3] += stop - start < short and bytes_of(points, start, stop) < short
            if line >= last - edge:
                counts[document, 4] += stop - start < short and bytes_of(points, start, stop) < short
        others = 0
        for point in points[offsets[document] : offsets[document + 1]]:
            others += classes[point] & LETTERS == 0
        counts[document, 7] = others
    return counts
