"""A real Ray cluster of several nodes on this machine: a head and workers, each `ray start` in processes of its own.

Every process is known by its id and ended at the end; `ray stop`, which ends everybody's, is never called.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.servers.seaweed import die_with_parent, free_ports

START_SECONDS = 90.0
OBJECT_STORE_BYTES = 80 << 20


@dataclass
class Cluster:
    """A head that answers, the token that it asks for (None: it asks for none), and its nodes."""

    folder: Path
    address: str
    dashboard: str
    token: str | None
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    inside: tuple[str, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """What a client, a node or a driver of this cluster finds in its environment."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        token = {"RAY_AUTH_MODE": "disabled"} if self.token is None else {"RAY_AUTH_TOKEN": self.token}
        token |= {} if self.token is None else {"RAY_AUTH_MODE": "token"}
        return clean | token | {"GRISTMILL_ADDRESS": self.dashboard, "RAY_USAGE_STATS_ENABLED": "0"}

    def add(
        self,
        *,
        cpus: int = 1,
        python: str = sys.executable,
        ip: str = "127.0.0.1",
        environment: Mapping[str, str] | None = None,
        inside: tuple[str, ...] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a worker node and return its process; it joins a moment later."""
        options = ["--address", self.address, "--node-ip-address", ip, "--num-cpus", str(cpus)]
        # Of its own: nodes that share one unpack our code into the same folder, over the heads of those who run it.
        options += ["--temp-dir", str(self.folder / str(len(self.nodes)))]
        process = start(self, python, options, environment or {}, inside)
        self.nodes.append(process)
        return process

    def wait_for(self, count: int) -> None:
        """Wait until this many nodes, the head included, are up."""
        script = (
            "import ray, sys, time\n"
            f"ray.init(address={self.address!r}, log_to_driver=False, logging_level='ERROR')\n"
            f"end = time.monotonic() + {START_SECONDS}\n"
            f"while sum(node['Alive'] for node in ray.nodes()) != {count}:\n"
            "    if time.monotonic() > end: sys.exit(1)\n"
            "    time.sleep(0.2)\n"
        )
        subprocess.run([*self.inside, sys.executable, "-c", script], env=self.environment, check=True)


def start(
    cluster: Cluster, python: str, options: list[str], environment: Mapping[str, str], inside: tuple[str, ...]
) -> subprocess.Popen[bytes]:
    """`ray start` with these options, as a process that ends with this one."""
    agent, metrics, runtime = free_ports(3)
    command = [
        *inside,
        python,
        *("-m", "ray.scripts.scripts", "start", *options, "--block", "--disable-usage-stats", "--num-gpus=0"),
        *("--object-store-memory", str(OBJECT_STORE_BYTES), "--dashboard-agent-listen-port", str(agent)),
        *("--metrics-export-port", str(metrics), "--runtime-env-agent-port", str(runtime)),
        *("--min-worker-port=0", "--max-worker-port=0", "--include-log-monitor=false"),
    ]
    with (cluster.folder / f"node-{secrets.token_hex(3)}.log").open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=cluster.folder,
            env=cluster.environment | environment,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def tree(pid: int) -> list[psutil.Process]:
    """A process and everything below it."""
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_node(node: subprocess.Popen[bytes]) -> None:
    """Kill a node at once, with all that runs on it."""
    processes = tree(node.pid)
    for one in processes:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    node.wait(timeout=20)
    psutil.wait_procs(processes, timeout=20)


@contextmanager
def cluster(
    *, token: str | None = "", ip: str = "127.0.0.1", inside: tuple[str, ...] = (), environment: Mapping[str, str] = {}
) -> Iterator[Cluster]:
    """Start a head without CPUs, yield when its dashboard answers, and kill every node afterwards.

    `token` "" makes one. `inside` is a command that runs another, for instance in a network namespace.
    """
    # Short: the path of a socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="gmt-", dir="/tmp"))
    gcs, dashboard = free_ports(2)
    started = Cluster(
        folder=folder,
        address=f"{ip}:{gcs}",
        dashboard=f"http://{ip}:{dashboard}",
        token=secrets.token_hex(16) if token == "" else token,
        inside=inside,
    )
    options = ["--head", "--port", str(gcs), "--node-ip-address", ip, "--num-cpus=0", "--temp-dir", str(folder / "r")]
    options += ["--include-dashboard=true", "--dashboard-host", ip, "--dashboard-port", str(dashboard)]
    head = start(started, sys.executable, options, environment, inside)
    try:
        wait_until_it_answers(started)
        yield started
    finally:
        for node in (*started.nodes, head):
            kill_node(node)
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_it_answers(started: Cluster) -> None:
    """Wait for the dashboard, with the token where there is one; asked from where the cluster is."""
    script = (
        "import sys, urllib.request\n"
        f"request = urllib.request.Request({started.dashboard + '/api/version'!r})\n"
        f"token = {started.token!r}\n"
        "token and request.add_header('Authorization', 'Bearer ' + token)\n"
        "try: urllib.request.urlopen(request, timeout=5).close()\n"
        "except OSError: sys.exit(1)\n"
    )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if subprocess.run([*started.inside, sys.executable, "-S", "-c", script], check=False).returncode == 0:
            return
        time.sleep(0.2)
    logs = [path.read_text(errors="replace")[-2000:] for path in started.folder.glob("*.log")]
    raise TimeoutError(f"the head of {started.folder} does not answer: {logs}")


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Cluster]:
    """A head with token authentication and two worker nodes of one CPU."""
    with cluster() as started:
        started.add()
        started.add()
        started.wait_for(3)
        yield started
