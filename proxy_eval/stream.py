"""What a model reads: an arm's documents, in an order that arms over one view share, cut into sequences.

Everything is a pure function of (arm, seed, index), so that resuming, or reading on another machine, needs no state.
A source's documents stand in the order of a 64-bit hash of (key, seed, epoch), epoch after epoch, each followed by the
end token; one end token stands before all. That row is cut plainly, without a document mask as in FineWeb's ablations,
into windows of T + 1 that overlap by one: every token of a document, and its end, is a target once an epoch. An arm is
the control's order with the documents skipped that its mask removes: arms over one view are paired (common random
numbers). An arm of several sources reads each sequence from one of them.

Documents are sorted a block at a time, those that lie first in the order before the others: what the budget does not
reach is never sorted. Memory: that of the pools (24 bytes a document) and masks, and for each source 8 MB for blocks
and, while one is sorted, 40 MB. One thread uses a stream at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from filters.errors import InputError
from filters.kernels import compiled, mixed
from filters.rule import Bools, Floats
from proxy_eval.pool import Hashes, Pool
from proxy_eval.tokenizer import Ints, Tokens

MAX_EPOCHS = 4.0
"""Up to here repeated tokens are worth nearly what new ones are (Muennighoff et al. 2023, 2305.16264, abstract)."""
BLOCK = 1 << 18
"""Documents sorted at a time, about."""
SCAN = 1 << 20
"""Documents hashed at a time."""
DEALT = 1024
"""Sequences between two remembered counts of an arm's sources."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Documents of a pool, with their share of an arm's tokens: `weight` over the sum of the arm's weights.

    `mask` [n] is True for those that are read (None: all). Those in `shuffled` [n] are read with their tokens in an
    order that is random but the same in every arm, seed and epoch: planted garbage.
    """

    pool: Pool
    mask: Bools | None = None
    weight: float = 1.0
    shuffled: Bools | None = None
    name: str = ""

    def __post_init__(self) -> None:
        for values in (self.mask, self.shuffled):
            if values is not None and (values.dtype != np.bool_ or values.shape != (len(self.pool),)):
                raise ValueError(f"{values.dtype} {values.shape} is no mask of {len(self.pool):,} documents")
        if not 0 < self.weight < math.inf:
            raise InputError(f"source {self.called} has weight {self.weight}. Give a positive one, or leave it out.")

    @property
    def called(self) -> str:
        """What a person calls it: its name, else the folder of its pool."""
        return self.name or str(self.pool.folder)


@dataclass(frozen=True, kw_only=True, eq=False)
class Arm:
    """What one member of a comparison is trained on. Raises InputError where its sources have several tokenizers."""

    name: str
    sources: tuple[Source, ...]

    def __post_init__(self) -> None:
        if len({(one.pool.tokenizer.sha256, one.pool.tokenizer.end) for one in self.sources}) != 1:
            raise InputError(f"arm {self.name} needs sources of one tokenizer. Build their pools with the same one.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """The sequences of an arm for one seed; it pickles, and opens its pools anew where it arrives."""

    arm: Arm
    seed: int
    context: int

    def sequences(self, first: int, count: int) -> tuple[Ints, Ints]:
        """Tokens and targets of sequences `first` to `first + count`, int64 [count, context] each.

        The targets of a row are its tokens one further on. There is no last sequence; a budget is met by as many
        targets from the first on.
        Raises InputError where a source has no token.
        """
        before, owners = self._owners(first, count)
        tokens, targets = np.empty((2, count, self.context), np.int64)
        for source, row in enumerate(self._rows):
            if not len(mine := np.flatnonzero(owners == source)):
                continue
            span = row.read(int(before[source]) * self.context - 1, len(mine) * self.context + 1)
            tokens[mine] = span[:-1].reshape(-1, self.context)
            targets[mine] = span[1:].reshape(-1, self.context)
        return tokens, targets

    def epochs(self, tokens: int) -> float:
        """How often the source that is read most is read in the first `tokens` targets; above 1 some come again.

        Raises InputError above MAX_EPOCHS, and where a source has no token.
        """
        return max(self.source_epochs(tokens))

    def source_epochs(self, tokens: int) -> tuple[float, ...]:
        """The same of each source, in their order."""
        whole, rest = divmod(tokens, self.context)
        before, owners = self._owners(whole, 1)
        read = before * self.context
        read[owners[0]] += rest
        found = tuple(float(count / row.total) for count, row in zip(read, self._rows, strict=True))
        for epochs, row, source in zip(found, self._rows, self.arm.sources, strict=True):
            if epochs > MAX_EPOCHS:
                raise InputError(
                    f"arm {self.arm.name}: {tokens:,} tokens read source {source.called} {epochs:.2f} times, which "
                    f"has {row.total:,} (with end tokens). Above {MAX_EPOCHS:.0f} epochs a repeated token teaches too "
                    f"little. Train on {math.floor(tokens * MAX_EPOCHS / epochs):,} tokens, or take a larger pool."
                )
        return found

    def _owners(self, first: int, count: int) -> tuple[Ints, Ints]:
        """How many sequences of each source come before `first`, and the source of each of the next `count`."""
        block, skip = divmod(first, DEALT)
        while len(self._dealt) <= block:
            counts = self._dealt[-1].copy()
            _deal(self._shares, (len(self._dealt) - 1) * DEALT, counts, np.empty(DEALT, np.int64))
            self._dealt.append(counts)
        owners = np.empty(skip + count, np.int64)
        _deal(self._shares, block * DEALT, self._dealt[block].copy(), owners)
        return self._dealt[block] + np.bincount(owners[:skip], minlength=len(self._shares)), owners[skip:]

    @cached_property
    def _shares(self) -> Floats:
        weights = np.array([source.weight for source in self.arm.sources], np.float64)
        shares: Floats = weights / weights.sum()
        return shares

    @cached_property
    def _dealt(self) -> list[Ints]:
        """How many sequences of each source come before sequence k * DEALT, as far as was asked."""
        return [np.zeros(len(self.arm.sources), np.int64)]

    @cached_property
    def _rows(self) -> list[_Row]:
        return [_Row(self.arm, source, self.seed) for source in self.arm.sources]

    def __getstate__(self) -> dict[str, Any]:
        return {"arm": self.arm, "seed": self.seed, "context": self.context}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Block:
    """Documents that follow one another in an epoch: which, and where each ends, end token included, in the epoch."""

    documents: Ints
    ends: Ints


class _Row:
    """One source's tokens without end: its documents in the order of epoch 0, then in that of epoch 1, and so on.

    It remembers what was found: the bounds of each epoch's blocks, the last two blocks, the last shuffled document.
    """

    def __init__(self, arm: Arm, source: Source, seed: int) -> None:
        self._pool, self._source, self._seed = source.pool, source, seed
        self._bounds: dict[int, Ints] = {}
        self._blocks: dict[tuple[int, int], _Block] = {}
        self._shuffled: tuple[int, Tokens] | None = None
        self.total = documents = 0
        for first in range(0, len(self._pool), SCAN):
            lengths = self._lengths(first)
            self.total += int(lengths.sum())  # of one epoch, with an end token for each document
            documents += int(np.count_nonzero(lengths))
        if self.total == 0:
            raise InputError(
                f"arm {arm.name} has no token to read in {source.called}: its mask keeps none of the documents that "
                "have text. Loosen the rules, or leave the arm out."
            )
        self._bits = ((documents - 1) // BLOCK).bit_length()

    def read(self, start: int, count: int) -> Ints:
        """`count` tokens from a place on, which is at least -1: there the end token stands before the first text."""
        found = np.full(count, self._pool.tokenizer.end, np.int64)
        at, stop = max(start, 0), start + count
        while at < stop:
            epoch, within = divmod(at, self.total)
            bounds = self._epoch_bounds(epoch)
            number = int(np.searchsorted(bounds, within, side="right")) - 1
            upto = min(int(bounds[number + 1]), within + stop - at)
            offset = epoch * self.total - start
            for document, begin, end in self._documents(epoch, number, within, upto):
                first, last = max(begin, within), min(end - 1, upto)  # the end token is there already
                if first < last:
                    tokens = self._tokens(document, end - 1 - begin)
                    found[first + offset : last + offset] = tokens[first - begin : last - begin]
            at += upto - within
        return found

    def _documents(self, epoch: int, number: int, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The documents of a block with tokens in [start, stop) of the epoch: which, where it begins, where it ends."""
        block = self._block(epoch, number)
        first = int(np.searchsorted(block.ends, start, side="right"))
        last = int(np.searchsorted(block.ends, stop, side="left")) + 1
        documents = block.documents[first:last]
        ends = block.ends[first:last]
        begins = ends - self._pool.counts[documents] - 1
        return zip(documents.tolist(), begins.tolist(), ends.tolist(), strict=True)

    def _tokens(self, document: int, count: int) -> Tokens:
        """The tokens of a document, in the order in which they are read."""
        tokens = self._pool.span(int(self._pool.starts[document]), count)
        if self._source.shuffled is None or not self._source.shuffled[document]:
            return tokens
        if self._shuffled is None or self._shuffled[0] != document:
            places = np.arange(count, dtype=np.uint64) + self._pool.keys[document]
            order = np.argsort(_hashed(places, _salt("shuffled")), kind="stable")
            self._shuffled = document, tokens[order]
        return self._shuffled[1]

    def _block(self, epoch: int, number: int) -> _Block:
        """A block of an epoch: its documents in the order of their hashes, and of their numbers where these agree."""
        if (known := self._blocks.get((epoch, number))) is not None:
            return known
        documents, hashes, lengths = [], [], []
        for first, hashed, read in self._scanned(epoch):
            mine = np.flatnonzero((self._block_of(hashed) == number) & (read > 0))
            documents.append(mine + first)
            hashes.append(hashed[mine])
            lengths.append(read[mine])
        order = np.argsort(np.concatenate(hashes), kind="stable")
        ends = np.cumsum(np.concatenate(lengths)[order]) + self._epoch_bounds(epoch)[number]
        if len(self._blocks) > 1:
            self._blocks.pop(next(iter(self._blocks)))
        block = _Block(documents=np.concatenate(documents)[order], ends=ends)
        self._blocks[epoch, number] = block
        return block

    def _epoch_bounds(self, epoch: int) -> Ints:
        """Where each block begins among the tokens of an epoch, and where the last one ends."""
        if (known := self._bounds.get(epoch)) is not None:
            return known
        sizes = np.zeros(1 << self._bits, np.int64)
        for _, hashed, lengths in self._scanned(epoch):
            # In float64, exact below 2^53.
            sizes += np.bincount(self._block_of(hashed), lengths, len(sizes)).astype(np.int64)
        self._bounds[epoch] = bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        return bounds

    def _block_of(self, hashed: Hashes) -> Ints:
        """The block of each hash: its first bits."""
        return ((hashed >> np.uint64(32)) >> np.uint64(32 - self._bits)).astype(np.int64)

    def _scanned(self, epoch: int) -> Iterator[tuple[int, Hashes, Ints]]:
        """SCAN documents at a time: the first one, the hash of each in this epoch, and its length."""
        salt = _salt("order", self._seed, epoch)
        for first in range(0, len(self._pool), SCAN):
            yield first, _hashed(self._pool.keys[first : first + SCAN], salt), self._lengths(first)

    def _lengths(self, first: int) -> Ints:
        """Tokens of each of SCAN documents with its end token; 0 where it is not read."""
        lengths = self._pool.counts[first : first + SCAN]
        lengths = lengths + (lengths > 0)
        if self._source.mask is not None:
            lengths *= self._source.mask[first : first + SCAN]
        return lengths


def random_mask(pool: Pool, fraction: float, salt: str) -> Bools:
    """False for a random `fraction` of the documents, by a hash of (key, salt); a larger one removes these, too."""
    kept: Bools = (_hashed(pool.keys, _salt("placebo", salt)) >> np.uint64(11)) * 2.0**-53 >= fraction
    return kept


def _salt(*said: object) -> np.uint64:
    return np.uint64(xxhash.xxh3_64_intdigest(" ".join(map(str, said)).encode()))


@compiled
def _hashed(keys: Hashes, salt: np.uint64) -> Hashes:
    """A hash of (key, salt) for each key."""
    found = np.empty_like(keys)
    for i in range(len(keys)):
        found[i] = mixed(mixed(keys[i] ^ salt) + salt)
    return found


@compiled
def _deal(shares: npt.NDArray[np.float64], first: int, counts: Ints, owners: Ints) -> None:
    """Fill `owners` with the source of each sequence from `first` on; `counts` are those before, and then those after.

    The quota method (Balinski and Young 1975): of the sources that are below their share, the one that would first
    fall a whole sequence behind. Before any sequence i, source k was given less than one sequence more or less than
    `shares[k] * i`. The largest deficit alone goes beyond that (1.1 sequences, with six sources).
    """
    for i in range(len(owners)):
        chosen, soonest = 0, np.inf
        for k in range(len(shares)):
            due = (counts[k] + 1) / shares[k]
            if counts[k] < shares[k] * (first + i + 1) and due < soonest:
                chosen, soonest = k, due
        owners[i] = chosen
        counts[chosen] += 1
