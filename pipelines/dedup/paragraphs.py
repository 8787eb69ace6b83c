"""Paragraphs seen before, removed: as Dolma, CCNet and T5 do it, each as an edit and the rules over what it notices.

A paragraph is what lies between line feeds. What a document loses depends on the documents before it, so the documents
of a *window* are gone through in one order, by one process, with one memory of paragraphs, and what becomes of them
depends on nothing else; that memory, stored, is the index for the next window. The paragraphs kept are joined by line
feeds: every one removed goes with one line feed, that after it, or before it at the text's end. No byte changes
otherwise. A paragraph of white space alone stays, and is never remembered.

`DOLMA`: the first of equal paragraphs stays, byte for byte (allenai/dolma, src/deduper.rs; the settings are those of
configs/dolma-v1_5/para_dedupe, the mixer's in configs/dolma-v1_6/mixing). Its mixer leaves the line feed before a last
paragraph, in some texts also the one after it.

`CCNET`: none of them stays (facebookresearch/cc_net, dedup.py: `deduplicate_two_pass`, "what is done in the paper"). A
paragraph that occurs in two documents of the window is removed from both; one that one document repeats stays once in
it. So a window is gone through twice: `collect`, then `edited`, and the order of its documents does not matter. They
are equal in lower case, without white space at the ends, every digit a 0, and without control characters and the marks
of CCNet's list (`normalize_for_dedup`: no ASCII mark is in it). CCNet keeps 64 bits of a hash, too. Its windows are 50
of the 1,600 shards of a dump. It asks for 300 characters before this step (`filters.ccnet`), and afterwards for one
paragraph.

`T5_LINES`: one of equal lines stays, without regard to case and to white space at the ends, and a page needs three
sentences afterwards (tensorflow_datasets/text/c4_utils.py, `remove_duplicate_text`). There the page with the largest
hash of its URL keeps the line, here the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import compress
from sys import maxunicode
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import xxhash

from filters.batch import TextBatch, counted, integers, ratio
from filters.c4_t5 import T5_CODE
from filters.ccnet import PAPER as CCNET_PAPER
from filters.characters import DECIMAL, point_classes
from filters.edit import Edited
from filters.kernels import Counts, Hashes, Offsets, compiled, slot_of
from filters.punctuation import CCNET as CCNET_PUNCTUATION
from filters.rule import Measured, Paper, Rule, Signal, first_failing
from pipelines.dedup import bloom
from pipelines.dedup.bloom import Bools, Seen

Points = npt.NDArray[np.uint32]

DOLMA_CODE = Paper(
    title="Dolma: an Open Corpus of Three Trillion Tokens for Language Model Pretraining Research",
    url="https://arxiv.org/abs/2402.00159",
    where="Deduplication; allenai/dolma, src/deduper.rs, configs/dolma-v1_5/para_dedupe/cc-middle.yaml,"
    " configs/dolma-v1_6/mixing/cc-head.yaml (min_text_length)",
)
CCNET_CODE = Paper(
    title=CCNET_PAPER.title,
    url=CCNET_PAPER.url,
    where="3.2, Deduplication; facebookresearch/cc_net, cc_net/dedup.py,"
    " cc_net/text_normalizer.py, normalize_for_dedup",
)
T5_DEDUP = Paper(
    title=T5_CODE.title,
    url=T5_CODE.url,
    where="tensorflow_datasets/text/c4_utils.py, remove_duplicate_text and _remove_lines_from_text",
)

GONE = 0xFFFFFFFF
"""In a table of forms: the character leaves nothing."""
IN_CONTEXT = 0xFFFFFFFE
"""In a table of forms: the character becomes several (U+0130), or its neighbours decide what it becomes."""
SIGMA = "\u03a3"  # the one letter of which there are two small ones
CCNET_GONE = frozenset(
    (*(mark for mark in CCNET_PUNCTUATION if not mark.isascii()), *map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)))
)


@dataclass(frozen=True, kw_only=True)
class Paragraphs:
    """One way to remove paragraphs. Its signals are named NAME.what.

    same: which paragraphs are equal: those of the same `bytes`; also those in another case and with other white space
        at their ends (`lower`); those of one form of CCNet's (`ccnet`).
    keep: of equal ones the `first`, or `none`.
    rate: the budget of false positives of a Bloom filter; None: the hashes themselves.
    characters, paragraphs, sentences: the least that must be left of a document that lost some, where that is asked.
    """

    name: str
    same: Literal["bytes", "lower", "ccnet"]
    keep: Literal["first", "none"]
    rate: float | None
    characters: int | None = None
    paragraphs: int | None = None
    sentences: int | None = None
    paper: Paper

    def begin(self, expected: int) -> Window:
        """A window in which no more than `expected` different paragraphs will be met. Takes `memory(expected)` bytes.

        Where none stays there are two memories, of those met and of those met again, and each is given half of the
        budget: a paragraph is wrongly removed if either is wrong about it.
        """
        once, again = self._names
        rate = self._rate_of_each
        more = bloom.begin(again, expected, rate) if self.keep == "none" else None
        return Window(of=self, once=bloom.begin(once, expected, rate), again=more)

    def read(self, file: BinaryIO) -> Window:
        """A window that goes on where the one that `write` wrote ended. Raises InputError if this is none."""
        once, again = self._names
        first = bloom.read(file, once)
        return Window(of=self, once=first, again=bloom.read(file, again) if self.keep == "none" else None)

    def memory(self, expected: int) -> int:
        """The bytes of a window of so many different paragraphs."""
        return bloom.memory(expected, self._rate_of_each) * (2 if self.keep == "none" else 1)

    @property
    def notices(self) -> tuple[Signal, ...]:
        """The signals of the edit."""
        return (*removal_signals(self.name, "paragraphs"), *(() if self.sentences is None else (self._sentences,)))

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, for `failing`."""
        _, left, characters, _ = removal_signals(self.name, "paragraphs")
        bounds = ((left, self.paragraphs), (characters, self.characters), (self._sentences, self.sentences))
        return tuple(
            Rule(name=signal.name, signal=signal, low=low, paper=self.paper)
            for signal, low in bounds
            if low is not None
        )

    @property
    def _sentences(self) -> Signal:
        return Signal(name=f"{self.name}.sentences", kind="count", says="sentences left")

    @property
    def _names(self) -> tuple[str, str]:
        return f"{self.name}, paragraphs", f"{self.name}, paragraphs met again"

    @property
    def _rate_of_each(self) -> float | None:
        return self.rate / 2 if self.rate is not None and self.keep == "none" else self.rate


DOLMA = Paragraphs(name="dolma_paragraphs", same="bytes", keep="first", rate=1e-6, characters=1, paper=DOLMA_CODE)
CCNET = Paragraphs(name="ccnet_paragraphs", same="ccnet", keep="none", rate=None, paragraphs=1, paper=CCNET_CODE)
T5_LINES = Paragraphs(name="c4_t5_paragraphs", same="lower", keep="first", rate=None, sentences=3, paper=T5_DEDUP)


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """The paragraphs met so far: `once`, and `again` in another document, where none of them stays."""

    of: Paragraphs
    once: Seen
    again: Seen | None

    def write(self, file: BinaryIO) -> None:
        """Write what was met, for `Paragraphs.read`."""
        self.once.write(file)
        if self.again is not None:
            self.again.write(file)


def items(batch: TextBatch) -> int:
    """The paragraphs of the texts that are not blank: no more different ones can come of them."""
    lines = batch.stripped_lines
    return int((lines.starts < lines.ends).sum())


def collect(window: Window, batch: TextBatch) -> None:
    """Note the paragraphs of the texts: the first of two passes over a window where none of equal ones stays."""
    if window.again is None:
        raise ValueError(f"{window.of.name} keeps the first of equal paragraphs: there is nothing to collect before")
    keys, _, offsets = paragraph_hashes(batch, window.of.same)
    keys = keys[~repeated(keys, offsets)]
    window.again.put(keys[window.once.put(keys)])


def edited(window: Window, batch: TextBatch) -> Edited:
    """Remove paragraphs from the texts, the next of the window; `collect` has seen all of them where none stays."""
    keys, filled, offsets = paragraph_hashes(batch, window.of.same)
    removed = np.zeros(len(filled), np.bool_)
    if window.again is None:
        removed[filled] = window.once.put(keys)
    else:
        removed[filled] = window.again.holds(keys) | repeated(keys, offsets)
    texts = without_lines(batch, removed, leading=False)
    signals = removal(window.of.name, batch, texts, removed, filled & ~removed)
    if window.of.sentences is not None:
        signals[f"{window.of.name}.sentences"] = counted(batch.vocabulary.sentences(texts))
    return Edited(texts=texts, signals=signals)


def failing(batch: TextBatch, after: Edited, rules: tuple[Rule, ...]) -> npt.NDArray[np.int16]:
    """The index of the first of the rules that each document fails, -1 where there is none.

    A document that lost nothing is as the steps before left it, and fails none.
    """
    first, _ = first_failing(after.signals, rules, len(batch))
    same = [old == new for old, new in zip(batch.texts, after.texts, strict=True)]
    first[np.array(same, np.bool_)] = -1
    return first


def removal_signals(name: str, units: str) -> tuple[Signal, Signal, Signal, Signal]:
    """What every removal of parts of texts notices, in the order of `removal`."""
    return (
        Signal(name=f"{name}.removed", kind="count", says=f"{units} removed"),
        Signal(name=f"{name}.left", kind="count", says=f"{units} left that are not blank"),
        Signal(name=f"{name}.characters", kind="count", says="characters left"),
        Signal(name=f"{name}.removed_ratio", kind="ratio", says="characters removed / characters before"),
    )


def removal(name: str, batch: TextBatch, texts: Sequence[str], removed: Bools, left: Bools) -> dict[str, Measured]:
    """The values of `removal_signals`, where `removed` and `left` say so of each line of the batch."""
    offsets = batch.lines.offsets
    return removal_counts(name, batch, texts, summed(removed, offsets), summed(left, offsets))


def removal_counts(
    name: str, batch: TextBatch, texts: Sequence[str], removed: Counts, left: Counts
) -> dict[str, Measured]:
    """The values of `removal_signals`, of counts per document."""
    after = integers(map(len, texts))
    signals = removal_signals(name, "")
    values = (counted(removed), counted(left), counted(after), ratio(batch.characters - after, batch.characters))
    return {signal.name: value for signal, value in zip(signals, values, strict=True)}


def summed(flags: Bools, offsets: Offsets) -> Counts:
    """How many of flags[offsets[i]:offsets[i + 1]] are set, for each document i."""
    sums = np.concatenate([[0], np.cumsum(flags, dtype=np.int64)])
    counts: Counts = sums[offsets[1:]] - sums[offsets[:-1]]
    return counts


def without_lines(batch: TextBatch, removed: Bools, *, leading: bool) -> list[str]:
    """The texts without the lines removed. A line goes with the line feed after it, or, `leading`, before it."""
    offsets = batch.lines.offsets
    texts = list(batch.texts)
    for at in np.flatnonzero(summed(removed, offsets)).tolist():
        gone = removed[offsets[at] : offsets[at + 1]]
        kept = "\n".join(compress(texts[at].split("\n"), (~gone).tolist()))
        texts[at] = "\n" + kept if leading and gone[0] and not gone.all() else kept
    return texts


def paragraph_hashes(batch: TextBatch, same: Literal["bytes", "lower", "ccnet"]) -> tuple[Hashes, Bools, Offsets]:
    """Return the xxh3-64 of each paragraph that is not blank, which lines those are, and where each text's begin.

    What is hashed are code points of four bytes, so that a lone surrogate is a character like any other.
    """
    points, lines, stripped = batch.points.values, batch.lines, batch.stripped_lines
    filled = stripped.starts < stripped.ends
    offsets = np.concatenate([[0], np.cumsum(filled, dtype=np.int64)])[lines.offsets]
    if same == "bytes":
        return hashed(points, lines.starts[filled], lines.ends[filled]), filled, offsets
    starts, ends = stripped.starts[filled], stripped.ends[filled]
    form, table = (ccnet_form, ccnet_forms()) if same == "ccnet" else (lower_form, lower_forms())
    forms, bounds, contextual = in_form(points, starts, ends, table)
    keys = hashed(forms, bounds[:-1], bounds[1:])
    for at in np.flatnonzero(contextual).tolist():
        line = points[starts[at] : ends[at]].tobytes().decode("utf-32-le", "surrogatepass")
        keys[at] = xxhash.xxh3_64_intdigest(form(line).encode("utf-32-le", "surrogatepass"))
    return keys, filled, offsets


def hashed(points: Points, starts: Counts, ends: Counts) -> Hashes:
    """The xxh3-64 of the bytes of each span of code points."""
    view, digest = np.ascontiguousarray(points).data, xxhash.xxh3_64_intdigest
    spans = zip(starts.tolist(), ends.tolist(), strict=True)
    return np.fromiter((digest(view[start:end]) for start, end in spans), np.uint64, len(starts))


def lower_form(line: str) -> str:
    """The line in lower case."""
    return line.lower()


def ccnet_form(line: str) -> str:
    """The line in CCNet's form; white space at its ends is gone already."""
    return "".join("0" if one.isdecimal() else one for one in line.lower() if one.isdecimal() or one not in CCNET_GONE)


@cache
def lower_forms() -> Points:
    """What each code point becomes in `lower_form`, or IN_CONTEXT; 4 MB, made in 0.3 s at first use."""
    lower = [chr(point).lower() for point in range(maxunicode + 1)]
    table = np.fromiter((ord(form) if len(form) == 1 else IN_CONTEXT for form in lower), np.uint32)
    table[ord(SIGMA)] = IN_CONTEXT
    table.flags.writeable = False
    return table


@cache
def ccnet_forms() -> Points:
    """What each code point becomes in `ccnet_form`, or IN_CONTEXT, or GONE; 4 MB."""
    table = lower_forms().copy()
    alone = np.flatnonzero(table != IN_CONTEXT)
    table[alone[point_classes()[table[alone]] & DECIMAL != 0]] = ord("0")
    table[list(map(ord, CCNET_GONE - {"\uff11"}))] = GONE  # a digit, and CCNet makes digits 0 first
    table.flags.writeable = False
    return table


@compiled
def in_form(points: Points, starts: Counts, ends: Counts, table: Points) -> tuple[Points, Offsets, Bools]:
    """Return the forms of the spans one after another, where each begins and the last ends, and which are not right
    because a character in them wants its context.
    """
    forms = np.empty((ends - starts).sum(), np.uint32)
    bounds = np.zeros(len(starts) + 1, np.int64)
    contextual = np.zeros(len(starts), np.bool_)
    to = 0
    for span in range(len(starts)):
        for at in range(starts[span], ends[span]):
            form = table[points[at]]
            if form == IN_CONTEXT:
                contextual[span] = True
            elif form != GONE:
                forms[to] = form
                to += 1
        bounds[span + 1] = to
    return forms[:to], bounds, contextual


@compiled
def repeated(keys: Hashes, offsets: Offsets) -> Bools:
    """Say of each hash whether its document, keys[offsets[i]:offsets[i + 1]], has it at an earlier place."""
    most = 1
    for document in range(len(offsets) - 1):
        most = max(most, offsets[document + 1] - offsets[document])
    size = 1
    while size < 2 * most:
        size *= 2
    table, owner = np.zeros(size, np.uint64), np.full(size, -1, np.int32)
    found = np.zeros(len(keys), np.bool_)
    for document in range(len(offsets) - 1):
        for at in range(offsets[document], offsets[document + 1]):
            slot = slot_of(keys[at], table, owner, document)
            found[at] = owner[slot] == document
            table[slot], owner[slot] = keys[at], document
    return found
