"""Dolma 1.6's rules for web text: the `gopher_v1` tagger, and the bounds of the Common Crawl mixer configurations.

What the tagger counts differs from datatrove and from the Gopher paper: words are what white space separates, marks
and all; the length of words is a median; a bullet is "*" or "-" and an ellipsis U+2026, at the very edge of a line;
blank lines are lines; all occurrences of a repeated line or n-gram count, the first among them, overlapping n-grams
each in full; and characters are those of the words, white space left out, so that long repeated lines may exceed 1.

The mixer keeps a document that lacks an attribute. So it is here for n-grams in documents of fewer than n words (they
have no n-gram, which counts as 0 of 1). Without any word all ratios are undefined and the document is dropped; so does
the mixer, by the word count. The configurations name the attributes of the most common n-grams in the singular
(`..._2gram`), the tagger in the plural: those three bounds were written down and never applied. Leave out
`dolma.top_2_gram` to `dolma.top_4_gram` to get what was run.

Not here: duplicated documents and paragraphs (Bloom filters), Jigsaw scores, counts of personal data, repetitions of
tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from filters.characters import ALPHA, point_classes
from filters.rule import Family, Paper, Signal, Signals, rule_of
from filters.splitter import LENGTH, Feature
from filters.splitters_words import WHITESPACE
from filters.token_flags import GOPHER_STOP_WORDS

if TYPE_CHECKING:
    from filters.batch import TextBatch

MIXER = Paper(
    title="Dolma: an Open Corpus of Three Trillion Tokens for Language Model Pretraining Research",
    url="https://arxiv.org/abs/2402.00159",
    where="3.1.3, Quality filtering; allenai/dolma, configs/dolma-v1_6/mixing/cc-head.yaml,"
    " python/dolma/taggers/gopher.py",
)

BULLETS = "*-"
TOP_GRAMS = ((2, 0.20), (3, 0.18), (4, 0.16))
DUPLICATE_GRAMS = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))


def with_symbol(words: Sequence[str]) -> list[bool]:
    """Say of each word whether "#" or "…" is in it."""
    return ["#" in word or "…" in word for word in words]


def with_letter(words: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Say of each word whether a letter is in it."""
    points = np.frombuffer("".join(words).encode("utf-32-le", "surrogatepass"), np.uint32)
    starts = np.cumsum([0, *map(len, words)])[:-1]
    return np.logical_or.reduceat(point_classes()[points] & ALPHA, starts) if words else np.zeros(0, np.bool_)


def required(words: Sequence[str]) -> list[bool]:
    """Say of each word whether it is one of Gopher's stop words, in lower case as they are."""
    wanted = frozenset(GOPHER_STOP_WORDS)
    return [word in wanted for word in words]


WITH_SYMBOL = Feature(name="dolma.with_symbol", dtype=np.uint8, of=with_symbol)
WITH_LETTER = Feature(name="with_letter", dtype=np.uint8, of=with_letter)
REQUIRED = Feature(name="dolma.required", dtype=np.uint8, of=required)


def ratio_signal(name: str, says: str) -> Signal:
    """A ratio of this family."""
    return Signal(name=f"dolma.{name}", kind="ratio", says=says)


WORDS = Signal(name="dolma.words", kind="count", says="words between white space")
MEDIAN = ratio_signal("median_word_length", "the two middle word lengths (the one in the middle, twice) / 2")
SYMBOLS = ratio_signal("symbol_ratio", "words with '#' or '…' in them / words")
LETTERED = ratio_signal("alpha_word_ratio", "words with a letter / words")
STOP_WORDS = Signal(
    name="dolma.required_words", kind="count", says="words of {the, be, to, of, and, that, have, with}, each counted"
)
BULLET_LINES = ratio_signal("bullet_line_ratio", "lines that begin with '*' or '-' / lines, blank ones too")
ELLIPSIS_LINES = ratio_signal("ellipsis_line_ratio", "lines that end with '…' / lines, blank ones too")
DUPLICATE_LINES = ratio_signal("dup_line_frac", "lines that occur more than once / lines, blank ones too")
DUPLICATE_CHARACTERS = ratio_signal(
    "dup_line_char_frac", "characters in lines that occur more than once / characters of words"
)
TOPS = tuple(
    ratio_signal(f"top_{n}_gram", f"characters of the most frequent {n}-gram, all its places / characters of words")
    for n, _ in TOP_GRAMS
)
DUPLICATES = tuple(
    ratio_signal(f"dup_{n}_gram", f"characters of {n}-grams that occur more than once / characters of all {n}-grams")
    for n, _ in DUPLICATE_GRAMS
)


rule = partial(rule_of, paper=MIXER)


def measured_words(batch: TextBatch) -> Signals:
    """What the words tell one by one."""
    from filters import kernels, kernels_web
    from filters.batch import counted, ratio

    words = batch.words(WHITESPACE)
    total = np.diff(words.offsets)
    return {
        WORDS.name: counted(total),
        MEDIAN.name: ratio(
            kernels_web.medians(words.codes, words.offsets, words.length), np.where(total > 0, 2, 0)
        ),
        SYMBOLS.name: ratio(kernels.summed(words.codes, words.offsets, words.feature(WITH_SYMBOL)), total),
        LETTERED.name: ratio(kernels.summed(words.codes, words.offsets, words.feature(WITH_LETTER)), total),
        STOP_WORDS.name: counted(kernels.summed(words.codes, words.offsets, words.feature(REQUIRED))),
    }  # fmt: skip


def measured_repeats(batch: TextBatch) -> Signals:
    """What occurs more than once: lines and n-grams."""
    from filters import kernels, kernels_repeats
    from filters.batch import ratio

    words, points, lines = batch.words(WHITESPACE), batch.points, batch.lines
    total = np.diff(words.offsets)
    characters = kernels.summed(words.codes, words.offsets, words.feature(LENGTH))
    parts = kernels_repeats.repeated_parts(points.values, lines.starts, lines.ends, lines.offsets, True, False)
    grams = kernels_repeats.repeated_ngrams(words.codes, words.offsets, words.length)
    signals = {
        DUPLICATE_LINES.name: ratio(parts[:, kernels_repeats.REPEATED], parts[:, kernels_repeats.PARTS]),
        DUPLICATE_CHARACTERS.name: ratio(parts[:, kernels_repeats.REPEATED_SIZE], characters),
    }
    for at, signal in enumerate(TOPS):
        signals[signal.name] = ratio(grams[:, at, kernels_repeats.FIRST], characters)
    for at, signal in enumerate(DUPLICATES, len(TOPS)):
        every = grams[:, at, kernels_repeats.EVERY]
        every = np.where(total > 0, np.maximum(every, 1), 0)
        signals[signal.name] = ratio(grams[:, at, kernels_repeats.OCCURRENCES], every)
    return signals


def measured(batch: TextBatch) -> Signals:
    """Every signal of the family."""
    from filters import kernels_web
    from filters.batch import ratio

    points, lines = batch.points, batch.lines
    bullets = np.array([ord(bullet) for bullet in BULLETS], np.uint32)
    marks = kernels_web.line_marks(points.values, lines.starts, lines.ends, lines.offsets, bullets, False, True)
    total = marks[:, kernels_web.LINES]
    return {
        **measured_words(batch),
        BULLET_LINES.name: ratio(marks[:, kernels_web.BULLETS], total),
        ELLIPSIS_LINES.name: ratio(marks[:, kernels_web.ELLIPSES], total),
        **measured_repeats(batch),
    }


QUALITY = Family(
    name="dolma",
    rules=(
        rule(WORDS, low=50, high=100_000),
        rule(MEDIAN, low=3, high=10),
        rule(SYMBOLS, high=0.1),
        rule(LETTERED, low=0.8),
        rule(STOP_WORDS, low=2),
        rule(BULLET_LINES, high=0.9),
        rule(ELLIPSIS_LINES, high=0.3),
        rule(DUPLICATE_LINES, high=0.3),
        rule(DUPLICATE_CHARACTERS, high=0.3),
        *(rule(signal, high=high) for signal, (_, high) in zip(TOPS, TOP_GRAMS, strict=True)),
        *(rule(signal, high=high) for signal, (_, high) in zip(DUPLICATES, DUPLICATE_GRAMS, strict=True)),
    ),
    measure=measured,
    words=WHITESPACE.name,
)
