"""What an experiment has promised in its store: what it is, what was known when it was planned, which arms it judged.

All of it is put there if absent, so that of two commands the first is right, and a later one that promises something
else is refused. `infra/ablate.py` keeps its verdicts and faults by the same two functions, `held` and `kept`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from filters.errors import OutputError
from infra.expectation import Expectation
from infra.experiment_arms import ArmPlan
from infra.experiment_plan import Plan
from infra.stored import Store, read_decoded
from proxy_eval.experiment import Experiment

FOLDER = "_work/experiment"
FORMAT = 3


def held(store: Store, name: str, value: Mapping[str, Any]) -> Any:
    """What is in force under a name: this value, unless another was there."""
    path = f"{FOLDER}/{name}.json"
    store.create(path, json.dumps(value).encode())
    return read_decoded(store, path, json.loads)


def kept(store: Store, name: str) -> Any:
    """What is in force under a name; None where nothing is."""
    try:
        return read_decoded(store, f"{FOLDER}/{name}.json", json.loads)
    except FileNotFoundError:
        return None


def check_same(store: Store, plan: Plan) -> None:
    """Raise OutputError unless the store's experiment is this one, planned with the same expectations, or it has none
    yet.
    """
    planned = [asdict(rung.expected) for rung in plan.rungs]
    asked = json.loads(json.dumps(plan.identity))
    found = held(store, "experiment", {"format": FORMAT, **asked, "planned": planned})
    if found["format"] != FORMAT:
        raise OutputError(
            f"{store.url} was begun by another version of Gristmill, in format {found['format']} of experiments; this "
            f"one continues format {FORMAT}. End it with that version, or choose another --out."
        )
    if changed := [name for name in asked if found.get(name) != asked[name]]:
        raise OutputError(
            f"{store.url} has begun another experiment: {', '.join(changed)} differ. What was promised before the "
            "first look cannot be changed after it; arms can be added up to `room`. Choose another --out."
        )
    if json.dumps(found["planned"]) != json.dumps(planned):
        raise OutputError(
            f"{store.url} has begun, and the noise bank or the calibration said something else then than they said to "
            "this plan. Plan it again, as begun there."
        )


def check_room(store: Store, plan: Plan) -> None:
    """Raise OutputError where the plan's arms and all that were ever judged in the store are more than it has room for:
    an arm that is taken away afterwards has had its share of the error.
    """
    before, room = judged(store), plan.experiment.budget.arms
    arms = dict.fromkeys([*before, *(key_of(arm) for arm in plan.of_kind("arm"))])
    if len(arms) > room:
        raise OutputError(
            f"{store.url} has judged {', '.join(before)}, and all intervals are made for {room} arms. Arms that were "
            "judged take their room for good: choose another --out, with a larger `room`."
        )


def judged(store: Store) -> list[str]:
    """The arms that were ever judged, by `key_of`, in the order of their first look."""
    found: list[str] = []
    while (one := kept(store, f"arms/{len(found)}")) is not None:
        found.append(one["arm"])
    return found


def check_looks(store: Store, plan: Plan) -> None:
    """Raise OutputError where a rung has had more looks than the plan has seeds: what was found at one that is not
    reached any more would be taken back.
    """
    for rung in plan.rungs:
        if kept(store, f"looks/{rung.number}-{rung.said.seeds + 1}") is not None:
            raise OutputError(
                f"{store.url}: {rung.name} was looked at after more than {rung.said.seeds} seeds, and what was found "
                "cannot be taken back. Set `seeds` to as many as it had, or more."
            )


def note_look(store: Store, rung: int, look: int, arms: Sequence[ArmPlan]) -> None:
    """Such a look was taken, and these arms are among those that were judged."""
    held(store, f"looks/{rung}-{look}", {})
    before = judged(store)
    for key in (key_of(arm) for arm in arms if key_of(arm) not in before):
        held(store, f"arms/{len(before)}", {"arm": key})
        before.append(key)


def key_of(arm: ArmPlan) -> str:
    """Its name and what it reads: another arm under the same name is another."""
    return f"{arm.name}-{arm.identity[:8]}"


def as_begun(experiment: Experiment, store: Store) -> tuple[Experiment, tuple[Expectation, ...]]:
    """The experiment with what was left to its first plan and is in force since: the share that is removed at random,
    which arms that were added would move, and learning rates, which another calibration would; and what was expected of
    its rungs, which that and the noise of other experiments would. Nothing is expected where it has not begun, or has
    other rungs.
    """
    found = kept(store, "experiment")
    if found is None or found["format"] != FORMAT:
        return experiment, ()
    if experiment.placebos.random is None:
        placebos = experiment.placebos.model_copy(update={"random": found["random"]})
        experiment = experiment.model_copy(update={"placebos": placebos})
    same = len(experiment.rungs) == len(found["planned"])
    began = tuple(Expectation(**each) for each in found["planned"]) if same else ()
    return with_rates(experiment, [rates for _, _, rates, _ in found["rungs"]]), began


def with_rates(experiment: Experiment, rates: Sequence[Sequence[float]]) -> Experiment:
    """The experiment with these learning rates at the rungs that name none; as it is where it has other rungs."""
    if len(rates) != len(experiment.rungs):
        return experiment
    rungs = [
        rung if rung.learning_rates else rung.model_copy(update={"learning_rates": list(each)})
        for rung, each in zip(experiment.rungs, rates, strict=True)
    ]
    return experiment.model_copy(update={"rungs": rungs})
