"""What the user names as input -> the files to read, in a fixed order, and their bytes cut into tasks.

A `Source.path` is what the dataset's `file_path` will say: as the user gave it, expanded; the `url` is absolute. The
order is by (path, size), and a file named twice is read once, so neither the order of inputs nor of a listing matters.
"""

from __future__ import annotations

import glob
import gzip
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urljoin

import fsspec

from filters.errors import InputError
from pipelines.read import record_starts
from pipelines.record import Slice, Source

_FORMATS = (".warc", ".wet", ".wat", ".arc", ".parquet", ".jsonl", ".ndjson", ".json")
_CODINGS = ("", ".gz", ".zst", ".zstd", ".lz4", ".bz2")
SUFFIXES = (*(form + coding for form in _FORMATS for coding in _CODINGS), ".wacz")
"""What is taken from a folder; a file named by itself may be called anything."""

_LISTS = (".paths", ".paths.gz")
_ARCHIVES_IN_WACZ = "archive/"
_MAX_LIST_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A file as the user knows it, and as fsspec opens it."""

    path: str
    url: str


def find_sources(inputs: Sequence[str], *, relative_to: Path | None = None) -> list[Source]:
    """Return the files that the inputs name, sorted by (path, size), each once.

    An input is a file, a folder (searched through for SUFFIXES), a glob, a list of these one a line (`*.paths`,
    `*.paths.gz`; relative lines against the list's own folder), a WACZ or any URL fsspec knows. Relative paths are
    taken from `relative_to`, by default the working folder. Raises InputError where one names nothing.
    """
    base = Path.cwd() if relative_to is None else relative_to.absolute()
    by_url: dict[str, Source] = {}
    for given in inputs:
        before = len(by_url)
        found_any = False
        for found in _expanded(given, base):
            found_any = True
            for source in _sources(found):
                kept = by_url.get(source.url)
                if kept is None or source < kept:
                    by_url[source.url] = source
        if not found_any and len(by_url) == before:
            raise InputError(f"{given}: nothing matches. Give a file, a folder, a glob, a list (*.paths.gz) or a URL.")
    return sorted(by_url.values(), key=lambda source: (source.path, source.size, source.url))


def current_version(source: Source) -> str:
    """Return the version that the file has now. Raises InputError where it is gone."""
    return _described(_Found(path=source.path, url=source.url)).version


def cut(
    sources: Sequence[Source], task_bytes: int, starts: Callable[[Source], Sequence[int]] | None = None
) -> list[tuple[Slice, ...]]:
    """Return tasks of about `task_bytes`: small files together in the order given, larger ones cut at record starts.

    Every byte is in one slice. `starts` says where a larger file may be cut; by default the file is read through to
    find where records begin. A file that is one compressed member stays whole.
    """
    if task_bytes < 1:
        raise ValueError(f"task_bytes must be positive, got {task_bytes}")
    tasks: list[tuple[Slice, ...]] = []
    group: list[Slice] = []
    grouped = 0
    for source in sources:
        if group and grouped + source.size > task_bytes:
            tasks.append(tuple(group))
            group, grouped = [], 0
        if source.size <= task_bytes:
            group.append(Slice(source=source, start=0, end=source.size))
            grouped += source.size
            continue
        bounds = [0, *(record_starts(source, task_bytes) if starts is None else starts(source)), source.size]
        tasks.extend(
            (Slice(source=source, start=start, end=end),) for start, end in zip(bounds, bounds[1:], strict=False)
        )
    if group:
        tasks.append(tuple(group))
    return tasks


def _expanded(given: str, base: Path) -> Iterator[_Found]:
    """Yield the files that one input names."""
    if given.endswith(_LISTS):
        yield from _listed(given, base)
    elif "://" in given:
        yield from _remote(given)
    else:
        yield from _local(given, base)


def _local(given: str, base: Path) -> Iterator[_Found]:
    path = base / given
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file() and _is_recognised(file.name))
        if not inside:
            raise InputError(f"{given} holds no file that ends in one of {', '.join(_FORMATS)}, .wacz. Name the files.")
        for file in inside:
            yield _found(str(Path(given) / file.relative_to(path)), base)
    elif path.exists():
        yield _found(given, base)
    elif glob.has_magic(given):
        # Path.glob takes no absolute pattern.
        for name in sorted(glob.glob(given, root_dir=base, recursive=True)):  # noqa: PTH207
            if (base / name).is_file():
                yield _found(name, base)
    else:
        raise InputError(f"{given} does not exist (looked in {base}). Check the path.")


def _found(name: str, base: Path) -> _Found:
    return _Found(path=name, url=f"file://{os.path.normpath(base / name)}")


def _is_recognised(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _remote(given: str) -> Iterator[_Found]:
    """Yield what a URL names: itself, the files a folder holds, or what a glob matches."""
    if given.startswith("file://"):
        for found in _local(given.removeprefix("file://"), Path("/")):
            yield _Found(path=f"file://{found.path}", url=found.url)
        return
    if "::" in given:
        yield _Found(path=given, url=given)
        return
    system, path = _file_system(given)
    try:
        if glob.has_magic(path):
            names = [name for name in cast("list[str]", system.glob(path)) if not system.isdir(name)]
        elif _is_recognised(path) or not system.isdir(path):
            names = [path]
        else:
            names = [name for name in cast("list[str]", system.find(path)) if _is_recognised(name)]
            if not names:
                raise InputError(f"{given} holds no file that ends in one of {', '.join(_FORMATS)}. Name the files.")
    except (OSError, ValueError) as error:
        raise InputError(f"{given} cannot be listed: {error}. Check the address and your access to it.") from error
    for name in sorted(names):
        url = given if name == path else str(system.unstrip_protocol(name))
        yield _Found(path=url, url=url)


def _file_system(url: str) -> tuple[Any, str]:
    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError, OSError) as error:
        protocol = url.split("://", 1)[0]
        raise InputError(
            f"{url}: the protocol {protocol!r} cannot be used here: {error}. Install the fsspec package for it "
            "(for s3: pip install 'gristmill[s3]'), or copy the files here."
        ) from error
    return system, str(path)


def _listed(given: str, base: Path) -> Iterator[_Found]:
    """Yield the files of a list; a relative line stands against the folder of the list."""
    remote = "://" in given
    try:
        with fsspec.open(given if remote else str(base / given), "rb") as file:
            data = cast(bytes, file.read(_MAX_LIST_BYTES))
        text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode("utf-8")
    except (OSError, EOFError, ValueError, ImportError) as error:
        raise InputError(f"{given}: the list cannot be read: {error}.") from error
    folder = str(Path(given).parent)
    for line in text.splitlines():
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        if "://" in name:
            yield from _remote(name)
        elif remote:
            yield from _remote(urljoin(given, name))
        else:
            yield from _local(name if folder == "." else str(Path(folder) / name), base)


def _sources(found: _Found) -> Iterator[Source]:
    """Yield the file itself, or the archives that a WACZ holds."""
    if not found.path.lower().endswith(".wacz"):
        yield _described(found)
        return
    for name in _names_in_zip(found):
        yield _described(_Found(path=f"{found.path}!/{name}", url=f"zip://{name}::{found.url}"))


def _names_in_zip(found: _Found) -> list[str]:
    try:
        with fsspec.open(found.url, "rb") as file, zipfile.ZipFile(file) as archive:
            names = [
                name for name in archive.namelist() if name.startswith(_ARCHIVES_IN_WACZ) and not name.endswith("/")
            ]
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise InputError(f"{found.path} cannot be read as a WACZ: {error}.") from error
    if strange := next((name for name in names if "::" in name), None):
        raise InputError(f"{found.path} holds an entry named {strange!r}, which would open another URL. Remove it.")
    return sorted(name for name in names if _is_recognised(name))


def _described(found: _Found) -> Source:
    """Return the source with its size and version now."""
    try:
        found.path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{found.path!r}: its name is not UTF-8, and `file_path` must be. Rename it.") from error
    if found.url.startswith("file://"):
        try:
            status = Path(found.url.removeprefix("file://")).stat()
        except OSError as error:
            raise InputError(f"{found.path} cannot be read: {error.strerror}. Check the path.") from error
        version = f"{status.st_size}-{status.st_mtime_ns}"
        return Source(path=found.path, url=found.url, size=status.st_size, version=version)
    system, path = _file_system(found.url)
    try:
        facts = cast("dict[str, Any]", system.info(path))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{found.path} cannot be found: {error}. Check the address and your access to it.") from error
    size = facts.get("size")
    if size is None:
        raise InputError(f"{found.path}: its server does not say how large it is. Copy it here first.")
    return Source(path=found.path, url=found.url, size=int(size), version=_version(facts))


def _version(facts: dict[str, Any]) -> str:
    """Return the ETag, a checksum, or size and time of change."""
    for name in ("ETag", "etag", "CRC", "md5Hash"):
        if facts.get(name) is not None:
            return f"{facts['size']}-{str(facts[name]).strip(chr(34))}"
    for name in ("LastModified", "last_modified", "mtime", "updated", "created"):
        if facts.get(name) is not None:
            return f"{facts['size']}-{facts[name]}"
    return str(facts["size"])
