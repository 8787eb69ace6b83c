"""What becomes of a batch of pages: the steps of a recipe, one after the other, each over the documents still in play.

A document leaves at the first step with a rule that it fails: what follows is spared. In annotate mode none leaves:
every signal is measured on every document that has a text. Where a rule drops a document before a `lines` step, that
step passes its text by. In both modes the first rule that fails, in recipe order, is the reason, and both keep the same
documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xxhash

from filters import language as language_rules
from filters.batch import TextBatch
from filters.errors import RecipeError
from filters.rule import Family, Measured, Rule, Signals, first_failing
from filters.tokens import Lexicon
from pipelines.classifier import Classifier, model_of
from pipelines.datatrove_filter import Datatrove, verdicts
from pipelines.dedup import lines
from pipelines.dedup.fingerprints import hasher_of
from pipelines.dedup.lines import Lines, Window
from pipelines.dedup.minhash import Hasher
from pipelines.dedup.step import Dedup
from pipelines.extract import Extracted, Parser
from pipelines.langid import best_and_wanted
from pipelines.recipe import EditStep, Extract, Gate, Language, Pattern, Recipe, Rules, Url, step_rules
from pipelines.record import Page
from pipelines.signals import RAW, column_name, signal_columns, unnamed, view_made, views
from pipelines.tokenizers import token_counts
from pipelines.urls import block_lists, url_signals
from pipelines.words import words_by_name

Indices = npt.NDArray[np.int64]


@dataclass(kw_only=True)
class Decisions:
    """What is known of each page of a batch; filled step by step.

    `first[i]` is the index in `recipe.rules` of the first rule that page i fails, -1 for none; `value[i]` its signal
    there. `raw` is the extracted text, `text` the current view. `refused` holds the pages that are quarantined,
    `absent` those that a rule dropped before their text was refused: only annotate mode asks for one. `measured` holds,
    for each column of signals, which pages it was measured on and what was found; `noticed` the same for what edits
    noticed.
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
    raw_token_count: list[int | None]
    refused: dict[int, Extracted] = field(default_factory=dict)
    absent: dict[int, Extracted] = field(default_factory=dict)
    measured: dict[str, tuple[Indices, Measured]] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)
    gate: Counter[str] = field(default_factory=Counter)
    noticed: dict[str, tuple[Indices, Measured]] = field(default_factory=dict)
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
            raw_token_count=[None] * count,
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

    def leave(self, *, dropped: bool) -> None:
        """Take the pages without a text out of play, and with `dropped` those that a rule dropped."""
        gone = self.refused.keys() | self.absent.keys()
        going = [index for index in self.reached.tolist() if not (dropped and self.first[index] >= 0 or index in gone)]
        self.reached = np.array(going, np.int64)

    def record(self, signals: Signals, view: str) -> None:
        """Hold what was measured on the pages reached, for storing."""
        for name, measured in signals.items():
            self.measured.setdefault(column_name(name, view), (self.reached, measured))

    def noticed_by_edits(self, names: Iterable[str]) -> Signals | None:
        """The signals of these names for the pages reached, or None where the edits did not notice all of them."""
        found = {name: self.noticed[name] for name in names if name in self.noticed}
        if len(found) < len(set(names)):
            return None
        return {name: signal.of(np.searchsorted(pages, self.reached)) for name, (pages, signal) in found.items()}

    def given(self, index: int, name: str) -> Any:
        """What the page's row says of its text under this name; None where it does not, or is no row."""
        return getattr(self.pages[index].given, name, None)

    @property
    def texts(self) -> list[str]:
        """The texts of the pages reached, in the current view."""
        return [self.text[index] for index in self.reached.tolist()]

    def refuse(self, index: int, why: Extracted) -> None:
        """A page has no text: it is quarantined, unless a rule dropped it before."""
        (self.refused if self.first[index] < 0 else self.absent)[index] = why


class Decider:
    """Decides batches of pages by one recipe. Holds the parser child, the vocabularies and the lists; close it after
    use.

    annotate: measure every document to the end and hold the numbers. all_signals: also those of the families that the
    recipe does not name, on the raw text. timing_dependent: whether a deadline has met any page since it was set to
    False, even one that a rule drops.
    """

    def __init__(
        self, recipe: Recipe, *, parser: Parser | None = None, annotate: bool = False, all_signals: bool = False
    ) -> None:
        self.recipe = recipe
        self._parser = parser
        self._annotate = annotate
        self._others = unnamed(recipe) if all_signals else ()
        self.timing_dependent = False
        self._window: Window | None = None
        self._file = ""
        self._lexicon = Lexicon()
        self._texts: list[str] = []
        self._cut: dict[str, TextBatch] = {}
        steps = [step.value for step in recipe.steps]
        self._judges = {step.signal.name: step.made() for step in steps if isinstance(step, Datatrove)}
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

    @cached_property
    def hasher(self) -> Hasher | None:
        """What the recipe's dedup step makes signatures with, its vocabulary warm; None where it wants none."""
        return hasher_of(self.recipe.step(Dedup), self._lexicon)

    def begin_file(self, path: str) -> None:
        """Forget what was met: the pages to come are those of another file. Only a `lines` step asks for it."""
        self._window, self._file = None, path

    def decide(self, pages: Sequence[Page]) -> Decisions:
        """Return what becomes of each page. What a page does never raises. Where the recipe has a `lines` step, pages
        are the next of their file.
        """
        batch = Decisions.begin(pages)
        if self.recipe.step(Extract) is None:
            self._take_text(batch)
        for (step, view), offset in zip(views(self.recipe), self._offsets, strict=True):
            value = step.value
            if view == RAW and view_made(value) is not None:
                self._measure_others(batch)
            if isinstance(value, Url):
                self._look_up(batch, value, offset)
            elif isinstance(value, Extract):
                self._extract(batch, value, offset)
            elif isinstance(value, Language):
                self._identify(batch, value, offset)
            elif isinstance(value, Rules):
                self._measure(batch, value, view, offset)
            elif isinstance(value, EditStep):
                self._edit(batch, value, view)
            elif isinstance(value, Lines):
                self._remove_lines(batch, value, view, offset)
            elif isinstance(value, Classifier | Pattern):
                self._judge(batch, value.rules, value.measure(batch.texts), offset, view)
            elif isinstance(value, Datatrove):
                self._ask_datatrove(batch, value, view, offset)
            batch.leave(dropped=not self._annotate)
        if not any(view_made(step.value) for step in self.recipe.steps):
            self._measure_others(batch)
        self._count_tokens(batch)
        self._texts, self._cut = [], {}
        return batch

    def _take_text(self, batch: Decisions) -> None:
        for index, page in enumerate(batch.pages):
            if page.is_html:
                raise RecipeError(
                    f"{self.recipe.name} has no extract step, and {page.url or page.record_id} is an HTML page. Put "
                    "`- extract: {engine: trafilatura}` before the rules, or read WET files, Parquet or JSONL."
                )
            if (refused := self._too_large(page.text)) is not None:
                batch.refuse(index, refused)
            else:
                batch.raw[index] = batch.text[index] = page.text
                batch.language[index] = batch.given(index, "language") or ""
                batch.language_score[index] = batch.given(index, "language_score") or 0.0
        batch.leave(dropped=False)

    def _too_large(self, text: str) -> Extracted | None:
        limit = self.recipe.read.max_text_bytes
        # A text with fewer characters than a quarter of the limit cannot have more bytes.
        if 4 * len(text) <= limit or len(text.encode("utf-8", "surrogatepass")) <= limit:
            return None
        return Extracted(refused="text_bytes", detail=f"the text has more than max_text_bytes = {limit:,}")

    def _look_up(self, batch: Decisions, step: Url, offset: int) -> None:
        urls = [batch.pages[index].url for index in batch.reached.tolist()]
        signals = url_signals(urls, block_lists(), case_sensitive=step.case_sensitive)
        self._judge(batch, step_rules(step), signals, offset, RAW)

    def _judge(self, batch: Decisions, rules: tuple[Rule, ...], signals: Signals, offset: int, view: str) -> None:
        if self._annotate:
            batch.record(signals, view)
        batch.judge(rules, signals, offset)

    def _extract(self, batch: Decisions, step: Extract, offset: int) -> None:
        gate = self.recipe.step(Gate)
        found = {index: self._extracted(batch, batch.pages[index], gate) for index in batch.reached.tolist()}
        if gate is not None:
            # Plain text passes no gate, and a page that was refused is no drop: both count as certain here.
            score = np.nan_to_num(np.array([got.wanted for got in found.values()], np.float32), nan=1.0)
            before = sum(
                len(step_rules(one.value)) for one in takewhile(lambda one: one.gate is None, self.recipe.steps)
            )
            self._judge(batch, step_rules(gate), {language_rules.GATE.name: Measured(score=score)}, before, RAW)
        for index, got in found.items():
            if got.refused is not None:
                batch.refuse(index, got)
            else:
                batch.raw[index] = batch.text[index] = got.text
        batch.leave(dropped=not self._annotate)
        characters = np.array([len(batch.text[index]) for index in batch.reached.tolist()], np.uint32)
        signals = {language_rules.CHARACTERS.name: Measured(numerator=characters)}
        self._judge(batch, step_rules(step), signals, offset, RAW)

    def _extracted(self, batch: Decisions, page: Page, gate: Gate | None) -> Extracted:
        """The text of a page; of one that the gate stops only what the gate's sample and annotate mode ask for."""
        if not page.is_html:
            return self._too_large(page.text) or Extracted(text=page.text)
        sampled = gate is not None and in_sample(page, gate.sample)
        despite = gate is not None and (sampled or self._annotate)
        got = self._parsed(page, despite_gate=despite)
        if despite and got.refused is not None:
            # What the gate would have spared is no fact of the page: only one that it lets through is quarantined.
            gated = self._parsed(page, despite_gate=False)
            if gated.refused is None and gate is not None and gated.wanted < gate.low:
                batch.gate["stopped"] += 1
                return replace(got, wanted=gated.wanted) if self._annotate else replace(gated, text="")
            got = gated
        return self._past_gate(batch, got, gate, sampled)

    def _parsed(self, page: Page, *, despite_gate: bool) -> Extracted:
        got = self.parser.parse(page.text, despite_gate=despite_gate)
        self.timing_dependent = self.timing_dependent or got.timing_dependent
        return got if got.refused is not None else self._too_large(got.text) or got

    def _past_gate(self, batch: Decisions, got: Extracted, gate: Gate | None, sampled: bool) -> Extracted:
        language = self.recipe.step(Language)
        if gate is None or language is None or got.refused is not None or got.wanted >= gate.low:
            return got
        batch.gate["stopped"] += 1
        if sampled and not got.gated:
            batch.gate["sampled"] += 1
            wanted = best_and_wanted(language.model, got.text, language.keep, language.newline)[2]
            batch.gate["false_drops"] += wanted > language.above
        return got if self._annotate else replace(got, text="")

    def _identify(self, batch: Decisions, step: Language, offset: int) -> None:
        wanted = []
        for index in batch.reached.tolist():
            found = best_and_wanted(step.model, batch.text[index], step.keep, step.newline)
            batch.language[index], batch.language_score[index] = found[0], found[1]
            wanted.append(found[2])
        signals = {language_rules.WANTED.name: Measured(score=np.array(wanted, np.float32))}
        self._judge(batch, step_rules(step), signals, offset, RAW)

    def _measure(self, batch: Decisions, step: Rules, view: str, offset: int) -> None:
        signals: dict[str, Measured] = {}
        rest = []
        for family in step.resolved_families:
            noticed = batch.noticed_by_edits([signal.name for signal in family.signals])
            signals.update(noticed or {})
            if noticed is None:
                rest.append(family)
        signals.update(self._measured(batch, rest, step.words, view))
        batch.judge(step.rules, signals, offset)

    def _measure_others(self, batch: Decisions) -> None:
        self._measured(batch, self._others, self.recipe.words, RAW)

    def _measured(self, batch: Decisions, families: Iterable[Family], words: str, view: str) -> Signals:
        """The signals of these families; families with the same words share one batch of texts."""
        signals: dict[str, Measured] = {}
        for family in families:
            signals.update(self._text_batch(batch, family.words or words).measured(family))
        if self._annotate:
            batch.record(signals, view)
        return signals

    def _edit(self, batch: Decisions, step: EditStep, view: str) -> None:
        edited = step.edit.apply(self._text_batch(batch, step.edit.words or step.words))
        for index, text in zip(batch.reached.tolist(), edited.texts, strict=True):
            batch.text[index] = text
        batch.noticed.update({name: (batch.reached, signal) for name, signal in edited.signals.items()})
        if self._annotate:
            batch.record(edited.signals, view)

    def _remove_lines(self, batch: Decisions, step: Lines, view: str, offset: int) -> None:
        """Only documents that no rule has dropped enter the window, in annotate mode as in the other. A document that a
        rule has dropped stays as it is: it lost nothing, and what the method notices is not measured on it.
        """
        if self._window is None:
            self._window = lines.begin(step)
        places = np.flatnonzero(batch.first[batch.reached] < 0)
        within = batch.reached[places]
        if len(places) == len(batch.reached):
            texts = self._text_batch(batch, step.splitter)
        else:
            vocabulary = self._lexicon.vocabulary(words_by_name(step.splitter))
            texts = TextBatch([batch.text[index] for index in within.tolist()], vocabulary)
        found = lines.edited(step, self._window, texts, self._file)
        for index, text in zip(within.tolist(), found.texts, strict=True):
            batch.text[index] = text
        read = {rule.signal.name for rule in step.rules}
        ruled = {name: lines.among(found.signals[name], places, len(batch.reached)) for name in read}
        if self._annotate:
            for name in found.signals.keys() - read:
                batch.measured[column_name(name, view)] = (within, found.signals[name])
        self._judge(batch, step.rules, ruled, offset, view)

    def _ask_datatrove(self, batch: Decisions, step: Datatrove, view: str, offset: int) -> None:
        """A document at which the filter raises is quarantined. A text that it drops stays as it was."""
        asked = batch.reached.tolist()
        found = verdicts(self._judges[step.signal.name], [datatrove_document(batch, index) for index in asked])
        for index, verdict in zip(asked, found, strict=True):
            if verdict.fault is not None:
                batch.refuse(index, Extracted(refused="filter_error", detail=f"{step.signal.name}: {verdict.fault}"))
            elif verdict.text != batch.text[index] and not step.rewrites and batch.first[index] < 0:
                raise RecipeError(
                    f"{self.recipe.name}: {step.signal.name} changed the text of {batch.pages[index].record_id}. Say "
                    "`rewrites: true` in its step."
                )
            elif verdict.kept and step.rewrites:
                batch.text[index] = verdict.text
        batch.leave(dropped=False)
        kept = np.array([verdict.kept for verdict in found if verdict.fault is None], np.uint32)
        self._judge(batch, step.rules, {step.signal.name: Measured(numerator=kept)}, offset, view)

    def _text_batch(self, batch: Decisions, words: str) -> TextBatch:
        """The texts in play, cut by this splitter; the same value while they stay the same."""
        texts = batch.texts
        if texts != self._texts:
            self._texts, self._cut = texts, {}
        if words not in self._cut:
            self._cut[words] = TextBatch(texts, self._lexicon.vocabulary(words_by_name(words)))
        return self._cut[words]

    def _count_tokens(self, batch: Decisions) -> None:
        if self.recipe.tokenizer is None:
            for index in batch.kept:
                if batch.text[index] == batch.raw[index]:
                    batch.token_count[index] = batch.raw_token_count[index] = batch.given(index, "token_count")
            return
        self._count(batch.kept, batch.text, batch.token_count)
        if not self._annotate:
            return
        raw = [text or "" for text in batch.raw]
        same = [index for index in batch.kept if batch.text[index] == raw[index]]
        for index in same:
            batch.raw_token_count[index] = batch.token_count[index]
        with_text = {index for index, text in enumerate(batch.raw) if text is not None}
        self._count(sorted(with_text.difference(same)), raw, batch.raw_token_count)

    def _count(self, pages: Sequence[int], texts: Sequence[str], counts: list[int | None]) -> None:
        """Put the number of tokens of these pages' texts into `counts`."""
        assert self.recipe.tokenizer is not None, "asked for only where the recipe has one"
        if pages:
            found = token_counts(self.recipe.tokenizer, [texts[index] for index in pages])
            for index, count in zip(pages, found, strict=True):
                counts[index] = count


def datatrove_document(batch: Decisions, index: int) -> dict[str, Any]:
    """The fields of a page as datatrove's `Document`, in the current view; a language only where one is known."""
    page = batch.pages[index]
    metadata: dict[str, Any] = {"url": page.url, "date": page.date}
    if batch.language[index]:
        metadata |= {"language": batch.language[index], "language_score": float(batch.language_score[index])}
    return {"text": batch.text[index], "id": page.record_id, "metadata": metadata}


def check_here(recipe: Recipe, *, all_signals: bool = False) -> None:
    """Raise unless what the recipe names is here: word splitters with their packages, models of the right sha256 that
    know their label, datatrove filters whose constructors take their arguments. Loads every model.
    """
    for words in {column.words for column in signal_columns(recipe, all_signals=all_signals)} - {""}:
        words_by_name(words)
    hasher_of(recipe.step(Dedup))
    for step in recipe.steps:
        if isinstance(step.value, Classifier):
            model_of(step.value)
        elif isinstance(step.value, Datatrove):
            step.value.made()


def in_sample(page: Page, fraction: float) -> bool:
    """True for a `fraction` of pages, by the hash of their payload."""
    return xxhash.xxh3_64_intdigest(page.digest, seed=1) < fraction * 2**64
