"""A run with a dedup step, killed at any failpoint: the same command again ends with the same dataset.

On a disk, on S3, on Ray; and with a `lines` step, whose window begins anew with its file.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from infra.failpoints import NAMES
from tests.chaos.oracle import assert_whole, run, stored

RECIPE = """\
name: chaos
says: Everything that finds copies, over a small crawl.
steps:
  - extract: {engine: resiliparse}
  - dedup: {url: {}, text: {}, minhash: {threshold: 0.7}}
"""
LINES = """\
name: chaos-lines
says: Paragraphs once a file, then everything that finds copies.
steps:
  - extract: {engine: resiliparse}
  - lines: {method: dolma_paragraphs, expected: 100000}
  - dedup: {text: {}, minhash: {threshold: 0.7}}
"""
# Reached in the middle of the dedup stages: 12 process tasks come before them, and packing after. The 24th attempt is
# that of the survivors.
WITHIN = {"attempt.begun": 17, "attempt.written": 17, "attempt.stored": 17, "create.before": 19, "create.after": 19}
WITHIN |= {"run.rollup": 2, "publish.half": 2}
EVERY = [(name, at) for name in NAMES for at in sorted({1, WITHIN.get(name, 1)})] + [("attempt.written", 24)]
FEW = [("attempt.stored", 17)]
IN_WORKERS = ("attempt.begun", "attempt.written", "attempt.stored", "create.before", "create.after")


def command(crawl: Path, out: str, recipe: Path, *options: str, runner: str = "inprocess") -> list[str]:
    settings = ["--runner", runner, "--task-size", "8000", "--quiet", "--json", *options]
    return [sys.executable, "-m", "infra.cli", "run", str(recipe), "-i", str(crawl), "--out", out, *settings]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory, RECIPE)


@pytest.fixture(scope="module")
def lines_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory, LINES)


def written(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "chaos.yaml"
    path.write_text(text)
    return path


def undisturbed(crawl: Path, recipe: Path, out: Path) -> str:
    """The dataset's hash of a run that nothing disturbed."""
    done = run(command(crawl, str(out), recipe))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert sum(said["duplicates"].values()) > 3
    return str(said["dataset_sha256"])


@pytest.fixture(scope="module")
def expected(small_crawl: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return undisturbed(small_crawl, recipe, tmp_path_factory.mktemp("dedup") / "out")


@pytest.fixture(scope="module")
def expected_of_lines(small_crawl: Path, lines_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return undisturbed(small_crawl, lines_recipe, tmp_path_factory.mktemp("lines") / "out")


def killed_and_run_again(crawl: Path, out: str, counts: Path, recipe: Path, name: str, at: int, expected: str) -> None:
    said = f"counts={counts};{name}=kill,at:{at}"
    first = run(command(crawl, out, recipe), said)
    assert first.returncode == -signal.SIGKILL, first.stderr
    before = {path for path in stored(out) if path.startswith("_work/manifests/") and path.endswith(".json")}
    again = run(command(crawl, out, recipe), said)
    assert again.returncode == 0, again.stderr
    assert_whole(out, expected, said)
    assert before <= stored(out).keys()


@pytest.mark.parametrize(("name", "at"), FEW)
def test_a_run_killed_while_it_looks_for_copies_is_ended_by_the_same_command(
    small_crawl: Path, tmp_path: Path, recipe: Path, expected: str, name: str, at: int
) -> None:
    killed_and_run_again(small_crawl, str(tmp_path / "out"), tmp_path, recipe, name, at, expected)


@pytest.mark.full
@pytest.mark.parametrize(("name", "at"), EVERY)
def test_a_run_with_dedup_killed_at_any_failpoint_is_ended_by_the_same_command(
    small_crawl: Path, tmp_path: Path, out: str, recipe: Path, expected: str, name: str, at: int
) -> None:
    killed_and_run_again(small_crawl, out, tmp_path, recipe, name, at, expected)


@pytest.mark.full
@pytest.mark.parametrize(("name", "at"), [("attempt.written", 2), ("create.after", 2), ("attempt.stored", 8)])
def test_a_run_with_a_lines_step_that_was_killed_is_ended_by_the_same_command(
    small_crawl: Path, tmp_path: Path, out: str, lines_recipe: Path, expected_of_lines: str, name: str, at: int
) -> None:
    killed_and_run_again(small_crawl, out, tmp_path, lines_recipe, name, at, expected_of_lines)


@pytest.mark.full
@pytest.mark.ray
def test_workers_of_ray_killed_while_they_look_for_copies_are_replaced(
    small_crawl: Path, tmp_path: Path, out: str, recipe: Path, expected: str
) -> None:
    # Stages are of one task here: kills lie apart, for the fourth of one task would end the run.
    said = f"counts={tmp_path};" + ";".join(f"{name}=kill,at:{15 + 3 * at}" for at, name in enumerate(IN_WORKERS))
    done = run(command(small_crawl, out, recipe, "--workers", "2", runner="ray"), said)
    assert done.returncode == 0, f"{said}\n{done.stderr}"
    assert [(tmp_path / f"{name}.fired").stat().st_size for name in IN_WORKERS] == [1] * len(IN_WORKERS)
    assert_whole(out, expected, said)
