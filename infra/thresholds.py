"""Where to set a threshold: the distribution of every stored signal, and where a reference corpus separates from it.

Reads `signals/` alone, once for every `COLUMNS` signals, its parts in several processes. Of a run with more documents
than `sample`, the documents of smallest key are taken: keys are hashes, so that is a random sample, the same one each
time and for any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from filters.errors import InputError
from infra.annotated import documents_in, parts, processes_for, stored_schema
from infra.distributions import Distribution, Drawn, Look, distribution, rows_drawn
from infra.processes import EachOf, processes
from infra.run import Finished
from pipelines.signals import SignalColumn, rule_columns, signal_columns
from pipelines.yaml_data import nearest

SAMPLE = 1_000_000
COLUMNS = 64
"""Signals of one pass. Of each document sampled 8 bytes a signal are held: 0.5 GB, as much again for a reference."""
SIGMAS = 6
"""A sample's keys lie below their expected bound and so many standard deviations: a second pass is hardly ever made."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Threshold(Distribution):
    """One signal: how it is distributed, which rules bound it now, and what the reference proposes."""

    column: SignalColumn


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


def thresholds(
    made: Finished,
    reference: Finished | None = None,
    *,
    names: Sequence[str] = (),
    worth: float = 2.0,
    sample: int = SAMPLE,
    workers: int = 1,
) -> Thresholds:
    """Look at these signals of a run (all, where none is named), beside those of a reference run where one is given, in
    at most `workers` processes.

    Raises InputError where a run stores no signals, or none of a name, and VerifyFailed where a part cannot be read.
    """
    columns = stored_columns(made)
    for name in names:
        if name not in columns:
            raise InputError(f"{made.store.url} stores no signal {name!r}{nearest(name, list(columns))}")
    wanted = [column for name, column in columns.items() if name in names or not names]
    theirs = {} if reference is None else stored_columns(reference)
    found: list[Threshold] = []
    runs = [made] if reference is None else [made, reference]
    values = len(wanted) * max(min(sample, documents_in(one)) for one in runs)
    with processes(processes_for(runs, workers, values=values)) as each_of:
        for start in range(0, len(wanted), COLUMNS):
            some = wanted[start : start + COLUMNS]
            common = [one for one in some if theirs.get(one.name) == one]
            pool = drawn(made, some, sample, each_of)
            against = None if reference is None else drawn(reference, common, sample, each_of)
            ask = partial(distribution, worth=worth, tests=len(wanted))
            distributions = each_of(ask, looks(made, some, pool, against))
            found += [Threshold(column=one, **vars(of)) for one, of in zip(some, distributions, strict=True)]
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


def looks(made: Finished, columns: Sequence[SignalColumn], pool: Drawn, against: Drawn | None) -> Iterator[Look]:
    """These signals one by one; what the reference has not stored is looked at in the pool alone."""
    ruled = rule_columns(made.recipe)
    for column in columns:
        theirs = against.of(column.name) if against and column.name in against.numbers.column_names else None
        rules = tuple(rule for rule, name in ruled if name == column.name)
        yield Look(name=column.name, rules=rules, ours=pool.of(column.name), theirs=theirs)


def stored_columns(made: Finished) -> dict[str, SignalColumn]:
    """The signals per document that a run stores, by column. Raises InputError where it stores none."""
    stored_schema(made)
    columns = signal_columns(made.recipe, all_signals=made.options.all_signals)
    return {column.name: column for column in columns if column.signal.per == "document"}


def drawn(made: Finished, columns: Sequence[SignalColumn], limit: int, each_of: EachOf) -> Drawn:
    """These signals of the `limit` documents of smallest key, or of all where there are fewer."""
    documents, names = documents_in(made), [one.name for one in columns]
    weight = "token_count" if made.recipe.tokenizer else "characters"
    share = 1.0 if documents <= limit else min(1.0, (limit + SIGMAS * np.sqrt(limit)) / documents)
    stored = stored_schema(made)
    schema = pa.schema([("head", pa.uint64()), ("weight", pa.float64()), *(stored.field(name) for name in names)])
    while True:
        draw = partial(rows_drawn, schema=schema, weight=weight, share=share)
        found = pa.concat_tables([schema.empty_table(), *each_of(draw, parts(made))])
        if share == 1 or found.num_rows >= limit:
            break
        share = min(1.0, 2 * share)
    weights, taken = found.column("weight").to_numpy(), None
    if documents > limit:
        heads = found.column("head").to_numpy()
        smallest = heads <= np.partition(heads, limit - 1)[limit - 1]
        weights, taken = weights[smallest], pa.array(smallest)
    return Drawn(documents=documents, weights=weights, numbers=found.select(names), taken=taken)
