"""spaCy's English tokenizer without spaCy's objects: the words of a text as strings, the same ones, ten times as fast.

spaCy makes a lexeme of every word it meets, and searches every chunk with patterns of a hundred alternatives. Here the
same steps (`spacy/tokenizer.pyx`: special cases, affixes, URLs, infixes, then special cases again over the words found)
run over tables that are read from the rules and patterns of an `nlp`. That the tables say what the patterns say is
known of the patterns of spaCy 3.8, which `PATTERNS` names; there are no tables of others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import xxhash

from filters.tokens import SPACE, spaced

if TYPE_CHECKING:
    from spacy.language import Language

PATTERNS = 0x21B43E036EE8E5B5
"""xxh64 of spaCy 3.8's English patterns for prefixes, suffixes, infixes and URLs, one a line."""

USER = r"(?:\S+(?::\S*)?@)?"  # of the URL pattern: matches nothing in a text without "@", in quadratic time
LONGEST_CHUNK = 10_000  # characters; with an "@" the URL pattern takes quadratic time, 0.04 s for 4,000
LONG_CHUNK = re.compile(rf"\S{{{LONGEST_CHUNK + 1},}}")

DIGITS = frozenset("0123456789")
QUOTES = frozenset("'’")
HYPHEN = re.compile("(-)")
HYPHENATED = re.compile("[A-Za-z]+(?:-[A-Za-z]+)+").fullmatch
LOOK = 2
"""In a table of lengths: how much is an affix depends on more than its outermost character."""


class Lengths(dict[str, int]):
    """By outermost character: the length of the affix, 0, 1 or LOOK. `alone(character)`: it is an affix by itself."""

    def __init__(self, alone: Callable[[str], object], look: Iterable[str]) -> None:
        super().__init__(dict.fromkeys(look, LOOK))
        self._alone = alone

    def __missing__(self, character: str) -> int:
        length = self[character] = 1 if self._alone(character) else 0
        return length


@dataclass(frozen=True, kw_only=True, eq=False)
class Tables:
    """What the steps need of a tokenizer's rules and patterns.

    cases: the words of each special case; none is longer than `longest` characters.
    measures: by their last character, the currencies and units that are a suffix right after a digit.
    stops: whether the full stop that ends a text is a suffix, by the two characters before it.
    splits: whether a text has a character that an infix may have.
    """

    cases: Mapping[str, Sequence[str]]
    longest: int
    prefixes: Lengths
    suffixes: Lengths
    measures: Mapping[str, Sequence[str]]
    stops: Callable[[str], object]
    splits: Callable[[str], object]
    infixes: Callable[[str], Iterable[re.Match[str]]]
    url: Callable[[str], object]
    url_without_user: Callable[[str], object]


def tables(nlp: Language) -> Tables | None:
    """Return the tables of a blank English `nlp`; None where its patterns are not the known ones."""
    from spacy.lang.char_classes import CONCAT_ICONS, LIST_CURRENCY, LIST_UNITS
    from spacy.symbols import ORTH  # type: ignore[import-not-found]

    full: Any = nlp.tokenizer
    prefix, suffix, infix, url = (
        search.__self__ for search in (full.prefix_search, full.suffix_search, full.infix_finditer, full.url_match)
    )
    patterns = "\n".join(search.pattern for search in (prefix, suffix, infix, url))
    if xxhash.xxh64_intdigest(patterns.encode()) != PATTERNS or full.token_match is not None:
        return None
    measures: dict[str, list[str]] = {}
    for measure in dict.fromkeys(["+", *LIST_CURRENCY, *LIST_UNITS]):
        unescaped = measure.replace("\\", "")
        measures.setdefault(unescaped[-1], []).append(unescaped)
    cases = {case: [word[ORTH] for word in words] for case, words in full.rules.items() if not case.isspace()}
    return Tables(
        cases=cases,
        longest=max(map(len, cases)),
        prefixes=Lengths(prefix.match, look="+.UCA"),
        suffixes=Lengths(suffix.search, look=[*".…sS", *measures]),
        measures=measures,
        stops=re.compile(
            "|".join(f"{one}$" for one in map(str, nlp.Defaults.suffixes or ()) if one.endswith(r"\."))
        ).search,
        splits=re.compile(rf"[-.…+*^,–—~:<>=/{CONCAT_ICONS}]").search,
        infixes=infix.finditer,
        url=url.match,
        url_without_user=re.compile(url.pattern.replace(USER, "")).match,
    )


def prefix_length(chunk: str) -> int:
    """The length of the prefix of a chunk that begins with a character to LOOK behind."""
    if chunk[0] == "+":  # \+(?![0-9])
        return 0 if chunk[1:2] in DIGITS else 1
    if chunk[0] == ".":  # \.\.+
        dots = len(chunk) - len(chunk.lstrip("."))
        return dots if dots > 1 else 0
    return next((len(sign) for sign in ("US$", "C$", "A$") if chunk.startswith(sign)), 0)


def suffix_length(of: Tables, chunk: str) -> int:
    """The length of the suffix of a chunk that ends with a character to LOOK before.

    Where several alternatives match, spaCy's search takes the one that begins first.
    """
    end, before = chunk[-1], chunk[-2:-1]
    if end == ".":
        if before == ".":  # \.\.+
            return len(chunk) - len(chunk.rstrip("."))
        return 1 if "a" <= before <= "z" or of.stops(chunk[-3:]) else 0
    if end == "…":  # …… or …
        return 2 if before == "…" else 1
    if end in "sS" and before in QUOTES:
        return 2
    for measure in of.measures.get(end, ()):
        if chunk.endswith(measure) and chunk[-len(measure) - 1 : -len(measure)] in DIGITS:
            return len(measure)
    return 0


def chunk_words(of: Tables, cases: Mapping[str, Sequence[str]]) -> Callable[[str], list[str]]:
    """Return a function for the words of a chunk, given the special cases that are looked for on the way.

    Affixes are taken off both ends, one by one, until what is left is a special case or has none.
    """
    longest, prefixes, suffixes = of.longest, of.prefixes, of.suffixes

    def words(chunk: str) -> list[str]:
        before: list[str] = []
        after: list[str] = []
        while chunk and not chunk.isalpha():  # letters alone have no affix
            if len(chunk) <= longest and chunk in cases:
                break
            lead = prefixes[chunk[0]]
            if lead == LOOK:
                lead = prefix_length(chunk)
            inner = chunk[lead:] if lead else chunk
            if lead and len(inner) <= longest and inner in cases:
                before.append(chunk[:lead])
                chunk = inner
                break
            tail = suffixes[inner[-1]] if inner else 0
            if tail == LOOK:
                tail = suffix_length(of, inner)
            if tail and len(chunk) - tail <= longest and chunk[:-tail] in cases:
                after.append(chunk[-tail:])
                chunk = chunk[:-tail]
                break
            if lead:
                before.append(chunk[:lead])
            if tail:
                after.append(inner[-tail:])
                inner = inner[:-tail]
            elif not lead:
                break
            chunk = inner
        return [*before, *core_words(of, cases, chunk), *reversed(after)]

    return words


def core_words(of: Tables, cases: Mapping[str, Sequence[str]], core: str) -> Sequence[str]:
    """The words of what is left of a chunk without its affixes: a special case, a URL, or what infixes leave."""
    if core in cases:
        return cases[core]
    if core.isalnum():  # no alternative for an infix matches a letter or a digit
        return (core,)
    if HYPHENATED(core):  # letters around a hyphen make it an infix, and nothing with a hyphen alone is a URL
        return HYPHEN.split(core)
    if not of.splits(core):
        return (core,) if core else ()
    words: list[str] = []
    at = 0
    for infix in of.infixes(core):
        start, end = infix.span()
        if start == 0:
            continue
        if at < start:
            words.append(core[at:start])
        if start < end:
            words.append(core[start:end])
        at = end
    if at < len(core):
        words.append(core[at:])
    # A URL has a full stop. It is one word; where there are no infixes, everything is.
    if len(words) > 1 and "." in core and (of.url if "@" in core else of.url_without_user)(core):
        return (core,)
    return words


Phrases = Mapping[tuple[str, str], Sequence[tuple[list[str], str]]]
"""The special cases as they are cut without special cases, with what they are, by their first two words."""


def phrases(nlp: Language, of: Tables) -> Phrases | None:
    """The special cases that are looked for among the words of a text; None where one would cut a single word.

    spaCy looks for those that an affix or infix pattern matches. A single word that stays one changes nothing.
    """
    full: Any = nlp.tokenizer
    plain = chunk_words(of, {})
    found: dict[tuple[str, str], list[tuple[list[str], str]]] = {}
    for case in of.cases:
        if full.find_prefix(case) or full.find_suffix(case) or full.find_infix(case):
            words = plain(case)
            if words == of.cases[case] == [case]:
                continue
            if len(words) < 2:
                return None
            found.setdefault((words[0], words[1]), []).append((words, case))
    return found


def recased(words: list[str], of: Tables, cases: Phrases, blanks: frozenset[int] = frozenset()) -> list[str]:
    """The words with special cases among them put together, or cut, as they are listed.

    blanks: the words with white space before them. A match over a blank is no special case, but of matches that overlap
    only the longest counts, then the first; one that does not count keeps what it covers from others all the same.
    """
    if cases.keys().isdisjoint(pairwise(words)):
        return words
    spans = [
        (len(phrase), -at, case)
        for at, pair in enumerate(pairwise(words))
        for phrase, case in cases.get(pair, ())
        if words[at : at + len(phrase)] == phrase
    ]
    seen: set[int] = set()
    chosen: dict[int, tuple[int, str]] = {}
    for length, back, case in sorted(spans, key=lambda span: span[:2], reverse=True):
        inside = range(-back, length - back)
        if inside[0] not in seen and inside[-1] not in seen:
            chosen[inside[0]] = (length, case)
        seen.update(inside)
    result: list[str] = []
    at = 0
    for start, (length, case) in sorted(chosen.items()):
        result += words[at:start]
        at = start + length
        result += words[start:at] if blanks.intersection(range(start + 1, at)) else of.cases[case]
    return [*result, *words[at:]]


@dataclass(frozen=True, kw_only=True, eq=False)
class EnglishWords:
    """words: those of a text, in order, white space apart. changed: a special case changed the words of this chunk."""

    words: Callable[[str], list[str]]
    changed: Callable[[str], bool]


def english_words(nlp: Language) -> EnglishWords | None:
    """Return the words of `nlp.tokenizer`; None where its patterns are not the known ones.

    They are the same except in a chunk of more than 10,000 characters, which is cut in pieces of that length.
    """
    of = tables(nlp)
    cases = phrases(nlp, of) if of else None
    if of is None or cases is None:
        return None
    split, special, suffixes, pairs = chunk_words(of, of.cases), of.cases, of.suffixes, cases.keys()

    def words(text: str) -> list[str]:
        core = text[:-1]
        if core.isalpha() and text not in special and core not in special:
            mark = text[-1]
            if mark.isalpha():  # no alternative matches letters alone
                return [text]
            if (suffixes[mark] == 1 or (mark == "." and "a" <= core[-1] <= "z")) and (core, mark) not in pairs:
                return [core, mark]
        chunks = text.split()
        if len(chunks) == 1 and len(text) == len(chunks[0]) <= LONGEST_CHUNK:
            return recased(split(text), of, cases)
        if len(text) > LONGEST_CHUNK:
            text = LONG_CHUNK.sub(lambda found: " ".join(pieces(found[0])), text)
        found: list[str] = []
        blanks: set[int] = set()
        for chunk in spaced(text):
            blanks.add(len(found))
            found += [SPACE] if chunk == SPACE else split(chunk)
        return [word for word in recased(found, of, cases, frozenset(blanks)) if word != SPACE]

    def changed(chunk: str) -> bool:
        found = split(chunk)
        return recased(found, of, cases) != found

    return EnglishWords(words=words, changed=changed)


def pieces(chunk: str) -> list[str]:
    """The chunk in pieces of LONGEST_CHUNK characters."""
    return [chunk[at : at + LONGEST_CHUNK] for at in range(0, len(chunk), LONGEST_CHUNK)]
