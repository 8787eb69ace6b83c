"""A stage through Ray, with a Ray that does what it is told: what is tried again, where, and what a person is told."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions

from filters.errors import (
    CommitConflict,
    GristmillError,
    InputChanged,
    InputError,
    OutputError,
    PreflightFailed,
    RecipeError,
    TaskFailed,
    VerifyFailed,
)
from infra import stage
from infra.commit import Manifest
from infra.local_store import LocalStore
from infra.places import Places
from infra.schedule import Patience
from infra.stage import FixedSize, LiveSize, Size, Stage
from infra.work import CutTask
from pipelines.accounts import Accounts
from pipelines.record import Source

GIB = 1 << 30
QUICK = Patience(rest_seconds=0.02, max_attempts=3)


@dataclass
class Begun:
    """An attempt that was handed to Ray."""

    number: int
    task: CutTask
    options: dict[str, Any]
    future: Future[Manifest]

    def ends(self) -> None:
        self.future.set_result(Manifest(stage="cut", task=self.task.id, says={}, files={}))

    def fails(self, cause: BaseException) -> None:
        self.future.set_exception(ray.exceptions.RayTaskError("perform_remotely", "line 7, in the worker", cause))


class FakeRay:
    """Ray, as far as a stage knows it. `does` is called with each attempt as it is handed over.

    The next `away` questions for beats fail; after each that does not, the next of `later` is called.
    """

    exceptions = ray.exceptions

    def __init__(self, does: Callable[[FakeRay, Begun], None], nodes: tuple[dict[str, Any], ...] = ()) -> None:
        self.does, self.up = does, nodes
        self.begun: list[Begun] = []
        self.beats: dict[int, tuple[bytes, str]] = {}
        self.cancelled: list[Any] = []
        self.away = 0
        self.later: list[Callable[[], None]] = []

    def beat(self, attempt: int, node: str, said: object = None) -> None:
        self.beats[attempt] = pickle.dumps(said), node

    def nodes(self) -> tuple[dict[str, Any], ...]:
        return self.up

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "0" * 56)

    def remote(self, **_: object) -> Callable[[object], Any]:
        reports = SimpleNamespace(take=SimpleNamespace(remote=lambda: "taken"))
        return lambda _: SimpleNamespace(remote=lambda: reports, options=lambda **given: Handed(self, given))

    def get(self, reference: object, timeout: float) -> dict[int, tuple[bytes, str]]:
        assert reference == "taken"
        if self.away:
            self.away -= 1
            raise ray.exceptions.ActorUnavailableError("it is being started again", None)
        taken, self.beats = self.beats, {}
        if self.later:
            self.later.pop(0)()
        return taken

    def cancel(self, reference: object, force: bool) -> None:
        self.cancelled.append(reference)

    def kill(self, actor: object) -> None:
        pass


@dataclass
class Handed:
    ray: FakeRay
    options: dict[str, Any]

    def remote(self, attempt: int, beat_seconds: float, check: object, task: bytes, reports: object) -> Any:
        begun = Begun(attempt, pickle.loads(task), self.options, Future())
        self.ray.begun.append(begun)
        self.ray.does(self.ray, begun)
        return SimpleNamespace(future=lambda: begun.future, number=attempt)


def node(name: str, *, cpus: float = 1, memory: float = 8 * GIB) -> dict[str, Any]:
    resources = {"CPU": cpus, "memory": memory} if cpus else {"memory": memory}
    return {"NodeID": name, "NodeManagerAddress": f"10.0.0.{name}", "Alive": True, "Resources": resources}


def a_task(number: int = 0) -> CutTask:
    source = Source(path=f"{number}.warc.gz", url=f"file:///{number}.warc.gz", size=1, version="etag")
    return CutTask(store=LocalStore(Path("/nowhere")), source=source, task_bytes=1)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "POLL_SECONDS", 0.005)


def run(
    fake: FakeRay,
    size: Size | None = None,
    *,
    count: int = 1,
    patience: Patience = QUICK,
    report: Callable[..., None] = lambda *_: None,
) -> Iterator[Manifest]:
    started = Stage(fake, None, size or LiveSize(fake), patience, None, cluster=True)
    return started.run([a_task(number) for number in range(count)], report)


OF_A_MACHINE = [
    OutputError("no space left on node-a: free some"),
    OSError(28, "No space left on device"),
    MemoryError(),
    PreflightFailed("node node-a: trafilatura is absent"),
    ValueError("who knows"),
]
OF_THE_RUN = [
    InputChanged("a.warc.gz has changed"),
    InputError("a.warc.gz cannot be opened"),
    RecipeError("no such rule"),
    CommitConflict("two attempts differ"),
    VerifyFailed("a file is gone"),
]


@pytest.mark.parametrize("error", OF_A_MACHINE, ids=lambda error: type(error).__name__)
def test_what_may_be_the_fault_of_one_machine_is_tried_again_on_another(error: Exception) -> None:
    def does(fake: FakeRay, begun: Begun) -> None:
        fake.beat(begun.number, "1" if begun.number == 1 else "2")
        begun.fails(error) if begun.number == 1 else begun.ends()

    fake = FakeRay(does, (node("1"), node("2"), node("3", cpus=0)))
    (manifest,) = run(fake)
    assert manifest.task == a_task().id
    first, second = fake.begun
    assert "label_selector" not in first.options
    assert second.options["label_selector"] == {"ray.io/node-id": "!in(1)"}


@pytest.mark.parametrize("error", OF_THE_RUN, ids=lambda error: type(error).__name__)
def test_what_no_machine_does_better_ends_the_run_at_once(error: GristmillError) -> None:
    fake = FakeRay(lambda _, begun: begun.fails(error), (node("1"), node("2")))
    with pytest.raises(type(error)) as caught:
        list(run(fake))
    assert caught.value is error
    assert len(fake.begun) == 1


def test_the_last_error_of_a_task_that_fails_everywhere_is_raised_as_it_is() -> None:
    fake = FakeRay(lambda _, begun: begun.fails(OutputError(f"disk {begun.number} is full")), (node("1"),))
    with pytest.raises(OutputError, match="disk 3 is full"):
        list(run(fake))
    assert len(fake.begun) == 3


def test_an_error_that_is_not_ours_is_told_with_its_trace_and_not_called_a_lack_of_memory() -> None:
    fake = FakeRay(lambda _, begun: begun.fails(ValueError("bad\nand more")), (node("1"),))
    with pytest.raises(TaskFailed) as caught:
        list(run(fake))
    first, *rest = str(caught.value).splitlines()
    assert "3 attempts were lost; the last one failed: ValueError: bad." in first
    assert "memory" not in first
    assert "line 7, in the worker" in "".join(rest)


@pytest.mark.parametrize(
    ("error", "of_memory"),
    [
        (ray.exceptions.WorkerCrashedError(), True),
        (ray.exceptions.OutOfMemoryError("the node ran out of it\nand more"), True),
        (ray.exceptions.NodeDiedError("its node is gone\nand more"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_lost_worker_is_told_by_what_ray_says_and_memory_is_named_where_it_may_be_that(
    error: ray.exceptions.RayError, of_memory: bool
) -> None:
    fake = FakeRay(lambda _, begun: begun.future.set_exception(error), (node("1"),))
    with pytest.raises(TaskFailed) as caught:
        list(run(fake))
    said = str(caught.value)
    assert f"died ({type(error).__name__}: {str(error).strip().splitlines()[0]})" in said
    assert ("less memory" in said) == of_memory
    assert "and more" not in said


def test_a_node_that_cannot_do_tasks_of_this_run_gets_no_more_of_them_and_is_named_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Ray gives every attempt that it may to the unfit node, which has a slot free; one task is in flight at a time."""

    def does(fake: FakeRay, begun: Begun) -> None:
        kept_away = "1" in str(begun.options.get("label_selector"))
        fake.beat(begun.number, "2" if kept_away else "1")
        begun.ends() if kept_away else begun.fails(PreflightFailed("node bad: trafilatura is absent"))

    fake = FakeRay(does, (node("1"), node("2")))
    assert len(list(run(fake, LiveSize(fake, workers=1), count=20))) == 20
    # No task meets it twice; how many meet it once depends on when its first sign of life is taken.
    assert len(fake.begun) - 20 <= 20
    assert capfd.readouterr().err.count("node bad: trafilatura is absent") == 1


def test_a_selector_is_never_given_where_no_other_node_could_take_the_task() -> None:
    size = LiveSize(FakeRay(lambda *_: None, (node("1"), node("2"), node("3", cpus=0))))
    assert size.avoiding({"1"}) == {"label_selector": {"ray.io/node-id": "!in(1)"}}
    assert size.avoiding({"1", "2"}) == {}
    assert size.avoiding({"gone"}) == size.avoiding(set()) == {}
    size = LiveSize(FakeRay(lambda *_: None, (node("1"), node("2", memory=GIB // 2))))
    assert size.avoiding({"1"}) == {}
    assert FixedSize(2).avoiding({"1"}) == {}


def test_a_late_sign_of_life_does_not_change_what_is_shown_of_a_task_that_ended() -> None:
    shown: list[int] = []

    def does(fake: FakeRay, begun: Begun) -> None:
        if begun.number == 1:
            begun.ends()
        else:
            fake.beat(1, "1", (a_task(0).id, Accounts(documents=1)))
            fake.beat(2, "1", (a_task(1).id, Accounts(documents=2)))

    def report(task: str, accounts: Accounts) -> None:
        shown.append(accounts.documents)
        if task == a_task(1).id:
            fake.begun[1].ends()

    fake = FakeRay(does, (node("1"),))
    assert len(list(run(fake, LiveSize(fake, workers=1), count=2, report=report))) == 2
    assert shown == [2]


def test_a_driver_that_could_not_hear_for_long_gives_nobody_up() -> None:
    heard: list[int] = []

    def report(task: str, accounts: Accounts) -> None:
        heard.append(accounts.documents)
        if accounts.documents == 2:
            fake.begun[0].ends()
        else:
            # The beats of that time are lost; the next one is heard only when the driver has decided who is silent.
            fake.away, fake.later = 60, [lambda: fake.beat(1, "1", ("task", Accounts(documents=2)))]

    fake = FakeRay(lambda fake, _: fake.beat(1, "1", ("task", Accounts(documents=1))), (node("1"),))
    patience = replace(QUICK, silence_seconds=0.2, beat_seconds=0.01)
    assert len(list(run(fake, LiveSize(fake, workers=1), patience=patience, report=report))) == 1
    assert (heard, len(fake.begun), fake.cancelled) == ([1, 2], 1, [])


def test_nothing_is_sent_to_a_node_that_fell_silent_until_it_is_heard_of() -> None:
    places = Places()
    places.heard(1, "a", believed=True)
    places.heard(2, "b", believed=True)
    places.silent(1)
    assert places.avoided([]) == {"a"}
    assert places.avoided([2]) == {"a", "b"}
    places.heard(1, "a", believed=False)
    assert places.avoided([]) == set()
    assert places.avoided([1]) == {"a"}


def test_of_attempts_that_ended_well_nothing_is_kept_and_of_failed_ones_the_place_even_if_heard_late() -> None:
    places = Places()
    places.heard(1, "a", believed=True)
    places.ended(1)
    places.heard(1, "a", believed=False)
    assert not places._node_of
    places.lost(2)
    assert places.avoided([2]) == set()
    places.heard(2, "b", believed=False)
    assert places.avoided([2]) == {"b"}


HEAD_WITHOUT_CPUS = node("1", cpus=0, memory=64 * GIB)


def test_no_more_memory_is_asked_for_than_a_node_with_a_cpu_has() -> None:
    size = LiveSize(FakeRay(lambda *_: None, (HEAD_WITHOUT_CPUS, node("2", cpus=4, memory=8 * GIB))))
    assert (size.memory, size.slots) == (GIB, 4)
    size.measured(20 * GIB)
    assert (size.memory, size.slots) == (8 * GIB, 1)


def test_what_the_first_task_is_known_to_take_is_asked_for_before_any_was_measured() -> None:
    nodes = (HEAD_WITHOUT_CPUS, node("2", cpus=4, memory=8 * GIB))
    size = LiveSize(FakeRay(lambda *_: None, nodes), first=3 * GIB + 1)
    assert (size.memory, size.slots, size.largest) == (3 * GIB + (256 << 20), 2, 8 * GIB)
    size.measured(GIB)
    assert size.slots == 2
    assert LiveSize(FakeRay(lambda *_: None, nodes), first=100 * GIB).memory == 8 * GIB


def test_where_no_node_has_room_a_person_is_told_what_is_asked_for_and_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage, "WAITING_SECONDS", 0.01)
    fake = FakeRay(lambda *_: None, (HEAD_WITHOUT_CPUS,))
    fake.later = [*[lambda: None] * 10, lambda: fake.begun[0].ends()]
    assert len(list(run(fake))) == 1
    said = capfd.readouterr().err
    assert "no node has room for a task" in said
    assert "a task asks for 1 CPU; 10.0.0.1 has 0 CPUs and 64.0 GiB" in said


@pytest.mark.parametrize(("moving", "attempts"), [(True, 1), (False, 2)])
def test_a_task_that_tells_of_new_steps_gets_no_company_at_its_deadline(moving: bool, attempts: int) -> None:
    told: list[int] = []

    def does(fake: FakeRay, begun: Begun) -> None:
        if begun.number > 1:
            begun.ends()
            return

        def beat() -> None:
            told.append(len(told))
            said = SimpleNamespace(step=len(told) if moving else 1)
            fake.beat(begun.number, "1", (begun.task.id, said))

        beat()
        fake.later = [*[beat] * 200, begun.ends]

    fake = FakeRay(does, (node("1"), node("2")))
    assert len(list(run(fake, patience=replace(QUICK, task_seconds=0.3)))) == 1
    assert len(fake.begun) == attempts


def test_a_task_that_asks_for_gpus_is_given_them_and_only_nodes_that_have_some_are_slots() -> None:
    fake = FakeRay(lambda _, begun: begun.ends(), (node("1", cpus=8), node("2", cpus=8)))
    fake.up[1]["Resources"]["GPU"] = 2
    size = LiveSize(fake, gpus=1)
    assert size.slots == 2 and LiveSize(fake).slots == 16
    assert "1 GPU" in size.room and "2 GPUs" in size.room
    task = SimpleNamespace(id="t", store=LocalStore(Path("/nowhere")), gpus=1)
    made = list(Stage(fake, None, size, QUICK, None, cluster=True).run([task], lambda *_: None))
    assert len(made) == 1 and fake.begun[0].options["num_gpus"] == 1
