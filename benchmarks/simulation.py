"""The driver over a million tasks, with everything real but the workers: plan, scheduler, commits, roll-up, packing.

    python benchmarks/simulation.py [--tasks N] [--workers N] [--seed N] [--quick] [--json]

Workers live on a virtual clock: a task takes seconds drawn by hash, and some attempts fall silent and die, or fall
silent and finish late. The store is one SQLite file, so that its memory is not counted as the driver's; it counts
requests as an object store would charge them. Checked at the end: one manifest a task, every document accounted for.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import random
import sqlite3
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any, BinaryIO, Self

from infra.commit import FileEntry, Manifest, commit
from infra.plan import Plan
from infra.run import Finished, run_plan
from infra.schedule import Patience, Schedule, Start
from infra.stored import Attempt, Stored
from infra.work import PACK, PROCESS, PackTask, ProcessTask, Report, Task
from pipelines.accounts import Accounts
from pipelines.memory import peak_memory
from pipelines.process import TaskOptions
from pipelines.recipe import load_recipe
from pipelines.record import Slice, Source

LISTED_AT_ONCE = 1000
RULES, DROPPED, KEPT, CHARACTERS = 24, 1_250, 5_000, 15_000_000
"""Of one WARC of Common Crawl, about: 24 rules drop 1,250 documents each, 5,000 are kept."""
TASK_SECONDS = 60.0
PATIENCE = Patience()
DIES, SILENT, ZOMBIE = 0.002, 0.001, 0.001
"""Odds that an attempt's worker dies, that it falls silent for ever, that it falls silent and ends all the same."""


class Stopped(Exception):
    """The driver was stopped on purpose."""


@dataclass
class Clock:
    """Real seconds spent by what stands in for workers and store."""

    seconds: float = 0.0
    depth: int = 0
    lock: RLock = field(default_factory=RLock)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the seconds of this block, once where blocks lie within each other."""
        with self.lock:
            self.depth += 1
            started = time.perf_counter()
            try:
                yield
            finally:
                self.depth -= 1
                if self.depth == 0:
                    self.seconds += time.perf_counter() - started


class SimulatedStore:
    """A store in one SQLite file that counts the requests an object store would see."""

    url = "simulated://store"
    is_remote = False

    def __init__(self, path: Path, apart: Clock) -> None:
        self._apart = apart
        self._base = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._base.executescript("pragma journal_mode=off; pragma synchronous=off; pragma cache_size=-8000;")
        self._base.execute("create table objects (name text primary key, data blob) without rowid")
        self.requests: Counter[str] = Counter()

    def create(self, name: str, data: bytes) -> bool:
        """Put if absent."""
        self.requests["put"] += 1
        with self._apart.running():
            made = self._base.execute("insert or ignore into objects values (?, ?)", (name, data)).rowcount
        return bool(made) or self.read(name) == data

    def read(self, name: str) -> bytes:
        """Get."""
        self.requests["get"] += 1
        with self._apart.running():
            row = self._base.execute("select data from objects where name = ?", (name,)).fetchone()
        if row is None:
            raise FileNotFoundError(name)
        data: bytes = row[0]
        return data

    def replace(self, name: str, data: bytes) -> None:
        """Put."""
        self.requests["put"] += 1
        self._base.execute("insert or replace into objects values (?, ?)", (name, data))

    def listed(self, folder: str, prefix: str = "") -> Iterator[Stored]:
        """List, `LISTED_AT_ONCE` names a request."""
        low, high = f"{folder}/{prefix}", f"{folder}/{prefix}\U0010ffff"
        rows = self._base.execute("select name, length(data) from objects where name >= ? and name < ?", (low, high))
        number = 0
        for name, size in rows:
            number += 1
            yield Stored(name=name, bytes=size, written=0.0)
        self.requests["list"] += 1 + number // LISTED_AT_ONCE

    def remove(self, names: Iterable[str]) -> None:
        """Delete."""
        for name in names:
            self.requests["delete"] += 1
            self._base.execute("delete from objects where name = ?", (name,))

    def show(self, folder: str, files: Sequence[tuple[str, str]]) -> None:
        """Copy."""
        self.requests["copy"] += len(files)

    def keep(self, attempt: Attempt, path: Path) -> str:
        """Not called: simulated workers write no files."""
        raise NotImplementedError

    def open(self, name: str, size: int) -> BinaryIO:
        """Not called: the driver opens no data file."""
        raise NotImplementedError

    def attempt(self, task: str) -> Any:
        """Not called."""
        raise NotImplementedError

    def now(self) -> float:
        """Not called."""
        raise NotImplementedError

    @contextmanager
    def locked(self, *, take_over: bool) -> Iterator[None]:
        """Nobody else is here."""
        yield


class SimulatedWorkers:
    """A runner whose workers live on a virtual clock. `stop_after` results it raises Stopped."""

    def __init__(
        self, store: SimulatedStore, workers: int, seed: int, apart: Clock, *, stop_after: int | None = None
    ) -> None:
        self.workers = workers
        self.lost: Counter[str] = Counter()
        self._store, self._seed, self._apart, self._left = store, seed, apart, stop_after

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def run(self, tasks: Iterable[Task], report: Report) -> Iterator[Manifest]:
        """Yield manifests as attempts end, in virtual time."""
        schedule: Schedule[Task] = Schedule(tasks, PATIENCE)
        events: list[tuple[float, int, str, Start[Task]]] = []
        queue: deque[Start[Task]] = deque()
        gone: set[int] = set()
        now, free = 0.0, self.workers
        while True:
            steps = schedule.steps(now, capacity=2 * self.workers, slots=self.workers)
            queue.extend(steps.start)
            gone.update(steps.abandon)
            while queue and free:
                if (start := queue.popleft()).attempt in gone:
                    continue
                free -= 1
                schedule.heard(start.attempt, now)
                for event in self._life(start, now):
                    heapq.heappush(events, event)
            if schedule.finished:
                return
            if not events:
                now += 1.0
                continue
            now, _, what, start = heapq.heappop(events)
            if what == "beat":
                schedule.heard(start.attempt, now)
            elif what == "free":
                free += 1
            elif what == "dies":
                schedule.died(start.attempt, "was killed")
            else:
                with self._apart.running():
                    made = commit(self._store, manifest_of(start))
                if schedule.ended(start.attempt):
                    yield made
                    self._count()

    def _life(self, start: Start[Task], now: float) -> Iterator[tuple[float, int, str, Start[Task]]]:
        """What will be seen of an attempt that starts now."""
        rng = random.Random(f"{self._seed} {start.task.id} {start.attempt}")
        seconds, fate, cut = TASK_SECONDS * rng.uniform(0.5, 1.5), rng.random(), rng.random()
        kind = "ends"
        for name, odds in (("dies", DIES), ("silent", SILENT), ("zombie", ZOMBIE)):
            if fate < odds:
                kind = name
                self.lost[name] += 1
                break
            fate -= odds
        seen = seconds if kind == "ends" else cut * seconds
        for beat in range(1, int(seen / start.beat_seconds) + 1):
            yield now + beat * start.beat_seconds, start.attempt, "beat", start
        if kind == "zombie":
            seconds *= 4
        if kind != "silent":
            yield (
                now + (seen if kind == "dies" else seconds),
                start.attempt,
                "dies" if kind == "dies" else "ends",
                start,
            )
        yield (
            now + (seen if kind == "dies" else max(seconds, 300.0 if kind == "silent" else 0.0)),
            start.attempt,
            "free",
            start,
        )

    def _count(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                raise Stopped


def manifest_of(start: Start[Task]) -> Manifest:
    """What the worker of this attempt would commit: the same for every attempt but for the names of files."""
    task = start.task
    if isinstance(task, PackTask):
        return Manifest(
            stage=PACK, task=task.id, says={"kind": task.kind}, files={"part": entry(task.id, start, "part", task.rows)}
        )
    assert isinstance(task, ProcessTask)
    dropped = {f"gopher_quality.rule_number_{rule}": DROPPED for rule in range(RULES)}
    documents = KEPT + sum(dropped.values())
    size = task.slices[0].end
    accounts = Accounts(
        records=3 * documents + 1,
        documents=documents,
        kept=KEPT,
        skipped={"request": documents, "metadata": documents, "warcinfo": 1},
        dropped=dropped,
        failed=dropped,
        input_bytes=size,
        record_bytes=size,
        tokens=CHARACTERS // 5,
        characters=CHARACTERS,
    )
    rows = {"kept": KEPT, "documents": documents, "dropped": 100 * RULES, "quarantined": 0, "losses": 0}
    return Manifest(
        stage=PROCESS,
        task=task.id,
        says={"recipe": task.options.recipe.sha256, "slices": [asdict(one) for one in task.slices]},
        files={name: entry(task.id, start, name, count) for name, count in rows.items()},
        accounts=accounts.checked(task.id),
        measured={"seconds": TASK_SECONDS, "peak_rss_bytes": 6e8},
    )


def entry(task: str, start: Start[Task], name: str, rows: int) -> FileEntry:
    """A file of this many rows, that depends on the task alone."""
    sha256 = hashlib.sha256(f"{task} {name}".encode()).hexdigest()
    return FileEntry(
        path=f"_work/attempts/{task}/{start.attempt:032x}/{name}.parquet", sha256=sha256, bytes=1000 * rows, rows=rows
    )


def planned(count: int, store: SimulatedStore, options: TaskOptions) -> Plan:
    """A task for each WARC of a made-up crawl."""
    sources = []
    for number in range(count):
        folder = f"s3://commoncrawl/crawl-data/CC-MAIN-2024-10/segments/{number // 900:013d}.1/warc"
        path = f"{folder}/CC-MAIN-{number:06d}.warc.gz"
        sources.append(Source(path=path, url=path, size=1 << 30, version=f"{1 << 30}-{number:032x}"))
    tasks = tuple(
        ProcessTask(store=store, slices=(Slice(source=source, start=0, end=source.size),), options=options)
        for source in sources
    )
    return Plan(sources=tuple(sources), tasks=tasks)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One life of the driver: real seconds of its own, requests, tasks that ended, peak memory."""

    name: str
    seconds: float
    requests: dict[str, int]
    lost: dict[str, int]
    rss_bytes: int


def simulated(count: int, workers: int, seed: int, folder: Path) -> tuple[list[Phase], Finished]:
    """Run a driver that is stopped after 60 % of the tasks, one that goes on, and one that finds everything done.

    Raises AssertionError where a task has not exactly one manifest or the account is not that of all tasks.
    """
    apart = Clock()
    store = SimulatedStore(folder / "store.sqlite", apart)
    options = TaskOptions(recipe=load_recipe("fineweb"))
    plan = planned(count, store, options)
    phases = []
    made: Finished | None = None
    for name, stop in (("stopped at 60 %", int(0.6 * count)), ("continued", None), ("all done before", None)):
        store.requests.clear()
        apart.seconds = 0.0
        runner = SimulatedWorkers(store, workers, seed, apart, stop_after=stop)
        started = time.perf_counter()
        with suppress(Stopped):
            made = run_plan(plan, store, options, runner, report=lambda *_: None, on_stage=lambda *_: None)
        phases.append(
            Phase(
                name=name,
                seconds=time.perf_counter() - started - apart.seconds,
                requests=dict(store.requests),
                lost=dict(runner.lost),
                rss_bytes=peak_memory(),
            )
        )
    assert made is not None and made.done_now == 0
    assert sum(1 for _ in store.listed(f"_work/manifests/{PROCESS}")) == count
    assert made.accounts.kept == count * KEPT == sum(one.rows for one in made.files["dataset"])
    return phases, made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="10,000 tasks, at most 50 s")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    count = 10_000 if options.quick else options.tasks
    before = peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        phases, _ = simulated(count, options.workers, options.seed, Path(folder))
    per_task = sum(phase.seconds for phase in phases[:2]) / count
    if options.json:
        details = {
            "tasks": count,
            "driver_seconds_per_task": per_task,
            "rss_bytes_before": before,
            "phases": [asdict(phase) for phase in phases],
        }
        print(json.dumps({"ratios": {}, "agreement": {"one manifest a task": 1.0}, "details": details}))
        return
    print(f"{count:,} tasks, {options.workers:,} workers; the process takes {before / 1e6:,.0f} MB before it plans")
    for phase in phases:
        said = ", ".join(f"{number:,} {name}" for name, number in sorted(phase.requests.items()))
        lost = ", ".join(f"{number:,} {name}" for name, number in sorted(phase.lost.items())) or "none"
        print(f"{phase.name:16} {phase.seconds:8.1f} s of the driver, {phase.rss_bytes / 1e6:,.0f} MB at most")
        print(f"{'':16} requests: {said}; attempts lost: {lost}")
    print(f"driver: {1e3 * per_task:.3f} ms a task")


if __name__ == "__main__":
    main()
