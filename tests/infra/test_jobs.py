"""Jobs on a real cluster of a head and two nodes: submitted from elsewhere, followed, cancelled, resumed, disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from filters.errors import ClusterError, InputError, OutputError
from infra.cli import app
from infra.commands import run_recipe
from infra.jobs import Job, job_name, jobs, resume, submit, whereabouts
from infra.run import read_run
from infra.store import open_store
from infra.verify import verify
from pipelines.recipe import load_recipe
from tests.ray_cluster import Cluster, cluster, kill_node, ray_cluster  # noqa: F401 - a fixture

RECIPE = "fineweb-resiliparse"
TASK_BYTES = 4_000
CANARY = "canary-7f3a"
ZOMBIE_SECONDS = 45
"""More than the 30 s after which an attempt is lost, less than the 60 s after which the cut raylet ends its workers."""


def gristmill(
    on: Cluster, *arguments: str, folder: Path = Path("/"), code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Type a command in a folder outside the checkout; secrets stand in the environment."""
    environment = on.environment | {"AWS_SECRET_ACCESS_KEY": CANARY}
    command = [*on.inside, sys.executable, "-m", "infra.cli", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-6000:]
    return done


def submission(crawl: Path, out: Path, *more: str) -> list[str]:
    options = ["--out", str(out), "--task-size", str(TASK_BYTES), "--python", sys.executable, *more]
    return ["submit", RECIPE, "-i", str(crawl), *options]


def until(true: Callable[[], bool], what: str, seconds: float = 200.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def begun(out: Path) -> bool:
    """True when a first task is committed."""
    return any((out / "_work" / "manifests" / "process").glob("**/*.json"))


@pytest.fixture(scope="module")
def expected(small_crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    made = run_recipe(
        load_recipe(RECIPE), [str(small_crawl)], out, runner="inprocess", quiet=True, task_bytes=TASK_BYTES
    )
    return made.dataset_sha256


def made_hash(out: Path) -> str:
    made = read_run(open_store(out))
    assert verify(made) > 0
    return made.dataset_sha256


def a_job(crawl: Path, out: str) -> Job:
    return Job(
        recipe=load_recipe(RECIPE).model_dump(mode="json"),
        inputs=(str(crawl),),
        out=out,
        relative_to="/",
        task_bytes=TASK_BYTES,
        task_seconds=3600.0,
    )


def test_a_job_is_the_same_after_its_way_through_json() -> None:
    job = a_job(Path("/crawl"), "s3://bucket/out")
    assert Job.from_json(job.as_json("gm-1")) == ("gm-1", job)
    with pytest.raises(OutputError, match="another release"):
        Job.from_json(b'{"format": 99, "id": "gm-1", "job": {}}')


def test_an_output_is_called_the_same_on_every_machine_and_carries_no_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert whereabouts("out") == str(tmp_path / "out")
    assert whereabouts("s3://bucket/out/") == "s3://bucket/out"
    with pytest.raises(InputError) as caught:
        whereabouts(f"s3://key:{CANARY}@bucket/out")
    assert CANARY not in str(caught.value)


def test_an_earlier_run_that_carries_credentials_is_refused_before_a_cluster_is_asked(tmp_path: Path) -> None:
    for secret in (f"s3://key:{CANARY}@bucket/earlier", f"https://key:{CANARY}@host/earlier"):
        job = replace(a_job(tmp_path, str(tmp_path / "out")), against=("earlier", secret))
        with pytest.raises(InputError, match="credentials") as caught:
            submit(job, "http://127.0.0.1:1")
        assert CANARY not in str(caught.value)


def test_what_to_resume_must_be_said_and_noted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which job"):
        resume("http://127.0.0.1:1", None)
    with pytest.raises(OutputError, match=r"no job is noted there\. Submit it again"):
        resume("http://127.0.0.1:1", None, out=str(tmp_path))
    with pytest.raises(OutputError, match="as gm-1"):
        resume("http://127.0.0.1:1", "gm-1", out=str(tmp_path))


@pytest.mark.ray
def test_a_submitted_run_makes_what_one_process_makes(
    ray_cluster: Cluster,  # noqa: F811
    small_crawl: Path,
    tmp_path: Path,
    expected: str,
) -> None:
    """From a folder outside the checkout, followed to its end; nothing of the environment goes along."""
    out = tmp_path / "out"
    done = gristmill(ray_cluster, *submission(small_crawl, out, "--follow"), folder=tmp_path)
    job = done.stdout.strip()
    assert job.startswith("gm-")
    assert expected in done.stderr
    assert f"{job} succeeded" in done.stderr
    assert made_hash(out) == expected
    assert (out / job_name(job)).is_file()
    assert not list((out / "_work" / "preflight").glob("*"))
    (listed,) = [one for one in json.loads(gristmill(ray_cluster, "jobs", "--json").stdout) if one["id"] == job]
    assert (listed["status"], listed["recipe"], listed["out"]) == ("SUCCEEDED", RECIPE, str(out))
    assert expected in gristmill(ray_cluster, "logs", job).stdout
    request = urllib.request.Request(
        f"{ray_cluster.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {ray_cluster.token}"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        told = answer.read().decode()
    assert job in told
    assert CANARY not in told
    assert str(ray_cluster.token) not in told


@pytest.mark.ray
@pytest.mark.full
def test_a_job_is_started_once_for_its_id_and_refused_while_another_writes_there(
    ray_cluster: Cluster,  # noqa: F811
    small_crawl: Path,
    tmp_path: Path,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Then it is cancelled under way, ends in an orderly way, and is resumed to the same bytes."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", str(ray_cluster.token))
    out = tmp_path / "out"
    job, url = a_job(small_crawl, str(out)), ray_cluster.dashboard
    assert submit(job, url, job_id="gm-000000000001", python=sys.executable) == "gm-000000000001"
    assert submit(job, url, job_id="gm-000000000001", python=sys.executable) == "gm-000000000001"
    assert [one.id for one in jobs(url) if one.out == str(out)] == ["gm-000000000001"]
    with pytest.raises(ClusterError, match="gm-000000000001 is at work"):
        submit(job, url, python=sys.executable)
    until(lambda: begun(out), "no task was committed")
    # In this process: a busy machine may take longer to start another than the job takes to end by itself.
    app(["cancel", "gm-000000000001", "--address", url], standalone_mode=False)
    assert "gm-000000000001 stopped" in capsys.readouterr().out
    assert "SIGTERM: ending" in gristmill(ray_cluster, "logs", "gm-000000000001").stdout
    before = {path.name for path in (out / "_work" / "manifests" / "process").glob("**/*.json")}
    resumed = gristmill(ray_cluster, "resume", "gm-000000000001", "--python", sys.executable, "--follow")
    assert made_hash(out) == expected
    assert resumed.stdout.strip() != "gm-000000000001"
    assert before <= {path.name for path in (out / "_work" / "manifests" / "process").glob("**/*.json")}


@pytest.mark.ray
@pytest.mark.full
def test_a_run_on_a_node_joins_the_cluster_and_a_killed_node_changes_nothing(
    ray_cluster: Cluster,  # noqa: F811
    small_crawl: Path,
    tmp_path: Path,
    expected: str,
) -> None:
    """The node that is killed has a task, which it holds for so long that it cannot have ended it."""
    out, counts = tmp_path / "out", tmp_path / "counts"
    counts.mkdir()
    options = ["--task-size", str(TASK_BYTES), "--address", ray_cluster.address, "--json"]
    command = [sys.executable, "-m", "infra.cli", "run", RECIPE, "-i", str(small_crawl), "--out", str(out), *options]
    node = ray_cluster.add(environment={"GRISTMILL_FAILPOINTS": f"counts={counts};attempt.begun=sleep:100,at:1"})
    ray_cluster.wait_for(4)
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(command, cwd="/", env=ray_cluster.environment, stdout=subprocess.PIPE, stderr=log)
        held = counts / "attempt.begun.fired"
        until(lambda: held.exists() or driver.poll() is not None, "no task began on the node")
        assert driver.poll() is None, (tmp_path / "log").read_text()[-4000:]
        ray_cluster.nodes.remove(node)
        kill_node(node)
        said, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, (tmp_path / "log").read_text()[-4000:]
    # Tried twice: the folder of the attempt that died is still there.
    attempts = [len(list(folder.iterdir())) for folder in (out / "_work" / "attempts").iterdir()]
    assert max(attempts) == 2
    assert json.loads(said)["dataset_sha256"] == made_hash(out) == expected


@pytest.mark.ray
@pytest.mark.full
def test_sigterm_ends_a_joined_driver_within_its_grace_and_its_run_continues(
    ray_cluster: Cluster,  # noqa: F811
    small_crawl: Path,
    tmp_path: Path,
    expected: str,
) -> None:
    out = tmp_path / "out"
    options = ["--task-size", str(TASK_BYTES), "--address", ray_cluster.address, "--quiet", "--json"]
    command = [sys.executable, "-m", "infra.cli", "run", RECIPE, "-i", str(small_crawl), "--out", str(out), *options]
    driver = subprocess.Popen(
        command, cwd="/", env=ray_cluster.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until(lambda: begun(out) or driver.poll() is not None, "no task was committed")
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(timeout=35) == 143
    done = subprocess.run(command, cwd="/", env=ray_cluster.environment, capture_output=True, check=True)
    assert json.loads(done.stdout)["dataset_sha256"] == made_hash(out) == expected


def python_without(distribution: str, folder: Path) -> str:
    """A virtual environment that sees everything of this one but a distribution, by links."""
    venv.create(folder, symlinks=True, with_pip=False)
    (theirs,) = folder.glob("lib/python3*/site-packages")
    (ours,) = Path(sys.prefix).glob("lib/python3*/site-packages")
    for entry in ours.iterdir():
        if entry.name != distribution and not entry.name.startswith(f"{distribution}-"):
            (theirs / entry.name).symlink_to(entry)
    return str(folder / "bin" / "python")


@pytest.mark.full
@pytest.mark.ray
def test_a_node_without_a_package_is_named_before_the_first_task(
    ray_cluster: Cluster,  # noqa: F811
    small_crawl: Path,
    tmp_path: Path,
) -> None:
    poor = ray_cluster.add(python=python_without("trafilatura", tmp_path / "venv"))
    try:
        ray_cluster.wait_for(4)
        out = tmp_path / "out"
        done = gristmill(ray_cluster, *submission(small_crawl, out, "--follow"), code=1)
    finally:
        ray_cluster.nodes.remove(poor)
        kill_node(poor)
    assert "1 of 4 nodes cannot do this run; nothing was started." in done.stderr
    assert "trafilatura is absent, the driver has 2." in done.stderr
    assert "container image" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (out / "_work" / "manifests").exists()


@pytest.mark.ray
@pytest.mark.full
def test_a_head_without_a_package_says_so_and_shows_no_traceback(
    ray_cluster: Cluster,  # noqa: F811
    small_crawl: Path,
    tmp_path: Path,
) -> None:
    python = python_without("polars", tmp_path / "venv")
    arguments = submission(small_crawl, tmp_path / "out", "--follow")
    arguments[arguments.index("--python") + 1] = python
    done = gristmill(ray_cluster, *arguments, code=1)
    assert "(the head): polars is absent, the driver has" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.ray
@pytest.mark.full
def test_a_cluster_that_asks_for_no_token_is_refused_and_used_only_when_told_so(
    small_crawl: Path, tmp_path: Path, expected: str
) -> None:
    with cluster(token=None) as bare:
        bare.add()
        bare.wait_for(2)
        out = tmp_path / "out"
        refused = gristmill(bare, *submission(small_crawl, out), code=1)
        assert "answers without a token" in refused.stderr
        assert "RAY_AUTH_MODE=token" in refused.stderr
        assert jobs(bare.dashboard) == ()
        done = gristmill(bare, *submission(small_crawl, out, "--allow-unauthenticated-cluster", "--follow"))
        assert "warning:" in done.stderr
        assert made_hash(out) == expected


@pytest.mark.ray
@pytest.mark.full
def test_a_run_whose_head_and_driver_are_killed_is_resumed_on_a_new_cluster(
    small_crawl: Path, tmp_path: Path, expected: str
) -> None:
    out = tmp_path / "out"
    with cluster() as first:
        first.add()
        first.wait_for(2)
        job = gristmill(first, *submission(small_crawl, out)).stdout.strip()
        until(lambda: begun(out), "no task was committed")
    before = len(list((out / "_work" / "manifests" / "process").glob("**/*.json")))
    assert not (out / "run.json").exists()
    with cluster() as second:
        second.add()
        second.wait_for(2)
        unknown = gristmill(second, "resume", job, code=1)
        assert "knows no job" in unknown.stderr
        resumed = gristmill(second, "resume", job, "--out", str(out), "--python", sys.executable, "--follow", "--json")
        assert json.loads(resumed.stdout)["id"] != job
    assert before > 0
    assert made_hash(out) == expected


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def wires() -> Iterator[tuple[str, str, str]]:
    """Three network namespaces: a head at 10.77.0.1 with a bridge, and two nodes at 10.77.0.2 and 10.77.0.3.

    The link of a node is `to-NAME` in the head's namespace.
    """
    mark = f"gmt{os.getpid()}"
    head, *nodes = names = [f"{mark}{letter}" for letter in "hab"]
    if subprocess.run(["ip", "netns", "add", head], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces are not permitted here")
    try:
        ip("-n", head, "link", "add", "bridge", "type", "bridge")
        ip("-n", head, "addr", "add", "10.77.0.1/24", "dev", "bridge")
        ip("-n", head, "link", "set", "bridge", "up")
        ip("-n", head, "link", "set", "lo", "up")
        for number, name in enumerate(nodes, 2):
            ip("netns", "add", name)
            ip("-n", head, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", head, "link", "set", f"to-{name}", "master", "bridge", "up")
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield head, nodes[0], nodes[1]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def within(name: str) -> tuple[str, ...]:
    """A command that runs another in a namespace."""
    return ("ip", "netns", "exec", name)


@pytest.mark.ray
@pytest.mark.full
@pytest.mark.timed
def test_a_node_whose_link_is_cut_finishes_as_a_zombie_and_the_run_waits_for_neither(
    wires: tuple[str, str, str], small_crawl: Path, tmp_path: Path, expected: str
) -> None:
    """The cut node still reaches the disk: its attempt does all its work late. Ray alone waits longer."""
    head, one, other = wires
    out, counts = tmp_path / "out", tmp_path / "counts"
    counts.mkdir()
    late = {"GRISTMILL_FAILPOINTS": f"counts={counts};attempt.begun=sleep:{ZOMBIE_SECONDS},at:1"}
    with cluster(ip="10.77.0.1", inside=within(head)) as cut:
        cut.add(ip="10.77.0.2", inside=within(one), environment=late)
        cut.add(ip="10.77.0.3", inside=within(other))
        cut.wait_for(3)
        options = ["--task-size", str(TASK_BYTES), "--address", cut.address, "--json"]
        command = [sys.executable, "-m", "infra.cli", "run", RECIPE, "-i", str(small_crawl), "--out", str(out)]
        with (tmp_path / "log").open("wb") as log:
            driver = subprocess.Popen(
                [*within(head), *command, *options],
                cwd="/",
                env=cut.environment,
                stdout=subprocess.PIPE,
                stderr=log,
            )
            until((counts / "attempt.begun.fired").exists, "no task began on the node")
            ip("-n", head, "link", "set", f"to-{one}", "down")
            began = time.monotonic()
            said, _ = driver.communicate(timeout=280)
            took = time.monotonic() - began
        assert driver.returncode == 0, (tmp_path / "log").read_text()[-4000:]
        assert json.loads(said)["dataset_sha256"] == made_hash(out) == expected
        assert 25 < took < 160
        time.sleep(max(0.0, ZOMBIE_SECONDS + 10 - (time.monotonic() - began)))
    assert made_hash(out) == expected
    folders = (out / "_work" / "attempts").glob("*")
    twice = [folder for folder in folders if len(list(folder.glob("*/documents.parquet"))) > 1]
    assert twice, "no task had a zombie"
    assert not list((out / "_work").glob("conflicts/*"))
