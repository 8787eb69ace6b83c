"""What a finished run holds, for reading: the funnel, documents kept and dropped, why one document went where it
went.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.batch import TextBatch
from filters.errors import InputError, NoSuchDocument
from filters.evidence import Span, evidence
from filters.rule import Rule
from filters.tokens import Lexicon
from infra.commit import FileEntry, read_manifest
from infra.rollup import TaskOutcome
from infra.run import Finished
from infra.stored import Store
from infra.work import PROCESS, file_of
from pipelines.decide import Decider
from pipelines.dedup.step import METHODS
from pipelines.read import read_at
from pipelines.recipe import EditStep, Recipe
from pipelines.record import Page, Position, Slice, Source
from pipelines.schema import read_table
from pipelines.signals import (
    PLACE_AND_OUTCOME,
    RAW,
    rule_columns,
    signal_columns,
    signals_schema,
    stored_values,
    values_of,
    views,
)
from pipelines.sources import current_version
from pipelines.words import words_by_name
from pipelines.yaml_data import nearest


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
    leave("duplicates", dict.fromkeys(METHODS, 0) | dict(sorted(accounts.duplicates.items())))
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
class Number:
    """A signal of one document as it is stored: a count, a score, {"n", "d"} of a ratio, a list of these where there is
    one for each line; None where it was not measured, as there was no text.
    """

    column: str
    view: str
    says: str
    stored: Any
    value: float | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What in the text of `view` made the number of a rule. `sums`: what the spans add up to (filters.evidence)."""

    rule: Rule
    view: str
    sums: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One document: where it lies, what became of it, every signal, and every rule with its number and verdict.

    verdicts: (rule, number, passes) of the rules that were measured, in the recipe's order; columns: the same rules
    with the names of their numbers. texts: by view, as far as they are known; `text` is the raw one. from_store: the
    numbers are those of signals/, else measured just now.
    """

    row: dict[str, Any]
    verdicts: tuple[tuple[Rule, float, bool], ...]
    columns: tuple[tuple[Rule, str], ...]
    numbers: tuple[Number, ...]
    texts: Mapping[str, str]
    evidence: tuple[Evidence, ...]
    from_store: bool
    note: str

    @property
    def text(self) -> str | None:
        """The raw text."""
        return self.texts.get(RAW)


def explain(made: Finished, wanted: str, *, rules: Sequence[str] = ()) -> list[Explanation]:
    """Explain the documents whose id or URL is `wanted`, with the evidence of `rules`, by default of those that fail.

    Numbers are those of signals/ where the run kept them. Records that can still be read are measured again: the note
    says where that gave other numbers, and why where it could not be done. Raises NoSuchDocument where there is none,
    and InputError where the recipe has no such rule.
    """
    names = [rule.name for rule in made.recipe.rules]
    for rule in rules:
        if rule not in names:
            raise InputError(f"--rule {rule}: the run has no such rule{nearest(rule, names)}")
    found = []
    spelled = {wanted, f"<{wanted}>", f"<urn:uuid:{wanted}>"}
    for outcome in made.outcomes:
        table = read_table(file_of(made.store, outcome.documents))
        wanted_rows = table.filter(pc.field("id").isin(sorted(spelled)) | (pc.field("url") == wanted))
        found += [(outcome, row) for row in wanted_rows.to_pylist()]
    if not found:
        raise NoSuchDocument(
            f"no document of {made.store.url} has the id or URL {wanted!r}. Records that are no documents (requests, "
            "images) are only counted; ids are written like <urn:uuid:...>."
        )
    with Decider(alone(made.recipe), annotate=True, all_signals=made.options.all_signals) as decider:
        return [explained(made, outcome, row, decider, rules) for outcome, row in found]


def explained(
    made: Finished, outcome: TaskOutcome, row: dict[str, Any], decider: Decider, rules: Sequence[str]
) -> Explanation:
    """The explanation of one row of a task's documents."""
    stored = row_of(made.store, outcome.signals, row["key"])
    again, text, note = measured_again(made, outcome, row, decider)
    if stored is not None:
        kept_text = row_of(made.store, outcome.text, row["key"], columns=["key", "text"])
        text = None if kept_text is None else kept_text.column("text")[0].as_py()
        note = compared_note(stored, again, note)
    if decider.recipe is not made.recipe:
        note = f"{note}; {IN_WINDOW}" if note else IN_WINDOW
    measured = again if stored is None else stored
    row |= copy_of(made.store, outcome, row["key"])
    row["key"] = row["key"].hex()
    judged = () if measured is None else verdicts(made.recipe, measured)
    texts = {} if text is None else view_texts(made.recipe, text)
    return Explanation(
        row=row,
        verdicts=tuple((rule, value, passes) for rule, _, value, passes in judged),
        columns=tuple((rule, column) for rule, column, _, _ in judged),
        numbers=() if measured is None else numbers(made.recipe, measured, made.options.all_signals),
        texts=texts,
        evidence=tuple(
            found
            for rule, column, _, passes in judged
            if (rule.name in rules if rules else not passes)
            and (found := evidence_of(made.recipe, rule, column, texts)) is not None
        ),
        from_store=stored is not None,
        note=note,
    )


def copy_of(store: Store, outcome: TaskOutcome, key: bytes) -> dict[str, Any]:
    """What a dedup step says of a document that it removed, in place of what the ledger says; nothing of any other."""
    entries = [outcome.removal["duplicates"]] if outcome.removal else []
    columns = ["method", "representative_id", "representative_run", "similarity"]
    found = row_of(store, entries, key, columns=columns)
    if found is None:
        return {}
    (said,) = found.to_pylist()
    return {"outcome": "duplicate", "reason": said.pop("method"), **said}


def row_of(
    store: Store, entries: Iterable[FileEntry], key: bytes, *, columns: list[str] | None = None
) -> pa.Table | None:
    """The row of this key in the files of a task, of these columns; None where there is none. Reads one row group."""
    for entry in entries:
        with store.open(entry.path, entry.bytes) as raw, pq.ParquetFile(raw) as file:
            for group in range(file.num_row_groups):
                at = pc.index(file.read_row_group(group, columns=["key"]).column("key"), pa.scalar(key, pa.binary(16)))
                if at.as_py() >= 0:
                    return file.read_row_group(group, columns=columns).slice(at.as_py(), 1)
    return None


IN_WINDOW = "what its step `lines` left depends on those before it in their file, and is not measured again"


def measured_again(
    made: Finished, outcome: TaskOutcome, row: dict[str, Any], decider: Decider
) -> tuple[pa.Table | None, str | None, str]:
    """Read the record of a document and measure it: the numbers, the raw text, and what is to be said of it."""
    source = sources_of(made.store, outcome.task).get(row["file_path"])
    if source is None:
        return None, None, f"no task names {row['file_path']}"
    try:
        changed = current_version(source) != source.version
    except InputError as error:
        return None, None, f"its source cannot be read again: {error}"
    if changed:
        return None, None, f"{source.path} has changed since the run"
    position = Position(offset=row["offset"], inner=row["inner"])
    event = read_at(source, position, made.recipe.read.options())
    if not isinstance(event, Page):
        return None, None, f"the record now reads as {type(event).__name__}"
    decided = decider.decide([event])
    fields = signal_fields(made.recipe, made.options.all_signals)
    if decider.recipe is not made.recipe:
        measured = {field.name for field in signal_fields(decider.recipe, made.options.all_signals)}
        fields = [field for field in fields if field.name in measured]
    arrays = [stored_values(decided.measured.get(field.name), 1, field.type) for field in fields]
    note = decided.refused[0].detail if 0 in decided.refused else ""
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields)), decided.raw[0], note


def alone(recipe: Recipe) -> Recipe:
    """The recipe as far as a document can be measured without those before it: up to its `lines` step."""
    at = next((at for at, step in enumerate(recipe.steps) if step.lines is not None), None)
    if at is None:
        return recipe
    said = recipe.model_dump(mode="json")
    return Recipe.model_validate(said | {"steps": said["steps"][:at]})


def signal_fields(recipe: Recipe, all_signals: bool) -> list[pa.Field]:
    """The columns of signals."""
    return list(signals_schema(recipe, all_signals=all_signals))[len(PLACE_AND_OUTCOME) :]


def compared_note(stored: pa.Table, again: pa.Table | None, note: str) -> str:
    """What is to be said of stored numbers, measured again or not."""
    if again is None:
        return f"not measured again: {note}"
    if note:
        return f"measured again, its record gives no text: {note}"
    common = [name for name in again.column_names if name in stored.column_names]
    # `repr` tells -0.0 from 0.0 and takes one NaN for another.
    other = [name for name in common if repr(stored.column(name)[0].as_py()) != repr(again.column(name)[0].as_py())]
    return f"measured again, these are other numbers than those stored: {', '.join(other)}" if other else ""


def numbers(recipe: Recipe, measured: pa.Table, all_signals: bool) -> tuple[Number, ...]:
    """Every signal of the one document."""
    return tuple(
        Number(
            column=column.name,
            view=column.view,
            says=column.signal.says,
            stored=measured.column(column.name)[0].as_py(),
            value=None if column.signal.per == "line" else finite(values_of(measured.column(column.name))[0]),
        )
        for column in signal_columns(recipe, all_signals=all_signals)
        if column.name in measured.column_names
    )


def finite(value: float) -> float | None:
    """The value; None for NaN."""
    return None if value != value else float(value)


def verdicts(recipe: Recipe, measured: pa.Table) -> list[tuple[Rule, str, float, bool]]:
    """(rule, column, signal, passes) for each rule that was measured on the one document."""
    return [
        (rule, name, float(value[0]), bool(rule.passes(value)[0]))
        for rule, name in rule_columns(recipe)
        if name in measured.column_names and measured.column(name)[0].is_valid
        for value in [values_of(measured.column(name))]
    ]


def view_texts(recipe: Recipe, raw: str) -> dict[str, str]:
    """The text of each view, the edits replayed; those after a step that only a run can replay are left out."""
    texts = {RAW: raw}
    lexicon = Lexicon()
    steps = list(views(recipe))
    for (step, view), after in zip(steps, [*(view for _, view in steps[1:]), ""], strict=True):
        if isinstance(step.value, EditStep) and after and view in texts:
            words = words_by_name(step.value.edit.words or step.value.words)
            batch = TextBatch([texts[view]], lexicon.vocabulary(words))
            texts[after] = step.value.edit.apply(batch).texts[0]
    return texts


def evidence_of(recipe: Recipe, rule: Rule, column: str, texts: Mapping[str, str]) -> Evidence | None:
    """What in the text made the rule's number; None where no text shows it."""
    measured = next(one for one in signal_columns(recipe) if one.name == column)
    if measured.view not in texts:
        return None
    found = evidence(rule, texts[measured.view], words_by_name(measured.words or recipe.words))
    if found is None:
        return None
    how, spans = found
    return Evidence(rule=rule, view=measured.view, sums=how.sums, spans=tuple(spans))


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
