"""The last stage: rows of all tasks, in the order (file, offset, inner), cut into parts of about equal numbers of rows.

Where a part begins depends on the number of kept rows and their size in all, never on how the work was cut into tasks.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.schema import ORDER, read_table, write_parquet
from pipelines.storage import StoredFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Rows of one task in order: its files (a retry adds one), their hashes, how many rows they have together, and the
    text in them. `removed` names rows of them that are left out: (file, row).
    """

    files: tuple[StoredFile, ...]
    content: str
    rows: int
    characters: int = 0
    removed: StoredFile | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rows [first, last) of the runs one after the other."""

    index: int
    first: int
    last: int


def parts(rows: int, characters: int, *, target_bytes: int) -> list[Part]:
    """Cut rows into parts of equal numbers of rows, so many that one has about `target_bytes` characters of text."""
    count = max(1, min(rows, -(-characters // target_bytes)))
    bounds = [rows * index // count for index in range(count + 1)]
    return [Part(index=index, first=bounds[index], last=bounds[index + 1]) for index in range(count)]


def part_runs(parts: Iterable[Part], runs: Iterable[Run]) -> Iterator[tuple[Part, tuple[Run, ...], int]]:
    """Yield each part with the runs that hold rows of it, and how many rows of the first of them come before it.

    Parts and runs are in order, and are gone through once. Holds the runs of one part.
    """
    coming = iter(runs)
    held: deque[Run] = deque()
    first = end = 0  # held rows are [first, end)
    for part in parts:
        while held and first + held[0].rows <= part.first:
            first += held.popleft().rows
        while end < part.last:
            held.append(run := next(coming))
            end += run.rows
        yield part, tuple(held), part.first - first


def write_part(path: Path, runs: Iterable[Run], *, skip: int, rows: int, schema: pa.Schema) -> int:
    """Write `rows` rows of the runs after the first `skip` to `path` and return how many were written."""
    return write_parquet(path, _selected(runs, skip, rows, schema), schema)


def _selected(runs: Iterable[Run], skip: int, rows: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for run in runs:
        for batch in run_batches(run, [*schema.names, *(name for name in ORDER if name not in schema.names)]):
            taken = batch.slice(skip, rows)
            skip = max(0, skip - batch.num_rows)
            rows -= taken.num_rows
            if taken.num_rows:
                yield taken.select(schema.names).cast(schema)
            if rows == 0:
                return


def run_batches(run: Run, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a run in order. One row group at a time where it is one file; several files are merged in memory."""
    files = [file_batches(run, index, columns) for index in range(len(run.files))]
    if len(files) == 1:
        yield from files[0]
        return
    table = pa.Table.from_batches(chain.from_iterable(files))
    yield from table.sort_by([(name, "ascending") for name in ORDER]).to_batches()


def file_batches(run: Run, index: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of one file of a run, without those that were removed."""
    gone = np.zeros(0, np.int64)
    if run.removed is not None:
        named = read_table(run.removed, columns=["file", "row"])
        gone = np.sort(named.filter(pc.field("file") == index).column("row").to_numpy().astype(np.int64))
    first = 0
    with run.files[index].open() as raw, pq.ParquetFile(raw) as file:
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            here = gone[slice(*np.searchsorted(gone, [first, first + batch.num_rows]))] - first
            first += batch.num_rows
            if len(here):
                batch = batch.take(pa.array(np.delete(np.arange(batch.num_rows), here)))
            yield batch


def smallest(runs: Sequence[Run], *, column: str, limit: int) -> list[tuple[int, int]]:
    """Of the rows of all runs, the `limit` of smallest key for each value of `column`: (run index, row in the run).

    Reads two columns; holds `limit` entries for each value.
    """
    heaps: dict[str, list[tuple[int, int, int]]] = {}
    for index, run in enumerate(runs):
        row = 0
        for batch in run_batches(run, [column, "key", *ORDER]):
            for value, key in zip(batch.column(column).to_pylist(), batch.column("key").to_pylist(), strict=True):
                heap = heaps.setdefault(value, [])
                entry = (-int.from_bytes(key, "big"), index, row)
                if len(heap) < limit:
                    heapq.heappush(heap, entry)
                elif entry > heap[0]:
                    heapq.heapreplace(heap, entry)
                row += 1
    return sorted((index, row) for heap in heaps.values() for _, index, row in heap)


def write_rows(path: Path, runs: Sequence[Run], chosen: Sequence[tuple[int, int]], schema: pa.Schema) -> int:
    """Write the chosen (run index, row) pairs, in order, and return how many there are."""
    wanted: dict[int, list[int]] = {}
    for index, row in chosen:
        wanted.setdefault(index, []).append(row)

    def batches() -> Iterator[pa.RecordBatch]:
        for index, rows in sorted(wanted.items()):
            table = pa.Table.from_batches(run_batches(runs[index], list(dict.fromkeys([*schema.names, *ORDER]))))
            yield from table.take(sorted(rows)).select(schema.names).cast(schema).to_batches()

    return write_parquet(path, batches(), schema)


def dataset_sha256(files: Iterable[tuple[str, str]]) -> str:
    """The dataset's hash: sha256 over its sorted `name sha256` lines."""
    return hashlib.sha256("".join(f"{name} {sha256}\n" for name, sha256 in sorted(files)).encode()).hexdigest()
