"""A proxy in front of an S3 server that makes what a real one does on a bad day: seeded, by kind, and counted.

It passes the request on as the client signed it, the Host header too. Faults are drawn request by request from one
seed, each kind that fits the request at odds of its own; runs that ask in the same order get the same faults.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit


class Fault(StrEnum):
    """What can go wrong with one request."""

    SLOW_DOWN = "503 SlowDown, nothing done"
    INTERNAL_ERROR = "500 InternalError, nothing done"
    CONFLICT = "409 ConditionalRequestConflict to a conditional put, nothing done"
    RESET = "connection reset, nothing done"
    LOST_REPLY = "done, then connection reset instead of the reply"
    FAILED_REPLY = "done, then 500 InternalError instead of the reply"
    CUT_BODY = "connection reset in the middle of the body"
    SHORT_BODY = "half of an object, under headers that say it is all that was asked for"
    SLOW = "the reply comes late, and its body in drops"


WRITES = ("PUT", "POST", "DELETE")
ERRORS = {
    Fault.SLOW_DOWN: (503, "SlowDown"),
    Fault.INTERNAL_ERROR: (500, "InternalError"),
    Fault.FAILED_REPLY: (500, "InternalError"),
    Fault.CONFLICT: (409, "ConditionalRequestConflict"),
}
LATE_SECONDS, DROPS = 0.3, 5
EVERY_PASSING = tuple(fault for fault in Fault if fault is not Fault.SHORT_BODY)


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Which faults to make: the odds of each kind for a request that it fits, only where `METHOD /target` has a match
    of `where`, and `at_most` so many in all.
    """

    seed: int
    odds: Mapping[Fault, float]
    where: str = ""
    at_most: int | None = None


@dataclass(kw_only=True)
class FaultProxy:
    """A running proxy: its address, the requests that came, and the faults that were made."""

    endpoint: str
    faults: Faults
    requests: list[str] = field(default_factory=list)
    made: Counter[Fault] = field(default_factory=Counter)

    @property
    def calls(self) -> int:
        """Requests that came."""
        return len(self.requests)

    def __str__(self) -> str:
        made = ", ".join(f"{fault.name} {count}" for fault, count in sorted(self.made.items()))
        return f"seed {self.faults.seed}: {self.calls} calls, faults: {made or 'none'}"


@dataclass(frozen=True, kw_only=True)
class Message:
    """A request or a reply: first line, headers as they came, body as it came."""

    first: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        """The value of a header, or ''."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    def replaced(self, **new: str | None) -> Message:
        """The message with headers changed, or left out where None. Underscores stand for hyphens."""
        changed = {name.replace("_", "-"): value for name, value in new.items()}
        headers = [pair for pair in self.headers if pair[0].lower() not in changed]
        headers += [(name, value) for name, value in changed.items() if value is not None]
        return Message(first=self.first, headers=tuple(headers), body=self.body)

    def encoded(self) -> bytes:
        """The bytes on the wire."""
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        return f"{self.first}\r\n{head}\r\n".encode("latin-1") + self.body


@contextmanager
def fault_proxy(upstream: str, faults: Faults) -> Iterator[FaultProxy]:
    """Run a proxy in front of `upstream` in a thread of its own, on a free port of loopback."""
    started: threading.Event = threading.Event()
    proxy = FaultProxy(endpoint="", faults=faults)
    loop = asyncio.new_event_loop()
    serving = Serving(proxy, urlsplit(upstream).hostname or "", urlsplit(upstream).port or 80)
    thread = threading.Thread(target=loop.run_until_complete, args=(serving.serve(started),), daemon=True)
    thread.start()
    started.wait()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(serving.stop.set)
        thread.join()
        loop.close()


class Serving:
    """The proxy's side of its connections."""

    def __init__(self, proxy: FaultProxy, host: str, port: int) -> None:
        self.stop = asyncio.Event()
        self._proxy, self._upstream = proxy, (host, port)
        self._random = random.Random(proxy.faults.seed)
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, started: threading.Event) -> None:
        """Answer until `stop`; close every connection."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=1 << 20)
        self._proxy.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await self.stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while (request := await read_request(reader, writer)) is not None:
                    if not await self._answer(request, writer):
                        break
        except asyncio.CancelledError:
            pass  # `serve` ends: nobody waits for this reply
        finally:
            writer.transport.abort()

    async def _answer(self, request: Message, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return False where the connection is broken on purpose."""
        fault = self._drawn(request)
        if fault is Fault.RESET:
            return reset(writer)
        if fault in ERRORS and fault is not Fault.FAILED_REPLY:
            writer.write(error_reply(request, fault).encoded())
            return True
        reply = await self._forwarded(request)
        if fault is Fault.LOST_REPLY:
            return reset(writer)
        if fault is Fault.FAILED_REPLY:
            reply = error_reply(request, fault)
        if fault is Fault.SHORT_BODY:
            reply = shortened(reply)
        if fault is Fault.CUT_BODY:
            writer.write(reply.encoded()[: -(len(reply.body) + 1) // 2])
            await writer.drain()
            return reset(writer)
        if fault is Fault.SLOW:
            await dripped(reply, writer)
            return True
        writer.write(reply.encoded())
        await writer.drain()
        return True

    def _drawn(self, request: Message) -> Fault | None:
        method, target, _ = request.first.split(" ", 2)
        said = f"{method} {target}"
        self._proxy.requests.append(said)
        faults = self._proxy.faults
        if re.search(faults.where, said) is None or self._proxy.made.total() == faults.at_most:
            return None
        for fault, odds in faults.odds.items():
            if fits(fault, request) and self._random.random() < odds:
                self._proxy.made[fault] += 1
                return fault
        return None

    async def _forwarded(self, request: Message) -> Message:
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            writer.write(request.replaced(connection="close", expect=None).encoded())
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            return message(head, await reader.read()).replaced(connection=None)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


def fits(fault: Fault, request: Message) -> bool:
    """True where this kind of fault can happen to the request."""
    method, target, _ = request.first.split(" ", 2)
    object_named = "/" in target.split("?")[0].strip("/")
    if fault in (Fault.LOST_REPLY, Fault.FAILED_REPLY):
        return method in WRITES
    if fault is Fault.CONFLICT:
        return method == "PUT" and request.header("if-none-match") == "*"
    if fault in (Fault.CUT_BODY, Fault.SHORT_BODY):
        return method == "GET" and object_named
    return True


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Message | None:
    """The next request, whole, or None where the client has gone. A client that asks first is told to go on."""
    try:
        head = message(await reader.readuntil(b"\r\n\r\n"), b"")
    except asyncio.IncompleteReadError:
        return None
    if head.header("expect").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if head.header("transfer-encoding"):
        raise NotImplementedError("a request body in chunks")
    body = await reader.readexactly(int(head.header("content-length") or 0))
    return Message(first=head.first, headers=head.headers, body=body)


def message(head: bytes, body: bytes) -> Message:
    """A message of its head and body."""
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = (line.split(":", 1) for line in lines)
    return Message(first=first, headers=tuple((name, value.strip()) for name, value in pairs), body=body)


def reset(writer: asyncio.StreamWriter) -> bool:
    """Break the connection so that the client sees a reset, and return False."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


def error_reply(request: Message, fault: Fault) -> Message:
    """What S3 says, in its own words."""
    status, code = ERRORS[fault]
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>injected</Message></Error>'.encode()
    headers = (("Content-Type", "application/xml"), ("Content-Length", str(len(body))))
    return Message(
        first=f"HTTP/1.1 {status} {code}", headers=headers, body=b"" if request.first.startswith("HEAD") else body
    )


def shortened(reply: Message) -> Message:
    """Half of the body, with the length, and the range where there is one, of that half."""
    body = reply.body[: len(reply.body) // 2]
    short = Message(first=reply.first, headers=reply.headers, body=body).replaced(content_length=str(len(body)))
    if (found := re.match(r"bytes (\d+)-\d+/(\d+)", reply.header("content-range"))) is None:
        return short
    return short.replaced(content_range=f"bytes {found[1]}-{int(found[1]) + len(body) - 1}/{found[2]}")


async def dripped(reply: Message, writer: asyncio.StreamWriter) -> None:
    """Send the reply late and in DROPS pieces, over twice LATE_SECONDS."""
    await asyncio.sleep(LATE_SECONDS)
    data = reply.encoded()
    step = -(-len(data) // DROPS)
    for at in range(0, len(data), step):
        writer.write(data[at : at + step])
        await writer.drain()
        await asyncio.sleep(LATE_SECONDS / DROPS)
