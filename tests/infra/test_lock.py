"""One command at a time holds a store: the lock is a chain that no late answer and no late ending breaks."""

import errno
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from filters.errors import OutputError
from infra.failpoints import VARIABLE
from infra.holder import this_process
from infra.store import open_store
from infra.stored import LOCK, Store


def test_a_lock_whose_process_is_gone_is_taken_over() -> None:
    code = "import json; from infra.holder import this_process; print(json.dumps(this_process()))"
    dead = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    store = open_store(f"memory://{uuid.uuid4().hex}/out")
    store.create(LOCK, json.dumps(dead).encode())
    with store.locked(take_over=False):
        pass
    assert list(store.listed("_work")) == []
    for change in ({"boot": "another machine"}, {"space": "pid:[another container]"}):
        store.create(LOCK, json.dumps(dead | change).encode())
        with pytest.raises(OutputError, match="--take-over"), store.locked(take_over=False):
            pass
        with store.locked(take_over=True):
            assert len(list(store.listed("_work"))) == 2
        assert list(store.listed("_work")) == []


def test_a_number_that_another_process_has_now_does_not_keep_a_lock() -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}/out")
    store.create(LOCK, json.dumps(this_process() | {"started": "1"}).encode())
    with store.locked(take_over=False):
        pass
    store.create(LOCK, json.dumps(this_process()).encode())
    with pytest.raises(OutputError, match="works there"), store.locked(take_over=False):
        pass


def test_of_two_that_take_over_one_gets_in_and_the_old_holder_cannot_let_a_third_in() -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}/out")
    with ExitStack() as old, ExitStack() as new:
        old.enter_context(store.locked(take_over=False))
        new.enter_context(store.locked(take_over=True))
        with pytest.raises(OutputError, match="works there"), store.locked(take_over=False):
            pass
        old.close()
        with pytest.raises(OutputError, match="works there"), store.locked(take_over=False):
            pass
    with store.locked(take_over=False):
        pass
    assert list(store.listed("_work")) == []


# The lock that is an object. It is an object in memory here, whose file system the tests make misbehave.

Call = Callable[[], object]


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Store:
    """A new store in memory, that is asked again at once."""
    monkeypatch.setattr("pipelines.patience.WAIT_SECONDS", 0.001)
    return open_store(f"memory://{uuid.uuid4().hex}/out")


def assert_held(store: Store) -> None:
    with pytest.raises(OutputError, match="works there"), store.locked(take_over=False):
        pass


def assert_free(store: Store) -> None:
    with store.locked(take_over=False):
        pass
    assert [one.name for one in store.listed("_work")] == []


def gone() -> dict[str, str]:
    """A process of this machine that is no more."""
    return this_process() | {"started": "1"}


def on_call(
    monkeypatch: pytest.MonkeyPatch, call: str, ending: str, act: Callable[[Call], object], *, number: int = 1
) -> None:
    """Have `act` do such a call, the one of this number, for a path that ends so; it is given the call as it was."""
    plain, calls = getattr(MemoryFileSystem, call), count(1)

    def patched(self: MemoryFileSystem, path: str, *args: object, **said: object) -> object:
        if not path.endswith(ending) or next(calls) != number:
            return plain(self, path, *args, **said)
        return act(lambda: plain(self, path, *args, **said))

    monkeypatch.setattr(MemoryFileSystem, call, patched)


def then(act: Call, call: Call) -> object:
    """What the call returns; `act` is done before it is returned."""
    said = call()
    act()
    return said


def test_a_holder_that_was_taken_over_removes_nobody_elses_lock(memory: Store) -> None:
    with ExitStack() as first, ExitStack() as third:
        first.enter_context(memory.locked(take_over=False))
        with memory.locked(take_over=True):
            pass
        third.enter_context(memory.locked(take_over=False))
        first.close()
        assert_held(memory)
    assert_free(memory)


def test_a_lock_whose_removal_was_done_and_not_answered_is_not_removed_twice(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as other:

        def lost(remove: Call) -> None:
            remove()
            other.enter_context(memory.locked(take_over=False))
            raise ConnectionResetError

        with memory.locked(take_over=False):
            on_call(monkeypatch, "rm_file", LOCK, lost)
        assert_held(memory)
    assert_free(memory)


def test_a_lock_is_let_go_from_its_root(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = gone()
    memory.create(LOCK, json.dumps(dead).encode())
    with ExitStack() as other:

        def late(remove: Call) -> None:
            time.sleep(0.3)
            remove()

        def followed(remove: Call) -> None:
            remove()
            other.enter_context(memory.locked(take_over=False))

        with memory.locked(take_over=False):
            on_call(monkeypatch, "rm_file", LOCK, late)
            on_call(monkeypatch, "rm_file", f"{LOCK}-{dead['mark']}", followed)
        assert_held(memory)
    assert_free(memory)


def test_who_joins_a_lock_that_is_being_let_go_begins_anew(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = gone()
    memory.create(LOCK, json.dumps(dead).encode())
    with ExitStack() as first:
        first.enter_context(memory.locked(take_over=False))
        # The newcomer looks whether the name is its own, then whose it is; before it succeeds that one, all is let go.
        on_call(monkeypatch, "cat_file", LOCK, partial(then, first.close), number=2)
        with memory.locked(take_over=False):
            assert [one.name for one in memory.listed("_work")] == [LOCK]
            assert_held(memory)
    assert_free(memory)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_a_lock_that_was_stored_and_not_answered_is_let_go(
    memory: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, interrupt: type[BaseException]
) -> None:
    def interrupted(store_it: Call) -> None:
        store_it()
        raise interrupt

    with monkeypatch.context() as patch:
        on_call(patch, "pipe_file", LOCK, interrupted)
        with pytest.raises(interrupt), memory.locked(take_over=False):
            pytest.fail("it is in")
    assert_free(memory)
    with monkeypatch.context() as patch:
        # The first put that succeeds is the probe's.
        patch.setenv(VARIABLE, f"counts={tmp_path};create.after=raise:EIO,at:2")
        with pytest.raises(OutputError, match="lock: cannot be used"), memory.locked(take_over=False):
            pytest.fail("it is in")
    assert_free(memory)


def test_who_could_not_join_a_lock_leaves_it_to_those_who_hold_it(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = gone()
    memory.create(LOCK, json.dumps(dead).encode())
    successor = f"{LOCK}-{dead['mark']}"
    with ExitStack() as other:

        def refused(store_it: Call) -> None:
            other.enter_context(memory.locked(take_over=False))
            on_call(monkeypatch, "cat_file", successor, refuse)
            raise PermissionError(errno.EACCES, "injected")

        def refuse(read: Call) -> None:
            raise PermissionError(errno.EACCES, "injected")

        on_call(monkeypatch, "pipe_file", successor, refused)
        with pytest.raises(OutputError, match="injected"), memory.locked(take_over=False):
            pytest.fail("it is in")
        assert_held(memory)
    assert_free(memory)


def test_a_lock_that_cannot_be_let_go_hides_no_error(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: MemoryFileSystem, path: str, **_: object) -> None:
        raise PermissionError(errno.EACCES, "injected")

    with pytest.raises(KeyError, match="the body's own"), memory.locked(take_over=False):
        monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
        raise KeyError("the body's own")
    monkeypatch.undo()
    with pytest.raises(OutputError, match="injected"), memory.locked(take_over=True):
        monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
