"""The splitters give the words and sentences of the libraries they stand for."""

import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from datatrove.utils.text import PUNCTUATION as CCNET_PUNCTUATION
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION, split_into_sentences
from datatrove.utils.word_tokenizers import load_word_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.errors import RecipeError, ResourceMissing
from filters.punctuation import PUNCTUATION, PUNCTUATION_2024_04, TERMINAL
from filters.tokens import Vocabulary
from pipelines.words import PUNKT_FOLDER, SPLITTERS, punkt_english, spacy_english, unicode_words, words_by_name

EMOTICONS = [":(", ":((", "(", ")", ":", "=", ")):", "x", "5pm", "a.m.", "'s", "o", "D", "3", "</", "-", "Dr", "."]
BLANKS = ["", "", " ", " ", "  ", "\n"]
PIECES = st.lists(st.tuples(st.sampled_from(EMOTICONS), st.sampled_from(BLANKS)).map("".join), max_size=20)


def encoded_words(vocabulary: Vocabulary, texts: Sequence[str]) -> list[list[str]]:
    tokens = vocabulary.encode(texts)
    names = tokens.table.words
    bounds = zip(tokens.offsets, tokens.offsets[1:], strict=False)
    return [[names[code] for code in tokens.codes[first:last].tolist()] for first, last in bounds]


def test_punctuation_is_datatroves() -> None:
    assert PUNCTUATION == PUNCTUATION_SET
    assert TERMINAL == TERMINAL_PUNCTUATION
    assert set(CCNET_PUNCTUATION) == PUNCTUATION_2024_04


@settings(deadline=None)
@given(st.lists(PIECES.map("".join) | st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_spacy_words_are_datatroves(texts: list[str]) -> None:
    tokenizer = load_word_tokenizer("eng")
    assert encoded_words(Vocabulary(spacy_english()), texts) == [tokenizer.word_tokenize(text) for text in texts]


def test_special_cases_that_reach_over_a_blank_are_split_in_context() -> None:
    rng = random.Random(1)
    texts = ["".join(rng.choice(EMOTICONS) + rng.choice(BLANKS) for _ in range(12)) for _ in range(3000)]
    vocabulary, tokenizer = Vocabulary(spacy_english()), load_word_tokenizer("eng")
    found = encoded_words(vocabulary, texts)
    assert found == [tokenizer.word_tokenize(text) for text in texts]
    local = [[word for chunk in text.split() for word in tokenizer.word_tokenize(chunk)] for text in texts]
    assert found != local, "the texts must meet the case that this test is about"


@settings(deadline=None)
@given(st.lists(PIECES.map("".join), min_size=1, max_size=5))
def test_spacy_sentences_are_datatroves(lines: list[str]) -> None:
    assert spacy_english().sentences(lines) == [len(split_into_sentences(line)) for line in lines]


def test_a_long_run_of_punctuation_does_not_hang() -> None:
    begun = time.thread_time()
    words = spacy_english().words(["!" * 20_000])[0]
    assert time.thread_time() - begun < 20  # 56 s uncut on the machine where 500 take 0.04 s
    assert words == ["!"] * 20_000


@pytest.mark.skipif(not PUNKT_FOLDER.is_dir(), reason=f"needs the Punkt files in {PUNKT_FOLDER}")
def test_punkt_words_are_nltks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk
    from nltk.tokenize import sent_tokenize, word_tokenize

    shutil.copytree(PUNKT_FOLDER, tmp_path / "tokenizers" / "punkt_tab" / "english")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    texts = [
        "",
        "Dr. Smith can't come at 5 p.m. He \"sent\" a note (see p. 3)... Why? It's $5.00!",
        "日本語。",
        "a\n\nb",
    ]
    splitter = punkt_english()
    assert splitter.words(texts) == [word_tokenize(text) for text in texts]
    assert splitter.sentences(texts) == [len(sent_tokenize(text)) for text in texts]
    assert encoded_words(Vocabulary(splitter), texts) == splitter.words(texts)


def test_missing_punkt_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ResourceMissing, match="abbrev_types.txt"):
        punkt_english(tmp_path)


def test_unicode_words_keep_letters_marks_and_digits_together() -> None:
    assert unicode_words().words(["Cafe\u0301 don't 3.5 (x)"]) == [
        ["Cafe\u0301", "don", "'", "t", "3", ".", "5", "(", "x", ")"]
    ]


def test_every_named_splitter_resolves_to_its_name() -> None:
    for name in SPLITTERS:
        if name != "punkt_english" or PUNKT_FOLDER.is_dir():
            assert words_by_name(name).name == name
    with pytest.raises(RecipeError, match="spacy_english"):
        words_by_name("spacy")


def test_unicode_sentences_begin_after_a_terminal_mark() -> None:
    lines = ["", "one", "one. two", 'one.) "two', "one. ... !", "one.two", "一。二。"]
    assert unicode_words().sentences(lines) == [1, 1, 2, 2, 1, 2, 2]


@pytest.mark.parametrize("unit", ["!", "'s", "’s", "http://a.b/", "(", ":)", "a", "x'", "中。"])
def test_a_chunk_of_many_thousand_characters_takes_no_quadratic_time(unit: str) -> None:
    splitter = spacy_english()
    started = time.process_time()
    splitter.words([unit * (20_000 // len(unit))])
    assert time.process_time() - started < 8


@pytest.mark.skipif(not PUNKT_FOLDER.is_dir(), reason="the Punkt files are not here; `make resources` puts them there")
def test_a_dot_leader_takes_punkt_no_quadratic_time() -> None:
    splitter = punkt_english()
    started = time.process_time()
    splitter.words([" ." * 50_000])
    splitter.sentences([". " * 50_000])
    assert time.process_time() - started < 5
