"""Compiled loops over code points for the families of Dolma, DCLM, RefinedWeb and MADLAD-400: marks at the edges of
lines, medians, faults of lines, and questionable sentences.

Tables are those of `kernels_words`. `symbols`, `steps` and `found` are those of a `filters.phrases.Phrases`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from filters.characters import ALNUM, DECIMAL, DIGIT, SPACE, UPPER
from filters.kernels import LINE_FEED, Codes, Counts, Offsets, compiled
from filters.kernels_repeats import utf8_length
from filters.kernels_words import BLANK, RETURN, Classes, Kinds, Points, has_alnum, segment_end, word_total

Symbols = npt.NDArray[np.uint8]
Steps = npt.NDArray[np.int16]
Found = npt.NDArray[np.uint32]
Faults = npt.NDArray[np.uint8]

DOT, ELLIPSIS, COMMA, BAR, UNDERSCORE = 0x2E, 0x2026, 0x2C, 0x7C, 0x5F
LINES, BULLETS, ELLIPSES = range(3)
"""Columns of `line_marks`."""
UPPERCASE, NUMERIC, COUNTER, TOO_SHORT, PHRASE = 1, 2, 4, 8, 16
"""Bits of `line_faults`; COUNTER only says that the line may be one."""
SENTENCES, LIST_CASE, CURSED, QUESTIONABLE = range(4)
"""Columns of `questionable_sentences`."""
LIST_CASE_WORDS = 12  # a sentence with fewer is no list
LONGEST_CUT = 10  # words; phrases in longer lines stay, where words are counted
GROUPS, GROUP_SIZES = 9, (1, 3, 4)  # as many groups of so many characters are cursed
SHORT_WORDS = 256  # words longer than this are sorted, shorter ones counted by length


@compiled
def ends_with_dots(points: Points, start: int, end: int) -> bool:
    """Say whether the span ends with "..." or ". . ."."""
    if end - start >= 3 and points[end - 1] == DOT and points[end - 2] == DOT and points[end - 3] == DOT:
        return True
    if end - start < 5 or points[end - 2] != BLANK or points[end - 4] != BLANK:
        return False
    return bool(points[end - 1] == DOT and points[end - 3] == DOT and points[end - 5] == DOT)


@compiled
def line_marks(
    points: Points, starts: Counts, ends: Counts, offsets: Offsets, bullets: Points, dots: bool, blank: bool
) -> Counts:
    """Return per document: lines, lines that begin with one of `bullets`, and lines that end with an ellipsis.

    An ellipsis is U+2026 and, with `dots`, also "..." and ". . .". Empty lines count if `blank`.
    """
    counts = np.zeros((len(offsets) - 1, 3), np.int64)
    for document in range(len(offsets) - 1):
        for line in range(offsets[document], offsets[document + 1]):
            start, end = starts[line], ends[line]
            if start == end:
                counts[document, LINES] += blank
                continue
            counts[document, LINES] += 1
            for bullet in bullets:
                counts[document, BULLETS] += points[start] == bullet
            if points[end - 1] == ELLIPSIS or (dots and ends_with_dots(points, start, end)):
                counts[document, ELLIPSES] += 1
    return counts


@compiled
def without_returns(points: Points, starts: Counts, ends: Counts) -> Counts:
    """The ends of lines, one carriage return at the end left out."""
    cut = ends.copy()
    for line in range(len(ends)):
        if ends[line] > starts[line] and points[ends[line] - 1] == RETURN:
            cut[line] -= 1
    return cut


@compiled
def medians(codes: Codes, offsets: Offsets, lengths: npt.NDArray[np.int32]) -> Counts:
    """Return, per document, the sum of the two middle lengths (of the one in the middle, twice); 0 without words."""
    sums = np.zeros(len(offsets) - 1, np.int64)
    for document in range(len(offsets) - 1):
        words = offsets[document + 1] - offsets[document]
        if words == 0:
            continue
        by_length = np.zeros(SHORT_WORDS + 1, np.int64)
        for at in range(offsets[document], offsets[document + 1]):
            by_length[min(lengths[codes[at]], SHORT_WORDS)] += 1
        for middle in ((words - 1) // 2, words // 2):
            length, below = 0, by_length[0]
            while below <= middle:
                length += 1
                below += by_length[length]
            if length == SHORT_WORDS:
                length = np.sort(lengths[codes[offsets[document] : offsets[document + 1]]])[middle]
            sums[document] += length
    return sums


@compiled
def ascii_words(points: Points, offsets: Offsets, classes: Classes) -> Counts:
    """Count runs of letters and digits in each text; -1 for a text with a character outside ASCII."""
    counts = np.zeros(len(offsets) - 1, np.int64)
    for text in range(len(offsets) - 1):
        inside = False
        for point in points[offsets[text] : offsets[text + 1]]:
            if point > 0x7F:
                counts[text] = -1
                break
            alnum = bool(classes[point] & ALNUM)
            counts[text] += alnum and not inside
            inside = alnum
    return counts


@compiled
def blank_separated(points: Points, start: int, end: int, classes: Classes, most: int) -> int:
    """Count the words between white space, but no more than `most`."""
    words, between = 0, True
    for point in points[start:end]:
        blank = bool(classes[point] & SPACE)
        words += between and not blank
        between = blank
        if words == most:
            break
    return words


@compiled
def may_be_counter(points: Points, start: int, end: int, classes: Classes) -> bool:
    """Say whether the first word character is a decimal digit and a later one is the s or S that every unit ends with.

    A word character is a letter, a digit or "_".
    """
    at = start
    while at < end and not (classes[points[at]] & ALNUM or points[at] == UNDERSCORE):
        at += 1
    if at == end or not classes[points[at]] & DECIMAL:
        return False
    while end > at and not (classes[points[end - 1]] & ALNUM or points[end - 1] == UNDERSCORE):
        end -= 1
    return bool(points[end - 1] | 0x20 == 0x73)


@compiled
def has_phrase(points: Points, start: int, end: int, symbols: Symbols, steps: Steps, found: Found) -> bool:
    """Say whether any phrase occurs in the span."""
    state = 0
    for point in points[start:end]:
        state = steps[state, symbols[point]]
        if found[state]:
            return True
    return False


@compiled
def line_faults(
    points: Points, starts: Counts, ends: Counts, classes: Classes, kinds: Kinds, symbols: Symbols, steps: Steps,
    found: Found, rust: bool,
) -> Faults:  # fmt: skip
    """Return, for each line, the bits of what is wrong with it; an empty line has none.

    Python's reading: ratios per character, any digit, words between white space, phrases in lines of at most 10 words.
    Rust's (`rust`): ratios per byte, ASCII digits, words of UAX #29, phrases in lines of any length.
    """
    faults = np.zeros(len(starts), np.uint8)
    for line in range(len(starts)):
        start, end = starts[line], ends[line]
        if start == end:
            continue
        upper, digits, size = 0, 0, 0
        for point in points[start:end]:
            upper += classes[point] & UPPER != 0
            digits += 0x30 <= point <= 0x39 if rust else bool(classes[point] & DIGIT)
            size += utf8_length(point) if rust else 1
        if rust:
            words = word_total(points, start, end, kinds, classes, 2)
        else:
            words = blank_separated(points, start, end, classes, LONGEST_CUT + 1)
        faults[line] |= UPPERCASE * (upper / size > 0.5)
        faults[line] |= NUMERIC * (digits / size > 0.999999)
        faults[line] |= COUNTER * may_be_counter(points, start, end, classes)
        faults[line] |= TOO_SHORT * (words < 2)
        if rust or words <= LONGEST_CUT:
            faults[line] |= PHRASE * has_phrase(points, start, end, symbols, steps, found)
    return faults


@compiled
def list_case(points: Points, start: int, end: int, kinds: Kinds, classes: Classes) -> bool:
    """Say whether the span has at least 12 words of UAX #29 and more than half of them begin with a capital."""
    capitals = 0
    for point in points[start:end]:
        capitals += classes[point] & UPPER != 0
    if 2 * capitals <= LIST_CASE_WORDS:  # most sentences: no need to cut them into words
        return False
    words, capitals, at = 0, 0, start
    while at < end:
        if not classes[points[at]] & ALNUM and not kinds[points[at]]:
            at += 1
            continue
        to = segment_end(points, kinds, at, end)
        if has_alnum(points, classes, at, to):
            words += 1
            capitals += bool(classes[points[at]] & UPPER)
        at = to
    return words >= LIST_CASE_WORDS and 2 * capitals > words


@compiled
def in_groups(points: Points, start: int, end: int, size: int) -> bool:
    """Say whether 9 groups follow one another from the blank at `start` on, each of a blank and `size` characters.

    One character is no blank, several are no line feeds.
    """
    step = size + 1
    if start + GROUPS * step > end:
        return False
    for group in range(1, GROUPS):  # prose ends here: words rarely have one length
        if points[start + group * step] != BLANK:
            return False
    for at in range(start, start + GROUPS * step):
        inside = (at - start) % step != 0
        if inside and points[at] == (BLANK if size == 1 else LINE_FEED):
            return False
    return True


@compiled
def in_pairs(points: Points, start: int, end: int) -> bool:
    """Say whether a blank comes after the comma at `start`, and four pairs of characters, each with a comma or two
    behind it and a blank between.
    """
    if start + 1 >= end or points[start + 1] != BLANK:
        return False
    place, pairs = start + 2, 0
    while place + 2 < end and points[place + 2] == COMMA and points[place] != LINE_FEED:
        if points[place + 1] == LINE_FEED:
            return False
        pairs += 1
        if pairs == 4:
            return True
        place += 3
        if place + 1 < end and points[place] == COMMA and points[place + 1] == BLANK:
            place += 1
        if place >= end or points[place] != BLANK:
            return False
        place += 1
    return False


@compiled
def is_cursed(points: Points, start: int, end: int, symbols: Symbols, steps: Steps, found: Found) -> bool:
    """Say whether a phrase, groups or pairs of characters occur in the span."""
    state = 0
    for at in range(start, end):
        point = points[at]
        state = steps[state, symbols[point]]
        if found[state]:
            return True
        if point == BLANK:
            for size in GROUP_SIZES:
                if in_groups(points, at, end, size):
                    return True
        elif point == COMMA and in_pairs(points, at, end):
            return True
    return False


@compiled
def ends_cursed(points: Points, start: int, end: int, classes: Classes, endings: npt.NDArray[np.uint32]) -> bool:
    """Say whether the span ends with "|" or a row of `endings`, white space after it left out.

    Rows are padded with 0 on the left.
    """
    while end > start and classes[points[end - 1]] & SPACE:
        end -= 1
    if end > start and points[end - 1] == BAR:
        return True
    for row in endings:
        at, place = end - 1, len(row) - 1
        while place >= 0 and row[place] and at >= start and points[at] == row[place]:
            at -= 1
            place -= 1
        if place < 0 or row[place] == 0:
            return True
    return False


@compiled
def sentence_spans(points: Points, start: int, end: int, classes: Classes, starts: Counts, ends: Counts) -> int:
    """Fill in where the sentences of one text begin and end, and return how many there are.

    They lie between runs of . ! ? that white space follows, and are not blank.
    """
    count, first, filled = 0, start, False
    at = start
    while at < end:
        point = points[at]
        if point == DOT or point == 0x21 or point == 0x3F:  # noqa: SIM109 (a tuple is slower)
            stop = at + 1
            while stop < end and (points[stop] == DOT or points[stop] == 0x21 or points[stop] == 0x3F):
                stop += 1
            after = stop
            while after < end and classes[points[after]] & SPACE:
                after += 1
            if after > stop:
                if filled:
                    starts[count], ends[count] = first, at
                    count += 1
                first, filled = after, False
            else:
                filled = True
            at = after
        else:
            filled = filled or not classes[point] & SPACE
            at += 1
    if filled:
        starts[count], ends[count] = first, end
        count += 1
    return count


@compiled
def questionable_sentences(
    points: Points, offsets: Offsets, classes: Classes, kinds: Kinds, symbols: Symbols, steps: Steps, found: Found,
    endings: npt.NDArray[np.uint32],
) -> Counts:  # fmt: skip
    """Return per document: sentences, those in list case, those with a cursed phrase, and those with either."""
    counts = np.zeros((len(offsets) - 1, 4), np.int64)
    longest = 0
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    # The shortest sentence but the last is one character, a full stop and a blank.
    starts, ends = np.empty(longest // 3 + 1, np.int64), np.empty(longest // 3 + 1, np.int64)
    for document in range(len(offsets) - 1):
        count = sentence_spans(points, offsets[document], offsets[document + 1], classes, starts, ends)
        counts[document, SENTENCES] = count
        for sentence in range(count):
            start, end = starts[sentence], ends[sentence]
            capitals = list_case(points, start, end, kinds, classes)
            cursed = ends_cursed(points, start, end, classes, endings)
            cursed = cursed or is_cursed(points, start, end, symbols, steps, found)
            counts[document, LIST_CASE] += capitals
            counts[document, CURSED] += cursed
            counts[document, QUESTIONABLE] += capitals or cursed
    return counts
