"""Intervals, tests, ranks and shrinkage are what their sources say they are."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, special, stats

from proxy_eval.confidence import (
    best_share,
    critical,
    equivalence,
    false_discovery_rates,
    fixed_interval,
    item_draws,
    item_error,
    p_values,
    percentiles,
    planned_mixture,
    seed_draws,
    sequence,
    shrunk,
    wider,
)
from proxy_eval.effects import Effects, Interval, paired_effects
from proxy_eval.noise_bank import UNKNOWN, Variance

Floats = NDArray[np.float64]


def effects_of(estimate: float, unscaled: float) -> Effects:
    return Effects(estimate=np.array([estimate]), unscaled=np.array([unscaled]), own=UNKNOWN, others=UNKNOWN)


def noise_of(value: float, df: float) -> Variance:
    return Variance(value=np.array([value]), df=np.array([df]))


def martingale(t: float, df: float, share: float) -> float:
    return float(np.sqrt(share) * ((1 + t**2 / df) / (1 + share * t**2 / df)) ** ((df + 1) / 2))


@pytest.mark.parametrize(("t", "df", "share"), [(0.0, 3, 0.2), (2.0, 5, 0.1), (4.0, 12, 0.05), (-3.0, 8, 0.5)])
def test_the_martingale_is_the_likelihood_ratio_of_the_t_statistic_under_the_mixture(
    t: float, df: float, share: float
) -> None:
    prior = stats.norm(scale=np.sqrt((1 - share) / share))
    mixed, _ = integrate.quad(lambda shift: float(stats.nct.pdf(t, df, shift) * prior.pdf(shift)), -25, 25, limit=200)
    assert martingale(t, df, share) == pytest.approx(mixed / float(stats.t.pdf(t, df)), rel=1e-4)


@pytest.mark.parametrize(("level", "df", "share"), [(0.05, 4.0, 0.05), (0.003, 12.0, 0.02), (0.003, 1e6, 0.07)])
def test_the_critical_value_is_where_the_martingale_reaches_the_level(level: float, df: float, share: float) -> None:
    t = float(critical(level, np.asarray(df), np.asarray(share)))
    assert martingale(t, df, share) == pytest.approx(1 / level, rel=1e-4)


def test_too_few_degrees_of_freedom_bound_nothing() -> None:
    found = critical(0.003, np.array([0.0, 1.0, 20.0]), np.full(3, 0.3))
    assert np.isfinite(found).tolist() == [False, False, True]


@pytest.mark.parametrize("level", [0.05, 0.003])
def test_with_known_variance_the_sequence_is_the_normal_mixture_of_the_literature(level: float) -> None:
    """Howard et al. 2021: 1 / r = -W_{-1}(-level^2 / e), where the radius is the root of 1 / r."""
    best = -special.lambertw(-(level**2) / np.e, -1).real
    share = best_share(level, 1e9)
    assert 1 / share == pytest.approx(best, rel=0.02)
    assert critical(level, np.asarray(1e9), np.asarray(share)) == pytest.approx(np.sqrt(best), rel=1e-3)


def test_the_mixture_is_narrowest_at_the_look_it_was_planned_for() -> None:
    planned, df = 0.2, 10.0
    widths = {
        scale: float(critical(0.01, np.asarray(df), np.asarray(planned / (planned + mixture.variance * scale))))
        for mixture in [planned_mixture(0.01, unscaled=planned, df=df)]
        for scale in (0.3, 0.8, 1.0, 1.25, 3.0)
    }
    assert min(widths, key=lambda scale: widths[scale]) == 1.0


def test_the_martingale_keeps_its_mean_from_look_to_look_when_variances_are_pooled() -> None:
    """Three arms of one variance in pairs, looked at after 3 and 6 seeds: E[M] = 1 where there is no effect."""
    generator, arms = np.random.default_rng(4), 3
    values, control = generator.standard_normal((40_000, arms, 6)), generator.standard_normal((40_000, 6))
    for seeds in (3, 6):
        y = np.concatenate([values, control[:, None]], axis=1)[..., :seeds]
        residual = y - y.mean(axis=2, keepdims=True) - (y - y.mean(axis=2, keepdims=True)).mean(axis=1, keepdims=True)
        df = arms * (seeds - 1)
        error = np.sqrt(2 * (residual**2).sum(axis=(1, 2)) / df / seeds)
        t = paired_effects(y[:, :1], y[:, -1]).estimate[:, 0] / error
        share = (1 / seeds) / (1 / seeds + 0.5)
        means = np.sqrt(share) * ((1 + t**2 / df) / (1 + share * t**2 / df)) ** ((df + 1) / 2)
        assert means.mean() == pytest.approx(1.0, abs=5 * means.std() / 200)


def test_a_sequence_is_wider_than_a_fixed_interval_and_narrows_with_data() -> None:
    mixture = planned_mixture(0.05, unscaled=0.2, df=10.0)
    looks = [sequence(effects_of(1.0, 1 / n), noise_of(1.0, 4.0 + n), mixture) for n in range(1, 30)]
    fixed = [fixed_interval(effects_of(1.0, 1 / n), noise_of(1.0, 4.0 + n), 0.05) for n in range(1, 30)]
    widths = np.array([(look.high - look.low)[0] for look in looks])
    assert (np.diff(widths) < 0).all()
    assert (widths > [(look.high - look.low)[0] for look in fixed]).all()


def test_nothing_is_bounded_before_the_noise_is_known() -> None:
    mixture = planned_mixture(0.05, unscaled=0.2, df=10.0)
    for effects, noise in (
        (effects_of(1.0, 1.0), noise_of(0.0, 0.0)),
        (effects_of(np.nan, np.inf), noise_of(1.0, 9.0)),
    ):
        for interval in (sequence(effects, noise, mixture), fixed_interval(effects, noise, 0.05)):
            assert (interval.low[0], interval.high[0]) == (-np.inf, np.inf)


def test_a_fixed_interval_and_the_p_value_are_those_of_the_t_test() -> None:
    generator = np.random.default_rng(5)
    values, control = generator.standard_normal((1, 6)) + 1, generator.standard_normal(6)
    effects = paired_effects(values, control)
    test = stats.ttest_rel(values[0], control)
    expected = test.confidence_interval(0.95)
    interval = fixed_interval(effects, effects.own, 0.05)
    assert (interval.low[0], interval.high[0]) == pytest.approx((expected.low, expected.high))
    assert p_values(effects, effects.own)[0] == pytest.approx(test.pvalue)


def test_equivalence_is_shown_where_the_90_percent_interval_lies_inside() -> None:
    effects, noise = effects_of(0.2, 0.1), noise_of(1.0, 8.0)
    inner = fixed_interval(effects, noise, 0.10)
    for margin in (0.9, 1.1):
        bounds = 0.2 - margin * (0.2 - inner.low), 0.2 + margin * (inner.high - 0.2)
        assert (equivalence(effects, noise, *bounds)[0] < 0.05) == (margin > 1)


def test_false_discovery_rates_are_those_of_the_paper() -> None:
    """Benjamini & Hochberg 1995, section 3.1: 15 comparisons, of which four are found at 0.05."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
    p += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000]
    assert (false_discovery_rates(np.array(p)) <= 0.05).sum() == 4


def test_shrinkage_takes_back_what_choosing_the_best_adds() -> None:
    generator = np.random.default_rng(6)
    bias, errors = {"raw": 0.0, "shrunk": 0.0}, {"raw": 0.0, "shrunk": 0.0}
    for _ in range(500):
        truth, error = 0.7 * generator.standard_normal(12), generator.uniform(0.5, 1.5, 12)
        raw = truth + error * generator.standard_normal(12)
        for name, estimate in (("raw", raw), ("shrunk", shrunk(raw, error))):
            best = int(estimate.argmax())
            bias[name] += float(estimate[best] - truth[best]) / 500
            errors[name] += float(((estimate - truth) ** 2).mean()) / 500
    assert abs(bias["shrunk"]) < 0.25 * bias["raw"]
    assert errors["shrunk"] < 0.6 * errors["raw"]


def test_shrinkage_leaves_what_it_knows_nothing_of() -> None:
    assert shrunk(np.array([1.0, 2.0, 3.0]), np.ones(3)) == pytest.approx([1, 2, 3])
    found = shrunk(np.array([1.0, np.nan, 2.0, 3.0, 50.0]), np.array([1.0, np.inf, 1.0, 1.0, 1.0]))
    assert np.isnan(found[1]) and found[4] < 50
    assert shrunk(np.array([5.0, 5.0, 5.0, 5.0]), np.ones(4)) == pytest.approx([5, 5, 5, 5])


def drawn(
    scores: Floats, group: NDArray[np.int64] | None = None, *, control: int = 0, draws: int = 4000
) -> tuple[Floats, Interval]:
    """Draws and 95 % interval of the mean over runs, less that of the last `control` runs."""
    generator = np.random.default_rng(1)
    runs = scores.shape[1]
    weights = seed_draws(runs - control, generator, draws)
    if control:
        weights = np.hstack([weights, -seed_draws(control, generator, draws)])
    found = item_draws(scores, weights, group, generator)
    return found, percentiles(found, 0.05)


def half(interval: Interval) -> Floats:
    return (interval.high - interval.low) / 2


def test_the_bootstrap_has_the_standard_error_of_seeds_and_items() -> None:
    generator = np.random.default_rng(7)
    seeds, items = 10, 400
    task = 0.3 * generator.standard_normal((seeds, 1)) + generator.standard_normal((1, items))
    draws, found = drawn(np.stack([task, 2 * task]))
    error = np.sqrt(task.mean(axis=1).var() / seeds + task.mean(axis=0).var() / items)
    assert half(found) == pytest.approx([1.96 * error, 3.92 * error], rel=0.1)
    assert (found.low < found.estimate).all() and (found.estimate < found.high).all()
    assert draws.mean(axis=1) == pytest.approx([task.mean(), 2 * task.mean()], abs=error / 10)
    assert (drawn(np.stack([task, 2 * task]))[0] == draws).all()


def test_what_is_hard_for_all_runs_cancels_in_a_difference() -> None:
    """Three runs of an arm and five of its control, which need not share seeds: the items are the same."""
    generator = np.random.default_rng(9)
    noise = 0.1 * generator.standard_normal((1, 8, 300))
    hard = 50 * generator.standard_normal(300)
    alike, without = (drawn(noise + each, control=5)[1] for each in (hard, 0.0))
    assert half(alike) == pytest.approx(half(without), rel=0.01)
    assert half(drawn(noise + hard)[1]) > 50 * half(alike)


def test_items_of_a_group_are_drawn_together() -> None:
    generator = np.random.default_rng(8)
    group = generator.permutation(np.repeat(np.arange(20), 30))
    task = generator.standard_normal(20)[group][None, None].repeat(2, axis=1)
    alone, together = (drawn(task, each)[1] for each in (None, group))
    assert half(together) > 3 * half(alone)
    assert half(together) == pytest.approx(1.96 * task[0, 0].std() / np.sqrt(20), rel=0.15)


def test_an_item_that_lacks_a_metric_is_none_of_it() -> None:
    task = np.arange(2.0 * 40).reshape(1, 2, 40)
    lacking = np.concatenate([task, np.full((1, 2, 40), np.nan)], axis=2)
    assert drawn(np.concatenate([lacking, lacking]))[1].low == pytest.approx(drawn(task)[1].low[0], rel=0.2)
    nobody = drawn(np.full((1, 2, 5), np.nan))[0]
    assert np.isnan(nobody).all()


def test_the_wider_of_two_intervals_holds_both() -> None:
    first = Interval(estimate=np.array(1.0), low=np.array(0.0), high=np.array(2.0))
    second = Interval(estimate=np.array(1.1), low=np.array(0.5), high=np.array(3.0))
    assert (wider(first, second).low, wider(first, second).high) == (0.0, 3.0)


def test_item_standard_errors_of_finewebs_eight_tasks() -> None:
    """0.52 points a model, 0.74 a difference over different items, 0.33-0.52 over the same at correlations of 0.8-0.5.

    At most 1,000 items of a task, as FineWeb's `max_samples`, and accuracies that are usual for 1.7 B after 28 B
    tokens; MMLU's subjects have 246 items on average.
    """
    accuracies = [0.35, 0.43, 0.33, 0.72, 0.41, 0.53, (0.58, 0.31), (0.30,) * 57]
    items = [1000, 1000, 500, 1000, 1000, 1000, (1000, 1000), (246,) * 57]
    a, n = [np.atleast_1d(each).astype(float) for each in accuracies], [np.atleast_1d(each) for each in items]
    assert 100 * item_error(a, n) == pytest.approx(0.52, abs=0.01)
    assert 100 * item_error(a, n, correlation=0.0) == pytest.approx(0.74, abs=0.01)
    assert 100 * item_error(a, n, correlation=0.8) == pytest.approx(0.33, abs=0.01)
    assert 100 * item_error(a, n, correlation=0.5) == pytest.approx(0.52, abs=0.01)
