"""What each rule of a finished run removes, from `signals/` alone: by it first, at all, and alone.

First: the rule is the reason, as the run gave it. At all: the document fails it, whatever it failed before. Alone: it
fails no other rule, so that without this rule it would be kept. Counts are exact; those by domain are exact until a
rule removes documents of more than `DOMAINS` domains, and say from then on by how much they may be too low. Parts are
counted by several processes and added in their order: the report is the same for any number of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import polars as pl
import pyarrow as pa

from filters.errors import VerifyFailed
from infra.annotated import parts, processes_for, run_rules, stored_schema
from infra.processes import processes
from infra.rule_removals import MEASURES, no_removals, removals
from infra.run import Finished
from infra.signal_rows import UNITS, Ints, Ruled

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


def rule_report(made: Finished, *, domains: bool = False, workers: int = 1) -> RuleReport:
    """Count over `signals/` in at most `workers` processes.

    Raises InputError where the run kept none, and VerifyFailed where a part cannot be read or what is counted is not
    what the run's account says.
    """
    stored_schema(made)
    ruled = run_rules(made)
    whole = no_removals(len(ruled))
    losses = DomainLosses(len(ruled))
    with processes(processes_for([made], workers)) as each_of:
        for here, lost in each_of(partial(removals, ruled=ruled, domains=domains), parts(made)):
            whole += here
            if domains:
                losses.add(lost)
    report = RuleReport(
        ruled=ruled,
        counts_tokens=made.recipe.tokenizer is not None,
        documents=whole.documents,
        kept=whole.kept,
        removed=whole.removed,
        overlap=whole.overlap,
        without_text=whole.without_text,
        languages=whole.languages,
        domains=losses.most() if domains else None,
        domains_short_by=tuple(losses.short_by) if domains else (),
    )
    check_accounts(made, report)
    return report


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

    def add(self, losses: pa.Table) -> None:
        """Add the documents of other parts."""
        new = pl.from_arrow(losses)
        assert isinstance(new, pl.DataFrame)
        self._pending.append(new)
        self._rows += new.height
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
