"""Files on web servers: what they are, and ranges of their bytes, asked for politely.

The requests go over the session of fsspec's client (aiohttp). They are made here because that client calls every
failed HEAD a missing file, unpacks what a server labels as compressed, and looks at no ETag.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Mapping
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

REQUEST_SECONDS = 0.2
"""At least so long between the beginnings of two requests of this process to one server: 5 a second."""
RETRY_SECONDS = 1.0
"""At least so long before a request is made again. Common Crawl asks for no more than one retry a second
(https://status.commoncrawl.org)."""
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
        """Return when the next request to this server may begin."""
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._next.get(server, now))
            self._next[server] = begin + REQUEST_SECONDS
        time.sleep(begin - now)


_pace = _Pace()


def is_web(url: str) -> bool:
    """True for what a web server holds."""
    return url.startswith(("http://", "https://"))


def courteous(url: str) -> None:
    """Wait until this process may ask a web server again; stores made for load are not waited for."""
    last = url.rsplit("::", 1)[-1]
    if is_web(last):
        _pace.wait(urlsplit(last).netloc)


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
    """One request: the `size` of a file and its `etag` or last change, None where the server does not say.

    Raises FileNotFoundError, PermissionError, WebError, or what the client raises where no answer comes.
    """
    answer = _asked(system, "HEAD", url, {})
    if answer.status in (403, 405, 501) or (answer.status == 200 and answer.total is None):
        # Some servers know no HEAD, and signed URLs are good for GET only.
        answer = _asked(system, "GET", url, {"Range": "bytes=0-0"}, most=1)
        if answer.status == 416 and answer.total == 0:
            return {"size": 0, "etag": answer.version}
    if answer.status not in (200, 206):
        raise _refusal(url, answer)
    return {"size": answer.total, "etag": answer.version}


def ranged(system: Any, url: str, at: int, count: int, *, size: int, version: str | None) -> bytes:
    """One request: up to `count` bytes at `at` of a file of `size` bytes.

    Raises InputChanged where the answer comes from a file of another size or version, InputError where the server
    gives whole files only, and what `described` raises.
    """
    answer = _asked(system, "GET", url, {"Range": f"bytes={at}-{at + count - 1}"}, most=count)
    if answer.status not in (200, 206, 416):
        raise _refusal(url, answer)
    now = answer.total
    if answer.status == 416 or (now is not None and now != size):
        raise InputChanged(f"{url} had {size:,} bytes and has {'fewer' if now is None else f'{now:,}'} now. Run again.")
    if version is not None and answer.version is not None and answer.version != version:
        raise InputChanged(f"{url} was overwritten while it was read (version {version}, now {answer.version}).")
    begin = answer.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
    if (answer.status == 200 and count != size) or (answer.status == 206 and begin != str(at)):
        raise InputError(f"{url}: its server gives whole files only, no ranges of bytes. Copy the file here first.")
    return answer.data


def _asked(system: Any, method: str, url: str, headers: Mapping[str, str], *, most: int = 0) -> _Answer:
    courteous(url)
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
