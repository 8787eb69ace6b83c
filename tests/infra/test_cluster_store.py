"""The whole of it: a cluster that asks for a token, an object store, and the demo crawl submitted from elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra.commands import run_recipe
from infra.demo_crawl import build_demo_crawl
from infra.run import read_run
from infra.store import open_store
from infra.stored import Store
from infra.verify import verify
from pipelines.recipe import load_recipe
from tests.plain import plain
from tests.ray_cluster import cluster
from tests.servers.seaweed import S3


@pytest.mark.ray
@pytest.mark.full
def test_the_demo_submitted_to_a_cluster_into_a_bucket_is_that_of_one_process(
    s3: S3, bucket: str, tmp_path: Path
) -> None:
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    build_demo_crawl(crawl)
    local = run_recipe(
        load_recipe("fineweb"),
        ["crawl"],
        tmp_path / "local",
        runner="inprocess",
        quiet=True,
        task_bytes=1 << 20,
        relative_to=tmp_path,
    )
    with cluster(environment=s3.environment) as ray:
        for _ in range(2):
            ray.add(environment=s3.environment)
        ray.wait_for(3)
        options = ["--out", f"{bucket}/corpus", "--task-size", "1MiB", "--python", sys.executable, "--follow"]
        done = subprocess.run(
            [sys.executable, "-m", "infra.cli", "submit", "fineweb", "--input", "crawl", *options],
            cwd=tmp_path,
            env=ray.environment,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert local.dataset_sha256 in done.stderr
        made = read_run(open_store(f"{bucket}/corpus"))
        assert made.dataset_sha256 == local.dataset_sha256
        assert made.accounts.as_json() == local.accounts.as_json()
        assert verify(made) > 0
        assert_no_secret(s3, made.store, ray.folder, done.stdout + done.stderr)


def assert_no_secret(s3: S3, store: Store, folder: Path, said: str) -> None:
    """The store's secret key stands in the nodes' environment, and nowhere else."""
    assert s3.secret_key not in said
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert s3.secret_key.encode() not in plain(path.read_bytes()), path
    for one in store.listed(""):
        assert s3.secret_key.encode() not in plain(store.read(one.name)), one.name
    jobs = [one.name for one in store.listed("_work/jobs")]
    assert len(jobs) == 1
    assert json.loads(store.read(jobs[0]))["job"]["out"] == store.url
