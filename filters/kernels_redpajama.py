"""Compiled loops of RedPajama-v2's signals: words and sentences of raw text, lines.

Every kernel takes the units (word codes, or code points) of a whole batch as one flat array and the bounds of its `n`
documents as `offsets` (n + 1 values), and takes time linear in their number.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from filters.characters import ALNUM, SPACE, UPPER
from filters.kernels import Codes, Counts, Hashes, Offsets, compiled, mixed

Points = npt.NDArray[np.uint32]
Classes = npt.NDArray[np.uint16]
Kinds = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


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
