"""BigScience's ratios are those of its definitions, whatever the text, and its lists hold what they are said to."""

import math
import random
import string
import time
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from filters import bigscience, kernels_bigscience
from filters.batch import TextBatch
from filters.bigscience_characters import OTHER_BLANKS, clean_up_classes, special_points
from filters.bigscience_words import STOP_WORDS
from filters.rule import Family, first_failing
from filters.tokens import Vocabulary
from pipelines.words import unicode_words

Share = tuple[int, int | None]


def measured(*texts: str, family: Family = bigscience.QUALITY) -> list[dict[str, Share]]:
    signals = family.measure(TextBatch(texts, Vocabulary(unicode_words())))
    assert set(signals) == {signal.name for signal in family.signals}
    return [
        {
            name.split(".")[1].removesuffix("_ratio"): (
                int(of.numerator[row]),  # type: ignore[index]
                None if of.denominator is None else int(of.denominator[row]),
            )
            for name, of in signals.items()
        }
        for row in range(len(texts))
    ]


@pytest.mark.parametrize(
    ("text", "signal", "share"),
    [
        ("To be, or not to be: that is the question!", "words", (10, None)),
        ("To be, or not to be: that is the question!", "stopwords", (9, 10)),
        ("To be, or not to be: that is the question!", "special_characters", (12, 42)),
        ("- 12 ... 🎉 «»\t(x)", "words", (1, None)),
        ("a\ufffcb\u3000c", "words", (3, None)),
        ("ab\x07c", "words", (1, None)),
        ("a b c d e f a b c d e g", "word_repetition", (2, 8)),
        ("A b, c D e f a B c d E g", "word_repetition", (2, 8)),
        ("a b c d", "word_repetition", (0, 0)),
        ("abcdefghij" * 3, "character_repetition", (3 + 2 + 2, 21)),  # 10 distinct ones: the three most frequent count
        ("abcdefghijk", "character_repetition", (0, 2)),  # the root of 2 is 1, but none occurs twice
        ("aaaaaaaaa", "character_repetition", (0, 0)),
        ("a" * 20, "character_repetition", (11, 11)),
        ("\n\tab\x00cd\r\n e  ", "special_characters", (3, 8)),  # "abcd", three blanks and "e" are left
        ("", "special_characters", (0, 0)),
    ],
)
def test_a_share_is_counted_by_hand(text: str, signal: str, share: Share) -> None:
    assert measured(text)[0][signal] == share


def cleaned(text: str) -> str:
    blank = "".join(" " if character in string.whitespace + OTHER_BLANKS else character for character in text.strip())
    return "".join(character for character in blank if not (ord(character) < 32 or 127 <= ord(character) < 160))


def expected(text: str) -> dict[str, Share]:
    special = {chr(point) for point in special_points()}
    plain = cleaned(text)
    words = [word for part in plain.lower().split(" ") if (word := part.strip("".join(special)))]
    characters = Counter(plain[at : at + 10] for at in range(len(plain) - 9))
    grams = Counter(" ".join(words[at : at + 5]) for at in range(len(words) - 4))
    often = min(math.isqrt(len(characters)), sum(count > 1 for count in characters.values()))
    return {
        "words": (len(words), None),
        "stopwords": (sum(word in STOP_WORDS for word in words), len(words)),
        "special_characters": (sum(character in special for character in plain), len(plain)),
        "word_repetition": (sum(count for count in grams.values() if count > 1), grams.total()),
        "character_repetition": (sum(count for _, count in characters.most_common(often)), characters.total()),
    }


# White space that cuts words here alone, and cased letters that are special in one case alone, are left out.
PARTS = st.sampled_from(
    ["the ", "a", "b", "Be", " ", "\n", "\t", "\ufffc", "\x07", "1", "-", "🎉", "日", "\ud800", "ß"]
)


@settings(deadline=None)
@given(st.lists(st.lists(PARTS, max_size=60).map("".join), min_size=1, max_size=4))
@example(["", "a" * 9, "ab" * 30, "the be the be the be the be "])
def test_every_ratio_is_that_of_its_definition(texts: list[str]) -> None:
    assert measured(*texts) == [expected(text) for text in texts]


@settings(deadline=None)
@given(st.text(max_size=60))
def test_characters_are_counted_as_defined_in_any_text(text: str) -> None:
    found, defined = measured(text)[0], expected(text)
    assert found["special_characters"] == defined["special_characters"]
    assert found["character_repetition"] == defined["character_repetition"]


def test_special_characters_are_ascii_marks_symbols_and_emoji_of_one_code_point() -> None:
    points = special_points()
    assert {ord(character) for character in string.punctuation + string.digits + string.whitespace} <= points
    assert {ord(character) for character in "’“”…•€«»☆→½🎉😀🏽\ufeff\u00ad\u200b"} <= points
    assert not {ord(character) for character in "aZéß日语ة🇩\u200d\ufe0f"} & points
    assert clean_up_classes().shape == (0x110000,)


def test_the_list_of_stop_words_is_as_published() -> None:
    assert len(STOP_WORDS) == 301
    assert {"a", "a.k.a", "thier", "w/out", "y'all", "yourselves"} <= STOP_WORDS
    assert "said" not in STOP_WORDS


PROSE = "We went over the hill and saw what was left of it, and none of us knew why they had gone from there so soon. "


@pytest.mark.parametrize(
    ("text", "default", "english"),
    [
        (PROSE, set(), set()),
        (PROSE * 3, {"word_repetition_ratio"}, {"word_repetition_ratio"}),
        ("the mill of the hill " * 20, {"word_repetition_ratio"},
         {"word_repetition_ratio", "character_repetition_ratio"}),
        (" ".join(PROSE.split()[:15]), set(), {"words"}),
        ("mill stone wheel bridge brook sack grain meadow market winter the a", set(), {"words", "stopwords_ratio"}),
        ("", {"words", "character_repetition_ratio", "word_repetition_ratio", "special_characters_ratio",
              "stopwords_ratio"},
         {"words", "character_repetition_ratio", "word_repetition_ratio", "special_characters_ratio",
          "stopwords_ratio"}),
    ],
    ids=["prose", "thrice", "20 times", "15 words", "few stop words", "empty"],
)  # fmt: skip
def test_the_rules_that_drop_a_text(text: str, default: set[str], english: set[str]) -> None:
    for family, names in ((bigscience.QUALITY, default), (bigscience.ENGLISH, english)):
        signals = family.measure(TextBatch([text], Vocabulary(unicode_words())))
        _, failed = first_failing(signals, family.rules, 1)
        assert {rule.name for rule, fails in zip(family.rules, failed[:, 0], strict=True) if fails} == {
            f"{family.name}.{name}" for name in names
        }


def test_flagged_words_are_those_of_the_list_that_is_given() -> None:
    family = bigscience.flagged_words("millers", ["mill", "stone"], high=0.2)
    other = bigscience.flagged_words("none", [])
    batch = TextBatch(["A Mill, a STONE, and millstones by the brook."], Vocabulary(unicode_words()))
    assert [Fraction(*share) for share in measured(*batch.texts, family=family)[0].values()] == [Fraction(2, 9)]
    assert not family.rules[0].passes(family.measure(batch)[family.rules[0].signal.name].value)[0]
    assert other.rules[0].passes(other.measure(batch)[other.rules[0].signal.name].value)[0]


@pytest.mark.parametrize("alphabet", ["a", string.ascii_lowercase], ids=["one letter", "hardly any repeat"])
def test_character_repetition_takes_time_linear_in_the_characters(alphabet: str) -> None:
    rng = random.Random(7)

    def cost(count: int) -> float:
        points = np.array([ord(rng.choice(alphabet)) for _ in range(count)], np.uint32)
        offsets = np.array([0, count])
        best = math.inf
        for _ in range(5):
            begun = time.thread_time()
            kernels_bigscience.character_counts(points, offsets, clean_up_classes(), 10)
            best = min(best, time.thread_time() - begun)
        return best

    cost(10)
    # 8 times the characters: 64 times the time if it were quadratic; tables that outgrow a cache make 8 up to 20.
    assert cost(160_000) / cost(20_000) < 32
