"""Trains a stack of A models of one shape on a fixed budget of tokens: A streams in, weights and losses out.

With a schedule "wsd" one trunk serves several budgets: where the decay of a budget begins, the trunk is copied, the
copy is decayed to the end of that budget, and the trunk goes on. The copy's steps and data are those of a run with that
budget alone, so its weights are, bit for bit on a CPU. A run that was ended at any moment goes on from its checkpoint
to the same bits: nothing is random after the first weights, and a stream is a function of the index.

Memory: four floats a weight for each member (weight, gradient, two moments), seven while a branch is being decayed, and
the activations of one micro-batch.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from filters.errors import InputError
from pipelines.memory import peak_memory
from proxy_eval import adamw
from proxy_eval.checkpoint import STATE, endpoint_name, read, write
from proxy_eval.llama import Weights
from proxy_eval.parallel import ALONE, Rank
from proxy_eval.steps import Engine, Member, Position, Training, backward_of, batches, begin, engine_of, take_step

__all__ = ["Endpoint", "Member", "Progress", "Trained", "Training", "train"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands after a step; `losses` are nats a token, NaN for a member that has been stopped."""

    budget: int
    step: int
    tokens: int
    losses: NDArray[np.float32]
    learning_rates: tuple[float, ...]
    seconds: float
    tokens_per_second: float
    eta: float


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """The models at the end of one budget and the losses of its steps, as if they had been trained for it alone."""

    tokens: int
    weights: Weights
    losses: NDArray[np.float32]
    stopped: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """An endpoint for each budget, rising; seconds, speed and waiting are of all processes that worked on it, those
    that were killed up to their last checkpoint.

    `tokens_per_second` is over all members, `waiting` the share of time in which a step waited for its data.
    `peak_bytes` is the device's memory; on a CPU the whole process's.
    """

    endpoints: tuple[Endpoint, ...]
    seconds: float
    tokens_per_second: float
    waiting: float
    peak_bytes: int


@dataclass(kw_only=True)
class Run:
    """A training under way: the trunk, the branch that is being decayed, the endpoints reached, and the time spent, as
    if one process had begun it and never stood still.
    """

    engine: Engine
    members: Sequence[Member]
    folder: Path | None
    every_seconds: float
    on_step: Callable[[Progress], None] | None
    description: dict[str, Any]
    trunk: Position
    branch: Position | None = None
    endpoints: list[Endpoint] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    saved: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    tokens: int = 0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=100))  # when the last steps ended


def advance(run: Run, position: Position, budget: int, until: int) -> None:
    """Take the steps of the budget up to `until`; where no member lives any more, they are left out."""
    if position.step >= until:
        return
    training = run.engine.training
    backward = backward_of(run.engine, position.buffers)
    with closing(batches(run.engine, run.members, budget, range(position.step, until))) as coming:
        for batch, waited in coming:
            if (position.stopped >= 0).all():
                break
            rates = [member.learning_rate * training.factor(position.step, budget) for member in run.members]
            take_step(run.engine, position, backward, batch, rates)
            run.waited += waited
            run.tokens += batch.counted * len(run.members)
            save_if_due(run)
            if run.on_step is not None:
                run.on_step(progress(run, position, budget, rates))
    position.step = until


def steps_left(run: Run) -> int:
    """Steps still to take on the trunk and in all decays."""
    training, branch = run.engine.training, run.branch
    decays = sum(training.steps(end) - training.shared_steps(end) for end in training.budgets[len(run.endpoints) :])
    trunk = training.shared_steps(training.tokens) - run.trunk.step
    return decays + trunk - (branch.step - run.trunk.step if branch else 0)


def progress(run: Run, position: Position, budget: int, rates: Sequence[float]) -> Progress:
    """What there is to say after the step that has just been taken."""
    training, now = run.engine.training, time.perf_counter()
    run.recent.append(now)
    a_step = training.step_tokens * len(run.members)
    if len(run.recent) > 1:  # the first step may compile
        speed = a_step * (len(run.recent) - 1) / (now - run.recent[0])
    else:
        speed = run.tokens / (now - run.began)
    return Progress(
        budget=budget,
        step=position.step,
        tokens=min(position.step * training.step_tokens, budget),
        losses=position.losses[:, position.step - 1].copy(),
        learning_rates=tuple(rates),
        seconds=now - run.began,
        tokens_per_second=speed,
        eta=steps_left(run) * a_step / speed,
    )


def saved(position: Position, name: str) -> dict[str, torch.Tensor]:
    """The tensors that a position goes on from; the gradient is 0 between steps."""
    return {
        f"{name}.weights": position.buffers.weights,
        f"{name}.first": position.buffers.first,
        f"{name}.second": position.buffers.second,
        f"{name}.losses": torch.from_numpy(position.losses[:, : position.step]),
        f"{name}.stopped": torch.from_numpy(position.stopped),
    }


def restore(position: Position, name: str, tensors: dict[str, torch.Tensor]) -> None:
    """Put a position where it was when its tensors were saved."""
    buffers, losses = position.buffers, tensors[f"{name}.losses"]
    for buffer, key in ((buffers.weights, "weights"), (buffers.first, "first"), (buffers.second, "second")):
        buffer.copy_(tensors[f"{name}.{key}"])
    position.step = losses.shape[1]
    position.losses[:, : position.step] = losses
    position.stopped[:] = tensors[f"{name}.stopped"]


def took(run: Run) -> dict[str, torch.Tensor]:
    """What the run has taken so far: seconds, those of them that steps waited for data, and tokens, float64."""
    return {"took": torch.tensor([time.perf_counter() - run.began, run.waited, run.tokens], dtype=torch.float64)}


def go_on_from(run: Run, before: torch.Tensor | None) -> None:
    """Count what earlier processes have taken, of two that are read the later; None where a file does not say."""
    if before is not None and before[2] >= run.tokens:
        seconds, run.waited, run.tokens = float(before[0]), float(before[1]), int(before[2])
        run.began = time.perf_counter() - seconds


def save_if_due(run: Run) -> None:
    """The state is on disk if its last write lies `every_seconds` back; rank 0 writes."""
    if run.folder is None or run.engine.rank.number or time.perf_counter() - run.saved < run.every_seconds:
        return
    tensors = saved(run.trunk, "trunk") | (saved(run.branch, branch_name(run)) if run.branch else {})
    write(run.folder / STATE, run.description, tensors | took(run))
    run.saved = time.perf_counter()


def resume(run: Run) -> None:
    """Read the endpoints that were reached and the state, if there is one; OutputError if they are of another run."""
    if run.folder is None:
        return
    for budget in run.engine.training.budgets:
        stored = read(run.folder / endpoint_name(budget), run.description)
        if stored is None:
            break
        go_on_from(run, stored.pop("took", None))
        losses, stopped = stored.pop("losses").numpy(), stored.pop("stopped").tolist()
        run.endpoints.append(Endpoint(tokens=budget, weights=stored, losses=losses, stopped=steps_of(stopped)))
    if len(run.endpoints) == len(run.engine.training.budgets):
        return
    tensors = read(run.folder / STATE, run.description)
    if tensors is None:
        return
    go_on_from(run, tensors.get("took"))
    restore(run.trunk, "trunk", tensors)
    if f"{branch_name(run)}.losses" in tensors:  # else of an endpoint that was reached after the state was written
        run.branch = run.trunk.copy()
        restore(run.branch, branch_name(run), tensors)


def branch_name(run: Run) -> str:
    """The branch to the first endpoint that has not been reached."""
    return f"branch-{run.engine.training.budgets[len(run.endpoints)]}"


def steps_of(stopped: Sequence[int]) -> tuple[int | None, ...]:
    """None for -1, which stands for a member that was never stopped."""
    return tuple(None if step < 0 else step for step in stopped)


def reach(run: Run, position: Position, budget: int) -> None:
    """The position is an endpoint, in memory on the CPU and on disk."""
    endpoint = Endpoint(
        tokens=budget,
        weights={
            name: view.cpu().clone()
            for name, view in adamw.views(position.buffers.weights, position.buffers.layout).items()
        },
        losses=position.losses[:, : position.step].copy(),
        stopped=steps_of(position.stopped.tolist()),
    )
    if run.folder is not None and run.engine.rank.number == 0:
        numbers = {"losses": torch.from_numpy(endpoint.losses), "stopped": torch.from_numpy(position.stopped)}
        path = run.folder / endpoint_name(budget)
        write(path, run.description, {**endpoint.weights, **numbers, **took(run)})
    run.endpoints.append(endpoint)


def described(engine: Engine, members: Sequence[Member]) -> dict[str, Any]:
    """What makes two runs the same: all that bears on the result but rounding, and a hash of what each member reads.

    The first window, the middle one and the last stand for a stream: one document more or less moves all that follow.
    """
    training = engine.training
    fields = {name: value for name, value in asdict(training).items() if name not in ("micro", "compile", "precision")}
    last = math.ceil(training.tokens / training.shape.context) - 1
    described_members = []
    for member in members:
        digest = sha256()
        for at in (0, last // 2, last):
            for windows in member.stream.sequences(at, 1):
                digest.update(np.ascontiguousarray(windows).tobytes())
        described_members.append({"seed": member.seed, "rate": member.learning_rate, "data": digest.hexdigest()[:16]})
    return {**fields, "weights": str(engine.dtype), "products": str(engine.autocast), "members": described_members}


def train(
    training: Training,
    members: Sequence[Member],
    *,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    every_seconds: float = 60.0,
    on_step: Callable[[Progress], None] | None = None,
    rank: Rank = ALONE,
) -> Trained:
    """Train the members from their seeds, or on from the checkpoint in the folder, through every endpoint.

    `on_step` is called after each step on every rank; what it raises ends the run, which can then be resumed.
    InputError if a step cannot be shared among the ranks, OutputError if the folder holds another run. All ranks must
    see one folder.
    """
    if training.sequences % rank.of:
        raise InputError(f"{training.sequences} sequences a step cannot be shared evenly by {rank.of} processes")
    engine = engine_of(training, torch.device(device), rank)
    run = Run(
        engine=engine,
        members=members,
        folder=checkpoint,
        every_seconds=every_seconds,
        on_step=on_step,
        description=described(engine, members),
        trunk=begin(engine, [member.seed for member in members]),
    )
    if engine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(engine.device)
    resume(run)
    for budget in training.budgets[len(run.endpoints) :]:
        last = budget == training.tokens
        if run.branch is None:
            advance(run, run.trunk, budget, training.shared_steps(budget))
            run.branch = None if last else run.trunk.copy()
        advance(run, run.branch or run.trunk, budget, training.steps(budget))
        reach(run, run.branch or run.trunk, budget)
        run.branch = None
    return finished(run)


def finished(run: Run) -> Trained:
    """What a run has come to; its state is no longer on disk."""
    if run.folder is not None and run.engine.rank.number == 0:
        (run.folder / STATE).unlink(missing_ok=True)
    seconds = time.perf_counter() - run.began
    on_gpu = run.engine.device.type == "cuda"
    return Trained(
        endpoints=tuple(run.endpoints),
        seconds=seconds,
        tokens_per_second=run.tokens / seconds,
        waiting=run.waited / seconds,
        peak_bytes=torch.cuda.max_memory_allocated(run.engine.device) if on_gpu else peak_memory(),
    )
