"""Where models train: the size of a stack by measured speeds, here or on a cluster, and the memory a training takes."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra import placement
from infra.placement import fitting, placed, scoring_place, training_memory
from infra.pool import make_pool
from infra.training_work import Trial
from proxy_eval.hyperparameters import hyperparameters, wsd
from proxy_eval.llama import shape_of
from proxy_eval.steps import Training
from tests.annotated_run import annotated_run
from tests.ray_cluster import Cluster, ray_cluster  # noqa: F401 - a fixture

ON_GPUS: Mapping[str, Any] = {"device": "cuda", "workers": None, "stack": None, "address": "auto"}


def training_at(size: str, *, context: int, sequences: int) -> Training:
    shape = shape_of(size, 8192, context)
    schedule = replace(hyperparameters(size, shape, 10**6).schedule, warmup=0)
    return Training(shape=shape, tokens=2 * sequences * context, sequences=sequences, schedule=schedule)


def trials(count: int) -> list[Trial]:
    training = training_at("1M", context=32, sequences=8)
    return [
        Trial(arm="all", sources=(), size="1M", training=training, seed=seed, learning_rate=1e-3)
        for seed in range(count)
    ]


@pytest.mark.parametrize(
    ("speeds", "size"),
    [
        ({1: 100.0}, 1),
        ({1: 100.0, 2: 105.0}, 1),
        ({1: 100.0, 2: 180.0, 4: 300.0}, 4),
        ({1: 100.0, 2: 180.0, 4: 190.0}, 2),
    ],
)
def test_a_stack_is_doubled_as_long_as_that_gains_a_tenth(speeds: dict[int, float], size: int) -> None:
    found, why = fitting(speeds)
    assert found == size and "100 tokens/s in stacks of 1" in why


def test_models_are_scored_one_on_each_core_where_that_is_worth_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "cores", lambda: 4)

    def place(workers: int | None = None, address: str | None = None, **task: Any) -> tuple[int | None, int | None]:
        weights, read = task.get("weights", [1_000_000] * 3), task.get("read", 3_000_000)
        found = scoring_place(task.get("device", "cpu"), workers, address, weights=weights, read=read)
        return found.workers, found.threads

    assert place() == (3, 1) and place(read=30_000) == (1, None) and place(device="cuda") == (1, None)
    assert place(weights=[]) == place(weights=[60_000_000] * 3) == (1, None)
    assert place(2) == (2, 2) and place(1) == (1, None)
    assert place(address="auto") == (None, 1) and place(address="auto", device="cuda") == (None, None)


def measured(speeds: dict[int, float] | str, asked: list[tuple[Any, ...]]) -> Any:
    def there(*given: Any) -> dict[int, float] | str:
        asked.append(given[1:])
        return speeds

    return there


def test_on_a_cluster_stacks_are_measured_there_and_as_many_train_as_it_has_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(placement, "speeds_there", measured({1: 100.0, 2: 190.0, 4: 195.0}, asked))
    found = placed(trials(6), **ON_GPUS, allow_unauthenticated=True)
    assert (found.stack, found.workers, found.device) == (2, None, "cuda")
    assert asked == [(6, "cuda", "auto", True)] and "190 tokens/s in stacks of 2" in found.why
    assert placed(trials(6), **{**ON_GPUS, "workers": 3}).workers == 3


def test_on_a_cluster_nothing_is_measured_where_there_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(placement, "speeds_there", measured({}, asked))
    assert placed(trials(1), **ON_GPUS).stack == 1
    assert placed(trials(6), **{**ON_GPUS, "stack": 4}).stack == 4
    on_cpus = placed(trials(6), **{**ON_GPUS, "device": "cpu"})
    assert (on_cpus.stack, on_cpus.workers, on_cpus.threads) == (1, None, 1)
    assert asked == []


def test_a_cluster_that_cannot_say_trains_one_at_a_time_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "speeds_there", measured("not measured (no device)", []))
    found = placed(trials(6), **ON_GPUS)
    assert found.stack == 1 and "not measured (no device)" in found.why


def test_a_machine_of_a_cluster_has_a_model_on_each_of_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "cores", lambda: 16)
    monkeypatch.setattr(placement, "speed_on_one_thread", lambda training, _: 100.0)
    monkeypatch.setattr(placement, "speeds", lambda training, most, device: {1: 5e3, 2: 8e3})
    training = training_at("1M", context=32, sequences=8)
    assert placement.machine_speeds(training, 4, "cpu") == {1: 1_600.0}
    assert placement.machine_speeds(training, 4, "cuda") == {1: 5e3, 2: 8e3}


def test_memory_grows_with_the_stack_the_endpoints_and_on_a_cpu_with_what_is_held_for_the_gradient() -> None:
    training = training_at("1M", context=256, sequences=8)
    one, two = (training_memory(training, members, "cpu") for members in (1, 2))
    assert two - one == pytest.approx(one - placement.PROCESS_BYTES["cpu"])
    control = replace(training, schedule=wsd(0), endpoints=(training.tokens // 2,))
    more = training_memory(control, 1, "cpu") - training_memory(training, 1, "cpu")
    assert more == (placement.BRANCH_BYTES + 4) * training.shape.parameters
    longer = replace(training, sequences=16)
    assert training_memory(longer, 1, "cpu") > one
    assert training_memory(longer, 1, "cuda") == training_memory(training, 1, "cuda")
    large = training_at("300M", context=2048, sequences=256)
    held = training_memory(large, 1, "cpu") - placement.PROCESS_BYTES["cpu"] - 32 * large.shape.parameters
    assert held <= max(placement.CPU_BYTES, placement.token_bytes(large.shape) * large.shape.context)


def pickled(training: Training, folder: Path) -> str:
    """Where the training now lies for another process."""
    path = folder / "training.pickle"
    path.write_bytes(pickle.dumps(training))
    return str(path)


PEAK = """
import sys, pickle
import numpy as np, torch
import infra.perform
from infra.placement import micro_batch
from pipelines.memory import peak_memory
from proxy_eval.steps import Member
from proxy_eval.train import train
torch.set_num_threads(1)
training = pickle.load(open(sys.argv[1], "rb"))
class Noise:
    def sequences(self, first, count):
        rng = np.random.default_rng(first)
        windows = rng.integers(0, training.shape.vocabulary, (count, training.shape.context + 1))
        return windows[:, :-1], windows[:, 1:]
train(micro_batch(training, 1, "cpu"), [Member(stream=Noise(), seed=1, learning_rate=1e-3)])
print(peak_memory())
"""


@pytest.mark.full
@pytest.mark.parametrize(("size", "context", "sequences"), [("1M", 256, 8), ("10M", 512, 4)])
def test_the_memory_asked_for_is_what_a_training_takes_and_at_most_twice_that(
    tmp_path: Path, size: str, context: int, sequences: int
) -> None:
    training = training_at(size, context=context, sequences=sequences)
    command = [sys.executable, "-c", PEAK, pickled(training, tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 1 <= training_memory(training, 1, "cpu") / int(done.stdout) <= 2


def driven(cluster: Cluster, code: str, *arguments: str) -> Any:
    """What a driver of the cluster printed as JSON."""
    command = [sys.executable, "-c", code, cluster.address, *arguments]
    done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.ray
@pytest.mark.full
def test_a_worker_of_the_cluster_measures_and_a_device_that_none_has_is_waited_for_no_longer_than_said(
    ray_cluster: Cluster,  # noqa: F811
    tmp_path: Path,
) -> None:
    code = (
        "import json, pickle, sys\n"
        "from infra import placement\n"
        "training = pickle.load(open(sys.argv[2], 'rb'))\n"
        "there = placement.speeds_there(training, 4, 'cpu', sys.argv[1], False)\n"
        "placement.ANSWER_SECONDS = 5.0\n"
        "print(json.dumps([there, placement.speeds_there(training, 4, 'cuda', sys.argv[1], False)]))\n"
    )
    there, nowhere = driven(ray_cluster, code, pickled(training_at("1M", context=32, sequences=8), tmp_path))
    assert list(there) == ["1"] and there["1"] > 0
    assert nowhere == "not measured, no device of the cluster was free within 5 s"


@pytest.mark.ray
@pytest.mark.full
def test_models_are_trained_on_the_workers_of_a_cluster_that_is_joined(
    ray_cluster: Cluster,  # noqa: F811
    small_crawl: Path,
    tmp_path: Path,
) -> None:
    made = annotated_run(small_crawl, tmp_path / "out")
    pool = make_pool(made.store.url, tmp_path / "pool", vocabulary=400, runner="inprocess", quiet=True).url
    code = (
        "import json, sys\n"
        "from infra.proxies import train_models\n"
        "models = train_models(sys.argv[2], sys.argv[3], tokens=[5_000], context=32, seeds=[1, 2, 3],\n"
        "                      address=sys.argv[1], device='cpu', quiet=True)\n"
        "print(json.dumps([one.label for one in models]))\n"
    )
    assert len(driven(ray_cluster, code, pool, str(tmp_path / "models"))) == 3
