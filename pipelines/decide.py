"""What becomes of a batch of pages: the steps of a recipe, one after the other, each over the documents still in play.

URL, gate, extraction and language end a document's way at once, for what follows them is dear. From the first rule
on text, every rule is measured on every document, and the first that fails in recipe order is the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import xxhash

from filters import language as language_rules
from filters.batch import TextBatch
from filters.rule import Measured, Rule, Signals, first_failing
from filters.tokens import Vocabulary
from pipelines.extract import Extracted, Parser
from pipelines.langid import best_and_wanted
from pipelines.recipe import EditStep, Extract, Gate, Language, Recipe, Rules, Url, step_rules
from pipelines.record import Page
from pipelines.tokenizers import token_counts
from pipelines.urls import block_lists, url_signals
from pipelines.words import words_by_name

Indices = npt.NDArray[np.int64]


@dataclass(kw_only=True)
class Decisions:
    """What is known of each page of a batch; filled step by step.

    `first[i]` is the index in `recipe.rules` of the first rule that page i fails, -1 for none; `value[i]` its signal
    there. `raw` is the extracted text, `text` the current view. `refused` holds the pages that are quarantined.
    """

    pages: Sequence[Page]
    first: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    reached: Indices
    raw: list[str | None]
    text: list[str]
    language: list[str]
    language_score: npt.NDArray[np.float64]
    token_count: list[int | None]
    refused: dict[int, Extracted] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)
    gate: Counter[str] = field(default_factory=Counter)
    signals: dict[str, Measured] = field(default_factory=dict)
    seen: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def begin(cls, pages: Sequence[Page]) -> Self:
        """Nothing decided yet: every page in play."""
        count = len(pages)
        return cls(
            pages=pages,
            first=np.full(count, -1, np.int64),
            value=np.full(count, np.nan),
            reached=np.arange(count, dtype=np.int64),
            raw=[None] * count,
            text=[""] * count,
            language=[""] * count,
            language_score=np.zeros(count),
            token_count=[None] * count,
        )

    @property
    def kept(self) -> list[int]:
        """Indices of the pages that no rule drops and nothing refused."""
        return [index for index in range(len(self.pages)) if self.first[index] < 0 and index not in self.refused]

    def judge(self, rules: tuple[Rule, ...], signals: Signals, offset: int) -> None:
        """Apply rules, whose first has index `offset` in the recipe, to the pages reached."""
        first, failed = first_failing(signals, rules, len(self.reached))
        for rule, count in zip(rules, failed.sum(axis=1).tolist(), strict=True):
            self.seen[rule.name] = signals[rule.signal.name].value
            if count:
                self.failed[rule.name] += count
        for place in np.flatnonzero(first >= 0):
            index = self.reached[place]
            if self.first[index] < 0:
                self.first[index] = offset + first[place]
                self.value[index] = signals[rules[first[place]].signal.name].value[place]

    def leave(self) -> None:
        """Take the pages that were dropped or refused out of play."""
        going = [index for index in self.reached.tolist() if self.first[index] < 0 and index not in self.refused]
        self.reached = np.array(going, np.int64)


class Decider:
    """Decides batches of pages by one recipe. Holds the parser child, the vocabularies and the lists; close it after
    use.
    """

    def __init__(self, recipe: Recipe, *, parser: Parser | None = None) -> None:
        self.recipe = recipe
        self._parser = parser
        self._vocabularies: dict[str, Vocabulary] = {}
        self._offsets = [
            sum(len(step_rules(before.value)) for before in recipe.steps[:at]) for at in range(len(recipe.steps))
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the parser child."""
        if self._parser is not None:
            self._parser.close()

    @cached_property
    def parser(self) -> Parser:
        """The parser of the recipe's extract step."""
        step = self.recipe.step(Extract)
        assert step is not None, "asked for only where a recipe extracts"
        if self._parser is None:
            self._parser = Parser(step, self.recipe.step(Gate), self.recipe.step(Language))
        return self._parser

    def decide(self, pages: Sequence[Page]) -> Decisions:
        """Return what becomes of each page. What a page does never raises."""
        batch = Decisions.begin(pages)
        if self.recipe.step(Extract) is None:
            self._take_text(batch)
        for step, offset in zip(self.recipe.steps, self._offsets, strict=True):
            value = step.value
            if isinstance(value, Url):
                urls = [pages[index].url for index in batch.reached.tolist()]
                signals = url_signals(urls, block_lists(), case_sensitive=value.case_sensitive)
                batch.judge(step_rules(value), signals, offset)
                batch.leave()
            elif isinstance(value, Extract):
                self._extract(batch, value, offset)
            elif isinstance(value, Language):
                self._identify(batch, value, offset)
            elif isinstance(value, Rules):
                self._measure(batch, value, offset)
            elif isinstance(value, EditStep):
                self._edit(batch, value)
        self._count_tokens(batch)
        return batch

    def _take_text(self, batch: Decisions) -> None:
        for index, page in enumerate(batch.pages):
            batch.raw[index] = batch.text[index] = page.text

    def _extract(self, batch: Decisions, step: Extract, offset: int) -> None:
        gate, language = self.recipe.step(Gate), self.recipe.step(Language)
        gated: list[float] = []
        for index in batch.reached.tolist():
            page = batch.pages[index]
            sampled = gate is not None and in_sample(page, gate.sample)
            got = self.parser.parse(page.text, despite_gate=sampled) if page.is_html else Extracted(text=page.text)
            if sampled and got.refused is not None:
                got = self.parser.parse(page.text)  # what the sample costs is no fact of the page
            if got.refused is None and len(got.text) > self.recipe.read.max_text_characters:
                limit = f"the text has more than max_text_characters = {self.recipe.read.max_text_characters:,}"
                got = Extracted(refused="text_characters", detail=limit)
            if got.refused is not None:
                batch.refused[index] = got
            elif gate is not None and language is not None and got.wanted < gate.low:
                batch.gate["stopped"] += 1
                if sampled and not got.gated:
                    batch.gate["sampled"] += 1
                    wanted = best_and_wanted(language.model, got.text, language.keep, language.newline)[2]
                    batch.gate["false_drops"] += wanted > language.above
                got = replace(got, text="")
            gated.append(got.wanted)
            batch.raw[index] = batch.text[index] = got.text
        if gate is not None:
            # Plain text passes no gate, and a page that was refused is no drop: both count as certain here.
            score = np.nan_to_num(np.array(gated, np.float32), nan=1.0)
            before = sum(
                len(step_rules(one.value)) for one in takewhile(lambda one: one.gate is None, self.recipe.steps)
            )
            batch.judge(step_rules(gate), {language_rules.GATE.name: Measured(score=score)}, before)
        batch.leave()
        characters = np.array([len(batch.text[index]) for index in batch.reached.tolist()], np.uint32)
        batch.judge(step_rules(step), {language_rules.CHARACTERS.name: Measured(numerator=characters)}, offset)
        batch.leave()

    def _identify(self, batch: Decisions, step: Language, offset: int) -> None:
        wanted = []
        for index in batch.reached.tolist():
            found = best_and_wanted(step.model, batch.text[index], step.keep, step.newline)
            batch.language[index], batch.language_score[index] = found[0], found[1]
            wanted.append(found[2])
        signals = {language_rules.WANTED.name: Measured(score=np.array(wanted, np.float32))}
        batch.judge(step_rules(step), signals, offset)
        batch.leave()

    def _measure(self, batch: Decisions, step: Rules, offset: int) -> None:
        text_batch = self._text_batch(batch, step.words)
        signals: dict[str, Measured] = {}
        for family in step.resolved_families:
            names = {rule.signal.name for rule in family.rules}
            noticed = {name: batch.signals[name] for name in names if name in batch.signals}
            signals.update(noticed if noticed.keys() == names else family.measure(text_batch))
        batch.judge(step.rules, signals, offset)

    def _edit(self, batch: Decisions, step: EditStep) -> None:
        edited = step.edit.apply(self._text_batch(batch, step.words))
        for index, text in zip(batch.reached.tolist(), edited.texts, strict=True):
            batch.text[index] = text
        batch.signals.update(edited.signals)

    def _text_batch(self, batch: Decisions, words: str) -> TextBatch:
        if words not in self._vocabularies:
            self._vocabularies[words] = Vocabulary(words_by_name(words))
        texts = [batch.text[index] for index in batch.reached.tolist()]
        return TextBatch(texts, self._vocabularies[words])

    def _count_tokens(self, batch: Decisions) -> None:
        kept = batch.kept
        if self.recipe.tokenizer is not None and kept:
            counts = token_counts(self.recipe.tokenizer, [batch.text[index] for index in kept])
            for index, count in zip(kept, counts, strict=True):
                batch.token_count[index] = count


def in_sample(page: Page, fraction: float) -> bool:
    """True for a `fraction` of pages, by the hash of their payload."""
    return xxhash.xxh3_64_intdigest(page.digest, seed=1) < fraction * 2**64
