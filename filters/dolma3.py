"""Dolma 3's "All-Dressed" rules for web text, and its edit of lines, as AllenAI's datamap-rs applies them.

The steps are DCLM's (`filters.dclm`, `filters.refinedweb`), written anew in Rust, and differ in what they count:
lengths of words, lines, paragraphs and n-grams are bytes of UTF-8; bullets stand at the very edge of lines, blank
lines among them; a spaced ellipsis is one word; words of a page are runs of ASCII letters and digits where the page is
all ASCII, else UAX #29's; lines and paragraphs are compared as they are, only empty ones left out; n-grams are of the
UAX #29 words with a letter or a digit anywhere, and of the n-grams (n = 2, 3, 4) that occur most often the longest
counts, every byte under its places once. One white-space word alone drops a page, and no line is no reason.

The edit takes ratios per byte and ASCII digits only, counts UAX #29 words, and cuts phrases in the case of letters
they are written in out of lines of any length: the configuration says `max_length`, the code reads `max_len`. The
code cuts lines at line feeds three times after that, and each time a line feed at the end and carriage returns before
line feeds are lost. MADLAD-400's rules close the pipeline: `filters.madlad`.

Differences: ratios are exact, not float32, so only a ratio within 6e-8 of a bound can be judged otherwise. Where
several n-grams are equally frequent and long, the first counts; in Rust that depends on a hash. Letters and white
space are Python's: Rust's letters hold dependent vowel signs and circled letters, its white space not U+001C to U+001F.
"""

from __future__ import annotations

import re
from functools import partial
from operator import is_
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from filters.dclm import BULLETS, STOP_WORD, symbol_counts
from filters.dolma import DUPLICATE_GRAMS, TOP_GRAMS, WITH_LETTER
from filters.edit import Edit, Edited
from filters.refinedweb import Reading, corrected, notices
from filters.rule import Family, Paper, Rule, Signal, Signals, rule_of
from filters.splitter import Feature
from filters.splitters_words import UAX29, WHITESPACE

if TYPE_CHECKING:
    from filters.batch import Counts, TextBatch

PAPER = Paper(
    title="Olmo 3",
    url="https://arxiv.org/abs/2512.13961",
    where="Dolma 3, heuristic filtering of web data; allenai/datamap-rs, configs/all_dressed/all_dressed_config.yaml,"
    " src/map_fxn.rs",
)

BYTES = Feature(
    name="utf8_length", dtype=np.int32, of=lambda words: [len(word.encode("utf-8", "surrogatepass")) for word in words]
)
CUTS = (
    ("items in cart", re.compile(r"\s?items in cart\s?"), " "),
    ("Read more", re.compile(r"\s?Read more...$"), ""),
    ("Sign-in", re.compile(r"^Sign-in\s?"), ""),
)
PHRASES = tuple(phrase for phrase, _, _ in CUTS)


def ratio_signal(name: str, says: str) -> Signal:
    """A ratio of this family."""
    return Signal(name=f"dolma3.{name}", kind="ratio", says=says)


CHARACTERS = Signal(name="dolma3.characters", kind="count", says="characters")
WORDS = Signal(
    name="dolma3.words", kind="count", says="runs of letters and digits in a text of ASCII, else words of UAX #29"
)
MEAN = ratio_signal("mean_word_length", "bytes of words / words between white space")
SYMBOL_RATIO = ratio_signal(
    "symbol_ratio", "'#', '...', '. . .' and '…' / words between white space, '. . .' counted as one, at least 1"
)
BULLET_LINES = ratio_signal("bullet_line_ratio", "lines that begin with '●', '•', '*' or '-' / lines, blank ones too")
ELLIPSIS_LINES = ratio_signal(
    "ellipsis_line_ratio", "lines that end with '...', '. . .' or '…' / lines that are not empty, at least 1"
)
NO_ALPHA = ratio_signal(
    "non_alpha_word_ratio", "words without a letter / words between white space; undefined for one word"
)
STOP_WORDS = Signal(
    name="dolma3.stop_words",
    kind="count",
    says="words of {the, be, to, of, and, that, have, with} in any case, each counted",
)
LINES = ratio_signal("dup_line_frac", "lines that occur more than once / lines that are not empty")
PARAGRAPHS = ratio_signal("dup_para_frac", "paragraphs that occur more than once / paragraphs that are not empty")
LINE_BYTES = ratio_signal("dup_line_byte_frac", "bytes in lines that occur more than once / in lines")
PARAGRAPH_BYTES = ratio_signal("dup_para_byte_frac", "bytes in paragraphs that occur more than once / in paragraphs")
TOPS = tuple(
    ratio_signal(f"top_{n}_gram", f"bytes of words under the longest most frequent {n}-gram / of all words")
    for n, _ in TOP_GRAMS
)
DUPLICATES = tuple(
    ratio_signal(f"dup_{n}_gram", f"bytes of words in {n}-grams that occur more than once / of all words")
    for n, _ in DUPLICATE_GRAMS
)


rule = partial(rule_of, paper=PAPER)


def measured_words(batch: TextBatch) -> Signals:
    """What the words tell one by one."""
    from filters import kernels
    from filters.batch import counted, ratio

    words = batch.words(WHITESPACE)
    total = np.diff(words.offsets)
    lettered = kernels.summed(words.codes, words.offsets, words.feature(WITH_LETTER))
    symbol_words = np.maximum(total - 2 * batch.occurrences(". . ."), 1)
    return {
        CHARACTERS.name: counted(batch.characters),
        WORDS.name: counted(page_words(batch)),
        MEAN.name: ratio(kernels.summed(words.codes, words.offsets, words.feature(BYTES)), total),
        SYMBOL_RATIO.name: ratio(batch.once(symbol_counts), symbol_words),
        NO_ALPHA.name: ratio(total - lettered, np.where(total == 1, 0, total)),
        STOP_WORDS.name: counted(kernels.summed(words.codes, words.offsets, words.feature(STOP_WORD))),
    }


def page_words(batch: TextBatch) -> Counts:
    """How many words each page has, as its length is judged."""
    from filters import kernels_web
    from filters.characters import point_classes

    plain = kernels_web.ascii_words(batch.points.values, batch.points.offsets, point_classes())
    return np.where(plain >= 0, plain, np.diff(batch.words(UAX29).offsets))


def measured_lines(batch: TextBatch) -> Signals:
    """What lines and paragraphs tell."""
    from filters import kernels_repeats, kernels_web
    from filters.batch import ratio

    points, lines = batch.points, batch.lines
    bullets = np.array([ord(bullet) for bullet in BULLETS], np.uint32)
    marks = kernels_web.line_marks(points.values, lines.starts, lines.ends, lines.offsets, bullets, True, True)
    cut = kernels_web.without_returns(points.values, lines.starts, lines.ends)
    ends = kernels_web.line_marks(points.values, lines.starts, cut, lines.offsets, bullets, True, False)
    by_line = kernels_repeats.repeated_parts(points.values, lines.starts, lines.ends, lines.offsets, False, True)
    spans = kernels_repeats.paragraphs(points.values, points.offsets)
    by_paragraph = kernels_repeats.repeated_parts(points.values, *spans, False, True)
    return {
        BULLET_LINES.name: ratio(marks[:, kernels_web.BULLETS], marks[:, kernels_web.LINES]),
        ELLIPSIS_LINES.name: ratio(ends[:, kernels_web.ELLIPSES], np.maximum(ends[:, kernels_web.LINES], 1)),
        LINES.name: ratio(by_line[:, kernels_repeats.REPEATED], by_line[:, kernels_repeats.PARTS]),
        PARAGRAPHS.name: ratio(by_paragraph[:, kernels_repeats.REPEATED], by_paragraph[:, kernels_repeats.PARTS]),
        LINE_BYTES.name: ratio(by_line[:, kernels_repeats.REPEATED_SIZE], by_line[:, kernels_repeats.SIZE]),
        PARAGRAPH_BYTES.name: ratio(
            by_paragraph[:, kernels_repeats.REPEATED_SIZE], by_paragraph[:, kernels_repeats.SIZE]
        ),
    }


def measured_grams(batch: TextBatch) -> Signals:
    """What n-grams tell. A page without words has none: 0 of 1."""
    from filters import kernels, kernels_repeats
    from filters.batch import ratio

    words = batch.words(UAX29)
    sizes = words.feature(BYTES)
    total = np.maximum(kernels.summed(words.codes, words.offsets, sizes), 1)
    grams = kernels_repeats.repeated_ngrams(words.codes, words.offsets, sizes)
    every = enumerate((*TOPS, *DUPLICATES))
    return {signal.name: ratio(grams[:, at, kernels_repeats.COVERED], total) for at, signal in every}


def measured(batch: TextBatch) -> Signals:
    """Every signal of the family."""
    return {**measured_words(batch), **measured_lines(batch), **measured_grams(batch)}


QUALITY = Family(
    name="dolma3",
    rules=(
        rule(CHARACTERS, low=150),
        rule(WORDS, low=50, high=100_000),
        rule(MEAN, low=3, high=10),
        rule(SYMBOL_RATIO, high=0.1),
        rule(BULLET_LINES, high=0.9),
        rule(ELLIPSIS_LINES, high=0.3),
        rule(NO_ALPHA, high=0.2),
        rule(STOP_WORDS, low=2),
        rule(LINES, high=0.3),
        rule(PARAGRAPHS, high=0.3),
        rule(LINE_BYTES, high=0.2),
        rule(PARAGRAPH_BYTES, high=0.2),
        *(rule(signal, high=high) for signal, (_, high) in zip(TOPS, TOP_GRAMS, strict=True)),
        *(rule(signal, high=high) for signal, (_, high) in zip(DUPLICATES, DUPLICATE_GRAMS, strict=True)),
    ),
    measure=measured,
    words=UAX29.name,
)


def two_line_feeds(text: str) -> str:
    """The text with at most two line feeds in a row."""
    if "\n\n\n" not in text:
        return text
    first, *between, last = text.split("\n\n")
    return "\n\n".join([first, *filter(None, (part.lstrip("\n") for part in between)), last.lstrip("\n")])


def rust_lines(text: str) -> list[str]:
    """What Rust's `str::lines` gives: no empty line after the last line feed, no carriage return before one."""
    *lines, last = text.split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    return [*lines, last] if last else lines


def without_phrases(text: str, any_phrase: bool) -> tuple[str, int]:
    """Return the text without PHRASES and with at most two line feeds in a row, and how many lines a phrase changed."""
    changed = 0
    for phrase, cut, instead in CUTS:
        if not any_phrase and "\r" not in text:
            text = text.removesuffix("\n")
            continue
        lines = []
        for line in rust_lines(text):
            left = cut.sub(instead, line) if phrase in line else line
            changed += left != line
            if not line or (left and not left.isspace()):
                lines.append(left)
        text = "\n".join(lines)
    return two_line_feeds(text), changed


def uax29_words_in(values: npt.NDArray[np.uint32], starts: Counts, ends: Counts) -> Counts:
    """The words of UAX #29 in spans of code points."""
    from filters import kernels_words
    from filters.characters import point_classes
    from filters.word_break import word_break_classes

    return kernels_words.word_totals(values, starts, ends, word_break_classes(), point_classes())


FAMILY = "dolma3_lines"
RUST = Reading(
    family=FAMILY, rust=True, phrases=PHRASES, any_case=False, finished=without_phrases, words=uax29_words_in
)
NOTICES = notices(FAMILY)


def corrected_lines(batch: TextBatch) -> Edited:
    """Drop and shorten lines as datamap-rs does, runs of line feeds reduced to two before and after."""
    from filters.batch import TextBatch

    texts = list(map(two_line_feeds, batch.texts))
    same = all(map(is_, texts, batch.texts))
    return corrected(batch if same else TextBatch(texts, batch.vocabulary), RUST, np.diff(batch.words(UAX29).offsets))


def measured_removal(batch: TextBatch) -> Signals:
    """What the edit would notice; where a recipe applies the edit, take its signals instead of measuring again."""
    return corrected_lines(batch).signals


EDIT = Edit(name=FAMILY, apply=corrected_lines, notices=NOTICES, paper=PAPER, words=UAX29.name)
REMOVAL = Family(
    name=FAMILY,
    rules=(Rule(name=NOTICES[-1].name, signal=NOTICES[-1], high=0.05, paper=PAPER),),
    measure=measured_removal,
    unruled=NOTICES[:-1],
    words=UAX29.name,
)
