"""C4's clean-up of lines, as an edit, and the rules over what the edit notices.

The edit decides for every line as datatrove 0.10.1's `C4QualityFilter(filter_no_terminal_punct=False)` does. That
filter stops at the first line that condemns a document; the edit goes on to the last one, and the rules, in their
order, give the same first reason. With a rule left out, text and signals are those of that filter with the switch off.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np

from filters.edit import Edit, Edited
from filters.rule import Bools, Family, Paper, Rule, Signal, Signals

if TYPE_CHECKING:
    from filters.batch import Counts, TextBatch

C4 = Paper(
    title="Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
    url="https://jmlr.org/papers/volume21/20-074/20-074.pdf",
    where="2.2, The Colossal Clean Crawled Corpus",
)
FINEWEB = Paper(
    title="The FineWeb Datasets: Decanting the Web for the Finest Text Data at Scale",
    url="https://arxiv.org/abs/2406.17557",
    where="3.5, C4's filters without terminal punctuation; details as in datatrove's c4_filters.py",
)

CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
LONGEST_WORD = 1000  # characters; a line with a longer word goes
FEWEST_WORDS = 3  # a line with fewer goes
LOREM_IPSUM = "lorem ipsum"
JAVASCRIPT = "javascript"
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")


def line_signal(name: str, says: str) -> Signal:
    """A count of lines, or of sentences."""
    return Signal(name=f"c4.{name}", kind="count", says=says)


TOO_LONG_WORD = line_signal("lines_too_long_word", "lines dropped for a word of more than 1,000 characters")
TOO_FEW_WORDS = line_signal("lines_too_few_words", "lines dropped for having fewer than 3 words")
SCRIPT = line_signal("lines_javascript", "lines dropped for 'javascript'")
POLICY = line_signal("lines_policy", "lines dropped for a phrase of privacy or cookie policies")
KEPT = line_signal("lines_kept", "lines kept")
LOREM_FIRST = line_signal("lorem_ipsum_first", "lines with 'lorem ipsum' up to the first one with a curly bracket")
BRACKETS = line_signal("curly_bracket", "lines with '{' that were long enough and without 'javascript'")
LOREM = line_signal("lorem_ipsum", "lines with 'lorem ipsum' that were long enough")
SENTENCES = line_signal("sentences", "sentences in the lines kept")
PHRASE_KINDS = (SCRIPT, POLICY, KEPT, LOREM_FIRST, BRACKETS, LOREM)


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """Which phrases a text holds, citations aside: what occurs nowhere need not be looked for in its lines."""

    lorem: bool
    script: bool
    policies: tuple[str, ...]
    bracket: bool
    cited: bool


def suspicions(batch: TextBatch) -> list[Suspicion]:
    """What each text is suspected of; nothing at all, for the most part."""
    found = []
    for text in batch.texts:
        low = without_citations(text).lower()
        found.append(
            Suspicion(
                lorem=LOREM_IPSUM in low,
                script=JAVASCRIPT in low,
                policies=with_any(POLICIES, low),
                bracket="{" in text,
                cited="[" in text,
            )
        )
    return found


def with_any(parts: tuple[str, ...], text: str) -> tuple[str, ...]:
    """Those of `parts` that occur in the text."""
    return tuple(part for part in parts if part in text)


def without_citations(text: str) -> str:
    """The text without "[1]", "[edit]" and "[citation needed]"."""
    return CITATION.sub("", text) if "[" in text else text


def kept_lines(lines: list[str], of: Suspicion) -> tuple[list[str], dict[str, int]]:
    """Return which lines of a text stay, and how many there were of each of PHRASE_KINDS, without the family's name."""
    kinds = dict.fromkeys((signal.name.removeprefix("c4.") for signal in PHRASE_KINDS), 0)
    suspect = of.lorem or of.script or bool(of.policies)
    if not (suspect or of.bracket):
        kinds["lines_kept"] = len(lines)
        return lines, kinds
    kept: list[str] = []
    for line in lines:
        low = line.lower() if suspect else ""
        if of.lorem and LOREM_IPSUM in low:
            kinds["lorem_ipsum"] += 1
            kinds["lorem_ipsum_first"] += not kinds["curly_bracket"]
        if of.script and JAVASCRIPT in low:
            kinds["lines_javascript"] += 1
            continue
        kinds["curly_bracket"] += "{" in line
        if of.policies and with_any(of.policies, low):
            kinds["lines_policy"] += 1
            continue
        kept.append(line)
    kinds["lines_kept"] = len(kept)
    return kept, kinds


def chosen_lines(batch: TextBatch, chosen: Bools) -> list[list[str]]:
    """Of each text those of its lines that are chosen, without white space at their ends."""
    every = list(chain.from_iterable(batch.split_lines))
    places = np.flatnonzero(chosen)
    lines = [every[place].strip() for place in places.tolist()]
    bounds = np.searchsorted(places, batch.worded_lines.offsets).tolist()
    return [lines[first:last] for first, last in pairwise(bounds)]


def per_text(batch: TextBatch, chosen: Bools) -> Counts:
    """How many of `batch.worded_lines` are chosen."""
    from filters import kernels_lines

    return kernels_lines.summed_by_text(chosen.astype(np.int64), batch.worded_lines.offsets)


def without_phrases(batch: TextBatch, lines: list[list[str]], family: str) -> Edited:
    """Drop lines for their phrases; the signals are PHRASE_KINDS and SENTENCES in the name of `family`.

    `lines` are those of each text of which nothing else is to be said, without citations.
    """
    from filters import kernels_lines
    from filters.batch import counted, integers

    found = [kept_lines(some, of) for some, of in zip(lines, batch.once(suspicions), strict=True)]
    per_line = batch.sentences([line for kept, _ in found for line in kept])
    ends = np.cumsum([0, *(len(kept) for kept, _ in found)], dtype=np.int64)
    kinds = (signal.name.removeprefix("c4.") for signal in PHRASE_KINDS)
    signals = {f"{family}.{kind}": counted(integers(kinds[kind] for _, kinds in found)) for kind in kinds}
    signals[f"{family}.sentences"] = counted(kernels_lines.summed_by_text(per_line, ends))
    return Edited(texts=["\n".join(kept).strip() for kept, _ in found], signals=signals)


def clean_lines(batch: TextBatch) -> Edited:
    """Drop lines that are no prose and strip citations; count what was met and the sentences that are left."""
    from filters.batch import counted

    long = batch.worded_lines.longest > LONGEST_WORD
    short = (batch.worded_lines.words < FEWEST_WORDS) & ~long
    lines = chosen_lines(batch, ~(long | short))
    for at, of in enumerate(batch.once(suspicions)):
        if of.cited:
            lines[at] = list(map(without_citations, lines[at]))
    edited = without_phrases(batch, lines, "c4")
    noticed = {TOO_LONG_WORD.name: counted(per_text(batch, long)), TOO_FEW_WORDS.name: counted(per_text(batch, short))}
    return replace(edited, signals={**noticed, **edited.signals})


def measured(batch: TextBatch) -> Signals:
    """What the edit would notice; where a recipe applies the edit, take its signals instead of measuring again."""
    return clean_lines(batch).signals


LINES = Edit(
    name="c4_lines", apply=clean_lines, notices=(TOO_LONG_WORD, TOO_FEW_WORDS, *PHRASE_KINDS, SENTENCES), paper=FINEWEB
)

QUALITY = Family(
    name="c4",
    rules=(
        Rule(name="c4.lorem_ipsum_first", signal=LOREM_FIRST, high=0, paper=C4, reason="lorem_ipsum"),
        Rule(name="c4.curly_bracket", signal=BRACKETS, high=0, paper=C4, reason="curly_bracket"),
        Rule(name="c4.lorem_ipsum", signal=LOREM, high=0, paper=C4, reason="lorem_ipsum"),
        Rule(name="c4.sentences", signal=SENTENCES, low=5, paper=C4, reason="too_few_sentences"),
    ),
    measure=measured,
    unruled=(TOO_LONG_WORD, TOO_FEW_WORDS, SCRIPT, POLICY, KEPT),
)
