"""What lies in a folder or matches a pattern, on a disk or in any store. No folder is left out because asking failed.

fsspec's own walk passes over a folder whose listing raised an error. Here every folder is a request of its own (in S3,
every page of it), made again while its error passes, and raised when it stays. Only what does not exist holds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

from fsspec.utils import glob_translate

from filters.errors import InputError
from pipelines.patience import patiently
from pipelines.storage import Facts, each_of, facts_of, file_system, hint, is_s3
from pipelines.web import courteous, is_web

PAGE_NAMES = 1000
"""Names in a page of a listing of S3: the most that it gives."""
_MAGIC, _WEB_MAGIC = re.compile(r"[*?\[]"), re.compile(r"[*\[]")
FLAT = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}
"""Protocols that list whatever lies below a prefix, folders or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name of a listing, without a slash at its end, and what the store says of it."""

    name: str
    is_folder: bool
    said: Mapping[str, Any] = field(default_factory=dict)


Entries = Callable[[str, str], Iterable[Entry]]
"""What is in a folder, which ends in a slash; names in it that do not begin with the second argument may be left out.
Links of a web page may name what lies deeper."""


def listed(url: str, *, anonymous: bool = False) -> dict[str, Facts | None]:
    """Every file below a folder, or that a glob matches, by URL; with its facts where the listing tells its version.

    One request a thousand files where the store lists so (S3). A web folder is what its page links to. Raises
    InputError where the place cannot be listed; what does not exist holds nothing.
    """
    (files,) = listed_all([url], anonymous=anonymous)
    return files


def listed_all(urls: Sequence[str], *, anonymous: bool = False) -> list[dict[str, Facts | None]]:
    """The same of each place, in order, several at a time. Raises the error of the first that has one."""

    def files(url: str) -> dict[str, Facts | None]:
        system, path = file_system(url, anonymous=anonymous)
        try:
            found = _files(system, path, _magic(url) if is_glob(url) else None)
        except (OSError, ValueError) as error:
            raise InputError(f"{url} cannot be listed: {error}. {hint(url)}") from error
        return {
            str(system.unstrip_protocol(one.name)): facts_of(one.said) if _tells_version(one.said) else None
            for one in found
        }

    return each_of(files, urls)


def _files(system: Any, path: str, magic: re.Pattern[str] | None) -> list[Entry]:
    protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
    entries: Entries = partial(s3_entries, system) if is_s3(system) else partial(_entries, system)
    flat: Entries | None = None
    if protocols & FLAT:
        flat = partial(s3_entries, system, flat=True) if is_s3(system) else partial(_below, system)
    if magic is not None:
        return matching(path, entries, magic=magic, flat=flat)
    folder = path.rstrip("/") + "/"
    return walked(folder, entries) if flat is None else _inside(flat, (folder, ""))


def _tells_version(said: Mapping[str, Any]) -> bool:
    return bool(said.get("ETag") or said.get("etag"))


def is_glob(url: str) -> bool:
    """True where a URL or path is a pattern."""
    return _magic(url).search(url) is not None


def _magic(url: str) -> re.Pattern[str]:
    """What makes a part of this URL a pattern. In what a web server holds, `?` begins the query."""
    return _WEB_MAGIC if is_web(url) else _MAGIC


def s3_pages(system: Any, folder: str, stem: str = "", *, flat: bool = False) -> Iterator[Mapping[str, Any]]:
    """The pages of a listing of what lies in a folder of S3, or where `flat` anywhere below it, and begins with `stem`.

    A page that fails is asked for again by itself. Raises FileNotFoundError where there is no such bucket.
    """
    bucket, key, _ = system.split_path(folder)
    if not bucket:
        raise ValueError("no bucket is named")
    asked = {"Bucket": bucket, "Prefix": key + stem, "MaxKeys": PAGE_NAMES, **system.req_kw}
    if not flat:
        asked["Delimiter"] = "/"
    while True:
        page = patiently(system.call_s3, "list_objects_v2", **asked)
        yield page
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def s3_entries(system: Any, folder: str, stem: str = "", *, flat: bool = False) -> Iterator[Entry]:
    """The same as entries. Empty objects that stand for folders are none."""
    bucket = system.split_path(folder)[0]
    for page in s3_pages(system, folder, stem, flat=flat):
        for one in page.get("CommonPrefixes", ()):
            yield Entry(name=f"{bucket}/{one['Prefix'].removesuffix('/')}", is_folder=True)
        for one in page.get("Contents", ()):
            if not one["Key"].endswith("/"):
                yield Entry(name=f"{bucket}/{one['Key']}", is_folder=False, said={**one, "size": one["Size"]})


def _entries(system: Any, folder: str, stem: str) -> Iterator[Entry]:
    """The entries of a folder of any other store, or of a web page."""

    def asked() -> list[dict[str, Any]]:
        with courteous(folder):
            said: list[dict[str, Any]] = system.ls(folder, detail=True)
        return said

    for one in patiently(asked):
        name = one["name"].rstrip("/")
        inside = name.removeprefix(folder).split("/")
        if name != folder.rstrip("/") and "." not in inside and ".." not in inside:
            yield Entry(name=name, is_folder=one["type"] == "directory", said=one)


def _below(system: Any, folder: str, stem: str) -> Iterator[Entry]:
    """Every file below a folder of a store whose client lists flat."""
    for name, said in patiently(system.find, folder.rstrip("/"), detail=True).items():
        if said.get("type") != "directory" and not name.endswith("/") and name != folder.rstrip("/"):
            yield Entry(name=name, is_folder=False, said=said)


def walked(folder: str, entries: Entries) -> list[Entry]:
    """Every file below a folder, which ends in a slash, by walking."""
    return _walked((folder, ""), entries, lambda name: (f"{name}/", ""))


def matching(
    pattern: str, entries: Entries, *, magic: re.Pattern[str] = _MAGIC, flat: Entries | None = None
) -> list[Entry]:
    """Every file that a pattern matches: `*` and `?` within a name, `[...]`, and `**` for any folders or none.

    Only folders that the pattern leads to are listed; what lies below `**` is asked of `flat`, where there is one.
    Raises ValueError where `**` is not a whole name.
    """
    whole = re.compile(glob_translate(pattern))
    parts = pattern.split("/")
    each = [re.compile(glob_translate(part)) for part in parts]
    deep = parts.index("**") if "**" in parts else len(parts)

    def place(folder: str) -> tuple[str, str]:
        """What to list for what is in a folder: past the parts that name one thing, from where the next one varies."""
        depth = folder.count("/")
        if depth > deep:
            return folder, ""
        while depth < len(parts) - 1 and magic.search(parts[depth]) is None:
            folder += f"{parts[depth]}/"
            depth += 1
        return folder, magic.split(parts[depth], maxsplit=1)[0]

    def led_to(name: str) -> tuple[str, str] | None:
        names = name.split("/")
        leads = all(part.match(one) for part, one in zip(each[:deep], names, strict=False))
        return place(f"{name}/") if leads and (deep < len(parts) or len(names) < len(parts)) else None

    start = place("")
    found = _inside(flat, start) if flat is not None and deep < len(parts) else _walked(start, entries, led_to)
    return [one for one in found if whole.match(one.name)]


def _walked(start: tuple[str, str], entries: Entries, led_to: Callable[[str], tuple[str, str] | None]) -> list[Entry]:
    """The files of the folders that one leads to another, those of one depth asked for several at a time."""
    files: dict[str, Entry] = {}
    seen, level = {start}, [start]
    while level:
        inside = chain.from_iterable(each_of(partial(_inside, entries), level))
        level = []
        for one in inside:
            if not one.is_folder:
                files[one.name] = one
            elif (place := led_to(one.name)) is not None and place not in seen:
                seen.add(place)
                level.append(place)
    return list(files.values())


def _inside(entries: Entries, place: tuple[str, str]) -> list[Entry]:
    """What is in a place; nothing where it is gone, or no folder."""
    try:
        return list(entries(*place))
    except (FileNotFoundError, NotADirectoryError):
        return []
