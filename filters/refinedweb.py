"""RefinedWeb's line-wise corrections, as an edit, and the rule on how many words it removes.

The paper names the corrections without figures; the edit does what DCLM's mappers make of them, in their order: lines
go whose characters are more than half capitals, all digits, a counter ("3 likes"), or one word; then "items in cart",
"Read more..." at the end and "Sign-in" at the beginning are cut out of lines of at most 10 words, in any case of
letters, and a line of nothing else goes. White space at the text's ends is removed each time, blank lines stay.

DCLM drops a page as soon as nothing is left; the edit runs to its end, and the rule drops that page for the words
removed. A line with several faults is counted under the first. DCLM asks whether a line is all digits after it has
stripped the text, here it is asked before: such a line is one word and goes in either case. In the pattern for "Read
more..." the dots stand for any character, as they do there.

`Reading` holds what another implementation may read otherwise; `filters.dolma3` has one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from filters.edit import Edit, Edited
from filters.rule import Family, Paper, Rule, Signal, Signals

if TYPE_CHECKING:
    from filters.batch import Counts, TextBatch

PAPER = Paper(
    title="The RefinedWeb Dataset for Falcon LLM",
    url="https://arxiv.org/abs/2306.01116",
    where="3.2 and G.2, line-wise corrections; details as in mlfoundations/dclm, baselines/mappers/modifiers.py",
)

COUNTER = re.compile(
    r"^\W*\d(?:,|\.|\d)*(?:k|m|b)?\s+(?:likes|shares|comments|retweets|reposts|quotes|bookmarks|upvotes|downvotes"
    r"|downloads|views|followers)\W*$"
)
PHRASES = ("items in cart", "read more", "sign-in")
CUTS = (
    re.compile(r"\s?items in cart", re.IGNORECASE),
    re.compile(r"\s?read more...$", re.IGNORECASE),
    re.compile(r"^sign-in\s?", re.IGNORECASE),
)
LONGEST_CUT = 10  # words; phrases in longer lines stay
WHY = ("uppercase", "numeric", "counter", "one_word")


@dataclass(frozen=True, kw_only=True, eq=False)
class Corrected:
    """What became of a batch: its new texts, the numbers of the lines that went, and those of the texts whose words
    may be others besides: phrases were cut out, or white space that belonged to the first word.
    """

    texts: list[str]
    gone: list[int]
    cut: list[int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """One implementation of the corrections.

    rust: how `kernels_web.line_faults` reads lines. phrases: what makes a line worth asking for phrases; in any case
    of letters if `any_case`. finished: the text that is made of the lines that stay, and the lines that phrases
    changed; its second argument says whether any phrase occurs. words: how many words lie in spans of code points.
    """

    family: str
    rust: bool
    phrases: tuple[str, ...]
    any_case: bool
    finished: Callable[[str, bool], tuple[str, int]]
    words: Callable[[npt.NDArray[np.uint32], Counts, Counts], Counts]


def notices(family: str) -> tuple[Signal, ...]:
    """The signals of the edit: lines that went, by reason, lines that a phrase changed, and the words removed."""
    says = (
        "lines that went for having more than half capitals",
        "lines that went for being all digits",
        "lines that went for being a counter",
        "lines that went for having fewer than 2 words",
    )
    reasons = (
        Signal(name=f"{family}.lines_{why}", kind="count", says=text) for why, text in zip(WHY, says, strict=True)
    )
    return (
        *reasons,
        Signal(name=f"{family}.lines_phrase", kind="count", says="lines that a phrase was cut out of, or that went so"),
        Signal(name=f"{family}.removed_word_ratio", kind="ratio", says="words that the edit removed / words"),
    )


def sound_lines(lines: list[str], faults: npt.NDArray[np.uint8]) -> tuple[list[str], list[tuple[int, int]]]:
    """Return the lines that stay, and for the others their number and which of WHY they went for."""
    from filters import kernels_web

    went: list[tuple[int, int]] = []
    stays = bytearray(b"\x01") * len(lines)
    for number in np.flatnonzero(faults & ~np.uint8(kernels_web.PHRASE)).tolist():
        fault = faults[number]
        if fault & kernels_web.UPPERCASE:
            why = 0
        elif fault & kernels_web.NUMERIC:
            why = 1
        elif fault & kernels_web.COUNTER and COUNTER.search(lines[number].lower()):
            why = 2
        elif fault & kernels_web.TOO_SHORT:
            why = 3
        else:
            continue
        went.append((number, why))
        stays[number] = 0
    return list(compress(lines, stays)), went


def line_faults(batch: TextBatch, reading: Reading) -> npt.NDArray[np.uint8]:
    """The bits of what is wrong with each line of the batch."""
    from filters import kernels_web
    from filters.characters import point_classes
    from filters.phrases import phrases
    from filters.word_break import word_break_classes

    lines, table = batch.lines, phrases(reading.phrases, any_case=reading.any_case)
    return kernels_web.line_faults(
        batch.points.values, lines.starts, lines.ends, point_classes(), word_break_classes(), table.symbols,
        table.steps, table.found, reading.rust,
    )  # fmt: skip


def corrected(batch: TextBatch, reading: Reading, before: Counts) -> Edited:
    """Apply the corrections in one reading to every text; `before` are its words."""
    from filters.batch import counted, ratio
    from filters.kernels_web import PHRASE

    faults = line_faults(batch, reading)
    bounds = batch.lines.offsets.tolist()
    faulty = np.bitwise_or.reduceat(faults, batch.lines.offsets[:-1]).tolist() if len(batch) else []
    counts = np.zeros((len(batch), len(WHY) + 1), np.int64)
    made = Corrected(texts=[], gone=[], cut=[])
    for at, text in enumerate(batch.texts):
        kept = text
        if faulty[at]:
            sound, went = sound_lines(text.split("\n"), faults[bounds[at] : bounds[at + 1]])
            kept = "\n".join(sound)
            for number, why in went:
                made.gone.append(bounds[at] + number)
                counts[at, why] += 1
        left, counts[at, -1] = reading.finished(kept, bool(faulty[at] & PHRASE))
        made.texts.append(left)
        if counts[at, -1] or (kept[:1].isspace() and not reading.rust):
            made.cut.append(at)
    after = words_left(batch, made, before, reading)
    *reasons, removed = notices(reading.family)
    signals = {signal.name: counted(counts[:, column]) for column, signal in enumerate(reasons)}
    signals[removed.name] = ratio(np.maximum(before - after, 0), before)
    return Edited(texts=made.texts, signals=signals)


def without_phrases(text: str, any_phrase: bool) -> tuple[str, int]:
    """Return the text without PHRASES and without white space at its ends, and how many lines that changed."""
    text = text.strip()
    changed = 0
    for cut in CUTS if any_phrase else ():
        lines = []
        for line in text.split("\n"):
            left = cut.sub("", line) if len(line.split(None, LONGEST_CUT)) <= LONGEST_CUT else line
            changed += left != line
            if not line or (left and not left.isspace()):
                lines.append(left)
        text = "\n".join(lines).strip()
    return text, changed


def words_left(batch: TextBatch, made: Corrected, before: Counts, reading: Reading) -> Counts:
    """How many of the words `before` are left in each text.

    A line feed parts words, so the lines that went took just their own.
    """
    from filters.tokens import code_points

    points, lines, gone = batch.points, batch.lines, np.array(made.gone, np.int64)
    document = np.searchsorted(lines.offsets, gone, side="right") - 1
    taken = reading.words(points.values, lines.starts[gone], lines.ends[gone])
    after = before - np.bincount(document, taken, len(batch)).astype(np.int64)
    values, offsets = code_points([made.texts[at] for at in made.cut])
    after[made.cut] = reading.words(values, offsets[:-1], offsets[1:])
    return after


def fasttext_words(batch: TextBatch) -> Counts:
    """The words of fastText that begin with a letter or a digit, as DCLM counts them."""
    return fasttext_words_in(batch.points.values, batch.points.offsets[:-1], batch.points.offsets[1:])


def fasttext_words_in(values: npt.NDArray[np.uint32], starts: Counts, ends: Counts) -> Counts:
    """The same of spans of code points."""
    from filters import kernels_words
    from filters.characters import point_classes

    return kernels_words.fasttext_words(values, starts, ends, point_classes())


DCLM = Reading(
    family="refinedweb",
    rust=False,
    phrases=PHRASES,
    any_case=True,
    finished=without_phrases,
    words=fasttext_words_in,
)
NOTICES = notices(DCLM.family)


def corrected_lines(batch: TextBatch) -> Edited:
    """Drop and shorten lines as DCLM does."""
    return corrected(batch, DCLM, batch.once(fasttext_words))


def measured(batch: TextBatch) -> Signals:
    """What the edit would notice; where a recipe applies the edit, take its signals instead of measuring again."""
    return corrected_lines(batch).signals


LINES = Edit(name="refinedweb_lines", apply=corrected_lines, notices=NOTICES, paper=PAPER)
QUALITY = Family(
    name="refinedweb",
    rules=(Rule(name=NOTICES[-1].name, signal=NOTICES[-1], high=0.05, paper=PAPER),),
    measure=measured,
    unruled=NOTICES[:-1],
)
