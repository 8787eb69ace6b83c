"""The commands over a cluster somewhere else: submit, jobs, logs, cancel, resume. Registered by `infra.cli`."""

from __future__ import annotations

import os
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from infra.options import (
    Against,
    AllowEmptied,
    AllowQuarantined,
    AllSignals,
    Annotate,
    Anonymous,
    DroppedSamples,
    Dump,
    Inputs,
    Json,
    Limit,
    OutOption,
    RecipeName,
    TakeOver,
    TaskDeadline,
    TaskSize,
    Unauthenticated,
    Workers,
    byte_count,
    dropped_count,
)
from infra.terminal import data, table, visible

if TYPE_CHECKING:
    from infra.jobs import Submitted

ADDRESS_VARIABLES = ("GRISTMILL_ADDRESS", "RAY_API_SERVER_ADDRESS")
INTERRUPTED = 130
Dashboard = Annotated[
    str,
    typer.Option(
        "--address",
        envvar=list(ADDRESS_VARIABLES),
        help="The cluster's dashboard: http://HOST:8265.",
        show_default=False,
    ),
]
JobId = Annotated[str, typer.Argument(help="A job's id, as `submit` printed it.", show_default=False)]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Print what the job prints until it ends.")]
Python = Annotated[str, typer.Option("--python", help="The Python of the cluster's nodes that has the packages.")]


def submit(
    recipe: RecipeName,
    input: Inputs,
    out: OutOption,
    address: Dashboard,
    workers: Workers = None,
    limit: Limit = None,
    dump: Dump = None,
    task_size: TaskSize = "256MiB",
    dropped: DroppedSamples = "100",
    annotate: Annotate = False,
    all_signals: AllSignals = False,
    allow_quarantined: AllowQuarantined = False,
    allow_emptied: AllowEmptied = False,
    against: Against = None,
    anonymous: Anonymous = False,
    task_deadline: TaskDeadline = 6.0,
    take_over: TakeOver = False,
    allow_unauthenticated_cluster: Unauthenticated = False,
    python: Python = "python",
    follow: Follow = False,
    as_json: Json = False,
) -> None:
    """Run a recipe on a cluster: prints the job's id. Paths and credentials are those of the cluster's nodes."""
    from infra.commands import check_recipe
    from infra.jobs import Job
    from infra.jobs import submit as submitted
    from pipelines.recipe import load_recipe

    resolved = load_recipe(recipe)
    check_recipe(resolved)
    job = Job(
        recipe=resolved.model_dump(mode="json"),
        inputs=tuple(input),
        out=out,
        relative_to=str(Path.cwd()),
        task_bytes=byte_count(task_size),
        task_seconds=3600 * task_deadline,
        workers=workers,
        limit=limit,
        dump=dump,
        dropped_samples=dropped_count(dropped),
        annotate=annotate,
        all_signals=all_signals,
        allow_quarantined=allow_quarantined,
        allow_emptied=allow_emptied,
        against=tuple(against or ()),
        anonymous=anonymous,
        take_over=take_over,
        allow_unauthenticated=allow_unauthenticated_cluster,
    )
    started(address, submitted(job, address, python=python), follow=follow, as_json=as_json)


def jobs(address: Dashboard, as_json: Json = False) -> None:
    """List the runs that a cluster knows, the newest first. It forgets them when it ends; their outputs do not."""
    from infra.jobs import jobs as listed

    found = listed(address)
    if as_json:
        data([asdict(one) for one in found])
        return
    table(
        [("job", "left"), ("status", "left"), ("recipe", "left"), ("for", "right"), ("out", "left")],
        [(one.id, one.status.lower(), visible(one.recipe), lasted(one), visible(one.out)) for one in found],
    )


def logs(address: Dashboard, job: JobId, follow: Follow = False, as_json: Json = False) -> None:
    """Print what a job has printed. With --follow, until it ends, and then its exit code is the command's."""
    from infra.jobs import log

    if follow:
        raise SystemExit(followed(address, job, sys.stdout))
    said = log(address, job)
    if as_json:
        data({"id": job, "log": said})
    else:
        print(visible(said), end="")


def cancel(address: Dashboard, job: JobId, as_json: Json = False) -> None:
    """Stop a job. What it committed stays, and `resume` continues from there."""
    from infra.jobs import cancel as cancelled

    found = cancelled(address, job)
    if as_json:
        data(asdict(found))
    else:
        print(f"{found.id} {found.status.lower()}")
        say(f"to continue: gristmill resume {found.id}{address_option(address)}")
    if found.live:
        say(f"it has been told to end and has not yet: `gristmill jobs{address_option(address)}` shows when it has")
        raise SystemExit(1)


def resume(
    address: Dashboard,
    job: Annotated[str | None, typer.Argument(help="A job's id (default: the newest of --out).")] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Where the job writes; needed on a cluster that never saw it.")
    ] = None,
    take_over: TakeOver = False,
    allow_unauthenticated_cluster: Unauthenticated = False,
    python: Python = "python",
    follow: Follow = False,
    as_json: Json = False,
) -> None:
    """Submit a job again, on this cluster or a new one: what is committed is kept. Prints the new id."""
    from infra.jobs import resume as resumed

    resubmitted = resumed(
        address,
        job,
        out=out,
        python=python,
        take_over=take_over,
        allow_unauthenticated=allow_unauthenticated_cluster,
    )
    started(address, resubmitted, follow=follow, as_json=as_json)


def started(address: str, job: str, *, follow: bool, as_json: bool) -> None:
    """Say which job was started and what to type next, or follow it."""
    if as_json:
        data({"id": job})
    else:
        print(job, flush=True)
    if follow:
        raise SystemExit(followed(address, job, sys.stderr))
    for line in (f"logs -f {job}", "jobs", f"cancel {job}"):
        say(f"next      gristmill {line}{address_option(address)}")


def address_option(address: str) -> str:
    """What to add to a command that is shown, so that it means this cluster: nothing where the environment does."""
    named = next((value for name in ADDRESS_VARIABLES if (value := os.environ.get(name))), None)
    return "" if named == address else f" --address {shlex.quote(address)}"


def followed(address: str, job: str, into: TextIO) -> int:
    """Print what a job prints, and return its exit code when it has ended.

    An interrupt ends the following and not the job, with the code of an interrupt.
    """
    from infra.jobs import follow

    try:
        found = follow(address, job, lambda text: print(visible(text), end="", file=into, flush=True))
    except KeyboardInterrupt:
        say(f"\n{job} goes on; to follow it again: gristmill logs -f {job}{address_option(address)}")
        return INTERRUPTED
    say(f"{job} {found.status.lower()}")
    if found.status == "SUCCEEDED":
        return 0
    if found.code is None and found.message:
        say(visible(found.message))
    return found.code or 1


def lasted(job: Submitted) -> str:
    """How long a job has run."""
    from infra.progress import clock_time

    return "" if job.started is None else clock_time((job.ended or time.time()) - job.started)


def say(text: str) -> None:
    """Tell a person, beside the data."""
    print(text, file=sys.stderr)
