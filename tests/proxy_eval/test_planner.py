"""A plan's power, smallest effect and price are those of the experiment that it plans."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from filters.errors import InputError
from proxy_eval.effects import gains, noise_of_all, paired_effects, unpaired_effects
from proxy_eval.noise_bank import Variance, moderated
from proxy_eval.planner import (
    ENDPOINT_TOKENS,
    MOST_SEEDS,
    Design,
    Rung,
    cheapest,
    cost,
    critical_value,
    curve_mixture,
    curve_radius,
    neutral_power,
    next_look,
    power,
    seeds_for,
    smallest_effect,
)

SMALL = Rung(
    name="1M",
    tokens=10**6,
    tokens_per_second=1e4,
    noise=Variance(value=np.asarray(4e-6), df=np.asarray(3.6)),
    gain=0.1,
    price_per_hour=3.0,
)
PAIRS = replace(SMALL, rho=0.6)
PLAN = Design(rung=SMALL, arms=8, seeds=5, level=0.0028)


@pytest.mark.parametrize("rung", [SMALL, PAIRS])
def test_a_plan_counts_the_degrees_of_freedom_that_the_experiment_will_have(rung: Rung) -> None:
    design = replace(PLAN, rung=rung)
    generator = np.random.default_rng(0)
    values, control = generator.standard_normal((8, 5)), generator.standard_normal(design.control_seeds)
    effects = (paired_effects if design.shared else unpaired_effects)(values, control)
    unit = Variance(value=np.asarray(1.0), df=rung.noise.df)
    assert moderated(effects.own, effects.others, unit, size=0.0).df == pytest.approx(np.full(8, design.df))
    assert effects.unscaled == pytest.approx(np.full(8, design.unscaled))


@pytest.mark.parametrize("rung", [SMALL, PAIRS])
def test_a_plan_counts_the_degrees_of_freedom_that_the_controls_curve_will_have(rung: Rung) -> None:
    design = replace(PLAN, rung=rung)
    generator = np.random.default_rng(0)
    values, control = generator.standard_normal((8, 5)), generator.standard_normal(design.control_seeds)
    endpoints = generator.standard_normal((3, design.control_seeds))
    endpoints[::2, design.curve_seeds :] = np.nan
    halves = gains(endpoints, noise_of_all(values, control, paired=design.shared))
    assert moderated(halves.own, halves.others).df == pytest.approx(np.full(2, design.curve_df))


def radius(design: Design) -> float:
    return curve_radius(design, design)


def test_a_vague_curve_takes_power_and_one_that_bounds_nothing_all_of_it() -> None:
    few = replace(PLAN, rung=PAIRS, arms=2, seeds=2)
    assert radius(replace(few, seeds=5)) < radius(few)
    assert power(replace(few, curve_level=1e-9), 0.5) < power(few, 0.5)
    alone = replace(few, arms=1, seeds=1)
    assert math.isinf(radius(alone)) and power(alone, 0.5) == 0
    assert neutral_power(replace(PLAN, rope=0.08, curve_level=1e-9)) < neutral_power(replace(PLAN, rope=0.08))


def test_room_for_arms_fixes_the_intervals_and_only_arms_that_run_cost_and_tell() -> None:
    whole, part = replace(PLAN, arms=12), replace(PLAN, arms=4, room=8)
    assert (whole.mixture, whole.control_seeds) == (part.mixture, part.control_seeds)
    assert curve_mixture(whole, 0.0005) == curve_mixture(part, 0.0005)
    assert part.df < whole.df and power(part, 0.06) < power(whole, 0.06)
    assert cost(part).runs == 4 * 5 + part.control_seeds


def test_power_rises_with_effect_seeds_and_level_and_falls_with_arms() -> None:
    powers = [power(PLAN, effect) for effect in (0.01, 0.03, 0.06, 0.2)]
    assert powers == sorted(powers) and powers[0] < 0.01 and powers[-1] > 0.99
    assert power(replace(PLAN, seeds=10), 0.05) > power(PLAN, 0.05) > power(replace(PLAN, level=0.0003), 0.05)
    assert power(replace(PLAN, rung=replace(SMALL, rho=0.9)), 0.05) > power(PLAN, 0.05)
    assert power(PLAN, -0.05) == power(PLAN, 0.05)


def test_the_smallest_effect_has_the_power_that_was_wanted() -> None:
    for wanted in (0.5, 0.8, 0.99):
        assert power(PLAN, smallest_effect(PLAN, wanted)) == pytest.approx(wanted, abs=1e-6)
    assert smallest_effect(replace(PLAN, rung=replace(SMALL, gain=1e-4))) == math.inf


def test_a_design_with_too_few_degrees_of_freedom_sees_nothing() -> None:
    blind = Rung(
        name="x", tokens=1, tokens_per_second=1, noise=Variance(value=np.asarray(1e-6), df=np.zeros(())), gain=1
    )
    design = Design(rung=replace(blind, rho=0.5), arms=1, seeds=1, level=0.001)
    assert design.df == 0
    assert power(design, 1.0) == 0 and smallest_effect(design) == math.inf


def test_neutral_needs_an_interval_narrower_than_the_rope() -> None:
    assert neutral_power(PLAN) == 0
    wide = replace(PLAN, rope=0.08)
    assert 0 < neutral_power(wide) < 1
    assert neutral_power(replace(wide, seeds=20)) > neutral_power(wide)


def test_a_design_costs_its_runs_and_the_controls_curve() -> None:
    price = cost(PLAN)
    assert (price.runs, price.tokens) == (8 * 5 + 15, pytest.approx((40 + 15 + 7 * ENDPOINT_TOKENS) * 1e6))
    assert price.hours == pytest.approx(price.tokens / 1e4 / 3600)
    assert price.money == pytest.approx(3 * price.hours)
    assert cost(replace(PLAN, rung=PAIRS)).runs == 45
    twice = cost(replace(PLAN, learning_rates=2))
    assert (twice.runs, twice.tokens - price.tokens) == (110, pytest.approx(55e6))


def test_the_cheapest_design_reaches_the_power_with_the_fewest_seeds() -> None:
    large = replace(SMALL, name="4M", tokens=10**7, noise=Variance(value=np.asarray(1e-7), df=np.asarray(3.6)))
    plans = [replace(PLAN, rung=rung) for rung in (SMALL, large)]
    for effect in (0.1, 0.02):
        best = cheapest(plans, effect)
        assert best is not None
        assert power(best, effect) >= 0.8
        if best.seeds > 2:
            assert power(replace(best, seeds=best.seeds - 1), effect) < 0.8
    rungs = [None if best is None else best.rung for best in (cheapest(plans, effect) for effect in (0.1, 0.013))]
    assert rungs == [SMALL, large]
    assert cheapest(plans, 0.0101) is None


def test_what_runs_of_one_seed_share_makes_means_surer_than_their_intervals_say() -> None:
    for rho in (-0.2, 0.0, 0.2, 0.29):
        design = replace(PLAN, rung=replace(SMALL, rho=rho))
        n, n0 = design.seeds, design.control_seeds
        assert not design.shared and design.error == pytest.approx(PLAN.error)
        assert design.caution**2 == pytest.approx((1 / n + 1 / n0) / (1 / n + (1 - 2 * max(rho, 0.0)) / n0))
        assert (power(design, 0.05) > power(PLAN, 0.05)) is (rho > 0)
    assert replace(PLAN, rung=PAIRS).caution == 1


def test_seeds_that_were_never_planned_sharpen_the_curve_of_pairs_alone() -> None:
    for rung in (SMALL, PAIRS):
        planned = replace(PLAN, rung=rung)
        grown = replace(planned, seeds=12)
        sharper = curve_radius(grown, planned) < 0.8 * curve_radius(planned, planned)
        price = next_look(planned, 5, 0.04, beside=0).cost
        assert sharper is planned.shared and (price.tokens > price.runs * 1e6) is planned.shared


def test_the_next_look_names_the_seeds_that_would_decide() -> None:
    look = next_look(PLAN, 5, 0.04, beside=0)
    assert look.seeds is not None and 1 <= look.seeds <= MOST_SEEDS
    later = replace(PLAN, seeds=5 + look.seeds)
    radius = critical_value(later, PLAN) * later.error
    assert 0.04 - radius > math.log2(1.01) * (1 + curve_radius(later, PLAN))
    assert look.cost.tokens == pytest.approx((1 + 2) * 1e6)
    with_placebos = next_look(PLAN, 5, 0.04, beside=3)
    assert (with_placebos.cost.runs, with_placebos.seeds) == (look.cost.runs + 3, look.seeds)
    assert with_placebos.cost.tokens == pytest.approx((4 + 2) * 1e6)
    assert next_look(PLAN, 5, math.log2(1.01), beside=0).seeds is None
    assert next_look(replace(PLAN, rope=0.1), 5, 0.0, beside=0).seeds is not None


@pytest.mark.parametrize(
    ("relative_noise", "effects"),
    [
        (0.00031, {0.001: (1.5, 0.05)}),
        (0.00058, {0.001: (5.3, 0.05)}),
        (0.026085, {0.001: (10_700, 50), 0.0025: (1_709, 0.5), 0.005: (427, 0.5), 0.02: (27, 0.5), 0.05: (4, 0.5)}),
    ],
    ids=["val_bpb of nanochat d24", "loss of 124M", "CORE"],
)
def test_the_published_table_of_seeds_is_reproduced(
    relative_noise: float, effects: dict[float, tuple[float, float]]
) -> None:
    """Seeds for power 0.8 at 5 % without correlation, each to the digits printed."""
    for effect, (seeds, rounding) in effects.items():
        assert seeds_for(effect, relative_noise) == pytest.approx(seeds, abs=rounding)
    assert seeds_for(1.0, 1.0, rho=0.3) == pytest.approx(15.7 * 0.7, rel=1e-3)


def test_a_rung_must_have_been_measured() -> None:
    with pytest.raises(InputError, match="measure them"):
        replace(SMALL, gain=0.0)
