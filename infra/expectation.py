"""What is known of a rung before its runs: of their noise, and of what tokens are worth; and where each is from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from infra.store import open_store
from infra.stored import read_decoded
from infra.training import calibration_name
from proxy_eval.experiment import Experiment
from proxy_eval.noise_bank import KINDS, Bank, Variance, prior

GUESSED_NOISE, GUESSED_GAIN, GUESSED_RHO = 0.025, 0.24, 0.0
"""Bits per byte at 1M weights, 1M tokens and 1e-3: the spread over seeds and the gain by twice the tokens, as measured
(docs/proxy.md), and no pairing, until a pilot has measured them. A plan rests on them, an interval never."""


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a rung is planned with, and where each is from (`sources`): the file, the noise bank, the calibration of
    this very pool, or a guess. `priors`: what the bank says of each kind of noise, its variance and degrees of freedom;
    the intervals rest on it.
    """

    variance: float  # of a run, in the metric's units squared
    gain: float
    rho: float
    sources: Mapping[str, str]
    calibration: Mapping[str, Any] | None
    priors: Mapping[str, Sequence[float]]

    @property
    def bank(self) -> dict[str, Variance]:
        """The priors as variances."""
        return {kind: Variance(value=np.asarray(value), df=np.asarray(df)) for kind, (value, df) in self.priors.items()}


def calibration_of(pool: str, size: str, tokens: int, sha256: str) -> Mapping[str, Any] | None:
    """What `gristmill calibrate` found for this size and budget on this very pool; None where it never ran."""
    try:
        found: dict[str, Any] = read_decoded(open_store(pool), calibration_name(size, tokens), json.loads)
    except FileNotFoundError:
        return None
    return found if found["pool_sha256"] == sha256 and found.get("schedule", "cosine") == "wsd" else None


def swept(calibration: Mapping[str, Any] | None, rate: float, metric: str) -> tuple[float, float] | None:
    """The variance of a run and the correlation of runs of one seed, by a calibration at this rate and on the metric's
    panel; None where there is none such, or fewer than two pairs.
    """
    if calibration is None or metric != f"panel {calibration['panel_sha256'][:12]}":
        return None
    found = [[one["all"], one["clean"]] for one in calibration["rates"] if one["learning_rate"] == rate]
    pairs = np.array(found[0] if found else [(), ()], np.float64)
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    if pairs.shape[1] < 2:
        return None
    run = float(pairs.var(axis=1, ddof=1).mean())
    return run, 1 - float((pairs[0] - pairs[1]).var(ddof=1)) / (2 * run)


def expectations(
    experiment: Experiment,
    number: int,
    bank: Bank,
    key: str,
    metric: str,
    calibration: Mapping[str, Any] | None,
    rate: float,
) -> Expectation:
    """What a rung at this learning rate is planned with, as of now."""
    said, calibrated = experiment.rungs[number].expected, swept(calibration, rate, metric)
    found = {kind: prior(bank, key, metric, kind, campaign=experiment.name) for kind in KINDS}
    runs, pairs = found["run"], found["pair"]
    sources = dict.fromkeys(("noise", "gain", "rho"), "guessed")
    variance, rho = (GUESSED_NOISE**2, GUESSED_RHO) if calibrated is None else calibrated
    if calibrated is not None:
        sources |= dict.fromkeys(("noise", "rho"), "calibration")
    if float(runs.df) > 0:
        variance, sources["noise"] = float(runs.value), "noise bank"
    if float(runs.df) > 0 and float(pairs.df) > 0:
        rho = 1 - float(pairs.value) / (2 * float(runs.value))
        sources["rho"] = "noise bank"
    if said.noise is not None:
        variance, sources["noise"] = said.noise**2, "the file"
    if said.rho is not None:
        rho, sources["rho"] = said.rho, "the file"
    if said.gain is not None:
        sources["gain"] = "the file"
    return Expectation(
        variance=variance,
        gain=said.gain or GUESSED_GAIN,
        rho=float(np.clip(rho, -0.9, 0.99)),
        sources=sources,
        calibration=calibration,
        priors={kind: (float(one.value), float(one.df)) for kind, one in found.items()},
    )
