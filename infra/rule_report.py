"""What each rule of a finished run removes, from `signals/` alone: by it first, at all, and alone.

First: the rule is the reason, as the run gave it. At all: the document fails it, whatever it failed before. Alone: it
fails no other rule, so that without this rule it would be kept. Counts are exact; those by domain are exact until a
rule removes documents of more than `DOMAINS` domains, and say from then on by how much they may be too low.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from filters.errors import VerifyFailed
from infra.run import Finished
from infra.signal_rows import UNITS, WEIGHTS, Ints, Ruled, Verdicts, groups, run_rules, stored_schema, verdicts, weights

MEASURES = ("first", "at_all", "alone")
DOMAINS = 20_000
"""Domains held for each rule. With 50 rules, a million of 50 bytes."""
PENDING = 1 << 20
"""Rows of counts that are gathered before they are added up: 10^10 documents are added up 10^4 times."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RuleReport:
    """What the rules of a run remove.

    removed[rule, measure, unit] in the order of `ruled`, MEASURES and UNITS; overlap[a, b]: documents that fail both.
    documents[unit] and kept[unit] are of all rows and of those kept. languages: removed, and documents, of each.
    domains: for each rule, domains with the documents that it removed first, most first; and at most how many each
    count is too low. without_text: documents that a rule dropped and that have no text to measure.
    """

    ruled: Ruled
    counts_tokens: bool
    documents: Ints
    kept: Ints
    removed: Ints
    overlap: Ints
    without_text: int
    languages: Mapping[str, tuple[Ints, int]]
    domains: tuple[tuple[tuple[str, int], ...], ...] | None
    domains_short_by: tuple[int, ...]


def rule_report(made: Finished, *, domains: bool = False) -> RuleReport:
    """Count over `signals/`. Raises InputError where the run kept none, and VerifyFailed where what is counted is not
    what the run's account says.
    """
    stored_schema(made)
    ruled = run_rules(made)
    rules = len(ruled)
    shape = (rules, len(MEASURES), len(UNITS))
    documents, kept = np.zeros(len(UNITS), np.int64), np.zeros(len(UNITS), np.int64)
    removed, overlap = np.zeros(shape, np.int64), np.zeros((rules, rules), np.int64)
    languages: dict[str, tuple[Ints, int]] = {}
    losses = DomainLosses(rules) if domains else None
    without_text = 0
    fixed = ["key", "language", "reason", *WEIGHTS, *(["domain"] if domains else [])]
    for table in groups(made, [*fixed, *(name for _, name in ruled)]):
        found, heavy = verdicts(table, ruled), weights(table)
        check_reasons(made, table, ruled, found)
        documents += heavy.sum(axis=0)
        kept += heavy[found.kept].sum(axis=0)
        without_text += int((~found.whole).sum())
        overlap += failing_both(found)
        for language, rows in by_language(table):
            here = removed_by(found, heavy, rows)
            before, seen = languages.get(language, (np.zeros(shape, np.int64), 0))
            languages[language] = (before + here, seen + len(rows))
            removed += here
        if losses is not None:
            losses.add(table.column("domain"), found.first)
    report = RuleReport(
        ruled=ruled,
        counts_tokens=made.recipe.tokenizer is not None,
        documents=documents,
        kept=kept,
        removed=removed,
        overlap=overlap,
        without_text=without_text,
        languages=languages,
        domains=None if losses is None else losses.most(),
        domains_short_by=() if losses is None else tuple(losses.short_by),
    )
    check_accounts(made, report)
    return report


def by_language(table: pa.Table) -> list[tuple[str, Ints]]:
    """The languages of a table, each with its rows."""
    coded = table.column("language").combine_chunks().dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")
    present, starts = np.unique(codes[order], return_index=True)
    names = coded.dictionary.to_pylist()
    return [
        (names[code] if code >= 0 else "", rows)
        for code, rows in zip(present.tolist(), np.split(order, starts[1:]), strict=True)
    ]


def removed_by(found: Verdicts, heavy: Ints, rows: Ints) -> Ints:
    """removed[rule, measure, unit] of these rows."""
    failed = found.failed[:, rows]
    weighed = heavy[rows].astype(np.float64)  # sums of a row group stay far below 2^53, to which these are exact
    counted = np.zeros((len(failed), len(MEASURES), len(UNITS)), np.int64)
    counted[:, 1] = failed.astype(np.float64) @ weighed
    for measure, reason in ((0, found.first[rows]), (2, np.where(found.alone, found.first, -1)[rows])):
        for unit in range(len(UNITS)):
            sums = np.bincount(reason + 1, weights=weighed[:, unit], minlength=len(failed) + 1)
            counted[:, measure, unit] = sums[1:]
    return counted


def failing_both(found: Verdicts) -> Ints:
    """How many documents fail each pair of rules."""
    # Bits, not a product of matrices: BLAS spreads that over threads, which took 20 times as long on a busy machine.
    bits = np.packbits(found.failed, axis=1)
    pairs = [np.bitwise_count(bits & one).sum(axis=1, dtype=np.int64) for one in bits]
    return np.stack(pairs) if pairs else np.zeros((0, 0), np.int64)


def check_reasons(made: Finished, table: pa.Table, ruled: Ruled, found: Verdicts) -> None:
    """Raise VerifyFailed where the stored numbers give a document another reason than the run gave it."""
    names = [*(rule.name for rule, _ in ruled), None]  # a document that fails none has -1: the last
    said = pc.index_in(table.column("reason"), pa.array(names, pa.string())).fill_null(len(names)).to_numpy()
    if len(wrong := np.flatnonzero(said != np.where(found.first < 0, len(ruled), found.first))):
        at = int(wrong[0])
        key, reason = table.column("key")[at].as_py().hex(), table.column("reason")[at].as_py()
        raise VerifyFailed(
            f"{made.store.url}: document {key} was {describe(reason)}, and by its stored signals it is "
            f"{describe(names[found.first[at]])}. `gristmill verify` says which file is not what was written."
        )


def describe(reason: str | None) -> str:
    """What became of a document, in words."""
    return "kept" if reason is None else f"dropped by {reason}"


def check_accounts(made: Finished, report: RuleReport) -> None:
    """Raise VerifyFailed where the report and the run's account differ."""
    accounts, names = made.accounts, [rule.name for rule, _ in report.ruled]
    first, at_all = report.removed[:, 0, 0], report.removed[:, 1, 0]
    counted = {
        "documents with a decision": (
            int(report.documents[0]),
            accounts.documents - sum(accounts.quarantined.values()),
        ),
        **{f"dropped by {name}": (int(n), accounts.dropped.get(name, 0)) for name, n in zip(names, first, strict=True)},
        **{f"failing {name}": (int(n), accounts.failed.get(name, 0)) for name, n in zip(names, at_all, strict=True)},
    }
    for what, (found, said) in counted.items():
        if found != said:
            raise VerifyFailed(f"{made.store.url}: signals/ has {found:,} documents {what}, the account {said:,}.")


class DomainLosses:
    """Documents by (rule, domain), of a bounded number of domains: the summary of Misra and Gries, merged as in Agarwal
    et al., Mergeable Summaries (PODS 2012). Whatever is not held, or held too low, is so by at most `short_by`.
    """

    def __init__(self, rules: int, *, held: int = DOMAINS) -> None:
        self._most = held
        self._counts = pl.DataFrame(schema={"rule": pl.Int64, "domain": pl.String, "documents": pl.Int64})
        self._pending: list[pl.DataFrame] = []
        self._rows = 0
        self.short_by = [0] * rules

    def add(self, domains: pa.ChunkedArray, first: Any) -> None:
        """Count the documents that a rule removed first."""
        new = pl.DataFrame(
            {"rule": first.astype(np.int64), "domain": pl.Series(pl.from_arrow(domains), dtype=pl.String)}
        )
        gone = (
            new.filter(pl.col("rule") >= 0).group_by("rule", "domain").agg(pl.len().cast(pl.Int64).alias("documents"))
        )
        self._pending.append(gone)
        self._rows += gone.height
        if self._rows > PENDING:
            self._compress()

    def _compress(self) -> None:
        added = pl.concat([self._counts, *self._pending]).group_by("rule", "domain").agg(pl.sum("documents"))
        ranked = added.with_columns(pl.col("documents").rank("ordinal", descending=True).over("rule").alias("rank"))
        cuts = ranked.filter(pl.col("rank") == self._most + 1).select("rule", cut="documents")
        for rule, cut in cuts.iter_rows():
            self.short_by[rule] += cut
        left = ranked.join(cuts, on="rule", how="left").with_columns(pl.col("documents") - pl.col("cut").fill_null(0))
        self._counts = left.filter(pl.col("documents") > 0).select("rule", "domain", "documents")
        self._pending, self._rows = [], 0

    def most(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """For each rule the domains held, most documents first, equal ones by name."""
        self._compress()
        ranked = self._counts.sort(["documents", "domain"], descending=[True, False])
        found: list[list[tuple[str, int]]] = [[] for _ in self.short_by]
        for rule, domain, documents in ranked.iter_rows():
            found[rule].append((domain or "", documents))
        return tuple(map(tuple, found))


def report_json(report: RuleReport, *, by: str | None, top: int) -> dict[str, Any]:
    """A report as plain data; of each rule the `top` languages or domains that lose most."""
    names = [rule.name for rule, _ in report.ruled]
    said: dict[str, Any] = {
        "documents": counts_json(report.documents, report),
        "kept": counts_json(report.kept, report),
        "without_text": report.without_text,
        "rules": [
            {
                "rule": rule.name,
                "column": column,
                "bounds": rule.bounds,
                **{measure: counts_json(report.removed[at, m], report) for m, measure in enumerate(MEASURES)},
                **group_json(report, at, by, top),
            }
            for at, (rule, column) in enumerate(report.ruled)
        ],
        "overlap": {"rules": names, "documents": report.overlap.tolist()},
    }
    return said


def counts_json(counts: Ints, report: RuleReport) -> dict[str, int | None]:
    """Counts by unit."""
    said: dict[str, int | None] = dict(zip(UNITS, counts.tolist(), strict=True))
    return said if report.counts_tokens else said | {"tokens": None}


def group_json(report: RuleReport, at: int, by: str | None, top: int) -> dict[str, Any]:
    """What one rule removes by language or domain."""
    if by == "language":
        return {
            "languages": [
                {
                    "language": language,
                    "documents": seen,
                    **{measure: counts_json(removed[at, m], report) for m, measure in enumerate(MEASURES)},
                }
                for language, removed, seen in most_by_language(report, at)[:top]
            ]
        }
    if by == "domain" and report.domains is not None:
        listed = [{"domain": domain, "first": documents} for domain, documents in report.domains[at][:top]]
        return {"domains": listed, "domains_at_most_too_low_by": report.domains_short_by[at]}
    return {}


def most_by_language(report: RuleReport, at: int) -> list[tuple[str, Ints, int]]:
    """The languages in which a rule removes documents, most first; with what all rules remove and all documents."""
    found = [(name, removed, seen) for name, (removed, seen) in report.languages.items() if removed[at, 1, 0]]
    return sorted(found, key=lambda one: (-int(one[1][at, 0, 0]), -int(one[1][at, 1, 0]), one[0]))


def largest_overlaps(report: RuleReport, top: int) -> list[tuple[str, str, int, float]]:
    """Pairs of rules that do most of one another's work: by the documents that fail both, times their share of those
    that fail either, so that neither large rules nor like ones of few documents push in.

    Of each pair the rule that fewer documents fail, the other, the documents that fail both, and their share of the
    first one's.
    """
    names = [rule.name for rule, _ in report.ruled]
    each = report.overlap.diagonal().tolist()
    ranked = []
    for one, other in combinations(sorted(range(len(names)), key=lambda at: (each[at], at)), 2):
        if both := int(report.overlap[one, other]):
            ranked.append(
                (both**2 / (each[one] + each[other] - both), names[one], names[other], both, both / each[one])
            )
    ranked.sort(key=lambda pair: (-pair[0], -pair[3]))
    return [pair[1:] for pair in ranked[:top]]
