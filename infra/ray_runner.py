"""Tasks on Ray: started here with a token of its own, or joined by address. The only module that imports Ray.

Nothing of a run lives in Ray: a cluster is disposable, and a task that dies with its worker is done again.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, redirect_stdout
from types import TracebackType
from typing import Any, Self

from filters.errors import GristmillError, TaskFailed
from infra.commit import Manifest
from infra.work import Report, Task, perform
from pipelines.accounts import Accounts

# Attempts of a task whose worker dies (Ray's word: retries). Errors that the task itself raises are not tried again.
RETRIES = 5
# A worker keeps its next task at hand; more would only sit in Ray's queue.
IN_FLIGHT_PER_WORKER = 2
OBJECT_STORE_BYTES = 100 << 20
POLL_SECONDS = 0.5


class OnRay:
    """A runner on local Ray. One task takes one CPU; the parser child works while its worker waits."""

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or os.cpu_count() or 1
        self._folder: str | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        # Before Ray is imported: it reads these once. Token authentication is off by default in Ray 2.60.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        import ray

        # Ray prints what happens to workers on standard output, which is for data.
        self._stack.enter_context(redirect_stdout(sys.stderr))
        # Short: the path of a socket has at most 107 bytes.
        self._folder = tempfile.mkdtemp(prefix="gm-ray-", dir="/tmp")
        try:
            self._start(ray)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            self.__exit__(type(error), error, None)
            raise TaskFailed(f"Ray does not start here: {error}. `--runner inprocess` does without it.") from error
        return self

    def _start(self, ray: Any) -> None:
        ray.init(
            address="local",
            num_cpus=self.workers,
            num_gpus=0,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=self._folder,
            _node_ip_address="127.0.0.1",
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        ray.shutdown()
        self._stack.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, tasks: Sequence[Task], report: Report) -> Iterator[Manifest]:
        """Yield manifests as tasks end."""
        import ray

        reports: Any = ray.remote(num_cpus=0)(Reports).remote()
        remote = ray.remote(num_cpus=1, max_retries=RETRIES, retry_exceptions=False)(perform_remotely)
        waiting = deque(tasks)
        running: dict[Any, Task] = {}
        while waiting or running:
            while waiting and len(running) < IN_FLIGHT_PER_WORKER * self.workers:
                task = waiting.popleft()
                running[remote.remote(task, reports)] = task
            done, _ = ray.wait(list(running), num_returns=1, timeout=POLL_SECONDS)
            for task_id, accounts in ray.get(reports.take.remote()):
                report(task_id, accounts)
            for reference in done:
                yield result_of(ray, reference, running.pop(reference))


def result_of(ray: Any, reference: Any, task: Task) -> Manifest:
    """The manifest of a task that ended, or its own error, or TaskFailed where its workers died."""
    try:
        manifest: Manifest = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, GristmillError):
            raise error.cause from error
        raise TaskFailed(f"task {task.id} failed: {error.cause!r}\n{error}") from error
    except ray.exceptions.RayError as error:
        raise TaskFailed(
            f"task {task.id}: its worker died {RETRIES + 1} times ({type(error).__name__}). "
            "Look for the kernel's out-of-memory messages; fewer --workers or a smaller --task-size need less memory."
        ) from error
    return manifest


class Reports:
    """An actor that holds the last report of each task until the driver takes them."""

    def __init__(self) -> None:
        self._last: dict[str, Accounts] = {}

    def put(self, task: str, accounts: Accounts) -> None:
        """Note the account of a task so far."""
        self._last[task] = accounts

    def take(self) -> list[tuple[str, Accounts]]:
        """What was noted since the last call."""
        last, self._last = self._last, {}
        return list(last.items())


def perform_remotely(task: Task, reports: Any) -> Manifest:
    """Do a task in a worker, reporting at most twice a second."""
    last = 0.0

    def report(task_id: str, accounts: Accounts) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= POLL_SECONDS:
            last = now
            reports.put.remote(task_id, accounts)

    return perform(task, report)
