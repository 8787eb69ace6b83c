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

from filters.c4 import C4, CITATION, JAVASCRIPT, LOREM_IPSUM, POLICIES, with_any
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
T5 = LineLimits(name="c4_t5", fewest_words=5, marks=(".", "?", "!", '"'), ellipses=False, longest_word=1000)
AS_WRITTEN = LineLimits(
    name="c4_paper", fewest_words=3, marks=(".", "?", "!", '"', "\u201d"), ellipses=True, longest_word=None
)


def shape_kind(line: str, limits: LineLimits) -> str | None:
    """Why a line without citations goes for its shape; None where it stays."""
    if not line.endswith(limits.marks) or (not limits.ellipses and line.endswith("...")):
        return "lines_no_end_mark"
    if len(line.split(None, limits.fewest_words - 1)) < limits.fewest_words:
        return "lines_too_few_words"
    return None


def kept_lines(lines: list[str], text: str, limits: LineLimits) -> tuple[list[str], dict[str, int]]:
    """Return the lines of `text` that stay, without citations, and how many there were of each of KINDS."""
    lowered = (CITATION.sub("", text) if "[" in text else text).lower()
    # What occurs nowhere in the document need not be looked for in its lines: most documents have none of it.
    lorem, script, policies = LOREM_IPSUM in lowered, JAVASCRIPT in lowered, with_any(POLICIES, lowered)
    suspect = lorem or script or bool(policies)
    longest = limits.longest_word
    kinds = dict.fromkeys(KINDS, 0)
    kept: list[str] = []
    for raw in lines:
        line = raw.strip()
        if longest is not None and len(line) > longest and max(map(len, line.split())) > longest:
            kinds["lines_too_long_word"] += 1
            continue
        if "[" in line:
            line = CITATION.sub("", line)
        kind = shape_kind(line, limits)
        if kind is not None:
            kinds[kind] += 1
            continue
        low = line.lower() if suspect else ""
        if lorem and LOREM_IPSUM in low:
            kinds["lorem_ipsum"] += 1
            kinds["lorem_ipsum_first"] += not kinds["curly_bracket"]
        if script and JAVASCRIPT in low:
            kinds["lines_javascript"] += 1
            continue
        kinds["curly_bracket"] += "{" in line
        if policies and with_any(policies, low):
            kinds["lines_policy"] += 1
            continue
        kept.append(line)
    kinds["characters"], kinds["lines_kept"] = len(text), len(kept)
    return kept, kinds


def cleaned(batch: TextBatch, limits: LineLimits) -> Edited:
    """Drop lines that are no prose and strip citations; count what was met and the sentences that are left."""
    import numpy as np

    from filters.batch import counted, integers

    found = [kept_lines(lines, text, limits) for lines, text in zip(batch.split_lines, batch.texts, strict=True)]
    sums = np.concatenate([[0], np.cumsum(batch.sentences([line for lines, _ in found for line in lines]))])
    ends = np.cumsum([0, *(len(lines) for lines, _ in found)])
    of = {signal.name.split(".")[1]: signal.name for signal in limits.signals}
    signals = {of[kind]: counted(integers(kinds[kind] for _, kinds in found)) for kind in KINDS if kind != "sentences"}
    signals[of["sentences"]] = counted(sums[ends[1:]] - sums[ends[:-1]])
    return Edited(texts=["\n".join(lines).strip() for lines, _ in found], signals=signals)


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
