"""DCLM-Baseline's heuristic rules, as the mappers of mlfoundations/dclm apply them in `dclm_baseline_refinedweb.yaml`.

The lines that step then corrects, and the rule on how many words that removes, are `filters.refinedweb`. Three word
splitters are at work there: fastText's tokens that begin with a letter or a digit (how many words a page has), white
space (lengths, symbols, letters, stop words), and UAX #29 segments that begin with a letter or a digit (n-grams).

Lines and paragraphs are stripped and blank ones left out; all occurrences of a repeated one count, the first among
them. Of the n-grams that occur most often the longest counts, at all its places, and one that occurs once counts
nothing; of repeated longer n-grams every word under them counts once. Lengths are characters of those words.

Differences: a ratio of nothing drops the document here, where DCLM's filters for bullets and ellipses let a page
without lines pass (such a page has no words and goes all the same). DCLM compares counts of lines with the product of
the bound and the lines, which differs from the quotient only by rounding. DCLM reduces runs of line feeds to two
first; no number here depends on that. It also deletes addresses of web pages, by a list of top-level domains, which is
not recreated. DCLM's language rule keeps scores above 0.65; recipes have a step for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from filters.dolma import DUPLICATE_GRAMS, TOP_GRAMS, WITH_LETTER
from filters.refinedweb import fasttext_words
from filters.rule import Family, Paper, Signal, Signals, rule_of
from filters.splitter import LENGTH, Feature
from filters.splitters_words import UAX29, WHITESPACE
from filters.token_flags import GOPHER_STOP_WORDS

if TYPE_CHECKING:
    from filters.batch import Counts, TextBatch

PAPER = Paper(
    title="DataComp-LM: In search of the next generation of training sets for language models",
    url="https://arxiv.org/abs/2406.11794",
    where="4.2 and appendix on heuristic cleaning; baselines/baselines_configs/dclm_baseline_refinedweb.yaml,"
    " baselines/mappers/filters/content_filters.py",
)

BULLETS = "●•*-"
SYMBOLS = ("#", "...", ". . .", "…")


def stop_word(words: Sequence[str]) -> list[bool]:
    """Say of each word whether it is one of Gopher's stop words in any case."""
    wanted, longest = frozenset(GOPHER_STOP_WORDS), max(map(len, GOPHER_STOP_WORDS))
    return [len(word) <= longest and word.lower() in wanted for word in words]


STOP_WORD = Feature(name="stop_word_any_case", dtype=np.uint8, of=stop_word)


BEGINS = Feature(name="begins_alnum", dtype=np.uint8, of=lambda words: [word[0].isalnum() for word in words])


def ratio_signal(name: str, says: str) -> Signal:
    """A ratio of this family."""
    return Signal(name=f"dclm.{name}", kind="ratio", says=says)


WORDS = Signal(name="dclm.words", kind="count", says="fastText's words that begin with a letter or a digit")
MEAN = ratio_signal("mean_word_length", "characters of words / words between white space")
SYMBOL_RATIO = ratio_signal("symbol_ratio", "'#', '...', '. . .' and '…' / words between white space")
BULLET_LINES = ratio_signal("bullet_line_ratio", "lines that begin with '●', '•', '*' or '-' / lines, no blanks")
ELLIPSIS_LINES = ratio_signal("ellipsis_line_ratio", "lines that end with '...', '. . .' or '…' / lines, no blanks")
NO_ALPHA = ratio_signal("non_alpha_word_ratio", "words without a letter / words between white space")
STOP_WORDS = Signal(
    name="dclm.stop_words",
    kind="count",
    says="words of {the, be, to, of, and, that, have, with} in any case, each counted",
)
LINES = ratio_signal("dup_line_frac", "lines that occur more than once / lines, no blanks")
PARAGRAPHS = ratio_signal("dup_para_frac", "paragraphs that occur more than once / paragraphs")
LINE_CHARACTERS = ratio_signal("dup_line_char_frac", "characters in lines that occur more than once / in lines")
PARAGRAPH_CHARACTERS = ratio_signal(
    "dup_para_char_frac", "characters in paragraphs that occur more than once / in paragraphs"
)
TOPS = tuple(
    ratio_signal(f"top_{n}_gram", f"characters of the longest most frequent {n}-gram, all its places / of all words")
    for n, _ in TOP_GRAMS
)
DUPLICATES = tuple(
    ratio_signal(f"dup_{n}_gram", f"characters of words in {n}-grams that occur more than once / of all words")
    for n, _ in DUPLICATE_GRAMS
)


rule = partial(rule_of, paper=PAPER)


def symbol_counts(batch: TextBatch) -> Counts:
    """How often each of SYMBOLS occurs, together."""
    total: Counts = np.sum([batch.occurrences(symbol) for symbol in SYMBOLS], axis=0, dtype=np.int64)
    return total


def measured_words(batch: TextBatch) -> Signals:
    """What the words tell one by one."""
    from filters import kernels
    from filters.batch import counted, ratio

    words = batch.words(WHITESPACE)
    total = np.diff(words.offsets)
    lettered = kernels.summed(words.codes, words.offsets, words.feature(WITH_LETTER))
    return {
        WORDS.name: counted(batch.once(fasttext_words)),
        MEAN.name: ratio(kernels.summed(words.codes, words.offsets, words.feature(LENGTH)), total),
        SYMBOL_RATIO.name: ratio(batch.once(symbol_counts), total),
        NO_ALPHA.name: ratio(total - lettered, total),
        STOP_WORDS.name: counted(kernels.summed(words.codes, words.offsets, words.feature(STOP_WORD))),
    }


def measured_lines(batch: TextBatch) -> Signals:
    """What lines and paragraphs tell."""
    from filters import kernels, kernels_repeats, kernels_web
    from filters.batch import ratio
    from filters.characters import point_classes

    points, lines = batch.points, batch.stripped_lines
    bullets = np.array([ord(bullet) for bullet in BULLETS], np.uint32)
    marks = kernels_web.line_marks(points.values, lines.starts, lines.ends, lines.offsets, bullets, True, False)
    starts, ends, first = kernels_repeats.paragraphs(points.values, points.offsets)
    starts, ends = kernels.stripped(points.values, starts, ends, point_classes())
    by_line = kernels_repeats.repeated_parts(points.values, lines.starts, lines.ends, lines.offsets, False, False)
    by_paragraph = kernels_repeats.repeated_parts(points.values, starts, ends, first, False, False)
    return {
        BULLET_LINES.name: ratio(marks[:, kernels_web.BULLETS], marks[:, kernels_web.LINES]),
        ELLIPSIS_LINES.name: ratio(marks[:, kernels_web.ELLIPSES], marks[:, kernels_web.LINES]),
        LINES.name: ratio(by_line[:, kernels_repeats.REPEATED], by_line[:, kernels_repeats.PARTS]),
        PARAGRAPHS.name: ratio(by_paragraph[:, kernels_repeats.REPEATED], by_paragraph[:, kernels_repeats.PARTS]),
        LINE_CHARACTERS.name: ratio(by_line[:, kernels_repeats.REPEATED_SIZE], by_line[:, kernels_repeats.SIZE]),
        PARAGRAPH_CHARACTERS.name: ratio(
            by_paragraph[:, kernels_repeats.REPEATED_SIZE], by_paragraph[:, kernels_repeats.SIZE]
        ),
    }


def measured_grams(batch: TextBatch) -> Signals:
    """What n-grams tell. A page with text but no word has none: 0 of 1."""
    from filters import kernels, kernels_repeats
    from filters.batch import ratio

    words = batch.words(UAX29).only(BEGINS)
    characters = kernels.summed(words.codes, words.offsets, words.feature(LENGTH))
    characters = np.where(batch.characters > 0, np.maximum(characters, 1), 0)
    grams = kernels_repeats.repeated_ngrams(words.codes, words.offsets, words.length)
    signals = {}
    for at, signal in enumerate((*TOPS, *DUPLICATES)):
        column = kernels_repeats.LONGEST if at < len(TOPS) else kernels_repeats.COVERED
        signals[signal.name] = ratio(grams[:, at, column], characters)
    return signals


def measured(batch: TextBatch) -> Signals:
    """Every signal of the family."""
    return {**measured_words(batch), **measured_lines(batch), **measured_grams(batch)}


QUALITY = Family(
    name="dclm",
    rules=(
        rule(WORDS, low=50, high=100_000),
        rule(MEAN, low=3, high=10),
        rule(SYMBOL_RATIO, high=0.1),
        rule(BULLET_LINES, high=0.9),
        rule(ELLIPSIS_LINES, high=0.3),
        rule(NO_ALPHA, high=0.2),
        rule(STOP_WORDS, low=2),
        rule(LINES, high=0.3),
        rule(PARAGRAPHS, high=0.3),
        rule(LINE_CHARACTERS, high=0.2),
        rule(PARAGRAPH_CHARACTERS, high=0.2),
        *(rule(signal, high=high) for signal, (_, high) in zip(TOPS, TOP_GRAMS, strict=True)),
        *(rule(signal, high=high) for signal, (_, high) in zip(DUPLICATES, DUPLICATE_GRAMS, strict=True)),
    ),
    measure=measured,
    words=WHITESPACE.name,
)
