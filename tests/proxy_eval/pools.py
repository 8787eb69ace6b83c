"""Small pools of texts, as tests of what reads them need them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import xxhash

from proxy_eval.pool import Pool, read_pool, write_part, write_pool
from proxy_eval.tokenizer import Tokenizer, train_tokenizer

DOCUMENTS = 400
WORDS = ["the", "mill", "by", "the river", "ground", "barley,", "oats", "and", "rye;", "nobody", "knew", "when."]


def numbered(number: int, *, words: int = 12) -> str:
    """A text of its own for each number."""
    chosen = [WORDS[(number * 7 + at * (number % 5 + 1)) % len(WORDS)] for at in range(words)]
    return f"{number}: {' '.join(chosen)}"


@cache
def tokenizer() -> Tokenizer:
    """A byte-level BPE of 300 tokens."""
    return train_tokenizer([numbered(number) for number in range(40)], 300)


def key_of(name: object) -> bytes:
    """A key of 16 bytes."""
    return xxhash.xxh3_128_digest(str(name).encode())


def pool_of(folder: Path, *parts: Sequence[str | None], key: str = "{}") -> Pool:
    """A pool of these parts; the key of document i through all parts is that of `key` with i in it."""
    facts, first = [], 0
    for number, texts in enumerate(parts):
        keys = [key_of(key.format(first + at)) for at in range(len(texts))]
        facts.append(write_part(folder, number, tokenizer(), [(keys, texts)]))
        first += len(texts)
    write_pool(folder, tokenizer(), facts, {"view": "raw"})
    return read_pool(folder)


def numbered_pool(folder: Path) -> Pool:
    """A pool of DOCUMENTS, each another text, but for one without."""
    return pool_of(folder, [None, *(numbered(at) for at in range(DOCUMENTS - 1))])
