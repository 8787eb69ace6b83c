"""Where tasks run. A runner takes tasks and gives their manifests, in any order; it keeps no state that matters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Protocol, Self

from filters.errors import InputError
from infra.commit import Manifest
from infra.perform import perform
from infra.work import Report, Task, release_decider


class Runner(Protocol):
    """Does tasks, at least once each. `workers` is how many it does at a time."""

    workers: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(self, tasks: Iterable[Task], report: Report) -> Iterator[Manifest]:
        """Yield the manifest of each task as it is committed. Raises the first task's error after it cannot be done."""
        ...


class InProcess:
    """One task after the other, in this process."""

    workers = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        release_decider()

    def run(self, tasks: Iterable[Task], report: Report) -> Iterator[Manifest]:
        """Yield manifests in the order of the tasks."""
        for task in tasks:
            yield perform(task, report)


def usual_runner(workers: int | None, address: str | None) -> str:
    """The runner where none was asked for: this process for one worker and no cluster, else Ray."""
    return "inprocess" if workers == 1 and address is None else "ray"


def make_runner(
    name: str,
    workers: int | None,
    *,
    address: str | None = None,
    allow_unauthenticated: bool = False,
    task_seconds: float | None = None,
    gpus: int = 0,
) -> Runner:
    """The runner of this name; `inprocess` has one worker, and no cluster to join. `gpus`: of each task on Ray."""
    if name == "inprocess":
        if workers not in (None, 1):
            raise InputError(f"--runner inprocess has one worker, not {workers}. Use --runner ray for more.")
        if address is not None:
            raise InputError(f"--runner inprocess joins no cluster. Leave out --address {address} or the runner.")
        return InProcess()
    from infra.ray_runner import OnRay

    given: dict[str, Any] = {} if task_seconds is None else {"task_seconds": task_seconds}
    return OnRay(workers, address=address, allow_unauthenticated=allow_unauthenticated, gpus=gpus, **given)
