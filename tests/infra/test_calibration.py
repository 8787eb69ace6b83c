"""What a sweep of learning rates says: the rate that is chosen and why, for which schedule, and who takes it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from infra.calibration import (
    ALL,
    CLEAN,
    Calibration,
    calibration_json,
    calibration_of,
    calibration_said,
    kept_calibration,
    needed,
    rate_of,
    training_under,
)
from infra.calibration_page import TITLES, calibration_page, rate_cells, sentences
from infra.experiment_plan import calibration_of as calibration_for_experiments
from infra.local_store import LocalStore
from infra.scores import Scored
from infra.training import Model, calibrated_rate, calibration_name, training_of
from proxy_eval.effects import ENDPOINTS

SAID = {"tokenizer": {"vocabulary": 400}}


def scored(arm: str, rate: float, seed: int, bits: float, *, stopped: int | None = None) -> Scored:
    said = {"arm": arm, "learning_rate": rate, "seed": seed, "sources": [{"pool_sha256": "p"}], "stopped": stopped}
    return Scored(model=Model(label="m", said=said), said={"panel": {"macro": bits, "sha256": "s"}})


def swept(
    effects: dict[float, tuple[float | None, ...]], *, bits: dict[float, float], schedule: str = "wsd"
) -> Calibration:
    """A sweep in which each seed has this effect at each rate, around these bits; None: its clean model diverged, and
    is scored with its last finite weights, much the better.
    """
    results = []
    for rate, by_seed in effects.items():
        for seed, effect in enumerate(by_seed):
            results.append(scored(ALL, rate, seed, bits[rate] + 0.001 * seed))
            worth, stopped = (-0.1, 7) if effect is None else (effect, None)
            results.append(scored(CLEAN, rate, seed, bits[rate] + 0.001 * seed + worth, stopped=stopped))
    seeds = range(len(next(iter(effects.values()))))
    return calibration_of(results, size="1M", tokens=1000, seeds=seeds, schedule=schedule)  # type: ignore[arg-type]


def words(page: str) -> str:
    """What a page says, without what draws it."""
    return unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)))


CLEAR = (-0.038, -0.033, -0.044)
"""The paired effects of three seeds at 1e-3 in the sweep that chose the tiny rung's rate."""
NOISY = (0.119, -0.076, -0.089)
"""The same at 4e-3, where the loss was smaller."""


def test_the_rate_of_the_clearest_effect_is_chosen_and_not_that_of_the_smallest_loss() -> None:
    found = swept({4e-3: NOISY, 1e-3: CLEAR}, bits={4e-3: 2.565, 1e-3: 2.620})
    assert found.learning_rate == 1e-3
    low = found.rates[0]
    assert low.effect == pytest.approx(-0.0383, abs=1e-4) and low.snr is not None and low.snr > 10
    page = calibration_page(found)
    assert "0.0032" in page and page.count('class="chart"') == 4
    said = words(page)
    assert "Chosen: 0.001. Its SNR of 12.1" in said and "SNR above 2.9 of 3 seeds" in said
    assert "The smallest loss is at 0.004" in said and "by signal over noise, not by loss" in said


def test_a_rate_at_which_a_run_diverges_is_shown_and_never_chosen() -> None:
    """The two seeds that are left would have the largest ratio of all."""
    effects = {1e-3: CLEAR, 8e-3: (-0.1, -0.1001, None)}
    found = swept(effects, bits={1e-3: 2.6, 8e-3: 2.5})
    assert found.learning_rate == 1e-3 and (found.rates[1].snr or 0) > (found.rates[0].snr or 0)
    assert dict(zip(TITLES, rate_cells(found.rates[1]), strict=True))["diverged"] == "1 of 6"
    page = calibration_page(found)
    assert "At 0.008, 1 of 6 runs diverged: it cannot be chosen." in words(page)
    assert page.count(r"1 of 6\ndiverged") == 8  # a cross and its words in each of four charts
    nothing = swept({8e-3: (None, None, None)}, bits={8e-3: 2.5})
    assert nothing.learning_rate is None and rate_cells(nothing.rates[0])[3] == "-"
    assert "No rate is chosen" in words(calibration_page(nothing))


def test_the_ratio_that_is_needed_is_that_of_a_one_sided_t_test() -> None:
    """Two-sided 90 % points of Student's t with 1, 2 and 4 degrees of freedom, from tables."""
    assert [needed(seeds) for seeds in (2, 3, 5)] == pytest.approx([6.314, 2.920, 2.132], abs=1e-3)


@pytest.mark.parametrize("size", ["1M", "10M"])
def test_under_wsd_a_sweep_trains_as_an_arm_of_an_experiment_does(size: str) -> None:
    tokens = 1_000_001
    control, rate = training_of(SAID, size=size, tokens=[round(share * tokens) for share in ENDPOINTS], context=None)
    training, ruled = training_under("wsd", SAID, size=size, tokens=tokens)
    assert training == replace(control, tokens=tokens, endpoints=()) and ruled == rate
    assert training.schedule.kind == "wsd" and training.budgets == (tokens,)
    alone, _ = training_of(SAID, size=size, tokens=[tokens], context=None)
    assert training_under("cosine", SAID, size=size, tokens=tokens) == (alone, rate) and alone != training


@pytest.mark.parametrize("schedule", ["wsd", "cosine", None])
def test_an_experiment_takes_a_calibration_under_its_own_schedule_alone(tmp_path: Path, schedule: str | None) -> None:
    """None: one that was stored when there was no other than the cosine."""
    found = swept({1e-3: CLEAR}, bits={1e-3: 2.6}, schedule=schedule or "cosine")
    kept_calibration(LocalStore(tmp_path), found, "")
    path = tmp_path / calibration_name("1M", 1000)
    said = json.loads(path.read_text())
    if schedule is None:
        del said["schedule"]
        path.write_text(json.dumps(said))
    assert calibration_said(said) == found
    taken = calibration_for_experiments(str(tmp_path), "1M", 1000, "p")
    assert taken == (said if schedule == "wsd" else None)
    assert calibrated_rate(str(tmp_path), "1M", 1000, "p") == 1e-3


def test_a_calibration_is_what_train_takes_for_its_size_budget_and_pool(tmp_path: Path) -> None:
    found = swept({5e-4: (-0.1, -0.101)}, bits={5e-4: 2.5})
    kept_calibration(LocalStore(tmp_path), found, calibration_page(found))
    pool = str(tmp_path)
    assert calibrated_rate(pool, "1M", 1000, "p") == 5e-4
    assert calibrated_rate(pool, "1M", 1000, "of another pool") is None
    assert calibrated_rate(pool, "1M", 3000, "p") is None
    page = (tmp_path / "calibrations" / "1M-1000.html").read_text()
    assert "vegaEmbed" in page and "0.0005" in page


@pytest.mark.parametrize("effects", [(0.01, 0.011, 0.012), (-0.01, 0.004, -0.02)])
def test_a_sweep_that_tells_nothing_chooses_no_rate_and_takes_back_what_was_chosen(
    tmp_path: Path, effects: tuple[float, ...]
) -> None:
    found = swept({1e-3: effects}, bits={1e-3: 2.5})
    assert found.learning_rate is None and found.rates[0].effect == pytest.approx(np.mean(effects))
    store = LocalStore(tmp_path)
    kept_calibration(store, replace(found, learning_rate=1e-3), "")
    assert calibrated_rate(str(tmp_path), "1M", 1000, "p") == 1e-3
    kept_calibration(store, found, "")
    assert calibrated_rate(str(tmp_path), "1M", 1000, "p") is None
    said = list(sentences(found))
    assert "No rate is chosen" in said[0]
    assert any("does harm beyond the noise" in one for one in said) == (min(effects) > 0)


def test_a_model_that_stopped_is_left_out_of_its_rate() -> None:
    found = rate_of(1e-3, [2.5, None, 2.6, 2.7], [2.4, 2.4, 2.5, None])
    assert found.effect == pytest.approx(-0.1) and found.standard_error == pytest.approx(0.0, abs=1e-12)
    assert found.diverged == 2 and not found.tells
    assert rate_of(1e-3, [2.5, None], [2.4, 2.4]).snr is None


def test_a_calibration_is_read_as_it_was_written() -> None:
    found = swept({1e-3: CLEAR, 8e-3: (None, -0.1, -0.2)}, bits={1e-3: 2.6, 8e-3: 2.5}, schedule="cosine")
    assert calibration_said(json.loads(json.dumps(calibration_json(found)))) == found
