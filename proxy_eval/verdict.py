"""What to do with a rule: KEEP, REJECT, NEUTRAL or UNDECIDED, and whether the experiment may say so at all.

One interval decides everything (`decided`), in doublings of tokens, from a confidence sequence: it holds at every look,
for all arms and rungs of the experiment at once, except with probability `Budget.error`. The union bound error / (arms
x rungs) needs no assumption on how arms that share a control depend on each other. A tenth of the budget is for the
control's curve, which all share. A false KEEP, REJECT or NEUTRAL each takes an interval that misses the effect, so all
three are in the budget.

Doubts take a verdict away and never give one (`settled`), so they cost power, not error. Placebos have a budget of
their own; a fault in one voids all verdicts (`placebo_faults`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from filters.errors import InputError
from proxy_eval.confidence import sequence
from proxy_eval.effects import (
    Curve,
    Interval,
    gains,
    noise_of_all,
    paired_effects,
    spelled,
    token_equivalents,
    unpaired_effects,
)
from proxy_eval.noise_bank import UNKNOWN, Variance, moderated
from proxy_eval.planner import Design, NextLook, curve_mixture

Floats = NDArray[np.float64]
Codes = NDArray[np.int8]

CURVE_SHARE = 0.1  # of the smaller budget: even so the curve's error moves a bound by some 6 % only (simulated)
POWER_NEEDED = 0.8  # planned power from which a garbage rule that does not come out KEEP is a fault


class Verdict(IntEnum):
    """What the interval says against the region of practical equivalence (ROPE)."""

    REJECT = -1  # wholly below it
    NEUTRAL = 0  # inside it
    KEEP = 1  # wholly above it
    UNDECIDED = 2


class Reason(IntEnum):
    """Why a verdict is what it is."""

    INTERVAL = 0
    GOLD = 1  # the bits per byte of gold answers do not agree in sign, or are not known
    RATES = 2  # a second learning rate gives the other sign
    RUNGS = 3  # an earlier rung decided the opposite


SAYS = {
    Reason.INTERVAL: "the interval decides",
    Reason.GOLD: "gold-answer bits per byte do not agree in sign, or were not measured",
    Reason.RATES: "a second learning rate gives the opposite sign, or has not run",
    Reason.RUNGS: "an earlier rung decided the opposite",
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How often an experiment may be wrong, and among how many arms and rungs; fixed before the first look.

    `arms` is room for all arms that the experiment may ever get, without placebos: an arm beyond it would need
    intervals that were not promised. Raises InputError where a number makes no sense.
    """

    arms: int
    placebos: int = 0
    rungs: int = 1
    error: float = 0.05
    placebo_error: float = 0.01

    def __post_init__(self) -> None:
        sound = all(0 < error < 1 for error in (self.error, self.placebo_error))
        if min(self.arms, self.rungs) < 1 or self.placebos < 0 or not sound:
            raise InputError(f"{self} needs an arm and a rung at least and errors between 0 and 1.")

    @property
    def arm_level(self) -> float:
        """Level of each arm's interval at each rung."""
        return (1 - CURVE_SHARE) * self.error / (self.arms * self.rungs)

    @property
    def placebo_level(self) -> float:
        """Level of each placebo's interval at each rung."""
        return (1 - CURVE_SHARE) * self.placebo_error / (max(self.placebos, 1) * self.rungs)

    @property
    def curve_level(self) -> float:
        """Level of each half of the control's curve at each rung, inside either budget."""
        return CURVE_SHARE * min(self.error, self.placebo_error) / (2 * self.rungs)


def rope_in_doublings(share: float) -> float:
    """Return log2(1 + share): a ROPE of 1 % of the tokens is +-0.0144 doublings."""
    return math.log2(1 + share)


@dataclass(frozen=True, kw_only=True)
class Runs:
    """A metric of the runs so far at one rung, higher better, NaN where there is none.

    `values` [..., arms, seeds]; `endpoints` [..., 3, seeds]: the control's at `effects.ENDPOINTS` of the budget, of
    which the second, which all its seeds have, is what arms are compared with.
    """

    values: Floats
    endpoints: Floats

    @property
    def control(self) -> Floats:
        """The control at the arms' budget, [..., seeds]."""
        return self.endpoints[..., 1, :]


def intervals(
    runs: Runs,
    design: Design,
    curve_level: float,
    *,
    bank: Variance = UNKNOWN,
    doubling_bank: Variance = UNKNOWN,
    other_seeds: bool = False,
) -> Interval:
    """Return each arm's interval in doublings of tokens, [..., arms], at `design.level` and for every look.

    `design` is the one planned, whatever of it has run; given the placebos' level it returns theirs. The banks are
    those of the design's kind of noise ("pair" where seeds are shared, else "run") and of "doubling". All intervals
    hold where the curve's two do. `other_seeds`: unpaired even where seeds are shared, for an A/A placebo (and its bank
    is of "run").
    """
    shared, rho = design.shared and not other_seeds, design.rung.rho if design.shared else 0.0
    if shared:
        effects, planned = paired_effects(runs.values, runs.control), design
    else:
        effects = unpaired_effects(runs.values, runs.control, rho=rho)
        planned = replace(design, rung=replace(design.rung, rho=0.0))
    raw = sequence(effects, moderated(effects.own, effects.others, bank), planned.mixture)
    noise = noise_of_all(runs.values, runs.control, paired=shared, rho=rho)
    halves = gains(runs.endpoints, Variance(value=noise.value * (1 if shared else 2), df=noise.df))
    both = sequence(halves, moderated(halves.own, halves.others, doubling_bank), curve_mixture(design, curve_level))
    below, above = (
        Interval(estimate=both.estimate[..., [i]], low=both.low[..., [i]], high=both.high[..., [i]]) for i in (0, 1)
    )
    return token_equivalents(raw, Curve(below=below, above=above))


def decided(interval: Interval, rope: float) -> Codes:
    """Return the Verdict of each interval in doublings against +-rope, its bounds belonging to the ROPE.

    NEUTRAL is the equivalence test by inclusion of the interval (Schuirmann 1987), at every look.
    """
    keep, reject = interval.low > rope, interval.high < -rope
    neutral = (interval.low >= -rope) & (interval.high <= rope)
    codes = np.select([keep, reject, neutral], [Verdict.KEEP, Verdict.REJECT, Verdict.NEUTRAL], Verdict.UNDECIDED)
    return codes.astype(np.int8)


def settled(
    codes: Codes, *, rope: float, gold: Floats, second: Interval | None = None, earlier: Codes | None = None
) -> tuple[Codes, Codes]:
    """Return the verdicts that stand against doubts, UNDECIDED for the others, and the first Reason of each.

    `gold`: the effects on gold-answer bits per byte, higher better, NaN where not measured: KEEP needs a positive one.
    `second`: the intervals at a second learning rate, NaN where not run: KEEP and REJECT need its estimate's sign,
    NEUTRAL that it does not decide otherwise (rankings of data can flip with the learning rate: Wang et al.,
    arXiv:2512.24503). `earlier`: verdicts at a smaller rung, of which none may be the opposite.
    """
    keep, reject, neutral = (codes == verdict for verdict in (Verdict.KEEP, Verdict.REJECT, Verdict.NEUTRAL))
    reasons = np.zeros(codes.shape, np.int8)
    if earlier is not None:
        opposite = (keep & (earlier == Verdict.REJECT)) | (reject & (earlier == Verdict.KEEP))
        reasons[opposite] = Reason.RUNGS
    if second is not None:
        other = decided(second, rope)
        moved = neutral & ((other == Verdict.KEEP) | (other == Verdict.REJECT))
        reasons[(keep & ~(second.estimate > 0)) | (reject & ~(second.estimate < 0)) | moved] = Reason.RATES
    reasons[keep & ~(gold > 0)] = Reason.GOLD
    return np.where(reasons == Reason.INTERVAL, codes, np.int8(Verdict.UNDECIDED)), reasons


@dataclass(frozen=True, kw_only=True)
class Placebo:
    """An arm of which the truth is known, and what came of it.

    `same`: the control's documents with other seeds (one with its seeds would be the control, bit for bit; so its
    effect is unpaired, whatever the design); `random`: the same fraction removed at random; `garbage`: planted garbage
    that the rule removes exactly, with the power that was planned for it at its last look.
    """

    name: str
    kind: Literal["same", "random", "garbage"]
    verdict: Verdict
    power: float | None = None
    looks_left: bool = False


def placebo_faults(placebos: Sequence[Placebo], power_needed: float = POWER_NEEDED) -> tuple[str, ...]:
    """Return a sentence for each placebo that came out wrong; any one voids the verdicts.

    A sound experiment has a fault of the first two kinds with probability `Budget.placebo_error` at most. The third
    fails with probability 1 - power: plan it for 0.99 and it stays within that budget too; the sentence says what was
    planned.
    """
    return tuple(sentence for placebo in placebos if (sentence := fault(placebo, power_needed)) is not None)


def fault(placebo: Placebo, power_needed: float) -> str | None:
    """Return what is wrong with a placebo, None where nothing is (yet)."""
    named = placebo.verdict.name
    if placebo.kind != "garbage":
        if placebo.verdict not in (Verdict.KEEP, Verdict.REJECT):
            return None
        return (
            f"{placebo.name} changes nothing that matters and came out {named}: there is more noise than was taken for "
            "granted. Calibrate the rung's learning rate, then run more seeds."
        )
    if placebo.verdict == Verdict.KEEP or placebo.looks_left or placebo.power is None or placebo.power < power_needed:
        return None
    return (
        f"{placebo.name} removes planted garbage and came out {named}; a sound experiment sees it with probability "
        f"{placebo.power:.2f}. Look at the pool, the panel and the rung's learning rate."
    )


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is said of one arm: the verdict that stands, why, and the interval in doublings."""

    name: str
    verdict: Verdict
    reason: Reason
    estimate: float
    low: float
    high: float
    next_look: NextLook | None = None  # where UNDECIDED


def said(finding: Finding) -> str:
    """Return a finding in one line for a person."""
    line = f"{finding.name}: {finding.verdict.name}, {spelled(finding.estimate)} tokens "
    line += f"[{bound(finding.low)}, {bound(finding.high)}]"
    if finding.reason != Reason.INTERVAL:
        line += f"; {SAYS[finding.reason]}"
    if finding.next_look is not None:
        price, seeds = finding.next_look.cost, finding.next_look.seeds
        until = "too close to the ROPE to be decided" if seeds is None else f"decided after {seeds} if it stays there"
        line += f"; one more seed costs {price.tokens:.3g} tokens, {price.hours:.2g} device hours; {until}"
    return line


def bound(doublings: float) -> str:
    """Return a bound for a person: a share of the tokens, or that there is none."""
    return "unbounded" if math.isinf(doublings) else spelled(doublings)
