"""Clocks that are wrong, and jump: no decision rests on one, and `gc` removes nothing that is in use."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path

import pytest

from infra.store import open_store
from infra.verify import collect
from tests.chaos.oracle import assert_whole, command, named, run, stored

DAY = 86_400
# A process that Python starts with this on its path has a wall clock that jumps by up to a day with every look at it.
# What only goes forward (time.monotonic) never jumps in reality, and does not here.
JUMPING = f"""
import os, random, time
_random = random.Random(int(os.environ["CLOCK_SEED"]) + os.getpid())
_time, _time_ns = time.time, time.time_ns
def _jump():
    with open(os.environ["CLOCK_LOOKS"], "a") as looks:
        looks.write(".")
    return _random.randint(-{DAY}, {DAY})
time.time = lambda: _time() + _jump()
time.time_ns = lambda: _time_ns() + _jump() * 10**9
"""


def jumping(folder: Path, seed: int) -> dict[str, str]:
    """The environment of a process whose clock jumps. It has no bytecode cache: its importers compare times."""
    (folder / "clock").mkdir(exist_ok=True)
    (folder / "clock" / "sitecustomize.py").write_text(JUMPING)
    path = os.pathsep.join([str(folder / "clock"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "CLOCK_SEED": str(seed), "CLOCK_LOOKS": str(folder / "looks")}


def gc(out: str, hours: float) -> list[str]:
    return [sys.executable, "-m", "infra.cli", "gc", out, "--older-than", str(hours), "--json"]


def jumped(crawl: Path, folder: Path, out: str, seed: int, expected: str) -> None:
    environment = jumping(folder, seed)
    killed = f"counts={folder};seed={seed};attempt.stored=kill,at:{1 + seed % 9}"
    (folder / "attempt.stored").unlink(missing_ok=True)
    run(command(crawl, out), killed, **environment)
    again = run(command(crawl, out), killed, **environment)
    assert again.returncode == 0, f"seed {seed}\n{again.stderr}"
    assert json.loads(again.stdout)["dataset_sha256"] == expected, f"seed {seed}"
    assert (folder / "looks").stat().st_size > 0, "nobody looked at the clock"
    cleaned = run(gc(out, 24), **environment)
    assert cleaned.returncode == 0, cleaned.stderr
    assert named(out) <= stored(out).keys(), f"seed {seed}"
    assert_whole(out, expected, f"seed {seed}")


@pytest.mark.full
def test_a_clock_that_jumps_changes_nothing(small_crawl: Path, tmp_path: Path, expected: str) -> None:
    for seed in range(5):
        jumped(small_crawl, tmp_path, str(tmp_path / f"out-{seed}"), seed, expected)


def test_files_of_machines_whose_clocks_are_a_day_off_are_kept_while_they_are_named(
    small_crawl: Path, tmp_path: Path, expected: str
) -> None:
    out = str(tmp_path / "out")
    assert run(command(small_crawl, out)).returncode == 0
    chance = random.Random(1)
    for name in stored(out):
        moved = time.time() + chance.choice([-DAY, DAY])
        os.utime(Path(out) / name, (moved, moved))
    collect(open_store(out), older_than=0.5 * DAY)
    assert named(out) <= stored(out).keys()
    assert_whole(out, expected)
