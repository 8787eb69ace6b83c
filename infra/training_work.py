"""What a worker does to train: the trials of one stack, from their streams to committed models.

Trials differ in arm, seed and learning rate; those of one stack share all else and are trained at once
(proxy_eval/train.py). What a trial is named by (`Trial.id`) holds hashes of pool and masks and no path, no machine and
not the stack: models of an earlier command are found whatever was stacked then. Another machine may round otherwise, so
the first commit wins (`timing_dependent`). Imports torch only when it trains.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from filters.errors import InputChanged
from filters.rule import Bools
from infra.commit import FileEntry, Manifest, file_entry
from infra.failpoints import failpoint
from infra.local_store import LocalStore
from infra.placement import micro_batch
from infra.pool_files import fetch, local_pool, read_mask
from infra.processes import cores
from infra.ranks import all_ranks
from infra.scratch import scratch
from infra.stored import Attempt, Store, usable
from infra.training_progress import Said
from infra.work import Report, identity
from pipelines.schema import write_parquet

if TYPE_CHECKING:
    from proxy_eval.llama import Shape
    from proxy_eval.parallel import Rank
    from proxy_eval.steps import Training
    from proxy_eval.stream import Stream
    from proxy_eval.train import Endpoint, Progress, Trained

TRAIN = "train"
REVISION = 1
"""Of the numbers that training gives; raised when the same trial gives other weights beyond rounding."""
METRICS_FILE = "metrics.parquet"
PACKAGES = ("torch", "safetensors", "tokenizers")
CHECKPOINTS = "_work/checkpoints"
CHECKPOINT_SECONDS = 60.0
UPLOAD_SECONDS = 600.0
"""A checkpoint goes to an object store no more often: it is three times the model, in fp32."""
METRICS = pa.schema(
    [("step", pa.int64()), ("tokens", pa.int64()), ("loss", pa.float32()), ("learning_rate", pa.float64())]
)


@dataclass(frozen=True, kw_only=True)
class Reads:
    """A source of an arm: a pool, and masks by their hashes (None: all documents; none shuffled)."""

    pool: str
    pool_sha256: str
    mask: str | None = None
    shuffled: str | None = None
    weight: float = 1.0

    @property
    def identity(self) -> list[Any]:
        """What bears on the tokens that are read."""
        return [self.pool_sha256, self.mask, self.shuffled, self.weight]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One model to train. `arm` is what a person calls what it reads, and bears on nothing."""

    arm: str
    sources: tuple[Reads, ...]
    size: str
    training: Training
    seed: int
    learning_rate: float

    @property
    def shape(self) -> Shape:
        """Of the model."""
        return self.training.shape

    @property
    def id(self) -> str:
        """Hash of what bears on the weights."""
        sources = [one.identity for one in self.sources]
        return identity(TRAIN, REVISION, asdict(self.training), sources, self.seed, self.learning_rate)

    @property
    def reads(self) -> str:
        """Hash of what bears on the stream."""
        return identity([one.identity for one in self.sources], self.seed, self.shape.context)


@dataclass(frozen=True, kw_only=True)
class TrainTask:
    """The trials of one stack, of one shape and training. `threads` None: as many as torch takes. `ranks`: workers that
    share every batch.
    """

    store: Store
    trials: tuple[Trial, ...]
    device: str = "cpu"
    threads: int | None = None
    ranks: int = 1
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    @property
    def id(self) -> str:
        """Hash of the trials."""
        return identity(TRAIN, [trial.id for trial in self.trials])

    @property
    def packages(self) -> tuple[str, ...]:
        """What every node must have in the driver's releases."""
        return PACKAGES

    @property
    def gpus(self) -> int:
        """What the scheduler is asked for."""
        return int(self.device.startswith("cuda"))

    @property
    def devices(self) -> float:
        """That are at work, as this process sees them: GPUs, or of a machine without one the share of its cores."""
        share = 1.0 if self.gpus or self.threads is None else min(1.0, self.threads / cores())
        return self.ranks * share


def perform_train(task: TrainTask, report: Report) -> Manifest:
    """Train the stack, from its checkpoint where there is one, and store a model folder's files for each trial."""
    with checkpoint_of(task.store, task.id) as (folder, stored), all_ranks(task, folder) as rank:
        steps = itertools.count(1)

        def on_step(progress: Progress) -> None:
            stored()
            report(task.id, said_of(task, progress, next(steps)))

        trained = trained_members(task, folder, rank, on_step)
        with task.store.attempt(task.id) as attempt:
            files = written(task, trained, attempt)
            failpoint("attempt.written")
            kept = {name: file_entry(task.store, attempt, path, rows) for name, (path, rows) in files.items()}
    return Manifest(stage=TRAIN, task=task.id, says=facts_of(task, trained), files=kept, timing_dependent=True)


def trained_members(task: TrainTask, folder: Path, rank: Rank, on_step: Callable[[Progress], None] | None) -> Trained:
    """What the trials of a stack come to, on from the checkpoint in the folder. Raises InputError before the first step
    where one of them would come round more than 4 times.
    """
    import torch

    from proxy_eval.steps import Member
    from proxy_eval.train import train

    if task.threads is not None:
        torch.set_num_threads(task.threads)
    reading = {trial.reads: trial for trial in task.trials}
    streams = {reads: stream_of(task.store, trial) for reads, trial in reading.items()}  # members of one share it
    for stream in streams.values():
        stream.epochs(task.trials[0].training.tokens)
    members = [
        Member(stream=streams[trial.reads], seed=trial.seed, learning_rate=trial.learning_rate) for trial in task.trials
    ]
    return train(
        micro_batch(task.trials[0].training, len(members), task.device),
        members,
        device=task.device,
        checkpoint=folder,
        every_seconds=task.checkpoint_seconds,
        on_step=on_step,
        rank=rank,
    )


def said_of(task: TrainTask, progress: Progress, step: int) -> Said:
    """What a person is told of a step, the `step`-th of this attempt."""
    return Said(
        step=step,
        tokens=progress.tokens,
        budget=progress.budget,
        losses={trial.id: float(loss) for trial, loss in zip(task.trials, progress.losses, strict=True)},
        tokens_per_second=progress.tokens_per_second,
        seconds_left=progress.eta,
    )


def stream_of(store: Store, trial: Trial) -> Stream:
    """What the trial reads. Raises InputChanged where a pool is not the one that the trial was made for."""
    from proxy_eval.pool import read_pool
    from proxy_eval.stream import Arm, Source, Stream

    sources = []
    for one in trial.sources:
        pool = read_pool(local_pool(one.pool))
        if pool.sha256 != one.pool_sha256:
            raise InputChanged(f"{one.pool} is another pool than when this was planned. Run the same command again.")

        def documents(mask: str | None, count: int = len(pool)) -> Bools | None:
            return None if mask is None else read_mask(store, mask, count)

        sources.append(Source(pool=pool, mask=documents(one.mask), weight=one.weight, shuffled=documents(one.shuffled)))
    arm = Arm(name=trial.arm, sources=tuple(sources))
    return Stream(arm=arm, seed=trial.seed, context=trial.shape.context)


@contextmanager
def checkpoint_of(store: Store, task: str) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Yield the folder of this attempt's checkpoint, holding what earlier attempts of the task have left, and what to
    call after each step. It outlives the attempt: in the store's folder, or put to an object store now and then.

    No two attempts write into one folder: one that was given up may still be at work somewhere.
    """
    name = f"{CHECKPOINTS}/{task}"
    if isinstance(store, LocalStore):
        with usable(store.root / name):
            folder = taken_over(store.root / name)
        yield folder, lambda: None
        return
    with scratch() as folder:
        for one in store.listed(name):
            fetch(store, one.name, one.bytes, folder / Path(one.name).name)
        there, put = Attempt(folder=folder, name=name), time.time()

        def stored() -> None:
            nonlocal put
            if time.time() > put + UPLOAD_SECONDS:
                fresh = [path for path in folder.glob("*.safetensors") if path.stat().st_mtime > put]
                put = time.time()
                for path in sorted(fresh):  # endpoints come before the state that lies behind them
                    store.keep(there, path)

        yield folder, stored


def taken_over(folder: Path) -> Path:
    """A new folder inside, with links to the files of the one that was written last; the others are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    before = {path.parent: path.stat().st_mtime for path in sorted(folder.glob("*/*.safetensors"))}
    own = folder / uuid.uuid4().hex
    own.mkdir()
    if before:
        for path in max(before, key=before.__getitem__).glob("*.safetensors"):
            os.link(path, own / path.name)
    for other in before:
        shutil.rmtree(other, ignore_errors=True)
    return own


def written(task: TrainTask, trained: Trained, attempt: Attempt) -> dict[str, tuple[Path, int]]:
    """The files of each model in the attempt's folder by `TRIAL/BUDGET/NAME`, with their rows: what `export_model`
    gives, and `metrics.parquet`.
    """
    from proxy_eval.export import export_model
    from proxy_eval.pool import read_pool

    found = {}
    for endpoint in trained.endpoints:
        for at, trial in enumerate(task.trials):
            tokenizer = read_pool(local_pool(trial.sources[0].pool)).tokenizer
            with scratch("export-", attempt.folder) as folder:
                export_model(endpoint.weights, at, trial.shape, tokenizer.json, folder, end=tokenizer.end)
                rows = write_parquet(folder / METRICS_FILE, [metrics_of(trial, endpoint, at)], METRICS)
                for path in sorted(folder.iterdir()):
                    moved = path.rename(attempt.folder / f"{trial.id}-{endpoint.tokens}-{path.name}")
                    name = f"{trial.id}/{endpoint.tokens}/{path.name}"
                    found[name] = (moved, rows if path.name == METRICS_FILE else 0)
    return found


def metrics_of(trial: Trial, endpoint: Endpoint, at: int) -> pa.RecordBatch:
    """Step, targets seen, mean loss in nats, and learning rate of one model; null losses after it stopped."""
    training, losses = trial.training, np.asarray(endpoint.losses[at], np.float32)
    steps = np.arange(1, len(losses) + 1, dtype=np.int64)
    tokens = np.minimum(steps * training.step_tokens, endpoint.tokens)
    rates = [trial.learning_rate * training.factor(step, endpoint.tokens) for step in range(len(losses))]
    columns = [steps, tokens, pa.array(losses, from_pandas=True), pa.array(rates, pa.float64())]
    return pa.record_batch(columns, schema=METRICS)


def facts_of(task: TrainTask, trained: Trained) -> dict[str, Any]:
    """What the manifest says beside the files: of each model the step at which it stopped, its last loss (the mean of
    the last twentieth of its steps, in nats a token), how often its arm came round, and its share of the seconds that
    devices were at work for all budgets together; and how fast the stack was.
    """
    seconds = task.devices * trained.seconds / len(task.trials)
    models = {
        f"{trial.id}/{endpoint.tokens}": {
            "stopped": endpoint.stopped[at],
            "loss": last_loss(endpoint.losses[at]),
            "epochs": round(stream.epochs(endpoint.tokens), 4),
            "device_seconds": round(seconds, 3),
        }
        for at, trial in enumerate(task.trials)
        for stream in [stream_of(task.store, trial)]
        for endpoint in trained.endpoints
    }
    speed = {"tokens_per_second": round(trained.tokens_per_second, 1), "waiting": round(trained.waiting, 4)}
    return {"models": models, **speed, "peak_bytes": trained.peak_bytes}


def last_loss(losses: Any) -> float | None:
    """Mean loss over the last twentieth of the steps; None where one of them was not finite."""
    found = float(np.mean(losses[-max(1, len(losses) // 20) :], dtype=np.float64))
    return found if np.isfinite(found) else None


def entries_of(manifest: Manifest, trial: str, budget: int) -> dict[str, FileEntry]:
    """The files of one model by their names."""
    folder = f"{trial}/{budget}/"
    return {name.removeprefix(folder): one for name, one in manifest.files.items() if name.startswith(folder)}


def stacked(trials: Sequence[Trial], size: int) -> list[tuple[Trial, ...]]:
    """Trials in stacks of at most `size`; those of one stack share shape and training."""
    alike: dict[str, list[Trial]] = {}
    for trial in trials:
        alike.setdefault(identity(asdict(trial.training)), []).append(trial)
    return [tuple(some[at : at + size]) for some in alike.values() for at in range(0, len(some), size)]
