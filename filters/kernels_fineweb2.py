"""Compiled loop that counts the members of a word list that a document holds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from filters.kernels import Codes, Counts, Offsets, compiled


@compiled
def distinct_members(codes: Codes, offsets: Offsets, member: npt.NDArray[np.uint16], size: int) -> Counts:
    """Return, per document, how many of the members 1 to `size` occur in it; member[code] is 0 for other words."""
    counts = np.zeros(len(offsets) - 1, np.int64)
    last_seen = np.full(size + 1, -1, np.int64)
    for document in range(len(offsets) - 1):
        for code in codes[offsets[document] : offsets[document + 1]]:
            found = member[np.uint32(code)]
            if found != 0 and last_seen[found] != document:
                last_seen[found] = document
                counts[document] += 1
    return counts
