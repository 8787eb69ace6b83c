"""An experiment's plan, and its looks with a trainer of known truth: promotion, early stop, resume, placebos, price."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from filters.errors import InputError
from filters.rule import Bools
from infra.ablate import SAME_SEEDS, Measured, Run, State, ablate
from infra.experiment_arms import MATCHED
from infra.experiment_findings import results_of
from infra.experiment_plan import Plan, check_calibrated, planned_experiment, price
from infra.experiment_promises import as_begun
from infra.experiment_results import Results, encoded
from infra.experiments import note_noise
from infra.local_store import LocalStore
from infra.training import calibration_name
from proxy_eval.effects import ENDPOINTS
from proxy_eval.experiment import Experiment, parse_experiment
from proxy_eval.noise_bank import Bank, read_bank
from proxy_eval.pool import Pool
from proxy_eval.verdict import Verdict
from tests.proxy_eval.pools import DOCUMENTS, numbered, pool_of

SIMULATED = 200
ARMS = ("good", "bad", "idle")
TOKENS = 1_000
GAIN, SIGMA, RHO = 0.1, 0.002, 0.7
TRUTH = {"good": 0.3, "bad": -0.3, "idle": 0.0, "same": 0.0, "random": 0.0, "garbage": 0.25}
"""Worth of each rule, in doublings of tokens."""


def experiment(pool: Pool, tmp_path: Path, *, arms: Sequence[str] = ARMS, rungs: str = "", **more: Any) -> Experiment:
    """Rules left out one at a time; learning rates stand in the file, so that nothing must be calibrated."""
    lines = [
        "name: test",
        f"pool: {pool.folder}",
        f"panel: {tmp_path}",
        f"tasks: {tmp_path}",
        *(f"{name}: {value}" for name, value in more.items()),
        "arms:",
        *(f"  - {{name: {name}, mask: 'without:{name}'}}" for name in arms),
        "rungs:",
        rungs
        or f"  - {{size: 1M, tokens: {TOKENS}, seeds: 6, learning_rates: [1e-3, 2e-4], context: 32, "
        "expected: {tokens_per_second: 1e3}}",
    ]
    return parse_experiment("\n".join(lines), where="test.yaml")


def masks(pool: Pool) -> Callable[[str, str], Bools | None]:
    """Rule k removes the documents whose number leaves k of 10; the base keeps what all leave."""
    number = np.arange(len(pool)) % 10
    rules = {name: number != at for at, name in enumerate((*ARMS, "later", "most"))}
    rules["most"] = number < 5

    def mask_of(url: str, mask: str) -> Bools | None:
        kept = {name: rules[name] for name in (*ARMS, "later")}
        if mask == "all":
            return None
        for term in mask.split(","):
            kind, _, name = term.partition(":")
            if kind == "without":
                kept.pop(name)
            elif kind == "with":
                kept[name] = rules[name]
            elif kind == "only":
                kept = {name: rules[name]}
        return np.logical_and.reduce(list(kept.values()))

    return mask_of


def planned(
    said: Experiment,
    pool: Pool,
    *,
    bank: Bank | None = None,
    other: Pool | None = None,
    mask_of: Callable[[str, str], Bools | None] | None = None,
    store: LocalStore | None = None,
) -> Plan:
    """The plan of an experiment, as the store has begun it."""
    said, begun = (said, ()) if store is None else as_begun(said, store)
    return planned_experiment(
        said,
        said={"sha256": pool.sha256, "tokenizer": {"vocabulary": pool.tokenizer.vocabulary}},
        open_pool=lambda url: other if other is not None and url == str(other.folder) else pool,
        mask_of=mask_of or masks(pool),
        speed=lambda training: 1e3,
        bank=bank or Bank(),
        panel_sha256="p" * 64,
        tasks_sha256="t" * 64,
        begun=begun,
    )


class Trainer:
    """Gives numbers of known truth, and remembers what it was asked to train; `before` is what an earlier one did."""

    def __init__(
        self, plan: Plan, *, rho: float = RHO, world: int = 0, before: Sequence[Run] = (), **truth: float
    ) -> None:
        self.plan, self.rho, self.world, self.truth = plan, rho, world, {**TRUTH, **truth}
        self.trained: list[Run] = []
        self.before = set(before)
        self.gold = 1.0  # sign of the gold answers' effects
        self.second = 1.0  # of the effects at the second learning rate
        self.stop_after: int | None = None

    def __call__(self, runs: Sequence[Run]) -> list[Measured]:
        found = []
        for run in runs:
            if run not in self.before:
                if len(self.trained) == self.stop_after:
                    raise KeyboardInterrupt
                self.trained.append(run)
                self.before.add(run)
            found.append(self.measured(run))
        return found

    def measured(self, run: Run) -> Measured:
        arm = self.plan.arm(run.arm)
        worth = self.truth.get(run.arm, 0.0) * (-1 if arm.in_base else 1)
        if run.rate != self.plan.rungs[run.rung].rates[0]:
            worth *= self.second
        ends = [math.log2(share) for share in ENDPOINTS] if run.ends else [0.0]
        luck = math.sqrt(self.rho) * normal(self.world, run.rung, run.seed)
        drawn = [
            SIGMA * (luck + math.sqrt(1 - self.rho) * normal(self.world, run.rung, run.arm, run.rate, run.seed, at))
            for at in range(len(ends))
        ]
        bits = [2.0 - GAIN * (worth + end) - noise for end, noise in zip(ends, drawn, strict=True)]
        gold = [1.0 - self.gold * GAIN * (worth + end) for end in ends]
        metrics = [
            {"panel": b, "panel/books": b + 0.1, "gold": g, "copa/acc": 0.5} for b, g in zip(bits, gold, strict=True)
        ]
        labels = tuple(f"{run.arm}-{run.seed}-{run.rate:g}-{at}" for at in range(len(ends)))
        return Measured(ends=tuple(metrics), labels=labels, hours=0.001)


def normal(*key: object) -> float:
    return float(np.random.default_rng(zlib.crc32(repr(key).encode())).standard_normal())


def run(plan: Plan, store: LocalStore, trainer: Trainer) -> tuple[Results, list[Results]]:
    looks: list[Results] = []

    def looked(state: State) -> None:
        looks.append(results_of(state))

    state = ablate(plan, store, trainer, on_look=looked)
    return results_of(state), looks


def verdicts(found: Results) -> dict[str, str]:
    return {arm.name: arm.verdict for arm in found.arms}


def test_arms_read_what_their_masks_keep_but_for_the_garbage_that_one_placebo_reads(pool: Pool, tmp_path: Path) -> None:
    plan = planned(experiment(pool, tmp_path), pool)
    control, good, garbage = (plan.arm(name) for name in ("control", "good", "garbage"))
    text = pool.counts > 0
    base = masks(pool)("", "rules")
    assert base is not None
    planted = garbage.mask & garbage.shuffled_mask
    assert (control.mask | planted == base & text).all() and not (control.mask & planted).any() and planted.any()
    assert not any((arm.mask & planted).any() for arm in plan.arms if arm is not garbage)
    assert (good.mask & ~control.mask).sum() == good.changes.gained.documents > 0
    assert good.changes.lost.documents == 0
    alone = np.arange(len(pool)) % 10 == 0
    assert good.changes.alone is not None and good.changes.alone.documents == (alone & text).sum()
    assert good.changes.at_all == good.changes.alone
    assert (plan.arm("same").mask == control.mask).all()
    removed = plan.arm("random").changes
    assert removed.gained.documents == 0 and 0.05 < removed.lost.tokens / control.reads.tokens < 0.25


def test_an_arm_that_comes_round_again_gets_a_random_removal_of_the_same_tokens(pool: Pool, tmp_path: Path) -> None:
    said = experiment(pool, tmp_path)
    arm = {"name": "most", "mask": "with:most"}
    tokens = 2 * planned(said, pool).arm("control").reads.tokens // 3
    rung = said.rungs[0].model_copy(update={"tokens": tokens})
    grown = Experiment.model_validate({**said.model_dump(), "arms": [arm], "rungs": [rung]})
    plan = planned(grown, pool)
    most, matched = plan.arm("most"), plan.arm(f"{MATCHED}most")
    assert most.epochs(tokens) > 1
    assert matched.reads.tokens == pytest.approx(most.reads.tokens, rel=0.03)
    assert not (matched.mask & ~plan.arm("control").mask).any()
    assert any("come round again" in note and "in most; a random" in note for note in plan.notes)
    with pytest.raises(InputError, match="epochs, and above 4"):
        planned(
            Experiment.model_validate({**grown.model_dump(), "rungs": [rung.model_copy(update={"tokens": 10**5})]}),
            pool,
        )


def test_another_view_is_an_arm_of_the_same_pages(pool: Pool, tmp_path: Path) -> None:
    """Its texts are shorter, and the last ones could not be extracted; garbage is the same pages in both."""
    other = pool_of(tmp_path / "view", [None, *(numbered(at, words=6) for at in range(DOCUMENTS - 101))])
    said = experiment(pool, tmp_path)
    arms = [{"name": "view", "pool": str(other.folder)}]
    kept = masks(pool)

    def mask_of(url: str, mask: str) -> Bools | None:
        found = kept(url, mask)
        return found if found is None or url == said.pool else found[: len(other)]

    plan = planned(Experiment.model_validate({**said.model_dump(), "arms": arms}), pool, other=other, mask_of=mask_of)
    view, control = plan.arm("view"), plan.arm("control")
    assert (view.mask == control.mask[: len(other)]).all() and view.pool_sha256 == other.sha256
    assert view.changes.gained.documents == 0
    assert view.changes.lost.documents == control.mask[len(other) :].sum() > 0


def test_an_arm_that_changes_nothing_is_refused_by_name(pool: Pool, tmp_path: Path) -> None:
    said = experiment(pool, tmp_path)
    arms = [{"name": "twice", "mask": "with:later"}]
    with pytest.raises(InputError, match="twice: on this pool the rule removes no document"):
        planned(Experiment.model_validate({**said.model_dump(), "arms": arms}), pool)


def test_a_plan_is_priced_run_by_run_and_says_what_it_guesses(pool: Pool, tmp_path: Path) -> None:
    plan = planned(experiment(pool, tmp_path, price_per_hour=7.2), pool)
    (rung,) = plan.rungs
    control = rung.design.control_seeds
    arms, placebos, seeds = 3, 3, 6
    once, again = (arms + placebos) * seeds, arms * seeds + control
    assert rung.cost.runs == control + once + again
    assert rung.cost.tokens == pytest.approx(TOKENS * (1.3 * (seeds + 2) + control + once + again))
    assert rung.cost.money == pytest.approx(7.2 * rung.cost.tokens / 1e3 / 3600)
    pairs = replace(rung.design, rung=replace(rung.design.rung, rho=0.8))
    assert pairs.shared and price(pairs, plan.arm("control"), 4) == price(rung.design, plan.arm("control"), 4)
    assert any("guessed" in note for note in plan.notes)
    assert rung.arm_training.budgets == (TOKENS,) and rung.training.budgets == (TOKENS // 2, TOKENS, 2 * TOKENS)
    assert rung.arm_training.schedule == rung.training.schedule  # else an arm and the control would differ by it


def test_a_rung_is_calibrated_for_its_pool_or_refused(pool: Pool, tmp_path: Path) -> None:
    rungs = f"  - {{size: 1M, tokens: {TOKENS}, expected: {{tokens_per_second: 1e3}}}}"
    plan = planned(experiment(pool, tmp_path, rungs=rungs), pool)
    with pytest.raises(InputError, match="was never calibrated"):
        check_calibrated(plan)
    path = pool.folder / calibration_name("1M", TOKENS)
    path.parent.mkdir(exist_ok=True)
    said = {"pool_sha256": pool.sha256, "panel_sha256": plan.panel_sha256, "learning_rate": 4e-4, "schedule": "wsd"}
    runs = {"all": [3.0, 3.1, 3.2, None], "clean": [2.8, 2.9, 3.06, 2.0]}
    path.write_text(json.dumps({**said, "rates": [{"learning_rate": 4e-4, **runs}]}))
    named = rungs.replace("expected", "learning_rates: [2e-3], expected")
    try:
        plan = planned(experiment(pool, tmp_path, rungs=rungs), pool)
        other = planned(experiment(pool, tmp_path, rungs=named), pool)
    finally:
        path.unlink()
    check_calibrated(plan)
    (rung,) = plan.rungs
    assert rung.rates == (4e-4, 1e-4) and rung.calibrated
    assert not other.rungs[0].calibrated
    assert any("chose the learning rate 0.0004, the file says 0.002" in note for note in other.notes)
    assert rung.expected.sources == {"noise": "calibration", "rho": "calibration", "gain": "guessed"}
    assert float(rung.design.rung.noise.value) == pytest.approx((0.0100 + 0.0172) / 2)
    assert rung.design.rung.rho == pytest.approx(1 - 0.0012 / (0.0100 + 0.0172))


def test_rules_of_known_worth_get_their_verdicts_and_decided_arms_stop(
    pool: Pool, tmp_path: Path, store: LocalStore
) -> None:
    plan = planned(experiment(pool, tmp_path), pool)
    trainer = Trainer(plan)
    found, looks = run(plan, store, trainer)
    assert found.status == "finished" and not found.faults
    assert verdicts(found) | {"idle": ""} == {"good": "KEEP", "bad": "REJECT", "idle": ""}
    assert found.arms[2].verdict in ("NEUTRAL", "UNDECIDED")
    good = found.arms[0]
    assert good.look is not None and good.look < 6 and good.seeds == good.look  # no seed after the verdict
    assert good.doublings.low is not None and 0 < good.doublings.low < 0.3
    assert good.doublings.estimate == pytest.approx(0.3, abs=0.05)
    assert good.domains["books"].estimate == pytest.approx(0.3 * GAIN, abs=0.01)
    assert good.second is not None and good.gold.estimate == pytest.approx(0.3 * GAIN, abs=0.01)
    assert found.placebos[2].verdict == "KEEP" and found.placebos[0].verdict in ("NEUTRAL", "UNDECIDED")
    assert found.rungs[0].fixed.rho_low is not None and found.rungs[0].fixed.gain == pytest.approx(GAIN, rel=0.1)
    assert found.rungs[0].pairing is not None and found.rungs[0].pairing.rho == pytest.approx(RHO, abs=0.5)
    assert len(looks) >= 3 and looks[-1].status == "finished"
    assert found.actual.runs == len(trainer.trained) < found.planned.runs


def test_the_control_runs_the_seeds_of_pairs_or_more_of_which_the_first_have_endpoints(
    pool: Pool, tmp_path: Path
) -> None:
    for rho, shared in ((0.9, True), (0.0, False)):
        rungs = (
            f"  - {{size: 1M, tokens: {TOKENS}, seeds: 4, learning_rates: [1e-3], context: 32, "
            f"expected: {{tokens_per_second: 1e3, rho: {rho}}}}}"
        )
        plan = planned(experiment(pool, tmp_path, rungs=rungs), pool)
        trainer = Trainer(plan, rho=rho)
        found, _ = run(plan, LocalStore(tmp_path / str(rho)), trainer)
        control = {one.seed: one.ends for one in trainer.trained if one.arm == "control"}
        others = {one.seed for one in trainer.trained if one.arm not in ("control", "same")}
        assert found.rungs[0].shared is shared
        count = len(others) if shared else found.rungs[0].control_seeds
        assert others == set(range(1, 5)) and control == {seed: seed <= 6 for seed in range(1, count + 1)}
        assert (len(control) == len(others)) is shared
        assert {len(point.values) for point in found.rungs[0].curve} == {min(count, 6)}
        assert {one.tokens for one in found.control.runs if one.seed == 1} == {500, 1000, 2000}
        last = {one.tokens for one in found.control.runs if one.seed == count}
        assert last == ({500, 1000, 2000} if shared else {1000})
        assert min(one.seed for one in trainer.trained if one.arm == "same") > SAME_SEEDS


@pytest.mark.parametrize(("rho", "shared"), [(0.9, True), (0.0, False)])
def test_seeds_that_are_added_later_have_endpoints_in_pairs_alone_and_retrain_nothing(
    pool: Pool, tmp_path: Path, store: LocalStore, rho: float, shared: bool
) -> None:
    trained: list[Run] = []
    for seeds in (3, 5):
        rungs = (
            f"  - {{size: 1M, tokens: {TOKENS}, seeds: {seeds}, learning_rates: [1e-3], context: 32, "
            f"expected: {{tokens_per_second: 1e3, rho: {rho}}}}}"
        )
        plan = planned(experiment(pool, tmp_path, rungs=rungs), pool, store=store)
        trainer = Trainer(plan, rho=rho, before=trained)
        found, _ = run(plan, store, trainer)
        trained += trainer.trained
    control = [one for one in trained if one.arm == "control"]
    assert found.rungs[0].looks == 5 and found.rungs[0].control_seeds == len(control)
    assert {one.seed: one.ends for one in control} == {at: shared or at <= 5 for at in range(1, len(control) + 1)}


def test_keep_waits_for_gold_answers_and_for_the_second_learning_rate(pool: Pool, tmp_path: Path) -> None:
    for field, expected in (("gold", "gold-answer"), ("second", "second learning rate")):
        plan = planned(experiment(pool, tmp_path), pool)
        trainer = Trainer(plan)
        setattr(trainer, field, -1.0)
        found, _ = run(plan, LocalStore(tmp_path / field), trainer)
        good = found.arms[0]
        assert good.verdict == "UNDECIDED" and expected in good.reason
        assert good.next_look is None and good.seeds == 6  # more seeds would not mend it


@pytest.mark.parametrize("stop_after", [0, 4, 13, 25, 40])
def test_killed_at_any_run_and_typed_again_it_trains_nothing_twice_and_says_the_same(
    pool: Pool, tmp_path: Path, stop_after: int
) -> None:
    plan = planned(experiment(pool, tmp_path), pool)
    whole = Trainer(plan)
    expected, _ = run(plan, LocalStore(tmp_path / "whole"), whole)
    killed = Trainer(plan)
    killed.stop_after = stop_after
    store = LocalStore(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        run(plan, store, killed)
    again = Trainer(plan, before=killed.trained)
    found, _ = run(plan, store, again)
    assert encoded(found) == encoded(expected)
    assert sorted(map(repr, killed.trained + again.trained)) == sorted(map(repr, whole.trained))


def test_a_placebo_that_decides_voids_the_verdicts_and_ends_the_experiment(
    pool: Pool, tmp_path: Path, store: LocalStore
) -> None:
    plan = planned(experiment(pool, tmp_path), pool)
    trainer = Trainer(plan, random=0.4)
    found, looks = run(plan, store, trainer)
    assert found.status == "void" and "random changes nothing that matters and came out KEEP" in found.faults[0]
    assert len(looks) < 6
    line = encoded(found)
    assert json.loads(line)["status"] == "void"


def test_garbage_that_is_not_seen_with_power_to_see_it_is_a_fault(
    pool: Pool, tmp_path: Path, store: LocalStore
) -> None:
    plan = planned(experiment(pool, tmp_path, placebos="{garbage: 0.25}"), pool)
    found, _ = run(plan, store, Trainer(plan, garbage=0.0))
    assert found.status == "void" and "removes planted garbage" in found.faults[0]
    assert found.rungs[0].looks == 6


def test_the_noise_of_one_campaign_plans_the_next(pool: Pool, tmp_path: Path, store: LocalStore) -> None:
    plan = planned(experiment(pool, tmp_path), pool)
    states: list[State] = []
    ablate(plan, store, Trainer(plan, rho=0.9), on_look=states.append)
    note_noise(tmp_path / "bank.json", states[-1])
    bank = read_bank(tmp_path / "bank.json")
    note_noise(tmp_path / "bank.json", states[-1])
    assert read_bank(tmp_path / "bank.json") == bank  # what is written twice counts once
    said = experiment(pool, tmp_path).model_copy(update={"name": "next"})
    (rung,) = planned(said, pool, bank=bank).rungs
    assert rung.expected.sources["noise"] == "noise bank"
    assert math.sqrt(float(rung.design.rung.noise.value)) == pytest.approx(SIGMA, rel=0.7)
    assert rung.expected.bank["doubling"].df > 0
    (own,) = planned(experiment(pool, tmp_path), pool, bank=bank).rungs
    assert own.expected.sources["noise"] == "guessed"  # a campaign does not vouch for itself


def test_only_what_may_be_worth_something_goes_on_to_the_next_rung(
    pool: Pool, tmp_path: Path, store: LocalStore
) -> None:
    common = "context: 32, expected: {tokens_per_second: 1e3}"
    rungs = (
        f"  - {{size: 1M, tokens: {TOKENS}, seeds: 6, learning_rates: [1e-3], {common}}}\n"
        f"  - {{size: 1M, tokens: {2 * TOKENS}, seeds: 6, learning_rates: [1e-3, 2e-4], {common}}}"
    )
    plan = planned(experiment(pool, tmp_path, rungs=rungs), pool)
    trainer = Trainer(plan)
    found, _ = run(plan, store, trainer)
    second = {one.arm for one in trainer.trained if one.rung == 1}
    assert "good" in second and "bad" not in second
    assert {arm.name: arm.rung for arm in found.arms}["bad"] == 0
    assert verdicts(found)["good"] == "KEEP" and verdicts(found)["bad"] == "REJECT"
    assert 0 <= found.rungs[0].decision_accuracy.get("panel", 1.0) <= 1
    assert not any(one.rate == 2e-4 for one in trainer.trained if one.rung == 0)


def test_a_model_that_stopped_costs_its_seed_and_no_more(pool: Pool, tmp_path: Path, store: LocalStore) -> None:
    plan = planned(experiment(pool, tmp_path), pool)
    trainer = Trainer(plan)
    whole = trainer.measured

    def stopped(run: Run) -> Measured:
        found = whole(run)
        if run.arm == "good" and run.seed == 2:
            return replace(found, ends=tuple(dict.fromkeys(end) for end in found.ends))
        return found

    trainer.measured = stopped  # type: ignore[method-assign]
    found, _ = run(plan, store, trainer)
    assert verdicts(found)["good"] == "KEEP" and verdicts(found)["bad"] == "REJECT"
    assert json.loads(encoded(found))["arms"][0]["runs"]


def test_results_are_plain_json_with_everything_a_report_needs(pool: Pool, tmp_path: Path, store: LocalStore) -> None:
    plan = planned(experiment(pool, tmp_path), pool)
    found = json.loads(encoded(run(plan, store, Trainer(plan))[0]))
    assert set(found) >= {
        "arms",
        "placebos",
        "control",
        "rungs",
        "faults",
        "identity",
        "experiment",
        "planned",
        "actual",
    }
    assert [point["tokens"] for point in found["rungs"][0]["curve"]] == [TOKENS // 2, TOKENS, 2 * TOKENS]
    assert found["arms"][0]["yields"]["alone"]["documents"] > 0
    assert found["identity"]["panel"] == "p" * 64
    assert all(run["label"] for run in found["arms"][0]["runs"])


@pytest.mark.full
@pytest.mark.parametrize("rho", [0.0, 0.3, 0.7])
def test_verdicts_of_whole_experiments_are_false_no_more_often_than_promised(
    pool: Pool, tmp_path: Path, rho: float
) -> None:
    """With a pilot that chooses the design, a second learning rate and early stops; arms stand on the ROPE's edge."""
    plan = planned(experiment(pool, tmp_path), pool)
    edge, wrong, void, seen = math.log2(1.01), 0, 0, 0
    for world in range(SIMULATED):
        trainer = Trainer(plan, rho=rho, world=world, good=edge, bad=-edge, idle=edge)
        store = LocalStore(tmp_path / str(world))
        state = ablate(plan, store, trainer, on_look=lambda state: None)
        decided = {name: finding.verdict for name, (finding, _) in state.rungs[0].decided.items()}
        wrong += any(verdict in (Verdict.KEEP, Verdict.REJECT) for verdict in decided.values())
        void += bool(state.faults)
        seen += any(one.kind == "garbage" and one.verdict == Verdict.KEEP for one in state.rungs[0].placebos)
    assert at_least(wrong) <= 0.05 and at_least(void) <= 0.01
    assert seen > 0.9 * SIMULATED


def at_least(found: int) -> float:
    """The lower 99 % Clopper-Pearson limit of a share of the simulated experiments."""
    return float(stats.beta.ppf(0.01, found, SIMULATED - found + 1)) if found else 0.0
