"""The tables of a report on experiments, as HTML: cells are made here, and whatever others wrote is escaped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from infra.compare_words import (
    DASH,
    NARROW,
    interval,
    name,
    percent,
    plain,
    signed,
    text,
    volume,
    worth,
    worth_interval,
)
from infra.comparison import Change
from infra.experiment_arms import Volume
from infra.experiment_results import ArmResult, Bounds, Results, RungResult
from proxy_eval.planner import Cost

SIGNS = {"KEEP": "▲", "REJECT": "▼", "NEUTRAL": "■", "UNDECIDED": "○"}
"""Beside its word and its colour a verdict has a sign, the one that it has in charts."""
MILLI = 1000.0
"""Effects in bits per byte are shown in thousandths."""
FEW = 20
"""Arms up to which a heat map has room for numbers."""


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, label: str, kind: str = "") -> str:
    """A table in a box of its own that scrolls; a title that begins with `n:` is that of a column of numbers."""
    numbers = [' class="n"' if title.startswith("n:") else "" for title in titles]
    head = "".join(f"<th{cls}>{title.removeprefix('n:')}</th>" for title, cls in zip(titles, numbers, strict=True))
    body = "".join(
        f"<tr><th>{first}</th>" + "".join(f"<td{cls}>{one}</td>" for one, cls in zip(rest, numbers[1:], strict=True))
        + "</tr>"
        for first, *rest in rows
    )  # fmt: skip
    return (
        f'<div class="box {kind}" role="region" aria-label="{label}" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def small(said: str) -> str:
    """Said beside what matters more."""
    return f"<small>{said}</small>" if said else ""


def badge(verdict: str, *, void: bool) -> str:
    """A verdict as a sign, a word and a colour; struck through where it does not hold."""
    struck = f'<s class="badge {verdict}">{SIGNS[verdict]} {verdict}</s> void'
    return struck if void else f'<span class="badge {verdict}">{SIGNS[verdict]} {verdict}</span>'


def by_worth(arms: Iterable[ArmResult]) -> list[ArmResult]:
    """The best first, those of which nothing is known last."""

    def place(arm: ArmResult) -> tuple[float, str]:
        return (math.inf if arm.doublings.estimate is None else -arm.doublings.estimate), arm.name

    return sorted(arms, key=place)


def leaderboard(results: Results) -> str:
    """Every arm, the best first: its verdict, what sets it, what it removes, and why."""
    void = results.status == "void"
    titles = ["arm", "verdict", "n:worth in tokens", "n:shrunk", "n:gold answers", f"n:FDR<br>{small('TOST')}"]
    titles += [f"n:removes {what}<br>{small('documents, tokens')}" for what in ("alone", "at all")] + ["n:seeds", "why"]
    rows = [
        [
            name(arm.name),
            badge(arm.verdict, void=void),
            f"<b>{worth(arm.doublings.estimate)}</b> {small(worth_interval(arm.doublings))}",
            worth(arm.shrunk) if arm.shrunk is not None else DASH,
            gold(arm.gold),
            f"{chance(arm.discovery)} {small(chance(arm.equivalence))}",
            removed(arm.yields.alone),
            removed(arm.yields.at_all),
            f"{arm.seeds}",
            why(arm, results),
        ]
        for arm in by_worth(results.arms)
    ]
    return table(titles, rows, label="leaderboard", kind="leaders")


def gold(found: Bounds) -> str:
    """The effect on gold answers in thousandths of a bit per byte, with its interval."""
    if found.estimate is None:
        return "not measured"
    return f"{signed(MILLI * found.estimate)} {small(interval(found, MILLI))}"


def chance(p: float | None) -> str:
    """A p-value."""
    return DASH if p is None else f"{p:.2g}"


def removed(found: Volume | None) -> str:
    """Documents and tokens."""
    return DASH if found is None else f"{volume(found.documents)} {small(volume(found.tokens))}"


def why(arm: ArmResult, results: Results) -> str:
    """What led to the verdict, in a sentence or two."""
    said = {
        "KEEP": "above the ROPE, gold answers agree",
        "REJECT": "below the ROPE",
        "NEUTRAL": "inside the ROPE: yield and cost decide",
        "UNDECIDED": "across an edge of the ROPE" if arm.reason == "the interval decides" else text(arm.reason),
    }[arm.verdict]
    parts = ["has not run yet" if arm.rung is None else said]
    if len(results.rungs) > 1 and arm.rung is not None:
        parts.append(f"at {text(results.rungs[arm.rung].name)}")
    if arm.next_look is not None:
        price, seeds = arm.next_look["cost"], arm.next_look["seeds"]
        more = "too close to it to be decided" if seeds is None else f"{seeds} more decide if it stays there"
        parts.append(f"a seed costs {volume(price['tokens'])} tokens, {hours(price['hours'])}: {more}")
    if arm.epochs > 1:
        parts.append(f"reads its documents {arm.epochs:.1f} times")
    if arm.against_matched is not None:
        less = f"{worth(arm.against_matched.estimate)} {worth_interval(arm.against_matched)}"
        parts.append(f"against random removal of as many tokens {less}")
    return warning(arm) + small("; ".join(parts))


def warning(arm: ArmResult) -> str:
    """What is said of an arm whose runs scatter more than the noise that its interval rests on."""
    if arm.noise is None or not arm.noise.noisier:
        return ""
    times = f"{arm.noise.deviation / arm.noise.others:.1f} times as much as the others'"
    return f'<b class="warns">⚠ Do not believe it: its runs scatter {times}.</b> '


def hours(count: float) -> str:
    """Device hours, in seconds or minutes where they are few."""
    if count < 1 / 60:
        return f"{3600 * count:.2g}{NARROW}s"
    return f"{60 * count:.2g}{NARROW}min" if count < 1 else f"{count:.3g}{NARROW}h"


def heat_map(rows: Sequence[tuple[str, Mapping[str, Bounds]]], *, label: str) -> str:
    """Deltas of arms by domain in nine colours around nothing, with numbers for up to FEW arms.

    Every cell says its number and interval when pointed at; a dot marks those whose interval leaves out 0.
    """
    columns = sorted({one for _, found in rows for one in found})
    values = [abs(one.estimate) for _, found in rows for one in found.values() if one.estimate is not None]
    limit = max(values, default=0.0) or 1.0
    few = len(rows) <= FEW
    head = "".join(f"<th>{name(one)}</th>" for one in columns)
    body = "".join(
        f"<tr><th>{name(arm)}</th>{''.join(heat_cell(arm, at, found.get(at), limit, few) for at in columns)}</tr>"
        for arm, found in rows
    )
    said = {at: signed(MILLI * limit * at / 4) for at in (-4, 0, 4)}
    steps = "".join(f'<i><span class="h{at}"></span>{said.get(at, "")}</i>' for at in range(-4, 5))
    kind = "box heat" if few else "box heat dense"
    return (
        f'<div class="{kind}" role="region" aria-label="{label}" tabindex="0"><table><thead><tr>'
        f'<th></th>{head}</tr></thead><tbody>{body}</tbody></table></div><p class="key">{steps}</p>'
    )


def heat_cell(arm: str, column: str, found: Bounds | None, limit: float, few: bool) -> str:
    """A cell of a heat map."""
    if found is None or found.estimate is None:
        return "<td></td>"
    level = round(4 * found.estimate / limit)
    said = f"{signed(MILLI * found.estimate)} {interval(found, MILLI)}"
    mark = "•" * leaves_out_nothing(found)
    shown = f"{signed(MILLI * found.estimate)}{mark}" if few else mark
    return f'<td class="h{level}" title="{text(arm)}, {text(column)}: {said}">{shown}</td>'


def leaves_out_nothing(found: Bounds) -> bool:
    """True where the interval lies on one side of 0."""
    return (found.low is not None and found.low > 0) or (found.high is not None and found.high < 0)


def tasks_table(arms: Sequence[ArmResult]) -> str:
    """Deltas of tasks, the fewer of arms and tasks as columns; bold where the 95 % interval lies on one side of 0."""
    tasks = sorted({task for arm in arms for task in arm.tasks})
    titles = [f"{name(task)} {small(name(metric))}" for task, _, metric in (task.partition("/") for task in tasks)]
    across = [(name(arm.name), [task_cell(arm, task) for task in tasks]) for arm in arms]
    if len(arms) < len(tasks):
        cells = zip(*(cells for _, cells in across), strict=True)
        titles, across = [one for one, _ in across], list(zip(titles, map(list, cells), strict=True))
    rows = [[title, *cells] for title, cells in across]
    return table(["", *(f"n:{title}" for title in titles)], rows, label="tasks", kind="tall tasks")


def task_cell(arm: ArmResult, task: str) -> str:
    """A delta in points (hundredths), of bits per byte in thousandths, with its interval."""
    found = arm.tasks.get(task, Bounds(estimate=None, low=None, high=None))
    if found.estimate is None:
        return DASH
    scale = MILLI if task.endswith("/bits_per_byte") else 100.0
    said = signed(scale * found.estimate)
    return f"{f'<b>{said}</b>' if leaves_out_nothing(found) else said} {small(interval(found, scale))}"


EXPECTED = {
    "same": ("the control again, with other seeds: no effect", ("NEUTRAL", "UNDECIDED")),
    "random": ("a part removed at random: no effect that matters", ("NEUTRAL", "UNDECIDED")),
    "garbage": ("a rule that removes just the planted garbage: KEEP", ("KEEP",)),
}
"""What is true of a placebo, and the verdicts that say so."""


def placebo_table(results: Results) -> str:
    """What each placebo came to, against what is true of it."""
    rows = []
    for arm in results.placebos:
        truth, right = EXPECTED[arm.kind]
        wrong = any(arm.name in fault for fault in results.faults)
        came = "✗ failed" if wrong else "✓ as it should" if arm.verdict in right else "○ not yet told"
        rows.append([
            text(arm.name), f'<div class="prose">{truth}</div>', badge(arm.verdict, void=False),
            f"{worth(arm.doublings.estimate)} {small(worth_interval(arm.doublings))}", f"{arm.seeds}", came,
        ])  # fmt: skip
    titles = ["placebo", "what is true", "came out", "n:worth in tokens", "n:seeds", "so"]
    return table(titles, rows, label="placebos")


def noise_table(rungs: Sequence[RungResult]) -> str:
    """What is known of each rung's noise, and what could be seen through it; a rung a column."""
    lines: dict[str, Callable[[RungResult], str]] = {
        "rho, runs of one seed": rho,
        "design": lambda one: (
            "differences within seeds" if one.shared else f"means, the control's over {one.control_seeds} seeds"
        ),
        "seeds planned, looks taken": lambda one: f"{one.seeds}, {one.looks}",
        "spread of a run over seeds": lambda one: taken(math.sqrt(one.fixed.noise), one),
        "gain by twice the tokens": lambda one: taken(one.fixed.gain, one),
        "noise bank: runs": lambda one: bank(one.fixed.run),
        "noise bank: pairs": lambda one: bank(one.fixed.pair),
        "noise bank: doublings": lambda one: bank(one.fixed.doubling),
        "level of an arm's interval": lambda one: f"{100 * (1 - one.level):.4g}{NARROW}%",
        "smallest effect with power 0.8, planned": lambda one: smallest(one.smallest),
        "the same, with the noise measured": lambda one: (
            smallest(one.smallest_measured) if piloted(one) else f"{DASH} {small(NO_PILOT)}"
        ),
        "power to call no effect NEUTRAL": lambda one: f"{one.neutral:.2f}",
    }
    rows = [[title, *(said(one) for one in rungs)] for title, said in lines.items()]
    return table(["", *(f"n:{text(one.name)}" for one in rungs)], rows, label="noise", kind="facts")


def rho(rung: RungResult) -> str:
    """The correlation over all looks, with its interval; that which fixed the design beside it."""
    fixed = rung.fixed
    first, said = plain(fixed.rho, 2), NO_PILOT
    if piloted(rung):
        first, said = f"{first} [{plain(fixed.rho_low, 2)}, {plain(fixed.rho_high, 2)}]", "pilot"
    if rung.pairing is None:
        return f"{first} {small(said)}"
    now = f"{plain(rung.pairing.rho, 2)} [{plain(rung.pairing.low, 2)}, {plain(rung.pairing.high, 2)}]"
    return f"{now} {small(f'{said}: {first}')}"


NO_PILOT = "as planned, no pilot"
"""Of a rung whose rho the experiment's file gives: its noise is the file's, the bank's, a calibration's or a guess."""


def piloted(rung: RungResult) -> bool:
    """True where a pilot measured what was known of the rung before its first verdict."""
    return rung.fixed.rho_low is not None


def taken(value: float, rung: RungResult) -> str:
    """What the rung's design rests on, in thousandths; said to be a plan's where nothing measured it."""
    return f"{MILLI * value:.3g}{NARROW}·10⁻³ {small('' if piloted(rung) else NO_PILOT)}".rstrip()


def bank(found: tuple[float, float]) -> str:
    """A standard deviation from the noise bank and what it is worth."""
    value, df = found
    return "empty" if df <= 0 else f"{1000 * math.sqrt(value):.3g}{NARROW}·10⁻³ {small(f'df {df:.3g}')}"


def smallest(share: float | None) -> str:
    """The smallest effect that is seen; one beyond the control's curve is none."""
    return f"none below +100{NARROW}%" if share is None or share >= 1 else percent(share)


def metric_table(rungs: Sequence[RungResult]) -> str:
    """Spread, SNR and decision accuracy of every metric at every rung."""
    titles = ["metric"]
    for rung in rungs:
        beside = small(text(rung.name)) if len(rungs) > 1 else ""
        titles += [f"n:{title} {beside}" for title in ("spread", "SNR", "decision accuracy")]
    names = sorted({metric for rung in rungs for metric in rung.spread})
    rows = [
        [
            text(metric),
            *(
                cell
                for rung in rungs
                for cell in (
                    plain(rung.spread.get(metric), 4),
                    plain(rung.snr.get(metric), 1),
                    plain(rung.decision_accuracy.get(metric), 2),
                )
            ),
        ]
        for metric in names
    ]
    return table(titles, rows, label="metrics", kind="tall")


def cost_table(results: Results) -> str:
    """Predicted and actual, by rung and in total; what was saved came from arms that were decided early."""
    money = bool(results.planned.money or results.actual.money)
    titles = ["rung", "n:runs", "n:tokens", "n:device hours", *(["n:money"] if money else [])]

    def cells(planned: Cost, actual: Cost) -> list[str]:
        found = [
            of_planned(f"{actual.runs:,}", f"{planned.runs:,}"),
            of_planned(volume(actual.tokens), volume(planned.tokens)),
            of_planned(hours(actual.hours), hours(planned.hours)),
        ]
        return [*found, of_planned(f"{actual.money:,.2f}", f"{planned.money:,.2f}")] if money else found

    rows = [[text(rung.name), *cells(rung.planned, rung.actual)] for rung in results.rungs]
    rows.append(["<b>all</b>", *cells(results.planned, results.actual)])
    return table(titles, rows, label="cost")


def of_planned(actual: str, planned: str) -> str:
    """What it took, and what the plan said."""
    return f"{actual} {small(f'of {planned} planned')}"


def rate_table(rung: RungResult) -> str:
    """The rates of a rung's calibration."""
    assert rung.calibration is not None, "only a rung that has a calibration is shown"
    chosen = rung.calibration["learning_rate"]
    rows = [
        [
            f"{rate['learning_rate']:g}" + (" <b>chosen</b>" if rate["learning_rate"] == chosen else ""),
            DASH if rate["effect"] is None else signed(-MILLI * rate["effect"]),
            DASH if rate["standard_error"] is None else f"{MILLI * rate['standard_error']:.1f}",
            DASH if rate["spread"] is None else f"{MILLI * rate['spread']:.1f}",
            plain(rate["snr"], 1),
        ]
        for rate in rung.calibration["rates"]
    ]
    titles = ["learning rate", "n:gain", "n:standard error", "n:spread over seeds", "n:SNR"]
    return table(titles, rows, label="learning rates")


def changes_table(changes: Sequence[Change], of: tuple[Results, Results]) -> str:
    """Two experiments side by side: those whose verdict changed first."""

    def side(arm: ArmResult | None, results: Results) -> str:
        if arm is None:
            return DASH
        verdict = badge(arm.verdict, void=results.status == "void")
        return f"{verdict}<br><b>{worth(arm.doublings.estimate)}</b> {small(worth_interval(arm.doublings))}"

    def moved(one: Change) -> bool:
        return one.before is not None and one.after is not None and one.before.verdict != one.after.verdict

    rows = [
        [
            name(one.arm) + (" <b>changed</b>" if moved(one) else ""),
            side(one.before, of[0]),
            side(one.after, of[1]),
            small(text(one.note)),
        ]
        for one in sorted(changes, key=moved, reverse=True)
    ]
    titles = ["arm", *(f"n:{which}<br>{small('worth in tokens')}" for which in ("first", "second")), "comparable"]
    return table(titles, rows, label="changes", kind="leaders changes")
