"""Files on web servers: what they are, and ranges of their bytes, asked for politely.

The requests go over the session of fsspec's client (aiohttp). They are made here because that client calls every
failed HEAD a missing file, unpacks what a server labels as compressed, and looks at no ETag. Every request is made in
`courteous`, which keeps the requests of a process apart, and all of them back after one that failed.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any
from urllib.parse import urlsplit

from fsspec.asyn import sync

from filters.errors import InputChanged, InputError
from pipelines.patience import RETRY_AFTER_MAX_SECONDS, ShortRead, client_errors, transient

REQUEST_SECONDS = 0.2
"""At least so long between the beginnings of two requests of this process to one server: 5 a second."""
RETRY_SECONDS = 1.0
"""At least so long nothing is asked of a server after an error that passes. Common Crawl asks for no more than one
retry a second (https://status.commoncrawl.org)."""
CONNECT_SECONDS, SILENT_SECONDS = 10, 60


class WebError(OSError):
    """An answer that is neither the bytes nor a word that the file is absent or forbidden.

    `retry_after` is how many seconds the server asked to be left alone.
    """

    def __init__(self, url: str, status: int, retry_after: float = 0.0) -> None:
        super().__init__(errno.EIO, f"HTTP status {status}", url)
        self.status = status
        self.retry_after = retry_after


class _Pace:
    """Keeps the requests of this process to one server REQUEST_SECONDS apart, whatever its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: dict[str, float] = {}

    def wait(self, server: str) -> None:
        """Return when the next request to this server may begin; while it is held, nobody does."""
        while True:
            with self._lock:
                now = time.monotonic()
                begin = self._next.get(server, now)
                if begin <= now:
                    self._next[server] = now + REQUEST_SECONDS
                    return
            time.sleep(begin - now)

    def hold(self, server: str, seconds: float) -> None:
        """Have no request to this server begin for so long, also not one that waits already."""
        with self._lock:
            self._next[server] = max(self._next.get(server, 0.0), time.monotonic() + seconds)


_pace = _Pace()


def is_web(url: str) -> bool:
    """True for what a web server holds."""
    return url.startswith(("http://", "https://"))


@contextmanager
def courteous(url: str) -> Iterator[None]:
    """Wait until this process may ask a web server again, and make one request in the block.

    An error that passes keeps all threads from that server, as long as it asked for and RETRY_SECONDS at least. Stores
    made for load are not waited for.
    """
    last = url.rsplit("::", 1)[-1]
    if not is_web(last):
        yield
        return
    server = urlsplit(last).netloc
    _pace.wait(server)
    try:
        yield
    except (OSError,) + client_errors() as error:
        if transient(error):
            _pace.hold(server, held_seconds(error))
        raise


def held_seconds(error: Exception) -> float:
    """How long a server is left alone after this error: what it asked for, within reason."""
    asked = error.retry_after if isinstance(error, WebError) else _seconds(_headers_of(error).get("Retry-After", ""))
    return max(RETRY_SECONDS, min(RETRY_AFTER_MAX_SECONDS, asked))


def _headers_of(error: Exception) -> Mapping[str, str]:
    """The headers of an answer that fsspec's client made an error of."""
    headers = getattr(error, "headers", None)
    return headers if isinstance(headers, Mapping) else {}


def client_options() -> dict[str, Any]:
    """Options of fsspec's web client: our name, bytes as they are stored, proxies of the environment, time limits."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    return {
        "client_kwargs": {
            "headers": {"User-Agent": user_agent(), "Accept-Encoding": "identity"},
            "auto_decompress": False,
            "trust_env": True,
            "timeout": timeout,
        }
    }


@cache
def user_agent() -> str:
    """How this program names itself to servers."""
    try:
        return f"gristmill/{installed_version('gristmill')}"
    except PackageNotFoundError:  # a checkout that was shipped to a worker, and not installed there
        return "gristmill"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """An answer; `data` is read only where it is what was asked for."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def total(self) -> int | None:
        """Bytes of the whole file, as far as the answer says."""
        if (said := self.headers.get("content-range")) is not None:
            total = said.rpartition("/")[2]
        else:
            total = self.headers.get("content-length", "") if self.status == 200 else ""
        return int(total) if total.isdecimal() else None

    @property
    def version(self) -> str | None:
        """ETag or time of the last change, where the answer has one."""
        etag = self.headers.get("etag", "").removeprefix("W/").strip('"')
        return etag or self.headers.get("last-modified")


def described(system: Any, url: str) -> dict[str, Any]:
    """One request, or two: the `size` of a file and its `etag` or last change, None where the server does not say.

    Raises FileNotFoundError, PermissionError, WebError, or what the client raises where no answer comes.
    """
    with courteous(url):
        answer = _asked(system, "HEAD", url, {})
        # Some servers know no HEAD, and signed URLs are good for GET only.
        if answer.status not in (200, 206, 403, 405, 501):
            raise _refusal(url, answer)
    if answer.status in (200, 206) and answer.total is not None:
        return {"size": answer.total, "etag": answer.version}
    with courteous(url):
        answer = _asked(system, "GET", url, {"Range": "bytes=0-0"}, most=1)
        if answer.status == 416 and answer.total == 0:
            return {"size": 0, "etag": answer.version}
        if answer.status not in (200, 206):
            raise _refusal(url, answer)
    return {"size": answer.total, "etag": answer.version}


def ranged(system: Any, url: str, at: int, count: int, *, size: int, version: str | None) -> bytes:
    """One request: the `count` bytes at `at` of a file of `size` bytes.

    Raises InputChanged where the answer comes from a file of another size or version, InputError where the server
    gives whole files only, ShortRead where fewer bytes came, and what `described` raises.
    """
    with courteous(url):
        answer = _asked(system, "GET", url, {"Range": f"bytes={at}-{at + count - 1}"}, most=count)
        if answer.status not in (200, 206, 416):
            raise _refusal(url, answer)
        _check_same(url, answer, size, version)
        begin = answer.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
        if (answer.status == 200 and count != size) or (answer.status == 206 and begin != str(at)):
            raise InputError(f"{url}: its server gives whole files only, no ranges of bytes. Copy the file here first.")
        if len(answer.data) != count:
            raise ShortRead(f"{len(answer.data):,} of {count:,} bytes came at {at:,}")
    return answer.data


def _check_same(url: str, answer: _Answer, size: int, version: str | None) -> None:
    """Raise InputChanged where the answer is not of the file of this size and version."""
    now = answer.total
    if answer.status == 416 or (now is not None and now != size):
        raise InputChanged(f"{url} had {size:,} bytes and has {'fewer' if now is None else f'{now:,}'} now. Run again.")
    if version is not None and answer.version is not None and answer.version != version:
        raise InputChanged(f"{url} was overwritten while it was read (version {version}, now {answer.version}).")


def _asked(system: Any, method: str, url: str, headers: Mapping[str, str], *, most: int = 0) -> _Answer:
    answer: _Answer = sync(system.loop, _answer, system, method, url, headers, most)
    return answer


async def _answer(system: Any, method: str, url: str, headers: Mapping[str, str], most: int) -> _Answer:
    session = await system.set_session()
    async with session.request(method, system.encode_url(url), headers=headers, allow_redirects=True) as answer:
        said = {name.lower(): value for name, value in answer.headers.items()}
        # A server without ranges sends the whole file, which may be a thousand times what was asked for.
        wanted = answer.status == 206 or (answer.status == 200 and said.get("content-length") == str(most))
        data = await answer.read() if method == "GET" and wanted else b""
        return _Answer(status=answer.status, headers=said, data=data)


def _refusal(url: str, answer: _Answer) -> OSError:
    if answer.status in (404, 410):
        return FileNotFoundError(errno.ENOENT, f"HTTP status {answer.status}", url)
    if answer.status in (401, 403):
        return PermissionError(errno.EACCES, f"HTTP status {answer.status}", url)
    return WebError(url, answer.status, _seconds(answer.headers.get("retry-after", "")))


def _seconds(retry_after: str) -> float:
    """What a Retry-After header asks for: seconds, or a date. 0 where it makes no sense."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        when = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
