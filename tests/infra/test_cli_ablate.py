"""`gristmill ablate`: an experiment written from a recipe, its plan on a terminal and as JSON, and a small real one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from filters.errors import InputError
from infra import experiments
from infra.cli_ablate import ablate
from infra.commit import committed, read_manifest, read_manifests
from infra.experiments import two_digits
from infra.local_store import LocalStore
from infra.pool import make_pool
from infra.proxies import panel_of
from infra.training_work import TRAIN
from proxy_eval.experiment import Experiment
from tests.annotated_run import annotated_run
from tests.conftest import warc_record

CONTEXT, TOKENS = 32, 4_000
TASK = {"premise": "The mill stood still.", "question": "cause", "choice1": "The brook was frozen.",
        "choice2": "The baker was asleep.", "idx": 0, "label": 0}  # fmt: skip


@pytest.fixture(scope="module")
def places(
    small_crawl: Path,
    make_page: Callable[..., str],
    make_sentences: Callable[[int], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """A pool with some documents that fail one rule alone, a panel and a task."""
    folder = tmp_path_factory.mktemp("ablate")
    crawl = folder / "crawl" / "CC-MAIN-2024-10"
    crawl.mkdir(parents=True)
    for path in small_crawl.iterdir():
        (crawl / path.name).symlink_to(path)
    code = "<p>The old mill { stands } near the narrow bridge.</p></article>"
    pages = [make_page(at).replace("</article>", code) for at in range(90, 96)]
    records = [warc_record(5000 + at, page.encode()) for at, page in enumerate(pages)]
    (crawl / "part-9.warc.gz").write_bytes(b"".join(records))
    made = annotated_run(crawl, folder / "out")
    pool = make_pool(made.store.url, folder / "pool", vocabulary=400, runner="inprocess", quiet=True).url
    (folder / "domains" / "mills").mkdir(parents=True)
    lines = [json.dumps({"id": str(at), "text": make_sentences(10_000 + at)}) for at in range(4)]
    (folder / "domains" / "mills" / "texts.jsonl").write_text("\n".join(lines) + "\n")
    panel_of(folder / "panel", folder / "domains")
    (folder / "tasks" / "copa").mkdir(parents=True)
    (folder / "tasks" / "copa" / "validation.jsonl").write_text(json.dumps(TASK) + "\n")
    return {"pool": pool, "panel": str(folder / "panel"), "tasks": str(folder / "tasks")}


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    app = typer.Typer()
    app.command()(ablate)
    monkeypatch.setattr(experiments, "speed_here", lambda training, *, device, members: 1e4)
    return lambda *arguments: CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)


def experiment_file(places: dict[str, str], folder: Path, arms: list[dict[str, str]]) -> Path:
    rung = {"size": "1M", "tokens": TOKENS, "seeds": 2, "learning_rates": [1e-3, 5e-4], "context": CONTEXT}
    said: dict[str, Any] = {"name": "tiny", **places, "arms": arms, "rungs": [rung], "pilot": 2}
    said |= {"bank": str(folder / "bank.json"), "placebos": {"garbage": 0.5}}  # of so few texts, that some are read
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(said))
    return path


def test_a_recipe_becomes_an_experiment_that_leaves_out_every_rule_that_removes_something(
    places: dict[str, str], tmp_path: Path, typed: Callable[..., Result]
) -> None:
    options = [
        "--pool",
        places["pool"],
        "--panel",
        places["panel"],
        "--tasks",
        places["tasks"],
        "--out",
        tmp_path / "o",
    ]
    found = typed("--recipe", "fineweb-resiliparse", *options, "--dry-run", "--json", "--quiet")
    assert found.exit_code == 0, found.output
    plan = json.loads(found.stdout)
    written = yaml.safe_load((tmp_path / "o" / "experiment.yaml").read_text())
    names = [arm["name"] for arm in written["arms"]]
    assert "c4.curly_bracket" in names and all(arm["mask"] == f"without:{arm['name']}" for arm in written["arms"])
    assert [arm["name"] for arm in plan["arms"]] == ["control", *names, "same", "random", "garbage"]
    for arm in plan["arms"][1 : 1 + len(names)]:
        assert arm["changes"]["gained"]["documents"] >= 1 and arm["rule_in"] == "base"
        assert arm["changes"]["at_all"]["documents"] >= arm["changes"]["alone"]["documents"] >= 1
    assert any("no calibration of this pool" in note for note in plan["notes"])
    assert plan["cost"]["runs"] > 0
    assert not list((tmp_path / "o").glob("models*"))  # nothing was trained
    again = typed("--recipe", "fineweb-resiliparse", *options, "--dry-run")
    assert "was there and is taken" in again.output and "in all" in again.output and "sees" in again.output


def test_an_experiment_that_is_not_calibrated_is_planned_and_not_run(
    places: dict[str, str], tmp_path: Path, typed: Callable[..., Result]
) -> None:
    options = ["--pool", places["pool"], "--panel", places["panel"], "--out", tmp_path / "o", "--quiet"]
    with pytest.raises(InputError, match="never calibrated"):
        typed("--recipe", "fineweb-resiliparse", *options)


def test_only_the_recipe_of_the_pool_can_be_left_out_of_it(
    places: dict[str, str], tmp_path: Path, typed: Callable[..., Result]
) -> None:
    with pytest.raises(InputError, match="was made by fineweb-resiliparse"):
        typed("--recipe", "fineweb", "--pool", places["pool"], "--panel", places["panel"], "--out", tmp_path / "o")


def test_a_file_or_a_recipe_with_what_it_needs_must_be_named(
    places: dict[str, str], tmp_path: Path, typed: Callable[..., Result]
) -> None:
    assert typed().exit_code == 2
    assert "needs --pool" in typed("--recipe", "fineweb").output
    assert json.loads(typed("--schema").stdout) == Experiment.model_json_schema()


@pytest.mark.parametrize(("count", "expected"), [(2_000_000, 2_000_000), (123_456.7, 120_000), (99, 99), (7, 7)])
def test_budgets_are_rounded_down_to_two_digits(count: float, expected: int) -> None:
    assert two_digits(count) == expected


@pytest.mark.full
def test_a_small_experiment_runs_to_its_end_and_typed_again_trains_nothing(
    places: dict[str, str], tmp_path: Path, typed: Callable[..., Result]
) -> None:
    path, out = experiment_file(places, tmp_path, [{"name": "raw", "mask": "all"}]), tmp_path / "out"
    first = typed(path, "--out", out, "--device", "cpu", "--workers", "1", "--quiet", "--json")
    found = json.loads(first.stdout)
    assert first.exit_code == bool(found["faults"])
    assert found == json.loads((out / "results.json").read_text())
    assert [arm["verdict"] for arm in found["arms"]] == ["UNDECIDED"]  # two seeds see nothing
    assert set(found["arms"][0]["domains"]) == {"mills"} and "copa/bits_per_byte" in found["arms"][0]["tasks"]
    for run in (*found["arms"][0]["runs"], *found["control"]["runs"]):
        assert (out / "models" / run["label"] / "model.safetensors").exists() and run["metric"] < 0
    assert json.loads((tmp_path / "bank.json").read_text())["entries"]
    assert found["actual"]["runs"] >= 2 * 5 and found["actual"]["hours"] > 0
    before = committed(LocalStore(out), TRAIN)
    again = typed(path, "--out", out, "--device", "cpu", "--workers", "1", "--quiet", "--json")
    assert committed(LocalStore(out), TRAIN) == before
    assert json.loads(again.stdout) == found


@pytest.mark.full
def test_killed_and_typed_again_it_trains_nothing_twice_and_says_the_same(
    places: dict[str, str], tmp_path: Path, typed: Callable[..., Result]
) -> None:
    path = experiment_file(places, tmp_path, [{"name": "raw", "mask": "all"}])
    options = ["--device", "cpu", "--workers", "1", "--quiet", "--json"]
    script = f"import sys, typer; sys.argv[1:] = {[str(path), '--out', str(tmp_path / 'out'), *options]!r}\n"
    script += "from infra import cli_ablate; app = typer.Typer(); app.command()(cli_ablate.ablate); app()"
    store, process = LocalStore(tmp_path / "out"), subprocess.Popen([sys.executable, "-c", script])
    while len(committed(store, TRAIN)) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = {manifest.task: manifest for manifest in read_manifests(store, TRAIN, committed(store, TRAIN))}
    found, whole = (json.loads(typed(path, "--out", tmp_path / name, *options).stdout) for name in ("out", "whole"))
    assert [read_manifest(store, TRAIN, task) for task in there] == list(there.values())
    assert len(committed(store, TRAIN)) == len(committed(LocalStore(tmp_path / "whole"), TRAIN))
    for one, other in zip((*found["arms"], *found["placebos"]), (*whole["arms"], *whole["placebos"]), strict=True):
        assert (one["verdict"], one["doublings"], one["runs"]) == (other["verdict"], other["doublings"], other["runs"])
