"""How sure an effect is: intervals that hold at every look, and at one; tests, ranks and shrinkage beside them.

`sequence` sets verdicts; everything else is shown beside it. A *confidence sequence* holds at all looks at once, so a
campaign may be looked at after every seed and stopped whenever it pleases; a fixed-n interval holds at one look planned
beforehand.

Where it comes from. With t = (estimate - Delta) / standard error on nu degrees of freedom, v the unscaled variance of
the estimate, and Delta mixed over a normal law of variance m (in units of the noise variance) around the value tested,
the likelihood ratio is, with r = v / (v + m),

    M = sqrt(r) * ((1 + t^2 / nu) / (1 + r t^2 / nu)) ** ((nu + 1) / 2).

For normal noise of one variance with flat priors on every other mean and on log sigma it is a likelihood ratio of
maximal invariants, so a martingale with mean 1 under Delta, whichever that is: P(M ever >= 1/level) <= level (Ville
1939). The t-test: Lai, Ann. Statist. 4 (1976) 265-280, and Wang & Ramdas, "Anytime-valid t-tests and confidence
sequences for Gaussian means with unknown variance" (2023); linear models, which is pairs, controls and a pooled
variance at once: Lindon, Ham, Tingley & Bojinov, "Anytime-valid linear models" (2022). Known variance (nu infinite):
Robbins, Ann. Math. Statist. 41 (1970) 1397-1409; Howard, Ramdas, McAuliffe & Sekhon, Ann. Statist. 49 (2021) 1055-1080.
With a proper inverse-gamma prior on each arm's variance (`noise_bank.moderated`) it is the same formula, and holds on
average over arms like the prior's; that prior is itself estimated from the other arms, so
`tests/proxy_eval/test_calibration_by_simulation.py` says what remains true of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from proxy_eval.effects import Effects, Interval
from proxy_eval.noise_bank import Variance

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def standard_error(effects: Effects, noise: Variance) -> Floats:
    """Return the standard error of each estimate, infinite where its noise or the arm itself is unknown."""
    known = (noise.df > 0) & np.isfinite(effects.unscaled)
    return np.asarray(np.sqrt(np.where(known, noise.value, np.inf) * np.where(known, effects.unscaled, 1.0)))


def critical(level: float, df: Floats, share: Floats) -> Floats:
    """Return the |t| at which M reaches 1 / level for r = `share`; infinite where no t does: df too few for the level.

    M >= 1/level means (1 + t^2/nu) / (1 + r t^2/nu) >= k with k = (level^2 r)^(-1/(nu+1)): so t^2 = nu (k-1) / (1 - k
    r).
    """
    k = (level**2 * share) ** (-1 / (df + 1))
    bounded = (df > 0) & (k * share < 1)
    squared = np.divide(df * (k - 1), 1 - k * share, out=np.full(np.shape(k), np.inf), where=bounded)
    return np.asarray(np.sqrt(squared))


@lru_cache(maxsize=1024)
def best_share(level: float, df: float) -> float:
    """Return the r for which the sequence is narrowest at a look with these degrees of freedom.

    By search, to 1 %: the closed form for known variance (1 / r = -W_{-1}(-level^2 / e), Howard et al. 2021) is up to a
    quarter too wide at 5 degrees of freedom.
    """
    shares = np.geomspace(1e-9, 0.99, 2000)
    return float(shares[critical(level, np.asarray(df), shares).argmin()])


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What fixes a sequence before its first look: level, and the mixture's variance in units of the noise variance."""

    level: float
    variance: float


def planned_mixture(level: float, *, unscaled: float, df: float) -> Mixture:
    """Return the mixture whose sequence is narrowest at the look planned to decide, given its `unscaled` and df."""
    share = best_share(level, df)
    return Mixture(level=level, variance=unscaled * (1 - share) / share)


def sequence(effects: Effects, noise: Variance, mixture: Mixture) -> Interval:
    """Return intervals that hold at every look with probability 1 - level each; infinite where the noise is unknown."""
    share = 1 / (1 + mixture.variance / effects.unscaled)
    return around(effects, standard_error(effects, noise), critical(mixture.level, noise.df, share))


def fixed_interval(effects: Effects, noise: Variance, level: float) -> Interval:
    """Return t-intervals that hold at one look, planned beforehand, with probability 1 - level each."""
    quantile = stats.t.isf(level / 2, np.where(noise.df > 0, noise.df, 1.0))
    return around(effects, standard_error(effects, noise), quantile)


def around(effects: Effects, error: Floats, factor: Floats) -> Interval:
    """Return estimate -+ factor * error, unbounded where either is infinite or the arm has no runs."""
    known = np.isfinite(error) & np.isfinite(factor) & np.isfinite(effects.estimate)
    radius = np.where(known, np.where(known, error, 1.0) * np.where(known, factor, 1.0), np.inf)
    centre = np.where(known, effects.estimate, 0.0)
    return Interval(estimate=effects.estimate, low=centre - radius, high=centre + radius)


def equivalence(effects: Effects, noise: Variance, low: Floats, high: Floats) -> Floats:
    """Return the p-value that the effect is not between low and high: the larger of two one-sided t-tests, at one look.

    TOST: Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987) 657-680.
    """
    error = standard_error(effects, noise)
    df = np.where(noise.df > 0, noise.df, 1.0)
    above, below = stats.t.sf((effects.estimate - low) / error, df), stats.t.cdf((effects.estimate - high) / error, df)
    return np.asarray(np.maximum(above, below))


def p_values(effects: Effects, noise: Variance) -> Floats:
    """Return two-sided p-values of no effect at one look."""
    df = np.where(noise.df > 0, noise.df, 1.0)
    return np.asarray(2 * stats.t.sf(np.abs(effects.estimate) / standard_error(effects, noise), df))


def false_discovery_rates(p: Floats) -> Floats:
    """Return Benjamini-Hochberg adjusted p-values over the last axis; exploratory, no verdict reads them.

    Benjamini & Hochberg, J. R. Statist. Soc. B 57 (1995) 289-300.
    """
    return np.asarray(stats.false_discovery_control(p, axis=-1, method="bh"))


def shrunk(estimate: Floats, error: Floats) -> Floats:
    """Return the estimates [arms] drawn towards their mean as far as their spread is noise: against the winner's curse.

    Empirical Bayes for unequal variances, estimated by moments with the factor (k - 3) / (k - 1) for having estimated
    them: Morris, JASA 78 (1983) 47-55. Left as they are below four arms, which say nothing of a spread.
    """
    used = np.isfinite(estimate) & np.isfinite(error) & (error > 0)
    k = int(used.sum())
    if k < 4:
        return estimate.copy()
    y, variance, spread = estimate[used], error[used] ** 2, 0.0
    for _ in range(100):
        weight = 1 / (variance + spread)
        mean = (weight * y).sum() / weight.sum()
        found = max(0.0, (weight * (k / (k - 1) * (y - mean) ** 2 - variance)).sum() / weight.sum())
        if abs(found - spread) <= 1e-9 * variance.mean():
            break
        spread = found
    factor = (k - 3) / (k - 1) * variance / (variance + spread)
    result = estimate.copy()
    result[used] = (1 - factor) * y + factor * mean
    return result


DRAWS = 2000  # the 2.5 % quantile then has a standard error of 0.35 points of probability
DRAWS_AT_ONCE = 128  # x 14,042 items of MMLU, were they drawn one by one, x 20 bytes: 36 MB


def seed_draws(seeds: int, generator: np.random.Generator, draws: int = DRAWS) -> Floats:
    """Return the share of each seed [draws, seeds] when as many as there are were drawn anew, with replacement."""
    return generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds


def item_draws(
    scores: NDArray[np.floating], weights: Floats, groups: Integers | None, generator: np.random.Generator
) -> Floats:
    """Return [metrics, draws]: sums over runs of scores [metrics, runs, items], each run's mean over items drawn anew,
    by `weights` [draws, runs] (`seed_draws`, negative for a control; differences within seeds are runs too).

    Every run and metric meets the same items, so what is hard for all cancels in differences. Seeds and items are drawn
    independently: Owen, "The pigeonhole bootstrap", Ann. Appl. Statist. 1 (2007) 386-411, never too narrow for crossed
    factors but for the few seeds, of whose variance n show (n - 1) / n: report `wider` of it and the t-interval.
    `groups` numbers what is drawn whole, such as MMLU's subjects (clustered errors: Miller, arXiv:2411.00640); None
    draws item by item. An item that lacks a metric (NaN) in any run is not among that metric's. With one generator's
    weights for all tasks the mean of their draws is that of a mean over tasks that are fixed.
    """
    metrics, runs, items = scores.shape
    there = np.isfinite(scores).all(axis=1)
    held = np.where(there[:, None], scores, 0.0).astype(np.float32)
    sizes = there.astype(np.float32)
    if groups is not None:
        order = np.argsort(groups, kind="stable")
        _, starts = np.unique(groups[order], return_index=True)
        held, sizes = (np.add.reduceat(each[..., order], starts, axis=-1) for each in (held, sizes))
    count = sizes.shape[1]
    flat, found = held.reshape(metrics * runs, count).T, np.empty((metrics, len(weights)))
    for first in range(0, len(weights), DRAWS_AT_ONCE):
        some = weights[first : first + DRAWS_AT_ONCE]
        picked = generator.integers(count, size=(len(some), count)) + count * np.arange(len(some))[:, None]
        drawn = np.bincount(picked.ravel(), minlength=picked.size).reshape(picked.shape).astype(np.float32)
        sums, asked = (drawn @ flat).reshape(len(some), metrics, runs), drawn @ sizes.T
        total = np.einsum("dmr,dr->dm", sums, some)
        means = np.divide(total, asked, out=np.full(total.shape, np.nan), where=asked > 0)
        found[:, first : first + len(some)] = means.T
    return found


def percentiles(draws: Floats, level: float) -> Interval:
    """Return the percentile intervals of draws [..., draws], around their medians."""
    low, middle, high = np.quantile(draws, [level / 2, 0.5, 1 - level / 2], axis=-1)
    return Interval(estimate=middle, low=low, high=high)


def wider(first: Interval, second: Interval) -> Interval:
    """Return the interval that holds two, around the first's estimate."""
    low, high = np.minimum(first.low, second.low), np.maximum(first.high, second.high)
    return Interval(estimate=first.estimate, low=low, high=high)


def item_error(accuracies: Sequence[Floats], items: Sequence[Integers], *, correlation: float | None = None) -> float:
    """Return the standard error of a mean of tasks that comes from which items were asked, as a share.

    A task is a mean of parts: accuracies and numbers of items, one or several (ARC easy and challenge, MMLU's
    subjects). With a correlation it is the error of a difference between two models over the same items, 0 for
    different items: Miller, arXiv:2411.00640.
    """
    variance = sum(float((a * (1 - a) / n).sum()) / len(a) ** 2 for a, n in zip(accuracies, items, strict=True))
    factor = 1.0 if correlation is None else 2 * (1 - correlation)
    return float(np.sqrt(variance * factor)) / len(accuracies)
