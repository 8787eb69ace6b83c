"""What Ray costs beside one process, and an object store beside local disk, on the demo crawl.

    python benchmarks/overhead.py [--quick] [--json]

Every run is the whole command, `gristmill run fineweb`, held to one core, so that its wall time is all that it and its
children compute: Ray's own processes count. A run that finds everything done tells what starting and ending cost; the
ratio is of what is left, and `started` beside it of everything. The S3 server has the other core.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from infra.demo_crawl import build_demo_crawl
from tests.servers.seaweed import seaweed

RUNS = 3
CORE = {0}


def command(crawl: Path, out: str, runner: Sequence[str], limit: int | None) -> list[str]:
    """The command line of a run."""
    limited = [] if limit is None else ["--limit", str(limit)]
    options = ["--task-size", "1MiB", "--quiet", "--json", *runner, *limited]
    return [sys.executable, "-m", "infra.cli", "run", "fineweb", "--input", str(crawl), "--out", out, *options]


def timed(line: Sequence[str], environment: dict[str, str]) -> tuple[float, str]:
    """Seconds of a command on one core, and the hash of the dataset that it made."""
    started = time.monotonic()
    done = subprocess.run(
        line,
        capture_output=True,
        check=True,
        env=os.environ | environment,
        preexec_fn=lambda: os.sched_setaffinity(0, CORE),
    )
    return time.monotonic() - started, json.loads(done.stdout)["dataset_sha256"]


def measured(
    line: Callable[[str], list[str]], places: Sequence[str], environment: dict[str, str]
) -> tuple[float, float, set[str]]:
    """Median seconds of whole runs, median seconds of runs that find everything done, and the hashes made."""
    whole, idle, hashes = [], [], set()
    for place in places:
        seconds, made = timed(line(place), environment)
        whole.append(seconds)
        hashes.add(made)
        idle.append(timed(line(place), environment)[0])
    return median(whole), median(idle), hashes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 documents, one run each, at most 50 s")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    limit, runs = (100, 1) if options.quick else (None, RUNS)
    in_process, on_ray = ["--runner", "inprocess"], ["--runner", "ray", "--workers", "1"]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        crawl = folder / "crawl"
        crawl.mkdir()
        build_demo_crawl(crawl)
        (folder / "s3").mkdir()
        s3 = stack.enter_context(seaweed(folder / "s3"))
        os.sched_setaffinity(s3.pid, set(range(os.cpu_count() or 1)) - CORE or CORE)
        s3.client().create_bucket(Bucket="overhead")
        timed(command(crawl, str(folder / "warm"), in_process, 20), {})
        results = {
            name: measured(
                lambda place, runner=runner: command(crawl, place, runner, limit),  # type: ignore[misc]
                [f"{base}/{name}-{number}" for number in range(runs)],
                environment,
            )
            for name, runner, base, environment in (
                ("in process", in_process, str(folder), {}),
                ("ray", on_ray, str(folder), {}),
                ("s3", in_process, "s3://overhead", dict(s3.environment)),
            )
        }
    show(results, as_json=options.json)


def show(results: dict[str, tuple[float, float, set[str]]], *, as_json: bool) -> None:
    """Print what was measured."""
    base_whole, base_idle, base_hashes = results.pop("in process")
    ratios, agreement = {}, {}
    details: dict[str, Any] = {"in process": {"seconds": base_whole, "idle": base_idle}}
    for name, (whole, idle, hashes) in results.items():
        ratios[name] = round((base_whole - base_idle) / (whole - idle), 3)
        ratios[f"{name}, started"] = round(base_whole / whole, 3)
        agreement[name] = float(hashes == base_hashes)
        details[name] = {"seconds": whole, "idle": idle}
    if as_json:
        print(json.dumps({"ratios": ratios, "agreement": agreement, "details": details}))
        return
    for name, found in details.items():
        print(f"{name:12} {found['seconds']:7.2f} s, of which starting and ending {found['idle']:.2f} s")
    for name, ratio in ratios.items():
        print(f"{name:12} runs at {ratio:.3f} of the speed of one process on local disk")


if __name__ == "__main__":
    main()
