"""What the looks at an experiment have found so far, as Results (infra/experiment_results.py): a pure function of the
state of its runs, but for the items of tasks, which are read from the store when it has ended.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import cast

import numpy as np

from infra.ablate import PILOT, RungState, State, compared, control_seeds, last_rung, run_of, seeds_of, table_of, value
from infra.experiment_arms import ArmPlan, Kind, by_size
from infra.experiment_plan import Plan, added
from infra.experiment_results import (
    FORMAT,
    ArmNoise,
    ArmResult,
    Bounds,
    Point,
    Results,
    RungResult,
    RunResult,
    VerdictName,
)
from infra.experiment_tasks import task_intervals
from proxy_eval.confidence import wider
from proxy_eval.effects import ENDPOINTS, Interval, Pairing, decision_accuracy, pairing, share_of_tokens
from proxy_eval.experiment import CONTROL
from proxy_eval.looks import Beside, beside, intervals_against
from proxy_eval.noise_bank import DISAGREEMENT
from proxy_eval.planner import ENDPOINT_TOKENS, Cost, neutral_power, smallest_effect
from proxy_eval.verdict import SAYS, Finding, Reason, Verdict, said

Shown = Mapping[int, Mapping[str, Beside]]
"""Effects of the last look by rung and metric."""


def results_of(state: State) -> Results:
    """What the looks so far have found."""
    plan, experiment = state.plan, state.plan.experiment
    shown = {rung.plan.number: shown_of(plan, rung) for rung in state.rungs}
    resampled = task_intervals(state) if state.finished else {}

    def of_kind(*kinds: Kind) -> tuple[ArmResult, ...]:
        return tuple(arm_result(state, arm, shown, resampled.get(arm.name, {})) for arm in plan.of_kind(*kinds))

    return Results(
        format=FORMAT,
        name=experiment.name,
        says=experiment.says,
        status="void" if state.faults else "finished" if state.finished else "running",
        faults=state.faults,
        experiment=experiment.model_dump(mode="json"),
        experiment_sha256=experiment.sha256,
        identity=plan.identity,
        metric=experiment.metric,
        rope=experiment.rope,
        error=experiment.error,
        placebo_error=experiment.placebo_error,
        room=experiment.budget.arms,
        arms=of_kind("arm"),
        matched=of_kind("matched"),
        placebos=of_kind("same", "random", "garbage"),
        control=of_kind("control")[0],
        rungs=tuple(rung_result(state, rung, shown) for rung in state.rungs),
        planned=plan.cost,
        actual=added(actual_cost(rung) for rung in state.rungs),
        notes=plan.notes,
    )


def metrics_of(rung: RungState) -> list[str]:
    """Every metric that the rung's runs were measured by."""
    return sorted({name for one in rung.measured.values() for end in one.ends for name in end})


def shown_of(plan: Plan, rung: RungState) -> dict[str, Beside]:
    """Effects on every metric, of the last look."""
    if rung.looks == 0:
        return {}
    rate = rung.plan.rates[0]
    return {metric: beside(table_of(plan, rung, metric, rate), rung.design, rung.fixed) for metric in metrics_of(rung)}


def arm_result(state: State, arm: ArmPlan, shown: Shown, resampled: Mapping[str, Interval]) -> ArmResult:
    """One arm at the last rung that met it; `resampled`: what a bootstrap says of its tasks and gold answers."""
    now, metric = last_rung(state, arm), state.plan.experiment.metric
    finding, look = found_of(state, arm, now)
    beside, at = ({}, None) if now is None else (shown[now.plan.number], row(state.plan, arm))
    effects = {} if at is None else {name: effect_of(one, at, resampled.get(name)) for name, one in beside.items()}
    main = None if at is None else beside.get(metric)
    noise = None if main is None or at is None else noise_of(main, at)
    return ArmResult(
        name=arm.name,
        kind=arm.kind,
        mask=arm.said,
        pool=arm.pool_sha256,
        rule_in="base" if arm.in_base else "arm",
        documents=arm.reads.documents,
        tokens=arm.reads.tokens,
        epochs=arm.epochs((state.plan.rungs[0] if now is None else now.plan).said.tokens),
        yields=arm.changes,
        rung=None if now is None else now.plan.number,
        seeds=0 if now is None else len(compared(now, arm)),
        look=look,
        verdict=cast(VerdictName, finding.verdict.name),
        reason=SAYS[finding.reason],
        says=line_of(arm, finding, noise),
        doublings=bounds(finding.estimate, finding.low, finding.high),
        share=shares(finding.estimate, finding.low, finding.high),
        second=None if now is None or arm.name not in now.second else bounds(*now.second[arm.name]),
        **matched_bounds(state.plan, now, arm),
        effect=effects.get(metric, UNKNOWN),
        gold=effects.get("gold", UNKNOWN),
        domains={name.removeprefix("panel/"): one for name, one in effects.items() if name.startswith("panel/")},
        tasks={name: one for name, one in effects.items() if "/" in name and not name.startswith("panel/")},
        resampled=bool(resampled),
        shrunk=None if main is None or at is None else float(np.clip(main.shrunk[at], -1, 1)),
        discovery=None if main is None or at is None else float(main.discovery[at]),
        equivalence=None if main is None or at is None else float(main.equivalence[at]),
        noise=noise,
        next_look=None if finding.next_look is None else asdict(finding.next_look),
        runs=tuple(run for rung in state.rungs for run in run_results(rung, arm, metric)),
    )


def line_of(arm: ArmPlan, finding: Finding, noise: ArmNoise | None) -> str:
    """What is said of an arm in one line."""
    if arm.kind == "control":
        return f"{arm.name}: what all are compared with"
    if noise is None or not noise.noisier:
        return said(finding)
    return (
        f"{said(finding)}; its runs scatter {noise.deviation / noise.others:.1f} times as much as the others' "
        f"(p = {noise.p_value:.1g}): do not believe what is said of it"
    )


def found_of(state: State, arm: ArmPlan, now: RungState | None) -> tuple[Finding, int | None]:
    """What is said of an arm, and the look that said it; of an arm that no look has decided, its interval and what
    withholds its verdict so far.
    """
    blank = Finding(
        name=arm.name,
        verdict=Verdict.UNDECIDED,
        reason=Reason.INTERVAL,
        estimate=math.nan,
        low=-math.inf,
        high=math.inf,
    )
    if now is None or arm.kind == "control":
        return blank, None
    if arm.name in now.decided:
        return now.decided[arm.name]
    estimate, low, high = now.intervals[arm.name]
    verdict = next((one.verdict for one in now.placebos if one.name == arm.name), Verdict.UNDECIDED)
    reason = now.withheld.get(arm.name, Reason.INTERVAL)
    return Finding(name=arm.name, verdict=verdict, reason=reason, estimate=estimate, low=low, high=high), None


def row(plan: Plan, arm: ArmPlan) -> int | None:
    """Where an arm stands in tables; the control does not."""
    names = [one.name for one in plan.arms if one.kind != "control"]
    return names.index(arm.name) if arm.name in names else None


def effect_of(one: Beside, at: int, resampled: Interval | None) -> Bounds:
    """Delta on one metric, at one look: the wider of two intervals where items were drawn anew."""
    parts = one.interval.estimate[at], one.interval.low[at], one.interval.high[at]
    if resampled is None:
        return bounds(*parts)
    both = wider(Interval(estimate=parts[0], low=parts[1], high=parts[2]), resampled)
    return bounds(float(both.estimate), float(both.low), float(both.high))


def noise_of(one: Beside, at: int) -> ArmNoise | None:
    """How an arm's noise compares with that of the others; None where either is unknown."""
    own, others, p = one.effects.own, one.effects.others, float(one.alike[at])
    if min(own.df[at], others.df[at]) <= 0 or others.value[at] <= 0:
        return None
    mine, theirs = math.sqrt(own.value[at]), math.sqrt(others.value[at])
    return ArmNoise(deviation=mine, others=theirs, p_value=p, noisier=mine > theirs and p < DISAGREEMENT)


def bounds(estimate: float, low: float, high: float) -> Bounds:
    """With None for what is not known, and an estimate beyond the curve's range at its end."""
    known = None if math.isnan(estimate) else float(estimate)
    if known is not None and math.isinf(known):
        known = math.copysign(1.0, known)
    return Bounds(
        estimate=known,
        low=float(low) if math.isfinite(low) else None,
        high=float(high) if math.isfinite(high) else None,
    )


UNKNOWN = Bounds(estimate=None, low=None, high=None)


def shares(*doublings: float) -> Bounds:
    """Doublings as shares of the tokens."""
    found = bounds(*doublings)
    each = (found.estimate, found.low, found.high)
    estimate, low, high = (None if one is None else float(share_of_tokens(np.asarray(one))) for one in each)
    return Bounds(estimate=estimate, low=low, high=high)


def matched_bounds(plan: Plan, now: RungState | None, arm: ArmPlan) -> dict[str, Bounds | None]:
    """In doublings, the random removal that is matched to the arm, and the arm against it; None where none has run.

    Both as of the last look, for the removal goes on as long as its arm does.
    """
    removals = [] if now is None else [one for one in plan.of_kind("matched") if compared(now, one)]
    beside = next((one for one in removals if one.of == arm.name), None)
    if now is None or beside is None:
        return {"matched": None, "against_matched": None}
    at, other = row(plan, arm), row(plan, beside)
    assert at is not None and other is not None, "neither is the control"
    table = table_of(plan, now, plan.experiment.metric, now.plan.rates[0])
    found = intervals_against(table, other, now.design, plan.experiment.budget, now.fixed)
    to_control, to_arm = bounds(*now.intervals[beside.name]), bounds(found.estimate[at], found.low[at], found.high[at])
    # The removal is of the larger: what it costs is told from there, and what more there is between it and the smaller.
    smaller, _ = by_size(arm, plan.arm(CONTROL))
    matched, against = (to_control, to_arm) if smaller is arm else (to_arm, to_control)
    return {"matched": matched, "against_matched": against}


def run_results(rung: RungState, arm: ArmPlan, metric: str) -> list[RunResult]:
    """The runs of an arm at a rung; the control's endpoints one by one."""
    seeds, found = seeds_of(rung, arm), []
    for run in sorted((one for one in rung.measured if one.arm == arm.name), key=lambda one: (-one.rate, one.seed)):
        for at, label in enumerate(rung.measured[run].labels):
            end = at + 1 - rung.measured[run].middle
            found.append(
                RunResult(
                    rung=run.rung,
                    learning_rate=run.rate,
                    seed=run.seed,
                    tokens=rung.plan.training.budgets[end],
                    label=label,
                    metric=value(rung, run, metric, end),
                    gold=value(rung, run, "gold", end),
                    pilot=run.seed not in seeds,
                )
            )
    return found


def rung_result(state: State, rung: RungState, shown: Shown) -> RungResult:
    """One rung."""
    plan, metric, design = rung.plan, state.plan.experiment.metric, rung.design
    ends = [run for run in (run_of(rung, CONTROL, seed) for seed in control_seeds(rung)) if run.ends]
    last = shown[state.rungs[-1].plan.number].get(metric)
    return RungResult(
        number=plan.number,
        name=plan.name,
        size=plan.said.size,
        tokens=plan.said.tokens,
        learning_rates=plan.rates,
        calibration=plan.expected.calibration,
        seeds=plan.said.seeds,
        looks=rung.looks,
        shared=design.shared,
        control_seeds=len(control_seeds(rung)),
        fixed=rung.fixed,
        level=design.level,
        smallest=plan.smallest,
        smallest_measured=None if rung.fixed.rho_low is None else smallest_effect(design),
        neutral=neutral_power(design),
        curve=tuple(
            Point(tokens=tokens, values=tuple(value(rung, run, metric, at) for run in ends))
            for at, tokens in enumerate(round(share * plan.said.tokens) for share in ENDPOINTS)
        ),
        pairing=pairing_of(state.plan, rung),
        spread={name: one.deviation for name, one in shown[plan.number].items()},
        snr={name: one.snr for name, one in shown[plan.number].items()},
        decision_accuracy=accuracies(state.plan, shown[plan.number], last),
        planned=plan.cost,
        actual=actual_cost(rung),
    )


def pairing_of(plan: Plan, rung: RungState) -> Pairing | None:
    """The correlation of runs of one seed: of the control and the placebos that ran all looks; None where two looks are
    not there.
    """
    table = table_of(plan, rung, plan.experiment.metric, rung.plan.rates[0])
    rows = [table.runs.values[table.names.index(name)] for name in PILOT if name != CONTROL]
    blocks = np.stack([*rows, table.runs.control])
    return pairing(blocks) if np.isfinite(blocks).all(axis=0).sum() > 1 else None


def accuracies(plan: Plan, here: Mapping[str, Beside], last: Beside | None) -> dict[str, float]:
    """Of each metric the share of pairs of arms that it orders as the last rung does; empty below two arms."""
    found = {}
    judged = [at for at in (row(plan, arm) for arm in plan.of_kind("arm")) if at is not None]
    for name, one in here.items():
        if last is None:
            continue
        both = [at for at in judged if np.isfinite([one.effects.estimate[at], last.effects.estimate[at]]).all()]
        if len(both) > 1:
            found[name] = decision_accuracy(one.effects.estimate[both], last.effects.estimate[both])
    return found


def actual_cost(rung: RungState) -> Cost:
    """What the rung's runs took, from their own speeds."""
    hours = sum(one.hours for one in rung.measured.values())
    budgets = len(rung.measured) + ENDPOINT_TOKENS * sum(run.ends for run in rung.measured)
    return Cost(
        runs=len(rung.measured),
        tokens=budgets * rung.plan.said.tokens,
        hours=hours,
        money=hours * rung.design.rung.price_per_hour,
    )
