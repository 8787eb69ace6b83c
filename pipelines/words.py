"""The word splitters that recipes name, as values for `filters.tokens.Vocabulary`; a model loads at first use."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filters.errors import RecipeError, ResourceMissing
from filters.punctuation import TERMINAL
from filters.tokens import WordSplitter

if TYPE_CHECKING:
    from spacy.language import Language

PUNKT_FOLDER = Path(__file__).parent / "resources" / "punkt_tab"
PUNKT_FILES = ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt")

BETWEEN_CHUNKS = "\n\n"  # spaCy makes it a token of its own, so no match reaches from one chunk into the next
CHUNKS_AT_ONCE = 5000  # some 50 kB of text: large enough to hide the cost of a call, small enough for memory zones
# spaCy strips affixes one by one and searches the rest of the chunk each time: 16,000 "!" take 36 s, 500 take 0.04 s.
LONGEST_EDGE = 500
# "'s" is stripped likewise: 2,000 of them take 2.3 s. URLs without a blank between them take 0.04 s at 4,000 characters
# and grow with the square.
POSSESSIVES = re.compile(r"(?:['’][sS]){250,}$")
LONGEST_CHUNK = 10_000
LONG_CHUNK = re.compile(rf"\S{{{LONGEST_EDGE},}}")


@cache
def spacy_english() -> WordSplitter:
    """datatrove 0.10's English splitter: spaCy's blank "en" with its sentencizer.

    Equal to it on every text, except in a chunk that begins or ends with 500 characters of punctuation, ends with 250
    possessives, or is longer than 10,000 characters: such a chunk is cut in pieces, because spaCy's time grows with the
    square of it.
    """
    import spacy

    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    unsteady, joined = special_case_borders(nlp)
    return WordSplitter(
        name="spacy_english",
        words=lambda texts: spacy_words(nlp, texts),
        sentences=lambda lines: spacy_sentences(nlp, lines),
        chunk_local=True,
        sentence_ends=frozenset(nlp.get_pipe("sentencizer").punct_chars),  # type: ignore[attr-defined]
        unsteady=unsteady,
        joined=joined,
    )


def spacy_words(nlp: Language, texts: Sequence[str]) -> list[list[str]]:
    """The words of each text. What spaCy keeps for them is freed again."""
    words: list[list[str]] = []
    for first in range(0, len(texts), CHUNKS_AT_ONCE):
        some = [manageable(text) for text in texts[first : first + CHUNKS_AT_ONCE]]
        together = BETWEEN_CHUNKS.join(some)
        with nlp.memory_zone():
            if together.split() == some:
                words += split_between(token.text for token in nlp.tokenizer(together))
            else:
                words += [[word for token in nlp.tokenizer(text) if (word := token.text.strip())] for text in some]
    return words


def split_between(tokens: Iterable[str]) -> Iterator[list[str]]:
    """Cut the tokens of chunks joined by BETWEEN_CHUNKS back into one list per chunk."""
    words: list[str] = []
    for token in tokens:
        if token == BETWEEN_CHUNKS:
            yield words
            words = []
        else:
            words.append(token)
    yield words


def manageable(text: str) -> str:
    """The text with blanks inside chunks that spaCy would take quadratic time for."""
    return LONG_CHUNK.sub(lambda found: cut_chunk(found[0]), text) if len(text) >= LONGEST_EDGE else text


def cut_chunk(chunk: str) -> str:
    """The chunk, in blank-separated pieces if spaCy's time would grow with its square."""
    edges = chunk[:LONGEST_EDGE], chunk[-LONGEST_EDGE:]
    if not all(any(map(str.isalnum, edge)) for edge in edges) or POSSESSIVES.search(edges[1]):
        size = LONGEST_EDGE
    elif len(chunk) > LONGEST_CHUNK:
        size = LONGEST_CHUNK
    else:
        return chunk
    return " ".join(chunk[at : at + size] for at in range(0, len(chunk), size))


def spacy_sentences(nlp: Language, lines: Sequence[str]) -> list[int]:
    """Sentences of each line; a line without any token counts as one, as datatrove's split_into_sentences counts it."""
    counts: list[int] = []
    for line in lines:
        text = manageable(line)
        nlp.max_length = max(nlp.max_length, len(text) + 1)
        with nlp.memory_zone():
            counts.append(max(1, sum(1 for _ in nlp(text).sents)))
    return counts


def special_case_borders(
    nlp: Language,
) -> tuple[Callable[[str, Sequence[str]], bool], Callable[[str, str], bool]]:
    """Return (unsteady, joined) for spaCy's special cases.

    spaCy looks for special cases (":((", "a.m.") in the tokens of the whole text, and of two overlapping matches only
    the longer counts, even if it then turns out to contain white space: "x:( (" gives ":", "(", "(" where "x:(" alone
    gives ":(". So a chunk that such a match has changed may depend on a neighbour that continues the match.
    """
    full: Any = nlp.tokenizer
    plain = type(full)(
        nlp.vocab,
        prefix_search=full.prefix_search,
        suffix_search=full.suffix_search,
        infix_finditer=full.infix_finditer,
        token_match=full.token_match,
        url_match=full.url_match,
    )
    changed: dict[str, list[list[str]]] = {}
    borders: set[tuple[str, str]] = set()
    for case in full.rules or {}:
        before, after = [token.text for token in plain(case)], [token.text for token in full(case)]
        borders |= {(left[-1], right[0]) for left, right in pairwise(before)}
        if before != after:
            changed.setdefault(after[0], []).append(after)
    firsts = frozenset(changed)

    def unsteady(chunk: str, words: Sequence[str]) -> bool:
        if firsts.isdisjoint(words):
            return False
        candidates = ((at, case) for at, word in enumerate(words) for case in changed.get(word, ()))
        return any(list(words[at : at + len(case)]) == case and "".join(case) != chunk for at, case in candidates)

    return unsteady, lambda left, right: (left[-1], right[0]) in borders


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


SPLITTERS = ("spacy_english", "punkt_english", "unicode_words")


def words_by_name(name: str) -> WordSplitter:
    """Return the splitter of this name.

    Raises RecipeError for a name not in SPLITTERS, and ResourceMissing where its model is absent.
    """
    makers: dict[str, Callable[[], WordSplitter]] = {
        "spacy_english": spacy_english,
        "punkt_english": punkt_english,
        "unicode_words": unicode_words,
    }
    if name not in makers:
        raise RecipeError(f"There is no word splitter {name!r}; there are {', '.join(SPLITTERS)}.")
    return makers[name]()
