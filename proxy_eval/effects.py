"""What a rule does to a metric: differences from the control, whether to pair, and their worth in tokens.

Values are arrays [..., arms, seeds] and the control's [..., seeds], one number for each run, NaN where there is none
(not yet run, or stopped); leading dimensions are independent experiments. Higher is better everywhere:
`looks.higher_better` turns the metrics of which less is better, and nothing else looks at a sign. Delta = with the rule
minus without it, whatever the design.

The model at one rung: y[a, s] = mu + Delta[a] + seed[s] + noise[a, s]. A *seed* is an initialisation and an order of
documents together. Where runs of one seed share enough of their luck (rho >= SHARED), the control runs just the arms',
differences are taken within seeds and seed[s] cancels: Var = 2 sigma^2 (1 - rho) / n (common random numbers; for
evaluations Miller, arXiv:2411.00640). Otherwise the control runs about sqrt(arms) times more seeds, the arms' among
them (Dunnett, JASA 50 (1955) 1096-1121), means are compared, and Var = sigma^2 (1/n + (1 - 2 rho) / n0), of which
2 rho / n0 is left out: rho is hardly known, and not below 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from filters.errors import InputError
from proxy_eval.noise_bank import PAIRS_SHARE, Variance, family, worth

Floats = NDArray[np.float64]

# With as many runs, pairs are the better from rho = 1 - (sqrt(A) + 1)^2 / (2 (A + 1)) on: 0.19 for 8 arms, 0.31 for 25.
SHARED = 0.3

ENDPOINTS = (0.5, 1.0, 2.0)  # budgets at which the control's runs are decayed and measured


@dataclass(frozen=True, kw_only=True)
class Effects:
    """What the runs say of each arm, [..., arms], in units of the metric; NaN and unscaled inf for an arm without runs.

    Var(estimate) = unscaled * variance, the variance being that of a paired difference (pairs) or of a run (no pairs):
    `own` is that variance from the arm's seeds alone, `others` from all the others'.
    """

    estimate: Floats
    unscaled: Floats
    own: Variance
    others: Variance


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and a bound on each side, of one shape; infinite where too little is known to bound it."""

    estimate: Floats
    low: Floats
    high: Floats


def paired_effects(values: Floats, control: Floats) -> Effects:
    """Return the effects from differences within seeds: the seeds that an arm and the control both ran."""
    count, mean, own = moments(values - control[..., None, :])
    return Effects(
        estimate=mean, unscaled=inverse(count), own=own, others=of_the_others(own, own, correlation=PAIRS_SHARE)
    )


def unpaired_effects(values: Floats, control: Floats, *, rho: float = 0.0) -> Effects:
    """Return the effects from means over the arm's seeds and over the control's, however many each has.

    What runs of one seed share makes them no less certain than is said.

    The control's variance counts among those of the others. `rho`: the correlation of runs of one seed where arms share
    seeds with each other, but not with the control: the design of an A/A placebo beside pairs.
    """
    count, mean, own = moments(values)
    control_count, control_mean, control_own = moments(control[..., None, :])
    return Effects(
        estimate=mean - control_mean,
        unscaled=inverse(count) + inverse(control_count),
        own=own,
        others=of_the_others(own, with_control(own, control_own), correlation=rho),
    )


def with_control(own: Variance, control: Variance) -> Variance:
    """Return the variances of the arms' runs and of the control's, [..., arms + 1]."""
    value, df = (np.concatenate(parts, axis=-1) for parts in ((own.value, control.value), (own.df, control.df)))
    return Variance(value=value, df=df)


def noise_of_all(values: Floats, control: Floats, *, paired: bool, rho: float = 0.0) -> Variance:
    """Return one variance [...] for all arms together, in whatever order they stand: of a paired difference, or of a
    run, the control's and those of arms that share rho of their variance.
    """
    if paired:
        return family(moments(values - control[..., None, :])[2], PAIRS_SHARE)
    return family(with_control(moments(values)[2], moments(control[..., None, :])[2]), rho)


def moments(values: Floats) -> tuple[Floats, Floats, Variance]:
    """Return count, mean (NaN of none) and variance over the last axis, which may hold NaN."""
    there = np.isfinite(values)
    count = there.sum(axis=-1).astype(np.float64)
    mean = np.where(
        count > 0, np.where(there, values, 0.0).sum(axis=-1) * np.where(count > 0, inverse(count), 0.0), np.nan
    )
    squares = np.where(there, (values - mean[..., None]) ** 2, 0.0).sum(axis=-1)
    df = np.maximum(count - 1, 0.0)
    return count, mean, Variance(value=np.divide(squares, df, out=np.zeros_like(df), where=df > 0), df=df)


def of_the_others(own: Variance, everyone: Variance, *, correlation: float) -> Variance:
    """Return for each arm the pooled variance of everyone but it, with the degrees of freedom that it is `worth`."""
    df = everyone.df.sum(axis=-1, keepdims=True) - own.df
    squares = (everyone.value * everyone.df).sum(axis=-1, keepdims=True) - own.value * own.df
    members = (everyone.df > 0).sum(axis=-1, keepdims=True) - (own.df > 0)
    value = np.divide(np.maximum(squares, 0.0), df, out=np.zeros_like(df), where=df > 0)
    return Variance(value=value, df=worth(df, members, correlation))


def inverse(count: Floats) -> Floats:
    """Return 1 / count, infinite of none."""
    return np.asarray(np.divide(1.0, count, out=np.full(np.shape(count), np.inf), where=count > 0))


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """How much of their luck runs of one seed share, with a 95 % interval, and the design that follows."""

    rho: float
    low: float
    high: float
    shared: bool


def pairing(runs: Floats, *, level: float = 0.05) -> Pairing:
    """Return the correlation of runs of one seed from complete blocks [arms and control, seeds].

    The intraclass correlation of a two-way layout with its F interval: Shrout & Fleiss, Psychological Bulletin 86
    (1979) 420-428, ICC(3,1). Raises InputError below two arms or two complete seeds.
    """
    blocks = runs[:, np.isfinite(runs).all(axis=0)]
    arms, seeds = blocks.shape
    if min(arms, seeds) < 2:
        raise InputError(
            f"rho needs two runs of each of two seeds, and here are {arms} runs of {seeds}: run more seeds."
        )
    centred = blocks - blocks.mean(axis=1, keepdims=True)
    by_seed = centred.mean(axis=0)
    between, within = seeds - 1, (seeds - 1) * (arms - 1)
    error = max(float(((centred - by_seed) ** 2).sum()) / within, np.finfo(np.float64).tiny)
    ratio = arms * float((by_seed**2).sum()) / between / error
    low = ratio / float(stats.f.isf(level / 2, between, within))
    high = ratio * float(stats.f.isf(level / 2, within, between))
    rho, low, high = ((f - 1) / (f + arms - 1) for f in (ratio, low, high))
    return Pairing(rho=rho, low=low, high=high, shared=rho >= SHARED)


def control_seeds(arms: int, seeds: int, *, shared: bool) -> int:
    """Return the number of the control's seeds: the arms', or the sqrt(arms) times more that make Var least."""
    return seeds if shared else math.ceil(math.sqrt(arms) * seeds)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What the control gains from half the budget to the budget (`below`) and from there to twice (`above`).

    Intervals of one shape that broadcasts over arms; token-equivalents hold where both of them do.
    """

    below: Interval
    above: Interval


def gains(endpoints: Floats, differences: Variance) -> Effects:
    """Return the control's gains [..., 2], below and above, from its decayed endpoints [..., 3, seeds].

    With few seeds their own noise is hardly known, so `others` is `differences` [...], the variance of a difference of
    two runs, of one seed where seeds are shared: two endpoints of one trunk have no more in common than that at worst.
    """
    count, mean, own = moments(endpoints[..., 1:, :] - endpoints[..., :-1, :])
    others = Variance(value=differences.value[..., None] * np.ones(2), df=differences.df[..., None] * np.ones(2))
    return Effects(estimate=mean, unscaled=inverse(count), own=own, others=others)


def doublings(gain: Floats, below: Floats, above: Floats) -> Floats:
    """Return u = log2 of the token-equivalent of a gain: the control needs 2^u times the tokens; +-inf beyond [-1, 1].

    The parabola in u = log2 tokens through the control's three endpoints: gain = b u + c u^2 with b = (below + above) /
    2 and c = (above - below) / 2. (Two straight lines would have two slopes at u = 0 and overrate every small gain: by
    11 % where loss falls as tokens^-0.3.) NaN where it does not rise throughout [-1, 1]: the rung is then of no use for
    token-equivalents.
    """
    known = np.isfinite(below) & np.isfinite(above)
    below, above = np.where(known, below, 0.0), np.where(known, above, 0.0)
    slope, bend = (below + above) / 2, (above - below) / 2
    rises = slope > 2 * np.abs(bend)
    inside = np.clip(gain, -below, above)
    root = np.sqrt(np.maximum(slope**2 + 4 * bend * inside, 0.0))
    u = 2 * inside / np.where(rises, slope + root, np.nan)
    return np.where(rises, np.where(gain > above, np.inf, np.where(gain < -below, -np.inf, u)), np.nan)


def gain_worth(u: Floats, below: Floats, above: Floats) -> Floats:
    """Return the gain that u doublings are worth within [-1, 1], which `doublings` turns back into u."""
    slope, bend = (below + above) / 2, (above - below) / 2
    return np.where(slope > 2 * np.abs(bend), slope * u + bend * u**2, np.nan)


def token_equivalents(interval: Interval, curve: Curve) -> Interval:
    """Return an interval of gains in doublings, the curve's error propagated; infinite where it bounds nothing.

    The steeper either half of the curve, the less a gain is worth, so the extremes over the curve's intervals lie at
    two corners, and the result holds whenever the gain's interval and the curve's both do: no normality, no
    linearisation. The estimate is +-inf beyond the range ("> +100 %"), a lower bound at most 1 and an upper one at
    least -1: more was not measured.
    """
    estimate = doublings(interval.estimate, curve.below.estimate, curve.above.estimate)
    steep, flat = (curve.below.high, curve.above.high), (curve.below.low, curve.above.low)
    low = np.where(interval.low > 0, doublings(interval.low, *steep), doublings(interval.low, *flat))
    high = np.where(interval.high > 0, doublings(interval.high, *flat), doublings(interval.high, *steep))
    return Interval(
        estimate=estimate,
        low=np.where(np.isnan(low), -np.inf, np.minimum(low, 1.0)),
        high=np.where(np.isnan(high), np.inf, np.maximum(high, -1.0)),
    )


def share_of_tokens(u: Floats) -> Floats:
    """Return doublings as a share of the tokens: 1 is +1.0 (100 % more), -1 is -0.5."""
    return np.expm1(u * math.log(2))


def spelled(u: float) -> str:
    """Return doublings for a person: +9.1 %, or > +100 % and < -50 % outside what the control measured."""
    if math.isnan(u):
        return "?"
    if math.isinf(u):
        return "> +100 %" if u > 0 else "< -50 %"
    return f"{round(100 * (2**u - 1), 1) + 0.0:+.1f} %"  # -0.0 + 0.0 is 0.0


def signal_to_noise(arms: Floats, noise: Floats) -> Floats:
    """Return the largest difference between the means of arms [..., arms] over the noise's standard deviation [...].

    Both relative to one mean, which cancels: Heineman et al., "Signal and Noise" (2025).
    """
    return np.asarray((arms.max(axis=-1) - arms.min(axis=-1)) / noise)


def decision_accuracy(small: NDArray[np.floating], target: NDArray[np.floating]) -> float:
    """Return the share of pairs of arms [arms] that differ in the same direction at both; equal pairs count half.

    Magnusson et al., DataDecide (2025). Raises InputError below two arms.
    """
    if len(small) < 2:
        raise InputError(f"Decision accuracy compares pairs of arms, and here are {len(small)}: give it two or more.")
    rows, columns = np.triu_indices(len(small), k=1)
    agreement = np.sign(small[rows] - small[columns]) * np.sign(target[rows] - target[columns])
    return float((1 + agreement).mean() / 2)
