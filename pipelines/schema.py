"""The Arrow schemas of everything that is stored, and how Parquet is written: the same rows always give the same
bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.storage import StoredFile

# FineWeb's nine columns: https://huggingface.co/datasets/HuggingFaceFW/fineweb, "Data Fields".
DATASET = pa.schema(
    [
        ("text", pa.string()),
        ("id", pa.string()),
        ("dump", pa.string()),
        ("url", pa.string()),
        ("date", pa.string()),
        ("file_path", pa.string()),
        ("language", pa.string()),
        ("language_score", pa.float64()),
        ("token_count", pa.int64()),
    ]
)
# Where a document lies. (file_path, offset, inner) is its place in the order of the dataset; `key` names it for ever.
PLACE = [("key", pa.binary(16)), ("offset", pa.int64()), ("inner", pa.int64())]
KEPT = pa.schema([*DATASET, *(pa.field(*column) for column in PLACE)])
# One row for every document, whatever became of it. `reason` is null where it was kept; `value` is the signal of the
# rule that dropped it, as that rule saw it.
DOCUMENTS = pa.schema(
    [
        *(pa.field(*column) for column in PLACE),
        ("file_path", pa.string()),
        ("id", pa.string()),
        ("url", pa.string()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("value", pa.float64()),
    ]
)
DROPPED = pa.schema(
    [
        *(pa.field(*column) for column in PLACE),
        ("file_path", pa.string()),
        ("id", pa.string()),
        ("url", pa.string()),
        ("rule", pa.string()),
        ("value", pa.float64()),
        ("bounds", pa.string()),
        ("language", pa.string()),
        ("text", pa.string()),
    ]
)
QUARANTINED = pa.schema(
    [
        *(pa.field(*column) for column in PLACE),
        ("file_path", pa.string()),
        ("id", pa.string()),
        ("url", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("timing_dependent", pa.bool_()),
    ]
)
# Bytes that gave no document: damaged records, and ranges that lie in no record.
LOSSES = pa.schema(
    [
        ("file_path", pa.string()),
        ("offset", pa.int64()),
        ("inner", pa.int64()),
        ("length", pa.int64()),
        ("kind", pa.string()),
        ("reason", pa.string()),
    ]
)
# A copy: which kept document stands for it, in which earlier run that lies (null: in this), how similar they are
# (estimated Jaccard), how many that one stands for.
COPY = [
    *PLACE,
    ("file_path", pa.string()),
    ("id", pa.string()),
    ("url", pa.string()),
    ("method", pa.string()),
    ("representative_id", pa.string()),
    ("representative_run", pa.string()),
    ("similarity", pa.float64()),
    ("cluster_size", pa.int64()),
]
# As a task stores it: with the row in the file of kept rows that it is.
DUPLICATES = pa.schema([*(pa.field(*column) for column in COPY), ("file", pa.uint16()), ("row", pa.uint32())])
SHOWN_DUPLICATES = pa.schema([pa.field(*column) for column in COPY])
# A kept document that stands for others: how many, itself among them, and how often FineWeb-2 would repeat it.
CLUSTERS = pa.schema(
    [
        *(pa.field(*column) for column in PLACE),
        ("file_path", pa.string()),
        ("id", pa.string()),
        ("url", pa.string()),
        ("size", pa.int64()),
        ("weight", pa.int64()),
    ]
)
ORDER = ["file_path", "offset", "inner"]
GROUP_BYTES = 64 << 20
GROUP_ROWS = 10_000
LIST_ITEM_BYTES = 8  # of a signal per line: two counts, or less


def row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterable[pa.Table]:
    """Regroup rows: a group ends with the row that brings it to `GROUP_BYTES` of text or to `GROUP_ROWS` rows.

    A pure function of the sequence of rows, however they come in batches. Holds one group at a time.
    """
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        start = 0
        for at, length in enumerate(text_bytes(batch)):
            rows, size = rows + 1, size + length
            if rows >= GROUP_ROWS or size >= GROUP_BYTES:
                yield pa.Table.from_batches([*pending, batch.slice(start, at + 1 - start)], schema)
                pending, start, rows, size = [], at + 1, 0, 0
        if start < batch.num_rows:
            pending.append(batch.slice(start))
    if pending:
        yield pa.Table.from_batches(pending, schema)


def text_bytes(batch: pa.RecordBatch) -> list[int]:
    """Bytes of each row's text and lists, which are what a row may have much of; 0 where it has none."""
    sizes = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        if pa.types.is_list(column.type):
            sizes += LIST_ITEM_BYTES * pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    if "text" in batch.schema.names:
        sizes += pc.binary_length(batch.column("text")).fill_null(0).to_numpy(zero_copy_only=False)
    counted: list[int] = sizes.tolist()
    return counted


def write_parquet(path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write all rows to `path` (zstd level 3: 184 MB/s a core) and return how many there are."""
    rows = 0
    with pq.ParquetWriter(path, schema, **WRITER) as writer:
        for table in row_groups(batches, schema):
            writer.write_table(table, row_group_size=max(1, table.num_rows))
            rows += table.num_rows
    return rows


def read_table(file: StoredFile, *, columns: list[str] | None = None) -> pa.Table:
    """All rows of a Parquet file, of these columns.

    In this thread: one of Arrow's that lets go of a Python file while the interpreter ends aborts it (26.0.1).
    """
    with file.open() as raw:
        return pq.read_table(raw, columns=columns, partitioning=None, use_threads=False)


WRITER: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": ["dump", "file_path", "kind", "language", "outcome", "reason", "rule"],
    "write_statistics": True,
    "store_schema": True,
    "write_page_index": True,
}


def batch_of(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as a batch of this schema."""
    return pa.RecordBatch.from_pylist(rows, schema)
