"""A stage whose tasks stand by themselves: those without a manifest are done, and all manifests come back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from infra.commit import Manifest, committed, read_manifests
from infra.runner import Runner
from infra.stored import Store
from infra.work import Report, Task

OnStage = Callable[[str, int, int], None]
"""Told a stage's name, its tasks, and how many of them were done before."""


def finish_stage(
    store: Store, stage: str, tasks: Iterable[Task], count: int, runner: Runner, *, report: Report, on_stage: OnStage
) -> dict[str, Manifest]:
    """Do the `count` tasks of a stage that have no manifest, and return the manifests of all by task."""
    before = committed(store, stage)
    found: list[str] = []

    def todo() -> Iterator[Task]:
        for task in tasks:
            if task.id in before:
                found.append(task.id)
            else:
                yield task

    on_stage(stage, count, 0)
    made = {}
    for manifest in runner.run(todo(), report):
        report(manifest.task, manifest.accounts, True)
        made[manifest.task] = manifest
    return made | {manifest.task: manifest for manifest in read_manifests(store, stage, found)}
