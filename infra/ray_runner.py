"""Tasks on Ray: started here with a token of its own, or a cluster joined by address.

Nothing of a run lives in Ray: a cluster is disposable, and an attempt that is lost is made again. What is lost is
decided by `infra.schedule` from the signs of life that workers send: after a cut link Ray starts no second attempt for
minutes (docs/design.md, Cluster).
"""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from filters.errors import ClusterError, GristmillError, TaskFailed
from infra.cluster import answers_anyone, dashboard_url, judged, read_token, token_warning
from infra.commit import Manifest
from infra.dedup_memory import memory_needed
from infra.dedup_work import DedupTask
from infra.ending import ending_on_sigterm, handler_kept
from infra.node import Check, perform_remotely, ship_code
from infra.placement import training_memory
from infra.preflight import check_for, covers, preflight
from infra.schedule import Patience
from infra.scratch import scratch
from infra.stage import FIRST_MEMORY_BYTES, FixedSize, LiveSize, Size, Stage, gib
from infra.store import open_store
from infra.training_work import TrainTask
from infra.work import Report, Task

OBJECT_STORE_BYTES = 100 << 20
TASK_SECONDS = 6 * 3600.0
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


def forget_token() -> None:
    """Have Ray read its mode and its token anew: a process that had imported it before would go without them."""
    raylet: Any = importlib.import_module("ray._raylet")  # compiled, without types
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


class OnRay:
    """A runner on Ray. One task takes one CPU; the parser child works while its worker waits. With `gpus`, each task
    asks for so many as well, and there are as many tasks at a time on this machine as that gives.

    Without an address, Ray is started on this machine and stopped at the end. With one (`auto`, HOST:PORT, or inside a
    Ray job) this process joins that cluster, of which its machine must be a node. Entering raises ClusterError where
    the cluster cannot be joined or asks for no token, and TaskFailed where Ray does not start here.
    """

    function: ClassVar[Any] = staticmethod(perform_remotely)

    def __init__(
        self,
        workers: int | None = None,
        *,
        address: str | None = None,
        allow_unauthenticated: bool = False,
        task_seconds: float = TASK_SECONDS,
        gpus: int = 0,
    ) -> None:
        self._given = workers
        self._gpus = gpus
        self._address = address if address is not None else address_of_environment()
        self._allow_unauthenticated = allow_unauthenticated
        patience = Patience(task_seconds=task_seconds)
        # A task that failed here will not find another machine by waiting.
        self._patience = replace(patience, rest_seconds=0.0) if self._address is None else patience
        self._stack = ExitStack()
        self._checks: list[Check] = []
        self.workers = workers or os.cpu_count() or 1

    def __enter__(self) -> Self:
        # Closed whatever happens on the way: a Ray that was started is stopped, its folder removed.
        with ExitStack() as stack:
            stack.enter_context(ending_on_sigterm())
            if self._address is None:
                self._enter_local(stack)
            else:
                self._enter_cluster(stack, self._address)
            self._stack = stack.pop_all()
        return self

    def _enter_local(self, stack: ExitStack) -> None:
        # Before Ray is imported: it reads these once.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        ray = imported(stack)
        forget_token()
        # Short: the path of a socket has at most 107 bytes.
        folder = str(stack.enter_context(scratch("gm-ray-", Path("/tmp"))))
        stack.callback(ray.shutdown)
        try:
            with handler_kept():
                ray.init(
                    address="local",
                    num_cpus=self.workers,
                    num_gpus=self._gpus * self.workers,
                    object_store_memory=OBJECT_STORE_BYTES,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _temp_dir=folder,
                    _node_ip_address="127.0.0.1",
                )
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise TaskFailed(f"Ray does not start here: {error}. `--runner inprocess` does without it.") from error

    def _enter_cluster(self, stack: ExitStack, address: str) -> None:
        if "://" in address:
            raise ClusterError(
                f"{address}: only a process on one of the cluster's nodes joins it, by `auto` or HOST:PORT. From "
                "elsewhere: gristmill submit --address http://HOST:8265 ..."
            )
        if "RAY_AUTH_MODE" not in os.environ and read_token() is not None:
            os.environ["RAY_AUTH_MODE"] = "token"
        if (warning := token_warning()) is not None:
            warn(warning)
        ray = imported(stack)
        forget_token()
        stack.callback(ray.shutdown)
        shipped = shipped_code(stack)
        try:
            with handler_kept():
                joined = ray.init(
                    address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=shipped
                )
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ClusterError(
                f"the Ray cluster at {address} cannot be joined: {error}. This process must run on one of its nodes, "
                "with its token; from elsewhere: gristmill submit --address http://HOST:8265 ..."
            ) from error
        if (warning := token_asked(dashboard_seen(joined.address_info), self._allow_unauthenticated)) is not None:
            warn(warning)
        self.workers = self._given or LiveSize(ray).slots or 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for check in self._checks:
            with suppress(GristmillError, OSError):
                open_store(check.probe.url).remove([check.probe.name])
        self._checks.clear()
        self._stack.close()

    def run(self, tasks: Iterable[Task], report: Report) -> Iterator[Manifest]:
        """Yield manifests as tasks end. On a cluster, raises PreflightFailed before the first task starts."""
        import ray

        waiting = iter(tasks)
        first = next(waiting, None)
        if first is None:
            return
        size, check = self._size(ray, first), self._checked(ray, first)
        stage = Stage(ray, self.function, size, self._patience, check, cluster=bool(self._address))
        try:
            yield from stage.run(chain([first], waiting), report)
        finally:
            stage.close()

    def _size(self, ray: Any, first: Task) -> Size:
        if self._address is None:
            return FixedSize(self.workers)
        needs = memory_of(first)
        size = LiveSize(ray, self._given, gpus=self._gpus, first=max(needs, FIRST_MEMORY_BYTES))
        if needs and needs > size.largest > 0:
            warn(f"a task takes about {gib(needs)}, and the largest node has {gib(size.largest)}")
        return size

    def _checked(self, ray: Any, task: Task) -> Check | None:
        """What workers must find; every node that is there now was asked. None on this machine's own Ray."""
        if self._address is None:
            return None
        for check in self._checks:
            if covers(check, task):
                return check
        check = check_for(task)
        self._checks.append(check)
        preflight(ray, check)
        return check


def memory_of(task: Task) -> int:
    """Bytes that tasks like this one take, where that follows from what they do; else 0."""
    if isinstance(task, DedupTask):
        return memory_needed(task)
    if isinstance(task, TrainTask):
        return training_memory(task.trials[0].training, len(task.trials), task.device)
    return 0


def imported(stack: ExitStack) -> Any:
    """Ray, quiet: it prints what happens to workers on standard output, which is for data."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    import ray

    stack.enter_context(redirect_stdout(sys.stderr))
    return ray


def shipped_code(stack: ExitStack) -> dict[str, Any] | None:
    """Our code as Ray's working_dir; inside a Ray job, whoever submitted it has seen to that."""
    if in_ray_job():
        return None
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gristmill-code-"))
    ship_code(Path(folder))
    return {"working_dir": folder}


def dashboard_seen(joined: Mapping[str, Any]) -> str:
    """The cluster's dashboard as this node sees it; empty where there is none.

    Ray's default is to serve it on the head's loopback, and to tell every node just that.
    """
    dashboard = str(joined["webui_url"] or "")
    host, _, port = dashboard.rpartition(":")
    head = str(joined["gcs_address"]).rpartition(":")[0]
    on_head = head == joined["node_ip_address"]
    return dashboard if on_head or host not in LOOPBACK else f"{head}:{port}"


def token_asked(dashboard: str, allow: bool) -> str | None:
    """Raise ClusterError where the cluster asks for no token, or cannot be asked; with `allow`, return a warning."""
    if dashboard:
        url = dashboard_url(dashboard)
        try:
            anyone = answers_anyone(url)
        except ClusterError as error:
            said = f"the cluster's dashboard is not seen from this node. {error}"
        else:
            return judged(url, anyone, allow)
    else:
        said = "the cluster has no dashboard (ray start --include-dashboard=true)."
    if allow:
        return f"{said} Whether the cluster asks for a token is not known."
    raise ClusterError(
        f"{said} So whether the cluster asks for a token is not known. Run this on the head; or hand it to the "
        "cluster (gristmill submit --address http://HOST:8265 ...); or have the head show its dashboard to its nodes "
        "(ray start --dashboard-host=ADDRESS). If nobody else can reach the cluster: --allow-unauthenticated-cluster."
    )


def in_ray_job() -> bool:
    """True in the driver of a Ray job: Ray hands it the job's configuration."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def address_of_environment() -> str | None:
    """`auto` where Ray's own environment names a cluster to join, else None."""
    address = os.environ.get("RAY_ADDRESS", "")
    return "auto" if in_ray_job() or (address and "://" not in address) else None


def warn(text: str) -> None:
    """Tell a person."""
    print(f"warning: {text}", file=sys.stderr)
