"""On real text a 1M model knows more than which token follows which."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from numpy.typing import NDArray

from proxy_eval.hyperparameters import hyperparameters
from proxy_eval.llama import shape_of, token_losses
from proxy_eval.panel import pieces
from proxy_eval.steps import Member, Training
from proxy_eval.tokenizer import encode, train_tokenizer
from proxy_eval.train import train
from tests.proxy_eval.small_runs import ArrayStream

CORPORA = Path(__file__).parents[3] / "shared" / "data" / "corpora"
DOMAINS = ("openstax_textbooks", "english_novels_100", "reuters21578", "gov_blog_18f")
VOCABULARY = 4096
BUDGET = 5_000_000
CHARACTERS = 8_000_000  # of each domain at most: more than four letters for each token of the budget
HELD_OUT = 40  # one text in so many

Tokens = NDArray[np.int64]


def texts_of(domain: str) -> Iterator[str]:
    """Pieces of the domain's documents of some two thousand characters, as many as CHARACTERS allow."""
    left = CHARACTERS
    with gzip.open(CORPORA / f"{domain}.jsonl.gz", "rt", encoding="utf-8", newline="\n") as lines:
        for line in lines:
            for piece in pieces(json.loads(line)["text"], 2000):
                yield piece
                left -= len(piece)
                if left <= 0:
                    return


def bigram_losses(read: Tokens, asked: Tokens) -> NDArray[np.float64]:
    """Nats of each token but the first, by what follows what in `read`: interpolated Kneser-Ney with one discount.

    Kneser & Ney 1995, as Chen & Goodman 1999, section 2.7, have it; the discount is n1 / (n1 + 2 n2).
    """
    counts = np.bincount(read[:-1] * VOCABULARY + read[1:], minlength=VOCABULARY**2).reshape(VOCABULARY, VOCABULARY)
    once, twice = (np.count_nonzero(counts == times) for times in (1, 2))
    discount = once / (once + 2 * twice)
    pairs = counts > 0
    continued = (pairs.sum(axis=0) + 1) / (pairs.sum() + VOCABULARY)  # a token that follows nothing is possible, too
    before, after = asked[:-1], asked[1:]
    seen = np.maximum(counts.sum(axis=1)[before], 1)
    given_up = np.where(counts.sum(axis=1)[before] > 0, discount * pairs.sum(axis=1)[before] / seen, 1.0)
    probability = np.maximum(counts[before, after] - discount, 0) / seen + given_up * continued[after]
    return -np.log(probability)


def test_a_bigram_model_is_a_distribution() -> None:
    read = np.random.default_rng(1).integers(50, size=2000)
    for token in (7, 60):  # one that was read, and one that was not
        pairs = np.stack([np.full(VOCABULARY, token), np.arange(VOCABULARY)], axis=1).ravel()
        assert np.exp(-bigram_losses(read, pairs)[::2]).sum() == pytest.approx(1.0)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("default")  # TorchDynamo and Inductor warn of themselves
@pytest.mark.skipif(not CORPORA.is_dir(), reason="needs the corpora of shared/data")
def test_a_model_of_1m_beats_smoothed_bigrams_at_five_million_tokens() -> None:
    texts = sorted(
        {text for domain in DOMAINS for text in texts_of(domain)},
        key=lambda text: xxhash.xxh3_64_intdigest(text.encode()),
    )
    held, rest = texts[: len(texts) // HELD_OUT], texts[len(texts) // HELD_OUT :]
    tokenizer = train_tokenizer(rest[:4000], VOCABULARY)

    def row(some: list[str]) -> Tokens:
        tokens, lengths = encode(tokenizer, some)
        return np.concatenate([[tokenizer.end], np.insert(tokens.astype(np.int64), np.cumsum(lengths), tokenizer.end)])

    shape = shape_of("1M", VOCABULARY)
    read, asked = row(rest)[: BUDGET + shape.context + 1], row(held)
    assert len(read) > BUDGET
    chosen = hyperparameters("1M", shape, BUDGET)
    trained = train(
        Training(shape=shape, tokens=BUDGET, sequences=chosen.sequences, schedule=chosen.schedule),
        [Member(stream=ArrayStream(read, shape.context), seed=1, learning_rate=chosen.learning_rate)],
    )
    windows = (len(asked) - 1) // shape.context
    tokens, targets = ArrayStream(asked, shape.context).sequences(0, windows)
    with torch.no_grad():
        nats = [
            token_losses(trained.endpoints[-1].weights, shape, torch.tensor(some)[None], torch.tensor(wanted)[None])
            for some, wanted in zip(np.array_split(tokens, 64), np.array_split(targets, 64), strict=True)
        ]
    ours = float(torch.cat([one.flatten() for one in nats]).double().mean())
    theirs = float(bigram_losses(read[: BUDGET + 1], asked[: windows * shape.context + 1]).mean())
    bits = len(asked) / sum(len(text.encode()) for text in held) / math.log(2)
    print(f"bits per byte: 1M {ours * bits:.3f}, bigrams {theirs * bits:.3f}")
    assert ours < theirs
