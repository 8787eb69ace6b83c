"""One run on several processes: each reads its share of every step's sequences, and gradients and losses are added up.

A process is given its rank; `torch.distributed` has been initialised by whoever started it (Ray Train, torchrun), with
gloo on CPUs and NCCL on GPUs. After the sum all ranks hold the same gradient, bit for bit, so that they take the same
step, stop the same models, and end with the same weights; only rank 0 writes. Bytes sent by a step: one flat gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed


@dataclass(frozen=True, kw_only=True)
class Rank:
    """Which of how many processes this one is."""

    number: int = 0
    of: int = 1


ALONE = Rank()


def this_rank() -> Rank:
    """The rank in the process group that has been initialised; alone where none has."""
    if not torch.distributed.is_initialized():
        return ALONE
    return Rank(number=torch.distributed.get_rank(), of=torch.distributed.get_world_size())


def add_up(rank: Rank, *tensors: torch.Tensor) -> None:
    """Replace each tensor by its sum over all ranks, in place."""
    if rank.of > 1:
        for tensor in tensors:
            torch.distributed.all_reduce(tensor)
