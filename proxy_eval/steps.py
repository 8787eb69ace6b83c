"""One step of a stack of A models: what it reads, how it is trained, the gradient, and the update.

A step takes `sequences` windows of each member's stream, the next ones in its order. One backward pass over the sum of
the members' mean losses gives every member its own gradient; norm, clipping, learning rate and update are by row. The
last step counts only the targets that are left of the budget, which is met to the token. A member whose loss or
gradient is not finite keeps the weights that it had and is stopped at that step; no bit of the others depends on it.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from filters.errors import InputError
from proxy_eval import adamw, llama
from proxy_eval.adamw import AdamW, Buffers
from proxy_eval.hyperparameters import Schedule, factor, settled
from proxy_eval.llama import UNCOUNTED, Shape
from proxy_eval.parallel import ALONE, Rank, add_up

GRAPHED_WEIGHTS = 50e6  # below the rung 60M a GPU waits for launches, which CUDA graphs spare
COMPILED_WEIGHTS = 8e6  # on a GPU: between the rungs 4M and 10M
COMPILED_FLOPS = 1e13  # on a CPU: 1M tokens at 1M, some 90 s of two cores; compiling takes 8 s and saves a seventh


class Sequences(Protocol):
    """What a model reads, by index."""

    def sequences(self, first: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens and targets [count, context] of the windows `first`, `first + 1`, ...: a function of the index."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How every member of a stack is trained; `endpoints` are further budgets that a "wsd" trunk is decayed for."""

    shape: Shape
    tokens: int
    sequences: int
    schedule: Schedule
    micro: int | None = None
    optimizer: AdamW = AdamW()
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    compile: bool | None = None
    endpoints: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.sequences < 1 or self.sequences % (self.micro or 1):
            raise InputError(
                f"{self.tokens} tokens, {self.sequences} sequences a step, micro-batches of {self.micro}: each must be "
                "at least 1, and micro-batches must divide a step"
            )
        if self.endpoints and self.schedule.kind != "wsd":
            raise InputError(f"a {self.schedule.kind} schedule has one end: endpoints need the schedule wsd")
        if min(self.budgets) < 1 or max(self.budgets) > self.tokens:
            raise InputError(f"endpoints {self.endpoints} must lie between 1 and {self.tokens} tokens")
        if self.schedule.warmup > settled(self.schedule, min(self.budgets)):
            raise InputError(
                f"the warm-up of {self.schedule.warmup} tokens does not end before {min(self.budgets)} tokens do; "
                "give a shorter one, or more tokens"
            )

    @property
    def budgets(self) -> tuple[int, ...]:
        """All endpoints, rising; the last is `tokens`."""
        return tuple(sorted({*self.endpoints, self.tokens}))

    @property
    def step_tokens(self) -> int:
        """Targets of a whole step of one member."""
        return self.sequences * self.shape.context

    def steps(self, budget: int) -> int:
        """Steps that a budget takes, the last of which may be a part."""
        return math.ceil(budget / self.step_tokens)

    def factor(self, step: int, budget: int) -> float:
        """The learning-rate factor of a step (from 0), at the middle of its tokens."""
        first = step * self.step_tokens
        return factor(self.schedule, (first + min(first + self.step_tokens, budget)) / 2, budget)

    def shared_steps(self, budget: int) -> int:
        """First steps of this budget that are those of any larger one: whole, and before its decay."""
        steps = int(settled(self.schedule, budget) / self.step_tokens + 0.5)
        return min(steps, budget // self.step_tokens)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One model of a stack: what it reads, the seed of its first weights, its peak learning rate."""

    stream: Sequences
    seed: int
    learning_rate: float


@dataclass(kw_only=True)
class Position:
    """A stack on its way: `losses` [A, steps] are filled up to `step`; `stopped` [A] is -1 for a living member."""

    buffers: Buffers
    losses: NDArray[np.float32]
    stopped: NDArray[np.int64]
    step: int = 0

    def copy(self) -> Position:
        """A position with buffers of its own."""
        return Position(
            buffers=self.buffers.copy(), losses=self.losses.copy(), stopped=self.stopped.copy(), step=self.step
        )


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What a step is done with; `dtype` is that of the weights, `autocast` that of the matrix products if another."""

    training: Training
    device: torch.device
    dtype: torch.dtype
    autocast: torch.dtype | None
    compiled: bool
    graphed: bool
    rank: Rank


def engine_of(training: Training, device: torch.device, rank: Rank = ALONE) -> Engine:
    """Precision, compilation and CUDA graphs decided for the device."""
    half = training.precision == "bfloat16" or (training.precision == "auto" and multiplies_bfloat16(device))
    return Engine(
        training=training,
        device=device,
        dtype=torch.float64 if training.precision == "float64" else torch.float32,
        autocast=torch.bfloat16 if half else None,
        compiled=compiling_pays(training, device) if training.compile is None else training.compile,
        graphed=device.type == "cuda" and training.shape.parameters < GRAPHED_WEIGHTS,
        rank=rank,
    )


def compiling_pays(training: Training, device: torch.device) -> bool:
    """Whether a run of one model is longer with eager kernels than with compiled ones and their compilation."""
    if device.type == "cuda":
        return training.shape.parameters >= COMPILED_WEIGHTS
    work = training.tokens * training.shape.flops_per_token
    return work >= COMPILED_FLOPS and shutil.which(os.environ.get("CXX", "g++")) is not None


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware has instructions for products of bfloat16 matrices: a GPU from Ampere on, a CPU with AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A step's tokens and targets [A, sequences, context] of this rank; `counted`: a member's targets on all ranks."""

    tokens: torch.Tensor
    targets: torch.Tensor
    counted: int


def gathered(engine: Engine, members: Sequence[Member], budget: int, step: int) -> Batch:
    """The batch of a step; nothing beyond the budget is read. Members with one stream share what is read."""
    training, rank = engine.training, engine.rank
    context, mine = training.shape.context, training.sequences // rank.of
    left = min(training.step_tokens, budget - step * training.step_tokens)
    first = rank.number * mine
    wanted = min(mine, max(0, math.ceil(left / context) - first))
    tokens = np.zeros((len(members), mine, context), np.int64)
    targets = np.full_like(tokens, UNCOUNTED)
    read: dict[int, int] = {}  # the member that has read the stream
    for arm, member in enumerate(members):
        source = read.setdefault(id(member.stream), arm)
        if source != arm:
            tokens[arm], targets[arm] = tokens[source], targets[source]
        elif wanted:
            tokens[arm, :wanted], targets[arm, :wanted] = member.stream.sequences(
                step * training.sequences + first, wanted
            )
            targets[arm].reshape(-1)[max(0, left - first * context) :] = UNCOUNTED
    batch = torch.from_numpy(tokens), torch.from_numpy(targets)
    if engine.device.type == "cuda":
        batch = batch[0].pin_memory(), batch[1].pin_memory()
    return Batch(tokens=batch[0], targets=batch[1], counted=left)


def batches(
    engine: Engine, members: Sequence[Member], budget: int, steps: range
) -> Generator[tuple[Batch, float], None, None]:
    """Each step's batch, with the seconds that it was waited for; the next one is gathered while a step runs."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as gatherer:
        following = gatherer.submit(gathered, engine, members, budget, steps.start)
        for step in steps:
            began = time.perf_counter()
            batch = following.result()
            waited = time.perf_counter() - began
            if step + 1 < steps.stop:
                following = gatherer.submit(gathered, engine, members, budget, step + 1)
            yield batch, waited


Backward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""From tokens and targets [A, B, T] and divisors [A] to the losses [A]; the gradient is added to the buffers'."""


def backward_of(engine: Engine, buffers: Buffers) -> Backward:
    """The backward pass of the weights in the buffers, one graph of kernels where launches are what takes the time."""
    leaves = {name: view.requires_grad_() for name, view in adamw.views(buffers.weights, buffers.layout).items()}
    sums = list(adamw.views(buffers.gradient, buffers.layout).values())

    def backward(tokens: torch.Tensor, targets: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        losses = llama.mean_losses(
            leaves,
            engine.training.shape,
            tokens,
            targets,
            counted=counted,
            autocast=engine.autocast,
            compiled=engine.compiled,
        )
        torch._foreach_add_(sums, torch.autograd.grad(losses.sum(), list(leaves.values())))
        return losses.detach()

    return Graphed(backward) if engine.graphed else backward


class Graphed:
    """A backward pass recorded once as a CUDA graph, at its first call, and replayed since: sizes must stay the same.

    A replay reads and writes the memory that it was recorded with: inputs are copied there, and the buffers that hold
    weights and gradient may not be replaced.
    """

    def __init__(self, backward: Backward) -> None:
        self.backward = backward
        self.inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The losses [A]; the gradient has been added."""
        tokens, targets, counted = inputs
        if self.inputs is None:
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):  # what is allocated or compiled at the first call must not be recorded
                losses = self.backward(tokens, targets, counted)
            torch.cuda.current_stream().wait_stream(aside)
            self.inputs = tokens.clone(), targets.clone(), counted.clone()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):  # records, and computes nothing
                self.losses = self.backward(*self.inputs)
            return losses
        for kept, new in zip(self.inputs, inputs, strict=True):
            kept.copy_(new)
        self.graph.replay()
        return self.losses


def add_gradient(engine: Engine, backward: Backward, batch: Batch) -> torch.Tensor:
    """This rank's part of the mean losses [A] of the step; their gradient has been added to the buffers'."""
    losses = torch.zeros(batch.tokens.shape[0], device=engine.device, dtype=torch.float64)
    counted = torch.full_like(losses, batch.counted, dtype=torch.int64)
    micro = engine.training.micro or engine.training.sequences
    for tokens, targets in zip(torch.split(batch.tokens, micro, 1), torch.split(batch.targets, micro, 1), strict=True):
        if (targets != UNCOUNTED).any():
            losses += backward(
                tokens.to(engine.device, non_blocking=True), targets.to(engine.device, non_blocking=True), counted
            )
    return losses


def take_step(engine: Engine, position: Position, backward: Backward, batch: Batch, rates: Sequence[float]) -> None:
    """Move every living member one step on, at its rate; the losses of the step are those before it."""
    losses = add_gradient(engine, backward, batch)
    add_up(engine.rank, position.buffers.gradient, losses)
    norms = torch.linalg.vector_norm(position.buffers.gradient, dim=1)
    measured = torch.stack([losses, norms.double()]).cpu().numpy()
    alive = position.stopped < 0
    position.losses[alive, position.step] = measured[0, alive]
    position.stopped[alive & ~np.isfinite(measured).all(0)] = position.step
    adamw.step(
        position.buffers, engine.training.optimizer, position.step + 1, rates, norms, (position.stopped < 0).tolist()
    )
    position.step += 1


def begin(engine: Engine, seeds: Sequence[int]) -> Position:
    """New models at step 0."""
    weights = llama.initial(engine.training.shape, seeds, dtype=engine.dtype)
    steps = engine.training.steps(engine.training.tokens)
    return Position(
        buffers=adamw.buffers_of(weights, engine.device),
        losses=np.full((len(seeds), steps), np.nan, np.float32),
        stopped=np.full(len(seeds), -1, np.int64),
    )


def measured_speed(training: Training, members: int, device: str | torch.device, *, seconds: float = 2.0) -> float:
    """Tokens a second of a stack of so many members, all together: steps on random tokens for about so long, warmed."""
    engine = engine_of(training, torch.device(device))
    position = begin(engine, range(members))
    backward = backward_of(engine, position.buffers)
    size = (members, training.sequences, training.shape.context)
    tokens = torch.randint(training.shape.vocabulary, size, generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens=tokens, targets=tokens, counted=training.step_tokens)
    for warming in (True, False):  # two steps compile, record and fill caches
        taken, began = 0, time.perf_counter()
        while taken < 2 or (not warming and time.perf_counter() - began < seconds):
            take_step(engine, position, backward, batch, [0.0] * members)
            position.step, taken = 0, taken + 1
    return taken * tokens.numel() / (time.perf_counter() - began)
