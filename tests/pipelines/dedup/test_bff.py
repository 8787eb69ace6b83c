"""BFF removes what DCLM's `old-both` removes: paragraphs and documents of n-grams seen before."""

import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path

import pytest
import uniseg.wordbreak
from hypothesis import example, given, settings
from hypothesis import strategies as st

from filters.batch import TextBatch
from filters.errors import InputError, RecipeError
from filters.splitters_words import WHITESPACE
from filters.tokens import Vocabulary
from pipelines.dedup import bff
from pipelines.dedup.bff import DCLM, NGrams
from pipelines.dedup.paragraphs import failing

CORPORA = Path(__file__).parents[4] / "shared" / "data" / "corpora"
WHITE_SPACE = " \t\n\v\f\r\x85\xa0\u2028\u2029"
TRIPLES = NGrams(name="triples", smallest=2, size=3, most=0.5, rate=None, paper=DCLM.paper)
EXACT_DCLM = replace(DCLM, rate=None)

line = st.text(st.sampled_from("ab. ,'1\u0301\x00\x1f\r-\ud800"), max_size=8) | st.sampled_from(
    ["a b c", "a b c d", "b c d e", "b c d", "a b"]
)
texts = st.lists(st.lists(line, max_size=4).map("\n".join), max_size=8)


@cache
def vocabulary() -> Vocabulary:
    return Vocabulary(WHITESPACE)


def batch(some: Sequence[str]) -> TextBatch:
    return TextBatch(some, vocabulary())


def ours(of: NGrams, some: Sequence[str], size: int = 1000) -> list[str | None]:
    """What is left of each text, None of a document that a rule drops."""
    window = of.begin(10**6 if of.rate is None else 10_000)
    result: list[str | None] = []
    for at in range(0, len(some), size):
        part = batch(some[at : at + size])
        found = bff.edited(window, part)
        failed = failing(part, found, of.rules).tolist()
        result += [text if at < 0 else None for at, text in zip(failed, found.texts, strict=True)]
    return result


def tokens(paragraph: str) -> list[str]:
    """What split_word_bounds gives in Rust, but white space. Of the blanks before a mark all are in its segment by rule
    3d of UAX #29; for `filters.word_break` only the last is.
    """
    found = uniseg.wordbreak.words(paragraph)
    return [" " * one.startswith(" ") + one.lstrip(" ") for one in found if one.strip(WHITE_SPACE)]


def expected(of: NGrams, some: Sequence[str]) -> list[str | None]:
    """`old-both`, as its definition in `bff` reads, with a set of tuples; None of a document that goes."""
    seen: set[tuple[str, ...]] = set()
    result: list[str | None] = []
    for text in some:
        kept, every, known = "", 0, 0
        first, *rest = text.split("\n")
        for paragraph in [first, *("\n" + one for one in rest)]:
            words = tokens(paragraph)
            grams = [tuple(words[at : at + of.size]) for at in range(len(words) - of.size + 1)]
            if not grams and len(words) >= of.smallest:
                grams = [tuple(words)]
            found = sum(gram in seen for gram in grams)
            every, known = every + len(grams), known + found
            if not grams or found / len(grams) <= of.most:
                kept += paragraph
                seen.update(grams)
        whole = every > 0 and known / every > of.most
        result.append(None if whole or (kept != text and not kept.strip()) else kept)
    return result


@settings(deadline=None)
@given(texts, st.sampled_from((0.0, 0.5, 0.8, 1.0)), st.integers(1, 3), st.integers(1, 3))
@example(["\u03011\n1"], 0.0, 1, 1)
@example(["a b c\na a.\u0301a"], 0.5, 1, 1)
@example(["1'\u0301\n1'\u0301a"], 0.0, 1, 2)
def test_removed_is_what_the_definition_says(some: list[str], most: float, smallest: int, size: int) -> None:
    of = replace(TRIPLES, most=most, smallest=min(smallest, size), size=size)
    assert ours(of, some, 3) == expected(of, some)


def test_real_documents_are_cut_as_the_definition_says() -> None:
    if not CORPORA.is_dir():
        pytest.skip(f"needs the real documents in {CORPORA}")
    some = []
    for name in ("spamassassin_mail", "gov_blog_18f", "reuters21578"):
        with gzip.open(CORPORA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            some += [json.loads(one)["text"][:5000] for one in islice(lines, 120)]
    left = expected(EXACT_DCLM, some)
    assert ours(EXACT_DCLM, some, 50) == left
    assert any(one is None for one in left)
    assert any(one is not None and one != text for one, text in zip(left, some, strict=True))


def words(first: int, count: int) -> str:
    return " ".join(f"w{number}" for number in range(first, first + count))


def test_a_paragraph_goes_above_the_threshold_and_not_at_it() -> None:
    """22 tokens have 10 n-grams of 13: with 20 tokens seen before 8 of them are known, with 21 of them 9."""
    known, at, above = words(0, 40), words(0, 20) + " x y", words(0, 21) + " z"
    some = [known, f"{words(1000, 30)}\n{at}", f"{words(2000, 30)}\n{above}"]
    assert ours(EXACT_DCLM, some) == [known, some[1], words(2000, 30)]


def test_a_document_goes_above_the_threshold_though_a_paragraph_stays() -> None:
    known = words(0, 112)  # 100 n-grams
    assert ours(EXACT_DCLM, [known, f"{known}\n{words(1000, 32)}"])[1] is None  # 100 of 120
    assert ours(EXACT_DCLM, [known, f"{known}\n{words(1000, 37)}"])[1] == "\n" + words(1000, 37)  # 100 of 125


def test_n_grams_of_what_is_removed_are_forgotten_those_of_what_is_kept_are_not() -> None:
    of = TRIPLES
    window = of.begin(1_000)
    bff.edited(window, batch(["a b c d e"]))  # abc bcd cde
    bff.edited(window, batch(["a b c d f"]))  # 2 of 3 known: goes, and cdf is forgotten
    assert ours_ratio(window, "c d f") == (0, 1)
    bff.edited(window, batch(["a b c x y z"]))  # 1 of 4 known: stays
    assert ours_ratio(window, "c x y") == (1, 1)


def ours_ratio(window: bff.Window, text: str) -> tuple[int, int]:
    seen = bff.edited(window, batch([text])).signals[f"{window.of.name}.seen_ratio"]
    assert seen.numerator is not None
    assert seen.denominator is not None
    return int(seen.numerator[0]), int(seen.denominator[0])


def test_repeats_within_a_paragraph_do_not_count_but_those_of_one_before_do() -> None:
    assert ours(TRIPLES, ["a b a b a b a b"]) == ["a b a b a b a b"]
    assert ours(TRIPLES, ["a b c d\nx y z u v w\na b c d"]) == ["a b c d\nx y z u v w"]


@pytest.mark.parametrize(
    "text",
    ["", "\n", "\n\n\n", " \t", "one", "\x00", "a\r\nb\r\n", "a b\n\n", "\ud800 \udfff", "no end\n" * 3, "." * 5],
)
def test_what_has_too_few_tokens_stays_as_it_is(text: str) -> None:
    assert ours(EXACT_DCLM, [text] * 3) == [text] * 3


def test_a_document_of_blanks_alone_is_dropped_if_it_lost_something() -> None:
    assert ours(replace(TRIPLES, most=0.9), ["a b c", " \na b c\n ", " \n "]) == ["a b c", None, " \n "]


def test_the_first_paragraph_leaves_the_line_feed_after_it() -> None:
    found = bff.edited(window := TRIPLES.begin(100), batch(["a b c", "a b c\nd e f\ng h i"]))
    assert found.texts == ["a b c", "\nd e f\ng h i"]
    assert bff.edited(window, batch(["a b c"])).texts == [""]


@settings(deadline=None)
@given(texts, texts, st.sampled_from((None, 0.01)))
def test_a_stored_window_goes_on_where_it_ended(before: list[str], some: list[str], rate: float | None) -> None:
    of = replace(TRIPLES, rate=rate)
    window = of.begin(1_000)
    bff.edited(window, batch(before))
    file = io.BytesIO()
    window.write(file)
    again = of.read(io.BytesIO(file.getvalue()))
    assert bff.edited(again, batch(some)).texts == bff.edited(window, batch(some)).texts
    with pytest.raises(InputError):
        replace(of, size=4).read(io.BytesIO(file.getvalue()))


@settings(deadline=None)
@given(texts)
def test_items_bound_the_n_grams_of_a_window(some: list[str]) -> None:
    count = bff.items(TRIPLES, batch(some))
    bff.edited(window := TRIPLES.begin(count), batch(some))
    assert window.seen.items <= count


def test_more_n_grams_than_expected_are_refused_by_name() -> None:
    with pytest.raises(RecipeError, match="dclm_bff, n-grams of 13 to 13: room was made for 10"):
        bff.edited(DCLM.begin(10), batch([words(0, 30)]))


def test_memory_is_what_is_taken() -> None:
    for of in (DCLM, EXACT_DCLM):
        assert of.begin(5_000).seen.words.nbytes == of.memory(5_000)


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="1 <= smallest <= size"):
        replace(DCLM, smallest=14)


def test_every_signal_is_noticed() -> None:
    found = bff.edited(DCLM.begin(10), batch(["a\nb", ""]))
    assert set(found.signals) == {signal.name for signal in DCLM.notices}
    assert {rule.signal for rule in DCLM.rules} <= set(DCLM.notices)
