"""What `gristmill ablate` does, as functions: plan an experiment, write one, run it. A notebook calls the same.

OUT is a store of models as `gristmill train` makes one (infra/training.py), with `experiment.yaml` where it was written
here, `results.json` (infra/experiment_results.py), and what was promised before the first look below
`_work/experiment/`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from filters.errors import InputError
from filters.rule import Bools
from infra.ablate import Measured, Run, State, ablate, as_begun, table_of
from infra.annotated import run_rules
from infra.arms import arm_mask
from infra.experiment_arms import GARBAGE, ArmPlan
from infra.experiment_plan import Plan, check_calibrated, panel_of, planned_experiment
from infra.experiment_results import RESULTS, Results, encoded, read_results, results_of
from infra.placement import Placement, device_of, micro_batch, placed, scoring_place
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
from proxy_eval.noise_bank import Bank, Variance, prior, read_bank, with_entries, write_bank
from proxy_eval.planner import CONTROL_TOKENS
from proxy_eval.stream import random_mask

if TYPE_CHECKING:
    from proxy_eval.pool import Pool
    from proxy_eval.steps import Training

WRITTEN = "experiment.yaml"
MOST_TOKENS = 2_000_000
"""Of a written experiment's runs at 1M weights: some three minutes each on two cores."""
SPEED_MEMBERS = 16
"""In a stack on a GPU, where speed is measured for a plan."""


def plan_of(experiment: Experiment, out: str | None = None, *, device: str = "auto") -> Plan:
    """The plan of an experiment, as `out` has begun it, with the speed of this machine where the file says none."""
    check_extra(*PACKAGES)
    from proxy_eval.pool import read_pool

    if out is not None:
        experiment = as_begun(experiment, open_store(out))

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
        speed=partial(speed_here, device=device, members=min(SPEED_MEMBERS, len(experiment.arms) + 4)),
        bank=read_bank(bank_path(experiment)),
        panel_sha256=panel_of(experiment),
        tasks_sha256=None if experiment.tasks is None else tasks_sha256(Path(experiment.tasks)),
    )


def speed_here(training: Training, *, device: str, members: int) -> float:
    """Tokens a second of this machine: of one model on a CPU, of a stack on a GPU."""
    from proxy_eval.steps import measured_speed

    chosen = device_of(device)
    count = members if chosen.startswith("cuda") else 1
    return measured_speed(micro_batch(training, count, chosen), count, chosen)


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
    store, bank_file = open_store(out), bank_path(plan.experiment)
    labels: dict[str, str] = {}
    with store.locked(take_over=take_over), TrainingProgress(sys.stderr, labels=labels, quiet=quiet) as progress:
        measure = partial(
            measured,
            plan,
            store,
            labels=labels,
            places={},
            placement=partial(
                placed,
                device=device,
                workers=workers,
                stack=stack,
                address=address,
                allow_unauthenticated=allow_unauthenticated,
            ),
            scoring=scoring_place(device, None),
            progress=progress,
            address=address,
            allow_unauthenticated=allow_unauthenticated,
            task_seconds=task_seconds,
        )

        def looked(state: State) -> None:
            found = results_of(state)
            store.replace(RESULTS, encoded(found))
            note_noise(bank_file, state)
            on_look(found)

        ablate(plan, store, measure, priors_of(plan, read_bank(bank_file)), on_look=looked)
    return read_results(store.read(RESULTS))


def priors_of(plan: Plan, bank: Bank) -> dict[int, dict[str, Variance]]:
    """What the noise bank says of each rung, by kind."""
    campaign, metric = plan.experiment.name, plan.metric_key
    return {
        rung.number: {
            kind: prior(bank, rung.key, metric, kind, campaign=campaign) for kind in ("run", "pair", "doubling")
        }
        for rung in plan.rungs
    }


def note_noise(path: Path, state: State) -> None:
    """Put what the experiment has measured of its noise into the bank, in the place of what it had put there."""
    plan = state.plan
    path.parent.mkdir(parents=True, exist_ok=True)
    bank = read_bank(path)
    for rung in state.rungs:
        if rung.looks:
            table = table_of(plan, rung, plan.experiment.metric, rung.plan.rates[0])
            entries = bank_entries(
                table, rung.design, rung=rung.plan.key, metric=plan.metric_key, campaign=plan.experiment.name
            )
            bank = with_entries(bank, entries)
    write_bank(bank, path)


def measured(
    plan: Plan,
    store: Store,
    runs: Sequence[Run],
    *,
    labels: dict[str, str],
    places: dict[int, Placement],
    placement: Callable[[Sequence[Trial]], Placement],
    scoring: Placement,
    progress: TrainingProgress,
    address: str | None,
    allow_unauthenticated: bool,
    task_seconds: float | None,
) -> list[Measured]:
    """Train and score these runs, all of one rung, but for those that are committed. Where they train is measured once
    for a rung.
    """
    trials = [trial_of(plan, store, run) for run in runs]
    labels.update({trial.id: label_of(trial, trial.training.tokens) for trial in trials})

    def place(todo: Sequence[Trial]) -> Placement:
        number = runs[0].rung
        if number not in places or len(todo) == 1:
            places[number] = placement(todo)
        return places[number]

    cluster: dict[str, Any] = {"address": address, "allow_unauthenticated": allow_unauthenticated}
    models = train_all(store, trials, placement=place, progress=progress, task_seconds=task_seconds, **cluster)
    experiment = plan.experiment
    scored = score_all(
        store,
        models,
        panel=Path(experiment.panel),
        tasks=None if experiment.tasks is None else Path(experiment.tasks),
        names=experiment.task_names,
        placement=scoring,
        progress=progress,
        **cluster,
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
    """A run's metrics at each of its budgets."""
    rung = plan.rungs[run.rung]
    tokens = rung.said.tokens * (CONTROL_TOKENS if run.ends else 1)
    return Measured(
        ends=tuple(metrics_of(one.model, one.said) for one in ends),
        labels=tuple(one.model.label for one in ends),
        hours=tokens / max(1.0, float(ends[0].model.said["tokens_per_second"])) / 3600,
    )


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
    from proxy_eval.pool import read_pool

    pool = open_store(pool).url
    said = read_said(pool)
    made = run_of(pool, said)
    if load_recipe(recipe).sha256 != made.recipe.sha256:
        raise InputError(
            f"--recipe {recipe}: {pool} was made by {made.recipe.name}, whose rules it is that can be left out of it. "
            f"Name that one, or run {recipe} with --annotate and make a pool of it."
        )
    mask_of = partial(arm_mask, pool, said, workers=cores())
    base, opened = mask_of("rules"), read_pool(local_pool(pool))
    read = random_mask(opened, Placebos().garbage, GARBAGE) & (opened.counts > 0)
    assert base is not None, "rules are a mask"
    judged: list[str] = []
    left: list[str] = []
    for rule, _ in run_rules(made):
        try:
            kept = mask_of(f"without:{rule.name}")
        except InputError as error:
            left.append(f"{rule.name} cannot be left out ({str(error).splitlines()[0]})")
            continue
        changes = kept is not None and bool((kept & ~base & read).any())
        (judged if changes else left).append(rule.name if changes else f"{rule.name} alone removes nothing here")
    if not judged:
        raise InputError(f"{pool}: no rule of {recipe} removes a document that the others would keep.")
    # Twice the budget, the control's upper endpoint, stays below one epoch of what is left when garbage is set aside.
    chosen = tokens or two_digits(min(MOST_TOKENS, 0.45 * float(opened.counts[base].sum())))
    data: dict[str, Any] = {
        "name": f"{Path(recipe).stem.replace('@', '-')}-left-out",
        "says": f"Every rule of {recipe} left out, one at a time.",
        "pool": pool,
        "base": "rules",
        "panel": absolute(panel),
        **({} if tasks is None else {"tasks": absolute(tasks)}),
        "rungs": [{"size": size, "tokens": chosen, "seeds": seeds}],
        "arms": [{"name": name, "mask": f"without:{name}"} for name in judged],
    }
    comments = "".join(f"# {one}\n" for one in left)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120) + comments


def two_digits(count: float) -> int:
    """The count rounded down to two digits."""
    scale: int = 10 ** max(0, len(str(int(count))) - 2)
    return int(count) // scale * scale


def absolute(place: str) -> str:
    """A path as every folder finds it; a URL as it is."""
    return place if "://" in place else str(Path(place).absolute())
