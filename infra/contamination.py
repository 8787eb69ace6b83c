"""What of a panel and of tasks stands in the texts of a pool, and the mask that cuts the documents which hold it.

One task for each part of the run's texts looks up its n-grams among those of all items (proxy_eval/contamination.py).
`POOL/contamination/` then holds `items.parquet` (a row for each item: its n-grams, and how many of them were found),
`clean.mask` (a bit for each document of the pool; 0: it holds n-grams of an item) and, written last, `report.json`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from filters.errors import InputError
from filters.rule import Bools
from infra.commit import FileEntry
from infra.contamination_work import CONTAMINATION, ContaminationTask, held_index
from infra.finish import finish_stage
from infra.pool import run_of
from infra.pool_files import check_extra, read_bits, read_said
from infra.pool_work import view_edits
from infra.progress import Progress
from infra.runner import make_runner
from infra.store import open_store
from infra.stored import Store, read_decoded
from infra.work import file_of
from pipelines.schema import read_table

REPORT, CLEAN, ITEMS = (f"{CONTAMINATION}/{name}" for name in ("report.json", "clean.mask", "items.parquet"))


@dataclass(frozen=True, kw_only=True)
class Group:
    """Items of a domain of the panel, or of a task: how many there are, long enough for a claim, and found."""

    name: str
    items: int
    claimed: int
    found: int


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found of each group, and how many documents of the pool hold it: they are what `uncontaminated` cuts."""

    groups: tuple[Group, ...]
    documents: int
    cut: int


def check_pool(
    pool: str,
    *,
    panel: Path | None = None,
    tasks: Path | None = None,
    overlap: float = 0.0,
    workers: int | None = None,
    runner: str = "ray",
    address: str | None = None,
    allow_unauthenticated: bool = False,
    take_over: bool = False,
    quiet: bool = False,
) -> Found:
    """Look the items up in the texts that a pool was made of, and store report and mask in the pool.

    An item is found, and a document is cut, where more than `overlap` of an item's n-grams stand in one document.
    Raises InputError where there are no items, or the run is not the one that the pool was made of.
    """
    check_extra("torch", "tokenizers")
    names, texts = items_of(panel, tasks)
    said = read_said(pool)
    made, store = run_of(pool, said), open_store(pool)
    _, edits = view_edits(made.recipe, said["origin"]["view"])
    with (
        Progress(sys.stderr, quiet=quiet) as progress,
        store.locked(take_over=take_over),
        make_runner(runner, workers, address=address, allow_unauthenticated=allow_unauthenticated) as started,
    ):
        items = kept_items(store, names, texts)
        planned = [
            ContaminationTask(store=store, run=made.store, text=text, edits=edits, items=items)
            for text in made.files["text"]
        ]
        found = finish_stage(
            store, CONTAMINATION, planned, len(planned), started, report=progress.report, on_stage=progress.stage
        )
        matches = [file_of(store, found[task.id].files["matches"]) for task in planned]
        parts = [read_table(one) for one in matches]
        rows = [entry.rows for entry in made.files["text"]]
        return stored(store, said["sha256"], names, items, parts, rows, overlap)


def items_of(panel: Path | None, tasks: Path | None) -> tuple[list[str], list[str]]:
    """Group and text of every document of the panel and every item of the tasks (question with its right answer)."""
    from proxy_eval.panel import documents, read_panel
    from proxy_eval.tasks import read_tasks

    found: list[tuple[str, str]] = []
    if panel is not None:
        opened = read_panel(panel)
        found += [
            (f"panel/{domain.name}", text) for domain in opened.domains for text in documents(opened, domain.name)[1]
        ]
    if tasks is not None:
        found += [(one.task, text) for one in read_tasks(tasks).items for text in one.texts]
    if not found:
        raise InputError("say what to look for: --panel PANEL, --tasks FOLDER, or both")
    names, texts = zip(*found, strict=True)
    return list(names), list(texts)


def kept_items(store: Store, names: Sequence[str], texts: Sequence[str]) -> FileEntry:
    """The entry of a file with all items, in the store under its hash."""
    written = BytesIO()
    table = pa.table({"group": pa.array(names, pa.string()), "text": pa.array(texts, pa.string())})
    pq.write_table(table, written, compression="zstd")
    data = written.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    store.create(f"_work/items/{sha256}.parquet", data)
    return FileEntry(path=f"_work/items/{sha256}.parquet", sha256=sha256, bytes=len(data), rows=len(texts))


def stored(
    store: Store,
    pool_sha256: str,
    names: Sequence[str],
    items: FileEntry,
    parts: Sequence[pa.Table],
    rows: Sequence[int],
    overlap: float,
) -> Found:
    """Put the matches of all parts together, and store what they say. Holds 16 bytes a match."""
    from proxy_eval.contamination import Matches, clean_documents, merged, sources_of

    index = held_index(store, items)
    first = np.concatenate([[0], np.cumsum(rows)])
    matches = merged(
        [
            Matches(
                document=part.column("document").to_numpy().astype(np.int64) + first[at],
                key=part.column("ngram").to_numpy().astype(np.int64),
            )
            for at, part in enumerate(parts)
        ]
    )
    item, _, held = sources_of(index, matches)
    most = np.zeros(len(names), np.int64)
    np.maximum.at(most, item, held)
    hit = most > overlap * index.totals
    clean = clean_documents(index, matches, int(first[-1]), overlap=overlap)
    groups = tuple(
        Group(name=name, items=int(mine.sum()), claimed=int((index.totals[mine] > 0).sum()), found=int(hit[mine].sum()))
        for name in dict.fromkeys(names)
        for mine in [np.array([one == name for one in names], np.bool_)]
    )
    found = Found(groups=groups, documents=len(clean), cut=int((~clean).sum()))
    table = BytesIO()
    columns = {"group": pa.array(names, pa.string()), "ngrams": index.totals, "found": most}
    pq.write_table(pa.table(columns), table, compression="zstd")
    store.replace(ITEMS, table.getvalue())
    store.replace(CLEAN, np.packbits(clean).tobytes())
    said = {"pool_sha256": pool_sha256, "items_sha256": items.sha256, "overlap": overlap, **asdict(found)}
    store.replace(REPORT, (json.dumps(said, indent=1) + "\n").encode())
    return found


def clean_mask(pool: str, said: Mapping[str, Any]) -> Bools:
    """False for the documents of a pool, of which pool.json says this, that hold items. Raises InputError where nobody
    has looked since it was made.
    """
    store = open_store(pool)
    try:
        looked = read_decoded(store, REPORT, json.loads)["pool_sha256"]
    except FileNotFoundError:
        looked = None
    if looked != said["sha256"]:
        raise InputError(
            f"--mask uncontaminated: nobody has looked what of a panel or of tasks stands in {pool}. "
            f"gristmill panel check {pool} --panel PANEL --tasks FOLDER"
        )
    return read_bits(store, CLEAN, said["documents"])
