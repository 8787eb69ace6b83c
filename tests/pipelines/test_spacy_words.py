"""The words of `spacy_words` are spaCy's own, chunk by chunk and in whole texts."""

import gzip
import json
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice, product
from pathlib import Path

import pytest
import spacy
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.language import Language

from pipelines import spacy_words
from pipelines.read import ReadOptions, read_slice
from pipelines.record import Page, Slice
from pipelines.sources import find_sources
from pipelines.spacy_english import spacy_english
from pipelines.spacy_english import spacy_words as words_of_spacy
from pipelines.spacy_words import LONGEST_CHUNK, EnglishWords, english_words

DATA = Path(__file__).parents[3] / "shared" / "data"
CORPORA = ("english_novels_100", "gov_blog_18f", "openstax_textbooks", "reuters21578", "spamassassin_mail")
LONGEST_EDGE = 500  # spaCy itself takes quadratic time for longer chunks

PIECES = [
    *":;=-_()[]{}<>/\\|.,!?*&#%+~^$£€'\"`“”‘’´«»…—–°§@3570aAoODUxsSTmkwd",
    *["..", "...", "……", "--", "---", "'s", "’S", "n't", "'ll", "n’t", "US$", "C$", "A$", "km", "km²", "m/s", "°C."],
    *["a.m.", "p.m.", "Dr.", "e.g.", "i.e.", "U.S.", "and/or", "w/o", ":((", ":-)", "(^_^)", "</3", "o.O", "10a.m."],
    *["http://", "www.", "example.com", ".org/a?b=c", "me@host.net", ":8080", "192.168.0.1", "//", "user:pw@"],
    *["word", "Word", "WORD", "naïve", "Ünder", "слово", "КМ", "км", "語", "。", "كم", "नमस्ते", "kg", "\x00", "\u0301"],
    *["😀", "👩\u200d👩\u200d👧", "©", "①", "½"],
]
AFFIXES = [*PIECES, "can't", "x", "'em", "(x", "x)", "5", "-", "((", "))", '."', ".)", "),", "?!", "’s."]


@cache
def nlp() -> Language:
    made = spacy.blank("en")
    made.max_length = 10**8
    return made


@cache
def english() -> EnglishWords:
    found = english_words(nlp())
    assert found is not None, "the patterns of the installed spaCy are not the known ones"
    return found


def differing(chunks: Iterable[str]) -> list[tuple[str, list[str], list[str]]]:
    """Chunks, with our words and spaCy's, where these are not the same."""
    stream = iter(chunks)
    found = []
    while some := list(islice(stream, 5000)):
        ours, theirs = map(english().words, some), words_of_spacy(nlp(), some)
        found += [three for three in zip(some, ours, theirs, strict=True) if three[1] != three[2]]
    return found


def corpus_texts(name: str) -> Iterator[str]:
    with gzip.open(DATA / "corpora" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def pages() -> Iterator[str]:
    """The texts of the crawl's pages, and the source of every tenth."""
    from resiliparse.extract.html2text import extract_plain_text

    for source in find_sources([str(DATA / "crawl" / "*.warc.gz")]):
        for event in read_slice(Slice(source=source, start=0, end=source.size), ReadOptions()):
            if isinstance(event, Page):
                yield extract_plain_text(event.text)
                if xxhash.xxh64_intdigest(event.record_id.encode()) % 10 == 0:
                    yield event.text


def sentences() -> Iterator[str]:
    with gzip.open(DATA / "langid" / "sentences.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            yield " ".join(value for value in json.loads(line).values() if isinstance(value, str))


def distinct(texts: Iterable[str]) -> dict[str, None]:
    """The distinct chunks of the texts for which spaCy takes no quadratic time."""
    return dict.fromkeys(chunk for text in texts for chunk in text.split() if len(chunk) < LONGEST_EDGE)


def encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"needs {DATA}")
@pytest.mark.parametrize("name", CORPORA)
def test_words_of_a_corpus_are_spacys(name: str) -> None:
    chunks = distinct(islice(corpus_texts(name), 200))
    assert differing(islice(chunks, 4000)) == []


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not DATA.is_dir(), reason=f"needs {DATA}")
def test_words_of_all_real_texts_are_spacys() -> None:
    texts = chain(*map(corpus_texts, CORPORA), sentences(), pages())
    chunks = list(filter(encodable, distinct(texts)))
    assert len(chunks) > 500_000
    assert differing(chunks) == []


@settings(deadline=None, max_examples=400)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=7).map("".join), min_size=1, max_size=20))
def test_words_of_made_up_chunks_are_spacys(chunks: list[str]) -> None:
    assert differing(filter(None, chunks)) == []


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from([*PIECES, " ", " ", "  ", "\n", "\t", "\xa0", " \n"]), max_size=40).map("".join))
def test_words_of_made_up_texts_are_spacys(text: str) -> None:
    theirs = [word for token in nlp().tokenizer(text) if (word := token.text.strip())]
    assert english().words(text) == theirs


def with_affixes(cases: Iterable[str], affixes: Sequence[str]) -> Iterator[str]:
    for case in cases:
        yield case
        for affix in affixes:
            yield from (affix + case, case + affix, f"({case}{affix}", f"{affix}{case}.", case + affix + case)


def special_cases() -> list[str]:
    return [case for case in nlp().tokenizer.rules or {} if not case.isspace()]


def test_words_of_special_cases_with_affixes_are_spacys() -> None:
    # Every case with a few of the affixes, others for the next one.
    cases = special_cases()
    assert len(cases) > 1300
    few = (with_affixes([case], AFFIXES[at % 23 :: 23]) for at, case in enumerate(cases))
    assert differing(chain.from_iterable(few)) == []


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_words_of_every_special_case_with_every_affix_are_spacys() -> None:
    assert differing(with_affixes(special_cases(), AFFIXES)) == []


def test_no_pattern_matches_letters_and_digits_alone() -> None:
    """What the shortcuts for chunks of letters rest on."""
    tokenizer = nlp().tokenizer
    alone = [chr(point) for point in range(sys.maxunicode + 1) if chr(point).isalnum()]
    assert [one for one in alone if tokenizer.prefix_search(one) or tokenizer.suffix_search(f"a{one}")] == []
    assert [one for one in alone if next(iter(tokenizer.infix_finditer(f"a{one}a")), None)] == []


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_words_with_every_character_at_every_place_are_spacys() -> None:
    characters = [
        chr(point)
        for point in range(sys.maxunicode + 1)
        if unicodedata.category(chr(point)) not in ("Cn", "Co", "Cs") and not chr(point).isspace()
    ]
    shapes = ("{}", "a{}", "{}a", "5{}", "a{}b", "5{}x", "{}.", "AB{}", "a.{}")
    assert differing(shape.format(one) for one, shape in product(characters, shapes)) == []


def test_lone_surrogates_are_kept() -> None:
    assert english().words("(\ud800b, \udc00. a\ud800") == ["(", "\ud800b", ",", "\udc00.", "a\ud800"]


def test_a_chunk_too_long_for_the_patterns_is_cut() -> None:
    words = english().words("a" * LONGEST_CHUNK + "-b")
    assert words == ["a" * LONGEST_CHUNK, "-b"]


def test_a_chunk_is_said_to_be_changed_where_a_special_case_was_put_together() -> None:
    assert english().changed("x:((")
    assert not english().changed("John's")
    assert not english().changed(":((")  # one special case from the start


def test_with_patterns_not_known_the_words_come_from_spacy_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spacy_words, "PATTERNS", 0)
    assert english_words(nlp()) is None
    chunks = ["x:((", "Dr.", "e.g.,", "(a-b)", "http://a.org/b-c"]
    assert spacy_english.__wrapped__().words(chunks) == [english().words(chunk) for chunk in chunks]
