"""What in a text made a signal's number: spans to show a person. Plain Python over one text; nothing here decides.

A span adds what it contributes to the number. Where `Evidence.sums` is `numerator` the spans add up to the count, or to
the numerator of the ratio; where it is `rest`, to what the numerator lacks of the denominator (lines that do *not* end
in a full stop); where it is `nothing` they only show what to look at. Tests hold the sums against the measured numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

from filters import c4, c4_t5, fineweb, gopher
from filters.batch import TextBatch
from filters.edit import Edit
from filters.punctuation import PUNCTUATION, PUNCTUATION_2024_04, TERMINAL
from filters.rule import Rule, Signal, Signals
from filters.splitter import WordSplitter
from filters.token_flags import GOPHER_STOP_WORDS
from filters.tokens import Lexicon

Bounds = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The code points [start, end) of a text, what they are, and what they add to the number."""

    start: int
    end: int
    label: str
    adds: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Passage:
    """A text, the splitter that cut it into words, and the rule that asks."""

    text: str
    splitter: WordSplitter
    rule: Rule

    @cached_property
    def words(self) -> list[tuple[int, int, str]]:
        """Start, end and spelling of every word."""
        return list(located(self.splitter.words([self.text])[0], self.text))

    @cached_property
    def lines(self) -> list[Bounds]:
        """What lies between line feeds; blank lines stay."""
        return list(between(r"\n", self.text))

    @cached_property
    def split_lines(self) -> list[Bounds]:
        """Lines as `str.splitlines` cuts them."""
        found, at = [], 0
        for line, ended in zip(self.text.splitlines(), self.text.splitlines(keepends=True), strict=True):
            found.append((at, at + len(line)))
            at += len(ended)
        return found

    @cached_property
    def filled_lines(self) -> list[Bounds]:
        """What lies between line feeds and is not white space alone."""
        return [(start, end) for start, end in self.lines if self.text[start:end].strip()]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """How to find the spans of one signal, and what they add up to."""

    sums: Literal["numerator", "rest", "nothing"]
    spans: Callable[[Passage], Iterable[Span]]


def evidence(rule: Rule, text: str, splitter: WordSplitter) -> tuple[Evidence, list[Span]] | None:
    """The spans of `text`, the view that the rule reads, that made its number; None where no place in a text does."""
    how = EVIDENCE.get(rule.signal.name)
    if how is None:
        return None
    return how, sorted(
        how.spans(Passage(text=text, splitter=splitter, rule=rule)), key=lambda one: (one.start, one.end)
    )


def located(words: Iterable[str], text: str) -> Iterator[tuple[int, int, str]]:
    """Where each word stands; one that its splitter rewrote (NLTK writes quotes as two marks) where it would begin."""
    at = 0
    for word in words:
        start = text.find(word, at)
        length = len(word)
        if word in ("``", "''") and (quote := text.find('"', at)) >= 0 and not 0 <= start < quote:
            start, length = quote, 1
        if start < 0:
            start, length = at, 0
        at = start + length
        yield start, at, word


def between(pattern: str, text: str) -> Iterator[Bounds]:
    """The parts that `re.split(pattern, text)` gives, as bounds."""
    start = 0
    for found in re.finditer(pattern, text):
        yield start, found.start()
        start = found.end()
    yield start, len(text)


def paragraphs(text: str) -> Iterator[Bounds]:
    """What lies between runs of at least two line feeds, white space at the text's ends removed."""
    indent = len(text) - len(text.lstrip())
    for start, end in between(r"\n{2,}", text.strip()):
        yield start + indent, end + indent


def repeated(parts: Iterable[Bounds], text: str, what: str, *, characters: bool) -> Iterator[Span]:
    """The parts equal to an earlier one; each adds 1, or its characters."""
    seen: set[str] = set()
    for start, end in parts:
        part = text[start:end]
        if part in seen:
            yield Span(start=start, end=end, label=f"{what} seen before", adds=end - start if characters else 1)
        seen.add(part)


def repeated_paragraphs(of: Passage, *, characters: bool) -> Iterator[Span]:
    """Paragraphs equal to an earlier one."""
    return repeated(paragraphs(of.text), of.text, "paragraph", characters=characters)


def repeated_runs(of: Passage, *, characters: bool) -> Iterator[Span]:
    """Lines, between runs of line feeds, equal to an earlier one."""
    return repeated(between(r"\n+", of.text), of.text, "line", characters=characters)


def repeated_split_lines(of: Passage, *, characters: bool) -> Iterator[Span]:
    """Lines of `str.splitlines`, blank ones too, equal to an earlier one."""
    return repeated(of.split_lines, of.text, "line", characters=characters)


def repeated_filled_lines(of: Passage) -> Iterator[Span]:
    """Lines that are not blank and equal an earlier one."""
    return repeated(of.filled_lines, of.text, "line", characters=True)


def top_gram(of: Passage, size: int) -> Iterator[Span]:
    """The most frequent n-gram of words, of equals the first; each place adds its words joined by blanks."""
    words = [word for *_, word in of.words]
    grams = [tuple(words[at : at + size]) for at in range(len(words) - size + 1)]
    if not grams:
        return
    counts = Counter(grams)  # `most_common` keeps the order of first places
    ((most, count),) = counts.most_common(1)
    label = f"the most frequent {size}-gram, {count} times"
    for at, gram in enumerate(grams):
        if gram == most:
            yield Span(
                start=of.words[at][0],
                end=of.words[at + size - 1][1],
                label=label,
                adds=sum(map(len, gram)) + size - 1,
            )


def repeated_grams(of: Passage, size: int) -> Iterator[Span]:
    """N-grams of words seen before, as the measure walks: after a repeat it goes on behind it."""
    words = [word for *_, word in of.words]
    seen: set[str] = set()
    first = 0
    while first + size <= len(words):
        gram = "".join(words[first : first + size])  # as datatrove: "ab", "c" equals "a", "bc"
        if gram in seen:
            start, end = of.words[first][0], of.words[first + size - 1][1]
            yield Span(start=start, end=end, label=f"{size}-gram seen before", adds=len(gram))
            first += size
        else:
            seen.add(gram)
            first += 1


def is_symbol(word: str, marks: frozenset[str]) -> bool:
    """True of a word that is all punctuation."""
    return all(character in marks for character in word)


def counted_words(of: Passage, marks: frozenset[str]) -> Iterator[Span]:
    """Words that are not all punctuation."""
    return (
        Span(start=start, end=end, label="word", adds=1) for start, end, word in of.words if not is_symbol(word, marks)
    )


def odd_words(of: Passage, marks: frozenset[str]) -> Iterator[Span]:
    """Words longer than the largest mean that the rule allows, or shorter than the smallest."""
    low, high = of.rule.low, of.rule.high
    for start, end, word in of.words:
        long, short = high is not None and len(word) > high, low is not None and len(word) < low
        if (long or short) and not is_symbol(word, marks):
            yield Span(start=start, end=end, label=f"word of {len(word):,} characters")


def letterless_words(of: Passage) -> Iterator[Span]:
    """Words without a letter."""
    return (
        Span(start=start, end=end, label="word without a letter", adds=1)
        for start, end, word in of.words
        if not any(map(str.isalpha, word))
    )


def stop_words(of: Passage, *, repeats: bool) -> Iterator[Span]:
    """Gopher's stop words; without `repeats` each adds 1 where it stands first."""
    seen: set[str] = set()
    for start, end, word in of.words:
        if word in GOPHER_STOP_WORDS:
            yield Span(start=start, end=end, label="stop word", adds=int(repeats or word not in seen))
            seen.add(word)


def occurrences(of: Passage, parts: tuple[str, ...], label: str) -> Iterator[Span]:
    """Every place of each part, without overlap; each adds 1."""
    for part in parts:
        for found in re.finditer(re.escape(part), of.text):
            yield Span(start=found.start(), end=found.end(), label=label, adds=1)


def marked_lines(
    of: Passage, lines: Callable[[Passage], Iterable[Bounds]], chosen: Callable[[str], bool], label: str
) -> Iterator[Span]:
    """The lines for which `chosen` holds; each adds 1."""
    for start, end in lines(of):
        if chosen(of.text[start:end]):
            yield Span(start=start, end=end, label=label, adds=1)


def split_lines(of: Passage) -> list[Bounds]:
    """Lines of `str.splitlines`."""
    return of.split_lines


def filled_lines(of: Passage) -> list[Bounds]:
    """Lines that are not blank."""
    return of.filled_lines


def all_lines(of: Passage) -> list[Bounds]:
    """Lines between line feeds, blank ones too."""
    return of.lines


def line_kinds(of: Passage, edit: Edit, labels: Mapping[str, str], *, until: str | None = None) -> Iterator[Span]:
    """Lines that an edit takes for one of the kinds in `labels`, each adding 1; up to the first of kind `until`.

    Every line is given to the edit as a text of its own, so that nothing of the edit is written twice.
    """
    lines = [of.text[start:end] + "\n" for start, end in of.split_lines]
    signals = edit.apply(TextBatch(lines, Lexicon().vocabulary(of.splitter))).signals
    for at, (start, end) in enumerate(of.split_lines):
        for kind, label in labels.items():
            if counted(signals, kind, at):
                yield Span(start=start, end=end, label=label, adds=1)
        if until is not None and counted(signals, until, at):
            return


def counted(signals: Signals, name: str, at: int) -> int:
    """A count of one text of a batch."""
    numerator = signals[name].numerator
    assert numerator is not None, "edits count lines"
    return int(numerator[at])


def quality_evidence(of: Mapping[str, str], marks: frozenset[str], *, repeats: bool) -> dict[str, Evidence]:
    """Of Gopher's quality signals; `of` gives their names."""
    bullets = partial(
        marked_lines,
        lines=split_lines,
        chosen=lambda line: line.lstrip().startswith(("•", "-")),
        label="line that begins with a bullet",
    )
    ends = partial(
        marked_lines,
        lines=split_lines,
        chosen=lambda line: line.rstrip().endswith(("...", "…")),
        label="line that ends with an ellipsis",
    )
    return {
        of["words"]: Evidence(sums="numerator", spans=partial(counted_words, marks=marks)),
        of["mean"]: Evidence(sums="nothing", spans=partial(odd_words, marks=marks)),
        of["hash"]: Evidence(sums="numerator", spans=partial(occurrences, parts=("#",), label="hash")),
        of["ellipsis"]: Evidence(sums="numerator", spans=partial(occurrences, parts=("...", "…"), label="ellipsis")),
        of["bullet"]: Evidence(sums="numerator", spans=bullets),
        of["end"]: Evidence(sums="numerator", spans=ends),
        of["alpha"]: Evidence(sums="rest", spans=letterless_words),
        of["stop"]: Evidence(sums="numerator", spans=partial(stop_words, repeats=repeats)),
    }


def c4_evidence(edit: Edit) -> dict[str, Evidence]:
    """Of one reading of C4: its lines by what the edit takes them for, and for sentences every line that it drops."""
    family = edit.notices[0].name.partition(".")[0]
    brackets, lorem, first = (f"{family}.{kind}" for kind in ("curly_bracket", "lorem_ipsum", "lorem_ipsum_first"))
    dropped = {
        signal.name: signal.says.replace("lines dropped", "line dropped")
        for signal in edit.notices
        if signal.says.startswith("lines dropped")
    }
    kinds = dropped | {brackets: "line with a curly bracket", lorem: "line with lorem ipsum"}

    def only(kind: str, *, until: str | None = None) -> Evidence:
        labels = {kind: kinds[kind]}
        return Evidence(sums="numerator", spans=partial(line_kinds, edit=edit, labels=labels, until=until))

    return {
        **{kind: only(kind) for kind in kinds},
        first: only(lorem, until=brackets),
        f"{family}.sentences": Evidence(sums="nothing", spans=partial(line_kinds, edit=edit, labels=dropped)),
    }


def local_names(signals: Mapping[str, Signal]) -> dict[str, str]:
    """The names of signals by what they measure."""
    return {what: signal.name for what, signal in signals.items()}


SHORT = partial(
    marked_lines,
    chosen=lambda line: len(line) <= fineweb.SHORT_LINE,
    label=f"line of at most {fineweb.SHORT_LINE} characters",
)
UNENDED = partial(marked_lines, label="line that ends without a terminal mark")

EVIDENCE: Mapping[str, Evidence] = {
    gopher.PARAGRAPHS.name: Evidence(sums="numerator", spans=partial(repeated_paragraphs, characters=False)),
    gopher.PARAGRAPH_CHARACTERS.name: Evidence(sums="numerator", spans=partial(repeated_paragraphs, characters=True)),
    gopher.LINES.name: Evidence(sums="numerator", spans=partial(repeated_runs, characters=False)),
    gopher.LINE_CHARACTERS.name: Evidence(sums="numerator", spans=partial(repeated_runs, characters=True)),
    gopher.LINES_2024_04.name: Evidence(sums="numerator", spans=partial(repeated_split_lines, characters=False)),
    gopher.LINE_CHARACTERS_2024_04.name: Evidence(
        sums="numerator", spans=partial(repeated_split_lines, characters=True)
    ),
    **{
        signal.name: Evidence(sums="numerator", spans=partial(top_gram, size=size))
        for signal, (size, _) in zip(gopher.GRAMS, gopher.TOP_GRAMS, strict=False)
    },
    **{
        signal.name: Evidence(sums="numerator", spans=partial(repeated_grams, size=size))
        for signal, (size, _) in zip(gopher.GRAMS[len(gopher.TOP_GRAMS) :], gopher.DUPLICATE_GRAMS, strict=True)
    },
    **quality_evidence(local_names(gopher.WORDS_SIGNALS), PUNCTUATION, repeats=False),
    **quality_evidence(local_names(gopher.WORDS_SIGNALS_2024_04), PUNCTUATION_2024_04, repeats=True),
    **{name: found for edit in (c4.LINES, c4_t5.LINES, c4_t5.PAPER_LINES) for name, found in c4_evidence(edit).items()},
    fineweb.PUNCT.name: Evidence(
        sums="rest", spans=partial(UNENDED, lines=filled_lines, chosen=lambda line: line[-1] not in TERMINAL)
    ),
    fineweb.PUNCT_2024_04.name: Evidence(
        sums="rest",
        spans=partial(UNENDED, lines=all_lines, chosen=lambda line: not line.endswith(fineweb.STOP_MARKS_2024_04)),
    ),
    fineweb.SHORT.name: Evidence(sums="numerator", spans=partial(SHORT, lines=filled_lines)),
    fineweb.SHORT_2024_04.name: Evidence(sums="numerator", spans=partial(SHORT, lines=all_lines)),
    fineweb.DUPLICATE.name: Evidence(sums="numerator", spans=repeated_filled_lines),
    fineweb.NEWLINES.name: Evidence(sums="numerator", spans=partial(occurrences, parts=("\n",), label="line feed")),
}
"""By the name of the signal; of rules over a number that no place in the text makes, there is none."""
