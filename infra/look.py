"""What a finished run holds, for reading: the funnel, documents kept and dropped, why one document went where it
went.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.errors import InputError, NoSuchDocument
from filters.rule import Rule
from infra.commit import FileEntry, read_manifest
from infra.rollup import TaskOutcome
from infra.run import Finished
from infra.stored import Store
from infra.work import PROCESS, file_of
from pipelines.decide import Decider, Decisions
from pipelines.read import read_at
from pipelines.record import Page, Position, Slice, Source
from pipelines.schema import read_table
from pipelines.sources import current_version


@dataclass(frozen=True, kw_only=True)
class FunnelRow:
    """One line of the funnel: what left, for what reason, and what remains."""

    stage: str
    reason: str
    count: int
    left: int


def funnel_rows(made: Finished) -> list[FunnelRow]:
    """The funnel from records to kept documents, rules in the recipe's order, each with how many remain after it."""
    accounts = made.accounts
    rows = [FunnelRow(stage="records", reason="", count=accounts.records, left=accounts.records)]

    def leave(stage: str, counts: dict[str, int]) -> None:
        for reason, count in counts.items():
            if count:
                rows.append(FunnelRow(stage=stage, reason=reason, count=count, left=rows[-1].left - count))

    leave("skipped", dict(sorted(accounts.skipped.items())))
    leave("damaged", dict(sorted(accounts.damaged.items())))
    rows.append(FunnelRow(stage="documents", reason="", count=accounts.documents, left=rows[-1].left))
    leave("quarantined", dict(sorted(accounts.quarantined.items())))
    leave("dropped", {rule.name: accounts.dropped.get(rule.name, 0) for rule in made.recipe.rules})
    leave("duplicates", dict(sorted(accounts.duplicates.items())))
    rows.append(FunnelRow(stage="kept", reason="", count=accounts.kept, left=rows[-1].left))
    return rows


def rows_of(made: Finished, kind: str, *, rule: str | None = None) -> Iterator[dict[str, Any]]:
    """Rows of `dataset`, `dropped` or `quarantined`, in order; of one rule's drops where `rule` is given."""
    condition = None if rule is None else pc.field("rule") == rule
    for entry in made.files[kind]:
        with made.store.open(entry.path, entry.bytes) as raw, pq.ParquetFile(raw) as file:
            for batch in file.iter_batches(batch_size=64):
                yield from (batch if condition is None else batch.filter(condition)).to_pylist()


def parquet_rows(store: Store, entry: FileEntry) -> int:
    """How many rows a stored Parquet file says that it has."""
    with store.open(entry.path, entry.bytes) as raw:
        rows: int = pq.read_metadata(raw).num_rows
    return rows


def columns_of(store: Store, entry: FileEntry, columns: list[str]) -> pl.DataFrame:
    """These columns of a stored Parquet file."""
    found = pl.from_arrow(read_table(file_of(store, entry), columns=columns))
    assert isinstance(found, pl.DataFrame)
    return found


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One document: where it lies, what became of it, and every rule that it reached with its signal and verdict."""

    row: dict[str, Any]
    verdicts: tuple[tuple[Rule, float, bool], ...]
    text: str | None
    note: str


def explain(made: Finished, wanted: str) -> list[Explanation]:
    """Explain the documents whose id or URL is `wanted`. Reads their records again and measures them again.

    Raises NoSuchDocument where there is none.
    """
    found = []
    names = {wanted, f"<{wanted}>", f"<urn:uuid:{wanted}>"}
    for outcome in made.outcomes:
        table = read_table(file_of(made.store, outcome.documents))
        wanted_rows = table.filter(pc.field("id").isin(sorted(names)) | (pc.field("url") == wanted))
        found += [(outcome, row) for row in wanted_rows.to_pylist()]
    if not found:
        raise NoSuchDocument(
            f"no document of {made.store.url} has the id or URL {wanted!r}. Records that are no documents (requests, "
            "images) are only counted; ids are written like <urn:uuid:...>."
        )
    with Decider(made.recipe) as decider:
        return [explained(made, outcome, row, decider) for outcome, row in found]


def explained(made: Finished, outcome: TaskOutcome, row: dict[str, Any], decider: Decider) -> Explanation:
    """The explanation of one row of a task's documents."""
    source = sources_of(made.store, outcome.task).get(row["file_path"])
    row["key"] = row["key"].hex()
    note = ""
    if source is None:
        return Explanation(row=row, verdicts=(), text=None, note=f"no task names {row['file_path']}")
    try:
        changed = current_version(source) != source.version
    except InputError as error:
        return Explanation(row=row, verdicts=(), text=None, note=f"its source cannot be read again: {error}")
    if changed:
        return Explanation(row=row, verdicts=(), text=None, note=f"{source.path} has changed since the run")
    position = Position(offset=row["offset"], inner=row["inner"])
    event = read_at(source, position, made.recipe.read.options())
    if not isinstance(event, Page):
        return Explanation(row=row, verdicts=(), text=None, note=f"the record now reads as {type(event).__name__}")
    decided = decider.decide([event])
    if 0 in decided.refused:
        note = decided.refused[0].detail
    return Explanation(row=row, verdicts=verdicts(made, decided), text=decided.raw[0], note=note)


def verdicts(made: Finished, decided: Decisions) -> tuple[tuple[Rule, float, bool], ...]:
    """(rule, signal, passes) for each rule that the one document reached."""
    return tuple(
        (rule, float(decided.seen[rule.name][0]), bool(rule.passes(decided.seen[rule.name])[0]))
        for rule in made.recipe.rules
        if len(decided.seen.get(rule.name, ()))
    )


def sources_of(store: Store, task: str) -> dict[str, Source]:
    """The sources of a committed process task, by path."""
    return {one.source.path: one.source for one in slices_of(store, task)}


def slices_of(store: Store, task: str) -> tuple[Slice, ...]:
    """The slices of a committed process task."""
    return tuple(
        Slice(source=Source(**one["source"]), start=one["start"], end=one["end"])
        for one in read_manifest(store, PROCESS, task).says["slices"]
    )


def outcome_counts(store: Store, outcome: TaskOutcome) -> dict[tuple[str, str | None], int]:
    """Documents of a task by (outcome, reason), counted row by row from the stored ledger."""
    counted = columns_of(store, outcome.documents, ["outcome", "reason"]).group_by("outcome", "reason").len()
    return {(found, reason): count for found, reason, count in counted.iter_rows()}
