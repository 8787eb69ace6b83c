"""Compiled loops that cut texts at white space and number the chunks, without a string for any chunk met before.

A chunk is a span of code points, known by 96 bits of hash: among a million distinct chunks a false match has
probability 6e-18. The table of those met so far is open addressing: a row is 64 bits of hash, and 32 more bits over the
chunk's number; a row of zeros is free. The chunk " ", which stands for white space that is a token, is number 0 and not
in the table.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from filters.kernels import Codes, Hashes, Offsets, compiled, mixed

Points = npt.NDArray[np.uint32]

MULTIPLIER_1 = np.uint64(0x9E3779B97F4A7C15)
MULTIPLIER_2 = np.uint64(0xD1342543DE82EF95)
ONE = np.uint64(1)
ZERO = np.uint64(0)
LOW = np.uint64(0xFFFFFFFF)
HIGH = np.uint64(0xFFFFFFFF00000000)
BLANK = 0x20


@compiled
def is_space(point: int) -> bool:
    """Whether a code point is white space, as `str.isspace` and `str.split` see it."""
    if point <= 0x20:
        return point == 0x20 or 0x09 <= point <= 0x0D or 0x1C <= point <= 0x1F
    if point < 0x1680:
        return point == 0x85 or point == 0xA0
    if point > 0x3000:
        return False
    return point == 0x1680 or 0x2000 <= point <= 0x200A or point in (0x2028, 0x2029, 0x202F, 0x205F, 0x3000)


@compiled
def cut(points: Points, offsets: Offsets, marked: bool) -> tuple[Offsets, Offsets, Hashes, Offsets]:
    """Return where chunks begin and end, their hashes, and which are each text's: chunks[i] to chunks[i + 1] of text i.

    marked: an empty chunk stands wherever white space is a token of its own. One blank (U+0020) after a chunk belongs
    to that chunk; whatever else there is of white space is a token.
    """
    most = (len(points) + len(offsets)) * (2 if marked else 1) // 2 + 1
    starts, stops, hashes = np.empty(most, np.int64), np.empty(most, np.int64), np.empty((most, 2), np.uint64)
    chunks = np.zeros(len(offsets), np.int64)
    found = 0
    for text in range(len(offsets) - 1):
        at, last = offsets[text], offsets[text + 1]
        while at < last:
            begin = at
            while at < last and is_space(points[at]):
                at += 1
            if marked and at > begin and not (at == begin + 1 and points[begin] == BLANK and begin > offsets[text]):
                starts[found], stops[found] = begin, begin
                hashes[found, 0], hashes[found, 1] = ZERO, ZERO
                found += 1
            begin = at
            left, right = ZERO, ZERO
            while at < last and not is_space(points[at]):
                left, right = folded(left, right, points[at])
                at += 1
            if at > begin:
                starts[found], stops[found] = begin, at
                hashes[found, 0], hashes[found, 1] = mixed(left), mixed(right)
                found += 1
        chunks[text + 1] = found
    return starts[:found], stops[:found], hashes[:found], chunks


@compiled
def folded(left: np.uint64, right: np.uint64, point: np.uint32) -> tuple[np.uint64, np.uint64]:
    """Two running hashes with one more code point; that of no point is 0."""
    more = np.uint64(point) + ONE
    return (left + more) * MULTIPLIER_1, (right ^ more) * MULTIPLIER_2


@compiled
def hashed(points: Points, offsets: Offsets) -> Hashes:
    """The hashes of the chunks points[offsets[k]:offsets[k + 1]], as `cut` makes them; that of " " is 0."""
    hashes = np.zeros((len(offsets) - 1, 2), np.uint64)
    for chunk in range(len(hashes)):
        first, last = offsets[chunk], offsets[chunk + 1]
        if last == first + 1 and points[first] == BLANK:
            continue
        left, right = ZERO, ZERO
        for at in range(first, last):
            left, right = folded(left, right, points[at])
        hashes[chunk, 0], hashes[chunk, 1] = mixed(left), mixed(right)
    return hashes


@compiled
def row_of(left: np.uint64, right: np.uint64, table: Hashes) -> np.uint64:
    """Where the number of the chunk with these hashes lies in the table, or is to lie."""
    mask = np.uint64(len(table) - 1)
    row = left & mask
    while table[row, 1] != ZERO and not (table[row, 0] == left and table[row, 1] & HIGH == right & HIGH):
        row = (row + ONE) & mask
    return row


@compiled
def numbered(hashes: Hashes, numbers: Codes, at: int, count: int, table: Hashes, fresh: Offsets) -> tuple[int, int]:
    """Write the numbers of the chunks from `at` on, as far as there is room; return how far, and the count of numbers.

    `count` numbers are taken; chunks not in the table get the next ones, and `fresh[number - count]` is the first place
    of each. There is room while the table is at most half full, and `fresh`.
    """
    first = count
    while at < len(hashes):
        left, right = hashes[at, 0], hashes[at, 1]
        if left == ZERO and right == ZERO:
            numbers[at] = 0
            at += 1
            continue
        row = row_of(left, right, table)
        if table[row, 1] == ZERO:
            if 2 * count >= len(table) or count - first == len(fresh):
                break
            table[row, 0] = left
            table[row, 1] = (right & HIGH) | np.uint64(count)
            fresh[count - first] = at
            count += 1
        numbers[at] = np.int32(table[row, 1] & LOW)
        at += 1
    return at, count


@compiled
def spread(table: Hashes, size: int) -> Hashes:
    """The same table with `size` rows, a power of two."""
    grown = np.zeros((size, 2), np.uint64)
    for row in range(len(table)):
        if table[row, 1] != ZERO:
            at = row_of(table[row, 0], table[row, 1], grown)
            grown[at, 0], grown[at, 1] = table[row, 0], table[row, 1]
    return grown


@compiled
def together(points: Points, starts: Offsets, stops: Offsets) -> Points:
    """The code points of these spans, one after another."""
    total = 0
    for span in range(len(starts)):
        total += stops[span] - starts[span]
    joined = np.empty(total, np.uint32)
    to = 0
    for span in range(len(starts)):
        for at in range(starts[span], stops[span]):
            joined[to] = points[at]
            to += 1
    return joined
