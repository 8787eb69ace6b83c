"""What failures leave behind: `gc` removes every byte that nothing names, and none that something does."""

from __future__ import annotations

from pathlib import Path

import pytest

from filters.errors import GristmillError
from infra.commands import run_recipe
from infra.failpoints import VARIABLE
from infra.store import open_store
from infra.verify import collect
from pipelines.recipe import load_recipe
from tests.chaos.oracle import RECIPE, TASK_BYTES, assert_whole, command, named, run, stored

PLACES = ("attempt.begun", "attempt.written", "attempt.stored", "create.before", "create.after")


def fail(crawl: Path, out: str, counts: Path, faults: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run again and again with errors by chance, until there were so many."""
    places = ";".join(f"{name}=raise:EIO,p:0.2" for name in PLACES)
    made = 0
    with monkeypatch.context() as patch:
        patch.setenv(VARIABLE, f"seed=1;counts={counts};{places}")
        for attempt in range(4 * faults):
            try:
                # Another task size is another set of tasks: there is always something left to do, and to fail at.
                size = TASK_BYTES - 100 * (1 + attempt // 25)
                recipe = load_recipe(RECIPE)
                run_recipe(recipe, [str(crawl)], out, runner="inprocess", quiet=True, task_bytes=size)
            except GristmillError:
                made += 1
            if made == faults:
                return
    pytest.fail(f"{made} of {faults} runs failed")


def kill(crawl: Path, out: str, counts: Path) -> None:
    """Kill a run at each place once."""
    for name in PLACES:
        run(command(crawl, out), f"counts={counts};{name}=kill,at:1")


def assert_nothing_left_over(out: str) -> int:
    """Collect, and return how many bytes that removed; fail unless exactly what is named is left."""
    before, keep = stored(out), named(out)
    assert keep <= before.keys()
    collected = collect(open_store(out), older_than=0)
    after = stored(out)
    # The lock of a folder is a file that stays; of a bucket's, none is left when nobody works there.
    assert {name for name in after if name != "_work/lock" or "://" in out} == keep
    assert {name: after[name] for name in keep} == {name: before[name] for name in keep}
    gone = {name: size for name, size in before.items() if name not in after and not name.startswith("_work/lock")}
    if "://" not in out:
        folders = [path for path in (Path(out) / "_work" / "attempts").rglob("*") if path.is_dir()]
        assert [path for path in folders if not any(path.iterdir())] == []
    assert (collected.files, collected.bytes) == (len(gone), sum(gone.values()))
    return collected.bytes


def left_and_collected(
    crawl: Path, out: str, tmp_path: Path, expected: str, faults: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raised").mkdir()
    (tmp_path / "killed").mkdir()
    fail(crawl, out, tmp_path / "raised", faults, monkeypatch)
    kill(crawl, out, tmp_path / "killed")
    struck = sum(path.stat().st_size for path in tmp_path.glob("*ed/*.fired"))
    # Before the work has ended, nothing that it goes on with may be lost.
    before = assert_nothing_left_over(out)
    done = run(command(crawl, out))
    assert done.returncode == 0, done.stderr
    assert_whole(out, expected)
    after = assert_nothing_left_over(out)
    assert_whole(out, expected)
    print(f"{struck} faults; {before:,} + {after:,} bytes collected")
    assert struck >= faults + len(PLACES)
    assert before > 0


def test_gc_leaves_what_is_named_and_nothing_else(
    small_crawl: Path, tmp_path: Path, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counts").mkdir()
    out = str(tmp_path / "out")
    fail(small_crawl, out, tmp_path / "counts", 8, monkeypatch)
    assert assert_nothing_left_over(out) > 0
    made = run_recipe(load_recipe(RECIPE), [str(small_crawl)], out, runner="inprocess", quiet=True)
    assert made.dataset_sha256 == expected
    assert_nothing_left_over(out)
    assert_whole(out, expected)


@pytest.mark.full
def test_gc_after_a_hundred_faults_leaves_what_is_named_and_nothing_else(
    small_crawl: Path, tmp_path: Path, out: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_and_collected(small_crawl, out, tmp_path, expected, 100, monkeypatch)
