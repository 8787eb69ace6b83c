"""Our rules decide as datatrove 0.10.1's filters: the same documents dropped, the same first reason and edited text."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import pytest
import xxhash
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter

from filters import c4, fineweb, gopher
from filters.batch import TextBatch
from filters.rule import Family, first_failing
from filters.tokens import Vocabulary
from pipelines.words import spacy_english, unicode_words

DATA = Path(__file__).parents[3] / "shared" / "data"
FAMILIES = (gopher.REPETITION, gopher.QUALITY, fineweb.QUALITY, c4.QUALITY)
CHAIN = (gopher.REPETITION, gopher.QUALITY, c4.QUALITY, fineweb.QUALITY)
CORPORA = ("english_novels_100", "gov_blog_18f", "openstax_textbooks", "reuters21578", "spamassassin_mail")
NOT_DECIDED = "datatrove raised"


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """First reason per family judged alone and of the chain (None: kept), and C4's text where C4 keeps the document."""

    alone: dict[str, str | None]
    chain: str | None
    edited: str | None


@cache
def oracle() -> dict[str, BaseFilter]:
    return {
        "gopher_repetition": GopherRepetitionFilter(),
        "gopher_quality": GopherQualityFilter(),
        "fineweb": FineWebQualityFilter(),
        "c4": C4QualityFilter(filter_no_terminal_punct=False),
    }


def theirs(name: str, document: Document) -> str | None:
    """Datatrove's reason, None where it keeps the document; `document` is edited in place."""
    try:
        said = oracle()[name].filter(document)
    except ZeroDivisionError:
        return NOT_DECIDED
    return None if said is True else said[1]


def expected(text: str) -> Verdicts:
    document = Document(text=text, id="")
    alone = {family.name: theirs(family.name, document) for family in FAMILIES}
    edited = document.text if alone["c4"] is None else None
    last = theirs("fineweb", Document(text=edited, id="")) if edited is not None else None
    reasons = (alone["gopher_repetition"], alone["gopher_quality"], alone["c4"], last)
    return Verdicts(alone=alone, chain=next((said for said in reasons if said), None), edited=edited)


def reasons(family: Family, batch: TextBatch) -> list[str | None]:
    first, _ = first_failing(family.measure(batch), family.rules, len(batch))
    return [None if index < 0 else family.rules[index].reason for index in first.tolist()]


def ours(texts: Sequence[str], vocabulary: Vocabulary) -> list[Verdicts]:
    batch = TextBatch(texts, vocabulary)
    edited = c4.LINES.apply(batch).texts
    alone = {family.name: reasons(family, batch) for family in FAMILIES}
    last = reasons(fineweb.QUALITY, TextBatch(edited, vocabulary))
    chained = zip(*(alone[family.name] for family in CHAIN[:3]), last, strict=True)
    return [
        Verdicts(
            alone={name: said[at] for name, said in alone.items()},
            chain=next((said for said in row if said), None),
            edited=edited[at] if alone["c4"][at] is None else None,
        )
        for at, row in enumerate(chained)
    ]


def crawled(paths: Sequence[Path]) -> Iterator[str]:
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text

    for path in paths:
        with path.open("rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response):
                html = record.reader.read().decode("utf-8", "replace")
                yield extract_plain_text(html, main_content=True)
                if xxhash.xxh32_intdigest(html.encode()) % 4 == 0:  # menus, tables and scripts' leftovers too
                    yield extract_plain_text(html)


def corpus(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def sources() -> dict[str, Iterator[str]]:
    if not DATA.is_dir():
        pytest.skip(f"needs the real documents in {DATA}")
    return {
        "crawl": crawled(sorted((DATA / "crawl").glob("part-*.warc.gz"))),
        "languages": crawled([DATA / "crawl" / "languages.warc.gz"]),
        **{name: corpus(DATA / "corpora" / f"{name}.jsonl.gz") for name in CORPORA},
    }


def batched(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    while some := list(islice(texts, size)):
        yield some


def differences(texts: Iterator[str], vocabulary: Vocabulary) -> tuple[int, list[str], Counter[str]]:
    """Return documents compared, a line for each that differs, and how often each reason of the chain was given."""
    compared, found, chain = 0, list[str](), Counter[str]()
    for some in batched(texts, 100):
        for text, our in zip(some, ours(some, vocabulary), strict=True):
            their = expected(text)
            compared += 1
            chain[str(their.chain)] += 1
            decided = {name: said for name, said in their.alone.items() if said != NOT_DECIDED}
            if {name: our.alone[name] for name in decided} != decided or our.edited != their.edited:
                found.append(f"{text[:200]!r}: ours {our.alone}, datatrove {their.alone}")
            elif our.chain != their.chain and NOT_DECIDED not in their.alone.values():
                found.append(f"{text[:200]!r}: chain: ours {our.chain}, datatrove {their.chain}")
    return compared, found, chain


def every(texts: Iterator[str], one_in: int, most: int) -> Iterator[str]:
    """Texts of at most 8,000 characters that a hash picks, up to `most` of them."""
    chosen = (text for text in texts if len(text) <= 8_000 and xxhash.xxh32_intdigest(text.encode()) % one_in == 0)
    return islice(chosen, most)


def test_a_sample_of_real_documents_is_decided_as_datatrove_decides() -> None:
    vocabulary = Vocabulary(spacy_english())
    total, reasons_given = 0, Counter[str]()
    for name, texts in sources().items():
        crawl = name in ("crawl", "languages")
        compared, found, chain = differences(
            every(islice(texts, 400 if crawl else 1000), 3 if crawl else 25, 80 if crawl else 25), vocabulary
        )
        assert not found, f"{name}: {len(found)} of {compared} differ:\n" + "\n".join(found[:5])
        total += compared
        reasons_given += chain
    assert total > 150
    assert len(reasons_given) > 8, "the sample must meet many rules"


def by_hash(texts: Iterator[str], characters: int) -> Iterator[str]:
    """Texts in the order of their hashes, until they have so many characters together."""
    for text in sorted(texts, key=lambda text: xxhash.xxh64_intdigest(text.encode("utf-8", "surrogatepass"))):
        yield text
        characters -= len(text)
        if characters < 0:
            return


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["crawl", "languages", *CORPORA])
def test_real_documents_are_decided_as_datatrove_decides(name: str) -> None:
    """All of `crawl`; of the others what their hashes pick, for datatrove takes a minute for 4 million characters."""
    texts = sources()[name] if name == "crawl" else by_hash(sources()[name], 4_000_000)
    compared, found, chain = differences(texts, Vocabulary(spacy_english(), max_chunks=50_000))
    print(f"{name}: {compared} compared, {chain}")
    assert compared
    assert not found, f"{len(found)} of {compared} differ:\n" + "\n".join(found[:20])


SENTENCE = "The cat that I have sat on the mat with a dog and looked at the birds. "
EDGES = {
    "empty": "",
    "one character": "a",
    "blanks": " \n\t\n ",
    "NUL": "\x00",
    "CJK": "日本語の文章です。これはテストです。\n" * 3,
    "emoji": "🎉 👍🏽 🎉 🎉",
    "49 words": "word " * 49,
    "50 words, no stop words": "word " * 50,
    "one word too long": f"{'x' * 1001} and two more words.\n" + SENTENCE * 6,
    "bracket, then lorem": "a { b c\nlorem ipsum dolor\n" + SENTENCE * 6,
    "lorem, then bracket": "lorem ipsum dolor\na { b c\n" + SENTENCE * 6,
    "lorem and bracket in one line": "lorem ipsum { dolor\n" + SENTENCE * 6,
    "bracket in a line of javascript": "javascript { is dropped\nlorem ipsum dolor\n" + SENTENCE * 6,
    "citation joins": "a lorem[1] ipsum b\n" + SENTENCE * 6,
    "citations leave blanks": 'One.[1] [2]  "Two [3] .  [edit] Three.[4] [5] [6]\n[1] [2] [3]\n' + SENTENCE * 2,
    "sentences end in odd ways": 'Hi.  " she\u00a0said.\t\tSo? !  (Yes.)  … no\n' * 3,
    "special cases across blanks": "sad:( ( and glad:) ) or 5pm:-)) ) see. x:D D\n" * 4 + SENTENCE * 4,
    "line breaks of all kinds": "one two three.\x0bfour five six.\x85seven eight nine.\u2028ten eleven twelve.\r\n" * 3,
    "line feeds everywhere": "\n\n\n" + (SENTENCE + "\n\n") * 5 + "\n",
    "half short lines": ("x" * 30 + ".\n" + "x" * 31 + ".\n") * 3,
    "no stop marks": ("one two three four five six seven eight\n") * 9,
    "repeats": SENTENCE * 40,
    "bullets": "- one of the things to be\n" * 30,
    "ellipses": "and so to be...\nof the other…  \n" * 30,
    "hashes": "# # # tag of the day to be " * 20,
    "policy": "See our Privacy Policy and terms.\nWe use cookies to be nice.\n" + SENTENCE * 6,
}  # fmt: skip


@pytest.mark.parametrize("name", EDGES)
def test_texts_at_the_edge_are_decided_as_datatrove_decides(name: str) -> None:
    _, found, _ = differences(iter([EDGES[name]]), Vocabulary(spacy_english()))
    assert found == []


def test_the_comparison_sees_another_splitter() -> None:
    _, found, _ = differences(iter(["5pm " * 30]), Vocabulary(unicode_words()))  # spaCy makes two words of each
    assert len(found) == 1
