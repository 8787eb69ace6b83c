"""How similar two documents are by their sketches, and how far to trust it.

A sketch is the low 16 bits of each of a signature's K minima: uint16, shape (n, K). Two minima agree with the Jaccard
similarity s of the two shingle sets as probability, two sketch values with s + (1 - s) / 2^16. The decision on a pair
is a comparison of integers, `matches >= least_matches(threshold, K)`: the same on every machine.
Estimator and error are those of b-bit minwise hashing with b = 16 (Li and König, "b-Bit Minwise Hashing", WWW 2010,
Theorem 1 and the variance below it, for sets that are small beside the universe).
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pipelines.dedup import kernels_clusters as kernels

Documents = npt.NDArray[np.int64]
Sketches = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float64]

BY_CHANCE = 2.0**-16
"""How often sketch values agree whose minima do not."""


def matching(left: Sketches, right: Sketches, first: Documents, second: Documents) -> Sketches:
    """In how many places row first[k] of `left` equals row second[k] of `right`, shape (pairs,).

    For pairs within one table give it twice. Takes about 40 ns a pair at K = 112 where rows are in cache.
    """
    for rows, table in ((first, left), (second, right)):
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(table):
            raise ValueError(f"pairs name rows {rows.min()} to {rows.max()} of {len(table)} sketches")
    if left.shape[1:] != right.shape[1:] or len(first) != len(second):
        raise ValueError(f"shapes differ: sketches {left.shape}, {right.shape}; pairs {first.shape}, {second.shape}")
    if left.shape[1] >= 1 << 16:
        raise ValueError(f"sketches of {left.shape[1]} values: at most 65,535, so that a match count is a uint16")
    matches = np.empty(len(first), np.uint16)
    kernels.agreeing(left, right, first, second, matches)
    return matches


def estimate(matches: npt.NDArray[np.integer], size: int) -> Floats:
    """The unbiased estimate of Jaccard similarity from matches among `size` sketch values; just below 0 at no match."""
    return (matches / size - BY_CHANCE) / (1 - BY_CHANCE)


def standard_error(similarity: npt.ArrayLike, size: int) -> Floats:
    """Of the estimate for a pair of this similarity; about sqrt(s (1 - s) / K): 0.041 at s = .75 and K = 112."""
    agreeing = _agreement(np.asarray(similarity, np.float64))
    return np.sqrt(agreeing * (1 - agreeing) / size) / (1 - BY_CHANCE)


def least_matches(threshold: float, size: int) -> int:
    """The least number of matches among `size` whose estimate is at least `threshold`, which is above 0."""
    if not 0 < threshold <= 1:
        raise ValueError(f"a threshold of {threshold}: above 0 and at most 1")
    by_chance = Fraction(BY_CHANCE)
    return math.ceil(size * (Fraction(threshold) * (1 - by_chance) + by_chance))


def candidate_chance(similarity: npt.ArrayLike, *, bands: int, rows: int) -> Floats:
    """The chance that a pair of this similarity shares a bucket: 1 - (1 - s^rows)^bands (Leskovec, Rajaraman, Ullman,
    Mining of Massive Datasets, §3.4.2).
    """
    found: Floats = 1 - (1 - np.asarray(similarity, np.float64) ** rows) ** bands
    return found


def verified_chance(similarity: float, *, threshold: float, size: int) -> float:
    """The chance that the estimate of a pair of this similarity is at least `threshold`, before any banding."""
    counts = _binomial(size, float(_agreement(np.float64(similarity))))
    return float(counts[least_matches(threshold, size) :].sum())


def edge_chance(similarity: float, *, threshold: float, bands: int, rows: int) -> float:
    """The chance that a pair of this similarity shares a bucket *and* is estimated at `threshold` or above.

    The two are not independent: bands and sketch are cut from the same minima, so a candidate has one whole band of
    matches at least. Exact: the chance of enough matches, less that of enough matches with no band whole.
    """
    whole = np.zeros(rows + 1)
    whole[rows] = similarity**rows
    not_whole = _binomial(rows, float(_agreement(np.float64(similarity)))) - whole
    counts = np.ones(1)
    for _ in range(bands):
        counts = np.convolve(counts, not_whole)
    enough = least_matches(threshold, bands * rows)
    alone = verified_chance(similarity, threshold=threshold, size=bands * rows)
    return max(0.0, alone - float(counts[enough:].sum()))


def expected_precision(similarities: Floats, *, threshold: float, bands: int, rows: int) -> float:
    """Of the edges that pairs of these true similarities give, the share expected to be at `threshold` or above.

    NaN where no edge is expected. It depends on the pairs there are: errors lie within about two standard errors below
    the threshold, so what counts is how many pairs do.
    """
    levels, counts = np.unique(similarities, return_counts=True)
    edges = counts * [edge_chance(level, threshold=threshold, bands=bands, rows=rows) for level in levels.tolist()]
    return float(edges[levels >= threshold].sum() / edges.sum()) if edges.sum() else math.nan


def _agreement(similarity: Floats | np.float64) -> Floats:
    """The chance that two sketch values are equal."""
    return np.asarray(similarity + (1 - similarity) * BY_CHANCE)


def _binomial(size: int, chance: float) -> Floats:
    """The chances of 0 to `size` successes in as many trials."""
    if chance >= 1:
        return np.concatenate((np.zeros(size), np.ones(1)))
    logs = np.concatenate((np.zeros(1), np.cumsum(np.log(np.arange(1, size + 1)))))
    k = np.arange(size + 1)
    chances: Floats = np.exp(
        logs[size] - logs[k] - logs[size - k] + k * math.log(chance) + (size - k) * math.log1p(-chance)
    )
    return chances
