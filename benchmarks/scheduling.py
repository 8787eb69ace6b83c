"""What a task costs beside its work: tasks that do nothing, through the runner on local Ray.

    python benchmarks/scheduling.py [--quick] [--json] [--tasks N] [--workers N]

overhead   milliseconds of wall time a task, from the first task given to the last manifest, workers warm: schedule,
           pickling, Ray, a heartbeat, the result. `--quick` takes 2,000 tasks, else 10,000.
pure       the same tasks through `infra.schedule` alone: microseconds of one event (start, heard, ended)

The ratio `aim` is 10 ms over the overhead: above 1 is within the aim. Agreement is the share of tasks whose manifest
came exactly once.
"""

from __future__ import annotations

import argparse
import json
import pickle
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.commit import Manifest
from infra.local_store import LocalStore
from infra.node import Check, beating
from infra.ray_runner import OnRay
from infra.schedule import Schedule
from infra.work import CutTask
from pipelines.record import Source

AIM_MILLISECONDS = 10.0
STORE = LocalStore(Path("/nowhere"))


def tasks(count: int) -> Iterator[CutTask]:
    """Tasks of the size of real ones; nothing is read."""
    for number in range(count):
        url = f"file:///nowhere/{number:08d}.warc.gz"
        source = Source(path=url, url=url, size=1 << 30, version="etag")
        yield CutTask(store=STORE, source=source, task_bytes=256 << 20)


def nothing_remotely(attempt: int, beat_seconds: float, check: Check | None, task: bytes, reports: Any) -> Manifest:
    """As `infra.node.perform_remotely`, without the work."""
    loaded = pickle.loads(task)
    with beating(lambda: reports.put.remote(attempt, pickle.dumps(None)), beat_seconds):
        return Manifest(stage="nothing", task=loaded.id, says={}, files={})


class Nothing(OnRay):
    """The runner, doing nothing."""

    function = staticmethod(nothing_remotely)


def overhead(count: int, workers: int) -> tuple[float, float]:
    """Milliseconds a task, and the share of tasks that came back exactly once."""
    with Nothing(workers) as runner:
        for _ in runner.run(tasks(4 * workers), lambda *_: None):
            pass
        started = time.perf_counter()
        seen = Counter(manifest.task for manifest in runner.run(tasks(count), lambda *_: None))
        spent = time.perf_counter() - started
    return 1000 * spent / count, sum(times == 1 for times in seen.values()) / count


def pure(count: int, in_flight: int) -> float:
    """Microseconds of one event."""
    schedule: Schedule[CutTask] = Schedule(list(tasks(count)))
    started = time.perf_counter()
    waiting = list(schedule.steps(0.0, capacity=in_flight, slots=in_flight).start)
    for one in waiting:
        schedule.heard(one.attempt, 0.0)
        schedule.ended(one.attempt)
        waiting += schedule.steps(0.0, capacity=in_flight, slots=in_flight).start
    return 1e6 * (time.perf_counter() - started) / (3 * count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 tasks, at most 50 s")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--tasks", type=int, help="how many")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    count = options.tasks or (2_000 if options.quick else 10_000)
    milliseconds, agreement = overhead(count, options.workers)
    microseconds = pure(100_000, 1_000)
    details = {
        "tasks": count,
        "workers": options.workers,
        "overhead_milliseconds": round(milliseconds, 3),
        "pure_microseconds": round(microseconds, 2),
    }
    if options.json:
        ratios = {"aim": round(AIM_MILLISECONDS / milliseconds, 2)}
        print(json.dumps({"ratios": ratios, "agreement": {"once": agreement}, "details": details}))
        return
    print(f"{count:,} tasks on {options.workers} workers: {milliseconds:.2f} ms a task; each once: {agreement:.2%}")
    print(f"schedule alone: {microseconds:.1f} microseconds an event")


if __name__ == "__main__":
    main()
