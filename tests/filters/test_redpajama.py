"""RedPajama-v2's signals: hand-made documents, and the published definitions in plain Python over any text."""

import math
import re
import string
import time
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters import redpajama
from filters.batch import TextBatch
from filters.kernels import distribution
from filters.kernels_redpajama import BLANK, CAPITAL, SMALL, WORDY
from filters.kernels_repeats import repeated_ngrams
from filters.rule import Measured
from filters.splitters_redpajama import NORMALISED_WORDS, normalised
from filters.tokens import Vocabulary
from pipelines.words import unicode_words

Values = dict[str, float | list[float]]

PIECES = [
    *("the", "The", "THE", "a", "b", "ab", "it's", "javascript", "JavaScript", "java-script", "javascripts", "lorem"),
    *("ipsum", "Lorem", "x.lorem", "ipsum's", "#", "...", "…", "..", "{", "}", "12", "½", "٣", "四", "日本", "🎉", "•"),
    *("–x", "▪", "!", "?", "”", ".", "Ǆ", "ǅ", "ǅA", "É", "e\u0301", "한국", "İ", "ΣΑΣ", "K", "_", "__a"),
    *("\u0301", "\x00"),
]
BLANKS = st.sampled_from([" ", " ", "", "  ", "\n", "\n\n", "\r\n", "\t", "\u2028", "\u3000", " \n "])
PROSE = st.lists(st.tuples(st.sampled_from(PIECES), BLANKS).map("".join), max_size=40).map("".join)
REPEATED = st.lists(st.sampled_from(["a ", "b ", "ab "]), max_size=60).map("".join)
TEXTS = st.lists(PROSE | REPEATED | st.text(), min_size=1, max_size=5)


def measured(text: str) -> Values:
    """The signals of one text under their published tags; a list where there is a value per line."""
    signals = redpajama.QUALITY.measure(TextBatch([text], Vocabulary(unicode_words())))
    return {name.removeprefix("redpajama."): plain(signal) for name, signal in signals.items()}


def plain(signal: Measured) -> float | list[float]:
    values: list[float] = signal.value.tolist()
    return values[0] if signal.offsets is None else values


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def normal(text: str) -> str:
    without = "".join(character for character in text if character not in string.punctuation)
    return unicodedata.normalize("NFD", re.sub(r"\s+", " ", without.lower().strip()))


def top(words: list[str], n: int) -> float:
    grams = Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))
    (gram, count), *_ = [*grams.most_common(1), ((), 0)]
    return ratio(len("".join(gram)) * count if count > 1 else 0, len("".join(words)))


def dupe(words: list[str], n: int) -> float:
    grams = Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))
    covered = {
        at + k for at in range(len(words) - n + 1) for k in range(n) if grams[tuple(words[at : at + n])] > 1
    }  # fmt: skip
    return ratio(sum(len(words[at]) for at in covered), len("".join(words)))


def expected(text: str) -> Values:
    words, raw = normal(text).split(), re.findall(r"\w+|[^\w\s]+", text)
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    normal_lines = list(map(normal, lines))
    shares = [count / len(words) for count in Counter(words).values()]
    marks = tuple("•‣▶◀◦■□▪▫–")
    return {
        "rps_doc_curly_bracket": ratio(text.count("{") + text.count("}"), len(text)),
        "rps_doc_frac_all_caps_words": ratio(sum(map(str.isupper, raw)), len(raw)),
        "rps_doc_frac_lines_end_with_ellipsis": ratio(
            sum(line.rstrip().endswith(("...", "…")) for line in lines), len(lines)
        ),
        "rps_doc_frac_no_alph_words": ratio(sum(not re.search("[a-zA-Z]", word) for word in raw), len(raw)),
        "rps_doc_frac_unique_words": ratio(len(set(words)), len(words)),
        "rps_doc_lorem_ipsum": ratio(normal(text).count("lorem ipsum"), len(normal(text))),
        "rps_doc_mean_word_length": ratio(len("".join(words)), len(words)),
        "rps_doc_num_sentences": len(re.findall(r"\b[^.!?]+[.!?]*", text)),
        "rps_doc_stop_word_fraction": ratio(sum(word in redpajama.SMART for word in raw), len(raw)),
        "rps_doc_symbol_to_word_ratio": ratio(sum(map(text.count, ("#", "...", "…"))), len(raw)),
        "rps_doc_unigram_entropy": -sum(share * math.log(share) for share in shares) if words else math.nan,
        "rps_doc_word_count": len(words),
        **{f"rps_doc_frac_chars_top_{n}gram": top(words, n) for n in range(2, 5)},
        **{f"rps_doc_frac_chars_dupe_{n}grams": dupe(words, n) for n in range(5, 11)},
        "rps_lines_ending_with_terminal_punctution_mark": [
            int(line.rstrip().endswith((*".!?", "”"))) for line in lines
        ],
        "rps_lines_javascript_counts": [line.split().count("javascript") for line in normal_lines],
        "rps_lines_num_words": [len(line.split()) for line in normal_lines],
        "rps_lines_numerical_chars_fraction": [
            ratio(sum(map(str.isnumeric, line)), len(line)) for line in normal_lines
        ],
        "rps_lines_start_with_bulletpoint": [int(line.lstrip().startswith(marks)) for line in lines],
        "rps_lines_uppercase_letter_fraction": [ratio(sum(map(str.isupper, line)), len(line)) for line in lines],
    }


@settings(deadline=None)
@given(TEXTS)
def test_every_signal_is_that_of_its_published_definition(texts: list[str]) -> None:
    for text in texts:
        found, wanted = measured(text), expected(text)
        assert found.keys() == wanted.keys() == {s.name.split(".")[1] for s in redpajama.QUALITY.signals}
        for tag, value in wanted.items():
            assert found[tag] == pytest.approx(value, nan_ok=True, abs=1e-6), tag


@settings(deadline=None)
@given(TEXTS)
def test_a_text_has_the_same_values_in_a_batch_and_alone(texts: list[str]) -> None:
    signals = redpajama.QUALITY.measure(TextBatch(texts, Vocabulary(unicode_words())))
    for at, text in enumerate(texts):
        alone = redpajama.QUALITY.measure(TextBatch([text], Vocabulary(unicode_words())))
        for name, signal in signals.items():
            own = slice(at, at + 1) if signal.offsets is None else slice(*signal.offsets[at : at + 2])
            assert np.array_equal(signal.value[own], alone[name].value, equal_nan=True), name


STORY = "The cat sat. THE CAT SAT!\n• Read it in JavaScript...\n\n2 of 3 {x}"
# Normalised: the cat sat the cat sat / • read it in javascript / (blank) / 2 of 3 x, 15 words of 42 characters.
# Raw: The cat sat . THE CAT SAT ! • Read it in JavaScript ... 2 of 3 { x }, 20 words.


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("rps_doc_word_count", 15),
        ("rps_doc_mean_word_length", 42 / 15),
        ("rps_doc_frac_unique_words", 12 / 15),
        ("rps_doc_unigram_entropy", 3 * 2 / 15 * math.log(15 / 2) + 9 / 15 * math.log(15)),
        ("rps_doc_symbol_to_word_ratio", 1 / 20),
        ("rps_doc_frac_no_alph_words", 8 / 20),
        ("rps_doc_frac_all_caps_words", 3 / 20),
        ("rps_doc_stop_word_fraction", 4 / 20),  # it, in, of, x
        ("rps_doc_num_sentences", 4),
        ("rps_doc_curly_bracket", 2 / 64),
        ("rps_doc_lorem_ipsum", 0),
        ("rps_doc_frac_lines_end_with_ellipsis", 1 / 4),
        ("rps_doc_frac_chars_top_2gram", 2 * 6 / 42),  # of "the cat" and "cat sat" the first
        ("rps_doc_frac_chars_top_3gram", 2 * 9 / 42),
        ("rps_doc_frac_chars_top_4gram", 0),
        ("rps_doc_frac_chars_dupe_5grams", 0),
        ("rps_lines_num_words", [6, 5, 0, 4]),
        ("rps_lines_ending_with_terminal_punctution_mark", [1, 1, 0, 0]),
        ("rps_lines_start_with_bulletpoint", [0, 1, 0, 0]),
        ("rps_lines_javascript_counts", [0, 1, 0, 0]),
        ("rps_lines_uppercase_letter_fraction", [10 / 26, 3 / 27, 0, 0]),
        ("rps_lines_numerical_chars_fraction", [0, 0, math.nan, 2 / 8]),
    ],
)
def test_a_story_counted_by_hand(tag: str, value: float | list[float]) -> None:
    assert measured(STORY)[tag] == pytest.approx(value, nan_ok=True, abs=1e-7)


def test_words_that_lie_in_several_repeated_ngrams_count_once() -> None:
    # 12 words of 2 letters, of which the first 6 and the last 6 are the same: two repeated 5-grams overlap in each.
    text = "aa ab ac ad ae af aa ab ac ad ae af"
    assert measured(text)["rps_doc_frac_chars_dupe_5grams"] == 1
    assert measured(text)["rps_doc_frac_chars_dupe_6grams"] == 1
    assert measured(text)["rps_doc_frac_chars_dupe_7grams"] == 0
    # The most frequent bigram overlaps itself, so its share exceeds 1.
    assert measured("a a a a")["rps_doc_frac_chars_top_2gram"] == 3 * 2 / 4


@pytest.mark.parametrize("text", ["", " ", "\n", "x", "🎉", "日本語", "\x00", "\ud800", "ש ל", "!!!"])
def test_small_and_odd_texts_have_values(text: str) -> None:
    values = measured(text)
    assert values["rps_doc_word_count"] == len(normal(text).split())
    assert len(values["rps_lines_num_words"]) == len(re.findall(r"[^\n]*\n|[^\n]+", text))  # type: ignore[arg-type]
    assert math.isnan(values["rps_doc_curly_bracket"]) == (text == "")  # type: ignore[arg-type]


def test_each_character_becomes_in_a_line_what_it_becomes_in_a_text() -> None:
    forms, characters = redpajama.normal_forms(), map(chr, range(0x110000))
    wanted = [len(form) | sum(map(str.isnumeric, form)) << 4 for form in map(normalised, characters)]
    assert forms.tolist() == wanted


def test_case_and_words_of_each_character_are_those_of_str_and_re() -> None:
    for point, kind in enumerate(redpajama.word_kinds().tolist()):
        character = chr(point)
        assert bool(kind & BLANK) == character.isspace()
        assert bool(kind & WORDY) == (character.isalnum() or character == "_")
        assert kind & (CAPITAL | SMALL) == (
            CAPITAL if character.isupper() else 0 if ("A" + character).isupper() else SMALL
        )


def test_all_stop_words_are_found_and_nothing_else() -> None:
    words = sorted(word for word in redpajama.SMART if word.isalpha())
    assert measured(" ".join(words))["rps_doc_stop_word_fraction"] == 1
    others = " ".join(word + "z" for word in words if word + "z" not in redpajama.SMART) + " " + "a" * 40
    assert measured(others)["rps_doc_stop_word_fraction"] == 0


def test_the_splitter_gives_of_chunks_what_it_gives_of_the_text() -> None:
    text = "It's ΟΔΟΣ, ΟΔΟΣ. e\u0301 -- İ\u3000Å ½ \u0301x"
    assert NORMALISED_WORDS.words([text])[0] == [w for words in NORMALISED_WORDS.words(text.split()) for w in words]
    assert NORMALISED_WORDS.words([text])[0] == normal(text).split()


def seconds(kernel: str, units: np.ndarray) -> float:
    offsets, lengths = np.array([0, len(units)]), np.ones(units.max() + 1, np.int32)
    best = np.inf
    for _ in range(3):
        begun = time.thread_time()
        _ = distribution(units, offsets) if kernel == "distribution" else repeated_ngrams(units, offsets, lengths)
        best = min(best, time.thread_time() - begun)
    return best


@pytest.mark.parametrize("kernel", ["distribution", "repeats"])
@pytest.mark.parametrize("shape", ["one word", "two words", "no word twice", "late variety"])
def test_repeats_take_time_linear_in_the_words(kernel: str, shape: str) -> None:
    def units(count: int) -> np.ndarray:
        shapes = {
            "one word": np.zeros(count),
            "two words": np.random.default_rng(1).integers(0, 2, count),
            "no word twice": np.arange(count),
            "late variety": np.maximum(0, np.arange(count) - count // 2),
        }
        return shapes[shape].astype(np.int32)

    seconds(kernel, units(10))
    # 8 times the words: 64 times the time if it were quadratic; tables that outgrow a cache make 8 up to 20.
    assert seconds(kernel, units(320_000)) < 32 * max(seconds(kernel, units(40_000)), 1e-3)
