"""Every pair that shares a bucket is found once, hubs only in large buckets; recall is that of the theory."""

from __future__ import annotations

import heapq
import time
import tracemalloc
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.dedup import candidates
from pipelines.dedup.sketch import candidate_chance

HASHES = st.sampled_from([0, 1, 5, 2**31, 2**63, 2**64 - 2, 2**64 - 1])
NUMBERS = st.sampled_from([0, 1, 2, 3, 7, 40, 2**32, 2**40])
ORDERS = st.sampled_from([0, 1, 2**64 - 1])
COMPILES = settings(deadline=None)  # the first example does
ROWS = st.lists(st.tuples(HASHES, NUMBERS), max_size=60)


def unsigned(values: list[int]) -> npt.NDArray[np.uint64]:
    return np.array(values, np.uint64)


def by_bucket(rows: list[tuple[int, int]], order: dict[int, int]) -> dict[int, list[int]]:
    buckets: dict[int, set[int]] = defaultdict(set)
    for hash_, document in rows:
        buckets[hash_].add(document)
    return {hash_: sorted(found, key=lambda one: (order[one], one)) for hash_, found in buckets.items()}


def columns(
    rows: list[tuple[int, int]], order: dict[int, int]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    documents = [document for _, document in rows]
    return (
        unsigned([hash_ for hash_, _ in rows]),
        np.array(documents, np.int64),
        unsigned([order[document] for document in documents]),
    )


@COMPILES
@given(ROWS, st.lists(ORDERS, min_size=8, max_size=8), st.integers(1, 5))
@example([(1, 0), (1, 0), (1, 1)], [0] * 8, 1)
@example([(2**64 - 1, one) for one in (0, 1, 2, 3, 7, 40)] * 4, [2, 1] * 4, 2)
def test_pairs_are_those_of_the_definition(rows: list[tuple[int, int]], orders: list[int], cap: int) -> None:
    order = dict(zip([0, 1, 2, 3, 7, 40, 2**32, 2**40], orders, strict=True))
    buckets = by_bucket(rows, order)
    expected = [
        (bucket[b], bucket[a]) for bucket in buckets.values() for b in range(len(bucket)) for a in range(min(b, cap))
    ]
    found = candidates.candidate_pairs(*columns(rows, order), cap=cap)
    assert list(zip(found.second.tolist(), found.first.tolist(), strict=True)) == sorted(set(expected))
    sizes = Counter(map(len, buckets.values()))
    assert dict(zip(found.sizes.tolist(), found.counts.tolist(), strict=True)) == sizes
    assert found.compared == len(expected)
    assert found.compared + found.left_out == sum(count * size * (size - 1) // 2 for size, count in sizes.items())


@COMPILES
@given(ROWS, st.randoms(use_true_random=False))
def test_the_sequence_of_rows_does_not_matter(rows: list[tuple[int, int]], random: object) -> None:
    order = {document: document % 3 for _, document in rows}
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    found, again = (candidates.candidate_pairs(*columns(some, order), cap=2) for some in (rows, shuffled))
    assert np.array_equal(found.first, again.first)
    assert np.array_equal(found.second, again.second)


@COMPILES
@given(ROWS, st.integers(3, 9))
def test_blocks_hold_the_same_pairs(rows: list[tuple[int, int]], block: int) -> None:
    order = {document: document % 3 for _, document in rows}
    hashes, documents, orders = columns(rows, order)
    whole = candidates.candidate_pairs(hashes, documents, orders, cap=3)
    buckets = candidates.buckets_of(hashes, documents, orders)
    blocks = list(candidates.pair_blocks(buckets, cap=3, block_pairs=block))
    assert all(len(first) == len(second) <= block for first, second in blocks)
    first, second = candidates.distinct_pairs(*(np.concatenate(ends) for ends in zip(*blocks, strict=True)))
    assert np.array_equal(first, whole.first)
    assert np.array_equal(second, whole.second)


@COMPILES
@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=40))
@example([(0, 2**32), (0, 2**32), (1, 0)])
def test_distinct_pairs_are_sorted_and_come_once(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    found = candidates.distinct_pairs(first, second)
    expected = sorted({(two, one) for one, two in pairs})
    assert list(zip(found[1].tolist(), found[0].tolist(), strict=True)) == expected
    slowly = candidates._sorted_distinct(first, second)
    assert all(np.array_equal(*ends) for ends in zip(found, slowly, strict=True))


MINIMA = st.lists(st.tuples(*[st.sampled_from([0, 1, 2**61 - 2])] * 3), min_size=1, max_size=12)


@COMPILES
@given(st.lists(MINIMA, min_size=1, max_size=4))
@example([[(1, 1, 1)] * 12, [(1, 1, 1), (1, 0, 1)] * 6])
def test_chained_pairs_are_neighbours_in_the_merge_of_sorted_files(files: list[list[tuple[int, int, int]]]) -> None:
    numbered = [(minima, (file, place)) for file, rows in enumerate(files) for place, minima in enumerate(rows)]
    number = {place: index for index, (_, place) in enumerate(numbered)}
    runs = [sorted(row for row in numbered if row[1][0] == file) for file in range(len(files))]
    merged = heapq.merge(*runs)
    expected = [(number[one[1]], number[two[1]]) for one, two in pairwise(merged) if one[0] == two[0]]
    values = unsigned([minimum for minima, _ in numbered for minimum in minima]).reshape(-1, 3)
    shuffled = np.random.default_rng(len(numbered)).permutation(len(values))
    first, second = candidates.chained_pairs(values[shuffled, 0].copy(), values[shuffled], shuffled)
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == expected


@pytest.mark.parametrize("bands", [1, 2, 14, 450])
def test_merge_hashes_rise_with_band_and_first_minimum(bands: int) -> None:
    rng = np.random.default_rng(bands)
    values = rng.integers(0, (1 << 61) - 1, (50, bands * 2), dtype=np.uint64)
    values[0], values[1] = 0, (1 << 61) - 2
    found = candidates.merge_hashes(values, bands)
    for band in range(bands):
        lead = values[:, 2 * band]
        ranked = found[np.argsort(lead), band]
        assert (ranked[1:] >= ranked[:-1]).all()
        assert band == 0 or found[:, band].min() > found[:, band - 1].max()
    assert len(np.unique(found)) > 49 * bands


def test_pairs_of_ranges_follow_one_another_as_in_one_range() -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 3, (300, 3 * 4), dtype=np.uint64) << np.uint64(58)
    hashes, bands = candidates.merge_hashes(values, 3).ravel(), values.reshape(-1, 4)
    documents = np.repeat(np.arange(300), 3)
    whole = candidates.chained_pairs(hashes, bands, documents)
    cuts = [0, *np.quantile(hashes, [0.2, 0.5, 0.9]).astype(np.uint64).tolist(), 2**64]
    parts = []
    for low, high in pairwise(cuts):
        inside = np.array([low <= hash_ < high for hash_ in hashes.tolist()])
        parts.append(candidates.chained_pairs(hashes[inside], bands[inside], documents[inside]))
    assert len(whole[0]) > 100
    for end, of_parts in zip(whole, zip(*parts, strict=True), strict=True):
        assert np.array_equal(end, np.concatenate(of_parts))


def planted_bands(rng: np.random.Generator, pairs: int, similarity: float) -> npt.NDArray[np.uint64]:
    """Hashes of 14 bands of 8 for documents 2k and 2k + 1 whose minima agree each with this chance: (2 * pairs, 14)."""
    minima = rng.integers(0, (1 << 61) - 1, (pairs, 2, 14, 8), dtype=np.uint64)
    equal = rng.random((pairs, 14, 8)) < similarity
    minima[:, 1][equal] = minima[:, 0][equal]
    weights = rng.integers(0, 1 << 63, (14, 8), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return np.asarray((minima * weights).sum(axis=-1, dtype=np.uint64).reshape(-1, 14))


@pytest.mark.parametrize("percent", range(50, 100, 5))
def test_recall_of_planted_pairs_is_that_of_the_theory(percent: int) -> None:
    pairs = 20_000
    hashes = planted_bands(np.random.default_rng(percent), pairs, percent / 100)
    documents = np.repeat(np.arange(2 * pairs), 14)
    found = candidates.candidate_pairs(hashes.ravel(), documents, np.zeros(len(documents), np.uint64))
    assert ((found.first ^ 1) == found.second).all()
    assert len(found.first) / pairs == pytest.approx(float(candidate_chance(percent / 100, bands=14, rows=8)), abs=0.01)


def identical(count: int) -> candidates.Buckets:
    """One bucket of so many documents, the most preferred numbered last."""
    documents = np.arange(count)
    return candidates.buckets_of(np.zeros(count, np.uint64), documents, (count - documents).astype(np.uint64))


def test_a_bucket_of_a_million_is_compared_with_its_hubs_in_bounded_memory() -> None:
    tracemalloc.start()
    buckets = identical(1_000_000)
    compared = 0
    for first, second in candidates.pair_blocks(buckets, bucket_pairs=4_000_000, block_pairs=1 << 18):
        assert first.min() >= 1_000_000 - 4
        assert (first > second).all()
        compared += len(first)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert compared == 4 * (1_000_000 - 4) + 6
    assert (compared, 499_999_500_000 - compared) == candidates.pairs_counted(buckets, bucket_pairs=4_000_000)
    assert peak < 64e6


@pytest.mark.full
def test_a_bucket_of_a_million_is_done_with_the_default_cap_in_bounded_time() -> None:
    identical(10)
    began = time.process_time()
    compared = sum(len(first) for first, _ in candidates.pair_blocks(identical(1_000_000)))
    assert compared == 64 * (1_000_000 - 64) + 64 * 63 // 2
    assert time.process_time() - began < 60


def test_a_document_is_never_paired_with_itself() -> None:
    """Not even where its two rows of one bucket have two orders, and another stands between them."""
    found = candidates.candidate_pairs(np.zeros(3, np.uint64), np.array([7, 7, 8]), unsigned([0, 2, 1]))
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(8, 7), (7, 8)]


def test_the_cap_falls_where_a_bucket_would_have_too_many_pairs() -> None:
    buckets = candidates.Buckets(documents=np.zeros(0, np.int64), starts=np.array([0, 2, 10**6, 10**9]), lonely=0)
    caps = buckets.caps(candidates.CAP, candidates.BUCKET_PAIRS)
    assert caps.tolist() == [64, 64, 1]


def test_ragged_rows_and_a_cap_of_nothing_are_refused() -> None:
    hashes = np.zeros(3, np.uint64)
    with pytest.raises(ValueError, match="rows differ"):
        candidates.candidate_pairs(hashes, np.arange(2), hashes)
    with pytest.raises(ValueError, match="cap of 0"):
        candidates.candidate_pairs(hashes, np.arange(3), hashes, cap=0)
    with pytest.raises(ValueError, match="cap of 64"):
        list(candidates.pair_blocks(candidates.buckets_of(hashes, np.arange(3), hashes), block_pairs=8))
