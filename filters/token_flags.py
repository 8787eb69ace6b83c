"""Bits that describe one token, and the stop words they name."""

from __future__ import annotations

import unicodedata

from filters.punctuation import PUNCTUATION, PUNCTUATION_2024_04

GOPHER_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""Case-sensitive, as datatrove compares them (Gopher, appendix A1.1)."""

STOP_WORDS = 0x00FF
"""Mask: bit i is set for GOPHER_STOP_WORDS[i]."""
SYMBOL = 0x0100
"""All characters are in datatrove 0.10's punctuation."""
SYMBOL_2024_04 = 0x0200
"""All characters are in the punctuation of April 2024."""
ALPHA = 0x0400
"""At least one character is a letter (`str.isalpha`)."""
PUNCTUATED = 0x0800
"""All characters have a Unicode category P*: no sentence begins here."""
TERMINATOR = 0x1000
"""The token is one of its splitter's sentence ends."""

STOP_WORD_BITS = {word: 1 << bit for bit, word in enumerate(GOPHER_STOP_WORDS)}


def character_flags(character: str) -> int:
    """The flags of a token that is this one character, without TERMINATOR and stop words."""
    flags = SYMBOL if character in PUNCTUATION else 0
    flags |= SYMBOL_2024_04 if character in PUNCTUATION_2024_04 else 0
    flags |= ALPHA if character.isalpha() else 0
    return flags | (PUNCTUATED if unicodedata.category(character).startswith("P") else 0)
