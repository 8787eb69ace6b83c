"""Ranges of hashes and ranges of documents, read from the sorted files of many tasks.

Documents are numbered as they follow one another: unit by unit, row by row. A *unit* is what one task, or a retry of
it, has kept. The first `before` documents are those of earlier runs: they are preferred to all others, and none falls.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.storage import StoredFile

Documents = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]

PAIRS = pa.schema([("first", pa.int64()), ("second", pa.int64())])
"""Two documents of one bucket; the first is preferred."""
COPIES = pa.schema([("document", pa.int64()), ("representative", pa.int64())])
"""A document that falls, and the one that stands for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What one task, retry or run has kept: the number of its first document, how many there are, files by name."""

    first: int
    rows: int
    files: Mapping[str, StoredFile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Values [low, high], both among them."""

    low: int
    high: int


HASHES = 1 << 64


def equal_ranges(values: int, count: int) -> list[Range]:
    """`count` ranges of one width that cover the values below `values`."""
    bounds = [index * values // count for index in range(count + 1)]
    return [Range(low=low, high=high - 1) for low, high in pairwise(bounds)]


def ranges_between(sample: npt.NDArray[np.uint64], count: int) -> list[Range]:
    """At most `count` ranges of hashes with as many of a sorted sample each, one at least; a hash lies in one range."""
    places = np.arange(1, count) * len(sample) // count
    lows = [0, *(one for one in np.unique(sample[places]).tolist() if one)] if len(sample) else [0]
    return [Range(low=low, high=high - 1) for low, high in pairwise([*lows, HASHES])]


def ranges_overlapping(ranges: Sequence[Range], within: Range) -> slice:
    """Which of these ranges, ascending, without a gap, have a value within another."""
    return slice(
        bisect_left(ranges, within.low, key=attrgetter("high")),
        bisect_right(ranges, within.high, key=attrgetter("low")),
    )


def blocks_within(file: StoredFile, column: str, within: Range, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of a file whose `column` lies within the range, these columns of them: a table for each row group whose
    statistics meet the range, and one at least.
    """
    asked = list(dict.fromkeys([column, *columns]))
    with file.open() as raw, pq.ParquetFile(raw) as parquet:
        yield parquet.schema_arrow.empty_table().select(list(columns))
        place = parquet.schema_arrow.get_field_index(column)
        for index in range(parquet.num_row_groups):
            found = parquet.metadata.row_group(index).column(place).statistics
            if found is None or not found.has_min_max or (found.min <= within.high and found.max >= within.low):
                table = parquet.read_row_group(index, columns=asked, use_threads=False)
                yield table.filter(inside(table.column(column), within)).select(list(columns))


def inside(values: pa.ChunkedArray, within: Range) -> pa.ChunkedArray:
    """Which of these values lie within a range."""
    low, high = (pa.scalar(one, values.type) for one in (within.low, within.high))
    return pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))


def rows_within(file: StoredFile, column: str, within: Range, columns: Sequence[str]) -> pa.Table:
    """The rows of a file whose `column` lies within the range, these columns of them."""
    return pa.concat_tables(blocks_within(file, column, within, columns))


def bits_of(documents: Iterable[Documents], count: int) -> Bits:
    """A bit for each of `count` documents, set for these: an eighth of a byte each."""
    bits = np.zeros(-(-count // 8), np.uint8)
    for some in documents:
        np.bitwise_or.at(bits, some >> 3, np.left_shift(np.uint8(1), (some & 7).astype(np.uint8)))
    return bits


def is_set(bits: Bits, documents: Documents) -> npt.NDArray[np.bool_]:
    """Which of these documents have their bit set."""
    found: npt.NDArray[np.bool_] = (bits[documents >> 3] >> (documents & 7).astype(np.uint8)) & 1 == 1
    return found


def ranked_order(order: npt.NDArray[np.uint64], documents: Documents, before: int) -> npt.NDArray[np.uint64]:
    """The order with that of documents after the first `before` raised above all of those."""
    return order | (documents >= before).astype(np.uint64) << np.uint64(62)


def add_bits(bits: Bits, more: Bits, first: int) -> None:
    """Set the bits of `more`, whose document 0 is document `first`."""
    begin, shift = first >> 3, np.uint8(first & 7)
    bits[begin : begin + len(more)] |= more << shift
    if shift:
        over = (more >> (np.uint8(8) - shift))[: len(bits) - begin - 1]
        bits[begin + 1 : begin + 1 + len(over)] |= over


def standing(table: pa.Table, first: int, removed: Bits) -> pa.Table:
    """The rows of a unit's table whose document has no bit set, `row` become `document`."""
    documents = table.column("row").to_numpy().astype(np.int64) + first
    table = table.drop_columns("row").append_column("document", pa.array(documents))
    return table.filter(pa.array(~is_set(removed, documents)))


KEYS = {"bands": "hash"}
"""By what a file of hashes is sorted; the others by `high`."""


def index_rows(units: Iterable[Unit], name: str, within: Range, schema: pa.Schema) -> pa.Table:
    """The rows of a hash range of all these units, sorted by hash: `row` counts from document 0."""
    by, place = KEYS.get(name, "high"), schema.get_field_index("row")
    tables = [schema.set(place, pa.field("row", pa.int64())).empty_table()]
    for unit in units:
        table = rows_within(unit.files[name], by, within, schema.names)
        row = table.column("row").to_numpy().astype(np.int64) + unit.first
        tables.append(table.set_column(place, "row", pa.array(row)))
    return pa.concat_tables(tables).sort_by(by)


def hashed_rows(units: Iterable[Unit], name: str, within: Range, removed: Bits, columns: Sequence[str]) -> pa.Table:
    """The rows of a hash range without those of documents whose bit is set, unit after unit."""
    by = KEYS.get(name, "high")
    return pa.concat_tables(
        standing(rows_within(unit.files[name], by, within, [*columns, "row"]), unit.first, removed) for unit in units
    )


def copies_of(table: pa.Table, before: int) -> pa.Table:
    """Of the documents of these rows (document, high, low, order, id), those that have the 128-bit hash of a preferred
    one, which stands for them.

    Rows of COPIES, sorted by document. Preferred are those of earlier runs, then the smaller order, then the smaller
    id, then the earlier place.
    """
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    found = (
        frame.lazy()
        .filter(pl.len().over("high", "low") > 1)
        .with_columns(later=pl.col("document") >= before)
        .sort("high", "low", "later", "order", "id", "document")
        .with_columns(representative=pl.col("document").first().over("high", "low"))
        .filter(pl.col("document") != pl.col("representative"), "later")
        .select("document", "representative")
        .sort("document")
        .collect()
    )
    return found.to_arrow().cast(COPIES)
