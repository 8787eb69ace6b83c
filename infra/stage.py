"""Tasks of one stage through Ray: asks `infra.schedule` what to do, does it, and tells it what became of it."""

from __future__ import annotations

import pickle
import queue
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from filters.errors import (
    CommitConflict,
    GristmillError,
    InputChanged,
    InputError,
    PreflightFailed,
    RecipeError,
    TaskFailed,
    VerifyFailed,
)
from infra.commit import Manifest
from infra.node import Check, Reports
from infra.places import Places
from infra.schedule import OF_MEMORY, Patience, Schedule, Start, Steps
from infra.work import Report, Task

POLL_SECONDS = 0.5
SIZE_SECONDS = 10.0
IN_FLIGHT_PER_SLOT = 2
"""A worker has its next task at hand; more would only sit in Ray's queue."""
FIRST_MEMORY_BYTES = 1 << 30
"""Asked for a task before one was measured: a worker peaks at 626 MB and its parser at 87 MB (docs/scale.md)."""
MEMORY_MARGIN = 1.2
MEMORY_STEP_BYTES = 256 << 20
"""Requests grow in steps: Ray keeps a queue, and leases workers, for each size asked for."""
WAITING_SECONDS = 60.0
TAKE_SECONDS = 10.0
SHOWN_NODES = 8
OF_THE_RUN = (CommitConflict, InputChanged, InputError, RecipeError, VerifyFailed)
"""What no other machine and no later attempt would do better. Anything else may be the fault of one machine."""


class Size(Protocol):
    """How much there is to work on."""

    @property
    def capacity(self) -> int:
        """Attempts to have in flight."""
        ...

    @property
    def slots(self) -> int:
        """Attempts that can run at a time."""
        ...

    @property
    def memory(self) -> int | None:
        """Bytes to ask for each task; None asks for none."""
        ...

    @property
    def room(self) -> str:
        """What a task asks for, and what there is, for a person whose tasks do not start."""
        ...

    def measured(self, peak: float) -> None:
        """Note the peak memory of a worker, in bytes."""
        ...

    def avoiding(self, nodes: AbstractSet[str]) -> Mapping[str, Any]:
        """Ray's options for a task that is to run on none of these nodes; none where there is no other."""
        ...


@dataclass(frozen=True)
class FixedSize:
    """This machine, for us alone."""

    workers: int

    @property
    def capacity(self) -> int:
        """One task for each worker, and the next one at hand."""
        return IN_FLIGHT_PER_SLOT * self.workers

    @property
    def slots(self) -> int:
        """The workers."""
        return self.workers

    @property
    def memory(self) -> int | None:
        """None: memory here is shared as it comes."""
        return None

    @property
    def room(self) -> str:
        """One CPU of this machine for each task."""
        return f"a task asks for 1 CPU; this machine gives {self.workers}"

    def measured(self, peak: float) -> None:
        """Nothing follows from it."""

    def avoiding(self, nodes: AbstractSet[str]) -> Mapping[str, Any]:
        """None: there is no other node."""
        return {}


class LiveSize:
    """A cluster whose nodes come and go, read anew every `SIZE_SECONDS`. `workers` bounds what is in flight."""

    def __init__(self, ray: Any, workers: int | None = None, *, gpus: int = 0, first: int = FIRST_MEMORY_BYTES) -> None:
        self._ray, self._workers, self._gpus, self._first = ray, workers, gpus, first
        self._nodes: list[Mapping[str, Any]] = []
        self._read = float("-inf")
        self._peak = 0.0

    @property
    def memory(self) -> int | None:
        """What the first task is known to take, or the largest peak measured so far with a margin, in steps; never more
        than the largest node has.

        A node without a CPU takes no task, however much memory it has: the head that KubeRay makes is one.
        """
        wanted = max(self._first, MEMORY_MARGIN * self._peak)
        stepped = -int(-wanted // MEMORY_STEP_BYTES) * MEMORY_STEP_BYTES
        return min(stepped, self.largest) if self.largest else None

    @property
    def largest(self) -> int:
        """The memory of the largest node that takes tasks; 0 where there is none."""
        return max((int(one["Resources"].get("memory", 0)) for one in self._with_cpus()), default=0)

    @property
    def slots(self) -> int:
        """Tasks that CPUs and memory have room for."""
        room = slots_of([one["Resources"] for one in self._up()], self.memory, gpus=self._gpus)
        return room if self._workers is None else min(room, self._workers)

    @property
    def capacity(self) -> int:
        """Never none: where there are no nodes yet, tasks that wait are what an autoscaler sees."""
        return max(IN_FLIGHT_PER_SLOT, IN_FLIGHT_PER_SLOT * self.slots) if self._workers is None else self._workers

    @property
    def room(self) -> str:
        """What a task asks for, and what each node has, busy or not."""
        asked = "1 CPU" if self.memory is None else f"1 CPU and {gib(self.memory)} of memory"
        asked += f" and {self._gpus} GPU" * bool(self._gpus)
        have = [
            f"{one['NodeManagerAddress']} has {one['Resources'].get('CPU', 0):g} CPUs and "
            f"{gib(one['Resources'].get('memory', 0))}"
            + f" and {one['Resources'].get('GPU', 0):g} GPUs"
            * bool(self._gpus)
            for one in self._up()
        ]
        more = [f"and {len(have) - SHOWN_NODES} more nodes"] if len(have) > SHOWN_NODES else []
        return f"a task asks for {asked}; {', '.join([*have[:SHOWN_NODES], *more]) or 'there are no nodes'}"

    def measured(self, peak: float) -> None:
        """The next tasks ask for as much as the hungriest so far."""
        self._peak = max(self._peak, peak)

    def avoiding(self, nodes: AbstractSet[str]) -> Mapping[str, Any]:
        """A selector of labels: a hard one, so it is given only while another node could take the task."""
        memory = self.memory or 0
        fit = {one["NodeID"] for one in self._with_cpus() if one["Resources"].get("memory", 0) >= memory}
        if not (avoided := sorted(fit & nodes)) or fit <= nodes:
            return {}
        return {"label_selector": {"ray.io/node-id": f"!in({', '.join(avoided)})"}}

    def _with_cpus(self) -> list[Mapping[str, Any]]:
        return [one for one in self._up() if one["Resources"].get("CPU", 0) >= 1]

    def _up(self) -> list[Mapping[str, Any]]:
        if (now := time.monotonic()) - self._read >= SIZE_SECONDS:
            self._nodes = [node for node in self._ray.nodes() if node["Alive"]]
            self._read = now
        return self._nodes


def gib(count: float) -> str:
    """Bytes as people say them."""
    return f"{count / (1 << 30):.1f} GiB"


def slots_of(nodes: Sequence[Mapping[str, float]], memory: int | None, *, gpus: int = 0) -> int:
    """How many tasks of one CPU, this much memory and so many GPUs these nodes can run at a time."""
    asked = {"CPU": 1, "memory": memory or 0, "GPU": gpus}
    return sum(min(int(node.get(name, 0) // each) for name, each in asked.items() if each) for node in nodes)


class Stage:
    """One pass of tasks over a cluster. Close it whatever happens: it ends what it started."""

    def __init__(
        self, ray: Any, function: Any, size: Size, patience: Patience, check: Check | None, *, cluster: bool
    ) -> None:
        self._ray, self._size, self._patience, self._check = ray, size, patience, check
        # Ray itself tries nothing again: what is lost is decided here, on signs of life and not on Ray's word alone.
        self._remote = ray.remote(num_cpus=1, max_retries=0, retry_exceptions=False)(function)
        self._spread = {"scheduling_strategy": "SPREAD"} if cluster else {}
        self._reports = reports_here(ray)
        self._places = Places()
        self._warned: set[str] = set()
        self._references: dict[int, Any] = {}
        self._ended: queue.SimpleQueue[tuple[int, Future[Manifest]]] = queue.SimpleQueue()
        self._looked = float("-inf")
        self._hears = True
        self._alive = time.monotonic()

    def run(self, tasks: Iterable[Task], report: Report) -> Iterator[Manifest]:
        """Yield the manifest of each task once.

        Raises at once what no other machine would do better (`OF_THE_RUN`); a task's last error, where it has failed
        as often as it may; TaskFailed, where its attempts were lost otherwise.
        """
        schedule = Schedule(tasks, self._patience)
        while True:
            now = time.monotonic()
            # What was heard comes first: this process may have been away for long, and nobody is lost for that.
            if now - self._looked >= POLL_SECONDS:
                self._looked = now
                self._hears = self._take(schedule, now, report)
            if self._hears:
                self._do(schedule.steps(now, capacity=self._size.capacity, slots=self._size.slots))
            if schedule.finished:
                return
            for attempt, future in self._wait():
                self._references.pop(attempt, None)
                if (manifest := self._outcome(schedule, attempt, future)) is not None:
                    self._alive = time.monotonic()
                    self._size.measured(manifest.measured.get("peak_rss_bytes", 0.0))
                    yield manifest

    def close(self) -> None:
        """End every attempt that still runs; what they have committed stays."""
        for attempt in list(self._references):
            self._cancel(attempt)
        self._ray.kill(self._reports)

    def _do(self, steps: Steps[Task]) -> None:
        for attempt in steps.silent:
            self._places.silent(attempt)
        for attempt in steps.abandon:
            self._cancel(attempt)
        for start in steps.start:
            self._start(start)

    def _start(self, start: Start[Task]) -> None:
        memory = {} if self._size.memory is None else {"memory": self._size.memory}
        elsewhere = self._size.avoiding(self._places.avoided(start.lost))
        gpus = {"num_gpus": count} if (count := getattr(start.task, "gpus", 0)) else {}
        reference = self._remote.options(**self._spread, **memory, **gpus, **elsewhere).remote(
            start.attempt, start.beat_seconds, self._check, pickle.dumps(start.task), self._reports
        )
        self._references[start.attempt] = reference
        reference.future().add_done_callback(partial(self._note, start.attempt))

    def _note(self, attempt: int, future: Future[Manifest]) -> None:
        """Called by a thread of Ray's."""
        self._ended.put((attempt, future))

    def _wait(self) -> Iterator[tuple[int, Future[Manifest]]]:
        """Attempts that ended, when at least one has or `POLL_SECONDS` are over."""
        try:
            yield self._ended.get(timeout=POLL_SECONDS)
            while True:
                yield self._ended.get_nowait()
        except queue.Empty:
            return

    def _cancel(self, attempt: int) -> None:
        """Kill the attempt's worker, if it can be reached. A KeyboardInterrupt would not end one that hangs in C."""
        if (reference := self._references.pop(attempt, None)) is not None:
            self._ray.cancel(reference, force=True)

    def _take(self, schedule: Schedule[Task], now: float, report: Report) -> bool:
        """Pass on what workers sent; False where it cannot be had: the actor is being started again."""
        try:
            taken: dict[int, tuple[bytes, str]] = self._ray.get(self._reports.take.remote(), timeout=TAKE_SECONDS)
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.GetTimeoutError):
            return False
        for attempt, (packed, node) in taken.items():
            self._alive = now
            believed = schedule.believed(attempt)
            # What is late tells less than the manifest of the task, or than the attempt that came after.
            said = pickle.loads(packed) if believed else None
            schedule.heard(attempt, now, getattr(said[1], "step", None) if said else None)
            self._places.heard(attempt, node, believed=believed)
            if said is not None:
                report(*said)
        if now - self._alive > WAITING_SECONDS and schedule.in_flight:
            self._alive = now
            print(f"no worker has been heard of for {WAITING_SECONDS:.0f} s: {self._waits(schedule)}", file=sys.stderr)
        return True

    def _waits(self, schedule: Schedule[Task]) -> str:
        """What tasks wait for, as far as it is known."""
        if self._size.slots == 0:
            return f"no node has room for a task, busy or not: {self._size.room}"
        return (
            f"{schedule.in_flight} tasks wait for a free CPU and memory on the cluster (`ray status` shows who has "
            f"them): {self._size.room}"
        )

    def _outcome(self, schedule: Schedule[Task], attempt: int, future: Future[Manifest]) -> Manifest | None:
        """The manifest, where the attempt is the first of its task to end well; None where another will be, or was."""
        error = future.exception()
        if error is None:
            self._places.ended(attempt)
            return future.result() if schedule.ended(attempt) else None
        self._places.lost(attempt)
        raised = self._ray.exceptions
        if isinstance(error, raised.RayTaskError) and not isinstance(error, raised.TaskCancelledError):
            self._failed(schedule, attempt, error)
        else:
            of_memory = isinstance(error, raised.OutOfMemoryError | raised.WorkerCrashedError)
            schedule.died(attempt, f"died ({told(error)})", advice=OF_MEMORY if of_memory else "")
        return None

    def _failed(self, schedule: Schedule[Task], attempt: int, error: Any) -> None:
        """Have the task tried again, elsewhere if there is an elsewhere. Raises its error where that makes no sense."""
        if not schedule.believed(attempt):
            schedule.died(attempt, "failed after it was given up")
            return
        if isinstance(cause := error.cause, OF_THE_RUN):
            raise cause from error
        if isinstance(cause, PreflightFailed):
            self._places.unfit(attempt)
            if str(cause) not in self._warned:
                self._warned.add(str(cause))
                print(f"warning: tasks go to other nodes: {cause}", file=sys.stderr)
        try:
            advice = OF_MEMORY if isinstance(cause, MemoryError) else ""
            schedule.died(attempt, f"failed: {told(cause)}", advice=advice, rests=True)
        except TaskFailed as last:
            if isinstance(cause, GristmillError):
                raise cause from error
            raise TaskFailed(f"{last}\n{error}") from error


def reports_here(ray: Any) -> Any:
    """An actor for reports on this process's node, started again if it dies."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(Reports).remote()


def told(error: BaseException) -> str:
    """An error in one line: what it is, and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
