"""What is stored of each kept document to find its copies without its text.

A task writes, beside `kept`, files of one row for each kept document that has what is compared:
`signatures` (in the order of `kept`, a row for every one: what it is called, how it is preferred, its sketch),
`urls`, `texts`, `twins` (128-bit hashes, sorted) and `bands` (a 64-bit hash for each band, sorted, all in one file).
Sorted files are read by range of hashes, so the work on them is cut without a file for each task and band.
Per document at 14 x 8: 224 bytes of sketch, 14 x 20 of bands, 36 and its id for each exact method, before compression.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from filters.tokens import Lexicon
from pipelines.dedup.candidates import merge_hashes
from pipelines.dedup.minhash import Hasher, band_hashes, signature_hashes, sketches
from pipelines.dedup.step import SPEAKS_OF, Dedup, NearDuplicates
from pipelines.urls import registered_domain
from pipelines.words import words_by_name

Unsigned = npt.NDArray[np.uint64]

HASHED = pa.schema(
    [("high", pa.uint64()), ("low", pa.uint64()), ("row", pa.uint32()), ("order", pa.uint64()), ("id", pa.string())]
)
BANDS = pa.schema([("hash", pa.uint64()), ("row", pa.uint32()), ("order", pa.uint64()), ("tie", pa.uint32())])
"""`tie` is a hash of the id: in a bucket above the cap it decides, where orders are equal, with whom all compare. And
`values`, the minima of the band, where datatrove's sequence of pairs is asked for: it hangs on them.
"""
FILES = {"url": "urls", "text": "texts", "twin": "twins"}
"""The file of each exact method."""
HASHES = {"hash", "high", "low", "values", "sketch", "key"}
GROUP_ROWS = 1 << 14
"""Rows in a group of a sorted file: what is read too much at each end of a range."""


def signatures_schema(step: Dedup) -> pa.Schema:
    """The columns of `signatures`; the sketch is null where a document has fewer words than a shingle."""
    fields = [
        ("key", pa.binary(16)),
        ("id", pa.string()),
        ("order", pa.uint64()),
        ("characters", pa.int64()),
        ("tokens", pa.int64()),
        ("domain", pa.string()),
    ]
    if step.minhash is not None:
        fields.append(("sketch", pa.binary(2 * step.minhash.parameters.size)))
    return pa.schema(fields)


def fingerprint_schemas(step: Dedup) -> dict[str, pa.Schema]:
    """The schema of each file that a task writes for this step, by name."""
    schemas = {"signatures": signatures_schema(step)} | {FILES[method]: HASHED for method in step.exact}
    if step.minhash is not None:
        schemas["twins"] = HASHED  # also where nothing is verified yet: then a threshold reads no text again
    return schemas | ({"bands": bands_schema(step.minhash)} if step.minhash is not None else {})


def bands_schema(near: NearDuplicates) -> pa.Schema:
    """The columns of `bands`."""
    return BANDS.append(pa.field("values", pa.binary(near.values_bytes))) if near.values_bytes else BANDS


def normal_url(url: str) -> str:
    """A URL as documents are told apart by it, after T5's C4 code (c4_utils.normalize_url; Raffel et al. 2020, §2.2):
    without scheme, `www.`, tracking query (`utm_`, `ref`, `feed`) and slashes at the end. Beyond it: the host in lower
    case, no fragment.
    """
    bare = TRACKING.sub("", SCHEME.sub("", url.strip().partition("#")[0])).rstrip("/")
    host, slash, rest = bare.partition("/")
    return host.lower() + slash + rest


SCHEME = re.compile(r"^https?://(?:www\.)?", re.IGNORECASE)
TRACKING = re.compile(r"\?(?:utm_|ref|feed).*", re.DOTALL)


def normal_text(text: str) -> str:
    """A text as exact copies are told by it: in lower case, each run of white space one space, none at its ends.

    Digits and punctuation stay: documents that differ in a number are not the same.
    """
    return " ".join(text.lower().split())


@dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """What precedence is decided by, for each of n documents: characters, seconds since 1970, the dump as a number;
    -1 where a date or a dump is unknown.
    """

    length: npt.NDArray[np.int64]
    date: npt.NDArray[np.int64]
    dump: npt.NDArray[np.int64]


def packed_order(preferences: Sequence[str], facts: Facts) -> Unsigned:
    """One number below 2^62 for each document by the first two preferences; smaller is preferred.

    Each takes 31 bits, the first the upper ones: a length, or a date after 2038, that does not fit counts as the
    largest that does. What is unknown is the least preferred.
    """
    packed = np.zeros(len(facts.length), np.uint64)
    least = np.int64((1 << 31) - 1)
    for preference in preferences[:2]:
        known = getattr(facts, SPEAKS_OF[preference])
        value = np.clip(known, 0, least - 1)
        value = least - 1 - value if preference in ("longest", "newest") else value
        packed = packed << np.uint64(31) | np.where(known < 0, least, value).astype(np.uint64)
    return packed


def dump_numbers(dumps: Sequence[str]) -> npt.NDArray[np.int64]:
    """Dumps of Common Crawl as numbers that rise with time; -1 where the name is no such dump's."""
    found = [CRAWL.fullmatch(dump) for dump in dumps]
    return np.array([-1 if one is None else 100 * int(one[1]) + int(one[2] or 0) for one in found], np.int64)


CRAWL = re.compile(r"CC-MAIN-(\d{4})(?:-(\d{2})|-\d{4})?")
"""`CC-MAIN-2024-10`, and the first three: `CC-MAIN-2008-2009`, `CC-MAIN-2009-2010`, `CC-MAIN-2012`."""


def unix_seconds(dates: Sequence[str]) -> npt.NDArray[np.int64]:
    """Seconds since 1970 of ISO 8601 dates; -1 where a date is none, or earlier. Without a zone they are UTC."""
    return np.array([_seconds(date) for date in dates], np.int64)


def _seconds(date: str) -> int:
    try:
        found = datetime.fromisoformat(date)
    except ValueError:
        return -1
    zoned = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return max(-1, int(zoned.timestamp()))


def hashed128(values: Sequence[str]) -> Unsigned:
    """xxh3-128 of each string: shape (n, 2), the upper half first."""
    digests = b"".join(xxhash.xxh3_128_digest(value.encode("utf-8", "surrogatepass")) for value in values)
    return np.frombuffer(digests, ">u8").reshape(-1, 2).astype(np.uint64)


class Fingerprints:
    """The files of one task, gathered batch by batch. `hasher` is None where the step asks for no near-duplicates.

    Holds what it writes: about 1 kB a document at 14 x 8.
    """

    def __init__(self, step: Dedup, hasher: Hasher | None) -> None:
        self._step, self._hasher = step, hasher
        self._schemas = fingerprint_schemas(step)
        self._tables: dict[str, list[pa.Table]] = {name: [] for name in self._schemas}
        self._rows = 0

    def add(self, kept: Sequence[Mapping[str, Any]]) -> None:
        """Take the next rows of `kept`."""
        if not kept:
            return
        texts = [row["text"] for row in kept]
        facts = Facts(
            length=np.fromiter(map(len, texts), np.int64, len(texts)),
            date=unix_seconds([row["date"] for row in kept]),
            dump=dump_numbers([row["dump"] for row in kept]),
        )
        order = packed_order(self._step.precedence, facts)
        rows = np.arange(self._rows, self._rows + len(kept), dtype=np.uint32)
        self._rows += len(kept)
        ids = pa.array([row["id"] for row in kept], pa.string())
        columns: dict[str, Any] = {
            "key": [row["key"] for row in kept],
            "id": ids,
            "order": order,
            "characters": facts.length,
            "tokens": [row["token_count"] or 0 for row in kept],
            "domain": [registered_domain(row["url"]) for row in kept],
        }
        if self._step.url is not None:
            self._add_urls(kept, rows, facts, ids)
        if self._step.text is not None:
            self._add_hashed("texts", hashed128([normal_text(text) for text in texts]), rows, order, ids)
        if self._hasher is not None:
            columns["sketch"] = self._add_bands(self._hasher, texts, rows, order, ids)
        schema = self._schemas["signatures"]
        arrays = [pa.array(columns[field.name], field.type) for field in schema]
        self._tables["signatures"].append(pa.Table.from_arrays(arrays, schema=schema))

    def write(self, folder: Path) -> None:
        """Write the files."""
        for name, schema in self._schemas.items():
            table = pa.concat_tables([schema.empty_table(), *self._tables[name]])
            keys = [(column, "ascending") for column in ("high", "low", "hash", "row") if column in schema.names]
            if name != "signatures":
                table = table.sort_by(keys)
            write_sorted(folder / f"{name}.parquet", [table])

    def _add_urls(
        self,
        kept: Sequence[Mapping[str, Any]],
        rows: npt.NDArray[np.uint32],
        facts: Facts,
        ids: pa.Array,
    ) -> None:
        assert self._step.url is not None
        others = [name for name in self._step.precedence if SPEAKS_OF[name] != "date"]
        order = packed_order([self._step.url.keep, *others], facts)
        there = np.flatnonzero([bool(row["url"]) for row in kept])
        hashes = hashed128([normal_url(kept[index]["url"]) for index in there.tolist()])
        self._add_hashed("urls", hashes, rows[there], order[there], ids.take(pa.array(there)))

    def _add_bands(
        self, hasher: Hasher, texts: Sequence[str], rows: npt.NDArray[np.uint32], order: Unsigned, ids: pa.Array
    ) -> pa.Array:
        """Add bands and twins of the documents that have shingles, and return the sketches of all."""
        found = hasher.signatures(texts)
        there = np.flatnonzero(found.shingles > 0)
        values = found.values[there]
        named = [xxhash.xxh3_64_intdigest(one.as_py().encode()) & 0xFFFFFFFF for one in ids.take(pa.array(there))]
        self._tables["bands"].append(self._bands(values, rows[there], order[there], np.array(named, np.uint32)))
        if "twins" in self._tables:
            twins = signature_hashes(values)
            self._add_hashed("twins", twins, rows[there], order[there], ids.take(pa.array(there)))
        width = 2 * values.shape[1]
        packed = sketches(values).astype("<u2").tobytes()
        stored: list[bytes | None] = [None] * len(texts)
        for place, index in enumerate(there.tolist()):
            stored[index] = packed[place * width : (place + 1) * width]
        return pa.array(stored, pa.binary(width))

    def _bands(
        self, values: Unsigned, rows: npt.NDArray[np.uint32], order: Unsigned, tie: npt.NDArray[np.uint32]
    ) -> pa.Table:
        near = self._step.minhash
        assert near is not None
        datatrove = near.survivor == "datatrove"
        hashes = merge_hashes(values, near.bands) if datatrove else band_hashes(values, near.parameters)
        columns = [hashes.ravel(), *(np.repeat(one, near.bands) for one in (rows, order, tie))]
        arrays = [pa.array(one) for one in columns]
        if datatrove:
            packed = pa.py_buffer(values.astype("<u8").tobytes())
            arrays.append(pa.Array.from_buffers(pa.binary(8 * near.rows), hashes.size, [None, packed]))
        return pa.Table.from_arrays(arrays, schema=self._schemas["bands"])

    def _add_hashed(
        self, name: str, hashes: Unsigned, rows: npt.NDArray[np.uint32], order: Unsigned, ids: pa.Array
    ) -> None:
        columns = [pa.array(one) for one in (hashes[:, 0], hashes[:, 1], rows, order)]
        self._tables[name].append(pa.Table.from_arrays([*columns, ids], schema=HASHED))


def write_sorted(path: Path, tables: Iterable[pa.Table]) -> int:
    """Write these tables, at least one, one after the other, in groups of `GROUP_ROWS` whose statistics say their
    range; return their rows. Hashes do not compress, and are not.
    """
    waiting = iter(tables)
    first = next(waiting)
    rows, names = 0, first.schema.names
    with pq.ParquetWriter(
        path,
        first.schema,
        compression={name: "none" if name in HASHES else "lz4" for name in names},
        use_dictionary=[name for name in ("domain", "method") if name in names],
        write_statistics=True,
        store_schema=True,
    ) as writer:
        for table in chain([first], waiting):
            writer.write_table(table, row_group_size=GROUP_ROWS)
            rows += table.num_rows
    return rows


def hasher_of(step: Dedup | None, lexicon: Lexicon | None = None) -> Hasher | None:
    """The hasher that a step asks for, on a lexicon that it shares with others where one is given."""
    if step is None or step.minhash is None:
        return None
    return Hasher(step.minhash.parameters, words_by_name(step.minhash.words), lexicon=lexicon)
