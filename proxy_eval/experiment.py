"""An experiment: YAML, data only, that says which rules are judged, by which models, and how often it may be wrong.

`base` is the control's mask (terms as in `gristmill train --mask`); every arm is compared with the control alone. What
is judged is Delta = with the rule minus without it, whether the rule stands in the arm (`with:RULE`, `only:RULE`, a
moved bound, another view) or in the base (`without:RULE`). Relative paths lie below the file's folder. Every error
names file, line and the nearest right name.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, WithJsonSchema, model_validator
from pydantic_core.core_schema import ValidationInfo

from filters.errors import RecipeError
from pipelines import yaml_data
from pipelines.recipe_data import Data, known
from proxy_eval.verdict import Budget

CONTROL = "control"
PLACEBOS = ("same", "random", "garbage")
"""The placebos of every experiment (proxy_eval/verdict.py)."""
SECOND_RATE = 0.25
"""Of the first learning rate, at the deciding rung where the file names none (arXiv:2512.24503: a lower one)."""
UNITS = {"k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def counted(value: Any) -> Any:
    """`20M` as 20,000,000; anything else as it is."""
    if not isinstance(value, str) or not value:
        return value
    digits, unit = (value[:-1], UNITS[value[-1].lower()]) if value[-1].lower() in UNITS else (value, 1)
    try:
        count = float(digits.replace("_", "")) * unit
    except ValueError:
        return value
    return int(count) if count == int(count) else value


def number(value: Any) -> Any:
    """`1e-3`, which YAML 1.1 takes for a word, as a number; anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def below(value: str, info: ValidationInfo) -> str:
    """A path below the file's folder; a URL, and an absolute path, as it is."""
    folder: Path = (info.context or {}).get("folder", Path())
    return value if "://" in value else str(folder / value)


Count = Annotated[int, BeforeValidator(counted), Field(gt=0), WithJsonSchema({"type": ["integer", "string"]})]
Positive = Annotated[float, BeforeValidator(number), Field(gt=0), WithJsonSchema({"type": ["number", "string"]})]
Share = Annotated[float, BeforeValidator(number), Field(gt=0, lt=1), WithJsonSchema({"type": ["number", "string"]})]
Place = Annotated[str, AfterValidator(below)]
ArmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@=+-]*$", max_length=80)]


class Arm(Data):
    """What one rule, threshold, edit or recipe makes of the documents: a mask, or a pool that is another view of them.

    `rule_in` says on which side the rule stands; left out, in the base where the mask has a term `without:`, else in
    the arm.
    """

    name: ArmName
    mask: str | None = None
    pool: Place | None = None
    rule_in: Literal["arm", "base"] | None = None

    @model_validator(mode="after")
    def _differs_from_the_base(self) -> Self:
        if self.mask is None and self.pool is None:
            raise ValueError(f"{self.name} has neither `mask` nor `pool`: it would be the control")
        return self

    @property
    def in_base(self) -> bool:
        """True where the control has the rule and the arm has not: Delta is the control minus the arm."""
        if self.rule_in is not None:
            return self.rule_in == "base"
        return any(term.startswith("without:") for term in terms(self.mask or ""))


class Expected(Data):
    """What is known beforehand of runs at a rung, in units of the metric; the plan is reckoned with it. None: taken
    from the noise bank or measured, and guessed until then.

    noise: standard deviation of a run over seeds. gain: by twice the tokens. rho: correlation of runs of one seed;
    where it is given no pilot measures it.
    """

    noise: Positive | None = None
    gain: Positive | None = None
    rho: Annotated[float, Field(ge=-1, lt=1)] | None = None
    tokens_per_second: Positive | None = None


class Rung(Data):
    """A size and a budget; every arm that is undecided after the one before runs here, with so many seeds at most.

    `learning_rates`: the first sets verdicts, the others cast doubt on them. Empty: the one calibrated for the pool,
    and at the last rung a quarter of it as well.
    """

    size: str
    tokens: Count
    seeds: Annotated[int, Field(ge=2, le=64)] = 5
    learning_rates: list[Positive] = []
    context: Annotated[int, Field(ge=16)] | None = None
    expected: Expected = Expected()

    @model_validator(mode="after")
    def _can_be_trained(self) -> Self:
        from proxy_eval.llama import SIZES  # torch, which reading other data does not need

        known(self.size, list(SIZES), "size of model")
        if len(set(self.learning_rates)) != len(self.learning_rates) or len(self.learning_rates) > 2:
            raise ValueError("one learning rate that sets verdicts and one that casts doubt on them, not more")
        return self


class Placebos(Data):
    """Arms of known truth, in every experiment. `random`: the share removed at random (None: what an arm removes in the
    median). `garbage`: the share of the documents that no arm reads but one, which reads them shuffled.
    """

    random: Share | None = None
    garbage: Annotated[float, BeforeValidator(number), Field(ge=0.01, le=0.5)] = 0.1


class Wanted(Data):
    """An effect, as a share of the tokens, to be seen with this power: the plan names the cheapest rung that does."""

    effect: Share
    power: Share = 0.8


class Experiment(Data):
    """Rules to judge. `metric`: what verdicts are about: `panel` (bits per byte), `panel/DOMAIN`, `gold` (bits per byte
    of the tasks' right answers), or TASK/METRIC. `rope`: the share of the tokens below which an effect does not matter.
    `error`: how often any verdict of the experiment may be wrong. `room`: the most arms it may ever get (None: those it
    has). `pilot`: seeds over which rho is measured. `bank`: the file of the noise bank (None: the user's).
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$", max_length=64)]
    says: str = ""
    pool: Place
    base: str = "rules"
    arms: Annotated[list[Arm], Field(min_length=1)]
    rungs: Annotated[list[Rung], Field(min_length=1)]
    panel: Place
    tasks: Place | None = None
    task_names: list[str] = []
    metric: str = "panel"
    rope: Share = 0.01
    error: Share = 0.05
    placebo_error: Share = 0.01
    room: Annotated[int, Field(ge=1)] | None = None
    placebos: Placebos = Placebos()
    pilot: Annotated[int, Field(ge=2, le=64)] = 4
    wanted: Wanted | None = None
    price_per_hour: Annotated[float, BeforeValidator(number), Field(ge=0)] = 0.0
    bank: Place | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        names = [arm.name for arm in self.arms]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two arms are called {twice[0]!r}")
        if taken := {CONTROL, *PLACEBOS} & set(names):
            raise ValueError(f"no arm may be called {sorted(taken)[0]!r}: an arm of every experiment is")
        for arm in self.arms:
            if arm.pool is None and arm.mask is not None and same_mask(arm.mask, self.base):
                raise ValueError(f"{arm.name} has the mask of the base: it would be the control")
        kind, slash, rest = self.metric.partition("/")
        if self.metric not in ("panel", "gold") and not (kind and slash and rest):
            raise ValueError(f"the metric {self.metric!r} is none of panel, panel/DOMAIN, gold, TASK/METRIC")
        if slash and kind != "panel":
            from proxy_eval.cloze import METRICS  # torch, as above

            known(rest, list(METRICS), "metric of tasks")
        if self.tasks is None and kind != "panel":
            raise ValueError(f"the metric {self.metric} needs `tasks`")
        if self.room is not None and self.room < len(self.arms):
            raise ValueError(f"room for {self.room} arms, and here are {len(self.arms)}")
        if (sizes := [rung.tokens for rung in self.rungs]) != sorted(sizes):
            raise ValueError("a rung has at least the tokens of the one before")
        return self

    @property
    def budget(self) -> Budget:
        """How often it may be wrong, among how many arms and rungs."""
        return Budget(
            arms=self.room or len(self.arms),
            placebos=len(PLACEBOS),
            rungs=len(self.rungs),
            error=self.error,
            placebo_error=self.placebo_error,
        )

    @property
    def sha256(self) -> str:
        """Hash of the whole file as it was read, paths left out."""
        paths = {"pool", "panel", "tasks", "bank"}
        said = self.model_dump(exclude={**dict.fromkeys(paths, True), "arms": {"__all__": {"pool"}}})
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def terms(mask: str) -> list[str]:
    """The terms of a mask."""
    return [term.strip() for term in mask.split(",") if term.strip()]


def same_mask(one: str, other: str) -> bool:
    """True where two masks have the same terms, `rules` beside others being understood."""

    def said(mask: str) -> set[str]:
        found = set(terms(mask))
        return found if found == {"rules"} else found - {"rules"}

    return said(one) == said(other)


def parse_experiment(text: str, *, where: str, folder: Path = Path()) -> Experiment:
    """The experiment in `text`. Raises RecipeError naming `where`, the line and the nearest right name."""
    data, lines = yaml_data.load(text, where=where)
    try:
        return Experiment.model_validate(data, context={"folder": folder})
    except ValidationError as error:
        raise RecipeError("\n".join(yaml_data.located(error, lines, where=where, model=Experiment))) from error


def read_experiment(path: Path) -> Experiment:
    """The experiment in a file. Raises RecipeError, also where the file cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}). Check the path of the experiment.") from error
    return parse_experiment(text, where=str(path), folder=path.absolute().parent)
