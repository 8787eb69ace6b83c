"""One task: slices of input in, Parquet files of what became of their documents and an account out.

Writes `kept.parquet`, `documents.parquet` (a row for every document), `dropped.parquet`, `quarantined.parquet` and
`losses.parquet` (a row for every damaged record and every range that lies in no record), and in annotate mode
`text.parquet` and `signals.parquet` (a row in each for every document that was not quarantined); rows in the order of
the input. Where the recipe has a dedup step also what copies are found by (pipelines/dedup/fingerprints.py). Memory is
bounded by one batch (`BATCH_BYTES` of pages and their texts, or one page), one Parquet row group, the samples of
dropped documents, 1 kB of fingerprints for each kept one, and the window of a `lines` step: with such a step slices
are whole files, and the window is one file.
"""

from __future__ import annotations

import heapq
import re
import shutil
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from pipelines.accounts import Accounts
from pipelines.decide import Decider, Decisions
from pipelines.dedup.fingerprints import Fingerprints
from pipelines.dedup.step import Dedup
from pipelines.read import read_at, read_slice
from pipelines.recipe import Recipe
from pipelines.record import Damaged, Event, Page, Position, Refused, Skipped, Slice, Unreadable
from pipelines.schema import (
    DOCUMENTS,
    DROPPED,
    KEPT,
    LOSSES,
    ORDER,
    QUARANTINED,
    WRITER,
    batch_of,
    read_table,
    row_groups,
)
from pipelines.signals import PLACE_AND_OUTCOME, TEXT, signals_schema, stored_values
from pipelines.storage import StoredFile
from pipelines.urls import registered_domain

BATCH_PAGES = 256
BATCH_BYTES = 16 << 20
CRAWL_IN_PATH = re.compile(r"CC-MAIN-\d{4}-\d{2}")

TASK_SCHEMAS = {
    "kept": KEPT,
    "documents": DOCUMENTS,
    "quarantined": QUARANTINED,
    "dropped": DROPPED,
    "losses": LOSSES,
}

Row = dict[str, Any]
Report = Callable[[Accounts], None]
"""Called with the account so far after every batch; for display only."""


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What a task needs to know beside its slices. `dump` None: found in the path. `dropped_samples` None: keep them
    all. annotate: keep every document with its signals; all_signals: those of every family.
    """

    recipe: Recipe
    dump: str | None = None
    dropped_samples: int | None = 100
    annotate: bool = False
    all_signals: bool = False

    @property
    def schemas(self) -> dict[str, pa.Schema]:
        """The schema of each file of a task, by name."""
        schemas = dict(TASK_SCHEMAS)
        if self.annotate:
            schemas |= {"text": TEXT, "signals": signals_schema(self.recipe, all_signals=self.all_signals)}
        return schemas


def document_key(file_path: str, position: Position, record_id: str, digest: bytes) -> bytes:
    """16 bytes that name one record: xxh3-128 of where it lies, its id and its payload.

    Record ids are not unique in the wild, and neither is (id, payload); the place is.
    """
    place = f"{file_path}\0{position.offset}\0{position.inner}\0{record_id}\0".encode("utf-8", "surrogatepass")
    return xxhash.xxh3_128_digest(place + digest)


def dump_of(file_path: str, dump: str | None) -> str:
    """The recipe's dump name, else `CC-MAIN-YYYY-WW` where the path has it, else empty."""
    if dump is not None:
        return dump
    found = CRAWL_IN_PATH.search(file_path)
    return found.group() if found else ""


def process(
    slices: Iterable[Slice],
    options: TaskOptions,
    folder: Path,
    *,
    decider: Decider,
    report: Report | None = None,
) -> Accounts:
    """Decide every document of the slices, write the four files into `folder`, and return the checked account."""
    accounts = Accounts()
    read = options.recipe.read.options()
    with Files(folder, options, decider) as files:
        for one in slices:
            decider.begin_file(one.source.path)
            for events in batches(read_slice(one, read)):
                accounts = accounts + files.write(one.source.path, events)
                if report is not None:
                    report(accounts)
            accounts = accounts + Accounts(input_bytes=one.end - one.start)
    return accounts.checked(f"task over {folder.name}")


def reprocess(
    slices: Iterable[Slice],
    positions: Sequence[tuple[str, Position]],
    options: TaskOptions,
    folder: Path,
    *,
    decider: Decider,
    documents: StoredFile,
    quarantined: StoredFile,
) -> Accounts:
    """Decide single documents again and return what this changes in the account of their task.

    Writes `kept`, `dropped`, `text` and `signals` rows of these documents alone; `documents` and `quarantined` whole,
    the rows of these documents replaced.
    """
    sources = {one.source.path: one.source for one in slices}
    read = options.recipe.read.options()
    fresh = folder / "fresh"
    fresh.mkdir()
    accounts = Accounts()
    with Files(fresh, options, decider) as files:
        for path, position in positions:
            accounts = accounts + files.write(path, [read_at(sources[path], position, read)])
    again = {(path, position.offset, position.inner) for path, position in positions}
    gone = Counter(
        without(quarantined, fresh, folder / "quarantined.parquet", again, QUARANTINED).column("reason").to_pylist()
    )
    without(documents, fresh, folder / "documents.parquet", again, DOCUMENTS)
    for made in fresh.glob("*.parquet"):
        if made.stem not in ("documents", "quarantined", "losses"):
            made.replace(folder / made.name)
    shutil.rmtree(fresh)
    remaining = Counter(accounts.quarantined)
    remaining.subtract(gone)
    return replace(accounts, records=0, documents=0, record_bytes=0, skipped={}, damaged={}, quarantined=remaining)


def without(
    old: StoredFile, fresh: Path, path: Path, again: Container[tuple[str, int, int]], schema: pa.Schema
) -> pa.Table:
    """Write to `path` the rows of `old` that are not at `again` with those of the file of this name in `fresh`, and
    return the rows left out.
    """
    table = read_table(old).cast(schema)
    places = zip(*(table.column(name).to_pylist() for name in ORDER), strict=True)
    out = pa.array([place in again for place in places], pa.bool_())
    rows = pa.concat_tables([table.filter(pc.invert(out)), pq.read_table(fresh / path.name).cast(schema)])
    rows = rows.sort_by([(name, "ascending") for name in ORDER])
    with ParquetFile(path, schema) as file:
        file.write_batches(rows.to_batches())
    return table.filter(out)


def batches(events: Iterable[Event]) -> Iterator[list[Event]]:
    """Cut events into batches of at most `BATCH_PAGES` pages and, single pages aside, `BATCH_BYTES` characters."""
    batch: list[Event] = []
    pages = size = 0
    for event in events:
        if isinstance(event, Page):
            if pages >= BATCH_PAGES or (pages and size + len(event.text) > BATCH_BYTES):
                yield batch
                batch, pages, size = [], 0, 0
            pages, size = pages + 1, size + len(event.text)
        batch.append(event)
    if batch:
        yield batch


class Files:
    """The files of a task while they are being written."""

    def __init__(self, folder: Path, options: TaskOptions, decider: Decider) -> None:
        self._folder, self._options, self._decider = folder, options, decider
        dedup = options.recipe.step(Dedup)
        self._fingerprints = None if dedup is None else Fingerprints(dedup, decider.hasher)
        self._rules = options.recipe.rules
        self._stack = ExitStack()
        self._schemas = options.schemas
        self._files = {
            name: self._stack.enter_context(ParquetFile(folder / f"{name}.parquet", schema))
            for name, schema in self._schemas.items()
        }
        self._samples: dict[str, Smallest] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            rows = sorted(
                (row for sample in self._samples.values() for row in sample.rows),
                key=lambda row: (row["file_path"], row["offset"], row["inner"]),
            )
            self._files["dropped"].write(rows)
            if self._fingerprints is not None:
                self._fingerprints.write(self._folder)
        self._stack.__exit__(kind, error, trace)

    def write(self, file_path: str, events: Sequence[Event]) -> Accounts:
        """Decide the pages among these events, write a row for every document, and return the account of the batch."""
        pages = [event for event in events if isinstance(event, Page)]
        decided = self._decider.decide(pages)
        kept: list[Row] = []
        documents: list[Row] = []
        quarantined: list[Row] = []
        places: list[Row] = []
        self._files["losses"].write(
            [lost(file_path, event) for event in events if isinstance(event, Unreadable | Damaged)]
        )
        counts = Tally()
        index = -1
        for event in events:
            if isinstance(event, Unreadable):
                counts.unreadable[event.reason] += event.end - event.start
                continue
            counts.records += 1
            counts.record_bytes += event.length
            counts.documents += isinstance(event, Page | Refused)
            if isinstance(event, Skipped):
                counts.skipped[event.reason] += 1
            elif isinstance(event, Damaged):
                counts.damaged[event.reason] += 1
            elif isinstance(event, Refused):
                place = placed(file_path, event, b"")
                counts.quarantined[event.reason] += 1
                quarantined.append({**place, "reason": event.reason, "detail": event.detail, "timing_dependent": False})
                documents.append({**place, "outcome": "quarantined", "reason": event.reason, "value": None})
            else:
                index += 1
                places.append(placed(file_path, event, event.digest))
                self._write_page(decided, index, places[-1], counts, kept, documents, quarantined)
        self._files["kept"].write(kept)
        if self._fingerprints is not None:
            self._fingerprints.add(kept)
        self._files["documents"].write(documents)
        self._files["quarantined"].write(quarantined)
        if self._options.annotate:
            counts.raw_characters = self._annotate(decided, places)
        return counts.accounts(decided)

    def _annotate(self, decided: Decisions, places: Sequence[Row]) -> int:
        """Write the raw text and the signals of every page that was not quarantined; return the characters of text."""
        there = [index for index in range(len(places)) if index not in decided.refused]
        self._files["text"].write(
            [
                {
                    **self._described(decided, index, places[index]),
                    "text": decided.raw[index] or "",
                    "token_count": decided.raw_token_count[index],
                }
                for index in there
            ]
        )
        outcomes = [
            {
                **places[index],
                "domain": registered_domain(decided.pages[index].url),
                "language": decided.language[index],
                "language_score": float(decided.language_score[index]),
                "characters": None if decided.raw[index] is None else len(decided.raw[index] or ""),
                "token_count": decided.raw_token_count[index],
                "outcome": "kept" if decided.first[index] < 0 else "dropped",
                "reason": None if decided.first[index] < 0 else self._rules[decided.first[index]].name,
            }
            for index in there
        ]
        schema = self._schemas["signals"]
        known = pa.Table.from_pylist(outcomes, pa.schema(list(schema)[: len(PLACE_AND_OUTCOME)]))
        values = [
            stored_values(decided.measured.get(field.name), len(places), field.type).take(pa.array(there, pa.int64()))
            for field in list(schema)[len(PLACE_AND_OUTCOME) :]
        ]
        table = pa.Table.from_arrays([*known.columns, *values], schema=schema)
        self._files["signals"].write_batches(table.to_batches())
        return sum(len(decided.raw[index] or "") for index in there)

    def _write_page(
        self,
        decided: Decisions,
        index: int,
        place: Row,
        counts: Tally,
        kept: list[Row],
        documents: list[Row],
        quarantined: list[Row],
    ) -> None:
        if (refused := decided.refused.get(index)) is not None:
            counts.quarantined[str(refused.refused)] += 1
            said = {"reason": refused.refused, "detail": refused.detail, "timing_dependent": refused.timing_dependent}
            quarantined.append({**place, **said})
            documents.append({**place, "outcome": "quarantined", "reason": refused.refused, "value": None})
        elif decided.first[index] < 0:
            text = decided.text[index]
            counts.kept += 1
            counts.tokens += decided.token_count[index] or 0
            counts.characters += len(text)
            documents.append({**place, "outcome": "kept", "reason": None, "value": None})
            described = self._described(decided, index, place)
            kept.append({**described, "text": text, "token_count": decided.token_count[index]})
        else:
            rule, value = self._rules[decided.first[index]], float(decided.value[index])
            counts.dropped[rule.name] += 1
            documents.append({**place, "outcome": "dropped", "reason": rule.name, "value": value})
            self._sample(
                {
                    **place,
                    "rule": rule.name,
                    "value": value,
                    "bounds": rule.bounds,
                    "language": decided.language[index],
                    "text": decided.raw[index],
                }
            )

    def _described(self, decided: Decisions, index: int, place: Row) -> Row:
        """A row of the dataset without its text and its number of tokens."""
        return {
            **place,
            "dump": dump_of(place["file_path"], self._options.dump) or decided.given(index, "dump") or "",
            "date": decided.pages[index].date,
            "language": decided.language[index],
            "language_score": float(decided.language_score[index]),
        }

    def _sample(self, row: Row) -> None:
        limit = self._options.dropped_samples
        if limit is None:
            self._files["dropped"].write([row])
        elif limit:
            self._samples.setdefault(row["rule"], Smallest(limit)).offer(row)


def lost(file_path: str, event: Unreadable | Damaged) -> Row:
    """The row of bytes that gave no document."""
    if isinstance(event, Unreadable):
        place = {"kind": "unreadable", "offset": event.start, "inner": 0, "length": event.end - event.start}
    else:
        position = event.position
        place = {"kind": "damaged", "offset": position.offset, "inner": position.inner, "length": event.length}
    return {**place, "file_path": file_path, "reason": event.reason}


def placed(file_path: str, document: Page | Refused, digest: bytes) -> Row:
    """The columns that say which record a document is."""
    return {
        "key": document_key(file_path, document.position, document.record_id, digest),
        "offset": document.position.offset,
        "inner": document.position.inner,
        "file_path": file_path,
        "id": document.record_id,
        "url": document.url,
    }


class Smallest:
    """The `limit` rows of smallest key: a sample that does not depend on the order of documents or the cut of tasks."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[int, Row]] = []

    def offer(self, row: Row) -> None:
        """Take the row in if its key is among the smallest so far."""
        entry = (-int.from_bytes(row["key"], "big"), row)
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, entry)
        elif entry[0] > self._heap[0][0]:
            heapq.heapreplace(self._heap, entry)

    @property
    def rows(self) -> list[Row]:
        """The rows, in no order."""
        return [row for _, row in self._heap]


@dataclass
class Tally:
    """Counts of one batch while its events are gone through."""

    records: int = 0
    documents: int = 0
    record_bytes: int = 0
    kept: int = 0
    tokens: int = 0
    characters: int = 0
    raw_characters: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    damaged: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)

    def accounts(self, decided: Decisions) -> Accounts:
        """The same as an account. Documents were counted by themselves, so that the equations can fail."""
        return Accounts(
            records=self.records,
            documents=self.documents,
            kept=self.kept,
            skipped=self.skipped,
            damaged=self.damaged,
            dropped=self.dropped,
            quarantined=self.quarantined,
            failed=decided.failed,
            gate=decided.gate,
            record_bytes=self.record_bytes,
            unreadable=self.unreadable,
            tokens=self.tokens,
            characters=self.characters,
            raw_characters=self.raw_characters,
        )


class ParquetFile:
    """A Parquet file that is given rows as they come and written in whole row groups."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, **WRITER)
        self._pending: list[pa.RecordBatch] = []
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def write(self, rows: list[Row]) -> None:
        """Add rows."""
        if rows:
            self.write_batches([batch_of(rows, self._schema)])

    def write_batches(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Add rows that are in Arrow."""
        self._pending.extend(batches)
        self._size += sum(batch.nbytes for batch in batches)
        if self._size > 32 << 20:
            self._flush()

    def _flush(self) -> None:
        for table in row_groups(self._pending, self._schema):
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._pending, self._size = [], 0
