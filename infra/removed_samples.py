"""Some of the documents that each arm's rule removes, so that a verdict can be held against what it is about.

What an arm reads is the mask that its models were trained with, which lies beside them: so this shows what was judged,
whatever has become of the rules since. A mask has a bit for each row of the run's `text/` and `signals/`; texts are the
raw ones, as the extractor gave them. Which documents are shown depends on their rows alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from filters.errors import InputError, OutputError
from filters.rule import Bools
from infra.arms import ALL, UNCONTAMINATED, mask_rules
from infra.commit import FileEntry
from infra.experiment_results import ArmResult, Results
from infra.pool import run_of
from infra.pool_files import read_mask, read_said
from infra.run import Finished
from infra.signal_rows import Part, Ruled, readable, verdicts
from infra.stored import Store, read_decoded
from infra.training import MODELS, RUN_FILE
from proxy_eval.experiment import terms

Ints = npt.NDArray[np.int64]

SHOWN, EXCERPT = 5, 600
"""Documents of an arm, and characters of each."""
SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: multiples of it are spread evenly (Knuth, The Art of Computer Programming 3, 6.4)."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A document that a rule removes. rules: all that reject it where the rule is in force; text: how it begins."""

    key: str
    url: str | None
    rules: tuple[str, ...]
    text: str


def samples_of(store: Store, results: Results) -> tuple[dict[str, tuple[Sample, ...]], list[str]]:
    """By arm the documents that one side reads and the side with the rule does not; and what could not be read.

    Memory: two bytes for each document of the pool, and the texts of a row group.
    """
    try:
        said = read_said(results.experiment["pool"])
        made = run_of(results.experiment["pool"], said)
        control = mask_read(store, results.control, said)
    except (InputError, OutputError) as error:
        return {}, [f"samples: none can be shown. {error}"]
    rows: dict[str, Ints] = {}
    notes = []
    for arm in results.arms:
        if not arm.runs:
            continue
        try:
            mask = mask_read(store, arm, said)
        except (InputError, OutputError) as error:
            notes.append(f"samples: none of {arm.name}. {error}")
            continue
        without, ruled = (mask, control) if arm.rule_in == "base" else (control, mask)
        rows[arm.name] = some_rows(without & ~ruled)
    try:
        return shown(made, results, rows), notes
    except OutputError as error:
        return {}, [*notes, f"samples: none can be shown. {error}"]


def mask_read(store: Store, arm: ArmResult, said: dict[str, Any]) -> Bools:
    """What an arm's models read, a bit for each row of the pool of which pool.json says this.

    Raises OutputError where the models or the mask are gone, and InputError where the arm reads other rows.
    """
    if not arm.runs:
        raise InputError(f"{arm.name} has no runs yet.")
    try:
        model = read_decoded(store, f"{MODELS}/{arm.runs[0].label}/{RUN_FILE}", json.loads)
    except FileNotFoundError:
        raise OutputError(f"{store.url} has no model {arm.runs[0].label} any more.") from None
    source = model["sources"][0]
    if source["pool_sha256"] != said["sha256"]:
        other = read_said(source["pool"])
        if (
            other["origin"]["texts_sha256"] != said["origin"]["texts_sha256"]
            or other["sha256"] != source["pool_sha256"]
        ):
            raise InputError(f"{arm.name} reads the texts of another run than the control.")
    if source["mask"] is None:
        return np.ones(said["documents"], np.bool_)
    return read_mask(store, source["mask"], said["documents"])


def some_rows(removed: Bools) -> Ints:
    """At most SHOWN of the rows, rising: those whose hash is smallest."""
    rows = np.flatnonzero(removed)
    if len(rows) > SHOWN:
        rows = rows[np.argpartition(rows.astype(np.uint64) * SPREAD, SHOWN)[:SHOWN]]
    return np.sort(rows)


def shown(made: Finished, results: Results, rows: dict[str, Ints]) -> dict[str, tuple[Sample, ...]]:
    """The documents of these rows of a run by arm, with the rules that reject each."""
    arms = {arm.name: arm for arm in results.arms}
    ruled = {name: rules_of(made, arms[name], results) for name in rows}
    every = np.unique(np.concatenate([np.zeros(0, np.int64), *rows.values()]))
    columns = list(dict.fromkeys(column for rules in ruled.values() for _, column in rules))
    if not len(every):
        return dict.fromkeys(rows, ())
    signals = rows_at(made.store, made.files["signals"], every, ["key", "url", *columns])
    texts = rows_at(made.store, made.files["text"], every, ["text"]).column("text")
    found = {}
    for name, mine in rows.items():
        at = np.searchsorted(every, mine)
        table, judged = signals.take(at), verdicts(signals.take(at), ruled[name])
        found[name] = tuple(
            Sample(
                key=key.hex(),
                url=url,
                rules=tuple(ruled[name][rule][0].name for rule in np.flatnonzero(judged.failed[:, place])),
                text=(texts[int(at[place])].as_py() or "")[:EXCERPT],
            )
            for place, (key, url) in enumerate(
                zip(table.column("key").to_pylist(), table.column("url").to_pylist(), strict=True)
            )
        )
    return found


def rules_of(made: Finished, arm: ArmResult, results: Results) -> Ruled:
    """The rules in force on the side where the arm's rule stands; none where stored numbers have no answer."""
    mask = results.control.mask if arm.rule_in == "base" else arm.mask
    said = ",".join(term for term in terms(mask) if term != UNCONTAMINATED) or ALL
    try:
        return mask_rules(made, said) or ()
    except InputError:  # a rule of this version's catalogue that is not the one of then: the mask still holds
        return ()


def rows_at(store: Store, entries: Sequence[FileEntry], rows: Ints, columns: list[str]) -> pa.Table:
    """These rows, rising and counted through all parts, of some columns. Only row groups that hold one are read.

    Raises VerifyFailed where a part cannot be read.
    """
    found, first = [], 0
    for entry in entries:
        mine = rows[(rows >= first) & (rows < first + entry.rows)] - first
        first += entry.rows
        if not len(mine):
            continue
        with (
            readable(Part(store=store, entry=entry)),
            store.open(entry.path, entry.bytes) as raw,
            pq.ParquetFile(raw) as file,
        ):
            start = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                here = mine[(mine >= start) & (mine < start + count)] - start
                if len(here):
                    found.append(file.read_row_group(group, columns=columns).select(columns).take(here))
                start += count
    return pa.concat_tables(found)
