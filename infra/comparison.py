"""One experiment, or two beside each other, as a reader asks for them: what `gristmill compare` prints, draws and gives
as JSON.

A report is made of `results.json`, the losses that lie with the models, and the texts of the run that the pool was made
of. Where models, pool or run are gone, `notes` say so and the rest stands. Nothing is trained, scored or written. The
same folder gives the same report, but for the versions in `repeat`, which are those of the machine that makes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.errors import OutputError, VerifyFailed
from infra.experiment_results import RESULTS, ArmResult, Results, RungResult, RunResult, plain, read_results
from infra.removed_samples import Sample, samples_of
from infra.repetition import repetition
from infra.signal_rows import Part, groups
from infra.store import open_store
from infra.stored import Store, read_decoded
from infra.training import MODELS, RUN_FILE, Model
from infra.training_work import METRICS_FILE
from proxy_eval.experiment import CONTROL

__all__ = ["Band", "Change", "Comparison", "Report", "Sample", "compare", "comparison_json", "read_report"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

POINTS = 200
"""Of a curve, at most: more than a figure of 700 pixels shows apart."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """Training loss in nats a token over the tokens trained on: its mean over seeds, and the least and the largest of
    them. A point is the mean of the steps since the one before; one seed is its own band.
    """

    tokens: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """One experiment and where it lies. curves: by rung, then by arm, the control's as "control". samples: by arm.
    repeat: the commands and pins that make it again. notes: what could not be read.
    """

    place: str
    results: Results
    curves: Mapping[int, Mapping[str, Band]]
    samples: Mapping[str, tuple[Sample, ...]]
    repeat: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Change:
    """An arm in two experiments, or in one of them; `note` says whether its numbers can be compared, and why not."""

    arm: str
    before: ArmResult | None
    after: ArmResult | None
    note: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One report, or two with what changed from the first to the second; of one `changes` are empty."""

    reports: tuple[Report, ...]
    changes: tuple[Change, ...] = ()


def read_report(url: str) -> Report:
    """The report of the experiment in a folder or at a URL.

    Raises OutputError where there is none, and InputError where it is of another version.
    """
    store = open_store(url)
    try:
        results = read_results(store.read(RESULTS))
    except FileNotFoundError:
        raise OutputError(
            f"{store.url}: no experiment ({RESULTS} is not there, and comes with the first look). Run one: gristmill "
            f"ablate EXPERIMENT --out {store.url}"
        ) from None
    curves, lost = curves_of(store, results)
    samples, unread = samples_of(store, results)
    return Report(
        place=store.url,
        results=results,
        curves=curves,
        samples=samples,
        repeat=repetition(store.url, results),
        notes=(*lost, *unread),
    )


def curves_of(store: Store, results: Results) -> tuple[dict[int, dict[str, Band]], list[str]]:
    """The band of each arm at each rung, at the learning rate and the budget that set verdicts, and what is missing.

    Memory: the losses of one arm's seeds, 16 bytes a step.
    """
    found: dict[int, dict[str, Band]] = {}
    asked = absent = 0
    for rung in results.rungs:
        bands = found.setdefault(rung.number, {})
        for arm in (results.control, *results.arms, *results.matched, *results.placebos):
            labels = list(dict.fromkeys(run.label for run in deciding_runs(arm, rung)))
            losses = [one for one in (losses_of(store, label) for label in labels) if one is not None]
            asked, absent = asked + len(labels), absent + len(labels) - len(losses)
            if losses and (band := band_of(losses)).tokens:
                bands[CONTROL if arm is results.control else arm.name] = band
    return found, [f"curves: {absent} of {asked} models are not there, or cannot be read"] if absent else []


def deciding_runs(arm: ArmResult, rung: RungResult) -> list[RunResult]:
    """The runs of an arm that its interval at a rung is made of: of the control those at the arms' budget."""
    decides = rung.number, rung.learning_rates[0], rung.tokens
    return [run for run in arm.runs if (run.rung, run.learning_rate, run.tokens) == decides and not run.pilot]


def losses_of(store: Store, label: str) -> tuple[Ints, Floats] | None:
    """Tokens and loss after each step of a model, NaN after it stopped; None where that is not there."""
    try:
        said = read_decoded(store, f"{MODELS}/{label}/{RUN_FILE}", json.loads)
        part = Part(store=store, entry=Model(label=label, said=said).files[METRICS_FILE])
        tables = list(groups(part, ["tokens", "loss"]))
    except (FileNotFoundError, VerifyFailed):
        return None
    tokens, losses = ([table.column(name).to_numpy() for table in tables] for name in ("tokens", "loss"))
    return np.concatenate(tokens), np.concatenate(losses).astype(np.float64)


def band_of(runs: Sequence[tuple[Ints, Floats]]) -> Band:
    """The band of runs that took the same steps; where all have stopped it ends."""
    tokens, steps = runs[0][0], len(runs[0][0])
    edges = np.unique(np.linspace(0, steps, min(POINTS, steps) + 1).astype(np.int64))
    each = np.stack([np.add.reduceat(losses, edges[:-1]) / np.diff(edges) for _, losses in runs])
    lives = np.isfinite(each).any(axis=0)
    values = each[:, lives]
    return Band(
        tokens=tuple(tokens[edges[1:] - 1][lives].tolist()),
        mean=tuple(np.nanmean(values, axis=0).tolist()),
        low=tuple(np.nanmin(values, axis=0).tolist()),
        high=tuple(np.nanmax(values, axis=0).tolist()),
    )


def compare(first: Report, second: Report | None = None) -> Comparison:
    """One report alone, or two with every arm of either: those of the first in their order, then the others."""
    if second is None:
        return Comparison(reports=(first,))
    before, after = ({arm.name: arm for arm in one.results.arms} for one in (first, second))
    return Comparison(
        reports=(first, second),
        changes=tuple(
            change(first.results, second.results, name, before.get(name), after.get(name))
            for name in dict.fromkeys((*before, *after))
        ),
    )


def change(first: Results, second: Results, name: str, before: ArmResult | None, after: ArmResult | None) -> Change:
    """An arm of either experiment, with whether its two numbers say the same thing."""
    return Change(arm=name, before=before, after=after, note=note_of(first, second, before, after))


def note_of(first: Results, second: Results, before: ArmResult | None, after: ArmResult | None) -> str:
    """Whether what is said of an arm in two experiments can be compared, and why not."""
    if before is None or after is None:
        return f"only in the {'second' if before is None else 'first'}"
    rungs = [
        next((one for one in results.rungs if one.number == arm.rung), None)
        for results, arm in ((first, before), (second, after))
    ]
    if rungs[0] is None or rungs[1] is None:
        return f"no runs yet in the {'first' if rungs[0] is None else 'second'}"
    if other := differences((first, before, rungs[0]), (second, after, rungs[1])):
        return f"not comparable: {'; '.join(other)}"
    said = "same pool, control, models and metric"
    if apart(before, after):
        said += "; the intervals lie apart"
    if (first.rope, first.error) != (second.rope, second.error):
        said += "; verdicts by another ROPE or error"
    if void := [which for which, one in (("first", first), ("second", second)) if one.faults]:
        said += f"; no verdict of the {' or the '.join(void)} holds"
    return said


Side = tuple[Results, ArmResult, RungResult]


def differences(before: Side, after: Side) -> list[str]:
    """What an arm's worth depends on and is not the same on both sides."""
    hashed, said = zip(facts(*before), facts(*after), strict=True)
    found = [f"another {name}" for name in hashed[0] if hashed[0][name] != hashed[1][name]]
    return found + [f"{name} {said[0][name]} and {said[1][name]}" for name in said[0] if said[0][name] != said[1][name]]


def facts(results: Results, arm: ArmResult, rung: RungResult) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an arm's worth depends on: what a hash names, and what a person can read."""
    scored = "panel" if results.metric.startswith("panel") else "tasks"
    hashed = {
        "pool": arm.pool,
        "control": results.identity["control"],
        "side of the rule": arm.rule_in,
        scored: [results.identity[scored], results.identity["task_names"] if scored == "tasks" else None],
    }
    context = results.identity["rungs"][rung.number][3]
    said = {
        "metric": results.metric,
        "mask": arm.mask,
        "size": rung.size,
        "context": "as its size has it" if context is None else f"{context}",
        "tokens": f"{rung.tokens:,}",
        "learning rate": f"{rung.learning_rates[0]:g}",
    }
    return hashed, said


def apart(before: ArmResult, after: ArmResult) -> bool:
    """True where the intervals of an arm in two experiments do not overlap."""
    one, other = before.doublings, after.doublings
    below = one.high is not None and other.low is not None and one.high < other.low
    above = one.low is not None and other.high is not None and other.high < one.low
    return below or above


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """All of it as plain data; what is not finite is None."""
    found: dict[str, Any] = plain(asdict(comparison))
    return found
