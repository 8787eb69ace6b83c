"""Compiled loops for BigScience's ratios: repeated n-grams of characters and of words, special characters.

N-grams are compared by a 64-bit hash of their contents: among 10^7 of them a false match has probability 3e-6. Time
and memory are linear: 32 bytes for each character of the longest document.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from filters.bigscience_characters import BLANK, OUTER, REMOVED, SPECIAL
from filters.kernels import BASE, ONE, Codes, Counts, Hashes, Offsets, compiled, longest_of
from filters.kernels_repeats import numbered

Points = npt.NDArray[np.uint32]
Classes = npt.NDArray[np.uint8]

SPACE = np.uint32(32)


@compiled
def most_frequent(times: Codes, places: Codes, single: int) -> int:
    """Occurrences of the k most frequent keys; k is the root of the distinct ones, at most those that occur twice.

    times[place], for all `places` of keys that occur twice or more, is how often the key there does; beside them there
    are `single` keys. They are sorted by counting.
    """
    highest = 0
    for place in places:
        highest = max(highest, times[place])
    frequency = np.zeros(highest + 1, np.int64)
    for place in places:
        frequency[times[place]] += 1
    repeated = 0
    for count in range(2, highest + 1):
        frequency[count] //= count
        repeated += frequency[count]
    left, total = min(int(np.sqrt(single + repeated)), repeated), 0
    for count in range(highest, 1, -1):
        taken = min(left, frequency[count])
        total += taken * count
        left -= taken
        if left == 0:
            break
    return total


@compiled
def cleaned(points: Points, first: int, last: int, classes: Classes, clean: Points) -> tuple[int, int]:
    """Write points[first:last] to `clean` as BigScience measures them; return how many, and how many are special.

    White space at the ends goes, then every blank becomes a space, and what does not print is taken out.
    """
    while first < last and classes[points[first]] & OUTER:
        first += 1
    while last > first and classes[points[last - 1]] & OUTER:
        last -= 1
    length, special = 0, 0
    for at in range(first, last):
        kind = classes[points[at]]
        if kind & REMOVED:
            continue
        clean[length] = SPACE if kind & BLANK else points[at]
        special += (kind & (SPECIAL | BLANK)) != 0  # a space is special
        length += 1
    return length, special


@compiled
def gram_keys(units: npt.NDArray[Any], size: int, keys: Hashes, places: Codes) -> int:
    """Put the keys of the n-grams of `size` units into `keys`, and from 0 on their `places`; return how many."""
    oldest = ONE  # what the unit that leaves the n-gram is multiplied with
    for _ in range(size - 1):
        oldest *= BASE
    key = np.uint64(0)
    for at in range(len(units)):
        if at >= size:
            key -= (np.uint64(units[at - size]) + ONE) * oldest
        key = key * BASE + np.uint64(units[at]) + ONE
        if at >= size - 1:
            keys[at - size + 1], places[at - size + 1] = key, at - size + 1
    return max(len(units) - size + 1, 0)


@compiled
def character_counts(points: Points, offsets: Offsets, classes: Classes, size: int) -> Counts:
    """Return four columns: characters, special ones, n-grams of `size` characters, those that the ratio counts."""
    counts = np.zeros((len(offsets) - 1, 4), np.int64)
    longest = longest_of(offsets)
    clean, times = np.empty(longest, np.uint32), np.empty(longest, np.int32)
    keys, mixes = np.empty(longest, np.uint64), np.empty(longest, np.uint64)
    places, by_part = np.empty(longest, np.int32), np.empty(longest, np.int32)
    for document in range(len(offsets) - 1):
        length, special = cleaned(points, offsets[document], offsets[document + 1], classes, clean)
        grams = gram_keys(clean[:length], size, keys, places)
        kept = numbered(keys, places, grams, times, mixes, by_part)
        counts[document, 0], counts[document, 1], counts[document, 2] = length, special, grams
        counts[document, 3] = most_frequent(times, places[:kept], grams - kept)
    return counts


@compiled
def repeated_ngrams(codes: Codes, offsets: Offsets, size: int) -> Counts:
    """Return two columns: n-grams of `size` words, and those that occur more than once, all their places counted."""
    counts = np.zeros((len(offsets) - 1, 2), np.int64)
    longest = longest_of(offsets)
    keys, mixes = np.empty(longest, np.uint64), np.empty(longest, np.uint64)
    places, by_part, times = np.empty(longest, np.int32), np.empty(longest, np.int32), np.empty(longest, np.int32)
    for document in range(len(offsets) - 1):
        grams = gram_keys(codes[offsets[document] : offsets[document + 1]], size, keys, places)
        counts[document, 0], counts[document, 1] = grams, numbered(keys, places, grams, times, mixes, by_part)
    return counts
