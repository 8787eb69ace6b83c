"""MassiveText's rules of quality and repetition (the Gopher paper), with the numbers datatrove gives them.

`REPETITION` and `QUALITY` decide as datatrove 0.10.1 does, rule by rule in its order. The variants of April 2024 are
those FineWeb was made with: lines were cut by `str.splitlines` (blank lines counted as duplicates), stop words were
counted with repeats, and punctuation held no marks of other scripts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from filters.rule import Family, Measured, Paper, Rule, Signal, Signals
from filters.token_flags import SYMBOL, SYMBOL_2024_04

if TYPE_CHECKING:
    from filters.batch import Counts, TextBatch

TITLE = "Scaling Language Models: Methods, Analysis & Insights from Training Gopher"
URL = "https://arxiv.org/abs/2112.11446"
QUALITY_PAPER = Paper(title=TITLE, url=URL, where="A.1.1, Quality Filtering")
REPETITION_PAPER = Paper(title=TITLE, url=URL, where="A.1.1, Repetition Removal, Table A1")

TOP_GRAMS = ((2, 0.20), (3, 0.18), (4, 0.16))
DUPLICATE_GRAMS = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
SIZES = [*(size for size, _ in TOP_GRAMS), *(size for size, _ in DUPLICATE_GRAMS)]


def repetition_signal(name: str, says: str, *, per: str = "characters of the text") -> Signal:
    """A ratio of the repetition family."""
    return Signal(name=f"gopher_repetition.{name}", kind="ratio", says=f"{says} / {per}")


def repetition_rule(signal: Signal, *, high: float, reason: str) -> Rule:
    """Keep documents whose signal is at most `high`."""
    return Rule(name=signal.name, signal=signal, high=high, paper=REPETITION_PAPER, reason=reason)


CHARACTERS = Signal(name="gopher_repetition.characters", kind="count", says="characters of the text")
PARAGRAPHS = repetition_signal("dup_para_frac", "paragraphs equal to an earlier one", per="paragraphs")
PARAGRAPH_CHARACTERS = repetition_signal("dup_para_char_frac", "characters in paragraphs equal to an earlier one")
LINES = repetition_signal("dup_line_frac", "lines equal to an earlier one", per="lines")
LINE_CHARACTERS = repetition_signal("dup_line_char_frac", "characters in lines equal to an earlier one")
LINES_2024_04 = repetition_signal("dup_line_frac_2024_04", "lines or blank lines equal to an earlier one", per="lines")
LINE_CHARACTERS_2024_04 = repetition_signal(
    "dup_line_char_frac_2024_04", "characters in lines (of str.splitlines) equal to an earlier one"
)
GRAMS = (
    *(repetition_signal(f"top_{n}_gram", f"characters under the most frequent {n}-gram") for n, _ in TOP_GRAMS),
    *(repetition_signal(f"dup_{n}_gram", f"characters in {n}-grams seen before") for n, _ in DUPLICATE_GRAMS),
)
GRAM_RULES = (
    *(repetition_rule(s, high=high, reason=f"top_{n}_gram") for s, (n, high) in zip(GRAMS, TOP_GRAMS, strict=False)),
    *(
        repetition_rule(signal, high=high, reason=f"duplicated_{n}_n_grams")
        for signal, (n, high) in zip(GRAMS[len(TOP_GRAMS) :], DUPLICATE_GRAMS, strict=True)
    ),
)
PARAGRAPH_RULES = (
    repetition_rule(PARAGRAPHS, high=0.30, reason="dup_para_frac"),
    repetition_rule(PARAGRAPH_CHARACTERS, high=0.20, reason="dup_para_char_frac"),
)
NOT_EMPTY = Rule(
    name="gopher_repetition.empty",
    signal=CHARACTERS,
    low=1,
    paper=Paper(
        title="datatrove 0.10.1", url="https://github.com/huggingface/datatrove", where="gopher_repetition_filter.py"
    ),
    reason="empty",
)


def measured_paragraphs_and_grams(batch: TextBatch) -> dict[str, Measured]:
    """The signals both repetition families share."""
    from filters.batch import counted, duplicates, integers, ratio

    extra, characters = duplicates(batch.paragraphs)
    signals = {
        CHARACTERS.name: counted(batch.characters),
        PARAGRAPHS.name: ratio(extra, integers(map(len, batch.paragraphs))),
        PARAGRAPH_CHARACTERS.name: ratio(characters, batch.characters),
    }
    for column, signal in enumerate(GRAMS):
        signals[signal.name] = ratio(batch.repetition[:, column], batch.characters)
    return signals


def measured_repetition(batch: TextBatch) -> Signals:
    """Lines are what lies between runs of line feeds, as in datatrove since June 2024."""
    from filters.batch import duplicates, integers, ratio

    extra, characters = duplicates(batch.line_runs)
    return {
        **measured_paragraphs_and_grams(batch),
        LINES.name: ratio(extra, integers(map(len, batch.line_runs))),
        LINE_CHARACTERS.name: ratio(characters, batch.characters),
    }


def measured_repetition_2024_04(batch: TextBatch) -> Signals:
    """Lines are those of `str.splitlines`, blank ones among them."""
    from filters.batch import duplicates, integers, ratio

    extra, characters = duplicates(batch.split_lines)
    return {
        **measured_paragraphs_and_grams(batch),
        LINES_2024_04.name: ratio(extra, integers(map(len, batch.split_lines))),
        LINE_CHARACTERS_2024_04.name: ratio(characters, batch.characters),
    }


REPETITION = Family(
    name="gopher_repetition",
    rules=(
        NOT_EMPTY,
        *PARAGRAPH_RULES,
        repetition_rule(LINES, high=0.30, reason="dup_line_frac"),
        repetition_rule(LINE_CHARACTERS, high=0.20, reason="dup_line_char_frac"),
        *GRAM_RULES,
    ),
    measure=measured_repetition,
)


def renamed(rules: tuple[Rule, ...], family: str) -> tuple[Rule, ...]:
    """The same rules, named after another family."""
    return tuple(replace(rule, name=f"{family}.{rule.name.split('.')[1]}") for rule in rules)


REPETITION_2024_04 = Family(
    name="gopher_repetition_2024_04",
    rules=renamed(
        (
            *PARAGRAPH_RULES,
            replace(repetition_rule(LINES_2024_04, high=0.30, reason="dup_line_frac"), name=LINES.name),
            replace(
                repetition_rule(LINE_CHARACTERS_2024_04, high=0.20, reason="dup_line_char_frac"),
                name=LINE_CHARACTERS.name,
            ),
            *GRAM_RULES,
        ),
        "gopher_repetition_2024_04",
    ),
    measure=measured_repetition_2024_04,
    unruled=(CHARACTERS,),
)


def quality_signals(suffix: str) -> dict[str, Signal]:
    """The signals of the quality family, by what they measure; those that variants count differently take `suffix`."""

    def signal(name: str, kind: str, says: str) -> Signal:
        return Signal(name=f"gopher_quality.{name}", kind="count" if kind == "count" else "ratio", says=says)

    return {
        "words": signal(f"words{suffix}", "count", "words that are not all punctuation"),
        "mean": signal(
            f"mean_word_length{suffix}", "ratio", "characters of the words that are not all punctuation / those words"
        ),
        "hash": signal("hash_ratio", "ratio", "'#' characters / words"),
        "ellipsis": signal("ellipsis_ratio", "ratio", "'...' and '…' / words"),
        "bullet": signal("bullet_line_ratio", "ratio", "lines that begin with '•' or '-' / lines"),
        "end": signal("ellipsis_line_ratio", "ratio", "lines that end with '...' or '…' / lines"),
        "alpha": signal("alpha_word_ratio", "ratio", "words with a letter / words"),
        "stop": signal(
            f"stop_words{suffix}", "count", "words of {the, be, to, of, and, that, have, with}"
            + (", every one counted" if suffix else ", each counted once")
        ),
    }  # fmt: skip


def quality_rules(of: dict[str, Signal], family: str) -> tuple[Rule, ...]:
    """The ten rules in datatrove's order; limits on both sides are two rules, as they are two reasons there."""

    def rule(name: str, signal: Signal, reason: str, *, low: float | None = None, high: float | None = None) -> Rule:
        return Rule(
            name=f"{family}.{name}", signal=signal, low=low, high=high, paper=QUALITY_PAPER, reason=f"gopher_{reason}"
        )

    return (
        rule("words_low", of["words"], "short_doc", low=50),
        rule("words_high", of["words"], "long_doc", high=100_000),
        rule("mean_word_length_low", of["mean"], "below_avg_threshold", low=3),
        rule("mean_word_length_high", of["mean"], "above_avg_threshold", high=10),
        rule("hash_ratio", of["hash"], "too_many_hashes", high=0.1),
        rule("ellipsis_ratio", of["ellipsis"], "too_many_ellipsis", high=0.1),
        rule("bullet_line_ratio", of["bullet"], "too_many_bullets", high=0.9),
        rule("ellipsis_line_ratio", of["end"], "too_many_end_ellipsis", high=0.3),
        rule("alpha_word_ratio", of["alpha"], "below_alpha_threshold", low=0.8),
        rule("stop_words", of["stop"], "enough_stop_words", low=2),
    )


def measured_words(batch: TextBatch, of: dict[str, Signal], symbol: int, stop_words: int) -> Signals:
    """The quality signals; `symbol` is the flag of punctuation, `stop_words` the column that counts stop words."""
    from filters.batch import counted, ratio

    words = batch.word_counts(symbol)
    bullets, ends, lines = batch.once(line_marks)
    ellipses = batch.occurrences("...") + batch.occurrences("…")
    return {
        of["words"].name: counted(words[:, 0]),
        of["mean"].name: ratio(words[:, 1], words[:, 0]),
        of["hash"].name: ratio(batch.occurrences("#"), batch.word_total),
        of["ellipsis"].name: ratio(ellipses, batch.word_total),
        of["bullet"].name: ratio(bullets, lines),
        of["end"].name: ratio(ends, lines),
        of["alpha"].name: ratio(words[:, 2], batch.word_total),
        of["stop"].name: counted(words[:, stop_words]),
    }


def line_marks(batch: TextBatch) -> tuple[Counts, Counts, Counts]:
    """Return, per document, lines that begin with a bullet, lines that end with an ellipsis, and all lines."""
    from filters.batch import integers

    return (
        integers(sum(line.lstrip().startswith(("•", "-")) for line in lines) for lines in batch.split_lines),
        integers(sum(line.rstrip().endswith(("...", "…")) for line in lines) for lines in batch.split_lines),
        integers(map(len, batch.split_lines)),
    )


WORDS_SIGNALS = quality_signals("")
WORDS_SIGNALS_2024_04 = quality_signals("_2024_04")


def measured_quality(batch: TextBatch) -> Signals:
    """Stop words are counted once each."""
    return measured_words(batch, WORDS_SIGNALS, SYMBOL, 4)


def measured_quality_2024_04(batch: TextBatch) -> Signals:
    """Stop words are counted with repeats; punctuation is CCNet's."""
    return measured_words(batch, WORDS_SIGNALS_2024_04, SYMBOL_2024_04, 3)


QUALITY = Family(name="gopher_quality", rules=quality_rules(WORDS_SIGNALS, "gopher_quality"), measure=measured_quality)
QUALITY_2024_04 = Family(
    name="gopher_quality_2024_04",
    rules=quality_rules(WORDS_SIGNALS_2024_04, "gopher_quality_2024_04"),
    measure=measured_quality_2024_04,
)
