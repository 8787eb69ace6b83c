"""Items that stand in texts are found whatever their punctuation, none that does not is, and documents are named."""

import random

import numpy as np
import pytest

from filters.errors import InputError
from proxy_eval.contamination import (
    clean_documents,
    found_ngrams,
    found_shares,
    index_of,
    matches_of,
    merged,
    sources_of,
)

ITEM = "The old miller carried a heavy sack of grain across the narrow bridge before winter came again"  # 17 words


def test_an_item_is_found_whatever_its_case_spaces_and_punctuation() -> None:
    index = index_of([ITEM])
    copy = "before; " + ITEM.upper().replace(" ", ",\n -- ") + "! after"
    assert index.totals.tolist() == [5]
    assert found_ngrams(index, matches_of(index, [copy])).tolist() == [5]


def test_an_item_is_not_found_where_every_ngram_has_another_word() -> None:
    index = index_of([ITEM])
    words = ITEM.split()
    words[4] = words[11] = "other"
    assert found_shares(index, matches_of(index, [" ".join(words)])).tolist() == [0]


def test_part_of_an_item_counts_as_a_part() -> None:
    index = index_of([ITEM])
    assert found_ngrams(index, matches_of(index, [" ".join(ITEM.split()[:14])])).tolist() == [2]


@pytest.mark.parametrize("count", [5, 8, 12])
def test_an_item_shorter_than_the_ngram_is_looked_up_whole(count: int) -> None:
    words = ITEM.split()[:count]
    index = index_of([" ".join(words), ITEM])
    assert index.totals.tolist() == [1, 5]
    assert found_ngrams(index, matches_of(index, ["so " + " ".join(words) + " then"])).tolist() == [1, 0]
    assert found_ngrams(index, matches_of(index, ["so " + " ".join(words[:-1])])).tolist() == [0, 0]


def test_nothing_is_claimed_of_an_item_of_four_words() -> None:
    index = index_of(["the old miller carried", "", "?!"])
    assert index.totals.tolist() == [0, 0, 0]
    matches = matches_of(index, [ITEM])
    assert found_shares(index, matches).tolist() == [0, 0, 0]
    assert clean_documents(index, matches, 1).tolist() == [True]


def test_words_of_other_scripts_count() -> None:
    text = "Größe und Maß sind nötig, weil die Mühle im März stillsteht"
    index = index_of([text])
    assert found_shares(index, matches_of(index, [text.upper().replace("SS", "ß")])).tolist() == [1]


def plain_ngrams(text: str, size: int) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[at : at + size]) for at in range(len(words) - size + 1)}


def test_counts_and_sources_are_those_of_plain_sets() -> None:
    """Over few words, so that the same n-grams stand in many items and documents."""
    rng = random.Random(0)
    draw = lambda low, high: " ".join(rng.choice("abc") for _ in range(rng.randint(low, high)))  # noqa: E731
    items, texts = [draw(0, 9) for _ in range(80)], [draw(0, 60) for _ in range(60)]
    index = index_of(items, ngram=6, shortest=4)
    matches = merged(
        [matches_of(index, texts[:25]), matches_of(index, texts[25:26], 25), matches_of(index, texts[26:], 26)]
    )
    sizes = [min(6, len(item.split())) for item in items]
    wanted = [plain_ngrams(item, size) if size >= 4 else set() for item, size in zip(items, sizes, strict=True)]
    held = [{size: plain_ngrams(text, size) for size in (4, 5, 6)} for text in texts]
    assert index.totals.tolist() == [len(ngrams) for ngrams in wanted]
    assert found_ngrams(index, matches).tolist() == [
        sum(any(ngram in text[size] for text in held) for ngram in ngrams)
        for ngrams, size in zip(wanted, sizes, strict=True)
    ]
    expected = [
        (item, document, count)
        for item, (ngrams, size) in enumerate(zip(wanted, sizes, strict=True))
        for document, text in enumerate(held)
        if ngrams and (count := len(ngrams & text[size]))
    ]
    assert list(zip(*(column.tolist() for column in sources_of(index, matches)), strict=True)) == expected
    dirty = {document for item, document, count in expected if count / len(wanted[item]) > 0.5}
    clean = clean_documents(index, matches, len(texts), overlap=0.5)
    assert np.flatnonzero(~clean).tolist() == sorted(dirty)
    assert 0 < len(dirty) < len(texts)


def test_ngrams_longer_than_shortest_only() -> None:
    with pytest.raises(InputError, match="5 to 3 words"):
        index_of([ITEM], ngram=3)
