"""Log-likelihoods, acc, acc_norm and bits per byte are those of lm-evaluation-harness 0.4.13 on the exported model.

The harness runs its own task configurations (tests/peers.lock installs it) on our local files. The context is so
short that questions are cut and documents are read in several windows.
"""

import gzip
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from proxy_eval.cloze import metrics_of, score_items
from proxy_eval.export import export_model
from proxy_eval.llama import Shape, Weights
from proxy_eval.panel import Source, build_panel, documents
from proxy_eval.score import domain_bits, score_panel
from proxy_eval.tasks import TASKS, Task, read_items
from tests.proxy_eval.test_tasks import BENCHMARKS, ROWS
from tests.proxy_eval.tiny import SENTENCES, tiny_shape, tiny_tokenizer, tiny_weights

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
CONTEXT = 128
ITEMS = (
    40  # of each real set, and of two subjects of MMLU, with answers that fit the context: the harness refuses others
)
SUBJECTS = ("abstract_algebra", "world_religions")
YAML = {
    "hellaswag": "hellaswag/hellaswag.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "piqa": "piqa/piqa.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "commonsense_qa": "commonsense_qa/default.yaml",
    "social_iqa": "siqa/siqa.yaml",
    "winogrande": "winogrande/default.yaml",
    "lambada_openai": "lambada/lambada_openai.yaml",
    "copa": "super_glue/copa/default.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "sciq": "sciq/sciq.yaml",
} | {f"mmlu_{subject}_continuation": f"mmlu/continuation/mmlu_{subject}.yaml" for subject in SUBJECTS}
PANEL = {
    "task": "panel",
    "output_type": "loglikelihood_rolling",
    "test_split": "test",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "metric_list": [{"metric": "bits_per_byte"}],
}


@pytest.fixture(scope="module")
def model() -> tuple[Weights, Shape]:
    shape = replace(tiny_shape(context=CONTEXT), init_std=0.15)
    return tiny_weights(shape, dtype=torch.float32), shape


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, model: tuple[Weights, Shape]) -> Path:
    """The second model of the stack."""
    folder = tmp_path_factory.mktemp("model") / "hf"
    export_model(model[0], 1, model[1], tiny_tokenizer().json, folder)
    return folder


def evaluated(model: Path, folder: Path, tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the harness says of tasks whose `rows` are its only split."""
    listed = []
    for task in tasks:
        path = folder / f"{task['task']}.harness.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in task["rows"]))
        files = {name: str(path) for name in ("validation", "test")}
        changed = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
        changed |= {name: value for name, value in task.items() if name != "rows"}
        listed.append({"yaml": YAML.get(task["task"]), "changed": changed})
    (folder / "tasks.json").write_text(json.dumps(listed))
    out = folder / "out.json"
    command = [sys.executable, "-m", "tests.proxy_eval.harness", str(model), str(folder), str(out)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=1_500)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def as_there(task: Task, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the data set that the harness reads has it, where that is another than ours."""
    if task.name == "boolq":
        return {**row, "label": int(row["answer"])}
    if task.name == "lambada_openai":
        return {"text": f"{row['context']} {row['continuation']}"}
    return dict(row)


def own_rows(task: Task) -> list[dict[str, Any]]:
    return [dict(ROWS[task.name])]


def real_rows(task: Task) -> list[dict[str, Any]]:
    path = BENCHMARKS / task.name / f"{task.split}.jsonl.gz"
    if not path.exists():
        path = path.with_suffix("")
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = [json.loads(line) for line in data.split(b"\n") if line]
    ask = (task.harness or task.prompt).ask
    fitting = [row for row in rows if max(len(answer.encode()) for answer in ask(row).answers) < CONTEXT]
    if task.name != "mmlu":
        return fitting[:ITEMS]
    return [row for subject in SUBJECTS for row in [row for row in fitting if row["subject"] == subject][:ITEMS]]


def harness_tasks(task: Task, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The harness's own task, or tasks, for these rows: MMLU has one for each subject."""
    if task.name != "mmlu":
        return [{"task": task.name, "training_split": None, "rows": [as_there(task, row) for row in rows]}]
    subjects = dict.fromkeys(row["subject"] for row in rows)
    return [
        {
            "task": f"mmlu_{subject}_continuation",
            "fewshot_split": None,
            "rows": [row for row in rows if row["subject"] == subject],
        }
        for subject in subjects
    ]


@pytest.mark.parametrize("source", ["own", "real"])
def test_every_task_scores_as_the_harness_scores_it(
    tmp_path: Path, exported: Path, model: tuple[Weights, Shape], source: str
) -> None:
    if source == "real" and not BENCHMARKS.is_dir():
        pytest.skip("no shared/data/benchmarks beside the checkout")
    rows = {task: own_rows(task) for task in TASKS}
    if source == "own":
        rows[next(task for task in TASKS if task.name == "mmlu")][0]["subject"] = "world_religions"
    else:
        rows = {task: real_rows(task) for task in TASKS if task.name != "sciq"}
    asked = [one for task, some in rows.items() for one in harness_tasks(task, some)]
    theirs = evaluated(exported, tmp_path, asked)
    for task, some in rows.items():
        path = tmp_path / task.name / f"{task.split}.jsonl"
        path.parent.mkdir()
        path.write_text("".join(json.dumps(row) + "\n" for row in some))
        items = read_items(tmp_path, task, "lm_eval")
        scored = score_items(*model, tiny_tokenizer(), items)
        ours = metrics_of(scored)
        samples = [sample for one in harness_tasks(task, some) for sample in theirs[one["task"]]["samples"]]
        responses = [response for sample in samples for response in sample["responses"]]
        assert scored.loglikelihoods[1] == pytest.approx([value for value, _ in responses], rel=1e-4), task.name
        assert scored.greedy[1].tolist() == [greedy for _, greedy in responses], task.name
        for metric in ("acc", "acc_norm"):
            if metric in samples[0] and task.name != "winogrande":  # whose acc_norm divides by the contexts there
                assert ours[metric][1].tolist() == [sample[metric] for sample in samples], (task.name, metric)


def test_bits_per_byte_are_those_of_the_harness(
    tmp_path: Path, exported: Path, model: tuple[Weights, Shape], make_sentences: Any
) -> None:
    """Documents of one token, of less than a window, of many windows, and of characters of several bytes."""
    texts = ["a", SENTENCES[0], "Die Mühle – größer als gedacht – steht am Fluß.\n" * 9, make_sentences(3)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    panel = build_panel(tmp_path / "panel", [Source(name="a", files=(path,), licence="ours")], salt="", piece=100_000)
    scores = score_panel(*model, tiny_tokenizer(), panel)
    held = documents(panel, "a")[1]
    assert sorted(held) == sorted(texts)
    theirs = evaluated(exported, tmp_path, [{**PANEL, "rows": [{"text": text} for text in held]}])["panel"]
    assert -scores.nats[1] == pytest.approx(np.ravel([one["responses"] for one in theirs["samples"]]), rel=1e-5)
    assert domain_bits(scores).mean[1, 0] == pytest.approx(theirs["results"]["bits_per_byte,none"], rel=1e-5)
