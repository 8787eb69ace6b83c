"""The Word_Break property of Unicode's text segmentation (UAX #29), as one table for kernels that walk code points.

The table is derived from Python's own character data, so its version is that of the interpreter. For the code points
Python 3.11 knows it equals WordBreakProperty 16.0, but for what makes no difference to words that have a letter or a
digit: Format and ZWJ are one class with Extend, CR, LF and Newline are one, and regional indicators, WSegSpace and
Extended_Pictographic are OTHER.
"""

from __future__ import annotations

import sys
import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

OTHER, LETTER, HEBREW, NUMBER, KATAKANA, CONNECTOR, EXTEND = range(7)
MID_LETTER, MID_NUMBER_LETTER, SINGLE_QUOTE, DOUBLE_QUOTE, MID_NUMBER, BREAK = range(7, 13)

# What follows from no category and no name, by class; "-" stands between the ends of a range.
EXCEPTIONS = {
    OTHER: "200B 17000-187F7 18D00-18D08",
    LETTER: "2C2-2C5 2D2-2D7 2DE-2DF 2E5-2EB 2ED 2EF-2FF 55A-55C 55E 58A 5F3 70F 24B6-24E9 3005 A708-A716 A720-A721"
    " A789-A78A AB5B 16FE0-16FE1 1F130-1F149 1F150-1F169 1F170-1F189",
    NUMBER: "600-605 66B 6DD 890-891 8E2 19DA 110BD 110CD",
    KATAKANA: "3031-3035 309B-309C 30A0 32D0-32FE 3300-3357",
    CONNECTOR: "202F",
    EXTEND: "FF9E-FF9F 1F3FB-1F3FF",
    MID_LETTER: "3A B7 387 55F 5F4 2027 FE13 FE55 FF1A",
    MID_NUMBER_LETTER: "2E 2018-2019 2024 FE52 FF07 FF0E",
    SINGLE_QUOTE: "27",
    DOUBLE_QUOTE: "22",
    MID_NUMBER: "2C 3B 37E 589 60C-60D 66C 7F8 2044 FE50 FE54 FF0C FF1B",
    BREAK: "A-D 85 2028-2029",
}
BY_CATEGORY = {"Mn": EXTEND, "Me": EXTEND, "Mc": EXTEND, "Cf": EXTEND, "Nd": NUMBER, "Pc": CONNECTOR}
LETTERS = frozenset({"Lu", "Ll", "Lt", "Lm", "Lo", "Nl"})
# Scripts without spaces between words, and ideographs: every letter is a word of its own.
ALONE = (
    "CJK ", "IDEOGRAPHIC ", "HANGZHOU ", "HIRAGANA ", "HENTAIGANA ", "TANGUT ", "NUSHU ", "KHITAN ", "THAI ", "LAO ",
    "MYANMAR ", "KHMER ", "TAI LE ", "NEW TAI LUE ", "TAI THAM ", "TAI VIET ", "AHOM ",
)  # fmt: skip


WORDS = (LETTER, HEBREW, NUMBER)


def joined_classes() -> npt.NDArray[np.bool_]:
    """joined[left, right]: no boundary lies between such neighbours (WB5, WB8 to WB10, WB13 to WB13b)."""
    joined = np.zeros((BREAK + 1, BREAK + 1), np.bool_)
    joined[np.ix_(WORDS, WORDS)] = True
    joined[KATAKANA, KATAKANA] = joined[CONNECTOR, CONNECTOR] = True
    for kind in (*WORDS, KATAKANA):
        joined[kind, CONNECTOR] = joined[CONNECTOR, kind] = True
    return joined


def bridged_classes() -> npt.NDArray[np.bool_]:
    """bridged[left, middle, right]: no boundary lies beside the middle (WB6, WB7, WB7b, WB7c, WB11, WB12)."""
    bridged = np.zeros((BREAK + 1, BREAK + 1, BREAK + 1), np.bool_)
    for middle in (MID_NUMBER_LETTER, SINGLE_QUOTE):
        bridged[NUMBER, middle, NUMBER] = True
        bridged[LETTER : HEBREW + 1, middle, LETTER : HEBREW + 1] = True
    bridged[NUMBER, MID_NUMBER, NUMBER] = True
    bridged[LETTER : HEBREW + 1, MID_LETTER, LETTER : HEBREW + 1] = True
    bridged[HEBREW, DOUBLE_QUOTE, HEBREW] = True
    return bridged


JOINED, BRIDGED = joined_classes(), bridged_classes()  # Numba compiles them in; 2 kB


def word_break_class(character: str) -> int:
    """The class of one character, apart from EXCEPTIONS."""
    category = unicodedata.category(character)
    if category not in LETTERS:
        return BY_CATEGORY.get(category, OTHER)
    name = unicodedata.name(character, "")
    if name.startswith(ALONE):
        return OTHER
    if "KATAKANA" in name:
        return KATAKANA
    return HEBREW if name.startswith("HEBREW") else LETTER


@cache
def word_break_classes() -> npt.NDArray[np.uint8]:
    """The class of every code point from 0 to 0x10FFFF; 1 MB, made in half a second at first use."""
    table = np.fromiter(map(word_break_class, map(chr, range(sys.maxunicode + 1))), np.uint8)
    for kind, ranges in EXCEPTIONS.items():
        for span in ranges.split():
            first, _, last = span.partition("-")
            table[int(first, 16) : int(last or first, 16) + 1] = kind
    table.flags.writeable = False
    return table
