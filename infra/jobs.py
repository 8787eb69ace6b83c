"""Runs on a cluster somewhere else, as Ray jobs: submit, list, follow, cancel, resume.

A job carries our code, the resolved recipe and what to do; the cluster needs the packages, not Gristmill. Its driver
notes the job in the output store (`_work/jobs/ID.json`), so a job outlives its cluster: whoever can read the store can
resume it on another one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filters.errors import ClusterError, InputError, OutputError
from infra.cluster import authorization, check_authenticated, dashboard_url, read_token, token_warning
from infra.ending import GRACE_SECONDS
from infra.node import installed, ship_code
from infra.store import open_store
from pipelines.storage import local_path, refuse_credentials

if TYPE_CHECKING:
    from pipelines.recipe import Recipe

FORMAT = 1
JOBS = "_work/jobs"
LIVE = ("PENDING", "RUNNING")
RETRY_SECONDS = (1.0, 3.0, 10.0)
RECONNECTS = 10
LONGEST_PAUSE_SECONDS = 30.0
"""Between two tries to connect again; each is twice as long as the last. Ten of them take 3 minutes: a head that is
started again is back by then."""
QUIET_SECONDS = 120.0
"""Without a word from a job it is asked whether the link still stands: one that was cut says nothing of it."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run to do elsewhere. `recipe` is a resolved Recipe as data; relative inputs are below `relative_to`."""

    recipe: Mapping[str, Any]
    inputs: tuple[str, ...]
    out: str
    relative_to: str
    task_bytes: int
    task_seconds: float
    workers: int | None = None
    limit: int | None = None
    dump: str | None = None
    dropped_samples: int | None = 100
    annotate: bool = False
    all_signals: bool = False
    allow_quarantined: bool = False
    allow_emptied: bool = False
    against: tuple[str, ...] = ()
    anonymous: bool = False
    take_over: bool = False
    allow_unauthenticated: bool = False

    def as_json(self, job_id: str) -> bytes:
        """The job with its id, as it travels and as the store keeps it."""
        return json.dumps({"format": FORMAT, "id": job_id, "job": asdict(self)}, indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> tuple[str, Job]:
        """Id and job. Raises OutputError for one that another release has written otherwise."""
        said = json.loads(data)
        if said.get("format") != FORMAT:
            raise OutputError(f"job format {said.get('format')} was written by another release; submit the job again.")
        try:
            lists = {name: tuple(said["job"][name]) for name in ("inputs", "against")}
            return said["id"], cls(**{**said["job"], **lists})
        except (KeyError, TypeError) as error:  # a field that this release has no more, or one that it did not have
            raise OutputError(f"the job was written by another release ({error}); submit the job again.") from error

    def resolved(self) -> Recipe:
        """The recipe. Raises OutputError where it is of a release whose recipes this one does not understand."""
        from pydantic import ValidationError

        from pipelines.recipe import Recipe

        try:
            return Recipe.model_validate(self.recipe)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise OutputError(
                f"the job's recipe was written by another release ({where}: {first['msg']}); submit the job again."
            ) from error

    def noted(self) -> Job:
        """The job as its store keeps it: what was allowed of one cluster and of one lock is not allowed for good."""
        return replace(self, take_over=False, allow_unauthenticated=False)


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A job as the cluster knows it; times in seconds since 1970. `status` is Ray's word."""

    id: str
    status: str
    recipe: str
    inputs: int
    out: str
    started: float | None
    ended: float | None
    code: int | None
    message: str

    @property
    def live(self) -> bool:
        """True while it has not ended."""
        return self.status in LIVE


def whereabouts(out: str) -> str:
    """An output as every machine would call it: URLs as they are, paths absolute. Raises InputError for credentials."""
    local = local_path(out)
    if local is not None:
        return str(local.absolute())
    refuse_credentials(out)
    return out.rstrip("/")


def new_id() -> str:
    """An id that no other job has."""
    return f"gm-{uuid.uuid4().hex[:12]}"


def job_name(job_id: str) -> str:
    """Where a store keeps the job."""
    return f"{JOBS}/{job_id}.json"


def submit(
    job: Job, address: str, *, job_id: str | None = None, python: str = "python", resumes: str | None = None
) -> str:
    """Start the job on the cluster whose dashboard is at `address`, and return its id.

    Given the same `job_id` again, nothing is started twice. Raises ClusterError where the cluster asks for no token,
    cannot be reached, or runs a job into the same output.
    """
    job = replace(job, out=whereabouts(job.out), against=tuple(map(whereabouts, job.against)))
    for given in job.inputs:
        refuse_credentials(given)
    job_id = job_id or new_id()
    url = dashboard_url(address)
    for warning in (check_authenticated(url, job.allow_unauthenticated), token_warning()):
        if warning is not None:
            print(f"warning: {warning}", file=sys.stderr)
    for other in jobs(url):
        if other.live and other.out == job.out and other.id != job_id:
            raise ClusterError(
                f"{other.id} is at work on {job.out}. Follow it (gristmill logs -f {other.id}), wait for it or cancel "
                "it, or choose another --out."
            )
    metadata = {
        "gristmill": installed("gristmill") or "unknown",
        "recipe": str(job.recipe["name"]),
        "inputs": str(len(job.inputs)),
        "out": job.out,
        **({} if resumes is None else {"resumes": resumes}),
    }
    with tempfile.TemporaryDirectory(prefix="gristmill-job-") as folder:
        ship_code(Path(folder))
        (Path(folder) / "job.json").write_bytes(job.as_json(job_id))
        with client(url) as asked:
            post(asked, job_id, f"exec {shlex.quote(python)} -m infra.job_main job.json", folder, metadata)
    return job_id


def post(asked: Any, job_id: str, entrypoint: str, folder: str, metadata: dict[str, str]) -> None:
    """Hand the job to Ray once, also where the answer to a request is lost: Ray takes an id one time only."""
    runtime_env = {
        "working_dir": folder,
        # The driver ends in an orderly way; Ray's own patience is 3 s. Nothing of this environment goes along.
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(int(GRACE_SECONDS) + 5)},
    }
    for seconds in (*RETRY_SECONDS, None):
        try:
            asked.submit_job(entrypoint=entrypoint, submission_id=job_id, runtime_env=runtime_env, metadata=metadata)
            return
        except (OSError, RuntimeError) as error:
            if (held := metadata_of(asked, job_id)) is not None:
                if held == metadata:
                    return
                raise ClusterError(f"{job_id} is another job on this cluster. Leave out the id.") from error
            if seconds is None or not isinstance(error, OSError):
                raise
        time.sleep(seconds)


def metadata_of(asked: Any, job_id: str) -> dict[str, str] | None:
    """The metadata of a job; None where the cluster does not know it, or does not answer."""
    try:
        return dict(asked.get_job_info(job_id).metadata or {})
    except (OSError, RuntimeError):
        return None


def jobs(address: str) -> tuple[Submitted, ...]:
    """Our jobs on a cluster, the newest first."""
    with client(address) as asked:
        listed = asked.list_jobs()
    found = [submitted(one) for one in listed if one.submission_id and "gristmill" in (one.metadata or {})]
    return tuple(sorted(found, key=lambda one: one.started or 0.0, reverse=True))


def job_of(address: str, job_id: str) -> Submitted:
    """One job. Raises ClusterError where the cluster does not know it."""
    found = {one.id: one for one in jobs(address)}
    if job_id not in found:
        raise ClusterError(f"the cluster knows no job {job_id}. `gristmill jobs` lists those that it knows.")
    return found[job_id]


def submitted(details: Any) -> Submitted:
    """A job from Ray's description of it."""
    said = details.metadata
    return Submitted(
        id=details.submission_id,
        status=str(details.status),
        recipe=said.get("recipe", ""),
        inputs=int(said.get("inputs", 0)),
        out=said.get("out", ""),
        started=None if details.start_time is None else details.start_time / 1000,
        ended=None if details.end_time is None else details.end_time / 1000,
        code=details.driver_exit_code,
        message=details.message or "",
    )


def log(address: str, job_id: str) -> str:
    """What the job has printed so far."""
    job_of(address, job_id)
    with client(address) as asked:
        return str(asked.get_job_logs(job_id))


def follow(address: str, job_id: str, show: Callable[[str], None]) -> Submitted:
    """Show what the job prints, as it does, and return it when it has ended.

    A broken connection is taken up where it broke. Raises ClusterError where the cluster does not know the job, or
    does not answer for long.
    """
    found, seen, broken = job_of(address, job_id), 0, 0
    while True:
        try:
            if broken:
                found = job_of(address, job_id)
            skipped, whole = seen, True
            for text in tail(address, job_id):
                if text is None:
                    whole = False
                    continue
                fresh = text[skipped:]
                skipped = max(0, skipped - len(text))
                seen += len(fresh)
                if fresh:
                    broken = 0
                    show(fresh)
            before, found, broken = found, job_of(address, job_id), 0
            # A stream that was given up may have had more to say, unless the job had ended before it began.
            if not found.live and (whole or not before.live):
                return found
        except ClusterError:
            broken += 1
            if broken > RECONNECTS:
                raise
        time.sleep(min(2.0 ** max(0, broken - 1), LONGEST_PAUSE_SECONDS))


def tail(address: str, job_id: str) -> Iterator[str | None]:
    """Yield pieces of the job's output from its beginning, until the server ends the stream.

    The last one is None where nothing came for `QUIET_SECONDS`, and whether the link still stands is not known.
    """
    import aiohttp

    with client(address) as asked, asyncio.Runner() as runner:
        pieces = asked.tail_job_logs(job_id)

        async def next_piece() -> str | None:
            async with asyncio.timeout(QUIET_SECONDS):
                said: str | None = await anext(pieces, None)
                return said

        try:
            while (piece := runner.run(next_piece())) is not None:
                yield piece
        except aiohttp.ClientError as error:
            raise ClusterError(f"the connection to {address} broke ({error}).") from error
        except TimeoutError:
            yield None
        finally:
            runner.run(pieces.aclose())


def cancel(address: str, job_id: str) -> Submitted:
    """Stop a job and return it when it has ended; what it committed stays. One that has ended stays as it is."""
    if not (found := job_of(address, job_id)).live:
        return found
    with client(address) as asked:
        asked.stop_job(job_id)
    deadline = time.monotonic() + GRACE_SECONDS + 15
    while (found := job_of(address, job_id)).live and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def resume(
    address: str,
    job_id: str | None,
    *,
    out: str | None = None,
    python: str = "python",
    take_over: bool = False,
    allow_unauthenticated: bool = False,
) -> str:
    """Submit a job again, and return its new id: what is committed is kept.

    The job is read from its output store, which is `out` or what this cluster says of the job; without an id, the
    newest that the store has. What was allowed to it is to be allowed again. Raises ClusterError, InputError and
    OutputError.
    """
    if out is None:
        if job_id is None:
            raise InputError("say which job to resume: its id, or --out where it writes.")
        out = job_of(address, job_id).out
    store = open_store(whereabouts(out))
    if job_id is None:
        noted = max(store.listed(JOBS), key=lambda one: one.written, default=None)
        name = "" if noted is None else noted.name
    else:
        name = job_name(job_id)
    try:
        if not name:
            raise FileNotFoundError(JOBS)
        found, job = Job.from_json(store.read(name))
    except FileNotFoundError as error:
        raise OutputError(
            f"{store.url}: no job is noted there{'' if job_id is None else f' as {job_id}'}. Submit it again with the "
            "same arguments: that continues just so."
        ) from error
    job.resolved()  # said here, and not by the job on the cluster
    job = replace(job, take_over=take_over, allow_unauthenticated=allow_unauthenticated)
    return submit(job, address, python=python, resumes=found)


@contextmanager
def client(address: str) -> Iterator[Any]:
    """Yield Ray's client for this address; what goes wrong with it inside the block is a ClusterError."""
    url = dashboard_url(address)
    # Ray lets the environment win over an address that is given; here the given one wins.
    with replaced("RAY_API_SERVER_ADDRESS", url):
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield JobSubmissionClient(url, headers=authorization())
        except AuthenticationError as error:
            said = "no token is set" if read_token() is None else "the token is not the cluster's"
            raise ClusterError(
                f"{url}: {said}. Set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or put the token into ~/.ray/auth_token."
            ) from error
        except (OSError, RuntimeError) as error:
            raise ClusterError(f"{url}: {error}") from error


@contextmanager
def replaced(name: str, value: str) -> Iterator[None]:
    """Have an environment variable hold `value` inside the block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
