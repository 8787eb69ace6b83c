"""Spans of sentences go as datatrove's three stages of sentence deduplication remove them."""

import gzip
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path

import pytest
from datatrove.data import Document
from datatrove.pipeline.dedup.sentence_dedup import (
    SentDedupConfig,
    SentenceDedupFilter,
    SentenceDedupSignature,
    SentenceFindDedups,
)
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import load_word_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.batch import TextBatch
from filters.errors import InputError, RecipeError
from filters.splitters_words import WHITESPACE
from filters.tokens import Vocabulary
from pipelines.dedup import spans
from pipelines.dedup.paragraphs import failing
from pipelines.dedup.spans import C4_SPANS
from pipelines.spacy_english import spacy_english
from pipelines.words import words_by_name

CORPORA = Path(__file__).parents[4] / "shared" / "data" / "corpora"
ENGLISH, SPANISH = "eng_Latn", "spa_Latn"
KINDS = ("calle", "senda")

# Marks that end sentences and what may stand beside them, white space of all kinds, special cases of spaCy's.
piece = st.sampled_from(
    ["One", "two", "3.5", "a.m.", "U.S.", "e.g.", "it's", "Dr.", ":(", ":((", "x:(", "(", ")", '"', "'", "”", ".",
     "...", "!", "?!", "。", "!", " ", " ", " ", "  ", "\n", "\n\n", "\r\n", "\t", "\u2028", "\u00a0", "#",
     "http://a.b/c.", "\x00"]
)  # fmt: skip
text = st.lists(piece, max_size=14).map("".join)


@cache
def vocabulary(language: str) -> Vocabulary:
    return Vocabulary(words_by_name(f"datatrove:{language}"))


def ours(some: Sequence[str], language: str = ENGLISH, size: int = 50) -> dict[int, str]:
    """What is left of the texts that stay, by their number."""
    window = C4_SPANS.begin(1_000_000)
    left: dict[int, str] = {}
    for first in range(0, len(some), size):
        part = TextBatch(some[first : first + size], vocabulary(language))
        found = spans.edited(window, part)
        failed = failing(part, found, C4_SPANS.rules).tolist()
        left |= {first + at: found.texts[at] for at in range(len(part)) if failed[at] < 0}
    return left


def datatroves(some: Sequence[str], folder: Path, language: str = ENGLISH) -> dict[int, str]:
    """The same of datatrove's three stages, on one file and without an index.

    With SHA-1: the release hands xxhash 4 strings, which that refuses.
    """
    config = SentDedupConfig(hash_config=HashConfig(hash_fc="sha1"))
    documents = [Document(text=one, id=str(at)) for at, one in enumerate(some)]
    signatures, duplicates = str(folder / "signatures"), str(folder / "duplicates")
    SentenceDedupSignature(signatures, config=config, language=language).run(iter(documents))
    SentenceFindDedups(signatures, duplicates, config=config).run()
    kept = SentenceDedupFilter(duplicates, config=config, language=language).run(iter(documents))
    return {int(document.id): document.text for document in kept}


def without_empty(left: dict[int, str]) -> dict[int, str]:
    """datatrove drops a text that came empty; here one that loses nothing is the business of the steps before."""
    return {at: one for at, one in left.items() if one}


def with_shared_spans(make_sentences: Callable[[int], str], count: int) -> list[str]:
    """Documents that share runs of two to five sentences, some of them in other case and with other numbers."""
    rng = random.Random(5)
    shared = [make_sentences(1000 + number).replace("\n", " ").split(". ") for number in range(4)]
    documents = []
    for number in range(count):
        lines = make_sentences(number).split("\n")[: (rng.randint(1, 6) if number % 3 else 0)]
        for _ in range(rng.randint(number % 3 == 0, 3)):
            run = rng.choice(shared)
            first = rng.randrange(10)
            said = ". ".join(run[first : first + rng.randint(2, 5)]) + rng.choice([".", "!", f". {number} of 7."])
            said = said.upper() if rng.random() < 0.3 else said
            lines.insert(rng.randint(0, len(lines)), rng.choice(["", " ", "“", "– "]) + said)
        documents.append(rng.choice(["\n", " ", "\n\n"]).join(lines) + rng.choice(["", "\n", " \n "]))
    return documents


def test_what_is_left_equals_datatroves_three_stages(make_sentences: Callable[[int], str], tmp_path: Path) -> None:
    some = with_shared_spans(make_sentences, 30)
    theirs = datatroves(some, tmp_path)
    found = without_empty(ours(some, size=7))
    assert found == theirs
    changed = sum(found[at] != some[at] for at in found)
    assert min(changed, len(some) - len(found), len(found) - changed) > 1


def test_what_is_left_equals_datatroves_in_another_language(tmp_path: Path) -> None:
    same = "El molino es viejo, dice el Sr. Núñez. ¿Gira todavía? ¡Nadie va ya!"
    names = ("Rosa", "Lila", "Roble", "Sauce", "Olmo", "Tilo", "Fresno", "Haya")
    one, other = (" ".join(f"La {kind} de {name} lleva al río, según se dice." for name in names) for kind in KINDS)
    some = [f"{same} {one}", f"{other}\n{same} Bien.", same, "Nada."]
    found = ours(some, SPANISH)
    assert found == datatroves(some, tmp_path, SPANISH)
    assert found[1] == f"{other} Bien."
    assert set(found) == {0, 1, 3}


@pytest.mark.full
@pytest.mark.parametrize("name", ["reuters21578", "spamassassin_mail", "gov_blog_18f"])
def test_what_is_left_of_real_documents_equals_datatroves(name: str, tmp_path: Path) -> None:
    if not CORPORA.is_dir():
        pytest.skip(f"needs the real documents in {CORPORA}")
    with gzip.open(CORPORA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        some = [json.loads(one)["text"][:6000] for one in islice(lines, 250)]
    theirs, found = datatroves(some, tmp_path), ours(some)
    assert without_empty(found) == theirs
    assert any(found[at] != some[at] for at in found)


@settings(deadline=None, max_examples=300)
@given(st.lists(text, min_size=1, max_size=4))
def test_sentences_end_where_spacy_ends_them(some: list[str]) -> None:
    tokenizer = load_word_tokenizer(ENGLISH)
    expected = [[end for _, end in tokenizer.span_tokenize(one)] for one in some]
    assert spans.sentencizer_ends(spacy_english(), some) == expected


def test_most_texts_need_no_spacy(make_sentences: Callable[[int], str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(spans, "datatrove_ends", lambda language, some: [asked.extend(some)] and [[]])
    spans.sentencizer_ends(spacy_english(), [make_sentences(1), "Yes. x:( ( no."])
    assert asked == ["Yes. x:( ( no."]


def test_places_are_found_again_where_blanks_were_put_into_a_long_chunk() -> None:
    wide = "x" * 30_000
    some = [f"Un. Deux. {wide}. Trois ?! Quatre", f"{wide} \n{wide}! Fin."]
    ends = spans.datatrove_ends(SPANISH, some)
    cut = [[one[a:b] for a, b in zip([0, *stops], stops, strict=False)] for one, stops in zip(some, ends, strict=True)]
    assert cut == [["Un.", " Deux.", f" {wide}.", " Trois ?!", " Quatre"], [f"{wide} \n{wide}!", " Fin."]]


FILL = " ".join(f"Sentence number {word} of this text says nothing that another says at all." for word in
                ("one", "two", "three", "four", "five"))  # fmt: skip


@pytest.mark.parametrize(
    ("some", "left"),
    [
        (["", ""], {0: "", 1: ""}),
        ([" \n", " \n"], {0: " \n", 1: " \n"}),
        (["Apples. Bears.", "Apples. Bears."], {0: "Apples. Bears.", 1: "Apples. Bears."}),  # two sentences are no span
        (["Apples. Bears. Cats.", "Apples. Bears. Cats."], {0: "Apples. Bears. Cats."}),
        (["... !!! ???\n\n... !!! ???"], {0: "... !!! ???\n\n... !!! ???"}),  # nothing in simplified form
        (["Apples. Bears. Cats.", f"Apples. Bears. Cats. {FILL}"], {0: "Apples. Bears. Cats.", 1: FILL}),
        (
            ["Apples. Bears. Cats.", f"\n{FILL}\n\nApples. Bears. Cats.  \n"],
            {0: "Apples. Bears. Cats.", 1: f"{FILL}  \n"},
        ),
        (
            ["Apples. Bears. Cats. Dogs.", f"{FILL} Bears. Cats. Dogs. apples. Bears. cats."],
            {0: "Apples. Bears. Cats. Dogs.", 1: FILL},
        ),
        ([f"{FILL} Apples. Bears. Cats. Apples. Bears. Cats."], {0: f"{FILL} Apples. Bears. Cats."}),
        (
            ["Ap\x00ples. Bears.\r\nCats.", f"{FILL}\r\nAp\x00ples. Bears. Cats."],
            {0: "Ap\x00ples. Bears.\r\nCats.", 1: FILL},
        ),
    ],
)
def test_what_a_span_is_and_what_goes_with_it(some: list[str], left: dict[int, str]) -> None:
    assert ours(some) == left


def test_a_document_of_few_words_or_sentences_is_dropped_if_it_lost_some() -> None:
    rules = {rule.name: rule for rule in C4_SPANS.rules}
    shared = "Apples. Bears. Cats."
    wide = " ".join(["word"] * 60)
    some = [shared, f"{shared} {wide}. {wide}.", f"{shared} Few. Words. Left. Here.", f"{shared} {FILL}", "Short."]
    batch = TextBatch(some, vocabulary(ENGLISH))
    found = spans.edited(C4_SPANS.begin(1000), batch)
    names = list(rules)
    failed = [None if at < 0 else names[at] for at in failing(batch, found, C4_SPANS.rules).tolist()]
    assert failed == [None, "c4_spans.sentences", "c4_spans.words", None, None]
    value = {name.split(".")[1]: measured.value.tolist() for name, measured in found.signals.items()}
    assert value["removed"] == [0, 3, 3, 3, 0]
    assert value["left"] == value["sentences"] == [3, 2, 4, 5, 1]
    assert set(found.signals) == {signal.name for signal in C4_SPANS.notices}


def test_a_window_does_not_depend_on_its_batches_and_goes_on_where_it_ended(
    make_sentences: Callable[[int], str],
) -> None:
    some = with_shared_spans(make_sentences, 24)
    window = C4_SPANS.begin(10_000)
    whole = spans.edited(C4_SPANS.begin(10_000), TextBatch(some, vocabulary(ENGLISH))).texts
    parts = []
    for first in range(0, len(some), 5):
        parts += spans.edited(window, TextBatch(some[first : first + 5], vocabulary(ENGLISH))).texts
        file = io.BytesIO()
        window.write(file)
        window = C4_SPANS.read(io.BytesIO(file.getvalue()))
    assert parts == whole
    with pytest.raises(InputError):
        replace(C4_SPANS, length=2).read(io.BytesIO(file.getvalue()))


def test_items_bound_the_spans_of_a_window_and_more_are_refused_by_name(make_sentences: Callable[[int], str]) -> None:
    batch = TextBatch([make_sentences(1), "", "Apples. Bears."], vocabulary(ENGLISH))
    count = spans.items(C4_SPANS, batch)
    spans.edited(C4_SPANS.begin(count), batch)
    with pytest.raises(RecipeError, match="c4_spans, spans of 3 sentences: room was made for"):
        spans.edited(C4_SPANS.begin(count - 1), batch)


def test_a_splitter_that_only_counts_sentences_is_refused_by_name() -> None:
    with pytest.raises(RecipeError, match="'whitespace' does not say where sentences end"):
        spans.edited(C4_SPANS.begin(10), TextBatch(["a"], Vocabulary(WHITESPACE)))


def test_memory_is_what_is_taken() -> None:
    for of in (C4_SPANS, replace(C4_SPANS, rate=0.01)):
        assert of.begin(5_000).seen.words.nbytes == of.memory(5_000)
