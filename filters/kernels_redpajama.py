"""Compiled loops of RedPajama-v2's signals: repeated n-grams of words, words and sentences of raw text, lines.

Every kernel takes the units (word codes, or code points) of a whole batch as one flat array and the bounds of its `n`
documents as `offsets` (n + 1 values), and takes time linear in their number. N-grams are compared unit by unit, never
by hash alone: an n-gram is known by the place where it occurs first, and equal n-grams of n + 1 units are those whose
two n-grams are equal.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from filters.characters import ALNUM, SPACE, UPPER
from filters.kernels import Codes, Counts, Hashes, Offsets, compiled, mixed

Points = npt.NDArray[np.uint32]
Classes = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float64]
Kinds = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

TOP_SIZES = (2, 3, 4)
"""Sizes of the n-grams whose most frequent one is measured."""
LONGEST = 10
"""n-grams of 5 to LONGEST units are those whose repeats are measured."""
WORD_COLUMNS = 11
"""Columns of `repeats`."""

# fmt: off
HASH, DOT, BANG, QUESTION, UNDERSCORE, ELLIPSIS, LINE_FEED = 0x23, 0x2E, 0x21, 0x3F, 0x5F, 0x2026, 0x0A
QUOTE = 0x201D  # the right double quotation mark
BULLETS = (0x2022, 0x2023, 0x25B6, 0x25C0, 0x25E6, 0x25A0, 0x25A1, 0x25AA, 0x25AB, 0x2013)
JAVASCRIPT = (0x6A, 0x61, 0x76, 0x61, 0x73, 0x63, 0x72, 0x69, 0x70, 0x74)
# fmt: on
# Bits of `redpajama.word_kinds`: white space; letter, digit or underscore; A-Z or a-z; upper case; lower or title case;
# a-z.
BLANK, WORDY, LATIN, CAPITAL, SMALL, PLAIN = 1, 2, 4, 8, 16, 32
LENGTHS = 0x0F  # what a code point becomes when it is normalised: characters, and from NUMERALS on numeric ones
NUMERALS = 4
LETTERS = 28  # stop words are numbers in base 28: a to z are 1 to 26, the apostrophe is 27
STOP_LENGTH = 13  # 28 ** 13 < 2 ** 63; the longest stop word is "unfortunately"
PLACE = 0xFFFFFFFF  # the low half of an entry of a table of places; the high half is its turn
# A table at most half full, and no larger, stays in the processor's cache; beyond 2 ** 16 slots (512 kB) it grows with
# the distinct pairs it holds, so that 64 million places of few pairs do not take 1 GB.
FEWEST_SLOTS, MOST_SLOTS_AT_FIRST = 64, 1 << 16


@compiled
def matched(
    left: Codes, reach: int, places: Codes, size: int, ids: Codes, counts: Codes, order: Codes, table: Ints, turn: int
) -> tuple[Ints, int, int, int]:
    """Give equal pairs (left[p], left[p + reach]) one id, the first such p; and count them at counts[id].

    p runs over places[:size], which rises; with a reach of 1 only over those whose successor is p + 1. Afterwards
    order[:held] are the ids, and places[:kept] the p whose pair occurs twice or more. Returns the table of places,
    perhaps a larger one; the last turn used in it; held; and kept.
    """
    used, held, tried = FEWEST_SLOTS, 0, 0
    while used < 2 * size and used < MOST_SLOTS_AT_FIRST:
        used *= 2
    if used > len(table):
        table = np.zeros(used, np.int64)
    turn += 1
    for row in range(size - reach):
        at = places[row]
        if places[row + reach] != at + reach:
            continue
        places[tried] = at
        tried += 1
        one, other = left[at], left[at + reach]
        slot = slot_of_pair(one, other, used)
        while table[slot] >> 32 == turn:
            place = table[slot] & PLACE
            if left[place] == one and left[place + reach] == other:
                break
            slot = (slot + 1) & (used - 1)
        if table[slot] >> 32 == turn:
            place = table[slot] & PLACE
            ids[at] = place
            counts[place] += 1
            continue
        table[slot] = turn << 32 | at
        ids[at] = order[held] = at
        counts[at] = 1
        held += 1
        if 2 * held > used:
            used *= 4
            turn += 1
            if used > len(table):
                table = np.zeros(used, np.int64)
            for earlier in order[:held]:
                slot = slot_of_pair(left[earlier], left[earlier + reach], used)
                while table[slot] >> 32 == turn:
                    slot = (slot + 1) & (used - 1)
                table[slot] = turn << 32 | earlier
    kept = 0
    for row in range(tried):
        places[kept] = places[row]
        kept += counts[ids[places[row]]] > 1
    return table, turn, held, kept


@compiled
def slot_of_pair(left: int, right: int, used: int) -> np.int64:
    """Where a pair of non-negative 32-bit integers belongs in a table of `used` slots."""
    return np.int64(mixed(np.uint64(left) << np.uint64(32) | np.uint64(right)) & np.uint64(used - 1))


@compiled
def most_frequent(counts: Codes, order: Codes, held: int) -> int:
    """Of the ids order[:held] the one counted most often, of equal ones the first; -1 where there is none."""
    best = -1
    for place in order[:held]:
        if best < 0 or counts[place] > counts[best]:
            best = place
    return best


@compiled
def entropy_of(counts: Codes, order: Codes, held: int, total: int) -> float:
    """The Shannon entropy, in nats, of units that occur counts[order[k]] times, k < held, `total` times in all."""
    entropy = 0.0
    for place in order[:held]:
        share = counts[place] / total
        entropy -= share * math.log(share)
    return entropy


@compiled
def longest_of(offsets: Offsets) -> int:
    """The largest number of units of a document."""
    longest = 0
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    return longest


@compiled
def distribution(units: Codes, offsets: Offsets) -> tuple[Counts, Floats]:
    """Return, per document, the number of distinct units and the entropy of their distribution in nats.

    The entropy of a document without units is NaN.
    """
    documents, longest = len(offsets) - 1, longest_of(offsets)
    distinct, entropy = np.zeros(documents, np.int64), np.full(documents, np.nan)
    ids, counts, order = np.empty(longest, np.int32), np.empty(longest, np.int32), np.empty(longest, np.int32)
    places, table, turn = np.empty(longest, np.int32), np.zeros(FEWEST_SLOTS, np.int64), 0
    for document in range(documents):
        own = units[offsets[document] : offsets[document + 1]]
        places[: len(own)] = np.arange(len(own))
        table, turn, held, _ = matched(own, 0, places, len(own), ids, counts, order, table, turn)
        distinct[document] = held
        if held:
            entropy[document] = entropy_of(counts, order, held, len(own))
    return distinct, entropy


@compiled
def repeats(codes: Codes, offsets: Offsets, lengths: Codes) -> tuple[Counts, Floats]:
    """Return counts[document, column] and, per document, the entropy of its words in nats (NaN without words).

    Columns: distinct words; characters of all words; characters under the most frequent n-gram, n = 2, 3, 4, at all its
    places, and 0 where it occurs once; characters in words covered by n-grams that occur twice or more, n = 5 ... 10.
    """
    documents, longest = len(offsets) - 1, longest_of(offsets)
    result, entropy = np.zeros((documents, WORD_COLUMNS), np.int64), np.full(documents, np.nan)
    left, ids, counts = np.empty(longest, np.int32), np.empty(longest, np.int32), np.empty(longest, np.int32)
    order, places, ends = np.empty(longest, np.int32), np.empty(longest, np.int32), np.zeros(longest + 1, np.int64)
    table, turn = np.zeros(FEWEST_SLOTS, np.int64), 0
    for document in range(documents):
        own = codes[offsets[document] : offsets[document + 1]]
        total = len(own)
        for at in range(total):
            places[at] = at
            ends[at + 1] = ends[at] + lengths[own[at]]
        result[document, 1] = ends[total]
        table, turn, held, kept = matched(own, 0, places, total, ids, counts, order, table, turn)
        result[document, 0] = held
        if held:
            entropy[document] = entropy_of(counts, order, held, total)
        for size in range(2, LONGEST + 1):
            if kept < 2:
                break
            left, ids = ids, left
            table, turn, held, kept = matched(left, 1, places, kept, ids, counts, order, table, turn)
            best = most_frequent(counts, order, held)
            if size > TOP_SIZES[-1]:
                result[document, size] = covered(places, kept, size, ends)
            elif best >= 0 and counts[best] > 1:
                result[document, size] = counts[best] * (ends[best + size] - ends[best])
    return result, entropy


@compiled
def covered(places: Codes, kept: int, words: int, ends: Ints) -> int:
    """Characters of the words that lie in an n-gram of `words` words at any of places[:kept], each counted once."""
    characters, done = 0, 0
    for at in places[:kept]:
        characters += ends[at + words] - ends[max(at, done)]
        done = at + words
    return characters


@compiled
def lorem_ipsums(codes: Codes, offsets: Offsets, marks: Kinds) -> Counts:
    """Return, per document, how often a word that ends with "lorem" (mark 1) precedes one that begins with "ipsum" (2).

    That is how often "lorem ipsum" occurs in the words joined by blanks.
    """
    counts = np.zeros(len(offsets) - 1, np.int64)
    for document in range(len(offsets) - 1):
        for at in range(offsets[document] + 1, offsets[document + 1]):
            if marks[codes[at - 1]] & 1 and marks[codes[at]] & 2:
                counts[document] += 1
    return counts


@compiled
def stop_word(key: np.uint64, stop_keys: Hashes) -> np.int64:
    """Where the key of a stop word lies in their table; -1 of any other word. No key is 0."""
    slot = np.int64(mixed(key) & np.uint64(len(stop_keys) - 1))
    while stop_keys[slot] != 0:
        if stop_keys[slot] == key:
            return slot
        slot = (slot + 1) & (len(stop_keys) - 1)
    return np.int64(-1)


@compiled
def longer_key(key: np.uint64, letter: int) -> np.uint64:
    """The key of a word with one more letter, where `letter` is a code point of [a-z']."""
    digit = 27 if letter == 0x27 else letter - 0x60
    return key * np.uint64(LETTERS) + np.uint64(digit)


@compiled
def raw_words(points: Points, offsets: Offsets, kinds: Kinds, stop_keys: Hashes) -> Counts:
    """Return, per document: words, those without a letter of A-Z or a-z, those in upper case, stop words.

    A word is a run of letters, digits and underscores, or a run of anything else but white space. `kinds` is the table
    of `redpajama.word_kinds`.
    """
    counts = np.zeros((len(offsets) - 1, 4), np.int64)
    for document in range(len(offsets) - 1):
        own, at, end = counts[document], offsets[document], offsets[document + 1]
        while at < end:
            side = kinds[points[at]] & (BLANK | WORDY)
            some, every, start = np.uint8(0), np.uint8(0xFF), at
            while at < end:
                kind = kinds[points[at]]
                if kind & (BLANK | WORDY) != side:
                    break
                some |= kind
                every &= kind
                at += 1
            if side == BLANK:
                continue
            own[0] += 1
            own[1] += not some & LATIN
            own[2] += some & (CAPITAL | SMALL) == CAPITAL
            if every & PLAIN and at - start <= STOP_LENGTH:
                key = np.uint64(0)
                for place in range(start, at):
                    key = longer_key(key, points[place])
                own[3] += stop_word(key, stop_keys) >= 0
    return counts


@compiled
def sentences(points: Points, offsets: Offsets, classes: Classes) -> Counts:
    r"""Return, per document, the matches of `\b[^.!?]+[.!?]*`: stretches between . ! ? with a letter, digit or _."""
    counts = np.zeros(len(offsets) - 1, np.int64)
    for document in range(len(offsets) - 1):
        filled = False
        for point in points[offsets[document] : offsets[document + 1]]:
            if point in (DOT, BANG, QUESTION):
                filled = False
            elif not filled and (classes[point] & ALNUM or point == UNDERSCORE):
                filled = True
                counts[document] += 1
    return counts


@compiled
def line_ends(points: Points, starts: Ints, ends: Ints) -> npt.NDArray[np.bool_]:
    """Return, for each line without white space at its ends: does it end with . ! ? or ”, with an ellipsis, and does it
    begin with a bullet.
    """
    marks = np.zeros((len(starts), 3), np.bool_)
    for line in range(len(starts)):
        start, end = starts[line], ends[line]
        if start == end:
            continue
        last = points[end - 1]
        dots = end - start >= 3 and last == DOT and points[end - 2] == DOT and points[end - 3] == DOT
        marks[line, 0] = last in (DOT, BANG, QUESTION, QUOTE)
        marks[line, 1] = dots or last == ELLIPSIS
        marks[line, 2] = points[start] in BULLETS
    return marks


@compiled
def line_words(points: Points, starts: Ints, ends: Ints, classes: Classes, normal: Kinds) -> Counts:
    """Return, for each line: upper-case letters; and of its normalised text words, characters, numeric ones, and the
    word "javascript".

    `normal` is the table of `redpajama.normal_forms`. The words of normalised text are one blank apart.
    """
    counts = np.zeros((len(starts), 5), np.int64)
    for line in range(len(starts)):
        own = counts[line]
        length, matched_letters = 0, 0
        for at in range(starts[line], ends[line] + 1):
            inside = at < ends[line] and not classes[points[at]] & SPACE
            if inside:
                point = points[at]
                own[0] += classes[point] & UPPER != 0
                form = normal[point]
                if not form:
                    continue
                length += form & LENGTHS
                own[3] += form >> NUMERALS
                small = point | 0x20 if 0x41 <= point <= 0x5A else point
                if 0 <= matched_letters < len(JAVASCRIPT) and small == JAVASCRIPT[matched_letters]:
                    matched_letters += 1
                else:
                    matched_letters = -1
            elif length:
                own[1] += 1
                own[2] += length
                own[4] += matched_letters == len(JAVASCRIPT)
                length, matched_letters = 0, 0
        own[2] += max(0, own[1] - 1)
    return counts
