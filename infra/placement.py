"""How many models train at once, chosen by measuring: stacks on GPUs, processes on a CPU.

On a CPU a stack gains nothing, since one model fills the cores (reference: 0.9 times); whether one model after another
with all cores or one on each core is faster depends on the size and the machine, so both are tried for some steps. On
a GPU a tiny model waits for launches: the stack is doubled as long as that gains a tenth, and memory lasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from filters.errors import InputError
from infra.processes import cores, processes

if TYPE_CHECKING:
    from infra.training_work import Trial
    from proxy_eval.steps import Training

WORTH_SECONDS = 120.0
"""Of training all models one after another, below which trying a process on each core costs more than it can gain."""
GAIN = 1.1
CPU_BYTES = 1 << 30
"""Of activations at a time on a CPU: a few thousand tokens fill its cores."""
GPU_SHARE = 0.5
"""Of a GPU's memory, after the models' states: what is estimated may be less than what is allocated."""
STATE_BYTES = 16
"""Of each weight: itself, its gradient and two moments; 28 while a branch is decayed."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """So many trials in a stack, so many workers, threads for each (None: torch's choice), on this device. With `ranks`
    above 1 one stack trains at a time, on so many workers.
    """

    device: str
    stack: int
    workers: int
    threads: int | None
    why: str
    ranks: int = 1


def device_of(asked: str) -> str:
    """What trains and scores: what was asked for; of `auto` a GPU where torch sees one here."""
    import torch

    return asked if asked != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def placed(
    trials: Sequence[Trial],
    *,
    device: str,
    workers: int | None,
    stack: int | None,
    address: str | None,
    ranks: int = 1,
) -> Placement:
    """Where these trials train. What is given is taken; the rest is measured here, unless they train elsewhere."""
    import torch

    chosen = device_of(device)
    if chosen.startswith("cuda") and address is None and not torch.cuda.is_available():
        raise InputError(f"--device {device}: torch sees no GPU here. Leave it out, or join a cluster (--address).")
    if ranks > 1:
        threads = None if chosen.startswith("cuda") else max(1, cores() // ranks)
        why = f"one at a time, every batch shared by {ranks} workers"
        return Placement(device=chosen, stack=stack or 1, workers=ranks, threads=threads, why=why, ranks=ranks)
    if chosen.startswith("cuda"):
        size, why = (
            (stack, "as asked") if stack else (1, "not measured on this machine") if address else fitting(trials)
        )
        return Placement(
            device=chosen,
            stack=size,
            workers=workers or (1 if address else torch.cuda.device_count()),
            threads=None,
            why=f"stacks of {size}, one on a GPU: {why}",
        )
    if stack not in (None, 1):
        raise InputError(f"--stack {stack}: on a CPU a stack is slower than its models one after another.")
    if workers is not None or address is not None or len(trials) == 1 or cores() == 1:
        count = 1 if workers is None else min(workers, len(trials))
        threads = None if count == 1 and address is None else max(1, cores() // count) if address is None else 1
        return Placement(
            device="cpu",
            stack=1,
            workers=workers or count,
            threads=threads,
            why=f"{count} at a time, each alone on its threads",
        )
    return on_cores(trials)


def micro_batch(training: Training, members: int, device: str) -> Training:
    """The training with as many sequences at a time as memory holds: all of a step's, or the largest part of them that
    divides them and fits by estimate.

    Bytes of activations a token: 4 in each of 16 hidden and 4 feedforward tensors a layer, and the last hidden state.
    """
    shape = training.shape
    token = 4 * (shape.layers * (16 * shape.hidden + 4 * shape.feedforward) + 4 * shape.hidden)
    if device.startswith("cuda"):
        import torch

        states = 28 if training.endpoints else STATE_BYTES
        _, whole = torch.cuda.mem_get_info()
        room = GPU_SHARE * (whole - states * shape.parameters * members)
    else:
        room = CPU_BYTES
    most = max(1, int(room / (token * shape.context * members)))
    micro = max(one for one in range(1, training.sequences + 1) if training.sequences % one == 0 and one <= most)
    return training if micro == training.sequences else replace(training, micro=micro)


def scoring_place(device: str, workers: int | None) -> Placement:
    """Where models are scored: one after another with all cores, or as many at a time as asked."""
    count = workers or 1
    threads = max(1, cores() // count) if count > 1 else None
    return Placement(device=device_of(device), stack=1, workers=count, threads=threads, why="")


def on_cores(trials: Sequence[Trial]) -> Placement:
    """One after another on all cores, or one on each: whichever trains more tokens a second."""
    from proxy_eval.steps import measured_speed

    training, count = trials[0].training, min(cores(), len(trials))
    alone = measured_speed(micro_batch(training, 1, "cpu"), 1, "cpu")
    why = f"one model at a time, {alone:,.0f} tokens/s"
    if sum(trial.training.tokens for trial in trials) / alone < WORTH_SECONDS:
        return Placement(device="cpu", stack=1, workers=1, threads=None, why=why)
    with processes(count) as each_of:
        together = sum(each_of(partial(speed_on_one_thread, training), range(count)))
    why += f"; {count} at a time on a core each, {together:,.0f}"
    if together <= alone:
        return Placement(device="cpu", stack=1, workers=1, threads=None, why=f"{why}: one at a time")
    return Placement(device="cpu", stack=1, workers=count, threads=1, why=f"{why}: {count} at a time")


def speed_on_one_thread(training: Training, _: int) -> float:
    """Tokens a second of one model on one thread, in a process of its own."""
    import torch

    from proxy_eval.steps import measured_speed

    torch.set_num_threads(1)
    return measured_speed(micro_batch(training, 1, "cpu"), 1, "cpu")


def fitting(trials: Sequence[Trial]) -> tuple[int, str]:
    """The size of stack on this GPU, and the speeds that speak for it."""
    import torch

    from proxy_eval.steps import measured_speed

    def speed(members: int) -> float:
        return measured_speed(micro_batch(trials[0].training, members, "cuda"), members, "cuda")

    size, speeds = 1, {1: speed(1)}
    while 2 * size <= len(trials):
        try:
            speeds[2 * size] = speed(2 * size)
        except torch.cuda.OutOfMemoryError:
            break
        if speeds[2 * size] < GAIN * speeds[size]:
            break
        size *= 2
    return size, ", ".join(f"{speed:,.0f} tokens/s in stacks of {count}" for count, speed in speeds.items())
