"""One way to be patient with stores: which errors pass, how long to wait, and what an error is in the end.

A call is done again, with full jitter, while its error is one that passes: SlowDown, 5xx, a reset, a body cut short.
The S3 client's own retries are switched off for that (pipelines/storage.py); those of Google's and Azure's are not, and
lie below these. How long a web server is left alone is decided where it is asked (pipelines/web.py). What cannot be
done is an OSError, whichever client says so.
"""

from __future__ import annotations

import errno
import re
import socket
import sys
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

P = ParamSpec("P")
T = TypeVar("T")

ATTEMPTS, THROTTLED_ATTEMPTS = 15, 30
"""How often a call is made before its error stands; the second where the store says that it has too much to do."""
# Full jitter: a wait is drawn from (0, min(WAIT_MAX, 0.2 * 2^n)) seconds: about 80 s over 15 attempts, 4 min over 30.
WAIT_SECONDS, WAIT_MAX_SECONDS = 0.2, 20.0
RETRY_AFTER_MAX_SECONDS = 120.0
"""A store that asks for more is asked again after this long."""
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
_ACCESS = re.compile("Credential|Token|SSO|Profile|Auth|Login")


class ShortRead(ConnectionError):
    """A store gave fewer bytes than the file has there."""


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
_BROKEN |= {"FlexibleChecksumError"}
# A proxy's page of HTML in place of S3's XML.
_BROKEN |= {"ResponseParserError"}


def throttled(error: BaseException) -> bool:
    """True where the store says that it has too much to do."""
    return any(
        code in _THROTTLING_CODES or status in _THROTTLING_STATUSES for code, status in map(_said, _chain(error))
    )


def _chain(error: BaseException) -> tuple[BaseException, ...]:
    """The error, and S3's own answer where fsspec has translated it."""
    cause = error.__cause__
    return (error,) if cause is None or not hasattr(cause, "response") else (error, cause)


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
    """Seconds that an S3 store asked to be left alone after this error."""
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
        ("gcsfs.retry", "HttpError"),
        ("azure.core.exceptions", "AzureError"),
    )
    found = [getattr(sys.modules[module], name) for module, name in named if module in sys.modules]
    return tuple(one for one in found if not issubclass(one, OSError))
