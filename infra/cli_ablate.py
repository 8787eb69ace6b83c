"""`gristmill ablate`: what every rule is worth, with an interval and a price. Registered by `infra.cli`."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli_proxy import Device, DeviceOption, Stack
from infra.options import Address, Json, Quiet, TakeOver, TaskDeadline, Unauthenticated, Workers, plain_count
from infra.terminal import data, from_here, table, visible

if TYPE_CHECKING:
    from infra.experiment_arms import Volume
    from infra.experiment_plan import Plan
    from infra.experiment_results import Results
    from proxy_eval.experiment import Experiment
    from proxy_eval.planner import Cost


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
        experiment, out, recipe=recipe, pool=pool, panel=panel, tasks=tasks, size=size, tokens=tokens, seeds=seeds
    )
    from infra.experiment_results import plain
    from infra.experiments import plan_of, run_experiment

    plan = plan_of(said, out, device=device.value)
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
        on_look=lambda now: None if quiet else say_look(now),
    )
    if as_json:
        from dataclasses import asdict

        data(plain(asdict(found)))
    else:
        show_results(found)
        print(f"\nresults   {from_here(out)}/results.json")
    if found.faults:
        raise typer.Exit(1)


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
) -> Experiment:
    """The experiment in the file, or the one that `--recipe` asks for, which is written into `out` unless it is there.

    Raises typer.BadParameter unless just one of them is given, with what it needs.
    """
    from infra.experiments import WRITTEN, written_experiment
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
    new = store.create(WRITTEN, text.encode())
    print(f"{from_here(store.url)}/{WRITTEN} {'is written' if new else 'was there and is taken'}", file=sys.stderr)
    return parse_experiment(store.read(WRITTEN).decode(), where=f"{store.url}/{WRITTEN}")


def show_plan(plan: Plan, *, to_stdout: bool) -> None:
    """Print what a person reads before paying: to stderr where stdout is for data."""
    from contextlib import nullcontext, redirect_stdout

    with nullcontext() if to_stdout else redirect_stdout(sys.stderr):
        print_plan(plan)


def print_plan(plan: Plan) -> None:
    """Print arms with what they read and their yield, rungs with what they see and cost, and notes."""
    most = plan.rungs[-1].said.tokens
    columns = [("arm", "left"), ("rule in", "left"), ("documents", "right"), ("tokens", "right"), ("epochs", "right")]
    columns += [("rule removes alone", "right"), ("at all", "right"), ("reads", "left")]
    rows = [
        (
            visible(arm.name),
            "" if arm.kind in ("control", "same") else "base" if arm.in_base else "arm",
            arm.reads.documents,
            arm.reads.tokens,
            f"{arm.epochs(most):.2f}",
            share(arm.changes.alone),
            share(arm.changes.at_all),
            visible(arm.said),
        )
        for arm in plan.arms
    ]
    table(columns, rows)
    print()
    names = (
        "learning rate",
        "seeds",
        "control's",
        "noise",
        "gain x2",
        "rho",
        "sees",
        "runs",
        "tokens",
        "hours",
        "money",
    )
    table(
        [("rung", "left"), *((name, "right") for name in names)],
        [
            (
                rung.name,
                ", ".join(f"{rate:g}" for rate in rung.rates),
                rung.said.seeds,
                rung.design.control_seeds,
                f"{math.sqrt(float(rung.design.rung.noise.value)):.2g} ({rung.sources['noise']})",
                f"{rung.design.rung.gain:.2g} ({rung.sources['gain']})",
                f"{rung.design.rung.rho:.2f} ({rung.sources['rho']})",
                "nothing" if math.isinf(rung.smallest) else f"{rung.smallest:+.1%}",
                *cost_cells(rung.cost),
            )
            for rung in plan.rungs
        ],
    )
    experiment = plan.experiment
    total = plan.cost
    print(
        f"\nin all    {total.runs} runs at most, {total.tokens:,.0f} tokens, {total.hours:.2f} device hours, "
        f"{total.money:,.2f} at {experiment.price_per_hour:g} an hour; arms that are decided early cost less"
    )
    print(
        f"verdicts  {experiment.metric}, ROPE ±{experiment.rope:.1%} of the tokens; any of them wrong in "
        f"{experiment.error:.0%} of experiments, room for {experiment.budget.arms} arms; `sees`: with power 80 %"
    )
    if plan.wanted is not None and experiment.wanted is not None:
        best = plan.wanted
        print(
            f"cheapest  {experiment.wanted.effect:.1%} with power {experiment.wanted.power:.0%}: {best.rung.name}, "
            f"{best.rung.tokens:,} tokens, {best.seeds} seeds"
        )
    for note in plan.notes:
        print(f"note      {visible(note)}")


def share(volume: Volume | None) -> str:
    """Documents and tokens of a yield."""
    return "" if volume is None else f"{volume.documents:,} ({volume.tokens:,} tokens)"


def cost_cells(cost: Cost) -> tuple[object, ...]:
    """Runs, tokens, hours, money."""
    return cost.runs, f"{cost.tokens:,.0f}", f"{cost.hours:.2f}", f"{cost.money:,.2f}"


def plan_json(plan: Plan) -> dict[str, object]:
    """A plan as plain data."""
    from dataclasses import asdict

    return {
        "experiment": plan.experiment.model_dump(mode="json"),
        "experiment_sha256": plan.experiment.sha256,
        "arms": [
            {
                "name": arm.name,
                "kind": arm.kind,
                "mask": arm.said,
                "rule_in": "base" if arm.in_base else "arm",
                "reads": asdict(arm.reads),
                "changes": asdict(arm.changes),
            }
            for arm in plan.arms
        ],
        "rungs": [
            {
                "name": rung.name,
                "learning_rates": rung.rates,
                "calibrated": rung.calibration is not None,
                "seeds": rung.said.seeds,
                "control_seeds": rung.design.control_seeds,
                "sources": rung.sources,
                "noise": math.sqrt(float(rung.design.rung.noise.value)),
                "gain": rung.design.rung.gain,
                "rho": rung.design.rung.rho,
                "tokens_per_second": rung.design.rung.tokens_per_second,
                "smallest_effect": rung.smallest,
                "cost": asdict(rung.cost),
            }
            for rung in plan.rungs
        ],
        "cost": asdict(plan.cost),
        "notes": plan.notes,
    }


def say_look(found: Results) -> None:
    """Print to stderr how far an experiment is, and what its last look decided."""
    now = found.rungs[-1]
    new = [arm for arm in found.arms if arm.look == now.looks and arm.rung == now.number]
    decided = "; ".join(visible(arm.says) for arm in new) or "nothing decided"
    print(
        f"{now.name}, look {now.looks} of {now.seeds}: rho {now.fixed.rho:.2f}, control "
        f"{'shares the seeds' if now.shared else 'has seeds of its own'}; {decided}",
        file=sys.stderr,
    )


def show_results(found: Results) -> None:
    """Print the leaderboard, the placebos, what was predicted and what it took."""
    columns = [("arm", "left"), ("verdict", "left"), ("worth in tokens", "right"), ("low", "right"), ("high", "right")]
    columns += [("shrunk", "right"), ("gold", "right"), ("seeds", "right"), ("why", "left")]
    ranked = sorted(found.arms, key=lambda arm: -(arm.share.estimate or 0.0))
    table(
        columns,
        [
            (
                visible(arm.name),
                "void" if found.faults else arm.verdict,
                percent(arm.share.estimate),
                percent(arm.share.low),
                percent(arm.share.high),
                percent(None if arm.shrunk is None or math.isnan(arm.shrunk) else 2**arm.shrunk - 1),
                "" if arm.gold.estimate is None else f"{arm.gold.estimate:+.4f}",
                arm.seeds,
                arm.reason,
            )
            for arm in (*ranked, *found.placebos)
        ],
    )
    for fault in found.faults:
        print(f"\nVOID      {visible(fault)}")
    planned, actual = found.planned, found.actual
    print(
        f"\ncost      {actual.runs} runs, {actual.hours:.2f} device hours, {actual.money:,.2f}; planned at most "
        f"{planned.runs} runs, {planned.hours:.2f} hours, {planned.money:,.2f}"
    )
    for rung in found.rungs:
        print(f"noise     {rung.name}: rho {rung.fixed.rho:.2f}, run {math.sqrt(rung.fixed.noise):.2g}, gain "
              f"{rung.fixed.gain:.2g} by twice the tokens")  # fmt: skip


def percent(value: float | None) -> str:
    """A share for a person; a dash where it is not bounded."""
    return "-" if value is None else f"{value:+.1%}"
