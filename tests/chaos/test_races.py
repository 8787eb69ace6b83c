"""Six attempts of every task at the same moment, as zombies and speculation make them: one manifest, and all agree.

`full`: six processes that load the models at once take half a minute before they begin.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.commit import read_manifest
from infra.plan import make_plan
from infra.store import open_store
from infra.verify import collect
from infra.work import Task
from pipelines.process import TaskOptions
from pipelines.recipe import load_recipe
from tests.chaos.oracle import RECIPE, named, stored
from tests.chaos.racers import digest, raced

RACERS = 6


def one_page_tasks(
    write_warc: Callable[[str, list[bytes]], Path], page: Callable[..., str], out: str, count: int
) -> list[Task]:
    """A task for each of so many pages."""
    crawl = write_warc("race.warc.gz", [page(number, sentences=8).encode() for number in range(count)])
    options = TaskOptions(recipe=load_recipe(RECIPE), dump=None, dropped_samples=10)
    return list(make_plan([str(crawl)], open_store(out), options, task_bytes=1).tasks)


def race(tasks: list[Task], out: str) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(RACERS) as pool:
        barrier = manager.Barrier(RACERS)
        found = pool.starmap(raced, [(number, tasks, barrier) for number in range(RACERS)], chunksize=1)
    assert all(one == found[0] for one in found)
    store = open_store(out)
    names = stored(out).keys()
    manifests = {name for name in names if name.startswith("_work/manifests/process/")}
    assert {name.rsplit("/", 1)[1].removesuffix(".json") for name in manifests} == {task.id for task in tasks}
    assert {(task.id, digest(read_manifest(store, "process", task.id))) for task in tasks} == set(found[0])
    assert not [name for name in names if name.startswith("_work/conflicts/")]
    attempts = {name.split("/")[3] for name in names if name.startswith("_work/attempts/")}
    assert len(attempts) > len(tasks), "no two attempts of one task were made"
    collect(store, older_than=0)
    assert {name for name in stored(out) if not name.startswith("_work/lock")} == named(out)


@pytest.mark.full
def test_six_attempts_of_each_of_200_tasks_leave_one_manifest_each(
    out: str, write_warc: Callable[[str, list[bytes]], Path], make_page: Callable[..., str]
) -> None:
    tasks = one_page_tasks(write_warc, make_page, out, 200)
    assert len(tasks) == 200
    race(tasks, out)
