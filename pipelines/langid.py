"""Language of a text by fastText's lid.176; the text is read whole, as one line."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from pipelines.resources import resource_path

LABEL = "__label__"


@cache
def model(name: str) -> Any:
    """The fastText model of this resource name or path, loaded once per process."""
    from fasttext import FastText

    return FastText._FastText(str(resource_path(name)))


@cache
def labels(name: str) -> tuple[str, ...]:
    """The languages that a model knows, sorted."""
    return tuple(sorted(label.removeprefix(LABEL) for label in model(name).get_labels()))


def probabilities(name: str, text: str) -> dict[str, float]:
    """Probability of each label, most probable first, as float32 values."""
    # The raw binding: FastText.predict builds a numpy array with a copy argument for every call.
    return {label.removeprefix(LABEL): score for score, label in model(name).f.predict(f"{text}\n", -1, 0.0, "strict")}


def best_and_wanted(name: str, text: str, keep: Sequence[str], newline: str = " ") -> tuple[str, float, float]:
    """Return the best label, its probability, and the largest probability of a language in `keep` (of any, if empty).

    Every line break of the text becomes `newline`.
    """
    scores = probabilities(name, text.replace("\n", newline))
    if not scores:
        return "", 0.0, 0.0
    label, best = next(iter(scores.items()))
    return label, best, max((scores.get(language, 0.0) for language in keep), default=best)
