"""What an experiment can see and what it costs, before it runs: power, smallest effect, seeds, hours, money.

Everything is reckoned with the very interval that sets verdicts (`confidence.sequence` at the last planned look), so
that a plan and its outcome are comparable: T = (estimate - ROPE) / standard error is noncentral t, and an arm is
decided where T exceeds the critical value. Earlier looks add a point or two of power, which is left out. Effects are
shares of the budget in tokens; within the arithmetic a doubling of tokens is worth `Rung.gain` of the metric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, stats

from filters.errors import InputError
from proxy_eval.confidence import Mixture, critical, planned_mixture
from proxy_eval.effects import SHARED, control_seeds
from proxy_eval.noise_bank import ARM_DF, PAIRS_SHARE, Variance, blurred, worth

ENDPOINT_TOKENS = 1.3  # budgets that a run with endpoints takes more: a trunk to 1.6, and decays of 0.1, 0.2 and 0.4
MORE_ENDS = 2  # control seeds with endpoints than an arm has seeds: all would narrow intervals by 3 % at 5 (simulated)
MOST_SEEDS = 64
CURVE_LEVEL = 0.0005  # of `verdict.Budget` as it comes, at one rung
FLATTENS = 0.1  # u doublings are worth u (1 - u / 10) gains where loss falls as tokens^-0.3 (2^-0.3: 0.9 / 1.1)


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A size and a budget of tokens: what a run costs, how noisy it is, and what tokens are worth there."""

    name: str
    tokens: int  # that an arm's run is trained on
    tokens_per_second: float  # of one device
    noise: Variance  # of a run, from the bank or a pilot; 0 degrees of freedom: a guess that no interval will rest on
    gain: float  # of the metric by twice the tokens, higher better
    rho: float = 0.0
    price_per_hour: float = 0.0  # of one device

    def __post_init__(self) -> None:
        if min(self.tokens, self.tokens_per_second, self.gain, float(self.noise.value)) <= 0 or self.rho >= 1:
            raise InputError(
                f"Rung {self.name} needs tokens, speed, noise and gain above 0, and rho below 1: measure them."
            )


@dataclass(frozen=True, kw_only=True)
class Design:
    """An experiment at one rung: arms that run (placebos too) and `room` for others, seeds of each, an arm's level and
    that of each half of the control's curve (`verdict.Budget`).
    """

    rung: Rung
    arms: int
    seeds: int
    level: float
    curve_level: float = CURVE_LEVEL
    room: int = 0  # arms that may still come: they enter what is fixed before the first look, and no power
    rope: float = 0.01  # share of the tokens
    learning_rates: int = 1

    @property
    def shared(self) -> bool:
        """Whether the control runs the arms' seeds and no others, and is compared seed by seed."""
        return self.rung.rho >= SHARED

    @property
    def control_seeds(self) -> int:
        """How many seeds the control runs."""
        return control_seeds(self.arms + self.room, self.seeds, shared=self.shared)

    @property
    def curve_seeds(self) -> int:
        """How many of them have endpoints."""
        return curve_seeds(self.control_seeds, self.seeds)

    @property
    def unscaled(self) -> float:
        """Variance of an estimate in units of the noise: of a pair where seeds are shared, of a run otherwise, at most:
        what runs of one seed share is not counted then.
        """
        return 1 / self.seeds + (0.0 if self.shared else 1 / self.control_seeds)

    @property
    def others(self) -> float:
        """Degrees of freedom that the other arms have for an arm's noise at the last look, the bank left out."""
        if self.shared:
            return paired_df(self.arms - 1, self.seeds)
        return float((self.arms - 1) * (self.seeds - 1) + self.control_seeds - 1)

    @property
    def df(self) -> float:
        """Degrees of freedom of an arm's noise at the last look, as `noise_bank.moderated` will count them."""
        return blurred_df(self.others + float(self.rung.noise.df)) + self.seeds - 1

    @property
    def curve_df(self) -> float:
        """The same of each half of the control's curve, which no bank of the arms' noise knows of."""
        return self.curve_df_with(self.curve_seeds)

    def curve_df_with(self, ends: int) -> float:
        """The same where so many of the control's runs have endpoints."""
        together = paired_df(self.arms, self.seeds) if self.shared else self.others + self.seeds - 1
        return blurred_df(together) + ends - 1

    @property
    def scatter(self) -> float:
        """Degrees of freedom by which the estimated noise varies where arms are alike, more than `df`: the others are
        weighed as if arms differed (Satterthwaite, Biometrics Bulletin 2, 1946).
        """
        own, family = self.seeds - 1, self.others + float(self.rung.noise.df)
        weight = blurred_df(family)
        total = own + (weight**2 / family if family > 0 else 0.0)
        return (own + weight) ** 2 / total if total > 0 else 0.0

    @property
    def run_variance(self) -> float:
        """Variance of what `unscaled` is in units of: of a paired difference where seeds are shared, else of a run."""
        return float(self.rung.noise.value) * (2 * (1 - self.rung.rho) if self.shared else 1.0)

    @property
    def error(self) -> float:
        """Standard error of an arm's effect, in doublings, as intervals take it."""
        return math.sqrt(self.run_variance * self.unscaled) / self.rung.gain

    @property
    def caution(self) -> float:
        """By how much intervals take the error for more than it is: where means are compared, what runs of one seed
        share is left out of it, and makes the variance less by 2 rho / n0.
        """
        share = 0.0 if self.shared else 2 * max(self.rung.rho, 0.0) / self.control_seeds
        return math.sqrt(self.unscaled / (self.unscaled - share))

    @property
    def mixture(self) -> Mixture:
        """The mixture of the arms' confidence sequences, narrowest at this design's last look with all its room."""
        return planned_mixture(self.level, unscaled=self.unscaled, df=filled(self).df)


def curve_seeds(control: int, seeds: int) -> int:
    """Return how many of the control's seeds have endpoints, where an arm has so many."""
    return min(control, seeds + MORE_ENDS)


def filled(design: Design) -> Design:
    """Return the design with all arms that it has room for."""
    return replace(design, arms=design.arms + design.room, room=0)


def paired_df(arms: int, seeds: int) -> float:
    """Return the degrees of freedom that paired differences of so many arms have together."""
    return float(worth(np.asarray(float(arms * (seeds - 1))), np.asarray(arms), PAIRS_SHARE))


def blurred_df(df: float) -> float:
    """Return the degrees of freedom that a family's leave for one arm, which differs from it."""
    return float(blurred(Variance(value=np.zeros(()), df=np.asarray(df)), ARM_DF).df)


def curve_mixture(design: Design, level: float) -> Mixture:
    """Return the mixture of each half of the control's curve, narrowest at the design's last look."""
    return planned_mixture(level, unscaled=1 / design.curve_seeds, df=filled(design).curve_df)


def critical_value(design: Design, planned: Design) -> float:
    """Return the |t| that decides at `design`'s look in the sequence of `planned`; infinite where nothing does."""
    share = design.unscaled / (design.unscaled + planned.mixture.variance)
    return float(critical(planned.level, np.asarray(design.df), np.asarray(share)))


def curve_radius(design: Design, planned: Design) -> float:
    """Return half the width of the interval of either half of the control's curve at `design`'s look in the sequence of
    `planned`, as a share of the gain; infinite where nothing bounds it.

    Where means are compared, only the seeds of `planned` have endpoints. Two of one run are taken to have no more in
    common than two runs of one seed.
    """
    ends = design.control_seeds if design.shared else min(design.control_seeds, planned.curve_seeds)
    mixture = curve_mixture(planned, planned.curve_level)
    share = 1 / (1 + mixture.variance * ends)
    factor = float(critical(mixture.level, np.asarray(design.curve_df_with(ends)), np.asarray(share)))
    differences = design.run_variance * (1.0 if design.shared else 2.0)
    return factor * math.sqrt(differences / ends) / design.rung.gain


def power(design: Design, effect: float) -> float:
    """Return the probability that an effect of this share of the tokens is KEEP, or as large a harm REJECT.

    Either is decided against the steepest curve that is not excluded (`effects.token_equivalents`), where the ROPE is
    worth 1 + `curve_radius` times what it is on the true one.
    """
    edge, u = math.log2(1 + design.rope) * (1 + curve_radius(design, design)), math.log2(1 + abs(effect))
    if not math.isfinite(edge):
        return 0.0
    shift = (u * (1 - FLATTENS * min(u, 1.0)) - edge) / design.error
    return noncentral(design.caution * critical_value(design, design), design.scatter, design.caution * shift)


def noncentral(threshold: float, df: float, shift: float) -> float:
    """Return P(T > threshold) of Student's noncentral t."""
    return float(stats.nct.sf(threshold, df, shift)) if math.isfinite(threshold) else 0.0


def smallest_effect(design: Design, wanted: float = 0.8) -> float:
    """Return the minimum detectable effect: the smallest share of the tokens that is decided with this power.

    Infinite where it lies beyond a doubling, which the control's curve does not reach.
    """
    if power(design, 1.0) < wanted:
        return math.inf
    return float(optimize.brentq(lambda effect: power(design, effect) - wanted, design.rope, 1.0))


def neutral_power(design: Design) -> float:
    """Return the probability that a rule without effect comes out NEUTRAL, its noise being estimated without error."""
    flat = math.log2(1 + design.rope) * (1 - curve_radius(design, design))
    room = flat / design.error - critical_value(design, design)
    return max(0.0, 2 * float(stats.norm.cdf(design.caution * room)) - 1) if room > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What runs take: tokens trained on, device hours, and money at the rung's price."""

    runs: int
    tokens: float
    hours: float
    money: float


def cost_of(rung: Rung, runs: int, budgets: float) -> Cost:
    """Return the cost of so many runs that train on so many budgets of the rung together."""
    hours = budgets * rung.tokens / rung.tokens_per_second / 3600
    return Cost(runs=runs, tokens=budgets * rung.tokens, hours=hours, money=hours * rung.price_per_hour)


def cost(design: Design) -> Cost:
    """Return the cost of a design with the control's curve; a second learning rate repeats all but the curve."""
    runs = (design.arms * design.seeds + design.control_seeds) * design.learning_rates
    return cost_of(design.rung, runs, runs + design.curve_seeds * ENDPOINT_TOKENS)


def cheapest(designs: Sequence[Design], effect: float, wanted: float = 0.8) -> Design | None:
    """Return the cheapest design, by money, then hours, each with as many seeds as the power for the effect needs; None
    where no rung reaches it with MOST_SEEDS.
    """
    sized = (first_with(design, effect, wanted) for design in designs)
    found = [design for design in sized if design is not None]
    return min(found, key=lambda design: (cost(design).money, cost(design).hours), default=None)


def first_with(design: Design, effect: float, wanted: float) -> Design | None:
    """Return the design with the fewest seeds that have the power, None where MOST_SEEDS do not."""
    sized = (replace(design, seeds=seeds) for seeds in range(2, MOST_SEEDS + 1))
    return next((some for some in sized if power(some, effect) >= wanted), None)


@dataclass(frozen=True, kw_only=True)
class NextLook:
    """The price of one more seed for an arm, and the seeds to go until it is decided if its estimate stays."""

    cost: Cost
    seeds: int | None  # None: more than MOST_SEEDS, the effect being too close to the ROPE


def next_look(planned: Design, seeds: int, estimate: float, *, beside: int) -> NextLook:
    """Return what an arm needs that is undecided at `estimate` doublings after `seeds` seeds, all others being done.

    The price is that of a seed of the arm, of each of those `beside` it, which run at every look (placebos, a matched
    removal), and of the control, which has endpoints in pairs alone: otherwise those of the planned seeds suffice.
    """
    now, rope = replace(planned, seeds=seeds), math.log2(1 + planned.rope)
    after = replace(planned, seeds=seeds + 1)
    runs = 1 + beside + after.control_seeds - now.control_seeds
    price = cost_of(planned.rung, runs, runs + (ENDPOINT_TOKENS if planned.shared else 0))
    for more in range(1, MOST_SEEDS + 1):
        later = replace(planned, seeds=seeds + more)
        radius, curve = critical_value(later, planned) * later.error, rope * curve_radius(later, planned)
        if abs(estimate) - radius > rope + curve or abs(estimate) + radius <= rope - curve:
            return NextLook(cost=price, seeds=more)
    return NextLook(cost=price, seeds=None)


def seeds_for(effect: float, noise: float, *, rho: float = 0.0, level: float = 0.05, wanted: float = 0.8) -> float:
    """Return seeds per arm of the textbook: one look, one comparison, known variance, control of as many seeds.

    n = 2 (z_{1 - level/2} + z_wanted)^2 (1 - rho) (noise / effect)^2: Cohen, Statistical Power Analysis (2nd ed. 1988),
    chapter 2, for pairs by (1 - rho). A lower bound to hold a design against.
    """
    z = float(stats.norm.isf(level / 2) + stats.norm.ppf(wanted))
    return 2 * z**2 * (1 - rho) * (noise / effect) ** 2
