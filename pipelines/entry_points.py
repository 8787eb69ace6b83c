"""What other distributions add to Gristmill: families of rules, edits and datatrove filters, by installed entry points.

A recipe names such a thing like one of ours and never names code. Each is loaded once per process, at first use, and is
the value that the entry point names:

    [project.entry-points."gristmill.families"]
    recipes_blog = "my_rules:FAMILY"
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from filters import catalogue, language, url
from filters.edit import Edit
from filters.errors import RecipeError
from filters.rule import Family, Signal

FAMILIES = "gristmill.families"
EDITS = "gristmill.edits"
DATATROVE_FILTERS = "gristmill.datatrove_filters"
OURS = "Gristmill itself"
# Steps that are no families have rules and signals under these names.
RESERVED = ("url", "language", "extract", "gate", "classifier", "pattern", "datatrove")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Installed(Generic[T]):
    """A value that a distribution adds, with the name of the entry point."""

    name: str
    value: T
    distribution: str
    version: str

    @property
    def origin(self) -> str:
        """Distribution and version."""
        return f"{self.distribution} {self.version}"


@cache
def loaded(group: str) -> tuple[Installed[Any], ...]:
    """What the installed distributions have in this group, by distribution and name.

    Raises RecipeError where one cannot be imported.
    """
    found = sorted(entry_points(group=group), key=lambda point: (distribution_of(point)[0], point.name))
    return tuple(_loaded(point) for point in found)


def distribution_of(point: EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution that an entry point belongs to."""
    assert point.dist is not None, "an installed entry point belongs to a distribution"
    return point.dist.name, point.dist.version


def _loaded(point: EntryPoint) -> Installed[Any]:
    distribution, version = distribution_of(point)
    try:
        value = point.load()
    except (ImportError, AttributeError) as error:
        raise RecipeError(
            f"{distribution} {version} adds {point.name!r} to {point.group}, and {point.value} cannot be loaded: "
            f"{error}. Mend or uninstall that distribution."
        ) from error
    return Installed(name=point.name, value=value, distribution=distribution, version=version)


def of_kind(group: str, kind: type[T]) -> tuple[Installed[T], ...]:
    """The values of a group, all of this kind. Raises RecipeError where one is something else."""
    for one in loaded(group):
        if not isinstance(one.value, kind):
            raise RecipeError(
                f"{one.origin} adds {one.name!r} to {group}: it is a {type(one.value).__name__}, and has to be a "
                f"{kind.__name__} ({kind.__module__}.{kind.__name__})."
            )
    return loaded(group)


@cache
def installed_families() -> tuple[Installed[Family], ...]:
    """The families that other distributions add. Raises RecipeError where two things have one name."""
    found = of_kind(FAMILIES, Family)
    ours = [(family, OURS) for family in catalogue.FAMILIES]
    every = [*ours, *((one.value, one.origin) for one in found)]
    refuse_twice("family", [*((name, OURS) for name in RESERVED), *((family.name, origin) for family, origin in every)])
    refuse_twice("rule", [(rule.name, origin) for family, origin in every for rule in family.rules])
    own = [(signal, OURS) for signal in (*step_signals(), *(s for edit in catalogue.EDITS for s in edit.notices))]
    refuse_two_meanings([*own, *((signal, origin) for family, origin in every for signal in family.signals)])
    for one in found:
        refuse_odd_names(one.value.signals, one.origin)
    return found


def step_signals() -> tuple[Signal, ...]:
    """The signals of the steps that are no families."""
    return (*(rule.signal for rule in url.RULES), language.CHARACTERS, language.WANTED, language.GATE)


def refuse_odd_names(signals: Iterable[Signal], origin: str) -> None:
    """Raise RecipeError where a signal's name could be taken for another column."""
    for signal in signals:
        if "." not in signal.name or "@" in signal.name:
            raise RecipeError(f"{origin}: a signal is called FAMILY.WHAT, without `@`; {signal.name!r} is not.")


@cache
def installed_edits() -> tuple[Installed[Edit], ...]:
    """The edits that other distributions add. Raises RecipeError where two things have one name."""
    found = of_kind(EDITS, Edit)
    ours = [(edit.name, OURS) for edit in catalogue.EDITS]
    refuse_twice("edit", [*ours, *((one.value.name, one.origin) for one in found)])
    return found


def refuse_twice(what: str, named: Iterable[tuple[str, str]]) -> None:
    """Raise RecipeError where one name stands twice among (name, where it comes from)."""
    seen: dict[str, str] = {}
    for name, origin in named:
        if name in seen:
            raise RecipeError(
                f"two distributions have a {what} called {name!r}: {seen[name]} and {origin}. Uninstall or rename one."
            )
        seen[name] = origin


def refuse_two_meanings(signals: Iterable[tuple[Signal, str]]) -> None:
    """Raise RecipeError where two signals that differ have one name."""
    seen: dict[str, tuple[Signal, str]] = {}
    for signal, origin in signals:
        first, first_origin = seen.setdefault(signal.name, (signal, origin))
        if first != signal:
            raise RecipeError(
                f"{signal.name!r} is one signal in {first_origin} and another in {origin}. Uninstall or rename one."
            )
