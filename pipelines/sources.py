"""What the user names as input -> the files to read, in a fixed order, and their bytes cut into tasks.

A `Source.path` is what the dataset's `file_path` will say: as the user gave it, expanded; the `url` is absolute. The
order is by (path, size), and a file named twice is read once, also where two places hold the same of it (`cc:` and
`cc+s3:`), so neither the order of inputs nor of a listing matters. A folder that may not be read is an error. Remote
files are described by the listing that found them where it tells their versions, else by one request each.
"""

from __future__ import annotations

import gzip
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

from filters.errors import InputError
from pipelines.common_crawl import crawl_files, is_crawl
from pipelines.listing import Entry, is_glob, listed, matching, walked
from pipelines.read import record_starts
from pipelines.record import Slice, Source
from pipelines.storage import Facts, described_all, local_path, opened, refuse_credentials
from pipelines.web import is_web

_FORMATS = (".warc", ".wet", ".wat", ".arc", ".parquet", ".jsonl", ".ndjson", ".json")
_CODINGS = ("", ".gz", ".zst", ".zstd", ".lz4", ".bz2")
SUFFIXES = (*(form + coding for form in _FORMATS for coding in _CODINGS), ".wacz")
"""What is taken from a folder; a file named by itself may be called anything."""

_LISTS = (".paths", ".paths.gz")
_ARCHIVES_IN_WACZ = "archive/"


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A file as the user knows it, as it is opened, and what a listing said of it."""

    path: str
    url: str
    facts: Facts | None = None


def find_sources(inputs: Sequence[str], *, relative_to: Path | None = None, anonymous: bool = False) -> list[Source]:
    """Return the files that the inputs name, sorted by (path, size), each once.

    An input is a file, a folder (searched through for SUFFIXES; a web folder ends in a slash), a glob, a list of these
    one a line (`*.paths`, `*.paths.gz`; relative lines against the list's own folder), a WACZ, any URL fsspec knows, or
    files of Common Crawl (`cc:`, pipelines/common_crawl.py). Relative paths are taken from `relative_to`, by default
    the working folder. `anonymous` reads remote ones without credentials. Raises InputError where one names nothing,
    where a folder cannot be read, and where two files that differ would have one path.
    """
    base = Path.cwd() if relative_to is None else relative_to.absolute()
    for given in inputs:
        refuse_credentials(given)
    found: list[_Found] = []
    for given in inputs:
        named = [one for file in _expanded(given, base, anonymous) for one in _unpacked(file, anonymous)]
        if not named:
            raise InputError(f"{given}: nothing matches. Give a file, a folder, a glob, a list (*.paths.gz) or a URL.")
        found += named
    by_url: dict[str, Source] = {}
    for source in _sources(found, anonymous):
        kept = by_url.get(source.url)
        if kept is None or source < kept:
            by_url[source.url] = source
    return sorted(_by_path(by_url.values()), key=lambda source: (source.path, source.size, source.url))


def _by_path(sources: Iterable[Source]) -> list[Source]:
    """The sources, each path once: a place in two stores is one file where both hold the same."""
    kept: dict[str, Source] = {}
    for source in sorted(sources):
        other = kept.setdefault(source.path, source)
        if (other.size, other.version) != (source.size, source.version):
            raise InputError(
                f"{source.path} is named twice, as {other.url} and {source.url}, and the two differ "
                f"(version {other.version}, {source.version}). Name one of them."
            )
    return list(kept.values())


def current_version(source: Source) -> str:
    """Return the version that the file has now. Raises InputError where it is gone."""
    (now,) = _sources([_Found(path=source.path, url=source.url)], source.anonymous)
    return now.version


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


def _expanded(given: str, base: Path, anonymous: bool) -> Iterator[_Found]:
    """Yield the files that one input names."""
    if is_crawl(given):
        for file in crawl_files(given, anonymous=anonymous):
            yield _Found(path=file.path, url=file.url, facts=file.facts)
    elif given.endswith(_LISTS):
        yield from _listed(given, base, anonymous)
    elif "://" in given:
        yield from _remote(given, anonymous)
    else:
        yield from _local(given, base)


def _local(given: str, base: Path) -> Iterator[_Found]:
    """Yield the files of this machine that a path names. Raises InputError also where a folder may not be read."""
    try:
        names = _local_names(given, base)
    except (OSError, ValueError) as error:
        where = getattr(error, "filename", None) or given
        raise InputError(f"{where} cannot be looked through: {error}. Check that it may be read from here.") from error
    for name in names:
        yield _found(name, base)


def _local_names(given: str, base: Path) -> list[str]:
    path = base / given
    if path.is_dir():
        root = str(Path(given)).rstrip("/") + "/"
        found = walked(root, partial(_entries, base, hidden=True))
        inside = sorted(str(Path(one.name)) for one in found if _is_recognised(one.name))
        if not inside:
            raise InputError(f"{given} holds no file that ends in one of {', '.join(_FORMATS)}, .wacz. Name the files.")
        return inside
    if path.exists():
        return [given]
    if is_glob(given):
        return sorted(one.name for one in matching(given, partial(_entries, base, hidden=False)))
    raise InputError(f"{given} does not exist (looked in {base}). Check the path.")


def _entries(base: Path, folder: str, stem: str, *, hidden: bool) -> list[Entry]:
    """What is in a folder of this machine, named from `base`. A link to a folder that it lies in leads nowhere.

    A name that begins with a dot is matched by a pattern that does, unless `hidden` ones are wanted anyway.
    """
    found = []
    with os.scandir(base / folder) as entries:
        for one in entries:
            if one.name.startswith(".") and not (hidden or stem.startswith(".")):
                continue
            is_folder = one.is_dir()
            if is_folder and one.is_symlink() and (base / folder).resolve().is_relative_to(Path(one.path).resolve()):
                continue
            if is_folder or one.is_file():
                found.append(Entry(name=folder + one.name, is_folder=is_folder))
    return found


def _found(name: str, base: Path) -> _Found:
    return _Found(path=name, url=f"file://{os.path.normpath(base / name)}")


def _is_recognised(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _remote(given: str, anonymous: bool) -> Iterator[_Found]:
    """Yield what a URL names: itself, the files a folder holds, or what a glob matches."""
    refuse_credentials(given)
    if given.startswith("file://"):
        for found in _local(given.removeprefix("file://"), Path("/")):
            yield _Found(path=f"file://{found.path}", url=found.url)
    elif "::" in given or (not is_glob(given) and (_is_recognised(given) or not _may_be_folder(given))):
        yield _Found(path=given, url=given)
    else:
        files = listed(given, anonymous=anonymous)
        if is_glob(given):
            chosen = sorted(files)
        elif not files:
            chosen = [given]  # a file with a name of its own, or nothing: describing it will tell
        elif not (chosen := sorted(filter(_is_recognised, files))):
            raise InputError(f"{given} holds no file that ends in one of {', '.join(_FORMATS)}. Name the files.")
        for url in chosen:
            yield _Found(path=url, url=url, facts=files.get(url))


def _may_be_folder(url: str) -> bool:
    return url.endswith("/") or not is_web(url)


def _listed(given: str, base: Path, anonymous: bool) -> Iterator[_Found]:
    """Yield the files of a list; a relative line stands against the folder of the list."""
    remote = "://" in given
    url = given if remote else f"file://{base / given}"
    try:
        (source,) = _sources([_Found(path=given, url=url)], anonymous)
        with opened(url, size=source.size, version=source.version, anonymous=anonymous) as file:
            data = file.read()
        text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode("utf-8")
    except (OSError, EOFError, ValueError, zlib.error, InputError) as error:
        raise InputError(f"{given}: the list cannot be read: {error}") from error
    folder = given.rpartition("/")[0]
    for line in text.splitlines():
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        if "://" in name:
            yield from _remote(name, anonymous)
        elif remote:
            yield from _remote(urljoin(given, name) if is_web(given) else f"{folder}/{name}", anonymous)
        else:
            yield from _local(str(Path(folder) / name), base)


def _unpacked(found: _Found, anonymous: bool) -> list[_Found]:
    """The file itself, or the archives that a WACZ holds."""
    if not found.path.lower().endswith(".wacz"):
        return [found]
    return [
        _Found(path=f"{found.path}!/{name}", url=f"zip://{name}::{found.url}")
        for name in _names_in_zip(found, anonymous)
    ]


def _names_in_zip(found: _Found, anonymous: bool) -> list[str]:
    (source,) = _sources([found], anonymous)
    try:
        with opened(found.url, size=source.size, anonymous=anonymous) as file, zipfile.ZipFile(file) as archive:
            names = [
                name for name in archive.namelist() if name.startswith(_ARCHIVES_IN_WACZ) and not name.endswith("/")
            ]
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise InputError(f"{found.path} cannot be read as a WACZ: {error}.") from error
    if strange := next((name for name in names if "::" in name), None):
        raise InputError(f"{found.path} holds an entry named {strange!r}, which would open another URL. Remove it.")
    return sorted(name for name in names if _is_recognised(name))


def _sources(found: Sequence[_Found], anonymous: bool) -> list[Source]:
    """The sources in this order, each with its size and version now."""
    for one in found:
        try:
            one.path.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"{one.path!r}: its name is not UTF-8, and `file_path` must be. Rename it.") from error
    known = {one.url: one.facts for one in found if one.facts is not None}
    unknown = list(dict.fromkeys(one.url for one in found if one.url not in known))
    known |= zip(unknown, described_all(unknown, anonymous=anonymous), strict=True)
    return [
        Source(
            path=one.path,
            url=one.url,
            size=known[one.url].size,
            version=known[one.url].version,
            anonymous=anonymous and local_path(one.url) is None,
        )
        for one in found
    ]
