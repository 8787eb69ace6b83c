"""Words as integers: a splitter cuts text into words, a vocabulary gives every distinct word a code.

Text is cut at white space into chunks; a splitter whose words never cross chunks meets every distinct chunk once, and
all later occurrences are a dictionary look-up. Codes depend on the order in which words were met, so they mean nothing
outside their `TokenCodes`; what is derived from codes and the table beside them does not depend on that order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

from filters import kernels
from filters.token_flags import STOP_WORD_BITS, TERMINATOR, character_flags

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
    sentences: for each line its number of sentences.
    sentence_ends: words after which the next word that is not punctuation begins a sentence, where white space other
        than one blank after a word counts as a word; None where only `sentences` can tell.
    """

    name: str
    words: Callable[[Sequence[str]], list[list[str]]]
    sentences: Callable[[Sequence[str]], list[int]]
    chunk_local: bool
    sentence_ends: frozenset[str] | None = None
    unsteady: Callable[[str, Sequence[str]], bool] | None = None
    joined: Callable[[str, str], bool] = independent


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenCodes:
    """The words of n texts: those of text i are codes[offsets[i]:offsets[i + 1]]; the other arrays describe each code.

    length: code points. hash: xxh64 of the UTF-8 bytes. spelling: a polynomial of the code points, so that the hash of
    a concatenation follows from its parts. flags: bits of `token_flags`.
    """

    codes: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    length: npt.NDArray[np.int32]
    hash: npt.NDArray[np.uint64]
    spelling: npt.NDArray[np.uint64]
    flags: npt.NDArray[np.uint16]


class Column(Generic[Scalar]):
    """A growing array: adding n values costs O(n) in the long run."""

    def __init__(self, dtype: type[Scalar]) -> None:
        self._values: npt.NDArray[Scalar] = np.zeros(1024, dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, values: npt.ArrayLike) -> None:
        """Add values at the end. Views given out before keep what they show."""
        new = np.asarray(values, self._values.dtype)
        if self._count + len(new) > len(self._values):
            grown = np.zeros(max(2 * len(self._values), self._count + len(new)), self._values.dtype)
            grown[: self._count] = self._values[: self._count]
            self._values = grown
        self._values[self._count : self._count + len(new)] = new
        self._count += len(new)

    @property
    def view(self) -> npt.NDArray[Scalar]:
        """The values so far, not copied."""
        return self._values[: self._count]


SPACE = " "  # stands for a run of white space that is a token of its own; no chunk is equal to it
CHARACTERS_PER_CHUNK = 32  # real chunks have 6 on average; pages of long ones must not outgrow the bound on memory


class Vocabulary:
    """Codes of the words met so far. One thread at a time; not for pickling: make one where it is used.

    When it holds more than `max_chunks` distinct chunks (or words, or 32 characters for each), it starts anew before
    the next batch: results do not change, only speed. 1,000,000 chunks of real text take about 250 MB.
    """

    def __init__(self, splitter: WordSplitter, *, max_chunks: int = 1_000_000) -> None:
        self.splitter = splitter
        self.max_chunks = max_chunks
        self._points: dict[str, int] = {}
        self._begin()

    def _begin(self) -> None:
        self._chunks: dict[str, int] = {}
        self._starts, self._chunk_codes = Column(np.int64), Column(np.int32)
        self._starts.extend([0])
        self._unsteady = Column(np.bool_)
        self._tokens: dict[str, int] = {}
        self._length, self._flags = Column(np.int32), Column(np.uint16)
        self._hash, self._spelling = Column(np.uint64), Column(np.uint64)
        self._characters = 0
        self._remember([SPACE], [[SPACE]])

    def _bound(self) -> None:
        held = max(len(self._chunks), len(self._tokens), self._characters // CHARACTERS_PER_CHUNK)
        if held > self.max_chunks:
            self._begin()

    def encode(self, texts: Sequence[str]) -> TokenCodes:
        """Return the words of each text as codes."""
        self._bound()
        if not self.splitter.chunk_local:
            return self._whole(texts)
        chunks, offsets = chunked(text.split() for text in texts)
        pieces, offsets = self._in_context(
            chunks, offsets, lambda text: [chunk for chunk in self._phrased(spaced(texts[text])) if chunk != SPACE]
        )
        return self._tabled(*kernels.gathered(pieces, offsets, self._starts.view, self._chunk_codes.view))

    def sentences(self, lines: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the number of sentences of each line, as the splitter's `sentences` counts them."""
        if self.splitter.sentence_ends is None or not self.splitter.chunk_local:
            return np.array(self.splitter.sentences(lines), np.int64)
        self._bound()
        chunks, offsets = chunked(map(spaced, lines))
        pieces, offsets = self._in_context(chunks, offsets, lambda line: self._phrased(spaced(lines[line])))
        codes, ends = kernels.gathered(pieces, offsets, self._starts.view, self._chunk_codes.view)
        return kernels.sentence_counts(codes, ends, self._flags.view)

    def _whole(self, texts: Sequence[str]) -> TokenCodes:
        coded = self._coded(self.splitter.words(texts))
        ends = np.cumsum([0, *map(len, coded)], dtype=np.int64)
        return self._tabled(np.concatenate([np.empty(0, np.int32), *coded]), ends)

    def _tabled(self, codes: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64]) -> TokenCodes:
        return TokenCodes(
            codes=codes,
            offsets=offsets,
            length=self._length.view,
            hash=self._hash.view,
            spelling=self._spelling.view,
            flags=self._flags.view,
        )

    def _pieces(self, chunks: Sequence[str]) -> npt.NDArray[np.int32]:
        """The number of each chunk; unseen ones are split first."""
        pieces = np.fromiter(map(self._chunks.get, chunks, repeat(-1)), np.int32, len(chunks))
        unseen = np.flatnonzero(pieces < 0).tolist()
        if unseen:
            new = list(dict.fromkeys(chunks[at] for at in unseen))
            self._remember(new, self.splitter.words(new))
            pieces[unseen] = [self._chunks[chunks[at]] for at in unseen]
        return pieces

    def _in_context(
        self, chunks: Sequence[str], offsets: npt.NDArray[np.int64], phrased: Callable[[int], list[str]]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Return the numbers of all chunks, and where each text's begin; `phrased(text)` replaces a text's chunks.

        That is asked for texts in which the words of a chunk may depend on a neighbour.
        """
        pieces = self._pieces(chunks)
        texts = self._contextual(chunks, offsets, pieces)
        if not texts:
            return pieces, offsets
        counts = np.diff(offsets)
        parts, at = [], 0
        for text in texts:
            parts += [pieces[at : offsets[text]], self._pieces(phrased(text))]
            counts[text] = len(parts[-1])
            at = offsets[text + 1]
        return np.concatenate([*parts, pieces[at:]]), np.concatenate([[0], np.cumsum(counts)])

    def _contextual(
        self, chunks: Sequence[str], offsets: npt.NDArray[np.int64], pieces: npt.NDArray[np.int32]
    ) -> list[int]:
        """The texts, in order, in which an unsteady chunk may be joined to a neighbour."""
        if self.splitter.unsteady is None:
            return []
        joined = self.splitter.joined
        found: dict[int, None] = {}
        for at in np.flatnonzero(self._unsteady.view[pieces]).tolist():
            text = int(np.searchsorted(offsets, at, side="right")) - 1
            before = at > offsets[text] and joined(chunks[at - 1], chunks[at])
            if before or (at + 1 < offsets[text + 1] and joined(chunks[at], chunks[at + 1])):
                found[text] = None
        return list(found)

    def _phrased(self, chunks: Sequence[str]) -> list[str]:
        """Join neighbours that may change one another to a phrase; chunks are one blank apart or have SPACE between."""
        joined = self.splitter.joined
        phrases: list[str] = []
        done = 0
        for centre in np.flatnonzero(self._unsteady.view[self._pieces(chunks)]).tolist():
            if centre < done:
                continue
            first, last = centre, centre + 1
            while first > done and joined(chunks[first - 1], chunks[first]):
                first -= 1
            while last < len(chunks) and joined(chunks[last - 1], chunks[last]):
                last += 1
            phrases += [*chunks[done:first], " ".join(chunks[first:last])]
            done = last
        return [*phrases, *chunks[done:]]

    def _remember(self, chunks: Sequence[str], words: Sequence[Sequence[str]]) -> None:
        first = len(self._chunks)
        coded = self._coded(words)
        self._chunks.update(zip(chunks, range(first, first + len(chunks)), strict=True))
        self._chunk_codes.extend(np.concatenate(coded))
        self._starts.extend(self._starts.view[-1] + np.cumsum([len(codes) for codes in coded]))
        unsteady = self.splitter.unsteady
        self._unsteady.extend([bool(unsteady and unsteady(*pair)) for pair in zip(chunks, words, strict=True)])
        self._characters += sum(map(len, chunks))

    def _coded(self, words: Sequence[Sequence[str]]) -> list[npt.NDArray[np.int32]]:
        """The codes of each list of words; words never met get a code and their row of the table."""
        known = self._tokens
        new = list(dict.fromkeys(word for some in words for word in some if word not in known))
        if new:
            self._describe(new)
            known.update(zip(new, range(len(known), len(known) + len(new)), strict=True))
        return [np.fromiter(map(known.__getitem__, some), np.int32, len(some)) for some in words]

    def _describe(self, words: Sequence[str]) -> None:
        lengths = [len(word) for word in words]
        points = np.frombuffer("".join(words).encode("utf-32-le", "surrogatepass"), np.uint32)
        offsets = np.cumsum([0, *lengths], dtype=np.int64)
        distinct, where = np.unique(points, return_inverse=True)
        kinds = np.array([self._character_flags(chr(point)) for point in distinct.tolist()], np.uint16)
        spelling, flags = kernels.spelled(points, offsets, kinds[where])
        ends = self.splitter.sentence_ends or frozenset()
        flags |= np.array([STOP_WORD_BITS.get(word, 0) | TERMINATOR * (word in ends) for word in words], np.uint16)
        hashes = [xxhash.xxh64_intdigest(word.encode("utf-8", "surrogatepass")) for word in words]
        self._length.extend(lengths)
        self._hash.extend(np.array(hashes, np.uint64))
        self._spelling.extend(spelling)
        self._flags.extend(flags)
        self._characters += sum(lengths)

    def _character_flags(self, character: str) -> int:
        flags = self._points.get(character)
        if flags is None:
            flags = self._points[character] = character_flags(character)
        return flags


def chunked(texts: Iterable[list[str]]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the chunks of all texts in one list, and where each text's begin."""
    flat: list[str] = []
    offsets = [0]
    for chunks in texts:
        flat += chunks
        offsets.append(len(flat))
    return flat, np.array(offsets, np.int64)


def spaced(line: str) -> list[str]:
    """The chunks of a line, with SPACE wherever white space is a token of its own.

    One space after a chunk belongs to that chunk; whatever else there is of white space is a token (spaCy's rule).
    """
    chunks = line.split()
    if line == " ".join(chunks):
        return chunks
    marked: list[str] = []
    at = 0
    for chunk in chunks:
        found = line.index(chunk, at)
        if line[at:found] != ("" if at == 0 else " "):
            marked.append(SPACE)
        marked.append(chunk)
        at = found + len(chunk)
    if line[at:] not in ("", " " if at else ""):
        marked.append(SPACE)
    return marked
