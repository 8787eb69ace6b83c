"""MAP-NEO's rules for Chinese web pages (the Matrix corpus), as its code decides, and the edit that comes before them.

The code first turns full-width marks into ASCII ones and cuts links out of the text (`TEXT`); all rules but that of
brackets read what is left, and so does this family, whether or not a recipe applies the edit. Words are characters,
n-grams are n-grams of characters; of repeated ones of 5 to 10 only the number of different characters in them counts.
What differs from the code:

* The nine rules of n-grams are applied. The code measures them and then tests a tuple that is never false, so that as
  published they drop nothing.
* Ratios without characters are undefined, and no rule passes them.
* The mean length of words needs jieba's words; it is a family of its own, `WORDS`, for a splitter of that name. There
  words are cut before punctuation is taken out of them and before NFKC; the code does so after.

Left out: the language score of at least 0.4 (a model; a step of the recipe), the UT1 list. The code has switched off
duplicate sentences, and never calls its filter of lines (terminal marks, javascript, lorem ipsum, bad words).
"""

from __future__ import annotations

import re
import string
import unicodedata
from typing import TYPE_CHECKING, Literal

import numpy as np

from filters.edit import Edit, Edited
from filters.matrix_en import GRAM_LIMITS, TITLE, URL, normalised
from filters.rule import Family, Measured, Paper, Rule, Signal, Signals
from filters.splitter import Feature

if TYPE_CHECKING:
    from filters.batch import TextBatch

CODE = "github.com/multimodal-art-projection/MAP-NEO, Matrix/chinese_data_clean_pipeline/filter"

FULL_WIDTH = "。！“”＃＄％＆‘’（）＊＋，－／：；＜＝＞？＠［＼］＾＿｀｛｜｝～"
HALF_WIDTH = ".!\"\"#$%&''()*+,-/:;<=>?@[\\]^_`{|}~"
HALVES = dict(zip(FULL_WIDTH, HALF_WIDTH, strict=True))

LINK = re.compile(r"https?://[^\s,，\u4e00-\u9fa5]*|www\.[^\s,，\u4e00-\u9fa5]*")
# The code's second pattern looks for three dots from every place of a run; from its beginning alone, and without going
# back, the same is found in linear time.
FOUR_PARTS = re.compile(r"(?<![a-zA-Z0-9-])(?:[a-zA-Z0-9-]++\.){3}[a-zA-Z0-9.-]+")
INNER_DOT = re.compile(r"\.(?=[a-zA-Z0-9-])")
DOTTED = re.compile(r"[a-zA-Z0-9.-]*+")
ENDING = re.compile(r"\.[a-z]{2,6}(?!\w)")
START = re.compile(r"(?<=[a-zA-Z0-9])[.-]|(?<=[.-])[a-zA-Z0-9]")
DOMAIN = frozenset(string.ascii_letters + string.digits + "-.")


def unified(text: str) -> str:
    """The text with ASCII marks in place of full-width ones and of curly quotes."""
    if not text.isascii():
        for mark, half in HALVES.items():
            if mark in text:
                text = text.replace(mark, half)
    return text


def without_links(text: str) -> str:
    """The text without URLs, names of four parts or more (addresses, too), and names of domains."""
    if "://" in text or "www." in text:
        text = LINK.sub("", text)
    kept: list[str] = []
    done = 0
    for inner in INNER_DOT.finditer(text):
        start = inner.start()
        if start < done:
            continue
        after = DOTTED.match(text, start).end()  # type: ignore[union-attr]  # it matches everywhere
        while start > done and text[start - 1] in DOMAIN:
            start -= 1
        around = text[max(0, start - 1) : start], text[after : after + 1]
        kept += [text[done:start], without_domain(text[start:after], *around)]
        done = after
    return "".join([*kept, text[done:]]) if kept else text


def without_domain(run: str, before: str, after: str) -> str:
    """A run of letters, digits, dots and hyphens without its links; `before` and `after` are its neighbours, if any.

    A domain begins at a border of words, unless after a Chinese character, and reaches to the last dot that two to six
    small letters follow, if the word ends there.
    """
    run = FOUR_PARTS.sub("", run)
    endings = [found for found in ENDING.finditer(run + after) if found.end() <= len(run)]
    if not endings:
        return run
    last = endings[-1]
    wordy = before.isalnum() or before == "_"
    if wordy != run[0].isalnum() and not "\u4e00" <= before <= "\u9fa5":
        start = 0
    else:
        found = START.search(run)
        start = found.start() if found else len(run)
    return run[:start] + run[last.end() :] if start < last.start() else run


def edited(batch: TextBatch) -> Edited:
    """The texts with ASCII marks and without links."""
    return Edited(texts=[without_links(unified(text)) for text in batch.texts], signals={})


TEXT = Edit(
    name="matrix_zh_text",
    apply=edited,
    notices=(),
    paper=Paper(title=TITLE, url=URL, where=f"{CODE}: unify_format, url_filter"),
)


def signal(name: str, kind: Literal["count", "ratio", "score"], says: str) -> Signal:
    """A signal of the family."""
    return Signal(name=f"matrix_zh.{name}", kind=kind, says=says)


BRACKETS = signal("bracket_ratio", "ratio", "characters between '【' and '】' of a line / characters, before the edit")
SENTENCES = signal("sentences", "count", 'stretches between . ! … ? ; and " that are not white space alone')
CHARACTERS = signal("characters", "count", "characters of the NFKC text")
HASHES = signal("hash_ratio", "ratio", "runs of '#' / characters")
ELLIPSES = signal("ellipsis_ratio", "ratio", "runs of '…' and runs of two dots or more / characters")
DIGITS = signal("digit_ratio", "ratio", "digits / letters, digits, underscores and white space of the NFKC text")
READ_MORE = signal("read_more_ratio", "ratio", "lines that end in 'readmore', '展开', '更多' or '。。。' / lines")
BULLETS = signal("bullet_line_ratio", "ratio", "lines that begin with one of 15 bullets / lines of str.splitlines")
PUNCTUATION = signal("punctuation_ratio", "ratio", "ASCII punctuation / characters of the NFKC text")
UNIQUE = signal("unique_ratio", "ratio", "distinct characters / characters of the NFKC text")
ENTROPY = signal("entropy", "score", "entropy of the distribution of characters of the NFKC text, in nats")
TOP = tuple(
    signal(f"top_{n}_gram", "ratio", f"{n} times the places after the first of the most frequent {n}-gram / characters")
    for n in (2, 3, 4)
)
REPEATED = tuple(
    signal(f"repeated_{n}_grams", "ratio", f"different characters in {n}-grams that occur twice or more / characters")
    for n in range(5, 11)
)
MEAN_LENGTH = Signal(
    name="matrix_zh_words.mean_word_length",
    kind="ratio",
    says="letters, digits and underscores of the words / words with any",
)


def letters_of(word: str) -> int:
    """Letters, digits and underscores of the NFKC form of a word."""
    return sum(character.isalnum() or character == "_" for character in unicodedata.normalize("NFKC", word))


LETTERS = Feature(name="matrix_letters", dtype=np.uint32, of=lambda words: list(map(letters_of, words)))


def rule(
    of: Signal,
    where: str,
    *,
    low: float | None = None,
    high: float | None = None,
    low_open: bool = False,
) -> Rule:
    """A rule under the name of its signal; `where` is the function of the code and its comment's number."""
    paper = Paper(title=TITLE, url=URL, where=f"{CODE}: {where}")
    return Rule(name=of.name, signal=of, low=low, high=high, low_open=low_open, paper=paper)


RULES = (
    rule(BRACKETS, "unify_format, rule 6", high=0.1),
    rule(SENTENCES, "self_defined_rules, rule 1", low=1, low_open=True),
    rule(CHARACTERS, "self_defined_rules, rule 2", low=50, high=10_000),
    rule(HASHES, "self_defined_rules, rule 4", high=0.1),
    rule(ELLIPSES, "self_defined_rules, rule 5", high=0.1),
    rule(DIGITS, "self_defined_rules, rule 7", high=0.3),
    rule(READ_MORE, "self_defined_rules, rule 8", high=0.3),
    rule(BULLETS, "self_defined_rules, rule 9", high=0.9),
    rule(PUNCTUATION, "self_defined_rules, rule 10", low=0, low_open=True),
    rule(UNIQUE, "self_defined_rules, rule 11", low=0.1, low_open=True),
    rule(ENTROPY, "self_defined_rules, rule 12", low=3),
    *(
        rule(of, f"duplicates_rules, rule {number}", high=limit)
        for number, (of, limit) in enumerate(zip(TOP, GRAM_LIMITS, strict=False), start=1)
    ),
    *(rule(of, f"duplicates_rules, rule {number}", high=0.6) for number, of in enumerate(REPEATED, start=4)),
)


def measured(batch: TextBatch) -> Signals:
    """Every signal: brackets before the edit, all else after it."""
    from filters.batch import ratio
    from filters.kernels_matrix import bracketed

    before = normalised(batch)
    texts = edited(batch).texts
    after = batch if texts == list(batch.texts) else type(batch)(texts, batch.vocabulary)
    return {
        BRACKETS.name: ratio(bracketed(before.points.values, before.points.offsets), before.characters),
        **measured_edited(after),
        **measured_normal(before if after is batch else normalised(after)),
    }


def measured_edited(batch: TextBatch) -> dict[str, Measured]:
    """The signals that are counted before NFKC."""
    from filters import kernels_matrix as kernels
    from filters.batch import counted, ratio
    from filters.characters import point_classes
    from filters.kernels_characters import repeated_characters

    points, offsets, classes = batch.points.values, batch.points.offsets, point_classes()
    counts = kernels.character_counts(points, offsets, classes)
    grams = repeated_characters(points, offsets)
    return {
        SENTENCES.name: counted(kernels.filled_stretches(points, offsets, classes)),
        HASHES.name: ratio(counts[:, kernels.HASH_RUNS], batch.characters),
        ELLIPSES.name: ratio(counts[:, kernels.ELLIPSIS_RUNS], batch.characters),
        **{of.name: ratio(grams[:, at], batch.characters) for at, of in enumerate((*TOP, *REPEATED))},
    }


def measured_normal(batch: TextBatch) -> dict[str, Measured]:
    """The signals of texts in NFKC."""
    from filters import kernels_matrix as kernels
    from filters.batch import counted, ratio
    from filters.characters import point_classes
    from filters.kernels import distribution

    points, offsets, classes = batch.points.values, batch.points.offsets, point_classes()
    counts = kernels.character_counts(points, offsets, classes)
    marks = kernels.line_marks(points, offsets, classes)
    distinct, entropy = distribution(points, offsets)
    return {
        CHARACTERS.name: counted(batch.characters),
        DIGITS.name: ratio(counts[:, kernels.DIGITS], counts[:, kernels.WORD_OR_SPACE]),
        READ_MORE.name: ratio(marks[:, 2], marks[:, 0]),
        BULLETS.name: ratio(marks[:, 1], marks[:, 0]),
        # NFKC has turned every ellipsis, which the code counts too, into dots.
        PUNCTUATION.name: ratio(counts[:, kernels.PUNCTUATION], batch.characters),
        UNIQUE.name: ratio(distinct, batch.characters),
        ENTROPY.name: Measured(score=entropy.astype(np.float32)),
    }


def measured_words(batch: TextBatch) -> Signals:
    """The mean length of words, punctuation aside, of the text after the edit."""
    from filters.batch import ratio
    from filters.kernels import summed

    texts = edited(batch).texts
    of = (batch if texts == list(batch.texts) else type(batch)(texts, batch.vocabulary)).tokens
    letters = of.feature(LETTERS)
    total = summed(of.codes, of.offsets, letters > 0)
    return {MEAN_LENGTH.name: ratio(summed(of.codes, of.offsets, letters), total)}


QUALITY = Family(name="matrix_zh", rules=RULES, measure=measured)
WORDS = Family(
    name="matrix_zh_words",
    rules=(rule(MEAN_LENGTH, "self_defined_rules, rule 3", low=1.3, high=10),),
    measure=measured_words,
    words="jieba",
)
