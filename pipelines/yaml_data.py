"""YAML as plain data with line numbers: no tags, no anchors, no duplicate keys, a bounded size.

Errors say `what` is read: "a recipe", "an experiment".
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from filters.errors import RecipeError

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
PLAIN_TAGS = frozenset({"str", "int", "float", "bool", "null", "seq", "map"})

Path = tuple[str | int, ...]
Lines = dict[Path, int]


RECIPE = "a recipe"
NEEDS = "`name`, `says` and `steps`"


def load(text: str, *, where: str, what: str = RECIPE, needs: str = NEEDS) -> tuple[Any, Lines]:
    """Return the document in `text` and the line (from 1) of each value by its path of keys and indices."""
    if len(text) > MAX_BYTES:
        raise RecipeError(f"{where}: {len(text):,} characters; {what} has at most {MAX_BYTES:,}.")
    try:
        events = list(yaml.parse(text, Loader=yaml.CSafeLoader))
        for event in events:
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise RecipeError(
                    f"{where}:{line_of(event.start_mark)}: anchors and aliases are not read; write it out."
                )
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise RecipeError(f"{where}{line}: not YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError as error:
        raise RecipeError(f"{where}: nested too deep to be {what}.") from error
    if node is None:
        raise RecipeError(f"{where}: empty; {what} has at least {needs}.")
    lines: Lines = {}
    constructor = yaml.CSafeLoader("")
    try:
        return _value(node, (), lines, constructor, where), lines
    finally:
        constructor.dispose()


def line_of(mark: Any) -> int:
    """The line of a mark, counted from 1."""
    return 1 if mark is None else mark.line + 1


def _value(node: yaml.Node, path: Path, lines: Lines, constructor: yaml.CSafeLoader, where: str) -> Any:
    line = node.start_mark.line + 1
    lines[path] = line
    if len(path) > MAX_DEPTH:
        raise RecipeError(f"{where}:{line}: nested deeper than {MAX_DEPTH} levels.")
    if node.tag.removeprefix("tag:yaml.org,2002:") not in PLAIN_TAGS:
        raise RecipeError(f"{where}:{line}: the tag {node.tag!r} is not read; write plain data.")
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), lines, constructor, where) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key in found:
                raise RecipeError(
                    f"{where}:{key_node.start_mark.line + 1}: a key is a single word, given once ({key!r})."
                )
            found[key] = _value(value_node, (*path, key), lines, constructor, where)
            lines[(*path, key)] = key_node.start_mark.line + 1
        return found
    try:
        return constructor.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{where}:{line}: {node.value!r} cannot be read as {node.tag.rsplit(':', 1)[-1]}.") from error


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest of `names`, or the list of them where none is near and they are few."""
    names = list(names)
    if close := get_close_matches(name, names, n=1, cutoff=0.6):
        return f"; did you mean {close[0]!r}?"
    return f"; there are: {', '.join(names)}" if len(names) <= 12 else ""


def located(
    error: ValidationError, lines: Lines, *, where: str, model: type[BaseModel], what: str = RECIPE
) -> list[str]:
    """One sentence for each fault, with file, line, path and, for an unknown key, the nearest right one."""
    said = []
    for fault in error.errors(include_url=False):
        path = tuple(fault["loc"])
        shown = path
        while shown not in lines and shown:
            shown = shown[:-1]
        place = f"{where}:{lines.get(shown, 1)}"
        key = dotted(path, what)
        if fault["type"] == "extra_forbidden":
            names = list(_model_at(model, path[:-1]).model_fields)
            hint = nearest(str(path[-1]), names)
            said.append(f"{place}: unknown key {path[-1]!r} in {dotted(path[:-1], what)}{hint}")
        elif fault["type"] == "missing":
            said.append(f"{place}: {key} is missing")
        else:
            given = "" if isinstance(fault["input"], (dict, list)) else f" (it is {fault['input']!r})"
            said.append(f"{place}: {key}: {fault['msg'].removeprefix('Value error, ')}{given}")
    return said


def dotted(path: Path, what: str) -> str:
    """A path as a person reads it: items of a list count from 1, as the steps in `gristmill recipes --show`."""
    return ".".join(str(part + 1 if isinstance(part, int) else part) for part in path) or f"the {what.split()[-1]}"


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel]:
    """The model that describes the value at `path`."""
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            model = next(iter(_models_in(model.model_fields[part].annotation)), model)
    return model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]
