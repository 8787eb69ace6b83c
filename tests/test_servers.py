"""The servers of the tests: the S3 server refuses what S3 refuses, and the proxy makes the faults that it says."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import s3fs
from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError

from tests.servers.fault_proxy import Fault, FaultProxy, Faults
from tests.servers.seaweed import S3

Faulty = Callable[[Faults], FaultProxy]


def client() -> s3fs.S3FileSystem:
    """A client without retries, that finds the server by the environment."""
    system = s3fs.S3FileSystem(
        use_listings_cache=False, config_kwargs={"retries": {"total_max_attempts": 1, "mode": "standard"}}
    )
    system.retries = 1
    return system


def test_an_object_comes_back_and_is_created_once(bucket: str) -> None:
    system = client()
    system.pipe_file(f"{bucket}/a/b", b"first", mode="create")
    with pytest.raises(OSError, match="pre-conditions"):
        system.pipe_file(f"{bucket}/a/b", b"second", mode="create")
    assert system.cat_file(f"{bucket}/a/b") == b"first"
    assert system.find(bucket) == [f"{bucket.removeprefix('s3://')}/a/b"]


def test_a_wrong_secret_is_refused(s3: S3, bucket: str) -> None:
    system = s3fs.S3FileSystem(key=s3.access_key, secret="wrong", use_listings_cache=False)
    with pytest.raises(PermissionError):
        system.cat_file(f"{bucket}/a")


def test_the_server_dies_with_the_process_that_started_it(s3_server: S3) -> None:
    status = Path(f"/proc/{s3_server.pid}/stat").read_text()
    assert int(status.rsplit(")", 1)[1].split()[1]) == os.getpid()


def test_a_proxy_without_faults_passes_everything_on(bucket: str, faulty: Faulty) -> None:
    proxy = faulty(Faults(seed=1, odds={}))
    system = client()
    system.pipe_file(f"{bucket}/a", b"x" * 300_000)
    assert system.cat_file(f"{bucket}/a", start=5, end=9) == b"xxxx"
    assert system.info(f"{bucket}/a")["size"] == 300_000
    system.rm_file(f"{bucket}/a")
    assert not system.exists(f"{bucket}/a")
    assert proxy.calls >= 5
    assert not proxy.made


@pytest.mark.parametrize(
    ("fault", "stored"),
    [
        (Fault.SLOW_DOWN, False),
        (Fault.INTERNAL_ERROR, False),
        (Fault.CONFLICT, False),
        (Fault.RESET, False),
        (Fault.LOST_REPLY, True),
        (Fault.FAILED_REPLY, True),
    ],
)
def test_a_put_that_fails_was_done_or_not_as_the_fault_says(
    s3: S3, bucket: str, faulty: Faulty, fault: Fault, stored: bool
) -> None:
    proxy = faulty(Faults(seed=1, odds={fault: 1.0}, where="^PUT"))
    with pytest.raises((OSError, BotoCoreError)):
        client().pipe_file(f"{bucket}/a", b"data", mode="create")
    assert proxy.made[fault] >= 1
    there = s3.client()
    try:
        assert ("Contents" in there.list_objects_v2(Bucket=bucket.removeprefix("s3://"))) == stored
    finally:
        there.close()


def test_a_body_is_cut(bucket: str, faulty: Faulty) -> None:
    client().pipe_file(f"{bucket}/a", b"x" * 100_000)
    faulty(Faults(seed=1, odds={Fault.CUT_BODY: 1.0}))
    with pytest.raises(Exception, match="(?i)incomplete|not enough data|disconnected|closed|reset"):
        client().cat_file(f"{bucket}/a")


def test_a_short_body_is_seen_by_its_checksum_where_all_of_an_object_is_asked_for_and_not_in_a_range(
    bucket: str, faulty: Faulty
) -> None:
    client().pipe_file(f"{bucket}/a", b"x" * 1_000)
    faulty(Faults(seed=1, odds={Fault.SHORT_BODY: 1.0}))
    with pytest.raises(FlexibleChecksumError):
        client().cat_file(f"{bucket}/a")
    assert len(client().cat_file(f"{bucket}/a", start=100, end=300)) == 100


def test_a_slow_reply_is_whole(bucket: str, faulty: Faulty) -> None:
    proxy = faulty(Faults(seed=1, odds={Fault.SLOW: 1.0}, at_most=2))
    system = client()
    system.pipe_file(f"{bucket}/a", b"x" * 1_000)
    assert system.cat_file(f"{bucket}/a") == b"x" * 1_000
    assert proxy.made[Fault.SLOW] == 2


def test_faults_are_those_of_the_seed(s3: S3, bucket: str, faulty: Faulty) -> None:
    def outcomes(seed: int) -> list[bool]:
        there = s3.behind(faulty(Faults(seed=seed, odds={Fault.SLOW_DOWN: 0.5})).endpoint).client()
        seen = []
        for _ in range(20):
            try:
                there.put_object(Bucket=bucket.removeprefix("s3://"), Key="a", Body=b"x")
                seen.append(True)
            except ClientError:
                seen.append(False)
        there.close()
        return seen

    first = outcomes(7)
    assert outcomes(7) == first != outcomes(8)
    assert 3 < sum(first) < 17


def test_a_proxy_leaves_the_server_as_strict_as_it_is(s3: S3, bucket: str, faulty: Faulty) -> None:
    proxy = faulty(Faults(seed=1, odds={}))
    forged = s3.behind(proxy.endpoint)
    there = type(forged)(endpoint=proxy.endpoint, access_key=s3.access_key, secret_key="wrong", pid=0).client()
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        there.get_object(Bucket=bucket.removeprefix("s3://"), Key="a")
    there.close()
