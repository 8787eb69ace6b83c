"""datatrove's tokenizers by language: the same words, or what is missing said before a run."""

import importlib.util

import pytest
from datatrove.utils.text import split_into_sentences
from datatrove.utils.word_tokenizers import load_word_tokenizer

from filters.errors import RecipeError, ResourceMissing
from filters.tokens import Vocabulary
from pipelines.datatrove_words import datatrove_languages
from pipelines.words import spacy_english, words_by_name

TEXTS = {
    "fra_Latn": "L'homme n'est-ce pas qu'il a dit : « Oui » ? C'est 5 km/h.\n\nVoilà, M. Dupont.",
    "deu_Latn": "Die z.B. 3,5 km lange Straße… Wer's glaubt! „Ja“, sagte er.",
    "rus_Cyrl": "Он сказал: «Да». В 2010 г. было 5 км.",
    "arb_Arab": "قال: نعم، هذا صحيح. هل تعرف؟",
    "aak_Latn": "One two. Three-four, five!",
    "heb_Hebr": "שלום, עולם. מה שלומך?",
}


@pytest.mark.parametrize("language", TEXTS)
def test_words_and_sentences_are_datatroves(language: str) -> None:
    splitter = words_by_name(f"datatrove:{language}")
    texts = [TEXTS[language], "", "\n", TEXTS[language].replace(" ", "  ")]
    assert splitter.words(texts) == [load_word_tokenizer(language).word_tokenize(text) for text in texts]
    assert splitter.sentences(texts) == [len(split_into_sentences(text, language)) for text in texts]
    tokens = Vocabulary(splitter).encode(texts)
    assert [tokens.table.words[code] for code in tokens.codes.tolist()] == [
        word for words in splitter.words(texts) for word in words
    ]


def test_english_is_the_fast_splitter() -> None:
    assert words_by_name("datatrove:eng_Latn") is spacy_english()


def test_lone_surrogates_have_words() -> None:
    assert words_by_name("datatrove:fra_Latn").words(["a \ud800b"]) == [["a", "\ufffd", "b"]]


@pytest.mark.parametrize(
    ("language", "module", "package"),
    [
        ("tha_Thai", "pythainlp", "pythainlp"),
        ("kor_Hang", "kiwipiepy", "kiwipiepy"),
        ("jpn_Jpan", "sudachipy", "SudachiPy"),
        ("cmn_Hani", "jieba", "jieba"),
        ("hin_Deva", "indicnlp", "indic-nlp-library"),
        ("cym_Latn", "stanza", "stanza"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_the_extra(language: str, module: str, package: str) -> None:
    if importlib.util.find_spec(module):
        pytest.skip(f"{module} is installed")
    with pytest.raises(ResourceMissing, match=rf"{package}.*datatrove\[multilingual\]"):
        words_by_name(f"datatrove:{language}")


def test_a_language_without_tokenizer_is_refused_with_those_near() -> None:
    with pytest.raises(RecipeError, match="fra_Latn"):
        words_by_name("datatrove:fra")
    with pytest.raises(RecipeError, match="LANG_Script"):
        words_by_name("datatrove:../x")


def test_languages_are_named_by_code_and_script() -> None:
    languages = datatrove_languages()
    assert {"eng_Latn", "fra_Latn", "rus_Cyrl"} <= set(languages)
    assert len(languages) > 1500


def test_a_long_run_of_punctuation_takes_no_quadratic_time() -> None:
    assert words_by_name("datatrove:fra_Latn").words(["!" * 5000]) == [["!"] * 5000]
