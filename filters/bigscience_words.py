"""BigScience's words: cut at blanks, lower-cased, without special characters at their ends; and its English stop
words.

Chunks lie between white space of `str.isspace`, while BigScience cuts at the blanks of its list alone: a no-break
space or U+2028 cuts words here and is part of a word there.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from functools import cache

import numpy as np

from filters.bigscience_characters import CONTROLS, OTHER_BLANKS, special_points
from filters.splitter import Feature, WordSplitter
from filters.splitters_words import one_each

# Apache-2.0: bigscience-workshop/data-preparation, 01b_oscar_cleaning_and_filtering/stopwords.py, "en", all of it.
# Words with special characters at their ends ("vs.", "w/") never equal a stripped word; they are kept as published.
ENGLISH = """
a a.k.a aboard about above abt accord according across after against ago aground ahead aka ala albeit all along
alongside although am amid amidst among amongst amoung an and and/or another any any1 anybody anyone anything are
around as aside astride at atop away b b/c b/t back base based bc be because been before behind being below beneath
beside besides between beyond board both btwn but by can cause circa cos could coz cus depend depending despite did do
does down due during each either else even ever every everybody everyone everything except for forth from get gets
getting give given got had half has hav have having he her hers herself him himself his how however i i'd if in include
including inside instead into is it it's its itself lest like made many may me might mine minus most much must my
myself nary near nearby neither next nigh no nobody none noone nor not nothing notwithstanding of off on onboard once
one ones oneself only onto opposite or other others ought our ours ourselves out outside over overt own past per plus
prior quite rather re regard regarding regardless round s/he save self shall she should side since so some somebody
someone something such sure teh than thanks that the their theirs them themselves then there these they they're thier
this tho those thou though through throughout thru thy til till to together too toward towards u under underneath
unless unlike until unto up upon ur us use versus via vs vs. w/ w/o w/out was we were what whatever whatnot when
whenever where whereas wherever whether which while whilst whither who who's whoever whom whomever whose why will with
within without wo worth would wud y'all ya yet yo you you're your youre yours yourself yourselves
"""
STOP_WORDS = frozenset(ENGLISH.split())


@cache
def patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Blanks within a chunk, runs of characters that are removed, and a run of special ones at a word's beginning."""
    special = "".join(re.escape(chr(point)) for point in sorted(special_points()))
    controls = "".join(f"{chr(first)}-{chr(last)}" for first, last in CONTROLS)
    return (
        re.compile(f"[{string.whitespace}{OTHER_BLANKS}]+"),
        re.compile(f"[{controls}]+"),
        re.compile(f"[{special}]*"),
    )


def stripped(word: str) -> str:
    """The word without special characters at its ends."""
    _, _, special = patterns()
    start = special.match(word).end()  # type: ignore[union-attr] # it matches every word, if only at its beginning
    return word[start : len(word) - special.match(word[::-1]).end()]  # type: ignore[union-attr]


def words(texts: Sequence[str]) -> list[list[str]]:
    """The words of each text, in order; what is special from end to end is none."""
    return [visible_word(text) if text.isascii() else cut(text) for text in texts]


def visible_word(text: str) -> list[str]:
    """The words of a text of ASCII; without blanks and controls, as 19 of 20 are, in a twentieth of the time."""
    if text.isalpha():
        return [text.lower()]
    if not text.isprintable() or " " in text:
        return cut(text)
    word = text.strip(ascii_specials()).lower()
    return [word] if word else []


@cache
def ascii_specials() -> str:
    """The special characters of ASCII; no letter is among them."""
    return "".join(chr(point) for point in sorted(special_points()) if point < 0x80)


def cut(text: str) -> list[str]:
    """The words of any text."""
    blanks, controls, _ = patterns()
    return [word for part in blanks.split(text) if (word := stripped(controls.sub("", part).lower()))]


BIGSCIENCE = WordSplitter(name="bigscience", words=words, sentences=one_each, chunk_local=True)
IS_STOP_WORD = Feature(
    name="bigscience.english_stop_word",
    dtype=np.uint8,
    of=lambda words: [word in STOP_WORDS for word in words],
)
