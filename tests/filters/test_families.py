"""Whatever the text: every family measures every signal, and no number depends on the batch it was measured in."""

import os
import random
import re
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters import kernels
from filters.batch import TextBatch, duplicates
from filters.catalogue import EDITS, FAMILIES
from filters.rule import Family, Measured, Rule, Signals
from filters.tokens import Vocabulary
from pipelines.words import unicode_words

VOCABULARY = ["the", "be", "to", "of", "and", "a", "b", "c", "ab", "bc", "#", "...", "…", "•", "-", ".", "!"]
WORDS = st.sampled_from([*VOCABULARY, "日本", "🎉", "{", "[1]", "[edit]", "lorem", "ipsum", "javascript"])
BLANKS = st.sampled_from([" ", " ", " ", "\n", "\n\n", "\r\n", "\t", "\u2028", "\x00"])
PROSE = st.lists(st.tuples(WORDS, BLANKS).map("".join), max_size=60).map("".join)
ANY = st.text(st.characters()) | st.text("🎉 \n") | st.text("日本語。\n") | st.text("שלום ؟\n") | st.text("a\x00 ")
TEXTS = st.lists(PROSE | ANY, min_size=1, max_size=6)
Numbers = dict[str, list[object]]


def numbers(measured: Signals) -> Numbers:
    """For each signal what each document has: a number, a pair, or a list of these, one per line."""
    return {name: per_document(signal) for name, signal in measured.items()}


def per_document(signal: Measured) -> list[object]:
    if signal.score is not None:
        flat: list[object] = [None if score != score else score for score in signal.score.tolist()]
    else:
        assert signal.numerator is not None
        bare = [None] * len(signal.numerator) if signal.denominator is None else signal.denominator.tolist()
        flat = list(zip(signal.numerator.tolist(), bare, strict=True))
    if signal.offsets is None:
        return flat
    ends = signal.offsets.tolist()
    return [flat[first:last] for first, last in zip(ends, ends[1:], strict=False)]


def measured(texts: list[str], vocabulary: Vocabulary) -> Numbers:
    batch = TextBatch(texts, vocabulary)
    every = {name: signal for family in FAMILIES for name, signal in batch.measured(family).items()}
    return numbers(every)


@settings(deadline=None, max_examples=5)  # 45 families, each text alone and all together
@given(TEXTS, st.randoms(use_true_random=False))
def test_numbers_do_not_depend_on_batching_or_order(texts: list[str], rng: random.Random) -> None:
    whole = measured(texts, Vocabulary(unicode_words()))
    order = list(range(len(texts)))
    rng.shuffle(order)
    shared = Vocabulary(unicode_words(), max_chunks=3)
    for at in order:
        alone = measured([texts[at]], shared)
        assert alone == {name: [values[at]] for name, values in whole.items()}


@settings(deadline=None)
@given(TEXTS)
def test_every_signal_is_measured_for_every_text(texts: list[str]) -> None:
    batch = TextBatch(texts, Vocabulary(unicode_words()))
    for family in FAMILIES:
        signals = batch.measured(family)
        assert signals.keys() == {signal.name for signal in family.signals}
        for signal in family.signals:
            measured = signals[signal.name]
            assert (measured.offsets is not None) == (signal.per == "line")
            assert len(per_document(measured)) == len(texts)
            assert not np.isinf(measured.value).any()
            assert (measured.denominator is not None) == (signal.kind == "ratio")
            assert (measured.score is not None) == (signal.kind == "score")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_rules_and_signals_have_names_of_their_own(family: Family) -> None:
    assert all(rule.name.startswith(f"{family.name}.") for rule in family.rules)
    assert len({rule.name for rule in family.rules}) == len(family.rules)
    assert all(rule.paper.title and rule.paper.url and rule.paper.where for rule in family.rules)


def test_one_signal_name_means_one_signal() -> None:
    signals = {rule.signal for family in FAMILIES for rule in family.rules}
    assert max(Counter(signal.name for signal in signals).values()) == 1
    assert max(Counter(family.name for family in FAMILIES).values()) == 1
    assert max(Counter(edit.name for edit in EDITS).values()) == 1


@settings(deadline=None, max_examples=1_000)
@given(
    st.sampled_from([rule for family in FAMILIES for rule in family.rules]),
    st.lists(st.floats(0, 1e6), max_size=20),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
)
def test_a_wider_bound_keeps_no_less(rule: Rule, values: list[float], one: float, other: float) -> None:
    numbers, (less, more) = np.array(values), sorted((one, other))
    if rule.low is not None:
        wide, narrow = rule.bounded(low=less, high=None), rule.bounded(low=more, high=None)
    else:
        wide, narrow = rule.bounded(low=None, high=more), rule.bounded(low=None, high=less)
    assert (wide.passes(numbers) | ~narrow.passes(numbers)).all()
    assert not rule.passes(np.array([np.nan])).any()


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "ab", "ba", "aba", "c"]), max_size=80))
def test_ngram_numbers_are_those_of_their_definition(words: list[str]) -> None:
    row = TextBatch([" ".join(words)], Vocabulary(unicode_words())).repetition[0].tolist()
    expected = []
    for n in kernels.TOP_SIZES:
        grams = Counter(" ".join(words[at : at + n]) for at in range(len(words) - n + 1))
        expected.append(len(grams.most_common(1)[0][0]) * grams.most_common(1)[0][1] if grams else 0)
    for n in kernels.DUPLICATE_SIZES:
        seen, characters, at = set[str](), 0, 0
        while at < len(words) - n + 1:
            gram = "".join(words[at : at + n])
            characters += len(gram) if gram in seen else 0
            at += n if gram in seen else 1
            seen.add(gram)
        expected.append(characters)
    assert row == expected


@given(st.lists(st.lists(st.text("ab", max_size=2), max_size=8), max_size=4))
def test_duplicates_are_what_was_there_before(documents: list[list[str]]) -> None:
    extra, characters = duplicates(documents)
    again = [[part for at, part in enumerate(parts) if part in parts[:at]] for parts in documents]
    assert extra.tolist() == list(map(len, again))
    assert characters.tolist() == [sum(map(len, parts)) for parts in again]


@given(st.text("ab \n", max_size=30))
def test_lines_and_paragraphs_lie_between_runs_of_line_feeds(text: str) -> None:
    batch = TextBatch([text], Vocabulary(unicode_words()))
    assert batch.line_runs == [re.split("\n+", text)]
    assert batch.paragraphs == [re.split("\n{2,}", text.strip())]


def cost(count: int, words: int) -> float:
    rng = random.Random(words)
    batch = TextBatch([" ".join(str(rng.randrange(words)) for _ in range(count))], Vocabulary(unicode_words()))
    _ = batch.tokens
    best = np.inf
    for _ in range(5):
        batch.__dict__.pop("repetition", None)
        begun = time.thread_time()
        _ = batch.repetition
        best = min(best, time.thread_time() - begun)
    return best


@pytest.mark.parametrize("words", [2, 50_000], ids=["all repeats", "hardly any repeat"])
def test_repetition_takes_time_linear_in_the_words(words: int) -> None:
    cost(10, words)
    # 8 times the words: 64 times the time if it were quadratic; tables that outgrow a cache make 8 up to 20.
    assert cost(160_000, words) / cost(20_000, words) < 32


def test_the_catalogue_does_not_import_numba() -> None:
    code = "import sys, filters.catalogue; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=os.environ).returncode == 0


@settings(deadline=None)
@given(TEXTS)
def test_an_edit_is_a_function_of_each_text_alone(texts: list[str]) -> None:
    for edit in EDITS:
        whole = edit.apply(TextBatch(texts, Vocabulary(unicode_words())))
        assert {signal.name for signal in edit.notices} == set(whole.signals)
        for at, text in enumerate(texts):
            alone = edit.apply(TextBatch([text], Vocabulary(unicode_words())))
            assert alone.texts == [whole.texts[at]]
