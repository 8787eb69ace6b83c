"""Compiled loop for StarCoder's signals: one walk over the characters of every document."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from filters.characters import ALNUM, ALPHA
from filters.kernels import LINE_FEED, Counts, Offsets, compiled

UNDERSCORE = np.uint32(95)


@compiled
def code_counts(points: npt.NDArray[np.uint32], offsets: Offsets, classes: npt.NDArray[np.uint16]) -> Counts:
    """Return four columns: lines, characters of the longest line, letters or digits or underscores, letters."""
    counts = np.zeros((len(offsets) - 1, 4), np.int64)
    for document in range(len(offsets) - 1):
        lines, longest, start = 1, 0, 0
        words, letters = 0, 0
        own = points[offsets[document] : offsets[document + 1]]
        for at in range(len(own)):
            point = own[at]
            if point == LINE_FEED:
                lines += 1
                longest = max(longest, at - start)
                start = at + 1
                continue
            kind = classes[point]
            words += kind & ALNUM != 0 or point == UNDERSCORE
            letters += kind & ALPHA != 0
        counts[document, 0], counts[document, 1] = lines, max(longest, len(own) - start)
        counts[document, 2], counts[document, 3] = words, letters
    return counts
