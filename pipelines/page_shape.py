"""What a page is like before a parser meets it: nesting, attributes and elements counted in one linear walk over its
bytes.

lexbor and lxml take time quadratic in the attributes of one tag (20,000: 0.8 s; 100,000: no answer in 15 s), and
100,000 nested elements give nothing or no answer. These counts are what tells such pages, the same on every machine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from pipelines.recipe import Limits


def _packed(*names: str) -> npt.NDArray[np.uint64]:
    return np.array([int.from_bytes(name.encode(), "big") for name in names], np.uint64)


# Elements whose end tag may not be left out: with p, li, td, tr or option a long honest list would look deep.
NESTING = _packed(
    *(
        "div",
        "span",
        "table",
        "ul",
        "ol",
        "dl",
        "a",
        "b",
        "i",
        "u",
        "em",
        "font",
        "section",
        "article",
        "center",
        "strong",
    ),
    *(
        "form",
        "small",
        "big",
        "sub",
        "sup",
        "details",
        "fieldset",
        "nav",
        "main",
        "header",
        "footer",
        "aside",
        "button",
    ),
)
RAW_TEXT = _packed("script", "style")
LESS, MORE, SLASH, EQUALS, QUOTE, APOSTROPHE, BANG, DASH = b"<>/=\"'!-"


@njit(cache=True)
def _tag_end(html: npt.NDArray[np.uint8], at: int) -> tuple[int, int]:
    """The index of the `>` that ends the tag (or the end of the page), and how many attributes it has at least."""
    attributes, quote, before = 0, 0, SLASH
    while at < len(html):
        byte = html[at]
        if quote:
            quote = 0 if byte == quote else quote
        elif byte == MORE:
            break
        elif byte in (QUOTE, APOSTROPHE) and before == EQUALS:
            quote = byte
        elif byte > 32 and byte != SLASH and byte != EQUALS and (html[at - 1] <= 32 or html[at - 1] == SLASH):
            attributes += before != EQUALS
        if byte > 32:
            before = byte
        at += 1
    return at, attributes


@njit(cache=True)
def _name(html: npt.NDArray[np.uint8], at: int) -> tuple[int, np.uint64]:
    """The index after the tag name that begins here, and its letters packed big-endian in lower case."""
    packed = np.uint64(0)
    while at < len(html) and (97 <= (html[at] | 32) <= 122 or 48 <= html[at] <= 57):
        packed = (packed << np.uint64(8)) | np.uint64(html[at] | 32)
        at += 1
    return at, packed


@njit(cache=True)
def _after(html: npt.NDArray[np.uint8], at: int, first: int, second: int, third: int) -> int:
    """The index of the next three bytes, letters in lower case, or the end of the page."""
    while at + 2 < len(html):
        if html[at] == first and (html[at + 1] | 32) == (second | 32) and (html[at + 2] | 32) == (third | 32):
            return at
        at += 1
    return len(html)


@njit(cache=True)
def _one_of(name: np.uint64, names: npt.NDArray[np.uint64]) -> bool:
    return bool((names == name).any())


@njit(cache=True)
def shape(
    html: npt.NDArray[np.uint8], nesting: npt.NDArray[np.uint64], raw_text: npt.NDArray[np.uint64]
) -> tuple[int, int, int]:
    """Count (deepest nesting, most attributes of one tag, start tags) in one walk over the bytes.

    Comments and the insides of `raw_text` elements are passed over. Nesting is the running difference of start and
    end tags of the elements in `nesting`.
    """
    depth, deepest, most, elements, at = 0, 0, 0, 0, 0
    while at + 1 < len(html):
        if html[at] != LESS:
            at += 1
            continue
        if html[at + 1] == BANG and at + 3 < len(html) and html[at + 2] == DASH and html[at + 3] == DASH:
            at = _after(html, at + 4, DASH, DASH, MORE)
            continue
        closing = html[at + 1] == SLASH
        after, name = _name(html, at + 2 if closing else at + 1)
        if name == 0:
            at += 1
            continue
        at, attributes = _tag_end(html, after)
        most = max(most, attributes)
        elements += not closing
        if _one_of(name, nesting):
            depth = max(0, depth - 1) if closing else depth + 1
            deepest = max(deepest, depth)
        elif not closing and _one_of(name, raw_text):
            first = int((name >> np.uint64(8 * 5)) if name == raw_text[0] else (name >> np.uint64(8 * 4)))
            at = _after(html, at, LESS, SLASH, first)
    return deepest, most, elements


def shape_refusal(html: bytes, limits: Limits) -> str | None:
    """The reason why no parser may meet these bytes, or None. One walk over them, linear."""
    depth, attributes, elements = shape(np.frombuffer(html, np.uint8), NESTING, RAW_TEXT)
    if depth > limits.max_depth:
        return "nesting"
    if attributes > limits.max_attributes:
        return "attributes"
    return "elements" if elements > limits.max_elements else None
