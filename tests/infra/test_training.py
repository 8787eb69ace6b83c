"""Many models on one pool: each is trained once, resumed to the same bits, found again, and shown with what it is."""

from __future__ import annotations

import io
import json
import sys
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from filters.errors import InputError, ResourceMissing
from infra import pool_files, training_work
from infra.arms import kept_by, mask_rules
from infra.commit import committed, read_manifest
from infra.local_store import LocalStore
from infra.perform import perform
from infra.placement import Placement, micro_batch, placed
from infra.pool import make_pool, run_of
from infra.pool_files import check_extra, read_said
from infra.training import model_named, planned, read_models, readings, train_all
from infra.training_progress import Said, TrainingProgress, sink_of
from infra.training_work import CHECKPOINTS, TRAIN, TrainTask, Trial, stacked, stream_of
from proxy_eval.hyperparameters import hyperparameters
from proxy_eval.llama import shape_of
from proxy_eval.pool import read_pool
from proxy_eval.steps import Training
from tests.annotated_run import annotated_run

TOKENS = 5_000
CONTEXT = 32
HERE = Placement(device="cpu", stack=1, workers=1, threads=1, why="")


@pytest.fixture(scope="module")
def pool(small_crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("training")
    made = annotated_run(small_crawl, folder / "out")
    return make_pool(made.store.url, folder / "pool", vocabulary=400, runner="inprocess", quiet=True).url


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "models")


def trials_of(store: LocalStore, pool: str, **options: Any) -> list[Trial]:
    given = {"masks": ["all"], "size": "1M", "tokens": [TOKENS], "seeds": [1], "context": CONTEXT} | options
    return planned(store, pool, **given)


def quiet() -> TrainingProgress:
    return TrainingProgress(io.StringIO(), labels={}, quiet=True)


def never(trials: Sequence[Trial]) -> Placement:
    raise AssertionError(f"{len(trials)} are to be trained")


def trained(store: LocalStore, trials: Sequence[Trial], place: Callable[..., Placement] = lambda _: HERE) -> list[Any]:
    with quiet() as progress:
        return train_all(store, trials, placement=place, progress=progress)


def model_bytes(store: LocalStore, label: str) -> bytes:
    return (store.root / "models" / label / "model.safetensors").read_bytes()


def test_a_model_for_each_mask_seed_and_rate_lies_in_a_folder_of_its_own(pool: str, store: LocalStore) -> None:
    trials = trials_of(store, pool, masks=["all", "rules"], seeds=[1, 2], rates=[1e-3, 2e-3])
    models = trained(store, trials)
    assert [(one.said["arm"], one.said["seed"], one.said["learning_rate"]) for one in models] == [
        (arm, seed, rate) for arm in ("all", "rules") for seed in (1, 2) for rate in (1e-3, 2e-3)
    ]
    for arm in ("all", "rules"):  # whose first documents may be the same
        assert len({model_bytes(store, one.label) for one in models if one.said["arm"] == arm}) == 4
    for one in models:
        folder = store.root / "models" / one.label
        names = {"config.json", "generation_config.json", "metrics.parquet", "model.safetensors", "run.json"}
        assert names | {"tokenizer.json", "tokenizer_config.json"} == {path.name for path in folder.iterdir()}
        metrics = pq.read_table(folder / "metrics.parquet")
        assert metrics.column("tokens").to_pylist()[-1] == TOKENS  # to the token
        assert 0 < one.said["epochs"] < 1 and one.said["loss"] < metrics.column("loss").to_pylist()[0]
    assert [one.label for one in read_models(store)] == sorted(one.label for one in models)
    assert not (store.root / CHECKPOINTS).exists()


def test_what_is_trained_is_not_trained_again_whatever_it_was_stacked_with(pool: str, store: LocalStore) -> None:
    trials = trials_of(store, pool, seeds=[1, 2, 3])
    first = trained(store, trials[:2], lambda _: replace(HERE, stack=2))
    assert len(committed(store, TRAIN)) == 1
    asked: list[int] = []

    def place(todo: Sequence[Trial]) -> Placement:
        asked.append(len(todo))
        return HERE

    again = trained(store, trials, place)
    assert asked == [1] and [one.label for one in again[:2]] == [one.label for one in first]
    assert trained(store, trials, never) == again


def test_two_names_of_one_arm_are_one_model_shown_twice(pool: str, store: LocalStore) -> None:
    trials = trials_of(store, pool, masks=["rules", "rules, rules"])
    models = trained(store, trials)
    assert len(committed(store, TRAIN)) == 1 and len({one.label for one in models}) == 2
    assert model_bytes(store, models[0].label) == model_bytes(store, models[1].label)


def test_several_budgets_are_ends_of_one_trunk(pool: str, store: LocalStore) -> None:
    both = trained(store, trials_of(store, pool, tokens=[TOKENS, 2 * TOKENS]))
    assert [one.said["tokens"] for one in both] == [TOKENS, 2 * TOKENS]
    assert len(committed(store, TRAIN)) == 1
    assert both[0].said["training"]["schedule"]["kind"] == "wsd"


def steps_of(task: TrainTask) -> tuple[Any, int]:
    """What a task made, and how many steps it took for it."""
    steps: list[int] = []

    def report(name: str, said: Any, ended: bool = False, /) -> None:
        steps.append(said.step)

    return perform(task, report), len(steps)


@pytest.mark.parametrize("at", [1, 7, 19])
def test_interrupted_at_a_step_and_run_again_it_makes_the_same_bits(pool: str, tmp_path: Path, at: int) -> None:
    whole, broken = LocalStore(tmp_path / "whole"), LocalStore(tmp_path / "broken")
    trial = trials_of(whole, pool)[0]
    made, steps = steps_of(TrainTask(store=whole, trials=(trial,), threads=1))
    task = TrainTask(store=broken, trials=(trial,), threads=1, checkpoint_seconds=0.0)

    def interrupted(name: str, said: Any, ended: bool = False, /) -> None:
        if said.step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(task, interrupted)
    again, left = steps_of(task)
    assert left == steps - at
    took = again.says["models"][f"{trial.id}/{TOKENS}"]["device_seconds"] / task.devices
    assert took * again.says["tokens_per_second"] == pytest.approx(TOKENS, rel=0.01)  # of both attempts
    assert {name: entry.sha256 for name, entry in again.files.items()} == {
        name: entry.sha256 for name, entry in made.files.items()
    }


def test_a_model_says_what_it_took_of_devices_whatever_was_killed_meanwhile(pool: str, store: LocalStore) -> None:
    """A task whose last endpoint is stored has nothing left to train, and its speed is still that of the training."""
    trial = trials_of(store, pool)[0]
    task = TrainTask(store=store, trials=(trial,), threads=1, checkpoint_seconds=0.0)

    def killed(name: str) -> None:
        raise KeyboardInterrupt

    before = time.perf_counter()
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training_work, "failpoint", killed)
        perform(task, lambda *said: None)
    spent = time.perf_counter() - before
    made, steps = steps_of(task)
    took = made.says["models"][f"{trial.id}/{TOKENS}"]["device_seconds"]
    assert steps == 0 and 0 < took <= task.devices * (spent + 1)
    assert made.says["tokens_per_second"] == pytest.approx(TOKENS / (took / task.devices), rel=0.01)


@pytest.mark.parametrize(
    ("said", "devices"),
    [
        ({}, 1.0),
        ({"threads": 1}, 0.25),
        ({"threads": 8}, 1.0),
        ({"threads": 2, "ranks": 2}, 1.0),
        ({"device": "cuda:0", "threads": 1, "ranks": 3}, 3.0),
    ],
)
def test_a_training_counts_for_the_devices_that_it_holds(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], devices: float
) -> None:
    monkeypatch.setattr(training_work, "cores", lambda: 4)
    assert TrainTask(store=store, trials=(), **said).devices == devices


def test_a_mask_reads_what_it_keeps_and_says_how_much_that_is(pool: str, store: LocalStore) -> None:
    made = run_of(pool, read_said(pool))
    ruled = mask_rules(made, "rules")
    assert ruled is not None
    kept, opened = kept_by(made, ruled), read_pool(Path(pool))
    trials = trials_of(store, pool, masks=["all", "rules"], seeds=[1, 2])
    masks = [stream_of(store, trial).arm.sources[0].mask for trial in trials]
    assert masks[0] is masks[1] is None and all((one == kept).all() for one in masks[2:] if one is not None)
    everything, rules = readings(store, trials)
    assert rules.documents == kept.sum() < everything.documents == np.count_nonzero(opened.counts)
    assert rules.tokens == opened.counts[kept].sum() + kept.sum()
    assert rules.epochs == pytest.approx(TOKENS / rules.tokens)


def test_a_budget_above_four_epochs_is_refused_before_anything_is_trained(pool: str, store: LocalStore) -> None:
    tokens = int(read_pool(Path(pool)).counts.sum())
    assert len(list(readings(store, trials_of(store, pool, tokens=[3 * tokens])))) == 1
    trials = trials_of(store, pool, tokens=[5 * tokens])
    with pytest.raises(InputError, match=r"arm all: .* read source"):
        list(readings(store, trials))
    with pytest.raises(InputError, match=r"arm all: .* read source"):
        perform(TrainTask(store=store, trials=(trials[0],)), lambda *said: pytest.fail(f"a step was taken: {said}"))


def test_stacks_hold_trials_that_are_trained_alike(pool: str, store: LocalStore) -> None:
    short, long = (trials_of(store, pool, tokens=[tokens], seeds=[1, 2, 3]) for tokens in (TOKENS, 2 * TOKENS))
    mixed = [trial for pair in zip(short, long, strict=True) for trial in pair]
    found = stacked(mixed, 2)
    assert [len(one) for one in found] == [2, 1, 2, 1]
    assert all(len({trial.training.tokens for trial in one}) == 1 for one in found)


def test_on_a_cpu_the_faster_of_two_layouts_is_taken(
    pool: str, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infra import placement
    from proxy_eval import steps

    trials = trials_of(store, pool, seeds=[1, 2, 3, 4])
    asked = {"device": "cpu", "workers": None, "stack": None, "address": None}
    monkeypatch.setattr(placement, "cores", lambda: 4)
    monkeypatch.setattr(steps, "measured_speed", lambda *_, **__: 100.0)
    monkeypatch.setattr(placement, "processes", lambda count: types.SimpleNamespace)
    assert placed(trials[:1], **asked).workers == 1
    assert placed(trials, **asked | {"workers": 2}).threads == 2
    assert placed(trials, **asked | {"workers": 2}).workers == 2
    left = placed(trials[:1], **asked | {"workers": 2})
    assert (left.workers, left.threads) == (1, None)  # one that is left has all cores, in this process
    for speed, workers in ((20.0, 1), (30.0, 4)):
        monkeypatch.setattr(placement, "processes", lambda count, speed=speed: Together(speed))
        found = placed(trials, **asked)
        assert found.workers == workers and "100 tokens/s" in found.why and f"{4 * speed:,.0f}" in found.why
    monkeypatch.setattr(steps, "measured_speed", lambda *_, **__: 1e9)
    assert placed(trials, **asked).workers == 1  # over before a measurement would be
    with pytest.raises(InputError, match="--stack 4: on a CPU"):
        placed(trials, **asked | {"stack": 4})


def test_sequences_at_a_time_divide_a_step_and_are_fewer_for_more_and_larger_models() -> None:
    tiny = training_at("1M", 256)
    assert micro_batch(tiny, 1, "cpu") == tiny
    found = [micro_batch(training_at(size, 2048), 1, "cpu").micro for size in ("10M", "60M", "300M")]
    assert all(one is not None and 1 <= one < 32 for one in found) and found == sorted(found, reverse=True)
    step = training_at("10M", 2048)
    alone, several = (micro_batch(step, members, "cpu").micro or step.sequences for members in (1, 4))
    assert several < alone and step.sequences % alone == step.sequences % several == 0


def training_at(size: str, context: int) -> Training:
    shape = shape_of(size, 4096, context)
    chosen = hyperparameters(size, shape, 10**9)
    return Training(shape=shape, tokens=10**9, sequences=chosen.sequences, schedule=chosen.schedule)


def test_another_pool_is_read_at_its_share_of_every_arm(pool: str, store: LocalStore) -> None:
    plain, mixed = (trials_of(store, pool, mix=mix)[0] for mix in ([], [f"{pool}=0.25"]))
    assert [one.weight for one in mixed.sources] == [0.75, 0.25] and plain.id != mixed.id
    (model,) = trained(store, [mixed])
    assert len(model.said["sources"]) == 2
    for wrong, says in (("nowhere", "write POOL=SHARE"), (f"{pool}=1.5", "write POOL=SHARE")):
        with pytest.raises(InputError, match=says):
            trials_of(store, pool, mix=[wrong])
    with pytest.raises(InputError, match="leave nothing"):
        trials_of(store, pool, mix=[f"{pool}=0.5", f"{pool}=0.5"])


@dataclass
class Together:
    """Processes that each train at one speed."""

    speed: float

    def __enter__(self) -> Any:
        return lambda ask, items: [self.speed for _ in items]

    def __exit__(self, *_: object) -> None:
        return


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_files, "installed", lambda name: None if name == "torch" else "1.0")
    with pytest.raises(ResourceMissing, match=r"needs torch: .*gristmill\[proxy\]"):
        check_extra("torch", "tokenizers")
    check_extra("tokenizers")


def said(step: int, loss: float) -> Said:
    return Said(
        step=step, tokens=100 * step, budget=1000, losses={"a": loss}, tokens_per_second=50.0, seconds_left=18.0
    )


def test_progress_shows_the_loss_of_each_arm_speed_and_time_left() -> None:
    stream, now = io.StringIO(), [0.0]
    with TrainingProgress(stream, labels={"a": "rules-seed1"}, clock=lambda: now[0]) as progress:
        progress.stage("train", 2, 0)
        progress.report("task", said(1, 6.5))
        now[0] = 11.0
        progress.report("task", said(2, 6.25))
        progress.report("task", None, True)
    assert "200 of 1,000 tokens  50/s  18 s left  loss rules-seed1 6.250" in stream.getvalue()
    assert "6.500" not in stream.getvalue()  # not a line for each step


@dataclass
class FakeRun:
    name: str
    logged: list[tuple[dict[str, float], int]] = field(default_factory=list)
    finished: bool = False

    def log(self, values: dict[str, float], *, step: int) -> None:
        self.logged.append((values, step))

    def finish(self) -> None:
        self.finished = True


@pytest.mark.parametrize("kind", ["trackio", "wandb"])
def test_a_sink_gets_losses_by_tokens_and_no_secret(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    begun: list[tuple[FakeRun, dict[str, Any]]] = []

    def init(*, name: str, **given: Any) -> FakeRun:
        begun.append((FakeRun(name), given))
        return begun[-1][0]

    monkeypatch.setitem(sys.modules, kind, types.SimpleNamespace(init=init))  # type: ignore[arg-type]
    monkeypatch.setenv("WANDB_API_KEY", "secret-of-mine")
    config = {"rules-seed1": {"arm": "rules", "seed": 1}}
    sink = sink_of(kind, project="gristmill", folder="unused", config=config)
    with TrainingProgress(io.StringIO(), labels={"a": "rules-seed1"}, sink=sink, quiet=True) as progress:
        for step, loss in ((1, 6.5), (1, 6.5), (2, 6.25)):
            progress.report("task", said(step, loss))
        progress.report("task", None, True)
    ((run, given),) = begun
    assert [(values["loss"], step) for values, step in run.logged] == [(6.5, 100), (6.25, 200)]
    assert run.finished and run.name == "rules-seed1" and given["config"] == config["rules-seed1"]
    assert "secret-of-mine" not in json.dumps(given)


def test_tensorboard_has_a_writer_for_each_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scalars: list[tuple[str, str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            self.folder = folder

        def add_scalar(self, name: str, value: float, step: int) -> None:
            scalars.append((self.folder, name, value, step))

        def close(self) -> None:
            scalars.append((self.folder, "closed", 0.0, 0))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))  # type: ignore[arg-type]
    sink = sink_of("tensorboard", project="p", folder=str(tmp_path), config={})
    sink.log("one", 100, {"loss": 6.5})
    sink.close()
    assert scalars == [(f"{tmp_path}/one", "loss", 6.5, 100), (f"{tmp_path}/one", "closed", 0.0, 0)]


def test_a_sink_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # type: ignore[arg-type]
    with pytest.raises(ResourceMissing, match="pip install wandb"):
        sink_of("wandb", project="p", folder="f", config={})


def test_a_model_is_named_by_the_beginning_of_its_label(pool: str, store: LocalStore) -> None:
    models = trained(store, trials_of(store, pool, masks=["all", "rules"]))
    assert model_named(models, "rules").said["arm"] == "rules"
    with pytest.raises(InputError, match="2 models are called so"):
        model_named(models, None)
    with pytest.raises(InputError, match="0 models are called so"):
        model_named(models, "nonsense")


@pytest.mark.ray
@pytest.mark.full
def test_a_training_that_moves_outlives_the_deadline_of_its_task(pool: str, store: LocalStore) -> None:
    trials = trials_of(store, pool, tokens=[100_000], seeds=[1, 2], context=256)
    with quiet() as progress:
        models = train_all(
            store, trials, placement=lambda _: replace(HERE, workers=2), progress=progress, task_seconds=2.0
        )
    assert len(models) == 2
    for task in committed(store, TRAIN):
        assert read_manifest(store, TRAIN, task).measured["seconds"] > 2 * 2.0
        assert len(list((store.root / "_work" / "attempts" / task).iterdir())) == 1


@pytest.mark.ray
@pytest.mark.full
def test_two_workers_that_share_every_batch_come_to_the_model_of_one(pool: str, store: LocalStore) -> None:
    trials = trials_of(store, pool, seeds=[1])
    with quiet() as progress:
        place = placed(trials, device="cpu", workers=None, stack=None, address=None, ranks=2)
        (shared,) = train_all(store, trials, placement=lambda _: place, progress=progress)
    (alone,) = trained(LocalStore(store.root.parent / "alone"), trials)
    assert shared.said["loss"] == pytest.approx(alone.said["loss"], abs=1e-4)
    assert shared.said["loss"] < 5.9 < np.log(400)
