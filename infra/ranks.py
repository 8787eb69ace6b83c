"""One training on several workers of a Ray cluster, each with its share of every batch (proxy_eval/parallel.py).

The task that the schedule knows is rank 0. It asks Ray for the other workers all at once, and they end when it ends,
since Ray ends what a dead worker has started. A rank that dies breaks the others' next sum: the task fails, and is
tried again from its checkpoint as any other. Ray Train would bring pandas, tensorboardX and a controller with restarts
and checkpoints of its own beside those that a run has.
"""

from __future__ import annotations

import datetime
import pickle
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filters.errors import TaskFailed

if TYPE_CHECKING:
    from infra.training_work import TrainTask
    from proxy_eval.parallel import Rank

GATHER_SECONDS = 600.0
"""That a training waits for its other workers: a cluster may have to start nodes for them."""
SUM_SECONDS = 600.0
"""After which a sum over ranks that does not come is an error."""


@contextmanager
def all_ranks(task: TrainTask, folder: Path) -> Iterator[Rank]:
    """Yield rank 0 of as many as the task asks for, the others at work elsewhere with the checkpoint in `folder`, which
    they must see. Raises TaskFailed where no Ray is, or its workers do not come.
    """
    from proxy_eval.parallel import ALONE

    if task.ranks == 1:
        yield ALONE
        return
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    if not ray.is_initialized():
        raise TaskFailed(f"{task.ranks} ranks need Ray: leave out --workers 1.")
    gpus = {"GPU": task.gpus} if task.gpus else {}
    group = placement_group([{"CPU": 1, **gpus}] * (task.ranks - 1), strategy="PACK")
    try:
        if not group.wait(GATHER_SECONDS):
            raise TaskFailed(f"no {task.ranks - 1} more workers came for a training of {task.ranks} ranks.")
        address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        meeting = f"tcp://{address}:{free_port()}"
        started = ray.remote(num_cpus=1, num_gpus=task.gpus, max_retries=0)(follow)
        strategy = PlacementGroupSchedulingStrategy(placement_group=group)
        packed = pickle.dumps(task)
        others = [
            started.options(scheduling_strategy=strategy).remote(packed, str(folder), meeting, number)
            for number in range(1, task.ranks)
        ]
        with met(task, meeting, 0) as rank:
            yield rank
        ray.get(others)
    finally:
        remove_placement_group(group)


def follow(packed: bytes, folder: str, meeting: str, number: int) -> None:
    """Be one of the other ranks to the end of the training; what it comes to is the same as at rank 0, and is left."""
    from infra.training_work import trained_members

    task: TrainTask = pickle.loads(packed)
    with met(task, meeting, number) as rank:
        trained_members(task, Path(folder), rank, None)


@contextmanager
def met(task: TrainTask, meeting: str, number: int) -> Iterator[Rank]:
    """Yield this process's rank, while it is in a group with the others."""
    import torch.distributed

    from proxy_eval.parallel import this_rank

    torch.distributed.init_process_group(
        "nccl" if task.gpus else "gloo",
        init_method=meeting,
        rank=number,
        world_size=task.ranks,
        timeout=datetime.timedelta(seconds=SUM_SECONDS),
    )
    try:
        yield this_rank()
    finally:
        torch.distributed.destroy_process_group()


def free_port() -> int:
    """A port that nobody listened on just now."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])
