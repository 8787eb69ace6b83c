"""What Python's str knows of each code point, as bits in one table, for kernels that walk code points."""

from __future__ import annotations

import sys
import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

UPPER = 0x0001
"""`str.isupper`"""
LOWER = 0x0002
"""`str.islower`"""
ALPHA = 0x0004
"""`str.isalpha`"""
DIGIT = 0x0008
"""`str.isdigit`"""
NUMERIC = 0x0010
"""`str.isnumeric`"""
ALNUM = 0x0020
"""`str.isalnum`"""
SPACE = 0x0040
"""`str.isspace`: where `str.split()` cuts"""
PUNCT = 0x0080
"""Unicode category P*"""
LINE_BREAK = 0x0100
"""Where `str.splitlines` cuts"""
SYMBOL = 0x0200
"""Unicode category S*"""
MARK = 0x0400
"""Unicode category M*"""
DECIMAL = 0x0800
"""`str.isdecimal`, Unicode category Nd"""

LINE_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


@cache
def point_classes() -> npt.NDArray[np.uint16]:
    """The bits of every code point from 0 to 0x10FFFF; 2 MB, made in half a second at first use."""
    table = np.zeros(sys.maxunicode + 1, np.uint16)
    tests = (
        (UPPER, str.isupper),
        (LOWER, str.islower),
        (ALPHA, str.isalpha),
        (DIGIT, str.isdigit),
        (NUMERIC, str.isnumeric),
        (ALNUM, str.isalnum),
        (SPACE, str.isspace),
        (DECIMAL, str.isdecimal),
    )
    categories = {"P": PUNCT, "S": SYMBOL, "M": MARK}
    for point in range(sys.maxunicode + 1):
        category = unicodedata.category(character := chr(point))
        if category in ("Cn", "Co", "Cs"):
            continue  # unassigned, private and surrogate: nothing holds of them
        bits = categories.get(category[0], 0)
        for bit, test in tests:
            if test(character):
                bits |= bit
        table[point] = bits
    for character in LINE_BREAKS:
        table[ord(character)] |= LINE_BREAK
    table.flags.writeable = False
    return table
