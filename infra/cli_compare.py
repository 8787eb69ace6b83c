"""`gristmill compare`: what an experiment has found, or two beside each other. Registered by `infra.cli`."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli_signals import short
from infra.options import Json
from infra.terminal import data, from_here, page_written, table, visible

if TYPE_CHECKING:
    from infra.comparison import Change, Comparison, Report
    from infra.experiment_arms import Volume
    from infra.experiment_results import ArmResult, Bounds, RungResult
    from proxy_eval.planner import Cost


class ExportShape(StrEnum):
    """Whose files."""

    lm_eval = "lm-eval"
    lighteval = "lighteval"


def compare(
    out: Annotated[
        str, typer.Argument(help="The folder or URL of an experiment (`gristmill ablate --out`).", show_default=False)
    ],
    other: Annotated[
        str | None, typer.Argument(metavar="OUT2", help="A second one, put beside it.", show_default=False)
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with charts to this file.", show_default=False)
    ] = None,
    export: Annotated[
        tuple[ExportShape, Path] | None,
        typer.Option(
            "--export",
            metavar="lm-eval|lighteval DIR",
            help="Write every model's scores into DIR, as that tool would.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what every rule was found to be worth, how sure that is, and what it cost; reads only what `ablate` left.

    Ends with 1 where a placebo failed, and so no verdict holds.
    """
    from infra.comparison import compare as compared
    from infra.comparison import comparison_json, read_report

    found = compared(read_report(out), None if other is None else read_report(other))
    if html is not None:
        from infra.compare_page import page

        page_written(html, lambda: page(found))
    written = "" if export is None else exported([one.place for one in found.reports], *export)
    if as_json:
        data(comparison_json(found))
    else:
        show(found)
        if html is not None:
            print(f"\npage      {from_here(str(html))}")
        if export is not None:
            print(f"\nexported  {written}")
    if any(one.results.faults for one in found.reports):
        raise typer.Exit(1)


def exported(places: Sequence[str], shape: ExportShape, to: Path) -> str:
    """Write the scores of these stores' models, and say how many have a file."""
    from infra.score_export import export_scores

    found = [export_scores(place, to, shape.value) for place in places]
    said = f"{sum(len(one.files) for one in found)} models -> {from_here(str(to))}"
    stopped = sum(one.stopped for one in found)
    return f"{said}; without {stopped} whose training stopped" if stopped else said


def show(found: Comparison) -> None:
    """Print one report, or two of them in short and what changed."""
    if len(found.reports) == 1:
        show_report(found.reports[0])
        return
    for report in found.reports:
        show_faults(report)
    for which, report in zip(("first", "second"), found.reports, strict=True):
        line(which, headline(report))
        line("", promise(report))
    print()
    table(
        [("arm", "left"), ("first", "left"), ("worth", "right"), ("second", "left"), ("worth", "right"),
         ("", "left")],
        [change_cells(one, found.reports) for one in found.changes],
    )  # fmt: skip
    show_notes(note for report in found.reports for note in (*report.results.notes, *report.notes))


def change_cells(one: Change, reports: Sequence[Report]) -> tuple[object, ...]:
    """A line of what changed."""
    cells: list[object] = [visible(one.arm)]
    for arm, report in zip((one.before, one.after), reports, strict=True):
        cells += ["", ""] if arm is None else [verdict(arm, report), worth(arm.doublings.estimate)]
    return *cells, visible(one.note)


def show_report(report: Report) -> None:
    """Print the verdicts with what they rest on and what they cost, in tables of 80 columns."""
    found = report.results
    show_faults(report)
    line("asked", headline(report))
    if found.says:
        line("", visible(found.says))
    line("", promise(report))
    print()
    ranked = sorted(found.arms, key=lambda arm: (arm.share.estimate is None, -(arm.share.estimate or 0.0)))
    show_leaderboard("arm", ranked, report)
    print()
    show_leaderboard("placebo", found.placebos, report)
    print("\nBeside the verdicts; what the rule removes that no other does, and of all:")
    columns = [("arm", "left"), ("shrunk", "right"), ("gold", "right"), ("FDR", "right"), ("TOST", "right")]
    columns += [("documents", "right"), ("tokens", "right")]
    columns += [("of all", "right"), ("tokens", "right")]
    table(columns, [beside_cells(arm) for arm in ranked])
    show_reasons(ranked)
    show_matched(ranked, found.control)
    print()
    for rung in found.rungs:
        show_rung(rung)
    line("cost", f"{cost_words(found.actual)}; planned at most {cost_words(found.planned)}")
    noisy = [arm.says for arm in found.arms if arm.noise is not None and arm.noise.noisier]
    show_notes((*noisy, *found.notes, *report.notes))


def show_faults(report: Report) -> None:
    """Print first of all that no verdict holds, and why."""
    for fault in report.results.faults:
        line("VOID", f"{visible(from_here(report.place))}: {visible(fault)}")
    if report.results.faults:
        line("", "A placebo failed, so no verdict below holds; numbers are shown to find out why.")
        print()


def headline(report: Report) -> str:
    """What was asked, and how far it is."""
    found = report.results
    return f"{visible(found.name)}, {found.status}: {visible(from_here(report.place))}"


def promise(report: Report) -> str:
    """What a verdict means here."""
    found = report.results
    return (
        f"{visible(found.metric)}, ROPE ±{100 * found.rope:.3g} % of the tokens; a wrong verdict in at most "
        f"{100 * found.error:.3g} % of experiments; room for {found.room} arms"
    )


def show_leaderboard(title: str, arms: Iterable[ArmResult], report: Report) -> None:
    """Print a line for each arm: its verdict, what it is worth in tokens and the interval that says so."""
    columns = [(title, "left"), ("verdict", "left"), ("worth", "right"), ("low", "right"), ("high", "right")]
    table(
        [*columns, ("seeds", "right")],
        [(visible(arm.name), verdict(arm, report), *interval(arm.doublings), arm.seeds) for arm in arms],
    )


def verdict(arm: ArmResult, report: Report) -> str:
    """The verdict, unless none holds."""
    return "void" if report.results.faults else arm.verdict


def interval(found: Bounds) -> tuple[str, str, str]:
    """An estimate in doublings and its bounds as shares of the tokens; nothing where nothing is known."""
    from proxy_eval.effects import spelled

    if found.estimate is None:
        return "", "", ""
    low, high = -math.inf if found.low is None else found.low, math.inf if found.high is None else found.high
    return worth(found.estimate), spelled(low), spelled(high)


def worth(doublings: float | None) -> str:
    """Doublings as a share of the tokens; an estimate at the end of what the control measured lies beyond it."""
    from proxy_eval.effects import spelled

    if doublings is None:
        return ""
    return spelled(math.copysign(math.inf, doublings) if abs(doublings) >= 1 else doublings)


def beside_cells(arm: ArmResult) -> tuple[object, ...]:
    """What is known of an arm beside its verdict."""
    gold = "" if arm.gold.estimate is None else f"{arm.gold.estimate:+.4f}"
    chances = ("" if p is None else f"{p:.2g}" for p in (arm.discovery, arm.equivalence))
    return visible(arm.name), worth(arm.shrunk), gold, *chances, *volume(arm.yields.alone), *volume(arm.yields.at_all)


def volume(found: Volume | None) -> tuple[str, str]:
    """Documents and tokens; nothing where the arm is no single rule."""
    return ("", "") if found is None else (short(found.documents), short(found.tokens))


def show_reasons(arms: Sequence[ArmResult]) -> None:
    """Print why verdicts were withheld, and what the next look at an undecided arm costs."""
    from proxy_eval.verdict import SAYS, Reason

    rows = []
    for arm in arms:
        if arm.verdict != "UNDECIDED" or arm.rung is None:
            continue
        price = arm.next_look
        costs = ("", "", "") if price is None else cost_cells(price["cost"])
        more = "" if price is None else "too close" if price["seeds"] is None else price["seeds"]
        why = "the interval is too wide" if arm.reason == SAYS[Reason.INTERVAL] else arm.reason
        rows.append((visible(arm.name), more, *costs, visible(why)))
    if rows:
        print("\nUndecided: seeds to go if the estimate stays, the price of the next, and why:")
        columns = [("arm", "left"), ("seeds", "right"), ("tokens", "right"), ("hours", "right"), ("money", "right")]
        table([*columns, ("why", "left")], rows)


def show_matched(arms: Sequence[ArmResult], control: ArmResult) -> None:
    """Print arms beside a random removal of as many tokens, where they or the control come round again."""
    repeating = [(arm, arm.matched, arm.against_matched) for arm in arms if arm.matched and arm.against_matched]
    if not repeating:
        return
    print("\nThe smaller read more than once, and so held against a random removal from the larger:")
    columns = [("arm", "left"), ("epochs", "right"), ("removal", "right"), ("rule less it", "right")]
    table(
        [*columns, ("low", "right"), ("high", "right")],
        [
            (
                visible(arm.name),
                f"{max(arm.epochs, control.epochs):.1f}",
                worth(removal.estimate),
                *interval(against),
            )
            for arm, removal, against in repeating
        ],
    )


def cost_cells(cost: dict[str, float]) -> tuple[str, str, str]:
    """Tokens, hours and money of a look."""
    return short(round(cost["tokens"])), f"{cost['hours']:.2f}", f"{cost['money']:.2f}"


def show_rung(rung: RungResult) -> None:
    """Print what is known of a rung's noise, and what its runs can see."""
    from proxy_eval.effects import spelled

    fixed, control = rung.fixed, "runs the arms' seeds" if rung.shared else f"runs {rung.control_seeds} seeds"
    known = "; as planned, no pilot" if fixed.rho_low is None else f" [{fixed.rho_low:.2f}, {fixed.rho_high:.2f}]"
    sees = "nothing up to twice the tokens" if rung.smallest is None else spelled(math.log2(1 + rung.smallest))
    line("rung", f"{visible(rung.name)}: look {rung.looks} of {rung.seeds}; the control {control}")
    noise = f"run {math.sqrt(fixed.noise):.2g}, gain {fixed.gain:.2g} by twice the tokens, rho {fixed.rho:.2f}{known}"
    line("noise", noise)
    rates = ", ".join(f"{rate:g}" for rate in rung.learning_rates)
    line("sees", f"{sees} with power 80 %, as planned")
    line("rates", f"{rates}{', calibrated' if rung.calibrated else ', not calibrated'}")


def width_here() -> int:
    """Columns of the terminal; without bound where standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def line(label: str, text: str) -> None:
    """Print a label and a text, broken between words where a terminal has an end."""
    start, width = f"{label:10}", width_here()
    if width < sys.maxsize:
        text = fill(
            text, width=max(width - 1, 30), initial_indent=start, subsequent_indent=" " * 10,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        start = ""
    print(start + text)


def cost_words(cost: Cost) -> str:
    """Runs, hours and money."""
    return f"{cost.runs} runs, {cost.hours:.2f} device hours, {cost.money:,.2f}"


def show_notes(notes: Iterable[str]) -> None:
    """Print notes, each once."""
    for note in dict.fromkeys(notes):
        line("note", visible(note))
