"""Two texts word by word: which stretches they share and where they differ, in bounded time whatever the texts are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

CHARACTERS = 1 << 20
"""Of each text that are cut into words: 1 s where every other one is a blank."""
COMPARED = 3_000
"""Words of each text that are put beside each other, from the first that differs on: 18 MB and 0.1 s."""
STRAY = 3
"""Words in a row that two texts may share by chance between longer differences: they count as differing, too."""
# Scripts that set no blanks between words: Thai and Lao, Burmese, Khmer, kana, Han. Each character stands for itself.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(rf"(?P<word>[{UNSPACED}]|[^\s{UNSPACED}]+)(?P<blank>\s?)")

Numbers = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Words of the first and of the second text, each with the blank that follows it if any does.

    equal: the same words, perhaps with other blanks. changed: other words, on one side perhaps none. uncompared: what
    lies beyond `COMPARED` words, or whole beyond `CHARACTERS`.
    """

    kind: Literal["equal", "changed", "uncompared"]
    first: tuple[str, ...]
    second: tuple[str, ...]


def word_diff(first: str, second: str) -> tuple[Stretch, ...]:
    """Both texts from their first word to their last, cut where they begin and where they cease to differ.

    Between what they share at both ends a longest common subsequence is what is equal (Wagner and Fischer, "The
    String-to-String Correction Problem", JACM 1974). Its time is the product of the lengths, which are bounded;
    difflib's grows with the cube of them where the texts have few distinct words.
    """
    one, other = words_of(first[:CHARACTERS]), words_of(second[:CHARACTERS])
    left, right = numbered(one, other)
    begin = shared(left, right)
    end = shared(left[begin:][::-1], right[begin:][::-1])
    last = len(one) - end, len(other) - end
    stop = min(begin + COMPARED, last[0]), min(begin + COMPARED, last[1])
    in_one, in_other = common(left[begin : stop[0]], right[begin : stop[1]])
    found = [stretch("equal", one[:begin], other[:begin])]
    found += settled(cut(one[begin : stop[0]], other[begin : stop[1]], in_one, in_other))
    found.append(stretch("uncompared", one[stop[0] : last[0]], other[stop[1] : last[1]]))
    found.append(stretch("equal", one[last[0] :], other[last[1] :]))
    found.append(stretch("uncompared", rest(first), rest(second)))
    return tuple(one for one in found if one.first or one.second)


def rest(text: str) -> tuple[str, ...]:
    """What is not cut into words, where there is any."""
    return (text[CHARACTERS:],) if len(text) > CHARACTERS else ()


def words_of(text: str) -> list[str]:
    """The words of a text, each with one blank where white space follows it."""
    return [found["word"] + (" " if found["blank"] else "") for found in WORD.finditer(text)]


def stretch(kind: Literal["equal", "changed", "uncompared"], first: Sequence[str], second: Sequence[str]) -> Stretch:
    """A stretch of these words."""
    return Stretch(kind=kind, first=tuple(first), second=tuple(second))


def numbered(first: Sequence[str], second: Sequence[str]) -> tuple[Numbers, Numbers]:
    """A number for each word of both, the same for words that are equal but for the blank after them."""
    numbers: dict[str, int] = {}
    left, right = (
        np.array([numbers.setdefault(word.rstrip(" "), len(numbers)) for word in words], np.int32)
        for words in (first, second)
    )
    return left, right


def shared(left: Numbers, right: Numbers) -> int:
    """With how many equal words both begin."""
    length = min(len(left), len(right))
    differing = np.flatnonzero(left[:length] != right[:length])
    return int(differing[0]) if len(differing) else length


def common(left: Numbers, right: Numbers) -> tuple[Mask, Mask]:
    """Which words of either belong to a longest common subsequence."""
    lengths = np.zeros((len(left) + 1, len(right) + 1), np.uint16)
    for row, word in enumerate(left.tolist()):
        longest = np.maximum(lengths[row, 1:], lengths[row, :-1] + (right == word))
        np.maximum.accumulate(longest, out=lengths[row + 1, 1:])
    masks = np.zeros(len(left), np.bool_), np.zeros(len(right), np.bool_)
    row, column = len(left), len(right)
    while row and column:
        if left[row - 1] == right[column - 1]:
            row, column = row - 1, column - 1
            masks[0][row] = masks[1][column] = True
        elif lengths[row - 1, column] >= lengths[row, column - 1]:
            row -= 1
        else:
            column -= 1
    return masks


def cut(first: Sequence[str], second: Sequence[str], in_first: Mask, in_second: Mask) -> list[Stretch]:
    """Stretches in turn equal and changed. The words under both masks are equal one by one."""
    found: list[Stretch] = []
    at = [0, 0]
    while at[0] < len(first) or at[1] < len(second):
        tails = in_first[at[0] :], in_second[at[1] :]
        equal = [run(tail, True) for tail in tails]
        # As many words are under either mask, but a difference may cut one of the two runs.
        steps = [min(equal)] * 2 if min(equal) else [run(tail, False) for tail in tails]
        ends = at[0] + steps[0], at[1] + steps[1]
        kind: Literal["equal", "changed"] = "equal" if min(equal) else "changed"
        found.append(stretch(kind, first[at[0] : ends[0]], second[at[1] : ends[1]]))
        at = list(ends)
    return found


def run(mask: Mask, value: bool) -> int:
    """With how many of this value a mask begins."""
    other = np.flatnonzero(mask != value)
    return int(other[0]) if len(other) else len(mask)


def settled(found: Sequence[Stretch]) -> list[Stretch]:
    """The stretches, stray equal words between two longer differences made part of one difference."""
    done: list[Stretch] = []
    for one in found:
        done.append(one)
        while len(done) > 2 and is_stray(*done[-3:]):
            parts = done[-3:]
            done[-3:] = [
                stretch("changed", sum((part.first for part in parts), ()), sum((part.second for part in parts), ()))
            ]
    return done


def is_stray(before: Stretch, between: Stretch, after: Stretch) -> bool:
    """True where `between` is equal, and shorter than the differences on both its sides."""
    if between.kind != "equal" or len(between.first) > STRAY:
        return False
    return all(len(between.first) < max(len(side.first), len(side.second)) for side in (before, after))
