"""The command line: thin over the library. Data on stdout, progress and errors on stderr.

Exit codes: 0 ok, 1 failed, 2 usage, 3 over the quarantine budget or a source emptied, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from filters.errors import GristmillError, InputError, QuarantineBudgetExceeded, RecipeError, SourceEmptied
from filters.rule import Rule
from infra import (
    cli_ablate,
    cli_clusters,
    cli_compare,
    cli_dedup,
    cli_export,
    cli_jobs,
    cli_proxy,
    cli_scores,
    cli_signals,
    cli_thresholds,
)
from infra.ending import ending_on_sigterm, interrupts_repeated
from infra.options import (
    Address,
    Against,
    AllowEmptied,
    AllowQuarantined,
    AllSignals,
    Annotate,
    Anonymous,
    DroppedSamples,
    Dump,
    Inputs,
    Json,
    Limit,
    Out,
    OutOption,
    Quiet,
    RecipeName,
    RunnerName,
    RunnerOption,
    TakeOver,
    TaskDeadline,
    TaskSize,
    Unauthenticated,
    Workers,
    byte_count,
    dropped_count,
)
from infra.terminal import data, from_here, print_documents, print_rules, table, visible

app = typer.Typer(
    name="gristmill",
    help="Crawled pages in, a pretraining corpus out, and for every filter rule what it is worth.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; every error that Gristmill raises on purpose becomes one message and an exit code.

    A request to end (SIGTERM) is met as an interrupt is: what was begun is abandoned, what is committed stays.
    """
    try:
        with ending_on_sigterm(), interrupts_repeated():
            app()
    except (QuarantineBudgetExceeded, SourceEmptied) as error:
        fail(error, 3)
    except (RecipeError, InputError) as error:
        fail(error, 2)
    except GristmillError as error:
        fail(error, 1)
    except SystemExit as end:
        if end.code == 130:
            print("interrupted; what was committed is kept, and the same command continues", file=sys.stderr)
        raise


def fail(error: GristmillError, code: int) -> None:
    """Print an error for a person and exit."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        Text("error: ", style="bold red"), Text(visible(str(error)))
    )
    raise SystemExit(code)


@app.command()
def run(
    recipe: RecipeName,
    input: Inputs,
    out: OutOption,
    runner: RunnerOption = RunnerName.ray,
    workers: Workers = None,
    limit: Limit = None,
    dump: Dump = None,
    task_size: TaskSize = "256MiB",
    dropped: DroppedSamples = "100",
    annotate: Annotate = False,
    all_signals: AllSignals = False,
    allow_quarantined: AllowQuarantined = False,
    allow_emptied: AllowEmptied = False,
    against: Against = None,
    anonymous: Anonymous = False,
    address: Address = None,
    allow_unauthenticated_cluster: Unauthenticated = False,
    task_deadline: TaskDeadline = 6.0,
    take_over: TakeOver = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make a corpus: run a recipe over crawled pages and write Parquet.

    Run it again to continue what was interrupted.
    """
    from infra.commands import run_recipe
    from pipelines.recipe import load_recipe

    made = run_recipe(
        load_recipe(recipe),
        input,
        out,
        runner=runner.value,
        workers=workers,
        limit=limit,
        dump=dump,
        task_bytes=byte_count(task_size),
        dropped_samples=dropped_count(dropped),
        annotate=annotate,
        all_signals=all_signals,
        allow_quarantined=allow_quarantined,
        allow_emptied=allow_emptied,
        against=against or (),
        anonymous=anonymous,
        address=address,
        allow_unauthenticated=allow_unauthenticated_cluster,
        task_seconds=3600 * task_deadline,
        take_over=take_over,
        quiet=quiet,
    )
    report_run(made, as_json=as_json)


def report_run(made: Any, *, as_json: bool) -> None:
    """Say what a run made and what to type next."""
    if as_json:
        data({**made.accounts.funnel(), "dataset_sha256": made.dataset_sha256, "tasks_done_now": made.done_now})
        return
    show_funnel(made)
    size = sum(entry.bytes for entry in made.files["dataset"])
    out, me = from_here(made.store.url), from_here(sys.argv[0]) if "/" in sys.argv[0] else "gristmill"
    print(f"\ndataset   {out}/dataset  {len(made.files['dataset'])} part(s), {size:,} bytes")
    print(f"          sha256 {made.dataset_sha256}")
    print(f"dropped   {out}/dropped  samples, each with its rule and value")
    if made.options.annotate:
        text, signals = (sum(entry.bytes for entry in made.files[kind]) for kind in ("text", "signals"))
        print(f"text      {out}/text  every document that was not quarantined, {text:,} bytes")
        print(f"signals   {out}/signals  what was measured of it, {signals:,} bytes")
    print(f"\nnext      {me} show {out}")
    if made.accounts.dropped:
        print(
            f"          {me} show {out} --dropped {max(made.accounts.dropped, key=made.accounts.dropped.__getitem__)}"
        )
    if made.options.annotate:
        print(f"          {me} inspect {out} --rules")
        print(f"          {me} thresholds {out}")
    print(f"          {me} verify {out}")


def show_funnel(made: Any) -> None:
    """Print the funnel."""
    from infra.look import funnel_rows

    rows = funnel_rows(made)
    table(
        [("stage", "left"), ("reason", "left"), ("count", "right"), ("left", "right")],
        [(row.stage, row.reason, row.count, row.left) for row in rows],
    )
    accounts = made.accounts
    unreadable = sum(accounts.unreadable.values())
    print(f"\nbytes     {accounts.input_bytes:,} read, {unreadable:,} in no record {dict(accounts.unreadable) or ''}")
    print(f"kept      {accounts.tokens:,} tokens, {accounts.characters:,} characters")
    if accounts.gate:
        from infra.gate import gate_line

        print(f"gate      {gate_line(accounts.gate)}")


COMMANDS = (
    cli_jobs.submit,
    cli_jobs.jobs,
    cli_jobs.logs,
    cli_jobs.cancel,
    cli_jobs.resume,
    cli_signals.inspect,
    cli_signals.explain,
    cli_signals.whatif,
    cli_signals.diff,
    cli_thresholds.thresholds,
    cli_export.export,
    cli_dedup.dedup,
    cli_clusters.clusters,
    cli_proxy.pool,
    cli_proxy.train,
    cli_proxy.calibrate,
    cli_ablate.ablate,
    cli_compare.compare,
    cli_scores.score,
    cli_scores.export_model,
)
for command in COMMANDS:
    app.command(command.__name__.replace("_", "-"))(command)
app.add_typer(cli_scores.panel, name="panel")


@app.command()
def plan(
    recipe: RecipeName,
    input: Inputs,
    out: OutOption = "out",
    workers: Workers = None,
    limit: Limit = None,
    task_size: TaskSize = "256MiB",
    anonymous: Anonymous = False,
    pages: Annotated[int, typer.Option(min=1, help="Pages to try the recipe on.")] = 200,
    as_json: Json = False,
) -> None:
    """Say what a run would do: tasks, bytes, and from a small sample the yield, the time and the space it will take."""
    from infra.commands import estimate
    from pipelines.recipe import load_recipe

    said = estimate(
        load_recipe(recipe),
        input,
        out,
        workers=workers,
        limit=limit,
        task_bytes=byte_count(task_size),
        pages=pages,
        anonymous=anonymous,
    )
    if as_json:
        data(said)
    else:
        table([("", "left"), ("", "right")], [(name.replace("_", " "), value) for name, value in said.items()])


@app.command()
def show(
    out: Out,
    dropped: Annotated[str | None, typer.Option(help="Dropped documents of this rule (`all`: of every rule).")] = None,
    quarantined: Annotated[bool, typer.Option(help="Quarantined documents.")] = False,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")] = 5,
    skip: Annotated[int, typer.Option(min=0, help="How many to pass over first.")] = 0,
    as_json: Json = False,
) -> None:
    """Read documents. Control characters and hidden ones are made visible."""
    from infra.commands import shown_documents
    from infra.run import read_run
    from infra.store import open_store

    rows = shown_documents(read_run(open_store(out)), dropped=dropped, quarantined=quarantined, skip=skip, count=count)
    if as_json:
        data(rows)
    else:
        print_documents(rows)


@app.command()
def verify(out: Out, as_json: Json = False) -> None:
    """Check a finished run: every file's bytes, every account, the ledger counted row by row."""
    from infra.run import read_run
    from infra.store import open_store
    from infra.verify import verify as verified

    made = read_run(open_store(out))
    files = verified(made)
    if as_json:
        data({"ok": True, "files": files, "records": made.accounts.records, "dataset_sha256": made.dataset_sha256})
    else:
        print(f"ok: {files} files, {made.accounts.records:,} records and every byte accounted for")
        print(f"dataset sha256 {made.dataset_sha256}")


def rule_json(rule: Rule) -> dict[str, Any]:
    """A rule as plain data."""
    return {
        "rule": rule.name,
        "signal": rule.signal.name,
        "revision": rule.signal.revision,
        "kind": rule.signal.kind,
        "says": rule.signal.says,
        "bounds": rule.bounds,
        "paper": rule.paper.title,
        "url": rule.paper.url,
        "where": rule.paper.where,
    }


@app.command()
def retry(
    out: Out,
    quarantined: Annotated[bool, typer.Option(help="Decide the quarantined documents again.")] = False,
    deadline: Annotated[float, typer.Option(min=0.1, help="Parser CPU seconds for a page.")] = 120.0,
    memory: Annotated[str, typer.Option(help="Parser memory.")] = "8GiB",
    runner: RunnerOption = RunnerName.inprocess,
    workers: Workers = None,
    take_over: TakeOver = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Decide quarantined documents again under wider limits, and pack anew."""
    from infra.commands import retry_quarantined

    if not quarantined:
        raise typer.BadParameter("say what to retry: --quarantined")
    made = retry_quarantined(
        out,
        deadline_seconds=deadline,
        memory_bytes=byte_count(memory),
        runner=runner.value,
        workers=workers,
        quiet=quiet,
        take_over=take_over,
    )
    report_run(made, as_json=as_json)


@app.command()
def gc(
    out: Annotated[str, typer.Argument(help="An output folder or URL.", show_default=False)],
    older_than: Annotated[float, typer.Option(min=1.0, help="Hours since it was written.")] = 24.0,
    take_over: TakeOver = False,
    as_json: Json = False,
) -> None:
    """Remove what failed attempts left behind: files that are old and that no manifest names."""
    from infra.store import open_store
    from infra.verify import collect

    collected = collect(open_store(out), older_than=older_than * 3600, take_over=take_over)
    if as_json:
        data({"files": collected.files, "bytes": collected.bytes})
    else:
        print(f"removed {collected.files:,} files, {collected.bytes:,} bytes")


@app.command()
def recipes(
    show: Annotated[str | None, typer.Option(help="One recipe in full: steps, rules, bounds, citations.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="The JSON Schema of recipes, for editors.")] = False,
    as_json: Json = False,
) -> None:
    """List the recipes, or show one with every rule, bound, citation and deviation from its original."""
    from pipelines.recipe import ALIASES, Recipe, load_recipe, recipe_names

    if schema:
        data(Recipe.model_json_schema())
        return
    if show is None:
        said = {name: load_recipe(name).says for name in recipe_names()}
        if as_json:
            data({"recipes": said, "aliases": ALIASES})
            return
        table([("recipe", "left"), ("", "left")], said.items())
        for alias, name in ALIASES.items():
            print(f"\n{alias} is {name}")
        return
    recipe = load_recipe(show)
    if as_json:
        rules = [rule_json(rule) for rule in recipe.rules]
        data({**recipe.model_dump(mode="json"), "sha256": recipe.sha256, "rules": rules})
        return
    print(f"{recipe.name}\n{recipe.says}\nsha256 {recipe.sha256}\n\nDeviations from the original:")
    for deviation in recipe.deviations:
        print(f"- {deviation}")
    print("\nSteps:")
    for number, step in enumerate(recipe.steps, 1):
        name, value = next((name, value) for name, value in step.model_dump(mode="json").items() if value is not None)
        print(f"{number}. {name}: {json.dumps(value)}")
    print("\nRules, in order; the first that fails is the reason:")
    print_rules(recipe.rules)


@app.command()
def rules(family: Annotated[str | None, typer.Option(help="Only this family.")] = None, as_json: Json = False) -> None:
    """List every rule with its bounds and where they come from."""
    from filters import language, url
    from pipelines.entry_points import installed_families
    from pipelines.recipe import families, known

    added = {one.value.name: one.origin for one in installed_families()}
    named = {one.name: one.rules for one in families()}
    everything = {"url": url.RULES, "language": (language.GATED, language.EXTRACTED, language.IN_LANGUAGE), **named}
    if family is not None:
        try:
            known(family, tuple(everything), "family of rules")
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        everything = {family: everything[family]}
    if as_json:
        data(
            {
                name: [{**rule_json(rule), "from": added.get(name)} for rule in found]
                for name, found in everything.items()
            }
        )
        return
    for name, found in everything.items():
        print(f"\n{name}" + (f", from {added[name]}" if name in added else ""))
        print_rules(found)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine: packages, models, lists, isolation, space. Every fault comes with what to do."""
    from infra.doctor import checks

    found = checks()
    if as_json:
        data([{"check": one.name, "ok": one.ok, "says": one.says} for one in found])
    else:
        table(
            [("", "left"), ("check", "left"), ("", "left")], [("ok" if c.ok else "NO", c.name, c.says) for c in found]
        )
    if not all(one.ok for one in found):
        raise SystemExit(1)


@app.command()
def demo(
    out: OutOption = "demo",
    runner: RunnerOption = RunnerName.ray,
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Build a small crawl out of what is on this machine, and run `fineweb` on it. Needs no network.

    Where torch is installed, two small models are trained on part of it, with its rules and without, and scored.
    """
    from infra.commands import run_demo
    from infra.node import installed

    made = run_demo(Path(out), runner=runner.value, workers=workers, quiet=quiet)
    report_run(made, as_json=as_json)
    if installed("torch") is not None and not as_json:
        from infra.demo_proxies import demo_models

        print("\ntwo small models, on all of a part and on what the rules keep of it; on so little it shows nothing")
        cli_scores.show_panel(demo_models(Path(out) / "crawl", Path(out) / "proxies", quiet=quiet))


if __name__ == "__main__":
    main()
