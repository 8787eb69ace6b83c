"""A signal is a number per document; a rule keeps a document whose signal lies within bounds.

Signals are stored as what was counted: a ratio keeps its integer numerator and denominator and is divided in float64
only when a bound is applied, so that a bound decides the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from filters.batch import TextBatch

UInts = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Where a rule or a threshold comes from, precise enough to check by hand."""

    title: str
    url: str
    where: str


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One number per document, or one per line. Raise `revision` whenever the number can change for some text.

    A signal per line is stored for those who train on it; no rule bounds it.
    """

    name: str
    revision: int = 1
    kind: Literal["count", "ratio", "score"]
    per: Literal["document", "line"] = "document"
    says: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """The values of one signal over a batch of `n` documents.

    count: `numerator`. ratio: `numerator` / `denominator`, undefined where the denominator is 0. score: `score`
    (float32), undefined where it is NaN. A signal per line has the values of all lines, and those of document i are
    offsets[i] to offsets[i + 1].
    """

    numerator: UInts | None = None
    denominator: UInts | None = None
    score: npt.NDArray[np.float32] | None = None
    offsets: npt.NDArray[np.int64] | None = None

    def of(self, documents: npt.NDArray[np.int64]) -> Measured:
        """The values of these documents alone. For signals per document."""
        assert self.offsets is None, "a signal per line is stored, not passed on"
        return replace(
            self,
            numerator=None if self.numerator is None else self.numerator[documents],
            denominator=None if self.denominator is None else self.denominator[documents],
            score=None if self.score is None else self.score[documents],
        )

    @property
    def value(self) -> Floats:
        """The signal as float64; NaN where it is undefined."""
        if self.score is not None:
            return self.score.astype(np.float64)
        assert self.numerator is not None, "a measured signal has a numerator or a score"
        value = self.numerator.astype(np.float64)
        if self.denominator is None:
            return value
        defined = self.denominator > 0
        ratio: Floats = np.divide(value, self.denominator, out=np.full(len(value), np.nan), where=defined)
        return ratio


Signals = Mapping[str, Measured]
"""Measured values by signal name; all of one batch, so all of one length."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Keep documents whose signal lies in [low, high]; an open side excludes the bound itself; None leaves a side free.

    `reason` is datatrove's name for the same drop, where it has one: the parity tests map by it.
    """

    name: str
    signal: Signal
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    paper: Paper
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.low is None and self.high is None:
            raise ValueError(f"{self.name}: a rule needs low, high or both")
        if self.signal.per == "line":
            raise ValueError(f"{self.name}: {self.signal.name} has a value for each line, and a rule judges documents")

    def passes(self, value: Floats) -> Bools:
        """True where the document is kept. An undefined signal (NaN) never passes."""
        kept = ~np.isnan(value)
        if self.low is not None:
            kept &= (value > self.low) if self.low_open else (value >= self.low)
        if self.high is not None:
            kept &= (value < self.high) if self.high_open else (value <= self.high)
        return kept

    def bounded(self, *, low: float | None, high: float | None) -> Rule:
        """The same rule with other bounds; None keeps the bound it has."""
        return replace(self, low=self.low if low is None else low, high=self.high if high is None else high)

    @property
    def bounds(self) -> str:
        """The bounds as an interval, for instance `[3, 10]` or `(0.65, ∞)`."""
        left = "(-∞" if self.low is None else f"{'(' if self.low_open else '['}{self.low:g}"
        right = "∞)" if self.high is None else f"{self.high:g}{')' if self.high_open else ']'}"
        return f"{left}, {right}"


def rule_of(signal: Signal, *, paper: Paper, low: float | None = None, high: float | None = None) -> Rule:
    """The rule that is named as its signal."""
    return Rule(name=signal.name, signal=signal, low=low, high=high, paper=paper)


def first_failing(signals: Signals, rules: tuple[Rule, ...], count: int) -> tuple[npt.NDArray[np.int16], Bools]:
    """Return, for `count` documents, the index of the first rule each fails (-1: kept) and failed[rule, document]."""
    failed = np.zeros((len(rules), count), np.bool_)
    for row, rule in enumerate(rules):
        failed[row] = ~rule.passes(signals[rule.signal.name].value)
    first = np.where(failed.any(axis=0), failed.argmax(axis=0), -1) if len(rules) else np.full(count, -1)
    return first.astype(np.int16), failed


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """Rules and signals of one paper that are measured together.

    measure: gives every one of `signals`, for one batch.
    unruled: signals that no rule of the family bounds.
    words: the name of the word splitter that the paper's code uses, where it is fixed; None: the recipe's.
    """

    name: str
    rules: tuple[Rule, ...]
    measure: Callable[[TextBatch], Signals]
    unruled: tuple[Signal, ...] = ()
    words: str | None = None

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The signals that the rules read, in their order, then the others."""
        every = (*(rule.signal for rule in self.rules), *self.unruled)
        return tuple({signal.name: signal for signal in every}.values())
