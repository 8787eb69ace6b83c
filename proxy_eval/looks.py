"""One look at the runs of a rung: intervals of every arm and placebo, and what is shown beside them.

A `Table` is one metric of the runs at one rung and learning rate, higher better. Intervals and estimates are of Delta,
with the rule minus without it: where the rule stands in the base, that is the control minus the arm, and an interval in
doublings of tokens is turned about 0. What fixes the intervals of all looks (`Fixed`) is taken from a pilot of the
control and two placebos over the same seeds, and never changed afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from filters.rule import Bools
from proxy_eval.confidence import equivalence, false_discovery_rates, fixed_interval, p_values, shrunk, standard_error
from proxy_eval.effects import (
    Effects,
    Interval,
    doublings,
    gain_worth,
    moments,
    noise_of_all,
    paired_effects,
    pairing,
    signal_to_noise,
    unpaired_effects,
)
from proxy_eval.noise_bank import KINDS, UNKNOWN, Entry, Variance, disagreement, family, moderated, pooled
from proxy_eval.planner import Design
from proxy_eval.verdict import Budget, Runs, intervals, rope_in_doublings

Floats = NDArray[np.float64]
LEVEL = 0.05  # of the intervals that set no verdict: one look, one arm


def higher_better(metric: str, value: float | None) -> float:
    """A metric's value with higher better, NaN where there is none. Bits per byte are the only ones to be turned."""
    if value is None:
        return float("nan")
    turned = metric == "gold" or metric.startswith("panel") or metric.endswith("/bits_per_byte")
    return -value if turned else value


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """`runs` of A arms (proxy_eval/verdict.py); `in_base` [A]: the rule stands in the control; `judged` [A]: arms that
    get a verdict; `placebo` [A] and, among these, `same` [A]: the control with other seeds.
    """

    names: tuple[str, ...]
    runs: Runs
    in_base: Bools
    judged: Bools
    placebo: Bools
    same: Bools


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """What was known of a rung before its first verdict, variances in squared units of the metric.

    rho: correlation of runs of one seed, with its 95 % interval where a pilot measured it; noise: variance of a run;
    gain: by twice the tokens; the rest are the noise bank's: of a run, of a paired difference, of a gain, each with its
    degrees of freedom (0: none).
    """

    rho: float
    rho_low: float | None
    rho_high: float | None
    noise: float
    gain: float
    run: tuple[float, float]
    pair: tuple[float, float]
    doubling: tuple[float, float]

    def bank(self, kind: str) -> Variance:
        """What the bank says of this kind of noise."""
        value, df = {"run": self.run, "pair": self.pair, "doubling": self.doubling}[kind]
        return Variance(value=np.asarray(value), df=np.asarray(df))


def fixed_by(
    design: Design,
    priors: Mapping[str, Variance],
    *,
    rho: float | None,
    values: Floats | None = None,
    endpoints: Floats | None = None,
) -> Fixed:
    """What the pilot says: `values` [runs of one seed, seeds], the control's first, and its `endpoints` [3, seeds].

    Without a pilot, and where its numbers make no sense (a gain that is none), what was planned stays.
    """
    noise, gain = float(design.rung.noise.value), design.rung.gain
    found, low, high = design.rung.rho if rho is None else rho, None, None
    if values is not None and endpoints is not None:
        together = pooled(family(moments(values)[2], correlation=0.0), priors["run"])
        measured = float(moments(endpoints[2] - endpoints[0])[1]) / 2
        noise = float(together.value) or noise
        gain = measured if measured > 0 else gain
        if rho is None and np.isfinite(values).all(axis=0).sum() >= 2:
            pairs = pairing(values)
            found, low, high = min(pairs.rho, 0.99), pairs.low, pairs.high
    run, pair, doubling = ((float(priors[kind].value), float(priors[kind].df)) for kind in KINDS)
    return Fixed(rho=found, rho_low=low, rho_high=high, noise=noise, gain=gain, run=run, pair=pair, doubling=doubling)


def settled_design(design: Design, fixed: Fixed) -> Design:
    """The design with what was measured of its rung in place of what was guessed."""
    noise = Variance(value=np.asarray(fixed.noise), df=np.asarray(fixed.run[1]))
    return replace(design, rung=replace(design.rung, rho=fixed.rho, noise=noise, gain=fixed.gain))


def arm_intervals(table: Table, design: Design, budget: Budget, fixed: Fixed) -> Interval:
    """The intervals of Delta in doublings, [A]: of arms at their level, of placebos at theirs; valid at every look."""
    bank, halves = fixed.bank("pair" if design.shared else "run"), fixed.bank("doubling")
    own = replace(table.runs, values=np.where(table.same[:, None], np.nan, table.runs.values))
    judged = intervals(own, design, budget.curve_level, bank=bank, doubling_bank=halves)
    placebo = replace(design, level=budget.placebo_level)
    tried = intervals(own, placebo, budget.curve_level, bank=bank, doubling_bank=halves)
    same = intervals(
        table.runs, placebo, budget.curve_level, bank=fixed.bank("run"), doubling_bank=halves, other_seeds=True
    )
    return turned(chosen(table.same, same, chosen(table.placebo, tried, judged)), table.in_base)


def intervals_against(table: Table, at: int, design: Design, budget: Budget, fixed: Fixed) -> Interval:
    """The intervals [A] of what arms are worth against arm `at`, in doublings, each valid at every look at its level.

    The arm and the control change places, so that all is as if everything had been compared with the arm from the
    beginning: within seeds where those are shared; otherwise with its few seeds, not the control's many. The curve is
    the control's, over those of the arm's seeds that have it, taken to be parallel to the arm's. Entry `at` is the
    control.
    """
    values, endpoints = table.runs.values.copy(), table.runs.endpoints
    place, values[at] = values[at].copy(), table.runs.control
    runs = Runs(values=values, endpoints=endpoints - endpoints[1] + place)
    return arm_intervals(replace(table, runs=runs), design, budget, fixed)


def chosen(where: Bools, first: Interval, second: Interval) -> Interval:
    """The first interval where it is asked for, else the second."""
    return Interval(
        estimate=np.where(where, first.estimate, second.estimate),
        low=np.where(where, first.low, second.low),
        high=np.where(where, first.high, second.high),
    )


def turned(interval: Interval, where: Bools) -> Interval:
    """The interval of the opposite difference where asked for."""
    sign = np.where(where, -1.0, 1.0)
    return Interval(
        estimate=sign * interval.estimate,
        low=np.where(where, -interval.high, interval.low),
        high=np.where(where, -interval.low, interval.high),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Beside:
    """What no verdict reads, [A]: Delta in units of the metric with 95 % intervals of one look and standard errors, its
    variances; `alike`: p-value of an F test that the arm's own variance is that of the others; and, of arms that are
    judged (NaN elsewhere), adjusted p-values of no effect (`discovery`, Benjamini & Hochberg), p-values that the effect
    is beyond the ROPE (`equivalence`, two one-sided tests: below 0.05 the 90 % interval lies inside), and estimates
    shrunk against the winner's curse, in doublings. Doublings and the ROPE are on the control's curve as it was found,
    without its error. `deviation`: standard deviation of a run, or of a paired difference where seeds are shared, of
    all arms together; `snr`: the largest difference between judged arms, the control among them, over it.
    """

    effects: Effects
    interval: Interval
    error: Floats
    discovery: Floats
    equivalence: Floats
    shrunk: Floats
    alike: Floats
    deviation: float
    snr: float


def beside(table: Table, design: Design, fixed: Fixed) -> Beside:
    """Effects on one metric, of one look."""
    effects = effects_of(table, design)
    noise = moderated(effects.own, effects.others, UNKNOWN)
    interval = turned(fixed_interval(effects, noise, LEVEL), table.in_base)
    error = standard_error(effects, noise)
    judged = table.judged & np.isfinite(error) & (error > 0) & np.isfinite(effects.estimate)
    discovery, equal, drawn = (np.full(len(judged), np.nan) for _ in range(3))
    if judged.any():
        below, above = moments(np.diff(table.runs.endpoints, axis=0))[1]
        edges = gain_worth(rope_in_doublings(design.rope) * np.array([-1.0, 1.0]), below, above)
        with np.errstate(divide="ignore", invalid="ignore"):  # of arms that are not judged
            discovery[judged] = false_discovery_rates(p_values(effects, noise)[judged])
            equal[judged] = equivalence(effects, noise, *edges)[judged]
        sign = np.where(table.in_base, -1.0, 1.0)[judged]
        raw = shrunk(effects.estimate[judged] * sign, error[judged]) * sign
        drawn[judged] = sign * doublings(raw, below, above)
    deviation = deviation_of_all(table, design)
    spread = np.append(effects.estimate[judged], 0.0)  # the control is one of them
    snr = float(signal_to_noise(spread, np.asarray(deviation))) if deviation > 0 and judged.any() else float("nan")
    return Beside(
        effects=effects,
        interval=interval,
        error=error,
        discovery=discovery,
        equivalence=equal,
        shrunk=drawn,
        alike=disagreement(effects.own, effects.others),
        deviation=deviation,
        snr=snr,
    )


def deviation_of_all(table: Table, design: Design) -> float:
    """Standard deviation of a run, or of a paired difference where seeds are shared; 0 where it is unknown."""
    away = table.same[:, None] & design.shared
    values = np.where(away, np.nan, table.runs.values)
    return float(np.sqrt(noise_of_all(values, table.runs.control, paired=design.shared).value))


def effects_of(table: Table, design: Design) -> Effects:
    """Effects of arm minus control: within seeds where they are shared (but for an A/A placebo), else between means."""
    values, control = table.runs.values, table.runs.control
    if not design.shared:
        return unpaired_effects(values, control)
    paired = paired_effects(np.where(table.same[:, None], np.nan, values), control)
    other = unpaired_effects(values, control, rho=design.rung.rho)

    def one(first: Floats, second: Floats) -> Floats:
        return np.where(table.same, second, first)

    return Effects(
        estimate=one(paired.estimate, other.estimate),
        unscaled=one(paired.unscaled, other.unscaled),
        own=Variance(value=one(paired.own.value, other.own.value), df=one(paired.own.df, other.own.df)),
        others=Variance(value=one(paired.others.value, other.others.value), df=one(paired.others.df, other.others.df)),
    )


def bank_entries(table: Table, design: Design, *, rung: str, metric: str, campaign: str) -> tuple[Entry, ...]:
    """What this rung has measured, for the noise bank: of runs, of paired differences, and of the control's gains."""
    runs, control = table.runs, table.runs.control
    _, _, each = moments(np.concatenate([runs.values, control[None]]))
    _, _, pairs = moments(np.where(table.same[:, None], np.nan, runs.values) - control)
    _, _, halves = moments(runs.endpoints[1:] - runs.endpoints[:-1])
    kinds = {"run": each, "doubling": halves} | ({"pair": pairs} if design.shared else {})
    return tuple(
        Entry(
            rung=rung,
            metric=metric,
            kind=kind,  # type: ignore[arg-type]
            campaign=campaign,
            values=tuple(found.value.tolist()),
            dfs=tuple(found.df.tolist()),
        )
        for kind, found in kinds.items()
    )
