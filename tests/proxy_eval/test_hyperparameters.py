"""The rule of the ladder gives the published batches and rates; a schedule is a function of the tokens seen."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from filters.errors import InputError
from proxy_eval.hyperparameters import Schedule, factor, hyperparameters, settled, wsd
from proxy_eval.llama import SIZES, Shape, shape_of

# DataDecide's models, from their published table: millions of weights, sequences of 2048 tokens in a batch, rate.
PUBLISHED = [
    (9.9, 32, 1.0e-2),
    (14.4, 32, 9.2e-3),
    (16.0, 32, 8.9e-3),
    (19.1, 64, 8.4e-3),
    (57.1, 96, 5.8e-3),
    (97.9, 160, 4.9e-3),
    (151.9, 192, 4.2e-3),
    (320, 320, 3.3e-3),
    (530, 448, 2.8e-3),
]


@pytest.mark.parametrize(("millions", "sequences", "rate"), PUBLISHED)
def test_the_rule_gives_what_datadecide_published(
    monkeypatch: pytest.MonkeyPatch, millions: float, sequences: int, rate: float
) -> None:
    monkeypatch.setattr(Shape, "parameters", round(1e6 * millions))
    found = hyperparameters("150M", SIZES["150M"], 10**12)
    assert found.sequences == sequences
    assert f"{found.learning_rate:.1e}" == f"{rate:.1e}"
    assert found.schedule == Schedule(warmup=round(1e6 * millions), final=0.1)


def test_a_shorter_context_keeps_the_tokens_of_a_batch() -> None:
    long, short = (
        hyperparameters("150M", shape_of("150M", 50_272, context), 10**12).sequences for context in (2048, 512)
    )
    assert short == 4 * long


def test_small_models_have_small_batches_and_the_rate_of_the_least_noise() -> None:
    found = hyperparameters("1M", SIZES["1M"], 5_000_000)
    assert (found.sequences, found.learning_rate, found.schedule.warmup) == (8, 1e-3, 250_000)


def test_the_largest_size_is_trained_as_fineweb_trained_it() -> None:
    found = hyperparameters("fineweb-1.7B", SIZES["fineweb-1.7B"], 28_000_000_000)
    assert found.sequences * SIZES["fineweb-1.7B"].context == 2_097_152
    assert (found.learning_rate, found.schedule.warmup) == (3e-4, 500 * 2_097_152)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tokens", [1_000_000, 10**11])
def test_no_warm_up_takes_more_than_a_twentieth_of_the_tokens(size: str, tokens: int) -> None:
    assert hyperparameters(size, SIZES[size], tokens).schedule.warmup <= tokens / 20


@pytest.mark.parametrize("schedule", [Schedule(warmup=100), wsd(100), Schedule(warmup=0), wsd(0)])
def test_the_rate_rises_to_its_peak_and_never_rises_again(schedule: Schedule) -> None:
    factors = [factor(schedule, tokens, 1000) for tokens in range(1001)]
    peak = schedule.warmup
    assert factors[peak] == 1.0
    assert all(a < b for a, b in itertools.pairwise(factors[: peak + 1]))
    assert all(a >= b for a, b in itertools.pairwise(factors[peak:]))
    assert factors[-1] == pytest.approx(schedule.final)


def test_a_cosine_is_half_way_down_in_the_middle() -> None:
    assert factor(Schedule(warmup=100, final=0.1), 550, 1000) == pytest.approx(0.55)


def test_a_decay_falls_as_one_minus_the_square_root() -> None:
    assert factor(wsd(0), 850, 1000) == pytest.approx(0.5)  # a quarter of the last 20 %


def test_budgets_share_their_rates_until_the_smaller_one_decays() -> None:
    schedule = wsd(50)
    shared = int(settled(schedule, 500))
    assert [factor(schedule, t, 500) for t in range(shared + 1)] == [
        factor(schedule, t, 900) for t in range(shared + 1)
    ]
    assert factor(schedule, shared + 1, 500) < factor(schedule, shared + 1, 900)


@pytest.mark.parametrize("change", [{"warmup": -1}, {"final": 1.5}, {"decay": 0.0}, {"decay": 1.0}])
def test_a_schedule_that_makes_no_sense_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match="warmup is a count of tokens"):
        dataclasses.replace(Schedule(warmup=0), **change)
