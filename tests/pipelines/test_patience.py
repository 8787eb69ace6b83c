"""What passes is done again, as often and as late as the server asks; what does not, is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from filters.errors import InputChanged
from pipelines import patience, web
from pipelines.patience import patiently, transient


@pytest.mark.parametrize(
    ("said", "low", "high"),
    [
        ("7", 7, 7),
        (timedelta(seconds=60), 30, 60),
        (timedelta(days=-1), 1, 1),
        ("soon", 1, 1),
        ("", 1, 1),
        ("86400", 120, 120),
    ],
)
def test_what_a_server_asks_for_is_seconds_or_a_date_within_reason(
    said: str | timedelta, low: float, high: float
) -> None:
    if isinstance(said, timedelta):
        said = format_datetime(datetime.now(UTC) + said, usegmt=True)
    answer = web._Answer(status=503, headers={"retry-after": said}, data=b"")
    assert low <= web.held_seconds(web._refusal("https://x", answer)) <= high


def test_a_store_with_too_much_to_do_is_asked_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "WAIT_SECONDS", 0.001)
    monkeypatch.setattr(patience, "ATTEMPTS", 2)
    monkeypatch.setattr(patience, "THROTTLED_ATTEMPTS", 4)
    for status, attempts in ((500, 2), (503, 4), (404, 1)):
        calls = []

        def call(status: int = status, calls: list[int] = calls) -> None:
            calls.append(status)
            raise web._refusal("https://x", web._Answer(status=status, headers={}, data=b""))

        with pytest.raises(OSError, match=str(status)):
            patiently(call)
        assert len(calls) == attempts


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (ValueError(), False),
        (OSError(22, "Invalid argument"), False),
        (OSError(16, "SlowDown"), True),
        (web.WebError("u", 503), True),
        (web.WebError("u", 400), False),
        (InputChanged("x"), False),
    ],
)
def test_what_passes_and_what_does_not(error: BaseException, passes: bool) -> None:
    assert transient(error) is passes
