"""A process killed at any moment: the same command again ends with the same dataset, and what was committed stays.

`full` kills at every failpoint, early and late, on a disk and on S3, and at moments drawn by chance.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.failpoints import NAMES
from tests.chaos.oracle import assert_whole, command, named, run, stored

# How often the places are reached in one run: `at` is in the middle of that.
LATER = {"attempt.begun": 7, "attempt.written": 7, "attempt.stored": 9, "create.before": 14, "create.after": 14}
LATER |= {"publish.half": 3}
EVERY = [(name, at) for name in NAMES for at in sorted({1, LATER.get(name, 1)})]
FEW = [("create.after", 14)]


def kills(folder: Path, name: str) -> int:
    """How often a failpoint struck."""
    path = folder / f"{name}.fired"
    return path.stat().st_size if path.exists() else 0


def killed_and_run_again(crawl: Path, out: str, counts: Path, name: str, at: int, expected: str) -> None:
    said = f"counts={counts};{name}=kill,at:{at}"
    first = run(command(crawl, out), said)
    assert (first.returncode, kills(counts, name)) == (-signal.SIGKILL, 1), first.stderr
    before = {path for path in stored(out) if path.startswith("_work/manifests/") and path.endswith(".json")}
    again = run(command(crawl, out), said)
    assert again.returncode == 0, f"{said}\n{again.stderr}"
    assert json.loads(again.stdout)["dataset_sha256"] == expected
    assert_whole(out, expected, said)
    assert before <= stored(out).keys()
    done_before = len([path for path in before if path.startswith("_work/manifests/process/")])
    assert json.loads(again.stdout)["tasks_done_now"] == 12 - done_before, said


@pytest.mark.parametrize("out", ["disk", pytest.param("s3", marks=pytest.mark.full)], indirect=True)
@pytest.mark.parametrize(("name", "at"), FEW)
def test_a_run_that_was_killed_is_ended_by_the_same_command(
    small_crawl: Path, tmp_path: Path, out: str, expected: str, name: str, at: int
) -> None:
    killed_and_run_again(small_crawl, out, tmp_path, name, at, expected)


@pytest.mark.full
@pytest.mark.parametrize(("name", "at"), [one for one in EVERY if one not in FEW])
def test_a_run_killed_at_any_failpoint_is_ended_by_the_same_command(
    small_crawl: Path, tmp_path: Path, out: str, expected: str, name: str, at: int
) -> None:
    killed_and_run_again(small_crawl, out, tmp_path, name, at, expected)


def killed_until_it_ends(crawl: Path, out: str, counts: Path, seed: int, expected: str) -> int:
    """Run a command again and again with kills by chance at every failpoint; return how many kills it survived."""
    said = f"seed={seed};counts={counts};" + ";".join(f"{name}=kill,p:0.04" for name in NAMES)
    for _ in range(60):
        done = run(command(crawl, out), said)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, f"{said}\n{done.stderr}"
    assert json.loads(done.stdout)["dataset_sha256"] == expected, said
    assert_whole(out, expected, said)
    assert named(out) <= stored(out).keys(), said
    struck = sum(kills(counts, name) for name in NAMES)
    print(f"seed {seed}: {struck} kills")
    return struck


@pytest.mark.full
def test_kills_by_chance_change_nothing(small_crawl: Path, tmp_path: Path, out: str, expected: str) -> None:
    struck = 0
    for seed in range(5):
        (tmp_path / f"counts-{seed}").mkdir()
        struck += killed_until_it_ends(small_crawl, f"{out}-{seed}", tmp_path / f"counts-{seed}", seed, expected)
    assert struck >= 10


# Where a worker of Ray may die, and where only the process that the command started.
IN_WORKERS = ("attempt.begun", "attempt.written", "attempt.stored", "create.before", "create.after")
IN_DRIVER = ("run.rollup", "publish.half", "publish.shown")


@pytest.mark.full
@pytest.mark.ray
def test_workers_killed_at_every_place_are_replaced_while_the_run_goes_on(
    small_crawl: Path, tmp_path: Path, out: str, expected: str
) -> None:
    said = f"counts={tmp_path};" + ";".join(f"{name}=kill,at:5" for name in IN_WORKERS)
    done = run(command(small_crawl, out, "--workers", "2", runner="ray"), said)
    assert done.returncode == 0, f"{said}\n{done.stderr}"
    assert [kills(tmp_path, name) for name in IN_WORKERS] == [1] * len(IN_WORKERS)
    assert json.loads(done.stdout)["dataset_sha256"] == expected
    assert_whole(out, expected)


@pytest.fixture
def ray_folders_removed() -> Iterator[None]:
    """Remove folders that a killed driver leaves: those of Ray that are new, and that no process has in its command."""
    before = set(Path("/tmp").glob("gm-ray-*"))
    yield
    in_use = " ".join(word for one in psutil.process_iter(["cmdline"]) for word in one.info["cmdline"] or [])
    for folder in set(Path("/tmp").glob("gm-ray-*")) - before:
        if str(folder) not in in_use:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.usefixtures("ray_folders_removed")
@pytest.mark.parametrize("name", IN_DRIVER)
def test_a_driver_of_ray_that_was_killed_is_followed_by_another(
    small_crawl: Path, tmp_path: Path, expected: str, name: str
) -> None:
    arguments = command(small_crawl, str(tmp_path / "out"), "--workers", "2", runner="ray")
    first = run(arguments, f"counts={tmp_path};{name}=kill,at:1")
    assert (first.returncode, kills(tmp_path, name)) == (-signal.SIGKILL, 1), first.stderr
    again = run(arguments, f"counts={tmp_path};{name}=kill,at:1")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["tasks_done_now"] == 0
    assert_whole(str(tmp_path / "out"), expected)
