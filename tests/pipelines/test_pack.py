"""Packing: the same rows in the same order, however they were cut into tasks."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.pack import Part, Run, dataset_sha256, part_runs, parts, smallest, write_part, write_rows
from pipelines.resources import file_sha256
from pipelines.schema import DATASET, DROPPED, KEPT, row_groups, write_parquet
from pipelines.storage import StoredFile


def kept_rows(first: int, last: int) -> pa.RecordBatch:
    rows = [
        {
            "key": number.to_bytes(16, "big"),
            "offset": number,
            "inner": 0,
            "text": f"text {number} " * (number % 5),
            "id": str(number),
            "dump": "",
            "url": "u",
            "date": "",
            "file_path": "a.warc.gz",
            "language": "en",
            "language_score": 0.9,
            "token_count": None,
        }
        for number in range(first, last)
    ]
    return pa.RecordBatch.from_pylist(rows, KEPT)


def runs_of(folder: Path, cuts: list[int]) -> list[Run]:
    runs = []
    for number, (first, last) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
        path = folder / f"run-{number}.parquet"
        batch = kept_rows(first, last)
        write_parquet(path, [batch], KEPT)
        characters = sum(map(len, batch.column("text").to_pylist()))
        runs.append(Run(files=(stored(path),), content=path.name, rows=last - first, characters=characters))
    return runs


def stored(path: Path) -> StoredFile:
    return StoredFile(url=str(path), bytes=path.stat().st_size)


def cut_of(runs: list[Run], target_bytes: int) -> list[Part]:
    return parts(sum(run.rows for run in runs), sum(run.characters for run in runs), target_bytes=target_bytes)


def packed(folder: Path, cuts: list[int], target_bytes: int) -> list[str]:
    folder.mkdir(exist_ok=True, parents=True)
    runs = runs_of(folder, cuts)
    hashes = []
    for part, needed, skip in part_runs(cut_of(runs, target_bytes), runs):
        path = folder / f"part-{part.index}.parquet"
        assert (
            write_part(path, needed, skip=skip, rows=part.last - part.first, schema=DATASET) == part.last - part.first
        )
        hashes.append(file_sha256(path))
    return hashes


@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(1, 99)), target=st.sampled_from([200, 700, 10**6]))
def test_parts_do_not_depend_on_the_cut(tmp_path_factory, cuts: set[int], target: int) -> None:
    folder = tmp_path_factory.mktemp("pack")
    assert packed(folder / "cut", [0, *sorted(cuts), 100], target) == packed(folder / "whole", [0, 100], target)


def test_parts_hold_every_row_once_in_order(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, [0, 7, 7, 40, 100])
    cut = cut_of(runs, 500)
    assert len(cut) > 1
    assert [part.first for part in cut[1:]] == [part.last for part in cut[:-1]]
    ids = []
    for part, needed, skip in part_runs(cut, runs):
        write_part(tmp_path / "part.parquet", needed, skip=skip, rows=part.last - part.first, schema=DATASET)
        ids += pq.read_table(tmp_path / "part.parquet").column("id").to_pylist()
    assert ids == [str(number) for number in range(100)]


def test_nothing_kept_makes_one_empty_part_with_the_nine_columns(tmp_path: Path) -> None:
    (part,) = cut_of([], 100)
    write_part(tmp_path / "part.parquet", (), skip=0, rows=0, schema=DATASET)
    assert (part.first, part.last) == (0, 0)
    assert pq.read_schema(tmp_path / "part.parquet").names == DATASET.names
    assert pq.read_metadata(tmp_path / "part.parquet").num_rows == 0


def test_files_of_a_retry_are_merged_in_order(tmp_path: Path) -> None:
    write_parquet(tmp_path / "base.parquet", [kept_rows(0, 3), kept_rows(5, 9)], KEPT)
    write_parquet(tmp_path / "more.parquet", [kept_rows(3, 5)], KEPT)
    run = Run(files=(stored(tmp_path / "base.parquet"), stored(tmp_path / "more.parquet")), content="", rows=9)
    write_part(tmp_path / "part.parquet", [run], skip=1, rows=7, schema=DATASET)
    assert pq.read_table(tmp_path / "part.parquet").column("id").to_pylist() == [str(n) for n in range(1, 8)]


@settings(max_examples=25, deadline=None)
@given(
    gone=st.sets(st.integers(0, 29)),
    later=st.sets(st.integers(0, 29)),
    first=st.integers(0, 29),
    last=st.integers(0, 30),
)
def test_removed_rows_of_several_files_are_left_out_of_a_part(
    tmp_path_factory, gone: set[int], later: set[int], first: int, last: int
) -> None:
    """Thirty rows of which a retry brought some; rows of both files were removed, named by file and row."""
    folder = tmp_path_factory.mktemp("pack")
    numbers = [[one for one in range(30) if one not in later], sorted(later)]
    files, removed = [], []
    for index, some in enumerate(numbers):
        write_parquet(folder / f"{index}.parquet", [kept_rows(one, one + 1) for one in some], KEPT)
        files.append(stored(folder / f"{index}.parquet"))
        removed += [{"file": index, "row": row} for row, one in enumerate(some) if one in gone]
    kind = pa.schema([("file", pa.uint16()), ("row", pa.uint32())])
    pq.write_table(pa.Table.from_pylist(removed[::-1], kind), folder / "removed.parquet")
    run = Run(files=tuple(files), content="", rows=30 - len(gone), removed=stored(folder / "removed.parquet"))
    wanted = [str(one) for one in range(30) if one not in gone][first:last]
    path = folder / "part.parquet"
    assert write_part(path, [run], skip=first, rows=max(0, last - first), schema=DATASET) == len(wanted)
    assert pq.read_table(path).column("id").to_pylist() == wanted


def test_the_sample_is_of_smallest_keys_for_each_rule_whatever_the_cut(tmp_path: Path) -> None:
    def dropped(numbers: list[int]) -> pa.RecordBatch:
        rows = [
            {
                "key": (number * 7919 % 101).to_bytes(16, "big"),
                "offset": number,
                "inner": 0,
                "file_path": "a",
                "rule": "even" if number % 2 == 0 else "odd",
            }
            for number in numbers
        ]
        return pa.RecordBatch.from_pylist([{name: row.get(name) for name in DROPPED.names} for row in rows], DROPPED)

    chosen = []
    for cuts in ([0, 50], [0, 1, 20, 50]):
        runs = []
        for number, (first, last) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
            path = tmp_path / f"{len(cuts)}-{number}.parquet"
            write_parquet(path, [dropped(list(range(first, last)))], DROPPED)
            runs.append(Run(files=(stored(path),), content=path.name, rows=last - first))
        path = tmp_path / f"sample-{len(cuts)}.parquet"
        write_rows(path, runs, smallest(runs, column="rule", limit=3), DROPPED)
        chosen.append(pq.read_table(path))
    assert chosen[0].equals(chosen[1])
    for rule in ("even", "odd"):
        numbers = [n for n in range(50) if (n % 2 == 0) == (rule == "even")]
        expected = sorted(sorted(numbers, key=lambda n: n * 7919 % 101)[:3])
        rows = [row["offset"] for row in chosen[0].to_pylist() if row["rule"] == rule]
        assert rows == expected


def test_row_groups_depend_on_the_rows_and_not_on_the_batches() -> None:
    whole = [kept_rows(0, 100)]
    pieces = [kept_rows(0, 1), kept_rows(1, 64), kept_rows(64, 100)]
    assert [t.num_rows for t in row_groups(whole, KEPT)] == [t.num_rows for t in row_groups(pieces, KEPT)]


def test_the_dataset_hash_is_over_sorted_names() -> None:
    assert dataset_sha256([("b", "2"), ("a", "1")]) == dataset_sha256([("a", "1"), ("b", "2")])
    assert dataset_sha256([("a", "1")]) != dataset_sha256([("a", "2")])
