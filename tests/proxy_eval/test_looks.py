"""What is made of a table beside its verdicts: one arm against another, ratios of signal to noise, noisy arms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from proxy_eval.confidence import fixed_interval
from proxy_eval.looks import Fixed, Table, arm_intervals, beside, intervals_against
from proxy_eval.noise_bank import DISAGREEMENT, UNKNOWN, moderated
from proxy_eval.planner import Design, Rung
from proxy_eval.verdict import Budget, Runs

Floats = NDArray[np.float64]
GAIN, SIGMA, ARMS, SEEDS, WORLDS = 0.1, 0.003, 6, 5, 150
TRUTH = np.array([0.2, -0.1, 0.0, 0.05, 0.0, -0.2])
"""Doublings; arm 1 is the random removal that arm 0 is matched to."""


def design_of(rho: float, level: float) -> Design:
    noise = replace(UNKNOWN, value=np.asarray(SIGMA**2))
    rung = Rung(name="1M", tokens=10**6, tokens_per_second=1e4, noise=noise, gain=GAIN, rho=rho)
    return Design(rung=rung, arms=ARMS, seeds=SEEDS, level=level)


def fixed_of(rho: float) -> Fixed:
    none = (0.0, 0.0)
    return Fixed(rho=rho, rho_low=None, rho_high=None, noise=SIGMA**2, gain=GAIN, run=none, pair=none, doubling=none)


def table_of(runs: Runs, in_base: bool = False) -> Table:
    """All are judged but arm 1."""
    count = len(runs.values)
    return Table(
        names=tuple(str(at) for at in range(count)),
        runs=runs,
        in_base=np.full(count, in_base),
        judged=np.arange(count) != 1,
        placebo=np.zeros(count, np.bool_),
        same=np.zeros(count, np.bool_),
    )


def runs_of(generator: np.random.Generator, design: Design, truth: Floats, noise: Floats) -> Runs:
    """One world; where seeds are not shared the control has more."""
    rho, own = design.rung.rho, design.control_seeds
    luck = np.sqrt(rho) * generator.standard_normal(own)
    values = np.full((len(truth), own), np.nan)
    drawn = np.sqrt(1 - rho) * generator.standard_normal((len(truth), SEEDS))
    values[:, :SEEDS] = GAIN * truth[:, None] + SIGMA * noise[:, None] * (luck[:SEEDS] + drawn)
    ends = SIGMA * (luck + np.sqrt(1 - rho) * generator.standard_normal((3, own)))
    ends[::2, design.curve_seeds :] = np.nan
    return Runs(values=values, endpoints=GAIN * np.array([-1.0, 0.0, 1.0])[:, None] + ends)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_an_arm_against_its_random_removal_is_bounded_at_every_look(rho: float) -> None:
    """Intervals of a level of 10 % miss in fewer of the worlds, and see what is there."""
    generator, design = np.random.default_rng(3), design_of(rho, 0.1)
    budget = Budget(arms=1, error=0.1 / 0.9)
    truth, missed, seen = TRUTH[0] - TRUTH[1], 0, 0
    for _ in range(WORLDS):
        runs = runs_of(generator, design, TRUTH, np.ones(ARMS))
        held = True
        for looks in range(2, SEEDS + 1):
            values = np.where(np.arange(runs.values.shape[1]) < looks, runs.values, np.nan)
            found = intervals_against(table_of(replace(runs, values=values)), 1, design, budget, fixed_of(rho))
            held &= bool(found.low[0] <= truth <= found.high[0])
        missed += not held
        seen += bool(found.low[0] > 0)
    assert missed <= 0.1 * WORLDS
    assert seen > 0.9 * WORLDS


def test_against_itself_an_arm_stands_where_the_control_stands() -> None:
    design, budget = design_of(0.8, 0.01), Budget(arms=ARMS)
    runs = runs_of(np.random.default_rng(4), design, TRUTH, np.ones(ARMS))
    table = table_of(runs)
    against, usual = (
        intervals_against(table, 1, design, budget, fixed_of(0.8)),
        arm_intervals(table, design, budget, fixed_of(0.8)),
    )
    assert against.estimate[1] == pytest.approx(-usual.estimate[1], abs=0.02)
    assert against.estimate[0] == pytest.approx(usual.estimate[0] - usual.estimate[1], abs=0.02)
    turned = intervals_against(table_of(runs, in_base=True), 1, design, budget, fixed_of(0.8))
    assert (turned.low[0], turned.high[0]) == pytest.approx((-against.high[0], -against.low[0]))


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_signal_to_noise_is_that_of_the_arms_that_are_judged(rho: float) -> None:
    """Between the best and the worst of them and the control lies 0.4 of a doubling; arm 1, which is not, is far off.

    Noise is of a run, or of a difference of two that share rho of their variance.
    """
    generator, design, truth = np.random.default_rng(5), design_of(rho, 0.01), TRUTH.copy()
    truth[1] = -5.0
    deviation = SIGMA * (np.sqrt(2 * (1 - rho)) if design.shared else 1.0)
    found = [
        beside(table_of(runs_of(generator, design, truth, np.ones(ARMS))), design, fixed_of(rho)) for _ in range(WORLDS)
    ]
    assert np.mean([one.deviation**2 for one in found]) == pytest.approx(deviation**2, rel=0.1)
    assert np.median([one.snr for one in found]) == pytest.approx(0.4 * GAIN / deviation, rel=0.1)
    assert all(np.isnan(one.discovery[1]) and np.isnan(one.shrunk[1]) for one in found)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_spread_is_of_all_arms_whichever_comes_first_and_not_of_an_a_a_placebo_beside_pairs(rho: float) -> None:
    design = design_of(rho, 0.01)
    runs = runs_of(np.random.default_rng(7), design, TRUTH, np.array([3.0, 1, 1, 1, 1, 1]))
    same = np.arange(ARMS) == 4
    first, last = replace(table_of(runs), same=same), replace(table_of(runs), same=same[::-1])
    last = replace(last, runs=replace(runs, values=runs.values[::-1]))
    deviations = [beside(each, design, fixed_of(rho)).deviation for each in (first, last)]
    assert deviations[0] == pytest.approx(deviations[1])
    values = np.delete(runs.values, 4, axis=0) if design.shared else runs.values
    each = values - runs.control if design.shared else np.vstack([values, runs.control])
    squares = [np.var(row[np.isfinite(row)], ddof=1) for row in each]
    df = [np.isfinite(row).sum() - 1 for row in each]
    assert deviations[0] == pytest.approx(np.sqrt(np.average(squares, weights=df)))


@pytest.mark.parametrize("in_base", [False, True])
def test_equivalence_is_shown_where_the_90_percent_interval_lies_inside_the_rope(in_base: bool) -> None:
    """In units of the metric, on the control's curve: u doublings are worth 0.23 u - 0.03 u^2 where it loses 0.26 with
    half the tokens and gains 0.2 with twice as many.
    """
    runs = runs_of(np.random.default_rng(8), design_of(0.8, 0.01), TRUTH / 10, np.ones(ARMS))
    table = table_of(runs, in_base)
    ends = np.array([-0.26, 0.0, 0.2])[:, None] + np.zeros(SEEDS)
    table = replace(table, runs=replace(runs, endpoints=runs.control + ends))
    seen = set()
    for rope in (0.005, 0.02, 0.04, 0.06, 0.1):
        design = replace(design_of(0.8, 0.01), rope=rope)
        found = beside(table, design, fixed_of(0.8))
        u = np.log2(1 + rope)
        low, high = (0.23 * at - 0.03 * at**2 for at in (-u, u))
        noise = moderated(found.effects.own, found.effects.others)
        inner = fixed_interval(found.effects, noise, 0.10)
        inside = (low < inner.low) & (inner.high < high)
        assert ((found.equivalence < 0.05) == inside)[table.judged].all()
        assert np.isnan(found.equivalence[~table.judged]).all()
        seen |= set(inside[table.judged].tolist())
    assert seen == {True, False}


@pytest.mark.parametrize(("rho", "found_in"), [(0.0, 0.9), (0.8, 0.8)])
def test_an_arm_with_five_times_the_noise_is_pointed_out_and_alike_arms_are_not(rho: float, found_in: float) -> None:
    generator, design = np.random.default_rng(6), design_of(rho, 0.01)
    noise = np.ones(ARMS)
    noise[2] = 5.0
    said = np.zeros((2, ARMS))
    for _ in range(WORLDS):
        for row, each in enumerate((np.ones(ARMS), noise)):
            runs = runs_of(generator, design, TRUTH, each)
            said[row] += beside(table_of(runs), design, fixed_of(rho)).alike < DISAGREEMENT
    assert said[0].sum() <= 0.025 * ARMS * WORLDS
    assert said[1, 2] >= found_in * WORLDS
