"""How a signal is distributed over a corpus, and where a reference corpus separates from it.

FineWeb chose its own thresholds so: it compared some fifty numbers over a better and a worse corpus, and cut where that
makes the worse one resemble the better (arXiv 2406.17557, 3.6). Here the cut follows from one figure: of all bounds the
one for which `share of the pool removed - worth * share of the reference removed` is largest, that is the place where
the pool's excess falls below `worth` to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BINS = 40
CURVE_POINTS = 101
# Counts have long tails: where the 99.5th percentile is 20 times the median, bins are even in log10(1 + value).
LOG_RATIO = 20.0
OUTER = 0.005  # the share on each side beyond which values fall into the outermost bin


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Values of one signal over some documents, in ascending order, with a weight for each (its tokens).

    Undefined values (a ratio over nothing) and missing ones (no text) are counted apart.
    """

    values: Floats
    weights: Floats
    undefined: int
    undefined_weight: float
    missing: int

    @property
    def count(self) -> int:
        """Documents with a value."""
        return len(self.values)

    def removed(self, *, low: float | None = None, high: float | None = None) -> tuple[float, float]:
        """The shares of documents and of weight that lie below `low` or above `high`; of those with a value."""
        if not len(self.values):
            return 0.0, 0.0
        first = 0 if low is None else int(np.searchsorted(self.values, low, side="left"))
        last = self.count if high is None else int(np.searchsorted(self.values, high, side="right"))
        last = max(first, last)
        kept = float(self.weights[first:last].sum())
        return 1 - (last - first) / self.count, 1 - kept / max(float(self.weights.sum()), 1e-300)


def sample_of(values: Floats, missing: npt.NDArray[np.bool_], weights: Floats) -> Sample:
    """Sort the values of some documents; NaN is undefined unless it is `missing`."""
    there = ~np.isnan(values)
    order = np.argsort(values[there], kind="stable")
    return Sample(
        values=values[there][order],
        weights=weights[there][order],
        undefined=int((~there & ~missing).sum()),
        undefined_weight=float(weights[~there & ~missing].sum()),
        missing=int(missing.sum()),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Histogram:
    """Shares of documents between `edges`; the outermost bins hold what lies beyond, too."""

    edges: Floats
    shares: tuple[Floats, ...]
    log: bool


def histogram(samples: Sequence[Sample]) -> Histogram:
    """One histogram of several samples with common bins, fewer where values lie too close for `BINS`. Needs a value in
    at least one.
    """
    ends = [np.quantile(one.values, [OUTER, 0.5, 1 - OUTER]) for one in samples if one.count]
    low, high = min(end[0] for end in ends), max(end[2] for end in ends)
    median = max(end[1] for end in ends)
    log = bool(low >= 0 and high > LOG_RATIO * max(median, 1e-9) and high > LOG_RATIO)
    if low == high:
        high = low + max(1.0, float(np.spacing(abs(low))))
    edges = np.unique(
        np.power(10.0, np.linspace(np.log10(1 + low), np.log10(1 + high), BINS + 1)) - 1
        if log
        else np.linspace(low, high, BINS + 1)
    )
    shares = tuple(
        np.histogram(np.clip(one.values, edges[0], edges[-1]), edges)[0] / max(1, one.count) for one in samples
    )
    return Histogram(edges=edges, shares=shares, log=log)


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """At each of `at`, ascending: the share of documents, and of weight, whose value is smaller, and not larger."""

    at: Floats
    smaller: Floats
    smaller_weight: Floats
    not_larger: Floats
    not_larger_weight: Floats


def retention(sample: Sample) -> Curve:
    """The curve at the percentiles of the sample: `low` = x keeps 1 - smaller, `high` = x keeps not_larger."""
    if not sample.count:
        empty = np.zeros(0)
        return Curve(at=empty, smaller=empty, smaller_weight=empty, not_larger=empty, not_larger_weight=empty)
    at = np.unique(np.quantile(sample.values, np.linspace(0, 1, CURVE_POINTS), method="inverted_cdf"))
    cumulated = np.concatenate([[0.0], np.cumsum(sample.weights)]) / max(float(sample.weights.sum()), 1e-300)
    before, upto = (np.searchsorted(sample.values, at, side=side) for side in ("left", "right"))
    return Curve(
        at=at,
        smaller=before / sample.count,
        smaller_weight=cumulated[before],
        not_larger=upto / sample.count,
        not_larger_weight=cumulated[upto],
    )


def distance(pool: Sample, reference: Sample) -> float:
    """The first Wasserstein distance of the two, in units of the pooled standard deviation; 0 where nothing varies."""
    if not (pool.count and reference.count):
        return 0.0
    everything = np.concatenate([pool.values, reference.values])
    spread = float(everything.std())
    if spread == 0 or not np.isfinite(spread):
        return 0.0
    grid = np.unique(everything)
    shares = [np.searchsorted(one.values, grid[:-1], side="right") / one.count for one in (pool, reference)]
    return float(np.sum(np.abs(shares[0] - shares[1]) * np.diff(grid)) / spread)


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A bound that removes more of the pool than of the reference; shares are of documents with a value."""

    side: Literal["low", "high"]
    bound: float
    pool: float
    pool_weight: float
    reference: float
    reference_weight: float


def proposals(pool: Sample, reference: Sample, *, worth: float, tests: int) -> list[Proposal]:
    """At most one bound for each side, where the excess of the pool is beyond chance.

    `worth`: how many documents of the pool one of the reference is worth. Beyond chance: above the
    Dvoretzky-Kiefer-Wolfowitz band (Massart 1990) of both samples at 1 % over `tests` signals, and above 1 % of the
    pool.
    """
    if not (pool.count and reference.count):
        return []
    band = np.sqrt(np.log(2 * 2 * tests / 0.01) / 2)
    least = max(0.01, float(band / np.sqrt(pool.count) + worth * band / np.sqrt(reference.count)))
    grid = np.unique(np.concatenate([pool.values, reference.values]))
    found = []
    for side, at in (("low", "left"), ("high", "right")):
        below = [np.searchsorted(one.values, grid, side=at) / one.count for one in (pool, reference)]  # type: ignore[call-overload]
        gone = below if side == "low" else [1 - share for share in below]
        excess = gone[0] - worth * gone[1]
        best = int(excess.argmax()) if side == "low" else len(excess) - 1 - int(excess[::-1].argmax())
        if excess[best] <= least:
            continue
        bound = float(grid[best])
        limits = {side: bound}
        ours, theirs = pool.removed(**limits), reference.removed(**limits)
        found.append(
            Proposal(
                side="low" if side == "low" else "high",
                bound=bound,
                pool=ours[0],
                pool_weight=ours[1],
                reference=theirs[0],
                reference_weight=theirs[1],
            )
        )
    return found
