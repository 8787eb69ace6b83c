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
from pipelines.dedup.step import METHODS, Dedup
from pipelines.dedup.survivors import rehydration_weights
from pipelines.schema import CLUSTERS, DUPLICATES, ORDER, read_table
from pipelines.storage import StoredFile

REMOVED = pa.schema(
    [
        ("document", pa.int64()),
        ("method", pa.string()),
        ("representative", pa.int64()),
        ("similarity", pa.float64()),
        ("representative_id", pa.string()),
        ("representative_run", pa.string()),
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
    documents = [one[1] for one in found] + ([near.documents] if near is not None else [])
    standing = [one[2] for one in found] + ([near.representatives] if near is not None else [])
    similar = [np.full(len(one[1]), np.nan if one[0] == "url" else 1.0) for one in found]
    similar += [near.similarity] if near is not None else []
    methods = [
        np.full(len(one), METHODS.index(name), np.uint8)
        for one, name in zip(documents, names(found, near), strict=True)
    ]
    document = np.concatenate(documents)
    by = np.argsort(document, kind="stable")
    document = document[by]
    method = np.concatenate(methods)[by]
    representative, similarity = resolved(document, np.concatenate(standing)[by], np.concatenate(similar)[by], method)
    heads, place, sizes = np.unique(representative, return_inverse=True, return_counts=True)
    sizes = sizes + 1
    known = described(units(), heads, ["id"])
    columns = {
        "document": document,
        "method": pa.DictionaryArray.from_arrays(pa.array(method), list(METHODS)).cast(pa.string()),
        "representative": representative,
        "similarity": pa.array(similarity, from_pandas=True),
        "representative_id": known.column("id").take(pa.array(place)),
        "representative_run": runs_of(representative, earlier),
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


def runs_of(documents: Documents, earlier: Sequence[tuple[str, int]]) -> pa.Array:
    """The name of the earlier run that each document is of; null for those of this run."""
    ends = np.cumsum([documents for _, documents in earlier], dtype=np.int64)
    index = np.searchsorted(ends, documents, side="right")
    return pa.array([name for name, _ in earlier] + [None], pa.string()).take(pa.array(index))


def names(found: Sequence[tuple[str, Documents, Documents]], near: object) -> list[str]:
    """The methods, in order."""
    return [one[0] for one in found] + (["minhash"] if near is not None else [])


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
        "shares": summed(shares),
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


def summed(frames: Sequence[pl.DataFrame]) -> pa.Table:
    """Shares added up, sorted by kind and name."""
    none = pl.from_arrow(SHARES.empty_table())
    assert isinstance(none, pl.DataFrame)
    whole = pl.concat([none, *frames])
    added = whole.group_by("kind", "name").agg(pl.sum("documents"), pl.sum("removed")).sort("kind", "name")
    return added.to_arrow().cast(SHARES)


def shares_of(files: Iterable[StoredFile]) -> pa.Table:
    """The shares of all tasks, added up; of each kind those that lost most, `SHOWN_SHARES` of them."""
    whole = pl.from_arrow(SHARES.empty_table())
    assert isinstance(whole, pl.DataFrame)
    for file in files:
        found = pl.from_arrow(read_table(file))
        assert isinstance(found, pl.DataFrame)
        whole = pl.concat([whole, found]).group_by("kind", "name").agg(pl.sum("documents"), pl.sum("removed"))
    most = whole.sort(["kind", "removed", "name"], descending=[False, True, False]).group_by(
        "kind", maintain_order=True
    )
    return most.head(SHOWN_SHARES).to_arrow().cast(SHARES)
