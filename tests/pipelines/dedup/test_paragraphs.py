"""Paragraphs go as Dolma's, CCNet's and T5's code removes them, and nothing else of a text changes."""

import io
import pickle
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.batch import TextBatch
from filters.errors import InputError, RecipeError
from filters.splitters_words import WHITESPACE
from filters.tokens import Vocabulary
from pipelines.dedup import paragraphs
from pipelines.dedup.paragraphs import CCNET, DOLMA, T5_LINES, Paragraphs, Window
from pipelines.words import unicode_words

EXACT_DOLMA = replace(DOLMA, rate=None)
METHODS = (EXACT_DOLMA, T5_LINES, CCNET)
CCNET_MARKS = "，。、„”“«»１」「《》´∶：？！（）；–—．～’…━〈〉【】％►"
CCNET_GONE = re.compile(f"[{CCNET_MARKS}\x00-\x1f\x7f-\x9f]")

# Few and odd characters, so that paragraphs come again: what ends a line for Python but not here, what changes in
# number or by its neighbours in lower case, digits of other scripts, and a lone surrogate.
line = st.text(st.sampled_from("aAbB .,1٣１—»\t\r\x00\x1c\x85\u2028\u00a0İΣσς\ud800"), max_size=4)
text = st.lists(line, max_size=6).map("\n".join)
texts = st.lists(text, max_size=8)


@cache
def vocabulary() -> Vocabulary:
    return Vocabulary(WHITESPACE)


def batch(some: Sequence[str]) -> TextBatch:
    return TextBatch(some, vocabulary())


def after(window: Window, some: Sequence[str]) -> list[str]:
    return paragraphs.edited(window, batch(some)).texts


def removed_by(method: Paragraphs, some: Sequence[str], expected: int = 1_000) -> list[str]:
    """The texts of a window of its own."""
    window = method.begin(expected)
    if method.keep == "none":
        paragraphs.collect(window, batch(some))
    return after(window, some)


def ccnet_form(one: str) -> str:
    """CCNet's normalize_for_dedup."""
    return CCNET_GONE.sub("", re.sub(r"\d", "0", one.strip().lower()))


FORMS: dict[str, Callable[[str], str]] = {
    "bytes": lambda one: one,
    "lower": lambda one: one.strip().lower(),
    "ccnet": ccnet_form,
}


def first_stays(some: Sequence[str], form: Callable[[str], str]) -> list[str]:
    """The definition: a paragraph goes if an equal one came before, in this text or an earlier one."""
    met: set[str] = set()
    result = []
    for one in some:
        kept = []
        for paragraph in one.split("\n"):
            if not paragraph.strip() or form(paragraph) not in met:
                kept.append(paragraph)
            if paragraph.strip():
                met.add(form(paragraph))
        result.append("\n".join(kept))
    return result


def none_stays(some: Sequence[str], form: Callable[[str], str]) -> list[str]:
    """The definition: a paragraph goes if another text has an equal one, or this text has one before it."""
    forms = [{form(paragraph) for paragraph in one.split("\n") if paragraph.strip()} for one in some]
    result = []
    for at, one in enumerate(some):
        kept: list[str] = []
        for paragraph in one.split("\n"):
            others = any(form(paragraph) in of for number, of in enumerate(forms) if number != at)
            before = form(paragraph) in {form(other) for other in kept if other.strip()}
            if not paragraph.strip() or not (others or before):
                kept.append(paragraph)
        result.append("\n".join(kept))
    return result


@settings(deadline=None)
@given(texts, st.sampled_from(sorted(FORMS)))
def test_the_first_of_equal_paragraphs_stays(some: list[str], same: str) -> None:
    method = Paragraphs(name="x", same=same, keep="first", rate=None, paper=DOLMA.paper)  # type: ignore[arg-type]
    assert removed_by(method, some) == first_stays(some, FORMS[same])


@settings(deadline=None)
@given(texts)
def test_no_paragraph_stays_that_two_documents_have(some: list[str]) -> None:
    assert removed_by(CCNET, some) == none_stays(some, ccnet_form)


@settings(deadline=None)
@given(st.lists(text, min_size=1, max_size=8), st.randoms())
def test_where_none_stays_the_order_of_documents_does_not_matter(some: list[str], random: object) -> None:
    order = list(range(len(some)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = removed_by(CCNET, [some[at] for at in order])
    assert [shuffled[order.index(at)] for at in range(len(some))] == removed_by(CCNET, some)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@settings(deadline=None)
@given(some=texts, size=st.integers(1, 3))
def test_a_window_does_not_depend_on_its_batches(method: Paragraphs, some: list[str], size: int) -> None:
    window = method.begin(1_000)
    parts = [some[at : at + size] for at in range(0, len(some), size)]
    if method.keep == "none":
        for part in parts:
            paragraphs.collect(window, batch(part))
    assert [one for part in parts for one in after(window, part)] == removed_by(method, some)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@settings(deadline=None)
@given(before=texts, some=texts)
def test_a_stored_window_goes_on_where_it_ended(method: Paragraphs, before: list[str], some: list[str]) -> None:
    window = method.begin(1_000)
    if method.keep == "none":
        paragraphs.collect(window, batch([*before, *some]))
    after(window, before)
    file = io.BytesIO()
    window.write(file)
    file.seek(0)
    copies = method.read(file), pickle.loads(pickle.dumps(window))
    assert [after(copy, some) for copy in copies] == [after(window, some)] * 2
    with pytest.raises(InputError):
        replace(method, name="other").read(io.BytesIO(file.getvalue()))


@settings(deadline=None)
@given(texts)
def test_a_filter_only_ever_removes_more(some: list[str]) -> None:
    loose = replace(DOLMA, rate=0.3)
    window = loose.begin(1)
    window = replace(window, once=replace(window.once, expected=10**6))  # overfull: wrong about most paragraphs
    for exact, found in zip(removed_by(EXACT_DOLMA, some), after(window, some), strict=True):
        left = iter(exact.split("\n"))
        assert found == "" or all(paragraph in left for paragraph in found.split("\n"))


def test_a_filter_that_is_full_removes_paragraphs_wrongly_as_often_as_its_budget_says() -> None:
    count, rate = 20_000, 0.05
    window = replace(DOLMA, rate=rate).begin(count)
    after(window, ["\n".join(f"before {number}" for number in range(count))])
    new = [f"new {number}" for number in range(count)]
    keys, _, _ = paragraphs.paragraph_hashes(batch(["\n".join(new)]), "bytes")
    wrong = window.once.holds(keys).mean()
    assert 0.5 * rate < wrong < rate + 4 * (rate / count) ** 0.5


@pytest.mark.parametrize(
    ("some", "left"),
    [
        ([""], [""]),
        (["", ""], ["", ""]),
        ([" \t", " \t"], [" \t", " \t"]),
        (["\n\n", "\n\n"], ["\n\n", "\n\n"]),
        (["a", "a"], ["a", ""]),
        (["a\n", "a\n"], ["a\n", ""]),
        (["a\nb", "b\na\nc"], ["a\nb", "c"]),
        (["a\nb", "c\nb"], ["a\nb", "c"]),
        (["a\r\nb\r\n", "c\r\na\r\nb"], ["a\r\nb\r\n", "c\r\nb"]),
        (["a\x00b\na", "a\x00b\na\x00c"], ["a\x00b\na", "a\x00c"]),
        (["a\n\na\n\nb"], ["a\n\n\nb"]),
        (["a\u2028a\na"], ["a\u2028a\na"]),
        (["A\na\n a"], ["A\na\n a"]),
    ],
)
def test_what_a_paragraph_is_and_what_goes_with_it(some: list[str], left: list[str]) -> None:
    assert removed_by(EXACT_DOLMA, some) == left


def test_forms_of_single_characters_are_those_of_lines() -> None:
    """What a kernel knows of a character by itself is what Python does to lines; all others it leaves to Python."""
    for form, table in ((str.lower, paragraphs.lower_forms()), (ccnet_form, paragraphs.ccnet_forms())):
        for point in [*range(0x3100), *range(0x3100, sys.maxunicode + 1, 29), 0xFF11, 0xFF01]:
            if table[point] != paragraphs.IN_CONTEXT and not chr(point).isspace():
                known = "" if table[point] == paragraphs.GONE else chr(table[point])
                assert form(f"a{chr(point)}b")[1:-1] == form(f"a{chr(point)}")[1:] == known, hex(point)


def test_paragraphs_are_equal_in_the_form_of_their_method() -> None:
    lines = ["Page 12 of 99…", "  page 34 of 10", "page 34 of 1", "PAGE\x0712 of 99"]
    assert removed_by(replace(CCNET, keep="first"), ["\n".join(lines)]) == [
        "Page 12 of 99…\npage 34 of 1\nPAGE\x0712 of 99"
    ]
    assert removed_by(T5_LINES, ["ΑΣ\nας\nασ\nİ\ni\u0307"]) == ["ΑΣ\nασ\nİ"]


@settings(deadline=None)
@given(texts)
def test_signals_add_up(some: list[str]) -> None:
    window = T5_LINES.begin(1_000)
    found = paragraphs.edited(window, batch(some))
    value = {name.split(".")[1]: measured for name, measured in found.signals.items()}
    filled = [sum(bool(one.strip()) for one in text.split("\n")) for text in some]
    assert (value["removed"].value + value["left"].value).tolist() == filled
    assert value["characters"].value.tolist() == list(map(len, found.texts))
    ratio = value["removed_ratio"]
    assert ratio.denominator is not None and ratio.denominator.tolist() == list(map(len, some))
    assert ratio.numerator is not None
    assert ratio.numerator.tolist() == [len(a) - len(b) for a, b in zip(some, found.texts, strict=True)]
    assert set(found.signals) == {signal.name for signal in T5_LINES.notices}


def reasons(method: Paragraphs, some: Sequence[str]) -> list[str | None]:
    window, of = method.begin(1_000), TextBatch(some, Vocabulary(unicode_words()))
    if method.keep == "none":
        paragraphs.collect(window, of)
    first = paragraphs.failing(of, paragraphs.edited(window, of), method.rules)
    return [None if at < 0 else method.rules[at].name for at in first.tolist()]


@pytest.mark.parametrize(
    ("method", "some", "failed"),
    [
        (DOLMA, ["one", "one", "one\n\n", ""], [None, "dolma_paragraphs.characters", None, None]),
        (CCNET, ["one\ntwo", "ONE\nthree", "one."], [None, None, None]),
        (CCNET, ["one\ntwo", "ONE", "One»\n ", " "], [None, "ccnet_paragraphs.left", "ccnet_paragraphs.left", None]),
        (
            T5_LINES,
            ["One. Two.\nThree.", "Three.\nFour. Five. Six.", "One. Two.\nThat is all. No more.", "Short."],
            [None, None, "c4_t5_paragraphs.sentences", None],
        ),
    ],
)
def test_rules_judge_what_is_left_of_documents_that_lost_some(
    method: Paragraphs, some: list[str], failed: list[str | None]
) -> None:
    assert reasons(method, some) == failed


def test_more_paragraphs_than_expected_are_refused_by_name() -> None:
    for method in (DOLMA, T5_LINES):
        assert removed_by(method, ["a\nb\nc", "a\nb"], expected=3) == ["a\nb\nc", ""]
        with pytest.raises(RecipeError, match=f"{method.name}, paragraphs: room was made for 3"):
            removed_by(method, ["a\nb\nc\nd"], expected=3)


@given(texts)
@settings(deadline=None)
def test_items_bound_the_paragraphs_of_a_window(some: list[str]) -> None:
    for method in METHODS:
        removed_by(method, some, expected=paragraphs.items(batch(some)))


def test_only_where_none_stays_there_is_something_to_collect() -> None:
    with pytest.raises(ValueError, match="nothing to collect"):
        paragraphs.collect(DOLMA.begin(10), batch(["a"]))


def test_memory_is_what_is_taken() -> None:
    for method in (*METHODS, DOLMA, replace(CCNET, rate=0.01)):
        window = method.begin(5_000)
        again = 0 if window.again is None else window.again.words.nbytes
        assert window.once.words.nbytes + again == method.memory(5_000)


def test_rules_and_signals_have_names_of_their_own() -> None:
    names = [signal.name for method in (DOLMA, CCNET, T5_LINES) for signal in method.notices]
    assert len(names) == len(set(names))
    for method in (DOLMA, CCNET, T5_LINES):
        assert {rule.signal for rule in method.rules} <= set(method.notices)


def test_hashes_of_lines_are_those_of_their_forms() -> None:
    keys, filled, offsets = paragraphs.paragraph_hashes(batch(["Aa\n\n aA", "AΣ\naς"]), "lower")
    assert filled.tolist() == [True, False, True, True, True]
    assert offsets.tolist() == [0, 2, 4]
    assert (keys[0] == keys[1], keys[2] == keys[3]) == (True, True)
    assert len(np.unique(keys)) == 2
