"""A finished dataset as a folder that trainers read: `export OUT --format hf --to DIR`.

DIR/SHA256SUMS is written first and says whose export this is, `data/` holds the parts, and README.md, the card, is
written last: a folder without it is not finished, and the same export completes it. Nothing that is there is ever
overwritten. The bytes of every part are those of run.json's entry, or the export fails naming it; a part is under its
name whole or not at all. Both OUT and DIR are folders or prefixes of an object store.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from filters.errors import InputChanged, InputError, OutputError, VerifyFailed
from infra.card import Part, card
from infra.commit import FileEntry, check_file
from infra.local_store import LocalStore
from infra.run import RUN_FILE, Finished
from infra.scratch import scratch
from infra.stored import Attempt, Store, read_decoded, usable
from pipelines.resources import file_sha256
from pipelines.storage import REQUESTS

DATA, SUMS, README = "data", "SHA256SUMS", "README.md"
AT_ONCE = 4
"""Parts that are brought at a time; towards an object store so many lie on this machine's disk."""
COPY_BYTES = 8 << 20
SCRATCH = ".gristmill-export-"
LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")

OnPart = Callable[[str], None]
"""Told the name of a part that is now under its name."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What lies, or would lie, at `url`: the files in order, and the text of the card. `missing`: the names of parts
    that were not there before.
    """

    url: str
    files: tuple[FileEntry, ...]
    missing: tuple[str, ...]
    card: str
    dataset_sha256: str


def export_hf(
    made: Finished, to: Store, *, licence: str | None = None, dry_run: bool = False, on_part: OnPart = lambda name: None
) -> Exported:
    """Export for the Hub and `datasets`: `data/train-NNNNN-of-NNNNN.parquet`, one split, and the card.

    Reads the footers of all parts, and of their columns `dump` and `language` what the footers do not say. Raises
    InputError where the licence is no identifier, OutputError where nothing was kept or `to` holds anything else, and
    VerifyFailed naming a part whose bytes are not those of run.json.
    """
    if licence is not None and not LICENCE.fullmatch(licence):
        raise InputError(
            f"--licence {licence}: not an identifier of the Hub. Take one from "
            "https://huggingface.co/docs/hub/repositories-licenses, for instance odc-by, or `other`."
        )
    if not made.accounts.kept:
        raise OutputError(
            f"{made.store.url} kept no document, and an empty dataset cannot be loaded. "
            f"`gristmill inspect {made.store.url}` shows what dropped them."
        )
    entries = made.files["dataset"]
    files = tuple(replace(entry, path=train_path(at, len(entries))) for at, entry in enumerate(entries))
    sums = "".join(f"{file.sha256}  {file.path}\n" for file in files)
    there = found_there(to, files, sums)
    missing = tuple(file.path for file in files if file.path not in there)
    parts, schema = described(made.store, entries, files)
    recipe_sha256 = read_decoded(made.store, RUN_FILE, json.loads)["recipe_sha256"]
    text = card(made, parts, schema, recipe_sha256=recipe_sha256, licence=licence)
    refuse_other_card(to, text)
    exported = Exported(url=to.url, files=files, missing=missing, card=text, dataset_sha256=made.dataset_sha256)
    if not dry_run:
        created(to, SUMS, sums)
        wanted = [pair for pair in zip(entries, files, strict=True) if pair[1].path not in there]
        for name in brought(made.store, to, wanted):
            on_part(name)
        created(to, README, text)
    return exported


def train_path(at: int, count: int) -> str:
    """The name of a part as the Hub spells it: hf.co/docs/hub/datasets-file-names-and-splits."""
    width = max(5, len(str(count)))
    return f"{DATA}/train-{at:0{width}d}-of-{count:0{width}d}.parquet"


def described(store: Store, entries: Sequence[FileEntry], files: Sequence[FileEntry]) -> tuple[list[Part], pa.Schema]:
    """What the card says of each part, and the schema, the same of all.

    Raises VerifyFailed naming a part that cannot be read, or has another schema or number of rows than it should.
    """

    def one(entry: FileEntry) -> tuple[pa.Schema, Part]:
        with footer(store, entry) as file:
            part = Part(
                path="",
                rows=file.metadata.num_rows,
                bytes=entry.bytes,
                arrow_bytes=arrow_bytes(file.metadata),
                dumps=distinct(file, "dump"),
                languages=distinct(file, "language"),
            )
            return file.schema_arrow.remove_metadata(), part

    with ThreadPoolExecutor(REQUESTS) as pool:
        found = list(pool.map(one, entries))
    schema = found[0][0]
    for entry, (other, part) in zip(entries, found, strict=True):
        if part.rows != entry.rows or not other.equals(schema):
            what = f"{part.rows:,} rows for {entry.rows:,}" if part.rows != entry.rows else "its columns"
            raise VerifyFailed(f"{store.url}/{entry.path} is not what was committed ({what}). Restore it.")
    return [replace(part, path=file.path) for (_, part), file in zip(found, files, strict=True)], schema


@contextmanager
def footer(store: Store, entry: FileEntry) -> Iterator[pq.ParquetFile]:
    """Yield a part, opened. Where that fails, or the block does, and the bytes are not those of the entry, raises
    VerifyFailed.
    """
    try:
        with store.open(entry.path, entry.bytes) as raw, pq.ParquetFile(raw) as file:
            yield file
    except (pa.ArrowException, OSError, InputError, InputChanged):
        check_file(store, entry)
        raise


def arrow_bytes(metadata: pq.FileMetaData) -> int:
    """Bytes of all rows as Arrow in memory, about: what `datasets` calls num_bytes, without reading any row.

    A plain page has them (4 bytes of length for each string, where Arrow has an offset). A string of a column with a
    dictionary counts as the mean of the smallest and the largest one: the values of these columns are of like length.
    """
    size = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            known = chunk.statistics if chunk.has_dictionary_page and chunk.physical_type == "BYTE_ARRAY" else None
            if known is not None and known.has_min_max:
                size += chunk.num_values * (8 + len(known.min.encode()) + len(known.max.encode())) // 2
            else:
                size += chunk.total_uncompressed_size
    return size


def distinct(file: pq.ParquetFile, column: str) -> frozenset[str]:
    """The values of a column of strings; a row group is read only where its statistics leave more than one possible."""
    if column not in file.schema.names:
        return frozenset()
    at = file.schema.names.index(column)
    found: set[str | None] = set()
    for group in range(file.num_row_groups):
        known = file.metadata.row_group(group).column(at).statistics
        if known is not None and known.has_min_max and known.min == known.max:
            found.add(known.min)
        else:
            found.update(file.read_row_group(group, columns=[column]).column(0).unique().to_pylist())
    return frozenset(value for value in found if value is not None)


def found_there(to: Store, files: Sequence[FileEntry], sums: str) -> set[str]:
    """The parts that are there already, by name and size: a name is taken by whole parts of this export alone.

    Raises OutputError naming what is no part of this export. What begins with a dot is nobody's.
    """
    top = {name for name in to.top() if not name.startswith(".")}
    if SUMS not in top and top:
        raise OutputError(
            f"{to.url} holds other things ({', '.join(sorted(top)[:3])}). Choose an empty folder for --to."
        )
    if SUMS in top and to.read(SUMS) != sums.encode():
        raise OutputError(f"{to.url}/{SUMS}: another dataset was exported there. Choose another folder for --to.")
    sizes = {file.path: file.bytes for file in files}
    found = {one.name: one.bytes for one in to.listed(DATA) if not Path(one.name).name.startswith(".")}
    for name, size in sorted(found.items()):
        if sizes.get(name) != size:
            what = f"has {size:,} bytes for {sizes[name]:,}" if name in sizes else "is no part of this dataset"
            raise OutputError(f"{to.url}/{name} {what}. Remove it and run the same command again.")
    return set(found)


def refuse_other_card(to: Store, text: str) -> None:
    """Raise OutputError where README.md is there with another text."""
    try:
        same = to.read(README) == text.encode()
    except FileNotFoundError:
        return
    if not same:
        raise OutputError(
            f"{to.url}/{README} is not the card that this command writes (another licence or version of gristmill, or "
            "somebody edited it). Keep it, or remove it and run the same command again; the parts stay."
        )


def created(to: Store, name: str, text: str) -> None:
    """Write a small file unless it is there with this text. Raises OutputError where another text is there."""
    if not to.create(name, text.encode()) and to.read(name) != text.encode():
        raise OutputError(f"{to.url}/{name}: another command wrote it meanwhile. Choose another folder for --to.")


def brought(source: Store, to: Store, pairs: Sequence[tuple[FileEntry, FileEntry]]) -> Iterator[str]:
    """Put each part (where it is, what it becomes) under its name, `AT_ONCE` at a time; yield the names in order."""
    if not pairs:
        return

    def one(pair: tuple[FileEntry, FileEntry]) -> str:
        entry, file = pair
        path = folder / Path(file.path).name
        fetch(source, entry, path)
        if isinstance(to, LocalStore):
            with usable(to.root / file.path):
                path.replace(to.root / file.path)
        else:
            to.keep(Attempt(folder=folder, name=DATA), path)
            path.unlink()
        return file.path

    with made_folder(to) as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(one, pairs)


@contextmanager
def made_folder(to: Store) -> Iterator[Path]:
    """Yield a folder for parts in the making: beside the parts in a local store, else where temporary files go."""
    if not isinstance(to, LocalStore):
        with scratch() as folder:
            yield folder
        return
    with usable(to.root / DATA):
        (to.root / DATA).mkdir(parents=True, exist_ok=True)
    with scratch(SCRATCH, to.root) as folder:
        yield folder


def fetch(source: Store, entry: FileEntry, path: Path) -> None:
    """Have the part's bytes at `path`: as a hard link where both are on one file system, else as a copy.

    Raises VerifyFailed naming the part unless they are those of its entry.
    """
    where = f"{source.url}/{entry.path}"
    try:
        size = source.size(entry.path)
        if size == entry.bytes and not (isinstance(source, LocalStore) and linked(source.root / entry.path, path)):
            with source.open(entry.path, entry.bytes) as file, usable(path), path.open("xb") as copy:
                shutil.copyfileobj(file, copy, COPY_BYTES)
                copy.flush()
                os.fsync(copy.fileno())
    except FileNotFoundError:
        raise VerifyFailed(f"{where} is gone. Run the same `gristmill run` again, or restore the file.") from None
    except InputChanged as error:
        raise VerifyFailed(f"{where} was overwritten while it was read. Restore it.") from error
    if size != entry.bytes or file_sha256(path) != entry.sha256:
        found = f"{size:,} bytes for {entry.bytes:,}" if size != entry.bytes else "sha256"
        raise VerifyFailed(f"{where} is not what was committed ({found}). Restore it, or run into an empty folder.")


def linked(source: Path, path: Path) -> bool:
    """True where `path` is now another name of the file; False where the file system has no such links to it."""
    try:
        os.link(source, path)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True
