"""A run into a real object store: the bytes of a local run, every command, faults of the store on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from filters.errors import OutputError
from infra.commands import retry_quarantined, run_recipe
from infra.commit import committed
from infra.look import explain, rows_of
from infra.run import Finished, read_run
from infra.store import open_store
from infra.stored import LOCK
from infra.verify import collect, verify
from pipelines.recipe import load_recipe
from tests.servers.fault_proxy import Fault, FaultProxy, Faults
from tests.servers.seaweed import S3

RECIPE = load_recipe("fineweb-resiliparse")


def run(crawl: Path | str, out: Path | str) -> Finished:
    return run_recipe(RECIPE, [str(crawl)], out, runner="inprocess", quiet=True, task_bytes=8_000)


def test_the_dataset_is_that_of_a_local_run_and_every_command_reads_it(
    small_crawl: Path, bucket: str, tmp_path: Path
) -> None:
    local = run(small_crawl, tmp_path / "out")
    made = run(small_crawl, f"{bucket}/corpora/one")
    assert made.dataset_sha256 == local.dataset_sha256
    store = open_store(f"{bucket}/corpora/one")
    again = read_run(store)
    assert verify(again) == verify(local)
    assert again.accounts.as_json() == local.accounts.as_json()
    for kind in ("dataset", "dropped", "quarantined"):
        ours, theirs = list(rows_of(again, kind)), list(rows_of(local, kind))
        assert ours == theirs
    assert [one.row for one in explain(again, "https://mill.example/3")][0]["outcome"] == "dropped"
    assert collect(store, older_than=-1).files == 0
    assert run(small_crawl, f"{bucket}/corpora/one").done_now == 0
    assert not any(one.name == LOCK for one in store.listed("_work"))


def test_pages_read_from_the_store_are_those_of_the_local_files(
    small_crawl: Path, s3: S3, bucket: str, tmp_path: Path
) -> None:
    client = s3.client()
    for path in small_crawl.iterdir():
        key = f"in/{small_crawl.name}/{path.name}"
        client.put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=path.read_bytes())
    client.close()
    local = run(small_crawl, tmp_path / "local")
    made = run(f"{bucket}/in", tmp_path / "remote")
    columns = ["text", "id", "dump", "url", "language_score", "token_count"]
    ours, theirs = (
        pq.read_table(Path(one.store.url) / "dataset" / "part-00000.parquet", columns=columns) for one in (made, local)
    )
    assert ours.equals(theirs)


def test_quarantined_documents_of_a_store_can_be_retried(write_warc: Callable, bucket: str) -> None:
    path = write_warc("deep.warc.gz", [b"<html><body>" + b"<div>" * 100_000 + b"deep"])
    made = run(path, f"{bucket}/out")
    assert sum(made.accounts.quarantined.values()) == 1
    again = retry_quarantined(
        f"{bucket}/out", deadline_seconds=5.0, memory_bytes=2 << 30, runner="inprocess", workers=None, quiet=True
    )
    assert sum(again.accounts.quarantined.values()) == 1
    assert list(again.rollup.retries.values()) == [("0001",)]
    assert verify(again) > 0


@pytest.mark.full
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_store_that_fails_now_and_then_gets_the_same_bytes(
    small_crawl: Path, bucket: str, tmp_path: Path, faulty: Callable[[Faults], FaultProxy], seed: int
) -> None:
    expected = run(small_crawl, tmp_path / "out").dataset_sha256
    proxy = faulty(Faults(seed=seed, odds=dict.fromkeys(Fault, 0.03)))
    made = run(small_crawl, f"{bucket}/out")
    assert verify(made) > 0
    assert made.dataset_sha256 == expected, str(proxy)
    assert sum(proxy.made.values()) > 5, str(proxy)


@pytest.mark.full
def test_a_run_that_is_told_to_end_does_so_and_lets_the_store_go(small_crawl: Path, bucket: str) -> None:
    store = open_store(f"{bucket}/out")
    options = ["--out", store.url, "--runner", "inprocess", "--task-size", "3000"]
    command = [sys.executable, "-m", "infra.cli", "run", "fineweb-resiliparse", "-i", str(small_crawl), *options]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not committed(store, "process") and time.monotonic() < deadline:
        time.sleep(0.05)
    started.send_signal(signal.SIGTERM)
    _, said = started.communicate(timeout=30)
    assert started.returncode == 143
    assert "what is committed is kept" in said
    assert not any(one.name == LOCK for one in store.listed("_work"))
    done = json.loads(
        subprocess.run([*command, "--quiet", "--json"], capture_output=True, check=True, env=os.environ).stdout
    )
    assert done["tasks_done_now"] > 0


def test_of_a_long_listing_only_the_page_that_failed_is_asked_for_again(
    bucket: str, faulty: Callable[[Faults], FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.patience.WAIT_SECONDS", 0.001)
    monkeypatch.setattr("pipelines.listing.PAGE_NAMES", 2)
    store = open_store(f"{bucket}/out")
    names = {f"_work/manifests/process/{number:02d}.json" for number in range(20)}
    for name in names:
        store.create(name, b"{}")
    proxy = faulty(Faults(seed=1, odds={Fault.SLOW_DOWN: 0.4}))
    assert {one.name for one in store.listed("_work/manifests")} == names, str(proxy)
    assert proxy.made.total() > 3, str(proxy)
    assert proxy.calls == 10 + proxy.made.total(), str(proxy)


def test_a_large_object_is_read_by_one_request(bucket: str, faulty: Callable[[Faults], FaultProxy]) -> None:
    store = open_store(f"{bucket}/out")
    store.replace("large", bytes(51 << 20))
    proxy = faulty(Faults(seed=0, odds={}))
    assert len(store.read("large")) == 51 << 20
    assert proxy.calls == 1, str(proxy)


def test_wrong_credentials_are_refused_without_being_told(
    small_crawl: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.servers.fixtures import forget_clients

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-0123456789")
    forget_clients()
    with pytest.raises(OutputError) as caught:
        run(small_crawl, f"{bucket}/out")
    assert bucket in str(caught.value)
    assert "canary" not in str(caught.value)
