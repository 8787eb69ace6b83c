"""Jobs as seen from elsewhere, over links that break, hang or come back; and what a job's note allows later."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from filters.errors import ClusterError, OutputError
from infra import cli, cli_jobs, commands, job_main, jobs
from infra.jobs import RECONNECTS, Job, follow, job_name, resume
from infra.store import open_store
from pipelines.recipe import load_recipe

DASHBOARD = "http://head:8265"
BROKEN, HANGS, AWAY = "the stream breaks", "nothing more comes", "the dashboard is away"


class FakeCluster:
    """A cluster's jobs API. Each tail gives the next of `tails`, then ends; each question for jobs the next `states`.

    The last of each stays.
    """

    def __init__(self, tails: list[list[str]], states: list[str]) -> None:
        self.tails, self.states, self.asked = tails, states, 0

    def list_jobs(self) -> list[Any]:
        self.asked += 1
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if state == AWAY:
            raise OSError("connection refused")
        one = SimpleNamespace(
            submission_id="gm-1",
            metadata={"gristmill": "0.1.0", "out": "/out"},
            status=state,
            start_time=1000,
            end_time=None,
            driver_exit_code=0,
            message="",
        )
        return [one]

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        for piece in self.tails.pop(0) if len(self.tails) > 1 else self.tails[0]:
            if piece == BROKEN:
                raise aiohttp.ClientConnectionError("reset")
            if piece == HANGS:
                await asyncio.sleep(60)
            yield piece


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[list[str]], list[str]], FakeCluster]:
    """Have the dashboard be that of a fake cluster; nobody waits between two tries."""

    def cluster(tails: list[list[str]], states: list[str]) -> FakeCluster:
        fake = FakeCluster(tails, states)

        @contextmanager
        def client(address: str) -> Iterator[FakeCluster]:
            try:
                yield fake
            except OSError as error:
                raise ClusterError(f"{address}: {error}") from error

        monkeypatch.setattr(jobs, "client", client)
        monkeypatch.setattr("infra.jobs.time.sleep", lambda seconds: None)
        return fake

    return cluster


Cluster = Callable[[list[list[str]], list[str]], FakeCluster]


def shown(fake: FakeCluster) -> tuple[str, str]:
    """Everything that following prints, and the state that it returns."""
    said: list[str] = []
    found = follow(DASHBOARD, "gm-1", said.append)
    return "".join(said), found.status


def test_a_link_that_breaks_is_taken_up_where_it_broke_also_when_the_dashboard_is_away_for_a_while(on: Cluster) -> None:
    fake = on(
        [["one\n", "two", BROKEN], ["one\n", BROKEN], ["one\n", "two\nthree\n"]],
        ["RUNNING", AWAY, AWAY, "RUNNING", "RUNNING", "SUCCEEDED"],
    )
    assert shown(fake) == ("one\ntwo\nthree\n", "SUCCEEDED")


def test_a_dashboard_that_is_away_when_the_stream_has_ended_is_asked_again(on: Cluster) -> None:
    assert shown(on([["all\n"]], ["RUNNING", AWAY, "SUCCEEDED"])) == ("all\n", "SUCCEEDED")


def test_a_link_that_does_not_come_back_is_given_up(on: Cluster) -> None:
    fake = on([[BROKEN]], ["RUNNING", AWAY])
    with pytest.raises(ClusterError, match="connection refused"):
        shown(fake)
    assert fake.asked == 1 + RECONNECTS


def test_a_job_that_the_cluster_does_not_know_is_not_waited_for(on: Cluster) -> None:
    fake = on([["all\n"]], ["RUNNING"])
    with pytest.raises(ClusterError, match="knows no job gm-2"):
        follow(DASHBOARD, "gm-2", print)
    assert fake.asked == 1


def test_a_link_that_was_cut_without_a_word_is_replaced(on: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "QUIET_SECONDS", 0.05)
    fake = on([["one\n", HANGS], ["one\n", "two\n"]], ["RUNNING", "SUCCEEDED"])
    assert shown(fake) == ("one\ntwo\n", "SUCCEEDED")


def test_a_job_that_prints_nothing_for_long_is_followed_to_its_end(
    on: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "QUIET_SECONDS", 0.01)
    quiet = [["one\n", HANGS]] * (2 * RECONNECTS)
    fake = on([*quiet, ["one\n", "two\n"]], [*["RUNNING"] * (2 * RECONNECTS + 1), "FAILED"])
    assert shown(fake) == ("one\ntwo\n", "FAILED")


def test_an_interrupt_ends_the_following_with_its_own_code_and_names_the_command_for_this_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.delenv("GRISTMILL_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setattr(jobs, "follow", interrupted)
    assert cli_jobs.followed(DASHBOARD, "gm-1", sys.stdout) == 130
    assert f"gristmill logs -f gm-1 --address {DASHBOARD}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "option"),
    [
        ({}, f" --address {DASHBOARD}"),
        ({"GRISTMILL_ADDRESS": DASHBOARD}, ""),
        ({"RAY_API_SERVER_ADDRESS": DASHBOARD}, ""),
        ({"GRISTMILL_ADDRESS": "http://other:8265", "RAY_API_SERVER_ADDRESS": DASHBOARD}, f" --address {DASHBOARD}"),
    ],
)
def test_a_command_that_is_shown_means_the_cluster_that_was_given(
    environment: dict[str, str], option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in cli_jobs.ADDRESS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cli_jobs.started(DASHBOARD, "gm-1", follow=False, as_json=False)
    said = capsys.readouterr().err.splitlines()
    wanted = [f"gristmill logs -f gm-1{option}", f"gristmill jobs{option}", f"gristmill cancel gm-1{option}"]
    assert [line.removeprefix("next").strip() for line in said] == wanted


def a_job(out: Path) -> Job:
    return Job(
        recipe=load_recipe("fineweb").model_dump(mode="json"),
        inputs=("/crawl",),
        out=str(out),
        relative_to="/",
        task_bytes=1,
        task_seconds=1.0,
    )


def test_a_note_keeps_neither_a_lock_that_was_taken_nor_a_cluster_that_was_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This once the job has both."""
    allowed: dict[str, Any] = {}
    monkeypatch.setattr(commands, "run_recipe", lambda *_, **given: allowed.update(given))
    monkeypatch.setattr(cli, "report_run", lambda *_, **__: None)
    monkeypatch.setattr(sys, "argv", ["job_main"])
    job = replace(a_job(tmp_path), take_over=True, allow_unauthenticated=True)
    job_main.run(job.as_json("gm-1"))
    assert (allowed["take_over"], allowed["allow_unauthenticated"]) == (True, True)
    noted = json.loads(open_store(tmp_path).read(job_name("gm-1")))["job"]
    assert (noted["take_over"], noted["allow_unauthenticated"]) == (False, False)


@pytest.mark.parametrize("given", [{}, {"take_over": True}, {"allow_unauthenticated": True}])
def test_a_job_is_resumed_with_what_is_allowed_now_whatever_an_older_note_says(
    given: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[Job] = []

    def submit(job: Job, *_: object, **__: object) -> str:
        submitted.append(job)
        return "gm-2"

    monkeypatch.setattr(jobs, "submit", submit)
    noted = replace(a_job(tmp_path), take_over=True, allow_unauthenticated=True)
    open_store(tmp_path).create(job_name("gm-1"), noted.as_json("gm-1"))
    assert resume(DASHBOARD, "gm-1", out=str(tmp_path), **given) == "gm-2"
    assert submitted == [a_job(tmp_path) if not given else replace(a_job(tmp_path), **given)]


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ([], (False, False)),
        (["--take-over"], (True, False)),
        (["--allow-unauthenticated-cluster"], (False, True)),
    ],
)
def test_resume_takes_from_the_command_line_what_is_allowed(
    options: list[str], allowed: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def resumed(address: str, job: str | None, **more: Any) -> str:
        given.update(more)
        return "gm-2"

    monkeypatch.setattr(jobs, "resume", resumed)
    monkeypatch.setattr(sys, "argv", ["gristmill", "resume", "gm-1", "--address", DASHBOARD, *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert (given["take_over"], given["allow_unauthenticated"]) == allowed


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said["job"].update(rows=3),
        lambda said: said["job"].pop("out"),
        lambda said: said["job"].pop("inputs"),
        lambda said: said.pop("id"),
        lambda said: said["job"]["recipe"].update(steps=[{"no_such_step": {}}]),
        lambda said: said["job"]["recipe"].update(no_such_setting=1),
    ],
)
def test_a_note_of_another_release_is_refused_before_anything_is_submitted(
    change: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    said = json.loads(a_job(tmp_path).as_json("gm-1"))
    change(said)
    data = json.dumps(said).encode()
    open_store(tmp_path).create(job_name("gm-1"), data)
    for refused in (lambda: resume(DASHBOARD, "gm-1", out=str(tmp_path)), lambda: job_main.run(data)):
        with pytest.raises(OutputError, match="another release.*submit the job again"):
            refused()
