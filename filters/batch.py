"""A batch of documents in one text view, and what several rules need of it: computed once, when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from filters import kernels, kernels_lines
from filters.characters import point_classes
from filters.rule import Family, Measured, Signals, UInts
from filters.splitter import WordSplitter
from filters.tokens import Chunks, TokenCodes, Vocabulary

Counts = npt.NDArray[np.int64]
Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True, eq=False)
class Points:
    """The code points of n texts one after another: those of text i are values[offsets[i]:offsets[i + 1]]."""

    values: npt.NDArray[np.uint32]
    offsets: Counts


@dataclass(frozen=True, kw_only=True, eq=False)
class Lines:
    """Lines of n texts as spans of code points [starts[k], ends[k]); text i has lines offsets[i] to offsets[i + 1]."""

    starts: Counts
    ends: Counts
    offsets: Counts


@dataclass(frozen=True, kw_only=True, eq=False)
class WordedLines:
    """Lines of n texts, as `str.splitlines` cuts them, as spans of code points without the white space at their ends.

    Text i has lines offsets[i] to offsets[i + 1]; `words` are their white-space words, `longest` that of most
    characters.
    """

    starts: Counts
    stops: Counts
    words: Counts
    longest: Counts
    offsets: Counts


class of_texts(Generic[Found]):  # noqa: N801 (reads as a property does)
    """A property that hangs on the texts alone: computed once for all that cut them into words."""

    def __init__(self, compute: Callable[[TextBatch], Found]) -> None:
        self.compute = compute
        self.__doc__ = compute.__doc__

    def __get__(self, batch: TextBatch, owner: type[TextBatch]) -> Found:
        return batch.once(self.compute)


@dataclass(eq=False)
class TextBatch:
    """The texts of some documents. Every array below has one row per document, in the order of `texts`.

    What a property gives is computed once, when first asked for.
    """

    texts: Sequence[str]
    vocabulary: Vocabulary
    _found: dict[object, Any] = field(default_factory=dict)
    _words: dict[str, TokenCodes] = field(default_factory=dict)
    _measured: dict[Callable[[TextBatch], Signals], Signals] = field(default_factory=dict)
    _sentences: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    def cut_by(self, vocabulary: Vocabulary) -> TextBatch:
        """The same texts, cut by another splitter of the same lexicon; nothing that is known of them is asked again."""
        assert vocabulary.lexicon is self.vocabulary.lexicon, "chunks are numbered by one lexicon"
        return TextBatch(self.texts, vocabulary, self._found, self._words)

    def once(self, compute: Callable[[TextBatch], Found]) -> Found:
        """What `compute` makes of this batch, computed once. It hangs on the texts alone, not on how `vocabulary` cuts
        them, and does not hold the batch, which would then outlive its use.
        """
        if compute not in self._found:
            self._found[compute] = compute(self)
        found: Found = self._found[compute]
        return found

    @property
    def tokens(self) -> TokenCodes:
        """The words of every text, as codes; cut by the splitter of `vocabulary`."""
        return self.words(self.vocabulary.splitter)

    def words(self, splitter: WordSplitter) -> TokenCodes:
        """The words of every text as another splitter cuts them. One look-up per chunk serves all that are local to
        chunks.
        """
        found = self._words.get(splitter.name)
        if found is None:
            vocabulary = self.vocabulary.lexicon.vocabulary(splitter)
            if splitter.chunk_local:
                found = vocabulary.encode_chunks(self.texts, self._chunked())
            else:
                found = vocabulary.encode(self.texts)
            self._words[splitter.name] = found
        return found

    def measured(self, family: Family) -> Signals:
        """The signals of a family; measured once for all families that measure alike and differ in their bounds."""
        if family.measure not in self._measured:
            self._measured[family.measure] = family.measure(self)
        return self._measured[family.measure]

    def sentences(self, lines: Sequence[str]) -> Counts:
        """The sentences of each of some lines of these texts; edits that keep the same line count it once."""
        known = self._sentences
        new = list(dict.fromkeys(line for line in lines if line not in known))
        known.update(zip(new, self.vocabulary.sentences(new).tolist(), strict=True))
        return integers(map(known.__getitem__, lines))

    def _chunked(self) -> Chunks:
        lexicon = self.vocabulary.lexicon
        chunks: Chunks | None = self._found.get(Chunks)
        if chunks is None or chunks.generation != lexicon.generation:
            chunks = self._found[Chunks] = lexicon.chunked(self.points.values, self.points.offsets)
        return chunks

    @of_texts
    def points(self) -> Points:
        """Code points, lone surrogates among them."""
        offsets = np.concatenate([[0], np.cumsum(self.characters)])
        values = np.frombuffer("".join(self.texts).encode("utf-32-le", "surrogatepass"), np.uint32)
        return Points(values=values, offsets=offsets)

    @of_texts
    def lines(self) -> Lines:
        """What lies between line feeds; blank lines stay, and a text without any line feed is one line."""
        starts, ends, offsets = kernels.lines(self.points.values, self.points.offsets)
        return Lines(starts=starts, ends=ends, offsets=offsets)

    @of_texts
    def stripped_lines(self) -> Lines:
        """The same lines without white space at their ends."""
        lines = self.lines
        starts, ends = kernels.stripped(self.points.values, lines.starts, lines.ends, point_classes())
        return Lines(starts=starts, ends=ends, offsets=lines.offsets)

    @of_texts
    def worded_lines(self) -> WordedLines:
        """The lines of `split_lines`, blank ones too."""
        starts, stops, words, longest, offsets = kernels_lines.worded_lines(self.points.values, self.points.offsets)
        return WordedLines(starts=starts, stops=stops, words=words, longest=longest, offsets=offsets)

    @cached_property
    def word_total(self) -> Counts:
        """Words, symbols among them."""
        return np.diff(self.tokens.offsets)

    @cached_property
    def repetition(self) -> Counts:
        """Characters in the top n-gram (n = 2, 3, 4) and in duplicate n-grams (n = 5 ... 10): nine columns."""
        of = self.tokens
        return kernels.repetition(of.codes, of.offsets, of.length, of.hash, of.spelling)

    def word_counts(self, symbol: int) -> Counts:
        """Five columns: words that are no symbols, their characters, words with a letter, stop words, distinct ones.

        `symbol` is the flag that marks the symbols.
        """
        of = self.tokens
        return kernels.word_counts(of.codes, of.offsets, of.length, of.flags, np.uint16(symbol))

    @of_texts
    def characters(self) -> Counts:
        """Code points."""
        return integers(map(len, self.texts))

    @of_texts
    def newlines(self) -> Counts:
        """Line feeds."""
        return self.occurrences("\n")

    def occurrences(self, part: str) -> Counts:
        """How often `part` occurs, without overlap."""
        if part not in self._found:
            self._found[part] = integers(text.count(part) for text in self.texts)
        found: Counts = self._found[part]
        return found

    @of_texts
    def split_lines(self) -> list[list[str]]:
        """Lines as `str.splitlines` cuts them: at line feeds, form feeds, U+2028 and others; blank ones stay."""
        return [text.splitlines() for text in self.texts]

    @of_texts
    def newline_lines(self) -> list[list[str]]:
        """What lies between line feeds; blank lines stay."""
        return [text.split("\n") for text in self.texts]

    @of_texts
    def filled_lines(self) -> list[list[str]]:
        """What lies between line feeds and is not white space alone."""
        return [[line for line in lines if line and not line.isspace()] for lines in self.newline_lines]

    @of_texts
    def line_runs(self) -> list[list[str]]:
        """What lies between runs of line feeds."""
        return [between_runs(lines) for lines in self.newline_lines]

    @of_texts
    def paragraphs(self) -> list[list[str]]:
        """What lies between runs of at least two line feeds, white space at the text's ends removed."""
        return [split_paragraphs(text.strip()) for text in self.texts]


# str.split finds line feeds several times as fast as re.split finds runs of them.
def between_runs(lines: list[str]) -> list[str]:
    """What `re.split("\\n+", text)` gives, from what `text.split("\\n")` gives: empty parts stay at the ends only."""
    if len(lines) == 1:
        return lines
    return [*lines[:1], *filter(None, lines[1:-1]), *lines[-1:]]


def split_paragraphs(stripped: str) -> list[str]:
    """What `re.split("\\n{2,}", stripped)` gives for a text without white space at its ends."""
    return [part for run in stripped.split("\n\n") if (part := run.lstrip("\n"))] or [""]


def integers(values: Iterable[int]) -> Counts:
    """The values as an array."""
    return np.fromiter(values, np.int64)


def duplicates(parts: Sequence[Sequence[str]]) -> tuple[Counts, Counts]:
    """Return, per document, the parts equal to an earlier one and the characters in them."""
    distinct = [set(some) for some in parts]
    extra = integers(len(some) - len(once) for some, once in zip(parts, distinct, strict=True))
    characters = integers(
        sum(map(len, some)) - sum(map(len, once)) if len(some) > len(once) else 0
        for some, once in zip(parts, distinct, strict=True)
    )
    return extra, characters


def counted_per_line(values: Counts, offsets: Counts) -> Measured:
    """A count for each line; values above 2^32 - 1 stay at that."""
    return Measured(numerator=unsigned(values), offsets=offsets)


def ratio_per_line(numerator: Counts, denominator: Counts, offsets: Counts) -> Measured:
    """A ratio for each line, undefined where the denominator is 0."""
    return Measured(numerator=unsigned(numerator), denominator=unsigned(denominator), offsets=offsets)


def counted(values: Counts) -> Measured:
    """A count; values above 2^32 - 1 stay at that."""
    return Measured(numerator=unsigned(values))


def ratio(numerator: Counts, denominator: Counts) -> Measured:
    """A ratio, undefined where the denominator is 0."""
    return Measured(numerator=unsigned(numerator), denominator=unsigned(denominator))


def unsigned(values: Counts) -> UInts:
    """The values as uint32, cut at the largest."""
    return np.minimum(values, np.iinfo(np.uint32).max).astype(np.uint32)
