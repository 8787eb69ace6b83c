"""What a disturbed run is held against: the same crawl, run once without a fault by one process on a local disk."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from infra.failpoints import VARIABLE
from infra.run import read_run
from infra.store import open_store
from infra.verify import verify

RECIPE = "fineweb-resiliparse"
TASK_BYTES = 8_000
"""Cuts the small crawl into 12 tasks, so that most of it is done when something fails."""


def command(crawl: Path, out: str, *options: str, runner: str = "inprocess") -> list[str]:
    """The command that a person types, and types again."""
    settings = ["--runner", runner, "--task-size", str(TASK_BYTES), "--quiet", "--json"]
    return [sys.executable, "-m", "infra.cli", "run", RECIPE, "-i", str(crawl), "--out", out, *settings, *options]


def run(arguments: list[str], failpoints: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command with these failpoints and this environment."""
    more = environment | ({VARIABLE: failpoints} if failpoints else {})
    return subprocess.run(arguments, env=os.environ | more, capture_output=True, text=True, timeout=200)


def assert_whole(out: str, expected: str, said: str = "") -> None:
    """Fail unless `out` holds a finished run with nothing lost, doubled or made otherwise; `said` is told then."""
    store = open_store(out)
    made = read_run(store)
    assert made.dataset_sha256 == expected, said
    assert verify(made) > 0, said
    assert [one.name for one in store.listed("_work/conflicts")] == [], said


def stored(out: str) -> Mapping[str, int]:
    """Bytes of everything in `out`, by name: what is really there, and not what the product lists."""
    if "://" not in out:
        return {str(path.relative_to(out)): path.stat().st_size for path in Path(out).rglob("*") if path.is_file()}
    return {one.name: one.bytes for one in open_store(out).listed("")}


def named(out: str) -> set[str]:
    """Everything that `out` should keep: records, and files that a record names. Read from the JSON, not by `gc`."""
    store = open_store(out)
    records = {name for name in stored(out) if re.fullmatch(r"_work/(manifests|rollups|conflicts|jobs)/.*", name)}
    records = {name for name in records if not name.rsplit("/", 1)[1].startswith(".")}
    names = set(records)
    for name in records:
        if name.startswith("_work/manifests/"):
            names |= {file["path"] for file in json.loads(store.read(name))["files"].values()}
    if "run.json" in stored(out):
        said = json.loads(store.read("run.json"))
        names |= {"run.json", *(file["path"] for files in said["files"].values() for file in files)}
    return names
