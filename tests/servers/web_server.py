"""A web server of the test's own: files in memory with ETags and ranges, every request noted, faults by a script."""

from __future__ import annotations

import hashlib
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request as it came, and when (seconds of the monotonic clock)."""

    method: str
    path: str
    headers: Mapping[str, str]
    at: float


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with one request: a status in place of the file, or a body that ends early.

    `cut` bytes of the body are sent: under the length of the whole and then a reset, or `silently`, as if that were
    all.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    silently: bool = False


@dataclass(kw_only=True)
class WebServer:
    """A running server. `faults` are used up in order, one by each request whose method is GET unless `faulty` says
    otherwise; `ranges`, `heads` and `tags` say what the server can do.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    faults: deque[Fault] = field(default_factory=deque)
    faulty: Callable[[str, str], bool] = lambda method, path: method == "GET"
    ranges: bool = True
    heads: bool = True
    tags: bool = True

    def asked(self, method: str) -> list[str]:
        """Paths asked for by this method, in order."""
        return [request.path for request in self.requests if request.method == method]


class Server(ThreadingHTTPServer):
    """Says nothing of clients that go away."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def web_server(files: Mapping[str, bytes] | None = None) -> Iterator[WebServer]:
    """Run a server of these files, by path without the leading slash, on a free port of loopback."""
    served = WebServer(files=dict(files or {}))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            answer(self, served)

        def do_GET(self) -> None:
            answer(self, served)

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(handler: BaseHTTPRequestHandler, served: WebServer) -> None:
    """Answer one request."""
    method, path = handler.command, handler.path.lstrip("/")
    served.requests.append(Request(method=method, path=path, headers=lowered(handler.headers), at=time.monotonic()))
    fault = served.faults.popleft() if served.faults and served.faulty(method, path) else Fault()
    data = served.files.get(path)
    if fault.status is not None:
        send(handler, fault.status, fault.headers, b"")
    elif method == "HEAD" and not served.heads:
        send(handler, 405, {}, b"")
    elif data is None:
        send(handler, 404, {}, b"")
    else:
        status, headers, body = content(served, data, handler.headers.get("Range"))
        if fault.cut is not None and fault.silently:
            send(handler, status, headers, body[: fault.cut])
        else:
            send(handler, status, headers, body, cut=fault.cut)


def content(served: WebServer, data: bytes, asked: str | None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a file or of the range of it that is asked for."""
    headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"'} if served.tags else {}
    if asked is None or not served.ranges:
        return 200, headers, data
    first, _, last = asked.removeprefix("bytes=").partition("-")
    if int(first) >= len(data):
        return 416, headers | {"Content-Range": f"bytes */{len(data)}"}, b""
    body = data[int(first) : int(last) + 1]
    return 206, headers | {"Content-Range": f"bytes {first}-{int(first) + len(body) - 1}/{len(data)}"}, body


def send(
    handler: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], body: bytes, *, cut: int | None = None
) -> None:
    """Send a reply; with `cut`, only so much of the body, and then a reset."""
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | dict(headers)).items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command == "HEAD":
        return
    handler.wfile.write(body[:cut])
    if cut is not None:
        handler.wfile.flush()
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
        handler.close_connection = True


def lowered(headers: Message) -> dict[str, str]:
    """Headers by name in lower case."""
    return {name.lower(): value for name, value in headers.items()}
