"""What changes sides between two lists of rules among the documents of a part. Of several parts it adds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nsmallest

import numpy as np
import pyarrow as pa

from filters.errors import VerifyFailed
from filters.rule import Bools
from infra.signal_rows import (
    UNITS,
    WEIGHTS,
    Ints,
    Part,
    Ruled,
    Verdicts,
    amounts,
    codes,
    groups,
    sizes,
    values,
    verdicts,
)


@dataclass(frozen=True, kw_only=True)
class Example:
    """A document that changes sides, with the rule that decides it and its number there."""

    key: str
    id: str
    url: str
    rule: str
    value: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Changes:
    """What two lists of rules do to some documents; those of other documents are added to it.

    totals: all documents, kept before, kept after, gained, lost; held and falls: of each rule, as in Comparison
    (infra/what_if.py); all by UNITS. Examples are at most `show` each way, by key.
    """

    totals: Ints
    held: Ints
    falls: Ints
    without_text: int
    gained: tuple[Example, ...]
    lost: tuple[Example, ...]
    show: int

    def __add__(self, other: Changes) -> Changes:
        return Changes(
            totals=self.totals + other.totals,
            held=self.held + other.held,
            falls=self.falls + other.falls,
            without_text=self.without_text + other.without_text,
            gained=of_smallest_key((*self.gained, *other.gained), self.show),
            lost=of_smallest_key((*self.lost, *other.lost), self.show),
            show=self.show,
        )


def of_smallest_key(examples: Iterable[Example], show: int) -> tuple[Example, ...]:
    """So many of them by key: of any two lots the same as of both at once."""
    return tuple(nsmallest(show, examples, key=lambda one: one.key))


def no_changes(before: int, after: int, show: int) -> Changes:
    """Those of no document, under so many rules."""
    totals, held, falls = (np.zeros((rows, len(UNITS)), np.int64) for rows in (5, before, after))
    return Changes(totals=totals, held=held, falls=falls, without_text=0, gained=(), lost=(), show=show)


def changes(part: Part, *, before: Ruled, after: Ruled, own: bool, show: int) -> Changes:
    """What two lists of rules do to the documents of a part.

    Raises VerifyFailed where the part cannot be read, and where `before` are the run's `own` rules and do not keep what
    the run kept.
    """
    whole = no_changes(len(before), len(after), show)
    fixed = [*WEIGHTS, *(("key", "id", "url") if show else ()), *(("outcome",) if own else ())]
    for table in groups(part, [*fixed, *(name for _, name in (*before, *after))]):
        here, then = changes_of(table, before, after, show=show)
        if own:
            check_kept(part, table, then)
        whole += here
    return whole


def changes_of(table: pa.Table, before: Ruled, after: Ruled, *, show: int) -> tuple[Changes, Verdicts]:
    """What two lists of rules do to the documents of a table, and what the first says of them."""
    rules = list(dict.fromkeys((*before, *after)))  # most stand in both, and are applied once
    found = verdicts(table, tuple(rules))
    then, now = (found.of([rules.index(rule) for rule in ruled]) for ruled in (before, after))
    gained, lost = now.kept & ~then.kept, then.kept & ~now.kept
    heavy, everything = sizes(table), np.ones(table.num_rows, np.bool_)
    changed = Changes(
        totals=np.stack([amounts(heavy, chosen) for chosen in (everything, then.kept, now.kept, gained, lost)]),
        held=by_first(then, heavy, gained),
        falls=by_first(now, heavy, lost),
        without_text=int(np.count_nonzero((now.failing == 0) & ~now.whole)),
        gained=examples(table, gained, then, before, show),
        lost=examples(table, lost, now, after, show),
        show=show,
    )
    return changed, then


def by_first(found: Verdicts, heavy: Ints, chosen: Bools) -> Ints:
    """[rule, unit] of the chosen documents that the rule fails first."""
    at = np.flatnonzero(chosen & (found.first >= 0))
    counted = np.zeros((len(found.failed), len(UNITS)), np.int64)
    np.add.at(counted, found.first[at], np.stack([np.ones(len(at), np.int64), *heavy[:, at]], axis=1))
    return counted


def check_kept(part: Part, table: pa.Table, found: Verdicts) -> None:
    """Raise VerifyFailed where the run's own rules do not keep what the run kept."""
    outcome, names = codes(table.column("outcome"))
    kept = np.array([name == "kept" for name in names], np.bool_)[outcome]
    if (kept != found.kept).any():
        raise VerifyFailed(
            f"{part.store.url}: the stored signals and the run's rules do not keep what the run kept. "
            "`gristmill verify` says which file is not what was written."
        )


def examples(table: pa.Table, chosen: Bools, found: Verdicts, ruled: Ruled, show: int) -> tuple[Example, ...]:
    """Of the chosen documents the `show` of smallest key; `found` says why each is out."""
    if not show or not chosen.any():
        return ()
    rows = np.flatnonzero(chosen)
    keys = table.column("key").take(pa.array(rows)).to_pylist()
    return tuple(example(table, at, found, ruled) for _, at in nsmallest(show, zip(keys, rows.tolist(), strict=True)))


def example(table: pa.Table, at: int, found: Verdicts, ruled: Ruled) -> Example:
    """One document of a table, with the first rule that it fails; one that fails none is out for want of a text."""
    key, name, address = (table.column(column)[at].as_py() for column in ("key", "id", "url"))
    if (first := found.first[at]) < 0:
        return Example(key=key.hex(), id=name, url=address, rule="no text", value=None)
    rule, column = ruled[first]
    value = float(values(table.column(column).slice(at, 1))[0])
    return Example(key=key.hex(), id=name, url=address, rule=rule.name, value=None if math.isnan(value) else value)
