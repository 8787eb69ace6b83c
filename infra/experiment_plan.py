"""The plan of an experiment: what its arms read, what its runs can see, and what they cost, before anything is paid."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.errors import InputError
from infra.experiment_arms import ArmPlan, Kind, MaskOf, planned_arms, random_share
from infra.store import open_store
from infra.stored import read_decoded
from infra.training import calibration_name, training_of
from proxy_eval.effects import ENDPOINTS
from proxy_eval.experiment import CONTROL, PLACEBOS, SECOND_RATE, Experiment
from proxy_eval.experiment import Rung as SaidRung
from proxy_eval.noise_bank import Bank, Variance, prior
from proxy_eval.planner import CONTROL_TOKENS, Cost, Design, Rung, cheapest, cost_of, smallest_effect

if TYPE_CHECKING:
    from proxy_eval.pool import Pool
    from proxy_eval.steps import Training

GUESSED_NOISE, GUESSED_GAIN, GUESSED_RHO = 0.0026, 0.1, 0.0
"""Bits per byte at 1M weights and 1M tokens: the spread over seeds measured at 1e-3 (docs/proxy.md), and a gain by
twice the tokens and no pairing, until a pilot has measured them. A plan rests on them, an interval never."""


@dataclass(frozen=True, kw_only=True)
class RungPlan:
    """A rung: how its runs are trained, what is expected of them (`design`; `sources` says from where), what all of
    them cost if no arm is decided early, and the `smallest` effect that they see with power 0.8, as a share of tokens.
    """

    number: int
    said: SaidRung
    training: Training  # the control's, with its three endpoints
    rates: tuple[float, ...]
    calibration: Mapping[str, Any] | None
    key: str  # in the noise bank
    design: Design
    sources: Mapping[str, str]
    cost: Cost
    smallest: float

    @property
    def arm_training(self) -> Training:
        """An arm's: the same schedule, ended at the budget."""
        return replace(self.training, tokens=self.said.tokens, endpoints=())

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
    wanted: Design | None
    notes: tuple[str, ...]

    def arm(self, name: str) -> ArmPlan:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)

    def of_kind(self, *kinds: Kind) -> list[ArmPlan]:
        """The arms of these kinds, in order."""
        return [arm for arm in self.arms if arm.kind in kinds]

    @property
    def metric_key(self) -> str:
        """Of the metric in the noise bank: numbers on another panel or other tasks are other numbers."""
        metric = self.experiment.metric
        scored = self.panel_sha256 if metric.startswith("panel") else self.tasks_sha256 or ""
        return f"{metric} {scored[:12]}"

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
        }


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
) -> Plan:
    """The plan of an experiment. `said` is what the pool's pool.json says, `speed` gives tokens a second of a device.

    Raises InputError where a mask is none or keeps nothing, where an arm would be read more than 4 times, and where
    pools differ in their tokenizers.
    """
    arms = planned_arms(experiment, open_pool, mask_of)
    if experiment.placebos.random is None:  # said from now on, so that a plan made again is the same
        share = random_share([arm for arm in arms if arm.kind == "arm"], arms[0])
        placebos = experiment.placebos.model_copy(update={"random": share})
        experiment = experiment.model_copy(update={"placebos": placebos})
    metric = (
        f"{experiment.metric} {(panel_sha256 if experiment.metric.startswith('panel') else tasks_sha256 or '')[:12]}"
    )
    rungs = tuple(
        planned_rung(experiment, number, said=said, arms=arms, speed=speed, bank=bank, metric=metric)
        for number in range(len(experiment.rungs))
    )
    wanted = experiment.wanted
    return Plan(
        experiment=experiment,
        arms=arms,
        rungs=rungs,
        panel_sha256=panel_sha256,
        tasks_sha256=tasks_sha256,
        vocabulary=said["tokenizer"]["vocabulary"],
        wanted=None if wanted is None else cheapest([one.design for one in rungs], wanted.effect, wanted.power),
        notes=tuple(notes(experiment, arms, rungs)),
    )


def planned_rung(
    experiment: Experiment,
    number: int,
    *,
    said: Mapping[str, Any],
    arms: Sequence[ArmPlan],
    speed: Callable[[Training], float],
    bank: Bank,
    metric: str,
) -> RungPlan:
    """One rung with its rates, its design and its price."""
    rung = experiment.rungs[number]
    budgets = [round(share * rung.tokens) for share in ENDPOINTS]
    training, rule = training_of(said, size=rung.size, tokens=budgets, context=rung.context)
    calibration = calibration_of(experiment.pool, rung.size, rung.tokens, said["sha256"])
    first = rung.learning_rates or [rule if calibration is None else float(calibration["learning_rate"])]
    last = number == len(experiment.rungs) - 1
    rates = (*first, *([SECOND_RATE * first[0]] if last and not rung.learning_rates else []))
    key = f"{rung.size} {rung.tokens} {rates[0]:g} {training.shape.context} {training.shape.vocabulary}"
    known, sources = expectations(experiment, number, bank, key, metric)
    fast = rung.expected.tokens_per_second or speed(training)
    design = Design(
        rung=Rung(
            name=rung.size,
            tokens=rung.tokens,
            tokens_per_second=fast,
            price_per_hour=experiment.price_per_hour,
            **known,
        ),
        arms=experiment.budget.arms + len(PLACEBOS),
        seeds=rung.seeds,
        level=experiment.budget.arm_level,
        rope=experiment.rope,
        learning_rates=len(rates),
    )
    return RungPlan(
        number=number,
        said=rung,
        training=training,
        rates=rates,
        calibration=calibration,
        key=key,
        design=design,
        sources=sources,
        cost=price(design, arms, experiment.pilot, measured_rho=rung.expected.rho is not None),
        smallest=smallest_effect(replace(design, arms=sum(arm.kind == "arm" for arm in arms) + len(PLACEBOS))),
    )


def calibration_of(pool: str, size: str, tokens: int, sha256: str) -> Mapping[str, Any] | None:
    """What `gristmill calibrate` found for this size and budget on this very pool; None where it never ran."""
    try:
        found: dict[str, Any] = read_decoded(open_store(pool), calibration_name(size, tokens), json.loads)
    except FileNotFoundError:
        return None
    return found if found["pool_sha256"] == sha256 else None


def expectations(
    experiment: Experiment, number: int, bank: Bank, key: str, metric: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Noise, gain and rho that a rung is planned with, and where each is from: the file, the noise bank, or a guess."""
    said = experiment.rungs[number].expected
    runs, pairs = (prior(bank, key, metric, kind, campaign=experiment.name) for kind in ("run", "pair"))
    sources = dict.fromkeys(("noise", "gain", "rho"), "guessed")
    noise, rho = Variance(value=np.asarray(GUESSED_NOISE**2), df=np.zeros(())), GUESSED_RHO
    if float(runs.df) > 0:
        noise, sources["noise"] = runs, "noise bank"
    if float(runs.df) > 0 and float(pairs.df) > 0:
        rho = float(np.clip(1 - float(pairs.value) / (2 * float(runs.value)), -0.9, 0.99))
        sources["rho"] = "noise bank"
    if said.noise is not None:
        noise, sources["noise"] = Variance(value=np.asarray(said.noise**2), df=noise.df), "the file"
    if said.rho is not None:
        rho, sources["rho"] = said.rho, "the file"
    if said.gain is not None:
        sources["gain"] = "the file"
    return {"noise": noise, "gain": said.gain or GUESSED_GAIN, "rho": rho}, sources


def price(design: Design, arms: Sequence[ArmPlan], pilot: int, *, measured_rho: bool) -> Cost:
    """The cost of a rung if every arm goes through all its seeds: the runs that would be made, counted one by one."""
    seeds, control = design.seeds, design.control_seeds
    judged = [arm for arm in arms if arm.kind == "arm"]
    others = [arm for arm in arms if arm.kind not in ("arm", "control")]
    matched = [arm for arm in others if arm.kind == "matched" and arm.epochs(design.rung.tokens) <= 1]
    ends = control + (0 if design.shared or measured_rho else pilot)  # a pilot that finds no pairing is the dearer
    once = (len(judged) + len(others) - len(matched)) * seeds
    again = (design.learning_rates - 1) * (len(judged) * seeds + control)
    return cost_of(design.rung, ends + once + again, ends * CONTROL_TOKENS + once + again)


def notes(experiment: Experiment, arms: Sequence[ArmPlan], rungs: Sequence[RungPlan]) -> list[str]:
    """What a person should know before paying."""
    said = []
    control = arms[0]
    if experiment.tasks is None:
        said.append("no tasks: gold answers are not measured, and KEEP needs their sign. No rule can come out KEEP.")
    for rung in rungs:
        if rung.calibration is None:
            said.append(
                f"{rung.name}: no calibration of this pool. gristmill calibrate {experiment.pool} --size "
                f"{rung.said.size} --tokens {rung.said.tokens}"
            )
        if guessed := [name for name, source in rung.sources.items() if source == "guessed"]:
            said.append(
                f"{rung.name}: {', '.join(guessed)} guessed until the pilot of {experiment.pilot} seeds has run"
            )
        if math.isinf(rung.smallest):
            said.append(f"{rung.name}: no effect up to twice the tokens would be seen. Take more seeds or tokens.")
        if (epochs := control.epochs(2 * rung.said.tokens)) > 1:
            said.append(f"{rung.name}: the control's upper endpoint reads its documents {epochs:.1f} times")
        for arm in arms:
            if arm.kind != "control" and (epochs := arm.epochs(rung.said.tokens)) > 1:
                beside = " (a random removal of the same tokens runs beside it)" * (arm.kind == "arm")
                said.append(f"{rung.name}: {arm.name} reads its documents {epochs:.1f} times{beside}")
    if len(rungs[-1].rates) < 2:
        said.append(f"{rungs[-1].name}: one learning rate; the last rung should have a second that casts doubt")
    return said


def check_calibrated(plan: Plan) -> None:
    """Raise InputError unless each rung's learning rate was calibrated for this pool, or stands in the file."""
    for rung in plan.rungs:
        if rung.calibration is None and not rung.said.learning_rates:
            raise InputError(
                f"{rung.name}: its learning rate was never calibrated on {plan.experiment.pool}, and at a wrong one "
                f"noise looks like effects. gristmill calibrate {plan.experiment.pool} --size {rung.said.size} "
                f"--tokens {rung.said.tokens}, or name `learning_rates` in the file and answer for them."
            )


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
