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
    beyond,
    compiled,
    longest_of,
    mixed,
    renumbered,
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

NO_NUMBER = np.uint64(0xFFFFFFFFFFFFFFFF)  # no n-gram has it
HALF = np.uint64(32)
LOW = 0xFFFFFFFF
PRIME = np.uint64(0x100000001B3)  # FNV's, to mix one code point after another
TOP_BITS = np.uint64(40)
KEYS_PER_PART = 16384  # their table of 32,768 slots takes 256 kB


@compiled
def partition(keys: Hashes, places: Codes, count: int, mixes: Hashes, by_part: Codes) -> Counts:
    """Sort the keys at places[:count], mixed, into parts by some of their bits, with the place of each.

    Returns where each part begins in `mixes` and `by_part`, and where the last one ends.
    """
    parts = 1
    while parts * KEYS_PER_PART < count:
        parts *= 2
    mask = np.uint64(parts - 1)
    heads = np.zeros(parts + 1, np.int64)
    for place in places[:count]:
        heads[((mixed(keys[place]) >> TOP_BITS) & mask) + ONE] += 1
    for part in range(parts):
        heads[part + 1] += heads[part]
    free = heads[:-1].copy()
    for place in places[:count]:
        mix = mixed(keys[place])
        to = (mix >> TOP_BITS) & mask
        mixes[free[to]], by_part[free[to]] = mix, place
        free[to] += 1
    return heads


@compiled
def room_for(heads: Counts) -> tuple[Counts, Hashes, Codes, Codes]:
    """The table that `counted` needs for each part, at most half full, and `known`, `ids` and `seen`."""
    most, capacity = longest_of(heads), 16
    while capacity < 2 * most:
        capacity *= 2
    known, ids, seen = np.empty(most, np.uint64), np.empty(most, np.int32), np.empty(most, np.int32)
    return np.zeros(capacity, np.int64), known, ids, seen


@compiled
def counted(keys: Hashes, ids: Codes, seen: Codes, known: Hashes, table: Counts, turn: int) -> int:
    """Number the distinct keys from 0 in the order of their first places, ids[k], and count each, seen[id].

    Return how many there are. `table` has more slots than there are keys; one is free where its high half is no `turn`.
    """
    distinct, mask = 0, np.uint64(len(table) - 1)
    for at in range(len(keys)):
        key = keys[at]
        slot = key & mask
        while table[slot] >> 32 == turn and known[table[slot] & LOW] != key:
            slot = (slot + ONE) & mask
        if table[slot] >> 32 != turn:
            table[slot] = turn << 32 | distinct
            known[distinct] = key
            seen[distinct] = 0
            distinct += 1
        number = table[slot] & LOW
        ids[at] = number
        seen[number] += 1
    return distinct


@compiled
def numbered(keys: Hashes, places: Codes, count: int, times: Codes, mixes: Hashes, by_part: Codes) -> int:
    """Give equal keys at places[:count], which rise, one number; return how many places have a key that occurs again.

    They are places[:kept] afterwards, in the same order; times[place] is how often the key there occurs. `mixes` and
    `by_part` are room to work in.
    """
    if count == 0:
        return 0
    heads = partition(keys, places, count, mixes, by_part)
    table, known, ids, seen = room_for(heads)
    before = 0
    for part in range(len(heads) - 1):
        first, last = heads[part], heads[part + 1]
        distinct = counted(mixes[first:last], ids, seen, known, table, part + 1)
        for at in range(first, last):
            place, number = by_part[at], ids[at - first]
            times[place] = seen[number]
            keys[place] = np.uint64(before + number)
        before += distinct
    kept = 0
    for row in range(count):
        place = places[row]
        places[kept] = place
        kept += times[place] > 1
    return kept


@compiled
def paired(keys: Hashes, places: Codes, kept: int) -> int:
    """Of two n-grams at neighbouring places[:kept], which rise, make the key of one longer by a unit.

    Return how many there are; they are at that many of `places` afterwards. All others occur once.
    """
    pairs = 0
    for row in range(kept - 1):
        place = places[row]
        if places[row + 1] == place + 1:
            keys[place] = keys[place] << HALF | keys[place + 1]
            places[pairs] = place
            pairs += 1
    return pairs


@compiled
def covered(keys: Hashes, places: Codes, size: int, ends: Counts, wanted: np.uint64, every: bool) -> int:
    """The size of the words under the n-grams at `places`, of those numbered `wanted` or of every one."""
    total, reach = 0, 0
    for at in places:
        if every or keys[at] == wanted:
            total += ends[at + size] - ends[max(at, reach)]
            reach = at + size
    return total


@compiled
def top_columns(keys: Hashes, places: Codes, size: int, ends: Counts, times: Codes, row: Counts) -> None:
    """Fill FIRST, LONGEST and COVERED, given the places of n-grams that occur again."""
    if len(places) == 0:
        row[FIRST] = ends[size]
        return
    first = longest = places[0]
    for at in places:
        if times[at] > times[first]:
            first = longest = at
        elif times[at] == times[first] and ends[at + size] - ends[at] > ends[longest + size] - ends[longest]:
            longest = at
    row[FIRST] = times[first] * (ends[first + size] - ends[first])
    row[LONGEST] = times[first] * (ends[longest + size] - ends[longest])
    row[COVERED] = covered(keys, places, size, ends, keys[longest], False)


@compiled
def duplicate_columns(keys: Hashes, places: Codes, size: int, ends: Counts, row: Counts) -> None:
    """Fill OCCURRENCES, EVERY and COVERED, given the places of n-grams that occur again."""
    occurrences = 0
    for at in places:
        occurrences += ends[at + size] - ends[at]
    row[EVERY], row[OCCURRENCES] = ends[size:].sum() - ends[:-size].sum(), occurrences
    row[COVERED] = covered(keys, places, size, ends, NO_NUMBER, True)


@compiled
def repeated_ngrams(codes: Codes, offsets: Offsets, sizes: npt.NDArray[np.int32]) -> Counts:
    """Return counts[document, size, column] for n-grams of TOP_SIZES, then DUPLICATE_SIZES.

    `sizes` is that of a word by its code, in whatever unit; an n-gram's is the sum of its words'.
    """
    documents = len(offsets) - 1
    counts = np.zeros((documents, len(SIZES), 3), np.int64)
    longest = longest_of(offsets)
    keys, times, ends = np.empty(longest, np.uint64), np.empty(longest, np.int32), np.zeros(longest + 1, np.int64)
    mixes, by_part, places = np.empty(longest, np.uint64), np.empty(longest, np.int32), np.empty(longest, np.int32)
    known, order, seen = np.zeros(beyond(codes), np.int32), np.empty(longest, np.int32), np.empty(longest, np.int32)
    for document in range(documents):
        own = codes[offsets[document] : offsets[document + 1]]
        words, kept = len(own), 0
        renumbered(own, known, order, by_part, seen)
        for place in range(words):
            ends[place + 1] = ends[place] + sizes[own[place]]
            number = by_part[place]
            keys[place], times[place], places[kept] = number, seen[number], place
            kept += times[place] > 1
        for size in range(SMALLEST, min(SIZES[-1], words) + 1):
            kept = numbered(keys, places, paired(keys, places, kept), times, mixes, by_part)
            again, reach, row = places[:kept], ends[: words + 1], counts[document, size - SMALLEST]
            if size <= LARGEST_TOP:
                top_columns(keys, again, size, reach, times, row)
            else:
                duplicate_columns(keys, again, size, reach, row)
    return counts


@compiled
def utf8_length(point: np.uint32) -> int:
    """Bytes of a code point in UTF-8; 3 for a lone surrogate."""
    return 1 + int(point > 0x7F) + int(point > 0x7FF) + int(point > 0xFFFF)


@compiled
def utf8_size(points: Points) -> int:
    """Bytes of code points in UTF-8."""
    size = 0
    for point in points:
        size += utf8_length(point)
    return size


@compiled
def hashed(points: Points) -> np.uint64:
    """A 64-bit hash of code points."""
    key = ONE
    for point in points:
        key = (key ^ np.uint64(point)) * PRIME
        key ^= key >> HALF
    return key


@compiled
def repeated_parts(
    points: Points, starts: Counts, ends: Counts, offsets: Offsets, blank: bool, in_bytes: bool
) -> Counts:
    """Return per document: parts, parts that occur more than once, and the size of both.

    A part is a span of code points; empty ones count if `blank`. Sizes are characters, or bytes of UTF-8. Parts are
    compared by a 64-bit hash: among 100,000 of one document two differ and are taken for equal with probability 3e-10.
    Only those are hashed that have the length and both outer characters of another.
    """
    documents = len(offsets) - 1
    counts = np.zeros((documents, 4), np.int64)
    longest = longest_of(offsets)
    keys, times, sizes = np.empty(longest, np.uint64), np.empty(longest, np.int32), np.empty(longest, np.int64)
    mixes, by_part, places = np.empty(longest, np.uint64), np.empty(longest, np.int32), np.empty(longest, np.int32)
    for document in range(documents):
        first, parts, row = offsets[document], 0, counts[document]
        for part in range(first, offsets[document + 1]):
            start, end, at = starts[part], ends[part], part - first
            sizes[at] = utf8_size(points[start:end]) if in_bytes else end - start
            if end > start:
                outer = np.uint64(points[start]) << HALF | np.uint64(points[end - 1])
                keys[at] = mixed(outer) + np.uint64(end - start)
            elif blank:
                keys[at] = 0
            else:
                continue
            places[parts] = at
            parts += 1
            row[SIZE] += sizes[at]
        row[PARTS] = parts
        kept = numbered(keys, places, parts, times, mixes, by_part)
        for at in places[:kept]:
            keys[at] = hashed(points[starts[first + at] : ends[first + at]]) + np.uint64(sizes[at])
        row[REPEATED] = numbered(keys, places, kept, times, mixes, by_part)
        for at in places[: row[REPEATED]]:
            row[REPEATED_SIZE] += sizes[at]
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
