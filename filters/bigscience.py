"""The filter of BigScience's ROOTS corpus, on which CulturaX builds: words, repetition, special characters, stop
words.

Source: bigscience-workshop/data-preparation, preprocessing/training/01b_oscar_cleaning_and_filtering, `filtering.py`
and `parameters_filtering.py`. `QUALITY` has its default parameters, `ENGLISH` those of English; both read the same
signals.

Before it measures, BigScience rewrites a text; what the default parameters do (strip it, make every blank a space,
take out what does not print) is done here as well, so that the signals are those of the published code on the same
text:

* words: between blanks, special characters stripped from their ends, what is left of some;
* character repetition: occurrences of the k most frequent 10-grams of characters / all of them, where k is the root of
  the distinct ones, rounded down, and at most the number of those that occur more than once;
* word repetition: 5-grams of lower-cased words that occur more than once, at all their places / all of them;
* special characters / characters; stop words / words, of the English list.

Where this differs:
* The share of nothing is undefined here and 0 there. A text too short for a 10-gram or a 5-gram has fewer than 10
  words and fails `words` in both; the single rule passes there and fails here.
* Words are counted after lower-casing; there they are counted without it. Only a word that is special from end to end
  before it is lower-cased, and not after, counts here alone: U+0413 (a capital letter among the special characters),
  U+24C2.
* White space that BigScience does not list cuts words here: the no-break space, which about half of all web pages
  hold, U+2028 and a few more. There two words with one between them are one word.
* For English, `parameters_filtering.py` also deletes words that hold "http", "www", ".com", "href" or "//" and words
  of more than 25 characters before it measures. That is an edit of the text; signals here are of the text as it
  stands.
* Flagged words need a list, which `flagged_words` takes: the published one is of obscenities and is not carried here.
  Perplexity needs the KenLM model of each language and is left out; language identification is a recipe's own step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from filters.rule import Family, Measured, Paper, Rule, Signal, Signals

if TYPE_CHECKING:
    from filters.batch import TextBatch

TITLE = "The BigScience ROOTS Corpus: A 1.6TB Composite Multilingual Dataset"
URL = "https://arxiv.org/abs/2303.03915"
CODE = "bigscience-workshop/data-preparation, 01b_oscar_cleaning_and_filtering/parameters_filtering.py"
DEFAULT_PAPER = Paper(title=TITLE, url=URL, where=f"{CODE}, parameters_filtering_default")
ENGLISH_PAPER = Paper(title=TITLE, url=URL, where=f"{CODE}, parameters_filtering_en")

CHARACTER_GRAM = 10
"""`character_repetition_length`"""
WORD_GRAM = 5
"""`word_repetition_length`"""

WORDS = Signal(name="bigscience.words", kind="count", says="words, without special characters at their ends")
CHARACTER_REPETITION = Signal(
    name="bigscience.character_repetition_ratio",
    kind="ratio",
    says="occurrences of the most frequent 10-grams of characters, the root of their number / 10-grams",
)
WORD_REPETITION = Signal(
    name="bigscience.word_repetition_ratio", kind="ratio", says="5-grams of words that occur more than once / 5-grams"
)
SPECIAL = Signal(
    name="bigscience.special_characters_ratio",
    kind="ratio",
    says="punctuation, digits, white space, marks and emoji / characters",
)
STOP_WORDS = Signal(name="bigscience.stopwords_ratio", kind="ratio", says="English stop words (BigScience's) / words")


def measured(batch: TextBatch) -> Signals:
    """The five signals; one walk over the characters, two over the words."""
    from filters import kernels, kernels_bigscience
    from filters.batch import counted, ratio
    from filters.bigscience_characters import clean_up_classes
    from filters.bigscience_words import BIGSCIENCE, IS_STOP_WORD

    points, words = batch.points, batch.words(BIGSCIENCE)
    total = words.offsets[1:] - words.offsets[:-1]
    characters = kernels_bigscience.character_counts(points.values, points.offsets, clean_up_classes(), CHARACTER_GRAM)
    grams = kernels_bigscience.repeated_ngrams(words.codes, words.offsets, WORD_GRAM)
    return {
        WORDS.name: counted(total),
        CHARACTER_REPETITION.name: ratio(characters[:, 3], characters[:, 2]),
        WORD_REPETITION.name: ratio(grams[:, 1], grams[:, 0]),
        SPECIAL.name: ratio(characters[:, 1], characters[:, 0]),
        STOP_WORDS.name: ratio(kernels.summed(words.codes, words.offsets, words.feature(IS_STOP_WORD)), total),
    }


def quality(
    name: str,
    paper: Paper,
    *,
    words: float,
    character_repetition: float,
    word_repetition: float,
    special: float,
    stop_words: float,
) -> Family:
    """The rules under other bounds, in BigScience's order; limits are closed: a text at one is kept."""

    def rule(signal: Signal, *, low: float | None = None, high: float | None = None) -> Rule:
        return Rule(name=f"{name}.{signal.name.split('.')[1]}", signal=signal, low=low, high=high, paper=paper)

    return Family(
        name=name,
        rules=(
            rule(WORDS, low=words, high=100_000),
            rule(CHARACTER_REPETITION, high=character_repetition),
            rule(WORD_REPETITION, high=word_repetition),
            rule(SPECIAL, high=special),
            rule(STOP_WORDS, low=stop_words),
        ),
        measure=measured,
        words="bigscience",
    )


QUALITY = quality(
    "bigscience",
    DEFAULT_PAPER,
    words=10,
    character_repetition=0.2,
    word_repetition=0.3,
    special=0.4,
    stop_words=0.1,
)
ENGLISH = quality(
    "bigscience_en",
    ENGLISH_PAPER,
    words=20,
    character_repetition=0.106,
    word_repetition=0.19,
    special=0.4,
    stop_words=0.3,
)


def flagged_words(name: str, words: Iterable[str], *, high: float = 0.1, paper: Paper = DEFAULT_PAPER) -> Family:
    """A family of one rule: flagged words / words is at most `high`. `name` tells this list from others.

    Words are compared as BigScience does, lower-cased and stripped; a listed phrase never matches. 0.1 is the default
    parameter, 0.01 that of English.
    """
    listed = frozenset(words)
    family = f"bigscience_flagged_{name}"
    signal = Signal(name=f"{family}.flagged_words_ratio", kind="ratio", says=f"words of the list {name!r} / words")

    def measured_share(batch: TextBatch) -> dict[str, Measured]:
        import numpy as np

        from filters import kernels
        from filters.batch import ratio
        from filters.bigscience_words import BIGSCIENCE
        from filters.splitter import Feature

        flagged = Feature(name=signal.name, dtype=np.uint8, of=lambda some: [word in listed for word in some])
        of = batch.words(BIGSCIENCE)
        found = kernels.summed(of.codes, of.offsets, of.feature(flagged))
        return {signal.name: ratio(found, of.offsets[1:] - of.offsets[:-1])}

    return Family(
        name=family,
        rules=(Rule(name=signal.name, signal=signal, high=high, paper=paper),),
        measure=measured_share,
        words="bigscience",
    )
