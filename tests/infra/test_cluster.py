"""A cluster that asks for no token is refused, a token is read as Ray reads it, and it is shown to nobody."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from filters.errors import ClusterError
from infra.cluster import authorization, check_authenticated, dashboard_url, read_token, token_warning
from infra.ray_runner import OnRay, address_of_environment


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


@pytest.mark.parametrize("given", ["ray://head:10001", "auto://", "http://", "http://me:canary@head:8265"])
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
