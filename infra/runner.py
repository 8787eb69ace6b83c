"""Where tasks run. A runner takes tasks and gives their manifests, in any order; it keeps no state that matters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self

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
