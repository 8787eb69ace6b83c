"""What would be kept under other rules, from `signals/` alone: no text is touched, nothing is written.

Moving a bound changes which documents are kept and no text: the rules after an edit read the numbers of the edited
text, and the edit stays what it is. What is no bound (an edit, an extractor, a word splitter) changes texts, and cannot
be answered from numbers about the texts as they are.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from filters import language, url
from filters.errors import InputError, VerifyFailed
from filters.rule import Rule
from infra.run import Finished
from infra.signal_rows import (
    WEIGHTS,
    Ints,
    Ruled,
    Verdicts,
    Volume,
    groups,
    recipe_typed,
    rerun_command,
    run_rules,
    stored_schema,
    verdicts,
    volume,
    weights,
)
from pipelines.datatrove_filter import Datatrove
from pipelines.recipe import Step, edits, families
from pipelines.signals import RAW, column_name, views
from pipelines.words import SPLITTERS
from pipelines.yaml_data import nearest

SIDES = ("low", "high")


@dataclass(frozen=True, kw_only=True)
class Example:
    """A document that changes sides, with the rule that decides it and its number there."""

    key: str
    id: str
    url: str
    rule: str
    value: float | None


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


def compared(made: Finished, before: Ruled, after: Ruled, *, show: int = 0) -> Comparison:
    """Apply both lists of rules to every stored document; `show` examples each way, those of smallest key.

    Where `before` are the rules of the run, raises VerifyFailed if they do not keep what the run kept.
    """
    own = before == run_rules(made)
    tokens = made.recipe.tokenizer is not None
    totals = np.zeros((5, 3), np.int64)
    held, falls = np.zeros((len(before), 3), np.int64), np.zeros((len(after), 3), np.int64)
    without_text = 0
    samples = Samples(show), Samples(show)
    fixed = [*WEIGHTS, *(("key", "id", "url") if show else ()), *(("outcome",) if own else ())]
    for table in groups(made, [*fixed, *(name for _, name in (*before, *after))]):
        then, now, heavy = verdicts(table, before), verdicts(table, after), weights(table)
        if own:
            check_kept(made, table, then)
        gained, lost = now.kept & ~then.kept, then.kept & ~now.kept
        everything = np.ones(table.num_rows, np.bool_)
        for row, chosen in enumerate((everything, then.kept, now.kept, gained, lost)):
            totals[row] += heavy[chosen].sum(axis=0)
        for counts, chosen, found in ((held, gained, then), (falls, lost, now)):
            judged = chosen & (found.first >= 0)
            np.add.at(counts, found.first[judged], heavy[judged])
        without_text += int(((now.failing == 0) & ~now.whole).sum())
        if show:
            samples[0].add(table, np.flatnonzero(gained), then, before)
            samples[1].add(table, np.flatnonzero(lost), now, after)
    volumes = [volume(row, tokens=tokens) for row in totals]
    return Comparison(
        documents=volumes[0],
        before=volumes[1],
        after=volumes[2],
        gained=volumes[3],
        lost=volumes[4],
        held={rule.name: volume(row, tokens=tokens) for (rule, _), row in zip(before, held, strict=True) if row[0]},
        falls={rule.name: volume(row, tokens=tokens) for (rule, _), row in zip(after, falls, strict=True) if row[0]},
        without_text=without_text,
        gained_examples=samples[0].examples,
        lost_examples=samples[1].examples,
    )


def check_kept(made: Finished, table: pa.Table, found: Verdicts) -> None:
    """Raise VerifyFailed where the run's own rules do not keep what the run kept."""
    kept = table.column("outcome").to_pylist()
    if (np.array([said == "kept" for said in kept], np.bool_) != found.kept).any():
        raise VerifyFailed(
            f"{made.store.url}: the stored signals and the run's rules do not keep what the run kept. "
            "`gristmill verify` says which file is not what was written."
        )


class Samples:
    """The documents of smallest key among those offered: the same for any order of parts."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[int, str, Example]] = []

    def add(self, table: pa.Table, rows: Ints, found: Verdicts, ruled: Ruled) -> None:
        """Offer these rows; `found` says why each is out."""
        for at in rows.tolist():
            key = table.column("key")[at].as_py()
            rank = -int.from_bytes(key, "big")
            if len(self._heap) == self._limit and rank <= self._heap[0][0]:
                continue
            rule = found.first[at]
            value = float(found.values[rule, at])
            example = Example(
                key=key.hex(),
                id=table.column("id")[at].as_py(),
                url=table.column("url")[at].as_py(),
                rule=ruled[rule][0].name,
                value=None if math.isnan(value) else value,
            )
            (heapq.heappushpop if len(self._heap) == self._limit else heapq.heappush)(
                self._heap, (rank, key.hex(), example)
            )

    @property
    def examples(self) -> tuple[Example, ...]:
        """The documents by key."""
        return tuple(example for *_, example in sorted(self._heap, reverse=True))


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
    own = list(ruled)
    for asked in added:
        rule, column = added_rule(made, asked, schema, own)
        ruled[rule.name] = (rule, column)
    for asked in bounds:
        name, side, number = moved_bound(made, asked, ruled)
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
    texts = {edit.name for edit in edits()}
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
