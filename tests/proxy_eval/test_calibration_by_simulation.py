"""What verdicts promise holds in experiments of known truth, looked at after every seed of two rungs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from proxy_eval.confidence import fixed_interval
from proxy_eval.effects import Interval, doublings, paired_effects, unpaired_effects
from proxy_eval.noise_bank import CAMPAIGN_DF, UNKNOWN, Variance, blurred, moderated
from proxy_eval.planner import Design, Rung, power
from proxy_eval.verdict import Budget, Runs, Verdict, decided, intervals, rope_in_doublings, settled

Floats = NDArray[np.float64]

EXPERIMENTS, RUNGS, ROPE = 2000, 2, 0.01
SEEDS = {False: 5, True: 6}  # by whether they are shared: 55 and 54 runs of 8 arms and a control
BELOW, ABOVE = 1.1, 0.9  # what the control gains by each doubling: a curve that flattens, like tokens^-0.3
GOOD = (
    0.055  # share of the tokens: of two arms; one does as much harm; four stand on the ROPE, where errors come soonest
)
SIGMA = {False: 0.02, True: 0.025}  # of a run, by whether seeds are shared


@dataclass(frozen=True, kw_only=True)
class World:
    """What the noise is really like."""

    shared: bool = False
    rho: float = 0.0  # of runs of one seed, where means are compared
    uneven: float = 0.0  # standard deviation of log sigma over arms, whose mean variance stays what it is
    tails: bool = False  # Student's t with 4 degrees of freedom
    bank: float | None = 1.0  # the bank's sigma over the true one; None: no bank
    stops: bool = False  # a decided arm gets no more seeds
    looks: int | None = None  # seeds in the end, where they are more than planned
    placebos: bool = False  # every arm is a placebo: no effect, and the placebos' budget


WORLDS = {
    "plain": World(),
    "pairs": World(shared=True),
    "means over seeds that share": World(rho=0.29),
    "no bank": World(bank=None),
    "pairs without bank": World(shared=True, bank=None),
    "uneven arms": World(uneven=0.35),
    "uneven pairs": World(shared=True, uneven=0.35),
    "heavy tails": World(tails=True),
    "heavy-tailed pairs": World(shared=True, tails=True),
    "bank 30 % too small": World(bank=0.7),
    "pairs, bank 30 % too small": World(shared=True, bank=0.7),
    "bank 30 % too large": World(bank=1.3),
    "decided arms stop": World(stops=True),
    "all at once": World(uneven=0.35, tails=True, bank=0.7, stops=True),
    "all at once in pairs": World(shared=True, uneven=0.35, tails=True, bank=0.7, stops=True),
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What 2,000 experiments came to."""

    false_keep_or_reject: int  # experiments with one or more, at any look
    false_neutral: int
    covered: float  # share of experiments whose intervals all held at all looks
    naive: int  # experiments in which fixed-n 95 % intervals would have excluded an effect at some look
    fixed_covered: float  # share of fixed-n 95 % intervals that held, at the worst look
    width: float  # mean over that of the oracle, at the planned look, where bounded
    unbounded: float  # share that was not
    kept: float  # share of the good arms that came out KEEP at the first rung
    planned: float  # the power planned for that


def truth_of(world: World) -> Floats:
    edge, good = rope_in_doublings(ROPE), rope_in_doublings(GOOD)
    return np.zeros(8) if world.placebos else np.array([good, good, -good, edge, edge, -edge, -edge, 0.0])


def gain(u: Floats) -> Floats:
    return (BELOW + ABOVE) / 2 * u + (ABOVE - BELOW) / 2 * u**2


def plan_of(world: World) -> tuple[Design, Budget]:
    truth = truth_of(world)
    budget = Budget(arms=1, placebos=8, rungs=RUNGS) if world.placebos else Budget(arms=len(truth), rungs=RUNGS)
    known = blurred(blurred(Variance(value=np.asarray(1.0), df=np.asarray(40.0)), CAMPAIGN_DF), CAMPAIGN_DF)
    noise = Variance(value=np.asarray(SIGMA[world.shared] ** 2), df=known.df if world.bank else np.zeros(()))
    rho = 0.6 if world.shared else world.rho
    rung = Rung(name="1M", tokens=10**6, tokens_per_second=1e4, noise=noise, gain=(BELOW + ABOVE) / 2, rho=rho)
    level = budget.placebo_level if world.placebos else budget.arm_level
    return Design(rung=rung, arms=len(truth), seeds=SEEDS[world.shared], level=level, rope=ROPE), budget


def runs_of(world: World, design: Design, generator: np.random.Generator) -> tuple[Runs, Floats]:
    """Return all runs of a rung, and each arm's true variance of its estimate at the planned look."""
    truth, sigma, rho = gain(truth_of(world)), SIGMA[world.shared], design.rung.rho
    curve_seeds, design = design.curve_seeds, replace(design, seeds=world.looks or design.seeds)
    shape, control = (EXPERIMENTS, len(truth), design.seeds), (EXPERIMENTS, 1, design.control_seeds)

    def noise(*size: int) -> Floats:
        drawn = generator.standard_t(4, size) / np.sqrt(2) if world.tails else generator.standard_normal(size)
        return sigma * np.sqrt(1 - rho) * drawn

    scale = np.exp(world.uneven * generator.standard_normal((EXPERIMENTS, len(truth) + 1, 1)) - world.uneven**2)
    luck = sigma * np.sqrt(rho) * generator.standard_normal((EXPERIMENTS, 1, design.control_seeds))
    values = truth[:, None] + scale[:, 1:] * noise(*shape) + luck[..., : design.seeds]
    middle = scale[:, :1] * noise(*control)
    ends = 0.5 * middle + np.sqrt(0.75) * scale[:, :1] * noise(EXPERIMENTS, 2, design.control_seeds)
    endpoints = np.concatenate([ends[:, :1] - BELOW, middle, ends[:, 1:] + ABOVE], axis=1) + luck
    endpoints[:, ::2, curve_seeds:] = np.nan
    own, other = 1 / design.seeds, 1 / design.control_seeds
    unit, shared = sigma**2 * (1 - rho) * scale[..., 0] ** 2, sigma**2 * rho * (own - other)
    return Runs(values=values, endpoints=endpoints), unit[:, 1:] * own + unit[:, :1] * other + shared


def bank_of(world: World, unit: float, generator: np.random.Generator) -> Variance:
    if world.bank is None:
        return UNKNOWN
    value = unit * world.bank**2 * generator.chisquare(40, (EXPERIMENTS, 1)) / 40
    return blurred(blurred(Variance(value=value, df=np.full(value.shape, 40.0)), CAMPAIGN_DF), CAMPAIGN_DF)


def first_seeds(runs: Runs, design: Design, seeds: int) -> Runs:
    control = replace(design, seeds=seeds).control_seeds
    return Runs(values=runs.values[..., :seeds], endpoints=runs.endpoints[..., :control])


def fixed_misses(runs: Runs, world: World, bank: Variance, truth: Floats) -> NDArray[np.bool_]:
    effects = (paired_effects if world.shared else unpaired_effects)(runs.values, runs.control)
    interval = fixed_interval(effects, moderated(effects.own, effects.others, bank), 0.05)
    return (gain(truth) < interval.low) | (interval.high < gain(truth))


def relative_widths(interval: Interval, variance: Floats, budget: Budget, world: World) -> Floats:
    """Return widths over the oracle's: known variance, known curve, one look, and the same simultaneous level."""
    arms, error = (budget.placebos, budget.placebo_error) if world.placebos else (budget.arms, budget.error)
    radius = stats.norm.isf(error / (arms * budget.rungs) / 2) * np.sqrt(variance)
    centre, below, above = gain(truth_of(world)), np.full(radius.shape, BELOW), np.full(radius.shape, ABOVE)
    oracle = doublings(centre + radius, below, above) - doublings(centre - radius, below, above)
    return (interval.high - interval.low) / oracle


def simulate(world: World, seed: int = 20260101) -> Outcome:
    generator, truth = np.random.default_rng(seed), truth_of(world)
    (design, budget), rope = plan_of(world), rope_in_doublings(ROPE)
    wrong, neutral, missed, naive = (np.zeros(EXPERIMENTS, bool) for _ in range(4))
    earlier, misses, widths, kept = None, [], [], []
    for _rung in range(RUNGS):
        runs, variance = runs_of(world, design, generator)
        unit = SIGMA[world.shared] ** 2 * (2 * (1 - design.rung.rho) if world.shared else 1.0)
        bank, ever = bank_of(world, unit, generator), np.zeros((EXPERIMENTS, len(truth)), bool)
        for seeds in range(1, runs.values.shape[-1] + 1):
            so_far = first_seeds(runs, design, seeds)
            interval = intervals(so_far, design, budget.curve_level, bank=bank)
            codes, _ = settled(decided(interval, rope), rope=rope, gold=np.ones(len(truth)), earlier=earlier)
            false = ((codes == Verdict.KEEP) & (truth <= rope)) | ((codes == Verdict.REJECT) & (truth >= -rope))
            wrong |= false.any(axis=1)
            neutral |= ((codes == Verdict.NEUTRAL) & (np.abs(truth) > rope)).any(axis=1)
            missed |= ((truth + 1e-12 < interval.low) | (interval.high < truth - 1e-12)).any(axis=1)
            ever |= codes == Verdict.KEEP
            if world.stops:
                runs.values[codes != Verdict.UNDECIDED, seeds:] = np.nan
            elif seeds > 1:
                misses.append(fixed_misses(so_far, world, bank, truth))
                naive |= misses[-1].any(axis=1)
        widths.append(relative_widths(interval, variance, budget, world))
        earlier = codes
        kept.append(ever[:, :2].mean())
    finite = np.isfinite(widths)
    return Outcome(
        false_keep_or_reject=int(wrong.sum()),
        false_neutral=int(neutral.sum()),
        covered=1 - float(missed.mean()),
        naive=int(naive.sum()),
        fixed_covered=1 - max((float(each.mean()) for each in misses), default=0.0),
        width=float(np.asarray(widths)[finite].mean()),
        unbounded=1 - float(finite.mean()),
        kept=float(kept[0]),
        planned=power(design, GOOD),
    )


def at_least(found: int) -> float:
    """Return the lower 99 % Clopper-Pearson limit of a share."""
    return float(stats.beta.ppf(0.01, found, EXPERIMENTS - found + 1)) if found else 0.0


QUICK = ("plain", "pairs", "all at once", "all at once in pairs")
MARKED = [
    pytest.param(world, id=name, marks=() if name in QUICK else pytest.mark.full) for name, world in WORLDS.items()
]


@pytest.fixture(scope="module", params=MARKED)
def outcome(request: pytest.FixtureRequest) -> tuple[World, Outcome]:
    return request.param, simulate(request.param)


def test_verdicts_are_false_no_more_often_than_the_budget_says(outcome: tuple[World, Outcome]) -> None:
    _, found = outcome
    assert at_least(found.false_keep_or_reject) <= 0.05
    assert at_least(found.false_keep_or_reject + found.false_neutral) <= 0.05


def test_intervals_hold_at_all_looks_together(outcome: tuple[World, Outcome]) -> None:
    assert outcome[1].covered >= 0.95 - 0.015


def test_intervals_of_one_look_hold_at_each(outcome: tuple[World, Outcome]) -> None:
    assert outcome[1].fixed_covered >= 0.95 - 0.015


def test_intervals_are_at_most_twice_as_wide_as_the_oracles(outcome: tuple[World, Outcome]) -> None:
    world, found = outcome
    if not world.stops:  # else most arms never get to the planned look
        assert found.width <= 2
        assert found.unbounded < 0.001


def test_power_is_what_was_planned(outcome: tuple[World, Outcome]) -> None:
    world, found = outcome
    assert found.kept >= found.planned - 0.05
    if not world.tails and world.bank in (None, 1.0):  # tails and a bank too small give more
        assert found.kept <= found.planned + 0.05


@pytest.mark.parametrize("shared", [False, True])
def test_placebos_fail_no_more_often_than_their_own_budget_says(shared: bool) -> None:
    assert at_least(simulate(World(placebos=True, shared=shared)).false_keep_or_reject) <= 0.01


def test_the_check_sees_what_naive_looking_does() -> None:
    assert at_least(simulate(World()).naive) > 0.5


@pytest.mark.full
@pytest.mark.parametrize("world", [World(looks=40), World(shared=True, looks=40)], ids=["plain", "pairs"])
def test_intervals_hold_when_seeds_are_added_long_after_the_planned_look(world: World) -> None:
    found = simulate(world)
    assert at_least(found.false_keep_or_reject) <= 0.05
    assert found.covered >= 0.95 - 0.015
