"""C4's clean-up of lines as T5's code does it, and as T5's paper words it, each as an edit and the rules over what it
notices.

`LINES` decides as `clean_page` of tensorflow_datasets/text/c4_utils.py, which DCLM's baselines_configs/c4.yaml
follows: a line goes for a word of more than 1,000 characters; loses its citations; goes unless it ends with . ? ! or "
and not with an ellipsis of three full stops; goes with fewer than 5 words; counts against the document where it holds
"lorem ipsum"; goes for "javascript"; counts against the document where it holds a curly bracket; goes for a phrase of
a privacy or cookie policy. A page needs 3 sentences, and at most 190,000 characters before all this
(`is_valid_length`). The code stops at the first line that condemns a page; the edit goes on to the last one, and the
rules, in their order, give the same first reason.

`PAPER_LINES` takes the text of the paper at its word: 3 words a line, 5 sentences a page, lines end with a full stop,
a question mark, an exclamation mark or an end quotation mark, straight or curved. The paper says nothing of ellipses,
of long words and of the length of a page, so they are let pass; the order of checks is the code's.

`filters.c4` holds the third reading, datatrove's, in which lines need no mark at their end.

Where this differs: sentences are those of the recipe's word splitter; T5's code, DCLM and the paper take NLTK's Punkt.
The list of obscene words (a document that holds one goes), the language of the page, and lines and spans seen
elsewhere in the corpus need more than the text and a published list, and are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from filters.c4 import C4, chosen_lines, per_text, without_citations, without_phrases
from filters.edit import Edit, Edited
from filters.rule import Family, Paper, Rule, Signal, Signals

if TYPE_CHECKING:
    from filters.batch import TextBatch

T5_CODE = Paper(
    title=C4.title,
    url="https://github.com/tensorflow/datasets",
    where="tensorflow_datasets/text/c4_utils.py, clean_page and is_valid_length; mlfoundations/dclm, c4.yaml",
)


@dataclass(frozen=True, kw_only=True)
class LineLimits:
    """What one reading of C4 asks of a line, and under which name its signals go.

    longest_word: characters; None: any. ellipses: whether a line may end with three full stops.
    """

    name: str
    fewest_words: int
    marks: tuple[str, ...]
    ellipses: bool
    longest_word: int | None

    def signal(self, what: str, says: str) -> Signal:
        """A count of this reading."""
        return Signal(name=f"{self.name}.{what}", kind="count", says=says)

    @property
    def signals(self) -> tuple[Signal, ...]:
        """Counts of characters and lines, in the order of KINDS, then sentences."""
        return tuple(self.signal(what, says.format(words=self.fewest_words)) for what, says in KINDS.items())


KINDS = {
    "characters": "characters before the edit",
    "lines_too_long_word": "lines dropped for a word of more than 1,000 characters",
    "lines_no_end_mark": "lines dropped for ending without a terminal mark",
    "lines_too_few_words": "lines dropped for having fewer than {words} words",
    "lines_javascript": "lines dropped for 'javascript'",
    "lines_policy": "lines dropped for a phrase of privacy or cookie policies",
    "lines_kept": "lines kept",
    "lorem_ipsum_first": "lines with 'lorem ipsum' up to the first one with a curly bracket",
    "curly_bracket": "lines with '{{' that were not dropped before",
    "lorem_ipsum": "lines with 'lorem ipsum' that were not dropped before",
    "sentences": "sentences in the lines kept",
}
SHAPES = ("lines_too_long_word", "lines_no_end_mark", "lines_too_few_words")
"""Those of KINDS for which lines go by their shape; of several the first counts."""
DOT = ord(".")
T5 = LineLimits(name="c4_t5", fewest_words=5, marks=(".", "?", "!", '"'), ellipses=False, longest_word=1000)
AS_WRITTEN = LineLimits(
    name="c4_paper", fewest_words=3, marks=(".", "?", "!", '"', "\u201d"), ellipses=True, longest_word=None
)


def shapes(batch: TextBatch, limits: LineLimits) -> npt.NDArray[np.int64]:
    """Why each of `batch.worded_lines` goes for its shape, as a place in SHAPES; len(SHAPES) where it stays."""
    of, points = batch.worded_lines, batch.points.values
    last = [points.take(of.stops - back, mode="clip") for back in (1, 2, 3)]
    ended = np.isin(last[0], [ord(mark) for mark in limits.marks]) & (of.words > 0)
    if not limits.ellipses:
        ended &= ~((of.stops - of.starts >= 3) & (last[0] == DOT) & (last[1] == DOT) & (last[2] == DOT))
    long = of.longest > (np.inf if limits.longest_word is None else limits.longest_word)
    faults = (long, ~ended, of.words < limits.fewest_words)
    first: npt.NDArray[np.int64] = np.argmax([*faults, np.ones(len(long), np.bool_)], axis=0)
    return first


def shape_kind(line: str, limits: LineLimits) -> str | None:
    """Why a line goes for its shape that citations were taken out of; None where it stays."""
    if not line.endswith(limits.marks) or (not limits.ellipses and line.endswith("...")):
        return "lines_no_end_mark"
    if len(line.split(None, limits.fewest_words - 1)) < limits.fewest_words:
        return "lines_too_few_words"
    return None


def cleaned(batch: TextBatch, limits: LineLimits) -> Edited:
    """Drop lines that are no prose and strip citations; count what was met and the sentences that are left."""
    from filters.batch import counted

    points, of, shape = batch.points.values, batch.worded_lines, shapes(batch, limits)
    # What is left of a line without its citations decides, unless a word of it was too long before.
    cited = np.searchsorted(of.stops, np.flatnonzero(points == ord("[")), side="right")
    shape[cited[shape[cited] > 0]] = len(SHAPES)
    gone = {kind: per_text(batch, shape == at) for at, kind in enumerate(SHAPES)}
    lines = chosen_lines(batch, shape == len(SHAPES))
    for text in np.unique(np.searchsorted(of.offsets, cited, side="right") - 1).tolist():
        left = []
        for line in lines[text]:
            rest = without_citations(line)
            kind = shape_kind(rest, limits) if "[" in line else None
            if kind is None:
                left.append(rest)
            else:
                gone[kind][text] += 1
        lines[text] = left
    edited = without_phrases(batch, lines, limits.name)
    noticed = {
        f"{limits.name}.{kind}": counted(count) for kind, count in (("characters", batch.characters), *gone.items())
    }
    return Edited(texts=edited.texts, signals={**noticed, **edited.signals})


def t5_lines(batch: TextBatch) -> Edited:
    """The lines that T5's code keeps."""
    return cleaned(batch, T5)


def paper_lines(batch: TextBatch) -> Edited:
    """The lines that T5's paper keeps."""
    return cleaned(batch, AS_WRITTEN)


def measured_t5(batch: TextBatch) -> Signals:
    """What the edit would notice; where a recipe applies the edit, take its signals instead of measuring again."""
    return t5_lines(batch).signals


def measured_paper(batch: TextBatch) -> Signals:
    """What the edit would notice; where a recipe applies the edit, take its signals instead of measuring again."""
    return paper_lines(batch).signals


LINES = Edit(name="c4_t5_lines", apply=t5_lines, notices=T5.signals, paper=T5_CODE)
PAPER_LINES = Edit(name="c4_paper_lines", apply=paper_lines, notices=AS_WRITTEN.signals, paper=C4)


def quality(
    limits: LineLimits,
    measure: Callable[[TextBatch], Signals],
    paper: Paper,
    *,
    sentences: int,
    characters: int | None,
) -> Family:
    """The rules of one reading, in the order in which they give the first reason."""
    of = {signal.name.split(".")[1]: signal for signal in limits.signals}

    def rule(what: str, *, low: float | None = None, high: float | None = None) -> Rule:
        return Rule(name=f"{limits.name}.{what}", signal=of[what], low=low, high=high, paper=paper)

    rules = (
        *(() if characters is None else (rule("characters", high=characters),)),
        rule("lorem_ipsum_first", high=0),
        rule("curly_bracket", high=0),
        rule("lorem_ipsum", high=0),
        rule("sentences", low=sentences),
    )
    ruled = {rule.signal for rule in rules}
    unruled = tuple(signal for signal in limits.signals if signal not in ruled)
    return Family(name=limits.name, rules=rules, measure=measure, unruled=unruled)


QUALITY = quality(T5, measured_t5, T5_CODE, sentences=3, characters=190_000)
PAPER_QUALITY = quality(AS_WRITTEN, measured_paper, C4, sentences=5, characters=None)
