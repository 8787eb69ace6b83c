"""datatrove 0.10's English splitter, spaCy's blank "en" with its sentencizer, as a value; it loads at first use.

Words come from `spacy_words`, which has no need of spaCy's objects; where spaCy's patterns are not those that it knows,
they come from spaCy itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from filters.splitter import WordSplitter
from pipelines.spacy_words import LONGEST_CHUNK, english_words

if TYPE_CHECKING:
    from spacy.language import Language

BETWEEN_CHUNKS = "\n\n"  # spaCy makes it a token of its own, so no match reaches from one chunk into the next
CHUNKS_AT_ONCE = 5000  # some 50 kB of text: large enough to hide the cost of a call, small enough for memory zones
# spaCy strips affixes one by one and searches the rest of the chunk each time: 16,000 "!" take 36 s, 500 take 0.04 s.
LONGEST_EDGE = 500
# "'s" is stripped likewise: 2,000 of them take 2.3 s. URLs without a blank between them take 0.04 s at 4,000 characters
# and grow with the square.
POSSESSIVES = re.compile(r"(?:['’][sS]){250,}$")
LONG_CHUNK = re.compile(rf"\S{{{LONGEST_EDGE},}}")


@cache
def spacy_english() -> WordSplitter:
    """datatrove 0.10's English splitter: spaCy's blank "en" with its sentencizer.

    Its words are spaCy's in every text, except in a chunk of more than 10,000 characters, which is cut in pieces
    because the time of spaCy's patterns grows with the square of it.
    """
    import spacy

    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    unsteady, joined = special_case_borders(nlp)
    english = english_words(nlp)
    if english is None:
        words = partial(spacy_words, nlp)
    else:
        words = partial(each, english.words)
        unsteady = partial(changed, unsteady, english.changed)
    return WordSplitter(
        name="spacy_english",
        words=words,
        sentences=partial(spacy_sentences, nlp),
        chunk_local=True,
        sentence_ends=frozenset(nlp.get_pipe("sentencizer").punct_chars),  # type: ignore[attr-defined]
        unsteady=unsteady,
        joined=joined,
    )


def each(words: Callable[[str], list[str]], texts: Sequence[str]) -> list[list[str]]:
    """The words of each text."""
    return list(map(words, texts))


def changed(
    unsteady: Callable[[str, Sequence[str]], bool], really: Callable[[str], bool], chunk: str, words: Sequence[str]
) -> bool:
    """Whether a special case that spans several words changed this chunk: `unsteady` errs on the safe side."""
    return unsteady(chunk, words) and really(chunk)


def spacy_words(nlp: Language, texts: Sequence[str]) -> list[list[str]]:
    """The words that spaCy itself makes of each text, after `manageable`. What it keeps for them is freed."""
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
        if len(words) < 2 or firsts.isdisjoint(words):
            return False
        candidates = ((at, case) for at, word in enumerate(words) for case in changed.get(word, ()))
        return any(list(words[at : at + len(case)]) == case and "".join(case) != chunk for at, case in candidates)

    return unsteady, lambda left, right: (left[-1], right[0]) in borders
