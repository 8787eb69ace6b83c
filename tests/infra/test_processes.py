"""A function over many items gives the same in several processes, which end when they are no longer wanted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from filters.errors import TaskFailed
from infra.processes import AHEAD, THREADS, processes

END_SECONDS = 60.0
WORKING = """
import time
from infra.processes import processes
with processes(2) as each_of:
    for _ in each_of(time.sleep, [0, 0, 600, 600, 600]):
        print("begun", flush=True)
"""


def slept(seconds: float) -> tuple[float, int, str | None]:
    time.sleep(seconds)
    return seconds, os.getpid(), os.environ.get(THREADS)


def killed(seconds: float) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_results_come_in_the_order_of_the_items_from_processes_of_one_thread() -> None:
    items = [0.5, 0.0, 0.1, 0.0, 0.2]
    with processes(2) as each_of:
        found = list(each_of(slept, items))
    assert [seconds for seconds, _, _ in found] == items
    assert os.getpid() not in {process for _, process, _ in found}
    assert {threads for _, _, threads in found} == {os.environ.get(THREADS, "1")}


def test_one_process_is_this_one() -> None:
    with processes(1) as each_of:
        ((_, process, threads),) = each_of(slept, [0.0])
    assert process == os.getpid()
    assert threads == os.environ.get(THREADS)


def test_no_more_items_are_begun_than_results_are_held_and_an_error_comes_at_its_place() -> None:
    begun: list[str] = []

    def items() -> Iterator[str]:
        for text in ["1", "2", "none", *map(str, range(100))]:
            begun.append(text)
            yield text

    with processes(2) as each_of:
        found = each_of(int, items())
        assert next(found) == 1
        assert len(begun) <= 2 * AHEAD + 1
        assert next(found) == 2
        with pytest.raises(ValueError, match="none"):
            next(found)


def test_a_process_that_dies_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(TaskFailed, match="Fewer --workers"), processes(2) as each_of:
        list(each_of(killed, [0.0]))


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_processes_end_with_the_one_that_began_them_however_it_ends(how: signal.Signals) -> None:
    """As Ctrl-C does, SIGINT goes to all of them: what they say of it is nothing."""
    with subprocess.Popen(
        [sys.executable, "-c", WORKING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == run.stdout.readline() == "begun\n"
        children = psutil.Process(run.pid).children(recursive=True)
        assert len(children) >= 2
        (os.killpg if how == signal.SIGINT else os.kill)(run.pid, how)
        _, said = run.communicate(timeout=END_SECONDS)
    assert run.returncode == -how
    assert "spawn_main" not in said
    assert said.count("KeyboardInterrupt") == (how == signal.SIGINT)
    until = time.monotonic() + END_SECONDS
    while any(map(is_working, children)) and time.monotonic() < until:
        time.sleep(0.05)
    assert [child for child in children if is_working(child)] == []


def is_working(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
