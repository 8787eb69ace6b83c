"""Tasks on Ray: started here with a token of its own, or a cluster joined by address.

Nothing of a run lives in Ray: a cluster is disposable, and an attempt that is lost is made again. What is lost is
decided by `infra.schedule` from the signs of life that workers send: after a cut link Ray starts no second attempt for
minutes (docs/design.md, Cluster).
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, redirect_stdout, suppress
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from filters.errors import ClusterError, GristmillError, TaskFailed
from infra.cluster import check_authenticated, read_token, token_warning
from infra.commit import Manifest
from infra.ending import ending_on_sigterm
from infra.node import Check, perform_remotely, ship_code
from infra.preflight import check_for, preflight
from infra.schedule import Patience
from infra.scratch import scratch
from infra.stage import FixedSize, LiveSize, Size, Stage
from infra.store import open_store
from infra.work import Report, Task

OBJECT_STORE_BYTES = 100 << 20
TASK_SECONDS = 6 * 3600.0


class OnRay:
    """A runner on Ray. One task takes one CPU; the parser child works while its worker waits.

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
    ) -> None:
        self._given = workers
        self._address = address if address is not None else address_of_environment()
        self._allow_unauthenticated = allow_unauthenticated
        self._patience = Patience(task_seconds=task_seconds)
        self._stack = ExitStack()
        self._checks: dict[str, Check] = {}
        self.workers = workers or os.cpu_count() or 1

    def __enter__(self) -> Self:
        if self._address is None:
            self._enter_local()
        else:
            self._enter_cluster(self._address)
        # After Ray has set its own handler, which would end this process with another code.
        self._stack.enter_context(ending_on_sigterm())
        return self

    def _enter_local(self) -> None:
        # Before Ray is imported: it reads these once.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        ray = self._imported()
        # Short: the path of a socket has at most 107 bytes.
        folder = str(self._stack.enter_context(scratch("gm-ray-", Path("/tmp"))))
        self._stack.callback(ray.shutdown)
        try:
            ray.init(
                address="local",
                num_cpus=self.workers,
                num_gpus=0,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=folder,
                _node_ip_address="127.0.0.1",
            )
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            self._stack.close()
            raise TaskFailed(f"Ray does not start here: {error}. `--runner inprocess` does without it.") from error

    def _enter_cluster(self, address: str) -> None:
        if "://" in address:
            raise ClusterError(
                f"{address}: only a process on one of the cluster's nodes joins it, by `auto` or HOST:PORT. From "
                "elsewhere: gristmill submit --address http://HOST:8265 ..."
            )
        if "RAY_AUTH_MODE" not in os.environ and read_token() is not None:
            os.environ["RAY_AUTH_MODE"] = "token"
        if (warning := token_warning()) is not None:
            warn(warning)
        ray = self._imported()
        self._stack.callback(ray.shutdown)
        try:
            joined = ray.init(
                address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=self._shipped()
            )
            self._check_token_asked(joined.dashboard_url)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            self._stack.close()
            raise ClusterError(
                f"the Ray cluster at {address} cannot be joined: {error}. This process must run on one of its nodes, "
                "with its token; from elsewhere: gristmill submit --address http://HOST:8265 ..."
            ) from error
        except GristmillError:
            self._stack.close()
            raise
        self.workers = self._given or LiveSize(ray).slots or 1

    def _imported(self) -> Any:
        """Ray, quiet: it prints what happens to workers on standard output, which is for data."""
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        import ray

        self._stack.enter_context(redirect_stdout(sys.stderr))
        return ray

    def _shipped(self) -> dict[str, Any] | None:
        """Our code as Ray's working_dir; inside a Ray job, whoever submitted it has seen to that."""
        if in_ray_job():
            return None
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="gristmill-code-"))
        ship_code(Path(folder))
        return {"working_dir": folder}

    def _check_token_asked(self, dashboard: str | None) -> None:
        """Raise ClusterError where the cluster asks for no token, or has no dashboard that could say so."""
        if dashboard:
            warning = check_authenticated(dashboard, self._allow_unauthenticated)
        elif self._allow_unauthenticated:
            warning = "the cluster has no dashboard: whether it asks for a token is not known"
        else:
            raise ClusterError(
                "the cluster has no dashboard (ray start --include-dashboard=true), so whether it asks for a token "
                "cannot be seen. If nobody else can reach it: --allow-unauthenticated-cluster."
            )
        if warning is not None:
            warn(warning)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for check in self._checks.values():
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
        stage = Stage(
            ray, self.function, self._size(ray), self._patience, self._checked(ray, first), cluster=bool(self._address)
        )
        try:
            yield from stage.run(chain([first], waiting), report)
        finally:
            stage.close()

    def _size(self, ray: Any) -> Size:
        return FixedSize(self.workers) if self._address is None else LiveSize(ray, self._given)

    def _checked(self, ray: Any, task: Task) -> Check | None:
        """What workers must find; every node that is there now was asked. None on this machine's own Ray."""
        if self._address is None:
            return None
        url = task.store.url
        if url not in self._checks:
            self._checks[url] = check_for(task)
            preflight(ray, self._checks[url])
        return self._checks[url]


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
