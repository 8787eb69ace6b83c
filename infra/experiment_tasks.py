"""Intervals of task metrics from every item of every run: seeds and items drawn anew (proxy_eval/confidence.py).

They are made once, when an experiment has ended; its looks have t-intervals over seeds. No verdict reads them, and 300
runs of 30,000 items are minutes of reading and drawing, which every look would do again. What is read is what scoring
writes, `scores/LABEL/items.parquet`. Memory: metrics x items x 4 bytes for each run of one arm and of the control (100
MB for 80 runs of 30,000 items and ten metrics), and some copies of one task of them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from filters.errors import VerifyFailed
from infra.ablate import Measured, State, compared, last_rung
from infra.experiment_arms import ArmPlan
from infra.scores import SCORES
from infra.stored import Store
from infra.work import identity
from proxy_eval.confidence import item_draws, percentiles, seed_draws
from proxy_eval.effects import Interval
from proxy_eval.experiment import CONTROL
from proxy_eval.looks import LEVEL, higher_better

ITEMS = "items.parquet"
GOLD = "bits_per_byte"


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskScores:
    """A task's items as some runs have them: `values` [metrics, runs, items], NaN where an item lacks a metric;
    `groups` [items] numbers the subjects, None where there are none.
    """

    names: pa.ChunkedArray
    metrics: tuple[str, ...]
    values: NDArray[np.float32]
    groups: NDArray[np.int64] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class RunScores:
    """The items of some runs, whose seeds are in the order of `TaskScores.values`."""

    seeds: tuple[int, ...]
    tasks: Mapping[str, TaskScores]


def task_intervals(state: State) -> dict[str, dict[str, Interval]]:
    """Delta on TASK/METRIC and on gold answers of each arm, at the last rung that met it: 95 %, of one look, higher
    better. An arm is absent where a run's items are: there are no tasks, or they were removed.
    """
    found: dict[str, dict[str, Interval]] = {}
    for rung in state.rungs if state.plan.experiment.tasks is not None else ():
        arms = [arm for arm in state.plan.arms if arm.kind != "control" and last_rung(state, arm) is rung]
        control = run_scores(state.store, compared(rung, state.plan.arm(CONTROL))) if arms else None
        for arm in arms if control is not None else ():
            own = run_scores(state.store, compared(rung, arm))
            if control is not None and own is not None:
                found[arm.name] = resampled(state.plan.experiment.name, arm, own, control, shared=rung.design.shared)
    return found


def run_scores(store: Store, runs: Mapping[int, Measured]) -> RunScores | None:
    """The items of the runs at the arms' budget, but for runs that stopped; None where one has no file.

    Raises VerifyFailed where two of them were scored on different items.
    """
    sound = {seed: one.labels[one.middle] for seed, one in runs.items() if set(one.ends[one.middle].values()) != {None}}
    found: dict[str, list[TaskScores]] = {}
    for label in sound.values():
        try:
            data = store.read(f"{SCORES}/{label}/{ITEMS}")
        except FileNotFoundError:
            return None
        for task, one in by_task(pq.read_table(io.BytesIO(data))).items():
            found.setdefault(task, []).append(one)
    for task, each in found.items():
        if len(each) != len(sound) or any(not one.names.equals(each[0].names) for one in each):
            raise VerifyFailed(
                f"{store.url}/{SCORES}: runs of one experiment were scored on different items of {task}. Type the same "
                "`gristmill ablate` again: it shows the scores of its own tasks."
            )
    tasks = {
        task: replace(each[0], values=np.concatenate([one.values for one in each], axis=1))
        for task, each in found.items()
    }
    return RunScores(seeds=tuple(sound), tasks=tasks) if tasks else None


def by_task(table: pa.Table) -> dict[str, TaskScores]:
    """The items of one run by task, with the metrics that any item has."""
    from proxy_eval.cloze import METRICS

    metrics = tuple(name for name in table.column_names if name in METRICS)
    values = np.stack([table[name].to_numpy() for name in metrics]).astype(np.float32)
    tasks = np.asarray(table["task"].to_pylist())
    found = {}
    for task in dict.fromkeys(tasks.tolist()):
        rows = np.flatnonzero(tasks == task)
        subjects = table["subject"].take(pa.array(rows))
        groups = None if subjects.null_count else np.unique(subjects.to_pylist(), return_inverse=True)[1]
        found[task] = TaskScores(
            names=table["item"].take(pa.array(rows)), metrics=metrics, values=values[:, None, rows], groups=groups
        )
    return found


def resampled(name: str, arm: ArmPlan, own: RunScores, control: RunScores, *, shared: bool) -> dict[str, Interval]:
    """Delta of one arm of the experiment `name`, from the seeds and items of its runs and of the control's.

    Differences are taken within seeds where these are shared. Draws of items depend on the experiment and the task
    alone, so that all arms meet the same items; draws of seeds are the same for all tasks of an arm.
    """
    pairs = [seed for seed in own.seeds if seed in control.seeds] if shared and arm.kind != "same" else []
    generator = seeded(name, "seeds")
    if pairs:
        weights = seed_draws(len(pairs), generator)
    else:
        weights = np.hstack([seed_draws(len(own.seeds), generator), -seed_draws(len(control.seeds), generator)])
    found, gold = {}, []
    for task, one in own.tasks.items():
        other = control.tasks[task].values
        if pairs:
            mine, theirs = ([each.seeds.index(seed) for seed in pairs] for each in (own, control))
            rows = one.values[:, mine] - other[:, theirs]
        else:
            rows = np.concatenate([one.values, other], axis=1)
        signs = np.array([higher_better(f"{task}/{metric}", 1.0) for metric in one.metrics])[:, None]
        draws = item_draws(rows, weights, one.groups, seeded(name, task)) * (-signs if arm.in_base else signs)
        for metric, drawn in zip(one.metrics, draws, strict=True):
            if np.isfinite(drawn).all():
                found[f"{task}/{metric}"] = percentiles(drawn, LEVEL)
                gold += [drawn] if metric == GOLD else []
    return found | ({"gold": percentiles(np.mean(gold, axis=0), LEVEL)} if gold else {})


def seeded(*key: str) -> np.random.Generator:
    """A generator whose seed is a hash."""
    return np.random.default_rng(int(identity(*key), 16))
