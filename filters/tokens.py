"""Words as integers: a splitter cuts text into words, a vocabulary gives every distinct word a code.

Text is cut at white space into chunks, and a `Lexicon` numbers the distinct ones. A splitter whose words never cross
chunks meets every distinct chunk once; all later occurrences are a look-up, which all splitters of one lexicon share.
Codes depend on the order in which words were met, so they mean nothing outside their `TokenCodes`; what is derived
from codes and the table beside them does not depend on that order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import Any, Generic

import numpy as np
import numpy.typing as npt

from filters import kernels, kernels_chunks
from filters.splitter import HASH, LENGTH, Feature, Scalar, WordSplitter
from filters.token_flags import STOP_WORD_BITS, TERMINATOR, character_flags

Numbers = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Points = npt.NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenCodes:
    """The words of n texts: those of text i are codes[offsets[i]:offsets[i + 1]]. All else has one value per code."""

    codes: Numbers
    offsets: Offsets
    table: WordTable

    def feature(self, feature: Feature[Scalar]) -> npt.NDArray[Scalar]:
        """The feature of each code."""
        return self.table.feature(feature)

    def only(self, feature: Feature[Scalar]) -> TokenCodes:
        """The words that have the feature, in each text."""
        kept = self.feature(feature)[self.codes] != 0
        offsets = np.concatenate([[0], np.cumsum(kept)])[self.offsets]
        return TokenCodes(codes=self.codes[kept], offsets=offsets, table=self.table)

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


class Numbering(dict[str, int]):
    """Numbers for strings, 0, 1, 2 ... as they are first asked for."""

    def __missing__(self, string: str) -> int:
        number = self[string] = len(self)
        return number

    def of(self, strings: Iterable[str]) -> Numbers:
        """The number of each string; new ones get the next ones."""
        return np.fromiter(map(self.__getitem__, strings), np.int32)

    def since(self, count: int) -> list[str]:
        """The strings numbered `count` and above, in order."""
        return list(islice(reversed(self), len(self) - count))[::-1]


class WordTable:
    """The distinct words of one splitter, in the order of their codes, and what was asked about them."""

    def __init__(self, sentence_ends: frozenset[str], words: list[str] | None = None) -> None:
        self.words: list[str] = [] if words is None else words
        self.characters = 0
        self._ends = sentence_ends
        self._codes = Numbering()
        self._features: dict[str, Column[Any]] = {}
        self._kinds, self._met = np.zeros(sys.maxunicode + 1, np.uint16), np.zeros(sys.maxunicode + 1, np.bool_)
        self._spelling, self._flags = Column(np.uint64), Column(np.uint16)

    def coded(self, words: Iterable[str]) -> Numbers:
        """The codes of the words; words never met get the next ones."""
        codes = self._codes.of(words)
        new = self._codes.since(len(self.words))
        self.words += new
        self.characters += sum(map(len, new))
        return codes

    def feature(self, feature: Feature[Scalar]) -> npt.NDArray[Scalar]:
        """The feature of every word so far."""
        column: Column[Scalar] | None = self._features.get(feature.name)
        if column is None:
            column = self._features[feature.name] = Column(feature.dtype)
        if len(column) < len(self.words):
            column.extend(feature.of(self.words[len(column) :]))
        return column.view

    def places(self, wanted: Sequence[str]) -> npt.NDArray[np.uint16]:
        """Of every word so far its place among `wanted`, from 1 on; 0 where it is none of these, which all differ."""
        self._codes.of(self.words[len(self._codes) :])  # those of chunks that are words as they stand
        places = np.zeros(len(self.words), np.uint16)
        for place, word in enumerate(wanted, start=1):
            code = self._codes.get(word)
            if code is not None:
                places[code] = place
        return places

    @property
    def described(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint16]]:
        """`spelling` and `flags` of every word so far."""
        new = self.words[len(self._flags) :]
        if new:
            points = np.frombuffer("".join(new).encode("utf-32-le", "surrogatepass"), np.uint32)
            offsets = np.cumsum([0, *map(len, new)], dtype=np.int64)
            spelling, flags = kernels.spelled(points, offsets, self._kinds_of(points))
            ends = self._ends
            flags |= np.array([STOP_WORD_BITS.get(word, 0) | TERMINATOR * (word in ends) for word in new], np.uint16)
            self._spelling.extend(spelling)
            self._flags.extend(flags)
        return self._spelling.view, self._flags.view

    def _kinds_of(self, points: Points) -> npt.NDArray[np.uint16]:
        """Flags by code point: those of `points` and of all that were asked for before, 0 elsewhere."""
        if not self._met[points].all():
            known = self._met.copy()
            self._met[points] = True
            for point in np.flatnonzero(self._met & ~known).tolist():
                self._kinds[point] = character_flags(chr(point))
        return self._kinds


SPACE = " "  # stands for a run of white space that is a token of its own; no chunk is equal to it
# Python's collector runs after 700 lists that live and at times walks every object there is (40 ms): 1 ms a page.
SPLIT_AT_ONCE = 512
CHARACTERS_PER_CHUNK = 32  # real chunks have 6 on average; pages of long ones must not outgrow the bound on memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunks:
    """The white-space chunks of n texts as numbers of one lexicon, good while its `generation` is the same."""

    generation: int
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
        self._table = np.zeros((1 << 12, 2), np.uint64)
        self._characters = 0
        for vocabulary in self.vocabularies.values():
            vocabulary.begin()

    def vocabulary(self, splitter: WordSplitter) -> Vocabulary:
        """The vocabulary of this splitter over this lexicon's chunks."""
        found = self.vocabularies.get(splitter.name)
        return found or Vocabulary(splitter, lexicon=self)

    def make_room(self) -> None:
        """Forget everything where that is too much."""
        tables = [vocabulary.table for vocabulary in self.vocabularies.values()]
        characters = self._characters + sum(table.characters for table in tables)
        words = max((len(table.words) for table in tables), default=0)
        if max(len(self.chunks), words, characters // CHARACTERS_PER_CHUNK) > self.max_chunks:
            self.begin()

    def chunked(self, points: Points, offsets: Offsets, *, marked: bool = False) -> Chunks:
        """Number the chunks of the texts points[offsets[i]:offsets[i + 1]], as `str.split()` cuts them.

        marked: as `spaced` cuts them. Forgets what it knew first where that is too much.
        """
        self.make_room()
        starts, stops, hashes, ends = kernels_chunks.cut(points, offsets, marked)
        numbers = self._number(points, starts, stops, hashes)
        return Chunks(generation=self.generation, numbers=numbers, offsets=ends)

    def numbered(self, chunks: Sequence[str]) -> Numbers:
        """The number of each chunk; chunks never met get the next ones."""
        points, offsets = code_points(chunks)
        return self._number(points, offsets[:-1], offsets[1:], kernels_chunks.hashed(points, offsets))

    def _number(self, points: Points, starts: Offsets, stops: Offsets, hashes: Hashes) -> Numbers:
        numbers = np.empty(len(hashes), np.int32)
        fresh = np.empty(max(1024, len(hashes) // 4), np.int64)
        at = 0
        while True:
            known = len(self.chunks)
            at, count = kernels_chunks.numbered(hashes, numbers, at, known, self._table, fresh)
            new = fresh[: count - known]
            self._learn(points, starts[new], stops[new])
            if at == len(hashes):
                return numbers
            if 2 * count >= len(self._table):
                self._table = kernels_chunks.spread(self._table, 4 * len(self._table))

    def _learn(self, points: Points, starts: Offsets, stops: Offsets) -> None:
        """Add the chunks points[starts[k]:stops[k]] to `chunks`."""
        text = kernels_chunks.together(points, starts, stops).tobytes().decode("utf-32-le", "surrogatepass")
        ends = np.cumsum(stops - starts).tolist()
        self.chunks += [text[start:end] for start, end in pairwise([0, *ends])]
        self._characters += len(text)


def code_points(texts: Sequence[str]) -> tuple[Points, Offsets]:
    """The code points of all texts one after another, lone surrogates among them, and where each text's begin."""
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    return points, np.cumsum([0, *map(len, texts)], dtype=np.int64)


class Vocabulary:
    """Codes of the words that one splitter makes of a lexicon's chunks. Alone, it has a lexicon of its own."""

    def __init__(self, splitter: WordSplitter, *, lexicon: Lexicon | None = None, max_chunks: int = 1_000_000) -> None:
        self.splitter = splitter
        self.lexicon = Lexicon(max_chunks=max_chunks) if lexicon is None else lexicon
        self.lexicon.vocabularies[splitter.name] = self
        self.begin()

    def begin(self) -> None:
        """Forget everything."""
        words = self.lexicon.chunks if self.splitter.whole else None
        self.table = WordTable(self.splitter.sentence_ends or frozenset(), words)
        self._starts, self._chunk_codes = Column(np.int64), Column(np.int32)
        self._starts.extend([0])
        self._unsteady = Column(np.bool_)
        if not self.splitter.whole:
            self._remember([SPACE], [[] if self.splitter.sentence_ends is None else [SPACE]])

    def encode(self, texts: Sequence[str]) -> TokenCodes:
        """Return the words of each text as codes."""
        if self.splitter.chunk_local:
            return self.encode_chunks(texts, self.lexicon.chunked(*code_points(texts)))
        self.lexicon.make_room()
        words = self.splitter.words(texts)
        codes = self.table.coded(chain.from_iterable(words))
        return TokenCodes(codes=codes, offsets=np.cumsum([0, *map(len, words)], dtype=np.int64), table=self.table)

    def encode_chunks(self, texts: Sequence[str], chunks: Chunks) -> TokenCodes:
        """The same, for texts whose chunks are numbered. The splitter is local to chunks."""
        if self.splitter.whole:
            return TokenCodes(codes=chunks.numbers, offsets=chunks.offsets, table=self.table)
        numbers, offsets = self._in_context(
            chunks, lambda text: [chunk for chunk in self._phrased(spaced(texts[text])) if chunk != SPACE]
        )
        codes, ends = kernels.gathered(numbers, offsets, self._starts.view, self._chunk_codes.view)
        return TokenCodes(codes=codes, offsets=ends, table=self.table)

    def sentences(self, lines: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the number of sentences of each line, as the splitter's `sentences` counts them."""
        if self.splitter.sentence_ends is None or not self.splitter.chunk_local:
            return np.array(self.splitter.sentences(lines), np.int64)
        chunks = self.lexicon.chunked(*code_points(lines), marked=True)
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
        for at in range(0, len(new), SPLIT_AT_ONCE):
            some = new[at : at + SPLIT_AT_ONCE]
            self._remember(some, self.splitter.words(some))

    def _contextual(self, chunks: Chunks) -> list[int]:
        """The texts, in order, in which an unsteady chunk may be joined to a neighbour."""
        if self.splitter.unsteady is None:
            return []
        joined, offsets = self.splitter.joined, chunks.offsets
        found: dict[int, None] = {}

        def near(at: int) -> bool:
            return joined(*(self.lexicon.chunks[number] for number in chunks.numbers[at : at + 2].tolist()))

        for at in np.flatnonzero(self._unsteady.view[chunks.numbers]).tolist():
            text = int(np.searchsorted(offsets, at, side="right")) - 1
            if (at > offsets[text] and near(at - 1)) or (at + 1 < offsets[text + 1] and near(at)):
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
        self._chunk_codes.extend(self.table.coded(chain.from_iterable(words)))
        self._starts.extend(self._starts.view[-1] + np.cumsum(list(map(len, words)), dtype=np.int64))
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
