"""Compiled loops that find repeated n-grams of characters.

N-grams are compared exactly: those of two characters by their two numbers, longer ones by the numbers of two n-grams
that they are made of. Time is linear in the number of characters.

Which letters lie in repeated n-grams of 5 to 10 is not found n-gram by n-gram, but letter by letter. Most lie in one of
10, found at two places that begin the same trigram one after the other. Only near those that are left n-grams are
counted (0.1 ms for 10,000 characters of web text, where all n-grams of 5 to 10 take 2.9 ms).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from filters.kernels import Codes, Counts, Hashes, Offsets, beyond, compiled, longest_of, renumbered
from filters.kernels_repeats import numbered

Points = npt.NDArray[np.uint32]

SHORTEST, LONGEST = 5, 10  # characters of the n-grams of which all repeats count
CELLS = 1 << 20  # n-grams of 2 and 3 are counted in a grid (up to 8 MB), without hashing, where that many can be


@compiled
def pair(left: int, right: int) -> np.uint64:
    """Two non-negative 32-bit integers as one key."""
    return np.uint64(left) << np.uint64(32) | np.uint64(right)


@compiled
def numbered_in_grid(
    left: Codes, right: Codes, size: int, width: int, ids: Codes, counts: Codes, cells: Codes, grid: Codes
) -> int:
    """Number the distinct pairs (left[k], right[k]), k < size, from 0, and count them; return how many there are.

    right[k] < width, and `grid` has a zero for each pair that can be, before and after.
    """
    found = 0
    for at in range(size):
        cell = left[at] * width + right[at]
        if grid[cell] == 0:
            cells[found] = cell
            counts[found] = 0
            found += 1
            grid[cell] = found
        ids[at] = grid[cell] - 1
        counts[ids[at]] += 1
    for cell in cells[:found]:
        grid[cell] = 0
    return found


@compiled
def numbered_pairs(
    left: Codes,
    right: Codes,
    size: int,
    ids: Codes,
    counts: Codes,
    keys: Hashes,
    places: Codes,
    times: Codes,
    mixes: Hashes,
    by_part: Codes,
) -> int:
    """The same for pairs of any numbers; all from `keys` on is room to work in."""
    for at in range(size):
        keys[at], places[at] = pair(left[at], right[at]), at
    numbered(keys, places, size, times, mixes, by_part)
    most = -1
    for at in range(size):
        ids[at] = keys[at]
        counts[ids[at]] = times[at]
        most = max(most, ids[at])
    return most + 1


@compiled
def likeliest_extension(letters: Codes, total: int, held: int, trigrams: Codes, best: int, tally: Codes) -> int:
    """How often the n-gram of 4 letters occurs that begins with the trigram `best` and goes on as it mostly does."""
    most = 0
    tally[:held] = 0
    for at in range(total - 3):
        if trigrams[at] == best:
            tally[letters[at + 3]] += 1
            most = max(most, tally[letters[at + 3]])
    return most


@compiled
def candidates(
    trigrams: Codes, size: int, counts: Codes, least: int, bigrams: Codes, keys: Hashes, places: Codes
) -> int:
    """Put the keys of the n-grams of 4 both of whose trigrams occur more than `least` times into `keys`, and from 0 on
    where they lie there into `places`; say how many. `size` is the number of trigrams.
    """
    found, before = 0, False
    for at in range(size):
        often = counts[trigrams[at]] > least
        if often and before:
            keys[found], places[found] = pair(bigrams[at - 1], bigrams[at + 1]), found
            found += 1
        before = often
    return found


@compiled
def settle_likely(
    letters: Codes, total: int, held: int, trigrams: Codes, kinds: int, depth: Codes, last: Codes
) -> None:
    """Set depth[letter], letter < held, to LONGEST if so many characters agree around a place of it and the one before
    it that begins the same trigram, else to 0. There are `kinds` trigrams; `last` is room to work in.
    """
    last[:kinds] = -1
    depth[:held] = 0
    for at in range(total - 2):
        if depth[letters[at]]:
            continue
        before = last[trigrams[at]]
        last[trigrams[at]] = at
        if before < 0:
            continue
        first, end = at, at + 3
        while end < total and end < at + LONGEST and letters[end] == letters[end - at + before]:
            end += 1
        while first > end - LONGEST and first > at - before and letters[first - 1] == letters[first - 1 - at + before]:
            first -= 1
        if end - first >= LONGEST:
            for letter in letters[first:end]:
                depth[letter] = LONGEST


@compiled
def open_places(letters: Codes, total: int, trigrams: Codes, counts: Codes, depth: Codes, places: Codes) -> int:
    """Put into `places` those n-grams of 5 that an n-gram of up to LONGEST begins or ends with in which a letter has a
    depth of 0; those alone whose two trigrams occur again. Say how many.
    """
    found, reach = 0, -LONGEST
    for ahead in range(total + SHORTEST):
        if ahead < total and depth[letters[ahead]] == 0:
            reach = ahead
        at = ahead - LONGEST + 1
        if at < 0 or at + SHORTEST > total or reach < at - SHORTEST:
            continue
        if counts[trigrams[at]] > 1 and counts[trigrams[at + 2]] > 1:
            places[found] = at
            found += 1
    return found


@compiled
def deepened(letters: Codes, places: Codes, size: int, depth: Codes) -> None:
    """Raise the depth of the letters in the n-grams of `size` at `places` to that size."""
    for at in places:
        for letter in letters[at : at + size]:
            depth[letter] = max(depth[letter], size)


@compiled
def settle(
    letters: Codes,
    total: int,
    trigrams: Codes,
    counts: Codes,
    depth: Codes,
    fives: Codes,
    keys: Hashes,
    places: Codes,
    times: Codes,
    mixes: Hashes,
    by_part: Codes,
) -> None:
    """Set depth[letter], where it is 0, to the size of the largest repeated n-gram of 5 to LONGEST that holds it.

    An n-gram of more than 5 letters is known by the first five and the last five, and is looked for only where both of
    these and the one shorter by a letter are repeated. All from `fives` on is room to work in.
    """
    found = open_places(letters, total, trigrams, counts, depth, places)
    for at in places[:found]:
        keys[at] = pair(trigrams[at], trigrams[at + 2])
    found = numbered(keys, places, found, times, mixes, by_part)
    fives[:total] = -1
    for at in places[:found]:
        fives[at] = keys[at]
    deepened(letters, places[:found], SHORTEST, depth)
    for size in range(SHORTEST + 1, LONGEST + 1):
        both = 0
        for row in range(found):
            at = places[row]
            if at + size <= total and fives[at + size - SHORTEST] >= 0:
                keys[at] = pair(fives[at], fives[at + size - SHORTEST])
                places[both] = at
                both += 1
        found = numbered(keys, places, both, times, mixes, by_part)
        deepened(letters, places[:found], size, depth)


@compiled
def repeated_characters(points: Points, offsets: Offsets) -> Counts:
    """Return nine columns: n times the repeats of the most frequent n-gram of characters after its first place,
    n = 2, 3, 4; the number of different characters in n-grams that occur twice or more, n = 5 ... 10.

    Takes 60 bytes a character of the longest document.
    """
    documents, longest = len(offsets) - 1, longest_of(offsets)
    result = np.zeros((documents, LONGEST - 1), np.int64)
    known, grid = np.zeros(beyond(points), np.int32), np.zeros(1, np.int32)
    cells, order = np.empty(min(longest, CELLS), np.int32), np.empty(longest, np.int32)
    letters, bigrams, trigrams = np.empty(longest, np.int32), np.empty(longest, np.int32), np.empty(longest, np.int32)
    counts, depth = np.empty(longest, np.int32), np.empty(longest, np.int32)
    keys, mixes = np.empty(longest, np.uint64), np.empty(longest, np.uint64)
    places, times, by_part = np.empty(longest, np.int32), np.empty(longest, np.int32), np.empty(longest, np.int32)
    for document in range(documents):
        start, end = offsets[document], offsets[document + 1]
        total = end - start
        if total < 3:
            continue
        held = renumbered(points[start:end], known, order, letters, counts)
        left, ids, pairs = letters, bigrams, held
        for size in (2, 3):
            right, many = letters[size - 1 : total], total - size + 1
            if pairs * held <= CELLS:
                if pairs * held > len(grid):
                    grid = np.zeros(2 * pairs * held, np.int32)
                pairs = numbered_in_grid(left, right, many, held, ids, counts, cells, grid)
            else:
                pairs = numbered_pairs(left, right, many, ids, counts, keys, places, times, mixes, by_part)
            best = int(np.argmax(counts[:pairs]))
            result[document, size - 2] = size * (counts[best] - 1)
            left, ids = bigrams, trigrams
        settle_likely(letters, total, held, trigrams, pairs, depth, order)
        settle(letters, total, trigrams, counts, depth, order, keys, places, times, mixes, by_part)
        for letter in range(held):
            for size in range(SHORTEST, depth[letter] + 1):
                result[document, size - 2] += 1
        if total > 3:
            most = likeliest_extension(letters, total, held, trigrams, best, depth)
            found = candidates(trigrams, total - 2, counts, most, bigrams, keys, places)
            numbered(keys, places, found, times, mixes, by_part)
            for occurrences in times[:found]:
                most = max(most, occurrences)
            result[document, 2] = 4 * (most - 1)
    return result
