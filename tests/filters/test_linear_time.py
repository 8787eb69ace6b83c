"""Twice the text takes twice the time: no family, kernel or splitter has a step that grows faster than its input."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest

from filters import kernels, kernels_chunks, kernels_lines
from filters.batch import TextBatch
from filters.catalogue import FAMILIES
from filters.rule import Family
from filters.splitter import WordSplitter
from filters.tokens import Lexicon, Vocabulary, code_points
from pipelines.words import spacy_english, unicode_words
from tests.growth import MOST, Work, growth

pytestmark = [pytest.mark.timed, pytest.mark.usefixtures("kept_memory")]

TIMES, MOST_TIMES = 8, 20
"""So many times a small input may take so much longer. It is small enough to fit some cache, and eight times it is not:
10,000 words of the repetition kernel take 90 ns each, 80,000 take 300. With a step that is quadratic they take 64 times
as long.
"""

WHITESPACE = WordSplitter(
    name="whitespace in tests",
    words=lambda texts: [text.split() for text in texts],
    sentences=lambda lines: [1] * len(lines),
    sentence_ends=frozenset({"."}),
    chunk_local=True,
)
SPREAD = 0x9E3779B1  # odd: its multiples run through all numbers of 24 bits, and look random
SHAPES: dict[str, Callable[[int], str]] = {
    "one word again and again": lambda size: "word " * (size // 5),
    "words all different": lambda size: " ".join(f"{number * SPREAD % (1 << 24):06x}" for number in range(size // 7)),
    "a sentence again and again": lambda size: "The end of it is here. " * (size // 23),
    "one chunk": lambda size: "x" * size,
    "dots": lambda size: "." * size,
    "brackets": lambda size: "[" * (size // 2) + "]" * (size // 2),
    "braces and lorem ipsum": lambda size: "lorem ipsum { a javascript " * (size // 27),
    "line feeds": lambda size: "\n" * size,
    "short lines": lambda size: "a b c\n" * (size // 6),
    "lines all different": lambda size: "".join(f"line {number} of it.\n" for number in range(size // 19)),
    "carriage returns": lambda size: "\r\n" * (size // 2),
    "white space": lambda size: " \t" * (size // 2),
    "emoji": lambda size: "\U0001f600" * size,
    "ideographs": lambda size: "語" * size,
}


def grows(prepare: Callable[[int], Work], size: int) -> bool:
    """Whether work on a small input grows faster than it."""
    return growth(prepare, size, TIMES, MOST_TIMES) > MOST_TIMES


def measuring(family: Family, shape: Callable[[int], str]) -> Callable[[int], Work]:
    def prepare(size: int) -> Work:
        batch = TextBatch([shape(size)], Vocabulary(WHITESPACE))
        return lambda: family.measure(batch)

    return prepare


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_takes_linear_time(family: Family) -> None:
    assert [name for name, shape in SHAPES.items() if grows(measuring(family, shape), 50_000)] == []


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("shape", ["a sentence again and again", "one chunk", "dots"])
def test_a_family_takes_linear_time_for_64_mb_in_one_line(family: Family, shape: str) -> None:
    assert growth(measuring(family, SHAPES[shape]), 32 << 20) <= MOST


@lru_cache(maxsize=2)
def coded(size: int) -> kernels.Codes:
    """Codes of words as they come in a language: most of them few words, and some phrases that come again."""
    rng = np.random.default_rng(1)
    codes = (rng.pareto(1.0, size) % 50_000).astype(np.int32)
    codes[size // 2 :][: size // 4] = codes[: size // 4]
    return codes


TABLE = 50_000
LENGTHS = np.arange(TABLE, dtype=np.int32) % 12 + 1
HASHES = np.arange(1, TABLE + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
FLAGS = (np.arange(TABLE) % 512).astype(np.uint16)
STARTS = np.arange(TABLE + 1, dtype=np.int64)
KERNELS: dict[str, Callable[[kernels.Codes, kernels.Offsets], object]] = {
    "repetition": lambda codes, offsets: kernels.repetition(codes, offsets, LENGTHS, HASHES, HASHES),
    "word_counts": lambda codes, offsets: kernels.word_counts(codes, offsets, LENGTHS, FLAGS, np.uint16(1)),
    "sentence_counts": lambda codes, offsets: kernels.sentence_counts(codes, offsets, FLAGS),
    "gathered": lambda codes, offsets: kernels.gathered(codes, offsets, STARTS, LENGTHS),
    "summed": lambda codes, offsets: kernels.summed(codes, offsets, LENGTHS),
}


def kernel_work(name: str) -> Callable[[int], Work]:
    def prepare(size: int) -> Work:
        codes, offsets = coded(size), np.array([0, size], np.int64)
        return lambda: KERNELS[name](codes, offsets)

    return prepare


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_takes_linear_time(name: str) -> None:
    assert not grows(kernel_work(name), 20_000)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_takes_linear_time_up_to_ten_million_words(name: str) -> None:
    assert growth(kernel_work(name), 5_000_000) <= MOST


def chunked(shape: Callable[[int], str]) -> Callable[[int], Work]:
    def prepare(size: int) -> Work:
        points, offsets = code_points([shape(size)])

        def work() -> None:
            Lexicon().chunked(points, offsets, marked=True)
            kernels_chunks.cut(points, offsets, False)
            kernels_lines.worded_lines(points, offsets)

        return work

    return prepare


def test_cutting_and_numbering_take_linear_time() -> None:
    assert [name for name, shape in SHAPES.items() if grows(chunked(shape), 100_000)] == []


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shape", ["words all different", "one chunk", "white space"])
def test_cutting_and_numbering_take_linear_time_for_64_mb(shape: str) -> None:
    assert growth(chunked(SHAPES[shape]), 32 << 20) <= MOST


UNITS = ["!", "'s", "http://a.b/", "a@b.", ":((", "(x:( ", "word, ", "5km ", "a-", "中。", "a:", "\U0001f600", "..a"]


@pytest.mark.parametrize("splitter", [spacy_english(), unicode_words()], ids=lambda splitter: splitter.name)
def test_a_splitter_takes_linear_time(splitter: WordSplitter) -> None:
    def encoding(unit: str) -> Callable[[int], Work]:
        def prepare(size: int) -> Work:
            vocabulary, text = Vocabulary(splitter), unit * (size // len(unit))
            return lambda: vocabulary.encode([text])

        return prepare

    assert [unit for unit in UNITS if grows(encoding(unit), 10_000)] == []
