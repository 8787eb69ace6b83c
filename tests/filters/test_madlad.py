"""MADLAD-400's rules 2 and 5: hand-made sentences, and datamap-rs's annotator written down naively."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters import madlad
from filters.batch import TextBatch
from filters.rule import first_failing
from filters.splitters_words import UAX29
from filters.tokens import Vocabulary

PATTERNS = [
    *map(re.escape, madlad.PHRASES), r"\|\s*$", r" nr\.$", r" г\.\s*$", r" кг\.\s*$",
    " " + " ".join(["..."] * 9), " " + " ".join(["...."] * 9), " [^ ]" * 9, ", ..,,? ..,,? ..,,? ..,,?",
]  # fmt: skip
PARTS = st.sampled_from(
    ["Word", "word", "a", "b", "the", "ab,", "cd,,", ", ", "Facebook", "mp3", " nr.", " г.", "|", "кг.", "Abc", ".",
     "!?", "日本", "x-y", "_A"]
)  # fmt: skip
BLANKS = st.sampled_from([" ", " ", " ", "", "\n", ". ", "? ", "!\n"])
TEXTS = st.lists(st.tuples(PARTS, BLANKS).map("".join), max_size=80).map("".join)


def values(text: str) -> dict[str, float]:
    signals = madlad.QUALITY.measure(TextBatch([text], Vocabulary(UAX29)))
    return {name.removeprefix("madlad."): float(signal.value[0]) for name, signal in signals.items()}


def in_list_case(sentence: str) -> bool:
    words = [word for chunk in UAX29.words(sentence.split()) for word in chunk]
    return len(words) >= 12 and sum(word[0].isupper() for word in words) > len(words) / 2


def naive(text: str) -> dict[str, float]:
    sentences = [sentence for sentence in re.split(r"[.!?]+\s+", text) if sentence.strip()]
    lists = [in_list_case(sentence) for sentence in sentences]
    cursed = [any(re.search(pattern, sentence.rstrip("\n")) for pattern in PATTERNS) for sentence in sentences]
    either = sum(one or other for one, other in zip(lists, cursed, strict=True))
    count = len(sentences)
    ratios = {"list_case_ratio": sum(lists), "cursed_ratio": sum(cursed), "questionable_ratio": either}
    return {"sentences": count, **{name: number / count if count else np.nan for name, number in ratios.items()}}


@settings(deadline=None, max_examples=400)
@given(TEXTS)
def test_sentences_are_questioned_as_the_annotator_does(text: str) -> None:
    np.testing.assert_equal(values(text), naive(text))


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), (" . ", 0), ("One", 1), ("One.", 1), ("One. ", 1), ("One.Two", 1), ("One?! Two\n\nthree...\tFour", 3)],
)
def test_sentences_end_where_white_space_follows_a_mark(text: str, count: int) -> None:
    assert values(text)["sentences"] == count


@pytest.mark.parametrize(
    ("sentence", "cursed"),
    [
        *((f"so{phrase}it", True) for phrase in madlad.PHRASES),
        ("see Vol. 5", False),  # the full stop ends the sentence
        ("the last column |", True), ("the last column | ", True), ("a | b", False),
        ("see nr.", True), ("see nr. ", False), ("500 кг.", True), ("500кг.", False), ("2021 г.", True),
        ("it is a b c d e f g h i j", True), ("it is a b c d e f g", False), ("it is a b c d  e f g h i j", False),
        ("a man put the old dog and the cat out the way", True), ("a man put the old dog\nand the cat out", False),
        ("we went over this tree near that pond with", False),
        ("we went over this tree near that pond with some", True),
        ("it, ab, cd,, ef, gh", False), ("it, ab, cd,, ef, gh,", True), ("it, ab, cdx ef, gh, ij", False),
    ],
)  # fmt: skip
def test_a_cursed_sentence_is_found(sentence: str, cursed: bool) -> None:
    assert values(sentence)["cursed_ratio"] == cursed


@pytest.mark.parametrize(("capitals", "words", "ratio"), [(7, 12, 1), (6, 12, 0), (11, 11, 0)])
def test_a_list_has_12_words_and_more_capitals_than_not(capitals: int, words: int, ratio: float) -> None:
    assert values(" ".join(["Ab"] * capitals + ["ab"] * (words - capitals)))["list_case_ratio"] == ratio


@pytest.mark.parametrize(("bad", "all_", "reason"), [(0, 4, "sentences"), (1, 6, None), (1, 5, "questionable_ratio")])
def test_a_document_needs_five_sentences_and_few_questionable_ones(bad: int, all_: int, reason: str | None) -> None:
    text = "I saw it on Facebook today. " * bad + "All is well here. " * (all_ - bad)
    rules = madlad.QUALITY.rules
    first, _ = first_failing(madlad.QUALITY.measure(TextBatch([text], Vocabulary(UAX29))), rules, 1)
    assert (rules[first[0]].name if first[0] >= 0 else None) == (reason and f"madlad.{reason}")
