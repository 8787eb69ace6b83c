"""T5's reading of C4 and the paper's: which lines go, what is noticed, and the first reason a page is dropped for."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from filters import c4_t5
from filters.batch import TextBatch
from filters.edit import Edit
from filters.rule import Family, first_failing
from filters.tokens import Vocabulary
from pipelines.words import unicode_words

LONG = "x" * 1001


def edited(edit: Edit, text: str) -> tuple[str, dict[str, int]]:
    found = edit.apply(TextBatch([text], Vocabulary(unicode_words())))
    assert set(found.signals) == {signal.name for signal in edit.notices}
    values = {name.split(".")[1]: int(signal.value[0]) for name, signal in found.signals.items()}
    return found.texts[0], {name: value for name, value in values.items() if value and name != "characters"}


def reason(family: Family, text: str) -> str | None:
    signals = family.measure(TextBatch([text], Vocabulary(unicode_words())))
    first, _ = first_failing(signals, family.rules, 1)
    return None if first[0] < 0 else family.rules[first[0]].name.split(".")[1]


@pytest.mark.parametrize(
    ("text", "left", "noticed"),
    [
        ("one two three four five.", "one two three four five.", {"lines_kept": 1, "sentences": 1}),
        ("one two three four five", "", {"lines_no_end_mark": 1}),
        ("one two three four five...", "", {"lines_no_end_mark": 1}),
        ('one two three four "five"', 'one two three four "five"', {"lines_kept": 1, "sentences": 1}),
        ("one two three four \u201cfive\u201d", "", {"lines_no_end_mark": 1}),
        ("one two three four.", "", {"lines_too_few_words": 1}),
        (f"one two three four {LONG}.", "", {"lines_too_long_word": 1}),
        ("one two three four five. [1]", "", {"lines_no_end_mark": 1}),  # a blank is left at the end
        ("one two three four five.[1]", "one two three four five.", {"lines_kept": 1, "sentences": 1}),
        ("one two three [12] four.", "", {"lines_too_few_words": 1}),  # words are counted without citations
        ("please enable JavaScript to go on.", "", {"lines_javascript": 1}),
        ("please enable java[edit]script { to go on.", "", {"lines_javascript": 1}),
        ("we would like to Use Cookies here.", "", {"lines_policy": 1}),
        ("we { would like to use cookies.", "", {"curly_bracket": 1, "lines_policy": 1}),
        ("lorem ipsum dolor sit {", "", {"lines_no_end_mark": 1}),
    ],
)  # fmt: skip
def test_t5_keeps_or_drops_a_line(text: str, left: str, noticed: dict[str, int]) -> None:
    assert edited(c4_t5.LINES, text) == (left, noticed)


@pytest.mark.parametrize(
    ("text", "left", "noticed"),
    [
        ("one two three.", "one two three.", {"lines_kept": 1, "sentences": 1}),
        ("one two.", "", {"lines_too_few_words": 1}),
        ("one two three", "", {"lines_no_end_mark": 1}),
        ("one two three...", "one two three...", {"lines_kept": 1, "sentences": 1}),
        ("one two \u201cthree\u201d", "one two \u201cthree\u201d", {"lines_kept": 1, "sentences": 1}),
        (f"one two {LONG}.", f"one two {LONG}.", {"lines_kept": 1, "sentences": 1}),
    ],
)  # fmt: skip
def test_the_paper_keeps_or_drops_a_line(text: str, left: str, noticed: dict[str, int]) -> None:
    assert edited(c4_t5.PAPER_LINES, text) == (left, noticed)


GOOD = "one two three four five. "


@pytest.mark.parametrize(
    ("text", "t5", "paper"),
    [
        (GOOD * 5, None, None),
        (GOOD * 3, None, "sentences"),
        (GOOD * 2, "sentences", "sentences"),
        ("\n".join([GOOD * 5, "lorem ipsum dolor sit amet.", "a { b c d."]), "lorem_ipsum_first", "lorem_ipsum_first"),
        ("\n".join([GOOD * 5, "a { b c d.", "lorem ipsum dolor sit amet."]), "curly_bracket", "curly_bracket"),
        ("\n".join([GOOD * 5, "{ b c d."]), None, "curly_bracket"),
        ("", "sentences", "sentences"),
    ],
)
def test_a_page_is_dropped_for_the_first_line_that_condemns_it(text: str, t5: str | None, paper: str | None) -> None:
    assert (reason(c4_t5.QUALITY, text), reason(c4_t5.PAPER_QUALITY, text)) == (t5, paper)


def test_a_page_of_190_000_characters_is_kept() -> None:
    page = f"{GOOD * 5}\n".ljust(190_000, "x")
    assert reason(c4_t5.QUALITY, page) is None
    assert reason(c4_t5.QUALITY, page + "x") == "characters"


def expected(text: str) -> tuple[str | None, str | None]:
    """Return the reason of a drop and the text, one of them None: stops at the first line that condemns."""
    if len(text) > 190_000:
        return "characters", None
    kept, sentences = [], 0
    for line in map(str.strip, text.splitlines()):
        if any(len(word) > 1000 for word in line.split()):
            continue
        clean = re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", line)
        if clean[-1:] not in tuple('.?!"') or clean[-3:] == "..." or len(clean.split()) < 5:
            continue
        if "lorem ipsum" in clean.lower():
            return "lorem_ipsum", None
        if "javascript" in clean.lower():
            continue
        if "{" in clean:
            return "curly_bracket", None
        if re.search("terms of use|privacy policy|cookie policy|use(s|) cookies|use of cookies", clean.lower()):
            continue
        sentences += unicode_words().sentences([clean])[0]
        kept.append(clean)
    return ("sentences", None) if sentences < 3 else (None, "\n".join(kept).strip())


PARTS = [
    "one two three ",
    "four five",
    ".",
    "!",
    '"',
    "...",
    "[3]",
    "[edit]",
    "{",
    "Lorem ipsum",
    "javaScript",
    "use of",
]
LINES = st.lists(st.sampled_from([*PARTS, " cookies", " ", "six. Seven ", LONG, "日"]), max_size=8).map("".join)


@settings(deadline=None)
@given(st.lists(LINES, max_size=12), st.sampled_from(["\n", "\r\n", "\u2028"]))
@example([GOOD, GOOD, GOOD], "\n")
def test_t5_decides_as_a_walk_that_stops_at_the_first_reason(lines: list[str], between: str) -> None:
    text = between.join(lines)
    dropped, left = expected(text)
    found = reason(c4_t5.QUALITY, text)
    assert (found.removesuffix("_first") if found else None) == dropped
    if left is not None:
        assert edited(c4_t5.LINES, text)[0] == left
