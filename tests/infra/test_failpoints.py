"""Failpoints: off by default, each where its name says, each failure as the environment asks."""

from __future__ import annotations

import ast
import errno
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from filters.errors import InputError, OutputError
from infra.commands import run_recipe
from infra.failpoints import NAMES, VARIABLE, appended, armed_by, failpoint
from pipelines.recipe import load_recipe

ROOT = Path(__file__).parent.parent.parent


def test_nothing_fails_where_nothing_is_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    for name in NAMES:
        failpoint(name)


def test_every_name_is_a_place_in_the_product_and_every_place_has_a_name() -> None:
    places = set()
    for path in (ROOT / "infra").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "failpoint":
                assert isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno}"
                places.add(node.args[0].value)
    assert places == set(NAMES)


def test_a_place_raises_the_error_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "attempt.begun=raise:ENOSPC")
    failpoint("attempt.stored")
    with pytest.raises(OSError, match="No space left") as raised:
        failpoint("attempt.begun")
    assert raised.value.errno == errno.ENOSPC


IN_STORES = ("attempt.begun", "create.before", "create.after", "publish.half")


@pytest.mark.parametrize(
    ("kind", "name"), [*(("memory", name) for name in NAMES), *(("disk", name) for name in IN_STORES)]
)
def test_an_error_at_any_place_is_an_error_of_the_store(
    write_warc: Callable[[str, list[bytes]], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    name: str,
) -> None:
    crawl = str(write_warc("one.warc.gz", [b"<html><body><p>Too short to keep."]))
    out = str(tmp_path / "out") if kind == "disk" else f"memory://{uuid.uuid4().hex}/out"
    monkeypatch.setenv(VARIABLE, f"counts={tmp_path};{name}=raise:EIO,at:1")
    with pytest.raises(OutputError, match="same command continues"):
        run_recipe(load_recipe("fineweb-resiliparse"), [crawl], out, runner="inprocess", quiet=True)


def test_a_place_kills_its_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from infra.failpoints import failpoint; failpoint('run.ended'); print('alive')"],
        env=os.environ | {VARIABLE: "run.ended=kill"},
        cwd=ROOT,
        capture_output=True,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


def test_a_place_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "create.before=sleep:0.2")
    started = time.monotonic()
    failpoint("create.before")
    assert time.monotonic() - started >= 0.2


def struck(name: str, times: int) -> list[int]:
    """Which of so many times the place failed."""
    found = []
    for number in range(1, times + 1):
        try:
            failpoint(name)
        except OSError:
            found.append(number)
    return found


def test_a_place_fails_the_time_that_is_asked_for_and_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, f"counts={tmp_path};create.after=raise:EIO,at:3")
    assert struck("create.after", 10) == [3]
    assert (tmp_path / "create.after").stat().st_size == 10
    assert (tmp_path / "create.after.fired").stat().st_size == 1


def test_what_fails_by_chance_depends_on_the_seed_and_the_name_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def times(seed: int, folder: str, name: str = "create.after") -> list[int]:
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(VARIABLE, f"seed={seed};counts={tmp_path / folder};{name}=raise:EIO,p:0.3")
        return struck(name, 200)

    first = times(1, "a")
    assert 30 < len(first) < 90
    assert times(1, "b") == first
    assert times(2, "c") != first
    assert times(1, "d", "create.before") != first


def test_counts_go_on_in_the_next_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = f"counts={tmp_path};attempt.begun=kill,at:2"
    code = "from infra.failpoints import failpoint; failpoint('attempt.begun')"
    ends = [
        subprocess.run([sys.executable, "-c", code], env=os.environ | {VARIABLE: said}, cwd=ROOT).returncode
        for _ in range(3)
    ]
    assert ends == [0, -signal.SIGKILL, 0]


def test_no_two_processes_get_the_same_count(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4) as pool:
        counts = list(pool.map(appended, [tmp_path / "count"] * 400, chunksize=10))
    assert sorted(counts) == list(range(1, 401))


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("attempt.begn=kill", "attempt.begn"),
        ("attempt.begun=explode", "explode"),
        ("attempt.begun", "no failure"),
        ("attempt.begun=raise:ENOTHING", "ENOTHING"),
        ("attempt.begun=sleep:long", "long"),
        ("attempt.begun=kill,often", "often"),
        ("attempt.begun=kill,at:x", "at:x"),
        ("seed=x", "seed=x"),
    ],
)
def test_what_makes_no_sense_is_named(said: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        armed_by(said)
