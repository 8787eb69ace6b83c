"""Compiled loops over buckets, pairs, sketches, edges and forests.

They allocate nothing that grows with the documents: callers give them the arrays they fill. None checks an index;
`candidates`, `sketch` and `survivors` do, before they call.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from filters.kernels import compiled

Documents = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Sketches = npt.NDArray[np.uint16]
Locals = npt.NDArray[np.uint32]

INSERTED = 16
"""Runs of up to so many rows are sorted by insertion, longer ones by a heap: most buckets hold two documents."""


@compiled
def packed(hashes: Hashes, least: np.uint64, dropped: np.uint64, bits: np.uint64) -> Hashes:
    """The upper bits of each hash above `bits` bits of its place: sorting these sorts the places by hash."""
    keys = np.empty(len(hashes), np.uint64)
    for place in range(len(hashes)):
        keys[place] = ((hashes[place] - least) >> dropped) << bits | np.uint64(place)
    return keys


@compiled
def runs_of(keys: Hashes, bits: np.uint64, places: Documents, starts: Counts) -> tuple[int, int]:
    """Unpack the runs of two or more sorted keys whose upper bits are equal; return (places, runs) written.

    `places` has room for every key, `starts` for half as many and one.
    """
    mask = (np.uint64(1) << bits) - np.uint64(1)
    written, runs, at = 0, 0, 0
    while at < len(keys):
        end = at + 1
        while end < len(keys) and keys[end] >> bits == keys[at] >> bits:
            end += 1
        if end - at > 1:
            starts[runs] = written
            runs += 1
            for one in range(at, end):
                places[written] = np.int64(keys[one] & mask)
                written += 1
        at = end
    starts[runs] = written
    return written, runs


@compiled
def compared(hashes: Hashes, values: Hashes, width: int, one: int, other: int) -> int:
    """-1, 0 or 1 as the row at `one` comes before, with or after that at `other`: by hash, then by `width` values."""
    if hashes[one] != hashes[other]:
        return -1 if hashes[one] < hashes[other] else 1
    for column in range(width):
        if values[one, column] != values[other, column]:
            return -1 if values[one, column] < values[other, column] else 1
    return 0


@compiled
def precedes(hashes: Hashes, values: Hashes, documents: Documents, one: int, other: int) -> bool:
    """Whether a row comes before another: by hash, then by its values, then by document."""
    order = compared(hashes, values, values.shape[1], one, other)
    return order < 0 or (order == 0 and documents[one] < documents[other])


@compiled
def sifted(heap: Documents, at: int, end: int, hashes: Hashes, values: Hashes, documents: Documents) -> None:
    """Let the place at `at` sink among the first `end` until none below it comes after it."""
    while True:
        child = 2 * at + 1
        if child >= end:
            return
        if child + 1 < end and precedes(hashes, values, documents, heap[child], heap[child + 1]):
            child += 1
        if not precedes(hashes, values, documents, heap[at], heap[child]):
            return
        heap[at], heap[child] = heap[child], heap[at]
        at = child


@compiled
def heap_sorted(heap: Documents, hashes: Hashes, values: Hashes, documents: Documents) -> None:
    """Sort a run of places of any length n in n log n steps and no memory."""
    for at in range(len(heap) // 2 - 1, -1, -1):
        sifted(heap, at, len(heap), hashes, values, documents)
    for end in range(len(heap) - 1, 0, -1):
        heap[0], heap[end] = heap[end], heap[0]
        sifted(heap, 0, end, hashes, values, documents)


@compiled
def runs_sorted(places: Documents, runs: Counts, hashes: Hashes, values: Hashes, documents: Documents) -> None:
    """Sort every run places[runs[k] : runs[k + 1]] by hash, values and document."""
    for index in range(len(runs) - 1):
        first, last = runs[index], runs[index + 1]
        if last - first > INSERTED:
            heap_sorted(places[first:last], hashes, values, documents)
            continue
        for at in range(first + 1, last):  # not a function of its own: a call costs as much as a run of two
            place, back = places[at], at
            while back > first and precedes(hashes, values, documents, place, places[back - 1]):
                places[back] = places[back - 1]
                back -= 1
            if back != at:
                places[back] = place


@compiled
def buckets_in(
    places: Documents,
    runs: Counts,
    hashes: Hashes,
    values: Hashes,
    documents: Documents,
    width: int,
    members: Documents,
    starts: Counts,
) -> tuple[int, int, int]:
    """Cut sorted runs into buckets; return (members, buckets, buckets of one document) found.

    Rows are of one bucket where hash and the first `width` values are equal. A document comes once in a bucket; buckets
    of one are counted, not written.
    """
    written, buckets, lonely = 0, 0, 0
    for index in range(len(runs) - 1):
        begin = written
        for at in range(runs[index], runs[index + 1]):
            document = documents[places[at]]
            if at > runs[index] and compared(hashes, values, width, places[at - 1], places[at]) != 0:
                if written - begin > 1:
                    starts[buckets] = begin
                    buckets += 1
                else:
                    lonely += 1
                    written = begin
                begin = written
            if written == begin or members[written - 1] != document:
                members[written] = document
                written += 1
        if written - begin > 1:
            starts[buckets] = begin
            buckets += 1
        else:
            lonely += 1
            written = begin
    starts[buckets] = written
    return written, buckets, lonely


@compiled
def pairs_in(local: Locals, starts: Counts, caps: Counts, bucket: int, at: int, keys: Hashes) -> tuple[int, int, int]:
    """Pair every member of a bucket with the first min(place in bucket, cap) before it, until `keys` is full.

    Begins at member `at` of `bucket`; returns (pairs written, bucket, at) to go on from. A key is the later member's
    local number above the preferred one's, and never pairs a document with itself. `keys` has room for a cap.
    """
    written = 0
    while bucket < len(starts) - 1:
        begin, cap = starts[bucket], caps[bucket]
        while begin + at < starts[bucket + 1]:
            before = min(at, cap)
            if written + before > len(keys):
                return written, bucket, at
            second = np.uint64(local[begin + at]) << np.uint64(32)
            for hub in range(begin, begin + before):
                if local[hub] != local[begin + at]:
                    keys[written] = second | np.uint64(local[hub])
                    written += 1
            at += 1
        bucket, at = bucket + 1, 0
    return written, bucket, at


@compiled
def distinct(keys: Hashes) -> int:
    """Move each value of sorted keys to the front once; return how many there are."""
    written = 0
    for at in range(len(keys)):
        if at == 0 or keys[at] != keys[at - 1]:
            keys[written] = keys[at]
            written += 1
    return written


@compiled
def agreeing(left: Sketches, right: Sketches, first: Documents, second: Documents, matches: Sketches) -> None:
    """For each pair, in how many places row `first` of `left` equals row `second` of `right`."""
    for pair in range(len(first)):
        one, other = left[first[pair]], right[second[pair]]
        count = 0
        for place in range(len(one)):
            count += one[place] == other[place]
        matches[pair] = count


@compiled
def cells_of(documents: Documents, shift: np.uint64, cells: Counts) -> None:
    """Where the sorted documents of each cell begin, those of equal (document - the least) >> shift, and their end."""
    at = 0
    for cell in range(len(cells) - 1):
        while at < len(documents) and np.int64(np.uint64(documents[at] - documents[0]) >> shift) < cell:
            at += 1
        cells[cell] = at
    cells[len(cells) - 1] = len(documents)


@compiled
def placed(wanted: Documents, documents: Documents, shift: np.uint64, cells: Counts, places: Documents) -> int:
    """Where each wanted document is, by bisection within its cell; return the first that is not there, or their number.

    All of them lie between the first document and the last.
    """
    for index in range(len(wanted)):
        cell = np.int64(np.uint64(wanted[index] - documents[0]) >> shift)
        low, high = cells[cell], cells[cell + 1]
        while low < high:
            middle = (low + high) // 2
            if documents[middle] < wanted[index]:
                low = middle + 1
            else:
                high = middle
        if documents[low] != wanted[index]:
            return index
        places[index] = low
    return len(wanted)


@compiled
def fallen(first: Documents, second: Documents, matches: Sketches, representatives: Documents, best: Sketches) -> int:
    """Greedy choice over edges sorted by `second`: return the first edge that is out of order, or how many there are.

    `representatives` begins as each document's own number: that document is kept.
    """
    for edge in range(len(first)):
        one, other = first[edge], second[edge]
        if one >= other or (edge and other < second[edge - 1]):
            return edge
        if representatives[one] != one:
            continue
        kept = representatives[other] == other
        if kept or matches[edge] > best[other] or (matches[edge] == best[other] and one < representatives[other]):
            representatives[other] = one
            best[other] = matches[edge]
    return len(first)


@compiled
def root_of(forest: Documents, node: int) -> int:
    """The root of a node's tree; nodes on the way skip their parent (path halving: Tarjan and van Leeuwen 1984)."""
    while forest[node] >= 0:
        parent = forest[node]
        if forest[parent] >= 0:
            forest[node] = forest[parent]
        node = parent
    return node


@compiled
def joined(forest: Documents, first: Documents, second: Documents) -> None:
    """Join the trees of each pair, in order: the smaller below the larger, the second's below the first's if equal.

    A root holds its tree's size, negated; any other node its parent.
    """
    for pair in range(len(first)):
        one, other = root_of(forest, first[pair]), root_of(forest, second[pair])
        if one != other:
            if forest[one] > forest[other]:
                one, other = other, one
            forest[one] += forest[other]
            forest[other] = one


@compiled
def rooted(forest: Documents) -> None:
    """Write into every node its root, into a root itself."""
    for node in range(len(forest)):
        if forest[node] >= 0:
            forest[node] = root_of(forest, node)
    for node in range(len(forest)):
        if forest[node] < 0:
            forest[node] = node


@compiled
def smallest_of(roots: Documents, smallest: Documents) -> None:
    """For each node the smallest node with its root; `smallest` begins as -1 everywhere."""
    for node in range(len(roots)):
        if smallest[roots[node]] < 0:
            smallest[roots[node]] = node
    for node in range(len(roots)):
        if roots[node] != node:
            smallest[node] = smallest[roots[node]]
