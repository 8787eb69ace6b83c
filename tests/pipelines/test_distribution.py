"""Distributions of signals: shares removed by a bound, curves, and bounds that a better corpus proposes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from filters.gopher import WORDS_SIGNALS
from filters.rule import Paper, Rule
from pipelines.distribution import Sample, distance, histogram, proposals, retention, sample_of

NUMBERS = st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=60)


def sample(values: list[float], weights: list[float] | None = None) -> Sample:
    numbers = np.array(values, np.float64)
    return sample_of(numbers, np.zeros(len(values), np.bool_), np.array(weights or [1.0] * len(values)))


def test_undefined_and_missing_values_are_counted_apart() -> None:
    found = sample_of(
        np.array([3.0, np.nan, 1.0, np.nan]), np.array([False, True, False, False]), np.array([5.0, 9.0, 7.0, 9.0])
    )
    assert (found.values.tolist(), found.weights.tolist()) == ([1.0, 3.0], [7.0, 5.0])
    assert (found.undefined, found.missing) == (1, 1)


@settings(deadline=None)
@given(NUMBERS, st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_what_bounds_remove_is_what_a_rule_with_them_fails(values: list[float], low: float, high: float) -> None:
    rule = Rule(name="r", signal=WORDS_SIGNALS["words"], low=low, high=high, paper=Paper(title="", url="", where=""))
    found = sample(values)
    removed, weight = found.removed(low=low, high=high)
    failed = (~rule.passes(found.values)).sum()
    assert removed == pytest.approx(failed / found.count if found.count else 0.0)
    assert weight == pytest.approx(removed)


@settings(deadline=None)
@given(NUMBERS)
def test_a_retention_curve_says_at_each_point_what_a_bound_there_keeps(values: list[float]) -> None:
    found = sample(values)
    curve = retention(found)
    for at, smaller, upto in zip(curve.at, curve.smaller, curve.not_larger, strict=True):
        assert smaller == pytest.approx((found.values < at).mean())
        assert upto == pytest.approx((found.values <= at).mean())
    assert (np.diff(curve.smaller) >= 0).all()
    assert (np.diff(curve.not_larger_weight) >= 0).all()


@settings(deadline=None)
@given(NUMBERS)
@example([0.0, 5e-324])
@example([1e6, np.nextafter(1e6, 2e6)])
@example([1e17])
def test_a_histogram_holds_every_value_once(values: list[float]) -> None:
    found = sample(values)
    if found.count:
        shown = histogram([found])
        assert shown.shares[0].sum() == pytest.approx(1)
        assert (np.diff(shown.edges) > 0).all()


def test_a_count_with_a_long_tail_has_logarithmic_bins() -> None:
    assert histogram([sample([float(10**k) for k in range(6)])]).log
    assert not histogram([sample(list(map(float, range(100))))]).log


def test_the_distance_is_zero_for_equal_corpora_and_in_standard_deviations() -> None:
    assert distance(sample([1.0, 2.0, 3.0]), sample([3.0, 1.0, 2.0])) == 0
    apart = distance(sample([0.0] * 50), sample([1.0] * 50))
    assert apart == pytest.approx(1 / 0.5)  # the means are 1 apart, and both together have deviation 0.5
    assert distance(sample([2.0]), sample([2.0])) == 0


def test_a_planted_excess_is_cut_where_it_ends_and_the_right_side() -> None:
    rng = np.random.default_rng(0)
    good = rng.uniform(0.4, 1.0, 40_000)
    junk = rng.uniform(0.0, 0.3, 10_000)  # a fifth of the pool lies where the reference has nothing
    pool, reference = sample([*rng.uniform(0.4, 1.0, 40_000), *junk]), sample([*good])
    (found,) = proposals(pool, reference, worth=2.0, tests=50)
    assert found.side == "low"
    assert 0.29 < found.bound <= 0.41
    assert found.pool == pytest.approx(0.2, abs=0.01)
    assert found.reference == pytest.approx(0.0, abs=0.01)
    mirrored = proposals(sample([*-pool.values]), sample([*-reference.values]), worth=2.0, tests=50)
    assert [(one.side, one.bound) for one in mirrored] == [("high", -found.bound)]


def test_two_draws_from_one_corpus_propose_nothing() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        assert proposals(sample([*rng.normal(size=3000)]), sample([*rng.normal(size=3000)]), worth=1.0, tests=1) == []


def test_a_reference_document_is_worth_what_is_asked() -> None:
    rng = np.random.default_rng(2)
    pool = sample([*rng.uniform(0, 1, 30_000), *rng.uniform(0, 0.5, 30_000)])  # below 0.5 three to one
    reference = sample([*rng.uniform(0, 1, 30_000)])
    (cheap,) = proposals(pool, reference, worth=1.2, tests=1)
    assert cheap.side == "low"
    assert cheap.bound == pytest.approx(0.5, abs=0.02)
    assert proposals(pool, reference, worth=2.0, tests=1) == []
