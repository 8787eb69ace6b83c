"""How many models train at once, chosen by measuring: stacks on GPUs, processes on a CPU.

On a CPU a stack gains nothing, since one model fills the cores (reference: 0.9 times); whether one model after another
with all cores or one on each core is faster depends on the size and the machine, so both are tried for some steps. On
a GPU a tiny model waits for launches: the stack is doubled as long as that gains a tenth, and memory lasts. On a
cluster the same is measured by a task there, on the kind of device asked for; as many tasks run at a time as it has
room for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from filters.errors import InputError
from infra.processes import cores, processes

if TYPE_CHECKING:
    from infra.training_work import Trial
    from proxy_eval.llama import Shape
    from proxy_eval.steps import Training

WORTH_SECONDS = 120.0
"""Of training all models one after another, below which trying a process on each core costs more than it can gain."""
WORTH_WORK = 2e12
"""Of scoring all models, weights times bytes (some 40 s one after another on two cores), below which the same."""
SMALL_WEIGHTS = 20_000_000
"""80 MB, in every process: above it models are scored one after another."""
GAIN = 1.1
CPU_BYTES = 1 << 30
"""Of activations at a time on a CPU: a few thousand tokens fill its cores."""
GPU_SHARE = 0.5
"""Of a GPU's memory, after the models' states: what is estimated may be less than what is allocated."""
STATE_BYTES = 16
"""Of each weight, in fp32: itself, its gradient and two moments."""
BRANCH_BYTES = 12
"""Of each weight, while a branch is decayed: the trunk's weight and moments."""
COPY_BYTES = 12
"""Of each weight in the host's memory, while a checkpoint is written."""
PROCESS_BYTES = {"cpu": 704 << 20, "cuda": 3 << 30}
"""Of a process before its first weight. On a CPU 384 MB with torch loaded, and 290 MB more where it compiled: at 1M a
training peaked at 557 MB with eager kernels and at 760 to 845 MB with compiled ones. With CUDA's libraries an
allowance, not measured."""
ANSWER_SECONDS = 600.0
"""A cluster that has no free device by then is not measured."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """So many trials in a stack, so many workers (None: as many as the cluster has room for), threads for each (None:
    torch's choice), on this device. With `ranks` above 1 one stack trains at a time, on so many workers.
    """

    device: str
    stack: int
    workers: int | None
    threads: int | None
    why: str
    ranks: int = 1


def device_of(asked: str) -> str:
    """What trains and scores: what was asked for; of `auto` a GPU where torch sees one here."""
    import torch

    return asked if asked != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def device_here(asked: str) -> str:
    """The same, of this machine. Raises InputError for a GPU where torch sees none."""
    import torch

    chosen = device_of(asked)
    if chosen.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {asked}: torch sees no GPU here. Leave it out, or join a cluster (--address).")
    return chosen


def placed(
    trials: Sequence[Trial],
    *,
    device: str,
    workers: int | None,
    stack: int | None,
    address: str | None,
    allow_unauthenticated: bool = False,
    ranks: int = 1,
) -> Placement:
    """Where these trials train. What is given is taken; the rest is measured, here or on the cluster at `address`.

    Raises InputError for a device that is not here and a stack on a CPU, ClusterError as joining the cluster does.
    """
    import torch

    chosen = device_of(device) if address is not None else device_here(device)
    on_gpu = chosen.startswith("cuda")
    if not on_gpu and ranks == 1 and stack not in (None, 1):
        raise InputError(f"--stack {stack}: on a CPU a stack is slower than its models one after another.")
    if ranks > 1:
        threads = None if on_gpu else max(1, cores() // ranks)
        why = f"one at a time, every batch shared by {ranks} workers"
        return Placement(device=chosen, stack=stack or 1, workers=ranks, threads=threads, why=why, ranks=ranks)
    if address is not None:
        return on_cluster(trials, chosen, workers, stack, address, allow_unauthenticated=allow_unauthenticated)
    if on_gpu:
        size, why = (stack, "as asked") if stack else fitting(speeds(trials[0].training, len(trials), chosen))
        why, count = f"stacks of {size}, one on a GPU: {why}", workers or torch.cuda.device_count()
        return Placement(device=chosen, stack=size, workers=count, threads=None, why=why)
    if workers is not None or len(trials) == 1 or cores() == 1:
        count = 1 if workers is None else min(workers, len(trials))
        threads = None if count == 1 else max(1, cores() // count)
        why = f"{count} at a time, each alone on its threads"
        return Placement(device="cpu", stack=1, workers=count, threads=threads, why=why)
    return on_cores(trials)


def on_cluster(
    trials: Sequence[Trial],
    device: str,
    workers: int | None,
    stack: int | None,
    address: str,
    *,
    allow_unauthenticated: bool,
) -> Placement:
    """As many stacks at a time as asked, else as the cluster has room for: one on a GPU, or on one thread of a CPU.
    Their size is measured there, where it is not given and there is a choice.
    """
    on_gpu = device.startswith("cuda")
    if stack or len(trials) == 1 or not on_gpu:
        size, why = stack or 1, "as asked" if stack else "one model" if on_gpu else "a CPU gains nothing by more"
    else:
        size, why = fitting(speeds_there(trials[0].training, len(trials), device, address, allow_unauthenticated))
    each = "a GPU" if on_gpu else "a thread"
    return Placement(
        device=device,
        stack=size,
        workers=workers,
        threads=None if on_gpu else 1,
        why=f"{workers or 'as many as there is room for'} at a time, stacks of {size} on {each} each: {why}",
    )


def micro_batch(training: Training, members: int, device: str) -> Training:
    """The training with as many sequences at a time as memory holds: all of a step's, or the largest part of them that
    divides them and fits by estimate.
    """
    shape = training.shape
    if device.startswith("cuda"):
        import torch

        _, whole = torch.cuda.mem_get_info()
        room = GPU_SHARE * (whole - state_bytes(training) * members)
    else:
        room = CPU_BYTES
    most = max(1, int(room / (token_bytes(shape) * shape.context * members)))
    micro = max(one for one in range(1, training.sequences + 1) if training.sequences % one == 0 and one <= most)
    return training if micro == training.sequences else replace(training, micro=micro)


def token_bytes(shape: Shape) -> int:
    """Of activations a token, by estimate: 4 in each of 16 hidden and 4 feedforward tensors a layer, and in 4 hidden
    ones after the last. Logits are made in chunks that are small beside them.
    """
    return 4 * (shape.layers * (16 * shape.hidden + 4 * shape.feedforward) + 4 * shape.hidden)


def state_bytes(training: Training) -> int:
    """Of a model's weights, gradient and moments, with those of the trunk while a branch is decayed."""
    return (STATE_BYTES + (BRANCH_BYTES if training.endpoints else 0)) * training.shape.parameters


def training_memory(training: Training, members: int, device: str) -> int:
    """Bytes of the host's memory that a process takes to train a stack: what Ray is asked for before one was measured.

    process + members * parameters * (copy + 4 * endpoints), and on a CPU, where they lie in the same memory,
    + members * (state + token * context * micro): PROCESS_BYTES, COPY_BYTES, the weights of each budget that is
    reached, `state_bytes`, and `token_bytes` of a micro-batch.
    """
    on_gpu = device.startswith("cuda")
    host = (COPY_BYTES + 4 * len(training.budgets)) * training.shape.parameters
    if not on_gpu:
        step = micro_batch(training, members, device)
        host += state_bytes(training) + token_bytes(training.shape) * training.shape.context * (
            step.micro or step.sequences
        )
    return PROCESS_BYTES["cuda" if on_gpu else "cpu"] + members * host


def scoring_place(
    device: str, workers: int | None, address: str | None, *, weights: Sequence[int], read: int
) -> Placement:
    """Where models of so many weights are scored on so many bytes: as many at a time as asked; else as a cluster has
    room for; and on a CPU small ones one on each core (measured at 1M on two cores: 10.9 s a model, and 22.7 s one
    after another with both) where that is worth the processes.
    """
    chosen = device_of(device)
    on_gpu = chosen.startswith("cuda")
    if workers is None and address is None:
        worth = sum(weights) * read >= WORTH_WORK and max(weights) <= SMALL_WEIGHTS and not on_gpu
        workers = min(cores(), len(weights)) if worth else 1
    threads = None if on_gpu or workers == 1 else max(1, cores() // workers) if workers else 1
    return Placement(device=chosen, stack=1, workers=workers, threads=threads, why="")


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


def speeds(training: Training, most: int, device: str) -> dict[int, float]:
    """Tokens a second by size of stack: 1, and its doubles up to `most`, as long as one gains and fits in memory. On a
    CPU of one model alone.
    """
    import torch

    from proxy_eval.steps import measured_speed

    def speed(members: int) -> float:
        return measured_speed(micro_batch(training, members, device), members, device)

    size, found = 1, {1: speed(1)}
    while device.startswith("cuda") and 2 * size <= most:
        try:
            found[2 * size] = speed(2 * size)
        except torch.cuda.OutOfMemoryError:
            break
        if found[2 * size] < GAIN * found[size]:
            break
        size *= 2
    return found


def machine_speeds(training: Training, most: int, device: str) -> dict[int, float]:
    """`speeds` of a whole device where a training gets one thread of a CPU: of one model on each of its cores. What
    they lose by sharing its memory is not counted.
    """
    if device.startswith("cuda"):
        return speeds(training, most, device)
    return {1: cores() * speed_on_one_thread(training, 0)}


def fitting(found: Mapping[int, float] | str) -> tuple[int, str]:
    """The size of stack that these speeds speak for, and what is said of it; 1 where a word says why there are none."""
    if isinstance(found, str):
        return 1, found
    size = 1
    while found.get(2 * size, 0.0) >= GAIN * found[size]:
        size *= 2
    return size, ", ".join(f"{speed:,.0f} tokens/s in stacks of {count}" for count, speed in found.items())


def speeds_there(
    training: Training, most: int, device: str, address: str, allow_unauthenticated: bool
) -> dict[int, float] | str:
    """`machine_speeds` on a worker of the cluster with a device of this kind; why there are none, where it cannot say.

    Raises ClusterError as joining the cluster does. What a node lacks is for the preflight of the training to name.
    """
    from infra.ray_runner import OnRay
    from infra.stage import LiveSize

    with OnRay(address=address, allow_unauthenticated=allow_unauthenticated):
        import ray

        asked: dict[str, Any] = {"num_gpus": 1} if device.startswith("cuda") else {}
        if (memory := LiveSize(ray, first=training_memory(training, 1, device)).memory) is not None:
            asked["memory"] = memory
        remote = ray.remote(num_cpus=1, max_retries=2, **asked)(machine_speeds)
        reference = remote.remote(training, most, device)
        try:
            found: dict[int, float] = ray.get(reference, timeout=ANSWER_SECONDS)
        except ray.exceptions.GetTimeoutError:
            ray.cancel(reference, force=True)
            return f"not measured, no device of the cluster was free within {ANSWER_SECONDS:.0f} s"
        except ray.exceptions.RayError as error:
            return f"not measured ({str(error).strip().splitlines()[-1]})"
    return found
