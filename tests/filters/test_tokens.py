"""A vocabulary gives the words of its splitter, whatever it met before; only speed depends on what it holds."""

import time
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.punctuation import PUNCTUATION, TERMINAL
from filters.splitter import WordSplitter
from filters.token_flags import ALPHA, GOPHER_STOP_WORDS, STOP_WORDS, SYMBOL
from filters.tokens import SPACE, Vocabulary, spaced
from pipelines.words import spacy_english, unicode_words

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.text("ab .(\n"), max_size=8)


def words_of(vocabulary: Vocabulary, texts: Sequence[str]) -> list[list[str]]:
    tokens = vocabulary.encode(texts)
    names = tokens.table.words
    return [
        [names[code] for code in tokens.codes[first:last].tolist()]
        for first, last in zip(tokens.offsets, tokens.offsets[1:], strict=False)
    ]


@settings(deadline=None)
@given(TEXTS)
def test_codes_stand_for_the_words_of_the_splitter(texts: list[str]) -> None:
    assert words_of(Vocabulary(unicode_words()), texts) == unicode_words().words(texts)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_a_vocabulary_that_started_anew_gives_the_same_hashes(before: list[str], texts: list[str]) -> None:
    fresh, reset = Vocabulary(unicode_words()), Vocabulary(unicode_words(), max_chunks=1)
    reset.encode(before)
    ours, theirs = fresh.encode(texts), reset.encode(texts)
    assert ours.offsets.tolist() == theirs.offsets.tolist()
    for column in ("hash", "spelling", "length", "flags"):
        assert getattr(ours, column)[ours.codes].tolist() == getattr(theirs, column)[theirs.codes].tolist()


def test_memory_is_bounded_between_batches() -> None:
    vocabulary = Vocabulary(unicode_words(), max_chunks=100)
    for batch in range(20):
        vocabulary.encode([f"word{batch}_{n}" for n in range(60)])
    assert len(vocabulary.lexicon.chunks) <= 160
    vocabulary.encode(["x" * 10_000])
    vocabulary.encode(["a"])
    assert vocabulary.lexicon._characters < 100


def test_codes_given_out_stay_right_when_the_vocabulary_starts_anew() -> None:
    vocabulary = Vocabulary(unicode_words(), max_chunks=1)
    first = vocabulary.encode(["one two"])
    vocabulary.encode([" ".join(map(str, range(5000)))])
    assert first.length[first.codes].tolist() == [3, 3]
    assert first.hash[first.codes].tolist() == [xxhash.xxh64_intdigest(word) for word in (b"one", b"two")]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1, max_size=6))
def test_flags_say_what_a_word_is_made_of(word: str) -> None:
    splitter = replace(unicode_words(), words=lambda texts: [text.split() for text in texts])
    tokens = Vocabulary(splitter).encode([word])
    flags = int(tokens.flags[tokens.codes[0]])
    assert bool(flags & SYMBOL) == all(character in PUNCTUATION for character in word)
    assert bool(flags & ALPHA) == any(map(str.isalpha, word))
    assert int(tokens.length[tokens.codes[0]]) == len(word)


def test_each_stop_word_has_a_bit_of_its_own_and_case_counts() -> None:
    tokens = Vocabulary(unicode_words()).encode([" ".join(GOPHER_STOP_WORDS), "The AND"])
    bits = (tokens.flags[tokens.codes] & STOP_WORDS).tolist()
    assert sorted(bits) == [0, 0, *(1 << bit for bit in range(8))]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a b", ["a", "b"]),
        ("a  b", ["a", SPACE, "b"]),
        ("a\tb", ["a", SPACE, "b"]),
        (" a", [SPACE, "a"]),
        ("a ", ["a"]),
        ("a  ", ["a", SPACE]),
        ("  ", [SPACE]),
        ("", []),
    ],
)
def test_white_space_that_is_a_token_is_marked(line: str, expected: list[str]) -> None:
    assert spaced(line) == expected


PIECES = ["Hi", ".", "!", '"', "(", ")", "…", " ", "  ", "\t", "\u00a0", "a.m.", ":(", "x:", "5", "。", "'s", "-"]


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), max_size=6))
def test_sentences_are_those_of_the_sentencizer(lines: list[str]) -> None:
    splitter = spacy_english()
    assert Vocabulary(splitter).sentences(lines).tolist() == splitter.sentences(lines)


def test_a_chunk_that_depends_on_its_neighbour_is_split_in_context() -> None:
    def words(texts: Sequence[str]) -> list[list[str]]:
        return [[text.replace("b c", "B C")] if " " in text else [text] for text in texts]

    splitter = WordSplitter(
        name="contextual",
        words=words,
        sentences=lambda lines: [1] * len(lines),
        chunk_local=True,
        sentence_ends=frozenset(),
        unsteady=lambda chunk, words: chunk == "b",
        joined=lambda left, right: (left, right) == ("b", "c"),
    )
    assert words_of(Vocabulary(splitter), ["a b c d", "a b d", "b", "b c b  c"]) == [
        ["a", "B C", "d"],
        ["a", "b", "d"],
        ["b"],
        ["B C", "b", "c"],
    ]


def test_terminal_marks_are_punctuation_in_unicode_or_symbols() -> None:
    assert all(unicodedata.category(mark)[0] in "PSC" for mark in TERMINAL)  # C: unassigned in older tables
    assert np.array(sorted(map(ord, TERMINAL))).size == 159


def test_a_long_chain_of_unsteady_chunks_takes_no_quadratic_time() -> None:
    vocabulary = Vocabulary(spacy_english())
    vocabulary.encode(["warm"])

    def seconds(count: int) -> float:
        started = time.process_time()
        vocabulary.encode(["(x:( " * count])
        return time.process_time() - started

    seconds(100)
    assert seconds(8_000) < 20 * max(seconds(1_000), 0.01)
