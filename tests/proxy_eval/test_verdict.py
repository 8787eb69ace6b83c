"""Verdicts follow the interval, give way to doubts, and are void when a placebo fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from filters.errors import InputError
from proxy_eval.effects import Interval
from proxy_eval.noise_bank import Variance
from proxy_eval.planner import Design, Rung, next_look
from proxy_eval.verdict import (
    Budget,
    Finding,
    Placebo,
    Reason,
    Runs,
    Verdict,
    decided,
    intervals,
    placebo_faults,
    rope_in_doublings,
    said,
    settled,
)

Floats = NDArray[np.float64]
KEEP, REJECT, NEUTRAL, UNDECIDED = Verdict.KEEP, Verdict.REJECT, Verdict.NEUTRAL, Verdict.UNDECIDED
ROPE = 0.1
RUNG = Rung(
    name="1M",
    tokens=10**6,
    tokens_per_second=1e4,
    noise=Variance(value=np.asarray(4e-6), df=np.asarray(3.6)),
    gain=0.1,
    rho=0.6,
)


def interval(*bounds: tuple[float, float]) -> Interval:
    low, high = np.array(bounds, np.float64).T
    middle = np.where(np.isfinite(high), (low + np.where(np.isfinite(high), high, 0.0)) / 2, np.nan)
    return Interval(estimate=middle, low=low, high=high)


def codes(*verdicts: Verdict) -> NDArray[np.int8]:
    return np.array(verdicts, np.int8)


def runs_of(effects: list[float], seeds: int, *, seed: int = 1, rho: float = 0.6) -> Runs:
    generator, sigma = np.random.default_rng(seed), 2e-3
    luck = sigma * np.sqrt(rho) * generator.standard_normal(seeds)
    noise = sigma * np.sqrt(1 - rho) * generator.standard_normal((len(effects) + 3, seeds))
    endpoints = luck + noise[-3:] + np.array([-0.11, 0.0, 0.09])[:, None]
    return Runs(values=luck + noise[:-3] + np.array(effects)[:, None], endpoints=endpoints)


def test_the_interval_decides_against_the_rope() -> None:
    shown = interval((0.11, 0.3), (0.1, 0.3), (-0.1, 0.1), (-0.3, -0.11), (-0.3, -0.1), (-0.2, 0.2), (-np.inf, np.inf))
    expected = [KEEP, UNDECIDED, NEUTRAL, REJECT, UNDECIDED, UNDECIDED, UNDECIDED]
    assert decided(shown, ROPE).tolist() == expected
    assert rope_in_doublings(0.01) == pytest.approx(0.01435, abs=1e-5)


def test_keep_needs_gold_answers_to_agree_and_reject_does_not() -> None:
    gold = np.array([0.1, 0.0, -0.1, np.nan, -0.1, 0.1])
    verdicts, reasons = settled(codes(KEEP, KEEP, KEEP, KEEP, REJECT, REJECT), rope=ROPE, gold=gold)
    assert verdicts.tolist() == [KEEP, UNDECIDED, UNDECIDED, UNDECIDED, REJECT, REJECT]
    assert reasons.tolist() == [0, Reason.GOLD, Reason.GOLD, Reason.GOLD, 0, 0]


def test_a_flip_of_sign_at_the_second_learning_rate_is_undecided() -> None:
    second = interval((0.0, 0.1), (-0.2, 0.1), (np.nan, np.nan), (-0.3, 0.2), (-0.1, 0.2), (0.2, 0.3), (-0.1, 0.2))
    first = codes(KEEP, KEEP, KEEP, REJECT, REJECT, NEUTRAL, NEUTRAL)
    verdicts, reasons = settled(first, rope=ROPE, gold=np.ones(7), second=second)
    assert verdicts.tolist() == [KEEP, UNDECIDED, UNDECIDED, REJECT, UNDECIDED, UNDECIDED, NEUTRAL]
    assert set(reasons[verdicts == UNDECIDED].tolist()) == {Reason.RATES}


def test_opposite_verdicts_at_two_rungs_are_undecided() -> None:
    now, before = codes(KEEP, REJECT, KEEP, NEUTRAL), codes(REJECT, KEEP, NEUTRAL, KEEP)
    verdicts, reasons = settled(now, rope=ROPE, gold=np.ones(4), earlier=before)
    assert verdicts.tolist() == [UNDECIDED, UNDECIDED, KEEP, NEUTRAL]
    assert reasons.tolist() == [Reason.RUNGS, Reason.RUNGS, 0, 0]


def test_a_doubt_never_makes_a_verdict() -> None:
    generator = np.random.default_rng(0)
    first = generator.choice(codes(*Verdict), 500)
    second = interval(*np.sort(generator.standard_normal((500, 2)) / 5).tolist())
    earlier = generator.choice(codes(*Verdict), 500)
    verdicts, _ = settled(first, rope=ROPE, gold=generator.standard_normal(500), second=second, earlier=earlier)
    assert ((verdicts == first) | (verdicts == UNDECIDED)).all()


def test_the_budget_is_spent_once() -> None:
    budget = Budget(arms=8, placebos=3, rungs=2)
    curve = 2 * budget.rungs * budget.curve_level
    assert 8 * 2 * budget.arm_level + curve <= 0.05 + 1e-12
    assert 3 * 2 * budget.placebo_level + curve == pytest.approx(0.01)
    with pytest.raises(InputError, match="an arm and a rung"):
        Budget(arms=0)
    with pytest.raises(InputError, match="between 0 and 1"):
        Budget(arms=1, error=5)


@pytest.mark.parametrize("rho", [0.6, 0.0])
def test_rules_with_large_effects_are_told_from_those_without(rho: float) -> None:
    budget = Budget(arms=4)
    rung = replace(RUNG, rho=rho)
    design = Design(rung=rung, arms=4, seeds=5, level=budget.arm_level)
    found = intervals(runs_of([0.02, -0.02, 0.0, 0.5], 5, rho=rho), design, budget.curve_level, bank=RUNG.noise)
    assert decided(found, rope_in_doublings(0.01)).tolist()[:2] == [KEEP, REJECT]
    assert found.low[2] < 0 < found.high[2]
    assert (found.estimate[3], found.low[3]) == (np.inf, 1.0)
    assert found.estimate[0] == pytest.approx(0.2, abs=0.06)


def test_an_arm_without_runs_is_unbounded_and_disturbs_no_other() -> None:
    budget = Budget(arms=3)
    design = Design(rung=RUNG, arms=3, seeds=5, level=budget.arm_level)
    runs = runs_of([0.02, 0.0, 0.0], 5)
    runs.values[2] = np.nan
    found = intervals(runs, design, budget.curve_level)
    assert decided(found, 0.01).tolist()[::2] == [KEEP, UNDECIDED]
    assert (found.low[2], found.high[2]) == (-np.inf, np.inf)


@pytest.mark.parametrize("rho", [0.6, 0.0])
def test_it_does_not_matter_which_arm_comes_first(rho: float) -> None:
    """Even where one is three times as noisy: the noise that bounds the curve is that of all."""
    design = Design(rung=replace(RUNG, rho=rho), arms=4, seeds=5, level=0.01)
    runs = runs_of([0.02, -0.02, 0.0, 0.05], 5, rho=rho)
    runs.values[0] += 2 * (runs.values[0] - runs.control)
    order = np.array([2, 3, 0, 1])
    first, again = intervals(runs, design, 0.001), intervals(replace(runs, values=runs.values[order]), design, 0.001)
    for name in ("estimate", "low", "high"):
        assert getattr(again, name) == pytest.approx(getattr(first, name)[order], abs=1e-12)


def test_one_seed_without_a_bank_decides_nothing() -> None:
    design = Design(rung=RUNG, arms=2, seeds=5, level=0.05)
    found = intervals(runs_of([0.02, 0.0], 1), design, 0.001)
    assert decided(found, 0.01).tolist() == [UNDECIDED, UNDECIDED]


def test_an_arm_with_other_seeds_has_the_noise_of_runs() -> None:
    design = Design(rung=replace(RUNG, rho=0.95), arms=3, seeds=6, level=0.01)
    runs = runs_of([0.0, 0.0, 0.0], 6, rho=0.95)
    paired, apart = (intervals(runs, design, 0.001, other_seeds=other) for other in (False, True))
    assert ((apart.high - apart.low) > 1.5 * (paired.high - paired.low)).all()


def test_a_placebo_that_decides_is_a_fault_and_garbage_that_does_not() -> None:
    same, garbage = Placebo(name="A/A", kind="same", verdict=UNDECIDED), Placebo(name="g", kind="garbage", verdict=KEEP)
    assert placebo_faults([same, replace(same, verdict=NEUTRAL), garbage]) == ()
    assert len(placebo_faults([replace(same, verdict=KEEP), replace(same, kind="random", verdict=REJECT)])) == 2
    missed = replace(garbage, verdict=UNDECIDED, power=0.85)
    assert "0.85" in placebo_faults([missed])[0]
    assert len(placebo_faults([replace(missed, verdict=REJECT, power=0.8)])) == 1
    assert (
        placebo_faults([replace(missed, looks_left=True), replace(missed, power=0.79), replace(missed, power=None)])
        == ()
    )


def test_what_is_undecided_is_said_with_its_price() -> None:
    design = Design(rung=replace(RUNG, price_per_hour=2.0), arms=4, seeds=3, level=0.003)
    finding = Finding(
        name="fineweb.list_ratio",
        verdict=UNDECIDED,
        reason=Reason.INTERVAL,
        estimate=0.05,
        low=-0.02,
        high=np.inf,
        next_look=next_look(design, 3, 0.05, beside=3),
    )
    text = said(finding)
    assert text.startswith("fineweb.list_ratio: UNDECIDED, +3.5 % tokens [-1.4 %, unbounded]; one more seed costs")
    assert "device hours" in text
    assert said(replace(finding, verdict=KEEP, reason=Reason.INTERVAL, low=0.02, high=1.0, next_look=None)).endswith(
        "%]"
    )
    assert "learning rate" in said(replace(finding, reason=Reason.RATES))
