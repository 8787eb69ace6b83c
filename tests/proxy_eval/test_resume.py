"""A run that is ended at any step goes on to the same bits; a checkpoint of another run is refused by name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from filters.errors import OutputError
from proxy_eval.hyperparameters import wsd
from proxy_eval.steps import Member, Training
from proxy_eval.train import Progress, Trained, train
from tests.proxy_eval.small_runs import STEP, ArrayStream, member, same_bits, text, training

RUNS = training(tokens=9 * STEP + 5, schedule=wsd(2 * STEP), endpoints=(4 * STEP, 5 * STEP - 1, 5 * STEP))
STEPS_TAKEN = 10 + sum(RUNS.steps(budget) - RUNS.shared_steps(budget) for budget in RUNS.endpoints)


class Killed(Exception):
    """The run is ended here."""


def killed_after(steps: int) -> Callable[[Progress], None]:
    """Raises `Killed` after so many steps."""
    left = iter(range(steps - 1))

    def on_step(_: Progress) -> None:
        if next(left, None) is None:
            raise Killed

    return on_step


def members() -> list[Member]:
    return [member(1), member(2, rate=3e-3)]


@pytest.fixture(scope="module")
def whole() -> Trained:
    return train(RUNS, members())


def assert_same(found: Trained, expected: Trained) -> None:
    assert [endpoint.tokens for endpoint in found.endpoints] == [endpoint.tokens for endpoint in expected.endpoints]
    for ours, theirs in zip(found.endpoints, expected.endpoints, strict=True):
        assert same_bits(ours.weights, theirs.weights)
        np.testing.assert_array_equal(ours.losses, theirs.losses)
        assert ours.stopped == theirs.stopped


@pytest.mark.parametrize("steps", range(1, STEPS_TAKEN + 1))
def test_a_run_ended_after_any_step_goes_on_to_the_same_bits(whole: Trained, tmp_path: Path, steps: int) -> None:
    with pytest.raises(Killed):
        train(RUNS, members(), checkpoint=tmp_path, every_seconds=0, on_step=killed_after(steps))
    taken: list[Progress] = []
    assert_same(train(RUNS, members(), checkpoint=tmp_path, on_step=taken.append), whole)
    assert len(taken) == STEPS_TAKEN - steps


def test_a_run_ended_after_every_step_comes_to_the_same_bits(whole: Trained, tmp_path: Path) -> None:
    for _ in range(STEPS_TAKEN):
        with pytest.raises(Killed):
            train(RUNS, members(), checkpoint=tmp_path, every_seconds=0, on_step=killed_after(1))
    assert_same(train(RUNS, members(), checkpoint=tmp_path), whole)


def test_steps_after_the_last_checkpoint_are_taken_again(whole: Trained, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(RUNS, members(), checkpoint=tmp_path, every_seconds=3600, on_step=killed_after(STEPS_TAKEN))
    taken: list[Progress] = []
    assert_same(train(RUNS, members(), checkpoint=tmp_path, on_step=taken.append), whole)
    assert len(taken) > 0


def test_a_finished_run_is_read_and_not_trained_again(whole: Trained, tmp_path: Path) -> None:
    train(RUNS, members(), checkpoint=tmp_path)
    taken: list[Progress] = []
    assert_same(train(RUNS, members(), checkpoint=tmp_path, on_step=taken.append), whole)
    assert taken == []


def test_a_member_that_was_stopped_stays_so(tmp_path: Path) -> None:
    runs, stack = training(schedule=wsd(0)), [member(1), member(2, rate=1e38)]
    expected = train(runs, stack)
    with pytest.raises(Killed):
        train(runs, stack, checkpoint=tmp_path, every_seconds=0, on_step=killed_after(5))
    assert_same(train(runs, stack, checkpoint=tmp_path), expected)
    assert expected.endpoints[-1].stopped == (None, 1)


def test_a_folder_holds_the_last_state_and_the_endpoints_alone(tmp_path: Path) -> None:
    seen: list[set[str]] = []

    def look(_: Progress) -> None:
        seen.append({path.name for path in tmp_path.iterdir()})

    train(RUNS, members(), checkpoint=tmp_path, every_seconds=0, on_step=look)
    endpoints = [f"endpoint-{budget}.safetensors" for budget in RUNS.budgets]
    assert seen[0] == {"state.safetensors"}
    assert seen[-1] == {"state.safetensors", *endpoints[:-1]}
    assert {path.name for path in tmp_path.iterdir()} == set(endpoints)


OTHER_TEXT = Member(stream=ArrayStream(text(8)), seed=2, learning_rate=3e-3)
LATE_CHANGE = text(2)
LATE_CHANGE[9 * STEP :] += 1


@pytest.mark.parametrize(
    ("runs", "stack", "named"),
    [
        (training(tokens=9 * STEP + 6, schedule=wsd(2 * STEP), endpoints=RUNS.endpoints), members(), "tokens is"),
        (training(tokens=9 * STEP + 5, schedule=wsd(STEP), endpoints=RUNS.endpoints), members(), "schedule.warmup is"),
        (RUNS, [member(1), member(3, rate=3e-3, of=2)], r"members\.1\.seed is 2 there, 3 here"),
        (RUNS, [member(1), member(2, rate=4e-3)], r"members\.1\.rate is 0\.003 there, 0\.004 here"),
        (RUNS, [member(1), OTHER_TEXT], r"members\.1\.data is"),
        (
            RUNS,
            [member(1), Member(stream=ArrayStream(LATE_CHANGE), seed=2, learning_rate=3e-3)],
            r"members\.1\.data is",
        ),
        (RUNS, [*members(), member(3)], r"members\.2\.seed is None there, 3 here"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, runs: Training, stack: list[Member], named: str
) -> None:
    with pytest.raises(Killed):
        train(RUNS, members(), checkpoint=tmp_path, every_seconds=0, on_step=killed_after(2))
    with pytest.raises(OutputError, match=named):
        train(runs, stack, checkpoint=tmp_path)


def test_a_checkpoint_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(OutputError, match="cannot be read"):
        train(RUNS, members(), checkpoint=tmp_path)


def test_another_size_of_micro_batches_goes_on_from_the_same_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(RUNS, members(), checkpoint=tmp_path, every_seconds=0, on_step=killed_after(2))
    smaller = training(tokens=RUNS.tokens, schedule=RUNS.schedule, endpoints=RUNS.endpoints, micro=2)
    assert len(train(smaller, members(), checkpoint=tmp_path).endpoints) == 4


CHILD = """
import sys
from pathlib import Path
from proxy_eval.train import train
from tests.proxy_eval.test_resume import RUNS, members
train(RUNS, members(), checkpoint=Path(sys.argv[1]), every_seconds=0, on_step=lambda said: print(said.step, flush=True))
"""


@pytest.mark.full
@pytest.mark.parametrize("steps", [1, 4, 7, 12])
def test_a_killed_process_is_gone_on_from(whole: Trained, tmp_path: Path, steps: int) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as child:
        assert child.stdout is not None
        for _ in range(steps):
            assert child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
    assert_same(train(RUNS, members(), checkpoint=tmp_path), whole)
