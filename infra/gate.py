"""What the cheap gate cost: the share of pages that it stopped wrongly, with an upper bound."""

from __future__ import annotations

import math
from collections.abc import Mapping


def upper_bound(found: int, tried: int, confidence: float = 0.95) -> float:
    """The largest probability under which `found` or fewer of `tried` would still be seen in 1 - confidence of cases.

    The one-sided bound of Clopper and Pearson, Biometrika 26 (1934); 1 where nothing was tried.
    """
    if tried == 0 or found >= tried:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if at_most(found, tried, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def at_most(found: int, tried: int, probability: float) -> float:
    """P(X <= found) for X binomial(tried, probability)."""
    if probability in (0.0, 1.0):
        return 1.0 if probability == 0.0 else 0.0
    logs = (
        math.lgamma(tried + 1)
        - math.lgamma(count + 1)
        - math.lgamma(tried - count + 1)
        + count * math.log(probability)
        + (tried - count) * math.log1p(-probability)
        for count in range(found + 1)
    )
    return math.fsum(math.exp(value) for value in logs)


def gate_line(counts: Mapping[str, int]) -> str:
    """What a person is told of the gate."""
    stopped, sampled, wrong = (counts.get(name, 0) for name in ("stopped", "sampled", "false_drops"))
    if not sampled:
        return f"stopped {stopped:,} pages; none of them was in the sample, so its false drops are not known"
    bound = upper_bound(wrong, sampled)
    return (
        f"stopped {stopped:,} pages; of {sampled:,} extracted all the same {wrong:,} were in a wanted language: "
        f"{wrong / sampled:.2%}, below {bound:.2%} with 95 % confidence"
    )
