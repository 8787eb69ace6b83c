"""`cc:CC-MAIN-2024-10:0-9` -> the files of a Common Crawl dump, as its published list names them.

`cc:` reads over https://data.commoncrawl.org, `cc+s3:` from the bucket (any AWS credentials, us-east-1). A file's path
is `s3://commoncrawl/...` either way, as in FineWeb: the dataset does not depend on how the crawl was read.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from filters.errors import InputError
from pipelines.listing import listed_all
from pipelines.storage import Facts, described, opened
from pipelines.web import is_web

WEB, BUCKET = "https://data.commoncrawl.org/", "s3://commoncrawl/"
BASE_VARIABLE = "GRISTMILL_CC_BASE"
"""Names another place that is laid out as the bucket is; `cc:` reads from there, then."""
KINDS = ("warc", "wet", "arc")
# One LIST tells of 1,000 files and costs what 12 HEADs do ($0.005 and $0.0004 a thousand); a segment has about 900.
LIST_FROM = 12

_GIVEN = re.compile(
    r"(?P<scheme>cc|cc\+s3):(?P<name>CC-MAIN-\d{4}(-\d{2}(\d{2})?)?)(/(?P<kind>[a-z]+))?(:(?P<first>\d+)(-(?P<last>\d+))?)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crawl:
    """Files of one kind of one dump: those at positions `first` to `last` of its list, from 0; None is to the end.

    `base` ends in a slash; the lines of the list stand against it.
    """

    name: str
    kind: str
    first: int
    last: int | None
    base: str

    @property
    def paths(self) -> str:
        """The URL of the list."""
        return f"{self.base}crawl-data/{self.name}/{self.kind}.paths.gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class CrawlFile:
    """One file: `path` for the dataset, `url` to read, and what a listing said of it, if one was made."""

    path: str
    url: str
    facts: Facts | None


def is_crawl(given: str) -> bool:
    """True where an input names a dump."""
    return given.startswith(("cc:", "cc+s3:"))


def crawl_of(given: str) -> Crawl:
    """Return what `cc:NAME[/KIND][:FIRST[-LAST]]` names. Raises InputError where it is written otherwise."""
    found = _GIVEN.fullmatch(given)
    if found is None:
        raise InputError(
            f"{given!r} names no dump of Common Crawl. Write cc:CC-MAIN-2024-10 for all of it, cc:CC-MAIN-2024-10:0-9 "
            "for the first ten files of its list, cc:CC-MAIN-2024-10/wet for its texts; cc+s3: reads from the bucket."
        )
    kind = found["kind"] or "warc"
    if kind not in KINDS:
        raise InputError(f"{given}: Gristmill reads no {kind!r} files of a dump. Choose one of {', '.join(KINDS)}.")
    first = int(found["first"] or 0)
    last = None if found["first"] is None else int(found["last"] or first)
    if last is not None and last < first:
        raise InputError(f"{given}: position {last} lies before {first}. Write first-last, counted from 0.")
    base = BUCKET if found["scheme"] == "cc+s3" else os.environ.get(BASE_VARIABLE) or WEB
    return Crawl(name=found["name"], kind=kind, first=first, last=last, base=base.rstrip("/") + "/")


def crawl_files(given: str, *, anonymous: bool = False) -> list[CrawlFile]:
    """Return the files that `given` names, in the order of the list.

    From a bucket, sizes and versions come from one listing a segment, about 100 for a dump. A web server lists nothing:
    `facts` are None, and each file will be asked for by itself. Raises InputError where the dump is unknown, the list
    cannot be read or is shorter, or the bucket lacks a file of it.
    """
    crawl = crawl_of(given)
    lines = _lines(given, crawl, anonymous)
    last = len(lines) - 1 if crawl.last is None else crawl.last
    if not lines or last >= len(lines):
        raise InputError(
            f"{given}: {crawl.paths} lists {len(lines):,} files, at positions 0 to {len(lines) - 1:,}. "
            "Choose positions among them."
        )
    chosen = lines[crawl.first : last + 1]
    facts = {} if is_web(crawl.base) else _listed_facts(crawl, chosen, anonymous)
    return [CrawlFile(path=BUCKET + line, url=crawl.base + line, facts=facts.get(line)) for line in chosen]


def _lines(given: str, crawl: Crawl, anonymous: bool) -> list[str]:
    """The lines of the published list."""
    try:
        facts = described(crawl.paths, anonymous=anonymous)
        with opened(crawl.paths, size=facts.size, version=facts.version, anonymous=anonymous) as file:
            text = gzip.decompress(file.read()).decode("utf-8")
    except InputError as error:
        raise InputError(
            f"{given}: the list of its files cannot be had. {error} The names of the dumps stand at "
            "https://data.commoncrawl.org/crawl-data/index.html; those before 2013 have arc files only."
        ) from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{given}: {crawl.paths} is no gzip of paths: {error}.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _listed_facts(crawl: Crawl, chosen: Sequence[str], anonymous: bool) -> dict[str, Facts | None]:
    """What listings say of the chosen files, by line; folders of which few are chosen are not listed."""
    folders: defaultdict[str, list[str]] = defaultdict(list)
    for line in chosen:
        folders[line.rpartition("/")[0]].append(line)
    large = [folder for folder, lines in folders.items() if len(lines) >= LIST_FROM]
    listings = listed_all([f"{crawl.base}{folder}/" for folder in large], anonymous=anonymous)
    facts = {url.removeprefix(crawl.base): said for listing in listings for url, said in listing.items()}
    _check_present(crawl, (line for folder in large for line in folders[folder]), facts)
    return {line: facts[line] for line in chosen if line in facts}


def _check_present(crawl: Crawl, lines: Iterable[str], facts: dict[str, Facts | None]) -> None:
    missing = [line for line in lines if line not in facts]
    if missing:
        raise InputError(
            f"{crawl.base}{missing[0]} is on the list of {crawl.name} but not there ({len(missing):,} such files). "
            "Leave them out by their positions, or read the dump from its first place with cc:."
        )
