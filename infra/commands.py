"""What the commands do, as functions: the command line and a notebook call the same."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from filters.errors import InputError, RecipeError
from infra.dedup import earlier_run
from infra.demo_crawl import build_demo_crawl
from infra.finish import finish_stage
from infra.look import rows_of, slices_of
from infra.plan import TASK_BYTES, Plan, make_plan, place, whole
from infra.progress import Progress, clock_time
from infra.rollup import TaskOutcome, with_retries
from infra.run import Finished, pack_and_publish, read_run, run_plan
from infra.runner import Runner, make_runner
from infra.store import open_store
from infra.stored import Store
from infra.work import CUT, RETRY, CutTask, RetryTask, file_of
from pipelines.accounts import Accounts
from pipelines.decide import Decider, check_here
from pipelines.dedup.lines import Lines
from pipelines.dedup.step import Dedup
from pipelines.langid import labels
from pipelines.process import TaskOptions
from pipelines.read import read_slice
from pipelines.recipe import Extract, Language, Recipe, known, load_recipe
from pipelines.record import Event, Page, Position, Refused, Source, Unreadable
from pipelines.schema import ORDER, read_table
from pipelines.sources import cut
from pipelines.yaml_data import nearest


def check_recipe(recipe: Recipe, *, all_signals: bool = False) -> None:
    """Raise unless what the recipe names is here: its models and filters, and the languages that its model knows."""
    check_here(recipe, all_signals=all_signals)
    language = recipe.step(Language)
    if isinstance(language, Language):
        names = labels(language.model)
        for name in language.keep:
            if name not in names:
                raise RecipeError(f"{recipe.name}: {language.model} knows no language {name!r}{nearest(name, names)}")


def run_recipe(
    recipe: Recipe,
    inputs: Sequence[str],
    out: str | Path,
    *,
    runner: str = "ray",
    address: str | None = None,
    allow_unauthenticated: bool = False,
    task_seconds: float | None = None,
    workers: int | None = None,
    limit: int | None = None,
    dump: str | None = None,
    task_bytes: int = TASK_BYTES,
    dropped_samples: int | None = 100,
    annotate: bool = False,
    all_signals: bool = False,
    allow_quarantined: bool = False,
    allow_emptied: bool = False,
    against: Sequence[str] = (),
    quiet: bool = False,
    relative_to: Path | None = None,
    anonymous: bool = False,
    take_over: bool = False,
) -> Finished:
    """Plan and run; what `out`, a folder or a URL, has from before is kept. Raises the errors of `run_plan`."""
    store = open_store(out)
    if store.url.startswith("memory://") and runner != "inprocess":
        raise InputError(f"{store.url}: memory is not shared by workers. Use --runner inprocess.")
    if all_signals and not annotate:
        raise InputError("--all-signals asks what to store beside every document: it needs --annotate.")
    earlier = checked_against(against, recipe, out)
    options = TaskOptions(
        recipe=recipe, dump=dump, dropped_samples=dropped_samples, annotate=annotate, all_signals=all_signals
    )
    check_recipe(recipe, all_signals=all_signals)
    with (
        Progress(sys.stderr, quiet=quiet) as progress,
        store.locked(take_over=take_over),
        make_runner(
            runner,
            workers,
            address=address,
            allow_unauthenticated=allow_unauthenticated,
            task_seconds=task_seconds,
        ) as started,
    ):
        planned = make_plan(
            inputs,
            store,
            options,
            task_bytes=task_bytes,
            limit=limit,
            relative_to=relative_to,
            anonymous=anonymous,
            starts=lambda large: cut_starts(large, store, task_bytes, started, progress),
        )
        if not annotate and {"text", "signals"} & store.top():
            progress.say(
                "text/ and signals/ are of an earlier run with --annotate and will be taken away; that command shows "
                "them again without measuring anew"
            )
        progress.expect(planned.input_bytes)
        progress.say(f"{recipe.name}: {len(planned.sources):,} files, {planned.input_bytes:,} bytes -> {store.url}")
        return run_plan(
            planned,
            store,
            options,
            started,
            report=progress.report,
            on_stage=progress.stage,
            allow_quarantined=allow_quarantined,
            allow_emptied=allow_emptied,
            against=earlier,
        )


def checked_against(against: Sequence[str], recipe: Recipe, out: str | Path) -> tuple[str, ...]:
    """The URLs of these earlier runs, in order. Raises InputError where one cannot be compared with, OutputError where
    it is no finished run.
    """
    step = recipe.step(Dedup)
    if against and step is None:
        raise InputError(f"--against: {recipe.name} has no dedup step. Add `- dedup: {{minhash: {{}}}}` at its end.")
    places = [place(open_store(one).url) for one in against]
    if place(open_store(out).url) in places or len(set(places)) < len(places):
        raise InputError(
            "--against names this --out, or one run twice. Name each earlier run once, and write elsewhere."
        )
    runs = [read_run(open_store(one)) for one in against]
    for made in runs:
        assert step is not None
        earlier_run(made, step)
    return tuple(made.store.url for made in runs)


def cut_starts(
    large: Sequence[Source], store: Store, task_bytes: int, runner: Runner, progress: Progress
) -> dict[str, list[int]]:
    """Where each of these files may be cut, by path: a stage of its own, committed as any other."""
    tasks = [CutTask(store=store, source=source, task_bytes=task_bytes) for source in large]
    if not tasks:
        return {}
    progress.say(
        f"{len(tasks):,} files are larger than a task: each is read through once more to find where to cut it "
        "(a larger --task-size spares that)"
    )
    made = finish_stage(store, CUT, tasks, len(tasks), runner, report=progress.report, on_stage=progress.stage)
    return {task.source.path: made[task.id].says["starts"] for task in tasks}


def run_demo(out: Path, *, runner: str, workers: int | None, quiet: bool) -> Finished:
    """Build the demo crawl in `out`/crawl and run `fineweb` on it into `out`/corpus."""
    crawl = out.absolute() / "crawl"
    crawl.mkdir(parents=True, exist_ok=True)
    build_demo_crawl(crawl)
    return run_recipe(
        load_recipe("fineweb"),
        ["crawl"],
        out / "corpus",
        runner=runner,
        workers=workers,
        task_bytes=1 << 20,
        relative_to=out.absolute(),
        quiet=quiet,
    )


def estimate(
    recipe: Recipe,
    inputs: Sequence[str],
    out: str | Path,
    *,
    workers: int | None,
    limit: int | None,
    task_bytes: int,
    pages: int,
    anonymous: bool = False,
) -> dict[str, Any]:
    """Plan, try the recipe on about `pages` pages spread over the input, and scale up. Writes nothing."""
    options = TaskOptions(recipe=recipe)
    # Walking large files to cut them is work of the run: here every file is one slice, and tasks are counted by bytes.
    check_recipe(recipe)
    store = open_store(out)
    planned = make_plan(inputs, store, options, task_bytes=1 << 62, limit=limit, anonymous=anonymous)
    slices = [one for task in planned.tasks for one in task.slices]
    chosen = slices[:: max(1, len(slices) // SAMPLED_SLICES)][:SAMPLED_SLICES]
    each = -(-pages // max(1, len(chosen)))
    seen = Accounts()
    seconds, measured = 0.0, 0
    with Decider(recipe) as decider:
        warm = WARM_PAGE | {"is_html": recipe.step(Extract) is not None}
        decider.decide([Page(**warm)])  # loads models, lists and kernels outside the clock
        for one in chosen:
            started = time.monotonic()
            decider.begin_file(one.source.path)
            events = list(until_pages(read_slice(one, recipe.read.options()), each))
            found = [event for event in events if isinstance(event, Page)]
            decided = decider.decide(found)
            seconds += time.monotonic() - started
            measured += len(found)
            seen = seen + Accounts(
                documents=sum(isinstance(event, Page | Refused) for event in events),
                kept=len(decided.kept),
                record_bytes=sum(
                    event.end - event.start if isinstance(event, Unreadable) else event.length for event in events
                ),
                characters=sum(len(decided.text[index]) for index in decided.kept),
            )
    read = [replace(one.source, size=one.end - one.start) for one in slices]
    lines = recipe.step(Lines)
    cuts = whole if lines is not None else lambda source: range(task_bytes, source.size, task_bytes)
    said = scaled(
        planned, len(cut(read, task_bytes, cuts)), seen, seconds / max(1, measured), workers or os.cpu_count() or 1
    )
    return said if lines is None else {**said, "window_bytes_per_worker": lines.memory}


SAMPLED_SLICES = 8
WARM_PAGE: dict[str, Any] = {
    "position": Position(offset=0),
    "length": 0,
    "record_id": "warm",
    "url": "https://example.com/",
    "date": "",
    "text": "<html><body><p>" + "This sentence warms what a page meets on its way. " * 20 + "</p></body></html>",
    "is_html": True,
    "digest": b"warm",
}


def until_pages(events: Iterable[Event], count: int) -> Iterator[Event]:
    """Events up to and with the page number `count`."""
    for event in events:
        yield event
        count -= isinstance(event, Page)
        if count == 0:
            return


def scaled(planned: Plan, tasks: int, seen: Accounts, seconds: float, workers: int) -> dict[str, Any]:
    """What the whole input will give, if it is like the sample. `seconds` are those of one page on one worker."""
    scale = planned.input_bytes / max(1, seen.record_bytes)
    documents = round(seen.documents * scale)
    characters = round(seen.characters * scale)
    return {
        "files": len(planned.sources),
        "tasks": tasks,
        "input_bytes": planned.input_bytes,
        "sampled_documents": seen.documents,
        "documents": documents,
        "kept": round(seen.kept * scale),
        "kept_fraction": round(seen.kept / max(1, seen.documents), 4),
        "pages_per_second_per_worker": round(1 / seconds, 1) if seconds else 0.0,
        "workers": workers,
        "time": clock_time(documents * seconds / workers),
        # zstd-3 leaves 36 % of English text, and text of a task is stored once before it is packed and once after.
        "dataset_bytes": round(0.36 * characters),
        "work_bytes": round(0.36 * characters) + DOCUMENT_ROW_BYTES * documents,
    }


# Bytes of one row of documents.parquet, measured on 3,618 real pages (docs/scale.md).
DOCUMENT_ROW_BYTES = 64


def shown_documents(
    made: Finished, *, dropped: str | None, quarantined: bool, skip: int, count: int
) -> list[dict[str, Any]]:
    """Rows to read: kept ones, or dropped or quarantined ones. Raises InputError where no rule has this name."""
    if dropped not in (None, "all"):
        try:
            known(str(dropped), [rule.name for rule in made.recipe.rules], "rule of this run")
        except ValueError as error:
            raise InputError(f"{error}. `gristmill inspect {made.store.url}` lists what dropped documents.") from error
    kind = "quarantined" if quarantined else "dataset" if dropped is None else "dropped"
    rows = rows_of(made, kind, rule=None if dropped == "all" else dropped)
    shown = list(islice(rows, skip, skip + count))
    return [{name: value.hex() if isinstance(value, bytes) else value for name, value in row.items()} for row in shown]


def retry_quarantined(
    out: str | Path,
    *,
    deadline_seconds: float,
    memory_bytes: int,
    runner: str,
    workers: int | None,
    quiet: bool,
    take_over: bool = False,
) -> Finished:
    """Decide the quarantined documents of a run again under these limits, and pack and publish anew.

    Documents that an earlier retry has decided, published or not, are not decided again. Raises InputError where the
    recipe has a `lines` step.
    """
    store = open_store(out)
    refuse_windows(read_run(store))  # and a folder without a run, before anything is written there
    with (
        Progress(sys.stderr, quiet=quiet) as progress,
        store.locked(take_over=take_over),
        make_runner(runner, workers) as started,
    ):
        made = read_run(store)
        made = replace(made, rollup=with_retries(store, made.rollup))
        options = replace(made.options, recipe=widened(made.recipe, deadline_seconds, memory_bytes))
        tasks = [task for one in made.outcomes if (task := retry_task(store, one, options)) is not None]
        progress.stage(RETRY, len(tasks), 0)
        for manifest in started.run(tasks, progress.report):
            progress.report(manifest.task, manifest.accounts, True)
        return pack_and_publish(
            store,
            with_retries(store, made.rollup),
            made.options,
            started,
            report=progress.report,
            on_stage=progress.stage,
            allow_quarantined=True,
            allow_emptied=True,
            against=made.against,
        )


def refuse_windows(made: Finished) -> None:
    """Raise InputError where documents of the run cannot be decided one by one."""
    if made.recipe.step(Lines) is not None:
        raise InputError(
            f"{made.store.url}: the recipe {made.recipe.name} has a step `lines`, and what a document loses depends on "
            "those before it in its file: single documents cannot be decided again. Write wider `limits` into the "
            "extract step of a recipe file and run that into another folder, or leave these documents quarantined "
            "(`gristmill run ... --allow-quarantined`)."
        )


def widened(recipe: Recipe, deadline_seconds: float, memory_bytes: int) -> Recipe:
    """The recipe with other limits for its parser; rules and texts stay what they are."""
    said = recipe.model_dump(mode="json")
    for step in said["steps"]:
        if step["extract"] is not None:
            limits = step["extract"]["limits"]
            limits |= {"deadline_seconds": deadline_seconds, "memory_bytes": memory_bytes}
    return Recipe.model_validate(said)


def retry_task(store: Store, outcome: TaskOutcome, options: TaskOptions) -> RetryTask | None:
    """The task that decides the quarantined documents of a process task again, or None where it has none."""
    rows = read_table(file_of(store, outcome.quarantined), columns=ORDER).to_pylist()
    if not rows:
        return None
    return RetryTask(
        store=store,
        of=outcome.task,
        level=len(outcome.retries) + 1,
        slices=slices_of(store, outcome.task),
        options=options,
        positions=tuple((row["file_path"], Position(offset=row["offset"], inner=row["inner"])) for row in rows),
        documents=outcome.documents,
        quarantined=outcome.quarantined,
    )
