"""Ranges, bits and shares: nothing is left out, nothing comes twice, and no task holds more than it may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup import edges, ranges
from pipelines.dedup.fingerprints import write_sorted
from pipelines.dedup.ranges import HASHES, Range
from pipelines.dedup.step import NearDuplicates
from pipelines.storage import StoredFile

NEAR = NearDuplicates()
SOME = st.lists(st.integers(0, 60), max_size=80)


def covers(found: list[Range], values: int) -> bool:
    """Whether these ranges hold every value below `values` once, in order."""
    lows = [0, *(one.high + 1 for one in found)]
    return [one.low for one in found] == lows[:-1] and lows[-1] == values and all(one.low <= one.high for one in found)


@given(st.integers(1, HASHES), st.integers(1, 40))
def test_equal_ranges_cover_all_values_and_differ_by_one(values: int, count: int) -> None:
    found = ranges.equal_ranges(values, min(values, count))
    assert covers(found, values)
    widths = {one.high - one.low for one in found}
    assert max(widths) - min(widths) <= 1


@given(st.lists(st.one_of(st.integers(0, 5), st.integers(0, HASHES - 1)), max_size=40), st.integers(1, 12))
def test_ranges_between_a_sample_cover_all_hashes_with_as_many_of_it_each(sample: list[int], count: int) -> None:
    found = ranges.ranges_between(np.sort(np.array(sample, np.uint64)), count)
    assert covers(found, HASHES)
    assert len(found) <= count
    if len(set(sample)) == len(sample):  # else equal hashes, which no cut parts
        held = [sum(one.low <= value <= one.high for value in sample) for one in found]
        assert max(held) <= -(-len(sample) // count) + 1


@given(st.integers(1, 50), st.integers(1, 9), st.integers(-3, 60), st.integers(-3, 60))
def test_ranges_that_overlap_are_those_with_a_common_value(values: int, count: int, one: int, other: int) -> None:
    found = ranges.equal_ranges(values, min(count, values))
    within = Range(low=min(one, other), high=max(one, other))
    expected = [each for each in found if each.low <= within.high and each.high >= within.low]
    assert found[ranges.ranges_overlapping(found, within)] == expected
    assert found[ranges.ranges_overlapping(found, Range(low=one, high=one - 1))] in ([], *([each] for each in found))


@given(st.lists(st.lists(st.booleans(), max_size=30), max_size=5))
def test_bits_of_several_runs_lie_one_after_the_other(runs: list[list[bool]]) -> None:
    bits, first = ranges.bits_of((), sum(map(len, runs))), 0
    for run in runs:
        ranges.add_bits(bits, ranges.bits_of([np.flatnonzero(run)], len(run)), first)
        first += len(run)
    assert ranges.is_set(bits, np.arange(first)).tolist() == [one for run in runs for one in run]


@given(SOME, st.integers(1, 70), st.integers(1, 70), st.integers(1, 6), st.integers(1, 6))
def test_shares_hold_every_pair_once_and_no_more_than_a_task_may(
    firsts: list[int], count: int, cells: int, most_pairs: int, most_documents: int
) -> None:
    first = np.array([one for one in firsts if one < count], np.int64)
    second = np.arange(len(first))  # so that the parts of a cell are equal
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edges, "CELLS", cells)
        patch.setattr(edges, "PAIR_BYTES", most_pairs * (24 + 2 * NEAR.parameters.size))
        patch.setattr(edges, "SKETCH_BYTES", most_documents * 2 * NEAR.parameters.size)
        found = edges.shares_of_pairs(edges.counted(first, count, NEAR), count, NEAR)
        assert edges.most_pairs(NEAR) == most_pairs
        cell = edges.cell_of(count, NEAR)
    held = np.zeros(len(first), np.int64)
    for share in found:
        mine = (first >= share.within.low) & (first <= share.within.high)
        assert mine.any()
        assert share.within.high - share.within.low < max(most_documents, cell)
        assert share.parts > 1 or mine.sum() <= most_pairs
        assert -(-mine.sum() // share.parts) <= most_pairs
        held += mine & share.has(second)
    assert held.tolist() == [1] * len(first)


def stored(path: Path, tables: list[pa.Table]) -> StoredFile:
    write_sorted(path, tables)
    return StoredFile(url=str(path), bytes=path.stat().st_size)


@settings(deadline=None)
@given(st.lists(SOME, min_size=1, max_size=3), st.integers(0, 60), st.integers(0, 60))
def test_rows_within_a_range_are_found_in_blocks_that_are_sorted_each(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[list[int]], low: int, high: int
) -> None:
    tables = [pa.table({"place": np.sort(np.array(one, np.int64)), "row": np.arange(len(one))}) for one in blocks]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.dedup.fingerprints.GROUP_ROWS", 7)
        file = stored(tmp_path_factory.mktemp("rows") / "a.parquet", tables)
    found = ranges.rows_within(file, "place", Range(low=low, high=high), ["row"])
    whole = pa.concat_tables(tables).to_pylist()
    assert found.to_pylist() == [{"row": one["row"]} for one in whole if low <= one["place"] <= high]


def test_pairs_of_one_document_in_parts_make_the_edges_of_one_task(tmp_path: Path) -> None:
    """A document like two hundred others: its pairs are cut by the other document, on both sides."""
    near = NearDuplicates(bands=2, rows=4, threshold=0.5)
    rng = np.random.default_rng(3)
    sketches = np.tile(rng.integers(0, 9, 8), (201, 1)).astype("<u2")
    sketches[1:][rng.random((200, 8)) < 0.4] = 9
    columns: dict[str, Any] = {"order": np.arange(201, dtype=np.uint64)}
    columns["sketch"] = pa.array([row.tobytes() for row in sketches], pa.binary(16))
    files = {"signatures": stored(tmp_path / "signatures.parquet", [pa.table(columns)])}
    unit = ranges.Unit(first=0, rows=201, files=files)
    pairs = [pa.table({"first": np.zeros(200, np.int64), "second": np.arange(1, 201)}, ranges.PAIRS)]
    twice = [stored(tmp_path / f"pairs-{number}.parquet", pairs) for number in range(2)]
    whole = Range(low=0, high=200)

    def edges_in(parts: int) -> list[dict[str, Any]]:
        shares = [edges.Share(within=whole, part=part, parts=parts) for part in range(parts)]
        attached = [
            stored(
                tmp_path / f"attached-{parts}-{share.part}.parquet", list(edges.attached([unit], twice, share, near))
            )
            for share in shares
        ]
        found = [edges.edges_of([unit], attached, share, near, 0) for share in shares]
        assert sum(said["compared"] for _, said in found) == 200
        rows: list[dict[str, Any]] = pa.concat_tables([table for table, _ in found]).to_pylist()
        return sorted(rows, key=lambda row: row["second"])

    alone = edges_in(1)
    expected = np.flatnonzero((sketches[1:] == sketches[0]).sum(axis=1) >= 5) + 1
    assert [row["second"] for row in alone] == expected.tolist()
    assert 20 < len(alone) < 180
    assert edges_in(7) == alone
