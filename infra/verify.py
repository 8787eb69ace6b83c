"""Is what is stored what was committed, and does every account hold? And: what may be thrown away?"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from filters.errors import VerifyFailed
from infra.commit import ATTEMPTS, MANIFESTS, Manifest, check_file
from infra.look import documents_outcomes
from infra.run import Finished, outcomes
from pipelines.accounts import Accounts, total
from pipelines.pack import dataset_sha256


def verify(made: Finished) -> int:
    """Check a finished run against its bytes and return how many files were read.

    Every file has the sha256 and rows of its manifest; the equations hold for every task and in all; the ledger of
    documents, counted row by row, says the same as the accounts, and so do the listed losses; the parts hold the
    kept rows; the dataset's hash is that of its files. Raises VerifyFailed naming the first that is not so.
    """
    files = 0
    accounts = []
    for outcome in outcomes(made):
        for entry in (*outcome.kept, *outcome.dropped, outcome.documents, outcome.quarantined, outcome.losses):
            check_file(made.out, entry)
            check_rows(made.out / entry.path, entry.rows)
            files += 1
        accounts.append(outcome.accounts.checked(f"task {outcome.task}"))
    whole = total(accounts).checked("the run")
    if whole.as_json() != made.accounts.as_json():
        raise VerifyFailed(
            f"{made.out}: the account in run.json is not the sum of its tasks'. Run the same command again."
        )
    check_ledger(made, whole)
    check_losses(made, whole)
    for entries in made.files.values():
        for entry in entries:
            check_file(made.out, entry)
            check_rows(made.out / entry.path, entry.rows)
            files += 1
    if (rows := sum(entry.rows for entry in made.files["dataset"])) != whole.kept:
        raise VerifyFailed(f"{made.out}: the dataset has {rows:,} rows, the account {whole.kept:,} kept documents.")
    if made.dataset_sha256 != dataset_sha256((Path(entry.path).name, entry.sha256) for entry in made.files["dataset"]):
        raise VerifyFailed(f"{made.out}: the dataset's hash is not that of its files.")
    return files


def check_rows(path: Path, rows: int) -> None:
    """Raise VerifyFailed where a Parquet file has not this many rows."""
    if (found := pq.read_metadata(path).num_rows) != rows:
        raise VerifyFailed(f"{path} has {found:,} rows, its manifest says {rows:,}.")


def check_ledger(made: Finished, accounts: Accounts) -> None:
    """Raise VerifyFailed where the ledger of documents, counted, is not the account."""
    said: dict[tuple[str, str | None], int] = {
        ("dropped", reason): count for reason, count in accounts.dropped.items() if count
    }
    said |= {("quarantined", reason): count for reason, count in accounts.quarantined.items() if count}
    said |= {("kept", None): accounts.kept} if accounts.kept else {}
    if (counted := documents_outcomes(made)) != said:
        wrong = sorted(str(place) for place in counted.keys() | said.keys() if counted.get(place) != said.get(place))
        raise VerifyFailed(f"{made.out}: the ledger of documents and the account differ in {', '.join(wrong)}.")


def check_losses(made: Finished, accounts: Accounts) -> None:
    """Raise VerifyFailed where the listed losses, added up, are not those of the account."""
    listed = pl.scan_parquet([made.out / entry.path for entry in made.files["losses"]])
    added = listed.group_by("kind", "reason").agg(pl.len(), pl.sum("length")).collect()
    found = {(kind, reason): (count, length) for kind, reason, count, length in added.iter_rows()}
    damaged = {reason: count for (kind, reason), (count, _) in found.items() if kind == "damaged"}
    unreadable = {reason: length for (kind, reason), (_, length) in found.items() if kind == "unreadable"}
    said = accounts.as_json()
    if (damaged, unreadable) != (said["damaged"], said["unreadable"]):
        raise VerifyFailed(f"{made.out}: the listed losses are not those of the account.")


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What `gc` removed."""

    attempts: int
    bytes: int


def collect(out: Path, *, older_than: float, now: float) -> Collected:
    """Remove attempts that no manifest refers to and whose files are older than `older_than` seconds at `now`."""
    referenced = {
        (out / entry.path).parent
        for path in (out / MANIFESTS).rglob("*.json")
        for entry in Manifest.decoded(path.read_bytes()).files.values()
    }
    attempts = size = 0
    for folder in sorted((out / ATTEMPTS).glob("*/*")):
        newest = max((path.stat().st_mtime for path in [folder, *folder.rglob("*")]), default=now)
        if folder in referenced or now - newest < older_than:
            continue
        size += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        attempts += 1
        shutil.rmtree(folder)
    for folder in (out / ATTEMPTS).glob("*"):
        if not any(folder.iterdir()):
            folder.rmdir()
    return Collected(attempts=attempts, bytes=size)
