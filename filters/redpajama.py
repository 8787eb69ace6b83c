"""The quality signals of RedPajama-Data-v2 that a text alone gives, under the tags of its published schema.

RedPajama publishes signals and no thresholds, so the family has no rule. Signals are named `redpajama.<tag>`. Two kinds
of words occur: *normalised* ones (ASCII punctuation deleted, lower-cased, NFD, cut at white space) and *raw* ones (runs
of letters, digits and underscores, or of anything else but white space; NLTK's WordPunctTokenizer). Lines end with a
line feed, which is a character of the line; after the last one there is no empty line. What differs from the code:

* Ratios are kept as counts, not rounded to 8 digits; without words, characters or lines they are undefined, where the
  code writes 0 for n-grams, "lorem ipsum", braces and stop words and for blank lines.
* A text without lines has no value per line; the code writes one null for bullets. Spans of lines are not repeated.
* Stop words are the English ones whatever the language; the code has five more lists.
* "lorem ipsum" is matched by lower case alone, where the code takes the letters ı and ſ for i and s, too.

Left out, for they need more than the text: ccnet_* (language model, and the state before line deduplication),
rps_doc_*_importance (n-gram models of Books, OpenWebText, Wikipedia), rps_doc_ml_* (fastText classifiers),
rps_doc_ldnoobw_words and rps_doc_ut1_blacklist (lists).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from filters.rule import Family, Measured, Paper, Signal, Signals
from filters.splitter import Feature
from filters.splitters_words import WHITESPACE

if TYPE_CHECKING:
    from filters.batch import Counts, TextBatch

PAPER = Paper(
    title="RedPajama: an Open Dataset for Training Large Language Models",
    url="https://arxiv.org/abs/2411.12372",
    where="D.2, Quality signals; github.com/togethercomputer/RedPajama-Data, app/src/core/quality_signals",
)

SMART_WORDS = """
a a's able about above according accordingly across actually after afterwards again against ain't all allow allows
almost alone along already also although always am among amongst an and another any anybody anyhow anyone anything
anyway anyways anywhere apart appear appreciate appropriate are aren't around as aside ask asking associated at
available away awfully b be became because become becomes becoming been before beforehand behind being believe below
beside besides best better between beyond both brief but by c c'mon c's came can can't cannot cant cause causes certain
certainly changes clearly co com come comes concerning consequently consider considering contain containing contains
corresponding could couldn't course currently d definitely described despite did didn't different do does doesn't doing
don't done down downwards during e each edu eg eight either else elsewhere enough entirely especially et etc even ever
every everybody everyone everything everywhere ex exactly example except f far few fifth first five followed following
follows for former formerly forth four from further furthermore g get gets getting given gives go goes going gone got
gotten greetings h had hadn't happens hardly has hasn't have haven't having he he's hello help hence her here here's
hereafter hereby herein hereupon hers herself hi him himself his hither hopefully how howbeit however i i'd i'll i'm
i've ie if ignored immediate in inasmuch inc indeed indicate indicated indicates inner insofar instead into inward is
isn't it it'd it'll it's its itself j just k keep keeps kept know known knows l last lately later latter latterly least
less lest let let's like liked likely little look looking looks ltd m mainly many may maybe me mean meanwhile merely
might more moreover most mostly much must my myself n name namely nd near nearly necessary need needs neither never
nevertheless new next nine no nobody non none noone nor normally not nothing novel now nowhere o obviously of off often
oh ok okay old on once one ones only onto or other others otherwise ought our ours ourselves out outside over overall
own p particular particularly per perhaps placed please plus possible presumably probably provides q que quite qv r
rather rd re really reasonably regarding regardless regards relatively respectively right s said same saw say saying
says second secondly see seeing seem seemed seeming seems seen self selves sensible sent serious seriously seven several
shall she should shouldn't since six so some somebody somehow someone something sometime sometimes somewhat somewhere
soon sorry specified specify specifying still sub such sup sure t t's take taken tell tends th than thank thanks thanx
that that's thats the their theirs them themselves then thence there there's thereafter thereby therefore therein theres
thereupon these they they'd they'll they're they've think third this thorough thoroughly those though three through
throughout thru thus to together too took toward towards tried tries truly try trying twice two u un under unfortunately
unless unlikely until unto up upon us use used useful uses using usually uucp v value various very via viz vs w want
wants was wasn't way we we'd we'll we're we've welcome well went were weren't what what's whatever when whence whenever
where where's whereafter whereas whereby wherein whereupon wherever whether which while whither who who's whoever whole
whom whose why will willing wish with within without won't wonder would wouldn't x y yes yet you you'd you'll you're
you've your yours yourself yourselves z zero
"""
SMART = frozenset(SMART_WORDS.split())
"""The English stop words of the SMART system (Salton and Buckley), which RedPajama and MAP-NEO use."""


def lorem_marks(words: Sequence[str]) -> npt.ArrayLike:
    """Of each word 1 if it ends with "lorem", plus 2 if it begins with "ipsum"."""
    together = " ".join(words)
    if "lorem" not in together and "ipsum" not in together:
        return np.zeros(len(words), np.uint8)
    return [word.endswith("lorem") + 2 * word.startswith("ipsum") for word in words]


LOREM = Feature(name="redpajama_lorem", dtype=np.uint8, of=lorem_marks)

Kind = Literal["count", "ratio", "score"]


def document(tag: str, kind: Kind, says: str) -> Signal:
    """A signal per document."""
    return Signal(name=f"redpajama.rps_doc_{tag}", kind=kind, says=says)


def line(tag: str, kind: Kind, says: str) -> Signal:
    """A signal per line."""
    return Signal(name=f"redpajama.rps_lines_{tag}", kind=kind, per="line", says=says)


CURLY = document("curly_bracket", "ratio", "'{' and '}' / characters")
ALL_CAPS = document("frac_all_caps_words", "ratio", "raw words in upper case / raw words")
ELLIPSIS_LINES = document("frac_lines_end_with_ellipsis", "ratio", "lines that end with '...' or '…' / lines")
NO_ALPHA = document("frac_no_alph_words", "ratio", "raw words without a letter from A to Z / raw words")
UNIQUE = document("frac_unique_words", "ratio", "distinct normalised words / normalised words")
LOREM_IPSUM = document("lorem_ipsum", "ratio", "'lorem ipsum' in the normalised text / characters of that text")
MEAN_LENGTH = document("mean_word_length", "ratio", "characters of normalised words / normalised words")
SENTENCES = document("num_sentences", "count", "stretches between '.', '!' and '?' with a letter, digit or '_'")
STOP_WORDS = document("stop_word_fraction", "ratio", "raw words that are English stop words in lower case / raw words")
SYMBOLS = document("symbol_to_word_ratio", "ratio", "'#', '...' and '…' / raw words")
ENTROPY = document("unigram_entropy", "score", "entropy of the distribution of normalised words, in nats")
WORDS = document("word_count", "count", "normalised words")
TOP = tuple(
    document(
        f"frac_chars_top_{n}gram",
        "ratio",
        f"characters under the most frequent {n}-gram of normalised words, if it is repeated / characters of the words",
    )
    for n in (2, 3, 4)
)
DUPLICATES = tuple(
    document(
        f"frac_chars_dupe_{n}grams",
        "ratio",
        f"characters of normalised words that lie in any repeated {n}-gram / characters of the words",
    )
    for n in range(5, 11)
)
# The tag lacks a syllable in the published schema, too.
TERMINAL = line("ending_with_terminal_punctution_mark", "count", "1 where the line ends with '.', '!', '?' or '”'")
JAVASCRIPT = line("javascript_counts", "count", "normalised words that are 'javascript'")
LINE_WORDS = line("num_words", "count", "normalised words")
NUMERALS = line("numerical_chars_fraction", "ratio", "numeric characters / characters, both of the normalised line")
BULLETS = line("start_with_bulletpoint", "count", "1 where the line begins with one of ten bullets")
UPPER = line("uppercase_letter_fraction", "ratio", "upper-case letters / characters, the line feed among them")


@cache
def stop_word_keys() -> npt.NDArray[np.uint64]:
    """An open hash table of the keys of `SMART`, as `kernels_redpajama.stop_word` looks them up."""
    from filters.kernels import mixed
    from filters.kernels_redpajama import longer_key

    table = np.zeros(2048, np.uint64)
    for word in sorted(SMART):
        key = np.uint64(0)
        for letter in word:
            key = np.uint64(longer_key(key, ord(letter)))  # Numba hands out Python integers
        slot = int(mixed(key)) % len(table)
        while table[slot]:
            slot = (slot + 1) % len(table)
        table[slot] = key
    return table


@cache
def word_kinds() -> npt.NDArray[np.uint8]:
    """The bits of each code point that `kernels_redpajama.raw_words` reads; 1 MB."""
    from filters import kernels_redpajama as bits
    from filters.characters import ALNUM, LOWER, SPACE, UPPER, point_classes

    pairs = ((SPACE, bits.BLANK), (ALNUM, bits.WORDY), (UPPER, bits.CAPITAL), (LOWER, bits.SMALL))
    table = np.zeros(len(point_classes()), np.uint8)
    for held, bit in pairs:
        table[(point_classes() & held) > 0] |= bit
    table[ord("_")] |= bits.WORDY
    table[ord("A") : ord("Z") + 1] |= bits.LATIN
    table[ord("a") : ord("z") + 1] |= bits.LATIN | bits.PLAIN
    for point in range(0x2000):  # no title-case letter lies beyond; `str.isupper` refuses a word that holds one
        if unicodedata.category(chr(point)) == "Lt":
            table[point] |= bits.SMALL
    table.flags.writeable = False
    return table


def raw_words_of(column: int) -> Feature[np.uint32]:
    """Of each chunk between white space that column of `kernels_redpajama.raw_words`: raw words do not cross chunks."""

    def of(chunks: Sequence[str]) -> npt.NDArray[np.int64]:
        from filters.kernels_redpajama import raw_words
        from filters.tokens import code_points

        return raw_words(*code_points(chunks), word_kinds(), stop_word_keys())[:, column]

    return Feature(name=f"redpajama_raw_words_{column}", dtype=np.uint32, of=of)


RAW_WORDS = tuple(map(raw_words_of, range(4)))


@cache
def normal_forms() -> npt.NDArray[np.uint8]:
    """What each code point becomes in normalised text: characters, and 16 times those that are numeric.

    What is not white space and has no mapping of its own stays one character. 1 MB, made in a fifth of a second.
    """
    from filters.characters import NUMERIC, point_classes
    from filters.splitters_redpajama import normalised

    table = np.where(point_classes() & NUMERIC, 0x11, 1).astype(np.uint8)
    for point in range(0x30000):  # beyond lie no letters with case and none that can be decomposed
        character = chr(point)
        if point < 0x80 or unicodedata.decomposition(character) or character.lower() != character:
            form = normalised(character)
            table[point] = len(form) | sum(map(str.isnumeric, form)) << 4
    for point in range(0xAC00, 0xD7A4):  # Hangul syllables, which the tables do not list
        table[point] = len(normalised(chr(point)))
    table.flags.writeable = False
    return table


def measured_words(batch: TextBatch) -> dict[str, Measured]:
    """The signals of normalised words."""
    from filters.batch import counted, ratio
    from filters.kernels import distribution, summed
    from filters.kernels_redpajama import lorem_ipsums
    from filters.kernels_repeats import COVERED, FIRST, LONGEST, repeated_ngrams
    from filters.splitters_redpajama import NORMALISED_WORDS

    of = batch.words(NORMALISED_WORDS)
    distinct, entropy = distribution(of.codes, of.offsets)
    total, characters = np.diff(of.offsets), summed(of.codes, of.offsets, of.length)
    counts = repeated_ngrams(of.codes, of.offsets, of.length)
    top = np.where(counts[:, :, LONGEST] > 0, counts[:, :, FIRST], 0)  # what occurs once is no repeat
    signals = {
        WORDS.name: counted(total),
        MEAN_LENGTH.name: ratio(characters, total),
        UNIQUE.name: ratio(distinct, total),
        ENTROPY.name: Measured(score=entropy.astype(np.float32)),
        LOREM_IPSUM.name: ratio(
            lorem_ipsums(of.codes, of.offsets, of.feature(LOREM)), characters + np.maximum(total - 1, 0)
        ),
    }
    for at, signal in enumerate((*TOP, *DUPLICATES)):
        signals[signal.name] = ratio(top[:, at] if at < len(TOP) else counts[:, at, COVERED], characters)
    return signals


def measured_text(batch: TextBatch) -> dict[str, Measured]:
    """The signals of raw words and of the whole text."""
    from filters.batch import counted, ratio
    from filters.characters import point_classes
    from filters.kernels import summed
    from filters.kernels_redpajama import sentences

    points, offsets, chunks = batch.points.values, batch.points.offsets, batch.words(WHITESPACE)
    words, no_alpha, all_caps, stop_words = (
        summed(chunks.codes, chunks.offsets, chunks.feature(feature)) for feature in RAW_WORDS
    )
    symbols = batch.occurrences("#") + batch.occurrences("...") + batch.occurrences("…")
    return {
        CURLY.name: ratio(batch.occurrences("{") + batch.occurrences("}"), batch.characters),
        NO_ALPHA.name: ratio(no_alpha, words),
        ALL_CAPS.name: ratio(all_caps, words),
        STOP_WORDS.name: ratio(stop_words, words),
        SYMBOLS.name: ratio(symbols, words),
        SENTENCES.name: counted(sentences(points, offsets, point_classes())),
    }


def ended_lines(batch: TextBatch) -> tuple[npt.NDArray[np.int64], Counts, Counts]:
    """Return which of `batch.lines` are lines here, their characters with line feeds, and where each text's begin."""
    lines = batch.lines
    last = lines.offsets[1:] - 1
    empty = lines.starts[last] == lines.ends[last]
    characters = lines.ends - lines.starts + 1
    characters[last] -= 1  # the last has no line feed
    chosen = np.ones(len(lines.starts), np.bool_)
    chosen[last[empty]] = False
    kept = np.flatnonzero(chosen)
    offsets = lines.offsets - np.concatenate([[0], np.cumsum(empty)])
    return kept, characters[kept], offsets


def measured_lines(batch: TextBatch) -> dict[str, Measured]:
    """The signals per line, and that of lines per document."""
    from filters.batch import counted_per_line, ratio, ratio_per_line
    from filters.characters import point_classes
    from filters.kernels_redpajama import line_ends, line_words

    points, spans = batch.points.values, batch.stripped_lines
    kept, characters, offsets = ended_lines(batch)
    starts, ends = spans.starts[kept], spans.ends[kept]
    marks = line_ends(points, starts, ends)
    words = line_words(points, starts, ends, point_classes(), normal_forms())
    ellipses = np.concatenate([[0], np.cumsum(marks[:, 1])])
    return {
        ELLIPSIS_LINES.name: ratio(np.diff(ellipses[offsets]), np.diff(offsets)),
        TERMINAL.name: counted_per_line(marks[:, 0].astype(np.int64), offsets),
        BULLETS.name: counted_per_line(marks[:, 2].astype(np.int64), offsets),
        UPPER.name: ratio_per_line(words[:, 0], characters, offsets),
        LINE_WORDS.name: counted_per_line(words[:, 1], offsets),
        NUMERALS.name: ratio_per_line(words[:, 3], words[:, 2], offsets),
        JAVASCRIPT.name: counted_per_line(words[:, 4], offsets),
    }


def measured(batch: TextBatch) -> Signals:
    """Every signal."""
    return {**measured_text(batch), **measured_words(batch), **measured_lines(batch)}


QUALITY = Family(
    name="redpajama",
    rules=(),
    measure=measured,
    unruled=(
        *(CURLY, ALL_CAPS, ELLIPSIS_LINES, NO_ALPHA, UNIQUE, LOREM_IPSUM, MEAN_LENGTH, SENTENCES, STOP_WORDS, SYMBOLS),
        *(ENTROPY, WORDS, *TOP, *DUPLICATES),
        *(TERMINAL, JAVASCRIPT, LINE_WORDS, NUMERALS, BULLETS, UPPER),
    ),
)
