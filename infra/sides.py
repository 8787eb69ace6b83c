"""Which documents of a run change sides between two recipes, from its `signals/`, if it has all that both need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from infra.annotated import rerun_command, stored_schema
from infra.run import Finished
from infra.what_if import Comparison, compared
from pipelines.dedup.lines import Lines
from pipelines.recipe import Recipe, step_rules
from pipelines.recipe_diff import step_facts
from pipelines.signals import SignalColumn, rule_columns, signal_columns, view_made

NO_MEASURE = ("limits", "sample")
"""Facts of steps before the rules that change no number: how long a parser may take, how often the gate is checked."""
NAMED = 4
"""Columns that are named where more are missing."""
OWN = ("classifier.", "pattern.", "datatrove.")
"""Signals whose meaning stands in the recipe, and so in what the column says of itself."""


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Documents that change sides; where that cannot be told, `missing` says what is not stored, and `rerun` how to
    measure it.
    """

    changes: Comparison | None
    missing: tuple[str, ...] = ()
    rerun: tuple[str, ...] = ()


def sides(
    made: Finished, first: Recipe, second: Recipe, typed: tuple[str, str], *, show: int = 0, workers: int = 1
) -> Sides:
    """Apply both recipes' rules to the documents of a run. `typed`: what one types for each recipe.

    Raises InputError where the run kept no signals, and VerifyFailed where a part of them cannot be read.
    """
    schema = stored_schema(made)
    lacking = {name: list(missing(made, recipe, schema)) for name, recipe in zip(typed, (first, second), strict=True)}
    if not any(lacking.values()):
        return Sides(changes=compared(made, rule_columns(first), rule_columns(second), show=show, workers=workers))
    return Sides(
        changes=None,
        missing=tuple(f"{name}: {one}" for name, ones in lacking.items() for one in ones),
        rerun=tuple(
            rerun_command(made, name, out=f"{made.store.url}-{number}")
            for number, (name, ones) in enumerate(lacking.items(), 1)
            if ones
        ),
    )


def missing(made: Finished, recipe: Recipe, schema: pa.Schema) -> Iterator[str]:
    """What a recipe's rules need and the run has not measured as the recipe would."""
    if recipe.read != made.recipe.read:
        yield "it reads other documents (`read`)"
    columns = {column.name: column for column in signal_columns(recipe)}
    needed = [columns[name] for name in dict.fromkeys(name for _, name in rule_columns(recipe))]
    upstream = [name for name, facts in differing_steps(made.recipe, recipe)]
    # The rules of a `lines` step read what it noticed before it made its view: another one gives other numbers.
    own_views = {
        step: None if isinstance(value, Lines) else view_made(value) for step, value in named_steps(recipe).items()
    }
    if recipe.step(Lines) is not None and entering(recipe) != entering(made.recipe):
        yield "other documents enter its step `lines`, by the rules before it"
    for name in upstream:
        view = own_views.get(name)
        if view is None or any(view in column.view.split("+") for column in needed):
            yield f"its step `{name}` is another"
    absent = [column.name for column in needed if not is_stored(column, schema)]
    if absent:
        more = f" and {len(absent) - NAMED} other columns" if len(absent) > NAMED else ""
        yield f"not stored, or with other words: {', '.join(absent[:NAMED])}{more}"


def entering(recipe: Recipe) -> frozenset[tuple[Any, ...]]:
    """What a document must pass to enter the window of the recipe's `lines` step, in any order; nothing without one."""
    lines = next((at for at, step in enumerate(recipe.steps) if step.lines is not None), 0)
    before = rule_columns(recipe)[: sum(len(step_rules(step.value)) for step in recipe.steps[:lines])]
    return frozenset((name, rule.low, rule.high, rule.low_open, rule.high_open) for rule, name in before)


def named_steps(recipe: Recipe) -> dict[str, Any]:
    """The steps of a recipe by name."""
    names = [name for name, _ in step_facts(recipe)]
    return {name: step.value for name, step in zip(names, recipe.steps, strict=True)}


def differing_steps(run: Recipe, recipe: Recipe) -> Iterator[tuple[str, dict[str, Any]]]:
    """The steps of `recipe` that make or choose what later steps measure, and are not those of the run."""
    known = measuring_steps(run)
    extracts = {name for name in known if name == "extract"}
    found = measuring_steps(recipe)
    for name, facts in found.items():
        if known.get(name) != facts:
            yield name, facts
    for name in extracts - found.keys():
        yield name, known[name]  # the run's texts are extracted ones, the recipe's would be those of the input


def measuring_steps(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Steps whose facts bear on the numbers of others, by name; a rules step is known by its columns."""
    values = named_steps(recipe)
    return {
        name: {key: said for key, said in facts.items() if key not in NO_MEASURE}
        for name, facts in step_facts(recipe)
        if name.split()[0] in ("url", "gate", "extract", "language") or view_made(values[name]) is not None
    }


def is_stored(column: SignalColumn, schema: pa.Schema) -> bool:
    """True where the run measured the same signal in the same revision on the same view with the same words."""
    if column.name not in schema.names:
        return False
    wanted, stored = column.field.metadata, schema.field(column.name).metadata or {}
    told = [b"revision", b"view", b"words", *([b"says"] if column.signal.name.startswith(OWN) else [])]
    return all(wanted[key] == stored.get(key) for key in told)


def sides_json(found: Sides) -> dict[str, Any]:
    """The same as plain data."""
    from infra.what_if import comparison_json

    changes = None if found.changes is None else comparison_json(found.changes)
    return {"changes": changes, "missing": list(found.missing), "rerun": list(found.rerun)}
