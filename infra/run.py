"""A run: plan, process, pack, publish. Everything that was committed before is kept; only the rest is done.

`OUT/run.json` says what the folder holds; it is written last, and readers read it first.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filters.errors import OutputError, QuarantineBudgetExceeded, VerifyFailed
from infra.commit import FileEntry, Manifest, committed, create_if_absent, read_manifest
from infra.plan import Plan
from infra.runner import Runner
from infra.work import PACK, PROCESS, RETRY, SCHEMAS, PackTask, Report, Task, identity
from pipelines.accounts import Accounts, total
from pipelines.pack import Run, dataset_sha256, part_runs, parts
from pipelines.process import TaskOptions
from pipelines.recipe import Recipe

RUN_FILE = "run.json"
ROLLUPS = Path("_work/rollups")
# A run fails loudly above max(20 documents, 0.1 %) quarantined: docs/design.md, Poison.
QUARANTINE_DOCUMENTS, QUARANTINE_FRACTION = 20, 0.001


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What one run made: the whole account, the packed files by kind, the dataset's hash, how many tasks it did now."""

    out: Path
    recipe: Recipe
    options: TaskOptions
    accounts: Accounts
    files: Mapping[str, tuple[FileEntry, ...]]
    dataset_sha256: str
    rollup: str
    done_now: int
    done_before: int


def over_budget(accounts: Accounts) -> int:
    """By how many documents the quarantine is over its budget; 0 where it is not."""
    quarantined = sum(accounts.quarantined.values())
    return max(0, quarantined - max(QUARANTINE_DOCUMENTS, int(QUARANTINE_FRACTION * accounts.documents)))


def run_plan(
    plan: Plan,
    out: Path,
    options: TaskOptions,
    runner: Runner,
    *,
    report: Report,
    on_stage: Callable[[str, int, int], None],
    allow_quarantined: bool = False,
) -> Finished:
    """Do what the plan has left to do, pack, and publish into `out`.

    `on_stage` is told a stage's name, its tasks, and how many of them were done before. Raises QuarantineBudgetExceeded
    before packing where too many documents were quarantined, the first error of a task, and OutputError.
    """
    done_now = finish_stage(out, PROCESS, plan.tasks, runner, report=report, on_stage=on_stage)
    processed = [task_outcome(out, task.id) for task in plan.tasks]
    accounts = total(one.accounts for one in processed).checked("the run")
    if (excess := over_budget(accounts)) and not allow_quarantined:
        raise QuarantineBudgetExceeded(
            f"{sum(accounts.quarantined.values()):,} of {accounts.documents:,} documents were quarantined, {excess:,} "
            f"over the budget: {dict(accounts.quarantined)}. What was decided is committed: the same command with "
            "--allow-quarantined packs it, and `gristmill retry` can then decide the quarantined ones again."
        )
    files = pack(out, processed, options, runner, report=report, on_stage=on_stage)
    rollup = write_rollup(out, [one.task for one in processed], [retry for one in processed for retry in one.retries])
    return publish(
        Finished(
            out=out,
            recipe=options.recipe,
            options=options,
            accounts=accounts,
            files=files,
            dataset_sha256=dataset_sha256((Path(entry.path).name, entry.sha256) for entry in files["dataset"]),
            rollup=rollup,
            done_now=done_now,
            done_before=len(plan.tasks) - done_now,
        )
    )


def finish_stage(
    out: Path,
    stage: str,
    tasks: Sequence[Task],
    runner: Runner,
    *,
    report: Report,
    on_stage: Callable[[str, int, int], None],
) -> int:
    """Do the tasks of a stage that have no manifest, and return how many those were."""
    before = committed(out, stage)
    todo = [task for task in tasks if task.id not in before]
    on_stage(stage, len(tasks), len(tasks) - len(todo))
    for manifest in runner.run(todo, report):
        report(manifest.task, manifest.accounts)
    return len(todo)


@dataclass(frozen=True, kw_only=True)
class TaskOutcome:
    """A process task with its retries, by level: the files in force, and the account of all."""

    task: str
    retries: tuple[str, ...]
    kept: tuple[FileEntry, ...]
    dropped: tuple[FileEntry, ...]
    documents: FileEntry
    quarantined: FileEntry
    losses: FileEntry
    accounts: Accounts


def task_outcome(out: Path, task: str) -> TaskOutcome:
    """What is committed for a process task. A retry adds kept and dropped rows and replaces the two other files."""
    base = read_manifest(out, PROCESS, task)
    retries = retries_of(out, task)
    manifests = [base, *retries]
    return TaskOutcome(
        task=task,
        retries=tuple(retry.task for retry in retries),
        kept=tuple(manifest.files["kept"] for manifest in manifests),
        dropped=tuple(manifest.files["dropped"] for manifest in manifests),
        documents=manifests[-1].files["documents"],
        quarantined=manifests[-1].files["quarantined"],
        losses=base.files["losses"],
        accounts=total(manifest.accounts for manifest in manifests),
    )


def retries_of(out: Path, task: str) -> list[Manifest]:
    """The retries of a process task, in order of their levels."""
    stage = f"{RETRY}/{task}"
    return [read_manifest(out, stage, level) for level in sorted(committed(out, stage))]


def pack(
    out: Path,
    processed: Sequence[TaskOutcome],
    options: TaskOptions,
    runner: Runner,
    *,
    report: Report,
    on_stage: Callable[[str, int, int], None],
) -> dict[str, tuple[FileEntry, ...]]:
    """Pack the rows of all tasks into parts, and return the committed files by kind, in order."""
    planned = [
        *pack_tasks(out, "dataset", processed, options.recipe.target_bytes, None),
        *pack_tasks(out, "dropped", processed, options.recipe.target_bytes, options.dropped_samples),
        *pack_tasks(out, "quarantined", processed, options.recipe.target_bytes, None),
        *pack_tasks(out, "losses", processed, options.recipe.target_bytes, None),
    ]
    finish_stage(out, PACK, planned, runner, report=report, on_stage=on_stage)
    files: dict[str, tuple[FileEntry, ...]] = {kind: () for kind in SCHEMAS}
    for task in planned:
        (entry,) = read_manifest(out, PACK, task.id).files.values()
        files[task.kind] = (*files[task.kind], entry)
    return files


def packed_files(outcome: TaskOutcome, kind: str) -> tuple[FileEntry, ...]:
    """The files of a task whose rows are packed as this kind."""
    named = {"dataset": outcome.kept, "dropped": outcome.dropped}
    singles = {"quarantined": outcome.quarantined, "losses": outcome.losses}
    return named[kind] if kind in named else (singles[kind],)


# What a dropped or quarantined document counts for where parts are cut: about one page of text.
OTHER_ROW_BYTES = 4096


def pack_tasks(
    out: Path, kind: str, processed: Sequence[TaskOutcome], target_bytes: int, limit: int | None
) -> list[PackTask]:
    """The tasks that pack the rows of one kind; a sample of smallest keys is one task."""
    runs, content = [], []
    for one in processed:
        entries = packed_files(one, kind)
        rows = sum(entry.rows for entry in entries)
        characters = one.accounts.characters if kind == "dataset" else rows * OTHER_ROW_BYTES
        if rows:
            filled = tuple(entry for entry in entries if entry.rows)
            runs.append(Run(files=tuple(out / entry.path for entry in filled), rows=rows, characters=characters))
            content.append("+".join(entry.sha256 for entry in filled))
    if limit is not None:
        whole = tuple(runs)
        said = tuple(content)
        return [PackTask(out=out, kind=kind, index=0, runs=whole, skip=0, rows=-1, limit=limit, content=said)]
    tasks = []
    hashes = {run.files: sha256 for run, sha256 in zip(runs, content, strict=True)}
    for part in parts(runs, target_bytes=target_bytes):
        needed, skip = part_runs(runs, part)
        tasks.append(
            PackTask(
                out=out,
                kind=kind,
                index=part.index,
                runs=needed,
                skip=skip,
                rows=part.last - part.first,
                limit=None,
                content=tuple(hashes[run.files] for run in needed),
            )
        )
    return tasks


def prepare(out: Path) -> None:
    """Make `out`, or raise OutputError where it holds something that is not ours."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        strangers = [] if (out / "_work").is_dir() else [path.name for path in out.iterdir()]
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror}. Choose another --out.") from error
    if strangers:
        raise OutputError(
            f"{out} holds other things ({', '.join(sorted(strangers)[:3])}). Choose an empty folder for --out."
        )


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold `out` for one command at a time. Raises OutputError where another has it. A killed command holds nothing."""
    prepare(out)
    (out / "_work").mkdir(exist_ok=True)
    with (out / "_work" / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"{out}: another gristmill command works there. Wait for it, or choose another --out."
            ) from None
        yield


def write_rollup(out: Path, tasks: Sequence[str], retries: Sequence[str]) -> str:
    """Put the roll-up of the process stage, its tasks in order, and return its name."""
    said = json.dumps({"stage": PROCESS, "tasks": list(tasks), "retries": list(retries)}, indent=1).encode()
    name = str(ROLLUPS / f"{identity(list(tasks), list(retries))}.json")
    create_if_absent(out / name, said)
    return name


def publish(made: Finished) -> Finished:
    """Show the packed files under their names, then write run.json. Done again from the start after any failure."""
    (made.out / RUN_FILE).unlink(missing_ok=True)
    files: dict[str, tuple[FileEntry, ...]] = {}
    for kind, entries in made.files.items():
        folder = made.out / kind
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        shown = []
        for entry in entries:
            name = f"{kind}/{Path(entry.path).name}"
            os.link(made.out / entry.path, made.out / name)
            shown.append(replace(entry, path=name))
        files[kind] = tuple(shown)
    made = replace(made, files=files)
    partial = made.out / "_work" / RUN_FILE
    partial.write_text(json.dumps(run_json(made), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(made.out / RUN_FILE)
    return made


def run_json(made: Finished) -> dict[str, Any]:
    """What `run.json` holds."""
    return {
        "recipe": made.recipe.model_dump(mode="json"),
        "recipe_sha256": made.recipe.sha256,
        "dump": made.options.dump,
        "dropped_samples": made.options.dropped_samples,
        "accounts": made.accounts.as_json(),
        "files": {kind: [asdict(entry) for entry in entries] for kind, entries in made.files.items()},
        "dataset_sha256": made.dataset_sha256,
        "rollup": made.rollup,
    }


def read_run(out: Path) -> Finished:
    """Return what a folder says that it holds. Raises OutputError where no run has finished there."""
    path = out / RUN_FILE
    if not path.is_file():
        raise OutputError(
            f"{out}: no finished run ({RUN_FILE} is not there). Run the same `gristmill run` again to end it."
        )
    said = json.loads(path.read_bytes())
    recipe = Recipe.model_validate(said["recipe"])
    return Finished(
        out=out,
        recipe=recipe,
        options=TaskOptions(recipe=recipe, dump=said["dump"], dropped_samples=said["dropped_samples"]),
        accounts=Accounts(**said["accounts"]),
        files={kind: tuple(FileEntry(**entry) for entry in entries) for kind, entries in said["files"].items()},
        dataset_sha256=said["dataset_sha256"],
        rollup=said["rollup"],
        done_now=0,
        done_before=len(rollup_tasks(out, said["rollup"])),
    )


def rollup_tasks(out: Path, rollup: str) -> list[str]:
    """Ids of the process tasks of a roll-up, in order."""
    path = out / rollup
    if not path.is_file():
        raise VerifyFailed(f"{path} is gone. Run the same command again.")
    tasks: list[str] = json.loads(path.read_bytes())["tasks"]
    return tasks


def outcomes(made: Finished) -> Iterable[TaskOutcome]:
    """What is committed for each task of a finished run."""
    return (task_outcome(made.out, task) for task in rollup_tasks(made.out, made.rollup))
