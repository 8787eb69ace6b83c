"""FineWeb-2's filters: datatrove's Gopher and FineWeb rules under thresholds and stop words of each language.

Source: huggingface/fineweb-2, fineweb-2-pipeline.py (which filters run, in which order, and what is the same for all
languages) and configs/<language>.yml (the rest). `thresholds` reads one of those mappings after a YAML parser,
`family` makes a family of rules of them; `filters.fineweb2_languages` holds twenty that were read in full. The signals
are those of the Gopher and FineWeb families, measured with the recipe's word splitter, which must be that of the
language; only stop words have a signal for each language.

A threshold of 0 switches datatrove's Gopher rules off, and so the rule is left out: in all languages shares of
duplicate paragraphs, their characters, and the characters of duplicate lines. `line_punct_thr` 0 can drop nothing and
is left out as well; the share of short lines is bounded by 999 there, and not here. There is no C4 step.
`language_score` bounds GlotLID's score, which no text holds: a recipe's language step takes it.

Bounds are closed as datatrove compares, and the numbers are those of release 0.10.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from filters import fineweb, gopher
from filters.rule import Family, Paper, Rule, Signal, Signals

if TYPE_CHECKING:
    from filters.batch import TextBatch

TITLE = "FineWeb2: One Pipeline to Scale Them All - Adapting Pre-Training Data Processing to Every Language"
URL = "https://arxiv.org/abs/2506.20920"
PIPELINE = Paper(title=TITLE, url=URL, where="huggingface/fineweb-2, fineweb-2-pipeline.py")

CHARACTER_DUPLICATES = 0.1
"""`char_duplicates_ratio`; English FineWeb has 0.01."""
FEWEST_STOP_WORDS = 2
"""`min_stop_words`: distinct ones."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """One of FineWeb-2's language configurations, under its own names."""

    language_score: float
    dup_line_frac: float
    top_n_grams: tuple[tuple[int, float], ...]
    dup_n_grams: tuple[tuple[int, float], ...]
    line_punct_thr: float
    new_line_ratio: float
    min_avg_word_length: float
    max_avg_word_length: float
    max_non_alpha_words_ratio: float
    stopwords: tuple[str, ...]


def number(name: str, value: object) -> float:
    """The value, if it is a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is to be a number, not {value!r}")
    return value


def sized(name: str, value: object, sizes: Iterable[int]) -> tuple[tuple[int, float], ...]:
    """Pairs of an n-gram's size and its threshold; sizes that no signal measures are refused."""
    known = tuple(sizes)
    pairs = value if isinstance(value, list | tuple) else ()
    if not pairs or not all(isinstance(pair, list | tuple) and len(pair) == 2 and pair[0] in known for pair in pairs):
        raise ValueError(f"{name} is to be pairs of a size ({', '.join(map(str, known))}) and a share, not {value!r}")
    return tuple((pair[0], number(name, pair[1])) for pair in pairs)


def words(name: str, value: object) -> tuple[str, ...]:
    """The words of a list. YAML reads an unquoted no as false, so anything but text is refused."""
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) and word for word in value):
        raise ValueError(f"{name} is to be a list of words, each in quotes where YAML takes it for more: {value!r}")
    return tuple(value)


def thresholds(config: Mapping[str, object]) -> Thresholds:
    """What a mapping of FineWeb-2's configs says; ValueError where a name is missing, unknown or not of its kind."""
    names = set(Thresholds.__dataclass_fields__)
    if set(config) != names:
        missing, unknown = sorted(names - set(config)), sorted(set(config) - names)
        raise ValueError(
            f"a FineWeb-2 configuration lacks {missing} and has unknown {unknown}; its names: {sorted(names)}"
        )
    plain = names - {"top_n_grams", "dup_n_grams", "stopwords"}
    return Thresholds(
        top_n_grams=sized("top_n_grams", config["top_n_grams"], (size for size, _ in gopher.TOP_GRAMS)),
        dup_n_grams=sized("dup_n_grams", config["dup_n_grams"], (size for size, _ in gopher.DUPLICATE_GRAMS)),
        stopwords=words("stopwords", config["stopwords"]),
        **{name: number(name, config[name]) for name in plain},
    )


def stop_word_signal(language: str) -> Signal:
    """How many of the language's stop words a text holds."""
    return Signal(name=f"fineweb2_{language}.stop_words", kind="count", says="stop words, each counted once")


def rules(language: str, of: Thresholds) -> tuple[Rule, ...]:
    """The rules of one language in the pipeline's order; those that are switched off are left out."""
    paper = Paper(title=TITLE, url=URL, where=f"huggingface/fineweb-2, configs/{language}.yml")
    known = {
        rule.name: rule for family in (gopher.REPETITION, fineweb.QUALITY, gopher.QUALITY) for rule in family.rules
    }

    def again(source: str, *, what: str = "", low: float | None = None, high: float | None = None) -> Rule:
        """A rule of another family under a bound of the language; without one, as it is there."""
        name = f"fineweb2_{language}.{what or source.split('.')[1]}"
        cited = PIPELINE if low is None and high is None else paper
        return replace(known[source].bounded(low=low, high=high), name=name, paper=cited)

    def unless_off(source: str, *, low: float | None = None, high: float | None = None) -> tuple[Rule, ...]:
        return (again(source, low=low, high=high),) if low or high else ()

    return (
        again("gopher_repetition.empty"),
        *unless_off("gopher_repetition.dup_line_frac", high=of.dup_line_frac),
        *(again(f"gopher_repetition.top_{size}_gram", high=share) for size, share in of.top_n_grams),
        *(again(f"gopher_repetition.dup_{size}_gram", high=share) for size, share in of.dup_n_grams),
        again("fineweb.empty", what="no_lines"),
        *unless_off("fineweb.line_punct_ratio", low=of.line_punct_thr),
        replace(again("fineweb.char_dup_ratio", high=CHARACTER_DUPLICATES), paper=PIPELINE),
        again("fineweb.list_ratio", high=of.new_line_ratio),
        again("gopher_quality.words_low"),
        again("gopher_quality.words_high"),
        *unless_off("gopher_quality.mean_word_length_low", low=of.min_avg_word_length),
        *unless_off("gopher_quality.mean_word_length_high", high=of.max_avg_word_length),
        *(again(f"gopher_quality.{what}") for what in ("hash_ratio", "ellipsis_ratio")),
        *(again(f"gopher_quality.{what}") for what in ("bullet_line_ratio", "ellipsis_line_ratio")),
        *unless_off("gopher_quality.alpha_word_ratio", low=of.max_non_alpha_words_ratio),
        replace(again("gopher_quality.stop_words", low=FEWEST_STOP_WORDS), signal=stop_word_signal(language)),
    )


def family(language: str, of: Thresholds) -> Family:
    """The rules of one language, as a family; `language` is FineWeb-2's name for it, such as fra_Latn."""
    judged = rules(language, of)
    signal = stop_word_signal(language)
    stop_words = tuple(dict.fromkeys(of.stopwords))

    def measured(batch: TextBatch) -> Signals:
        from filters.batch import counted
        from filters.kernels_fineweb2 import distinct_members

        tokens = batch.tokens
        places = tokens.table.places(stop_words)
        found = distinct_members(tokens.codes, tokens.offsets, places, len(stop_words))
        every = {
            **batch.measured(gopher.REPETITION),
            **batch.measured(fineweb.QUALITY),
            **batch.measured(gopher.QUALITY),
            signal.name: counted(found),
        }
        return {rule.signal.name: every[rule.signal.name] for rule in judged}

    return Family(name=f"fineweb2_{language}", rules=judged, measure=measured)
