"""Texts with the evidence of rules marked in them, for a terminal and as a page; neither is given a text as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from rich.text import Text

from filters.evidence import Span
from infra.look import Evidence, Explanation, Number
from infra.terminal import visible

COLOURS = ("red", "yellow", "cyan", "magenta", "green", "blue")
UNMARKED = 300
"""Characters without a mark that a terminal is shown of a stretch; of a longer one its ends."""
SHOWN = 6_000
"""Characters of one text that a terminal is shown."""


def segments(length: int, marked: Sequence[Sequence[Span]]) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Cut [0, length) where a span begins or ends: (start, end, indices of the lists with a span over it)."""
    opens: dict[int, list[int]] = {}
    closes: dict[int, list[int]] = {}
    for index, spans in enumerate(marked):
        for span in spans:
            if span.start < span.end:
                opens.setdefault(span.start, []).append(index)
                closes.setdefault(span.end, []).append(index)
    depth = [0] * len(marked)
    for start, end in pairwise(sorted({0, length, *opens, *closes})):
        for index in closes.get(start, ()):
            depth[index] -= 1
        for index in opens.get(start, ()):
            depth[index] += 1
        yield start, end, tuple(index for index, open_spans in enumerate(depth) if open_spans)


def shown_part(text: str) -> str:
    """The part of a text as it is shown in a mark: line feeds to be seen."""
    return visible(text).replace("\n", "⏎\n")


def marked_lines(text: str, found: Sequence[Evidence], *, brackets: bool) -> Text:
    """The text with each rule's spans in its colour, and in brackets where asked; what lies between them shortened."""
    shown = Text()
    for start, end, over in segments(len(text), [one.spans for one in found]):
        if over:
            style = f"bold {COLOURS[over[0] % len(COLOURS)]}" + (" underline" if len(over) > 1 else " reverse")
            part = shown_part(text[start:end])
            shown.append(f"⟦{part}⟧" if brackets else part, style)
        else:
            shown.append(shortened(visible(text[start:end])), "dim")
        if len(shown) > SHOWN and end < len(text):
            shown.append(f"\n… {len(text) - end:,} more characters; --html FILE shows all")
            break
    return shown


def shortened(text: str) -> str:
    """The text, or its ends and how much lies between them."""
    if len(text) <= UNMARKED:
        return text
    half = UNMARKED // 3
    return f"{text[:half]} […{len(text) - 2 * half:,} characters…] {text[-half:]}"


def summed(one: Evidence) -> str:
    """How many marks of what kind, and what they add up to."""
    kinds: dict[str, int] = {}
    for span in one.spans:
        kinds[span.label] = kinds.get(span.label, 0) + 1
    # Kinds by the lengths of words are many; the commonest tell enough.
    common = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    said = ", ".join(f"{count:,} × {label}" for label, count in common[:4]) or "no marks"
    said += f" and {len(common) - 4:,} other kinds" if len(common) > 4 else ""
    if one.sums == "nothing":
        return said
    total = sum(span.adds for span in one.spans)
    return f"{said}; together {total:,}" + (" that the numerator lacks" if one.sums == "rest" else "")


def number_said(number: Number | None) -> str:
    """A signal as it was counted: `12/345 = 0.0348`, `7`, or what there is of lines."""
    if number is None or number.stored is None:
        return "not measured"
    if isinstance(number.stored, list):
        return f"{len(number.stored):,} lines"
    if isinstance(number.stored, dict):
        value = "undefined" if number.value is None else f"{number.value:.6g}"
        return f"{number.stored['n']:,}/{number.stored['d']:,} = {value}"
    return f"{number.stored:,}" if isinstance(number.stored, int) else f"{number.stored:.6g}"


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
body { color: #1c1c1c; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { text-align: left; padding: .15rem .9rem .15rem 0; vertical-align: top; }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.fails td.n, tr.fails td:first-child { color: #a40000; font-weight: 600; }
summary { cursor: pointer; font-size: 1.2em; font-weight: 600; margin-top: 1rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: 1rem; }
pre { border: 1px solid #ccc; border-radius: 4px; background: #fafafa; }
mark { background: none; color: inherit; }
label { cursor: pointer; padding: 0 .3rem; border-radius: 3px; }
dl { display: grid; grid-template-columns: max-content auto; gap: .1rem 1rem; }
dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
.note { color: #8a5a00; }
.dim { color: #666; }
"""


def explanation_page(found: Sequence[Explanation]) -> str:
    """A page that needs nothing but itself: a document's facts, numbers and verdicts, and its text with the evidence
    of one rule, or of all, marked.
    """
    bodies = "".join(section(one, number) for number, one in enumerate(found))
    rules = "".join(choices_style(one, number) for number, one in enumerate(found))
    # The page holds text that strangers wrote: it is escaped, and nothing may be loaded or run.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><meta name="referrer" content="no-referrer">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Why did this document go where it went?</title><style>{STYLE}{rules}</style></head>"
        f"<body>{bodies}</body></html>\n"
    )


def safe(value: object) -> str:
    """Anything as text of the page."""
    return escape(visible(str(value)))


def section(one: Explanation, number: int) -> str:
    """One document."""
    facts = "".join(
        f"<dt>{safe(name)}</dt><dd>{safe(value)}</dd>" for name, value in one.row.items() if value not in (None, "")
    )
    note = f'<p class="note">{safe(one.note)}</p>' if one.note else ""
    outcome = f"{one.row['outcome']}{' by ' + str(one.row['reason']) if one.row.get('reason') else ''}"
    failing = [rule.name for rule, _, passes in one.verdicts if not passes]
    return (
        f"<h1>{safe(outcome)}</h1><dl>{facts}</dl>{note}"
        f"{'<h2>Rules that it fails</h2>' + rules_table(one, failing) if failing else ''}"
        f"{''.join(view_section(one, number, view) for view in one.texts)}"
        f"<details><summary>All {len(one.verdicts):,} rules that were measured</summary>{rules_table(one)}</details>"
        f"<details><summary>All {len(one.numbers):,} signals</summary>{signals_table(one.numbers)}</details>"
    )


def rules_table(one: Explanation, names: Sequence[str] | None = None) -> str:
    """These rules, by default every one that was measured."""
    counted = rule_numbers(one)
    rows = "".join(
        f'<tr class="{"passes" if passes else "fails"}"><td>{safe(rule.name)}</td>'
        f'<td class="n">{safe(counted[rule.name])}</td><td class="n">{safe(rule.bounds)}</td>'
        f"<td>{'passes' if passes else 'fails'}</td><td>{safe(rule.signal.says)}</td>"
        f'<td><a href="{escape(rule.paper.url)}" title="{safe(rule.paper.title)}">'
        f"{safe(rule.paper.where)}</a></td></tr>"
        for rule, _, passes in one.verdicts
        if names is None or rule.name in names
    )
    heads = "".join(f"<th>{head}</th>" for head in ("rule", "number", "keeps", "", "the number is", "source"))
    return f"<table><tr>{heads}</tr>{rows}</table>"


def rule_numbers(one: Explanation) -> dict[str, str]:
    """The number of each rule that was measured, as it was counted."""
    by_column = {number.column: number for number in one.numbers}
    return {rule.name: number_said(by_column.get(column)) for rule, column in one.columns}


def signals_table(numbers: Sequence[Number]) -> str:
    """Every signal."""
    rows = "".join(
        f'<tr><td>{safe(one.column)}</td><td class="n">{safe(number_said(one))}</td>'
        f'<td class="dim">{safe(one.says)}</td></tr>'
        for one in numbers
    )
    return f"<table><tr><th>signal</th><th>number</th><th></th></tr>{rows}</table>"


def view_section(one: Explanation, number: int, view: str) -> str:
    """The text of a view with its marks, and the choice of whose are shown."""
    found = [evidence for evidence in one.evidence if evidence.view == view]
    if not found and (view != "raw" or not one.texts[view]):
        return ""
    name = f"d{number}-{safe(view)}"
    asked = [("all", "all of these")]
    asked += [(str(at), f"{evidence.rule.name}: {summed(evidence)}") for at, evidence in enumerate(found)]
    choices = "".join(
        f'<input type="radio" name="{name}" id="{name}-{at}"{" checked" if at == "all" else ""}>'
        f'<label class="m{at}" for="{name}-{at}">{safe(said)}</label><br>'
        for at, said in asked
    )
    pieces = []
    for start, end, over in segments(len(one.texts[view]), [evidence.spans for evidence in found]):
        text = one.texts[view][start:end]
        if over:
            pieces.append(f'<mark class="{" ".join(f"m{at}" for at in over)}">{escape(shown_part(text))}</mark>')
        else:
            pieces.append(safe(text))
    title = "The text" if view == "raw" else f"The text after {safe(view)}"
    marks = f"<p>Marked in it is what made the numbers of</p>{choices}" if found else ""
    return f'<h2>{title}</h2><div class="view">{marks}<pre>{"".join(pieces)}</pre></div>'


def choices_style(one: Explanation, number: int) -> str:
    """What each choice of each view shows."""
    said = []
    for view in one.texts:
        name = f"d{number}-{safe(view)}"
        for at, _ in enumerate(evidence for evidence in one.evidence if evidence.view == view):
            hue = (at * 67) % 360
            for chosen in ("all", str(at)):
                said.append(f"[id='{name}-{chosen}']:checked ~ pre .m{at}, ")
                said.append(f"[id='{name}-{chosen}']:checked ~ label.m{at} {{ background: hsl({hue} 90% 82%); }}\n")
    return "".join(said)


def evidence_json(found: Sequence[Evidence]) -> list[dict[str, Any]]:
    """Evidence as plain data; places are code points of the view's text."""
    return [
        {
            "rule": one.rule.name,
            "view": one.view,
            "sums": one.sums,
            "spans": [{"start": s.start, "end": s.end, "label": s.label, "adds": s.adds} for s in one.spans],
        }
        for one in found
    ]
