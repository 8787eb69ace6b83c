"""What the chaos tests share: the hash of the undisturbed run, and a place to write on a disk or in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.commands import run_recipe
from pipelines.recipe import load_recipe
from tests.chaos.oracle import RECIPE, TASK_BYTES


@pytest.fixture(scope="session")
def expected(small_crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the dataset that one process makes of the small crawl when nothing goes wrong."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    recipe = load_recipe(RECIPE)
    made = run_recipe(recipe, [str(small_crawl)], out, runner="inprocess", quiet=True, task_bytes=TASK_BYTES)
    return made.dataset_sha256


@pytest.fixture(params=["disk", "s3"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where to write: a folder that does not exist yet, or a prefix of a new bucket."""
    return str(tmp_path / "out") if request.param == "disk" else f"{request.getfixturevalue('bucket')}/out"
