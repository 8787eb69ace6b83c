"""Compiled loops of MAP-NEO's rules: characters, white-space chunks, lines, sentences.

Every kernel takes the code points of a whole batch as one flat array and the bounds of its `n` documents as `offsets`
(n + 1 values), gives one row per document, and takes time linear in the number of code points. `classes` is the table
of `point_classes`, `kinds` that of `redpajama.word_kinds`.
"""

from __future__ import annotations

import numpy as np

from filters.characters import ALNUM, ALPHA, DIGIT, LINE_BREAK, SPACE
from filters.kernels import Counts, Hashes, Offsets, compiled
from filters.kernels_redpajama import (
    BULLETS,
    CAPITAL,
    SMALL,
    STOP_LENGTH,
    Classes,
    Kinds,
    Points,
    longer_key,
    stop_word,
)

# fmt: off
LINE_FEED, TAB, RETURN, BLANK, HASH, APOSTROPHE, DOT, BACKSLASH = 0x0A, 0x09, 0x0D, 0x20, 0x23, 0x27, 0x2E, 0x5C
UNDERSCORE, OPENING_BRACE, CLOSING_BRACE, ELLIPSIS, KELVIN = 0x5F, 0x7B, 0x7D, 0x2026, 0x212A
OPENING_BRACKET, CLOSING_BRACKET = 0x3010, 0x3011
SENTENCE_MARKS = (0x2E, 0x21, 0x2026, 0x3F, 0x3B, 0x22)  # . ! … ? ; "
MORE_BULLETS = (0x25CF, 0x25CB, 0x203B, 0xB7, 0x27A2)  # those of MAP-NEO that RedPajama does not have: ● ○ ※ · ➢
READ_MORE = ((0x72, 0x65, 0x61, 0x64, 0x6D, 0x6F, 0x72, 0x65), (0x5C55, 0x5F00), (0x66F4, 0x591A))  # readmore 展开 更多
LOREM_IPSUM = (0x6C, 0x6F, 0x72, 0x65, 0x6D, 0x20, 0x69, 0x70, 0x73, 0x75, 0x6D)
THREE_STOPS = (0x3002, 0x3002, 0x3002)
# fmt: on
WORD_OR_SPACE, DIGITS, PUNCTUATION, HASH_RUNS, ELLIPSIS_RUNS, SYMBOLS, BRACES, INNER = range(8)
"""Columns of `character_counts`."""


@compiled
def is_ascii_punctuation(point: int) -> bool:
    """Say whether the code point is in `string.punctuation`."""
    return 0x21 <= point <= 0x2F or 0x3A <= point <= 0x40 or 0x5B <= point <= 0x60 or 0x7B <= point <= 0x7E


@compiled
def character_counts(points: Points, offsets: Offsets, classes: Classes) -> Counts:
    """Return, by column: what is a letter, digit, underscore or white space; digits; ASCII punctuation; runs of "#";
    runs of "…" and of two dots or more; "#", "..." and "…" without overlap; braces; and what is left of the text
    without white space at its ends and blanks, line feeds and tabs within.
    """
    counts = np.zeros((len(offsets) - 1, 8), np.int64)
    for document in range(len(offsets) - 1):
        own, before, dots, spaces, begun = counts[document], np.uint32(0), 0, 0, False
        for at in range(offsets[document], offsets[document + 1]):
            point = points[at]
            bits = classes[point]
            dots = dots + 1 if point == DOT else 0
            own[DIGITS] += bits & DIGIT != 0
            if bits & SPACE:
                own[WORD_OR_SPACE] += 1
                spaces += begun and point != BLANK and point != LINE_FEED and point != TAB
            else:
                own[INNER] += 1 + spaces
                spaces, begun = 0, True
                if bits & ALNUM:
                    own[WORD_OR_SPACE] += 1
                else:
                    own[WORD_OR_SPACE] += point == UNDERSCORE
                    own[PUNCTUATION] += is_ascii_punctuation(point)
                    own[HASH_RUNS] += point == HASH and before != HASH
                    own[ELLIPSIS_RUNS] += dots == 2 or (point == ELLIPSIS and before != ELLIPSIS)
                    own[SYMBOLS] += point in (HASH, ELLIPSIS) or (dots > 0 and dots % 3 == 0)
                    own[BRACES] += point in (OPENING_BRACE, CLOSING_BRACE)
            before = point
    return counts


@compiled
def chunk_counts(points: Points, offsets: Offsets, classes: Classes, kinds: Kinds, stop_keys: Hashes) -> Counts:
    """Return, of the chunks between white space: all, those without a letter, those of letters alone in upper
    case; and how many different stop words there are among them, in any case and without punctuation but apostrophes.
    """
    counts = np.zeros((len(offsets) - 1, 4), np.int64)
    met = np.full(len(stop_keys), -1, np.int64)
    for document in range(len(offsets) - 1):
        own, end = counts[document], offsets[document + 1]
        some, every, cases, length, key = np.uint16(0), np.uint16(0xFFFF), np.uint8(0), 0, np.uint64(0)
        for at in range(offsets[document], end + 1):
            point, bits = (points[at], classes[points[at]]) if at < end else (np.uint32(BLANK), np.uint16(SPACE))
            if not bits & SPACE:
                some |= bits
                every &= bits
                cases |= kinds[point]
                if bits & ALNUM or point in (UNDERSCORE, APOSTROPHE, BACKSLASH):
                    letter = small_letter(int(point))
                    if letter and 0 <= length < STOP_LENGTH:
                        length, key = length + 1, longer_key(key, letter)
                    else:
                        length = -1
                continue
            if every != 0xFFFF:  # a character was met
                own[0] += 1
                own[1] += not some & ALPHA
                own[2] += every & ALPHA != 0 and cases & (CAPITAL | SMALL) == CAPITAL
                found = stop_word(key, stop_keys) if length > 0 else -1
                if found >= 0 and met[found] != document:
                    met[found] = document
                    own[3] += 1
            some, every, cases, length, key = np.uint16(0), np.uint16(0xFFFF), np.uint8(0), 0, np.uint64(0)
    return counts


@compiled
def small_letter(point: int) -> int:
    """The code point of [a-z'] that the lower case of the code point is; 0 where it is none."""
    if 0x61 <= point <= 0x7A or point == APOSTROPHE:
        return int(point)
    if 0x41 <= point <= 0x5A:
        return int(point) + 0x20
    return 0x6B if point == KELVIN else 0


@compiled
def ends_in(points: Points, start: int, end: int, part: tuple[int, ...]) -> bool:
    """Say whether points[start:end] ends in `part`."""
    same = end - start >= len(part)
    for at in range(len(part)):
        same = same and points[end - len(part) + at] == part[at]
    return same


@compiled
def line_marks(points: Points, offsets: Offsets, classes: Classes) -> Counts:
    """Return, of the lines that `str.splitlines` gives: all, those that begin with a bullet, those that end in
    "readmore", "展开", "更多" or three ideographic full stops.
    """
    counts = np.zeros((len(offsets) - 1, 3), np.int64)
    for document in range(len(offsets) - 1):
        start, end = offsets[document], offsets[document + 1]
        for at in range(start, end + 1):
            if at < end and not classes[points[at]] & LINE_BREAK:
                continue
            if at == end and start == end:
                break
            if at < end and points[at] == LINE_FEED and at == start > offsets[document] and points[at - 1] == RETURN:
                start = at + 1  # a line feed after a carriage return ends the same line
                continue
            counts[document, 0] += 1
            if start < at:
                first = points[start]
                counts[document, 1] += first in BULLETS or first in MORE_BULLETS
                more = ends_in(points, start, at, READ_MORE[0]) or ends_in(points, start, at, READ_MORE[1])
                more = more or ends_in(points, start, at, READ_MORE[2]) or ends_in(points, start, at, THREE_STOPS)
                counts[document, 2] += more
            start = at + 1
    return counts


@compiled
def lorem_ipsums(points: Points, offsets: Offsets) -> Counts:
    """Return, per document, how often "lorem ipsum" occurs in lower case of the text."""
    counts = np.zeros(len(offsets) - 1, np.int64)
    for document in range(len(offsets) - 1):
        met = 0
        for at in range(offsets[document], offsets[document + 1]):
            letter = points[at] | 0x20 if 0x41 <= points[at] <= 0x5A else points[at]
            met = met + 1 if letter == LOREM_IPSUM[met] else letter == LOREM_IPSUM[0]  # no other letter of it is an l
            if met == len(LOREM_IPSUM):
                counts[document] += 1
                met = 0
    return counts


@compiled
def bracketed(points: Points, offsets: Offsets) -> Counts:
    """Return, per document, the characters between "【" and the next "】" of the same line."""
    counts = np.zeros(len(offsets) - 1, np.int64)
    for document in range(len(offsets) - 1):
        opened = -1
        for at in range(offsets[document], offsets[document + 1]):
            point = points[at]
            if point == LINE_FEED:
                opened = -1
            elif point == OPENING_BRACKET and opened < 0:
                opened = at
            elif point == CLOSING_BRACKET and opened >= 0:
                counts[document] += at - opened - 1
                opened = -1
    return counts


@compiled
def filled_stretches(points: Points, offsets: Offsets, classes: Classes) -> Counts:
    """Return, per document, the stretches between SENTENCE_MARKS that are not white space alone."""
    counts = np.zeros(len(offsets) - 1, np.int64)
    for document in range(len(offsets) - 1):
        filled = False
        for at in range(offsets[document], offsets[document + 1]):
            point = points[at]
            if point in SENTENCE_MARKS:
                filled = False
            elif not filled and not classes[point] & SPACE:
                filled = True
                counts[document] += 1
    return counts
