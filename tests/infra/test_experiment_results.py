"""What results.json says of runs of known truth; that it reads back, and is the same however often it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.errors import InputError, OutputError, VerifyFailed
from infra.ablate import Measured, Run, State, ablate, decide
from infra.experiment_arms import MATCHED
from infra.experiment_findings import results_of
from infra.experiment_plan import Plan, check_calibrated
from infra.experiment_results import FORMAT, RESULTS, Bounds, Results, encoded, read_results
from infra.local_store import LocalStore
from infra.training import calibration_name
from proxy_eval.experiment import Experiment
from proxy_eval.pool import Pool, read_pool
from proxy_eval.verdict import SAYS, Reason, Verdict
from tests.infra.test_ablate import GAIN, TOKENS, Trainer, experiment, normal, planned, run
from tests.proxy_eval.pools import numbered_pool


def rungs_of(*learning_rates: str, rho: float | None = None) -> str:
    """A rung for each list of learning rates, with tokens that rise."""
    known = "tokens_per_second: 1e3" + ("" if rho is None else f", rho: {rho}")
    return "\n".join(
        f"  - {{size: 1M, tokens: {TOKENS * (at + 1)}, seeds: 6, learning_rates: [{rates}], context: 32, "
        f"expected: {{{known}}}}}"
        for at, rates in enumerate(learning_rates)
    )


def test_results_read_back_as_they_were_written_and_no_others(pool: Pool, tmp_path: Path, store: LocalStore) -> None:
    plan = planned(experiment(pool, tmp_path), pool)
    found, looks = run(plan, store, Trainer(plan))
    for one in (found, looks[0]):
        back = read_results(encoded(one))
        assert encoded(back) == encoded(one) and isinstance(back.rungs[0], type(one.rungs[0]))
    other = json.dumps({**json.loads(encoded(found)), "format": FORMAT + 1}).encode()
    for data, said in ((other, f"format {FORMAT + 1}"), (b"[]", "format None"), (b"{", "cannot be read")):
        with pytest.raises(InputError, match=said):
            read_results(data)
    with pytest.raises(InputError, match="arms"):
        read_results(json.dumps({**json.loads(encoded(found)), "arms": 3}).encode())
    wrong = (("arms", "verdict", "PERHAPS", "arms.0.verdict"), ("placebos", "kind", "arm", "same: its kind is arm"))
    for where, key, other_word, said in wrong:
        data = json.loads(encoded(found))
        data[where][0][key] = other_word
        with pytest.raises(InputError, match=said):
            read_results(json.dumps(data).encode())


def repeating(pool: Pool, tmp_path: Path, rho: float) -> Plan:
    """An arm `most` that keeps half of the documents and reads them more than once."""
    said = experiment(pool, tmp_path, rungs=rungs_of("1e-3", rho=rho))
    rung = said.rungs[0].model_copy(update={"tokens": 2 * planned(said, pool).arm("control").reads.tokens // 3})
    arms = [{"name": "most", "mask": "with:most"}]
    return planned(Experiment.model_validate({**said.model_dump(), "arms": arms, "rungs": [rung]}), pool)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_an_arm_that_comes_round_again_is_held_against_its_random_removal_too(
    pool: Pool, tmp_path: Path, store: LocalStore, rho: float
) -> None:
    """A rule that is worth 0.1 although it leaves so little that a random removal of as much costs 0.3."""
    plan = repeating(pool, tmp_path, rho)
    trainer = Trainer(plan, rho=rho, world=1)
    trainer.truth |= {"most": 0.1, f"{MATCHED}most": -0.3}
    found, _ = run(plan, store, trainer)
    (most,), (removal,) = found.arms, found.matched
    assert most.matched is not None and most.against_matched is not None and most.epochs > 1
    assert most.matched == removal.doublings and removal.runs and removal.against_matched is None
    assert most.doublings.estimate == pytest.approx(0.1, abs=0.04)
    assert most.matched.estimate == pytest.approx(-0.3, abs=0.04)
    assert most.against_matched.estimate == pytest.approx(0.4, abs=0.05)
    assert most.against_matched.low is not None and most.against_matched.low > 0.2


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_a_rule_that_is_left_out_is_held_against_a_random_removal_where_the_control_comes_round_again(
    pool: Pool, tmp_path: Path, store: LocalStore, rho: float
) -> None:
    """A rule that is worth 0.1 although it leaves so little that a random removal of as much costs 0.3."""
    said = experiment(pool, tmp_path, arms=["good"], rungs=rungs_of("1e-3", rho=rho))
    control = planned(said, pool).arm("control")
    rung = said.rungs[0].model_copy(update={"tokens": 10 * control.reads.tokens // 9})
    plan = planned(said.model_copy(update={"rungs": [rung]}), pool)
    good, matched = plan.arm("good"), plan.arm(f"{MATCHED}good")
    assert good.epochs(rung.tokens) < 1 < plan.arm("control").epochs(rung.tokens)
    assert matched.reads.tokens == pytest.approx(control.reads.tokens, rel=0.03)
    assert not (matched.mask & ~good.mask).any() and (matched.mask & ~control.mask).any()
    assert any("the control reads its documents 1.1 times, which counts for arms" in note for note in plan.notes)
    trainer = Trainer(plan, rho=rho)
    trainer.truth |= {"good": 0.1, f"{MATCHED}good": 0.4}
    found, _ = run(plan, store, trainer)
    (arm,), (removal,) = found.arms, found.matched
    assert arm.against_matched == removal.doublings and arm.matched is not None and arm.against_matched is not None
    assert arm.doublings.estimate == pytest.approx(0.1, abs=0.04)
    assert arm.matched.estimate == pytest.approx(-0.3, abs=0.04)
    assert arm.against_matched.estimate == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("repeats", [False, True])
def test_the_next_look_at_an_arm_is_priced_with_all_that_runs_beside_it(
    pool: Pool, tmp_path: Path, store: LocalStore, repeats: bool
) -> None:
    """The control over the same seeds, three placebos, and what an arm that comes round again is matched to."""
    said = experiment(pool, tmp_path, arms=["idle"], rungs=rungs_of("1e-3", rho=0.8))
    plan = repeating(pool, tmp_path, 0.8) if repeats else planned(said, pool)
    edge = np.log2(1 + said.rope)
    found, looks = run(plan, store, Trainer(plan, rho=0.8, most=edge, idle=edge, **{f"{MATCHED}most": edge}))
    (arm,) = found.arms
    assert arm.verdict == "UNDECIDED" and arm.reason == SAYS[Reason.INTERVAL] and arm.next_look is not None
    assert arm.next_look["cost"]["runs"] == 1 + 1 + 3 + repeats
    assert looks[0].arms[0].next_look is None


@pytest.mark.parametrize("estimate", [np.inf, -np.inf, np.nan])
def test_an_arm_whose_estimate_is_no_number_has_no_price_of_deciding_it(
    pool: Pool, tmp_path: Path, store: LocalStore, estimate: float
) -> None:
    plan, states = planned(experiment(pool, tmp_path), pool), list[State]()
    ablate(plan, store, Trainer(plan), on_look=states.append)
    (rung,) = states[-1].rungs
    for bounds, priced in (((0.02, -0.1, 0.1), True), ((estimate, -np.inf, np.inf), False)):
        rung.intervals["idle"], rung.looks = bounds, 6
        decide(plan, rung, store, "idle", Verdict.UNDECIDED, Reason.INTERVAL)
        assert (rung.decided["idle"][0].next_look is not None) is priced


def test_what_withholds_a_verdict_is_said_at_every_look(pool: Pool, tmp_path: Path, store: LocalStore) -> None:
    plan = planned(experiment(pool, tmp_path), pool)
    trainer = Trainer(plan)
    trainer.gold = -1.0
    _, looks = run(plan, store, trainer)
    assert looks[4].status == "running" and looks[4].arms[0].verdict == "UNDECIDED"
    assert looks[0].arms[0].reason == SAYS[Reason.INTERVAL] and looks[4].arms[0].reason == SAYS[Reason.GOLD]


def test_what_the_second_learning_rate_says_is_as_of_the_look_that_asked_it(
    pool: Pool, tmp_path: Path, store: LocalStore
) -> None:
    plan = planned(experiment(pool, tmp_path), pool)
    _, looks = run(plan, store, Trainer(plan, bad=-0.07))
    good, bad = ([one.arms[at] for one in looks] for at in range(2))
    decided = next(at for at, one in enumerate(good) if one.look is not None)
    assert bad[decided].second is None and bad[-1].second is not None
    assert good[decided].second is not None and {one.second for one in good[decided:]} == {good[decided].second}


def test_runs_of_the_pilot_that_no_interval_compares_are_marked_and_no_part_of_the_curve(
    pool: Pool, tmp_path: Path, store: LocalStore
) -> None:
    plan = planned(experiment(pool, tmp_path), pool)
    found, looks = run(plan, store, Trainer(plan, rho=0.0, world=1))
    (rung,) = found.rungs
    first, random = looks[0].control, looks[0].placebos[1]
    assert not rung.shared
    assert {one.seed for one in first.runs if one.pilot} == {4}
    assert looks[0].rungs[0].control_seeds == 3 and all(len(point.values) == 3 for point in looks[0].rungs[0].curve)
    assert all(len(point.values) == rung.seeds + 2 < rung.control_seeds for point in rung.curve)
    assert [one.pilot for one in random.runs] == [False, True, True, True] and random.seeds == 1
    assert not any(one.pilot for one in found.control.runs)
    assert not any(one.pilot for arm in found.arms for one in arm.runs)


def test_nothing_is_called_measured_where_no_pilot_ran(pool: Pool, tmp_path: Path, store: LocalStore) -> None:
    for name, rungs in (("pilot", ""), ("none", rungs_of("1e-3", rho=0.8))):
        plan = planned(experiment(pool, tmp_path, rungs=rungs), pool)
        found, _ = run(plan, LocalStore(store.root / name), Trainer(plan))
        assert (found.rungs[0].smallest_measured is None) is (name == "none")


def calibrated(pool: Pool, rate: float, schedule: str = "wsd") -> None:
    """Leave what `gristmill calibrate` would, had it chosen this rate."""
    path = pool.folder / calibration_name("1M", TOKENS)
    path.parent.mkdir(exist_ok=True)
    runs = {"all": [3.0, 3.1, 3.2], "clean": [2.8, 2.9, 3.06]}
    said = {"pool_sha256": pool.sha256, "panel_sha256": "p" * 64, "schedule": schedule, "learning_rate": rate}
    path.write_text(json.dumps({**said, "rates": [{"learning_rate": rate, **runs}]}))


def test_another_calibration_changes_nothing_of_an_experiment_that_has_begun(tmp_path: Path, store: LocalStore) -> None:
    """Its rates are those of the first plan, and so are the calibration, the notes and the smallest effect of its
    report.
    """
    pool = numbered_pool(tmp_path / "pool")
    rungs = f"  - {{size: 1M, tokens: {TOKENS}, expected: {{tokens_per_second: 1e3}}}}"
    said = experiment(pool, tmp_path, rungs=rungs, placebos="{random: 0.1}")
    calibrated(pool, 4e-4)
    trainer = Trainer(planned(said, pool))
    first, _ = run(trainer.plan, store, trainer)
    for rate, schedule in ((2e-3, "wsd"), (4e-4, "cosine")):
        calibrated(pool, rate, schedule)
        plan = planned(said, pool, store=store)
        check_calibrated(plan)
        again = Trainer(plan, before=trainer.trained)
        found, _ = run(plan, store, again)
        assert not again.trained and encoded(found) == encoded(first)
    assert first.rungs[0].learning_rates == (4e-4, 1e-4) and first.rungs[0].calibration is not None
    other = planned(experiment(pool, tmp_path, rungs=rungs_of("2e-3"), placebos="{random: 0.1}"), pool)
    with pytest.raises(OutputError, match="another experiment: rungs differ"):
        run(other, store, Trainer(other))


class Uneven(Trainer):
    """Runs of `idle` scatter ten times as much as the others."""

    def measured(self, run: Run) -> Measured:
        found = super().measured(run)
        luck = 0.02 * normal("uneven", run.seed, run.rate) if run.arm == "idle" else 0.0
        return replace(found, ends=tuple({**end, "panel": (end["panel"] or 0.0) - luck} for end in found.ends))


def test_an_arm_that_is_much_noisier_than_the_others_is_pointed_out(
    pool: Pool, tmp_path: Path, store: LocalStore
) -> None:
    plan = planned(experiment(pool, tmp_path), pool)
    found, _ = run(plan, store, Uneven(plan))
    noise = {arm.name: arm.noise for arm in (*found.arms, *found.placebos)}
    assert {name for name, one in noise.items() if one is not None and one.noisier} == {"idle"}
    assert noise["idle"] is not None and noise["idle"].deviation > 4 * noise["idle"].others
    assert "do not believe what is said of it" in found.arms[2].says and found.control.noise is None


class Moving(Trainer):
    """What rules are worth depends on the rung."""

    worths: Sequence[dict[str, float]] = ()

    def measured(self, run: Run) -> Measured:
        self.truth = {**self.truth, **self.worths[run.rung]}
        return super().measured(run)


def test_arms_are_ordered_by_a_small_rung_as_often_as_in_truth(pool: Pool, tmp_path: Path, store: LocalStore) -> None:
    """Of the three pairs two are ordered alike at both rungs; the last rung agrees with itself."""
    plan = planned(experiment(pool, tmp_path, rungs=rungs_of("1e-3", "1e-3")), pool)
    trainer = Moving(plan)
    trainer.worths = ({"good": 0.4, "bad": 0.2, "idle": 0.3}, {"good": 0.4, "bad": 0.3, "idle": 0.2})
    found, _ = run(plan, store, trainer)
    first, last = found.rungs
    assert first.decision_accuracy["panel"] == pytest.approx(2 / 3) and last.decision_accuracy["panel"] == 1
    deviation, signal = first.spread["panel"], first.snr["panel"]
    assert deviation is not None and signal == pytest.approx(0.4 * GAIN / deviation, rel=0.1)
    assert first.decision_accuracy["gold"] == pytest.approx(2 / 3)


def test_a_verdict_of_any_earlier_rung_casts_doubt_on_its_opposite(
    pool: Pool, tmp_path: Path, store: LocalStore
) -> None:
    """KEEP at the first rung, nothing at the second, REJECT at the third."""
    plan = planned(experiment(pool, tmp_path, arms=["good"], rungs=rungs_of("1e-3", "1e-3", "1e-3")), pool)
    trainer = Moving(plan)
    trainer.worths = ({"good": 0.3}, {"good": 0.012}, {"good": -0.3})
    found, _ = run(plan, store, trainer)
    (good,) = found.arms
    assert good.rung == 2 and good.verdict == "UNDECIDED" and "an earlier rung decided the opposite" in good.reason


class Answering(Trainer):
    """Writes what every run makes of every item: how hard it is for all, what the arm makes of it whatever the seed
    (SPREAD), the rule's worth, and a little luck.
    """

    folder: Path

    def measured(self, run: Run) -> Measured:
        found = super().measured(run)
        ends = []
        for at, (end, label) in enumerate(zip(found.ends, found.labels, strict=True)):
            bits = {task: self.bits(run, at, task) for task in TASKS}
            means = {f"{task}/bits_per_byte": float(each.mean()) for task, each in bits.items()}
            ends.append({"panel": end["panel"], **means, "gold": float(np.mean(list(means.values())))})
            path = self.folder / "scores" / label / "items.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(items_table(bits), path)
        return replace(found, ends=tuple(ends))

    def bits(self, run: Run, end: int, task: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        hard, tasted, luck = (several(*key) for key in ((task,), (task, run.arm), (run.arm, run.seed, run.rate, end)))
        return 50 * hard + SPREAD * tasted * (run.arm not in ("control", "same")) + 0.2 * luck


TASKS, ITEMS, SPREAD = ("a", "b"), 60, 1.0


def several(*key: object) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(zlib.crc32(repr(key).encode())).standard_normal(ITEMS)


def items_table(bits: dict[str, np.ndarray[Any, np.dtype[np.float64]]]) -> pa.Table:
    return pa.table(
        {
            "task": [task for task in bits for _ in range(ITEMS)],
            "item": [str(at) for _ in bits for at in range(ITEMS)],
            "subject": pa.nulls(len(bits) * ITEMS, pa.string()),
            "bits_per_byte": np.concatenate(list(bits.values())),
        }
    )


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_intervals_of_tasks_know_that_other_items_might_have_been_asked(
    pool: Pool, tmp_path: Path, store: LocalStore, rho: float
) -> None:
    """Seeds agree on what an arm makes of an item, so that they alone would show a tenth of the error."""
    plan = planned(experiment(pool, tmp_path, rungs=rungs_of("1e-3", rho=rho)), pool)
    trainer = Answering(plan, rho=rho)
    trainer.folder = store.root
    found, looks = run(plan, store, trainer)
    assert not any(arm.resampled for one in looks[:-1] for arm in one.arms)
    assert looks[-1].arms == found.arms and all(arm.resampled for arm in found.arms)
    for arm, before in zip(found.arms, looks[-2].arms, strict=True):
        task, gold, seeds = (width(one) for one in (arm.tasks["a/bits_per_byte"], arm.gold, before.gold))
        expected = 1.96 * SPREAD / np.sqrt(ITEMS)
        assert task == pytest.approx(expected, rel=0.3) and gold == pytest.approx(expected / np.sqrt(2), rel=0.3)
        assert seeds < gold / 3
        tasted = [several(name, arm.name).mean() for name in TASKS]  # the rules stand in the base: fewer bits harm
        assert arm.gold.estimate == pytest.approx(SPREAD * np.mean(tasted), abs=0.1)
        assert arm.effect == before.effect
    (same,) = (one for one in found.placebos if one.kind == "same")
    assert width(same.gold) < 0.1


def width(bounds: Bounds) -> float:
    """Half of it."""
    assert bounds.low is not None and bounds.high is not None
    return (bounds.high - bounds.low) / 2


def test_items_that_are_gone_leave_the_intervals_over_seeds_and_other_items_are_refused(
    pool: Pool, tmp_path: Path, store: LocalStore
) -> None:
    plan = planned(experiment(pool, tmp_path, rungs=rungs_of("1e-3", rho=0.8)), pool)
    trainer, states = Answering(plan), list[State]()
    trainer.folder = store.root
    ablate(plan, store, trainer, on_look=states.append)
    label = next(one.label for one in results_of(states[-1]).arms[0].runs)
    path = store.root / "scores" / label / "items.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(VerifyFailed, match="different items of a"):
        results_of(states[-1])
    path.unlink()
    found = results_of(states[-1])
    assert [arm.resampled for arm in found.arms] == [False, True, True]
    assert found.arms[0].gold.low is not None and found.arms[0].tasks


class Committing(Trainer):
    """Commits each run as a file, with hours that no two trainings have alike."""

    folder: Path

    def measured(self, run: Run) -> Measured:
        path = self.folder / f"{zlib.crc32(repr(run).encode()):08x}.json"
        if not path.exists():
            happened()
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps(int.from_bytes(os.urandom(3), "big") / 2**24))
            partial.rename(path)
            with (self.folder / "trained").open("a") as file:
                file.write(f"{path.name}\n")
            happened()
        return replace(super().measured(run), hours=json.loads(path.read_text()))


EVENTS = {"left": 0}


def happened() -> None:
    """Kill this process where so much has happened."""
    EVENTS["left"] -= 1
    if EVENTS["left"] == 0:
        os.kill(os.getpid(), signal.SIGKILL)


class Killed(LocalStore):
    """A store whose process may die before and after it writes."""

    def create(self, name: str, data: bytes) -> bool:
        happened()
        created = super().create(name, data)
        happened()
        return created

    def replace(self, name: str, data: bytes) -> None:
        happened()
        super().replace(name, data)
        happened()


def live(plan: Plan, folder: Path, events: int) -> None:
    """An experiment that dies of its own hand after so many events."""
    EVENTS["left"] = events
    store, trainer = Killed(folder / "out"), Committing(plan)
    trainer.folder = folder
    ablate(plan, store, trainer, on_look=lambda state: store.replace(RESULTS, encoded(results_of(state))))


LIVES = (("whole", 0), ("killed", 2), ("killed", 21), ("killed", 50), ("killed", 60), ("killed", 0))


def lives(pool: str, folder: str) -> None:
    """LIVES one after the other, each a process of its own, and how each ended, on a line each."""
    opened = read_pool(Path(pool))
    plan = planned(experiment(opened, Path(folder)), opened)
    for name, events in LIVES:
        (Path(folder) / name).mkdir(exist_ok=True)
        if (child := os.fork()) == 0:
            live(plan, Path(folder) / name, events)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


@pytest.mark.full
def test_killed_again_and_again_it_trains_nothing_twice_and_writes_the_same_bytes(pool: Pool, tmp_path: Path) -> None:
    called = f"from tests.infra.test_experiment_results import lives; lives({str(pool.folder)!r}, {str(tmp_path)!r})"
    ended = subprocess.run(
        [sys.executable, "-c", called], cwd=Path(__file__).parents[2], check=True, capture_output=True
    ).stdout.split()
    assert [int(code) for code in ended] == [-signal.SIGKILL if events else 0 for _, events in LIVES]
    killed = tmp_path / "killed"
    expected, found = (read_results((tmp_path / name / "out" / RESULTS).read_bytes()) for name in ("whole", "killed"))
    assert encoded(without_hours(found)) == encoded(without_hours(expected))
    trained = (killed / "trained").read_text().split()
    assert len(trained) == len(set(trained)) == found.actual.runs
    hours = [json.loads((killed / name).read_text()) for name in trained]
    assert found.actual.hours == pytest.approx(sum(hours)) != expected.actual.hours


def without_hours(found: Results) -> Results:
    """What does not depend on how fast the machine was."""
    rungs = tuple(replace(rung, actual=replace(rung.actual, hours=0.0, money=0.0)) for rung in found.rungs)
    return replace(found, rungs=rungs, actual=replace(found.actual, hours=0.0, money=0.0))
