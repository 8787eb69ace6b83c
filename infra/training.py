"""Many models on one pool: plan the trials, train those that no earlier command has, show each as soon as it is whole.

DIR is a store. `models/LABEL/` holds a model at the end of one budget: what Hugging Face reads (model.safetensors,
config.json, tokenizer), `metrics.parquet` (a row for each step) and, written last, `run.json`. Manifests, attempts,
masks and the checkpoints of what is under way lie below `_work/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.errors import InputError, OutputError
from infra.arms import arm_mask
from infra.commit import FileEntry, Manifest, committed, read_manifests
from infra.placement import Placement
from infra.pool_files import holds, kept_mask, read_said
from infra.runner import Runner, make_runner, usual_runner
from infra.store import open_store
from infra.stored import Store, read_decoded
from infra.training_progress import TrainingProgress
from infra.training_work import CHECKPOINTS, TRAIN, Reads, TrainTask, Trial, entries_of, stacked, stream_of

if TYPE_CHECKING:
    from proxy_eval.steps import Training

MODELS, RUN_FILE = "models", "run.json"
FORMAT = 1
"""Of run.json."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """What an arm reads for a budget: documents and tokens of one epoch, end tokens among them, and how many epochs."""

    arm: str
    documents: int
    tokens: int
    epochs: float


@dataclass(frozen=True, kw_only=True)
class Model:
    """A finished model: its label, what run.json says of it, and its files by name."""

    label: str
    said: Mapping[str, Any]

    @property
    def files(self) -> dict[str, FileEntry]:
        """By name; paths are those below the store."""
        return {name: FileEntry(**entry) for name, entry in self.said["files"].items()}


def planned(
    store: Store,
    pool: str,
    *,
    masks: Sequence[str],
    size: str,
    tokens: Sequence[int],
    seeds: Sequence[int],
    rates: Sequence[float] = (),
    context: int | None = None,
    mix: Sequence[str] = (),
    workers: int = 1,
) -> list[Trial]:
    """A trial for each mask, seed and learning rate; masks are put into the store. Several `tokens` are endpoints of
    one trunk (schedule wsd); of one, the schedule is a cosine. `mix`: see `mixed`.

    Raises InputError where a mask is none, or keeps nothing that can be read for the budget within 4 epochs.
    """
    pool = open_store(pool).url
    said = read_said(pool)
    training, ruled = training_of(said, size=size, tokens=tokens, context=context)
    calibrated = calibrated_rate(pool, size, max(tokens), said["sha256"])
    rate = ruled if calibrated is None else calibrated
    others = tuple(mixed(one) for one in mix)
    weight = 1.0 - sum(one.weight for one in others)
    if weight <= 0:
        raise InputError(f"--mix: {', '.join(mix)} leave nothing of the tokens for {pool}. Take smaller shares.")
    arms = {
        mask: (
            Reads(
                pool=pool,
                pool_sha256=said["sha256"],
                mask=stored_mask(store, pool, said, mask, workers),
                weight=weight,
            ),
            *others,
        )
        for mask in dict.fromkeys(masks)
    }
    return [
        Trial(
            arm=mask,
            sources=sources,
            size=size,
            training=training,
            seed=seed,
            learning_rate=one,
        )
        for mask, sources in arms.items()
        for seed in dict.fromkeys(seeds)
        for one in dict.fromkeys(rates or (rate,))
    ]


def mixed(said: str) -> Reads:
    """Another pool as a source of every arm, by `POOL=SHARE`: all of it, at that share of the tokens."""
    url, _, share = said.rpartition("=")
    try:
        weight = float(share)
    except ValueError:
        weight = 0.0
    if not url or not 0 < weight < 1:
        raise InputError(f"--mix {said}: write POOL=SHARE, a share of the tokens between 0 and 1, as in books=0.2.")
    pool = open_store(url).url
    return Reads(pool=pool, pool_sha256=read_said(pool)["sha256"], weight=weight)


def stored_mask(store: Store, pool: str, said: Mapping[str, Any], mask: str, workers: int) -> str | None:
    """The hash of a mask that now lies in the store; None where it keeps all."""
    kept = arm_mask(pool, said, mask, workers=workers)
    return None if kept is None else kept_mask(store, kept)


def training_of(
    said: Mapping[str, Any], *, size: str, tokens: Sequence[int], context: int | None
) -> tuple[Training, float]:
    """How models of a size are trained for these budgets on a pool of which pool.json says this, and at which learning
    rate, by the rule (proxy_eval/hyperparameters.py).
    """
    from proxy_eval.hyperparameters import hyperparameters, wsd
    from proxy_eval.llama import shape_of
    from proxy_eval.steps import Training

    shape = shape_of(size, said["tokenizer"]["vocabulary"], context)
    chosen = hyperparameters(size, shape, max(tokens))
    schedule = chosen.schedule if len(tokens) == 1 else wsd(hyperparameters(size, shape, min(tokens)).schedule.warmup)
    training = Training(
        shape=shape,
        tokens=max(tokens),
        sequences=chosen.sequences,
        schedule=schedule,
        endpoints=tuple(sorted(tokens))[:-1],
    )
    return training, chosen.learning_rate


def calibrated_rate(pool: str, size: str, tokens: int, sha256: str) -> float | None:
    """The learning rate that `gristmill calibrate` chose for this size and budget on this very pool; None where it
    never ran.
    """
    try:
        said = read_decoded(open_store(pool), calibration_name(size, tokens), json.loads)
    except FileNotFoundError:
        return None
    return float(said["learning_rate"]) if said["pool_sha256"] == sha256 else None


def calibration_name(size: str, tokens: int) -> str:
    """Where the calibration of a size and budget lies in a pool."""
    return f"calibrations/{size}-{tokens}.json"


def readings(store: Store, trials: Sequence[Trial]) -> Iterator[Read]:
    """What each arm reads; the seed changes none of these numbers. Raises InputError above 4 epochs."""
    first: dict[str, Trial] = {}
    for trial in trials:
        first.setdefault(trial.arm, trial)
    for trial in first.values():
        stream = stream_of(store, trial)
        epochs = stream.epochs(trial.training.tokens)
        kept = [one.pool.counts if one.mask is None else one.pool.counts[one.mask] for one in stream.arm.sources]
        documents = sum(int(np.count_nonzero(counts)) for counts in kept)
        tokens = documents + sum(int(counts.sum()) for counts in kept)
        yield Read(arm=trial.arm, documents=documents, tokens=tokens, epochs=epochs)


def train_all(
    store: Store,
    trials: Sequence[Trial],
    *,
    placement: Callable[[Sequence[Trial]], Placement],
    progress: TrainingProgress,
    address: str | None = None,
    allow_unauthenticated: bool = False,
    task_seconds: float | None = None,
) -> list[Model]:
    """Train what is not committed and return the models of all trials, in order. The caller holds the store's lock.

    Raises the first error of a task that cannot be done.
    """
    alike: dict[str, list[Trial]] = {}
    for trial in trials:
        alike.setdefault(trial.id, []).append(trial)
    done = trained_before(store, alike)
    todo = [some[0] for name, some in alike.items() if name not in done]
    if todo:
        chosen = placement(todo)
        progress.say(chosen.why)
        tasks = [
            TrainTask(store=store, trials=some, device=chosen.device, threads=chosen.threads, ranks=chosen.ranks)
            for some in stacked(todo, chosen.stack)
        ]
        progress.stage(TRAIN, len(tasks), 0)
        with runner_for(chosen, address, allow_unauthenticated, task_seconds) as runner:
            # Two trainings of several ranks at a time would wait for each other's workers.
            lots = [tasks] if chosen.ranks == 1 else [[task] for task in tasks]
            for manifest in chain.from_iterable(runner.run(lot, progress.report) for lot in lots):
                progress.report(manifest.task, None, True)
                found = {name: manifest for name in trials_of(manifest)}
                done |= found
                for name in found:
                    publish(store, alike[name], manifest)
        store.remove([one.name for one in store.listed(CHECKPOINTS)])
    return [model for name, some in alike.items() for model in publish(store, some, done[name])]


def runner_for(
    placement: Placement, address: str | None, allow_unauthenticated: bool, task_seconds: float | None
) -> Runner:
    """This process where it has all cores or the one GPU to itself; else Ray."""
    return make_runner(
        usual_runner(placement.workers, address),
        placement.workers,
        address=address,
        allow_unauthenticated=allow_unauthenticated,
        task_seconds=task_seconds,
        gpus=int(placement.device.startswith("cuda")),
    )


def trained_before(store: Store, wanted: Iterable[str]) -> dict[str, Manifest]:
    """The manifest of each of these trials that was committed, whatever it was stacked with."""
    before = sorted(committed(store, TRAIN))
    found = {name: manifest for manifest in read_manifests(store, TRAIN, before) for name in trials_of(manifest)}
    return {name: found[name] for name in wanted if name in found}


def trials_of(manifest: Manifest) -> list[str]:
    """The trials of a stack."""
    return list(dict.fromkeys(name.partition("/")[0] for name in manifest.files))


def publish(store: Store, trials: Sequence[Trial], manifest: Manifest) -> list[Model]:
    """Show the models of these trials, which are alike but for their arms' names, and return them by budget."""
    found = []
    for trial in trials:
        for budget in trial.training.budgets:
            model = Model(label=label_of(trial, budget), said=model_said(trial, budget, manifest))
            folder = f"{MODELS}/{model.label}"
            said = (json.dumps(model.said, indent=1, sort_keys=True) + "\n").encode()
            if not holds(store, f"{folder}/{RUN_FILE}", said):
                store.show(folder, [(entry.path, name) for name, entry in model.files.items()])
                store.replace(f"{folder}/{RUN_FILE}", said)
            found.append(model)
    return found


def label_of(trial: Trial, budget: int) -> str:
    """A folder's name that a person can read; the end of it makes it one trial's alone."""
    arm = re.sub(r"[^A-Za-z0-9._@=-]+", "_", trial.arm)[:60]
    return f"{arm}-{trial.size}-{budget}-seed{trial.seed}-lr{trial.learning_rate:g}-{trial.id[:6]}"


def model_said(trial: Trial, budget: int, manifest: Manifest) -> dict[str, Any]:
    """What run.json says."""
    return {
        "format": FORMAT,
        "trial": trial.id,
        "arm": trial.arm,
        "sources": [asdict(one) for one in trial.sources],
        "size": trial.size,
        "parameters": trial.shape.parameters,
        "training": asdict(trial.training),
        "tokens": budget,
        "seed": trial.seed,
        "learning_rate": trial.learning_rate,
        **manifest.says["models"][f"{trial.id}/{budget}"],
        "tokens_per_second": manifest.says["tokens_per_second"],
        "files": {name: asdict(entry) for name, entry in entries_of(manifest, trial.id, budget).items()},
    }


def read_models(store: Store) -> list[Model]:
    """The finished models of a folder, by label. Raises OutputError where there is none."""
    names = sorted(one.name for one in store.listed(MODELS) if one.name.endswith(f"/{RUN_FILE}"))
    models = [Model(label=name.split("/")[1], said=read_decoded(store, name, json.loads)) for name in names]
    if not models or any(one.said.get("format") != FORMAT for one in models):
        raise OutputError(f"{store.url}: no models of this version of gristmill. Train some: gristmill train POOL ...")
    return models


def model_named(models: Sequence[Model], wanted: str | None) -> Model:
    """The model whose label begins so; the only one where nothing is said. Raises InputError where that is not one."""
    found = [one for one in models if one.label.startswith(wanted or "")]
    if exact := [one for one in found if one.label == wanted]:
        return exact[0]
    if len(found) != 1:
        names = "\n  ".join(one.label for one in (found or models))
        raise InputError(f"--model {wanted or ''}: {len(found)} models are called so. There are:\n  {names}")
    return found[0]
