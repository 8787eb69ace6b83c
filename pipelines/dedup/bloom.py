"""Which 64-bit hashes were met before: kept as they are, or in a Bloom filter sized from a budget of false positives.

A Bloom filter (Bloom 1970, "Space/Time Trade-offs in Hash Coding with Allowable Errors") sets `probes` bits for each
hash; one that was never put in is taken for met where other hashes set all of its bits. With m bits for n hashes and
k = m/n ln 2 probes the rate is 2^-k: 9.6 bits a hash for 1 %, 28.8 for one in a million. This filter is blocked (Putze,
Sanders and Singler 2007, "Cache-, Hash- and Space-Efficient Bloom Filters"): the bits of a hash lie in one block of
4,096, one page of memory instead of `probes` of them, and in a filter of 1 GB a hash is put in in half the time (0.29
for 0.6 us at a rate of 1 %). Blocks fill unevenly, and `false_positive_rate` takes that into account; the price is
0.4 % more memory for a rate of 1 %, 4.5 % for one in a million.

The rate holds for a full filter: it refuses more than the number of hashes it was made for. It counts those that it did
not take for met, and so it has room for more, n / (1 - rate): that many may have come when it has counted n. Two
different things with one hash are told apart by neither kind; among n of them there are n^2 / 2^65 such pairs, 0.03 for
n = 10^9, and the budget of a filter covers them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from filters.errors import InputError, RecipeError
from filters.kernels import Hashes, compiled, mixed

Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

FORMAT = "gristmill.seen/1"
EXACT = 0
"""The `probes` of a set that holds the hashes themselves."""
WORDS_PER_BLOCK = 64
BITS_PER_BLOCK = 64 * WORDS_PER_BLOCK
PROBES_PER_DRAW = 5  # of 12 bits each, out of 64
MOST_FULL = 0.8  # of a set's places: about 13 looks for a hash that is not there, in two or three cache lines
ITEMS, REFUSED = range(2)
WORDS_AT_ONCE = 1 << 20

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
WORD_BITS, WORD_MASK, PROBE_BITS = np.uint64(6), np.uint64(63), np.uint64(12)
ZERO, ONE = np.uint64(0), np.uint64(1)


def false_positive_rate(blocks: int, probes: int, items: int) -> float:
    """The probability that a hash never put in is taken for met, in a filter that holds `items` others.

    The hashes of a block are Poisson distributed. Where it holds i, the bits set in it have the mean and variance of
    the cells that probes * i balls occupy, and the rate is the mean of (bits set / bits) ^ probes, to second order.
    """
    if items == 0:
        return 0.0
    load = items / blocks
    spread = 12 * math.sqrt(load) + 30
    held = np.arange(max(0, math.floor(load - spread)), math.ceil(load + spread) + 1, dtype=np.float64)
    first = int(held[0])
    steps = math.log(load) - np.log(np.maximum(held, 1))
    steps[0] = first * math.log(load) - load - math.lgamma(first + 1)
    chance = np.exp(np.cumsum(steps))
    clear = np.exp(probes * held * math.log1p(-1 / BITS_PER_BLOCK))
    both_clear = np.exp(probes * held * math.log1p(-2 / BITS_PER_BLOCK))
    full = 1 - clear
    variance = np.maximum(clear / BITS_PER_BLOCK + both_clear * (1 - 1 / BITS_PER_BLOCK) - clear**2, 0)
    wrong = full**probes + probes * (probes - 1) / 2 * variance * full ** max(probes - 2, 0)
    return float(min(1.0, chance @ np.minimum(wrong, 1) + items / 2**64))


def filter_size(items: int, rate: float) -> tuple[int, int]:
    """Return the fewest blocks in which `items` hashes can be counted at this rate, and the probes a hash.

    Raises RecipeError for a rate that is no probability between 0 and 1, or that hashes of 64 bits cannot keep.
    """
    if not items / 2**63 < rate < 1:
        raise RecipeError(
            f"A false-positive rate of {rate:g} among {items:,} hashes: give one below 1, and above {items / 2**63:.0e}"
            " (hashes of 64 bits allow no less); or none at all, for the hashes themselves."
        )
    came = math.ceil(items / (1 - rate))
    ideal = math.ceil(-math.log2(rate))  # in blocks that fill evenly; others want a few less
    sizes = ((fewest_blocks(came, rate, probes), probes) for probes in range(max(1, ideal - 5), ideal + 2))
    return min(sizes)


def fewest_blocks(items: int, rate: float, probes: int) -> int:
    """The fewest blocks in which `items` hashes of so many probes keep the rate."""
    low = math.floor(-items * math.log(rate) / math.log(2) ** 2 / BITS_PER_BLOCK)  # no filter can do with as few
    high = low + 1
    while false_positive_rate(high, probes, items) > rate:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if false_positive_rate(middle, probes, items) > rate else (low, middle)
    return high


def memory(items: int, rate: float | None) -> int:
    """The bytes that `items` hashes take in a filter of this false-positive rate; None: as they are."""
    return 8 * (places(items) if rate is None else filter_size(items, rate)[0] * WORDS_PER_BLOCK)


def places(items: int) -> int:
    """How many a set has for `items` hashes."""
    return math.ceil(items / MOST_FULL) + 1


@compiled
def holds(words: Hashes, probes: int, key: np.uint64) -> bool:
    """Say whether a hash was put in."""
    if probes == EXACT:
        return bool(words[place_of(words, key)])
    block = (key % np.uint64(len(words) // WORDS_PER_BLOCK)) << WORD_BITS
    state = key
    bits = ZERO
    for probe in range(probes):
        if probe % PROBES_PER_DRAW == 0:
            state += GOLDEN
            bits = mixed(state)
        if not words[block + ((bits >> WORD_BITS) & WORD_MASK)] & (ONE << (bits & WORD_MASK)):
            return False
        bits >>= PROBE_BITS
    return True


@compiled
def place_of(words: Hashes, key: np.uint64) -> np.uint64:
    """Where a hash lies in a set, or is to lie; 0 is free, and stands for no hash: 0 is kept as 1."""
    count = np.uint64(len(words))
    sought = max(key, ONE)
    place = sought % count
    while words[place] != ZERO and words[place] != sought:
        place += ONE
        if place == count:
            place = ZERO
    return place


@compiled
def insert(words: Hashes, probes: int, key: np.uint64) -> bool:
    """Put a hash in where there is room, and say whether it was there."""
    if probes == EXACT:
        place = place_of(words, key)
        known = bool(words[place])
        words[place] = max(key, ONE)
        return known
    known = True
    block = (key % np.uint64(len(words) // WORDS_PER_BLOCK)) << WORD_BITS
    state = key
    bits = ZERO
    for probe in range(probes):
        if probe % PROBES_PER_DRAW == 0:
            state += GOLDEN
            bits = mixed(state)
        word = block + ((bits >> WORD_BITS) & WORD_MASK)
        bit = ONE << (bits & WORD_MASK)
        if not words[word] & bit:
            known = False
            words[word] |= bit
        bits >>= PROBE_BITS
    return known


@compiled
def put(words: Hashes, probes: int, expected: int, counts: Counts, key: np.uint64) -> bool:
    """Put a hash in, and say whether it was there. Where there is no room it is counted as refused."""
    if counts[ITEMS] == expected:
        known = holds(words, probes, key)
        counts[REFUSED] += not known
    else:
        known = insert(words, probes, key)
        counts[ITEMS] += not known
    return known


@compiled
def held(words: Hashes, probes: int, keys: Hashes) -> Bools:
    """Say of each hash whether it was put in."""
    found = np.empty(len(keys), np.bool_)
    for at in range(len(keys)):
        found[at] = holds(words, probes, keys[at])
    return found


@compiled
def put_all(words: Hashes, probes: int, expected: int, counts: Counts, keys: Hashes) -> Bools:
    """Put the hashes in, one after another, and say of each whether it was there when its turn came."""
    found = np.empty(len(keys), np.bool_)
    for at in range(len(keys)):
        found[at] = put(words, probes, expected, counts, keys[at])
    return found


@dataclass(kw_only=True, eq=False)
class Seen:
    """The hashes met so far. One process puts them in; what it says of a hash depends on those put in before alone.

    name: what the hashes are of, for messages and so that an index is not taken for that of another method.
    rate: the false-positive rate that the filter keeps; None: `words` are the hashes themselves, in open addressing.
    counts: distinct hashes put in, and those refused. It pickles; `write` and `read` copy no filter.
    """

    name: str
    expected: int
    rate: float | None
    probes: int
    words: Hashes
    counts: Counts = field(default_factory=lambda: np.zeros(2, np.int64))

    @property
    def items(self) -> int:
        """Distinct hashes put in; of a filter, those that it did not take for met."""
        return int(self.counts[ITEMS])

    @property
    def false_positive_rate(self) -> float:
        """The probability now that a hash never put in is taken for met, counted from the bits that are set."""
        if self.probes == EXACT:
            return self.items / 2**64
        wrong = 0.0
        for first in range(0, len(self.words), WORDS_AT_ONCE):
            blocks = np.bitwise_count(self.words[first : first + WORDS_AT_ONCE]).reshape(-1, WORDS_PER_BLOCK)
            wrong += float(((blocks.sum(axis=1, dtype=np.int64) / BITS_PER_BLOCK) ** self.probes).sum())
        return wrong / (len(self.words) // WORDS_PER_BLOCK)

    def put(self, keys: Hashes) -> Bools:
        """Put the hashes in, in their order, and say of each whether it was there when its turn came.

        Raises RecipeError where they are more than it was sized for.
        """
        found = put_all(self.words, self.probes, self.expected, self.counts, keys)
        self.check()
        return found

    def holds(self, keys: Hashes) -> Bools:
        """Say of each hash whether it was put in."""
        return held(self.words, self.probes, keys)

    def check(self) -> None:
        """Raise RecipeError where hashes were refused."""
        if self.counts[REFUSED]:
            kept = "" if self.rate is None else f" at a false-positive rate of {self.rate:g}"
            raise RecipeError(
                f"{self.name}: room was made for {self.expected:,} different hashes{kept}, and at least one more came."
                " Expect more of them, or make the windows smaller."
            )

    def write(self, file: BinaryIO) -> None:
        """Write a line of JSON that says what follows, then words of 64 bits, the lowest byte first.

        A set is written in rising order, so that its bytes do not depend on the order in which hashes came; that takes
        8 bytes a hash meanwhile.
        """
        words = self.words
        if self.probes == EXACT:
            words = words[words != ZERO]
            words.sort()
        says = {"format": FORMAT, "name": self.name, "expected": self.expected, "rate": self.rate}
        says |= {"probes": self.probes, "items": self.items, "words": len(words)}
        file.write(json.dumps(says).encode() + b"\n")
        for first in range(0, len(words), WORDS_AT_ONCE):
            file.write(words[first : first + WORDS_AT_ONCE].astype("<u8", copy=False).tobytes())


def begin(name: str, expected: int, rate: float | None) -> Seen:
    """Nothing met yet, with room for `expected` different hashes. Takes `memory(expected, rate)` bytes."""
    if expected < 0:
        raise RecipeError(f"{name}: {expected} hashes cannot be expected; give 0 or more.")
    if rate is None:
        return Seen(name=name, expected=expected, rate=None, probes=EXACT, words=np.zeros(places(expected), np.uint64))
    blocks, probes = filter_size(expected, rate)
    words = np.zeros(blocks * WORDS_PER_BLOCK, np.uint64)
    return Seen(name=name, expected=expected, rate=rate, probes=probes, words=words)


def read(file: BinaryIO, name: str) -> Seen:
    """What `write` wrote. Raises InputError where that is of something else than `name`, or cut short."""
    try:
        says = json.loads(file.readline(1 << 16))
    except ValueError as error:
        raise InputError(f"This is no index of {name}: it does not begin with a line of JSON.") from error
    if not isinstance(says, dict) or says.get("format") != FORMAT or says.get("name") != name:
        raise InputError(f"This is no index of {name} in the format {FORMAT}: it begins with {says!r}.")
    words = np.empty(says["words"], "<u8")
    rest = words.view(np.uint8)
    while len(rest):
        more = np.frombuffer(file.read(min(len(rest), 8 * WORDS_AT_ONCE)), np.uint8)
        if not len(more):
            raise InputError(f"The index of {name} is cut short: {len(rest):,} of {words.nbytes:,} bytes are missing.")
        rest[: len(more)] = more
        rest = rest[len(more) :]
    native = words.astype(np.uint64, copy=False)
    if says["probes"] == EXACT:
        seen = begin(name, says["expected"], None)
        seen.put(native)
        return seen
    return Seen(
        name=name,
        expected=says["expected"],
        rate=says["rate"],
        probes=says["probes"],
        words=native,
        counts=np.array([says["items"], 0], np.int64),
    )
