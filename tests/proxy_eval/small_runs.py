"""Runs that last milliseconds: a tiny Llama, text with a pattern to learn, and streams over arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from proxy_eval.hyperparameters import Schedule
from proxy_eval.llama import Shape, Weights
from proxy_eval.steps import Member, Training

SHAPE = Shape(vocabulary=48, hidden=32, layers=2, heads=4, kv_heads=2, feedforward=48, context=16)
STEP = 4 * SHAPE.context  # tokens


@dataclass(frozen=True)
class ArrayStream:
    """Windows of an array of tokens, each token a target once; whoever reads beyond its end fails."""

    text: NDArray[np.int64]
    context: int = SHAPE.context

    def sequences(self, first: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        span = self.text[first * self.context : (first + count) * self.context + 1]
        return span[:-1].reshape(count, self.context), span[1:].reshape(count, self.context)


def text(seed: int, tokens: int = 60 * STEP) -> NDArray[np.int64]:
    """Tokens of which each follows from the one before it in two of three cases."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(SHAPE.vocabulary, size=tokens + SHAPE.context + 1)
    follows = rng.random(len(drawn)) < 2 / 3
    for at in range(1, len(drawn)):
        if follows[at]:
            drawn[at] = (5 * drawn[at - 1] + 1) % SHAPE.vocabulary
    return drawn


def member(seed: int, *, rate: float = 1e-3, of: int | None = None) -> Member:
    """A member of this seed that reads the text `of` a seed, by default its own."""
    return Member(stream=ArrayStream(text(seed if of is None else of)), seed=seed, learning_rate=rate)


def training(**changes: Any) -> Training:
    """Ten and a half steps of four sequences in float32, unless changed."""
    values = {
        "shape": SHAPE,
        "tokens": 10 * STEP + STEP // 2,
        "sequences": 4,
        "schedule": Schedule(warmup=2 * STEP),
        "precision": "float32",
        "compile": False,
    }
    return Training(**{**values, **changes})  # type: ignore[arg-type]


def largest_difference(ours: Weights, theirs: Weights) -> float:
    """The largest difference of two weights of one name."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours)


def row(weights: Weights, arm: int) -> Weights:
    """One model of a stack, as a stack of one."""
    return {name: tensor[arm : arm + 1] for name, tensor in weights.items()}


def same_bits(ours: Weights, theirs: Weights) -> bool:
    """Whether every weight is the same, bit for bit."""
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
