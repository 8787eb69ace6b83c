"""Files behind URLs: one way to reach a store, and one way to be patient with it.

One policy of retries holds everywhere (pipelines/patience.py). The S3 client's own are switched off for it; those of
Google's and Azure's clients stay, below it. Credentials come from where the store's client looks for them, never from
a URL.
"""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import parse_qsl, urlsplit

import fsspec

from filters.errors import InputChanged, InputError
from pipelines import web
from pipelines.patience import ShortRead
from pipelines.patience import patiently as patiently
from pipelines.patience import transient as transient
from pipelines.random_access import RandomAccess
from pipelines.web import courteous as courteous
from pipelines.zip_entry import entry_facts, entry_file

K = TypeVar("K")
T = TypeVar("T")

READ_BYTES = 8 << 20
"""One range request; a worker that decides 16 pages a second asks for one about every 15 seconds."""
REQUESTS = 16
"""Requests at a time where many small ones are needed."""
CONNECT_SECONDS, SILENT_SECONDS = 10, 60

_SECRET = re.compile(
    r"x-(amz|goog)-(signature|credential|security-token)|signature|sig|awsaccesskeyid|(access_)?token|api[_-]?key|"
    "password|secret"
)
CREDENTIALS = (
    "Check that this process has credentials that reach it and have not expired (s3: AWS_ACCESS_KEY_ID with "
    "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or an instance role; AWS_ENDPOINT_URL where the store is not Amazon's), or "
    "read what is public with --anonymous."
)
"""What to do where a store refuses."""
ADDRESS = "Check the address, and that it may be read from here without a password."


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
    if is_s3(system):
        system.retries = 1
    return system, str(path)


def is_s3(system: Any) -> bool:
    """True for a file system of s3fs."""
    return "s3" in system.protocol


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
    google: dict[str, Any] = {"use_listings_cache": False} | ({"token": "anon"} if anonymous else {})
    azure: dict[str, Any] = {"use_listings_cache": False} | ({"anon": True} if anonymous else {})
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
    """What the store says of a file now, by one request. Raises InputError where it is absent or may not be seen."""
    (facts,) = described_all([url], anonymous=anonymous)
    return facts


def described_all(urls: Sequence[str], *, anonymous: bool = False) -> list[Facts]:
    """The same of each file, in order, REQUESTS at a time. Raises the error of the first that has one."""

    def checked(url: str) -> Facts:
        try:
            said = _said_of(url, anonymous)
        except FileNotFoundError as error:
            raise InputError(f"{url} does not exist. Check the address.") from error
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{url} cannot be looked at: {error}. {hint(url)}") from error
        if said.get("type") == "directory":
            raise InputError(f"{url} is a folder, not a file. End it in a slash to read what is in it.")
        if (found := facts_of(said)) is None:
            raise InputError(f"{url}: its server does not say how large it is. Copy it here first.")
        return found

    return each_of(checked, urls)


def _said_of(url: str, anonymous: bool) -> Mapping[str, Any]:
    """What the store says of a file, in fsspec's words."""
    if (local := local_path(url)) is not None:
        status = local.stat()
        kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
        return {"size": status.st_size, "mtime": status.st_mtime_ns, "type": kind}
    if (entry := _zip_entry(url)) is not None:
        name, outer = entry
        with opened(outer, size=described(outer, anonymous=anonymous).size, anonymous=anonymous) as file:
            return entry_facts(file, name)
    system, path = file_system(url, anonymous=anonymous)
    said: Mapping[str, Any] = (
        patiently(web.described, system, path) if web.is_web(url) else patiently(system.info, path)
    )
    return said


def hint(url: str) -> str:
    """What to do where this URL cannot be used."""
    return ADDRESS if web.is_web(url) or local_path(url) is not None else CREDENTIALS


def each_of(ask: Callable[[K], T], asked: Sequence[K]) -> list[T]:
    """What `ask` returns of each, in order, REQUESTS at a time. Raises the error of the first that has one."""
    if len(asked) < 2:
        return [ask(one) for one in asked]
    with ThreadPoolExecutor(REQUESTS) as threads:
        return list(threads.map(ask, asked))


def _zip_entry(url: str) -> tuple[str, str] | None:
    """Name of the entry and URL of the zip, where this is one in the other."""
    name, chained, outer = url.removeprefix("zip://").partition("::")
    return (name, outer) if chained and url.startswith("zip://") else None


class RangeFile(RandomAccess):
    """Random access to a remote file of `size` bytes; every range request is answered whole, or made again.

    A request asks for `ahead` bytes at least, and the last answer is kept where it is no larger: reads within it ask
    nothing. Where `version` is given (`Facts.version`), no byte of another version is ever returned.
    """

    block_bytes = READ_BYTES

    def __init__(
        self, url: str, *, size: int, version: str | None = None, anonymous: bool = False, ahead: int = 0
    ) -> None:
        super().__init__(size)
        self._url, self._ahead = url, ahead
        self._block, self._block_at = b"", 0
        self._file: BinaryIO | None = None
        system, path = file_system(url, anonymous=anonymous)
        self._range: Callable[[int, int], bytes]
        if web.is_web(url):
            tag = None if version in (None, str(size)) else str(version).partition("-")[2]
            self._range = partial(web.ranged, system, path, size=size, version=tag)
        else:
            options = {} if "::" in url else {"cache_type": "none"}
            self._file = patiently(self._opened, system, path, options)
            self._range = self._read_range
            facts = facts_of(getattr(self._file, "details", None) or {})
            if version is not None and facts is not None and facts.version != version:
                self._file.close()
                raise InputChanged(
                    f"{url} was overwritten since the run was planned (version {version}, now {facts.version})."
                )

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as the file goes.

        Raises InputChanged where the file is gone or not what it was, InputError where the store gives it no more.
        """
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        filled = 0
        while filled < count:
            skip = self._at - self._block_at
            if not 0 <= skip < len(self._block):
                asked = max(count - filled, min(self._ahead, self._size - self._at))
                self._block = b""  # not held beside the next one
                self._block, self._block_at, skip = self._fetched(self._at, asked), self._at, 0
            part = memoryview(self._block)[skip : skip + count - filled]
            view[filled : filled + len(part)] = part
            filled += len(part)
            self._at += len(part)
            if len(self._block) > self._ahead:
                self._block = b""
        return count

    def _fetched(self, at: int, count: int) -> bytes:
        try:
            return patiently(self._whole_range, at, count)
        except ShortRead as error:
            raise InputChanged(f"{self._url} is shorter than its {self._size:,} bytes: {error}.") from error
        except FileNotFoundError as error:
            raise InputChanged(f"{self._url} was removed while it was read. Plan the run anew.") from error
        except (OSError, ValueError) as error:
            if type(error).__name__ == "FileExpired":
                raise InputChanged(f"{self._url} was overwritten while it was read. Run again.") from error
            way_out = f" {hint(self._url)}" if isinstance(error, PermissionError) else ""
            raise InputError(
                f"{self._url} cannot be read on: {error}.{way_out} The same command continues from what is committed."
            ) from error

    def _whole_range(self, at: int, count: int) -> bytes:
        data = self._range(at, count)
        if len(data) != count:
            raise ShortRead(f"{len(data):,} of {count:,} bytes came at {at:,}")
        return data

    def _opened(self, system: Any, path: str, options: Mapping[str, Any]) -> BinaryIO:
        with courteous(self._url):
            return cast(BinaryIO, system.open(path, "rb", **options))

    def _read_range(self, at: int, count: int) -> bytes:
        assert self._file is not None
        with courteous(self._url):
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
    if (entry := _zip_entry(url)) is not None:
        name, outer = entry
        size = described(outer, anonymous=anonymous).size
        return entry_file(opened(outer, size=size, anonymous=anonymous), name, url=url)
    return cast(BinaryIO, RangeFile(url, size=size, version=version, anonymous=anonymous, ahead=READ_BYTES))


def local_path(url: str) -> Path | None:
    """The path of a `file://` URL or of what is no URL; None for the others."""
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    return None if "://" in url else Path(url)
