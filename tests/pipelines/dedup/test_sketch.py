"""Matches of sketches give similarity with the error that is stated, and decide by integers alone."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dedup import candidates, sketch

BANDS, ROWS = 14, 8
SIZE = BANDS * ROWS


def planted(rng: np.random.Generator, similarity: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    """Signatures of documents 2k and 2k + 1 whose minima agree each with chance similarity[k]: (2 * pairs, SIZE)."""
    minima = rng.integers(0, (1 << 61) - 1, (len(similarity), 2, SIZE), dtype=np.uint64)
    equal = rng.random((len(similarity), SIZE)) < similarity[:, None]
    minima[:, 1][equal] = minima[:, 0][equal]
    return minima.reshape(-1, SIZE)


def sketched(minima: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint16]:
    return minima.astype(np.uint16)


def test_matches_are_the_places_that_agree() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 3, (50, 21), dtype=np.uint16), rng.integers(0, 3, (40, 21), dtype=np.uint16)
    first, second = rng.integers(0, 50, 500), rng.integers(0, 40, 500)
    expected = [(left[one] == right[other]).sum() for one, other in zip(first, second, strict=True)]
    assert sketch.matching(left, right, first, second).tolist() == expected
    assert sketch.matching(left, left, first, first).tolist() == [21] * 500
    assert sketch.matching(left, right, first[:0], second[:0]).tolist() == []


def test_a_pair_that_names_no_sketch_is_refused() -> None:
    sketches = np.zeros((3, 4), np.uint16)
    for first, second in (([3], [0]), ([0], [-1])):
        with pytest.raises(ValueError, match="of 3 sketches"):
            sketch.matching(sketches, sketches, np.array(first), np.array(second))
    with pytest.raises(ValueError, match="shapes differ"):
        sketch.matching(sketches, sketches, np.array([0]), np.array([0, 1]))
    with pytest.raises(ValueError, match="shapes differ"):
        sketch.matching(sketches, np.zeros((3, 5), np.uint16), np.array([0]), np.array([0]))
    with pytest.raises(ValueError, match="at most 65,535"):
        sketch.matching(np.zeros((1, 1 << 16), np.uint16), np.zeros((1, 1 << 16), np.uint16), *[np.array([0])] * 2)


@given(st.floats(1e-6, 1), st.integers(1, 9000))
def test_least_matches_is_where_the_estimate_reaches_the_threshold(threshold: float, size: int) -> None:
    least = sketch.least_matches(threshold, size)
    below, at = sketch.estimate(np.array([least - 1, least]), size)
    assert below < threshold + 1e-12
    assert at > threshold - 1e-12
    assert 1 <= least <= size


def test_a_threshold_that_is_no_similarity_is_refused() -> None:
    for threshold in (0.0, -0.1, 1.1):
        with pytest.raises(ValueError, match="threshold"):
            sketch.least_matches(threshold, 112)


@pytest.mark.parametrize("similarity", [0.0, 0.3, 0.75, 0.95])
def test_estimates_are_unbiased_with_the_stated_error(similarity: float) -> None:
    pairs = 20_000
    sketches = sketched(planted(np.random.default_rng(7), np.full(pairs, similarity)))
    evens = np.arange(0, 2 * pairs, 2)
    estimates = sketch.estimate(sketch.matching(sketches, sketches, evens, evens + 1), SIZE)
    error = float(sketch.standard_error(similarity, SIZE))
    assert abs(estimates.mean() - similarity) < 4 * error / pairs**0.5
    assert estimates.std() == pytest.approx(error, rel=0.1 if similarity == 0 else 0.03)


def test_eight_bits_would_be_seen() -> None:
    """A sketch of fewer bits agrees by chance 256 times as often: the test above can fail."""
    pairs = 20_000
    sketches = sketched(planted(np.random.default_rng(7), np.zeros(pairs))) & np.uint16(255)
    evens = np.arange(0, 2 * pairs, 2)
    estimates = sketch.estimate(sketch.matching(sketches, sketches, evens, evens + 1), SIZE)
    assert abs(estimates.mean()) > 10 * float(sketch.standard_error(0, SIZE)) / pairs**0.5


def test_the_chance_of_verification_is_the_binomial_one() -> None:
    chance = 0.6 + 0.4 * 2**-16
    least = sketch.least_matches(0.5, 20)
    exact = sum(comb(20, k) * chance**k * (1 - chance) ** (20 - k) for k in range(least, 21))
    assert sketch.verified_chance(0.6, threshold=0.5, size=20) == pytest.approx(exact, rel=1e-12)
    assert sketch.verified_chance(1.0, threshold=1.0, size=20) == 1


@pytest.mark.parametrize("similarity", [0.0, 0.4, 0.9, 1.0])
@pytest.mark.parametrize("threshold", [0.3, 0.7, 1.0])
def test_the_chance_of_an_edge_is_that_of_all_outcomes_counted(similarity: float, threshold: float) -> None:
    """Each minimum is shared, or its sketch agrees by chance, or not: all 3^6 outcomes of two bands of three."""
    weights = {"shared": similarity, "chance": (1 - similarity) * 2**-16, "none": (1 - similarity) * (1 - 2**-16)}
    least = sketch.least_matches(threshold, 6)
    exact = 0.0
    for outcome in product(weights, repeat=6):
        bucket = outcome[:3] == ("shared",) * 3 or outcome[3:] == ("shared",) * 3
        if bucket and 6 - outcome.count("none") >= least:
            exact += float(np.prod([weights[one] for one in outcome]))
    assert sketch.edge_chance(similarity, threshold=threshold, bands=2, rows=3) == pytest.approx(exact, abs=1e-12)


def verified(minima: npt.NDArray[np.uint64], threshold: float) -> npt.NDArray[np.int64]:
    """The planted pairs k that share a bucket and are estimated at the threshold or above."""
    bands = minima.reshape(len(minima), BANDS, ROWS)
    hashes = (bands * np.arange(3, 3 + 2 * SIZE, 2, dtype=np.uint64).reshape(BANDS, ROWS)).sum(-1, dtype=np.uint64)
    documents = np.repeat(np.arange(len(minima)), BANDS)
    found = candidates.candidate_pairs(hashes.ravel(), documents, np.zeros(len(documents), np.uint64))
    sketches = sketched(minima)
    matches = sketch.matching(sketches, sketches, found.first, found.second)
    return found.first[matches >= sketch.least_matches(threshold, SIZE)] // 2


@pytest.mark.parametrize("threshold", [0.6, 0.75, 0.8])
def test_precision_and_recall_after_verification_are_the_stated_ones(threshold: float) -> None:
    rng = np.random.default_rng(11)
    similarities = np.repeat(np.arange(0.5, 1, 0.05).round(2), 4_000)
    edges = similarities[verified(planted(rng, similarities), threshold)]
    precision = sketch.expected_precision(similarities, threshold=threshold, bands=BANDS, rows=ROWS)
    deviation = (precision * (1 - precision) / len(edges)) ** 0.5
    assert abs((edges >= threshold).mean() - precision) < 4 * deviation
    for similarity in np.unique(similarities).tolist():
        chance = sketch.edge_chance(similarity, threshold=threshold, bands=BANDS, rows=ROWS)
        deviation = max(1e-3, (chance * (1 - chance) / 4_000) ** 0.5)
        assert abs((edges == similarity).sum() / 4_000 - chance) < 4 * deviation


def test_no_edge_has_no_precision() -> None:
    assert np.isnan(sketch.expected_precision(np.zeros(5), threshold=0.8, bands=BANDS, rows=ROWS))
