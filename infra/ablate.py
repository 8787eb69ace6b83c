"""The runs of an experiment, look after look: which are needed next, what they decide, and when to stop.

Looks follow each other in one fixed order, and what is measured comes from `measure`, which trains nothing that is
committed. So a command that was killed and is typed again goes through the same looks to the same verdicts. What must
not change later is put into the store if absent: what the experiment is, what was known of a rung before its first
verdict, every verdict once it is decided, what a placebo found wrong, and which arms were ever judged; an arm that is
added afterwards meets the same control and moves none.

A rung begins with a pilot: the control and two placebos over the same seeds, which measures how much of their luck
runs of one seed share, and so whether arms and control are compared seed by seed, or their means, the control's over
more seeds. Then every look adds a seed to each arm that is undecided. An interval that decides is doubted by a second
learning rate before its verdict stands. At a rung that is not the last, REJECT and NEUTRAL end an arm's way; KEEP and
UNDECIDED go on. A placebo that fails ends the experiment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from infra.experiment_arms import ArmPlan
from infra.experiment_plan import Plan, RungPlan
from infra.experiment_promises import check_looks, check_room, check_same, held, kept, key_of, note_look, with_rates
from infra.stored import Store
from proxy_eval.effects import Interval
from proxy_eval.experiment import CONTROL
from proxy_eval.looks import Fixed, Table, arm_intervals, effects_of, fixed_by, higher_better, settled_design
from proxy_eval.noise_bank import KINDS
from proxy_eval.planner import Design, next_look
from proxy_eval.verdict import (
    Finding,
    Placebo,
    Reason,
    Runs,
    Verdict,
    decided,
    placebo_faults,
    rope_in_doublings,
    settled,
)

Floats = NDArray[np.float64]
SAME_SEEDS = 20_000
"""The seeds of the A/A placebo come after these."""
PILOT = (CONTROL, "random", "garbage")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One model to train: `ends`, with the control's three endpoints, at the learning rate that sets verdicts."""

    rung: int
    arm: str
    rate: float
    seed: int
    ends: bool = False


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a run came to: its metrics by name at each budget (None: not measured, or it stopped), the models' labels,
    and device hours.
    """

    ends: tuple[Mapping[str, float | None], ...]
    labels: tuple[str, ...]
    hours: float

    @property
    def middle(self) -> int:
        """Which of them is at the arms' budget, with endpoints and without."""
        return len(self.labels) // 2


Measure = Callable[[Sequence[Run]], Sequence[Measured]]
"""Trains and scores what was never before; gives all in their order."""


@dataclass(kw_only=True)
class RungState:
    """A rung under way: the `looks` that were taken at it, and what they found so far. The control's first
    `curve_seeds` have endpoints, in pairs all.
    """

    plan: RungPlan
    fixed: Fixed
    design: Design
    curve_seeds: int
    measured: dict[Run, Measured] = field(default_factory=dict)
    looks: int = 0
    intervals: dict[str, tuple[float, float, float]] = field(default_factory=dict)  # estimate, low, high by arm
    second: dict[str, tuple[float, float, float]] = field(default_factory=dict)  # at the other rate, when last doubted
    withheld: dict[str, Reason] = field(default_factory=dict)  # by arm, of the last look at it; INTERVAL: by nothing
    decided: dict[str, tuple[Finding, int]] = field(default_factory=dict)  # with the look that did
    placebos: tuple[Placebo, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(kw_only=True)
class State:
    """An experiment under way, in a store."""

    plan: Plan
    store: Store
    rungs: list[RungState] = field(default_factory=list)
    finished: bool = False

    @property
    def faults(self) -> tuple[str, ...]:
        """What voids the verdicts."""
        return tuple(f"{rung.plan.name}: {one}" for rung in self.rungs for one in rung.faults)


def ablate(
    plan: Plan,
    store: Store,
    measure: Measure,
    *,
    on_look: Callable[[State], None],
) -> State:
    """Run the experiment to its end.

    `on_look` is told the state after each look, and once more at the end. Raises OutputError where the store has begun
    another experiment, or the same one with other expectations, where it has judged so many arms that there is no room
    for those of the plan, and where more looks were taken at a rung than the plan has seeds.
    """
    check_same(store, plan)
    check_room(store, plan)
    check_looks(store, plan)
    plan = replace(plan, experiment=with_rates(plan.experiment, [rung.rates for rung in plan.rungs]))
    state = State(plan=plan, store=store)
    active = [arm.name for arm in plan.of_kind("arm")]
    for rung in plan.rungs:
        now = begun(plan, rung, store, measure)
        state.rungs.append(now)
        going = list(active)
        while now.looks < rung.said.seeds and (going or not sees_garbage(now)) and not now.faults:
            now.looks += 1
            take(now, measure, needed(plan, now, going))
            look(state, now, measure, going)
            going = [name for name in going if name not in now.decided]
            on_look(state)
        last = rung is plan.rungs[-1]
        active = [name for name in active if last or goes_on(now, name)]
        if now.faults or not active:
            break
    state.finished = True
    on_look(state)
    return state


def begun(plan: Plan, rung: RungPlan, store: Store, measure: Measure) -> RungState:
    """A rung after its pilot; what that found is in force from then on."""
    said, name, priors = rung.said.expected, f"rung-{rung.number}", rung.expected.bank
    before = kept(store, name)
    seeds = 0 if said.rho is not None else plan.experiment.pilot if before is None else before["pilot"]
    state = RungState(
        plan=rung, fixed=fixed_by(rung.design, priors, rho=said.rho), design=rung.design, curve_seeds=seeds
    )
    if seeds:
        pilot = {arm: [run_of(state, arm, seed) for seed in range(1, seeds + 1)] for arm in PILOT}
        take(state, measure, chain.from_iterable(pilot.values()))
        metric = plan.experiment.metric
        values = np.array([[value(state, run, metric) for run in runs] for runs in pilot.values()])
        ends = np.array([[value(state, run, metric, at) for run in pilot[CONTROL]] for at in range(3)])
        state.fixed = fixed_by(rung.design, priors, rho=None, values=values, endpoints=ends)
    asked = {"fixed": asdict(state.fixed), "seeds": rung.said.seeds, "pilot": seeds}
    found = held(store, name, asked)
    banks = {kind: tuple(found["fixed"][kind]) for kind in KINDS}
    state.fixed = Fixed(**{**found["fixed"], **banks})
    state.design = settled_design(replace(rung.design, seeds=found["seeds"]), state.fixed)
    state.curve_seeds = max(state.design.curve_seeds, found["pilot"])
    return state


def last_rung(state: State, arm: ArmPlan) -> RungState | None:
    """The last rung whose looks have met an arm; None where none has."""
    met = [rung for rung in state.rungs if compared(rung, arm)]
    return met[-1] if met else None


def compared(state: RungState, arm: ArmPlan) -> dict[int, Measured]:
    """An arm's runs by seed, of those that the looks so far compare, at the learning rate that sets verdicts."""
    found = {seed: state.measured.get(run_of(state, arm.name, seed)) for seed in seeds_of(state, arm)}
    return {seed: one for seed, one in found.items() if one is not None}


def take(state: RungState, measure: Measure, runs: Iterable[Run]) -> None:
    """Have these runs measured, but for those that are."""
    todo = [run for run in dict.fromkeys(runs) if run not in state.measured]
    if todo:
        state.measured.update(zip(todo, measure(todo), strict=True))


def run_of(state: RungState, arm: str, seed: int) -> Run:
    """An arm's run at the learning rate that sets verdicts."""
    ends = arm == CONTROL and (state.design.shared or seed <= state.curve_seeds)
    return Run(rung=state.plan.number, arm=arm, rate=state.plan.rates[0], seed=seed, ends=ends)


def value(state: RungState, run: Run, metric: str, end: int = 1) -> float:
    """A metric of a run at one of the `effects.ENDPOINTS`, higher better; NaN where it is not there."""
    ends = () if (found := state.measured.get(run)) is None else found.ends
    at = len(ends) // 2 + end - 1
    return higher_better(metric, ends[at].get(metric)) if 0 <= at < len(ends) else math.nan


def control_seeds(state: RungState) -> list[int]:
    """The control's seeds at this look, the arms' among them."""
    return list(range(1, replace(state.design, seeds=state.looks).control_seeds + 1))


def seeds_of(state: RungState, arm: ArmPlan) -> list[int]:
    """The seeds of an arm, or of the control, that are compared at this look, as far as it has run."""
    return control_seeds(state) if arm.kind == "control" else arm_seeds(arm, state.looks)


def arm_seeds(arm: ArmPlan, looks: int) -> list[int]:
    """An arm's seeds after so many looks."""
    first = SAME_SEEDS if arm.kind == "same" else 0
    return [first + at for at in range(1, looks + 1)]


def needed(plan: Plan, state: RungState, going: Sequence[str]) -> list[Run]:
    """The runs of the present look: of the control, the placebos, and the arms that are undecided with what they are
    matched to.
    """
    every = [plan.arm(CONTROL), *(plan.arm(name) for name in going), *beside_arms(plan, state.plan, going)]
    return [run_of(state, arm.name, seed) for arm in every for seed in seeds_of(state, arm)]


def beside_arms(plan: Plan, rung: RungPlan, going: Sequence[str]) -> list[ArmPlan]:
    """What runs at every look beside these arms: what those that come round again are matched to, and the placebos."""
    matched = [one for one in plan.of_kind("matched") if one.of in going and one.epochs(rung.said.tokens) > 1]
    return [*matched, *plan.of_kind("same", "random", "garbage")]


def table_of(plan: Plan, state: RungState, metric: str, rate: float) -> Table:
    """A metric of the rung's runs at a learning rate. At another than the first the control has no endpoints: its
    curve is taken to be parallel to that at the first.
    """
    arms = [arm for arm in plan.arms if arm.kind != "control"]
    own, first = control_seeds(state), state.plan.rates[0]

    def row(arm: str, seeds: Sequence[int]) -> list[float]:
        runs = (run_of(state, arm, seed) for seed in seeds)
        return [value(state, run if rate == first else replace(run, rate=rate, ends=False), metric) for run in runs]

    ends = np.array([[value(state, run_of(state, CONTROL, seed), metric, at) for seed in own] for at in range(3)])
    if rate != first:
        ends = ends - ends[1] + np.array(row(CONTROL, own))
    values = [row(arm.name, arm_seeds(arm, state.looks)) for arm in arms]
    width = max(len(own), state.looks)
    return Table(
        names=tuple(arm.name for arm in arms),
        runs=Runs(values=widened(np.array(values), width), endpoints=widened(ends, width)),
        in_base=np.array([arm.in_base for arm in arms]),
        judged=np.array([arm.kind == "arm" for arm in arms]),
        placebo=np.array([arm.kind in ("same", "random", "garbage") for arm in arms]),
        same=np.array([arm.kind == "same" for arm in arms]),
    )


def widened(values: Floats, width: int) -> Floats:
    """The rows with NaN up to so many columns."""
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=np.nan)


def look(state: State, now: RungState, measure: Measure, going: Sequence[str]) -> None:
    """Look at all runs of the rung: intervals, placebos, and the verdicts of arms that were undecided."""
    plan, experiment = state.plan, state.plan.experiment
    rope = rope_in_doublings(experiment.rope)
    table = table_of(plan, now, experiment.metric, now.plan.rates[0])
    found = arm_intervals(table, now.design, experiment.budget, now.fixed)
    codes = decided(found, rope)
    now.intervals = by_name(table, found)
    now.placebos = tuple(placebos(plan, now, dict(zip(table.names, codes.tolist(), strict=True))))
    now.faults = faults_of(now, state.store)
    note_look(state.store, now.plan.number, now.looks, [plan.arm(name) for name in going])
    doubted = [
        name for name, code in zip(table.names, codes, strict=True) if name in going and code != Verdict.UNDECIDED
    ]
    second = None
    if len(now.plan.rates) > 1 and doubted and not now.faults:
        take(now, measure, second_runs(now, doubted))
        other = table_of(plan, now, experiment.metric, now.plan.rates[1])
        second = arm_intervals(other, now.design, experiment.budget, now.fixed)
        seen = {name: bounds for name, bounds in by_name(other, second).items() if not math.isnan(bounds[0])}
        now.second |= {name: bounds for name, bounds in seen.items() if name in doubted}
    stands, reasons = settled(codes, rope=rope, gold=gold_of(plan, now), second=second, earlier=earlier(state, table))
    for at, name in enumerate(table.names):
        if name in going:
            now.withheld[name] = Reason(int(reasons[at]))
            if not now.faults:
                decide(plan, now, state.store, name, Verdict(int(stands[at])), now.withheld[name])


def faults_of(now: RungState, store: Store) -> tuple[str, ...]:
    """What the placebos void the verdicts for at this look. What did so in an earlier command does, whatever arms and
    seeds were added since.
    """
    place, found = f"faults/{now.plan.number}", placebo_faults(now.placebos)
    before = kept(store, place)
    if found and before is None:
        before = held(store, place, {"look": now.looks, "faults": found})
    return tuple(before["faults"]) if before is not None and before["look"] == now.looks else found


def by_name(table: Table, found: Interval) -> dict[str, tuple[float, float, float]]:
    """Estimate, low and high of each arm."""
    rows = zip(table.names, found.estimate.tolist(), found.low.tolist(), found.high.tolist(), strict=True)
    return {name: (estimate, low, high) for name, estimate, low, high in rows}


def second_runs(now: RungState, names: Sequence[str]) -> list[Run]:
    """Runs at the second learning rate: of these arms and the control, over the seeds so far."""
    rung, rate = now.plan.number, now.plan.rates[1]
    own = [Run(rung=rung, arm=CONTROL, rate=rate, seed=seed) for seed in control_seeds(now)]
    return own + [Run(rung=rung, arm=name, rate=rate, seed=seed) for name in names for seed in range(1, now.looks + 1)]


def gold_of(plan: Plan, now: RungState) -> Floats:
    """Delta of each arm on the bits per byte of gold answers, higher better; NaN where not measured."""
    table = table_of(plan, now, "gold", now.plan.rates[0])
    return np.asarray(effects_of(table, now.design).estimate * np.where(table.in_base, -1.0, 1.0))


def earlier(state: State, table: Table) -> NDArray[np.int8] | None:
    """The last verdicts at the rungs before, an UNDECIDED one taking none back; None at the first."""
    if len(state.rungs) < 2:
        return None
    before = dict.fromkeys(table.names, Verdict.UNDECIDED)
    for rung in state.rungs[:-1]:
        found = {name: finding.verdict for name, (finding, _) in rung.decided.items()}
        before |= {name: verdict for name, verdict in found.items() if verdict != Verdict.UNDECIDED}
    return np.array([before[name] for name in table.names], np.int8)


def decide(plan: Plan, now: RungState, store: Store, name: str, verdict: Verdict, reason: Reason) -> None:
    """Note what is said of an arm at this look: a verdict for good; UNDECIDED at the last look, with the price of more
    where it is the interval that is too wide, which more seeds mend.

    A verdict of an earlier command stands, whatever arms were added since, and comes at the look at which it came.
    """
    place = f"verdicts/{now.plan.number}-{key_of(plan.arm(name))}"
    before = kept(store, place)
    estimate, low, high = now.intervals[name]
    if before is not None and before["look"] == now.looks:
        verdict, reason = Verdict[before["verdict"]], Reason[before["reason"]]
        estimate, low, high = (float(before[key]) for key in ("estimate", "low", "high"))
    elif before is not None and before["look"] > now.looks:
        return
    finding = Finding(name=name, verdict=verdict, reason=reason, estimate=estimate, low=low, high=high)
    if verdict != Verdict.UNDECIDED:
        said = {"look": now.looks, "verdict": verdict.name, "reason": reason.name}
        held(store, place, said | {"estimate": estimate, "low": low, "high": high})
        now.decided[name] = (finding, now.looks)
    elif now.looks == now.plan.said.seeds:
        wide = reason == Reason.INTERVAL and math.isfinite(estimate)
        beside = len(beside_arms(plan, now.plan, [name]))
        price = next_look(now.design, now.looks, estimate, beside=beside) if wide else None
        now.decided[name] = (replace(finding, next_look=price), now.looks)


def placebos(plan: Plan, now: RungState, codes: Mapping[str, int]) -> Iterable[Placebo]:
    """What came of each placebo at this look."""
    for arm in plan.of_kind("same", "random", "garbage"):
        yield Placebo(
            name=arm.name,
            kind=arm.kind,  # type: ignore[arg-type]
            verdict=Verdict(int(codes[arm.name])),
            power=plan.garbage_power(now.design) if arm.kind == "garbage" else None,
            looks_left=now.looks < now.plan.said.seeds,
        )


def sees_garbage(now: RungState) -> bool:
    """True where the rule that removes the planted garbage came out KEEP at the last look."""
    return any(one.kind == "garbage" and one.verdict == Verdict.KEEP for one in now.placebos)


def goes_on(now: RungState, name: str) -> bool:
    """True where an arm goes on to the next rung: it is not REJECT or NEUTRAL here."""
    return name not in now.decided or now.decided[name][0].verdict in (Verdict.KEEP, Verdict.UNDECIDED)
