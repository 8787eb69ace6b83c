"""The commands over what a run knows of its rules: inspect, explain, whatif, diff. Registered by `infra.cli`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from infra.options import Json, Out, Workers
from infra.terminal import data, from_here, page_written, print_documents, table, visible

if TYPE_CHECKING:
    from infra.look import Explanation
    from infra.rule_report import RuleReport
    from infra.run import Finished
    from infra.side_changes import Example
    from infra.signal_rows import Ruled
    from infra.what_if import Comparison, Volume
    from pipelines.recipe_diff import Difference, RecipeDiff, RulePair

LISTED = 12
"""Overlaps that are printed where --top says nothing."""


class Group(StrEnum):
    """What the documents that a rule removes are grouped by."""

    language = "language"
    domain = "domain"


RecipeFile = Annotated[str, typer.Argument(help="A recipe's name or YAML file.", show_default=False)]
Show = Annotated[int, typer.Option("--show", min=0, help="Examples each way.")]


def inspect(
    out: Out,
    rules: Annotated[
        bool, typer.Option("--rules", help="What each rule removes: first, at all, alone. Needs --annotate.")
    ] = False,
    by: Annotated[
        Group | None, typer.Option("--by", help="With --rules: where each removes most.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Languages or domains of each rule, and overlaps.")] = LISTED,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """The funnel of a finished run: what left, for what reason. With --rules, what every rule does on its own."""
    from infra.cli import show_funnel
    from infra.processes import cores
    from infra.rule_report import report_json, rule_report
    from infra.run import read_run
    from infra.store import open_store

    made = read_run(open_store(out))
    if by is not None and not rules:
        raise typer.BadParameter("--by says how to group what rules remove: it needs --rules")
    if rules:
        report = rule_report(made, domains=by is Group.domain, workers=workers or cores())
        if as_json:
            data(report_json(report, by=by, top=top))
        else:
            show_report(report, by=by, top=top)
    elif as_json:
        data(made.accounts.funnel())
    else:
        show_funnel(made)


def short(count: int | None) -> str:
    """A count in at most five characters: 9,999 as it is, then 12.3k, 456k, 1.23M."""
    if count is None:
        return "-"
    if abs(count) < 10_000:
        return f"{count:,}"
    size, units = count / 1000, "kMGT"
    while abs(size) >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.{2 if abs(size) < 9.995 else 1 if abs(size) < 99.95 else 0}f}{units[0]}"


def show_report(report: RuleReport, *, by: Group | None, top: int) -> None:
    """Print what each rule removes, where, and which rules remove the same documents."""
    from infra.rule_removals import MEASURES
    from infra.rule_report import largest_overlaps, most_by_language

    titles = [*("first", "chars", "toks"), *("fails", "chars", "toks"), *("alone", "chars", "toks")]
    rows = []
    for at, (rule, _) in enumerate(report.ruled):
        counts = [int(count) for measure in range(len(MEASURES)) for count in report.removed[at, measure]]
        if not report.counts_tokens:
            counts = [*counts[:2], *counts[3:5], *counts[6:8]]
        rows.append((rule.name, *map(short, counts)))
    if not report.counts_tokens:
        titles = [title for title in titles if title != "toks"]
    table([("rule", "left"), *((title, "right") for title in titles)], rows)
    dropped, whole = int(report.removed[:, 0, 0].sum()), int(report.documents[0])
    print(
        "\nfirst: documents for which it is the reason; they add up to what the run dropped, which is\n"
        f"checked: {dropped:,} of {whole:,} documents. fails: all that fail it. alone: those that fail no\n"
        "other rule, so that without it they are kept. Characters and tokens are of the raw text."
    )
    if report.without_text:
        print(f"{report.without_text:,} dropped documents have no text, as they cannot be parsed: no rule's alone.")
    if by is Group.language:
        print("\nlanguages: documents by this rule first / all documents of the language")
        cells = [
            (rule.name, ", ".join(
                f"{visible(name) or 'none'} {short(int(removed[at, 0, 0]))}/{short(seen)}"
                for name, removed, seen in most_by_language(report, at)[:top]
                if removed[at, 0, 0]
            ))
            for at, (rule, _) in enumerate(report.ruled)
        ]  # fmt: skip
        table([("rule", "left"), ("", "left")], [row for row in cells if row[1]])
    elif by is Group.domain:
        show_domains(report, top)
    overlaps = largest_overlaps(report, top)
    if overlaps:
        print("\nrules that remove the same documents (all pairs: --json)")
        table(
            [("of those that fail", "left"), ("documents", "right"), ("share", "right"), ("also fail", "left")],
            [(one, both, f"{share:.1%}", other) for one, other, both, share in overlaps],
        )


def show_domains(report: RuleReport, top: int) -> None:
    """Print the domains that lose most documents to each rule."""
    assert report.domains is not None, "asked for domains"
    print("\ndomains: documents by this rule first")
    cells = []
    for (rule, _), found, low in zip(report.ruled, report.domains, report.domains_short_by, strict=True):
        if found:
            said = ", ".join(f"{visible(name) or 'none'} {short(count)}" for name, count in found[:top])
            cells.append((rule.name, f"{said} (each at most {short(low)} more)" if low else said))
    table([("rule", "left"), ("", "left")], cells)


def explain(
    out: Out,
    document: Annotated[str, typer.Argument(help="An id or a URL.", show_default=False)],
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", help="Mark what made this rule's number; default: rules that fail.", show_default=False),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with the marked text to this file.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Why did this document go where it went? Every signal and rule, and what in the text made the numbers."""
    from infra.look import explain as explained
    from infra.marked_text import explanation_page
    from infra.run import read_run
    from infra.store import open_store

    found = explained(read_run(open_store(out)), document, rules=rule or ())
    if html is not None:
        # Lone surrogates, which a damaged page can hold, are shown as such by `visible`.
        page_written(html, lambda: explanation_page(found))
    if as_json:
        data([explanation_json(one) for one in found])
        return
    for one in found:
        show_explanation(one)
    if html is not None:
        print(f"\npage      {from_here(str(html))}")


def show_explanation(one: Explanation) -> None:
    """Print one document: its facts, rules, other signals, and the text with the evidence marked."""
    from infra.marked_text import number_said, rule_numbers

    print_documents([dict(one.row)])
    if one.row["outcome"] == "duplicate":
        similarity = one.row["similarity"]
        said = "not compared" if similarity is None else f"similarity {similarity:.3f}"
        print(f"duplicate of {visible(one.row['representative_id'])} by {one.row['reason']}, {said}")
    print(f"numbers: {'from signals/' if one.from_store else 'measured now'}{said_of_numbers(one)}")
    counted = rule_numbers(one)
    print()
    table(
        [("rule", "left"), ("number", "right"), ("keeps", "left"), ("", "left")],
        [
            (rule.name, counted[rule.name], rule.bounds, "passes" if passes else "FAILS")
            for rule, _, passes in one.verdicts
        ],
    )
    for rule in (rule for rule, _, passes in one.verdicts if not passes):
        print(f"\n{rule.name}: {rule.signal.says}\n  {rule.paper.title}, {rule.paper.where}\n  {rule.paper.url}")
    bounded = {column for _, column in one.columns}
    others = [number for number in one.numbers if number.column not in bounded]
    if others and one.row["outcome"] != "quarantined":
        print("\nsignals that no rule of the recipe bounds")
        table(
            [("signal", "left"), ("number", "right"), ("", "left")],
            [(number.column, number_said(number), number.says) for number in others],
        )
    show_evidence(one)


def said_of_numbers(one: Explanation) -> str:
    """Whether the record, measured again, gave the stored numbers; else the note."""
    if one.note:
        return f"; note: {visible(one.note)}"
    return "; measured again from its record, they are the same" if one.from_store else ""


def show_evidence(one: Explanation) -> None:
    """Print each view of the text in which something made a rule's number, with that marked."""
    from infra.marked_text import COLOURS, marked_lines, summed

    console = Console(highlight=False)
    for view, text in one.texts.items():
        found = [evidence for evidence in one.evidence if evidence.view == view]
        if not found:
            continue
        console.print(
            Text(
                f"\nthe text{'' if view == 'raw' else f' after {view}'}, and in it what made the numbers of",
                style="bold",
            )
        )
        for at, evidence in enumerate(found):
            console.print(
                Text("■ ", style=COLOURS[at % len(COLOURS)]),
                Text(f"{evidence.rule.name}: {visible(summed(evidence))}"),
                sep="",
            )
        wide = not console.is_terminal  # what reads a pipe wants the text's own lines
        console.print(Text("\n"), marked_lines(text, found, brackets=wide), sep="", soft_wrap=wide)


def explanation_json(one: Explanation) -> dict[str, Any]:
    """An explanation as plain data."""
    from infra.cli import rule_json
    from infra.marked_text import evidence_json

    return {
        **one.row,
        "note": one.note,
        "text": one.text,
        "from_store": one.from_store,
        "rules": [
            {**rule_json(rule), "column": column, "value": None if value != value else value, "passes": passes}
            for (rule, value, passes), (_, column) in zip(one.verdicts, one.columns, strict=True)
        ],
        "signals": {number.column: {"stored": number.stored, "value": number.value} for number in one.numbers},
        "texts": {view: text for view, text in one.texts.items() if view != "raw"},
        "evidence": evidence_json(one.evidence),
    }


def whatif(
    out: Out,
    bounds: Annotated[
        list[str] | None,
        typer.Option("--set", help="RULE.low=NUMBER or RULE.high=NUMBER; may be repeated.", show_default=False),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", help="Leave a rule out; may be repeated.", show_default=False)
    ] = None,
    added: Annotated[
        list[str] | None,
        typer.Option("--with", help="Add a rule whose signal is stored: RULE or RULE@VIEW.", show_default=False),
    ] = None,
    show: Show = 0,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """What would be kept under other bounds, from the stored signals. Rules are named as in `gristmill rules`."""
    from infra.annotated import run_rules
    from infra.processes import cores
    from infra.run import read_run
    from infra.store import open_store
    from infra.what_if import changed_rules, compared, comparison_json

    if not (bounds or without or added):
        raise typer.BadParameter("say what would be otherwise: --set RULE.low=3.5, --without RULE or --with RULE")
    made = read_run(open_store(out))
    now = run_rules(made)
    then = changed_rules(made, bounds=bounds or (), without=without or (), added=added or ())
    found = compared(made, now, then, show=show, workers=workers or cores())
    if as_json:
        data({"rules": changes_json(now, then), **comparison_json(found)})
        return
    table(
        [("rule", "left"), ("now", "left"), ("then", "left"), ("numbers of", "left")],
        [(one["rule"], one["now"] or "-", one["then"] or "left out", one["column"]) for one in changes_json(now, then)],
    )
    print()
    show_comparison(made, found, ("now", "then"))


def changes_json(now: Ruled, then: Ruled) -> list[dict[str, Any]]:
    """The rules that differ, with their bounds."""
    before, after = ({rule.name: (rule, column) for rule, column in ruled} for ruled in (now, then))
    return [
        {
            "rule": name,
            "now": before[name][0].bounds if name in before else None,
            "then": after[name][0].bounds if name in after else None,
            "column": (after.get(name) or before[name])[1],
        }
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    ]


def show_comparison(made: Finished, found: Comparison, titles: tuple[str, str]) -> None:
    """Print what is kept before and after, what changes sides, and by which rules."""
    columns = [("", "left"), ("documents", "right"), ("characters", "right"), ("tokens", "right"), ("", "right")]
    kept = [
        (f"kept {titles[0]}", found.before),
        (f"kept {titles[1]}", found.after),
        ("gained", found.gained),
        ("lost", found.lost),
    ]
    whole = max(1, found.documents.documents)
    table(columns, [(name, *numbers(one), f"{one.documents / whole:.2%} of documents") for name, one in kept])
    by_rule(f"gained, by the rule that held them back ({titles[0]})", found.held)
    by_rule(f"lost, by the rule that drops them ({titles[1]})", found.falls)
    show_examples("gained", found.gained_examples)
    show_examples("lost", found.lost_examples)
    print("\nCharacters and tokens are those of the raw text, as every document has one.")
    if copies := sum(made.accounts.duplicates.values()):
        print(f"Copies are removed after the rules: {copies:,} of what the rules of the run keep.")
    if quarantined := sum(made.accounts.quarantined.values()):
        print(f"{quarantined:,} quarantined documents have no numbers and stay out.")
    if found.without_text:
        print(
            f"{found.without_text:,} more documents would get past these rules and cannot be parsed: a run would "
            "quarantine them.\nThey count as not kept."
        )


def numbers(one: Volume) -> tuple[object, object, object]:
    """A volume as cells."""
    return one.documents, one.characters, "-" if one.tokens is None else one.tokens


def by_rule(title: str, counts: Mapping[str, Volume]) -> None:
    """Print counts by rule, the largest first."""
    if counts:
        print(f"\n{title}")
        ranked = sorted(counts.items(), key=lambda item: (-item[1].documents, item[0]))
        columns = [("rule", "left"), ("documents", "right"), ("characters", "right"), ("tokens", "right")]
        table(columns, [(name, *numbers(one)) for name, one in ranked])


def show_examples(title: str, found: Sequence[Example]) -> None:
    """Print examples: rule, number, id and URL of each."""
    if found:
        print(f"\n{title}, for example")
        for one in found:
            value = "undefined" if one.value is None else f"{one.value:.6g}"
            print(f"{one.rule} = {value}\n  {visible(one.id)}\n  {visible(one.url)}")


def diff(
    first: RecipeFile,
    second: RecipeFile,
    on: Annotated[
        str | None,
        typer.Option("--on", help="An annotated run: which of its documents change sides.", show_default=False),
    ] = None,
    show: Show = 0,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """How two recipes differ: steps, rules, bounds, revisions. With --on, which documents of a run change sides."""
    from infra.processes import cores
    from infra.run import read_run
    from infra.sides import sides, sides_json
    from infra.store import open_store
    from pipelines.recipe import load_recipe
    from pipelines.recipe_diff import diff_json, recipe_diff

    recipes = load_recipe(first), load_recipe(second)
    found = recipe_diff(*recipes)
    made = None if on is None else read_run(open_store(on))
    many = workers or cores()
    changed = None if made is None else sides(made, *recipes, (first, second), show=show, workers=many)
    if as_json:
        data({**diff_json(found), "on": None if changed is None else sides_json(changed)})
        return
    show_diff(found, first, second)
    if made is None or changed is None:
        return
    print()
    if changed.changes is not None:
        show_comparison(made, changed.changes, (first, second))
        return
    print(f"Which documents of {on} change sides cannot be told from its signals:")
    for one in changed.missing:
        print(f"- {one}")
    print("What measures it:")
    for command in changed.rerun:
        print(f"  {command}")


def show_diff(found: RecipeDiff, first: str, second: str) -> None:
    """Print how two recipes differ. Of rules that read other words only, or have another family's name, the number."""
    if found.same:
        print(f"{first} and {second} make the same corpus, byte for byte.")
        return
    differing = [(one.where, one.what, *sides_said(one)) for one in (*found.settings, *found.steps)]
    differing += [("rules", "family", *families) for families in renamed_families(found.rules)]
    if differing:
        table([("step", "left"), ("", "left"), (first, "left"), (second, "left")], differing)
        print()
    telling = [pair for pair in found.rules if not pair.changed or set(pair.changed) - {"rule", "words"}]
    if telling:
        columns = [("rule", "left"), (first, "left"), (second, "left"), ("differs in", "left")]
        table(columns, [pair_cells(pair) for pair in telling])
        print()
    if others := len(found.rules) - len(telling):
        print(
            f"{others:,} rules have the same signals and bounds, under another name or with other words (all: --json)."
        )
    print(
        f"{found.equal_rules:,} rules are equal." + (" Common rules come in another order." if found.reordered else "")
    )


def renamed_families(pairs: Sequence[RulePair]) -> list[tuple[str, str]]:
    """Families whose rules have counterparts of the same name in another family."""
    names = [
        (pair.first.rule.name.partition("."), pair.second.rule.name.partition("."))
        for pair in pairs
        if pair.first and pair.second
    ]
    return list(dict.fromkeys((one[0], other[0]) for one, other in names if one[0] != other[0] and one[2] == other[2]))


def sides_said(one: Difference) -> tuple[str, str]:
    """What either recipe says of one thing."""
    if one.what == "step":
        return ("yes" if one.first is not None else "-", "yes" if one.second is not None else "-")
    said = ["-" if value is None else visible(str(value)) or "''" for value in (one.first, one.second)]
    return said[0], said[1]


def pair_cells(pair: RulePair) -> tuple[str, str, str, str]:
    """One differing rule as cells; a counterpart of the same name in another family goes without saying."""
    if pair.first is None or pair.second is None:
        only = pair.first or pair.second
        assert only is not None, "a pair has a rule"
        bounds = [one.rule.bounds if one else "-" for one in (pair.first, pair.second)]
        return only.rule.name, bounds[0], bounds[1], "missing"
    one, other = pair.first.facts, pair.second.facts
    alike = one["rule"].partition(".")[2] == other["rule"].partition(".")[2]
    name = one["rule"] if alike else f"{one['rule']} → {other['rule']}"
    told = ("bounds", "words")
    said = [
        fact if fact in told else f"{fact} {other[fact].partition('.')[2] or other[fact]}"
        for fact in pair.changed
        if fact != "rule"
    ]
    return name, one["bounds"], other["bounds"], ", ".join(said)
