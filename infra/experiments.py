"""What `gristmill ablate` does, as functions: plan an experiment, write one, run it. A notebook calls the same.

OUT is a store of models as `gristmill train` makes one (infra/training.py), with `experiment.yaml` where it was written
here, `results.json` (infra/experiment_results.py), and what was promised before the first look below
`_work/experiment/`.
"""

from __future__ import annotations

import fcntl
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import yaml

from filters.errors import ClusterError, InputError, OutputError
from filters.rule import Bools
from infra.ablate import Measured, Run, State, ablate, table_of
from infra.annotated import run_rules
from infra.arms import arm_mask
from infra.experiment_arms import GARBAGE, ArmPlan
from infra.experiment_findings import results_of
from infra.experiment_plan import Plan, check_calibrated, panel_of, planned_experiment
from infra.experiment_promises import as_begun
from infra.experiment_results import RESULTS, Results, encoded, read_results
from infra.placement import Placement, device_here, device_of, placed, speeds, speeds_there
from infra.pool import run_of
from infra.pool_files import check_extra, kept_mask, local_pool, read_said
from infra.processes import cores
from infra.score_work import tasks_sha256
from infra.scores import Scored, score_all
from infra.store import open_store
from infra.stored import Store
from infra.training import Model, label_of, train_all
from infra.training_progress import TrainingProgress
from infra.training_work import PACKAGES, Reads, Trial
from pipelines.cache import cache_folder
from pipelines.recipe import load_recipe
from proxy_eval.experiment import Experiment, Placebos
from proxy_eval.looks import bank_entries
from proxy_eval.noise_bank import Entry, read_bank, with_entries, write_bank
from proxy_eval.planner import ENDPOINT_TOKENS
from proxy_eval.stream import random_mask

if TYPE_CHECKING:
    from proxy_eval.pool import Pool
    from proxy_eval.steps import Training

WRITTEN = "experiment.yaml"
MOST_TOKENS = 2_000_000
"""Of a written experiment's runs at 1M weights: some three minutes each on two cores."""
SPEED_MEMBERS = 16
"""In a stack on a GPU, where speed is measured for a plan."""


class Cluster(TypedDict):
    """The cluster that is joined, if any, as everything that joins one takes it."""

    address: str | None
    allow_unauthenticated: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Workshop:
    """Where an experiment trains and scores. `places` and `labels` fill while it does."""

    store: Store
    labels: dict[str, str]
    progress: TrainingProgress
    placement: Callable[[Sequence[Trial]], Placement]
    device: str
    cluster: Cluster
    task_seconds: float | None
    places: dict[tuple[int, int], Placement] = field(default_factory=dict)

    def place(self, rung: int, todo: Sequence[Trial]) -> Placement:
        """Where these trials train: measured once for a rung and each number of trials from one power of two to the
        next, since one trial that a kill has left over says nothing of where a look trains.
        """
        key = rung, len(todo).bit_length()
        if key not in self.places:
            self.places[key] = self.placement(todo)
        return self.places[key]


def plan_of(
    experiment: Experiment,
    out: str | None = None,
    *,
    device: str = "auto",
    address: str | None = None,
    allow_unauthenticated: bool = False,
) -> Plan:
    """The plan of an experiment, as `out` has begun it; where the file says none with the speed of a device, of this
    machine or of the cluster at `address`.

    Raises InputError as `planned_experiment` does and for a device that is not here, ClusterError as joining a cluster
    does and where its speed cannot be measured.
    """
    check_extra(*PACKAGES)
    from proxy_eval.pool import read_pool

    experiment, begun = (experiment, ()) if out is None else as_begun(experiment, open_store(out))

    said = {url: read_said(url) for url in {experiment.pool, *(arm.pool or experiment.pool for arm in experiment.arms)}}

    def open_pool(url: str) -> Pool:
        return read_pool(local_pool(url))

    def mask_of(url: str, mask: str) -> Bools | None:
        return arm_mask(url, said[url], mask, workers=cores())

    return planned_experiment(
        experiment,
        said=said[experiment.pool],
        open_pool=open_pool,
        mask_of=mask_of,
        speed=partial(
            device_speed,
            device=device,
            members=min(SPEED_MEMBERS, len(experiment.arms) + 4),
            address=address,
            allow_unauthenticated=allow_unauthenticated,
        ),
        bank=read_bank(bank_path(experiment)),
        panel_sha256=panel_of(experiment),
        tasks_sha256=None if experiment.tasks is None else tasks_sha256(Path(experiment.tasks)),
        begun=begun,
    )


def speed_here(training: Training, *, device: str, members: int) -> float:
    """Tokens a second of this machine: of one model on a CPU, of the fastest stack of up to so many on a GPU."""
    return max(speeds(training, members, device_here(device)).values())


def device_speed(
    training: Training, *, device: str, members: int, address: str | None, allow_unauthenticated: bool
) -> float:
    """The same, or of a device of the cluster at `address`. Raises ClusterError where that cannot be measured."""
    if address is None:
        return speed_here(training, device=device, members=members)
    found = speeds_there(training, members, device_of(device), address, allow_unauthenticated)
    if isinstance(found, str):
        raise ClusterError(
            f"{address}: its speed was {found}. Come again when a device is free, or name `expected: "
            "{tokens_per_second: ...}` at each rung."
        )
    return max(found.values())


def bank_path(experiment: Experiment) -> Path:
    """The noise bank's file: the experiment's, else the user's."""
    return cache_folder() / "noise_bank.json" if experiment.bank is None else Path(experiment.bank)


def run_experiment(
    plan: Plan,
    out: str,
    *,
    device: str = "auto",
    stack: int | None = None,
    workers: int | None = None,
    address: str | None = None,
    allow_unauthenticated: bool = False,
    task_seconds: float | None = None,
    take_over: bool = False,
    quiet: bool = False,
    on_look: Callable[[Results], object] = lambda found: None,
) -> Results:
    """Run a plan to its end, or on to it, and return what it found. `results.json` is written anew at every look.

    Raises InputError where a learning rate is not calibrated, OutputError where `out` has begun another experiment.
    """
    check_extra(*PACKAGES)
    check_calibrated(plan)
    store, labels = open_store(out), dict[str, str]()
    cluster: Cluster = {"address": address, "allow_unauthenticated": allow_unauthenticated}
    with store.locked(take_over=take_over), TrainingProgress(sys.stderr, labels=labels, quiet=quiet) as progress:
        workshop = Workshop(
            store=store,
            labels=labels,
            progress=progress,
            placement=partial(placed, device=device, workers=workers, stack=stack, **cluster),
            device=device,
            cluster=cluster,
            task_seconds=task_seconds,
        )
        ablate(plan, store, partial(measured, plan, workshop), on_look=partial(noted, on_look))
    return read_results(store.read(RESULTS))


def noted(on_look: Callable[[Results], object], state: State) -> None:
    """What a look has found is in the store, what it has measured of the noise in the bank, and `on_look` is told."""
    found = results_of(state)
    state.store.replace(RESULTS, encoded(found))
    note_noise(bank_path(state.plan.experiment), state)
    on_look(found)


def note_noise(path: Path, state: State) -> None:
    """Put what the experiment has measured of its noise into the bank, in the place of what it had put there."""
    plan, entries = state.plan, list[Entry]()
    for rung in state.rungs:
        if rung.looks:
            table = table_of(plan, rung, plan.experiment.metric, rung.plan.rates[0])
            known = {"rung": rung.plan.key, "metric": plan.metric_key, "campaign": plan.experiment.name}
            entries += bank_entries(table, rung.design, **known)
    put_into_bank(path, entries)


def put_into_bank(path: Path, entries: Sequence[Entry]) -> None:
    """The bank in the file has these entries too; what another experiment puts there meanwhile stays."""
    with alone_with(path):
        write_bank(with_entries(read_bank(path), entries), path)


@contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """Hold a lock of the kernel, beside the file, once no other process holds it: a bank is written in milliseconds."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock").open("w")
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error}): name a bank in a folder that can be.") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def measured(plan: Plan, workshop: Workshop, runs: Sequence[Run]) -> list[Measured]:
    """Train and score these runs, all of one rung, but for those that are committed."""
    trials = [trial_of(plan, workshop.store, run) for run in runs]
    workshop.labels.update({trial.id: label_of(trial, trial.training.tokens) for trial in trials})
    models = train_all(
        workshop.store,
        trials,
        placement=partial(workshop.place, runs[0].rung),
        progress=workshop.progress,
        task_seconds=workshop.task_seconds,
        **workshop.cluster,
    )
    experiment = plan.experiment
    scored = score_all(
        workshop.store,
        models,
        panel=Path(experiment.panel),
        tasks=None if experiment.tasks is None else Path(experiment.tasks),
        names=experiment.task_names,
        device=workshop.device,
        progress=workshop.progress,
        **workshop.cluster,
    )
    found = {(one.model.said["trial"], one.model.said["arm"], one.model.said["tokens"]): one for one in scored}
    return [
        measured_run(plan, run, [found[trial.id, trial.arm, budget] for budget in trial.training.budgets])
        for run, trial in zip(runs, trials, strict=True)
    ]


def trial_of(plan: Plan, store: Store, run: Run) -> Trial:
    """A run as a model to train; its mask is put into the store."""
    rung, arm = plan.rungs[run.rung], plan.arm(run.arm)
    return Trial(
        arm=arm.name,
        sources=(reads_of(store, arm),),
        size=rung.said.size,
        training=rung.training if run.ends else rung.arm_training,
        seed=run.seed,
        learning_rate=run.rate,
    )


def reads_of(store: Store, arm: ArmPlan) -> Reads:
    """What an arm reads, by the hashes of its masks."""
    shuffled = None if arm.shuffled is None else kept_mask(store, arm.shuffled_mask)
    return Reads(pool=arm.pool, pool_sha256=arm.pool_sha256, mask=kept_mask(store, arm.mask), shuffled=shuffled)


def measured_run(plan: Plan, run: Run, ends: Sequence[Scored]) -> Measured:
    """A run's metrics at each of its budgets, and its device hours."""
    rung = plan.rungs[run.rung]
    tokens = rung.said.tokens * (1 + ENDPOINT_TOKENS * run.ends)
    return Measured(
        ends=tuple(metrics_of(one.model, one.said) for one in ends),
        labels=tuple(one.model.label for one in ends),
        hours=device_seconds(ends[0].model.said, tokens, planned=rung.design.rung.tokens_per_second) / 3600,
    )


def device_seconds(said: Mapping[str, Any], tokens: float, *, planned: float) -> float:
    """What a model took, by its run.json. One of an earlier version says the speed of the process that ended it, and 0
    where that had nothing left to train: the `planned` one then.
    """
    known = said.get("device_seconds")
    return tokens / (float(said["tokens_per_second"]) or planned) if known is None else float(known)


def metrics_of(model: Model, said: Mapping[str, Any]) -> dict[str, float | None]:
    """Every metric of a model as scores.json has it; of one that stopped None of all."""
    panel, tasks = said["panel"], said.get("tasks", {"by_task": {}})["by_task"]
    found: dict[str, float | None] = {"panel": panel["macro"]}
    found |= {f"panel/{name}": one["bits_per_byte"] for name, one in panel["domains"].items()}
    found |= {f"{task}/{name}": one["mean"] for task, metrics in tasks.items() for name, one in metrics.items()}
    gold = [one["bits_per_byte"]["mean"] for one in tasks.values() if "bits_per_byte" in one]
    if gold:
        found["gold"] = float(np.mean(gold))
    return found if model.said["stopped"] is None else dict.fromkeys(found)


def written_experiment(
    recipe: str,
    pool: str,
    *,
    panel: str,
    tasks: str | None,
    size: str = "1M",
    tokens: int | None = None,
    seeds: int = 5,
) -> str:
    """An experiment as YAML: every rule of the pool's recipe left out, one at a time, where that changes anything.

    Raises InputError where the pool was made by another recipe, or no rule of it changes what is kept.
    """
    pool = open_store(pool).url
    said = read_said(pool)
    made = run_of(pool, said)
    if load_recipe(recipe).sha256 != made.recipe.sha256:
        raise InputError(
            f"--recipe {recipe}: {pool} was made by {made.recipe.name}, whose rules it is that can be left out of it. "
            f"Name that one, or run {recipe} with --annotate and make a pool of it."
        )
    found = left_out(pool, said, [rule.name for rule, _ in run_rules(made)])
    if not found.judged:
        raise InputError(f"{pool}: no rule of {recipe} removes a document that the others would keep.")
    data: dict[str, Any] = {
        "name": campaign_name(recipe, said["sha256"]),
        "says": f"Every rule of {recipe} left out, one at a time.",
        "pool": pool,
        "base": "rules",
        "panel": absolute(panel),
        **({} if tasks is None else {"tasks": absolute(tasks)}),
        "rungs": [{"size": size, "tokens": tokens or found.tokens, "seeds": seeds}],
        "arms": [{"name": name, "mask": f"without:{name}"} for name in found.judged],
    }
    comments = "".join(f"# {one}\n" for one in found.left)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120) + comments


def written_into(store: Store, text: str, *, take_over: bool) -> tuple[str, bool]:
    """Put an experiment into the store unless one is there; return the one that is there then, and whether it is new.

    Raises OutputError as locking the store does, where another command works there.
    """
    try:
        return store.read(WRITTEN).decode(), False
    except FileNotFoundError:
        with store.locked(take_over=take_over):
            new = store.create(WRITTEN, text.encode())
        return store.read(WRITTEN).decode(), new


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Rules that change something when they are left out, why others are not judged, and a budget of tokens."""

    judged: tuple[str, ...]
    left: tuple[str, ...]
    tokens: int


def left_out(pool: str, said: Mapping[str, Any], rules: Sequence[str]) -> LeftOut:
    """What becomes of the pool's documents where each of these rules is left out."""
    from proxy_eval.pool import read_pool

    mask_of = partial(arm_mask, pool, said, workers=cores())
    base, opened = mask_of("rules"), read_pool(local_pool(pool))
    assert base is not None, "rules are a mask"
    read = random_mask(opened, Placebos().garbage, GARBAGE) & (opened.counts > 0)
    judged, left = list[str](), list[str]()
    for rule in rules:
        try:
            kept = mask_of(f"without:{rule}")
        except InputError as error:
            left.append(f"{rule} cannot be left out ({str(error).splitlines()[0]})")
            continue
        changes = kept is not None and bool((kept & ~base & read).any())
        (judged if changes else left).append(rule if changes else f"{rule} alone removes nothing here")
    # Twice the budget, the control's upper endpoint, stays below one epoch of what is left when garbage is set aside.
    tokens = two_digits(min(MOST_TOKENS, 0.45 * float(opened.counts[base].sum())))
    return LeftOut(judged=tuple(judged), left=tuple(left), tokens=tokens)


def campaign_name(recipe: str, sha256: str) -> str:
    """Of a written experiment: the noise bank knows each pool's by a name of its own."""
    name = re.sub(r"[^A-Za-z0-9._@-]+", "-", re.sub(r"\.ya?ml$", "", Path(recipe).name))
    return f"left-out-{name[:46]}-{sha256[:8]}"


def two_digits(count: float) -> int:
    """The count rounded down to two digits."""
    scale: int = 10 ** max(0, len(str(int(count))) - 2)
    return int(count) // scale * scale


def absolute(place: str) -> str:
    """A path as every folder finds it; a URL as it is."""
    return place if "://" in place else str(Path(place).absolute())
