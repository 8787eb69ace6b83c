"""What a Ray worker loads first: it says in plain words what a node lacks before anything else is imported there.

Imports the standard library and `filters.errors` alone. A task travels as bytes and is unpickled only after the node
was found to be like the driver: Python, distributions, our code, models, and the very same store.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import platform
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filters.errors import GristmillError, PreflightFailed, ResourceMissing

if TYPE_CHECKING:
    from infra.commit import Manifest
    from pipelines.record import Source

PACKAGES = ("filters", "pipelines", "proxy_eval", "infra")
ROOT = Path(__file__).parent.parent
SHIPPED = "environment.json"
"""Beside the four packages where they were shipped: the environment of the machine that shipped them."""

WAYS_OUT = (
    "Give every node the driver's packages, in one of three ways: start the nodes from one container image built from "
    "requirements.lock (infra/deploy/Dockerfile); or install the lock, from an index or a wheelhouse, into the virtual "
    "environment that each node's `ray start` runs from; or let Ray install it for each job (runtime_env pip, set "
    "where the cluster is configured)."
)


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What bears on what code does: Python's minor version, distributions (None: absent), hash of our own code."""

    python: str
    packages: Mapping[str, str | None]
    code: str


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A file that the driver has put into its store; whoever reads these bytes at that URL has the same store."""

    url: str
    name: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a node must have: the driver's environment, its store, models by name with their sha256, and the files
    that the first task reads, pickled: they are looked at only where the environment is right.
    """

    environment: Environment
    probe: Probe
    resources: Mapping[str, str] = field(default_factory=dict)
    sources: bytes = pickle.dumps(())


def environment(packages: list[str] | tuple[str, ...]) -> Environment:
    """This process's environment, as far as these distributions go."""
    major, minor, _ = platform.python_version_tuple()
    return Environment(
        python=f"{major}.{minor}", packages={name: installed(name) for name in packages}, code=code_sha256(ROOT)
    )


def installed(name: str) -> str | None:
    """The version of a distribution, or None where it is absent."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def expected_environment() -> Environment:
    """What every node must be like: this machine, or, in shipped code, the machine that shipped it.

    Covers the distributions that gristmill requires, and s3fs where it is installed here.
    """
    shipped = ROOT / SHIPPED
    if shipped.is_file():
        return Environment(**json.loads(shipped.read_bytes()))
    try:
        said = requires("gristmill") or []
    except PackageNotFoundError as error:
        raise PreflightFailed(
            "gristmill is not installed here, so what it requires is not known. Install it (`pip install -e .` in a "
            "checkout, or the wheel) and run the command again."
        ) from error
    names = [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in said if "extra ==" not in line]
    return environment(sorted({*names, *(["s3fs"] if installed("s3fs") else [])}))


def differences(expected: Environment, found: Environment) -> tuple[str, ...]:
    """Each difference as `trafilatura is absent, the driver has 2.3.1`; empty where there is none."""
    said = []
    if found.python != expected.python:
        said.append(f"Python is {found.python}, the driver has {expected.python}")
    for name, wanted in expected.packages.items():
        if (has := found.packages.get(name)) != wanted:
            theirs = "is absent" if has is None else f"is {has}"
            said.append(f"{name} {theirs}, the driver has {'none' if wanted is None else wanted}")
    if found.code != expected.code:
        said.append("gristmill's own code is not the driver's")
    return tuple(said)


def code_files(root: Path) -> list[Path]:
    """The Python files of the four packages below `root`, sorted."""
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def code_sha256(root: Path) -> str:
    """Hash of the names and bytes of our Python files. 80 files take 5 ms."""
    digest = hashlib.sha256()
    for path in code_files(root):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def ship_code(folder: Path) -> None:
    """Copy into `folder` what a node needs of us (code, recipes, models), and what it must be like."""
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "deploy")
        )
    said = json.dumps(asdict(replace(expected_environment(), code=code_sha256(folder))), indent=1, sort_keys=True)
    (folder / SHIPPED).write_text(said, encoding="utf-8")


def faults(check: Check) -> tuple[str, ...]:
    """What this machine lacks, in words; empty where tasks can run here. Stops at what would keep code from loading."""
    if found := differences(check.environment, environment(tuple(check.environment.packages))):
        return found
    return (
        *resource_faults(check.resources),
        *store_faults(check.probe),
        *source_faults(pickle.loads(check.sources)),
    )


def resource_faults(resources: Mapping[str, str]) -> tuple[str, ...]:
    """What is wrong with the models and lists here."""
    from pipelines.resources import resource_path, resource_sha256

    said = []
    for name, sha256 in resources.items():
        try:
            resource_path(name)
            if resource_sha256(name) != sha256:
                said.append(f"{name} is another file than the driver's (sha256)")
        except ResourceMissing as error:
            said.append(str(error))
    return tuple(said)


def store_faults(probe: Probe) -> tuple[str, ...]:
    """What is wrong with the way from here to the output store."""
    from infra.store import open_store

    try:
        held = open_store(probe.url).read(probe.name)
    except FileNotFoundError:
        held = None
    except (GristmillError, OSError) as error:
        return (f"{probe.url} cannot be read there ({error}); a node uses its own credentials, not the driver's",)
    if held == probe.data:
        return ()
    return (
        f"{probe.url} is not the driver's: what it wrote there is not seen. Give --out a folder that every node "
        "mounts, or an object store",
    )


def source_faults(sources: Iterable[Source]) -> tuple[str, ...]:
    """What is wrong with the way from here to the input."""
    from pipelines.sources import current_version

    said = []
    for source in sources:
        try:
            if current_version(source) != source.version:
                said.append(f"{source.url} is not the file that the driver sees")
        except (GristmillError, OSError) as error:
            said.append(f"{source.url} cannot be read there ({error})")
    return tuple(said)


def check_node(check: Check | None) -> None:
    """Raise PreflightFailed where this machine lacks something. Looked up once in a process for each check."""
    if check is None or check.probe.name in _passed:
        return
    if found := faults(check):
        raise PreflightFailed(f"node {platform.node()}: {'; '.join(found)}. {WAYS_OUT}")
    _passed.add(check.probe.name)


_passed: set[str] = set()


class Reports:
    """An actor that holds the last report of each attempt, and its node, until the driver takes them."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[bytes, str]] = {}

    def put(self, attempt: int, report: bytes, node: str = "") -> None:
        """Note a sign of life."""
        self._last[attempt] = report, node

    def take(self) -> dict[int, tuple[bytes, str]]:
        """What was noted since the last call."""
        last, self._last = self._last, {}
        return last


def node_here() -> str:
    """Ray's id of the node that this process works on; empty where no Ray is."""
    import ray

    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else ""


def perform_remotely(attempt: int, beat_seconds: float, check: Check | None, task: bytes, reports: Any) -> Manifest:
    """Do a pickled task in a worker, with a sign of life at once and then every `beat_seconds`.

    Raises PreflightFailed, before anything of the task is loaded, where this node is not as it must be.
    """
    latest: list[Any] = [None]
    node = node_here()
    with beating(lambda: reports.put.remote(attempt, pickle.dumps(latest[0]), node), beat_seconds):
        check_node(check)
        loaded = pickle.loads(task)
        from infra.perform import perform

        def report(*said: Any) -> None:
            latest[0] = said

        return perform(loaded, report)


@contextmanager
def beating(beat: Callable[[], object], seconds: float) -> Iterator[None]:
    """Call `beat` now and every so many seconds, from a thread that does not outlive the block or its process."""
    over = threading.Event()

    def run() -> None:
        beat()
        while not over.wait(seconds):
            beat()

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        # A beat is one message into a queue; a worker that is being killed waits for nothing.
        thread.join(timeout=1.0)
