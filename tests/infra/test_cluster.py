"""A cluster that asks for no token is refused, a token is read as Ray reads it, and it is shown to nobody."""

from __future__ import annotations

import http.server
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from filters.errors import ClusterError
from infra import ray_runner
from infra.cluster import authorization, check_authenticated, dashboard_url, read_token, token_warning
from infra.node import Check
from infra.ray_runner import OnRay, address_of_environment, dashboard_seen, token_asked
from infra.store import open_store
from infra.work import CutTask, ProcessTask
from pipelines.process import TaskOptions
from pipelines.recipe import Recipe, load_recipe
from pipelines.record import Slice
from pipelines.sources import find_sources


@contextmanager
def dashboard(status: int) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that answers every GET with this status, and the headers that it was sent."""
    seen: list[dict[str, str]] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_dashboard_that_answers_anyone_is_refused_with_what_to_type() -> None:
    with dashboard(200) as (url, _), pytest.raises(ClusterError) as caught:
        check_authenticated(url, allow=False)
    for part in ("ray get-auth-token --generate", "RAY_AUTH_MODE=token", "--allow-unauthenticated-cluster"):
        assert part in str(caught.value)


def test_it_is_used_with_a_warning_where_the_user_says_so() -> None:
    with dashboard(200) as (url, _):
        warning = check_authenticated(url, allow=True)
    assert warning is not None
    assert "without a token" in warning


@pytest.mark.parametrize("status", [401, 403])
def test_a_dashboard_that_asks_for_a_token_is_fine_and_the_question_carries_none(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "canary")
    with dashboard(status) as (url, seen):
        assert check_authenticated(url, allow=False) is None
    assert "canary" not in str(seen)


def test_a_server_that_is_no_dashboard_and_one_that_is_not_there_are_told_apart() -> None:
    with dashboard(404) as (url, _), pytest.raises(ClusterError, match="HTTP 404"):
        check_authenticated(url, allow=True)
    with pytest.raises(ClusterError, match="no Ray dashboard answers"):
        check_authenticated(url, allow=True)


@pytest.mark.parametrize("answer", [b"not HTTP at all\r\n", b""])
def test_a_port_where_something_else_than_http_answers_is_no_dashboard(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def say() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=say)
        thread.start()
        with pytest.raises(ClusterError, match="no Ray dashboard answers"):
            check_authenticated(f"127.0.0.1:{server.getsockname()[1]}", allow=True)
        thread.join()


def test_the_token_of_the_environment_comes_before_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert read_token() is None
    assert authorization() == {}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("of home\n")
    assert read_token() == "of home"
    (tmp_path / "token").write_text("of path")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert read_token() == "of path"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of environment")
    assert read_token() == "of environment"
    assert authorization() == {"Authorization": "Bearer of environment"}


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, True), (0o600, False), (0o400, False)])
def test_a_token_file_that_others_can_read_is_warned_of(mode: int, warned: bool, tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    file = tmp_path / ".ray" / "auth_token"
    file.write_text("canary")
    file.chmod(mode)
    warning = token_warning()
    assert (warning is not None) == warned
    assert warning is None or ("chmod 600" in warning and "canary" not in warning)


@pytest.mark.parametrize(
    ("given", "url"),
    [("head:8265", "http://head:8265"), ("https://head/ray/", "https://head/ray"), ("http://h:1", "http://h:1")],
)
def test_an_address_is_that_of_the_dashboard(given: str, url: str) -> None:
    assert dashboard_url(given) == url


@pytest.mark.parametrize(
    "given",
    [
        "ray://head:10001",
        "auto://",
        "http://",
        "http://me:canary@head:8265",
        "http://head:canary",
        "head:99999",
        "http://[::1:8265",
    ],
)
def test_another_kind_of_address_is_refused_and_what_it_carries_is_not_shown(given: str) -> None:
    with pytest.raises(ClusterError) as caught:
        dashboard_url(given)
    assert "canary" not in str(caught.value)


def test_a_client_address_cannot_be_joined_and_submit_is_named() -> None:
    with pytest.raises(ClusterError, match="gristmill submit"), OnRay(address="ray://head:10001"):
        pass


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, None),
        ({"RAY_ADDRESS": "10.0.0.1:6379"}, "auto"),
        ({"RAY_ADDRESS": "http://head:8265"}, None),
        ({"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}, "auto"),
    ],
)
def test_a_cluster_is_joined_where_rays_environment_names_one(
    environment: dict[str, str], address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert address_of_environment() == address


def joined(dashboard: str | None, *, gcs: str = "10.0.0.1:6379", here: str = "10.0.0.2") -> dict[str, Any]:
    return {"webui_url": dashboard, "gcs_address": gcs, "node_ip_address": here}


@pytest.mark.parametrize(
    ("found", "seen"),
    [
        (joined("127.0.0.1:8265"), "10.0.0.1:8265"),
        (joined("localhost:8265"), "10.0.0.1:8265"),
        (joined("127.0.0.1:8265", here="10.0.0.1"), "127.0.0.1:8265"),
        (joined("10.0.0.9:8265"), "10.0.0.9:8265"),
        (joined(None), ""),
    ],
)
def test_a_dashboard_on_the_heads_loopback_is_looked_for_on_the_head(found: dict[str, Any], seen: str) -> None:
    assert dashboard_seen(found) == seen


@pytest.mark.parametrize("dashboard", ["127.0.0.1:9", ""])
def test_a_cluster_that_cannot_be_asked_is_refused_with_the_ways_out_and_used_when_the_user_says_so(
    dashboard: str,
) -> None:
    with pytest.raises(ClusterError) as caught:
        token_asked(dashboard, allow=False)
    for part in ("on the head", "gristmill submit", "--dashboard-host", "--allow-unauthenticated-cluster"):
        assert part in str(caught.value)
    assert "is not known" in str(token_asked(dashboard, allow=True))


@pytest.fixture
def joins(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ray that joins any cluster at once, with a handler of its own for SIGTERM; what is called, in order."""
    called: list[str] = []

    def init(**_: object) -> Any:
        called.append("init")
        signal.signal(signal.SIGTERM, rays_own)
        return SimpleNamespace(address_info=joined("10.0.0.1:8265"))

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: called.append("shutdown"))
    monkeypatch.setattr(ray, "nodes", list)
    monkeypatch.setattr(ray_runner, "ship_code", lambda folder: None)
    return called


def rays_own(*_: object) -> None:
    raise AssertionError("this handler ends the process with another code")


@pytest.mark.parametrize("address", [None, "auto"])
def test_a_request_to_end_is_met_as_before_while_a_cluster_is_joined_and_used(
    address: str | None, joins: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = []

    def asked(url: str) -> bool:
        handlers.append(signal.getsignal(signal.SIGTERM))
        return False

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ray_runner, "answers_anyone", asked)
    with OnRay(1, address=address):
        handlers.append(signal.getsignal(signal.SIGTERM))
    assert joins == ["init", "shutdown"]
    assert rays_own not in handlers
    assert before not in handlers
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_cluster_that_is_refused_is_left_again(joins: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ray_runner, "answers_anyone", lambda url: True)
    with pytest.raises(ClusterError, match="without a token"), OnRay(1, address="auto"):
        pass
    assert joins == ["init", "shutdown"]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Check]]:
    """What was asked of all nodes, and what is asked of each by its first task, in order."""
    seen: list[tuple[str, Check]] = []

    class Stage:
        def __init__(self, *given: Any, cluster: bool) -> None:
            seen.append(("stage", given[-1]))

        def run(self, *_: object) -> Iterator[Any]:
            return iter(())

        def close(self) -> None:
            return

    monkeypatch.setattr(ray_runner, "Stage", Stage)
    monkeypatch.setattr(ray_runner, "preflight", lambda ray, check: seen.append(("preflight", check)))
    return seen


def test_a_model_that_the_recipe_names_by_path_is_looked_for_on_every_node_before_tasks_need_it(
    checked: list[tuple[str, Check]], small_crawl: Path, tmp_path: Path
) -> None:
    """The first stage cuts, and has no recipe; the last needs nothing more than was asked."""
    model = tmp_path / "model.ftz"
    model.write_bytes(b"model")
    shipped = load_recipe("fineweb-resiliparse").model_dump(mode="json")
    (language,) = [step["language"] for step in shipped["steps"] if step["language"] is not None]
    language["model"] = str(model)
    recipe = Recipe.model_validate(shipped)
    store = open_store(tmp_path / "out")
    (source, *_) = find_sources([str(small_crawl)])
    part = Slice(source=source, start=0, end=source.size)
    process = ProcessTask(store=store, slices=(part,), options=TaskOptions(recipe=recipe))
    runner = OnRay(1, address="auto")
    cut = CutTask(store=store, source=source, task_bytes=1)
    for task in (cut, process, cut):
        list(runner.run([task], lambda *_: None))
    assert [what for what, _ in checked] == ["preflight", "stage", "preflight", "stage", "stage"]
    assert [str(model) in check.resources for _, check in checked][:4] == [False, False, True, True]
    assert len({check.probe.name for _, check in checked}) == 2
    runner.__exit__(None, None, None)
    assert not list(store.listed("_work/preflight"))
