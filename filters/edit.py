"""An edit rewrites a text and notices things; what it notices are signals, and rules over them judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filters.rule import Paper, Signal, Signals

if TYPE_CHECKING:
    from filters.batch import TextBatch


@dataclass(frozen=True, kw_only=True, eq=False)
class Edited:
    """The edited texts of a batch, and the signals of what the edit noticed; one per document, in its order."""

    texts: list[str]
    signals: Signals


@dataclass(frozen=True, kw_only=True, eq=False)
class Edit:
    """A pure function from texts to texts. It drops no document, and raises `revision` whenever some text changes.

    notices: the signals that `apply` gives, about the texts before the edit.
    words: the name of the word splitter the paper's code uses where it is fixed; None: the recipe's.
    """

    name: str
    revision: int = 1
    apply: Callable[[TextBatch], Edited]
    notices: tuple[Signal, ...]
    paper: Paper
    words: str | None = None
