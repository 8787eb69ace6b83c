"""What makes an experiment again, as a script: commands in their order, and as comments what they must find.

It is made to be pasted, of what `results.json` and `pool.json` say, which may be another's: every word of theirs in a
command is quoted, and no comment ends before its line does.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from filters.errors import InputError, OutputError
from infra.annotated import recipe_typed, rerun_command
from infra.experiment_results import ArmResult, Results, RungResult, RunResult
from infra.node import environment
from infra.pool import run_of
from infra.pool_files import TOKENIZER_FILE, read_said
from infra.terminal import visible

PINNED = ("gristmill", "torch", "numpy", "scipy", "pyarrow", "tokenizers", "safetensors", "trafilatura", "resiliparse")


def repetition(place: str, results: Results) -> tuple[str, ...]:
    """Commands, and pins as comments; where a pool or its run are gone, a comment says so."""
    said, asked = results.experiment, shlex.quote(place)
    pools = list(dict.fromkeys([said["pool"], *(arm["pool"] for arm in said["arms"] if arm["pool"])]))
    lines = [line for pool in pools for line in pool_lines(pool)]
    lines += [calibrate_command(results, rung) for rung in results.rungs if rung.calibration is not None]
    lines += [
        f"gristmill compare {asked} --json | jq '.reports[0].results.experiment' > experiment.yaml",
        "gristmill ablate experiment.yaml --out AGAIN",
        comment(f"experiment {results.name}: sha256 {results.experiment_sha256}"),
        *(comment(f"{name}: sha256 {results.identity[name]}") for name in ("panel", "tasks") if results.identity[name]),
        *(rung_line(results, number) for number in range(len(results.rungs))),
        versions(),
    ]
    return tuple(lines)


def comment(said: str) -> str:
    """A line of the script that does nothing, whatever is said."""
    return f"# {visible(said)}".replace("\n", " ")


def pool_lines(pool: str) -> Iterator[str]:
    """How a pool was made, as far as it and its run are still there."""
    try:
        said = read_said(pool)
    except OutputError:
        yield comment(f"pool {pool}: gone")
        return
    try:
        made = run_of(pool, said)
        yield rerun_command(made, recipe_typed(made)).replace("\n  (INPUTS:", "  # (INPUTS:")
    except (InputError, OutputError):
        yield comment(f"run {said['origin']['run']}: gone, or changed since")
    yield pool_command(pool, said)
    yield comment(f"pool {pool}: sha256 {said['sha256']}, {said['documents']:,} documents, {said['tokens']:,} tokens")
    yield comment(f"recipe {said['origin']['recipe']}: sha256 {said['origin']['recipe_sha256']}")
    yield comment(f"tokenizer of {said['tokenizer']['vocabulary']:,}: sha256 {said['tokenizer']['sha256']}")


def pool_command(pool: str, said: Mapping[str, Any]) -> str:
    """The command that makes a pool of the same tokens."""
    run, view, to = (shlex.quote(one) for one in (said["origin"]["run"], said["origin"]["view"], pool))
    return f"gristmill pool {run} --view {view} --tokenizer {shlex.quote(f'{pool}/{TOKENIZER_FILE}')} --out {to}"


def calibrate_command(results: Results, rung: RungResult) -> str:
    """The command that sweeps a rung's learning rates again; its panel where that was the experiment's."""
    found = rung.calibration or {}
    command = f"gristmill calibrate {shlex.quote(results.experiment['pool'])}"
    command += f" --size {shlex.quote(rung.size)} --tokens {rung.tokens}"
    command += "".join(f" --rate {one['learning_rate']:g}" for one in found.get("rates", ()))
    command += f" --seeds {len(found['seeds'])}" if found.get("seeds") else ""
    if found.get("panel_sha256") == results.identity["panel"]:
        command += f" --panel {shlex.quote(results.experiment['panel'])}"
    return command


def rung_line(results: Results, number: int) -> str:
    """The learning rates and seeds of a rung."""
    rung = results.rungs[number]
    rates = ", ".join(f"{rate:g}" for rate in rung.learning_rates)
    arms = spans({run.seed for arm in results.arms for run in runs_at(arm, rung.number)})
    own, pilot = (
        spans({run.seed for run in runs_at(results.control, rung.number) if run.pilot is which})
        for which in (False, True)
    )
    beside = "" if pilot == "none" else f", in the pilot {pilot}"
    return comment(f"{rung.name}: learning rates {rates}; seeds {arms}, of the control {own}{beside}")


def runs_at(arm: ArmResult, rung: int) -> list[RunResult]:
    """The runs of an arm at a rung."""
    return [run for run in arm.runs if run.rung == rung]


def spans(seeds: set[int]) -> str:
    """`1-5, 10001-10009`."""
    found: list[list[int]] = []
    for seed in sorted(seeds):
        if found and seed == found[-1][1] + 1:
            found[-1][1] = seed
        else:
            found.append([seed, seed])
    return ", ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in found) or "none"


def versions() -> str:
    """What is installed where this is asked, and the hash of our own code."""
    here = environment(PINNED)
    packages = ", ".join(f"{name} {one}" for name, one in here.packages.items() if one is not None)
    return comment(f"versions here: Python {here.python}, {packages}; code sha256 {here.code}")
