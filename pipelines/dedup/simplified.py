"""datatrove 0.10.1's `simplify_text` and the words of what it leaves: what MinHash compares documents by.

No step of it looks across white space: numbers hold none, the final sigma is decided by letters and marks beside it,
a blank ends what NFD puts in order, and what becomes a blank is one wherever it stands. So the simplified text is that
of its chunks, one after another, and a splitter that is local to chunks stays so: a chunk met before costs one look-up
for its simplification and its words together.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Literal

import regex

from filters.splitter import WordSplitter

Numbers = Literal["zero", "keep"]
"""What becomes of a number: 0, as in datatrove, or its figures stay, words of their own where a mark parts them."""
PREFIXES: Mapping[Numbers, str] = {"zero": "simplified:", "keep": "simplified_with_numbers:"}
PUNCTUATION = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
"""datatrove's list (`utils/text.py`), a full-width 1 in it; ‘ is not."""
CONTROLS = "".join(map(chr, (*range(0x09), 0x0B, 0x0C, *range(0x0D, 0x20), *range(0x7F, 0xA0))))
BLANKS = str.maketrans(dict.fromkeys(PUNCTUATION + CONTROLS, " "))
# Python's tables of Unicode are older than those of `regex`, which knows digits of more scripts.
NUMBER = regex.compile(r"\p{Nd}+(?:[.,،٫⎖⎗⎘]\p{Nd}+)?")
ASCII_NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)?")


def simplified(text: str, numbers: Numbers = "zero") -> str:
    """The text in lower case, each number as 0 (or kept), with blanks for punctuation, controls and runs of white
    space, and decomposed (NFD) without non-spacing marks.

    Two blanks stand side by side where marks alone stood between them.
    """
    text = text.lower()
    if text.isascii():
        if text.isalpha():
            return text
        return " ".join((text if numbers == "keep" else ASCII_NUMBER.sub("0", text)).translate(BLANKS).split())
    spaced = " ".join((text if numbers == "keep" else NUMBER.sub("0", text)).translate(BLANKS).split())
    return without_marks(spaced).strip()


class Unmarked(dict[int, str]):
    """For `str.translate`: characters decomposed, without non-spacing marks; those met first are remembered."""

    def __missing__(self, point: int) -> str:
        decomposed = unicodedata.normalize("NFD", chr(point))
        kept = "".join(one for one in decomposed if unicodedata.category(one) != "Mn")
        if len(self) < MOST_REMEMBERED:
            self[point] = kept
        return kept


MOST_REMEMBERED = 1 << 16
UNMARKED = Unmarked()
MOVED = re.compile(
    "[\u1715\u1734\u1b44\u1baa\u1bf2\u1bf3\u302e\u302f\ua953\ua9c0\U000111c0\U00011235\U0001134d\U000113cf\U000116b6"
    "\U0001193d\U00011f41\U00016ff0\U00016ff1\U0001d165\U0001d166\U0001d16d-\U0001d172\U0001d250-\U0001d252\U0001d25f"
    "\U0001d280\U0001d281]"
)
"""What NFD puts in order besides non-spacing marks: some viramas, tone marks of Hangul, parts of musical notes."""


def without_marks(text: str) -> str:
    """The text decomposed (NFD) without non-spacing marks, in time linear in its length.

    `unicodedata.normalize` orders marks by insertion: 40,000 in a row take 1.1 s, and the square of it for more.
    """
    if MOVED.search(text):
        decomposed = "".join(unicodedata.normalize("NFD", one) for one in text)
        runs = groupby(decomposed, key=lambda one: unicodedata.combining(one) > 0)
        text = "".join(one for _, run in runs for one in sorted(run, key=unicodedata.combining))
    return text.translate(UNMARKED)


def simplified_words(splitter: WordSplitter, numbers: Numbers = "zero") -> WordSplitter:
    """The splitter of the words that `splitter` makes of simplified texts; by name "simplified:", or
    "simplified_with_numbers:", and its name.

    No chunk's words depend on a neighbour: the marks of the special cases for which they do in `spacy_english` become
    blanks, but for "‘s" and "<space>" (from "≮space≯"), and matches of those never overlap.
    """

    def words(texts: Sequence[str]) -> list[list[str]]:
        return splitter.words([simplified(text, numbers) for text in texts])

    def sentences(lines: Sequence[str]) -> list[int]:
        return splitter.sentences([simplified(line, numbers) for line in lines])

    name = PREFIXES[numbers] + splitter.name
    return WordSplitter(name=name, words=words, sentences=sentences, chunk_local=splitter.chunk_local)
