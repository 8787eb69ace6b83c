"""Compiled loops over the lines of texts, as `str.splitlines` cuts them, and the white-space words in them."""

from __future__ import annotations

import numpy as np

from filters.kernels import Counts, Offsets, compiled
from filters.kernels_chunks import Points, is_space

LINE_FEED, CARRIAGE_RETURN = 0x0A, 0x0D


@compiled
def is_break(point: int) -> bool:
    """Whether a code point ends a line, as `str.splitlines` sees it; all that do are white space."""
    return 0x0A <= point <= 0x0D or 0x1C <= point <= 0x1E or point in (0x85, 0x2028, 0x2029)


@compiled
def worded_lines(points: Points, offsets: Offsets) -> tuple[Counts, Counts, Counts, Counts, Offsets]:
    """Return of each line where it begins and ends without the white space at its ends, its words, and the longest.

    The lines of text i are those numbered lines[i] to lines[i + 1]; a blank one has no words, and begins where it ends.
    """
    count = 0
    for point in points:
        count += is_break(point)
    count += len(offsets)
    starts, stops = np.empty(count, np.int64), np.empty(count, np.int64)
    words, longest = np.zeros(count, np.int64), np.zeros(count, np.int64)
    lines = np.zeros(len(offsets), np.int64)
    line = 0
    for text in range(len(offsets) - 1):
        at, last = offsets[text], offsets[text + 1]
        while at < last:
            starts[line] = stops[line] = at
            while at < last and not is_break(points[at]):
                begin = at
                while at < last and not is_space(points[at]):
                    at += 1
                if at > begin:
                    if words[line] == 0:
                        starts[line] = begin
                    words[line] += 1
                    longest[line] = max(longest[line], at - begin)
                    stops[line] = at
                else:
                    at += 1
            if at + 1 < last and points[at] == CARRIAGE_RETURN and points[at + 1] == LINE_FEED:
                at += 1
            at += 1
            line += 1
        lines[text + 1] = line
    return starts[:line], stops[:line], words[:line], longest[:line], lines


@compiled
def summed_by_text(values: Counts, offsets: Offsets) -> Counts:
    """The sum of values[offsets[i]:offsets[i + 1]] for each text i."""
    sums = np.zeros(len(offsets) - 1, np.int64)
    for text in range(len(sums)):
        for at in range(offsets[text], offsets[text + 1]):
            sums[text] += values[at]
    return sums
