"""What would be kept under other rules, from `signals/` alone: no text is touched, nothing is written.

Moving a bound changes which documents are kept and no text: the rules after an edit read the numbers of the edited
text, and the edit stays what it is. What is no bound (an edit, an extractor, a word splitter) changes texts, and cannot
be answered from numbers about the texts as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from filters import language, url
from filters.errors import InputError
from filters.rule import Rule
from infra.annotated import parts, processes_for, recipe_typed, rerun_command, run_rules, stored_schema
from infra.processes import processes
from infra.run import Finished
from infra.side_changes import Example, changes, no_changes
from infra.signal_rows import Ruled
from pipelines.datatrove_filter import Datatrove
from pipelines.dedup.lines import SETTINGS, Lines
from pipelines.recipe import Step, edits, families, step_rules
from pipelines.signals import RAW, column_name, views
from pipelines.words import SPLITTERS
from pipelines.yaml_data import nearest

SIDES = ("low", "high")


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


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two lists of rules keep of the same documents.

    held: of the documents gained, the first rule that each failed before. falls: of those lost, the first that each
    fails now. without_text: documents that the new rules would let pass and that have no text: a rule dropped them
    before it was found that they cannot be parsed. They count as not kept.
    """

    documents: Volume
    before: Volume
    after: Volume
    gained: Volume
    lost: Volume
    held: Mapping[str, Volume]
    falls: Mapping[str, Volume]
    without_text: int
    gained_examples: tuple[Example, ...]
    lost_examples: tuple[Example, ...]


def compared(made: Finished, before: Ruled, after: Ruled, *, show: int = 0, workers: int = 1) -> Comparison:
    """Apply both lists of rules to every stored document in at most `workers` processes; `show` examples each way,
    those of smallest key.

    Raises VerifyFailed where a part cannot be read, and where `before` are the rules of the run and do not keep what
    the run kept.
    """
    count = partial(changes, before=before, after=after, own=before == run_rules(made), show=show)
    with processes(processes_for([made], workers)) as each_of:
        found = sum(each_of(count, parts(made)), start=no_changes(len(before), len(after), show))
    counted = partial(volume, tokens=made.recipe.tokenizer is not None)
    volumes = [counted(row) for row in found.totals]
    return Comparison(
        documents=volumes[0],
        before=volumes[1],
        after=volumes[2],
        gained=volumes[3],
        lost=volumes[4],
        held={rule.name: counted(row) for (rule, _), row in zip(before, found.held, strict=True) if row[0]},
        falls={rule.name: counted(row) for (rule, _), row in zip(after, found.falls, strict=True) if row[0]},
        without_text=found.without_text,
        gained_examples=found.gained,
        lost_examples=found.lost,
    )


def every_rule() -> dict[str, Rule]:
    """The rules of every family and of the other steps, by name."""
    others = (*url.RULES, language.GATED, language.EXTRACTED, language.IN_LANGUAGE)
    return {rule.name: rule for rule in (*others, *(rule for family in families() for rule in family.rules))}


def changed_rules(
    made: Finished, *, bounds: Sequence[str] = (), without: Sequence[str] = (), added: Sequence[str] = ()
) -> Ruled:
    """The run's rules with `bounds` moved (each `RULE.low=NUMBER` or `RULE.high=NUMBER`), without some, and with others
    of the catalogue after them (each `RULE`, or `RULE@VIEW` for the numbers of another view of the text).

    Raises InputError for what is unknown, and for what cannot be answered without measuring again, naming the command.
    """
    schema = stored_schema(made)
    ruled = {rule.name: (rule, name) for rule, name in run_rules(made)}
    for name in without:
        if name not in ruled:
            raise InputError(f"--without {name}: the run has no such rule{hint(name, ruled)}")
        refuse_rewriter(made, name)
        refuse_before_lines(made, f"--without {name}", name)
    own = list(ruled)
    for asked in added:
        rule, column = added_rule(made, asked, schema, own)
        if rule.name in ruled:
            raise InputError(f"--with {asked}: {rule.name} is added twice; take one of them.")
        ruled[rule.name] = (rule, column)
    moved: set[tuple[str, str]] = set()
    for asked in bounds:
        name, side, number = moved_bound(made, asked, ruled)
        if (name, side) in moved:
            raise InputError(f"--set {asked}: {name}.{side} is set twice; take one of them.")
        moved.add((name, side))
        refuse_before_lines(made, f"--set {asked}", name)
        rule, column = ruled[name]
        if name in without:
            raise InputError(f"--set {asked}: {name} is left out by --without; take one of them.")
        ruled[name] = (replace(rule, low=number) if side == "low" else replace(rule, high=number), column)
    for rule, _ in ruled.values():
        if rule.low is not None and rule.high is not None and rule.low > rule.high:
            raise InputError(f"{rule.name} would keep {rule.bounds}, which is nothing: low lies above high.")
    return tuple(one for name, one in ruled.items() if name not in without)


def moved_bound(made: Finished, asked: str, ruled: Mapping[str, Any]) -> tuple[str, str, float]:
    """(rule, side, number) of one `--set`."""
    key, equals, text = asked.partition("=")
    name, _, side = key.rpartition(".")
    if key not in ruled and name not in ruled:
        refuse_texts(made, key)
        subject = name if side in SIDES else key
        if subject in every_rule():
            raise InputError(f"--set {asked}: {subject} is no rule of this run. Add it: --with {subject}.")
        raise InputError(f"--set {asked}: the run has no rule {subject!r}{hint(subject, ruled)}")
    if name not in ruled or side not in SIDES:
        raise InputError(
            f"--set {asked}: say which bound of {name if name in ruled else key}: RULE.low=3.5 or RULE.high=10."
        )
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not equals or not math.isfinite(number):
        raise InputError(
            f"--set {asked}: a bound is a number, as in {name}.{side}=3.5. To be rid of the rule: --without {name}."
        )
    return name, side, number


def refuse_texts(made: Finished, key: str) -> None:
    """Raise InputError, naming the command to run, where `key` asks for another text and not for another bound."""
    first, *rest = key.split(".")
    kinds = {*Step.model_fields, "read", "tokenizer"}
    texts = {edit.name for edit in edits()} | SETTINGS.keys()
    if first not in kinds | texts | set(SPLITTERS):
        return
    if first in kinds and rest and rest[-1] in SIDES:
        return  # `language.high=0.9` forgets the name of the rule
    raise InputError(
        f"--set {key} is no bound of a rule: it changes what is measured, and the stored numbers are those of the "
        "documents as they are. Write it into a recipe file and measure again:\n  "
        + rerun_command(made, "RECIPE.yaml", out=f"{made.store.url}-2")
    )


def refuse_rewriter(made: Finished, name: str) -> None:
    """Raise InputError where the rule's step rewrites the text: without it, later steps would see other texts."""
    for step in made.recipe.steps:
        value = step.value
        if isinstance(value, Datatrove) and value.rewrites and name in [rule.name for rule in value.rules]:
            raise InputError(
                f"--without {name}: its step rewrites the text that later steps see and that is kept, so stored "
                "numbers cannot tell. Leave the step out in a recipe file and measure again:\n  "
                + rerun_command(made, "RECIPE.yaml", out=f"{made.store.url}-2")
            )


def refuse_before_lines(made: Finished, asked: str, name: str) -> None:
    """Raise InputError where a `lines` step comes after the rule: it would meet other documents, and leave other texts
    of all that follow in their files.
    """
    steps = [step.value for step in made.recipe.steps]
    at = next((at for at, step in enumerate(steps) if isinstance(step, Lines)), 0)
    if name in [rule.name for step in steps[:at] for rule in step_rules(step)]:
        raise InputError(
            f"{asked}: the step `lines` comes after it, and what that leaves of a text depends on which documents come "
            "before, so stored numbers cannot tell. Write it into a recipe file and measure again:\n  "
            + rerun_command(made, "RECIPE.yaml", out=f"{made.store.url}-2")
        )


def added_rule(made: Finished, asked: str, schema: pa.Schema, own: Sequence[str]) -> tuple[Rule, str]:
    """The rule of one `--with`, and its column: of the view it names, else of the last one that is stored."""
    name, _, view = asked.partition("@")
    known = every_rule()
    if name in own:
        rule = next(rule for rule in made.recipe.rules if rule.name == name)
        side = "high" if rule.low is None else "low"
        raise InputError(f"--with {asked}: {name} is a rule of this run already; move it with --set {name}.{side}=...")
    if name not in known:
        refuse_texts(made, name)
        raise InputError(f"--with {asked}: no rule is called {name!r}{hint(name, known)} `gristmill rules` lists them.")
    rule = known[name]
    seen = list(dict.fromkeys((RAW, *(view for _, view in views(made.recipe)))))
    for one in (view,) if view else reversed(seen):
        column = column_name(rule.signal.name, one)
        if column in schema.names:
            return of_this_revision(rule, schema.field(column)), column
    where = f" on the view {view!r} (the run has {', '.join(seen)})" if view else ""
    raise InputError(
        f"--with {asked}: {rule.signal.name} is not stored{where}. Measure every family:\n  "
        + rerun_command(made, recipe_typed(made), all_signals=True)
    )


def of_this_revision(rule: Rule, field: pa.Field) -> Rule:
    """The rule. Raises InputError where its signal was measured by a release that counted otherwise."""
    stored = (field.metadata or {}).get(b"revision", b"").decode()
    if stored != str(rule.signal.revision):
        raise InputError(
            f"{field.name} is stored in revision {stored}, and {rule.name} bounds revision {rule.signal.revision}: "
            "the number means something else. Run again."
        )
    return rule


def hint(name: str, names: Iterable[str]) -> str:
    """The nearest right name as the end of a sentence."""
    found = nearest(name, names)
    return found if found.endswith("?") else f"{found}."


def comparison_json(found: Comparison) -> dict[str, Any]:
    """A comparison as plain data."""
    return asdict(found)
