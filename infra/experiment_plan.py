"""The plan of an experiment: what its arms read, what its runs can see, and what they cost, before anything is paid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from filters.errors import InputError
from infra.expectation import Expectation, calibration_of, expectations
from infra.experiment_arms import FEWEST, ArmPlan, Kind, MaskOf, planned_arms, random_share, seen
from infra.training import training_of
from proxy_eval.effects import ENDPOINTS, control_seeds
from proxy_eval.experiment import CONTROL, PLACEBOS, SECOND_RATE, Experiment
from proxy_eval.experiment import Rung as SaidRung
from proxy_eval.noise_bank import Bank
from proxy_eval.planner import (
    ENDPOINT_TOKENS,
    MOST_SEEDS,
    Cost,
    Design,
    Rung,
    cheapest,
    cost_of,
    curve_radius,
    curve_seeds,
    power,
    smallest_effect,
)
from proxy_eval.verdict import POWER_NEEDED

if TYPE_CHECKING:
    from proxy_eval.pool import Pool
    from proxy_eval.steps import Training

EFFECTS = (0.02, 0.05, 0.1, 0.2)
"""Shares of the tokens whose price is shown where the file says none that is wanted."""
FEW_NAMES = 3
"""Arms that a note names; of others it gives the number."""


@dataclass(frozen=True, kw_only=True)
class RungPlan:
    """A rung: how its runs are trained, what is `expected` of them and the design that rests on it, what those of each
    arm cost if none is decided early, and the `smallest` effect that they see with power 0.8, a share of tokens.
    """

    number: int
    said: SaidRung
    training: Training  # the control's, with its three endpoints
    rates: tuple[float, ...]
    key: str  # in the noise bank
    expected: Expectation
    design: Design
    costs: Mapping[str, Cost]
    smallest: float

    @property
    def cost(self) -> Cost:
        """Of all its runs."""
        return added(self.costs.values())

    @property
    def arm_training(self) -> Training:
        """An arm's: the same schedule, ended at the budget."""
        return replace(self.training, tokens=self.said.tokens, endpoints=())

    @property
    def calibrated(self) -> bool:
        """Whether its learning rate is the one that the calibration chose."""
        found = self.expected.calibration
        return found is not None and found["learning_rate"] == self.rates[0]

    @property
    def can_be_calibrated(self) -> bool:
        """Whether `gristmill calibrate` speaks for it: that trains on windows of the size's own length."""
        return self.training.shape.context == own_context(self.said.size)

    @property
    def name(self) -> str:
        """For a person."""
        return f"{self.said.size} x {self.said.tokens:,} tokens"


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What an experiment will do, and what a person should know of it before (`notes`)."""

    experiment: Experiment
    arms: tuple[ArmPlan, ...]  # control, the file's arms, matched removals, placebos
    rungs: tuple[RungPlan, ...]
    panel_sha256: str
    tasks_sha256: str | None
    vocabulary: int
    cheapest: Mapping[float, Design | None]  # by effect, with the power wanted, or 0.8; None: no seeds would do
    notes: tuple[str, ...]

    def arm(self, name: str) -> ArmPlan:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)

    def of_kind(self, *kinds: Kind) -> list[ArmPlan]:
        """The arms of these kinds, in order."""
        return [arm for arm in self.arms if arm.kind in kinds]

    def arm_cost(self, name: str) -> Cost:
        """Of an arm at all rungs, if it is never decided."""
        return added(rung.costs[name] for rung in self.rungs)

    def garbage_power(self, design: Design) -> float:
        """The probability that the rule that removes the planted garbage comes out KEEP at a rung of this design.

        Shuffled documents teach hardly more than nothing, so what they take of the tokens, g, makes their removal worth
        g / (1 - g) of them. How many of them the seeds read together is Poisson: the mean of the power at its deciles.
        """
        found = seen(self.arm("garbage"), self.arm(CONTROL), design.rung.tokens)
        assert found is not None, "the placebo is of the control's pool"
        reads = found.documents * design.seeds
        drawn = stats.poisson.ppf(np.arange(0.05, 1, 0.1), reads) / reads * found.share
        placebo = replace(design, level=self.experiment.budget.placebo_level)
        return float(np.mean([power(placebo, g / (1 - g)) for g in np.minimum(drawn, 0.9).tolist()]))

    @property
    def metric_key(self) -> str:
        """Of the metric in the noise bank."""
        return metric_key(self.experiment.metric, self.panel_sha256, self.tasks_sha256)

    @property
    def random_share(self) -> float | None:
        """Of the documents, that the placebo `random` leaves out."""
        return self.experiment.placebos.random

    @property
    def cost(self) -> Cost:
        """Of all rungs, if no arm is decided early."""
        return added(rung.cost for rung in self.rungs)

    @property
    def identity(self) -> dict[str, Any]:
        """What an experiment is, by name, and may not become another of once it has begun; arms may be added."""
        said, control = self.experiment, self.arm(CONTROL)
        budget = said.budget
        return {
            "control": control.identity,
            "panel": self.panel_sha256,
            "tasks": self.tasks_sha256,
            "task_names": list(said.task_names),
            "metric": said.metric,
            "rope": said.rope,
            "error": [said.error, said.placebo_error],
            "room": budget.arms,
            "random": self.random_share,
            "rungs": [[one.said.size, one.said.tokens, list(one.rates), one.said.context] for one in self.rungs],
            "expected": [one.said.expected.model_dump(exclude={"tokens_per_second"}) for one in self.rungs],
        }


def metric_key(metric: str, panel_sha256: str, tasks_sha256: str | None) -> str:
    """Of a metric in the noise bank: numbers on another panel or other tasks are other numbers."""
    scored = panel_sha256 if metric.startswith("panel") else tasks_sha256 or ""
    return f"{metric} {scored[:12]}"


def own_context(size: str) -> int:
    """Tokens of a window of models of a size, where nothing else is said."""
    from proxy_eval.llama import SIZES

    return SIZES[size].context


def added(costs: Any) -> Cost:
    """The sum of some costs."""
    each = list(costs)
    return Cost(
        runs=sum(one.runs for one in each),
        tokens=sum(one.tokens for one in each),
        hours=sum(one.hours for one in each),
        money=sum(one.money for one in each),
    )


def planned_experiment(
    experiment: Experiment,
    *,
    said: Mapping[str, Any],
    open_pool: Callable[[str], Pool],
    mask_of: MaskOf,
    speed: Callable[[Training], float],
    bank: Bank,
    panel_sha256: str,
    tasks_sha256: str | None = None,
    begun: Sequence[Expectation] = (),
) -> Plan:
    """The plan of an experiment. `said` is what the pool's pool.json says, `speed` gives tokens a second of a device,
    `begun` is what was expected of each rung when the experiment began, if it did.

    Raises InputError where a mask is none or keeps nothing, where an arm would be read more than 4 times, and where
    pools differ in their tokenizers.
    """
    arms = planned_arms(experiment, open_pool, mask_of)
    experiment = with_random_share(experiment, arms)
    metric = metric_key(experiment.metric, panel_sha256, tasks_sha256)
    rungs = tuple(
        planned_rung(
            experiment,
            number,
            said=said,
            arms=arms,
            speed=speed,
            bank=bank,
            metric=metric,
            begun=begun[number] if begun else None,
        )
        for number in range(len(experiment.rungs))
    )
    designs = [one.design for one in rungs]
    wanted = experiment.wanted
    effects, sure = (EFFECTS, 0.8) if wanted is None else ((wanted.effect,), wanted.power)
    plan = Plan(
        experiment=experiment,
        arms=arms,
        rungs=rungs,
        panel_sha256=panel_sha256,
        tasks_sha256=tasks_sha256,
        vocabulary=said["tokenizer"]["vocabulary"],
        cheapest={effect: cheapest(designs, effect, sure) for effect in effects},
        notes=(),
    )
    return replace(plan, notes=tuple(notes(plan)))


def with_random_share(experiment: Experiment, arms: Sequence[ArmPlan]) -> Experiment:
    """The experiment with the share that is removed at random said, so that a plan made again is the same."""
    if experiment.placebos.random is not None:
        return experiment
    share = random_share([arm for arm in arms if arm.kind == "arm"], arms[0])
    placebos = experiment.placebos.model_copy(update={"random": share})
    return experiment.model_copy(update={"placebos": placebos})


def planned_rung(
    experiment: Experiment,
    number: int,
    *,
    said: Mapping[str, Any],
    arms: Sequence[ArmPlan],
    speed: Callable[[Training], float],
    bank: Bank,
    metric: str,
    begun: Expectation | None,
) -> RungPlan:
    """One rung with its rates, its design and its price."""
    rung = experiment.rungs[number]
    budgets = [round(share * rung.tokens) for share in ENDPOINTS]
    training, rule = training_of(said, size=rung.size, tokens=budgets, context=rung.context)
    own = training.shape.context == own_context(rung.size)
    calibration = calibration_of(experiment.pool, rung.size, rung.tokens, said["sha256"]) if own else None
    first = rung.learning_rates or [rule if calibration is None else float(calibration["learning_rate"])]
    last = number == len(experiment.rungs) - 1
    rates = (*first, *([SECOND_RATE * first[0]] if last and not rung.learning_rates else []))
    key = f"{rung.size} {rung.tokens} {rates[0]:g} {training.shape.context} {training.shape.vocabulary}"
    expected = begun or expectations(experiment, number, bank, key, metric, calibration, rates[0])
    tokens_per_second = rung.expected.tokens_per_second or speed(training)
    judged = sum(arm.kind == "arm" for arm in arms)
    design = design_of(experiment, rung, expected, tokens_per_second, arms=judged, learning_rates=len(rates))
    return RungPlan(
        number=number,
        said=rung,
        training=training,
        rates=rates,
        key=key,
        expected=expected,
        design=design,
        costs={arm.name: price(design, arm, 0 if rung.expected.rho is not None else experiment.pilot) for arm in arms},
        smallest=smallest_effect(design),
    )


def design_of(
    experiment: Experiment,
    rung: SaidRung,
    expected: Expectation,
    tokens_per_second: float,
    *,
    arms: int,
    learning_rates: int,
) -> Design:
    """The design of a rung at which so many arms are judged, on a device of this speed."""
    budget = experiment.budget
    return Design(
        rung=Rung(
            name=rung.size,
            tokens=rung.tokens,
            tokens_per_second=tokens_per_second,
            noise=replace(expected.bank["run"], value=np.asarray(expected.variance)),
            gain=expected.gain,
            rho=expected.rho,
            price_per_hour=experiment.price_per_hour,
        ),
        arms=arms + len(PLACEBOS),
        room=budget.arms - arms,
        seeds=rung.seeds,
        level=budget.arm_level,
        curve_level=budget.curve_level,
        rope=experiment.rope,
        learning_rates=learning_rates,
    )


def price(design: Design, arm: ArmPlan, pilot: int) -> Cost:
    """The most that an arm, or the control, costs at a rung: it goes through all its seeds, and a pilot of so many (0:
    there is none) finds that seeds are not shared.
    """
    seeds, again = design.seeds, design.learning_rates - 1
    if arm.kind == "control":
        own = control_seeds(design.arms + design.room, seeds, shared=design.shared and not pilot)
        runs, ends = max(own, pilot) + again * own, max(curve_seeds(own, seeds), pilot)
        return cost_of(design.rung, runs, runs + ends * ENDPOINT_TOKENS)
    if arm.kind == "arm":
        return cost_of(design.rung, seeds * (1 + again), seeds * (1 + again))
    if arm.kind in ("random", "garbage"):
        seeds = max(seeds, pilot)
    elif arm.kind == "matched" and arm.epochs(design.rung.tokens) <= 1:
        seeds = 0
    return cost_of(design.rung, seeds, seeds)


def notes(plan: Plan) -> Iterator[str]:
    """What a person should know before paying."""
    if plan.experiment.tasks is None:
        yield "no tasks: gold answers are not measured, and KEEP needs their sign. No rule can come out KEEP."
    for rung in plan.rungs:
        yield from (f"{rung.name}: {said}" for said in rung_notes(plan, rung))
    last = plan.rungs[-1]
    if len(last.rates) < 2:
        yield f"{last.name}: one learning rate; the last rung should have a second that casts doubt"
    yield from small_notes(plan, last)
    yield from (
        f"{effect:+.1%} is seen by no rung in {MOST_SEEDS} seeds: take more tokens, or a learning rate with less noise"
        for effect, design in plan.cheapest.items()
        if design is None and plan.experiment.wanted is not None
    )


def rung_notes(plan: Plan, rung: RungPlan) -> Iterator[str]:
    """The same of one rung."""
    experiment, control, tokens = plan.experiment, plan.arm(CONTROL), rung.said.tokens
    if rung.expected.calibration is None:
        yield f"no calibration of this pool. {uncalibrated(plan, rung)}"
    elif not rung.calibrated:
        yield (
            f"the calibration chose the learning rate {rung.expected.calibration['learning_rate']:g}, the file says "
            f"{rung.rates[0]:g}: at a worse one noise may look like effects"
        )
    if guessed := [name for name, source in rung.expected.sources.items() if source == "guessed"]:
        yield f"{', '.join(guessed)} guessed until the pilot of {experiment.pilot} seeds has run"
    if math.isinf(rung.smallest):
        yield "no effect up to twice the tokens would be seen. Take more seeds or tokens."
    if curve_radius(rung.design, rung.design) >= 1:
        yield "the control's curve is vague: upper bounds may be missing, no rule is NEUTRAL. Take more seeds."
    if (epochs := control.epochs(2 * tokens)) > 1:
        yield f"the control's upper endpoint reads its documents {epochs:.1f} times"
    if (epochs := control.epochs(tokens)) > 1:
        yield (
            f"the control reads its documents {epochs:.1f} times, which counts for arms that have more to read; a "
            "random removal down to its tokens runs beside each of them"
        )
    if again := {arm.name: arm.epochs(tokens) for arm in plan.of_kind("arm") if arm.epochs(tokens) > 1}:
        yield (
            f"documents come round again, up to {max(again.values()):.1f} times, in {some(list(again))}; a random "
            "removal of as many tokens runs beside each that reads less than the control"
        )
    planted = seen(plan.arm("garbage"), control, tokens)
    if planted is not None and planted.documents < FEWEST:
        yield f"a run reads {planted.documents:.1f} planted documents; {FEWEST} tell more: take more tokens"
    if (sure := plan.garbage_power(rung.design)) < POWER_NEEDED:
        yield (
            f"the planted garbage is seen with power {sure:.2f} only, so not seeing it is no fault: take more seeds, "
            f"or more than {experiment.placebos.garbage:.0%} of it"
        )


def small_notes(plan: Plan, rung: RungPlan) -> Iterator[str]:
    """Which rules change less than would be seen if all that they change were worth nothing."""
    control, small = plan.arm(CONTROL), []
    for arm in plan.of_kind("arm"):
        found = seen(arm, control, rung.said.tokens)
        if found is not None and found.share < 1 and found.share / (1 - found.share) < rung.smallest:
            small.append(arm.name)
    if small and math.isfinite(rung.smallest):
        yield (
            f"{rung.name}: {some(small)} change so little of what is read that even if it were pure garbage the power "
            "to see that would be below 80 %"
        )


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many there are beside."""
    rest = len(names) - FEW_NAMES
    return ", ".join(names[:FEW_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def check_calibrated(plan: Plan) -> None:
    """Raise InputError unless each rung's learning rate was calibrated for this pool, or stands in the file."""
    for rung in plan.rungs:
        if rung.expected.calibration is None and not rung.said.learning_rates:
            raise InputError(
                f"{rung.name}: its learning rate was never calibrated on {plan.experiment.pool}, and at a wrong one "
                f"noise looks like effects. {uncalibrated(plan, rung)}, or name `learning_rates` in the file and "
                "answer for them."
            )


def uncalibrated(plan: Plan, rung: RungPlan) -> str:
    """How a rung comes by a calibration."""
    if not rung.can_be_calibrated:
        return f"There is none for windows of {rung.training.shape.context} tokens: leave `context` out"
    return f"gristmill calibrate {plan.experiment.pool} --size {rung.said.size} --tokens {rung.said.tokens}"


def panel_of(experiment: Experiment) -> str:
    """The hash of the panel. Raises InputError where there is none, or it or the tasks lack what the metric is of."""
    from proxy_eval.panel import read_panel
    from proxy_eval.tasks import read_tasks

    panel = read_panel(Path(experiment.panel))
    names = [domain.name for domain in panel.domains]
    kind, _, domain = experiment.metric.partition("/")
    if kind == "panel" and domain and domain not in names:
        raise InputError(f"metric {experiment.metric}: the panel has {', '.join(names)}")
    if kind not in ("panel", "gold"):
        found = read_tasks(Path(str(experiment.tasks)), experiment.task_names or None).items
        if kind not in (tasks := [one.task for one in found]):
            raise InputError(f"metric {experiment.metric}: the tasks are {', '.join(tasks)}")
    return panel.sha256
