"""A plan says what runs read of what each arm changes, what they see and cost; a placebo that none reads is refused."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from filters.errors import InputError
from filters.rule import Bools
from infra.cli_ablate import arm_rows, print_plan
from infra.experiment_arms import MATCHED, seen
from infra.experiment_plan import Plan, check_calibrated, price
from infra.local_store import LocalStore
from infra.training import calibration_name
from proxy_eval.experiment import Experiment
from proxy_eval.planner import power
from proxy_eval.pool import Pool
from proxy_eval.stream import Arm, Source, Stream
from proxy_eval.tokenizer import decode, encode
from tests.infra.test_ablate import ARMS, TOKENS, Trainer, experiment, planned, run
from tests.proxy_eval.pools import tokenizer

NEWLINE = int(encode(tokenizer(), ["\n"])[0][0])


def with_tokens(said: Experiment, tokens: int, **more: object) -> Experiment:
    rung = said.rungs[0].model_copy(update={"tokens": tokens})
    return Experiment.model_validate({**said.model_dump(), "rungs": [rung], **more})


def known(said: Experiment) -> Experiment:
    """The experiment with runs that are known to be quiet: a spread of 2.6 % of a doubling."""
    expected = said.rungs[0].expected.model_copy(update={"noise": 0.0026, "gain": 0.1})
    return said.model_copy(update={"rungs": [said.rungs[0].model_copy(update={"expected": expected})]})


def planned_power(plan: Plan) -> float:
    return plan.garbage_power(plan.rungs[0].design)


def test_what_a_run_is_said_to_read_of_the_garbage_is_what_it_reads(pool: Pool, tmp_path: Path) -> None:
    plan = planned(experiment(pool, tmp_path), pool)
    garbage, control = plan.arm("garbage"), plan.arm("control")
    found = seen(garbage, control, TOKENS)
    assert found is not None
    planted = garbage.mask & garbage.shuffled_mask
    arm = Arm(name="garbage", sources=(Source(pool=pool, mask=garbage.mask),))  # in their order, so that they are known
    runs = [documents_read(Stream(arm=arm, seed=seed, context=TOKENS), pool) for seed in range(1, 41)]
    shares = [pool.counts[run[planted[run]]].sum() / pool.counts[run].sum() for run in runs]
    counts = [int(planted[run].sum()) for run in runs]
    assert np.mean(shares) == pytest.approx(found.share, abs=4 * float(np.std(shares)) / math.sqrt(len(runs)))
    assert np.mean(counts) == pytest.approx(found.documents, abs=4 * float(np.std(counts)) / math.sqrt(len(runs)))


def documents_read(stream: Stream, pool: Pool) -> NDArray[np.int64]:
    """The documents whose number stands in the first TOKENS tokens of a run."""
    tokens, _ = stream.sequences(0, 1)
    texts = decode(pool.tokenizer, np.where(tokens[0] == pool.tokenizer.end, NEWLINE, tokens[0])).splitlines()
    return np.array([1 + int(text.partition(":")[0]) for text in texts if ":" in text])


def test_a_rule_changes_the_share_of_the_tokens_on_its_side(pool: Pool, tmp_path: Path) -> None:
    plan = planned(experiment(pool, tmp_path), pool)
    control = plan.arm("control")
    for name in (*ARMS, "random"):
        arm = plan.arm(name)
        found = seen(arm, control, TOKENS)
        more, less = (arm, control) if arm.in_base else (control, arm)
        differ = more.mask & ~less.mask
        assert found is not None
        assert found.share == pytest.approx((pool.counts[differ] + 1).sum() / more.reads.tokens)
        assert found.documents == pytest.approx(differ.sum() * TOKENS / more.reads.tokens)
    assert seen(plan.arm("same"), control, TOKENS) == seen(control, control, TOKENS)


def test_a_budget_within_which_no_garbage_is_read_is_refused_with_the_tokens_it_takes(
    pool: Pool, tmp_path: Path
) -> None:
    said = experiment(pool, tmp_path)
    plan = planned(said, pool)
    least = plan.arm("garbage").reads.tokens / plan.arm("garbage").changes.gained.documents
    with pytest.raises(InputError, match=r"a run reads 0\.5 of the .* planted .* Train on [\d,]+ tokens or more"):
        planned(with_tokens(said, round(least / 2)), pool)
    with pytest.raises(InputError, match="Take a larger pool, or raise"):
        planned(with_tokens(said, 20, placebos={"garbage": 0.01}), pool)
    assert any("planted documents; 20 tell more" in note for note in planned(with_tokens(said, 1000), pool).notes)
    assert not any("tell more" in note for note in planned(with_tokens(said, round(least * 25)), pool).notes)


def test_the_power_to_see_garbage_is_of_what_is_read_of_it(pool: Pool, tmp_path: Path) -> None:
    said = known(experiment(pool, tmp_path))
    few, many = (planned(with_tokens(said, tokens, placebos={"garbage": 0.1}), pool) for tokens in (400, 6_000))
    assert planned_power(few) < planned_power(many)
    found = seen(many.arm("garbage"), many.arm("control"), 6_000)
    assert found is not None
    design = replace(many.rungs[0].design, level=many.experiment.budget.placebo_level)
    assert planned_power(many) == pytest.approx(power(design, found.share / (1 - found.share)), abs=0.03)
    less = planned(with_tokens(said, 6_000, placebos={"garbage": 0.03}), pool)
    assert planned_power(less) < 0.8 and any("so not seeing it is no fault" in note for note in less.notes)


def test_arms_are_priced_one_by_one_and_add_up(pool: Pool, tmp_path: Path) -> None:
    plan = planned(experiment(pool, tmp_path, price_per_hour=7.2), pool)
    costs = [plan.arm_cost(arm.name) for arm in plan.arms]
    assert sum(one.runs for one in costs) == plan.cost.runs
    assert sum(one.money for one in costs) == pytest.approx(plan.cost.money)
    assert plan.arm_cost("good").tokens == pytest.approx(2 * 6 * TOKENS)  # at two learning rates
    assert plan.arm_cost("same").tokens == pytest.approx(6 * TOKENS)


@pytest.mark.parametrize(("seeds", "rho"), [(2, 0.0), (3, 0.9), (6, 0.0)])
def test_no_arm_runs_more_often_than_is_priced_whatever_the_pilot_finds(
    pool: Pool, tmp_path: Path, seeds: int, rho: float
) -> None:
    """The plan expects what the pilot contradicts."""
    said = experiment(pool, tmp_path)
    rung = said.rungs[0].model_copy(update={"seeds": seeds})
    plan = planned(Experiment.model_validate({**said.model_dump(), "rungs": [rung]}), pool)
    plan = as_if_paired(plan) if rho == 0 else plan
    trainer = Trainer(plan, rho=rho)
    run(plan, LocalStore(tmp_path / "out"), trainer)
    taken = Counter(one.arm for one in trainer.trained)
    assert {name: count for name, count in taken.items() if count > plan.arm_cost(name).runs} == {}


def as_if_paired(plan: Plan) -> Plan:
    """The plan of one who expects that runs of a seed share their luck."""
    (rung,) = plan.rungs
    design = replace(rung.design, rung=replace(rung.design.rung, rho=0.9))
    costs = {arm.name: price(design, arm, plan.experiment.pilot) for arm in plan.arms}
    return replace(plan, rungs=(replace(rung, design=design, costs=costs),))


def test_without_a_pilot_a_control_that_shares_the_seeds_is_priced_at_those(pool: Pool, tmp_path: Path) -> None:
    plan = planned(experiment(pool, tmp_path), pool)
    design, control = as_if_paired(plan).rungs[0].design, plan.arm("control")
    shared = replace(design, learning_rates=1)
    assert price(shared, control, 0).runs == shared.seeds == 6 < price(shared, control, 4).runs


def test_a_removal_that_is_matched_to_an_arm_stands_on_the_side_of_the_arm(pool: Pool, tmp_path: Path) -> None:
    said = experiment(pool, tmp_path)
    tokens = 2 * planned(said, pool).arm("control").reads.tokens // 3
    for side in ("arm", "base"):
        arms = [{"name": "most", "mask": "with:most", "rule_in": side}]
        plan = planned(with_tokens(said, tokens, arms=arms), pool)
        assert plan.arm(f"{MATCHED}most").in_base is plan.arm("most").in_base is (side == "base")


@pytest.mark.parametrize(("context", "taken"), [(None, True), (256, True), (128, False)])
def test_a_calibration_speaks_for_windows_of_its_own_length_alone(
    pool: Pool, tmp_path: Path, context: int | None, taken: bool
) -> None:
    said = experiment(pool, tmp_path)
    rung = said.rungs[0].model_copy(update={"context": context, "learning_rates": []})
    said = Experiment.model_validate({**said.model_dump(), "rungs": [rung]})
    swept = {"pool_sha256": pool.sha256, "panel_sha256": "other", "learning_rate": 4e-4, "schedule": "wsd", "rates": []}
    path = pool.folder / calibration_name("1M", TOKENS)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(swept))
    try:
        plan = planned(said, pool)
    finally:
        path.unlink()
    if taken:
        check_calibrated(plan)
        assert plan.rungs[0].rates[0] == 4e-4
    else:
        with pytest.raises(InputError, match="none for windows of 128 tokens: leave `context` out, or name"):
            check_calibrated(plan)
        assert any("none for windows of 128 tokens" in note for note in plan.notes)


def test_the_cheapest_design_is_shown_for_the_effect_that_is_wanted_or_for_some(pool: Pool, tmp_path: Path) -> None:
    assert len(planned(experiment(pool, tmp_path), pool).cheapest) > 1
    plan = planned(experiment(pool, tmp_path, wanted="{effect: 0.1, power: 0.9}"), pool)
    (design,) = plan.cheapest.values()
    assert design is not None and power(design, 0.1) >= 0.9 > power(replace(design, seeds=design.seeds - 1), 0.1)
    none = planned(experiment(pool, tmp_path, wanted="{effect: 0.0101}"), pool)
    assert list(none.cheapest.values()) == [None] and any("seen by no rung" in note for note in none.notes)


def test_a_plan_of_many_arms_is_a_row_for_each_and_a_few_notes(
    pool: Pool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"family.a_rule_with_a_name_{at}" for at in range(60)]
    number = np.arange(len(pool))

    def mask_of(url: str, mask: str) -> Bools:
        left = [at for at, name in enumerate(names) if f"without:{name}" != mask]
        return ~np.isin(number % 100, left)

    plan = planned(with_tokens(experiment(pool, tmp_path, arms=names), 2_000), pool, mask_of=mask_of)
    narrow, rows = arm_rows(plan, wide=False)
    wide, _ = arm_rows(plan, wide=True)
    assert len(rows) == 60 + 4 and len(narrow) < len(wide) and all(len(row) == len(narrow) for row in rows)
    assert len(plan.notes) < 10 and "more change so little" in plan.notes[-1]
    print_plan(plan)
    shown = capsys.readouterr().out
    assert all(name in shown for name in names) and "to see, with power 80%" in shown
