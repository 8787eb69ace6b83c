"""`gristmill ablate`: what every rule is worth, with an interval and a price. Registered by `infra.cli`."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli_compare import line, show, width_here
from infra.cli_proxy import Device, DeviceOption, Stack
from infra.options import Address, Json, Quiet, TakeOver, TaskDeadline, Unauthenticated, Workers, plain_count
from infra.terminal import data, from_here, table, visible

if TYPE_CHECKING:
    from infra.experiment_arms import ArmPlan, Volume
    from infra.experiment_plan import Plan, RungPlan
    from infra.experiment_results import Results
    from proxy_eval.experiment import Experiment
    from proxy_eval.planner import Cost, Design


def ablate(
    experiment: Annotated[
        Path | None, typer.Argument(help="The experiment's YAML file (see --schema).", show_default=False)
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="The folder or URL of models and results; what it has is continued.",
                     show_default=False),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Instead of a file: write OUT/experiment.yaml, each rule of this recipe left out.",
                     show_default=False),
    ] = None,
    pool: Annotated[str | None, typer.Option(help="With --recipe: the pool.", show_default=False)] = None,
    panel: Annotated[str | None, typer.Option(help="With --recipe: the panel.", show_default=False)] = None,
    tasks: Annotated[str | None, typer.Option(help="With --recipe: cloze tasks.", show_default=False)] = None,
    size: Annotated[str, typer.Option(help="With --recipe: of the models.")] = "1M",
    tokens: Annotated[
        str | None, typer.Option(help="With --recipe: of each run (default: what the pool has).", show_default=False)
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="With --recipe: of each arm, at most.")] = 5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after the plan.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="The JSON Schema of experiments, for editors.")] = False,
    device: DeviceOption = Device.auto,
    stack: Stack = None,
    workers: Workers = None,
    address: Address = None,
    allow_unauthenticated_cluster: Unauthenticated = False,
    task_deadline: TaskDeadline = 6.0,
    take_over: TakeOver = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Give every rule a verdict: KEEP, REJECT, NEUTRAL or UNDECIDED. Plans, shows the cost, runs; again to continue.

    Ends with 1 where a placebo failed, and so no verdict holds.
    """
    from proxy_eval.experiment import Experiment

    if schema:
        data(Experiment.model_json_schema())
        return
    said = experiment_of(
        experiment,
        out,
        recipe=recipe,
        pool=pool,
        panel=panel,
        tasks=tasks,
        size=size,
        tokens=tokens,
        seeds=seeds,
        take_over=take_over,
    )
    from infra.experiment_results import plain
    from infra.experiments import plan_of, run_experiment

    plan = plan_of(said, out, device=device.value, address=address, allow_unauthenticated=allow_unauthenticated_cluster)
    if not quiet:
        show_plan(plan, to_stdout=not as_json)
    if dry_run or out is None:
        if as_json:
            data(plain(plan_json(plan)))
        return
    found = run_experiment(
        plan,
        out,
        device=device.value,
        stack=stack,
        workers=workers,
        address=address,
        allow_unauthenticated=allow_unauthenticated_cluster,
        task_seconds=3600 * task_deadline,
        take_over=take_over,
        quiet=quiet,
        on_look=lambda now: say_look(now) if now.status == "running" and not quiet else None,
    )
    show_found(found, out, as_json=as_json)
    if found.faults:
        raise typer.Exit(1)


def show_found(found: Results, out: str, *, as_json: bool) -> None:
    """Print what `gristmill compare` prints of it, or the whole of it as JSON."""
    from dataclasses import asdict

    from infra.comparison import compare, read_report
    from infra.experiment_results import plain

    if as_json:
        data(plain(asdict(found)))
    else:
        show(compare(read_report(out)))
        print(f"\nresults   {from_here(out)}/results.json")


def experiment_of(
    file: Path | None,
    out: str | None,
    *,
    recipe: str | None,
    pool: str | None,
    panel: str | None,
    tasks: str | None,
    size: str,
    tokens: str | None,
    seeds: int,
    take_over: bool,
) -> Experiment:
    """The experiment in the file, or the one that `--recipe` asks for, which is written into `out` unless one is there:
    that one may have been edited.

    Raises typer.BadParameter unless just one of them is given, with what it needs, and RecipeError where what would be
    written is no experiment.
    """
    from infra.experiments import WRITTEN, written_experiment, written_into
    from infra.store import open_store
    from proxy_eval.experiment import parse_experiment, read_experiment

    if (file is None) == (recipe is None):
        raise typer.BadParameter("name an experiment's file, or --recipe NAME, and not both")
    if file is not None:
        return read_experiment(file)
    if pool is None or panel is None or out is None:
        raise typer.BadParameter("--recipe needs --pool, --panel and --out")
    assert recipe is not None, "one of them is given"
    store = open_store(out)
    text = written_experiment(
        recipe,
        pool,
        panel=panel,
        tasks=tasks,
        size=size,
        tokens=None if tokens is None else plain_count(tokens),
        seeds=seeds,
    )
    parse_experiment(text, where=f"--recipe {recipe}")
    there, new = written_into(store, text, take_over=take_over)
    name = f"{from_here(store.url)}/{WRITTEN}"
    if new or there == text:
        print(f"{name} {'is written' if new else 'was there and is taken'}", file=sys.stderr)
    else:
        print(
            f"{name} was there and is taken. It says something else than these options: remove it to have it written "
            "anew.",
            file=sys.stderr,
        )
    return parse_experiment(there, where=name)


def show_plan(plan: Plan, *, to_stdout: bool) -> None:
    """Print what a person reads before paying: to stderr where stdout is for data."""
    from contextlib import nullcontext, redirect_stdout

    with nullcontext() if to_stdout else redirect_stdout(sys.stderr):
        print_plan(plan)


def print_plan(plan: Plan) -> None:
    """Print arms with what they change and what it takes, rungs with what they see and cost, prices, and notes."""
    table(*arm_rows(plan, wide=width_here() >= WIDE))
    print()
    line(
        "columns",
        "changes, documents: of what a run reads, the share of the tokens and the documents that the rule changes; "
        "sees: the smallest effect that is decided with power 80 %; hours, money: if it is never decided",
    )
    for rung in plan.rungs:
        print_rung(rung)
    experiment = plan.experiment
    print()
    line("in all", f"{spelled(plan.cost)} at {experiment.price_per_hour:g} an hour; arms decided early cost less")
    line(
        "verdicts",
        f"{experiment.metric}, ROPE ±{100 * experiment.rope:.3g} % of the tokens; any of them wrong in "
        f"{experiment.error:.0%} of experiments, room for {experiment.budget.arms} arms",
    )
    print()
    power = 0.8 if experiment.wanted is None else experiment.wanted.power
    columns = [(f"to see, with power {power:.0%}", "right"), ("rung", "left")]
    columns += [(name, "right") for name in ("seeds", "runs", "hours", "money")]
    table(columns, [(effect(size), *cheapest_cells(design)) for size, design in plan.cheapest.items()])
    print()
    for note in plan.notes:
        line("note", visible(note))


def print_rung(rung: RungPlan) -> None:
    """Print how a rung is trained, what is expected of it, what it sees and what it costs."""
    design, cost, sources = rung.design, rung.cost, rung.expected.sources
    print()
    line(
        f"rung {rung.number + 1}",
        f"{rung.name}, {rung.said.seeds} seeds, {design.control_seeds} of the control, learning rates "
        + ", ".join(f"{rate:g}" for rate in rung.rates),
    )
    line(
        "",
        f"noise {math.sqrt(float(design.rung.noise.value)):.2g} ({sources['noise']}), gain by twice the tokens "
        f"{design.rung.gain:.2g} ({sources['gain']}), rho {design.rung.rho:.2f} ({sources['rho']})",
    )
    line("", f"sees {effect(rung.smallest)} with power 80 %; {spelled(cost)}")


WIDE = 150
"""Columns of a terminal from which the plan's table says everything; what reads a pipe gets all of it."""


def arm_rows(plan: Plan, *, wide: bool) -> tuple[list[tuple[str, str]], list[tuple[object, ...]]]:
    """The columns and rows of the plan's table: of each arm what a run reads of what it changes, the smallest effect
    that is seen, and its price; `wide`: with what it reads, and what its rule removes alone and of all documents. All
    of the rung that sees best, but the price.
    """
    from infra.experiment_arms import seen
    from proxy_eval.experiment import CONTROL

    sharpest = min(plan.rungs, key=lambda rung: rung.smallest)
    columns = [("arm", "left"), ("changes", "right"), ("documents", "right"), ("sees", "right"), ("hours", "right")]
    columns += [("money", "right")]
    if wide:
        columns += [("reads", "right"), ("tokens", "right"), ("epochs", "right"), ("alone", "right")]
        columns += [("at all", "right"), ("rule in", "left")]
    rows = []
    for arm in plan.arms:
        found, cost = seen(arm, plan.arm(CONTROL), sharpest.said.tokens), plan.arm_cost(arm.name)
        changed = ("a view", "") if found is None else (f"{found.share:.1%}", f"{found.documents:,.0f}")
        cells: list[object] = [visible(arm.name), *(("", "") if arm.kind in ("control", "same") else changed)]
        cells += [effect(sharpest.smallest) if arm.kind == "arm" else "", f"{cost.hours:.2f}", f"{cost.money:,.2f}"]
        if wide:
            cells += [arm.reads.documents, arm.reads.tokens, f"{arm.epochs(sharpest.said.tokens):.2f}"]
            cells += [documents(arm.changes.alone), documents(arm.changes.at_all)]
            cells += ["" if arm.kind in ("control", "same") else "base" if arm.in_base else "arm"]
        rows.append(tuple(cells))
    return columns, rows


def effect(size: float) -> str:
    """An effect that is seen, as a share of the tokens."""
    return "nothing" if math.isinf(size) else f"±{size:.1%}"


def documents(volume: Volume | None) -> str:
    """Documents of a yield."""
    return "" if volume is None else f"{volume.documents:,}"


def spelled(cost: Cost) -> str:
    """A price in words."""
    runs, hours = f"{cost.runs:,} runs at most, {cost.tokens:,.0f} tokens", f"{cost.hours:,.2f} device hours"
    return f"{runs}, {hours}, {cost.money:,.2f} money"


def cheapest_cells(design: Design | None) -> tuple[object, ...]:
    """A design and its price in a row; dashes where there is none."""
    from proxy_eval.planner import cost

    if design is None:
        return "none", "-", "-", "-", "-"
    price = cost(design)
    rung = f"{design.rung.name} x {design.rung.tokens:,} tokens"
    return rung, design.seeds, price.runs, f"{price.hours:,.2f}", f"{price.money:,.2f}"


def plan_json(plan: Plan) -> dict[str, object]:
    """A plan as plain data."""
    from dataclasses import asdict

    return {
        "experiment": plan.experiment.model_dump(mode="json"),
        "experiment_sha256": plan.experiment.sha256,
        "arms": [arm_json(plan, arm) for arm in plan.arms],
        "rungs": [rung_json(plan, rung) for rung in plan.rungs],
        "cost": asdict(plan.cost),
        "cheapest": [{"effect": size, **design_json(design)} for size, design in plan.cheapest.items()],
        "notes": plan.notes,
    }


def arm_json(plan: Plan, arm: ArmPlan) -> dict[str, object]:
    """What an arm reads, what it changes, and its price."""
    from dataclasses import asdict

    return {
        "name": arm.name,
        "kind": arm.kind,
        "mask": arm.said,
        "rule_in": "base" if arm.in_base else "arm",
        "reads": asdict(arm.reads),
        "changes": asdict(arm.changes),
        "read_changes": changes_json(plan, arm),
        "cost": asdict(plan.arm_cost(arm.name)),
    }


def rung_json(plan: Plan, rung: RungPlan) -> dict[str, object]:
    """How a rung is trained, what is expected of it, what it sees, and its price."""
    from dataclasses import asdict

    from proxy_eval.planner import curve_radius

    expected = rung.design.rung
    return {
        "name": rung.name,
        "learning_rates": rung.rates,
        "calibrated": rung.calibrated,
        "seeds": rung.said.seeds,
        "control_seeds": rung.design.control_seeds,
        "sources": rung.expected.sources,
        "noise": math.sqrt(float(expected.noise.value)),
        "gain": expected.gain,
        "rho": expected.rho,
        "tokens_per_second": expected.tokens_per_second,
        "smallest_effect": rung.smallest,
        "garbage_power": plan.garbage_power(rung.design),
        "curve_radius": curve_radius(rung.design, rung.design),
        "cost": asdict(rung.cost),
    }


def design_json(design: Design | None) -> dict[str, object]:
    """The cheapest design for an effect; of an effect that none sees, that it has no rung."""
    from dataclasses import asdict

    from proxy_eval.planner import cost

    if design is None:
        return {"rung": None}
    rung = design.rung
    return {"rung": rung.name, "tokens": rung.tokens, "seeds": design.seeds, "cost": asdict(cost(design))}


def changes_json(plan: Plan, arm: ArmPlan) -> list[dict[str, float] | None]:
    """What runs read of what an arm changes, rung by rung; None of another view."""
    from dataclasses import asdict

    from infra.experiment_arms import seen
    from proxy_eval.experiment import CONTROL

    found = [seen(arm, plan.arm(CONTROL), rung.said.tokens) for rung in plan.rungs]
    return [None if one is None else asdict(one) for one in found]


def say_look(found: Results) -> None:
    """Print to stderr how far an experiment is, and what its last look decided."""
    now = found.rungs[-1]
    new = [arm for arm in found.arms if arm.look == now.looks and arm.rung == now.number]
    decided = "; ".join(visible(arm.says) for arm in new) or "nothing decided"
    print(
        f"{now.name}, look {now.looks} of {now.seeds}: rho {now.fixed.rho:.2f}, control "
        f"{'runs the seeds of the arms' if now.shared else f'runs {now.control_seeds} seeds'}; {decided}",
        file=sys.stderr,
    )
