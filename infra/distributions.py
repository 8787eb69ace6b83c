"""The documents of a run that are looked at, and how each of their signals is distributed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.rule import Floats, Rule
from infra.signal_rows import Part, groups, one_array, values
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

QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How the values of a signal lie over some documents: the QUANTILES of the `count` that there are (of none, no
    quantiles). Undefined values (a ratio over nothing) and missing ones (no text) are counted apart.
    """

    count: int
    undefined: int
    missing: int
    quantiles: tuple[float, ...]

    @property
    def constant(self) -> float | None:
        """The value that every document with a value has; None where there are several or none."""
        return self.quantiles[0] if self.count and self.quantiles[0] == self.quantiles[-1] else None


@dataclass(frozen=True, kw_only=True)
class BoundNow:
    """A rule of the run on a signal, and what it removes: shares of the documents with a text, and of their tokens."""

    rule: Rule
    documents: float
    tokens: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Distribution:
    """How one signal is distributed, what the rules that bound it remove now, and what a reference proposes."""

    pool: Spread
    histogram: Histogram | None
    curve: Curve
    rules: tuple[BoundNow, ...]
    reference: Spread | None
    distance: float
    proposals: tuple[Proposal, ...]

    @property
    def constant(self) -> float | None:
        """The one value that all documents with a value have, those of the reference, too; None where it varies."""
        several = self.reference is not None and self.reference.count and self.reference.constant != self.pool.constant
        return None if several else self.pool.constant


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """The documents of a run that are looked at: their weights (tokens, else characters), and signals as stored of
    these and a few more, those to leave out. `documents`: how many the run has.
    """

    documents: int
    weights: Floats
    numbers: pa.Table
    taken: pa.Array | None

    def of(self, name: str) -> Drawn:
        """The same with one signal, of just these."""
        numbers = self.numbers.select([name])
        return replace(self, numbers=numbers if self.taken is None else numbers.filter(self.taken), taken=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """One signal to look at, with the rules that bound it, in the pool and maybe in a reference."""

    name: str
    rules: tuple[Rule, ...]
    ours: Drawn
    theirs: Drawn | None


def rows_drawn(part: Part, *, schema: pa.Schema, weight: str, share: float) -> pa.Table:
    """Of the documents of a part whose keys lie in the first `share` of all that can be: the head of the key, the
    weight, and signals, as `schema` names them.
    """
    names = schema.names[2:]
    found = [schema.empty_table()]
    for group in groups(part, ["key", weight, *names]):
        heads = key_heads(group)
        sizes = group.column(weight).fill_null(0).cast(pa.float64())
        table = pa.table([pa.array(heads), sizes, *(group.column(name) for name in names)], schema=schema)
        found.append(table if share == 1 else table.filter(pa.array(heads < np.uint64(int(share * 2**64)))))
    return pa.concat_tables(found)


def key_heads(group: pa.Table) -> npt.NDArray[np.uint64]:
    """The first 8 bytes of each key as an integer."""
    keys = one_array(group.column("key"))
    data = np.frombuffer(keys.buffers()[1], ">u8")[2 * keys.offset :][: 2 * len(keys)]
    heads: npt.NDArray[np.uint64] = data[::2].astype(np.uint64)
    return heads


def distribution(look: Look, *, worth: float, tests: int) -> Distribution:
    """How one of `tests` signals is distributed, and its proposals at this `worth`. Sorts its values, which takes 50
    bytes for each document drawn.
    """
    ours = sampled_values(look.ours, look.name)
    theirs = None if look.theirs is None else sampled_values(look.theirs, look.name)
    both = [ours] if theirs is None else [ours, theirs]
    return Distribution(
        pool=spread(ours),
        histogram=histogram(both) if any(one.count for one in both) else None,
        curve=retention(ours),
        rules=tuple(bound_now(rule, ours) for rule in look.rules),
        reference=None if theirs is None else spread(theirs),
        distance=0.0 if theirs is None else distance(ours, theirs),
        proposals=() if theirs is None else tuple(proposals(ours, theirs, worth=worth, tests=tests)),
    )


def spread(sample: Sample) -> Spread:
    """How the values of a sample lie."""
    quantiles = np.quantile(sample.values, QUANTILES).tolist() if sample.count else []
    return Spread(count=sample.count, undefined=sample.undefined, missing=sample.missing, quantiles=tuple(quantiles))


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


def sampled_values(drawn: Drawn, name: str) -> Sample:
    """The values of one signal over the documents drawn."""
    column = drawn.numbers.column(name)
    return sample_of(values(column), column.is_null().to_numpy(), drawn.weights)
