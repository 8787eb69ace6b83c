"""How two recipes differ: settings, steps, revisions, and rules with their bounds. Pure; reads no data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from filters.rule import Rule
from pipelines.recipe import Recipe, Step
from pipelines.signals import SignalColumn, rule_columns, signal_columns

NO_BEARING = ("name", "says", "deviations", "steps")
"""Keys of a recipe that bear on no output, or are compared by themselves."""
BY_RULE = ("step", "rules", "families", "low", "high", "above", "soft_words")
"""Facts of a step that are compared rule by rule."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that two recipes say differently; None where one of them has no such thing."""

    where: str
    what: str
    first: Any
    second: Any


@dataclass(frozen=True, kw_only=True)
class PlacedRule:
    """A rule of a recipe, and the column of numbers that it bounds."""

    rule: Rule
    column: SignalColumn

    @property
    def facts(self) -> dict[str, str]:
        """What decides, in words, by the name of the fact."""
        return {
            "rule": self.rule.name,
            "bounds": self.rule.bounds,
            "signal": self.rule.signal.name,
            "revision": str(self.rule.signal.revision),
            "view": self.column.view,
            "words": self.column.words,
        }


@dataclass(frozen=True, kw_only=True)
class RulePair:
    """A rule of one recipe beside its counterpart in the other: the same name, or else the same number measured or the
    same name within its family. None where there is no counterpart.
    """

    first: PlacedRule | None
    second: PlacedRule | None

    @property
    def changed(self) -> tuple[str, ...]:
        """The facts that differ; empty where one rule is missing."""
        if self.first is None or self.second is None:
            return ()
        return tuple(fact for fact, said in self.first.facts.items() if said != self.second.facts[fact])


@dataclass(frozen=True, kw_only=True)
class RecipeDiff:
    """What differs. `rules` holds only pairs that differ; `reordered` is True where common rules come in another order
    (no document's fate depends on it, only its reason).
    """

    same: bool
    settings: tuple[Difference, ...]
    steps: tuple[Difference, ...]
    rules: tuple[RulePair, ...]
    equal_rules: int
    reordered: bool


def recipe_diff(first: Recipe, second: Recipe) -> RecipeDiff:
    """What two recipes say differently. `same`: they make the same corpus, byte for byte."""
    pairs = rule_pairs(placed_rules(first), placed_rules(second))
    differing = tuple(pair for pair in pairs if pair.first is None or pair.second is None or pair.changed)
    common = [(pair.first.rule.name, pair.second.rule.name) for pair in pairs if pair.first and pair.second]
    order = [rule.name for rule in second.rules]
    places = [order.index(name) for _, name in common]
    return RecipeDiff(
        same=first.sha256 == second.sha256,
        settings=tuple(settings_diff(first, second)),
        steps=tuple(steps_diff(first, second)),
        rules=differing,
        equal_rules=len(pairs) - len(differing),
        reordered=places != sorted(places),
    )


def placed_rules(recipe: Recipe) -> list[PlacedRule]:
    """The rules of a recipe, in order, with their columns."""
    columns = {column.name: column for column in signal_columns(recipe)}
    return [PlacedRule(rule=rule, column=columns[name]) for rule, name in rule_columns(recipe)]


def rule_pairs(first: Sequence[PlacedRule], second: Sequence[PlacedRule]) -> list[RulePair]:
    """Every rule once, beside its counterpart, in the order of `first` and then of `second`."""
    match: dict[str, PlacedRule] = {}
    taken: set[str] = set()
    for alike in (by_name, by_column, by_local_name):
        left = [one for one in first if one.rule.name not in match]
        open_ones = [one for one in second if one.rule.name not in taken]
        for one in left:
            found = [other for other in open_ones if alike(one) == alike(other)]
            if len(found) == 1 and sum(alike(one) == alike(other) for other in left) == 1:
                match[one.rule.name] = found[0]
                taken.add(found[0].rule.name)
    pairs = [RulePair(first=one, second=match.get(one.rule.name)) for one in first]
    return [*pairs, *(RulePair(first=None, second=one) for one in second if one.rule.name not in taken)]


def by_name(one: PlacedRule) -> tuple[str, ...]:
    """Rules of one name are counterparts."""
    return (one.rule.name,)


def by_column(one: PlacedRule) -> tuple[str, ...]:
    """Rules over one number, bounded on the same sides, are counterparts."""
    return (one.column.name, str(one.rule.low is None), str(one.rule.high is None))


def by_local_name(one: PlacedRule) -> tuple[str, ...]:
    """Rules of one name within their families are counterparts."""
    return (one.rule.name.partition(".")[2],)


def settings_diff(first: Recipe, second: Recipe) -> Iterator[Difference]:
    """What the recipes say beside their steps, and the releases of the packages that bear on either."""
    said = [one.model_dump(mode="json") for one in (first, second)]
    for key in said[0]:
        if key not in NO_BEARING:
            yield from differences("recipe", {key: said[0][key]}, {key: said[1][key]})
    yield from differences("packages", first.identity["versions"], second.identity["versions"])


def steps_diff(first: Recipe, second: Recipe) -> Iterator[Difference]:
    """Steps that only one recipe has, and what common ones say differently, in order."""
    found = [step_facts(recipe) for recipe in (first, second)]
    names = [[name for name, _ in facts] for facts in found]
    for kind, a, b, c, d in SequenceMatcher(None, names[0], names[1], autojunk=False).get_opcodes():
        if kind == "equal":
            for (name, one), (_, other) in zip(found[0][a:b], found[1][c:d], strict=True):
                yield from differences(name, one, other)
        else:
            yield from (Difference(where=name, what="step", first=one, second=None) for name, one in found[0][a:b])
            yield from (Difference(where=name, what="step", first=None, second=one) for name, one in found[1][c:d])


def step_facts(recipe: Recipe) -> list[tuple[str, dict[str, Any]]]:
    """Each step by name, with what it says and what its meaning rests on, but for what is compared rule by rule."""
    return [
        (step_name(step), {key: said for key, said in facts.items() if key not in BY_RULE})
        for step, facts in zip(recipe.steps, recipe.identity["steps"], strict=True)
    ]


def step_name(step: Step) -> str:
    """The kind of a step, and the name that it has beside it, if it has one."""
    kind = next(name for name in type(step).model_fields if getattr(step, name) is not None)
    name = getattr(step.value, "name", None) or getattr(step.value, "filter", None)
    return f"{kind} {name}" if name else kind


def differences(where: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Difference]:
    """The keys of two mappings that differ, down to plain values."""
    for key in dict.fromkeys((*first, *second)):
        one, other = first.get(key), second.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from differences(f"{where} {key}", one, other)
        elif json.dumps(one) != json.dumps(other):
            yield Difference(where=where, what=key, first=one, second=other)


def diff_json(found: RecipeDiff) -> dict[str, Any]:
    """A diff as plain data."""

    def side(one: PlacedRule | None) -> dict[str, Any] | None:
        if one is None:
            return None
        bounds = {name: getattr(one.rule, name) for name in ("low", "high", "low_open", "high_open")}
        return {**one.facts, **bounds, "revision": one.rule.signal.revision}

    return {
        "same": found.same,
        "settings": [vars(one) for one in found.settings],
        "steps": [vars(one) for one in found.steps],
        "rules": [
            {"first": side(pair.first), "second": side(pair.second), "changed": list(pair.changed)}
            for pair in found.rules
        ],
        "equal_rules": found.equal_rules,
        "reordered": found.reordered,
    }
