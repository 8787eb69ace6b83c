"""What tests of experiments share."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local_store import LocalStore
from proxy_eval.pool import Pool
from tests.proxy_eval.pools import numbered_pool


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return numbered_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out")
