"""Effects have the sign, the precision and the token-equivalent that the runs have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from filters.errors import InputError
from proxy_eval.effects import (
    SHARED,
    Curve,
    Effects,
    Interval,
    control_seeds,
    decision_accuracy,
    doublings,
    gain_worth,
    gains,
    noise_of_all,
    paired_effects,
    pairing,
    share_of_tokens,
    signal_to_noise,
    spelled,
    token_equivalents,
    unpaired_effects,
)
from proxy_eval.noise_bank import Variance

Floats = NDArray[np.float64]
Compared = Callable[[Floats, Floats], Effects]
NAN = np.nan


def array(*values: float) -> Floats:
    return np.asarray(values, np.float64)


def interval(estimate: float, low: float, high: float) -> Interval:
    return Interval(estimate=array(estimate), low=array(low), high=array(high))


def test_a_rule_that_lowers_bits_per_byte_has_a_positive_effect() -> None:
    with_rule, control = -array(0.98, 0.99)[None], -array(1.00, 1.01)
    assert paired_effects(with_rule, control).estimate == pytest.approx([0.02])
    assert unpaired_effects(with_rule, control).estimate == pytest.approx([0.02])


def test_pairs_cancel_what_seeds_share() -> None:
    luck = array(0.0, 1.0, -1.0)
    effects = paired_effects((luck + 0.5)[None], luck)
    assert effects.estimate == pytest.approx([0.5]) and effects.own.value == pytest.approx([0.0], abs=1e-12)
    assert unpaired_effects((luck + 0.5)[None], luck).own.value == pytest.approx([1.0])


def test_runs_that_are_missing_are_left_out() -> None:
    values = np.array([[1.0, 3.0, NAN], [2.0, NAN, NAN], [NAN, NAN, NAN]])
    effects = paired_effects(values, array(0.0, 0.0, NAN))
    assert effects.estimate == pytest.approx([2.0, 2.0, NAN], nan_ok=True)
    assert effects.unscaled == pytest.approx([0.5, 1.0, np.inf])
    assert effects.own.df == pytest.approx([1.0, 0.0, 0.0])
    assert effects.others.df == pytest.approx([0.0, 1.0, 1.0])


@pytest.mark.parametrize(("compared", "seeds"), [(paired_effects, 5), (unpaired_effects, 9)])
def test_an_arms_own_variance_is_not_among_those_of_the_others(compared: Compared, seeds: int) -> None:
    generator = np.random.default_rng(0)
    values, control = generator.standard_normal((4, 5)), generator.standard_normal(seeds)
    before = compared(values, control).others.value
    values[0] *= 100
    after = compared(values, control).others.value
    assert after[0] == pytest.approx(before[0])
    assert (after[1:] > 100 * before[1:]).all()


@pytest.mark.parametrize("paired", [True, False])
def test_the_noise_of_all_arms_is_their_mean_variance_in_any_order(paired: bool) -> None:
    """One arm of ten is twice as noisy. Pairs with one control count for 4 m / (m + 3) arms, runs each for one."""
    values = np.tile(array(-2, -1, 0, 1, 2) / np.sqrt(2.5), (10, 1))
    values[0] *= 2
    control = np.zeros(5) if paired else array(-1, 0, 1)
    for order in (np.arange(10), np.roll(np.arange(10), 1)):
        found = noise_of_all(values[order], control, paired=paired)
        df = 40 * 4 / 13 if paired else 42
        assert (found.value, found.df) == (pytest.approx(1.3 if paired else 54 / 42), pytest.approx(df))
    twice = noise_of_all(np.stack([values, 2 * values]), np.stack([control, 2 * control]), paired=paired)
    assert twice.value == pytest.approx(found.value * np.array([1, 4]))
    if not paired:
        assert noise_of_all(values, control, paired=False, rho=0.5).df < found.df


@pytest.mark.parametrize("shared", [True, False])
def test_the_variance_of_estimates_is_what_is_said_of_it(shared: bool) -> None:
    generator = np.random.default_rng(1)
    arms, seeds, rho = 3, 4, 0.7
    luck = np.sqrt(rho) * generator.standard_normal((20_000, 1, seeds))
    values = luck + np.sqrt(1 - rho) * generator.standard_normal((20_000, arms, seeds))
    control = (luck + np.sqrt(1 - rho) * generator.standard_normal((20_000, 1, seeds)))[:, 0]
    if not shared:
        control = generator.standard_normal((20_000, 7))
    effects = (paired_effects if shared else unpaired_effects)(values, control)
    expected = effects.unscaled * (2 * (1 - rho) if shared else 1.0)
    assert effects.estimate.var(axis=0) == pytest.approx(expected.mean(axis=0), rel=0.05)
    for variance in (effects.own, effects.others):
        assert (variance.value * effects.unscaled).mean(axis=0) == pytest.approx(expected.mean(axis=0), rel=0.05)


def test_rho_is_measured_with_its_interval() -> None:
    generator = np.random.default_rng(2)
    covered, found = 0, []
    for _ in range(400):
        runs = np.sqrt(0.5) * (generator.standard_normal((1, 6)) + generator.standard_normal((5, 6)))
        result = pairing(runs)
        covered += result.low <= 0.5 <= result.high
        found.append(result.rho)
    assert covered / 400 == pytest.approx(0.95, abs=0.04)
    assert np.median(found) == pytest.approx(0.5, abs=0.08)


def test_rho_decides_whether_the_control_shares_seeds() -> None:
    luck = np.arange(6.0)
    assert pairing(np.stack([luck, luck + 1, luck + 0.1 * (-1) ** np.arange(6)])).shared
    assert not pairing(np.stack([luck, luck[::-1]])).shared
    assert control_seeds(9, 4, shared=True) == 4 and control_seeds(9, 4, shared=False) == 12
    with pytest.raises(InputError, match="run more seeds"):
        pairing(np.array([[1.0, NAN], [1.0, 2.0]]))


@pytest.mark.parametrize("arms", [8, 25])
def test_pairs_are_taken_about_where_they_cost_less(arms: int) -> None:
    """With as many runs in all, R: 2 (1 - rho) (A + 1) / R against (sqrt(A) + 1)^2 / R."""
    even = 1 - (np.sqrt(arms) + 1) ** 2 / (2 * (arms + 1))
    assert even == pytest.approx(SHARED, abs=0.12)


def test_a_curves_own_endpoints_are_worth_a_half_and_two_budgets() -> None:
    assert doublings(array(-0.12, 0.0, 0.1), array(0.12), array(0.1)) == pytest.approx([-1, 0, 1])


def test_token_equivalents_of_a_power_law_are_found() -> None:
    u = np.linspace(-0.8, 0.8, 9)
    loss = 2.0 + 0.5 * 2.0 ** (-0.3 * np.array([-1.0, 0.0, 1.0]))
    gain = loss[1] - (2.0 + 0.5 * 2.0 ** (-0.3 * u))
    assert doublings(gain, loss[0] - loss[1], loss[1] - loss[2]) == pytest.approx(u, abs=0.01)


def test_beyond_the_range_only_the_range_is_claimed() -> None:
    below, above = interval(0.12, 0.11, 0.13), interval(0.1, 0.09, 0.11)
    found = token_equivalents(interval(0.3, 0.2, 0.4), Curve(below=below, above=above))
    assert (found.estimate, found.low, found.high) == (np.inf, 1.0, np.inf)
    assert spelled(float(found.estimate[0])) == "> +100 %"
    found = token_equivalents(interval(-0.3, -0.4, -0.2), Curve(below=below, above=above))
    assert (found.estimate, found.low, found.high) == (-np.inf, -np.inf, -1.0)
    assert spelled(float(found.estimate[0])) == "< -50 %"


def test_a_curve_that_does_not_rise_bounds_nothing() -> None:
    flat = Curve(below=interval(0.01, -0.01, 0.03), above=interval(0.01, -0.01, 0.03))
    found = token_equivalents(interval(0.0, -0.005, 0.005), flat)
    assert (found.low, found.high) == (-np.inf, np.inf)
    unknown = Curve(below=interval(NAN, -np.inf, np.inf), above=interval(NAN, -np.inf, np.inf))
    assert token_equivalents(interval(0.0, -0.01, 0.01), unknown).high == np.inf


def test_doublings_and_the_gain_they_are_worth_are_each_others_inverse() -> None:
    u, below, above = np.linspace(-1, 1, 9), array(0.12), array(0.1)
    assert doublings(gain_worth(u, below, above), below, above) == pytest.approx(u)
    assert np.isnan(gain_worth(u, array(-0.1), above)).all() and np.isnan(gain_worth(u, array(NAN), above)).all()


def test_the_curves_error_widens_both_ends_whatever_their_sign() -> None:
    exact = Curve(below=interval(0.12, 0.12, 0.12), above=interval(0.1, 0.1, 0.1))
    vague = Curve(below=interval(0.12, 0.1, 0.14), above=interval(0.1, 0.08, 0.12))
    generator = np.random.default_rng(3)
    for low, high in ((0.01, 0.05), (-0.05, -0.01), (-0.02, 0.03)):
        sharp, wide = (token_equivalents(interval(0.0, low, high), curve) for curve in (exact, vague))
        assert wide.low < sharp.low and sharp.high < wide.high
        for below, above in zip(generator.uniform(0.1, 0.14, 50), generator.uniform(0.08, 0.12, 50), strict=True):
            inside = doublings(array(low, high), array(below), array(above))
            assert wide.low <= inside[0] + 1e-12 and inside[1] - 1e-12 <= wide.high


def test_gains_are_taken_within_trunks() -> None:
    luck = array(0.0, 5.0, -3.0)
    endpoints = np.stack([luck - 0.12, luck, luck + 0.1])
    effects = gains(endpoints, Variance(value=np.asarray(4.0), df=np.asarray(7.0)))
    assert effects.estimate == pytest.approx([0.12, 0.1]) and effects.own.value == pytest.approx([0, 0], abs=1e-12)
    assert effects.others.value == pytest.approx([4.0, 4.0]) and effects.others.df == pytest.approx([7.0, 7.0])


def test_doublings_are_spelled_as_shares_of_tokens() -> None:
    assert share_of_tokens(array(1.0, -1.0, 0.0)) == pytest.approx([1.0, -0.5, 0.0])
    assert spelled(float(np.log2(1.091))) == "+9.1 %" and spelled(NAN) == "?"
    assert spelled(-1e-6) == "+0.0 %" and spelled(-0.001) == "-0.1 %"


@pytest.mark.parametrize(
    ("ratio", "percent"),
    [(5, 15.7), (8, 8.9), (104, 0.7), (14, 5.2), (17, 4.2), (159, 0.4), (11, 6.8), (24, 3.0), (132, 0.5)],
)
def test_the_published_noise_of_runs_is_worth_what_was_published_in_tokens(ratio: float, percent: float) -> None:
    """OLMo-ladder runs of 190M, 370M and 1B (accuracy, gold answers, text panel): the signal is that of twice the
    tokens, so noise is worth 1 / SNR doublings. Both are printed rounded.
    """
    low, high = (100 * float(share_of_tokens(array(1 / (ratio + off)))[0]) for off in (0.5, -0.5))
    assert low - 0.05 <= percent <= high + 0.05


def test_signal_to_noise_and_decision_accuracy() -> None:
    assert signal_to_noise(array(1.0, 3.0, 2.0), array(0.5)) == 4
    assert decision_accuracy(array(1, 2, 3), array(10, 30, 20)) == pytest.approx(2 / 3)
    assert decision_accuracy(array(1, 1), array(1, 2)) == 0.5
    with pytest.raises(InputError, match="two or more"):
        decision_accuracy(array(1), array(1))
