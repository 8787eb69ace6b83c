"""A web server is asked in turns, and left alone for as long as it needs."""

from __future__ import annotations

import time
from collections import deque

import pytest

from filters.errors import InputError
from pipelines import web
from pipelines.listing import listed
from pipelines.storage import RangeFile, described, described_all
from tests.pipelines.web_files import DATA, page
from tests.servers.web_server import Fault, WebServer


def assert_in_turns(server: WebServer, began: float, turn: float, *, count: int) -> None:
    """So many requests came, the k-th k turns of so many seconds after the start at the earliest.

    Distances between them are not looked at: what delays one of them shortens the next.
    """
    times = sorted(request.at - began for request in server.requests)
    assert len(times) == count
    assert all(at >= number * turn for number, at in enumerate(times)), times


def test_requests_to_one_server_keep_their_distance_whatever_the_threads(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "REQUEST_SECONDS", 0.05)
    server.files |= {str(number): b"x" for number in range(8)}
    began = time.monotonic()
    facts = described_all([f"{server.url}/{number}" for number in range(8)])
    assert [one.size for one in facts] == [1] * 8
    assert_in_turns(server, began, 0.05, count=8)


def test_a_server_is_told_who_asks(server: WebServer) -> None:
    described(f"{server.url}/data.bin")
    assert server.requests[0].headers["user-agent"] == web.user_agent()
    assert web.user_agent().startswith("gristmill/")


def test_a_server_that_asks_for_time_is_given_it(server: WebServer) -> None:
    server.faulty = lambda method, path: True
    server.faults = deque([Fault(status=429, headers={"Retry-After": "1"})])
    described(f"{server.url}/data.bin")
    first, second = server.requests
    assert second.at - first.at >= 1.0


@pytest.mark.parametrize("fault", [Fault(cut=1000), Fault(cut=1000, silently=True), Fault(status=500)], ids=str)
def test_after_any_fault_a_server_is_left_alone_for_a_while(
    server: WebServer, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(web, "RETRY_SECONDS", 0.4)
    facts = described(f"{server.url}/data.bin")
    server.faults = deque([fault])
    with RangeFile(f"{server.url}/data.bin", size=facts.size, version=facts.version) as file:
        assert file.read() == DATA
    first, second = (request for request in server.requests if request.method == "GET")
    assert second.at - first.at >= 0.4


def test_a_server_that_asks_for_time_is_given_it_by_all_threads(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "REQUEST_SECONDS", 0.1)
    server.files |= {str(number): b"x" for number in range(8)}
    server.faulty = lambda method, path: path == "0"
    server.faults = deque([Fault(status=503, headers={"Retry-After": "1"})])
    held: list[tuple[float, float]] = []
    hold = web._pace.hold

    def noted(server: str, seconds: float) -> None:
        before = time.monotonic()
        hold(server, seconds)
        held.append((before, time.monotonic()))

    monkeypatch.setattr(web._pace, "hold", noted)
    began = time.monotonic()
    assert len(described_all([f"{server.url}/{number}" for number in range(8)])) == 8
    ((before, after),) = held
    # What was begun when the server asked for time is answered; nothing is begun before it is over.
    early = [request for request in server.requests if request.at < before + 1.0]
    assert len(early) <= 1 + (after - began) / 0.1
    assert len(server.requests) == 9


def test_a_file_that_is_missing_keeps_nobody_waiting(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "RETRY_SECONDS", 60.0)
    for _ in range(3):
        with pytest.raises(InputError, match="does not exist"):
            described(f"{server.url}/none")


def test_every_page_of_a_web_folder_waits_its_turn(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "REQUEST_SECONDS", 0.1)
    folders = [f"f{number}/" for number in range(4)]
    server.files |= {"crawl/": page(*folders), **{f"crawl/{folder}": page("a.warc") for folder in folders}}
    began = time.monotonic()
    assert len(listed(f"{server.url}/crawl/")) == 4
    assert_in_turns(server, began, 0.1, count=5)
