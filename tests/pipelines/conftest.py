"""What tests of reading from the web share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pipelines.web_files import DATA, quick
from tests.servers.web_server import WebServer, web_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """A server of `data.bin`, asked without the waits that real ones need."""
    quick(monkeypatch)
    with web_server({"data.bin": DATA}) as served:
        yield served
