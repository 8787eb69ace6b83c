"""The same run on local Ray: one dataset hash for 1, 2 and 4 workers, and with workers killed under it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from infra.commands import run_recipe
from infra.run import read_run
from infra.store import open_store
from infra.verify import verify
from pipelines.recipe import load_recipe

pytestmark = pytest.mark.ray


def full(value: int) -> object:
    """A value for `make test-full` alone."""
    return pytest.param(value, marks=pytest.mark.full)


def command(small_crawl: Path, out: Path, workers: int) -> list[str]:
    options = [
        "--out",
        str(out),
        "--runner",
        "ray",
        "--workers",
        str(workers),
        "--task-size",
        "8000",
        "--quiet",
        "--json",
    ]
    return [sys.executable, "-m", "infra.cli", "run", "fineweb-resiliparse", "-i", str(small_crawl), *options]


@pytest.fixture(scope="module")
def undisturbed(small_crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the dataset that one process makes, and nothing goes wrong."""
    recipe, out = load_recipe("fineweb-resiliparse"), tmp_path_factory.mktemp("whole")
    return run_recipe(recipe, [str(small_crawl)], out, runner="inprocess", quiet=True, task_bytes=8_000).dataset_sha256


@pytest.mark.parametrize("workers", [full(1), 2, full(4)])
def test_the_hash_is_that_of_one_process_for_any_number_of_workers(
    small_crawl: Path, tmp_path: Path, undisturbed: str, workers: int
) -> None:
    done = subprocess.run(command(small_crawl, tmp_path / "out", workers), capture_output=True, check=True)
    assert json.loads(done.stdout)["dataset_sha256"] == undisturbed
    assert verify(read_run(open_store(tmp_path / "out"))) > 0


def workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    found = []
    for one in below:
        try:
            if one.cmdline()[:1] == ["ray::perform_remotely"]:
                found.append(one)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def killed_under_it(small_crawl: Path, folder: Path, undisturbed: str, seed: int) -> None:
    """Kill one working worker at a random moment; the run must end by itself with the undisturbed bytes."""
    rng = random.Random(seed)
    started = subprocess.Popen(command(small_crawl, folder / "out", 2), stdout=subprocess.PIPE)
    killed = 0
    deadline = time.monotonic() + 120
    while started.poll() is None and not killed and time.monotonic() < deadline:
        if working := workers_of(started):
            time.sleep(rng.uniform(0.0, 1.5))
            working = workers_of(started) or working
            try:
                os.kill(rng.choice(working).pid, signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                continue
        time.sleep(0.02)
    output, _ = started.communicate(timeout=120)
    assert killed == 1
    assert started.returncode == 0
    assert json.loads(output)["dataset_sha256"] == undisturbed
    assert verify(read_run(open_store(folder / "out"))) > 0


@pytest.mark.full
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_run_whose_worker_is_killed_ends_with_the_same_bytes(
    small_crawl: Path, tmp_path: Path, undisturbed: str, seed: int
) -> None:
    killed_under_it(small_crawl, tmp_path, undisturbed, seed)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(4, 24))
def test_twenty_runs_whose_workers_are_killed_end_with_the_same_bytes(
    small_crawl: Path, tmp_path: Path, undisturbed: str, seed: int
) -> None:
    killed_under_it(small_crawl, tmp_path, undisturbed, seed)


def leftovers(marker: str) -> list[str]:
    """Command lines of processes that a run left behind: they name its Ray folder, or are its workers."""
    found = []
    for one in psutil.process_iter():
        try:
            if marker in one.environ().get("GRISTMILL_TEST", ""):
                found.append(" ".join(one.cmdline())[:100])
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


@pytest.mark.full
def test_a_driver_that_is_killed_leaves_no_process_and_its_run_is_continued(
    small_crawl: Path, tmp_path: Path, undisturbed: str
) -> None:
    marker = str(tmp_path)
    started = subprocess.Popen(
        command(small_crawl, tmp_path / "out", 2),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"GRISTMILL_TEST": marker},
    )
    deadline = time.monotonic() + 120
    while not workers_of(started) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    started.kill()
    started.wait()
    while leftovers(marker) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert leftovers(marker) == []
    done = subprocess.run(command(small_crawl, tmp_path / "out", 2), capture_output=True, check=True)
    assert json.loads(done.stdout)["dataset_sha256"] == undisturbed
    assert verify(read_run(open_store(tmp_path / "out"))) > 0


@pytest.mark.full
def test_the_folder_of_a_driver_that_was_killed_is_removed_by_the_next(small_crawl: Path, tmp_path: Path) -> None:
    before = set(Path("/tmp").glob("gm-ray-*"))
    started = subprocess.Popen(command(small_crawl, tmp_path / "out", 1), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not workers_of(started) and time.monotonic() < deadline:
        time.sleep(0.05)
    started.kill()
    started.wait()
    left = set(Path("/tmp").glob("gm-ray-*")) - before
    assert left
    subprocess.run(command(small_crawl, tmp_path / "out", 1), capture_output=True, check=True)
    assert not [folder for folder in left if folder.exists()]


@pytest.mark.full
def test_ray_starts_with_a_token_in_a_process_that_had_imported_it_before() -> None:
    code = "import ray; from infra.ray_runner import OnRay; OnRay(1).__enter__().__exit__(None, None, None)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", code], check=False, env=environment, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
