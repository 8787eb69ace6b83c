"""DCLM's deduplication of paragraphs and documents by the n-grams seen before, with a Bloom filter: BFF.

mlfoundations/dclm, dedup/bff/src/main.rs, `process_line_oldboth`, which is `--remove-type old-both` and made
DCLM-Baseline; the settings are those of dedup/bff/README.md. A paragraph is what lies between line feeds, and goes with
the line feed before it. Its tokens are the segments of UAX #29 but those of white space; its n-grams are looked up,
all of them before any is put in. Where more than `most` of them were seen before, the paragraph goes, and its n-grams
are forgotten; else they are put in. A paragraph of fewer tokens than `smallest` stays and puts nothing in; one of fewer
than `size` has one n-gram, of all its tokens. Where more than `most` of a document's n-grams were seen before (by
documents before it, or by its own earlier paragraphs), a rule drops the document; the n-grams of its paragraphs that
were kept stay in, as there. A document of which white space alone is left is dropped, too.

There the files of a shard are shuffled and share one filter among threads, so that two runs differ; here a window has
one order. `old-both` is no `naive-both`: that puts the n-grams of a document in before it looks up those of its
paragraphs, and removes 98 % (mlfoundations/dclm, issues 71 and 83).

Where this differs: Unicode's version is that of Python's tables; a flag, or pictures with a joiner between, are several
tokens; and of the blanks before a mark only the last is in its token (`filters.word_break`). N-grams are equal if their
64-bit hashes are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from filters.batch import TextBatch, ratio
from filters.edit import Edited
from filters.kernels import BASE, Counts, Hashes, Offsets, compiled, mixed
from filters.kernels_chunks import is_space
from filters.kernels_words import segment_end
from filters.rule import Paper, Rule, Signal
from filters.word_break import word_break_classes
from pipelines.dedup import bloom
from pipelines.dedup.bloom import Bools, Seen, holds, put
from pipelines.dedup.paragraphs import removal, removal_signals, without_lines

Points = npt.NDArray[np.uint32]
Kinds = npt.NDArray[np.uint8]

DCLM_CODE = Paper(
    title="DataComp-LM: In search of the next generation of training sets for language models",
    url="https://arxiv.org/abs/2406.11794",
    where="4.3, Deduplication; mlfoundations/dclm, dedup/bff/README.md and src/main.rs, process_line_oldboth",
)


@dataclass(frozen=True, kw_only=True)
class NGrams:
    """One setting of BFF. Its signals are named NAME.what.

    smallest, size: tokens of the shortest and of the longest n-grams. most: the largest part of a paragraph's n-grams,
    and of a document's, that may have been seen before. rate: the budget of false positives for each n-gram; None: the
    hashes themselves.
    """

    name: str
    smallest: int
    size: int
    most: float
    rate: float | None
    paper: Paper

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.size:
            raise ValueError(
                f"{self.name}: n-grams of {self.smallest} to {self.size} tokens; give 1 <= smallest <= size"
            )

    def begin(self, expected: int) -> Window:
        """A window in which no more than `expected` different n-grams will be met. Takes `memory(expected)` bytes."""
        return Window(of=self, seen=bloom.begin(self._what, expected, self.rate))

    def read(self, file: BinaryIO) -> Window:
        """A window that goes on where the one that `write` wrote ended. Raises InputError if this is none."""
        return Window(of=self, seen=bloom.read(file, self._what))

    def memory(self, expected: int) -> int:
        """The bytes of a window of so many different n-grams."""
        return bloom.memory(expected, self.rate)

    @property
    def notices(self) -> tuple[Signal, ...]:
        """The signals of the edit."""
        says = "n-grams seen before / n-grams (0 / 1 where there is none)"
        return (
            *removal_signals(self.name, "paragraphs"),
            Signal(name=f"{self.name}.seen_ratio", kind="ratio", says=says),
        )

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, for `failing`."""
        _, left, _, _, seen = self.notices
        return (
            Rule(name=seen.name, signal=seen, high=self.most, paper=self.paper),
            Rule(name=left.name, signal=left, low=1, paper=self.paper),
        )

    @property
    def _what(self) -> str:
        return f"{self.name}, n-grams of {self.smallest} to {self.size}"


DCLM = NGrams(name="dclm_bff", smallest=13, size=13, most=0.8, rate=0.01, paper=DCLM_CODE)


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """The n-grams seen so far."""

    of: NGrams
    seen: Seen

    def write(self, file: BinaryIO) -> None:
        """Write what was seen, for `NGrams.read`."""
        self.seen.write(file)


def items(of: NGrams, batch: TextBatch) -> int:
    """The n-grams of the texts: no more different ones can come of them."""
    return len(paragraph_ngrams(of, batch)[0])


def edited(window: Window, batch: TextBatch) -> Edited:
    """Remove paragraphs from the texts, which are the next of the window."""
    of, seen = window.of, window.seen
    keys, ends = paragraph_ngrams(of, batch)
    before, removed = sifted(seen.words, seen.probes, seen.expected, seen.counts, keys, ends, of.most)
    seen.check()
    texts = without_lines(batch, removed, leading=True)
    lines = batch.lines.offsets
    filled = batch.stripped_lines.starts < batch.stripped_lines.ends
    signals = removal(of.name, batch, texts, removed, filled & ~removed)
    total = ends[lines[1:]] - ends[lines[:-1]]
    sums = np.concatenate([[0], np.cumsum(before)])
    signals[f"{of.name}.seen_ratio"] = ratio(sums[lines[1:]] - sums[lines[:-1]], np.maximum(total, 1))
    return Edited(texts=texts, signals=signals)


def paragraph_ngrams(of: NGrams, batch: TextBatch) -> tuple[Hashes, Offsets]:
    """Return the hashes of the n-grams of every paragraph: those of paragraph k are keys[ends[k]:ends[k + 1]]."""
    points, lines = batch.points.values, batch.lines
    return ngrams(points, lines.starts, lines.ends, word_break_classes(), of.smallest, of.size)


@compiled
def is_blank(points: Points, start: int, end: int) -> bool:
    """Whether the span is white space alone, as Unicode has it: unlike for Python, U+001C to U+001F are none."""
    for at in range(start, end):  # noqa: SIM110 (Numba compiles no generators)
        if not is_space(points[at]) or 0x1C <= points[at] <= 0x1F:
            return False
    return True


@compiled
def ngrams(
    points: Points, starts: Counts, ends: Counts, kinds: Kinds, smallest: int, size: int
) -> tuple[Hashes, Offsets]:
    """Return the hashes of the n-grams of each span, and where each span's begin and the last one's end.

    A token's hash is a polynomial of its code points, an n-gram's one of its tokens' hashes; both are mixed.
    """
    keys = np.empty(len(points), np.uint64)
    bounds = np.zeros(len(starts) + 1, np.int64)
    tokens = np.zeros(size, np.uint64)  # the last `size` of them, in turn
    found = 0
    for span in range(len(starts)):
        at, count = starts[span], 0
        while at < ends[span]:
            to = segment_end(points, kinds, at, ends[span])
            if not is_blank(points, at, to):
                tokens[count % size] = spelled(points, at, to)
                count += 1
                if count >= size:
                    keys[found] = chained(tokens, count, size)
                    found += 1
            at = to
        if smallest <= count < size:
            keys[found] = chained(tokens, count, count)
            found += 1
        bounds[span + 1] = found
    return keys[:found], bounds


@compiled
def spelled(points: Points, start: int, end: int) -> np.uint64:
    """The hash of a token."""
    value = np.uint64(end - start)
    for at in range(start, end):
        value = value * BASE + np.uint64(points[at])
    return mixed(value)


@compiled
def chained(tokens: Hashes, count: int, length: int) -> np.uint64:
    """The hash of the last `length` of `count` tokens, which lie in `tokens` in turn."""
    value = np.uint64(length)
    for token in range(count - length, count):
        value = value * BASE + tokens[token % len(tokens)]
    return mixed(value)


@compiled
def sifted(
    words: Hashes, probes: int, expected: int, counts: Counts, keys: Hashes, ends: Offsets, most: float
) -> tuple[Counts, Bools]:
    """Return of each paragraph how many of its n-grams were seen before, and whether it is removed; put in those of
    the others.
    """
    before = np.zeros(len(ends) - 1, np.int64)
    removed = np.zeros(len(ends) - 1, np.bool_)
    for paragraph in range(len(before)):
        first, last = ends[paragraph], ends[paragraph + 1]
        for at in range(first, last):
            before[paragraph] += holds(words, probes, keys[at])
        if last > first and before[paragraph] / (last - first) > most:
            removed[paragraph] = True
            continue
        for at in range(first, last):
            put(words, probes, expected, counts, keys[at])
    return before, removed
