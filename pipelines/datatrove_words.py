"""datatrove's word tokenizers of other languages (its assets/tokenizer_assignment.csv), as splitters by name.

`datatrove:fra_Latn` is what datatrove's filters use with `language="fra_Latn"`: three letters of ISO 639-3 and four of
ISO 15924. English is `spacy_english`, which is equal and faster.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, TypeVar

from filters.errors import RecipeError, ResourceMissing
from filters.splitter import WordSplitter
from pipelines.spacy_english import manageable, spacy_english

PREFIX = "datatrove:"
LANGUAGE = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
ENGLISH = "eng_Latn"
UNSPACED = ("ja", "zh", "th")  # spaCy's codes of languages whose texts are long chunks, with segmenters of their own
SURROGATE = re.compile("[\ud800-\udfff]")

Found = TypeVar("Found")


def datatrove_languages() -> list[str]:
    """The languages that datatrove has a tokenizer for, as `LANG_Script`, sorted."""
    from datatrove.utils.word_tokenizers import load_tokenizer_assignments

    return sorted(filter(LANGUAGE.fullmatch, load_tokenizer_assignments()))


@cache
def datatrove_words(language: str) -> WordSplitter:
    """datatrove's splitter of this language (`LANG_Script`).

    A lone surrogate becomes U+FFFD; chunks for which spaCy takes quadratic time are cut in pieces, see `manageable`.
    Raises RecipeError for a language that datatrove has no tokenizer for, and ResourceMissing where a package is not
    installed.
    """
    from datatrove.utils.text import split_into_sentences

    tokenizer = loaded(language)
    if language == ENGLISH:
        return spacy_english()
    prepared = partial(within_reason, tokenizer)
    return WordSplitter(
        name=f"{PREFIX}{language}",
        words=partial(each, tokenizer.word_tokenize, prepared),
        sentences=partial(each, lambda line: len(split_into_sentences(line, language)), prepared),
        chunk_local=False,
    )


def loaded(language: str) -> Any:
    """datatrove's tokenizer of the language, with what it needs found; raises as `datatrove_words` does."""
    from datatrove.utils.word_tokenizers import SpaCyTokenizer, WhitespaceTokenizer, load_word_tokenizer

    known = datatrove_languages()
    if language not in known:
        near = (
            ", ".join(name for name in known if name[:3] == language[:3]) or "datatrove's list of them has the others"
        )
        raise RecipeError(f"datatrove has no word tokenizer for {language!r}, written LANG_Script; {near}.")
    try:
        tokenizer = load_word_tokenizer(language)
        if isinstance(tokenizer, SpaCyTokenizer | WhitespaceTokenizer):
            tokenizer.word_tokenize("a")  # spaCy finds out now, not in the middle of a run, what it lacks
    except ImportError as missing:
        raise ResourceMissing(
            f"The word splitter {PREFIX}{language} lacks a package: {missing} "
            "`pip install 'datatrove[multilingual]'` installs those of all languages."
        ) from missing
    return tokenizer


def within_reason(tokenizer: Any, text: str) -> str:
    """The text as the tokenizer is given it."""
    from datatrove.utils.word_tokenizers import SpaCyTokenizer, WhitespaceTokenizer

    if isinstance(tokenizer, SpaCyTokenizer | WhitespaceTokenizer) and tokenizer.language not in UNSPACED:
        text = manageable(text)
    return SURROGATE.sub("\ufffd", text)


def each(measured: Callable[[str], Found], prepared: Callable[[str], str], texts: Sequence[str]) -> list[Found]:
    """What is measured of each text."""
    return [measured(prepared(text)) for text in texts]
