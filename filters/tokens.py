"""Words as integers: a splitter cuts text into words, a vocabulary gives every distinct word a code.

Text is cut at white space into chunks, and a `Lexicon` numbers the distinct ones. A splitter whose words never cross
chunks meets every distinct chunk once; all later occurrences are a look-up, which all splitters of one lexicon share.
Codes depend on the order in which words were met, so they mean nothing outside their `TokenCodes`; what is derived
from codes and the table beside them does not depend on that order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

from filters import kernels
from filters.token_flags import STOP_WORD_BITS, TERMINATOR, character_flags

Scalar = TypeVar("Scalar", bound=np.generic)
Numbers = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]


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
class Feature(Generic[Scalar]):
    """A number that depends on a word's spelling alone; computed once for each distinct word.

    of: for each word its number. `name` is unique among all features.
    """

    name: str
    dtype: type[Scalar]
    of: Callable[[Sequence[str]], npt.ArrayLike]


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenCodes:
    """The words of n texts: those of text i are codes[offsets[i]:offsets[i + 1]]. All else has one value per code."""

    codes: Numbers
    offsets: Offsets
    table: WordTable

    def feature(self, feature: Feature[Scalar]) -> npt.NDArray[Scalar]:
        """The feature of each code."""
        return self.table.feature(feature)

    @property
    def length(self) -> npt.NDArray[np.int32]:
        """Code points."""
        return self.table.feature(LENGTH)

    @property
    def hash(self) -> npt.NDArray[np.uint64]:
        """xxh64 of the UTF-8 bytes."""
        return self.table.feature(HASH)

    @property
    def spelling(self) -> npt.NDArray[np.uint64]:
        """A polynomial of the code points, so that the hash of a concatenation follows from its parts."""
        return self.table.described[0]

    @property
    def flags(self) -> npt.NDArray[np.uint16]:
        """Bits of `token_flags`."""
        return self.table.described[1]


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


LENGTH = Feature(name="length", dtype=np.int32, of=lambda words: [len(word) for word in words])
HASH = Feature(
    name="hash",
    dtype=np.uint64,
    of=lambda words: np.array(
        [xxhash.xxh64_intdigest(word.encode("utf-8", "surrogatepass")) for word in words], np.uint64
    ),
)


class WordTable:
    """The distinct words of one splitter, in the order of their codes, and what was asked about them."""

    def __init__(self, sentence_ends: frozenset[str]) -> None:
        self.words: list[str] = []
        self.characters = 0
        self._ends = sentence_ends
        self._codes: dict[str, int] = {}
        self._features: dict[str, Column[Any]] = {}
        self._points: dict[str, int] = {}
        self._spelling, self._flags = Column(np.uint64), Column(np.uint16)

    def coded(self, words: Sequence[Sequence[str]]) -> list[Numbers]:
        """The codes of each list of words; words never met get the next ones."""
        known = self._codes
        new = list(dict.fromkeys(word for some in words for word in some if word not in known))
        known.update(zip(new, range(len(known), len(known) + len(new)), strict=True))
        self.words += new
        self.characters += sum(map(len, new))
        return [np.fromiter(map(known.__getitem__, some), np.int32, len(some)) for some in words]

    def feature(self, feature: Feature[Scalar]) -> npt.NDArray[Scalar]:
        """The feature of every word so far."""
        column: Column[Scalar] | None = self._features.get(feature.name)
        if column is None:
            column = self._features[feature.name] = Column(feature.dtype)
        if len(column) < len(self.words):
            column.extend(feature.of(self.words[len(column) :]))
        return column.view

    @property
    def described(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint16]]:
        """`spelling` and `flags` of every word so far."""
        new = self.words[len(self._flags) :]
        if new:
            points = np.frombuffer("".join(new).encode("utf-32-le", "surrogatepass"), np.uint32)
            offsets = np.cumsum([0, *map(len, new)], dtype=np.int64)
            distinct, where = np.unique(points, return_inverse=True)
            kinds = np.array([self._character_flags(chr(point)) for point in distinct.tolist()], np.uint16)
            spelling, flags = kernels.spelled(points, offsets, kinds[where])
            ends = self._ends
            flags |= np.array([STOP_WORD_BITS.get(word, 0) | TERMINATOR * (word in ends) for word in new], np.uint16)
            self._spelling.extend(spelling)
            self._flags.extend(flags)
        return self._spelling.view, self._flags.view

    def _character_flags(self, character: str) -> int:
        flags = self._points.get(character)
        if flags is None:
            flags = self._points[character] = character_flags(character)
        return flags


SPACE = " "  # stands for a run of white space that is a token of its own; no chunk is equal to it
CHARACTERS_PER_CHUNK = 32  # real chunks have 6 on average; pages of long ones must not outgrow the bound on memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunks:
    """The white-space chunks of n texts as numbers of one lexicon, good while its `generation` is the same."""

    generation: int
    flat: Sequence[str]
    numbers: Numbers
    offsets: Offsets


class Lexicon:
    """Numbers for the distinct chunks met so far, shared by all splitters. One thread at a time; not for pickling.

    When it holds more than `max_chunks` distinct chunks (or words of one splitter, or 32 characters for each), it
    starts anew before the next batch: results do not change, only speed. 1,000,000 chunks of real text take about
    150 MB, and 100 MB more for each splitter.
    """

    def __init__(self, *, max_chunks: int = 1_000_000) -> None:
        self.max_chunks = max_chunks
        self.generation = 0
        self.vocabularies: dict[str, Vocabulary] = {}
        self.begin()

    def begin(self) -> None:
        """Forget everything."""
        self.generation += 1
        self.chunks: list[str] = [SPACE]
        self._numbers: dict[str, int] = {SPACE: 0}
        self._characters = 0
        for vocabulary in self.vocabularies.values():
            vocabulary.begin()

    def vocabulary(self, splitter: WordSplitter) -> Vocabulary:
        """The vocabulary of this splitter over this lexicon's chunks."""
        found = self.vocabularies.get(splitter.name)
        return found or Vocabulary(splitter, lexicon=self)

    def chunked(self, texts: Iterable[list[str]]) -> Chunks:
        """Number the chunks of each text; forgets what it knew first where that is too much."""
        tables = [vocabulary.table for vocabulary in self.vocabularies.values()]
        characters = self._characters + sum(table.characters for table in tables)
        words = max((len(table.words) for table in tables), default=0)
        if max(len(self.chunks), words, characters // CHARACTERS_PER_CHUNK) > self.max_chunks:
            self.begin()
        flat: list[str] = []
        offsets = [0]
        for chunks in texts:
            flat += chunks
            offsets.append(len(flat))
        numbers = self.numbered(flat)
        return Chunks(generation=self.generation, flat=flat, numbers=numbers, offsets=np.array(offsets, np.int64))

    def numbered(self, chunks: Sequence[str]) -> Numbers:
        """The number of each chunk; chunks never met get the next ones."""
        numbers = np.fromiter(map(self._numbers.get, chunks, repeat(-1)), np.int32, len(chunks))
        unseen = np.flatnonzero(numbers < 0).tolist()
        if unseen:
            new = list(dict.fromkeys(chunks[at] for at in unseen))
            first = len(self.chunks)
            self._numbers.update(zip(new, range(first, first + len(new)), strict=True))
            self.chunks += new
            self._characters += sum(map(len, new))
            numbers[unseen] = [self._numbers[chunks[at]] for at in unseen]
        return numbers


class Vocabulary:
    """Codes of the words that one splitter makes of a lexicon's chunks. Alone, it has a lexicon of its own."""

    def __init__(self, splitter: WordSplitter, *, lexicon: Lexicon | None = None, max_chunks: int = 1_000_000) -> None:
        self.splitter = splitter
        self.lexicon = Lexicon(max_chunks=max_chunks) if lexicon is None else lexicon
        self.lexicon.vocabularies[splitter.name] = self
        self.begin()

    def begin(self) -> None:
        """Forget everything."""
        self.table = WordTable(self.splitter.sentence_ends or frozenset())
        self._starts, self._chunk_codes = Column(np.int64), Column(np.int32)
        self._starts.extend([0])
        self._unsteady = Column(np.bool_)
        self._remember([SPACE], [[] if self.splitter.sentence_ends is None else [SPACE]])

    def encode(self, texts: Sequence[str]) -> TokenCodes:
        """Return the words of each text as codes."""
        if self.splitter.chunk_local:
            return self.encode_chunks(texts, self.lexicon.chunked(text.split() for text in texts))
        self.lexicon.chunked([])
        coded = self.table.coded(self.splitter.words(texts))
        ends = np.cumsum([0, *map(len, coded)], dtype=np.int64)
        return TokenCodes(codes=np.concatenate([np.empty(0, np.int32), *coded]), offsets=ends, table=self.table)

    def encode_chunks(self, texts: Sequence[str], chunks: Chunks) -> TokenCodes:
        """The same, for texts whose chunks are numbered. The splitter is local to chunks."""
        numbers, offsets = self._in_context(
            chunks, lambda text: [chunk for chunk in self._phrased(spaced(texts[text])) if chunk != SPACE]
        )
        codes, ends = kernels.gathered(numbers, offsets, self._starts.view, self._chunk_codes.view)
        return TokenCodes(codes=codes, offsets=ends, table=self.table)

    def sentences(self, lines: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the number of sentences of each line, as the splitter's `sentences` counts them."""
        if self.splitter.sentence_ends is None or not self.splitter.chunk_local:
            return np.array(self.splitter.sentences(lines), np.int64)
        chunks = self.lexicon.chunked(map(spaced, lines))
        numbers, offsets = self._in_context(chunks, lambda line: self._phrased(spaced(lines[line])))
        codes, ends = kernels.gathered(numbers, offsets, self._starts.view, self._chunk_codes.view)
        return kernels.sentence_counts(codes, ends, self.table.described[1])

    def _in_context(self, chunks: Chunks, phrased: Callable[[int], list[str]]) -> tuple[Numbers, Offsets]:
        """Return the numbers of all chunks, and where each text's begin; `phrased(text)` replaces a text's chunks.

        That is asked for texts in which the words of a chunk may depend on a neighbour.
        """
        self._catch_up()
        texts = self._contextual(chunks)
        if not texts:
            return chunks.numbers, chunks.offsets
        counts = np.diff(chunks.offsets)
        parts, at = [], 0
        for text in texts:
            parts += [chunks.numbers[at : chunks.offsets[text]], self.lexicon.numbered(phrased(text))]
            counts[text] = len(parts[-1])
            at = chunks.offsets[text + 1]
        self._catch_up()
        return np.concatenate([*parts, chunks.numbers[at:]]), np.concatenate([[0], np.cumsum(counts)])

    def _catch_up(self) -> None:
        """Split the chunks that the lexicon has met since."""
        new = self.lexicon.chunks[len(self._unsteady) :]
        if new:
            self._remember(new, self.splitter.words(new))

    def _contextual(self, chunks: Chunks) -> list[int]:
        """The texts, in order, in which an unsteady chunk may be joined to a neighbour."""
        if self.splitter.unsteady is None:
            return []
        joined, flat, offsets = self.splitter.joined, chunks.flat, chunks.offsets
        found: dict[int, None] = {}
        for at in np.flatnonzero(self._unsteady.view[chunks.numbers]).tolist():
            text = int(np.searchsorted(offsets, at, side="right")) - 1
            before = at > offsets[text] and joined(flat[at - 1], flat[at])
            if before or (at + 1 < offsets[text + 1] and joined(flat[at], flat[at + 1])):
                found[text] = None
        return list(found)

    def _phrased(self, chunks: Sequence[str]) -> list[str]:
        """Join neighbours that may change one another to a phrase; chunks are one blank apart or have SPACE between."""
        joined = self.splitter.joined
        phrases: list[str] = []
        done = 0
        numbers = self.lexicon.numbered(chunks)
        self._catch_up()
        for centre in np.flatnonzero(self._unsteady.view[numbers]).tolist():
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
        coded = self.table.coded(words)
        self._chunk_codes.extend(np.concatenate(coded))
        self._starts.extend(self._starts.view[-1] + np.cumsum([len(codes) for codes in coded]))
        unsteady = self.splitter.unsteady
        self._unsteady.extend(
            np.zeros(len(chunks), np.bool_)
            if unsteady is None
            else [unsteady(*pair) for pair in zip(chunks, words, strict=True)]
        )


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
