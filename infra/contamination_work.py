"""What a worker does to find items in texts: one part of a run, looked through for the n-grams of all items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from filters.tokens import Lexicon
from infra.commit import FileEntry, Manifest, file_entry
from infra.failpoints import failpoint
from infra.pool_work import documents_of, said_of
from infra.stored import Store
from infra.work import Report, file_of, identity
from pipelines.accounts import Accounts
from pipelines.recipe import EditStep
from pipelines.schema import read_table

if TYPE_CHECKING:
    from proxy_eval.contamination import Index, Matches

CONTAMINATION = "contamination"
REVISION = 1
MATCHES = pa.schema([("document", pa.uint32()), ("ngram", pa.uint32())])
"""A row for each n-gram of the items that a document of the part holds, by their numbers."""


@dataclass(frozen=True, kw_only=True)
class ContaminationTask:
    """Look through a part of a run. `items`: a file of the store with the texts of all items."""

    store: Store
    run: Store
    text: FileEntry
    edits: tuple[EditStep, ...]
    items: FileEntry

    @property
    def id(self) -> str:
        """Hash of the texts, the view and the items."""
        return identity(CONTAMINATION, REVISION, self.text.sha256, said_of(self.edits), self.items.sha256)


def perform_contamination(task: ContaminationTask, report: Report) -> Manifest:
    """Look up the n-grams of every document of the part."""
    from proxy_eval.contamination import matches_of, merged

    index = held_index(task.store, task.items)

    def found() -> Iterator[Matches]:
        first = 0
        for keys, texts in documents_of(task.run, task.text, task.edits, Lexicon()):
            yield matches_of(index, texts, first)
            first += len(keys)
            report(task.id, Accounts())

    matches = merged(list(found()))
    with task.store.attempt(task.id) as attempt:
        path = attempt.folder / "matches.parquet"
        columns = [pa.array(matches.document).cast(pa.uint32()), pa.array(matches.key).cast(pa.uint32())]
        pq.write_table(pa.Table.from_arrays(columns, schema=MATCHES), path, compression="zstd")
        failpoint("attempt.written")
        entry = file_entry(task.store, attempt, path, len(matches.key))
    return Manifest(stage=CONTAMINATION, task=task.id, says={}, files={"matches": entry})


_held: dict[str, Any] = {}


def held_index(store: Store, items: FileEntry) -> Index:
    """The index of the items, kept in this process from task to task: that of 40,000 takes a second to make."""
    from proxy_eval.contamination import index_of

    if items.sha256 not in _held:
        _held.clear()
        _held[items.sha256] = index_of(read_table(file_of(store, items), columns=["text"]).column("text").to_pylist())
    index: Index = _held[items.sha256]
    return index
