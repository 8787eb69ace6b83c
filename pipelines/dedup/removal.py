"""From copies and edges to who falls, and from that to the rows that each task loses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipelines.accounts import Accounts
from pipelines.dedup.edges import described, numbers
from pipelines.dedup.near import joined_columns, near_copies
from pipelines.dedup.ranges import COPIES, Documents, Range, Unit, rows_within
from pipelines.dedup.step import METHODS, Alarm, Dedup
from pipelines.dedup.survivors import rehydration_weights
from pipelines.schema import CLUSTERS, DUPLICATES, ORDER, read_table
from pipelines.storage import StoredFile

FALLEN = pa.schema(
    [("document", pa.int64()), ("method", pa.uint8()), ("representative", pa.int64()), ("similarity", pa.float64())]
)
"""Every document that falls, sorted: by which of METHODS, the kept document that stands for it, and their estimated
Jaccard similarity (null where they were not compared: joined by a URL, or through others).
"""
MEMBERS = pa.schema([("representative", pa.int64()), ("document", pa.int64()), ("size", pa.int64())])
"""The same by (representative, document), and how many documents the representative stands for, itself among them."""
NAMED = pa.schema([("document", pa.int64()), ("representative_id", pa.large_string()), ("size", pa.int64())])
"""The id of what stands for a document, sorted by document."""
REMOVED = pa.schema(
    [
        ("document", pa.int64()),
        ("method", pa.large_string()),
        ("representative", pa.int64()),
        ("similarity", pa.float64()),
        ("representative_id", pa.large_string()),
        ("representative_run", pa.large_string()),
        ("size", pa.int64()),
    ]
)
"""All of that together, the method by name. `representative_run` is the earlier run that holds the representative; null
for this.
"""
SIZES = pa.schema([("document", pa.int64()), ("size", pa.int64())])
"""Every kept document that stands for others, sorted."""
SHARES = pa.schema([("kind", pa.string()), ("name", pa.string()), ("documents", pa.int64()), ("removed", pa.int64())])
"""How much a domain, or a folder of input files, lost."""
SHOWN_SHARES = 10_000
HELD_SHARES = 1_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Fallen:
    """Every document that falls, sorted; its method as a place in METHODS, the kept document that stands for it, their
    similarity, NaN where they were not compared. All shape (documents,): 25 bytes each.
    """

    documents: Documents
    methods: npt.NDArray[np.uint8]
    representatives: Documents
    similarity: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Removed:
    """The files of REMOVED and SIZES that speak of some documents, each in their order."""

    removed: Sequence[StoredFile]
    clusters: Sequence[StoredFile]


def fallen(
    step: Dedup,
    units: Callable[[], Iterable[Unit]],
    copies: Mapping[str, Sequence[StoredFile]],
    edges: Sequence[StoredFile],
    pairs: Sequence[StoredFile],
    count: int,
    before: int,
) -> Fallen:
    """Who of `count` documents falls, by every method; none of the first `before`, which are those of earlier runs.

    Holds what `near_copies` does, and then 100 bytes for each that falls.
    """
    near = near_copies(step.minhash, units, edges, pairs, count, before) if step.minhash is not None else None
    every = [
        (method, documents, standing, np.full(len(documents), np.nan if method == "url" else 1.0))
        for method, (documents, standing) in ((method, read_copies(files)) for method, files in copies.items())
    ]
    if near is not None:
        later = near.documents >= before  # components may join documents of earlier runs: those stay
        every.append(("minhash", near.documents[later], near.representatives[later], near.similarity[later]))
        del near, later
    documents, standing, similar = (np.concatenate([one[part] for one in every]) for part in (1, 2, 3))
    methods = np.concatenate([np.full(len(one[1]), METHODS.index(one[0]), np.uint8) for one in every])
    every.clear()
    by = np.argsort(documents, kind="stable")
    documents, methods = documents[by], methods[by]
    representatives, similarity = resolved(documents, standing[by], similar[by], methods)
    return Fallen(documents=documents, methods=methods, representatives=representatives, similarity=similarity)


@dataclass(frozen=True, kw_only=True, eq=False)
class Heads:
    """Kept documents that stand for others, sorted, and how many each stands for, itself among them. `by_head` puts
    those that fall in the order of what stands for them.
    """

    documents: Documents
    sizes: Documents
    by_head: Documents


def heads_of(fell: Fallen) -> Heads:
    """What stands for the documents that fall."""
    by = np.argsort(fell.representatives, kind="stable")
    sorted_heads = fell.representatives[by]
    starts = np.flatnonzero(np.diff(sorted_heads, prepend=-1))
    sizes = np.diff(starts, append=len(by)) + 1
    return Heads(documents=sorted_heads[starts], sizes=sizes, by_head=by)


def fallen_said(fell: Fallen, heads: Heads) -> dict[str, Any]:
    """Figures: documents by method, clusters by size."""
    by_method = np.bincount(fell.methods, minlength=len(METHODS)).tolist()
    sizes, counts = np.unique(heads.sizes, return_counts=True)
    return {
        "removed": {method: count for method, count in zip(METHODS, by_method, strict=True) if count},
        "clusters": {str(size): count for size, count in zip(sizes.tolist(), counts.tolist(), strict=True)},
    }


def fallen_blocks(fell: Fallen, heads: Heads, ranges: Sequence[Range], piece: int) -> Iterator[tuple[str, pa.Table]]:
    """Tables by the name of their file: for each range of documents FALLEN and SIZES, then MEMBERS, `piece` rows each.

    So that ids can be had by joins of which no task holds more than a range or a piece.
    """
    columns = (fell.documents, fell.methods, fell.representatives)
    for index, within in enumerate(ranges):
        begin, end = np.searchsorted(fell.documents, [within.low, within.high + 1])
        similarity = pa.array(fell.similarity[begin:end], from_pandas=True)
        yield f"fallen-{index:06d}", pa.table([*(one[begin:end] for one in columns), similarity], schema=FALLEN)
    for index, within in enumerate(ranges):
        begin, end = np.searchsorted(heads.documents, [within.low, within.high + 1])
        yield f"clusters-{index:06d}", pa.table([heads.documents[begin:end], heads.sizes[begin:end]], schema=SIZES)
    for index, at in enumerate(range(0, len(heads.by_head), piece)):
        some = heads.by_head[at : at + piece]
        standing = fell.representatives[some]
        sizes = heads.sizes[np.searchsorted(heads.documents, standing)]
        yield f"members-{index:06d}", pa.table([standing, fell.documents[some], sizes], schema=MEMBERS)


def named(units: Iterable[Unit], members: StoredFile) -> pa.Table:
    """Rows of NAMED for these rows of MEMBERS."""
    table = read_table(members)
    heads, place = np.unique(numbers(table, "representative"), return_inverse=True)
    ids = described(units, heads, ["id"]).column("id").cast(pa.large_string())
    columns = [table.column("document"), ids.take(pa.array(place)), table.column("size")]
    return pa.Table.from_arrays(columns, schema=NAMED).sort_by("document")


def with_ids(
    fell: StoredFile, named: Iterable[StoredFile], within: Range, earlier: Sequence[tuple[str, int]]
) -> pa.Table:
    """Rows of REMOVED for the rows of FALLEN of a range of documents. `earlier` names earlier runs, each with how many
    documents it has.
    """
    table = read_table(fell)
    found = [rows_within(file, "document", within, NAMED.names) for file in named]
    ids = pa.concat_tables([NAMED.empty_table(), *found]).sort_by("document")
    assert ids.column("document").equals(table.column("document")), "each that falls is a member once"
    columns = {
        "document": table.column("document"),
        "method": pa.array(list(METHODS), pa.large_string()).take(table.column("method").combine_chunks()),
        "representative": table.column("representative"),
        "similarity": table.column("similarity"),
        "representative_id": ids.column("representative_id"),
        "representative_run": earlier_names(numbers(table, "representative"), earlier),
        "size": ids.column("size"),
    }
    return pa.table(columns, REMOVED)


def earlier_names(documents: Documents, earlier: Sequence[tuple[str, int]]) -> pa.Array:
    """The name of the earlier run that each document is of; null for those of this run."""
    ends = np.cumsum([documents for _, documents in earlier], dtype=np.int64)
    index = np.searchsorted(ends, documents, side="right")
    return pa.array([name for name, _ in earlier] + [None], pa.large_string()).take(pa.array(index))


def read_copies(files: Sequence[StoredFile]) -> tuple[Documents, Documents]:
    """Documents and representatives of files of COPIES."""
    columns = joined_columns(files, COPIES)
    return columns["document"], columns["representative"]


def resolved(
    documents: Documents,
    representatives: Documents,
    similarity: npt.NDArray[np.float64],
    methods: npt.NDArray[np.uint8],
) -> tuple[Documents, npt.NDArray[np.float64]]:
    """Representatives that are kept: one that fell by a later method hands on to its own. Twins, and equal texts,
    have one sketch, so they resemble what their representative resembles; any other similarity is lost on the way.
    """
    representatives, similarity = representatives.copy(), similarity.copy()
    alike = np.isin(methods, [METHODS.index("text"), METHODS.index("twin")])
    if not len(documents):
        return representatives, similarity
    while True:
        place = np.minimum(np.searchsorted(documents, representatives), len(documents) - 1)
        fell = np.flatnonzero(documents[place] == representatives)
        if not len(fell):
            return representatives, similarity
        similarity[fell] = np.where(alike[fell], similarity[place[fell]], np.nan)
        representatives[fell] = representatives[place[fell]]


def removal_of(units: Sequence[Unit], removed: Removed) -> tuple[dict[str, pa.Table], Accounts]:
    """What one task loses: its `duplicates`, the `clusters` whose representative it holds, the `shares` of domains and
    folders, and the change of its account.
    """
    gone, heads, shares = [], [], []
    change = Accounts()
    for index, unit in enumerate(units):
        within = Range(low=unit.first, high=unit.first + unit.rows - 1)
        lost = stacked([rows_within(file, "document", within, REMOVED.names) for file in removed.removed], REMOVED)
        rows = numbers(lost, "document") - unit.first
        standing = stacked([rows_within(file, "document", within, SIZES.names) for file in removed.clusters], SIZES)
        kept = read_table(unit.files["kept"], columns=["key", *ORDER, "id", "url"])
        counted = read_table(unit.files["signatures"], columns=["characters", "tokens", "domain"])
        taken = kept.take(pa.array(rows))
        for name in ("method", "representative_id", "representative_run", "similarity"):
            taken = taken.append_column(name, lost.column(name))
        taken = taken.append_column("cluster_size", lost.column("size"))
        taken = taken.append_column("file", pa.array(np.full(len(rows), index, np.uint16)))
        gone.append(taken.append_column("row", pa.array(rows.astype(np.uint32))))
        head = kept.take(pa.array(numbers(standing, "document") - unit.first)).append_column(
            "size", standing.column("size")
        )
        heads.append(head.append_column("weight", pa.array(rehydration_weights(numbers(standing, "size")))))
        change = change + lost_account(counted.take(pa.array(rows)), lost)
        shares.append(share_rows(counted.column("domain"), kept.column("file_path"), rows))
    by_place = [(name, "ascending") for name in ORDER]
    tables = {
        "duplicates": stacked(gone, DUPLICATES).sort_by(by_place),
        "clusters": stacked(heads, CLUSTERS).sort_by(by_place),
        "shares": added_up(shares).to_arrow().cast(SHARES),
    }
    return tables, change


def stacked(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """The tables one below the other, as this schema has them."""
    return pa.concat_tables([schema.empty_table(), *(table.select(schema.names).cast(schema) for table in tables)])


def lost_account(counted: pa.Table, lost: pa.Table) -> Accounts:
    """What the removal of these rows changes."""
    methods = lost.column("method").value_counts().to_pylist()
    return Accounts(
        kept=-lost.num_rows,
        duplicates={one["values"]: one["counts"] for one in methods},
        tokens=-int(numbers(counted, "tokens").sum()),
        characters=-int(numbers(counted, "characters").sum()),
    )


def share_rows(domains: pa.ChunkedArray, paths: pa.ChunkedArray, removed: Documents) -> pl.DataFrame:
    """Rows of SHARES for one unit."""
    gone = np.zeros(len(domains), np.int64)
    gone[removed] = 1
    frame = pl.DataFrame(
        {
            "domain": pl.Series(domains.to_pylist(), dtype=pl.String),
            "path": pl.Series(paths.to_pylist(), dtype=pl.String),
            "removed": gone,
        }
    )
    folder = pl.col("path").str.replace(r"[^/]*$", "")
    frame = frame.with_columns(pl.col("domain").replace("", None))
    kinds = {"domain": pl.col("domain"), "folder": folder}
    return pl.concat(
        frame.group_by(name.alias("name"))
        .agg(documents=pl.len().cast(pl.Int64), removed=pl.sum("removed"))
        .select(pl.lit(kind).alias("kind"), "name", "documents", "removed")
        for kind, name in kinds.items()
    ).drop_nulls("name")


def shares_of(files: Iterable[StoredFile], alarm: Alarm) -> pa.Table:
    """The shares of all tasks, added up: those that the alarm is for, and of each kind the `SHOWN_SHARES` that lost
    most; these first. Holds a row for each domain, and as many or `HELD_SHARES` more.
    """
    held: list[pl.DataFrame] = []
    for file in files:
        found = pl.from_arrow(read_table(file))
        assert isinstance(found, pl.DataFrame)
        held.append(found)
        if sum(map(len, held[1:])) > max(HELD_SHARES, len(held[0])):
            held = [added_up(held)]
    whole = added_up(held).with_columns(place=pl.col("removed").rank("ordinal", descending=True).over("kind"))
    emptied = (pl.col("documents") >= alarm.documents) & (pl.col("removed") > alarm.fraction * pl.col("documents"))
    shown = whole.filter(emptied | (pl.col("place") <= SHOWN_SHARES)).drop("place")
    return shown.sort("kind", "removed", "name", descending=[False, True, False]).to_arrow().cast(SHARES)


def added_up(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Shares added up by kind and name, sorted by both."""
    none = pl.from_arrow(SHARES.empty_table())
    assert isinstance(none, pl.DataFrame)
    whole = pl.concat([none, *frames]).group_by("kind", "name").agg(pl.sum("documents"), pl.sum("removed"))
    return whole.sort("kind", "name")
