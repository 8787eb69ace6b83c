"""The words of RedPajama-v2's normalised text, as a splitter that is local to chunks and needs no package.

RedPajama normalises a whole text (`utilities/text/normalization.py`):
ASCII punctuation is deleted, the rest lower-cased and decomposed (NFD), and white space cut. None of these steps looks
across white space, so each chunk gives its normalised self, or no word if it was punctuation alone.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence

from filters.splitter import WordSplitter

SENTENCE = re.compile(r"\b[^.!?]+[.!?]*")
DELETED = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """The text lower-cased and decomposed, without ASCII punctuation; white space stays as it is."""
    if text.isascii():  # 9 of 10 chunks, and most have punctuation at their ends alone
        inner = text.strip(string.punctuation)
        return (inner if inner.isalnum() else inner.translate(DELETED)).lower()
    return unicodedata.normalize("NFD", text.translate(DELETED).lower())


def sentence_counts(lines: Sequence[str]) -> list[int]:
    """Sentences of each line, by RedPajama's pattern."""
    return [len(SENTENCE.findall(line)) for line in lines]


NORMALISED_WORDS = WordSplitter(
    name="redpajama_normalised",
    words=lambda texts: [normalised(text).split() for text in texts],
    sentences=sentence_counts,
    chunk_local=True,
)
"""The words that RedPajama counts, compares and builds n-grams of."""
