"""Scores in the files of other tools: of every scored model the JSON that lm-evaluation-harness or lighteval writes.

`DIR/gristmill__LABEL/results_TIME.json` is that of lm-evaluation-harness 0.4.13 (`--output_path`), and
`DIR/results/gristmill/LABEL/results_TIME.json` that of lighteval 0.13 (`--output-dir`): what reads theirs reads ours.
TIME is when the scores were stored, so exporting again writes the same files. What we do not know is absent or
null: hashes of prompts, the harness's own versions, the time that it took. Prompts are those of `gristmill score`.
Models whose training stopped have no file: what was scored of them are the weights of before their loss was not finite.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from filters.errors import OutputError
from infra.score_work import REVISION
from infra.scores import SCORES
from infra.store import open_store
from infra.stored import Store, read_decoded, usable
from infra.training import MODELS, RUN_FILE, Model
from proxy_eval.looks import higher_better

Shape = Literal["lm-eval", "lighteval"]

SCORES_FILE = "scores.json"
OWNER = "gristmill"
"""What stands for the organisation of a model in their names."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """The mean of a metric over so many items, and its standard error over them; None where it is unknown."""

    mean: float
    error: float | None
    items: int


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The files that were written, by model; stopped: how many models were left out, for their training stopped."""

    files: tuple[Path, ...]
    stopped: int


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """The scores of a model, by task and metric; `when` they were stored, by the store's clock. A domain of the panel
    is the task `panel_DOMAIN`, scored by the one stream of its documents.
    """

    model: Model
    tasks: Mapping[str, Mapping[str, Metric]]
    when: datetime

    @property
    def name(self) -> str:
        """As a model's name on the Hugging Face Hub."""
        return f"{OWNER}/{self.model.label}"

    def folder(self, shape: Shape) -> Path:
        """Where a tool writes a model of this name."""
        return Path(self.name.replace("/", "__")) if shape == "lm-eval" else Path("results", self.name)

    @property
    def sizes(self) -> dict[str, int]:
        """How many items each task has."""
        return {task: max(one.items for one in metrics.values()) for task, metrics in self.tasks.items()}

    @property
    def file(self) -> str:
        """The file's name, with the colons of the time as both tools write them."""
        return f"results_{self.when.isoformat(timespec='microseconds').replace(':', '-')}.json"


def export_scores(url: str, to: Path, shape: Shape) -> Exported:
    """Write the scores of every model of a store whose training came to its end.

    Raises OutputError where no model has scores, and where nothing can be written.
    """
    every, written = scores_in(open_store(url)), []
    sound = [scores for scores in every if scores.model.said["stopped"] is None]
    for scores in sound:
        folder = to / scores.folder(shape)
        said = lm_eval_json(scores) if shape == "lm-eval" else lighteval_json(scores)
        with usable(to):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / scores.file).write_text(json.dumps(said, indent=2, ensure_ascii=False), encoding="utf-8")
        written.append(folder / scores.file)
    return Exported(files=tuple(written), stopped=len(every) - len(sound))


def scores_in(store: Store) -> list[ModelScores]:
    """The scores of all models that have some, by label. Raises OutputError where none has."""
    stored = {one.name.split("/")[1]: one for one in store.listed(SCORES) if one.name.endswith(f"/{SCORES_FILE}")}
    if not stored:
        raise OutputError(f"{store.url}: no model has scores. Score them: gristmill score {store.url} --tasks FOLDER")
    return [
        ModelScores(
            model=Model(label=label, said=run_said(store, label)),
            tasks=tasks_of(read_decoded(store, one.name, json.loads)),
            when=datetime.fromtimestamp(one.written, UTC).replace(tzinfo=None),
        )
        for label, one in sorted(stored.items())
    ]


def run_said(store: Store, label: str) -> dict[str, Any]:
    """What run.json says of a model. Raises OutputError where the model is gone and its scores are not."""
    name = f"{MODELS}/{label}/{RUN_FILE}"
    try:
        found: dict[str, Any] = read_decoded(store, name, json.loads)
    except FileNotFoundError:
        raise OutputError(
            f"{store.url}: {name} is gone, which says how the model of {SCORES}/{label} was trained. Bring it back, or "
            "remove that folder to export the others."
        ) from None
    return found


def tasks_of(said: Mapping[str, Any]) -> dict[str, dict[str, Metric]]:
    """Every metric of every task and domain, as scores.json has them; a number that is not there is left out."""
    found = {
        task: {name: metric(one["mean"], one["standard_error"], one["items"]) for name, one in metrics.items()}
        for task, metrics in said.get("tasks", {"by_task": {}})["by_task"].items()
    }
    for domain, one in said.get("panel", {"domains": {}})["domains"].items():
        if one["bits_per_byte"] is not None:
            bits = metric(one["bits_per_byte"], one["standard_error"], 1)
            found[f"panel_{domain}"] = {"bits_per_byte": bits}
    return found


def metric(mean: float, error: float | None, items: int) -> Metric:
    """A metric of a task."""
    return Metric(mean=mean, error=error, items=items)


def lm_eval_json(scores: ModelScores) -> dict[str, Any]:
    """What lm-evaluation-harness writes of a model: metrics are `NAME,FILTER`, an unknown error is "N/A"."""
    model, tasks, sizes = scores.model.said, scores.tasks, scores.sizes
    stored = scores.when.replace(tzinfo=UTC).timestamp()
    return {
        "results": {
            task: {"name": task, "alias": task, "sample_len": sizes[task], **lm_eval_metrics(metrics)}
            for task, metrics in tasks.items()
        },
        "group_subtasks": {},
        "configs": {task: lm_eval_config(task) for task in tasks},
        "versions": dict.fromkeys(tasks, float(REVISION)),
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {task: {name: is_better(name) for name in metrics} for task, metrics in tasks.items()},
        "n-samples": {task: {"original": size, "effective": size} for task, size in sizes.items()},
        "config": {
            "model": "hf",
            "model_args": {"pretrained": scores.name, "dtype": "float32"},
            "model_num_parameters": model["parameters"],
            "model_dtype": "torch.float32",
            "model_revision": "main",
            "model_sha": weights_sha256(scores),
            "limit": None,
            "random_seed": model["seed"],
        },
        "date": stored,
        "model_source": "hf",
        "model_name": scores.name,
        "model_name_sanitized": scores.name.replace("/", "__"),
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": False,
        "chat_template": None,
        "chat_template_sha": None,
        "task_hashes": {},
    }


def lm_eval_metrics(metrics: Mapping[str, Metric]) -> dict[str, float | str]:
    """The metrics of a task under the harness's names; `none` is the filter that leaves answers as they are."""
    found: dict[str, float | str] = {}
    for name, one in metrics.items():
        found[f"{name},none"] = one.mean
        found[f"{name}_stderr,none"] = "N/A" if one.error is None else one.error
    return found


def lm_eval_config(task: str) -> dict[str, Any]:
    """What is known of how a task was asked."""
    rolling = task.startswith("panel_")
    return {
        "task": task,
        "output_type": "loglikelihood_rolling" if rolling else "multiple_choice",
        "num_fewshot": 0,
        "metadata": {"version": float(REVISION), "scored_by": f"gristmill {version('gristmill')}"},
    }


def lighteval_json(scores: ModelScores) -> dict[str, Any]:
    """What lighteval writes of a model: tasks are `NAME|SHOTS`, and `all` is the mean over them of each metric."""
    results = {f"{task}|0": lighteval_metrics(metrics) for task, metrics in scores.tasks.items()}
    names = dict.fromkeys(name for metrics in results.values() for name in metrics)
    held = {name: [metrics[name] for metrics in results.values() if name in metrics] for name in names}
    return {
        "config_general": {
            "lighteval_sha": "?",  # what lighteval writes where it cannot tell
            "num_fewshot_seeds": 1,
            "max_samples": None,
            "job_id": "",
            "start_time": None,
            "end_time": scores.when.replace(tzinfo=UTC).timestamp(),
            "total_evaluation_time_secondes": None,
            "model_config": {"model_name": scores.name, "dtype": "float32", "revision": weights_sha256(scores)},
            "model_name": scores.name,
        },
        "results": {**results, "all": {name: sum(values) / len(values) for name, values in held.items()}},
        "versions": dict.fromkeys(results, REVISION),
        "config_tasks": {
            f"{task}|0": {
                "name": task,
                "num_fewshots": 0,
                "original_num_docs": size,
                "effective_num_docs": size,
                "version": REVISION,
            }
            for task, size in scores.sizes.items()
        },
        "summary_tasks": {},
        "summary_general": {},
    }


def lighteval_metrics(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The metrics of a task under lighteval's names; an unknown error is left out."""
    found = {}
    for name, one in metrics.items():
        found[name] = one.mean
        if one.error is not None:
            found[f"{name}_stderr"] = one.error
    return found


def is_better(name: str) -> bool:
    """True where more of a metric is better."""
    return higher_better(f"task/{name}", 1.0) > 0


def weights_sha256(scores: ModelScores) -> str:
    """Hash of the model's weights."""
    return scores.model.files["model.safetensors"].sha256
