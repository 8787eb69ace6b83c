"""Variances combine by what they are worth, and the bank keeps one entry for each campaign."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from filters.errors import InputError
from proxy_eval.noise_bank import (
    ARM_DF,
    CAMPAIGN_DF,
    UNKNOWN,
    Bank,
    Entry,
    Kind,
    Variance,
    blurred,
    disagreement,
    family,
    moderated,
    pooled,
    prior,
    read_bank,
    with_entries,
    worth,
    write_bank,
)


def variance(value: float, df: float) -> Variance:
    return Variance(value=np.asarray(value), df=np.asarray(df))


def entry(campaign: str, value: float = 1.0, df: float = 4.0, arms: int = 1, kind: Kind = "run") -> Entry:
    return Entry(
        rung="1M/1e6/1e-3", metric="bpb", kind=kind, campaign=campaign, values=(value,) * arms, dfs=(df,) * arms
    )


def test_pooling_weighs_by_degrees_of_freedom_and_ignores_what_is_unknown() -> None:
    both = pooled(variance(1.0, 2.0), variance(4.0, 6.0))
    assert (both.value, both.df) == (3.25, 8.0)
    alone = pooled(variance(1.0, 2.0), UNKNOWN)
    assert (alone.value, alone.df) == (1.0, 2.0)
    assert pooled(UNKNOWN, UNKNOWN).df == 0


def test_a_family_never_says_more_of_a_member_than_its_spread_allows() -> None:
    assert blurred(variance(1.0, 8.0), 8.0).df == pytest.approx(4.0)
    assert blurred(variance(1.0, 1e9), 8.0).df == pytest.approx(8.0)
    assert blurred(UNKNOWN, 8.0).df == 0


def test_a_pool_of_correlated_samples_is_worth_what_its_variance_says() -> None:
    generator = np.random.default_rng(1)
    arms, seeds, draws = 6, 4, 20_000
    control = generator.standard_normal((draws, 1, seeds))
    variances = (generator.standard_normal((draws, arms, seeds)) - control).var(axis=-1, ddof=1).mean(axis=-1)
    found = 2 * variances.mean() ** 2 / variances.var()
    assert found == pytest.approx(float(worth(np.asarray(18.0), np.asarray(arms), 0.5)), rel=0.05)
    assert found < 0.6 * 18


def test_a_family_is_weighed_by_degrees_of_freedom_in_any_order() -> None:
    members = Variance(value=np.array([4.0, 0.0, *[1.0] * 9]), df=np.array([4.0, 0.0, *[4.0] * 9]))
    turned = Variance(value=members.value[::-1], df=members.df[::-1])
    for each in (members, turned):
        found = family(each, 0.5)
        assert (found.value, found.df) == (pytest.approx(1.3), pytest.approx(40 * 4 / 13))
    assert family(Variance(value=np.zeros((2, 3)), df=np.zeros((2, 3))), 0.5).df == pytest.approx(np.zeros(2))


def test_with_many_seeds_an_arms_own_variance_counts_and_with_two_the_others() -> None:
    others = variance(1.0, 20.0)
    assert moderated(variance(4.0, 1.0), others).value < 1.5
    assert moderated(variance(4.0, 100.0), others).value > 3.5
    assert moderated(variance(4.0, 1.0), variance(1.0, 1e6)).df < ARM_DF + 1


def test_a_bank_that_contradicts_the_experiment_is_set_aside() -> None:
    own, others = variance(1.0, 4.0), variance(1.0, 20.0)
    alone = moderated(own, others)
    near, far = moderated(own, others, variance(0.5, 6.0)), moderated(own, others, variance(1e-3, 6.0))
    assert near.df > alone.df and near.value < alone.value
    assert (far.df, far.value) == (alone.df, alone.value)


def test_the_test_of_disagreement_has_its_size() -> None:
    generator = np.random.default_rng(2)
    first, second = (Variance(value=generator.chisquare(df, 20_000) / df, df=np.full(20_000, df)) for df in (6.0, 12.0))
    p = disagreement(first, second)
    assert (p < 0.01).mean() == pytest.approx(0.01, abs=0.003)
    assert disagreement(second, first) == pytest.approx(p)
    assert disagreement(variance(1.0, 3.0), UNKNOWN) == disagreement(UNKNOWN, variance(1.0, 3.0)) == 1


def test_a_bank_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "noise.json"
    assert read_bank(path) == Bank()
    bank = with_entries(Bank(), [entry("b", 0.1234567890123), entry("a", arms=3)])
    write_bank(bank, path)
    assert read_bank(path) == bank
    assert [each.campaign for each in bank.entries] == ["a", "b"]
    path.write_text('{"entries": [{"rung": 1}]}')
    with pytest.raises(InputError, match="no noise bank"):
        read_bank(path)


def test_a_campaign_that_is_written_again_counts_once() -> None:
    once = with_entries(Bank(), [entry("a")])
    assert with_entries(once, [entry("a", 2.0)]).entries == (entry("a", 2.0),)


def test_a_campaign_is_not_its_own_prior_nor_is_another_rung() -> None:
    bank = with_entries(
        Bank(), [entry("mine"), replace(entry("b"), rung="4M/1e7/1e-3"), replace(entry("c"), kind="pair")]
    )
    assert prior(bank, "1M/1e6/1e-3", "bpb", "run", campaign="mine") == UNKNOWN
    assert prior(bank, "1M/1e6/1e-3", "bpb", "run", campaign="other").value == 1.0


def test_no_number_of_campaigns_counts_for_more_than_campaigns_differ() -> None:
    found = [
        prior(
            Bank(entries=tuple(entry(str(i), df=100.0) for i in range(n))), "1M/1e6/1e-3", "bpb", "run", campaign="new"
        )
        for n in (1, 4, 1000)
    ]
    dfs = [float(each.df) for each in found]
    assert dfs == sorted(dfs) and dfs[0] < CAMPAIGN_DF / 2 < dfs[1] < dfs[2] < CAMPAIGN_DF
    large = Bank(entries=(entry("large", 4.0, 1e6), entry("small", 1.0, 8.0)))
    assert prior(large, "1M/1e6/1e-3", "bpb", "run", campaign="new").value == pytest.approx(3.0, rel=1e-4)


def test_pairs_of_one_control_count_for_less_than_as_many_runs() -> None:
    pairs, runs = (
        prior(Bank(entries=(entry("a", df=2.0, arms=8, kind=kind),)), "1M/1e6/1e-3", "bpb", kind, campaign="new")
        for kind in ("pair", "run")
    )
    assert pairs.value == runs.value and pairs.df < runs.df


def test_an_entry_must_make_sense() -> None:
    with pytest.raises(InputError, match="bpb"):
        entry("a", float("nan"))
    with pytest.raises(InputError, match="one df an arm"):
        replace(entry("a"), dfs=())
