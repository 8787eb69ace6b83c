"""The counts that tell a hostile page before a parser meets it."""

import time

import numpy as np
import pytest

from pipelines.page_shape import NESTING, RAW_TEXT, shape, shape_refusal
from pipelines.recipe import Limits


def counts(html: str) -> tuple[int, int, int]:
    return tuple(int(count) for count in shape(np.frombuffer(html.encode(), np.uint8), NESTING, RAW_TEXT))


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("", (0, 0, 0)),
        ("<", (0, 0, 0)),
        ("a < b", (0, 0, 0)),
        ("<p>one<p>two", (0, 0, 2)),
        ("<div><div></div></div><div>", (2, 0, 3)),
        ("<DIV><Span></SPAN></dIv>", (2, 0, 2)),
        ("<a href=\"x>y\" title='<div>' checked>", (1, 3, 1)),
        ('<img src = "a b c" alt="d">', (0, 2, 1)),
        ("<br/><br />", (0, 0, 2)),
        ("<script>if (a<b && c<d) '<div><div>'</script><div>", (1, 0, 2)),
        ("<style>a<b<div></style><div>", (1, 0, 2)),
        ("<!-- <div><div> --><div>", (1, 0, 1)),
        ("<div", (1, 0, 1)),
        ("<div a b", (1, 2, 1)),
    ],
)
def test_counts_of_nesting_attributes_and_elements(html: str, expected: tuple[int, int, int]) -> None:
    assert counts(html) == expected


def test_hostile_shapes_are_refused_by_name_and_honest_ones_pass() -> None:
    limits = Limits()
    assert shape_refusal(b"<div>" * 100_000, limits) == "nesting"
    assert shape_refusal(b"<p " + b"a=1 " * 100_000 + b">", limits) == "attributes"
    assert shape_refusal(b"<table>" + b"<tr><td>x" * 100_000, limits) == "elements"
    assert shape_refusal(b"<ul>" + b"<li>x" * 20_000 + b"</ul>", limits) is None


@pytest.mark.timed
def test_the_walk_is_linear() -> None:
    def seconds(count: int) -> float:
        html = b"<p " + b"a=1 " * count + b">" + b"<!--" * count
        start = time.process_time()
        shape_refusal(html, Limits())
        return time.process_time() - start

    seconds(10)
    once, twice = (min(seconds(count) for _ in range(5)) for count in (1_000_000, 2_000_000))
    assert twice < 3 * once
