"""One put-if-absent: a task's output exists if, and only if, its manifest does."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from filters.errors import CommitConflict, VerifyFailed
from infra.commit import (
    Manifest,
    check_file,
    commit,
    committed,
    create_if_absent,
    file_entry,
    manifest_path,
    new_attempt,
    read_manifest,
)
from infra.verify import collect
from pipelines.accounts import Accounts


def attempt(out: Path, text: str = "rows", *, task: str = "t1") -> Manifest:
    folder = new_attempt(out, task)
    (folder / "kept.parquet").write_text(text)
    return Manifest(
        stage="process",
        task=task,
        says={},
        files={"kept": file_entry(out, folder / "kept.parquet", 3)},
        accounts=Accounts(records=1, skipped={"request": 1}),
        measured={"seconds": len(text)},
    )


def create(path: Path, number: int) -> bool:
    return create_if_absent(path, b"%d" % number * 10_000)


def test_a_name_is_created_once_and_whole_under_racing_processes(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4) as pool:
        for name in range(20):
            path = tmp_path / str(name)
            won = list(pool.map(create, [path] * 6, range(6)))
            assert sum(won) == 1
            assert path.read_bytes() == b"%d" % won.index(True) * 10_000
    assert {path.name for path in tmp_path.iterdir()} == {str(name) for name in range(20)}


def test_a_manifest_survives_json_and_names_its_task(tmp_path: Path) -> None:
    made = commit(tmp_path, attempt(tmp_path))
    assert read_manifest(tmp_path, "process", "t1") == made
    assert committed(tmp_path, "process") == {"t1"}
    assert committed(tmp_path, "pack") == set()


def test_the_loser_of_a_race_with_the_same_bytes_takes_the_winners_manifest(tmp_path: Path) -> None:
    first = commit(tmp_path, attempt(tmp_path))
    second = attempt(tmp_path)
    assert second.files["kept"].path != first.files["kept"].path
    assert commit(tmp_path, second) == first


@pytest.mark.parametrize("change", ["bytes", "accounts"])
def test_the_loser_of_a_race_with_other_output_raises(tmp_path: Path, change: str) -> None:
    commit(tmp_path, attempt(tmp_path))
    other = attempt(tmp_path, "other rows") if change == "bytes" else replace(attempt(tmp_path), accounts=Accounts())
    with pytest.raises(CommitConflict, match="t1"):
        commit(tmp_path, other)


def test_where_a_deadline_struck_the_first_commit_wins(tmp_path: Path) -> None:
    first = commit(tmp_path, attempt(tmp_path))
    assert commit(tmp_path, replace(attempt(tmp_path, "other"), timing_dependent=True)) == first


def test_a_flipped_byte_and_a_lost_file_are_named(tmp_path: Path) -> None:
    made = commit(tmp_path, attempt(tmp_path))
    check_file(tmp_path, made.files["kept"])
    path = tmp_path / made.files["kept"].path
    path.write_text("rowz")
    with pytest.raises(VerifyFailed, match=r"kept\.parquet is not what was committed"):
        check_file(tmp_path, made.files["kept"])
    path.unlink()
    with pytest.raises(VerifyFailed, match=r"kept\.parquet is gone"):
        check_file(tmp_path, made.files["kept"])


def test_gc_removes_what_is_old_and_unreferenced_and_nothing_else(tmp_path: Path) -> None:
    made = commit(tmp_path, attempt(tmp_path))
    orphan = tmp_path / attempt(tmp_path, "orphan").files["kept"].path
    now = orphan.stat().st_mtime
    assert collect(tmp_path, older_than=3600, now=now).attempts == 0
    assert orphan.is_file()
    collected = collect(tmp_path, older_than=3600, now=now + 7200)
    assert (collected.attempts, collected.bytes) == (1, len("orphan"))
    assert not orphan.exists()
    check_file(tmp_path, made.files["kept"])
    assert manifest_path(tmp_path, "process", "t1").is_file()
