"""Which items (documents of a panel, questions with their answers) stand in the texts that models are trained on.

Words are runs of letters and digits in lower case (`str.lower`, `str.isalnum`), so that spaces and punctuation make no
difference. An item of w words is looked up by its n-grams of n = min(13, w) words (GPT-3's 13: arXiv:2005.14165,
appendix C); of an item of fewer than `SHORTEST` words nothing is claimed, since such word sequences meet by chance.

An n-gram is 64 bits: one of a text is taken for one of an index of k distinct n-grams with probability k / 2^64, which
for 10^12 n-grams of text against 2 million of the index gives 0.1 false matches in all. Memory: 8 to 16 bytes for each
distinct n-gram of the items, 8 for each n-gram of an item, and 16 for each n-gram of the index that a document holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from filters.characters import ALNUM, point_classes
from filters.errors import InputError
from filters.kernels import BASE, ONE, compiled, mixed
from filters.tokens import code_points

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Hashes = NDArray[np.uint64]
Points = NDArray[np.uint32]
Classes = NDArray[np.uint16]

NGRAM = 13
SHORTEST = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Index:
    """The distinct n-grams of some items, sorted, and which items have them.

    starts: of keys with each value of their first bits, so that a look-up touches one or two of them.
    lengths: the n that occur. item, key: one row for each distinct n-gram of each item, as a number into `keys`.
    totals: the distinct n-grams of each item, 0 where nothing is claimed.
    """

    keys: Hashes
    starts: Ints
    lengths: Ints
    item: Ints
    key: Ints
    totals: Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """Document by document, in order, the n-grams of an index that it holds: each once, by its number in `keys`."""

    document: Ints
    key: Ints


def index_of(items: Sequence[str], *, ngram: int = NGRAM, shortest: int = SHORTEST) -> Index:
    """Return the index of the items' n-grams."""
    if not 1 <= shortest <= ngram:
        raise InputError(f"n-grams of {shortest} to {ngram} words do not exist: take 1 <= shortest <= ngram")
    words, offsets = _words(items)
    count = np.diff(offsets)
    lengths = np.where(count >= shortest, np.minimum(count, ngram), 0)
    total = np.where(lengths > 0, count - lengths + 1, 0)
    hashes, item = _item_ngrams(words, offsets, lengths, total), np.repeat(np.arange(len(items)), total)
    keys, key = np.unique(hashes, return_inverse=True)
    pairs = np.unique(np.stack([item, key], axis=1), axis=0)
    bits = max(1, int(len(keys)).bit_length())
    bounds = np.arange(2**bits, dtype=np.uint64) << np.uint64(64 - bits)
    return Index(
        keys=keys,
        starts=np.append(np.searchsorted(keys, bounds), len(keys)),
        lengths=np.unique(lengths[lengths > 0]),
        item=pairs[:, 0],
        key=pairs[:, 1],
        totals=np.bincount(pairs[:, 0], minlength=len(items)),
    )


def matches_of(index: Index, texts: Sequence[str], first: int = 0) -> Matches:
    """Return which n-grams of the index each text holds; the texts are documents `first`, `first` + 1 and so on."""
    words, offsets = _words(texts)
    if len(index.keys) == 0 or len(words) == 0:
        return merged([])
    shift = np.uint64(64 - (len(index.starts) - 2).bit_length())
    document, key = _held(words, offsets, index.lengths, index.keys, index.starts, shift)
    pairs = np.unique(np.stack([document, key], axis=1), axis=0)
    return Matches(document=pairs[:, 0] + first, key=pairs[:, 1])


def merged(matches: Sequence[Matches]) -> Matches:
    """Return the matches of all texts; their documents ascend from one to the next."""
    none = np.zeros(0, np.int64)
    return Matches(
        document=np.concatenate([none, *(found.document for found in matches)]),
        key=np.concatenate([none, *(found.key for found in matches)]),
    )


def found_ngrams(index: Index, matches: Matches) -> Ints:
    """Return of each item how many of its distinct n-grams some document holds."""
    held = np.zeros(len(index.keys), np.bool_)
    held[matches.key] = True
    return np.bincount(index.item[held[index.key]], minlength=len(index.totals))


def found_shares(index: Index, matches: Matches) -> Floats:
    """Return of each item the share of its n-grams that some document holds; 0 where nothing is claimed."""
    return found_ngrams(index, matches) / np.maximum(index.totals, 1)


def sources_of(index: Index, matches: Matches) -> tuple[Ints, Ints, Ints]:
    """Return (item, document, n-grams of the item that the document holds), sorted by item, then document."""
    order = np.argsort(index.key, kind="stable")
    by_key, items = index.key[order], index.item[order]
    low, high = np.searchsorted(by_key, matches.key), np.searchsorted(by_key, matches.key, "right")
    counts = high - low
    at = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - low, counts)
    pairs = np.stack([items[at], np.repeat(matches.document, counts)], axis=1)
    pairs, held = np.unique(pairs, axis=0, return_counts=True)
    return pairs[:, 0], pairs[:, 1], held


def clean_documents(index: Index, matches: Matches, documents: int, *, overlap: float = 0.0) -> Bools:
    """Return which of so many documents hold no more than `overlap` of the n-grams of any item: the mask of an arm."""
    item, document, held = sources_of(index, matches)
    clean = np.ones(documents, np.bool_)
    clean[document[held / index.totals[item] > overlap]] = False
    return clean


def _words(texts: Sequence[str]) -> tuple[Hashes, Ints]:
    """Return the hashes of the words of all texts, one after another, and where each text's begin."""
    points, offsets = code_points([text.lower() for text in texts])
    return _word_hashes(points, offsets, point_classes())


@compiled
def _word_hashes(points: Points, offsets: Ints, classes: Classes) -> tuple[Hashes, Ints]:
    found = np.empty((len(points) + len(offsets)) // 2 + 1, np.uint64)
    bounds = np.zeros(len(offsets), np.int64)
    count = 0
    for text in range(len(offsets) - 1):
        value, length = np.uint64(0), 0
        for at in range(offsets[text], offsets[text + 1]):
            if classes[points[at]] & ALNUM:
                value = value * BASE + np.uint64(points[at])
                length += 1
            elif length:
                found[count] = mixed(value + np.uint64(length))
                count += 1
                value, length = np.uint64(0), 0
        if length:
            found[count] = mixed(value + np.uint64(length))
            count += 1
        bounds[text + 1] = count
    return found[:count].copy(), bounds


@compiled
def _item_ngrams(words: Hashes, offsets: Ints, lengths: Ints, totals: Ints) -> Hashes:
    """The n-grams of every item, one after another; lengths[i] words each, totals[i] of them."""
    found = np.empty(totals.sum(), np.uint64)
    count = 0
    for item in range(len(lengths)):
        for start in range(offsets[item], offsets[item] + totals[item]):
            value = np.uint64(0)
            for at in range(start, start + lengths[item]):
                value = value * BASE + words[at]
            found[count] = mixed(value + np.uint64(lengths[item]))
            count += 1
    return found


@compiled
def _held(
    words: Hashes, offsets: Ints, lengths: Ints, keys: Hashes, starts: Ints, shift: np.uint64
) -> tuple[Ints, Ints]:
    """Every place of a text at which an n-gram of the index begins: (text, number of the n-gram)."""
    document, number = np.empty(64, np.int64), np.empty(64, np.int64)
    found = 0
    for text in range(len(offsets) - 1):
        for start in range(offsets[text], offsets[text + 1]):
            value, at = np.uint64(0), start
            for length in lengths:
                if start + length > offsets[text + 1]:
                    break
                while at < start + length:
                    value = value * BASE + words[at]
                    at += 1
                key = mixed(value + np.uint64(length))
                bucket = key >> shift
                for place in range(starts[bucket], starts[bucket + ONE]):
                    if keys[place] != key:
                        continue
                    if found == len(number):
                        document, number = _doubled(document), _doubled(number)
                    document[found], number[found] = text, place
                    found += 1
    return document[:found], number[:found]


@compiled
def _doubled(values: Ints) -> Ints:
    larger = np.empty(2 * len(values), np.int64)
    larger[: len(values)] = values
    return larger
