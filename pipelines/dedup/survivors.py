"""Which documents of verified edges, or of unverified pairs, are kept, and which one stands for each that falls.

An edge joins two documents and says in how many places their sketches agree. `ranks` puts the documents of all edges in
order of precedence; then one of two choices, both a function of edges and ranks alone:

greedy       a document falls if, and only if, an edge joins it to a preferred document that is kept: of a chain of
             documents each like the next every other one is kept
preferred    of everything that edges join, near or far, the most preferred is kept

`components` is datatrove's: all documents, unverified pairs in sequence, its own survivor. Memory: greedy and preferred
need at most 40 bytes a document that has an edge, beside 50 bytes an edge; components 8 bytes a document.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup import kernels_clusters as kernels

Documents = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Matches = npt.NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True, eq=False)
class Edges:
    """Distinct pairs of documents, whichever is first, and in how many places their sketches agree: shape (edges,)."""

    first: Documents
    second: Documents
    matches: Matches


@dataclass(frozen=True, kw_only=True, eq=False)
class Survivors:
    """For each document of an edge, `documents` sorted, the kept document that stands for it: itself if it is kept.

    `matches` are those of the edge between the two, 0 where there is none: for a kept document, and where only a chain
    joins them.
    """

    documents: Documents
    representatives: Documents
    matches: Matches


def with_edges(edges: Edges) -> Documents:
    """The documents of these edges, sorted, each once."""
    return _sorted_once(np.concatenate((edges.first, edges.second)))


def contested(edges: Edges, first_order: Hashes, second_order: Hashes) -> Documents:
    """The documents, sorted, that share both an edge and their order: only their ids bear on what `greedy` keeps."""
    equal = first_order == second_order
    return _sorted_once(np.concatenate((edges.first[equal], edges.second[equal])))


def _sorted_once(documents: Documents) -> Documents:
    """These documents sorted, each once, in place of what they were; NumPy's `unique` takes four times as long."""
    documents.sort()
    new = np.ones(len(documents), np.bool_)
    new[1:] = documents[1:] != documents[:-1]
    return documents[new]


def contested_in_components(edges: Edges, documents: Documents, order: Hashes) -> Documents:
    """The documents, sorted, that share the least order of their component: only their ids bear on `preferred`."""
    ends = [(places_of(edges.first, documents), places_of(edges.second, documents))]
    component = components(len(documents), ends)
    least = np.full(len(documents), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(least, component, order)
    leading = order == least[component]
    several = np.bincount(component[leading], minlength=len(documents)) > 1
    found: Documents = documents[leading & several[component]]
    return found


def ranks(documents: Documents, order: Hashes, identified: Documents, ids: pa.Array) -> Documents:
    """Each document's place, 0 for the most preferred: by order (smaller first), then id, then number.

    `documents` are sorted. `ids` are those of the `identified`, sorted too, which should be the contested ones; they
    compare by their UTF-8 bytes. Other documents of one order follow each other by number: that changes no survivor,
    and what stands for a document only where two kept neighbours have one order and as many matches.
    """
    if len(identified) != len(ids):
        raise ValueError(f"{len(identified)} documents with {len(ids)} ids")
    places = np.argsort(order, kind="stable")
    found = np.empty(len(documents), np.int64)
    found[places] = np.arange(len(documents))
    if len(identified):
        at = places_of(identified, documents)
        by_id = pc.rank(ids, tiebreaker="dense").to_numpy()
        # Identified documents change places among themselves, within one order: each sequence rises with the order.
        found[at[np.lexsort((identified, by_id, order[at]))]] = np.sort(found[at])
    return found


def places_of(wanted: Documents, documents: Documents) -> Documents:
    """Where each wanted document is among `documents`, which are sorted; all have to be.

    Through a table of as many cells as documents at most: a third of the time of a bisection among millions.
    """
    if not len(wanted):
        return np.zeros(0, np.int64)
    if len(documents) and documents[0] <= wanted.min() and wanted.max() <= documents[-1]:
        span = int(documents[-1] - documents[0])
        shift = np.uint64(max(0, span.bit_length() - len(documents).bit_length() + 1))
        cells = np.empty((span >> int(shift)) + 2, np.int64)
        kernels.cells_of(documents, shift, cells)
        places = np.empty(len(wanted), np.int64)
        if kernels.placed(wanted, documents, shift, cells, places) == len(wanted):
            return places
    raise ValueError("an edge or an id names a document that is not among the documents")


def greedy(edges: Edges, documents: Documents, rank: Documents) -> Survivors:
    """A document falls if, and only if, an edge joins it to a preferred one that is kept; of several the one with most
    matches stands for it, of these the preferred.

    Documents are decided in order of precedence, each by its edges to preferred ones: linear after one sort of edges.
    """
    ranked = _ranked(edges, documents, rank)
    representatives = np.arange(len(documents))
    best = np.zeros(len(documents), np.uint16)
    done = kernels.fallen(ranked.first, ranked.second, ranked.matches, representatives, best)
    if done < len(ranked.first):
        number = documents[rank == ranked.first[done]].item()
        raise ValueError(f"an edge joins document {number} to itself")
    return _by_document(documents, rank, representatives, best)


def preferred(edges: Edges, documents: Documents, rank: Documents) -> Survivors:
    """Of each component of the graph of edges the most preferred document is kept and stands for the others."""
    ranked = _ranked(edges, documents, rank)
    representatives = smallest_members(components(len(documents), [(ranked.first, ranked.second)]))
    direct = representatives[ranked.second] == ranked.first
    matches = np.zeros(len(documents), np.uint16)
    matches[ranked.second[direct]] = ranked.matches[direct]
    return _by_document(documents, rank, representatives, matches)


def _ranked(edges: Edges, documents: Documents, rank: Documents) -> Edges:
    """The edges between ranks, each from the preferred document to the other, sorted by the other."""
    one, other = rank[places_of(edges.first, documents)], rank[places_of(edges.second, documents)]
    second = np.maximum(one, other)
    by = np.argsort(second)
    return Edges(first=np.minimum(one, other)[by], second=second[by], matches=edges.matches[by])


def _by_document(documents: Documents, rank: Documents, representatives: Documents, matches: Matches) -> Survivors:
    by_rank = np.empty(len(documents), np.int64)
    by_rank[rank] = documents
    # In place, for the memory: mode="clip" is what lets `take` write where it is told without a copy of its own.
    np.take(by_rank, representatives, out=representatives, mode="clip")
    np.take(representatives, rank, out=by_rank, mode="clip")
    return Survivors(documents=documents, representatives=by_rank, matches=matches[rank])


def components(count: int, pairs: Iterable[tuple[Documents, Documents]]) -> Documents:
    """For each of `count` documents the one that datatrove 0.10.1's `MinhashDedupCluster` keeps of its cluster.

    `pairs` are blocks of (first, second) in datatrove's sequence (`candidates.chained_pairs`). Union by size, where
    equal the root of the pair's first document stays: every choice depends on the sequence, so it is the whole input.
    Matches against an index are not among the pairs.
    """
    forest = np.full(count, -1, np.int64)
    for first, second in pairs:
        for end in (first, second):
            if len(end) and not 0 <= end.min() <= end.max() < count:
                raise ValueError(f"pairs name documents {end.min()} to {end.max()} of {count}")
        kernels.joined(forest, first, second)
    kernels.rooted(forest)
    return forest


def smallest_members(representatives: Documents) -> Documents:
    """For each document the smallest of its cluster, given any representative of it."""
    smallest = np.full(len(representatives), -1, np.int64)
    kernels.smallest_of(representatives, smallest)
    return smallest


def cluster_sizes(representatives: Documents) -> Documents:
    """For each document how many its cluster has, itself among them; representatives lie in [0, documents)."""
    return np.bincount(representatives, minlength=len(representatives))[representatives]


def cluster_ids(representatives: Documents) -> Documents:
    """Clusters of two documents or more numbered by their smallest document, as datatrove numbers them; else -1."""
    smallest = smallest_members(representatives)
    heads = np.flatnonzero((smallest == np.arange(len(smallest))) & (cluster_sizes(smallest) > 1))
    ids = np.full(len(smallest), -1, np.int64)
    ids[heads] = np.arange(len(heads))
    return ids[smallest]


HYDRATION = ((1, 1), (2, 2), (3, 3), (5, 5), (100, 8), (1000, 1))
"""(least cluster size, weight): FineWeb-2's `fineweb-2-pipeline.py` repeats a kept document so often by how many copies
it had; very large clusters are templates.
"""


def rehydration_weights(sizes: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """How often FineWeb-2 repeats a kept document whose cluster has so many, 1 or more."""
    least, weights = (np.array(column) for column in zip(*HYDRATION, strict=True))
    repeats: npt.NDArray[np.uint8] = weights[np.searchsorted(least, sizes, side="right") - 1].astype(np.uint8)
    return repeats
