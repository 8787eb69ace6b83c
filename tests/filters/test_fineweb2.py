"""FineWeb-2's configurations become rules that decide as datatrove does under the same thresholds."""

import random
from dataclasses import replace

import numpy as np
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.utils.typeshelper import Languages
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.batch import TextBatch
from filters.fineweb2 import Thresholds, family, rules, thresholds
from filters.fineweb2_languages import FAMILIES, LANGUAGES
from filters.rule import first_failing
from filters.tokens import Vocabulary
from pipelines.words import spacy_english, unicode_words

STOP_WORDS = "de la le et à en l' des du les est d' un une il dans par au"
FRENCH: dict[str, object] = {
    "dup_line_frac": 0.264,
    "dup_n_grams": [[5, 0.15], [6, 0.141], [7, 0.131], [8, 0.121], [9, 0.111], [10, 0.1]],
    "language_score": 0.824,
    "line_punct_thr": 0.1,
    "max_avg_word_length": 11,
    "max_non_alpha_words_ratio": 0.812,
    "min_avg_word_length": 2,
    "new_line_ratio": 0.185,
    "stopwords": STOP_WORDS.split(),
    "top_n_grams": [[2, 0.161], [3, 0.149], [4, 0.134]],
}


def bounds(language: str, of: Thresholds) -> dict[str, str]:
    return {rule.name.removeprefix(f"fineweb2_{language}."): rule.bounds for rule in rules(language, of)}


def test_a_published_configuration_is_what_the_data_say() -> None:
    assert thresholds(FRENCH) == LANGUAGES["fra_Latn"]


def test_a_rule_bounds_each_signal_as_configured() -> None:
    assert bounds("fra_Latn", thresholds(FRENCH)) == {
        "empty": "[1, ∞)",
        "dup_line_frac": "(-∞, 0.264]",
        **{f"top_{size}_gram": f"(-∞, {share}]" for size, share in ((2, 0.161), (3, 0.149), (4, 0.134))},
        **{f"dup_{size}_gram": f"(-∞, {share:g}]" for size, share in LANGUAGES["fra_Latn"].dup_n_grams},
        "no_lines": "[1, ∞)",
        "line_punct_ratio": "[0.1, ∞)",
        "char_dup_ratio": "(-∞, 0.1]",
        "list_ratio": "(-∞, 0.185]",
        "words_low": "[50, ∞)",
        "words_high": "(-∞, 100000]",
        "mean_word_length_low": "[2, ∞)",
        "mean_word_length_high": "(-∞, 11]",
        "hash_ratio": "(-∞, 0.1]",
        "ellipsis_ratio": "(-∞, 0.1]",
        "bullet_line_ratio": "(-∞, 0.9]",
        "ellipsis_line_ratio": "(-∞, 0.3]",
        "alpha_word_ratio": "[0.812, ∞)",
        "stop_words": "[2, ∞)",
    }


def test_a_threshold_of_zero_switches_a_rule_off() -> None:
    off = {
        **FRENCH,
        "dup_line_frac": 0,
        "line_punct_thr": 0.0,
        "min_avg_word_length": 0,
        "max_non_alpha_words_ratio": 0,
    }
    gone = set(bounds("x", thresholds(FRENCH))) - set(bounds("x", thresholds(off)))
    assert gone == {"dup_line_frac", "line_punct_ratio", "mean_word_length_low", "alpha_word_ratio"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stopwords": ["de", False]}, "stopwords"),
        ({"stopwords": "de la"}, "stopwords"),
        ({"dup_line_frac": "0.2"}, "dup_line_frac"),
        ({"language_score": True}, "language_score"),
        ({"top_n_grams": [[5, 0.1]]}, "top_n_grams"),
        ({"dup_n_grams": [[5]]}, "dup_n_grams"),
        ({"top_n_grams": []}, "top_n_grams"),
        ({"short_line_thr": 0.67}, "short_line_thr"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        thresholds({**FRENCH, **change})


def test_a_configuration_that_lacks_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="language_score"):
        thresholds({name: value for name, value in FRENCH.items() if name != "language_score"})


def first_reason(text: str, of: Thresholds) -> str | None:
    """The reason that datatrove gives, with the filters set up as FineWeb-2's pipeline does."""
    english = Languages.english  # its word splitter; thresholds and stop words are those of `of`
    steps = (
        GopherRepetitionFilter(
            language=english, dup_para_frac=0, dup_line_char_frac=0, dup_para_char_frac=0,
            dup_line_frac=of.dup_line_frac, top_n_grams=of.top_n_grams, dup_n_grams=of.dup_n_grams,
        ),
        FineWebQualityFilter(
            language=english, short_line_thr=999, char_duplicates_ratio=0.1, line_punct_thr=of.line_punct_thr,
            new_line_ratio=of.new_line_ratio,
        ),
        GopherQualityFilter(
            language=english, max_avg_word_length=of.max_avg_word_length, min_avg_word_length=of.min_avg_word_length,
            stop_words=list(of.stopwords), max_non_alpha_words_ratio=of.max_non_alpha_words_ratio, min_stop_words=2,
        ),
    )  # fmt: skip
    for step in steps:
        kept = step.filter(Document(text=text, id=""))
        if kept is not True:
            return str(kept[1])
    return None


NOUNS = "moulin pierre roue pont ruisseau sac grain pré village marché hiver récolte boulanger route grange"


def page(seed: int) -> str:
    """A text that one or another rule drops for some seeds, and none for others."""
    rng = random.Random(seed)
    stop = rng.choice([["de", "la"], ["de"], [], ["dans", "par", "au", "un"]])
    marks = rng.choice([".", ".", "", " #", "...", "2"])
    bullet = rng.choice(["", "", "- "])
    nouns = NOUNS.split()
    words = [*nouns, *(f"{noun}{number}" for noun in nouns for number in range(rng.choice([0, 3, 40])))]
    lines = [
        bullet + " ".join(rng.choice([*words, *stop]) for _ in range(rng.choice([3, 9, 12]))) + marks
        for _ in range(rng.choice([1, 6, 9, 30]))
    ]
    return "\n".join(lines + lines[: rng.choice([0, 0, 0, 1, 4])])


def test_decisions_and_reasons_are_those_of_datatrove() -> None:
    texts = [page(seed) for seed in range(300)]
    of = LANGUAGES["fra_Latn"]
    french = family("fra_Latn", of)
    signals = french.measure(TextBatch(texts, Vocabulary(spacy_english())))
    first, _ = first_failing(signals, french.rules, len(texts))
    ours = [None if row < 0 else french.rules[row].reason for row in first.tolist()]
    theirs = [first_reason(text, of) for text in texts]
    assert ours == theirs
    assert len(set(theirs)) > 8, "the pages meet too few of the rules to show anything"


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from([*"abcdef", "A", "."]), max_size=12), min_size=1, max_size=5))
def test_each_stop_word_counts_once(texts: list[list[str]]) -> None:
    of = replace(LANGUAGES["fra_Latn"], stopwords=("a", "b", "c", "b"))
    made = family("letters", of)
    signals = made.measure(TextBatch([" ".join(words) for words in texts], Vocabulary(unicode_words())))
    assert signals["fineweb2_letters.stop_words"].value.tolist() == [len(set(words) & set("abc")) for words in texts]


@pytest.mark.parametrize("made", FAMILIES, ids=lambda made: made.name)
def test_every_language_makes_a_family(made) -> None:
    signals = made.measure(TextBatch(["", "a b c"], Vocabulary(unicode_words())))
    assert set(signals) == {signal.name for signal in made.signals}
    assert all(rule.name.startswith(f"{made.name}.") and rule.reason for rule in made.rules)
    assert not np.isinf([signal.value for signal in signals.values()]).any()


@pytest.mark.parametrize("language", LANGUAGES)
def test_thresholds_are_shares_and_stop_words_are_words(language: str) -> None:
    of = LANGUAGES[language]
    shares = [share for _, share in (*of.top_n_grams, *of.dup_n_grams)]
    assert all(0 < share < 0.5 for share in (*shares, of.dup_line_frac, of.new_line_ratio))
    assert [share for _, share in of.dup_n_grams] == sorted((share for _, share in of.dup_n_grams), reverse=True)
    assert 0 <= of.line_punct_thr < 0.5 < of.max_non_alpha_words_ratio <= 0.9
    assert of.min_avg_word_length < of.max_avg_word_length
    assert len(of.stopwords) == len(set(of.stopwords)) >= 8
