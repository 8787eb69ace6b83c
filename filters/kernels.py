"""Compiled loops over token codes: counts of words, sentences, and repeated n-grams.

Every kernel takes the tokens of a whole batch as one flat array and the bounds of its `n` documents as `offsets`
(n + 1 values), and takes time linear in the number of tokens. Numba compiles a kernel at its first call and keeps the
result on disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from filters.characters import SPACE
from filters.token_flags import ALPHA, PUNCTUATED, STOP_WORDS, TERMINATOR

Codes = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.uint16]
Counts = npt.NDArray[np.int64]

TOP_SIZES = (2, 3, 4)
"""Sizes of the n-grams whose most frequent one is measured."""
DUPLICATE_SIZES = (5, 6, 7, 8, 9, 10)
"""Sizes of the n-grams whose repeats are measured."""

LINE_FEED = np.uint32(10)

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function, compiled by Numba and cached on disk, with its types kept."""
    return cast(Callable[P, R], numba.njit(cache=True, nogil=True)(function))


# Odd 64-bit constants: the golden ratio for polynomials, and the finaliser of MurmurHash3.
BASE = np.uint64(0x9E3779B97F4A7C55)
BASE_INVERSE = np.uint64(pow(0x9E3779B97F4A7C55, -1, 1 << 64))
MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
SHIFT = np.uint64(33)
ONE = np.uint64(1)


@compiled
def mixed(value: np.uint64) -> np.uint64:
    """A bijection of 64-bit integers that spreads every input bit over the low output bits."""
    value ^= value >> SHIFT
    value *= MIX_1
    value ^= value >> SHIFT
    value *= MIX_2
    value ^= value >> SHIFT
    return value


@compiled
def gathered(pieces: Codes, offsets: Offsets, starts: Offsets, codes: Codes) -> tuple[Codes, Offsets]:
    """Replace every piece by its codes, codes[starts[piece]:starts[piece + 1]]; return flat codes and their offsets."""
    total = 0
    for piece in pieces:
        total += starts[piece + 1] - starts[piece]
    flat = np.empty(total, np.int32)
    ends = np.empty(len(offsets), np.int64)
    ends[0] = 0
    at = 0
    for document in range(len(offsets) - 1):
        for place in range(offsets[document], offsets[document + 1]):
            piece = pieces[place]
            for source in range(starts[piece], starts[piece + 1]):
                flat[at] = codes[source]
                at += 1
        ends[document + 1] = at
    return flat, ends


@compiled
def spelled(points: npt.NDArray[np.uint32], ends: Offsets, kinds: Flags) -> tuple[Hashes, Flags]:
    """Return, for tokens given as code points, the polynomial sum((point[k] + 1) * BASE ** k) and flags.

    `kinds` are the flags by code point. A token has ALPHA if any of its points has it, and every other flag only
    if all of them do.
    """
    count = len(ends) - 1
    sums = np.zeros(count, np.uint64)
    flags = np.zeros(count, np.uint16)
    for token in range(count):
        every, some = np.uint16(0xFFFF), np.uint16(0)
        weight = ONE
        for at in range(ends[token], ends[token + 1]):
            sums[token] += (np.uint64(points[at]) + ONE) * weight
            weight *= BASE
            kind = kinds[points[at]]
            every &= kind
            some |= kind
        flags[token] = (every & ~np.uint16(ALPHA)) | (some & np.uint16(ALPHA))
    return sums, flags


@compiled
def word_counts(codes: Codes, offsets: Offsets, lengths: Codes, flags: Flags, symbol: np.uint16) -> Counts:
    """Return per document: words that are no symbols, their characters, words with a letter, stop words, distinct ones.

    `symbol` is the flag of tokens made of punctuation alone.
    """
    counts = np.zeros((len(offsets) - 1, 5), np.int64)
    for document in range(len(offsets) - 1):
        seen = 0
        for at in range(offsets[document], offsets[document + 1]):
            code = codes[at]
            flag = flags[code]
            if not flag & symbol:
                counts[document, 0] += 1
                counts[document, 1] += lengths[code]
            if flag & ALPHA:
                counts[document, 2] += 1
            if flag & STOP_WORDS:
                counts[document, 3] += 1
                seen |= flag & STOP_WORDS
        while seen:
            counts[document, 4] += seen & 1
            seen >>= 1
    return counts


@compiled
def sentence_counts(codes: Codes, offsets: Offsets, flags: Flags) -> Counts:
    """Count sentences as spaCy's sentencizer does: after a terminator, the next token but punctuation opens one."""
    counts = np.ones(len(offsets) - 1, np.int64)
    for line in range(len(offsets) - 1):
        ended = False
        for at in range(offsets[line], offsets[line + 1]):
            flag = flags[codes[at]]
            if flag & TERMINATOR:
                ended = True
            elif ended and not flag & PUNCTUATED:
                counts[line] += 1
                ended = False
    return counts


@compiled
def powers(base: np.uint64, count: int) -> Hashes:
    """base ** 0 ... base ** (count - 1), modulo 2^64."""
    result = np.ones(count, np.uint64)
    for exponent in range(1, count):
        result[exponent] = result[exponent - 1] * base
    return result


@compiled
def slot_of(key: np.uint64, keys: Hashes, owner: Codes, turn: int) -> np.uint64:
    """Where `key` lies, or is to lie, in an open hash table; a place is free where owner != turn."""
    mask = np.uint64(len(keys) - 1)
    slot = key & mask
    while owner[slot] == turn and keys[slot] != key:
        slot = (slot + ONE) & mask
    return slot


@compiled
def top_ngram(
    sums: Hashes, ends: Offsets, shifts: Hashes, size: int, keys: Hashes, owner: Codes, turn: int, seen: Counts
) -> int:
    """Characters under the most frequent n-gram of one document, joined by spaces and counted at all its places.

    Of equally frequent n-grams the one that occurs first counts. 0 where the document has fewer than `size` words.
    `sums` and `ends` are running sums over its words, of hash * BASE ** place and of characters; shifts[k] is
    BASE ** -k, so that equal n-grams have equal keys wherever they are.
    """
    best, best_first = 0, 0
    for first in range(len(ends) - size):
        key = mixed((sums[first + size] - sums[first]) * shifts[first])
        slot = slot_of(key, keys, owner, turn)
        if owner[slot] != turn:
            owner[slot] = turn
            keys[slot] = key
            seen[slot, 0] = 0
            seen[slot, 1] = first
        seen[slot, 0] += 1
        count, opened = seen[slot, 0], seen[slot, 1]
        if count > best or (count == best and opened < best_first):
            best, best_first = count, opened
    if best == 0:
        return 0
    return int(best * (ends[best_first + size] - ends[best_first] + size - 1))


@compiled
def duplicate_ngrams(
    sums: Hashes, ends: Offsets, shifts: Hashes, size: int, keys: Hashes, owner: Codes, turn: int
) -> int:
    """Characters in n-grams seen before, joined without spaces; after a repeat the walk jumps over the whole n-gram.

    N-grams are compared by a 64-bit hash of their spelling, so that "ab", "c" equals "a", "bc": among 100,000 words a
    false match has probability 3e-10. `sums` is the running sum of code point * BASE ** place of the character.
    """
    repeated, first = 0, 0
    while first < len(ends) - size:
        key = mixed((sums[first + size] - sums[first]) * shifts[ends[first]])
        slot = slot_of(key, keys, owner, turn)
        if owner[slot] == turn:
            repeated += ends[first + size] - ends[first]
            first += size
        else:
            owner[slot] = turn
            keys[slot] = key
            first += 1
    return repeated


@compiled
def repetition(codes: Codes, offsets: Offsets, lengths: Codes, hashes: Hashes, spelling: Hashes) -> Counts:
    """Return characters[document, metric]: the top n-gram of TOP_SIZES, then the duplicates of DUPLICATE_SIZES."""
    documents = len(offsets) - 1
    counts = np.zeros((documents, len(TOP_SIZES) + len(DUPLICATE_SIZES)), np.int64)
    longest, widest = 8, 8
    for document in range(documents):
        characters = 0
        for at in range(offsets[document], offsets[document + 1]):
            characters += lengths[codes[at]]
        widest = max(widest, characters)
        longest = max(longest, offsets[document + 1] - offsets[document])
    capacity = 16
    while capacity < 2 * longest:
        capacity *= 2
    keys, owner = np.zeros(capacity, np.uint64), np.zeros(capacity, np.int32)
    seen = np.zeros((capacity, 2), np.int64)
    weights, shifts = powers(BASE, max(widest, longest) + 1), powers(BASE_INVERSE, max(widest, longest) + 1)
    words, letters = np.zeros(longest + 1, np.uint64), np.zeros(longest + 1, np.uint64)
    ends = np.zeros(longest + 1, np.int64)
    turn = 0
    for document in range(documents):
        count = offsets[document + 1] - offsets[document]
        for place in range(count):
            code = codes[offsets[document] + place]
            words[place + 1] = words[place] + hashes[code] * weights[place]
            letters[place + 1] = letters[place] + spelling[code] * weights[ends[place]]
            ends[place + 1] = ends[place] + lengths[code]
        used = 16  # a table at most half full, and no larger, stays in the processor's cache
        while used < 2 * count:
            used *= 2
        reach = ends[: count + 1]
        column = 0
        for size in TOP_SIZES:
            turn += 1
            counts[document, column] = top_ngram(words, reach, shifts, size, keys[:used], owner[:used], turn, seen)
            column += 1
        for size in DUPLICATE_SIZES:
            turn += 1
            counts[document, column] = duplicate_ngrams(letters, reach, shifts, size, keys[:used], owner[:used], turn)
            column += 1
    return counts


@compiled
def summed(codes: Codes, offsets: Offsets, values: npt.NDArray[Any]) -> Counts:
    """Return, per document, the sum of values[code] over its codes."""
    sums = np.zeros(len(offsets) - 1, np.int64)
    for document in range(len(offsets) - 1):
        total = 0
        for code in codes[offsets[document] : offsets[document + 1]]:
            total += values[np.uint32(code)]  # without a sign there is no index from the end to allow for
        sums[document] = total
    return sums


@compiled
def longest_of(offsets: Offsets) -> int:
    """The largest number of units of a document."""
    longest = 0
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    return longest


@compiled
def beyond(units: npt.NDArray[Any]) -> int:
    """One more than the highest unit; 0 where there is none."""
    most = -1
    for unit in units:
        most = max(most, int(unit))
    return most + 1


@compiled
def renumbered(units: npt.NDArray[Any], known: Codes, order: Codes, numbers: Codes, counts: Codes) -> int:
    """Number the distinct units, which are not negative, from 0 in the order of their first places; return how many
    there are.

    Afterwards numbers[k] is the number of the unit at k, order[number] the unit, and counts[number] how often it
    occurs. `known` has a zero for each unit that can be, before and after.
    """
    held = 0
    for at in range(len(units)):
        unit = units[at]
        number = known[unit]
        if number == 0:
            order[held] = unit
            counts[held] = 0
            held += 1
            number = known[unit] = held
        numbers[at] = number - 1
        counts[number - 1] += 1
    for unit in order[:held]:
        known[unit] = 0
    return held


@compiled
def distribution(units: npt.NDArray[Any], offsets: Offsets) -> tuple[Counts, npt.NDArray[np.float64]]:
    """Return, per document, the number of distinct units and the entropy of their distribution in nats.

    The entropy of a document without units is NaN.
    """
    documents, longest = len(offsets) - 1, longest_of(offsets)
    distinct, entropy = np.zeros(documents, np.int64), np.full(documents, np.nan)
    known, order = np.zeros(beyond(units), np.int32), np.empty(longest, np.int32)
    numbers, counts = np.empty(longest, np.int32), np.empty(longest, np.int32)
    for document in range(documents):
        total = offsets[document + 1] - offsets[document]
        own = units[offsets[document] : offsets[document + 1]]
        distinct[document] = renumbered(own, known, order, numbers, counts)
        if total:
            entropy[document] = 0
        for count in counts[: distinct[document]]:
            share = count / total
            entropy[document] -= share * math.log(share)
    return distinct, entropy


@compiled
def lines(points: npt.NDArray[np.uint32], offsets: Offsets) -> tuple[Counts, Counts, Counts]:
    """Return the lines between line feeds: their starts, their ends, and where each document's begin."""
    count = len(offsets) - 1
    for point in points:
        count += point == LINE_FEED
    starts, ends = np.empty(count, np.int64), np.empty(count, np.int64)
    first = np.empty(len(offsets), np.int64)
    line = 0
    for document in range(len(offsets) - 1):
        first[document] = line
        base = start = offsets[document]
        own = points[base : offsets[document + 1]]
        for at in range(len(own)):
            if own[at] == LINE_FEED:
                starts[line], ends[line] = start, base + at
                line += 1
                start = base + at + 1
        starts[line], ends[line] = start, offsets[document + 1]
        line += 1
    first[len(offsets) - 1] = line
    return starts, ends, first


@compiled
def stripped(
    points: npt.NDArray[np.uint32], starts: Counts, ends: Counts, classes: npt.NDArray[np.uint16]
) -> tuple[Counts, Counts]:
    """Return the spans without white space at their ends; a blank one starts and ends at its end."""
    first, last = starts.copy(), ends.copy()
    for line in range(len(starts)):
        while first[line] < ends[line] and classes[points[first[line]]] & SPACE:
            first[line] += 1
        while last[line] > first[line] and classes[points[last[line] - 1]] & SPACE:
            last[line] -= 1
    return first, last
