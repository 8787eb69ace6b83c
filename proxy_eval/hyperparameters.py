"""Batch, learning rate and warm-up of a size, and the learning-rate factor of a schedule: pure functions, in tokens.

From 10M up the rule of OLMo's ladder (`src/ladder/ladder.py`; arXiv:2412.04403), by which DataDecide's 25 recipes were
trained (arXiv:2504.11393). Its N counts every weight, the tied embedding once: only so do the published rates come out.
Below 10M that rule leaves some 76 steps for 5M tokens; there batches are small and the learning rate is the one with
the largest ratio of a known effect to the spread over seeds, not the one with the smallest loss: with 1.4M weights and
1M tokens the bits per byte of three seeds spread by 0.1 % at 1e-3, those of six by 1.8 % at 4e-3. `fineweb-1.7B` is as
FineWeb's ablations were (huggingface/nanotron, launch script of "fineweb-exps").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from filters.errors import InputError
from proxy_eval.llama import Shape

TINY = ("1M", "4M")
RULE_WEIGHTS = 108e6  # the model at which the rule's rate is 0.0047 and its batch 160 sequences
RULE_CONTEXT = 2048
WARMUP_SHARE = 0.05  # no warm-up is longer than this share of the tokens


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Linear warm-up over `warmup` tokens; then a cosine to `final`, or 1 and a decay to it over the last `decay`."""

    warmup: int
    kind: Literal["cosine", "wsd"] = "cosine"
    final: float = 0.1
    decay: float = 0.2

    def __post_init__(self) -> None:
        if self.warmup < 0 or not 0 <= self.final <= 1 or not 0 < self.decay < 1:
            raise InputError(f"{self}: warmup is a count of tokens, final a share, decay between 0 and 1")


def wsd(warmup: int) -> Schedule:
    """Warm-up, stable, decay to 0 over the last fifth (arXiv:2405.18392, section 3: 20 % is as good as a cosine)."""
    return Schedule(warmup=warmup, kind="wsd", final=0.0)


def settled(schedule: Schedule, budget: int) -> float:
    """Tokens up to which the learning rate does not depend on the budget: runs of several budgets share them."""
    return (1 - schedule.decay) * budget if schedule.kind == "wsd" else min(schedule.warmup, budget)


def factor(schedule: Schedule, tokens: float, budget: int) -> float:
    """What the peak learning rate is multiplied by when `tokens` of the budget have been seen.

    A step takes the factor at the middle of its tokens: neither the first step nor the last is lost to a rate of 0.
    The decay of "wsd" is 1 - sqrt, better than linear in arXiv:2405.18392, figure 5.
    """
    if tokens < schedule.warmup:
        return tokens / schedule.warmup
    start = settled(schedule, budget)
    if tokens <= start:
        return 1.0
    done = min(1.0, (tokens - start) / (budget - start))
    left = 1 - math.sqrt(done) if schedule.kind == "wsd" else (1 + math.cos(math.pi * done)) / 2
    return schedule.final + (1 - schedule.final) * left


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Sequences of one optimizer step, peak learning rate, and the schedule."""

    sequences: int
    learning_rate: float
    schedule: Schedule


def hyperparameters(size: str, shape: Shape, tokens: int) -> Hyperparameters:
    """What a model of this size is trained with on so many tokens, unless the user says otherwise."""
    if size == "fineweb-1.7B":
        batch = 1024 * 2048  # tokens; micro 4 x accumulation 4 x 64 GPUs
        return Hyperparameters(
            sequences=max(1, batch // shape.context),
            learning_rate=3e-4,
            schedule=Schedule(warmup=min(500 * batch, int(WARMUP_SHARE * tokens))),
        )
    if size in TINY:
        return Hyperparameters(sequences=8, learning_rate=1e-3, schedule=Schedule(warmup=int(WARMUP_SHARE * tokens)))
    ratio = shape.parameters / RULE_WEIGHTS
    sequences = max(32, 32 * round(160 * ratio ** (2 / 3) / 32))
    return Hyperparameters(
        sequences=max(1, sequences * RULE_CONTEXT // shape.context),
        learning_rate=0.0047 * ratio ** (-1 / 3),
        schedule=Schedule(warmup=min(shape.parameters, int(WARMUP_SHARE * tokens))),
    )
