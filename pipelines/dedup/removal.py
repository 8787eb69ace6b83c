"""From copies and edges to who falls, and from that to the rows that each task loses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipelines.accounts import Accounts
from pipelines.dedup.edges import described, numbers
from pipelines.dedup.near import joined_tables, near_copies
from pipelines.dedup.ranges import COPIES, Documents, Range, Unit, rows_within
from pipelines.dedup.step import METHODS, Alarm, Dedup
from pipelines.dedup.survivors import rehydration_weights
from pipelines.schema import CLUSTERS, DUPLICATES, ORDER, read_table
from pipelines.storage import StoredFile

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
"""Every document that falls, sorted: by which method, the kept document that stands for it, their estimated Jaccard
similarity (null where they were not compared: joined by a URL, or through others), and how many documents that one
stands for, itself among them. `representative_run` is the earlier run that holds the representative; null for this.
"""
SIZES = pa.schema([("document", pa.int64()), ("size", pa.int64())])
"""Every kept document that stands for others, sorted."""
SHARES = pa.schema([("kind", pa.string()), ("name", pa.string()), ("documents", pa.int64()), ("removed", pa.int64())])
"""How much a domain, or a folder of input files, lost."""
SHOWN_SHARES = 10_000
HELD_SHARES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Fallen:
    """Rows of REMOVED and of SIZES, and figures: documents by method, clusters by size, edges."""

    removed: pa.Table
    clusters: pa.Table
    says: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Removed:
    """The files of REMOVED and SIZES."""

    removed: StoredFile
    clusters: StoredFile


def fallen(
    step: Dedup,
    units: Callable[[], Iterable[Unit]],
    copies: Mapping[str, Sequence[StoredFile]],
    edges: Sequence[StoredFile],
    pairs: Sequence[StoredFile],
    count: int,
    earlier: Sequence[tuple[str, int]],
) -> Fallen:
    """Who of `count` documents falls, by every method. Holds about 40 bytes for each that has an edge or falls, and the
    ids of those that stand for others. `earlier` names earlier runs, each with how many documents it has.
    """
    before = sum(documents for _, documents in earlier)
    found = [(method, *read_copies(files)) for method, files in copies.items()]
    near = near_copies(step.minhash, units, edges, pairs, count, before) if step.minhash is not None else None
    every = [
        (method, documents, standing, np.full(len(documents), np.nan if method == "url" else 1.0))
        for method, documents, standing in found
    ]
    if near is not None:
        later = near.documents >= before  # components may join documents of earlier runs: those stay
        every.append(("minhash", near.documents[later], near.representatives[later], near.similarity[later]))
    document = np.concatenate([one[1] for one in every])
    by = np.argsort(document, kind="stable")
    document = document[by]
    method = np.concatenate([np.full(len(one[1]), METHODS.index(one[0]), np.uint8) for one in every])[by]
    standing, similar = (np.concatenate([one[part] for one in every])[by] for part in (2, 3))
    representative, similarity = resolved(document, standing, similar, method)
    heads, place, sizes = np.unique(representative, return_inverse=True, return_counts=True)
    sizes = sizes + 1
    known = described(units(), heads, ["id"])
    columns = {
        "document": document,
        "method": pa.array(list(METHODS), pa.large_string()).take(pa.array(method)),
        "representative": representative,
        "similarity": pa.array(similarity, from_pandas=True),
        "representative_id": known.column("id").cast(pa.large_string()).take(pa.array(place)),
        "representative_run": earlier_names(representative, earlier),
        "size": sizes[place],
    }
    counted, of_size = np.unique(sizes, return_counts=True)
    says = {
        "removed": {
            name: int((method == index).sum()) for index, name in enumerate(METHODS) if (method == index).any()
        },
        "clusters": {str(size): int(count) for size, count in zip(counted.tolist(), of_size.tolist(), strict=True)},
    }
    return Fallen(
        removed=pa.table(columns, REMOVED), clusters=pa.table({"document": heads, "size": sizes}, SIZES), says=says
    )


def earlier_names(documents: Documents, earlier: Sequence[tuple[str, int]]) -> pa.Array:
    """The name of the earlier run that each document is of; null for those of this run."""
    ends = np.cumsum([documents for _, documents in earlier], dtype=np.int64)
    index = np.searchsorted(ends, documents, side="right")
    return pa.array([name for name, _ in earlier] + [None], pa.large_string()).take(pa.array(index))


def read_copies(files: Sequence[StoredFile]) -> tuple[Documents, Documents]:
    """Documents and representatives of files of COPIES."""
    table = joined_tables(files, COPIES)
    return numbers(table, "document"), numbers(table, "representative")


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
        lost = rows_within(removed.removed, "document", within, REMOVED.names)
        rows = numbers(lost, "document") - unit.first
        standing = rows_within(removed.clusters, "document", within, SIZES.names)
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
