"""The `lines` step of a recipe: what was met before in the same input file, removed from the text of each document.

The window of a method (`pipelines.dedup.paragraphs`, `bff`, `spans`) is one input file, in its order: so the result
does not depend on how work is cut, and tasks hold whole files. Copies of a paragraph in two files both stay. Only
documents that no rule before has dropped enter the window; the others stay as they are.

A document that lost nothing fails no rule of its step, however short it is. So that bounds on stored numbers say the
same (`signals/`), a rule that asks for a least number bounds what is missing to it, which is 0 where nothing was lost.

CCNet's method is left out: it goes through its window twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from filters.batch import TextBatch, counted
from filters.edit import Edited
from filters.errors import RecipeError
from filters.rule import Measured, Paper, Rule, Signal, Signals
from filters.splitters_words import WHITESPACE
from pipelines.datatrove_words import PREFIX
from pipelines.dedup import bff, paragraphs, spans
from pipelines.dedup.bff import DCLM, NGrams
from pipelines.dedup.paragraphs import DOLMA, T5_LINES, Paragraphs
from pipelines.dedup.spans import C4_SPANS, Spans
from pipelines.recipe_data import Data, known_words

Method = Paragraphs | NGrams | Spans
Window = paragraphs.Window | bff.Window | spans.Window
MethodName = Literal["dolma_paragraphs", "c4_t5_paragraphs", "dclm_bff", "c4_spans"]

SCIENTIFIC = re.compile(r"[0-9]+e-[0-9]+")
"""A number such as 1e-6, which YAML 1.1 takes for a word."""
REVISION = 1
"""Raise whenever some text comes out otherwise."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A method with what a recipe may leave out.

    expected: different `things` in the window, twice those of a Common Crawl WARC: 40,000 pages of 30 paragraphs or
    sentences, or of 600 words. words: the word splitter; None where the method cuts its own.
    """

    of: Method
    things: str
    expected: int
    words: str | None = None


SETTINGS: Mapping[str, Setting] = {
    one.of.name: one
    for one in (
        Setting(of=DOLMA, things="paragraphs", expected=2_400_000),
        Setting(of=T5_LINES, things="paragraphs", expected=2_400_000, words="spacy_english"),
        Setting(of=DCLM, things="n-grams", expected=48_000_000),
        Setting(of=C4_SPANS, things="spans of sentences", expected=2_400_000, words="spacy_english"),
    )
}


def without_default(schema: dict[str, Any]) -> None:
    """Take out of a JSON schema the default that depends on the method."""
    del schema["default"]


class Lines(Data):
    """Remove from each text what was met before in its input file, as `method` does it.

    expected: how many different paragraphs, n-grams or spans a file has at most; left out, what one of Common Crawl
    has. rate: the budget of false positives of a Bloom filter, null for exact hashes; left out, the method's own.
    words: the splitter that finds sentences, of methods that need them.
    """

    method: MethodName
    # The defaults are no values: what is left out is filled in, and a null that is said must never pass for left out.
    expected: Annotated[int, Field(gt=0, le=1 << 40, json_schema_extra=without_default)] = 0
    rate: Annotated[float | None, Field(gt=0, lt=1, json_schema_extra=without_default)] = 0.0
    words: str | None = Field(default=None, json_schema_extra=without_default)

    @model_validator(mode="before")
    @classmethod
    def _of_the_method(cls, said: Any) -> Any:
        """What is left out is as the method has it; a null is a null."""
        if not isinstance(said, dict) or said.get("method") not in SETTINGS:
            return said
        setting = SETTINGS[said["method"]]
        found = {"expected": setting.expected, "rate": setting.of.rate, "words": setting.words} | said
        if isinstance(found["rate"], str) and SCIENTIFIC.fullmatch(found["rate"]):
            found["rate"] = float(found["rate"])
        return found

    @model_validator(mode="after")
    def _can_be_had(self) -> Self:
        if (self.words is None) != (SETTINGS[self.method].words is None):
            needs = (
                "needs no word splitter: leave `words` out" if self.words else "finds sentences by `words`: name them"
            )
            raise ValueError(f"{self.method} {needs}")
        if self.words is not None:
            known_words(self.words)
            if self.method == C4_SPANS.name and self.words != "spacy_english" and not self.words.startswith(PREFIX):
                raise ValueError(
                    f"{self.words} does not say where sentences end: {self.method} needs spacy_english or"
                    f" {PREFIX}LANG_Script"
                )
        try:
            self.memory  # noqa: B018 - what no filter can keep is said here
        except RecipeError as error:
            raise ValueError(str(error)) from error
        return self

    @cached_property
    def of(self) -> Method:
        """The method with the rate of this step."""
        return replace(SETTINGS[self.method].of, rate=self.rate)

    @cached_property
    def memory(self) -> int:
        """The bytes of a window; every worker holds one."""
        return self.of.memory(self.expected)

    @property
    def paper(self) -> Paper:
        """Where the method is from."""
        return self.of.paper

    @property
    def splitter(self) -> str:
        """The name of the splitter that the texts are cut with; one that costs nothing where that is of no matter."""
        return self.words or WHITESPACE.name

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that bears on what is removed. Room for exact hashes does not: there is enough, or an error."""
        unbound = {"expected"} if self.rate is None else None
        return {**self.model_dump(exclude=unbound), "revision": REVISION}

    @cached_property
    def notices(self) -> tuple[Signal, ...]:
        """What the method notices, and after it what the rules read."""
        return (*self.of.notices, *(rule.signal for rule in self.rules if rule.signal not in self.of.notices))

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The rules of the method, each so that it lets pass every document that lost nothing."""
        return tuple(rule if rule.low is None else missing_rule(self.method, rule) for rule in self.of.rules)


def missing_rule(method: str, rule: Rule) -> Rule:
    """A rule that asks for a least number of something, as one over what is missing to it."""
    kind = rule.name.rpartition(".")[2].replace("left", "paragraphs")
    says = f"{rule.signal.says}: how many fewer than {rule.low:g}, 0 where the document lost nothing"
    signal = Signal(name=f"{method}.missing_{kind}", kind="count", says=says, revision=rule.signal.revision)
    return Rule(name=signal.name, signal=signal, high=0, paper=rule.paper)


def begin(step: Lines) -> Window:
    """Nothing met yet. Takes `step.memory` bytes."""
    return step.of.begin(step.expected)


def edited(step: Lines, window: Window, batch: TextBatch, file: str) -> Edited:
    """What is left of the texts, which are the next of the window, and the signals `step.notices`.

    Raises RecipeError, naming the file, where more came than was expected.
    """
    try:
        if isinstance(window, paragraphs.Window):
            found = paragraphs.edited(window, batch)
        elif isinstance(window, bff.Window):
            found = bff.edited(window, batch)
        else:
            found = spans.edited(window, batch)
    except RecipeError as error:
        things, more = SETTINGS[step.method].things, 2 * step.expected
        raise RecipeError(
            f"{file or 'the window'} has more than the {step.expected:,} different {things} that the step `lines`"
            f" expects of a file. Set `expected: {more}` in it, or more: a window then takes"
            f" {step.of.memory(more):,} bytes instead of {step.memory:,}. Or make the files smaller."
        ) from error
    return Edited(texts=found.texts, signals={**found.signals, **missing(step, batch, found)})


def missing(step: Lines, batch: TextBatch, found: Edited) -> Signals:
    """The signals of the rules that ask for a least number: what is missing to it in documents that lost something."""
    lost = np.array([old != new for old, new in zip(batch.texts, found.texts, strict=True)], np.bool_)
    return {
        rule.name: counted(
            np.where(lost, np.maximum(asked.low - found.signals[asked.name].value, 0), 0).astype(np.int64)
        )
        for asked, rule in zip(step.of.rules, step.rules, strict=True)
        if asked.low is not None
    }


def among(measured: Measured, places: npt.NDArray[np.intp], count: int) -> Measured:
    """What was measured on the documents at `places` of `count`, with 0, or 0 / 1, for the others."""
    assert measured.numerator is not None, "lines are counted, never scored"
    numerator = np.zeros(count, np.uint32)
    numerator[places] = measured.numerator
    if measured.denominator is None:
        return Measured(numerator=numerator)
    denominator = np.ones(count, np.uint32)
    denominator[places] = measured.denominator
    return Measured(numerator=numerator, denominator=denominator)
