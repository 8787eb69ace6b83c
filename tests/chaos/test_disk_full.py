"""A disk that fills up, at every stage: a clear error, nothing half committed, and the same command ends the work.

The disk is a tmpfs of the size that is wanted, so these tests need the right to mount one.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from infra.commit import check_file, read_manifest
from infra.store import open_store
from tests.chaos.oracle import assert_whole, command, run, stored

Disk = Callable[[str, int], Path]
ENOUGH = 16 << 10
# KiB. The whole output takes about 540: these end the run while it cuts, in its first tasks, in its middle, while it
# packs, and while it publishes.
SIZES = (4, 12, 48, 192, 448, 500, 512, 520, 528, 532, 536)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mount a disk of so many KiB; again under the same name to make it larger."""
    with ExitStack() as stack:

        def mounted(name: str, kib: int) -> Path:
            folder = tmp_path / name
            if folder.is_dir():
                mount("-o", f"remount,size={kib}k", str(folder))
                return folder
            folder.mkdir()
            try:
                mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder))
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f"cannot mount a tmpfs here: {error}")
            stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
            return folder

        yield mounted


def assert_clear(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode == 1, f"{said}: exit code {done.returncode}\n{done.stderr}"
    assert "space" in done.stderr.lower(), f"{said}\n{done.stderr}"
    assert "Traceback" not in done.stderr, f"{said}\n{done.stderr}"


def assert_committed_is_whole(out: str, said: str) -> None:
    """Every manifest can be read, and every file that it names is there to the byte."""
    store = open_store(out)
    manifests = [name for name in stored(out) if name.startswith("_work/manifests/") and name.endswith(".json")]
    for name in manifests:
        stage, task = name.removeprefix("_work/manifests/").removesuffix(".json").rsplit("/", 1)
        if not task.startswith("."):
            for entry in read_manifest(store, stage, task).files.values():
                check_file(store, entry)
    assert "run.json" not in stored(out), said


def filled_and_freed(disk: Disk, kib: int, crawl: Path, expected: str) -> Counter[str] | None:
    """Run on a disk of so many KiB, then on one that is large enough; return how many tasks of each stage the first
    did, or None where it ended.
    """
    said = f"{kib} KiB"
    out = str(disk(f"disk-{kib}", kib) / "out")
    first = run(command(crawl, out))
    if first.returncode == 0:
        return None
    assert_clear(first, said)
    assert_committed_is_whole(out, said)
    reached = Counter(name.split("/")[2] for name in stored(out) if name.startswith("_work/manifests/"))
    disk(f"disk-{kib}", ENOUGH)
    again = run(command(crawl, out))
    assert again.returncode == 0, f"{said}\n{again.stderr}"
    assert json.loads(again.stdout)["dataset_sha256"] == expected, said
    assert_whole(out, expected, said)
    return reached


@pytest.mark.full
def test_a_run_that_fills_the_disk_is_ended_when_there_is_space(small_crawl: Path, disk: Disk, expected: str) -> None:
    assert filled_and_freed(disk, 96, small_crawl, expected) is not None


@pytest.mark.full
def test_a_disk_may_be_full_at_any_stage(small_crawl: Path, disk: Disk, expected: str) -> None:
    reached = {kib: filled_and_freed(disk, kib, small_crawl, expected) for kib in SIZES}
    print(reached)
    stages = {frozenset(done) for done in reached.values() if done is not None}
    assert stages == {frozenset(one) for one in (["cut"], ["cut", "process"], ["cut", "process", "pack"])}, reached


@pytest.mark.full
@pytest.mark.parametrize("kib", [4, 16])
def test_a_full_disk_under_scratch_files_is_named_and_leaves_nothing_in_the_bucket(
    small_crawl: Path, disk: Disk, bucket: str, expected: str, kib: int
) -> None:
    scratch = disk("scratch", kib)
    first = run(command(small_crawl, f"{bucket}/out"), TMPDIR=str(scratch))
    assert_clear(first, f"{kib} KiB")
    assert [path for path in scratch.rglob("*") if path.is_file()] == []
    assert not [name for name in stored(f"{bucket}/out") if name.startswith(("_work/attempts", "_work/lock"))]
    disk("scratch", ENOUGH)
    again = run(command(small_crawl, f"{bucket}/out"), TMPDIR=str(scratch))
    assert again.returncode == 0, again.stderr
    assert_whole(f"{bucket}/out", expected)
