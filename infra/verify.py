"""Is what is stored what was committed, and does every account hold? And: what may be thrown away?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import polars as pl

from filters.errors import OutputError, VerifyFailed
from infra.commit import FileEntry, check_file, read_ahead
from infra.look import columns_of, outcome_counts, parquet_rows
from infra.packing import totals
from infra.rollup import TaskOutcome, task_files
from infra.run import RUN_FILE, Finished, read_run
from infra.stored import ATTEMPTS, MANIFESTS, Store
from infra.work import KINDS
from pipelines.accounts import Accounts
from pipelines.pack import dataset_sha256


def verify(made: Finished) -> int:
    """Check a finished run against its bytes and return how many files were read.

    Every file has the sha256 and rows of its manifest; the equations hold for every task and in all; the ledger of
    documents, counted row by row, says the same as the accounts, and so do the listed losses; the parts hold the
    kept rows, texts and signals those of the same documents; the dataset's hash is that of its files. Raises
    VerifyFailed naming the first that is not so.
    """
    files = 0
    ledger: Counter[tuple[str, str | None]] = Counter()

    def checked() -> Iterator[TaskOutcome]:
        nonlocal files
        for outcome in made.outcomes:
            for entry in task_files(outcome):
                check_stored(made.store, entry)
                files += 1
            outcome.accounts.checked(f"task {outcome.task}")
            ledger.update(outcome_counts(made.store, outcome))
            yield outcome

    whole = totals(checked(), made.files).accounts.checked("the run")
    if whole.as_json() != made.accounts.as_json():
        raise VerifyFailed(
            f"{made.store.url}: the account in run.json is not the sum of its tasks'. Run the same command again."
        )
    check_ledger(made, whole, ledger)
    for entries in made.files.values():
        for entry in entries:
            check_stored(made.store, entry)
            files += 1
    check_losses(made, whole)
    check_annotated(made, whole)
    check_duplicates(made, whole)
    where = made.store.url
    if (rows := sum(entry.rows for entry in made.files["dataset"])) != whole.kept:
        raise VerifyFailed(f"{where}: the dataset has {rows:,} rows, the account {whole.kept:,} kept documents.")
    names = ((PurePosixPath(entry.path).name, entry.sha256) for entry in made.files["dataset"])
    if made.dataset_sha256 != dataset_sha256(names):
        raise VerifyFailed(f"{where}: the dataset's hash is not that of its files.")
    return files


def check_stored(store: Store, entry: FileEntry) -> None:
    """Raise VerifyFailed where a file has not the bytes and rows of its entry."""
    check_file(store, entry)
    if (found := parquet_rows(store, entry)) != entry.rows:
        raise VerifyFailed(f"{store.url}/{entry.path} has {found:,} rows, its manifest says {entry.rows:,}.")


def check_ledger(made: Finished, accounts: Accounts, counted: Counter[tuple[str, str | None]]) -> None:
    """Raise VerifyFailed where the ledger of documents, counted, is not the account."""
    said: dict[tuple[str, str | None], int] = {
        ("dropped", reason): count for reason, count in accounts.dropped.items() if count
    }
    said |= {("quarantined", reason): count for reason, count in accounts.quarantined.items() if count}
    # The ledger was written before copies were looked for: what they removed is kept there.
    kept = accounts.kept + sum(accounts.duplicates.values())
    said |= {("kept", None): kept} if kept else {}
    if counted != said:
        wrong = sorted(str(place) for place in counted.keys() | said.keys() if counted.get(place) != said.get(place))
        raise VerifyFailed(f"{made.store.url}: the ledger of documents and the account differ in {', '.join(wrong)}.")


def check_annotated(made: Finished, accounts: Accounts) -> None:
    """Raise VerifyFailed where `text/` and `signals/` are not rows of the same documents, all but the quarantined."""
    if not made.options.annotate:
        return
    where, pairs = made.store.url, list(zip(made.files["text"], made.files["signals"], strict=True))
    rows = sum(signals.rows for _, signals in pairs)
    if rows != (wanted := accounts.documents - sum(accounts.quarantined.values())):
        raise VerifyFailed(f"{where}: signals/ has {rows:,} rows, the account {wanted:,} documents with a decision.")
    for text, signals in pairs:
        keys = [columns_of(made.store, entry, ["key"])["key"] for entry in (text, signals)]
        if not keys[0].equals(keys[1]):
            raise VerifyFailed(f"{where}: {text.path} and {signals.path} do not hold the same documents in one order.")


def check_duplicates(made: Finished, accounts: Accounts) -> None:
    """Raise VerifyFailed where the listed copies, counted by method, are not those of the account, or the clusters do
    not stand for them.
    """
    if "duplicates" not in made.files:
        return
    where, counted, here, standing = made.store.url, Counter[str](), 0, 0
    for entry in made.files["duplicates"]:
        listed = columns_of(made.store, entry, ["method", "representative_run"])
        counted.update(listed["method"].to_list())
        here += listed["representative_run"].null_count()
    for entry in made.files["clusters"]:
        standing += int((columns_of(made.store, entry, ["size"])["size"] - 1).sum())
    if counted != accounts.duplicates:
        raise VerifyFailed(f"{where}: duplicates/ lists {dict(counted)}, the account {dict(accounts.duplicates)}.")
    if standing != here:
        raise VerifyFailed(f"{where}: clusters/ stand for {standing:,} documents, duplicates/ says it of {here:,}.")


def check_losses(made: Finished, accounts: Accounts) -> None:
    """Raise VerifyFailed where the listed losses, added up, are not those of the account."""
    listed = pl.concat(columns_of(made.store, entry, ["kind", "reason", "length"]) for entry in made.files["losses"])
    added = listed.group_by("kind", "reason").agg(pl.len(), pl.sum("length"))
    found = {(kind, reason): (count, length) for kind, reason, count, length in added.iter_rows()}
    damaged = {reason: count for (kind, reason), (count, _) in found.items() if kind == "damaged"}
    unreadable = {reason: length for (kind, reason), (_, length) in found.items() if kind == "unreadable"}
    said = accounts.as_json()
    if (damaged, unreadable) != (said["damaged"], said["unreadable"]):
        raise VerifyFailed(f"{made.store.url}: the listed losses are not those of the account.")


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What `gc` removed."""

    files: int
    bytes: int


def collect(store: Store, *, older_than: float, take_over: bool = False) -> Collected:
    """Remove what failures left: files written longer than `older_than` seconds ago, by the store's clock, that
    nothing names, and empty folders of attempts. A worker that still writes for a driver that is gone is younger than
    that.

    Manifests, segments, conflicts and jobs stay, with the files that manifests and run.json name. Holds the names of
    all files. Raises OutputError where the store is no output of ours, or a command works in it.
    """
    if "_work" not in store.top():
        raise OutputError(f"{store.url}: no output of a run. Check the path.")
    with store.locked(take_over=take_over):
        now = store.now()
        files = list(store.listed(""))
        kept = {one.name for one in files if RECORDS.fullmatch(one.name)} | store.lock_names()
        for manifest in read_ahead(store, sorted(one for one in kept if one.startswith(MANIFESTS))):
            kept |= {entry.path for entry in manifest.files.values()}
        if RUN_FILE in kept:
            kept |= {entry.path for entries in read_run(store).files.values() for entry in entries}
        old = [
            one for one in files if one.name not in kept and OURS.match(one.name) and now - one.written >= older_than
        ]
        store.prune(ATTEMPTS, now - older_than)  # first: to remove a file touches its folder
        store.remove(one.name for one in old)
    return Collected(files=len(old), bytes=sum(one.bytes for one in old))


# What is no data file and stays: one name a record, written once.
RECORDS = re.compile(
    rf"{re.escape(RUN_FILE)}|{MANIFESTS}/([^/.]+/)+[^/.]+\.json"
    r"|_work/rollups/\w+\.jsonl\.zst|_work/conflicts/[\w-]+\.json|_work/jobs/[\w-]+\.json"
)
OURS = re.compile(rf"_work/|\.{re.escape(RUN_FILE)}\.|({'|'.join(KINDS)})/\.?part-")
