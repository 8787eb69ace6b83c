"""MAP-NEO's rules for English web pages (the Matrix corpus), as its code decides.

The rules bear the names of their reasons in the paper, but the code often measures something else: ellipses, hashes and
words without a letter are counted against *characters*, n-grams are n-grams of characters, and of repeated ones of 5 to
10 only the number of different characters in them counts. Signals say what is measured. Words are the recipe's; the
code has NLTK's (`words: punkt_english`, 20 ms a page where spaCy's words are shared with other families), and with
another splitter the numbers of words and sentences are its own. What differs from the code:

* Ratios without characters, chunks or words are undefined, and no rule passes them; the code drops such a page at
  another rule or by an exception, but for one of ASCII white space alone, which `characters` drops here and there.
* Words are cut before NFKC, not after: "…" and "™", which NFKC turns into three dots and two letters, may be cut
  otherwise.
* With a splitter whose words are local to chunks, sentences are counted over its words: white space is no word.
* "At most one line" never drops a page, here as there: every text has a line.

Left out: the language score of at least 0.4 (a model; a step of the recipe), 2,500 words of URL block lists, UT1. The
code has switched off: the share of stop words (0.06), upper bounds of distinct words (0.8) and entropy (6), duplicate
sentences (cosine of TF-IDF vectors over 0.9, quadratic in the sentences).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from filters.dolma import WITH_LETTER
from filters.redpajama import SMART
from filters.rule import Family, Measured, Paper, Rule, Signal, Signals
from filters.splitter import Feature
from filters.splitters_words import WHITESPACE

if TYPE_CHECKING:
    from filters.batch import Counts, TextBatch

TITLE = "MAP-NEO: Highly Capable and Transparent Bilingual Large Language Model Series"
URL = "https://arxiv.org/abs/2405.19327"
CODE = "github.com/multimodal-art-projection/MAP-NEO, Matrix/english_data_clean_pipeline/filter/util_with_try.py"

NFKC_LENGTH = Feature(
    name="nfkc_length",
    dtype=np.int32,
    of=lambda words: [len(word if word.isascii() else unicodedata.normalize("NFKC", word)) for word in words],
)
NOT_ALPHA = Feature(name="matrix_not_alpha", dtype=np.uint8, of=lambda words: [not word.isalpha() for word in words])
ALL_DIGITS = Feature(name="matrix_all_digits", dtype=np.uint8, of=lambda words: [word.isdigit() for word in words])


def signal(name: str, kind: Literal["count", "ratio", "score"], says: str) -> Signal:
    """A signal of the family."""
    return Signal(name=f"matrix_en.{name}", kind=kind, says=says)


MEAN_LENGTH = signal("mean_word_length", "ratio", "characters of the words' NFKC forms / words")
ELLIPSES = signal("ellipsis_ratio", "ratio", "runs of '…' and runs of two dots or more / characters")
BULLETS = signal("bullet_line_ratio", "ratio", "lines that begin with one of 15 bullets / lines of str.splitlines")
NO_ALPHA = signal("no_alpha_ratio", "ratio", "white-space chunks without a letter / characters")
STOP_WORDS = signal("stop_words", "count", "different English stop words among the chunks, in any case")
SYMBOLS = signal("symbol_word_ratio", "ratio", "'#', '...' and '…' / words")
WORDS = signal("words", "count", "words")
CHARACTERS = signal("characters", "count", "characters but blanks, line feeds, tabs and white space at the ends")
LINES = signal("lines", "count", "what lies between line feeds")
BRACES = signal("curly_ratio", "ratio", "'{' and '}' / characters")
LOREM_IPSUM = signal("lorem_ipsum_ratio", "ratio", "'lorem ipsum' in any case / characters, both of the NFKC text")
STRETCHES = signal(
    "sentence_stretches", "count", "stretches between '.', '!' and '?' of the NFKC text with a letter, digit or '_'"
)
ALL_CAPS = signal("all_caps_ratio", "ratio", "white-space chunks of letters alone in upper case / chunks")
UNIQUE = signal("unique_ratio", "ratio", "distinct white-space chunks / chunks")
SENTENCES = signal("sentences", "count", "sentences")
READ_MORE = signal("read_more_ratio", "ratio", "sentences within one line that end in 'read more' / sentences")
HASHES = signal("hash_ratio", "ratio", "runs of '#' / characters")
PUNCTUATION = signal("punctuation", "count", "characters of ASCII punctuation")
NON_ALPHA = signal(
    "non_alpha_ratio", "ratio", "words not all of letters / letters, digits, underscores and white-space characters"
)
DIGITS = signal("digit_ratio", "ratio", "words all of digits / letters, digits, underscores and white-space characters")
ENTROPY = signal("entropy", "score", "entropy of the distribution of white-space chunks, in nats")
TOP = tuple(
    signal(
        f"top_{n}_gram",
        "ratio",
        f"{n} times the places after the first of the most frequent n-gram of {n} characters / characters",
    )
    for n in (2, 3, 4)
)
REPEATED = tuple(
    signal(
        f"repeated_{n}_grams",
        "ratio",
        f"different characters in n-grams of {n} characters that occur twice or more / characters",
    )
    for n in range(5, 11)
)
GRAM_LIMITS = (0.20, 0.18, 0.16, 0.15, 0.14, 0.13, 0.12, 0.11, 0.10)


def rule(
    of: Signal,
    where: str,
    *,
    name: str | None = None,
    low: float | None = None,
    high: float | None = None,
    low_open: bool = False,
    high_open: bool = False,
) -> Rule:
    """A rule under the name of its signal, or another; `where` is the function of the code and its comment's number."""
    return Rule(
        name=of.name if name is None else f"matrix_en.{name}",
        signal=of,
        low=low,
        high=high,
        low_open=low_open,
        high_open=high_open,
        paper=Paper(title=TITLE, url=URL, where=f"{CODE}: {where}"),
    )


RULES = (
    rule(MEAN_LENGTH, "gopher_rules_pass, rule 1", low=3, high=10),
    rule(ELLIPSES, "gopher_rules_pass, rule 2", name="ellipsis_ratio_gopher", high=0.2),
    rule(BULLETS, "gopher_rules_pass, rule 3", high=0.9),
    rule(NO_ALPHA, "gopher_rules_pass, rule 4", high=0.4, high_open=True),
    rule(STOP_WORDS, "gopher_rules_pass, rule 6", low=2),
    rule(SYMBOLS, "gopher_rules_pass, rule 7", high=0.5, high_open=True),
    rule(WORDS, "gopher_rules_pass, rule 8", low=50, high=10_000),
    rule(CHARACTERS, "ccnet_rules_pass, rule 2", low=200),
    rule(LINES, "ccnet_rules_pass, rule 3", low=1),
    rule(BRACES, "c4_rules_pass, rule 1", high=0.025, high_open=True),
    rule(LOREM_IPSUM, "c4_rules_pass, rule 2", high=3e-8, high_open=True),
    rule(STRETCHES, "c4_rules_pass, rule 3", high=7500, high_open=True),
    rule(ALL_CAPS, "pretrainer_rules_pass, rule 1", high=0.1),
    rule(UNIQUE, "pretrainer_rules_pass, rule 2", low=0.1),
    rule(SENTENCES, "self_defined_rules, rule 1", low=1, low_open=True),
    rule(READ_MORE, "self_defined_rules, rule 2", high=0.1),
    rule(HASHES, "self_defined_rules, rule 3", high=0.1),
    rule(ELLIPSES, "self_defined_rules, rule 4", high=0.1),
    rule(PUNCTUATION, "self_defined_rules, rule 5", low=0, low_open=True),
    rule(NON_ALPHA, "self_defined_rules, rule 6", high=0.2),
    rule(DIGITS, "self_defined_rules, rule 7", high=0.3),
    rule(ENTROPY, "refinedweb_rules_pass, rule 1", low=3),
    *(
        rule(of, f"refinedweb_rules_pass, rule {number}", high=limit)
        for number, (of, limit) in enumerate(zip((*TOP, *REPEATED), GRAM_LIMITS, strict=True), start=2)
    ),
)


def normalised(batch: TextBatch) -> TextBatch:
    """The batch of the NFKC forms of its texts."""
    return batch.once(normalised_if_other) or batch


def normalised_if_other(batch: TextBatch) -> TextBatch | None:
    """The same; None where every text is its own NFKC form."""
    from filters.normal_form import nfkc

    texts = nfkc(batch.texts, batch.points.values, batch.points.offsets)
    return None if texts == list(batch.texts) else type(batch)(texts, batch.vocabulary)


def sentence_total(batch: TextBatch) -> Counts:
    """Sentences of each text: those of the splitter, or by its rule over its words where they are local to chunks."""
    from filters.kernels import sentence_counts

    splitter = batch.vocabulary.splitter
    if splitter.chunk_local and splitter.sentence_ends is not None:
        return sentence_counts(batch.tokens.codes, batch.tokens.offsets, batch.tokens.flags)
    return batch.vocabulary.sentences(batch.texts)


def read_more(batch: TextBatch, total: Counts) -> Counts:
    """1 for each text whose last sentence ends in "read more" and holds no line feed; no other sentence can end so.

    `total` are the sentences. Sentences end with a mark but for the last, which lies in the last line if that line has
    two sentences or is not needed for the sentences before.
    """
    from filters.batch import integers

    def ends_so(text: str, sentences: int) -> bool:
        end = text.rstrip()
        if end[-9:].lower() != "read more":
            return False
        before, feed, last = end.rpartition("\n")
        inside, outside = batch.vocabulary.sentences([last, before]).tolist() if feed else (2, 0)
        return bool(inside > 1 or sentences > outside)

    return integers(ends_so(text, sentences) for text, sentences in zip(batch.texts, total.tolist(), strict=True))


def measured_characters(batch: TextBatch) -> dict[str, Measured]:
    """The signals of characters, lines and n-grams of characters."""
    from filters import kernels_matrix as kernels
    from filters.batch import counted, ratio
    from filters.characters import point_classes
    from filters.kernels_characters import repeated_characters

    points, offsets, classes = batch.points.values, batch.points.offsets, point_classes()
    counts = kernels.character_counts(points, offsets, classes)
    marks = kernels.line_marks(points, offsets, classes)
    grams = repeated_characters(points, offsets)
    return {
        ELLIPSES.name: ratio(counts[:, kernels.ELLIPSIS_RUNS], batch.characters),
        HASHES.name: ratio(counts[:, kernels.HASH_RUNS], batch.characters),
        BRACES.name: ratio(counts[:, kernels.BRACES], batch.characters),
        BULLETS.name: ratio(marks[:, 1], marks[:, 0]),
        CHARACTERS.name: counted(counts[:, kernels.INNER]),
        LINES.name: counted(batch.newlines + 1),
        PUNCTUATION.name: counted(counts[:, kernels.PUNCTUATION]),
        **{of.name: ratio(grams[:, at], batch.characters) for at, of in enumerate((*TOP, *REPEATED))},
        **measured_words(batch, counts[:, kernels.WORD_OR_SPACE], counts[:, kernels.SYMBOLS]),
    }


def measured_normal(batch: TextBatch) -> dict[str, Measured]:
    """The signals of the characters of texts in NFKC."""
    from filters.batch import counted, ratio
    from filters.characters import point_classes
    from filters.kernels_matrix import lorem_ipsums
    from filters.kernels_redpajama import sentences

    points, offsets = batch.points.values, batch.points.offsets
    return {
        LOREM_IPSUM.name: ratio(lorem_ipsums(points, offsets), batch.characters),
        STRETCHES.name: counted(sentences(points, offsets, point_classes())),
    }


def measured_words(batch: TextBatch, kept: Counts, symbols: Counts) -> dict[str, Measured]:
    """The signals of words and sentences, given the letters, digits, underscores and white space, and the symbols."""
    from filters.batch import counted, ratio
    from filters.kernels import summed

    of, total = batch.tokens, batch.word_total
    sentences = sentence_total(batch)
    return {
        WORDS.name: counted(total),
        MEAN_LENGTH.name: ratio(summed(of.codes, of.offsets, of.feature(NFKC_LENGTH)), total),
        SYMBOLS.name: ratio(symbols, total),
        SENTENCES.name: counted(sentences),
        READ_MORE.name: ratio(read_more(batch, sentences), sentences),
        NON_ALPHA.name: ratio(summed(of.codes, of.offsets, of.feature(NOT_ALPHA)), kept),
        DIGITS.name: ratio(summed(of.codes, of.offsets, of.feature(ALL_DIGITS)), kept),
    }


DROPPED = "".join(mark for mark in map(chr, range(0x80)) if not (mark.isalnum() or mark in "_'\\"))
DELETED = str.maketrans("", "", DROPPED)


def stop_word_places(chunks: Sequence[str]) -> list[int]:
    """Of each chunk, in lower case and without punctuation but apostrophes, its place among SMART; 0: it is none."""
    places = {word: place for place, word in enumerate(sorted(SMART), start=1)}

    def place(chunk: str) -> int:
        if chunk.isascii():
            inner = chunk.strip(DROPPED)
            return places.get((inner if inner.isalpha() else inner.translate(DELETED)).lower(), 0)
        word = "".join(mark for mark in chunk if mark.isalnum() or mark in "_'\\")
        word = word.replace("\u212a", "k")  # the Kelvin sign: its lower case is a k
        return places.get(word.lower(), 0) if word.isascii() else 0

    return list(map(place, chunks))


STOP_WORD = Feature(name="matrix_stop_word", dtype=np.uint16, of=stop_word_places)
ALL_UPPER = Feature(
    name="matrix_all_upper", dtype=np.uint8, of=lambda chunks: [chunk.isupper() and chunk.isalpha() for chunk in chunks]
)


def measured_chunks(batch: TextBatch) -> dict[str, Measured]:
    """The signals of what lies between white space."""
    from filters.batch import counted, ratio
    from filters.kernels import distribution, summed
    from filters.kernels_fineweb2 import distinct_members

    of = batch.words(WHITESPACE)
    distinct, entropy = distribution(of.codes, of.offsets)
    total = np.diff(of.offsets)
    return {
        NO_ALPHA.name: ratio(total - summed(of.codes, of.offsets, of.feature(WITH_LETTER)), batch.characters),
        ALL_CAPS.name: ratio(summed(of.codes, of.offsets, of.feature(ALL_UPPER)), total),
        STOP_WORDS.name: counted(distinct_members(of.codes, of.offsets, of.feature(STOP_WORD), len(SMART))),
        UNIQUE.name: ratio(distinct, total),
        ENTROPY.name: Measured(score=entropy.astype(np.float32)),
    }


def measured(batch: TextBatch) -> Signals:
    """Every signal."""
    return {**measured_characters(batch), **measured_chunks(batch), **measured_normal(normalised(batch))}


QUALITY = Family(name="matrix_en", rules=RULES, measure=measured)
