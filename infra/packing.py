"""From the outcomes of tasks to the tasks that pack their rows: parts of the dataset, samples of what was dropped.

Outcomes are gone through as often as needed and never held: a plan over 10^6 tasks holds the runs of one part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import pyarrow as pa

from infra.commit import FileEntry
from infra.rollup import TaskOutcome
from infra.stored import Store
from infra.work import PackTask, file_of
from pipelines.accounts import Accounts, total
from pipelines.pack import Part, Run, part_runs
from pipelines.schema import DROPPED

# What a dropped or quarantined document counts for where parts are cut: about one page of text.
OTHER_ROW_BYTES = 4096
# A sample is drawn from so many files at a time, and then from the samples.
FAN_IN = 1000


def packed_files(outcome: TaskOutcome, kind: str) -> tuple[FileEntry, ...]:
    """The files of a task whose rows are packed as this kind."""
    files: dict[str, tuple[FileEntry, ...]] = {
        "dataset": outcome.kept,
        "dropped": outcome.dropped,
        "quarantined": (outcome.quarantined,),
        "losses": (outcome.losses,),
        "text": outcome.text,
        "signals": outcome.signals,
    }
    return files[kind] if kind in files else (outcome.removal[kind],)


def weight(outcome: TaskOutcome, kind: str) -> tuple[int, int]:
    """Rows of one kind that a task made, and for how many characters they count where parts are cut."""
    rows = sum(entry.rows for entry in packed_files(outcome, kind))
    if kind == "dataset":
        removed = outcome.removal["duplicates"].rows if outcome.removal else 0
        return rows - removed, outcome.accounts.characters
    # Both are cut alike: part k of one has the rows of part k of the other.
    return rows, outcome.accounts.raw_characters if kind in ("text", "signals") else rows * OTHER_ROW_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The account of all tasks, and for each kind the rows and the characters that they count for."""

    accounts: Accounts
    weights: Mapping[str, tuple[int, int]]


def totals(outcomes: Iterable[TaskOutcome], kinds: Iterable[str]) -> Totals:
    """Go through the outcomes once."""
    weights = {kind: (0, 0) for kind in kinds}

    def each() -> Iterator[Accounts]:
        for one in outcomes:
            for kind, (rows, characters) in weights.items():
                more = weight(one, kind)
                weights[kind] = rows + more[0], characters + more[1]
            yield one.accounts

    return Totals(accounts=total(each()), weights=weights)


def runs_of(store: Store, kind: str, outcomes: Iterable[TaskOutcome]) -> Iterator[Run]:
    """The runs of one kind that have rows, in order."""
    for one in outcomes:
        rows, characters = weight(one, kind)
        if rows:
            found = packed_files(one, kind)
            gone = one.removal["duplicates"] if kind == "dataset" and one.removal else None
            filled = [entry for entry in found if entry.rows or gone]  # removed rows are named by file
            yield Run(
                files=tuple(file_of(store, entry) for entry in filled),
                content="+".join(entry.sha256 for entry in (*filled, *([gone] if gone else []))),
                rows=rows,
                characters=characters,
                removed=None if gone is None or not gone.rows else file_of(store, gone),
            )


def part_tasks(
    store: Store, kind: str, schema: pa.Schema, cut: Iterable[Part], runs: Iterable[Run]
) -> Iterator[PackTask]:
    """The tasks that write these parts, in order."""
    for part, needed, skip in part_runs(cut, runs):
        yield PackTask(
            store=store,
            kind=kind,
            schema=schema,
            index=part.index,
            runs=needed,
            skip=skip,
            rows=part.last - part.first,
            limit=None,
        )


def sample_tasks(store: Store, runs: Iterable[Run], limit: int) -> Iterator[PackTask]:
    """Tasks that each draw the `limit` dropped rows of smallest key for each rule from `FAN_IN` runs; one if there are
    none.
    """
    task = PackTask(store=store, kind="dropped", schema=DROPPED, index=0, runs=(), skip=0, rows=-1, limit=limit)
    index = -1
    for index, some in enumerate(groups(runs, FAN_IN)):
        yield replace(task, index=index, runs=some)
    if index < 0:
        yield task


def groups(runs: Iterable[Run], size: int) -> Iterator[tuple[Run, ...]]:
    """The runs, `size` at a time."""
    coming = iter(runs)
    while some := tuple(islice(coming, size)):
        yield some


def sampled_run(store: Store, entry: FileEntry) -> Run:
    """A sample as a run of the next round."""
    return Run(files=(file_of(store, entry),), content=entry.sha256, rows=entry.rows)
