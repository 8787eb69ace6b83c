"""Compiled loops that measure repetition: n-grams that occur again, and lines or paragraphs that do.

N-grams are numbered size by size: an n-gram is a pair of (n - 1)-grams, and where one of the two occurs once only the
n-gram does too and needs no number. Numbers are exact, nothing rests on a hash being free of collisions, and sizes
above 4 cost next to nothing on prose. Time is linear in words and code points; keys of long documents are sorted into
parts first, so that the table they are looked up in stays in the processor's cache.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from filters.kernels import (
    DUPLICATE_SIZES,
    LINE_FEED,
    ONE,
    TOP_SIZES,
    Codes,
    Counts,
    Hashes,
    Offsets,
    compiled,
    mixed,
    slot_of,
)
from filters.kernels_words import Points

FIRST, LONGEST, COVERED = range(3)
"""Columns of `repeated_ngrams` for TOP_SIZES: of the n-grams that occur most often, the size of the first one and of
the longest one (the first of equals), each times its occurrences; and the size of the words under the longest one.
FIRST counts an n-gram that occurs once, the others do not."""
OCCURRENCES, EVERY = range(2)
"""Columns of `repeated_ngrams` for DUPLICATE_SIZES, beside COVERED: the sizes of all occurrences of n-grams that occur
again, and of all n-grams, overlapping as they do. COVERED: the size of the words under n-grams that occur again."""
SIZES = np.array([*TOP_SIZES, *DUPLICATE_SIZES], np.int64)
SMALLEST, LARGEST_TOP = TOP_SIZES[0], TOP_SIZES[-1]
PARTS, REPEATED, SIZE, REPEATED_SIZE = range(4)
"""Columns of `repeated_parts`."""

NO_EQUAL = np.uint64(0xFFFFFFFFFFFFFFFF)  # a place where no n-gram begins that occurs again
HALF = np.uint64(32)
PRIME = np.uint64(0x100000001B3)  # FNV's, to mix one code point after another
TOP_BITS = np.uint64(40)
KEYS_PER_PART = 8192  # their table of 16,384 slots takes 256 kB


@compiled
def partition(keys: Hashes, count: int, parts: int, mixes: Hashes, places: Codes) -> Counts:
    """Sort keys other than NO_EQUAL, mixed, into `parts` parts by some of their bits, with the places they are from.

    Returns where each part begins in `mixes` and `places`, and where the last one ends.
    """
    mask = np.uint64(parts - 1)
    heads = np.zeros(parts + 1, np.int64)
    for at in range(count):
        if keys[at] != NO_EQUAL:
            heads[((mixed(keys[at]) >> TOP_BITS) & mask) + ONE] += 1
    for part in range(parts):
        heads[part + 1] += heads[part]
    free = heads[:-1].copy()
    for at in range(count):
        if keys[at] != NO_EQUAL:
            mix = mixed(keys[at])
            to = (mix >> TOP_BITS) & mask
            mixes[free[to]], places[free[to]] = mix, at
            free[to] += 1
    return heads


@compiled
def numbered(keys: Hashes, count: int, times: Codes, mixes: Hashes, places: Codes) -> int:
    """Give equal keys among keys[:count] one number, and NO_EQUAL to those that have no equal; return how many have.

    Fills times[place] with how often the key there occurs. `mixes` and `places` are room to work in.
    """
    if count == 0:
        return 0
    parts = 1
    while parts * KEYS_PER_PART < count:
        parts *= 2
    heads = partition(keys, count, parts, mixes, places)
    most = 8
    for part in range(parts):
        most = max(most, heads[part + 1] - heads[part])
    capacity = 16  # a table at most half full
    while capacity < 2 * most:
        capacity *= 2
    table, owner, slots = np.empty(capacity, np.uint64), np.zeros(capacity, np.int32), np.empty(most, np.int64)
    seen, numbers = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    distinct, again = 0, 0
    for part in range(parts):
        first, last = heads[part], heads[part + 1]
        for at in range(first, last):
            slot = slot_of(mixes[at], table, owner, part + 1)
            if owner[slot] != part + 1:
                owner[slot] = part + 1
                table[slot] = mixes[at]
                seen[slot] = 0
                numbers[slot] = distinct
                distinct += 1
            seen[slot] += 1
            slots[at - first] = slot
        for at in range(first, last):
            occurrences = seen[slots[at - first]]
            times[places[at]] = occurrences
            keys[places[at]] = np.uint64(numbers[slots[at - first]]) if occurrences > 1 else NO_EQUAL
            again += occurrences > 1
    return again


@compiled
def covered(keys: Hashes, count: int, size: int, ends: Counts, wanted: np.uint64, every: bool) -> int:
    """The size of the words under the n-grams numbered `wanted`, or under every one that occurs again."""
    total, reach = 0, 0
    for at in range(count):
        if keys[at] != NO_EQUAL and (every or keys[at] == wanted):
            total += ends[at + size] - ends[max(at, reach)]
            reach = at + size
    return total


@compiled
def top_columns(keys: Hashes, count: int, size: int, ends: Counts, times: Codes, row: Counts) -> None:
    """Fill FIRST, LONGEST and COVERED; times[at] is how often the n-gram at that place occurs, if it occurs again."""
    most, first, longest = 0, -1, -1
    for at in range(count):
        if keys[at] == NO_EQUAL:
            continue
        if times[at] > most:
            most, first, longest = times[at], at, at
        elif times[at] == most and ends[at + size] - ends[at] > ends[longest + size] - ends[longest]:
            longest = at
    if first < 0:
        row[FIRST] = ends[size]
        return
    row[FIRST] = most * (ends[first + size] - ends[first])
    row[LONGEST] = most * (ends[longest + size] - ends[longest])
    row[COVERED] = covered(keys, count, size, ends, keys[longest], False)


@compiled
def duplicate_columns(keys: Hashes, count: int, size: int, ends: Counts, row: Counts) -> None:
    """Fill OCCURRENCES, EVERY and COVERED."""
    for at in range(count):
        length = ends[at + size] - ends[at]
        row[EVERY] += length
        if keys[at] != NO_EQUAL:
            row[OCCURRENCES] += length
    row[COVERED] = covered(keys, count, size, ends, NO_EQUAL, True)


@compiled
def repeated_ngrams(codes: Codes, offsets: Offsets, sizes: npt.NDArray[np.int32]) -> Counts:
    """Return counts[document, size, column] for n-grams of TOP_SIZES, then DUPLICATE_SIZES.

    `sizes` is that of a word by its code, in whatever unit; an n-gram's is the sum of its words'.
    """
    documents = len(offsets) - 1
    counts = np.zeros((documents, len(SIZES), 3), np.int64)
    longest = 0
    for document in range(documents):
        longest = max(longest, offsets[document + 1] - offsets[document])
    keys, times = np.empty(longest, np.uint64), np.empty(longest, np.int32)
    ends, mixes, places = np.zeros(longest + 1, np.int64), np.empty(longest, np.uint64), np.empty(longest, np.int32)
    for document in range(documents):
        words = offsets[document + 1] - offsets[document]
        for place in range(words):
            code = codes[offsets[document] + place]
            keys[place] = np.uint64(code)
            ends[place + 1] = ends[place] + sizes[code]
        again = numbered(keys, words, times, mixes, places)
        for size in range(SMALLEST, SIZES[-1] + 1):
            count = words - size + 1
            if count <= 0:
                break
            if again:
                for at in range(count):
                    both = keys[at] != NO_EQUAL and keys[at + 1] != NO_EQUAL
                    keys[at] = (keys[at] << HALF | keys[at + 1]) if both else NO_EQUAL
                again = numbered(keys, count, times, mixes, places)
            if size <= LARGEST_TOP:
                top_columns(keys, count, size, ends, times, counts[document, size - SMALLEST])
            else:
                duplicate_columns(keys, count, size, ends, counts[document, size - SMALLEST])
    return counts


@compiled
def utf8_length(point: np.uint32) -> int:
    """Bytes of a code point in UTF-8; 3 for a lone surrogate."""
    return 1 + int(point > 0x7F) + int(point > 0x7FF) + int(point > 0xFFFF)


@compiled
def repeated_parts(
    points: Points, starts: Counts, ends: Counts, offsets: Offsets, blank: bool, in_bytes: bool
) -> Counts:
    """Return per document: parts, parts that occur more than once, and the size of both.

    A part is a span of code points; empty ones count if `blank`. Sizes are characters, or bytes of UTF-8. Parts are
    compared by a 64-bit hash: among 100,000 of one document two differ and are taken for equal with probability 3e-10.
    """
    documents = len(offsets) - 1
    counts = np.zeros((documents, 4), np.int64)
    longest = 0
    for document in range(documents):
        longest = max(longest, offsets[document + 1] - offsets[document])
    keys, times, sizes = np.empty(longest, np.uint64), np.empty(longest, np.int32), np.empty(longest, np.int64)
    mixes, places = np.empty(longest, np.uint64), np.empty(longest, np.int32)
    for document in range(documents):
        parts = 0
        for part in range(offsets[document], offsets[document + 1]):
            if ends[part] == starts[part] and not blank:
                continue
            key, size = np.uint64(ends[part] - starts[part]), 0
            for at in range(starts[part], ends[part]):
                key = (key ^ np.uint64(points[at])) * PRIME
                key ^= key >> HALF
                size += utf8_length(points[at]) if in_bytes else 1
            keys[parts] = min(key, NO_EQUAL - ONE)
            sizes[parts] = size
            parts += 1
        numbered(keys, parts, times, mixes, places)
        counts[document, PARTS] = parts
        for part in range(parts):
            counts[document, SIZE] += sizes[part]
            if times[part] > 1:
                counts[document, REPEATED] += 1
                counts[document, REPEATED_SIZE] += sizes[part]
    return counts


@compiled
def paragraphs(points: Points, offsets: Offsets) -> tuple[Counts, Counts, Counts]:
    """Return what lies between pairs of line feeds: starts, ends, and where each document's begin.

    Of three line feeds in a row the third belongs to what follows, as in `text.split("\\n\\n")`.
    """
    count = len(offsets) - 1 + len(points) // 2
    starts, ends = np.empty(count, np.int64), np.empty(count, np.int64)
    first = np.empty(len(offsets), np.int64)
    part = 0
    for document in range(len(offsets) - 1):
        first[document] = part
        at = start = offsets[document]
        end = offsets[document + 1]
        while at < end:
            if points[at] == LINE_FEED and at + 1 < end and points[at + 1] == LINE_FEED:
                starts[part], ends[part] = start, at
                part += 1
                at += 2
                start = at
            else:
                at += 1
        starts[part], ends[part] = start, end
        part += 1
    first[len(offsets) - 1] = part
    return starts[:part], ends[:part], first
