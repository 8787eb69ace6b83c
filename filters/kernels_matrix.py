"""Compiled loops of MAP-NEO's rules: characters, lines, sentences.

Every kernel takes the code points of a whole batch as one flat array and the bounds of its `n` documents as `offsets`
(n + 1 values), gives one row per document, and takes time linear in the number of code points. `classes` is the table
of `point_classes`.
"""

from __future__ import annotations

import numpy as np

from filters.characters import ALNUM, ALPHA, DIGIT, LINE_BREAK, SPACE
from filters.kernels import Counts, Offsets, compiled
from filters.kernels_redpajama import BULLETS, Classes, Points

# fmt: off
LINE_FEED, TAB, RETURN, BLANK, HASH, DOT = 0x0A, 0x09, 0x0D, 0x20, 0x23, 0x2E
UNDERSCORE, OPENING_BRACE, CLOSING_BRACE, ELLIPSIS = 0x5F, 0x7B, 0x7D, 0x2026
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
        before, dots, spaces, begun = np.uint32(0), 0, 0, False
        letters, words, digits, marks, hashes, ellipses, symbols, braces, inner = 0, 0, 0, 0, 0, 0, 0, 0, 0
        for point in points[offsets[document] : offsets[document + 1]]:
            bits = classes[point]
            if bits & ALPHA:  # most characters
                letters += 1
                inner += spaces
                dots, spaces, begun, before = 0, 0, True, point
                continue
            dots = dots + 1 if point == DOT else 0
            if bits & SPACE:
                words += 1
                spaces += begun and point != BLANK and point != LINE_FEED and point != TAB
            else:
                inner += 1 + spaces
                spaces, begun = 0, True
                digits += bits & DIGIT != 0
                if bits & ALNUM or point == UNDERSCORE:
                    words += 1
                marks += is_ascii_punctuation(point)
                hashes += point == HASH and before != HASH
                ellipses += dots == 2 or (point == ELLIPSIS and before != ELLIPSIS)
                symbols += point in (HASH, ELLIPSIS) or (dots > 0 and dots % 3 == 0)
                braces += point in (OPENING_BRACE, CLOSING_BRACE)
            before = point
        own = counts[document]
        own[WORD_OR_SPACE], own[DIGITS], own[PUNCTUATION], own[HASH_RUNS] = letters + words, digits, marks, hashes
        own[ELLIPSIS_RUNS], own[SYMBOLS], own[BRACES], own[INNER] = ellipses, symbols, braces, letters + inner
    return counts


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
        for point in points[offsets[document] : offsets[document + 1]]:
            letter = point | 0x20 if 0x41 <= point <= 0x5A else point
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
        opened, own = -1, points[offsets[document] : offsets[document + 1]]
        for at in range(len(own)):
            point = own[at]
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
        for point in points[offsets[document] : offsets[document + 1]]:
            if point in SENTENCE_MARKS:
                filled = False
            elif not filled and not classes[point] & SPACE:
                filled = True
                counts[document] += 1
    return counts
