"""Compiled loops for BigScience's ratios: repeated n-grams of characters and of words, special characters.

N-grams are compared by a 64-bit hash of their contents: among 10^7 of them a false match has probability 3e-6. Time
and memory are linear: 12 bytes for each slot of a table that is at most half full.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from filters.bigscience_characters import BLANK, OUTER, REMOVED, SPECIAL
from filters.kernels import BASE, ONE, Codes, Counts, Hashes, Offsets, compiled, mixed

Points = npt.NDArray[np.uint32]
Classes = npt.NDArray[np.uint8]
Tally = npt.NDArray[np.uint32]

SPACE = np.uint32(32)
LEAST_SLOTS = 16


@compiled
def slots_for(grams: int) -> int:
    """The smallest power of two that leaves half of the slots free."""
    slots = LEAST_SLOTS
    while slots < 2 * grams:
        slots *= 2
    return slots


@compiled
def added(key: np.uint64, keys: Hashes, tally: Tally) -> np.uint64:
    """Count the key once more, and return its slot. A slot is free where its tally is 0."""
    mask = np.uint64(len(keys) - 1)
    slot = key & mask
    while tally[slot] != 0 and keys[slot] != key:
        slot = (slot + ONE) & mask
    keys[slot] = key
    tally[slot] += np.uint32(1)
    return slot


@compiled
def most_frequent(tally: Tally, repeats: Tally, distinct: int) -> int:
    """Occurrences of the k most frequent keys; k is the root of the distinct ones, at most those that occur twice.

    `repeats` are the slots of those. They are sorted by counting, in time linear in their occurrences.
    """
    left = min(int(np.sqrt(distinct)), len(repeats))
    highest = 0
    for slot in repeats:
        highest = max(highest, int(tally[slot]))
    frequency = np.zeros(highest + 1, np.int64)
    for slot in repeats:
        frequency[tally[slot]] += 1
    total = 0
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
def character_repetition(clean: Points, size: int, keys: Hashes, tally: Tally, repeats: Tally) -> int:
    """How many of the n-grams of `size` characters the ratio counts; keys, tally and repeats are room to work in."""
    tally[:] = 0
    oldest = ONE  # what the character that leaves the n-gram is multiplied with
    for _ in range(size - 1):
        oldest *= BASE
    key = np.uint64(0)
    distinct, repeated = 0, 0
    for at in range(len(clean)):
        if at >= size:
            key -= (np.uint64(clean[at - size]) + ONE) * oldest
        key = key * BASE + np.uint64(clean[at]) + ONE
        if at >= size - 1:
            slot = added(mixed(key), keys, tally)
            distinct += tally[slot] == 1
            if tally[slot] == 2:
                repeats[repeated] = slot
                repeated += 1
    return most_frequent(tally, repeats[:repeated], distinct)


@compiled
def character_counts(points: Points, offsets: Offsets, classes: Classes, size: int) -> Counts:
    """Return four columns: characters, special ones, n-grams of `size` characters, those that the ratio counts."""
    counts = np.zeros((len(offsets) - 1, 4), np.int64)
    longest = 0
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    clean, repeats = np.empty(longest, np.uint32), np.empty(longest // 2, np.uint32)
    keys, tally = np.empty(slots_for(longest), np.uint64), np.empty(slots_for(longest), np.uint32)
    for document in range(len(offsets) - 1):
        length, special = cleaned(points, offsets[document], offsets[document + 1], classes, clean)
        grams = max(length - size + 1, 0)
        used = slots_for(grams)
        counts[document, 0], counts[document, 1], counts[document, 2] = length, special, grams
        counts[document, 3] = character_repetition(clean[:length], size, keys[:used], tally[:used], repeats)
    return counts


@compiled
def repeated_ngrams(codes: Codes, offsets: Offsets, hashes: Hashes, size: int) -> Counts:
    """Return two columns: n-grams of `size` words, and those that occur more than once, all their places counted."""
    counts = np.zeros((len(offsets) - 1, 2), np.int64)
    longest = 0
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    keys, tally = np.empty(slots_for(longest), np.uint64), np.empty(slots_for(longest), np.uint32)
    for document in range(len(offsets) - 1):
        first = offsets[document]
        grams = max(offsets[document + 1] - first - size + 1, 0)
        used = slots_for(grams)
        tally[:used] = 0
        repeated = 0
        for at in range(first, first + grams):
            key = np.uint64(0)
            for place in range(at, at + size):
                key = key * BASE + hashes[codes[place]]
            count = tally[:used][added(mixed(key), keys[:used], tally[:used])]
            repeated += 2 if count == 2 else count > 2  # the second one tells that the first one counts as well
        counts[document, 0], counts[document, 1] = grams, repeated
    return counts
