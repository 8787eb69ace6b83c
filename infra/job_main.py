"""What a submitted job runs on the cluster's head: `python -m infra.job_main JOB.json`.

Until the head is known to be like the machine that submitted, nothing but the standard library is imported: a head
without the packages says what it lacks, and does not end in an ImportError.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from filters.errors import (
    GristmillError,
    InputError,
    PreflightFailed,
    QuarantineBudgetExceeded,
    RecipeError,
    SourceEmptied,
)
from infra.ending import ending_on_sigterm
from infra.node import WAYS_OUT, differences, environment, expected_environment


def main() -> None:
    """Run the job of the file named on the command line; exit codes are those of `gristmill run`."""
    try:
        expected = expected_environment()
        if found := differences(expected, environment(tuple(expected.packages))):
            lines = [f"  node {platform.node()} (the head): {fault}" for fault in found]
            raise PreflightFailed("\n".join(["the head cannot do this run; nothing was started.", *lines, WAYS_OUT]))
        with ending_on_sigterm():
            run(Path(sys.argv[1]).read_bytes())
    except GristmillError as error:
        # As in infra.cli, which may be imported only where there is nothing wrong with the head.
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, QuarantineBudgetExceeded | SourceEmptied):
            raise SystemExit(3) from None
        raise SystemExit(2 if isinstance(error, RecipeError | InputError) else 1) from None


def run(data: bytes) -> None:
    """Note the job in its store, so that it can be resumed from there, and do it."""
    from infra.cli import report_run
    from infra.commands import run_recipe
    from infra.jobs import Job, job_name
    from infra.store import open_store

    job_id, job = Job.from_json(data)
    recipe = job.resolved()
    store = open_store(job.out)
    # Locked: a folder that holds other things is refused before anything is written there.
    with store.locked(take_over=job.take_over):
        store.create(job_name(job_id), job.noted().as_json(job_id))
    made = run_recipe(
        recipe,
        job.inputs,
        job.out,
        runner="ray",
        address="auto",
        allow_unauthenticated=job.allow_unauthenticated,
        task_seconds=job.task_seconds,
        workers=job.workers,
        limit=job.limit,
        dump=job.dump,
        task_bytes=job.task_bytes,
        dropped_samples=job.dropped_samples,
        annotate=job.annotate,
        all_signals=job.all_signals,
        allow_quarantined=job.allow_quarantined,
        allow_emptied=job.allow_emptied,
        against=job.against,
        anonymous=job.anonymous,
        take_over=job.take_over,
        relative_to=Path(job.relative_to),
    )
    sys.argv[0] = "gristmill"  # what the report tells a person to type next
    report_run(made, as_json=False)


if __name__ == "__main__":
    main()
