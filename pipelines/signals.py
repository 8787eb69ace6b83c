"""Signals as columns: what was counted for every document, stored beside what became of it.

`signals/` has one row for each document of `text/`, in the same order. A count is uint32, a ratio a struct of its two
counts `n` and `d`, a score float32; a signal per line is a list of these. Null: not measured, as there was no text; or,
of what a `lines` step notices, as a rule before it dropped the document. A column is named after its signal, and
`SIGNAL@VIEW` where it was measured on an edited view of the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters import url
from filters.errors import RecipeError
from filters.rule import Family, Measured, Rule, Signal
from pipelines.datatrove_filter import Datatrove
from pipelines.dedup.lines import Lines
from pipelines.entry_points import installed_families
from pipelines.recipe import AnyStep, EditStep, OwnStep, Recipe, Rules, Step, Url, families, step_rules
from pipelines.schema import KEPT
from pipelines.words import word_packages

RAW = "raw"
"""The view that the extractor gives."""

TEXT = KEPT
"""`text/`: the raw text of every document that was not quarantined; `token_count` counts it, not what is published."""

# What every row says beside its signals. `characters` and `token_count` are those of the raw text; null without one.
PLACE_AND_OUTCOME = [
    ("key", pa.binary(16)),
    ("offset", pa.int64()),
    ("inner", pa.int64()),
    ("file_path", pa.string()),
    ("id", pa.string()),
    ("url", pa.string()),
    ("domain", pa.string()),
    ("language", pa.string()),
    ("language_score", pa.float64()),
    ("characters", pa.uint32()),
    ("token_count", pa.int64()),
    ("outcome", pa.string()),
    ("reason", pa.string()),
]
KINDS = {
    "count": pa.uint32(),
    "ratio": pa.struct([pa.field("n", pa.uint32()), pa.field("d", pa.uint32())]),
    "score": pa.float32(),
}


@dataclass(frozen=True, kw_only=True)
class SignalColumn:
    """A signal measured on one view of the text with one word splitter; `words` is empty where none was used."""

    signal: Signal
    view: str
    words: str

    @property
    def name(self) -> str:
        """The name of the column."""
        return column_name(self.signal.name, self.view)

    @property
    def field(self) -> pa.Field:
        """The Arrow field; its metadata say what the numbers mean."""
        kind = KINDS[self.signal.kind]
        said = {
            "revision": str(self.signal.revision),
            "view": self.view,
            "words": self.words,
            "kind": self.signal.kind,
            "per": self.signal.per,
            "says": self.signal.says,
        }
        return pa.field(self.name, pa.list_(kind) if self.signal.per == "line" else kind, metadata=said)


def column_name(signal: str, view: str) -> str:
    """The name of the column of a signal on a view."""
    return signal if view == RAW else f"{signal}@{view}"


def views(recipe: Recipe) -> Iterator[tuple[Step, str]]:
    """Each step with the view that it meets: `raw`, then what made it, joined by `+`."""
    view = RAW
    for step in recipe.steps:
        yield step, view
        if (made := view_made(step.value)) is not None:
            view = made if view == RAW else f"{view}+{made}"


def view_made(step: AnyStep) -> str | None:
    """The name of the view that a step makes; None where it leaves texts as they are."""
    if isinstance(step, EditStep):
        return step.name
    if isinstance(step, Lines):
        return step.method
    return step.signal.name if isinstance(step, Datatrove) and step.rewrites else None


def signal_columns(recipe: Recipe, *, all_signals: bool = False) -> tuple[SignalColumn, ...]:
    """The columns of a run, in the order of measurement. Raises RecipeError where two would have one name."""
    found: dict[str, SignalColumn] = {}
    for column in (*(column for columns in step_columns(recipe) for column in columns), *others(recipe, all_signals)):
        before = found.setdefault(column.name, column)
        if before != column:
            raise RecipeError(
                f"{recipe.name} measures {column.name} with the words of {before.words} and of {column.words}; it is "
                "stored once. Give both steps the same `words`."
            )
    return tuple(found.values())


def step_columns(recipe: Recipe) -> Iterator[tuple[SignalColumn, ...]]:
    """The columns that each step measures or reads, step by step."""
    noticed: dict[str, SignalColumn] = {}
    for step, view in views(recipe):
        value = step.value
        if isinstance(value, EditStep):
            columns = tuple(
                SignalColumn(signal=signal, view=view, words=value.edit.words or value.words)
                for signal in value.edit.notices
            )
            noticed |= {column.signal.name: column for column in columns}
            yield columns
        elif isinstance(value, Lines):
            yield tuple(SignalColumn(signal=signal, view=view, words=value.words or "") for signal in value.notices)
        elif isinstance(value, Rules):
            yield tuple(
                column for family in value.resolved_families for column in family_columns(family, value, view, noticed)
            )
        elif isinstance(value, Url):
            yield tuple(SignalColumn(signal=rule.signal, view=RAW, words="") for rule in url.RULES)
        elif isinstance(value, OwnStep):
            yield tuple(SignalColumn(signal=signal, view=view, words="") for signal in value.signals)
        else:
            yield tuple(SignalColumn(signal=rule.signal, view=RAW, words="") for rule in step_rules(value))


def family_columns(family: Family, step: Rules, view: str, noticed: dict[str, SignalColumn]) -> list[SignalColumn]:
    """The columns of a family in a step: those that an edit noticed where it noticed all, else those of this view."""
    if all(signal.name in noticed for signal in family.signals):
        return [noticed[signal.name] for signal in family.signals]
    words = family.words or step.words
    return [SignalColumn(signal=signal, view=view, words=words) for signal in family.signals]


def others(recipe: Recipe, all_signals: bool) -> list[SignalColumn]:
    """The columns of the families that the recipe does not name, on the raw text."""
    return [
        SignalColumn(signal=signal, view=RAW, words=family.words or recipe.words)
        for family in (unnamed(recipe) if all_signals else ())
        for signal in family.signals
    ]


def unnamed(recipe: Recipe) -> tuple[Family, ...]:
    """The families that stand in no step of the recipe."""
    named = {name for step in recipe.steps if isinstance(step.value, Rules) for name in step.value.families}
    return tuple(family for family in families() if family.name not in named)


def signals_identity(recipe: Recipe, *, all_signals: bool) -> list[list[str]]:
    """What the stored numbers depend on beside the recipe's own identity: columns, revisions, splitters, releases."""
    columns = signal_columns(recipe, all_signals=all_signals)
    packages = {name for column in columns for name in word_packages(column.words)} | {"tldextract"}
    if all_signals:
        packages |= {one.distribution for one in installed_families()}
    said = [
        [column.name, str(signal.revision), signal.kind, signal.per, column.view, column.words]
        for column in columns
        for signal in [column.signal]
    ]
    return [*said, *([name, version(name)] for name in sorted(packages))]


def rule_columns(recipe: Recipe) -> tuple[tuple[Rule, str], ...]:
    """Every rule of the recipe in its order, with the name of the column that it bounds."""
    return tuple(
        (rule, next(column.name for column in columns if column.signal.name == rule.signal.name))
        for step, columns in zip(recipe.steps, step_columns(recipe), strict=True)
        for rule in step_rules(step.value)
    )


def signals_schema(recipe: Recipe, *, all_signals: bool = False) -> pa.Schema:
    """The schema of `signals/`."""
    columns = signal_columns(recipe, all_signals=all_signals)
    fixed = [pa.field(*column) for column in PLACE_AND_OUTCOME]
    return pa.schema([*fixed, *(column.field for column in columns)])


def stored_values(found: tuple[npt.NDArray[np.int64], Measured] | None, count: int, kind: pa.DataType) -> pa.Array:
    """What was measured on some of `count` documents, as an Arrow array of all; null for the others."""
    if found is None:
        return pa.nulls(count, kind)
    rows, measured = found
    if measured.score is not None:
        flat = pa.array(measured.score)
    elif measured.denominator is None:
        flat = pa.array(measured.numerator)
    else:
        flat = pa.StructArray.from_arrays([pa.array(measured.numerator), pa.array(measured.denominator)], ["n", "d"])
    if measured.offsets is not None:
        flat = pa.ListArray.from_arrays(pa.array(measured.offsets, pa.int32()), flat)
    where = np.full(count, -1, np.int64)
    where[rows] = np.arange(len(rows))
    return flat.take(pa.array(where, mask=where < 0)).cast(kind)


def values_of(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.float64]:
    """The value of a stored signal for each row, in float64 as a rule bounds it; NaN where it is undefined or null."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_struct(array.type):
        there = array.is_valid().to_numpy(zero_copy_only=False)
        parts = [array.field(side).fill_null(0).to_numpy(zero_copy_only=False) for side in ("n", "d")]
        return Measured(numerator=parts[0], denominator=np.where(there, parts[1], 0).astype(np.uint32)).value
    values: npt.NDArray[np.float64] = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values
