"""Where to set a threshold: the distribution of every stored signal, and where a reference corpus separates from it.

Reads `signals/` alone, one column at a time. Of a run with more documents than `sample`, the documents of smallest key
are taken: keys are hashes, so that is a random sample, the same one each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.errors import InputError
from filters.rule import Rule
from infra.run import Finished
from infra.signal_rows import groups, stored_schema
from pipelines.distribution import (
    Curve,
    Histogram,
    Proposal,
    Sample,
    distance,
    histogram,
    proposals,
    retention,
    sample_of,
)
from pipelines.signals import SignalColumn, rule_columns, signal_columns, values_of
from pipelines.yaml_data import nearest

SAMPLE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class BoundNow:
    """A rule of the run on a signal, and what it removes: shares of the documents with a text, and of their tokens."""

    rule: Rule
    documents: float
    tokens: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Threshold:
    """One signal: how it is distributed, which rules bound it now, and what the reference proposes."""

    column: SignalColumn
    pool: Sample
    histogram: Histogram | None
    curve: Curve
    rules: tuple[BoundNow, ...]
    reference: Sample | None
    distance: float
    proposals: tuple[Proposal, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Thresholds:
    """All signals of a run; `documents` is how many it has, `sampled` how many of them the figures are of."""

    documents: int
    sampled: int
    reference_documents: int
    reference_sampled: int
    worth: float
    signals: tuple[Threshold, ...]
    not_compared: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """The documents of a run that are looked at: for each row group its rows, and the tokens of all of them."""

    made: Finished
    rows: tuple[npt.NDArray[np.int64], ...]
    weights: npt.NDArray[np.float64]
    documents: int


def thresholds(
    made: Finished,
    reference: Finished | None = None,
    *,
    names: Sequence[str] = (),
    worth: float = 2.0,
    sample: int = SAMPLE,
) -> Thresholds:
    """Look at these signals of a run (all, where none is named), beside those of a reference run where one is given.

    Raises InputError where a run stores no signals, or none of a name.
    """
    columns = stored_columns(made)
    for name in names:
        if name not in columns:
            raise InputError(f"{made.store.url} stores no signal {name!r}{nearest(name, list(columns))}")
    wanted = [column for name, column in columns.items() if name in names or not names]
    theirs = {} if reference is None else stored_columns(reference)
    pool = chosen(made, sample)
    against = None if reference is None else chosen(reference, sample)
    found = [
        threshold(column, pool, against if theirs.get(column.name) == column else None, worth, len(wanted))
        for column in wanted
    ]
    if reference is not None:
        found.sort(key=lambda one: -one.distance)
    return Thresholds(
        documents=pool.documents,
        sampled=len(pool.weights),
        reference_documents=0 if against is None else against.documents,
        reference_sampled=0 if against is None else len(against.weights),
        worth=worth,
        signals=tuple(found),
        not_compared=tuple(one.name for one in wanted if reference is not None and theirs.get(one.name) != one),
    )


def stored_columns(made: Finished) -> dict[str, SignalColumn]:
    """The signals per document that a run stores, by column. Raises InputError where it stores none."""
    stored_schema(made)
    columns = signal_columns(made.recipe, all_signals=made.options.all_signals)
    return {column.name: column for column in columns if column.signal.per == "document"}


def threshold(column: SignalColumn, pool: Chosen, reference: Chosen | None, worth: float, tests: int) -> Threshold:
    """All that is said of one signal."""
    ours = sampled_values(pool, column.name)
    theirs = None if reference is None else sampled_values(reference, column.name)
    both = [ours] if theirs is None else [ours, theirs]
    rules = [rule for rule, name in rule_columns(pool.made.recipe) if name == column.name]
    return Threshold(
        column=column,
        pool=ours,
        histogram=histogram(both) if any(one.count for one in both) else None,
        curve=retention(ours),
        rules=tuple(bound_now(rule, ours) for rule in rules),
        reference=theirs,
        distance=0.0 if theirs is None else distance(ours, theirs),
        proposals=() if theirs is None else tuple(proposals(ours, theirs, worth=worth, tests=tests)),
    )


def bound_now(rule: Rule, sample: Sample) -> BoundNow:
    """What a rule removes of the documents that have a text: those out of bounds, and those without a defined value."""
    kept = rule.passes(sample.values)
    documents = sample.count + sample.undefined
    weight = float(sample.weights.sum()) + sample.undefined_weight
    return BoundNow(
        rule=rule,
        documents=1 - float(kept.sum()) / max(1, documents),
        tokens=1 - float(sample.weights[kept].sum()) / max(weight, 1e-300),
    )


def chosen(made: Finished, limit: int) -> Chosen:
    """The `limit` documents of smallest key, or all where there are fewer. Holds 8 bytes for each document of a part,
    and 16 for each one taken.
    """
    documents = sum(entry.rows for entry in made.files["signals"])
    cut = None if documents <= limit else smallest_keys(made, limit)
    rows, weights = [], []
    for group in groups(made, ["key", "token_count", "characters"]):
        taken = np.arange(group.num_rows) if cut is None else np.flatnonzero(key_heads(group) <= cut)
        rows.append(taken)
        tokens = group.column("token_count" if made.recipe.tokenizer else "characters").fill_null(0)
        weights.append(tokens.to_numpy(zero_copy_only=False).astype(np.float64)[taken])
    return Chosen(made=made, rows=tuple(rows), weights=np.concatenate([np.zeros(0), *weights]), documents=documents)


def smallest_keys(made: Finished, limit: int) -> np.uint64:
    """The first 8 bytes of the `limit`-th smallest key."""
    held = np.zeros(0, np.uint64)
    for group in groups(made, ["key"]):
        held = np.concatenate([held, key_heads(group)])
        if len(held) > 2 * limit:
            held = np.partition(held, limit - 1)[:limit]
    return np.uint64(np.partition(held, limit - 1)[limit - 1])


def key_heads(group: pa.Table) -> npt.NDArray[np.uint64]:
    """The first 8 bytes of each key as an integer."""
    data = b"".join(group.column("key").to_pylist())
    heads: npt.NDArray[np.uint64] = np.frombuffer(data, ">u8")[::2].astype(np.uint64)
    return heads


def sampled_values(chosen: Chosen, name: str) -> Sample:
    """The values of one column over the documents chosen."""
    values, missing = [np.zeros(0)], [np.zeros(0, np.bool_)]
    for group, rows in zip(groups(chosen.made, [name]), chosen.rows, strict=True):
        column = group.column(name).combine_chunks().take(pa.array(rows))
        values.append(values_of(column))
        missing.append(column.is_null().to_numpy(zero_copy_only=False))
    return sample_of(np.concatenate(values), np.concatenate(missing), chosen.weights)
