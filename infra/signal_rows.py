"""The rows of `signals/`, read again: what rules say of them, with the bounds of the run or with others.

Everything goes row group by row group and reads only the columns it needs: memory is that of 10,000 documents.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from filters.errors import InputError, RecipeError, VerifyFailed
from filters.rule import Bools, Floats, Rule
from infra.commit import FileEntry
from infra.look import slices_of
from infra.run import Finished
from pipelines.recipe import load_recipe
from pipelines.signals import rule_columns, signals_schema, values_of
from pipelines.sources import find_sources

Ruled = tuple[tuple[Rule, str], ...]
"""Rules in the order in which the first that fails is the reason, each with the column that it bounds."""
Ints = npt.NDArray[np.int64]

UNITS = ("documents", "characters", "tokens")
WEIGHTS = ("characters", "token_count")
"""The columns of the last two."""
SHOWN_INPUTS = 3
TASKS_ASKED = 16


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Documents, and the characters and tokens of their raw texts; `tokens` None where the run counted none."""

    documents: int
    characters: int
    tokens: int | None


def volume(counts: Iterable[float], *, tokens: bool) -> Volume:
    """Three counts in the order of UNITS as a volume."""
    documents, characters, found = (int(count) for count in counts)
    return Volume(documents=documents, characters=characters, tokens=found if tokens else None)


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
    for entry in made.files["signals"]:
        with readable(made, entry), made.store.open(entry.path, entry.bytes) as raw:
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


def groups(made: Finished, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The row groups of `signals/` in order, of these columns."""
    for entry in made.files["signals"]:
        with readable(made, entry), made.store.open(entry.path, entry.bytes) as raw, pq.ParquetFile(raw) as file:
            for group in range(file.num_row_groups):
                # A column is found by its name or, where it is a struct, by its name before a dot: both ask for all.
                yield file.read_row_group(group, columns=list(columns)).select(list(dict.fromkeys(columns)))


@contextmanager
def readable(made: Finished, entry: FileEntry) -> Iterator[None]:
    """Turn what Arrow says of a damaged file into VerifyFailed naming it."""
    try:
        yield
    except pa.ArrowInvalid as error:
        raise VerifyFailed(
            f"{made.store.url}/{entry.path} cannot be read ({error}). `gristmill verify` says whether it is what was "
            "committed; the same run with --annotate makes it anew."
        ) from error


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdicts:
    """What rules say of some documents. Rows are rules, columns are documents.

    A document that has no text was measured by the rules before its text alone: it fails none of the others.
    """

    values: Floats
    measured: Bools
    failed: Bools

    @cached_property
    def failing(self) -> npt.NDArray[np.intp]:
        """How many rules each document fails."""
        found: npt.NDArray[np.intp] = self.failed.sum(axis=0)
        return found

    @cached_property
    def whole(self) -> Bools:
        """True where every rule was measured."""
        found: Bools = np.logical_and.reduce(self.measured, axis=0)
        return found

    @cached_property
    def first(self) -> npt.NDArray[np.intp]:
        """The first rule that each document fails; -1 for none."""
        if not len(self.failed):
            return np.full(self.failed.shape[1], -1, np.intp)  # argmax of nothing is an error
        found: npt.NDArray[np.intp] = np.where(self.failing > 0, self.failed.argmax(axis=0), -1)
        return found

    @cached_property
    def alone(self) -> Bools:
        """True where just one rule is failed, and every rule was measured."""
        found: Bools = (self.failing == 1) & self.whole
        return found

    @cached_property
    def kept(self) -> Bools:
        """True where every rule was measured and passed."""
        found: Bools = (self.failing == 0) & self.whole
        return found


def verdicts(table: pa.Table, ruled: Ruled) -> Verdicts:
    """Apply rules to the stored numbers, in float64 as the run did."""
    shape = (len(ruled), table.num_rows)
    found = Verdicts(
        values=np.full(shape, np.nan), measured=np.zeros(shape, np.bool_), failed=np.zeros(shape, np.bool_)
    )
    for row, (rule, name) in enumerate(ruled):
        column = table.column(name)
        found.values[row] = values_of(column)
        found.measured[row] = column.is_valid().to_numpy()
        np.logical_and(~rule.passes(found.values[row]), found.measured[row], out=found.failed[row])
    return found


def weights(table: pa.Table) -> Ints:
    """What each document counts in each of UNITS, [document, unit]; 0 where it has no text or no tokens are counted."""
    sides = [table.column(name).fill_null(0).to_numpy() for name in WEIGHTS]
    return np.stack([np.ones(table.num_rows, np.int64), *(side.astype(np.int64) for side in sides)], axis=1)
