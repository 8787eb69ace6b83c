"""FineWeb's own rules, in three versions that disagree: the paper, the code of the release, and datatrove 0.10.1.

The release (April 2024) counts blank lines, takes quotes for ends of sentences and drops at the threshold itself;
datatrove 0.10 skips blank lines, takes the terminal marks of all scripts and drops beyond it. The paper sets the share
of repeated characters ten times higher (0.1) and does not name the share of line feeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from filters.punctuation import TERMINAL
from filters.rule import Family, Measured, Paper, Rule, Signal, Signals

if TYPE_CHECKING:
    from filters.batch import Counts, TextBatch

DATATROVE = "https://github.com/huggingface/datatrove"
PAPER = Paper(
    title="The FineWeb Datasets: Decanting the Web for the Finest Text Data at Scale",
    url="https://arxiv.org/abs/2406.17557",
    where="3.6, Developing additional heuristic filters",
)
CODE_0_10 = Paper(title="datatrove 0.10.1", url=DATATROVE, where="fineweb_quality_filter.py")
CODE_2024_04 = Paper(
    title="datatrove when FineWeb was released", url=DATATROVE, where="fineweb_quality_filter.py at 447c942f"
)

SHORT_LINE = 30  # characters; a line of exactly 30 is short
STOP_MARKS_2024_04 = (".", "'", '"', "!", "?")

LINES = Signal(name="fineweb.lines", kind="count", says="lines that are not blank")
PUNCT = Signal(
    name="fineweb.line_punct_ratio", kind="ratio", says="lines ending with a terminal mark / lines, no blanks"
)
SHORT = Signal(name="fineweb.short_line_ratio", kind="ratio", says="lines of at most 30 characters / lines, no blanks")
DUPLICATE = Signal(
    name="fineweb.char_dup_ratio",
    kind="ratio",
    says="characters in lines equal to an earlier one / characters that are no line feeds",
)
NEWLINES = Signal(name="fineweb.list_ratio", kind="ratio", says="line feeds / words")
PUNCT_2024_04 = Signal(
    name="fineweb.line_punct_ratio_2024_04",
    kind="ratio",
    says="lines ending with . ' \" ! or ? / lines, blank ones too",
)
SHORT_2024_04 = Signal(
    name="fineweb.short_line_ratio_2024_04", kind="ratio", says="lines of at most 30 characters / lines, blank ones too"
)


def repeated_characters(batch: TextBatch) -> Counts:
    """Characters in lines equal to an earlier one."""
    from filters.batch import duplicates

    return duplicates(batch.filled_lines)[1]


def measured_repeats(batch: TextBatch) -> dict[str, Measured]:
    """The signals that all versions measure alike."""
    from filters.batch import ratio

    return {
        DUPLICATE.name: ratio(batch.once(repeated_characters), batch.characters - batch.newlines),
        NEWLINES.name: ratio(batch.newlines, batch.word_total),
    }


def measured(batch: TextBatch) -> Signals:
    """Blank lines are no lines."""
    from filters.batch import counted, integers, ratio

    lines = integers(map(len, batch.filled_lines))
    ended = integers(sum(line[-1] in TERMINAL for line in lines) for lines in batch.filled_lines)
    short = integers(sum(len(line) <= SHORT_LINE for line in lines) for lines in batch.filled_lines)
    return {
        LINES.name: counted(lines),
        PUNCT.name: ratio(ended, lines),
        SHORT.name: ratio(short, lines),
        **measured_repeats(batch),
    }


def measured_2024_04(batch: TextBatch) -> Signals:
    """Blank lines are lines, but no duplicates."""
    from filters.batch import ratio
    from filters.kernels_lines import summed_by_text

    of, marks = batch.lines, [ord(mark) for mark in STOP_MARKS_2024_04]
    lengths = of.ends - of.starts
    filled = np.flatnonzero(lengths)
    ended = np.zeros(len(lengths), np.int64)
    ended[filled] = np.isin(batch.points.values[of.ends[filled] - 1], marks)
    short = (lengths <= SHORT_LINE).astype(np.int64)
    lines = np.diff(of.offsets)
    return {
        PUNCT_2024_04.name: ratio(summed_by_text(ended, of.offsets), lines),
        SHORT_2024_04.name: ratio(summed_by_text(short, of.offsets), lines),
        **measured_repeats(batch),
    }


QUALITY = Family(
    name="fineweb",
    rules=(
        Rule(name="fineweb.empty", signal=LINES, low=1, paper=CODE_0_10, reason="empty"),
        Rule(name="fineweb.line_punct_ratio", signal=PUNCT, low=0.12, paper=PAPER, reason="line_punct_ratio"),
        Rule(name="fineweb.short_line_ratio", signal=SHORT, high=0.67, paper=PAPER, reason="short_line_ratio"),
        Rule(name="fineweb.char_dup_ratio", signal=DUPLICATE, high=0.01, paper=CODE_0_10, reason="char_dup_ratio"),
        Rule(name="fineweb.list_ratio", signal=NEWLINES, high=0.3, paper=CODE_0_10, reason="list_ratio"),
    ),
    measure=measured,
)


def strict_rules(family: str, code: Paper, punct: Signal, short: Signal, repeats: float) -> tuple[Rule, ...]:
    """The rules of the release and of the paper: a document at a threshold is dropped."""
    return (
        Rule(
            name=f"{family}.line_punct_ratio",
            signal=punct,
            low=0.12,
            low_open=True,
            paper=PAPER,
            reason="line_punct_ratio",
        ),
        Rule(
            name=f"{family}.short_line_ratio",
            signal=short,
            high=0.67,
            high_open=True,
            paper=PAPER,
            reason="short_line_ratio",
        ),
        Rule(
            name=f"{family}.char_dup_ratio",
            signal=DUPLICATE,
            high=repeats,
            high_open=True,
            paper=code,
            reason="char_dup_ratio",
        ),
    )


QUALITY_2024_04 = Family(
    name="fineweb_2024_04",
    rules=(
        *strict_rules("fineweb_2024_04", CODE_2024_04, PUNCT_2024_04, SHORT_2024_04, 0.01),
        Rule(name="fineweb_2024_04.list_ratio", signal=NEWLINES, high=0.3, paper=CODE_2024_04, reason="list_ratio"),
    ),
    measure=measured_2024_04,
)
QUALITY_PAPER = Family(
    name="fineweb_paper",
    rules=strict_rules("fineweb_paper", PAPER, PUNCT, SHORT, 0.1),
    measure=measured,
    unruled=(LINES, NEWLINES),
)
