"""The URL block lists that datatrove carries, and the signals of a URL against them.

The domain list has 4.6 million lines. It is read once into a sorted array of 128-bit hashes in a cache folder (74
MB) and mapped into every worker from there, so that workers of one machine share its pages and none parses it.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xxhash

from filters import url as rules
from filters.rule import Measured, Signals
from pipelines.cache import cache_folder, write_whole

if TYPE_CHECKING:
    from ahocorasick import Automaton
    from tldextract import TLDExtract

NOT_ALPHANUMERIC = re.compile(r"[^a-zA-Z0-9]+")


@dataclass(frozen=True, kw_only=True)
class BlockLists:
    """The lists, ready to ask. `domains` holds xxh3-128 hashes: row 0 their high halves, sorted, row 1 their low."""

    domains: npt.NDArray[np.uint64]
    addresses: frozenset[str]
    words: frozenset[str]
    soft_words: frozenset[str]
    subwords: Automaton
    suffixes: TLDExtract

    def has_domain(self, name: str) -> bool:
        """True where `name` is a line of the domain list."""
        high, low = np.frombuffer(xxhash.xxh3_128_digest(name.encode()), ">u8").astype(np.uint64)
        first, last = np.searchsorted(self.domains[0], high, "left"), np.searchsorted(self.domains[0], high, "right")
        return bool((self.domains[1, first:last] == low).any())


@cache
def block_lists() -> BlockLists:
    """Return datatrove's lists, with tldextract on its bundled suffix list (never the network)."""
    from ahocorasick import STORE_INTS, Automaton

    subwords = Automaton(STORE_INTS)
    for index, word in enumerate(sorted(_words("banned_subwords.txt"))):
        subwords.add_word(word, index)
    subwords.make_automaton()
    domains, addresses = _indexed(cache_folder())
    return BlockLists(
        domains=domains,
        addresses=addresses,
        words=_words("banned_words.txt"),
        soft_words=_words("soft_banned_words.txt"),
        subwords=subwords,
        suffixes=_suffixes(),
    )


def url_signals(urls: Sequence[str], lists: BlockLists, *, case_sensitive: bool) -> Signals:
    """Measure every signal of `filters.url` for a batch of URLs.

    With `case_sensitive`, words of a URL keep their case while the lists are in lower case: datatrove's behaviour.
    """
    counted = np.array([_url_counts(url, lists, case_sensitive) for url in urls], np.uint32).reshape(len(urls), 7)
    signals = (
        rules.PRESENT,
        rules.DOMAIN,
        rules.SUBDOMAIN,
        rules.ADDRESS,
        rules.WORDS,
        rules.SOFT_WORDS,
        rules.SUBWORDS,
    )
    return {signal.name: Measured(numerator=counted[:, column]) for column, signal in enumerate(signals)}


def _url_counts(url: str, lists: BlockLists, case_sensitive: bool) -> tuple[int, ...]:
    if not url:
        return (0,) * 7
    parts = lists.suffixes(url)
    words = set(NOT_ALPHANUMERIC.split(url if case_sensitive else url.lower()))
    squeezed = NOT_ALPHANUMERIC.sub("", url).lower()
    return (
        1,
        lists.has_domain(parts.top_domain_under_public_suffix),
        lists.has_domain(parts.fqdn),
        url in lists.addresses,
        len(words & lists.words),
        len(words & lists.soft_words),
        next(lists.subwords.iter(squeezed), None) is not None,
    )


@cache
def _suffixes() -> TLDExtract:
    from tldextract import TLDExtract

    return TLDExtract(suffix_list_urls=(), cache_dir=None)


def registered_domain(url: str) -> str:
    """The domain that someone registered, `example.co.uk`; the host where it has none, as an IP address has not."""
    parts = _suffixes()(url)
    return parts.top_domain_under_public_suffix or parts.fqdn or parts.domain


def _words(name: str) -> frozenset[str]:
    lines = (files("datatrove") / "assets" / name).read_text(encoding="utf-8").splitlines()
    return frozenset(NOT_ALPHANUMERIC.sub("", line).lower() for line in lines if not line.startswith("#"))


def _lines(data: bytes) -> Iterator[str]:
    return (line.strip() for line in data.decode("utf-8").split("\n") if line and not line.startswith("#"))


def _indexed(folder: Path) -> tuple[npt.NDArray[np.uint64], frozenset[str]]:
    """The domain hashes, mapped from `folder` (made there on first use), and the listed URLs."""
    with as_file(files("datatrove") / "assets" / "url_filterblacklistsv0_3_0.tar.gz") as packed:
        name = f"domains-{hashlib.sha256(packed.read_bytes()).hexdigest()[:16]}.npy"
        stored, addresses = folder / name, folder / name.replace("domains", "addresses").replace(".npy", ".txt")
        if not (stored.is_file() and addresses.is_file()):
            with tarfile.open(packed, "r:gz") as archive:
                lists = {member: archive.extractfile(member) for member in ("domains", "urls")}
                data = {member: file.read() for member, file in lists.items() if file is not None}
            write_whole(addresses, data["urls"])
            _write_hashes(stored, _lines(data["domains"]))
    return np.load(stored, mmap_mode="r"), frozenset(_lines(addresses.read_bytes()))


def _write_hashes(path: Path, names: Iterable[str]) -> None:
    digests = b"".join(xxhash.xxh3_128_digest(name.encode()) for name in names)
    high, low = np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2).T
    hashes = np.stack([high, low])[:, np.lexsort((low, high))]
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npy", delete=False) as file:
        np.save(file, hashes)
    Path(file.name).replace(path)
