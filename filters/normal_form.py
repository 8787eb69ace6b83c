"""The NFKC forms of many texts, in time that depends on how many characters can change.

`unicodedata.normalize` takes 0.5 ms for 10,000 characters as soon as one of them changes. Most characters stand for
themselves whatever is before them; between such, only the stretches that hold another one are normalised.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

MANY = 20  # with one loose character in 20 or more, normalising the whole text is as fast
JAMO = ((0x1161, 0x1175), (0x11A8, 0x11C2))  # Hangul vowels and finals join what stands before them


@cache
def loose_points() -> npt.NDArray[np.bool_]:
    """True of each code point that NFKC changes, moves, or may join to the one before; 1 MB, made in 0.3 s."""
    loose = np.zeros(sys.maxunicode + 1, np.bool_)
    for point in range(sys.maxunicode + 1):
        character = chr(point)
        if not unicodedata.is_normalized("NFKC", character) or unicodedata.combining(character):
            loose[point] = True
        canonical = unicodedata.decomposition(character).split()
        if len(canonical) == 2 and not canonical[0].startswith("<"):
            loose[int(canonical[1], 16)] = True
    for first, last in JAMO:
        loose[first : last + 1] = True
    loose.flags.writeable = False
    return loose


def nfkc(texts: Sequence[str], points: npt.NDArray[np.uint32], offsets: npt.NDArray[np.int64]) -> list[str]:
    """The NFKC form of each text; text i has the code points points[offsets[i]:offsets[i + 1]]."""
    places = np.flatnonzero(points > 0x7F)  # NFKC leaves ASCII as it is
    places = places[loose_points()[points[places]]]
    bounds = np.searchsorted(places, offsets).tolist()
    normal = list(texts)
    for at, (first, last) in enumerate(pairwise(bounds)):
        if first < last:
            normal[at] = renormalised(texts[at], (places[first:last] - offsets[at]).tolist())
    return normal


def renormalised(text: str, places: Sequence[int]) -> str:
    """The NFKC form of a text whose loose characters are at `places`, which rise."""
    if len(places) * MANY > len(text):
        return unicodedata.normalize("NFKC", text)
    parts: list[str] = []
    start = end = 0
    for place in places:
        if place > end or not parts:  # a new stretch, from the character before on
            parts += [unicodedata.normalize("NFKC", text[start:end]), text[end : max(0, place - 1)]]
            start = max(0, place - 1)
        end = place + 1
    return "".join([*parts, unicodedata.normalize("NFKC", text[start:end]), text[end:]])
