"""A run with a dedup step, killed at any failpoint: the same command again ends with the same dataset."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from infra.failpoints import NAMES
from tests.chaos.oracle import assert_whole, run

RECIPE = """\
name: chaos
says: Everything that finds copies, over a small crawl.
steps:
  - extract: {engine: resiliparse}
  - dedup: {url: {}, text: {}, minhash: {threshold: 0.7}}
"""
# Reached in the middle of the dedup stages: 12 process tasks come before them, and packing after.
WITHIN = {"attempt.begun": 17, "attempt.written": 17, "attempt.stored": 17, "create.before": 19, "create.after": 19}
WITHIN |= {"run.rollup": 2, "publish.half": 2}
EVERY = [(name, at) for name in NAMES for at in sorted({1, WITHIN.get(name, 1)})]
FEW = [("attempt.stored", 17)]


def command(crawl: Path, out: Path, recipe: Path) -> list[str]:
    settings = ["--runner", "inprocess", "--task-size", "8000", "--quiet", "--json"]
    return [sys.executable, "-m", "infra.cli", "run", str(recipe), "-i", str(crawl), "--out", str(out), *settings]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "chaos.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def expected(small_crawl: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The dataset's hash of a run that nothing disturbed."""
    done = run(command(small_crawl, tmp_path_factory.mktemp("dedup") / "out", recipe))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert sum(said["duplicates"].values()) > 10
    return str(said["dataset_sha256"])


def killed_and_run_again(crawl: Path, folder: Path, recipe: Path, name: str, at: int, expected: str) -> None:
    out = folder / "out"
    said = f"counts={folder};{name}=kill,at:{at}"
    first = run(command(crawl, out, recipe), said)
    assert first.returncode == -signal.SIGKILL, first.stderr
    before = set((out / "_work/manifests").rglob("*.json"))
    again = run(command(crawl, out, recipe), said)
    assert again.returncode == 0, again.stderr
    assert_whole(str(out), expected, said)
    assert before <= set((out / "_work/manifests").rglob("*.json"))


@pytest.mark.parametrize(("name", "at"), FEW)
def test_a_run_killed_while_it_looks_for_copies_is_ended_by_the_same_command(
    small_crawl: Path, tmp_path: Path, recipe: Path, expected: str, name: str, at: int
) -> None:
    killed_and_run_again(small_crawl, tmp_path, recipe, name, at, expected)


@pytest.mark.full
@pytest.mark.parametrize(("name", "at"), [one for one in EVERY if one not in FEW])
def test_a_run_with_dedup_killed_at_any_failpoint_is_ended_by_the_same_command(
    small_crawl: Path, tmp_path: Path, recipe: Path, expected: str, name: str, at: int
) -> None:
    killed_and_run_again(small_crawl, tmp_path, recipe, name, at, expected)
