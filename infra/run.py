"""A run: plan, process, pack, publish. Everything that was committed before is kept; only the rest is done.

`OUT/run.json` says what the folder holds; it is written last, and readers read it first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from filters.errors import OutputError, QuarantineBudgetExceeded
from infra.commit import FileEntry
from infra.dedup import check_shares, deduplicate, earlier_run
from infra.failpoints import failpoint
from infra.finish import OnStage, finish_stage
from infra.packing import Totals, part_tasks, runs_of, sample_tasks, sampled_run, totals
from infra.plan import Plan
from infra.rollup import Rollup, Segments, TaskOutcome, outcomes, rollup_from, rollup_json
from infra.runner import Runner
from infra.store import open_store
from infra.stored import Store, read_decoded, usable
from infra.work import KINDS, PACK, PROCESS, PackTask, Report, published_schemas
from pipelines.accounts import Accounts
from pipelines.dedup.step import Dedup
from pipelines.pack import dataset_sha256, parts
from pipelines.process import TaskOptions
from pipelines.recipe import Recipe

RUN_FILE = "run.json"
RUN_FORMAT = 5
"""Of `run.json` and of what lies below `_work/`."""
# A run fails loudly above max(20 documents, 0.1 %) quarantined: docs/design.md, Poison.
QUARANTINE_DOCUMENTS, QUARANTINE_FRACTION = 20, 0.001

TASK_OPTIONS = ("dump", "dropped_samples", "annotate", "all_signals")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What one run made: the whole account, the packed files by kind, the dataset's hash, how many tasks it did now.

    `dedup` is what its dedup step counted, empty where it has none; `against` the earlier runs that it looked at.
    """

    store: Store
    recipe: Recipe
    options: TaskOptions
    accounts: Accounts
    files: Mapping[str, tuple[FileEntry, ...]]
    dataset_sha256: str
    rollup: Rollup
    dedup: Mapping[str, Any]
    against: tuple[str, ...]
    done_now: int
    done_before: int

    @property
    def outcomes(self) -> Iterator[TaskOutcome]:
        """What is committed for each task, in order."""
        return outcomes(self.store, self.rollup)


def over_budget(accounts: Accounts) -> int:
    """By how many documents the quarantine is over its budget; 0 where it is not."""
    quarantined = sum(accounts.quarantined.values())
    return max(0, quarantined - max(QUARANTINE_DOCUMENTS, int(QUARANTINE_FRACTION * accounts.documents)))


def run_plan(
    plan: Plan,
    store: Store,
    options: TaskOptions,
    runner: Runner,
    *,
    report: Report,
    on_stage: OnStage,
    allow_quarantined: bool = False,
    allow_emptied: bool = False,
    against: Sequence[str] = (),
) -> Finished:
    """Do what the plan has left to do, pack, and publish into `store`.

    Raises QuarantineBudgetExceeded before packing where too many documents were quarantined, SourceEmptied where dedup
    takes nearly all of a source, the first error of a task, and OutputError.
    """
    rollup, done_now = process_stage(store, plan, runner, report=report, on_stage=on_stage)
    made = pack_and_publish(
        store,
        rollup,
        options,
        runner,
        report=report,
        on_stage=on_stage,
        allow_quarantined=allow_quarantined,
        allow_emptied=allow_emptied,
        against=against,
    )
    return replace(made, done_now=done_now, done_before=rollup.tasks - done_now)


def pack_and_publish(
    store: Store,
    rollup: Rollup,
    options: TaskOptions,
    runner: Runner,
    *,
    report: Report,
    on_stage: OnStage,
    allow_quarantined: bool,
    allow_emptied: bool,
    against: Sequence[str],
) -> Finished:
    """Deduplicate where the recipe asks for it, pack what the tasks of the roll-up made, and publish it.

    Raises QuarantineBudgetExceeded, SourceEmptied and OutputError.
    """
    accounts = totals(outcomes(store, rollup), ()).accounts.checked("the run")
    if (excess := over_budget(accounts)) and not allow_quarantined:
        raise QuarantineBudgetExceeded(
            f"{sum(accounts.quarantined.values()):,} of {accounts.documents:,} documents were quarantined, {excess:,} "
            f"over the budget: {dict(accounts.quarantined)}. What was decided is committed: the same command with "
            "--allow-quarantined packs it, and `gristmill retry` can then decide the quarantined ones again."
        )
    if (step := options.recipe.step(Dedup)) is not None:
        earlier = [earlier_run(read_run(open_store(url)), step) for url in against]
        found = deduplicate(store, rollup, step, runner, earlier=earlier, report=report, on_stage=on_stage)
        if not allow_emptied:
            check_shares(store, found.shares, step.alarm)
        rollup, dedup = found.rollup, found.says
    else:
        dedup = {}
    whole = totals(outcomes(store, rollup), published_schemas(options))
    accounts = whole.accounts.checked("the run")
    files = pack(store, rollup, whole, options, runner, report=report, on_stage=on_stage)
    made = publish(
        Finished(
            store=store,
            recipe=options.recipe,
            options=options,
            accounts=accounts,
            files=files,
            dataset_sha256=dataset_sha256((PurePosixPath(entry.path).name, entry.sha256) for entry in files["dataset"]),
            rollup=rollup,
            dedup=dedup,
            against=tuple(against),
            done_now=0,
            done_before=rollup.tasks,
        )
    )
    with usable(store.url):
        failpoint("run.ended")
    return made


def process_stage(store: Store, plan: Plan, runner: Runner, *, report: Report, on_stage: OnStage) -> tuple[Rollup, int]:
    """Do the process tasks that have no manifest; return the roll-up of all, and how many those were."""
    ids = [task.id for task in plan.tasks]
    segments = Segments(store, ids)
    before = segments.done_before()
    todo = [task for task, known in zip(plan.tasks, ids, strict=True) if known not in before]
    on_stage(PROCESS, len(ids), len(ids) - len(todo))
    for manifest in runner.run(todo, report):
        report(manifest.task, manifest.accounts, True)
        segments.add(manifest)
    return segments.rollup(), len(todo)


def pack(
    store: Store,
    rollup: Rollup,
    whole: Totals,
    options: TaskOptions,
    runner: Runner,
    *,
    report: Report,
    on_stage: OnStage,
) -> dict[str, tuple[FileEntry, ...]]:
    """Pack the rows of all tasks into parts, and return the committed files by kind, in order."""

    def packed(tasks: Iterable[PackTask], count: int) -> list[tuple[str, FileEntry]]:
        """The kind and the file of each of these tasks, in their order."""
        order: list[tuple[str, str]] = []

        def noted() -> Iterator[PackTask]:
            for task in tasks:
                order.append((task.kind, task.id))
                yield task

        made = finish_stage(store, PACK, noted(), count, runner, report=report, on_stage=on_stage)
        return [(kind, entry) for kind, task in order for entry in made[task].files.values()]

    samples = options.dropped_samples
    cut = {
        kind: parts(*weight, target_bytes=options.recipe.target_bytes)
        for kind, weight in whole.weights.items()
        if kind != "dropped" or samples is None
    }
    schemas = published_schemas(options)
    tasks = chain.from_iterable(
        part_tasks(store, kind, schemas[kind], found, runs_of(store, kind, outcomes(store, rollup)))
        for kind, found in cut.items()
    )
    files: dict[str, list[FileEntry]] = {kind: [] for kind in schemas}
    for kind, entry in packed(tasks, sum(map(len, cut.values()))):
        files[kind].append(entry)
    if samples is not None:
        files["dropped"] = sampled(store, rollup, samples, packed)
    return {kind: tuple(entries) for kind, entries in files.items()}


def sampled(
    store: Store, rollup: Rollup, limit: int, packed: Callable[[Iterable[PackTask], int], list[tuple[str, FileEntry]]]
) -> list[FileEntry]:
    """One file of the dropped rows of smallest key for each rule: drawn from groups of files, then from the samples."""
    tasks = list(sample_tasks(store, runs_of(store, "dropped", outcomes(store, rollup)), limit))
    while len(entries := [entry for _, entry in packed(tasks, len(tasks))]) > 1:
        tasks = list(sample_tasks(store, (sampled_run(store, entry) for entry in entries), limit))
    return entries


def publish(made: Finished) -> Finished:
    """Show the packed files under their names, then write run.json. Done again from the start after any failure.

    Where all of that is there already, nothing is touched: readers of the folder see no gap.
    """
    files, pairs = {}, {}
    for kind, entries in made.files.items():
        shown = [replace(entry, path=f"{kind}/{PurePosixPath(entry.path).name}") for entry in entries]
        files[kind] = tuple(shown)
        pairs[kind] = [(entry.path, PurePosixPath(entry.path).name) for entry in entries]
    made = replace(made, files=files)
    said = (json.dumps(run_json(made), indent=1, sort_keys=True) + "\n").encode()
    if is_published(made, said):
        return made
    made.store.remove([RUN_FILE])
    with usable(made.store.url):
        failpoint("publish.begun")
    for kind in files:
        made.store.show(kind, pairs[kind])
    # What an earlier run of other options published is no part of this one.
    made.store.remove([one.name for kind in KINDS if kind not in files for one in made.store.listed(kind, "part-")])
    with usable(made.store.url):
        failpoint("publish.shown")
    made.store.replace(RUN_FILE, said)
    return made


def is_published(made: Finished, said: bytes) -> bool:
    """True where run.json says just this, and the files that it names are there with their bytes counted."""
    try:
        if made.store.read(RUN_FILE) != said:
            return False
    except FileNotFoundError:
        return False
    found = {one.name: one.bytes for kind in made.files for one in made.store.listed(kind)}
    others = any(True for kind in KINDS if kind not in made.files for _ in made.store.listed(kind, "part-"))
    return not others and all(
        found.get(entry.path) == entry.bytes for entries in made.files.values() for entry in entries
    )


def run_json(made: Finished) -> dict[str, Any]:
    """What `run.json` holds."""
    return {
        "format": RUN_FORMAT,
        "recipe": made.recipe.model_dump(mode="json"),
        "recipe_sha256": made.recipe.sha256,
        "dump": made.options.dump,
        "dropped_samples": made.options.dropped_samples,
        "annotate": made.options.annotate,
        "all_signals": made.options.all_signals,
        "accounts": made.accounts.as_json(),
        "files": {kind: [asdict(entry) for entry in entries] for kind, entries in made.files.items()},
        "dataset_sha256": made.dataset_sha256,
        "rollup": rollup_json(made.rollup),
        "dedup": made.dedup,
        "against": list(made.against),
    }


def read_run(store: Store) -> Finished:
    """Return what a folder says that it holds. Raises OutputError where no run has finished there."""
    try:
        said = read_decoded(store, RUN_FILE, json.loads)
    except FileNotFoundError:
        raise OutputError(
            f"{store.url}: no finished run ({RUN_FILE} is not there). Run the same `gristmill run` again to end it."
        ) from None
    if not isinstance(said, dict) or said.get("format") != RUN_FORMAT:
        raise OutputError(f"{store.url}: made by another version of gristmill. Run again into an empty folder.")
    recipe = Recipe.model_validate(said["recipe"])
    rollup = rollup_from(said["rollup"])
    return Finished(
        store=store,
        recipe=recipe,
        options=TaskOptions(recipe=recipe, **{name: said[name] for name in TASK_OPTIONS}),
        accounts=Accounts(**said["accounts"]),
        files={kind: tuple(FileEntry(**entry) for entry in entries) for kind, entries in said["files"].items()},
        dataset_sha256=said["dataset_sha256"],
        rollup=rollup,
        dedup=said["dedup"],
        against=tuple(said["against"]),
        done_now=0,
        done_before=rollup.tasks,
    )
