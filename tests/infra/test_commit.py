"""One put-if-absent: a task's output exists if, and only if, its manifest does."""

import errno
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from filters.errors import CommitConflict, InputError, OutputError, VerifyFailed
from infra.commit import Manifest, check_file, commit, committed, file_entry, read_manifest
from infra.holder import this_process
from infra.local_store import LocalStore
from infra.scratch import scratch
from infra.store import open_store
from infra.stored import LOCK, Store
from infra.verify import collect
from pipelines.accounts import Accounts


def attempt(store: Store, text: str = "rows", *, task: str = "t1") -> Manifest:
    with store.attempt(task) as made:
        path = made.folder / "kept.parquet"
        path.write_text(text)
        return Manifest(
            stage="process",
            task=task,
            says={},
            files={"kept": file_entry(store, made, path, 3)},
            accounts=Accounts(records=1, skipped={"request": 1}),
            measured={"seconds": len(text)},
        )


def create(root: Path, name: str, number: int) -> bool:
    return LocalStore(root).create(name, b"%d" % number * 10_000)


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A local folder, an object store in memory, and a real one: one contract."""
    if request.param == "local":
        return LocalStore(tmp_path / "out")
    if request.param == "s3":
        return open_store(f"{request.getfixturevalue('bucket')}/out")
    return open_store(f"memory://{uuid.uuid4().hex}/out")


def test_a_name_is_created_once_and_whole_under_racing_processes(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4) as pool:
        for name in range(20):
            won = list(pool.map(create, [tmp_path] * 6, [str(name)] * 6, range(6)))
            assert sum(won) == 1
            assert (tmp_path / str(name)).read_bytes() == b"%d" % won.index(True) * 10_000
    assert {path.name for path in tmp_path.iterdir()} == {str(name) for name in range(20)}


def test_a_manifest_survives_json_and_names_its_task(store: Store) -> None:
    made = commit(store, attempt(store))
    assert read_manifest(store, "process", "t1") == made
    assert committed(store, "process") == {"t1"}
    assert committed(store, "pack") == set()


def test_the_loser_of_a_race_with_the_same_bytes_takes_the_winners_manifest(store: Store) -> None:
    first = commit(store, attempt(store))
    second = attempt(store)
    assert second.files["kept"].path != first.files["kept"].path
    assert commit(store, second) == first


@pytest.mark.parametrize("change", ["bytes", "accounts"])
def test_the_loser_of_a_race_with_other_output_raises(store: Store, change: str) -> None:
    commit(store, attempt(store))
    other = attempt(store, "other rows") if change == "bytes" else replace(attempt(store), accounts=Accounts())
    with pytest.raises(CommitConflict, match="t1"):
        commit(store, other)


def test_where_a_deadline_struck_the_first_commit_wins(store: Store) -> None:
    first = commit(store, attempt(store))
    assert commit(store, replace(attempt(store, "other"), timing_dependent=True)) == first


def test_a_flipped_byte_and_a_lost_file_are_named(store: Store) -> None:
    made = commit(store, attempt(store))
    entry = made.files["kept"]
    check_file(store, entry)
    store.replace(entry.path, b"rowz")
    with pytest.raises(VerifyFailed, match=r"kept\.parquet is not what was committed"):
        check_file(store, entry)
    store.remove([entry.path])
    with pytest.raises(VerifyFailed, match=r"kept\.parquet is gone"):
        check_file(store, entry)


@pytest.mark.parametrize("data", [b"ro", b"", b"rows and more"])
def test_a_file_of_another_length_is_named_at_once(store: Store, data: bytes) -> None:
    entry = commit(store, attempt(store)).files["kept"]
    store.replace(entry.path, data)
    started = time.monotonic()
    with pytest.raises(VerifyFailed, match=rf"kept\.parquet is not what was committed \({len(data)} bytes for 4"):
        check_file(store, entry)
    assert time.monotonic() - started < 10


def test_two_cuts_that_differ_are_a_conflict(store: Store) -> None:
    made = Manifest(stage="cut", task="t1", says={"starts": [10, 20]}, files={})
    commit(store, made)
    assert commit(store, replace(made, measured={"seconds": 1.0})) == made
    with pytest.raises(CommitConflict, match="cut task t1"):
        commit(store, replace(made, says={"starts": [10, 30]}))


def test_a_name_is_created_once_and_the_call_that_did_it_may_ask_again(store: Store) -> None:
    assert store.create("a/b.json", b"mine")
    assert not store.create("a/b.json", b"other")
    assert store.read("a/b.json") == b"mine"
    assert [(one.name, one.bytes) for one in store.listed("a")] == [("a/b.json", 4)]
    with pytest.raises(FileNotFoundError):
        store.read("a/c.json")


def test_a_folder_shows_the_files_that_it_is_told_and_no_others(store: Store) -> None:
    names = [attempt(store, text).files["kept"].path for text in ("one", "two")]
    store.show("dataset", [(names[0], "part-0.parquet"), (names[1], "part-1.parquet")])
    store.replace("dataset/README.md", b"a user's")
    store.show("dataset", [(names[1], "part-0.parquet")])
    assert {one.name for one in store.listed("dataset")} == {"dataset/part-0.parquet", "dataset/README.md"}
    assert store.read("dataset/part-0.parquet") == b"two"
    store.show("dataset", [(names[1], "part-0.parquet")])
    assert {one.name for one in store.listed("dataset")} == {"dataset/part-0.parquet", "dataset/README.md"}


def test_one_command_at_a_time_holds_a_store(store: Store) -> None:
    with (
        store.locked(take_over=False),
        pytest.raises(OutputError, match="works there"),
        store.locked(take_over=False),
    ):
        pass
    with store.locked(take_over=False):
        pass


def test_gc_removes_what_is_old_and_unreferenced_and_nothing_else(store: Store) -> None:
    with store.locked(take_over=False):
        made = commit(store, attempt(store))
    orphan = attempt(store, "orphan").files["kept"].path
    assert collect(store, older_than=3600).files == 0
    assert store.read(orphan) == b"orphan"
    collected = collect(store, older_than=-1)
    assert (collected.files, collected.bytes) == (1, len("orphan"))
    with pytest.raises(FileNotFoundError):
        store.read(orphan)
    check_file(store, made.files["kept"])
    assert committed(store, "process") == {"t1"}


def test_gc_keeps_the_lock_that_it_holds_and_removes_those_that_lead_nowhere(store: Store) -> None:
    with store.locked(take_over=False):
        store.create("_work/lock-0123", json.dumps(this_process()).encode())
    collected = collect(store, older_than=-1)
    assert collected.files == 1
    assert {one.name for one in store.listed("_work")} <= {LOCK}
    with store.locked(take_over=False):
        assert store.lock_names() >= {LOCK}


def test_gc_removes_empty_folders_of_attempts_that_are_old(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "out")
    with store.locked(take_over=False):
        commit(store, attempt(store))
    with pytest.raises(KeyError), store.attempt("failed") as made:
        raise KeyError
    with store.attempt("begun") as begun:
        old = time.time() - 7200
        for folder in (made.folder, made.folder.parent):
            os.utime(folder, (old, old))
        collect(store, older_than=3600)
        assert not made.folder.parent.exists()
        assert begun.folder.is_dir()


def test_gc_lists_a_store_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}/out")
    with store.locked(take_over=False):
        commit(store, attempt(store))
    found = MemoryFileSystem.find
    asked = []
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *args, **said: asked.append(args) or found(*args, **said))
    collect(store, older_than=-1)
    assert len(asked) == 1


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EACCES, errno.EIO])
def test_gc_removes_nothing_where_a_folder_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = LocalStore(tmp_path / "out")
    with store.locked(take_over=False):
        made = commit(store, attempt(store))
    scandir = os.scandir

    def failing(path: str | Path) -> object:
        if str(path).endswith("_work/manifests"):
            raise OSError(number, os.strerror(number), str(path))
        return scandir(path)

    with monkeypatch.context() as patch, pytest.raises(OutputError, match="manifests: cannot be used"):
        patch.setattr(os, "scandir", failing)
        collect(store, older_than=-1)
    check_file(store, made.files["kept"])


USES: list[tuple[str, Callable[[Store], object]]] = [
    ("read_bytes", lambda store: store.read("there")),
    ("unlink", lambda store: store.remove(["there"])),
    ("stat", lambda store: list(store.listed(""))),
    ("stat", lambda store: store.size("there")),
    ("iterdir", lambda store: store.top()),
    ("open", lambda store: store.open("there", 1)),
    ("open", lambda store: store.replace("there", b"")),
]


@pytest.mark.parametrize(("call", "use"), USES, ids=[str(number) for number in range(len(USES))])
def test_a_disk_that_fails_is_an_error_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, use: Callable[[Store], object]
) -> None:
    store = LocalStore(tmp_path)
    store.create("there", b"x")

    def failing(path: Path, *_: object, **__: object) -> object:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as patch, pytest.raises(OutputError, match="Input/output error"):
        patch.setattr(Path, call, failing)
        use(store)


def test_the_clock_of_a_folder_that_is_gone_is_an_error_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be used"):
        LocalStore(tmp_path / "gone").now()


def test_a_folder_that_fills_while_it_is_removed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.create("folder/there", b"x")

    def filled(path: Path) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))

    monkeypatch.setattr(Path, "rmdir", filled)
    store.remove(["folder/there"])
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOSPC])
def test_a_disk_that_fails_under_an_attempt_is_told_from_others(tmp_path: Path, number: int) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(OutputError, match="attempts/t1"), store.attempt("t1") as made:
        raise OSError(number, os.strerror(number), str(made.folder / "kept.parquet"))
    with pytest.raises(OSError, match=r"/elsewhere"), store.attempt("t1"):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/elsewhere")


def test_a_store_without_put_if_absent_is_refused_by_name() -> None:
    with pytest.raises(OutputError, match="sftp offers no put-if-absent"):
        open_store("sftp://host/folder")
    with pytest.raises(OutputError, match="no put-if-absent"):
        open_store("simplecache::s3://bucket/folder")


def test_a_store_that_overwrites_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def overwriting(self: MemoryFileSystem, path: str, value: bytes, mode: str = "overwrite") -> None:
        self.store[path] = MemoryFile(self, path, value)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", overwriting)
    with pytest.raises(OutputError, match="overwrites"), open_store("memory://careless/out").locked(take_over=False):
        pass


def test_a_store_that_holds_other_things_is_refused() -> None:
    MemoryFileSystem().pipe_file("/strange/out/thesis.doc", b"")
    with pytest.raises(OutputError, match=r"thesis\.doc"), open_store("memory://strange/out").locked(take_over=False):
        pass


@pytest.mark.parametrize("given", ["s3://", "s3:/bucket/out", "file://host/out"])
def test_what_is_neither_a_path_nor_a_url_is_refused(given: str) -> None:
    with pytest.raises(OutputError, match="BUCKET"):
        open_store(given)


@pytest.mark.parametrize("given", ["s3://KEY:canary@bucket/out", "simplecache::s3://KEY:canary@bucket/out"])
def test_a_store_with_credentials_in_its_name_is_refused_without_repeating_them(given: str) -> None:
    with pytest.raises(InputError) as caught:
        open_store(given)
    assert "canary" not in str(caught.value)


def test_gc_of_a_folder_that_is_no_output_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no output"):
        collect(LocalStore(tmp_path / "typo"), older_than=0)
    assert list(tmp_path.iterdir()) == []


def make_scratch(count: int) -> None:
    for _ in range(count):
        with scratch() as folder:
            (folder / "file").write_bytes(b"")


def test_scratch_of_many_processes_is_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with ProcessPoolExecutor(6, mp_context=get_context("spawn")) as pool:
        list(pool.map(make_scratch, [60] * 6))
    assert [path for path in tmp_path.iterdir() if "gristmill" in path.name] == []


def test_scratch_of_a_process_that_was_killed_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import os, tempfile; from infra.scratch import scratch; tempfile.tempdir = os.environ['T'];"
        "held = scratch(); held.__enter__(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"T": str(tmp_path)}, check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with scratch() as mine, scratch() as other:
        assert set(tmp_path.iterdir()) == {mine, other}
    assert list(tmp_path.iterdir()) == []
