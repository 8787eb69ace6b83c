"""Compiled loops that find repeated n-grams of characters, and how characters are distributed.

N-grams are compared exactly: those of two characters by their two numbers, longer ones by the numbers of the n-grams of
two that they are made of. Time is linear in the number of characters.

Which letters lie in repeated n-grams of 5 to 10 is not found n-gram by n-gram, but letter by letter: a letter lies in a
repeated n-gram if, around two of its places, n characters or more agree. Rare letters try all pairs of their places;
of the others each stretch of n characters that holds a letter not yet settled is looked up, and few letters stay
unsettled for long (0.2 ms for 10,000 characters of web text, where a table for each n took 2.9 ms).
"""

from __future__ import annotations

import math

import numpy as np

from filters.kernels import BASE, Codes, Counts, Hashes, Offsets, compiled, mixed
from filters.kernels_redpajama import LONGEST, Floats, Ints, Points, longest_of

SHORTEST = 5  # characters of the shortest n-gram of which all repeats count
FEW = 32  # places of a rare letter at most: 496 pairs; one of more is nearly always settled by a stretch of LONGEST
SLOTS = 256
CELLS = 1 << 20  # n-grams of 2 and 3 are counted in a grid (up to 8 MB), without hashing, where that many can be
LOW = 0xFFFFFFFF


@compiled
def highest(points: Points) -> int:
    """The highest code point; 0 where there is none."""
    most = np.uint32(0)
    for point in points:
        most = max(most, point)
    return int(most)


@compiled
def lettered(points: Points, start: int, end: int, known: Codes, order: Codes, letters: Codes, counts: Codes) -> int:
    """Number the distinct points of points[start:end] from 0 in the order of their first places; return how many.

    Afterwards letters[at - start] is the number of each place, counts[number] how often it occurs, and order[number]
    its point. `known` has a zero for each code point, before and after.
    """
    held, own = 0, points[start:end]
    for at in range(len(own)):
        point = own[at]
        number = known[point]
        if number == 0:
            order[held] = point
            counts[held] = 0
            held += 1
            number = known[point] = held
        letters[at] = number - 1
        counts[number - 1] += 1
    for point in order[:held]:
        known[point] = 0
    return held


@compiled
def character_distribution(points: Points, offsets: Offsets) -> tuple[Counts, Floats]:
    """Return, per document, the number of distinct characters and the entropy of their distribution in nats.

    The entropy of a document without characters is NaN.
    """
    documents, longest = len(offsets) - 1, longest_of(offsets)
    distinct, entropy = np.zeros(documents, np.int64), np.full(documents, np.nan)
    known, order, letters = (
        np.zeros(highest(points) + 1, np.int32),
        np.empty(longest, np.int32),
        np.empty(longest, np.int32),
    )
    counts = np.empty(longest, np.int32)
    for document in range(documents):
        start, end = offsets[document], offsets[document + 1]
        held = lettered(points, start, end, known, order, letters, counts)
        distinct[document] = held
        if held:
            entropy[document] = 0
        for count in counts[:held]:
            share = count / (end - start)
            entropy[document] -= share * math.log(share)
    return distinct, entropy


@compiled
def numbered(
    keys: Hashes, size: int, ids: Codes, counts: Codes, known: Hashes, table: Ints, turn: int
) -> tuple[Ints, int, int]:
    """Number the distinct keys[:size] from 0 in the order of their first places: ids[k]; and count each: counts[id].

    Returns the hash table, perhaps a larger one; the last turn used in it; and how many distinct keys there are.
    """
    used, held = SLOTS, 0
    turn += 1
    for at in range(size):
        key = keys[at]
        slot = np.int64(mixed(key) & np.uint64(used - 1))
        while table[slot] >> 32 == turn and known[table[slot] & LOW] != key:
            slot = (slot + 1) & (used - 1)
        if table[slot] >> 32 != turn:
            table[slot] = turn << 32 | held
            known[held] = key
            counts[held] = 0
            held += 1
        number = table[slot] & LOW
        ids[at] = number
        counts[number] += 1
        if 2 * held > used:
            used *= 4
            turn += 1
            if used > len(table):
                table = np.zeros(used, np.int64)
            for earlier in range(held):
                slot = np.int64(mixed(known[earlier]) & np.uint64(used - 1))
                while table[slot] >> 32 == turn:
                    slot = (slot + 1) & (used - 1)
                table[slot] = turn << 32 | earlier
    return table, turn, held


@compiled
def pair(left: int, right: int) -> np.uint64:
    """Two non-negative 32-bit integers as one key."""
    return np.uint64(left) << np.uint64(32) | np.uint64(right)


@compiled
def numbered_in_grid(
    left: Codes, right: Codes, size: int, width: int, ids: Codes, counts: Codes, seen: Hashes, grid: Codes
) -> int:
    """Number and count the pairs (left[k], right[k]), k < size, as `numbered` does keys; return how many there are.

    right[k] < width, and `grid` has a zero for each pair that can be, before and after.
    """
    found = 0
    for at in range(size):
        cell = left[at] * width + right[at]
        if grid[cell] == 0:
            seen[found] = cell
            counts[found] = 0
            found += 1
            grid[cell] = found
        ids[at] = grid[cell] - 1
        counts[ids[at]] += 1
    for cell in seen[:found]:
        grid[cell] = 0
    return found


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
def candidates(trigrams: Codes, size: int, counts: Codes, least: int, bigrams: Codes, keys: Hashes) -> int:
    """Put the keys of the n-grams of 4 both of whose trigrams occur more than `least` times into `keys`; say how many.

    `size` is the number of trigrams.
    """
    found, before = 0, False
    for at in range(size):
        often = counts[trigrams[at]] > least
        if often and before:
            keys[found] = pair(bigrams[at - 1], bigrams[at + 1])
            found += 1
        before = often
    return found


@compiled
def agreement(letters: Codes, total: int, one: int, other: int) -> int:
    """How many characters agree around two places of one letter, at most LONGEST; one < other."""
    length = 1
    while length < LONGEST and other + length < total and letters[one + length] == letters[other + length]:
        length += 1
    before = 1
    while length < LONGEST and before <= one and letters[one - before] == letters[other - before]:
        length += 1
        before += 1
    return length


@compiled
def settle_rare(letters: Codes, total: int, counts: Codes, held: int, depth: Codes, places: Codes) -> int:
    """Set depth[letter] to the most characters that agree around two places of a letter with FEW places or fewer.

    That of other letters is set to 0; returns how many these are.
    """
    first, frequent = np.zeros(held, np.int32), 0
    at = 0
    for letter in range(held):
        depth[letter] = 0
        first[letter] = at
        rare = counts[letter] <= FEW
        at += counts[letter] if rare else 0
        frequent += not rare
    filled = first.copy()
    for at in range(total):
        letter = letters[at]
        if counts[letter] > FEW:
            continue
        for earlier in places[first[letter] : filled[letter]]:
            if depth[letter] < LONGEST:
                depth[letter] = max(depth[letter], agreement(letters, total, earlier, at))
        places[filled[letter]] = at
        filled[letter] += 1
    return frequent


@compiled
def stretch_key(bigrams: Codes, at: int, size: int) -> np.uint64:
    """A hash of the n-gram of `size` letters at `at`."""
    key = np.uint64(bigrams[at + size - 2])
    for place in range(at, at + size - 2, 2):
        key = key * BASE + np.uint64(bigrams[place])
    return mixed(key)


@compiled
def same_stretch(bigrams: Codes, one: int, other: int, size: int) -> bool:
    """Say whether the n-grams of `size` letters at two places are equal."""
    same = bool(bigrams[one + size - 2] == bigrams[other + size - 2])
    for place in range(0, size - 2, 2):
        same = same and bool(bigrams[one + place] == bigrams[other + place])
    return same


@compiled
def settle_frequent(
    letters: Codes,
    total: int,
    bigrams: Codes,
    trigrams: Codes,
    times: Codes,
    counts: Codes,
    size: int,
    depth: Codes,
    open_letters: int,
    table: Ints,
    turn: int,
) -> tuple[Ints, int, int]:
    """Set depth[letter] = size of letters with more than FEW places and a depth of 0 in a repeated n-gram of that size.

    Returns the table, perhaps a larger one, its last turn, and how many such letters are left. Stretches without one
    are passed over: of two equal ones the first holds all that are still open at the second. So are those with a
    trigram that occurs once, by `times`.
    """
    used, inserted, upcoming, tried, last_single = SLOTS, 0, 0, 0, -1
    turn += 1
    for at in range(total - size + 1):
        upcoming = max(upcoming, at)
        while upcoming < total and (depth[letters[upcoming]] or counts[letters[upcoming]] <= FEW):
            upcoming += 1
        if open_letters == 0 or upcoming == total:
            break
        if upcoming >= at + size:
            continue
        for place in range(max(tried, at), at + size - 2):
            if times[trigrams[place]] == 1:
                last_single = place
        tried = at + size - 2
        if last_single >= at:
            continue
        slot = np.int64(stretch_key(bigrams, at, size) & np.uint64(used - 1))
        while table[slot] >> 32 == turn and not same_stretch(bigrams, table[slot] & LOW, at, size):
            slot = (slot + 1) & (used - 1)
        if table[slot] >> 32 == turn:
            for letter in letters[at : at + size]:
                if depth[letter] == 0 and counts[letter] > FEW:
                    depth[letter] = size
                    open_letters -= 1
            continue
        table[slot] = turn << 32 | at
        inserted += 1
        if 2 * inserted > used:
            table, turn = regrown(table, used, turn, bigrams, size)
            used *= 4
    return table, turn, open_letters


@compiled
def regrown(table: Ints, used: int, turn: int, bigrams: Codes, size: int) -> tuple[Ints, int]:
    """Return a table of four times as many slots with the places of this turn in it, and their new turn."""
    places = table[:used][table[:used] >> 32 == turn] & LOW
    if 4 * used > len(table):
        table = np.zeros(4 * used, np.int64)
    for place in places:
        slot = np.int64(stretch_key(bigrams, place, size) & np.uint64(4 * used - 1))
        while table[slot] >> 32 == turn + 1:
            slot = (slot + 1) & (4 * used - 1)
        table[slot] = (turn + 1) << 32 | place
    return table, turn + 1


@compiled
def repeated_characters(points: Points, offsets: Offsets) -> Counts:
    """Return nine columns: n times the repeats of the most frequent n-gram of characters after its first place,
    n = 2, 3, 4; the number of different characters in n-grams that occur twice or more, n = 5 ... 10.
    """
    documents, longest = len(offsets) - 1, longest_of(offsets)
    result = np.zeros((documents, LONGEST - 1), np.int64)
    known, order, letters = (
        np.zeros(highest(points) + 1, np.int32),
        np.empty(longest, np.int32),
        np.empty(longest, np.int32),
    )
    often, bigrams, trigrams = np.empty(longest, np.int32), np.empty(longest, np.int32), np.empty(longest, np.int32)
    counts, depth = np.empty(longest, np.int32), np.empty(longest, np.int32)
    keys, seen, grid = np.empty(longest, np.uint64), np.empty(longest, np.uint64), np.zeros(SLOTS, np.int32)
    table, turn = np.zeros(SLOTS, np.int64), 0
    for document in range(documents):
        start, end = offsets[document], offsets[document + 1]
        total = end - start
        if total < 3:
            continue
        held = lettered(points, start, end, known, order, letters, often)
        left, ids, pairs = letters, bigrams, held
        for size in (2, 3):
            right, many = letters[size - 1 : total], total - size + 1
            if pairs * held <= CELLS:
                if pairs * held > len(grid):
                    grid = np.zeros(2 * pairs * held, np.int32)
                pairs = numbered_in_grid(left, right, many, held, ids, counts, seen, grid)
            else:
                for at in range(many):
                    keys[at] = pair(left[at], right[at])
                table, turn, pairs = numbered(keys, many, ids, counts, seen, table, turn)
            best = int(np.argmax(counts[:pairs]))
            result[document, size - 2] = size * (counts[best] - 1)
            left, ids = bigrams, trigrams
        open_letters = settle_rare(letters, total, often, held, depth, order)
        for size in range(LONGEST, SHORTEST - 1, -1):
            if open_letters == 0:
                break
            table, turn, open_letters = settle_frequent(
                letters, total, bigrams, trigrams, counts, often, size, depth, open_letters, table, turn
            )
        for letter in range(held):
            for size in range(SHORTEST, min(LONGEST, depth[letter]) + 1):
                result[document, size - 2] += 1
        if total > 3:
            most = likeliest_extension(letters, total, held, trigrams, best, depth)
            found = candidates(trigrams, total - 2, counts, most, bigrams, keys)
            table, turn, pairs = numbered(keys, found, trigrams, counts, seen, table, turn)
            result[document, 2] = 4 * (max(most, counts[:pairs].max() if pairs else 0) - 1)
    return result
