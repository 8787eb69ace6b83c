"""A wheel carries the four packages, the recipes, and the model files with their licences."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pipelines.recipe import recipe_names
from pipelines.resources import RESOURCES

ROOT = Path(__file__).parent.parent


@pytest.mark.full
def test_a_wheel_holds_code_recipes_and_resources(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("gristmill-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"pipelines/recipes/{name}.yaml" for name in recipe_names()} <= names
    assert {f"pipelines/resources/{name}" for name in (*RESOURCES, "NOTICE.txt")} <= names
    assert {f"{package}/py.typed" for package in ("filters", "pipelines", "proxy_eval", "infra")} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
