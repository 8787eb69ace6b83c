"""What an experiment has found, as `results.json` has it: rewritten at every look, and all that a report needs.

Everything is Delta, with the rule minus without it. Verdicts and their intervals are in doublings of tokens (1 is twice
the tokens; `Bounds` says what null means); effects are in units of their metric, higher better, so that bits per byte
are turned. While `faults` is not empty no verdict holds. Runs name their models, whose folders (`models/LABEL/` with
the losses of all steps, `scores/LABEL/` with every document and item) lie in the same store.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from filters.errors import InputError
from infra.experiment_arms import Kind, Yield
from proxy_eval.effects import Pairing
from proxy_eval.experiment import PLACEBOS
from proxy_eval.looks import Fixed
from proxy_eval.planner import Cost

RESULTS = "results.json"
FORMAT = 3
"""Of results.json."""
Status = Literal["running", "finished", "void"]
VerdictName = Literal["KEEP", "REJECT", "NEUTRAL", "UNDECIDED"]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """An estimate and its interval. An estimate is null where nothing is known, a bound where there is none."""

    estimate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A model of an arm: where it ran, its label, tokens, the experiment's metric and gold answers (higher better).

    pilot: the pilot trained it and no interval compares it: its seed is none of those that the looks so far compare.
    """

    rung: int
    learning_rate: float
    seed: int
    tokens: int
    label: str
    metric: float | None
    gold: float | None
    pilot: bool


@dataclass(frozen=True, kw_only=True)
class ArmNoise:
    """The metric's standard deviation over an arm's seeds, of paired differences where seeds are shared, and that of
    the other arms; p_value: of an F test that they are one. noisier: the arm's is larger and p is below DISAGREEMENT;
    its interval leans on the others' noise, so no verdict on it is to be believed (docs/statistics.md).
    """

    deviation: float
    others: float
    p_value: float
    noisier: bool


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """The control, an arm, a placebo, or a random removal matched to an arm, at the last rung that met it.

    says: the verdict in one line. doublings: the interval that sets it, valid at every look; share: the same as shares
    of the tokens. Where the smaller of arm and control comes round again, matched: doublings of the random removal of
    as many tokens from the larger, and against_matched: of the rule less that removal, each valid at every look at an
    arm's level, like `doublings`, but outside the error budget and read by no verdict. At one look, and read by none
    either: effect (the metric), gold, domains and tasks (95 %, over seeds; resampled: gold and tasks are the wider of
    that and of a bootstrap over seeds and items, when the experiment has ended and its items are there), shrunk (the
    estimate in doublings against the winner's curse), discovery (adjusted p-value of no effect), equivalence (p-value
    of one beyond the ROPE), noise. second: doublings at the second learning rate. next_look: where it is undecided.
    """

    name: str
    kind: Kind
    mask: str
    pool: str
    rule_in: Literal["arm", "base"]
    documents: int
    tokens: int
    epochs: float
    yields: Yield
    rung: int | None
    seeds: int
    look: int | None
    verdict: VerdictName
    reason: str
    says: str
    doublings: Bounds
    share: Bounds
    second: Bounds | None
    matched: Bounds | None
    against_matched: Bounds | None
    effect: Bounds
    gold: Bounds
    domains: Mapping[str, Bounds]
    tasks: Mapping[str, Bounds]
    resampled: bool
    shrunk: float | None
    discovery: float | None
    equivalence: float | None
    noise: ArmNoise | None
    next_look: Mapping[str, Any] | None
    runs: tuple[RunResult, ...]


@dataclass(frozen=True, kw_only=True)
class Point:
    """The control decayed at one budget: the metric of each seed, higher better."""

    tokens: int
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class RungResult:
    """A rung: what was known of its noise before the first verdict, its design, its control's curve, and its price.

    pairing: rho over all looks, `fixed.rho` being that of the pilot. spread: standard deviation of a paired difference,
    or of a run where seeds are not shared, of each metric; snr: the largest difference between arms over it.
    decision_accuracy: of each metric, how often pairs of arms are ordered as at the last rung by the experiment's.
    curve: of the seeds that are compared. smallest: the effect seen with power 0.8 as planned, smallest_measured: with
    what the pilot measured; None where there was none: `fixed.rho_low` is None then, and `fixed.noise` and `fixed.gain`
    are what was planned with. neutral: the power to call no effect NEUTRAL.
    """

    number: int
    name: str
    size: str
    tokens: int
    learning_rates: tuple[float, ...]
    calibration: Mapping[str, Any] | None
    seeds: int
    looks: int
    shared: bool
    control_seeds: int
    fixed: Fixed
    level: float
    smallest: float | None
    smallest_measured: float | None
    neutral: float
    curve: tuple[Point, ...]
    pairing: Pairing | None
    spread: Mapping[str, float | None]
    snr: Mapping[str, float | None]
    decision_accuracy: Mapping[str, float]
    planned: Cost
    actual: Cost

    @property
    def calibrated(self) -> bool:
        """Whether its learning rate is the one that the calibration chose."""
        return self.calibration is not None and self.calibration["learning_rate"] == self.learning_rates[0]


@dataclass(frozen=True, kw_only=True)
class Results:
    """The whole of it. `identity` names by hashes what was compared on what; `arms` are in the order of the file;
    `matched`: random removals of as many tokens, for arms where they or the control come round again.
    """

    format: int
    name: str
    says: str
    status: Status
    faults: tuple[str, ...]
    experiment: Mapping[str, Any]  # the whole file, paths made absolute
    experiment_sha256: str
    identity: Mapping[str, Any]
    metric: str
    rope: float
    error: float
    placebo_error: float
    room: int
    arms: tuple[ArmResult, ...]
    matched: tuple[ArmResult, ...]
    placebos: tuple[ArmResult, ...]
    control: ArmResult
    rungs: tuple[RungResult, ...]
    planned: Cost
    actual: Cost
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        for arm in self.placebos:
            if arm.kind not in PLACEBOS:
                raise ValueError(f"placebo {arm.name}: its kind is {arm.kind}, and one is {', '.join(PLACEBOS)}")


def encoded(results: Results) -> bytes:
    """The results as JSON; what is not finite is null."""
    return (json.dumps(plain(asdict(results)), indent=1, allow_nan=False) + "\n").encode()


def read_results(data: bytes) -> Results:
    """The inverse of `encoded`; what was not finite is None.

    Raises InputError where the bytes are no results, or those of another version.
    """
    again = "Type the `gristmill ablate` that wrote it once more: it trains nothing anew and writes it as this version."
    try:
        found = json.loads(data)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            said = found.get("format") if isinstance(found, dict) else None
            raise InputError(f"{RESULTS} has format {said}, and this version reads {FORMAT}. {again}")
        return TypeAdapter(Results).validate_json(data)
    except (UnicodeDecodeError, json.JSONDecodeError, ValidationError) as error:
        raise InputError(f"{RESULTS} cannot be read ({' '.join(str(error).split()[:20])}). {again}") from error


def plain(found: Any) -> Any:
    """Plain data without numbers that JSON lacks."""
    if isinstance(found, Mapping):
        return {str(key): plain(one) for key, one in found.items()}
    if isinstance(found, (list, tuple)):
        return [plain(one) for one in found]
    if isinstance(found, (np.floating, np.integer)):
        found = found.item()
    return None if isinstance(found, float) and not math.isfinite(found) else found
