"""C4's clean-up of lines, as an edit, and the rules over what the edit notices.

The edit decides for every line as datatrove 0.10.1's `C4QualityFilter(filter_no_terminal_punct=False)` does. That
filter stops at the first line that condemns a document; the edit goes on to the last one, and the rules, in their
order, give the same first reason. With a rule left out, text and signals are those of that filter with the switch off.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from filters.edit import Edit, Edited
from filters.rule import Family, Paper, Rule, Signal, Signals

if TYPE_CHECKING:
    from filters.batch import TextBatch

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


def with_any(parts: tuple[str, ...], text: str) -> tuple[str, ...]:
    """Those of `parts` that occur in the text."""
    return tuple(part for part in parts if part in text)


def kept_lines(lines: list[str], text: str) -> tuple[list[str], dict[str, int]]:
    """Return which lines of `text` stay, without citations, and how many there were of each of PHRASE_KINDS.

    `lines` are those that have words enough and none too long, without white space at their ends.
    """
    cited = "[" in text
    lowered = (CITATION.sub("", text) if cited else text).lower()
    # What occurs nowhere in the document need not be looked for in its lines: most documents have none of it.
    lorem_somewhere, script_somewhere = LOREM_IPSUM in lowered, JAVASCRIPT in lowered
    policies = with_any(POLICIES, lowered)
    suspect = lorem_somewhere or script_somewhere or bool(policies)
    kinds = dict.fromkeys((signal.name for signal in PHRASE_KINDS), 0)
    if not (suspect or cited or "{" in text):
        kinds[KEPT.name] = len(lines)
        return lines, kinds
    kept: list[str] = []
    for line in lines:
        if "[" in line:
            line = CITATION.sub("", line)
        low = line.lower() if suspect else ""
        if lorem_somewhere and LOREM_IPSUM in low:
            kinds[LOREM.name] += 1
            kinds[LOREM_FIRST.name] += not kinds[BRACKETS.name]
        if script_somewhere and JAVASCRIPT in low:
            kinds[SCRIPT.name] += 1
            continue
        if "{" in line:
            kinds[BRACKETS.name] += 1
        if policies and with_any(policies, low):
            kinds[POLICY.name] += 1
            continue
        kept.append(line)
    kinds[KEPT.name] = len(kept)
    return kept, kinds


def clean_lines(batch: TextBatch) -> Edited:
    """Drop lines that are no prose and strip citations; count what was met and the sentences that are left."""
    from filters import kernels_lines
    from filters.batch import counted, integers

    points = batch.points
    starts, stops, words, longest, lines = kernels_lines.worded_lines(points.values, points.offsets)
    long = longest > LONGEST_WORD
    short = (words < FEWEST_WORDS) & ~long
    prose = np.flatnonzero(~long & ~short)
    spans = list(zip(starts[prose].tolist(), stops[prose].tolist(), strict=True))
    first = np.searchsorted(prose, lines).tolist()
    cleaned = [
        kept_lines([text[start - base : stop - base] for start, stop in spans[first[at] : first[at + 1]]], text)
        for at, (text, base) in enumerate(zip(batch.texts, points.offsets.tolist(), strict=False))
    ]
    per_line = batch.sentences([line for kept, _ in cleaned for line in kept])
    signals = {signal.name: counted(integers(kinds[signal.name] for _, kinds in cleaned)) for signal in PHRASE_KINDS}
    for signal, kind in ((TOO_LONG_WORD, long), (TOO_FEW_WORDS, short)):
        signals[signal.name] = counted(kernels_lines.summed_by_text(kind.astype(np.int64), lines))
    ends = np.cumsum([0, *(len(kept) for kept, _ in cleaned)], dtype=np.int64)
    signals[SENTENCES.name] = counted(kernels_lines.summed_by_text(per_line, ends))
    return Edited(texts=["\n".join(kept).strip() for kept, _ in cleaned], signals=signals)


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
