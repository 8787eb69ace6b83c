"""Ranges of hashes and ranges of documents, read from the sorted files of many tasks.

Documents are numbered as they follow one another: unit by unit, row by row. A *unit* is what one task, or a retry of
it, has kept. The first `before` documents are those of earlier runs: they are preferred to all others, and none falls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

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
    """What one task or retry has kept: the number of its first document, how many there are, their files by name."""

    first: int
    rows: int
    files: Mapping[str, StoredFile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Values [low, high], both among them."""

    low: int
    high: int


def hash_range(index: int, count: int) -> Range:
    """The range number `index` of `count` that cover all 64-bit hashes."""
    return Range(low=(index << 64) // count, high=((index + 1 << 64) // count) - 1)


def document_range(index: int, count: int, documents: int) -> Range:
    """The range number `index` of `count` that cover so many documents."""
    return Range(low=index * documents // count, high=(index + 1) * documents // count - 1)


def rows_within(file: StoredFile, column: str, within: Range, columns: Sequence[str]) -> pa.Table:
    """The rows of a file sorted by `column` whose value lies within the range, these columns of them.

    Reads the row groups whose statistics meet the range.
    """
    with file.open() as raw, pq.ParquetFile(raw) as parquet:
        place = parquet.schema_arrow.get_field_index(column)
        groups = [
            index
            for index in range(parquet.num_row_groups)
            if (found := parquet.metadata.row_group(index).column(place).statistics) is None
            or not found.has_min_max
            or (found.min <= within.high and found.max >= within.low)
        ]
        table = parquet.read_row_groups(groups, columns=list(dict.fromkeys([column, *columns])), use_threads=False)
    values = table.column(column).combine_chunks()
    kind = values.type
    inside = pc.and_(
        pc.greater_equal(values, pa.scalar(within.low, kind)), pc.less_equal(values, pa.scalar(within.high, kind))
    )
    return table.filter(inside).select(list(columns))


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


def standing(table: pa.Table, first: int, removed: Bits) -> pa.Table:
    """The rows of a unit's table whose document has no bit set, `row` become `document`."""
    documents = table.column("row").to_numpy().astype(np.int64) + first
    table = table.drop_columns("row").append_column("document", pa.array(documents))
    return table.filter(pa.array(~is_set(removed, documents)))


def hashed_rows(
    units: Iterable[Unit], name: str, within: Range, removed: Bits, columns: Sequence[str]
) -> Iterator[pa.Table]:
    """The rows of a hash range, unit by unit, without those of documents whose bit is set."""
    by = "hash" if name == "bands" else "high"
    for unit in units:
        yield standing(rows_within(unit.files[name], by, within, [*columns, "row"]), unit.first, removed)


def copies_within(units: Iterable[Unit], name: str, within: Range, removed: Bits, before: int) -> pa.Table:
    """Of the documents of a hash range, those that have the 128-bit hash of a preferred one, which stands for them.

    Rows of COPIES, sorted by document. Preferred are those of earlier runs, then the smaller order, then the smaller
    id, then the earlier place.
    """
    columns = ["high", "low", "order", "id"]
    tables = list(hashed_rows(units, name, within, removed, columns))
    if not tables:
        return COPIES.empty_table()
    frame = pl.from_arrow(pa.concat_tables(tables))
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
