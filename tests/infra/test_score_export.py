"""Scores in the files of other tools: of each model those that the tool would have written of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from filters.errors import OutputError
from infra.cli_compare import ExportShape, exported
from infra.score_export import Exported, export_scores

SCORES = {
    "panel": {"macro": 2.0, "domains": {"books": {"bits_per_byte": 2.0, "standard_error": None}}},
    "tasks": {
        "by_task": {
            "copa": {
                "acc": {"mean": 0.5, "standard_error": 0.1, "items": 4},
                "bits_per_byte": {"mean": 1.5, "standard_error": None, "items": 4},
            },
            "piqa": {"acc": {"mean": 0.7, "standard_error": 0.2, "items": 9}},
        },
        "absent": [],
    },
}


LABEL = "rule-1m-seed1"


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A store with one model that has scores."""
    return stored(tmp_path / "scored", stopped=None)


def stored(store: Path, *, stopped: int | None) -> str:
    """A model and its scores in a store; `stopped`: the step at which its training did."""
    weights = {"path": "model.safetensors", "sha256": "w" * 64, "bytes": 1, "rows": 0}
    said = {"seed": 1, "parameters": 1_400_000, "stopped": stopped, "files": {"model.safetensors": weights}}
    for folder, name, found in (("models", "run.json", said), ("scores", "scores.json", SCORES)):
        (store / folder / LABEL).mkdir(parents=True)
        (store / folder / LABEL / name).write_text(json.dumps(found))
    return str(store)


def test_scores_are_exported_as_the_harness_writes_them(place: str, tmp_path: Path) -> None:
    assert exported([place], ExportShape.lm_eval, tmp_path / "to") == f"1 models -> {tmp_path / 'to'}"
    (path,) = (tmp_path / "to").rglob("*.json")
    found = json.loads(path.read_text())
    assert path.parent.relative_to(tmp_path / "to") == Path(f"gristmill__{LABEL}")
    assert re.fullmatch(r"results_\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{6}\.json", path.name)
    assert found["results"]["copa"]["acc,none"] == 0.5 and found["results"]["copa"]["acc_stderr,none"] == 0.1
    assert found["results"]["copa"]["bits_per_byte_stderr,none"] == "N/A"
    assert found["results"]["panel_books"]["bits_per_byte,none"] == 2.0
    assert found["higher_is_better"]["copa"] == {"acc": True, "bits_per_byte": False}
    assert found["n-samples"]["piqa"] == {"original": 9, "effective": 9}
    before = path.read_bytes()
    assert export_scores(place, tmp_path / "to", "lm-eval") == Exported(files=(path,), stopped=0)
    assert path.read_bytes() == before


def test_a_model_whose_training_stopped_is_not_exported_but_counted(place: str, tmp_path: Path) -> None:
    other = stored(tmp_path / "other", stopped=7)
    said = exported([place, other], ExportShape.lm_eval, tmp_path / "to")
    assert said == f"1 models -> {tmp_path / 'to'}; without 1 whose training stopped"
    assert export_scores(other, tmp_path / "none", "lighteval") == Exported(files=(), stopped=1)
    assert not (tmp_path / "none").exists()


def test_scores_whose_model_is_gone_are_named(place: str, tmp_path: Path) -> None:
    (Path(place) / "models" / LABEL / "run.json").unlink()
    with pytest.raises(OutputError, match=f"models/{LABEL}/run.json is gone.* remove that folder to export the others"):
        export_scores(place, tmp_path / "to", "lm-eval")


def test_scores_are_exported_as_lighteval_writes_them(place: str, tmp_path: Path) -> None:
    (path,) = export_scores(place, tmp_path / "to", "lighteval").files
    found = json.loads(path.read_text())
    assert path.parent.relative_to(tmp_path / "to") == Path("results/gristmill") / LABEL
    assert found["config_general"]["model_name"] == f"gristmill/{LABEL}"
    assert found["results"]["copa|0"] == {"acc": 0.5, "acc_stderr": 0.1, "bits_per_byte": 1.5}
    assert found["results"]["all"]["acc"] == pytest.approx(0.6)
    assert set(found["versions"]) == set(found["config_tasks"]) == set(found["results"]) - {"all"}


HARNESS = """
import json, sys
from lm_eval import evaluator
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.huggingface import HFLM
from tests.proxy_eval.harness import task_of
model, rows, out = sys.argv[1:]
files = {name: rows for name in ("validation", "test")}
changed = {"task": "copa", "dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
task = task_of("super_glue/copa/default.yaml", {**changed, "training_split": None})
tracker = EvaluationTracker(output_path=out)
lm = HFLM(pretrained=model, device="cpu", dtype="float32", batch_size=4)
found = evaluator.simple_evaluate(model=lm, tasks=[task], num_fewshot=0)
tracker.general_config_tracker.log_experiment_args("hf", {"pretrained": "gristmill/LABEL"}, None, None, False)
tracker.save_results_aggregated(results=found, samples=None)
"""


@pytest.mark.full
def test_an_export_has_the_folders_names_and_types_of_what_the_harness_writes(place: str, tmp_path: Path) -> None:
    """lm-evaluation-harness 0.4.13 on a tiny model (tests/peers.lock)."""
    from proxy_eval.export import export_model
    from tests.proxy_eval.tiny import tiny_shape, tiny_tokenizer, tiny_weights

    shape = tiny_shape(context=128)
    export_model(tiny_weights(shape), 0, shape, tiny_tokenizer().json, tmp_path / "hf")
    row = {"premise": "The mill stood.", "question": "cause", "choice1": "a", "choice2": "b", "idx": 0, "label": 0}
    (tmp_path / "rows.jsonl").write_text(2 * (json.dumps(row) + "\n"))
    command = [sys.executable, "-c", HARNESS, str(tmp_path / "hf"), str(tmp_path / "rows.jsonl"), str(tmp_path / "out")]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    root = Path(__file__).parents[2]
    subprocess.run(command, cwd=root, env={**os.environ, **offline, "PYTHONPATH": str(root)}, check=True, timeout=1_500)
    (theirs,) = (tmp_path / "out").rglob("*.json")
    (ours,) = export_scores(place, tmp_path / "to", "lm-eval").files
    assert str(ours.relative_to(tmp_path / "to").parent) == theirs.parent.name.replace("LABEL", LABEL)
    assert re.sub(r"\d", "0", ours.name) == re.sub(r"\d", "0", theirs.name)
    found, expected = (json.loads(path.read_text()) for path in (ours, theirs))
    assert set(found) <= set(expected), set(found) - set(expected)
    for name in set(found) - {"config"}:
        assert type(found[name]) is type(expected[name]), name
    assert set(found["config"]) <= set(expected["config"])
    one, other = found["results"]["copa"], expected["results"]["copa"]
    assert {name for name in other if "bits" not in name} == {name for name in one if "bits" not in name}
    assert all(type(one[name]) is type(other[name]) for name in other), (one, other)
    for name in ("versions", "n-shot", "n-samples", "higher_is_better"):
        assert type(found[name]["copa"]) is type(expected[name]["copa"]), name
    assert set(found["n-samples"]["copa"]) == set(expected["n-samples"]["copa"])
    assert found["higher_is_better"]["copa"].items() >= expected["higher_is_better"]["copa"].items()
