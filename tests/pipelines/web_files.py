"""What tests of reading from the web ask a server for, and how they are spared its waits."""

from __future__ import annotations

import random

import pytest

from pipelines import patience, web

DATA = random.Random(1).randbytes(300_000)


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "REQUEST_SECONDS", 0.0)
    monkeypatch.setattr(web, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(patience, "WAIT_SECONDS", 0.001)


def page(*links: str) -> bytes:
    return "".join(f'<a href="{link}">x</a>' for link in links).encode()
