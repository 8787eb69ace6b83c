"""Near-duplicates that fall: from stored edges, or from unverified pairs, to documents and what stands for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dedup.edges import EDGES, described, numbers
from pipelines.dedup.ranges import PAIRS, Documents, Unit, ranked_order
from pipelines.dedup.sketch import estimate
from pipelines.dedup.step import NearDuplicates
from pipelines.dedup.survivors import (
    Edges,
    Hashes,
    Survivors,
    components,
    contested,
    contested_in_components,
    greedy,
    places_of,
    preferred,
    ranks,
    with_edges,
)
from pipelines.schema import read_table
from pipelines.storage import StoredFile

Units = Callable[[], Iterable[Unit]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Near:
    """Documents that fall, sorted, the document that stands for each, and their similarity: estimated from sketches,
    NaN where the two were not compared. All shape (documents,).
    """

    documents: Documents
    representatives: Documents
    similarity: npt.NDArray[np.float64]


def near_copies(
    near: NearDuplicates,
    units: Units,
    edges: Sequence[StoredFile],
    pairs: Sequence[StoredFile],
    count: int,
    before: int,
) -> Near:
    """Who falls among `count` documents: by verified edges where there is a threshold, else by the pairs."""
    if near.survivor == "datatrove":
        return by_datatrove(pairs, count)
    if near.threshold is not None:
        columns = joined_columns(edges, EDGES)
        found = Edges(first=columns["first"], second=columns["second"], matches=columns["matches"])
        orders = columns["first_order"], columns["second_order"]
    else:
        columns = joined_columns(pairs, PAIRS)
        matches = np.zeros(len(columns["first"]), np.uint16)
        found = Edges(first=columns["first"], second=columns["second"], matches=matches)
        orders = orders_of(found, units, before)
    survivors = chosen(near, found, orders, units)
    fell = np.flatnonzero(survivors.representatives != survivors.documents)
    matches = survivors.matches[fell]
    return Near(
        documents=survivors.documents[fell],
        representatives=survivors.representatives[fell],
        similarity=np.where(matches > 0, estimate(matches, near.parameters.size), np.nan),
    )


def chosen(near: NearDuplicates, edges: Edges, orders: tuple[Hashes, Hashes], units: Units) -> Survivors:
    """The survivors of these edges, whose documents have these orders. Ids are read where only they decide."""
    documents = with_edges(edges)
    order = np.empty(len(documents), np.uint64)
    for ends, known in zip((edges.first, edges.second), orders, strict=True):
        order[places_of(ends, documents)] = known
    greedily = near.mode == "greedy"
    equal = contested(edges, *orders) if greedily else contested_in_components(edges, documents, order)
    ids = described(units(), equal, ["id"]).column("id").combine_chunks() if len(equal) else pa.array([], pa.string())
    by_rank = ranks(documents, order, equal, ids)
    return (greedy if greedily else preferred)(edges, documents, by_rank)


def orders_of(edges: Edges, units: Units, before: int) -> tuple[Hashes, Hashes]:
    """The orders of the first and of the second documents of edges that do not carry them."""
    documents = with_edges(edges)
    if not len(documents):
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    order = ranked_order(numbers(described(units(), documents, ["order"]), "order"), documents, before)
    return order[places_of(edges.first, documents)], order[places_of(edges.second, documents)]


def by_datatrove(pairs: Sequence[StoredFile], count: int) -> Near:
    """Who falls by datatrove's union-find over its sequence of pairs."""

    def blocks() -> Iterator[tuple[Documents, Documents]]:
        for file in pairs:
            columns = joined_columns([file], PAIRS)
            yield columns["first"], columns["second"]

    representatives = components(count, blocks())
    fell = np.flatnonzero(representatives != np.arange(count))
    return Near(documents=fell, representatives=representatives[fell], similarity=np.full(len(fell), np.nan))


def joined_columns(files: Sequence[StoredFile], schema: pa.Schema) -> dict[str, Any]:
    """The columns of these files, one file after the other. Holds one column twice, and not all."""
    found = {}
    table = pa.concat_tables([schema.empty_table(), *(read_table(file) for file in files)])
    for name in schema.names:
        found[name] = numbers(table, name)
        table = table.drop_columns(name)
    return found
