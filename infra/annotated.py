"""What a run with `--annotate` has: its rules and their columns, its parts, and the command that measures it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from filters.errors import InputError, RecipeError
from infra.look import slices_of
from infra.run import Finished
from infra.signal_rows import Part, Ruled, readable
from pipelines.recipe import load_recipe
from pipelines.signals import rule_columns, signals_schema
from pipelines.sources import find_sources

PROCESS_ROWS = 500_000
"""Documents for each process at least: it takes half a second to start, in which this one counts half as many."""
PROCESS_VALUES = 10_000_000
"""Values to sort for each process at least: a second's work."""
SHOWN_INPUTS = 3
TASKS_ASKED = 16


def run_rules(made: Finished) -> Ruled:
    """The rules of the run's recipe with their columns."""
    return rule_columns(made.recipe)


def stored_schema(made: Finished) -> pa.Schema:
    """What `signals/` has. Raises InputError where the run kept no signals."""
    if not made.options.annotate:
        raise InputError(
            f"{made.store.url} has no signals/: its run dropped each document at the first rule that it failed. The "
            "same run, continued with --annotate, measures every rule on every document and keeps the numbers:\n  "
            + rerun_command(made, recipe_typed(made))
        )
    for part in parts(made):
        with readable(part), made.store.open(part.entry.path, part.entry.bytes) as raw:
            return pq.read_schema(raw)
    return signals_schema(made.recipe, all_signals=made.options.all_signals)


def recipe_typed(made: Finished) -> str:
    """What one types for the recipe of a run: its name where Gristmill has it still, else a stand-in for its file."""
    try:
        known = load_recipe(made.recipe.name).sha256 == made.recipe.sha256
    except RecipeError:
        known = False
    return made.recipe.name if known else "RECIPE.yaml"


def rerun_command(made: Finished, recipe: str, *, out: str | None = None, all_signals: bool = False) -> str:
    """The command that measures the inputs of a run again; `recipe` as one types it, `out` None: the same folder."""
    typed = typed_inputs(made)
    inputs = " ".join(f"-i {shlex.quote(one)}" for one in typed) or "-i INPUTS"
    command = f"gristmill run {shlex.quote(recipe)} {inputs} -o {shlex.quote(out or made.store.url)} --annotate"
    command += " --all-signals" if all_signals or made.options.all_signals else ""
    return command if typed else f"{command}\n  (INPUTS: the same as for this run)"


def typed_inputs(made: Finished) -> list[str]:
    """The inputs of a run as one would type them: its files where they are few, or the folder that has these files and
    no others; empty where it takes more to say.
    """
    if made.rollup.tasks > TASKS_ASKED:
        return []
    slices = (one for outcome in made.outcomes for one in slices_of(made.store, outcome.task))
    paths = list(dict.fromkeys(one.source.path for one in slices))
    if len(paths) <= SHOWN_INPUTS:
        return paths
    folder = paths[0].rpartition("/")[0]
    while folder and not all(path.startswith(f"{folder}/") for path in paths):
        folder = folder.rpartition("/")[0]
    if not folder or "://" in folder:
        return []
    try:
        there = [source.path for source in find_sources([folder])]
    except InputError:  # typed in another working folder, or gone
        return []
    return [folder] if sorted(there) == sorted(paths) else []


def parts(made: Finished) -> Iterator[Part]:
    """The parts of `signals/` in order."""
    return (Part(store=made.store, entry=entry) for entry in made.files["signals"])


def documents_in(made: Finished) -> int:
    """Documents that have a row in `signals/`."""
    return sum(entry.rows for entry in made.files["signals"])


def processes_for(runs: Sequence[Finished], workers: int, *, values: int = 0) -> int:
    """How many processes are worth their start, of at most `workers`: to read the parts of these runs one run after the
    other, and to sort so many values.
    """
    if any(one.store.url.startswith("memory:") for one in runs):  # which processes do not share
        return 1
    reading = max(min(len(one.files["signals"]), documents_in(one) // PROCESS_ROWS) for one in runs)
    return max(1, min(workers, max(reading, values // PROCESS_VALUES)))
