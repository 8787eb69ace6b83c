"""From the outcomes of tasks to the tasks that pack their rows: parts of the dataset, samples of what was dropped.

Outcomes are gone through as often as needed and never held: a plan over 10^6 tasks holds the runs of one part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from infra.commit import FileEntry
from infra.rollup import TaskOutcome
from infra.stored import Store
from infra.work import PackTask, file_of
from pipelines.pack import Part, Run, part_runs, parts

# What a dropped or quarantined document counts for where parts are cut: about one page of text.
OTHER_ROW_BYTES = 4096
# A sample is drawn from so many files at a time, and then from the samples.
FAN_IN = 1000


def packed_files(outcome: TaskOutcome, kind: str) -> tuple[FileEntry, ...]:
    """The files of a task whose rows are packed as this kind."""
    if kind == "dataset":
        return outcome.kept
    if kind == "dropped":
        return outcome.dropped
    return (outcome.quarantined,) if kind == "quarantined" else (outcome.losses,)


def runs_of(store: Store, kind: str, outcomes: Iterable[TaskOutcome]) -> Iterator[Run]:
    """The runs of one kind that have rows, in order."""
    for one in outcomes:
        filled = [entry for entry in packed_files(one, kind) if entry.rows]
        rows = sum(entry.rows for entry in filled)
        if rows:
            yield Run(
                files=tuple(file_of(store, entry) for entry in filled),
                content="+".join(entry.sha256 for entry in filled),
                rows=rows,
                characters=one.accounts.characters if kind == "dataset" else rows * OTHER_ROW_BYTES,
            )


def parts_of(runs: Iterable[Run], target_bytes: int) -> list[Part]:
    """The parts that these runs are cut into."""
    rows = characters = 0
    for run in runs:
        rows, characters = rows + run.rows, characters + run.characters
    return parts(rows, characters, target_bytes=target_bytes)


def part_tasks(store: Store, kind: str, cut: Iterable[Part], runs: Iterable[Run]) -> Iterator[PackTask]:
    """The tasks that write these parts, in order."""
    for part, needed, skip in part_runs(cut, runs):
        rows = part.last - part.first
        yield PackTask(store=store, kind=kind, index=part.index, runs=needed, skip=skip, rows=rows, limit=None)


def sample_tasks(store: Store, kind: str, runs: Iterable[Run], limit: int) -> Iterator[PackTask]:
    """Tasks that each draw the `limit` rows of smallest key for each rule from `FAN_IN` runs; one if there are none."""
    index = -1
    for index, some in enumerate(groups(runs, FAN_IN)):
        yield PackTask(store=store, kind=kind, index=index, runs=some, skip=0, rows=-1, limit=limit)
    if index < 0:
        yield PackTask(store=store, kind=kind, index=0, runs=(), skip=0, rows=-1, limit=limit)


def groups(runs: Iterable[Run], size: int) -> Iterator[tuple[Run, ...]]:
    """The runs, `size` at a time."""
    coming = iter(runs)
    while some := tuple(islice(coming, size)):
        yield some


def sampled_run(store: Store, entry: FileEntry) -> Run:
    """A sample as a run of the next round."""
    return Run(files=(file_of(store, entry),), content=entry.sha256, rows=entry.rows)
