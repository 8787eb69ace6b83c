"""What a disturbed run is held against: the same crawl, run once without a fault by one process on a local disk."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import botocore.session
from botocore.client import BaseClient
from botocore.config import Config

from infra.failpoints import VARIABLE
from infra.run import read_run
from infra.store import open_store
from infra.verify import verify

RECIPE = "fineweb-resiliparse"
TASK_BYTES = 8_000
"""Cuts the small crawl into 12 tasks, so that most of it is done when something fails."""


def command(crawl: Path, out: str, *options: str, runner: str = "inprocess") -> list[str]:
    """The command that a person types, and types again."""
    settings = ["--runner", runner, "--task-size", str(TASK_BYTES), "--quiet", "--json"]
    return [sys.executable, "-m", "infra.cli", "run", RECIPE, "-i", str(crawl), "--out", out, *settings, *options]


def run(arguments: list[str], failpoints: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command with these failpoints and this environment."""
    more = environment | ({VARIABLE: failpoints} if failpoints else {})
    return subprocess.run(arguments, env=os.environ | more, capture_output=True, text=True, timeout=200)


def assert_whole(out: str, expected: str, said: str = "") -> None:
    """Fail unless `out` holds a finished run with nothing lost, doubled or made otherwise; `said` is told then."""
    store = open_store(out)
    made = read_run(store)
    assert made.dataset_sha256 == expected, said
    assert verify(made) > 0, said
    assert [name for name in stored(out) if name.startswith("_work/conflicts/")] == [], said


@contextmanager
def client() -> Iterator[BaseClient]:
    """An S3 client of the test's own, for the server and the keys that the environment names."""
    config = Config(retries={"total_max_attempts": 5}, s3={"addressing_style": "path"})
    made = botocore.session.Session().create_client("s3", config=config)
    try:
        yield made
    finally:
        made.close()


def stored(out: str) -> Mapping[str, int]:
    """Bytes of everything in `out`, by name: what is really there, and not what the product lists."""
    if "://" not in out:
        return {str(path.relative_to(out)): path.stat().st_size for path in Path(out).rglob("*") if path.is_file()}
    prefix = urlsplit(out).path.strip("/") + "/"
    found: dict[str, int] = {}
    with client() as asked:
        for page in asked.get_paginator("list_objects_v2").paginate(Bucket=urlsplit(out).netloc, Prefix=prefix):
            found |= {one["Key"].removeprefix(prefix): one["Size"] for one in page.get("Contents", ())}
    return found


def read(out: str, name: str) -> bytes:
    """The bytes of a name in `out`, read without the product."""
    if "://" not in out:
        return (Path(out) / name).read_bytes()
    with client() as asked:
        key = f"{urlsplit(out).path.strip('/')}/{name}"
        with asked.get_object(Bucket=urlsplit(out).netloc, Key=key)["Body"] as body:
            data: bytes = body.read()
    return data


def named(out: str) -> set[str]:
    """Everything that `out` should keep: records, and files that a record names. Read from the JSON, not by `gc`."""
    there = stored(out)
    records = {name for name in there if re.fullmatch(r"_work/(manifests|rollups|conflicts|jobs)/.*", name)}
    records = {name for name in records if not name.rsplit("/", 1)[1].startswith(".")}
    names = set(records)
    for name in records:
        if name.startswith("_work/manifests/"):
            names |= {file["path"] for file in json.loads(read(out, name))["files"].values()}
    if "run.json" in there:
        said = json.loads(read(out, "run.json"))
        names |= {"run.json", *(file["path"] for files in said["files"].values() for file in files)}
    return names
