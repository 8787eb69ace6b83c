"""What every part of a recipe is made of: a frozen value that knows its keys, and names that must be known ones."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pipelines import yaml_data
from pipelines.datatrove_words import PREFIX, datatrove_languages
from pipelines.words import SPLITTERS

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=64)]
"""What a step of the recipe's own is called; its signals and its rule are called after it."""


class Data(BaseModel):
    """A part of a recipe: frozen, and without a key that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def known(name: str, names: list[str] | tuple[str, ...], what: str) -> None:
    """Raise ValueError with the nearest right name unless `name` is one of `names`."""
    if name not in names:
        raise ValueError(f"no {what} is called {name!r}{yaml_data.nearest(name, names)}")


def known_words(name: str) -> None:
    """Raise ValueError with the nearest right name unless there is a word splitter of this name."""
    if name.startswith(PREFIX):
        known(name.removeprefix(PREFIX), datatrove_languages(), "language of datatrove's tokenizers")
    else:
        known(name, SPLITTERS, "word splitter")
