"""A tokenizer and models small enough for any test, with weights large enough that their choices differ."""

from __future__ import annotations

from functools import cache

import torch

from proxy_eval.llama import Shape, Weights, initial
from proxy_eval.tokenizer import Tokenizer, train_tokenizer

SENTENCES = (
    "The old miller carried a heavy sack of grain across the narrow bridge.",
    "Every winter the river froze, and the children counted the days until spring.",
    "A careful baker measured the flour twice before she opened the oven.",
    "It's said that 1,200 people crossed the market square in 1987 alone.",
)


@cache
def tiny_tokenizer() -> Tokenizer:
    """A byte-level BPE of 320 tokens."""
    return train_tokenizer([sentence for sentence in SENTENCES for _ in range(4)], 320)


def tiny_shape(context: int = 32) -> Shape:
    """Two layers of 32 hidden units with grouped queries."""
    return Shape(
        vocabulary=tiny_tokenizer().vocabulary,
        hidden=32,
        layers=2,
        heads=4,
        kv_heads=2,
        feedforward=48,
        context=context,
        init_std=0.3,
    )


def tiny_weights(shape: Shape, seeds: tuple[int, ...] = (1, 2), dtype: torch.dtype = torch.float64) -> Weights:
    """A model for each seed."""
    return initial(shape, seeds, dtype=dtype)
