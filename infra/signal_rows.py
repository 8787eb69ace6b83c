"""The rows of `signals/`, read again: what rules say of them, with the bounds of the run or with others.

What is counted over a part is a value that adds: parts are counted by several processes (infra/processes.py), and the
values added in the order of the parts are the same for any number of processes. A part goes row group by row group,
only the columns that are needed: memory is that of 10,000 documents. This module and those of what is counted
(infra/rule_removals.py, infra/side_changes.py, infra/distributions.py) import little: a process starts with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from filters.errors import VerifyFailed
from filters.rule import Bools, Floats, Rule
from infra.commit import FileEntry
from infra.stored import Store

Ruled = tuple[tuple[Rule, str], ...]
"""Rules in the order in which the first that fails is the reason, each with the column that it bounds."""
Ints = npt.NDArray[np.int64]

UNITS = ("documents", "characters", "tokens")
WEIGHTS = ("characters", "token_count")
"""The columns of the last two."""
NAMES = ("language", "outcome", "reason")
"""Columns of few values, which come as dictionaries."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of `signals/`; it pickles."""

    store: Store
    entry: FileEntry


def groups(part: Part, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The row groups of a part in order, of these columns; those of NAMES as dictionaries.

    Raises VerifyFailed where the part is not what was committed, as far as this reads it.
    """
    wanted = list(dict.fromkeys(columns))
    coded = [name for name in NAMES if name in wanted]
    with (
        readable(part),
        part.store.open(part.entry.path, part.entry.bytes) as raw,
        pq.ParquetFile(raw, read_dictionary=coded) as file,
    ):
        if (rows := file.metadata.num_rows) != part.entry.rows:
            raise pa.ArrowInvalid(f"it has {rows:,} rows and not {part.entry.rows:,}")
        if absent := set(wanted) - set(file.schema_arrow.names):
            raise pa.ArrowInvalid(f"it has no column {min(absent)}")
        for group in range(file.num_row_groups):
            # A column is found by its name or, where it is a struct, by its name before a dot: both ask for all.
            yield file.read_row_group(group, columns=wanted, use_threads=False).select(wanted)


@contextmanager
def readable(part: Part) -> Iterator[None]:
    """Turn what Arrow and the system say of a damaged or absent file into VerifyFailed naming it."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise VerifyFailed(
            f"{part.store.url}/{part.entry.path} cannot be read ({error}). `gristmill verify` says whether it is what "
            "was committed; the same run with --annotate makes it anew."
        ) from error


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdicts:
    """What rules say of some documents. Rows are rules, columns are documents.

    A document that has no text was measured by the rules before its text alone: it fails none of the others.
    """

    measured: Bools
    failed: Bools

    @cached_property
    def failures(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Every (rule, document) where the document fails the rule, by rule."""
        found = [np.flatnonzero(failed) for failed in self.failed]  # three times as fast as np.nonzero of all
        rules = np.repeat(np.arange(len(found)), np.array([len(documents) for documents in found], np.intp))
        return rules, np.concatenate(found) if found else rules

    @cached_property
    def failing(self) -> npt.NDArray[np.intp]:
        """How many rules each document fails."""
        return np.bincount(self.failures[1], minlength=self.failed.shape[1])

    @cached_property
    def whole(self) -> Bools:
        """True where every rule was measured."""
        found: Bools = np.logical_and.reduce(self.measured, axis=0)
        return found

    @cached_property
    def first(self) -> npt.NDArray[np.intp]:
        """The first rule that each document fails; -1 for none."""
        rules, documents = self.failures
        found = np.full(self.failed.shape[1], -1, np.intp)
        found[documents[::-1]] = rules[::-1]  # what is assigned last stays: the smallest
        return found

    @cached_property
    def alone(self) -> Bools:
        """True where just one rule is failed, and every rule was measured."""
        found: Bools = (self.failing == 1) & self.whole
        return found

    @cached_property
    def kept(self) -> Bools:
        """True where every rule was measured and passed."""
        found: Bools = (self.failing == 0) & self.whole
        return found

    def of(self, rules: Sequence[int]) -> Verdicts:
        """What these of the rules say, in this order."""
        return Verdicts(measured=self.measured[rules], failed=self.failed[rules])


def verdicts(table: pa.Table, ruled: Ruled) -> Verdicts:
    """Apply rules to the stored numbers, in float64 as the run did."""
    shape = (len(ruled), table.num_rows)
    found = Verdicts(measured=np.ones(shape, np.bool_), failed=np.empty(shape, np.bool_))
    for name in dict.fromkeys(name for _, name in ruled):  # a column at a time: its numbers stay in the cache
        column = one_array(table.column(name))
        values = numbers_in(column)
        measured = there(column) if column.null_count else None
        for row, (rule, bounded) in enumerate(ruled):
            if bounded == name:
                np.logical_not(rule.passes(values), out=found.failed[row])
                if measured is not None:
                    found.failed[row] &= measured
                    found.measured[row] = measured
    return found


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def there(column: pa.Array) -> Bools:
    """True where a column that has nulls has none."""
    bits = np.frombuffer(column.buffers()[0], np.uint8)
    found: Bools = np.unpackbits(bits, count=column.offset + len(column), bitorder="little").view(np.bool_)
    return found[column.offset :]


def numbers_in(column: pa.Array) -> Floats:
    """The value of a signal for each row, in float64 as a rule bounds it: NaN where it is undefined, anything where the
    column is null.
    """
    if not pa.types.is_struct(column.type):
        return plain(column).astype(np.float64)
    numerator, denominator = plain(column.field("n")), plain(column.field("d"))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = numerator / denominator
    np.copyto(found, np.nan, where=denominator == 0)
    return found


def values(column: pa.ChunkedArray) -> Floats:
    """The value of a signal for each row, as pipelines.signals.values_of has it: NaN where it is undefined or null."""
    array = one_array(column)
    found = numbers_in(array)
    return np.where(there(array), found, np.nan) if array.null_count else found


def plain(numbers: pa.Array) -> npt.NDArray[Any]:
    """The numbers of an array without a copy; where it is null, whatever lies there."""
    held = np.frombuffer(numbers.buffers()[1], numbers.type.to_pandas_dtype(), numbers.offset + len(numbers))
    return held[numbers.offset :]


def codes(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.intp], list[str | None]]:
    """A column of NAMES as the place of each document's in a list of names; None, last in it, where it is null."""
    coded = one_array(column.unify_dictionaries())
    names: list[str | None] = [*coded.dictionary.to_pylist(), None]
    return coded.indices.fill_null(len(names) - 1).to_numpy().astype(np.intp), names


def sizes(table: pa.Table) -> Ints:
    """Characters and tokens of each document, [WEIGHTS, document]; 0 where it has no text or no tokens are counted."""
    return np.stack([table.column(name).fill_null(0).to_numpy().astype(np.int64) for name in WEIGHTS])


def amounts(heavy: Ints, chosen: Bools) -> Ints:
    """How much the chosen documents are in each of UNITS."""
    return np.array([np.count_nonzero(chosen), *heavy[:, chosen].sum(axis=1)], np.int64)
