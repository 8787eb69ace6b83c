"""`gristmill ablate`: an experiment written from a recipe, its plan on a terminal and as JSON, and a small real one."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from filters.errors import ClusterError, InputError, OutputError, RecipeError
from infra import experiments
from infra.cli_ablate import ablate
from infra.commit import committed, read_manifest, read_manifests
from infra.experiment_plan import Plan
from infra.experiments import (
    Workshop,
    alone_with,
    campaign_name,
    device_seconds,
    device_speed,
    put_into_bank,
    two_digits,
)
from infra.local_store import LocalStore
from infra.placement import device_of
from infra.pool import make_pool
from infra.proxies import panel_of
from infra.training_work import TRAIN
from proxy_eval.experiment import Experiment
from proxy_eval.noise_bank import Bank, Entry, read_bank, with_entries, write_bank
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
    pages += [make_page(at) for at in range(200, 380)]  # where files lie decides what is garbage
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
    assert "was there and is taken\n" in again.output and "in all" in again.output and "sees" in again.output
    other = typed("--recipe", "fineweb-resiliparse", *options, "--dry-run", "--seeds", 3)
    assert "says something else than these options: remove it" in other.output


def test_what_a_recipe_wrote_is_run_into_the_same_folder(
    places: dict[str, str], tmp_path: Path, typed: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a dry run, and at once; what is no experiment is not written."""
    begun: list[str] = []

    def begin(plan: Plan, store: LocalStore, measure: object, *, on_look: object) -> None:
        begun.append(store.url)
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "ablate", begin)
    monkeypatch.setattr(experiments, "check_calibrated", lambda plan: None)
    named = ["--recipe", "fineweb-resiliparse", "--pool", places["pool"], "--panel", places["panel"], "--quiet"]
    for folder, before in (("dry", ["--dry-run"]), ("fresh", [])):
        options = [*named, "--out", tmp_path / folder]
        if before:
            assert typed(*options, *before).exit_code == 0
        typed(*options)
        assert begun[-1].endswith(folder)
    with pytest.raises(RecipeError, match="seeds: Input should be less than"):
        typed(*named, "--out", tmp_path / "bad", "--seeds", 100)
    assert not (tmp_path / "bad" / "experiment.yaml").exists()


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


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("fineweb@datatrove-0.10", "left-out-fineweb@datatrove-0.10-abcdef01"),
        ("folder/mine.yaml", "left-out-mine-abcdef01"),
        ("my rules.yml", "left-out-my-rules-abcdef01"),
        ("x" * 80, f"left-out-{'x' * 46}-abcdef01"),
    ],
)
def test_the_campaign_of_a_written_experiment_is_named_after_recipe_and_pool(recipe: str, name: str) -> None:
    said = Experiment.model_json_schema()["properties"]["name"]
    assert campaign_name(recipe, "abcdef0123") == name
    assert re.search(said["pattern"], name) and len(name) <= said["maxLength"]


def test_two_experiments_that_end_at_once_are_both_in_the_bank(tmp_path: Path) -> None:
    path = tmp_path / "below" / "bank.json"
    ours, theirs = (
        Entry(rung="r", metric="m", kind="run", campaign=name, values=(1.0,), dfs=(3.0,)) for name in ("a", "b")
    )
    with alone_with(path):
        other = threading.Thread(target=put_into_bank, args=(path, [theirs]))
        other.start()
        other.join(0.2)
        assert other.is_alive()
        write_bank(with_entries(Bank(), [ours]), path)
    other.join()
    assert {entry.campaign for entry in read_bank(path).entries} == {"a", "b"}


def test_a_bank_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="name a bank in a folder that can be"):
        put_into_bank(tmp_path / "file" / "bank.json", [])


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ({"device_seconds": 12.5, "tokens_per_second": 1e9}, 12.5),
        ({"tokens_per_second": 500.0}, 2.0),
        ({"tokens_per_second": 0.0}, 10.0),
    ],
)
def test_what_a_model_took_is_what_its_run_says_else_is_reckoned_from_its_speed(
    said: dict[str, float], seconds: float
) -> None:
    assert device_seconds(said, 1000, planned=100.0) == seconds


def test_where_a_look_trains_is_not_decided_by_a_run_that_a_kill_left_over() -> None:
    asked: list[int] = []

    def placement(todo: Sequence[Any]) -> Any:
        asked.append(len(todo))
        return f"of {len(todo)}"

    given: dict[str, Any] = dict.fromkeys(("store", "labels", "progress", "device", "cluster", "task_seconds"))
    place: Callable[[int, list[Any]], Any] = Workshop(**given, placement=placement).place
    assert [place(0, [None] * count) for count in (1, 10, 1, 12)] == ["of 1", "of 10", "of 1", "of 10"]
    place(1, [None] * 10)
    assert asked == [1, 10, 10]


def test_a_plan_for_a_cluster_has_the_speed_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    answer: dict[int, float] | str = {1: 100.0, 2: 180.0, 4: 170.0}

    def there(training: Any, *given: Any) -> dict[int, float] | str:
        asked.append(given)
        return answer

    monkeypatch.setattr(experiments, "speeds_there", there)
    where: dict[str, Any] = {"device": "cuda", "members": 16, "allow_unauthenticated": False}
    training: Any = None
    assert device_speed(training, **where, address="auto") == 180.0 and asked == [(16, "cuda", "auto", False)]
    answer = "not measured, no device of the cluster was free within 600 s"
    with pytest.raises(ClusterError, match=r"no device of the cluster was free .* name `expected:"):
        device_speed(training, **where, address="auto")
    if device_of("auto") == "cpu":
        with pytest.raises(InputError, match="torch sees no GPU here"):
            device_speed(training, **where, address=None)


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
