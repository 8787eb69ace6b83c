"""What cuts a text into words, and what can be said of a word by itself; values that families name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

Scalar = TypeVar("Scalar", bound=np.generic)


def independent(left: str, right: str) -> bool:
    """Say of every two neighbouring chunks that neither changes the other's words."""
    return False


@dataclass(frozen=True, kw_only=True, eq=False)
class WordSplitter:
    """An exact word splitter, as a value.

    name: part of a signal's identity; another release that cuts differently needs another name.
    words: for each text its words, in order, none empty or with white space at its ends.
    chunk_local: the words of a text are those of its white-space chunks, one after another. Where that fails for two
        neighbouring chunks, `joined(left, right)` is True and `unsteady(chunk, words)` is True of at least one.
    whole: whether each chunk is one word as it stands; then it is local to chunks, and needs no table of its own.
    sentences: for each line its number of sentences.
    sentence_ends: words after which the next word that is not punctuation begins a sentence, where white space other
        than one blank after a word counts as a word; None where only `sentences` can tell.
    """

    name: str
    words: Callable[[Sequence[str]], list[list[str]]]
    sentences: Callable[[Sequence[str]], list[int]]
    chunk_local: bool
    whole: bool = False
    sentence_ends: frozenset[str] | None = None
    unsteady: Callable[[str, Sequence[str]], bool] | None = None
    joined: Callable[[str, str], bool] = independent


@dataclass(frozen=True, kw_only=True, eq=False)
class Feature(Generic[Scalar]):
    """A number that depends on a word's spelling alone; computed once for each distinct word.

    of: for each word its number. `name` is unique among all features.
    """

    name: str
    dtype: type[Scalar]
    of: Callable[[Sequence[str]], npt.ArrayLike]


LENGTH = Feature(name="length", dtype=np.int32, of=lambda words: [len(word) for word in words])
HASH = Feature(
    name="hash",
    dtype=np.uint64,
    of=lambda words: np.array(
        [xxhash.xxh64_intdigest(word.encode("utf-8", "surrogatepass")) for word in words], np.uint64
    ),
)
