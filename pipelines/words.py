"""The word splitters that recipes name, as values for `filters.tokens.Vocabulary`; a model loads at first use."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import distributions, requires
from pathlib import Path

from filters.bigscience_words import BIGSCIENCE
from filters.errors import RecipeError, ResourceMissing
from filters.punctuation import TERMINAL
from filters.splitter import WordSplitter
from filters.splitters_redpajama import NORMALISED_WORDS
from filters.splitters_words import UAX29, UAX29_FIRST, WHITESPACE
from pipelines.datatrove_words import PREFIX, datatrove_words
from pipelines.spacy_english import spacy_english

PUNKT_FOLDER = Path(__file__).parent / "resources" / "punkt_tab"
PUNKT_FILES = ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt")


@cache
def punkt_english(folder: Path = PUNKT_FOLDER) -> WordSplitter:
    """NLTK's `word_tokenize` and `sent_tokenize` for English, as in April 2024, with the Punkt files in `folder`.

    Raises ResourceMissing where a file is absent.
    """
    missing = [name for name in PUNKT_FILES if not (folder / name).is_file()]
    if missing:
        raise ResourceMissing(f"{folder} lacks {', '.join(missing)}. In a checkout `make resources` puts them there.")
    from nltk.tabdata import PunktDecoder
    from nltk.tokenize.destructive import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    # NLTK's own loader wants a folder below its data path; the format is plain text.
    abbreviations, collocations, contexts, starters = ((folder / name).read_text("utf-8") for name in PUNKT_FILES)
    decoder, parameters = PunktDecoder(), PunktParameters()
    parameters.abbrev_types = decoder.txt2set(io.StringIO(abbreviations))
    parameters.collocations = set(decoder.tab2tups(io.StringIO(collocations)))
    parameters.ortho_context = decoder.tab2intdict(io.StringIO(contexts))
    parameters.sent_starters = decoder.txt2set(io.StringIO(starters))
    sentences = PunktSentenceTokenizer(parameters)
    words = NLTKWordTokenizer()
    return WordSplitter(
        name="punkt_english",
        words=lambda texts: [
            [word for sentence in sentences.tokenize(undotted(text)) for word in words.tokenize(sentence)]
            for text in texts
        ],
        sentences=lambda lines: [len(sentences.tokenize(undotted(line))) for line in lines],
        chunk_local=False,
    )


# Punkt looks back over every dot of a dot leader from each of its dots: 6,000 of " ." take 1.3 s.
DOT_LEADER = re.compile(r"(?:[ \t]?\.){100,}")


def undotted(text: str) -> str:
    """The text with every run of 100 dots or more, blanks between them or not, cut to 200 characters."""
    return DOT_LEADER.sub(lambda run: run[0][:200], text)


@cache
def unicode_words() -> WordSplitter:
    """Runs of letters, marks and digits, and every other character alone; needs nothing but the Unicode tables."""
    return WordSplitter(
        name="unicode_words",
        words=lambda texts: [list(unicode_runs(text)) for text in texts],
        sentences=lambda lines: [unicode_sentences(line) for line in lines],
        chunk_local=True,
    )


def unicode_runs(text: str) -> Iterator[str]:
    """The words of a text, in order."""
    start = 0
    for at, character in enumerate(text):
        if not (character.isalnum() or unicodedata.category(character).startswith("M")):
            if start < at:
                yield text[start:at]
            if not character.isspace():
                yield character
            start = at + 1
    if start < len(text):
        yield text[start:]


def unicode_sentences(line: str) -> int:
    """Sentences of a line: one, and one more for each word after a terminal mark that is no punctuation."""
    count, ended = 1, False
    for word in unicode_runs(line):
        if word in TERMINAL:
            ended = True
        elif ended and not all(unicodedata.category(character).startswith("P") for character in word):
            count, ended = count + 1, False
    return count


BY_CHUNK: tuple[WordSplitter, ...] = (WHITESPACE, UAX29, UAX29_FIRST, BIGSCIENCE, NORMALISED_WORDS)
"""Splitters of `filters` that need nothing but themselves; families name them where their paper fixes the words."""
MAKERS: dict[str, Callable[[], WordSplitter]] = {
    "spacy_english": spacy_english,
    "punkt_english": punkt_english,
    "unicode_words": unicode_words,
}
SPLITTERS = (*MAKERS, *(splitter.name for splitter in BY_CHUNK))


def word_packages(name: str) -> set[str]:
    """The distributions whose release bears on the words of this splitter.

    Of datatrove's tokenizers that of a language takes some packages of the extra `multilingual`: all of those that are
    installed are named.
    """
    if not name.startswith(PREFIX):
        return {"spacy_english": {"spacy"}, "punkt_english": {"nltk"}}.get(name, set())
    listed = [line for line in requires("datatrove") or [] if "multilingual" in line.partition(";")[2]]
    extra = {re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in listed}
    return {"datatrove", "spacy"} | {one for one in extra if any(distributions(name=one))}


def words_by_name(name: str) -> WordSplitter:
    """Return the splitter of this name: one of SPLITTERS, or `datatrove:LANG_Script`.

    Raises RecipeError for another name, and ResourceMissing where its model or a package is absent.
    """
    if name in MAKERS:
        return MAKERS[name]()
    if name.startswith(PREFIX):
        return datatrove_words(name.removeprefix(PREFIX))
    for splitter in BY_CHUNK:
        if splitter.name == name:
            return splitter
    raise RecipeError(f"There is no word splitter {name!r}; there are {', '.join(SPLITTERS)} and {PREFIX}LANG_Script.")
