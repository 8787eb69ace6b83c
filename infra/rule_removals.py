"""What each rule removes of the documents of a part: by it first, at all, and alone. Of several parts it adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.errors import VerifyFailed
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
    one_array,
    sizes,
    verdicts,
)

MEASURES = ("first", "at_all", "alone")
LOSSES = pa.schema([("rule", pa.int64()), ("domain", pa.string()), ("documents", pa.int64())])


@dataclass(frozen=True, kw_only=True, eq=False)
class Removals:
    """What rules remove of some documents, in the shapes of RuleReport (infra/rule_report.py); those of other documents
    are added to it. A language takes 72 bytes a rule.
    """

    documents: Ints
    kept: Ints
    overlap: Ints
    without_text: int
    languages: Mapping[str, tuple[Ints, int]]

    @property
    def removed(self) -> Ints:
        """removed[rule, measure, unit] of all languages."""
        none = np.zeros((len(self.overlap), len(MEASURES), len(UNITS)), np.int64)
        return sum((removed for removed, _ in self.languages.values()), start=none)

    def __add__(self, other: Removals) -> Removals:
        languages = dict(self.languages)
        for name, (removed, seen) in other.languages.items():
            before = languages.get(name)
            languages[name] = (removed, seen) if before is None else (before[0] + removed, before[1] + seen)
        return Removals(
            documents=self.documents + other.documents,
            kept=self.kept + other.kept,
            overlap=self.overlap + other.overlap,
            without_text=self.without_text + other.without_text,
            languages=languages,
        )


def no_removals(rules: int) -> Removals:
    """Those of no document."""
    none = np.zeros(len(UNITS), np.int64)
    overlap = np.zeros((rules, rules), np.int64)
    return Removals(documents=none, kept=none, overlap=overlap, without_text=0, languages={})


def removals(part: Part, *, ruled: Ruled, domains: bool) -> tuple[Removals, pa.Table]:
    """What rules remove of the documents of a part, and if `domains` how many of each domain, by (rule, domain).

    Raises VerifyFailed where the stored numbers give a document another reason than the run gave it.
    """
    whole = no_removals(len(ruled))
    lost = [LOSSES.empty_table()]
    fixed = ["key", "language", "reason", *WEIGHTS, *(["domain"] if domains else [])]
    for table in groups(part, [*fixed, *(name for _, name in ruled)]):
        found = verdicts(table, ruled)
        check_reasons(part, table, ruled, found)
        whole += removals_of(table, found)
        if domains:
            lost.append(first_losses(table.column("domain"), found.first))
    return whole, added_up(pa.concat_tables(lost))


def removals_of(table: pa.Table, found: Verdicts) -> Removals:
    """What rules remove of the documents of a table."""
    heavy, (language, names) = sizes(table), codes(table.column("language"))
    removed = removed_by(found, heavy, language, len(names))
    seen = np.bincount(language, minlength=len(names))
    return Removals(
        documents=amounts(heavy, np.ones(table.num_rows, np.bool_)),
        kept=amounts(heavy, found.kept),
        overlap=failing_both(found),
        without_text=int(np.count_nonzero(~found.whole)),
        languages={names[at] or "": (removed[at], int(seen[at])) for at in np.flatnonzero(seen).tolist()},
    )


def removed_by(found: Verdicts, heavy: Ints, group: npt.NDArray[np.intp], groups: int) -> Ints:
    """removed[group, rule, measure, unit] of documents of which each is in the group of its number."""
    rules = len(found.failed)
    counted = np.zeros((groups * rules, len(MEASURES), len(UNITS)), np.int64)
    dropped, alone = np.flatnonzero(found.first >= 0), np.flatnonzero(found.alone)
    chosen = ((found.first[dropped], dropped), found.failures, (found.first[alone], alone))
    for measure, (rule, document) in enumerate(chosen):
        place = group[document] * rules + rule
        counted[:, measure, 0] = np.bincount(place, minlength=len(counted))
        for unit, size in enumerate(heavy, 1):
            # Sums of a row group stay far below 2^53, to which those of floats are exact.
            counted[:, measure, unit] = np.bincount(place, weights=size[document], minlength=len(counted))
    return counted.reshape(groups, rules, len(MEASURES), len(UNITS))


def failing_both(found: Verdicts) -> Ints:
    """How many documents fail each pair of rules."""
    # Bits, not a product of matrices: BLAS spreads that over threads, which took 20 times as long on a busy machine.
    rules, documents = found.failed.shape
    bits = np.zeros((rules, -(-documents // 64) * 8), np.uint8)
    bits[:, : -(-documents // 8)] = np.packbits(found.failed, axis=1)
    words = bits.view(np.uint64)
    pairs = np.zeros((rules, rules), np.int64)
    for at in range(rules):
        pairs[at, at:] = np.bitwise_count(words[at:] & words[at]).sum(axis=1, dtype=np.int64)
    return np.triu(pairs) + np.triu(pairs, 1).T


def check_reasons(part: Part, table: pa.Table, ruled: Ruled, found: Verdicts) -> None:
    """Raise VerifyFailed where the stored numbers give a document another reason than the run gave it."""
    rules = {rule.name: at for at, (rule, _) in enumerate(ruled)} | {None: -1}
    reason, names = codes(table.column("reason"))
    said = np.array([rules.get(name, len(ruled)) for name in names], np.intp)[reason]
    if len(wrong := np.flatnonzero(said != found.first)):
        at = int(wrong[0])
        first = found.first[at]
        raise VerifyFailed(
            f"{part.store.url}: document {table.column('key')[at].as_py().hex()} was {describe(names[reason[at]])}, "
            f"and by its stored signals it is {describe(None if first < 0 else ruled[first][0].name)}. "
            "`gristmill verify` says which file is not what was written."
        )


def describe(reason: str | None) -> str:
    """What became of a document, in words."""
    return "kept" if reason is None else f"dropped by {reason}"


def first_losses(domains: pa.ChunkedArray, first: npt.NDArray[np.intp]) -> pa.Table:
    """Documents by (rule, domain) that the rule removes first; those of a group, each pair once."""
    coded = one_array(domains).dictionary_encode()
    gone = np.flatnonzero(first >= 0)
    missing = len(coded.dictionary)
    domain = coded.indices.fill_null(missing).to_numpy().astype(np.int64)
    pairs, documents = np.unique(first[gone] * (missing + 1) + domain[gone], return_counts=True)
    rule, domain = np.divmod(pairs, missing + 1)
    names = coded.dictionary.take(pa.array(domain, mask=domain == missing))
    return pa.table([rule, names, documents], schema=LOSSES)


def added_up(losses: pa.Table) -> pa.Table:
    """The same with each (rule, domain) once."""
    summed = losses.group_by(["rule", "domain"], use_threads=False).aggregate([("documents", "sum")])
    return summed.select(["rule", "domain", "documents_sum"]).rename_columns(LOSSES.names)
