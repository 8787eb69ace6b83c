"""datatrove's filters as they are: each judges a document as `datatrove.data.Document`, and its verdict is a signal.

A recipe can name the filters of `datatrove.pipeline.filters`, and those that installed distributions add to the group
`gristmill.datatrove_filters`. The reason that a filter gives is not kept: reasons are words that are known only when
they occur, and a signal is a number that has to mean the same in every run.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import TYPE_CHECKING, Any, Self, Union, get_args, get_origin

from pydantic import model_validator

from filters.errors import RecipeError, ResourceMissing
from filters.rule import Paper, Rule, Signal
from pipelines.entry_points import DATATROVE_FILTERS, Installed, loaded
from pipelines.recipe_data import Data, Name, known
from pipelines.yaml_data import nearest

if TYPE_CHECKING:
    from datatrove.data import Document
    from datatrove.pipeline.filters.base_filter import BaseFilter

REFUSED: Mapping[str, str] = {
    "FastTextClassifierFilter": "it fetches its model from a URL; use a `classifier` step, which knows its sha256",
    "LambdaFilter": "it takes code, and a recipe is data; install the rule as a family instead",
    "LanguageFilter": "it fetches its model from a URL; use the `language` step",
    "SamplerFilter": "it draws random numbers, so its verdict depends on the documents before",
    "URLFilter": "it unpacks lists and fetches suffixes outside the run; use the `url` step, which has the same lists",
    "UnigramLogProbFilter": "it fetches frequencies from a URL that no release and no hash fixes",
}
"""Filters of datatrove whose verdict is more than a function of release, arguments and document."""

REWRITE = ("C4QualityFilter",)
SCALARS = (bool, int, float, str, type(None))


class Datatrove(Data):
    """Drop documents that a filter of datatrove drops; `args` are those of its constructor, as plain data.

    A filter that changes a document's text needs `rewrites: true`: later steps then see the text it leaves.
    """

    filter: str
    name: Name | None = None
    args: dict[str, Any] = {}
    rewrites: bool = False

    @model_validator(mode="after")
    def _fits_the_constructor(self) -> Self:
        if self.filter in REFUSED:
            raise ValueError(f"{self.filter} is not used: {REFUSED[self.filter]}")
        known(self.filter, tuple(filter_classes()), "filter of datatrove")
        check_args(self.filter, filter_classes()[self.filter], self.args)
        if self.filter in REWRITE and not self.rewrites:
            raise ValueError(f"{self.filter} changes the texts that it keeps: say `rewrites: true`")
        if self.filter == "C4BadWordsFilter" and self.args.get("keep_fraction", 0):
            raise ValueError("with keep_fraction, C4BadWordsFilter draws random numbers: leave it out")
        return self

    @property
    def signal(self) -> Signal:
        """1 where the filter keeps the document."""
        return Signal(
            name=f"datatrove.{self.name or self.filter}",
            kind="count",
            says=f"1 where datatrove's {self.filter} keeps it",
        )

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What the step measures."""
        return (self.signal,)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The one rule."""
        module = filter_classes()[self.filter].__module__
        paper = Paper(
            title="datatrove", url="https://github.com/huggingface/datatrove", where=f"{module}.{self.filter}"
        )
        return (Rule(name=self.signal.name, signal=self.signal, low=1, paper=paper),)

    @property
    def packages(self) -> set[str]:
        """The distributions whose release bears on the verdict: datatrove cuts English words by spaCy."""
        added = {one.value.__name__: one.distribution for one in installed_filters()}
        return {"datatrove", "spacy", *([added[self.filter]] if self.filter in added else [])}

    def made(self) -> BaseFilter:
        """The filter itself. Raises RecipeError where its constructor refuses the arguments."""
        made = filter_classes()[self.filter]
        takes = parameters(made)
        given = {name: fitted(value, takes[name]) if name in takes else value for name, value in self.args.items()}
        try:
            return made(**given)
        except Exception as error:
            raise RecipeError(
                f"{self.signal.name}: {self.filter} cannot be made with {self.args}: {type(error).__name__}: {error}"
            ) from error


@cache
def filter_classes() -> dict[str, type[BaseFilter]]:
    """The filters that a recipe can name. Raises RecipeError where an installed one has the name of another."""
    from datatrove.pipeline import filters
    from datatrove.pipeline.filters.base_filter import BaseFilter

    public = {name: value for name, value in vars(filters).items() if isinstance(value, type)}
    found = {name: value for name, value in public.items() if issubclass(value, BaseFilter) and name not in REFUSED}
    for one in installed_filters():
        if one.value.__name__ in found or one.value.__name__ in REFUSED:
            raise RecipeError(f"{one.origin} adds a datatrove filter {one.value.__name__!r}; there is one already.")
        found[one.value.__name__] = one.value
    return found


def installed_filters() -> tuple[Installed[type[BaseFilter]], ...]:
    """The filters that other distributions add. Raises RecipeError where one is none."""
    from datatrove.pipeline.filters.base_filter import BaseFilter

    for one in loaded(DATATROVE_FILTERS):
        if not (isinstance(one.value, type) and issubclass(one.value, BaseFilter)):
            raise RecipeError(f"{one.origin} adds {one.name!r} to {DATATROVE_FILTERS}: it is no class of BaseFilter.")
    return loaded(DATATROVE_FILTERS)


def parameters(made: type[BaseFilter]) -> dict[str, inspect.Parameter]:
    """The parameters of a constructor that a recipe may give, by name: what writes files is none of them."""
    found = list(inspect.signature(made.__init__).parameters.values())[1:]
    # Where annotations are words they are for people; names and defaults are checked all the same.
    return {one.name: one for one in found if not one.name.endswith("_writer")}


def check_args(name: str, made: type[BaseFilter], args: Mapping[str, Any]) -> None:
    """Raise ValueError unless the arguments fit the constructor: names, what has to be given, and types of scalars."""
    takes = parameters(made)
    any_name = any(one.kind is one.VAR_KEYWORD for one in takes.values())
    named = [key for key, one in takes.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    for key, value in args.items():
        if key.endswith("_writer"):
            raise ValueError(f"{key} is not for recipes: what a filter drops stands in dropped/, with this rule")
        if key not in named and not any_name:
            raise ValueError(f"{name} takes no {key!r}{nearest(key, named)}")
        if key in named and not fits(value, types := scalar_types(takes[key])):
            raise ValueError(f"{name} takes {' or '.join(one.__name__ for one in types)} for {key}, not {value!r}")
    if missing := [key for key in named if takes[key].default is inspect.Parameter.empty and key not in args]:
        raise ValueError(f"{name} needs {missing[0]!r} in args")


def scalar_types(parameter: inspect.Parameter) -> tuple[type, ...]:
    """The types that a parameter is annotated with, where all are scalars, and that of its default; else none."""
    annotation = parameter.annotation
    types = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if not all(one in SCALARS for one in types):
        return ()
    return (*types, type(None)) if parameter.default is None and type(None) not in types else types


def fits(value: Any, types: tuple[type, ...]) -> bool:
    """True where the value is of one of these types, or anything may be given. A whole number is a float."""
    if not types or type(value) in types:
        return True
    return type(value) is int and float in types


def fitted(value: Any, parameter: inspect.Parameter) -> Any:
    """The value as the constructor takes it: YAML has lists alone, where datatrove may want tuples."""
    annotation = parameter.annotation
    types = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    wants_tuple = any(get_origin(one) is tuple for one in types) and not any(get_origin(one) is list for one in types)
    return tuples(value) if wants_tuple else value


def tuples(value: Any) -> Any:
    """Lists, however deep, as tuples."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a filter said of one document, and the text that it left; `fault` where it raised instead."""

    kept: bool
    text: str
    fault: str | None = None


def verdicts(judge: BaseFilter, documents: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """What the filter says of each document, given as the fields of a `Document`.

    A document at which it raises has a fault, and costs no other document its verdict. Raises ResourceMissing where
    the filter cannot read or fetch something: that is no fault of a document.
    """
    found: list[Verdict] = []
    for start in range(0, len(documents), judge.batch_size):
        found += _together(judge, documents[start : start + judge.batch_size])
    return found


def _together(judge: BaseFilter, documents: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    from datatrove.data import Document

    made = [Document(**one) for one in documents]
    try:
        said = judge.filter_batch(made)
    except (OSError, ImportError, MemoryError) as error:
        raise ResourceMissing(f"{type(judge).__name__} cannot do without what it asked for: {error}") from error
    except Exception as error:  # noqa: BLE001 - code that is not ours may raise anything at any document
        if len(documents) > 1:
            return [verdict for one in documents for verdict in _together(judge, [one])]
        return [Verdict(kept=False, text=documents[0]["text"], fault=f"{type(error).__name__}: {error}")]
    return [verdict_of(one, document) for one, document in zip(said, made, strict=True)]


def verdict_of(said: object, document: Document) -> Verdict:
    """The verdict in what a filter returned: a truth value, or a pair of one and a reason."""
    return Verdict(kept=bool(said[0] if isinstance(said, tuple) else said), text=document.text)
