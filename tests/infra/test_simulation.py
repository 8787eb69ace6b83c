"""The driver against simulated workers that die, fall silent and come back late, seed after seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import simulation
from infra import packing, rollup
from infra.schedule import Patience


def survives(seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small segments and many faults. `simulated` itself asserts one manifest a task and the whole account."""
    monkeypatch.setattr(rollup, "SEGMENT", 1 + seed % 7)
    monkeypatch.setattr(packing, "FAN_IN", 2 + seed % 5)
    monkeypatch.setattr(simulation, "PATIENCE", Patience(max_attempts=12))
    monkeypatch.setattr(simulation, "DIES", 0.05)
    monkeypatch.setattr(simulation, "SILENT", 0.05)
    monkeypatch.setattr(simulation, "ZOMBIE", 0.05)
    phases, made = simulation.simulated(20 + seed % 11, 1 + seed % 9, seed, folder)
    assert phases[-1].lost == {}, seed
    assert made.rollup.tasks == 20 + seed % 11, seed


@pytest.mark.parametrize("seed", range(25))
def test_a_driver_that_is_stopped_and_continued_ends_with_one_manifest_a_task(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survives(seed, tmp_path, monkeypatch)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(25, 200))
def test_two_hundred_seeds_end_with_one_manifest_a_task(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survives(seed, tmp_path, monkeypatch)


def test_requests_and_memory_do_not_grow_faster_than_tasks(tmp_path: Path) -> None:
    requests = {}
    for count in (500, 1000):
        (tmp_path / str(count)).mkdir()
        phases, _ = simulation.simulated(count, 50, 1, tmp_path / str(count))
        requests[count] = [sum(phase.requests.values()) for phase in phases]
        assert sum(phase.requests.get("list", 0) for phase in phases) < 40
    for small, large in zip(requests[500], requests[1000], strict=True):
        assert large <= 2.2 * small
