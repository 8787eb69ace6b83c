"""From buckets to verified edges, in two joins: a pair meets the sketch of its first document where that lies, and then
the sketch of its second. Nothing is looked up at random.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dedup.candidates import (
    buckets_of,
    chained_pairs,
    distinct_pairs,
    histogram,
    pair_blocks,
    pairs_counted,
)
from pipelines.dedup.ranges import PAIRS, Documents, Range, Unit, blocks_within, ranked_order, rows_within
from pipelines.dedup.sketch import least_matches, matching
from pipelines.dedup.step import NearDuplicates
from pipelines.schema import read_table
from pipelines.storage import StoredFile

ATTACHED_COLUMNS = ["second", "first", "order", "sketch"]
BLOCK_PAIRS = 1 << 20
"""Pairs that get their sketches at a time: 250 MB at 14 x 8."""
CELLS = 1 << 14
"""Pairs are counted for so many ranges of documents: 128 KiB of counts from each task. Counts of other ranges do not
add up: whoever changes this raises `infra.dedup_work.STAGES`.
"""
SKETCH_BYTES = 512 << 20
"""Sketches that one task holds: of 2.4 million documents at 14 x 8."""
PAIR_BYTES = 2 << 30
"""Pairs with a sketch each that one task writes to its disk, or reads: 8.7 million at 14 x 8."""
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
    tables: list[pa.Table] = []
    for unit in units if len(documents) else ():
        begin, end = np.searchsorted(documents, [unit.first, unit.first + unit.rows])
        if begin < end:
            table = read_table(unit.files["signatures"], columns=list(columns))
            tables.append(table.take(pa.array(documents[begin:end] - unit.first)))
    return pa.concat_tables(tables) if tables else pa.table({name: [] for name in columns})


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


def pairs_of(table: pa.Table, near: NearDuplicates, before: int) -> tuple[Iterator[pa.Table], dict[str, Any]]:
    """Candidate pairs of the buckets of these rows of bands, and the sizes of the buckets.

    Tables of PAIRS, each sorted by (first, second); a pair comes once in a table. Where datatrove's survivors are asked
    for, they are its pairs in its sequence.
    """
    if not table.num_rows:
        return iter([PAIRS.empty_table()]), {"buckets": {}, "left_out": 0}
    hashes, documents = numbers(table, "hash"), numbers(table, "document")
    if near.survivor == "datatrove":
        first, second = chained_pairs(hashes, matrix(table.column("values"), near.rows, "<u8"), documents)
        return iter([pa.table({"first": first, "second": second}, PAIRS)]), {}
    order = ranked_order(numbers(table, "order"), documents, before)
    buckets = buckets_of(hashes, documents, order)
    _, left_out = pairs_counted(buckets, cap=near.bucket_cap)
    if left_out:  # only there does it matter which of two documents of one order comes first
        by_tie = np.lexsort((numbers(table, "tie"), order))
        order[by_tie] = np.cumsum(changes(order[by_tie], numbers(table, "tie")[by_tie])).astype(np.uint64)
        buckets = buckets_of(hashes, documents, order)
    sizes, counts = (column.tolist() for column in histogram(buckets))
    said = {"buckets": dict(zip(map(str, sizes), counts, strict=True)), "left_out": left_out}
    return (sorted_pairs(*block, before) for block in pair_blocks(buckets, cap=near.bucket_cap)), said


def sorted_pairs(first: Documents, second: Documents, before: int) -> pa.Table:
    """These pairs by (first, second), without those of two documents of earlier runs, of which neither falls."""
    later = np.flatnonzero(second >= before)
    by = later[np.lexsort((second[later], first[later]))]
    return pa.table({"first": first[by], "second": second[by]}, PAIRS)


def changes(*columns: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where a row of these columns is not that before it; the first is none."""
    found = np.zeros(len(columns[0]), np.bool_)
    for column in columns:
        found[1:] |= column[1:] != column[:-1]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Of the pairs whose one document lies within a range, those whose other one leaves `part` modulo `parts`."""

    within: Range
    part: int = 0
    parts: int = 1

    def has(self, others: Documents) -> npt.NDArray[np.bool_]:
        """Which of these other documents' pairs are of this share."""
        chosen: npt.NDArray[np.bool_] = others % self.parts == self.part
        return chosen


def cell_of(documents: int, near: NearDuplicates) -> int:
    """How many documents are counted together: of so many a `CELLS`th, and no more than a share may have."""
    return max(1, min(-(-documents // CELLS), most_documents(near)))


def counted(documents: Documents, count: int, near: NearDuplicates) -> Documents:
    """How often each cell of `count` documents is named."""
    cell = cell_of(count, near)
    return np.bincount(documents // cell, minlength=-(-count // cell))


def shares_of_pairs(rows: Documents, count: int, near: NearDuplicates) -> list[Share]:
    """Cells of so many pairs each, cut into shares: ranges of cells as large as `most_documents` and `most_pairs`
    allow, and a cell with more pairs than that in parts. Cells without pairs are in none.
    """
    cell = cell_of(count, near)
    runs: list[tuple[int, int, int]] = []  # the first cell, the last, the pairs of them
    for index, more in ((index, int(rows[index])) for index in np.flatnonzero(rows).tolist()):
        start, _, held = runs[-1] if runs else (index, index, 0)
        if held + more > most_pairs(near) or (index + 1 - start) * cell > most_documents(near):
            start, held = index, 0
        if held:
            runs.pop()
        runs.append((start, index, held + more))
    return [
        Share(within=Range(low=start * cell, high=min((end + 1) * cell, count) - 1), part=part, parts=parts)
        for start, end, held in runs
        for parts in [-(-held // most_pairs(near))]
        for part in range(parts)
    ]


def most_documents(near: NearDuplicates) -> int:
    """The documents of a share whose sketches take `SKETCH_BYTES`."""
    return max(1, SKETCH_BYTES // (2 * near.parameters.size))


def most_pairs(near: NearDuplicates) -> int:
    """The pairs of a share that take `PAIR_BYTES` with a sketch each."""
    return max(1, PAIR_BYTES // (24 + 2 * near.parameters.size))


def attached(
    units: Iterable[Unit], pairs: Sequence[StoredFile], share: Share, near: NearDuplicates
) -> Iterator[pa.Table]:
    """A share of the pairs by their first document, each once though several ranges of bands found it, with the first's
    order and sketch; sorted by (second, first), `BLOCK_PAIRS` at a time.

    Holds 40 bytes a pair as it was found, and the sketches of the documents.
    """
    found = [shared_pairs(rows_within(file, "first", share.within, ["first", "second"]), share) for file in pairs]
    first, second = (np.concatenate([np.zeros(0, np.int64), *(one[end] for one in found)]) for end in (0, 1))
    found.clear()
    if not len(first):
        yield attached_schema(near).empty_table()
        return
    first, second = distinct_pairs(first, second)
    documents, place = np.unique(first, return_inverse=True)
    known = described(units, documents, ["order", "sketch"]).combine_chunks()
    for at in range(0, len(first), BLOCK_PAIRS):
        some = known.take(pa.array(place[at : at + BLOCK_PAIRS]))
        columns = [second[at : at + BLOCK_PAIRS], first[at : at + BLOCK_PAIRS], some.column("order")]
        yield pa.table([*columns, some.column("sketch")], schema=attached_schema(near))


def shared_pairs(table: pa.Table, share: Share) -> tuple[Documents, Documents]:
    """Of these pairs those of a share by their first document."""
    chosen = share.has(numbers(table, "second"))
    return numbers(table, "first")[chosen], numbers(table, "second")[chosen]


def attached_schema(near: NearDuplicates) -> pa.Schema:
    """The columns of attached pairs."""
    kinds = [pa.int64(), pa.int64(), pa.uint64(), pa.binary(2 * near.parameters.size)]
    return pa.schema(list(zip(ATTACHED_COLUMNS, kinds, strict=True)))


def edges_of(
    units: Iterable[Unit], attached: Sequence[StoredFile], share: Share, near: NearDuplicates, before: int
) -> tuple[pa.Table, dict[str, Any]]:
    """Of a share of the pairs by their second document those whose sketches agree in as many places as the threshold
    asks for; sorted by (second, first). And how many were compared.

    Holds the sketches of all documents of the range, one row group of pairs, and 34 bytes an edge.
    """
    assert near.threshold is not None
    least = least_matches(near.threshold, near.parameters.size)
    documents = np.arange(share.within.low, share.within.high + 1)
    known = described(units, documents, ["order", "sketch"])
    sketches, orders = matrix(known.column("sketch"), near.parameters.size), numbers(known, "order")
    tables, compared = [EDGES.empty_table()], 0
    for file in attached:
        for block in blocks_within(file, "second", share.within, ATTACHED_COLUMNS):
            pairs = block.filter(pa.array(share.has(numbers(block, "first"))))
            first, place = numbers(pairs, "first"), numbers(pairs, "second") - share.within.low
            theirs = matrix(pairs.column("sketch"), near.parameters.size)
            matches = matching(sketches, theirs, place, np.arange(len(place)))
            good = np.flatnonzero(matches >= least)
            columns = {
                "first": first[good],
                "second": documents[place[good]],
                "matches": matches[good],
                "first_order": ranked_order(numbers(pairs, "order")[good], first[good], before),
                "second_order": ranked_order(orders[place[good]], documents[place[good]], before),
            }
            tables.append(pa.table(columns, EDGES))
            compared += len(place)
    found = pa.concat_tables(tables).sort_by([("second", "ascending"), ("first", "ascending")])
    return found, {"compared": compared, "verified": len(found)}
