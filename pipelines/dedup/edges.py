"""From buckets to verified edges, in two joins: a pair meets the sketch of its first document where that lies, and then
the sketch of its second. Nothing is looked up at random.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dedup.candidates import candidate_pairs, chained_pairs
from pipelines.dedup.ranges import PAIRS, Bits, Documents, Range, Unit, hashed_rows, ranked_order, rows_within
from pipelines.dedup.sketch import least_matches, matching
from pipelines.dedup.step import NearDuplicates
from pipelines.schema import read_table
from pipelines.storage import StoredFile

ATTACHED_COLUMNS = ["second", "first", "order", "sketch"]
EDGES = pa.schema(
    [
        ("first", pa.int64()),
        ("second", pa.int64()),
        ("matches", pa.uint16()),
        ("first_order", pa.uint64()),
        ("second_order", pa.uint64()),
    ]
)
"""Two documents whose sketches agree in `matches` places; sorted by (second, first)."""


def described(units: Iterable[Unit], documents: Documents, columns: Sequence[str]) -> pa.Table:
    """These columns of `signatures` for documents that are sorted and distinct, in their order. Holds one unit more."""
    tables = []
    for unit in units:
        begin, end = np.searchsorted(documents, [unit.first, unit.first + unit.rows])
        if begin < end:
            table = read_table(unit.files["signatures"], columns=list(columns))
            tables.append(table.take(pa.array(documents[begin:end] - unit.first)))
    return pa.concat_tables(tables) if tables else pa.table({name: [] for name in columns})


def within_documents(units: Iterable[Unit], within: Range) -> list[Unit]:
    """The units that hold documents of a range."""
    return [unit for unit in units if unit.first <= within.high and unit.first + unit.rows > within.low]


def numbers(table: pa.Table, name: str) -> Any:
    """A column as one array."""
    return table.column(name).combine_chunks().to_numpy(zero_copy_only=False)


def matrix(column: pa.ChunkedArray, width: int, kind: str = "<u2") -> npt.NDArray[Any]:
    """Fixed-size binaries as rows of `width` numbers."""
    array = column.combine_chunks()
    array = array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)
    buffer = array.buffers()[1]
    values = np.frombuffer(buffer, kind) if buffer is not None else np.zeros(0, kind)
    return values[array.offset * width : (array.offset + len(array)) * width].reshape(-1, width)


def pairs_within(
    units: Iterable[Unit], within: Range, removed: Bits, near: NearDuplicates, before: int
) -> tuple[pa.Table, dict[str, Any]]:
    """Candidate pairs of the buckets of a range, each once, sorted by (first, second), and the sizes of its buckets;
    where datatrove's survivors are asked for, its pairs in its sequence.
    """
    columns = ["hash", "order", "tie"] + (["values"] if near.survivor == "datatrove" else [])
    tables = list(hashed_rows(units, "bands", within, removed, columns))
    table = pa.concat_tables(tables) if tables else None
    if table is None or not table.num_rows:
        return PAIRS.empty_table(), {"buckets": {}, "compared": 0, "left_out": 0}
    hashes, documents = numbers(table, "hash"), numbers(table, "document")
    if near.survivor == "datatrove":
        first, second = chained_pairs(hashes, matrix(table.column("values"), near.rows, "<u8"), documents)
        return pa.table({"first": first, "second": second}, PAIRS), {}
    order = ranked_order(numbers(table, "order"), documents, before)
    found = candidate_pairs(hashes, documents, order, cap=near.bucket_cap)
    if found.left_out:  # only there does it matter which of two documents of one order comes first
        by_tie = np.lexsort((numbers(table, "tie"), order))
        order[by_tie] = np.cumsum(changes(order[by_tie], numbers(table, "tie")[by_tie])).astype(np.uint64)
        found = candidate_pairs(hashes, documents, order, cap=near.bucket_cap)
    later = np.flatnonzero(found.second >= before)  # of a pair of earlier runs neither falls
    by = later[np.lexsort((found.second[later], found.first[later]))]
    return pa.table({"first": found.first[by], "second": found.second[by]}, PAIRS), found.says


def changes(*columns: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where a row of these columns is not that before it; the first is none."""
    found = np.zeros(len(columns[0]), np.bool_)
    for column in columns:
        found[1:] |= column[1:] != column[:-1]
    return found


def sorted_pairs(files: Iterable[StoredFile], column: str, within: Range, columns: Sequence[str]) -> pa.Table | None:
    """The rows of these files whose `column` lies within a range; None where there is none."""
    tables = [rows_within(file, column, within, columns) for file in files]
    found = pa.concat_tables(tables) if tables else None
    return found if found is not None and found.num_rows else None


def attached(units: Iterable[Unit], pairs: Sequence[StoredFile], within: Range, near: NearDuplicates) -> pa.Table:
    """Pairs whose first document lies within a range, each once though several ranges of bands found it, with the
    first's order and sketch; sorted by (second, first).
    """
    kind = attached_schema(near)
    found = sorted_pairs(pairs, "first", within, ["first", "second"])
    if found is None:
        return kind.empty_table()
    once = found.group_by(["second", "first"]).aggregate([]).sort_by([("second", "ascending"), ("first", "ascending")])
    documents, place = np.unique(numbers(once, "first"), return_inverse=True)
    known = described(within_documents(units, within), documents, ["order", "sketch"]).take(pa.array(place))
    columns = [once.column("second"), once.column("first"), known.column("order"), known.column("sketch")]
    return pa.Table.from_arrays(columns, schema=kind)


def attached_schema(near: NearDuplicates) -> pa.Schema:
    """The columns of attached pairs."""
    kinds = [pa.int64(), pa.int64(), pa.uint64(), pa.binary(2 * near.parameters.size)]
    return pa.schema(list(zip(ATTACHED_COLUMNS, kinds, strict=True)))


def edges_of(
    units: Iterable[Unit], attached: Sequence[StoredFile], within: Range, near: NearDuplicates, before: int
) -> tuple[pa.Table, dict[str, Any]]:
    """The pairs whose second document lies within a range and whose sketches agree in as many places as the threshold
    asks for; sorted by (second, first). And how many were compared.
    """
    assert near.threshold is not None
    found = sorted_pairs(attached, "second", within, ATTACHED_COLUMNS)
    if found is None:
        return EDGES.empty_table(), {"compared": 0, "verified": 0}
    found = found.sort_by([("second", "ascending"), ("first", "ascending")])
    documents, place = np.unique(numbers(found, "second"), return_inverse=True)
    known = described(within_documents(units, within), documents, ["order", "sketch"])
    width = near.parameters.size
    ours, theirs = matrix(known.column("sketch"), width), matrix(found.column("sketch"), width)
    matches = matching(ours, theirs, place, np.arange(len(place)))
    good = np.flatnonzero(matches >= least_matches(near.threshold, width))
    first, second = numbers(found, "first")[good], documents[place[good]]
    columns = {
        "first": first,
        "second": second,
        "matches": matches[good],
        "first_order": ranked_order(numbers(found, "order")[good], first, before),
        "second_order": ranked_order(numbers(known, "order")[place[good]], second, before),
    }
    return pa.table(columns, EDGES), {"compared": len(place), "verified": len(good)}
