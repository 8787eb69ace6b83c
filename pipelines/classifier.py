"""A model's score as a signal: one number per document, by a fastText model of the recipe's choice.

The model is a file at a path that is the same on every machine, and is what its sha256 says, not what its path says.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationInfo, field_validator, model_validator

from filters.errors import RecipeError, ResourceMissing
from filters.language import FASTTEXT
from filters.rule import Measured, Paper, Rule, Signal, Signals
from pipelines import yaml_data
from pipelines.recipe_data import Data, Name
from pipelines.resources import file_sha256

DCLM = Paper(
    title="DataComp-LM: In search of the next generation of training sets for language models",
    url="https://arxiv.org/abs/2406.11794",
    where="4.4, Model-based quality filtering; classify_fasttext_hq_prob in its code",
)


class Classifier(Data):
    """Score each text by a fastText model and drop documents outside the bounds; without bounds drop none.

    The score is the probability of `label`. `fasttext` reads the text as one line, each line break as `newline`. `dclm`
    is what DCLM's code does: lines joined by a blank, the best label's probability, and one minus it where that is not
    `label`. A relative `model` lies beside the recipe's file.
    """

    name: Name
    kind: Literal["fasttext", "dclm"] = "fasttext"
    model: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    label: Annotated[str, Field(min_length=1)]
    newline: Literal[" ", ""] = " "
    above: float | None = None
    low: float | None = None
    high: float | None = None

    @field_validator("model")
    @classmethod
    def _is_a_path(cls, model: str, info: ValidationInfo) -> str:
        if "://" in model:
            raise ValueError("a model is read from a path, not from a URL: put the file where every machine has it")
        return str((info.context or {}).get("folder", Path()).joinpath(model).absolute())

    @model_validator(mode="after")
    def _bounds_make_sense(self) -> Self:
        low = self.low if self.above is None else self.above
        if self.above is not None and self.low is not None:
            raise ValueError("`above` and `low` are both a lower bound; `above` leaves the bound itself out")
        if low is not None and self.high is not None and low > self.high:
            raise ValueError(f"no score lies above {low:g} and below {self.high:g}")
        return self

    @property
    def signal(self) -> Signal:
        """The score."""
        says = f"probability of {self.label} by the fastText model of sha256 {self.sha256}"
        return Signal(
            name=f"classifier.{self.name}", kind="score", says=says if self.kind == "fasttext" else f"{says} (as DCLM)"
        )

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What the step measures."""
        return (self.signal,)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rule, where there are bounds."""
        low = self.low if self.above is None else self.above
        if low is None and self.high is None:
            return ()
        paper = DCLM if self.kind == "dclm" else FASTTEXT
        return (
            Rule(
                name=self.signal.name,
                signal=self.signal,
                low=low,
                high=self.high,
                low_open=self.above is not None,
                paper=Paper(title=paper.title, url=paper.url, where="a bound of the recipe"),
            ),
        )

    def measure(self, texts: Sequence[str]) -> Signals:
        """The score of each text; undefined where the model gives none."""
        score = scores_as_dclm(self, texts) if self.kind == "dclm" else scores(self, texts)
        return {self.signal.name: Measured(score=score)}


def scores(step: Classifier, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """The probability of the step's label for each text, read as one line; NaN where the model gives none."""
    predict, label, newline = model_of(step).f.predict, step.label, step.newline
    found = np.full(len(texts), np.nan, np.float32)
    for index, text in enumerate(texts):
        # The raw binding: FastText.predict makes an array for every call.
        for probability, name in predict(text.replace("\n", newline) + "\n", -1, 0.0, "strict"):
            if name == label:
                found[index] = probability
                break
    return found


def scores_as_dclm(step: Classifier, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """What DCLM's `classify_fasttext_hq_prob` gives for each text; NaN where the model gives nothing.

    fastText adds 1e-5 to every probability, so that one minus the other label's is not the label's own.
    """
    predict, label = model_of(step).f.predict, step.label
    found = np.full(len(texts), np.nan, np.float32)
    for index, text in enumerate(texts):
        for probability, name in predict(" ".join(text.strip().splitlines()) + "\n", 1, 0.0, "strict"):
            found[index] = probability if name == label else 1 - probability
    return found


def model_of(step: Classifier) -> Any:
    """The step's model, loaded once per process.

    Raises ResourceMissing where the file is absent or another one, RecipeError where it does not know the label.
    """
    model = loaded(step.model, step.sha256)
    if step.label not in (labels := model.get_labels()):
        hint = yaml_data.nearest(step.label, labels)
        raise RecipeError(f"classifier.{step.name}: {step.model} has no label {step.label!r}{hint}")
    return model


@cache
def loaded(path: str, sha256: str) -> Any:
    """The fastText model at this path. Raises ResourceMissing unless it is the file of this sha256 and a classifier."""
    from fasttext import FastText

    check_model(path, sha256)
    try:
        model = FastText._FastText(path)
        model.f.predict("\n", 1, 0.0, "strict")
    except ValueError as error:
        raise ResourceMissing(f"{path} is no fastText classifier: {error}") from error
    return model


def check_model(path: str, sha256: str) -> None:
    """Raise ResourceMissing unless the file at `path` has this sha256; a GB takes about a second."""
    try:
        found = file_sha256(Path(path))
    except OSError as error:
        raise ResourceMissing(
            f"there is no model at {path} ({error.strerror}). Put the file of sha256 {sha256} there, on every machine."
        ) from error
    if found != sha256:
        raise ResourceMissing(
            f"{path} has the sha256 {found}; the recipe says {sha256}. Put the right file there, or say its sha256."
        )
