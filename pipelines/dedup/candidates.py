"""Which documents share a bucket, and which pairs of them are worth comparing.

In: rows of (hash, order, document), in any sequence; rows of one hash are a bucket, a document's rows have one order.
Out: pairs (first, second) of documents that share a bucket, the first preferred by (order, document). Rows may be those
of one range of hashes: a bucket lies in one range. A pair of several buckets comes once from one call, and again from
the next range: `distinct_pairs` merges. Memory is 25 to 50 bytes a row, pairs included, where buckets are small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.dedup import kernels_clusters as kernels

Documents = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

CAP = 64
BUCKET_PAIRS = 1 << 26
"""Pairs of one bucket, about: a million documents have a cap of 64, and from 2^25 documents on it is one."""
BLOCK_PAIRS = 1 << 22
"""Pairs made at a time: 32 MiB, and 64 MiB as they are given."""
HALF = np.uint64(32)
LOWER_HALF = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, kw_only=True, eq=False)
class Buckets:
    """Buckets of two documents or more: `documents` (m,), one bucket after another by hash, each by (order, document);
    bucket k is documents[starts[k] : starts[k + 1]]. `lonely` is the number of buckets of one document.
    """

    documents: Documents
    starts: Documents
    lonely: int

    @property
    def sizes(self) -> Documents:
        """Documents in each bucket, shape (buckets,)."""
        return np.diff(self.starts)

    def caps(self, cap: int, bucket_pairs: int) -> Documents:
        """With how many preferred documents each bucket compares: `cap`, less where that makes too many pairs."""
        return np.minimum(cap, np.maximum(1, bucket_pairs // self.sizes))


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Distinct pairs sorted by (second, first), both shape (pairs,), and what became of the buckets.

    `counts[k]` buckets have `sizes[k]` documents. Of the pairs within buckets, a pair of two buckets counted twice,
    `compared` were made and `left_out` were not, for the cap.
    """

    first: Documents
    second: Documents
    sizes: Documents
    counts: Documents
    compared: int
    left_out: int

    @property
    def says(self) -> dict[str, Any]:
        """The figures as JSON has them: buckets by size, pairs compared and left out."""
        buckets = dict(zip(map(str, self.sizes.tolist()), self.counts.tolist(), strict=True))
        return {"buckets": buckets, "compared": self.compared, "left_out": self.left_out}


def candidate_pairs(
    hashes: Hashes, documents: Documents, order: Hashes, *, cap: int = CAP, bucket_pairs: int = BUCKET_PAIRS
) -> Candidates:
    """Each document of a bucket paired with the first `cap` before it, so with all of them in buckets of cap + 1.

    What the cap costs: a document far down a larger bucket is missed if none of the bucket's `cap` preferred documents
    resembles it, and no other band brings them together. A bucket of n has at most max(n, bucket_pairs) pairs.
    """
    buckets = buckets_of(hashes, documents, order)
    numbers, local = _numbered(buckets)
    blocks = list(_key_blocks(local, buckets, buckets.caps(cap, bucket_pairs), BLOCK_PAIRS))
    first, second = _unpacked(blocks[0] if len(blocks) == 1 else _once(np.concatenate(blocks)), numbers)
    compared, left_out = pairs_counted(buckets, cap=cap, bucket_pairs=bucket_pairs)
    sizes, counts = histogram(buckets)
    return Candidates(first=first, second=second, sizes=sizes, counts=counts, compared=compared, left_out=left_out)


def chained_pairs(hashes: Hashes, values: Hashes, documents: Documents) -> tuple[Documents, Documents]:
    """The pairs of datatrove 0.10.1's `MinhashDedupBuckets`, in its sequence: neighbours in the merge of all rows.

    `values`, shape (rows, k), are the k minima of a band; `hashes` do not fall where (band, minima) rise, as
    `merge_hashes` does not. Documents are numbered by (file, place in it). Pairs of ascending ranges of hashes, one
    range after the other, are datatrove's whole sequence. With any other hashes, and k = 0, the clusters that these
    pairs join are the same, but not which document `survivors.components` keeps of each: that hangs on the sequence.
    """
    buckets = _buckets(hashes, values, documents, values.shape[1])
    within = np.ones(max(0, len(buckets.documents) - 1), np.bool_)
    within[buckets.starts[1:-1] - 1] = False
    return buckets.documents[:-1][within], buckets.documents[1:][within]


def merge_hashes(values: Hashes, bands: int) -> Hashes:
    """For signatures (n, bands * rows), shape (n, bands): the number of the band above the leading bits of its first
    minimum. They rise as datatrove's merge goes on: by band, and within it by minima, which are below 2^61.
    """
    lead = values.reshape(len(values), bands, -1)[:, :, 0]
    above = np.uint64((bands - 1).bit_length())
    number = np.arange(bands, dtype=np.uint64)
    if bands == 1:
        return lead << np.uint64(3)
    return number << (np.uint64(64) - above) | lead << np.uint64(3) >> above


def buckets_of(hashes: Hashes, documents: Documents, order: Hashes) -> Buckets:
    """The buckets of two documents or more among these rows."""
    return _buckets(hashes, order.reshape(-1, 1), documents, 0)


def _buckets(hashes: Hashes, values: Hashes, documents: Documents, width: int) -> Buckets:
    """Buckets of equal hash and first `width` values, in the sequence of (hash, values, document)."""
    rows = len(hashes)
    if not len(values) == len(documents) == rows:
        raise ValueError(f"rows differ: {rows} hashes, {len(values)} values, {len(documents)} documents")
    places, runs = _runs(hashes)
    members = np.empty(len(places), np.int64)
    starts = np.empty(len(places) // 2 + 1, np.int64)
    kernels.runs_sorted(places, runs, hashes, values, documents)
    found, buckets, lonely = kernels.buckets_in(places, runs, hashes, values, documents, width, members, starts)
    return Buckets(documents=members[:found], starts=starts[: buckets + 1], lonely=lonely + rows - len(places))


def _runs(hashes: Hashes) -> tuple[Documents, Documents]:
    """Places of rows whose hashes agree in their upper bits, run after run, and where the runs start.

    The place rides in the lower bits of the hash that is sorted, which is four times as fast as an argsort; a million
    rows leave 44 bits, in which some thirty thousandth of a pair of random hashes agrees by chance.
    """
    rows = len(hashes)
    if not rows:
        return np.zeros(0, np.int64), np.zeros(1, np.int64)
    bits = (rows - 1).bit_length()
    least = hashes.min()
    dropped = max(0, int(hashes.max() - least).bit_length() + bits - 64)
    keys = kernels.packed(hashes, least, np.uint64(dropped), np.uint64(bits))
    keys.sort()
    places = np.empty(rows, np.int64)
    starts = np.empty(rows // 2 + 1, np.int64)
    found, runs = kernels.runs_of(keys, np.uint64(bits), places, starts)
    return places[:found].copy(), starts[: runs + 1].copy()


def pair_blocks(
    buckets: Buckets, *, cap: int = CAP, bucket_pairs: int = BUCKET_PAIRS, block_pairs: int = BLOCK_PAIRS
) -> Iterator[tuple[Documents, Documents]]:
    """(first, second) of at most `block_pairs` pairs at a time, at least once: each block distinct and sorted by
    (second, first), the same pair again in another block where the two share several buckets.
    """
    numbers, local = _numbered(buckets)
    for keys in _key_blocks(local, buckets, buckets.caps(cap, bucket_pairs), block_pairs):
        yield _unpacked(keys, numbers)


def _numbered(buckets: Buckets) -> tuple[Documents, npt.NDArray[np.uint32]]:
    """The documents of buckets, sorted, and where each member of a bucket is among them: half a key of a pair."""
    numbers, local = np.unique(buckets.documents, return_inverse=True)
    if len(numbers) > 1 << 32:
        raise ValueError(f"{len(numbers)} documents in buckets at once: at most 2^32; take smaller ranges of hashes")
    return numbers, local.astype(np.uint32)


def _key_blocks(local: npt.NDArray[np.uint32], buckets: Buckets, caps: Documents, block_pairs: int) -> Iterator[Hashes]:
    """Keys of at most `block_pairs` pairs at a time, at least once, each block sorted and distinct."""
    if len(caps) and not 1 <= caps.max() <= block_pairs:
        raise ValueError(f"a cap of {caps.max()}: at least 1, and at most the {block_pairs} pairs of a block")
    room = min(block_pairs, int(_compared(buckets.sizes, caps).sum()))
    bucket, at = 0, 0
    while True:
        keys = np.empty(room, np.uint64)
        found, bucket, at = kernels.pairs_in(local, buckets.starts, caps, bucket, at, keys)
        yield _once(keys[:found])
        if bucket == len(caps):
            return


def _once(keys: Hashes) -> Hashes:
    """Sort these keys in place, and return each once."""
    keys.sort()
    return keys[: kernels.distinct(keys)].copy()


def _unpacked(keys: Hashes, numbers: Documents) -> tuple[Documents, Documents]:
    """(first, second) of keys that hold the second's place among `numbers` above the first's."""
    return numbers[keys & LOWER_HALF], numbers[keys >> HALF]


def distinct_pairs(first: Documents, second: Documents) -> tuple[Documents, Documents]:
    """Each pair once, sorted by (second, first). One key holds both, counted from the least of each end."""
    if not len(first):
        return first, second
    least, others = first.min(), second.min()
    bits = (int(first.max()) - int(least)).bit_length()
    if bits + (int(second.max()) - int(others)).bit_length() > 64:
        return _sorted_distinct(first, second)
    keys = _once((second - others).astype(np.uint64) << np.uint64(bits) | (first - least).astype(np.uint64))
    mask = np.uint64((1 << bits) - 1)
    return (keys & mask).astype(np.int64) + least, (keys >> np.uint64(bits)).astype(np.int64) + others


def _sorted_distinct(first: Documents, second: Documents) -> tuple[Documents, Documents]:
    """`distinct_pairs` of documents that lie too far apart for one key: ten times slower."""
    order = np.lexsort((first, second))
    first, second = first[order], second[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return first[new], second[new]


def pairs_counted(buckets: Buckets, *, cap: int = CAP, bucket_pairs: int = BUCKET_PAIRS) -> tuple[int, int]:
    """How many pairs within buckets are compared, and how many the cap leaves out."""
    sizes = buckets.sizes
    compared = int(_compared(sizes, buckets.caps(cap, bucket_pairs)).sum())
    return compared, int((sizes * (sizes - 1) // 2).sum()) - compared


def _compared(sizes: Documents, caps: Documents) -> Documents:
    """Pairs of each bucket that are compared."""
    before = np.minimum(caps, sizes - 1)
    pairs: Documents = before * (before + 1) // 2 + (sizes - 1 - before) * before
    return pairs


def histogram(buckets: Buckets) -> tuple[Documents, Documents]:
    """Sizes of buckets, rising, and how many buckets have each, those of one document among them."""
    sizes, counts = np.unique(buckets.sizes, return_counts=True)
    if buckets.lonely:
        sizes, counts = np.append(1, sizes), np.append(buckets.lonely, counts)
    return sizes.astype(np.int64), counts.astype(np.int64)
