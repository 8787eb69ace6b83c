"""A node says in words how it differs from the driver, and says so before anything of a task is loaded."""

from __future__ import annotations

import ast
import json
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from filters.errors import PreflightFailed
from infra import node
from infra.node import (
    Check,
    Environment,
    Probe,
    Reports,
    beating,
    check_node,
    code_sha256,
    differences,
    environment,
    expected_environment,
    faults,
    perform_remotely,
    ship_code,
)
from infra.preflight import report, resources_of
from pipelines.recipe import load_recipe
from pipelines.sources import find_sources

SAME = Environment(python="3.11", packages={"trafilatura": "2.3.1", "s3fs": None}, code="c0de")


def check_of(folder: Path) -> Check:
    (folder / "probe").write_bytes(b"seen")
    return Check(
        environment=expected_environment(), probe=Probe(url=str(folder), name="probe", data=b"seen"), resources={}
    )


def test_like_environments_do_not_differ() -> None:
    assert differences(SAME, SAME) == ()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (replace(SAME, python="3.12"), "Python is 3.12, the driver has 3.11"),
        (replace(SAME, packages={"trafilatura": None}), "trafilatura is absent, the driver has 2.3.1"),
        (replace(SAME, packages={"trafilatura": "2.0"}), "trafilatura is 2.0, the driver has 2.3.1"),
        (replace(SAME, packages={**SAME.packages, "s3fs": "1"}), "s3fs is 1, the driver has none"),
        (replace(SAME, code="other"), "gristmill's own code is not the driver's"),
    ],
)
def test_each_difference_names_both_sides(found: Environment, said: str) -> None:
    assert differences(SAME, found) == (said,)


def test_a_distribution_that_is_absent_has_no_version() -> None:
    found = environment(["pyarrow", "no-such-distribution"])
    assert found.packages["no-such-distribution"] is None
    assert found.packages["pyarrow"] is not None


def test_what_gristmill_requires_is_expected_and_extras_are_not() -> None:
    packages = expected_environment().packages
    assert {"ray", "trafilatura", "pyarrow", "lxml-html-clean"} <= packages.keys()
    assert all(packages.values())
    assert not {"gristmill", "pytest", "nltk"} & packages.keys()


def test_shipped_code_carries_what_its_nodes_must_be_like(tmp_path: Path) -> None:
    ship_code(tmp_path)
    said = json.loads((tmp_path / "environment.json").read_bytes())
    assert said["code"] == code_sha256(tmp_path)
    assert said["packages"] == expected_environment().packages
    assert (tmp_path / "pipelines" / "recipes").is_dir()
    assert not list(tmp_path.rglob("__pycache__"))
    asked = "import infra.node as node; print(node.expected_environment().code == node.code_sha256(node.ROOT))"
    done = subprocess.run([sys.executable, "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_the_hash_of_the_code_follows_every_byte_and_name(tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra" / "one.py").write_text("1")
    first = code_sha256(tmp_path)
    (tmp_path / "infra" / "one.py").write_text("2")
    second = code_sha256(tmp_path)
    (tmp_path / "infra" / "one.py").rename(tmp_path / "infra" / "two.py")
    assert len({first, second, code_sha256(tmp_path)}) == 3


def test_the_module_imports_the_standard_library_and_the_errors_alone() -> None:
    for module in (node.__file__, str(Path(node.__file__).with_name("job_main.py"))):
        tree = ast.parse(Path(module).read_text())
        top = [one for one in tree.body if isinstance(one, ast.Import | ast.ImportFrom)]
        names = {one.module or "" if isinstance(one, ast.ImportFrom) else one.names[0].name for one in top}
        ours = {"filters.errors", "infra.node", "infra.ending"}
        assert {name for name in names if name.split(".")[0] not in sys.stdlib_module_names} <= ours


def test_a_machine_that_has_everything_has_no_faults(small_crawl: Path, tmp_path: Path) -> None:
    sources = pickle.dumps(tuple(find_sources([str(small_crawl)])))
    resources = resources_of(load_recipe("fineweb"))
    assert "lid.176.ftz" in resources
    assert faults(replace(check_of(tmp_path), sources=sources, resources=resources)) == ()


def test_a_folder_that_is_another_one_here_is_seen(tmp_path: Path) -> None:
    check = check_of(tmp_path)
    (tmp_path / "probe").write_bytes(b"another")
    (fault,) = faults(check)
    assert "every node mounts" in fault
    (tmp_path / "probe").unlink()
    assert faults(check) == (fault,)


def test_an_input_that_is_not_here_and_a_model_that_is_another_are_named(small_crawl: Path, tmp_path: Path) -> None:
    (source, *_) = find_sources([str(small_crawl)])
    gone = replace(source, url=f"file://{tmp_path}/gone.warc.gz")
    changed = replace(source, version="another")
    model = tmp_path / "model.bin"
    model.write_bytes(b"model")
    check = replace(check_of(tmp_path), sources=pickle.dumps((gone, changed)), resources={str(model): "0" * 64})
    said = "\n".join(faults(check))
    assert "gone.warc.gz cannot be read" in said
    assert "not the file that the driver sees" in said
    assert "model.bin is another file" in said


class Sent:
    """The handle of an actor whose messages arrive at once."""

    def __init__(self) -> None:
        self.actor = Reports()
        self.put = self

    def remote(self, attempt: int, report: bytes, node: str) -> None:
        self.actor.put(attempt, report, node)


def refused() -> None:
    raise AssertionError("the task was loaded")


class Unloadable:
    def __reduce__(self) -> tuple[object, tuple[()]]:
        return refused, ()


def test_a_task_is_not_loaded_where_the_environment_differs(tmp_path: Path) -> None:
    check = check_of(tmp_path)
    other = replace(check.environment, packages={**check.environment.packages, "trafilatura": "0.0"})
    with pytest.raises(PreflightFailed, match=r"trafilatura is 2\S+, the driver has 0\.0\..*container image"):
        perform_remotely(1, 60.0, replace(check, environment=other), pickle.dumps(Unloadable()), Sent())


def test_a_node_is_looked_at_once_in_a_process(tmp_path: Path) -> None:
    check = check_of(tmp_path)
    check = replace(check, probe=replace(check.probe, name="probe-once"))
    (tmp_path / "probe-once").write_bytes(b"seen")
    check_node(check)
    (tmp_path / "probe-once").unlink()
    check_node(check)


def test_a_heartbeat_comes_at_once_and_then_in_time_and_ends_with_the_block() -> None:
    beats: list[float] = []
    with beating(lambda: beats.append(time.monotonic()), 0.05):
        while len(beats) < 4:
            time.sleep(0.01)
    count = len(beats)
    time.sleep(0.15)
    assert len(beats) == count
    assert "heartbeat" not in {one.name for one in threading.enumerate()}


def test_reports_are_taken_once_and_the_last_of_an_attempt_counts() -> None:
    reports = Reports()
    reports.put(1, b"first")
    reports.put(1, b"second", "of a node")
    reports.put(2, b"other")
    assert reports.take() == {1: (b"second", "of a node"), 2: (b"other", "")}
    assert reports.take() == {}


def test_the_report_names_every_node_what_is_wrong_there_and_the_three_ways_out() -> None:
    said = report({"10.0.0.2 (b)": ["trafilatura is absent, the driver has 2.3.1"], "10.0.0.1 (a)": []})
    assert said.startswith("1 of 2 nodes cannot do this run")
    assert "node 10.0.0.2 (b): trafilatura is absent, the driver has 2.3.1" in said
    for way in ("container image", "wheelhouse", "runtime_env pip"):
        assert way in said
