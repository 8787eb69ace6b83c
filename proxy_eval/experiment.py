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

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core.core_schema import ValidationInfo

from filters.errors import RecipeError
from pipelines import yaml_data
from pipelines.recipe_data import Data, known
from proxy_eval.verdict import Budget

WHAT = "an experiment"
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


class Said(Data):
    """A part of an experiment: its fields' docstrings are their descriptions in the JSON Schema."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Arm(Said):
    """What one rule, threshold, edit or recipe makes of the documents: a mask, or a pool that is another view."""

    name: ArmName
    """What the arm is called in every report; `control`, `same`, `random` and `garbage` are taken."""
    mask: str | None = None
    """The documents that it reads, as terms with commas between: `all` (no rule), `rules` (those of the pool's run),
    `only:RULE`, `with:RULE`, `without:RULE`, `set:RULE.low=3.5`, as `gristmill train --mask` takes them. Left out: the
    base's."""
    pool: Place | None = None
    """Another view of the same pages, such as another extractor's or edit's, with the experiment's tokenizer. Left out:
    the experiment's pool."""
    rule_in: Literal["arm", "base"] | None = None
    """Where the rule stands that is judged. Left out: in the base where the mask has a term `without:`, else in the
    arm."""

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


class Expected(Said):
    """What is known beforehand of runs at a rung, in units of the metric; the plan is reckoned with it. What is left
    out comes from the noise bank, noise and rho else from the pool's calibration, or is guessed until it is measured.
    """

    noise: Positive | None = None
    """Standard deviation of a run over seeds."""
    gain: Positive | None = None
    """What the control gains by twice the tokens."""
    rho: Annotated[float, Field(ge=-1, lt=1)] | None = None
    """Correlation of runs of one seed; where it is given no pilot measures it. From 0.3 on the control runs the
    arms' seeds and no others, and is compared with arms seed by seed."""
    tokens_per_second: Positive | None = None
    """Of one device, a GPU or all cores of a machine. Left out: measured, here or on the cluster that is joined."""


class Rung(Said):
    """A size and a budget; every arm that is undecided after the one before runs here."""

    size: str
    """Of the models, such as `1M`, `4M` or `20M` (`gristmill train --help` lists them)."""
    tokens: Count
    """That each run is trained on, such as `2M`; the control's curve goes to twice as many."""
    seeds: Annotated[int, Field(le=64, json_schema_extra={"minimum": 2})] = 5
    """Of each arm, at most: arms that are decided get no more. At least 2."""
    learning_rates: list[Positive] = []
    """The first sets verdicts, the second casts doubt on them. Empty: the one that `gristmill calibrate` chose for the
    pool, and at the last rung a quarter of it as well."""
    context: Annotated[int, Field(ge=16)] | None = None
    """Tokens of a window. Left out: the size's."""
    expected: Expected = Expected()
    """What is known of its runs beforehand."""

    @model_validator(mode="after")
    def _can_be_trained(self) -> Self:
        from proxy_eval.llama import SIZES  # torch, which reading other data does not need

        known(self.size, list(SIZES), "size of model")
        if self.seeds < 2:
            raise ValueError("`seeds` is at least 2: one seed tells nothing of how far two runs of an arm differ")
        if len(set(self.learning_rates)) != len(self.learning_rates) or len(self.learning_rates) > 2:
            raise ValueError("one learning rate that sets verdicts and one that casts doubt on them, not more")
        return self


class Placebos(Said):
    """Arms of known truth, in every experiment; one that comes out wrong voids all verdicts."""

    random: Share | None = None
    """Share of the documents that one removes at random. Left out: of the tokens, what an arm removes in the median."""
    garbage: Annotated[float, BeforeValidator(number), Field(ge=0.01, le=0.5)] = 0.1
    """Share of the documents that no arm reads but one, which reads them shuffled: the rule that removes them must come
    out KEEP."""


class Wanted(Said):
    """An effect that is to be seen: the plan names the cheapest rung and seeds that do."""

    effect: Share
    """As a share of the tokens: 0.05 is what 5 % more of them are worth."""
    power: Share = 0.8
    """Probability of a verdict where the effect is as large as that."""


class Experiment(Said):
    """Rules to judge, the models that judge them, and how often the verdicts may be wrong."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$", max_length=64)]
    """The campaign, by which the noise bank knows it."""
    says: str = ""
    """What is asked, in a sentence for readers."""
    pool: Place
    """The folder or URL of the documents (`gristmill pool`). Relative paths lie below this file's folder."""
    base: str = "rules"
    """Mask of the control, with which every arm is compared: `rules` (those of the pool's run), `all` (none), or terms
    as an arm's."""
    arms: Annotated[list[Arm], Field(min_length=1)]
    """One for each rule that is judged."""
    rungs: Annotated[list[Rung], Field(min_length=1)]
    """From few tokens to many; REJECT and NEUTRAL end an arm's way."""
    panel: Place
    """The folder of held-out texts by domain (`gristmill panel build`), for bits per byte."""
    tasks: Place | None = None
    """The folder of cloze tasks. Without it gold answers are not measured, and no rule comes out KEEP."""
    task_names: list[str] = []
    """Those of the tasks that are scored. Empty: all in the folder."""
    metric: str = "panel"
    """What verdicts are about: `panel` (bits per byte, mean over domains), `panel/DOMAIN`, `gold` (bits per byte of the
    tasks' right answers), or TASK/METRIC."""
    rope: Share = 0.01
    """Region of practical equivalence: the share of the tokens below which an effect does not matter."""
    error: Share = 0.05
    """How often any verdict of the experiment may be wrong."""
    placebo_error: Share = 0.01
    """How often placebos may void a sound experiment."""
    room: Annotated[int, Field(ge=1)] | None = None
    """The most arms that it may ever get; intervals are as wide as they ask for. Left out: those it has."""
    placebos: Placebos = Placebos()
    """Arms of known truth."""
    pilot: Annotated[int, Field(ge=2, le=64)] = 4
    """Seeds of the control and two placebos over which rho is measured before the first look."""
    wanted: Wanted | None = None
    """An effect that the plan looks for the cheapest design for."""
    price_per_hour: Annotated[float, BeforeValidator(number), Field(ge=0)] = 0.0
    """Of one device, in any money."""
    bank: Place | None = None
    """The file of the noise bank. Left out: the user's."""

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
    data, lines = yaml_data.load(text, where=where, what=WHAT, needs="`name`, `pool`, `panel`, `arms` and `rungs`")
    try:
        return Experiment.model_validate(data, context={"folder": folder})
    except ValidationError as error:
        found = yaml_data.located(error, lines, where=where, model=Experiment, what=WHAT)
        raise RecipeError("\n".join(found)) from error


def read_experiment(path: Path) -> Experiment:
    """The experiment in a file. Raises RecipeError, also where the file cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}). Check the path of the experiment.") from error
    return parse_experiment(text, where=str(path), folder=path.absolute().parent)
