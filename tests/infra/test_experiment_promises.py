"""What an experiment has promised stays, whatever is typed later: verdicts, faults, looks, arms, and expectations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from filters.errors import OutputError
from infra.experiment_promises import FOLDER, FORMAT
from infra.experiment_results import encoded
from infra.local_store import LocalStore
from proxy_eval.noise_bank import KINDS, Bank, Entry
from proxy_eval.pool import Pool
from tests.infra.test_ablate import ARMS, Trainer, experiment, planned, run, verdicts


def test_an_arm_can_be_added_and_moves_no_verdict(pool: Pool, tmp_path: Path, store: LocalStore) -> None:
    first = planned(experiment(pool, tmp_path, room=4), pool)
    trainer = Trainer(first)
    before, _ = run(first, store, trainer)
    grown = experiment(pool, tmp_path, room=4, arms=(*ARMS, "later"))
    more = planned(grown, pool, store=store)
    assert more.arm("random").identity == first.arm("random").identity
    added = Trainer(more, before=trainer.trained, later=-0.3)
    after, _ = run(more, store, added)
    assert verdicts(after).items() >= verdicts(before).items() and verdicts(after)["later"] == "REJECT"
    decided = [one for one in before.arms if one.verdict != "UNDECIDED"]
    same = {one.name: one for one in after.arms}
    assert all(same[one.name].doublings == one.doublings and same[one.name].look == one.look for one in decided)
    assert {one.arm for one in added.trained} == {"later"}  # the control and the placebos are there


def test_what_was_promised_before_the_first_look_cannot_be_changed(
    pool: Pool, tmp_path: Path, store: LocalStore
) -> None:
    run(plan := planned(experiment(pool, tmp_path), pool), store, Trainer(plan))
    other = planned(experiment(pool, tmp_path, rope=0.02), pool)
    with pytest.raises(OutputError, match="another experiment: rope differ"):
        run(other, store, Trainer(other))
    said = experiment(pool, tmp_path)
    expected = said.rungs[0].expected.model_copy(update={"rho": 0.6})
    rung = said.rungs[0].model_copy(update={"expected": expected})
    other = planned(said.model_copy(update={"rungs": [rung]}), pool, store=store)
    with pytest.raises(OutputError, match="another experiment: expected differ"):
        run(other, store, Trainer(other))


def test_an_experiment_of_another_version_is_refused_as_that(pool: Pool, tmp_path: Path, store: LocalStore) -> None:
    plan = planned(experiment(pool, tmp_path), pool)
    with pytest.raises(KeyboardInterrupt):
        killed = Trainer(plan)
        killed.stop_after = 0
        run(plan, store, killed)
    place = tmp_path / "out" / FOLDER / "experiment.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "format": FORMAT - 1}))
    with pytest.raises(OutputError, match=f"by another version of Gristmill, in format {FORMAT - 1}"):
        run(planned(experiment(pool, tmp_path), pool, store=store), store, killed)


def test_arms_that_were_judged_take_their_room_for_good(pool: Pool, tmp_path: Path, store: LocalStore) -> None:
    """Taken away, or changed under the same name, they had their share of the error; back again they take no more."""
    first = planned(experiment(pool, tmp_path, room=3), pool)
    before, _ = run(first, store, trainer := Trainer(first))
    for arms in (("good", "bad", "later"), ("later",)):
        other = planned(experiment(pool, tmp_path, room=3, arms=arms), pool, store=store)
        with pytest.raises(OutputError, match=r"has judged good-\w{8}, bad-\w{8}, idle-\w{8}, .* made for 3 arms"):
            run(other, store, Trainer(other, before=trainer.trained))
    fewer = planned(experiment(pool, tmp_path, room=3, arms=("good",)), pool, store=store)
    found, _ = run(fewer, store, Trainer(fewer, before=trainer.trained))
    assert found.arms[0].verdict == before.arms[0].verdict == "KEEP"


def test_what_voided_an_experiment_does_so_for_good(pool: Pool, tmp_path: Path, store: LocalStore) -> None:
    """Neither more seeds nor another arm takes it back, nor a garbage rule that would be seen now."""
    said = experiment(pool, tmp_path, room=4, placebos="{garbage: 0.25}")
    plan = planned(said, pool)
    found, _ = run(plan, store, trainer := Trainer(plan, garbage=0.0))
    assert found.status == "void" and found.rungs[0].looks == 6
    rung = said.rungs[0].model_copy(update={"seeds": 8})
    for more in ({"rungs": [rung]}, {"arms": [*said.arms, said.arms[0].model_copy(update={"name": "again"})]}):
        other = planned(said.model_copy(update=more), pool, store=store)
        assert run(other, store, Trainer(other, before=trainer.trained, garbage=0.25))[0].faults == found.faults


def test_looks_are_not_taken_back(pool: Pool, tmp_path: Path, store: LocalStore) -> None:
    said = experiment(pool, tmp_path)
    plan = planned(said, pool)
    _, looks = run(plan, store, trainer := Trainer(plan))
    rung = said.rungs[0].model_copy(update={"seeds": looks[-1].rungs[0].looks - 1})
    other = planned(said.model_copy(update={"rungs": [rung]}), pool, store=store)
    with pytest.raises(OutputError, match="looked at after more than .* seeds, and what was found cannot be taken"):
        run(other, store, Trainer(other, before=trainer.trained))


def test_the_noise_of_other_campaigns_changes_no_plan_of_one_that_has_begun(
    pool: Pool, tmp_path: Path, store: LocalStore
) -> None:
    """Its smallest effect, price and notes stay, which a plan of a new one takes from the bank."""
    said = experiment(pool, tmp_path)
    first = planned(said, pool)
    found, _ = run(first, store, trainer := Trainer(first))
    known = {"rung": first.rungs[0].key, "metric": first.metric_key, "campaign": "other"}
    bank = Bank(entries=(Entry(**known, kind="run", values=(0.01,), dfs=(9.0,)),))
    again, new = (planned(said, pool, bank=bank, store=where) for where in (store, None))
    assert again.rungs[0].smallest == first.rungs[0].smallest != new.rungs[0].smallest
    assert new.rungs[0].expected.bank["run"].df > 0 and again.rungs[0].expected.bank["run"].df == 0
    assert again.notes == first.notes != new.notes
    later, _ = run(again, store, Trainer(again, before=trainer.trained))
    assert encoded(later) == encoded(found)
    with pytest.raises(OutputError, match="has begun, and the noise bank or the calibration said something else then"):
        run(new, store, Trainer(new))


def test_a_pilot_that_was_killed_goes_on_with_the_noise_bank_of_its_beginning(
    pool: Pool, tmp_path: Path, store: LocalStore
) -> None:
    said = experiment(pool, tmp_path)
    plan = planned(said, pool)
    expected, _ = run(plan, LocalStore(tmp_path / "whole"), Trainer(plan))
    killed = Trainer(plan)
    killed.stop_after = 5
    with pytest.raises(KeyboardInterrupt):
        run(plan, store, killed)
    known = {"rung": plan.rungs[0].key, "metric": plan.metric_key, "campaign": "other"}
    bank = Bank(entries=tuple(Entry(**known, kind=kind, values=(0.01,), dfs=(99.0,)) for kind in KINDS))
    again = planned(said, pool, bank=bank, store=store)
    found, _ = run(again, store, Trainer(again, before=killed.trained))
    assert encoded(found) == encoded(expected)
