"""Two processes that share every step's sequences train what one process trains."""

from __future__ import annotations

import math
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed

from filters.errors import InputError
from proxy_eval.hyperparameters import wsd
from proxy_eval.parallel import Rank, this_rank
from proxy_eval.steps import Training
from proxy_eval.train import train
from tests.proxy_eval.small_runs import STEP, largest_difference, member, row, same_bits, training

RUNS = training(tokens=12 * STEP + 5, schedule=wsd(2 * STEP), endpoints=(6 * STEP,), precision="float64", micro=1)


def train_share(number: int, runs: Training, folder: Path) -> None:
    """What one of two processes does: its endpoints are saved under its number."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2)
    trained = train(runs, [member(1), member(2, rate=math.inf)], checkpoint=folder / "run", rank=this_rank())
    torch.save(trained.endpoints, folder / f"rank-{number}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.full
def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=train_share, args=(number, RUNS, tmp_path)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    first, second = (torch.load(tmp_path / f"rank-{number}.pt", weights_only=False) for number in range(2))
    alone = train(RUNS, [member(1), member(2, rate=math.inf)]).endpoints
    assert len(alone) == 2
    for mine, other, expected in zip(first, second, alone, strict=True):
        assert same_bits(row(mine.weights, 0), row(other.weights, 0))
        assert largest_difference(row(mine.weights, 0), row(expected.weights, 0)) <= 1e-9
        np.testing.assert_allclose(mine.losses, expected.losses, rtol=0, atol=1e-6)
        assert mine.stopped == other.stopped == expected.stopped == (None, 1)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        f"endpoint-{budget}.safetensors" for budget in RUNS.budgets
    }


def test_a_step_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(InputError, match="4 sequences a step cannot be shared evenly by 3 processes"):
        train(training(), [member(1)], rank=Rank(number=0, of=3))
