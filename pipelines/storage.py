"""Files behind URLs: one way to reach a store, and one way to be patient with it.

The clients' own retries are switched off, so that one policy holds everywhere: a call is done again, with full jitter,
while its error is one that passes (SlowDown, 5xx, a reset, a body cut short). What cannot be done is an OSError,
whichever client says so. Credentials come from where the store's client looks for them, never from a URL.
"""

from __future__ import annotations

import errno
import io
import re
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ParamSpec, TypeVar, cast
from urllib.parse import parse_qsl, urlsplit

import fsspec
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from filters.errors import InputChanged, InputError
from pipelines import web
from pipelines.web import courteous as courteous

P = ParamSpec("P")
T = TypeVar("T")

ATTEMPTS, THROTTLED_ATTEMPTS = 15, 30
"""How often a call is made before its error stands; the second where the store says that it has too much to do."""
# Full jitter: a wait is drawn from (0, min(WAIT_MAX, 0.2 * 2^n)) seconds: about 80 s over 15 attempts, 4 min over 30.
WAIT_SECONDS, WAIT_MAX_SECONDS = 0.2, 20.0
RETRY_AFTER_MAX_SECONDS = 120.0
"""A store that asks for more is asked again after this long."""
READ_BYTES = 8 << 20
"""One range request; a worker that decides 16 pages a second asks for one about every 15 seconds."""
REQUESTS = 16
"""Requests at a time where many small ones are needed."""
CONNECT_SECONDS, SILENT_SECONDS = 10, 60

_PASSING = {errno.EBUSY, errno.EIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE, errno.ECONNREFUSED, errno.EREMOTEIO}
# Names resolve a moment later where the resolver was only out of reach; a name that does not exist is an error.
_PASSING |= {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNABORTED, socket.EAI_AGAIN}
_THROTTLING_CODES = {
    "RequestLimitExceeded",
    "RequestThrottled",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
_PASSING_CODES = _THROTTLING_CODES | {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "XAmzContentSHA256Mismatch",
}
_THROTTLING_STATUSES = {429, 503}
_PASSING_STATUSES = _THROTTLING_STATUSES | {408, 425, 500, 502, 504}
_DEFINITE = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
_SECRET = re.compile(
    r"x-(amz|goog)-(signature|credential|security-token)|signature|sig|awsaccesskeyid|(access_)?token|api[_-]?key|"
    "password|secret"
)
_ACCESS = re.compile("Credential|Token|SSO|Profile|Auth|Login")
HINT = (
    "Check that this process has credentials that reach it and have not expired (s3: AWS_ACCESS_KEY_ID with "
    "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or an instance role; AWS_ENDPOINT_URL where the store is not Amazon's), or "
    "read what is public with --anonymous."
)
"""What to do where a store refuses."""


class ShortRead(ConnectionError):
    """A store gave fewer bytes than the file has there."""


def file_system(url: str, *, anonymous: bool = False) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it. Nothing that it lists is remembered.

    Raises InputError where the URL carries credentials, or its protocol cannot be used here.
    """
    refuse_credentials(url)
    try:
        system, path = fsspec.core.url_to_fs(url, **_client_options(url, anonymous))
    except (ValueError, ImportError, OSError) as error:
        protocol = url.split("://", 1)[0]
        raise InputError(
            f"{url}: the protocol {protocol!r} cannot be used here: {error}. Install the fsspec package for it "
            "(for s3: pip install 'gristmill[s3]'), or copy the files here."
        ) from error
    if "s3" in system.protocol:
        system.retries = 1
    return system, str(path)


def _client_options(url: str, anonymous: bool) -> dict[str, Any]:
    """Return the options of the clients that this URL, chained or not, needs, by protocol."""
    s3: dict[str, Any] = {
        "use_listings_cache": False,
        "config_kwargs": {
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": SILENT_SECONDS,
        },
    }
    if anonymous:
        s3["anon"] = True
    google = {"token": "anon"} if anonymous else {}
    azure = {"anon": True} if anonymous else {}
    known = {"s3": s3, "s3a": s3, "gs": google, "gcs": google, "az": azure, "abfs": azure, "abfss": azure}
    protocols = {part.split("://", 1)[0] for part in url.split("::")}
    if protocols & {"http", "https"}:
        known |= dict.fromkeys(("http", "https"), web.client_options())
    return {protocol: options for protocol, options in known.items() if protocol in protocols and options}


def refuse_credentials(url: str) -> None:
    """Raise InputError where a URL holds a password or a signature: it would be written into every row and log."""
    for part in url.split("::"):
        if "://" not in part:
            continue
        try:
            split = urlsplit(part)
            named = split.username is not None and split.scheme in ("http", "https", "s3", "s3a", "gs", "gcs")
            secret = split.password is not None or named
        except ValueError as error:
            raise InputError(f"{part.split('://', 1)[0]}://...: this is no URL ({error}).") from error
        if secret or any(_SECRET.fullmatch(name.lower()) for name, _ in parse_qsl(split.query)):
            raise InputError(
                f"{split.scheme}://{split.hostname or ''}{split.path}: the URL carries credentials, which would be "
                "stored beside every document. Leave them out, and give them in the store's own way (environment, "
                "profile, instance role)."
            )


def transient(error: BaseException) -> bool:
    """True where the same call may succeed a moment later."""
    if isinstance(error, _DEFINITE) or type(error).__name__ in ("FileExpired", "ClientConnectorCertificateError"):
        return False
    if throttled(error) or isinstance(error, TimeoutError | ConnectionError):
        return True
    for one in _chain(error):
        code, status = _said(one)
        if code in _PASSING_CODES or status in _PASSING_STATUSES:
            return True
        if code is not None or status is not None:
            return False
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _PASSING
    # What aiohttp and botocore raise where no answer came, or not all of it. Neither is imported here: a run on local
    # files needs none of them.
    return any(
        one.__module__.split(".")[0] in ("aiohttp", "botocore", "aiobotocore") and one.__name__ in _BROKEN
        for one in type(error).__mro__
    )


_BROKEN = {"ClientConnectionError", "ClientPayloadError", "ServerDisconnectedError", "HTTPClientError"}
_BROKEN |= {"IncompleteReadError", "ResponseStreamingError", "ConnectionError", "ReadTimeoutError"}
# A proxy's page of HTML in place of S3's XML.
_BROKEN |= {"ResponseParserError"}


def throttled(error: BaseException) -> bool:
    """True where the store says that it has too much to do."""
    return any(
        code in _THROTTLING_CODES or status in _THROTTLING_STATUSES for code, status in map(_said, _chain(error))
    )


def _chain(error: BaseException) -> tuple[BaseException, ...]:
    """The error, and the client's own where fsspec has translated it."""
    return (error,) if error.__cause__ is None else (error, error.__cause__)


def _said(error: BaseException) -> tuple[str | None, int | None]:
    """The S3 error code and the HTTP status that an error carries; None where it has none."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return response.get("Error", {}).get("Code"), status
    for name in ("status", "status_code", "code"):
        if isinstance(status := getattr(error, name, None), int):
            return None, status
    return None, None


def asked_wait(error: BaseException | None) -> float:
    """Seconds that a store asked to be left alone after this error; at least web.RETRY_SECONDS for a web server."""
    if isinstance(error, web.WebError):
        return min(RETRY_AFTER_MAX_SECONDS, max(web.RETRY_SECONDS, error.retry_after))
    for one in () if error is None else _chain(error):
        response = getattr(one, "response", None)
        if isinstance(response, Mapping):
            said = str(response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", ""))
            return min(RETRY_AFTER_MAX_SECONDS, float(said)) if said.isdecimal() else 0.0
    return 0.0


def _wait(state: RetryCallState) -> float:
    jitter = wait_random_exponential(multiplier=WAIT_SECONDS, max=WAIT_MAX_SECONDS)(state)
    return jitter + asked_wait(_error_of(state))


def _stop(state: RetryCallState) -> bool:
    error = _error_of(state)
    return state.attempt_number >= (THROTTLED_ATTEMPTS if error is not None and throttled(error) else ATTEMPTS)


def _error_of(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()


def patiently(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `call` returns, done again while its error is transient; raise the last one.

    What the store's client raises is raised as an OSError: as PermissionError where credentials are the matter.
    """
    retrying = Retrying(stop=_stop, wait=_wait, retry=retry_if_exception(transient), reraise=True)
    try:
        return retrying(call, *args, **kwargs)
    except client_errors() as error:
        kind = PermissionError if _ACCESS.search(type(error).__name__) else OSError
        number = errno.EACCES if kind is PermissionError else errno.EIO
        raise kind(number, str(error) or type(error).__name__) from error


def client_errors() -> tuple[type[Exception], ...]:
    """The errors of the stores' clients that are no OSError. A client that was never imported raised none."""
    named = (
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("botocore.parsers", "ResponseParserError"),
        ("aiohttp", "ClientError"),
        ("google.auth.exceptions", "GoogleAuthError"),
        ("azure.core.exceptions", "AzureError"),
    )
    found = [getattr(sys.modules[module], name) for module, name in named if module in sys.modules]
    return tuple(one for one in found if not issubclass(one, OSError))


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a store says of a file: its bytes, and a version that changes when they do."""

    size: int
    version: str


def facts_of(said: Mapping[str, Any]) -> Facts | None:
    """The facts in what an fsspec file system says of a file; None where its size is not in them.

    The version is the ETag, a checksum or the time of the last change, each beside the size.
    """
    if (size := said.get("size")) is None:
        return None
    for name in ("ETag", "etag", "CRC", "md5Hash", "LastModified", "last_modified", "mtime", "updated", "created"):
        if said.get(name) is not None:
            return Facts(size=int(size), version=f"{size}-{str(said[name]).strip(chr(34))}")
    return Facts(size=int(size), version=str(size))


def described(url: str, *, anonymous: bool = False) -> Facts:
    """What the store says of a file now, by one request. Raises InputError where it is not there, or may not be seen."""
    return _described(url, *file_system(url, anonymous=anonymous))


def described_all(urls: Sequence[str], *, anonymous: bool = False) -> list[Facts]:
    """The same of each file, in order, REQUESTS at a time. Raises the error of the first that has one."""
    return _each(_described, urls, anonymous)


def _described(url: str, system: Any, path: str) -> Facts:
    try:
        facts = patiently(web.described, system, path) if web.is_web(url) else patiently(system.info, path)
    except FileNotFoundError as error:
        raise InputError(f"{url} does not exist: {error}. Check the address.") from error
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{url} cannot be looked at: {error}. {HINT}") from error
    if (found := facts_of(facts)) is None:
        raise InputError(f"{url}: its server does not say how large it is. Copy it here first.")
    return found


def listed(url: str, *, anonymous: bool = False) -> dict[str, Facts | None]:
    """Every file below a folder, or that a glob matches, by URL; with its facts where the listing tells its version.

    One request a thousand files where the store lists so (S3). A web folder is what its page links to. Raises
    InputError where the place cannot be listed; what does not exist holds nothing.
    """
    return _listed(url, *file_system(url, anonymous=anonymous))


def listed_all(urls: Sequence[str], *, anonymous: bool = False) -> list[dict[str, Facts | None]]:
    """The same of each place, in order, REQUESTS at a time. Raises the error of the first that has one."""
    return _each(_listed, urls, anonymous)


def _listed(url: str, system: Any, path: str) -> dict[str, Facts | None]:
    courteous(url)
    try:
        found = patiently(system.glob if is_glob(url) else system.find, path, detail=True)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{url} cannot be listed: {error}. {HINT}") from error
    files: dict[str, Facts | None] = {}
    for name, said in found.items():
        if said.get("type") != "directory" and not name.endswith("/"):
            tagged = said.get("ETag") is not None or said.get("etag") is not None
            files[str(system.unstrip_protocol(name))] = facts_of(said) if tagged else None
    return files


def _each(ask: Callable[[str, Any, str], T], urls: Sequence[str], anonymous: bool) -> list[T]:
    # fsspec makes a client for every thread that asks for one; these are made here, and shared.
    asked = [(url, *file_system(url, anonymous=anonymous)) for url in urls]
    with ThreadPoolExecutor(REQUESTS) as threads:
        return list(threads.map(lambda one: ask(*one), asked))


def is_glob(url: str) -> bool:
    """True where a URL is a pattern. In what a web server holds, `?` begins the query."""
    return re.search(r"[*\[]" if web.is_web(url) else r"[*?\[]", url) is not None


class RangeFile(io.RawIOBase):
    """Random access to a remote file of `size` bytes; every read is one range request, whole or done again.

    Where `version` is given (`Facts.version`), no byte of another version is ever returned.
    """

    def __init__(self, url: str, *, size: int, version: str | None = None, anonymous: bool = False) -> None:
        self._url, self._size, self._at = url, size, 0
        self._file: BinaryIO | None = None
        system, path = file_system(url, anonymous=anonymous)
        self._range: Callable[[int, int], bytes]
        if web.is_web(url):
            tag = None if version in (None, str(size)) else str(version).partition("-")[2]
            self._range = partial(web.ranged, system, path, size=size, version=tag)
        else:
            options = {} if "::" in url else {"cache_type": "none"}
            self._file = cast(BinaryIO, patiently(system.open, path, "rb", **options))
            self._range = self._read_range
            facts = facts_of(getattr(self._file, "details", None) or {})
            if version is not None and facts is not None and facts.version != version:
                self._file.close()
                raise InputChanged(
                    f"{url} was overwritten since the run was planned (version {version}, now {facts.version})."
                )

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to `offset` from the start, from here or from the end."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as the file goes.

        Raises InputChanged where the file is gone or not what it was, InputError where the store gives it no more.
        """
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        if count:
            try:
                view[:count] = patiently(self._whole_range, self._at, count)
            except ShortRead as error:
                raise InputChanged(f"{self._url} is shorter than its {self._size:,} bytes: {error}.") from error
            except FileNotFoundError as error:
                raise InputChanged(f"{self._url} was removed while it was read. Plan the run anew.") from error
            except (OSError, ValueError) as error:
                if type(error).__name__ == "FileExpired":
                    raise InputChanged(f"{self._url} was overwritten while it was read. Run again.") from error
                raise InputError(
                    f"{self._url} cannot be read on: {error}. {HINT if isinstance(error, PermissionError) else ''}"
                    "The same command continues."
                ) from error
            self._at += count
        return count

    def _whole_range(self, at: int, count: int) -> bytes:
        data = self._range(at, count)
        if len(data) != count:
            raise ShortRead(f"{len(data):,} of {count:,} bytes came at {at:,}")
        return data

    def _read_range(self, at: int, count: int) -> bytes:
        assert self._file is not None
        courteous(self._url)
        self._file.seek(at)
        return self._file.read(count)

    def close(self) -> None:
        """Close the remote file."""
        if not self.closed and self._file is not None:
            self._file.close()
        super().close()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file that a run wrote: its URL or path, and its bytes."""

    url: str
    bytes: int

    def open(self) -> BinaryIO:
        """Open it for reading at any place."""
        return opened(self.url, size=self.bytes)


def opened(url: str, *, size: int, version: str | None = None, anonymous: bool = False) -> BinaryIO:
    """Open a file for reading at any place: a local one as the system does, a remote one READ_BYTES at a time.

    A remote one of another version than `version` raises InputChanged here or when it is read.
    """
    if (local := local_path(url)) is not None:
        return cast(BinaryIO, local.open("rb", buffering=0))
    raw = RangeFile(url, size=size, version=version, anonymous=anonymous)
    return cast(BinaryIO, io.BufferedReader(raw, READ_BYTES))


def local_path(url: str) -> Path | None:
    """The path of a `file://` URL or of what is no URL; None for the others."""
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    return None if "://" in url else Path(url)
