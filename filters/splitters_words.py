"""Word splitters that need no package: white space, and the words of UAX #29. All are local to white-space chunks.

UAX #29 joins words at one kind of white space, the narrow no-break space (U+202F), and lets a mark that follows a
blank belong to the blank; here both end a word, as every other white space does. A zero-width joiner does not tie a
letter to a picture. Nothing of this occurs in a word that has a meaning of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from filters.characters import point_classes
from filters.splitter import WordSplitter
from filters.word_break import word_break_classes


def segmented(texts: Sequence[str], *, first: bool) -> list[list[str]]:
    """The segments of UAX #29 with a letter or digit in them, or with one as `first` character, of each text."""
    from filters import kernels_words

    together = "".join(texts)
    points = np.frombuffer(together.encode("utf-32-le", "surrogatepass"), np.uint32)
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    starts, ends, counts = kernels_words.word_spans(points, offsets, word_break_classes(), point_classes(), first)
    words = [together[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    bounds = np.cumsum(np.concatenate([[0], counts])).tolist()
    return [words[begin:end] for begin, end in zip(bounds, bounds[1:], strict=False)]


def one_each(lines: Sequence[str]) -> list[int]:
    """One sentence for each line: these splitters know nothing of sentences."""
    return [1] * len(lines)


WHITESPACE = WordSplitter(
    name="whitespace",
    words=lambda texts: [text.split() for text in texts],
    sentences=one_each,
    chunk_local=True,
    whole=True,
)
UAX29 = WordSplitter(
    name="uax29", words=lambda texts: segmented(texts, first=False), sentences=one_each, chunk_local=True
)
"""What Rust's `unicode_words` gives."""
UAX29_FIRST = WordSplitter(
    name="uax29_first", words=lambda texts: segmented(texts, first=True), sentences=one_each, chunk_local=True
)
"""What Python's uniseg gives where words that begin with a letter or a digit are kept: "_a" is none."""
