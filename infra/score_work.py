"""What a worker does to score: one model on a panel and on cloze tasks, every document and item of them.

What is scored is named by hashes of the model, the panel and the tasks' files; the panel and the tasks are folders of
the machine that scores.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from filters.errors import InputChanged
from infra.commit import FileEntry, Manifest, file_entry
from infra.failpoints import failpoint
from infra.local_store import LocalStore
from infra.pool_files import fetch
from infra.scratch import scratch
from infra.stored import Store
from infra.training_work import PACKAGES
from infra.work import Report, identity
from pipelines.resources import file_sha256

if TYPE_CHECKING:
    from proxy_eval.score import PanelScores

SCORE = "score"
REVISION = 1
"""Of the numbers that scoring gives."""
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json")


@dataclass(frozen=True, kw_only=True)
class ScoreTask:
    """Score a stored model. `panel` and `tasks` are folders, None where there is none; `names`: of these tasks alone;
    `profile`: whose prompts (proxy_eval/tasks.py); `pmi`: one more pass.
    """

    store: Store
    model: Mapping[str, FileEntry]
    panel: Path | None
    panel_sha256: str | None
    tasks: Path | None
    tasks_sha256: str | None
    names: tuple[str, ...] = ()
    profile: Literal["fineweb", "lm_eval"] = "fineweb"
    pmi: bool = False
    device: str = "cpu"
    threads: int | None = None

    @property
    def id(self) -> str:
        """Hash of the model and of what it is scored on."""
        model = [self.model[name].sha256 for name in MODEL_FILES]
        asked = [list(self.names), self.profile, self.pmi]
        return identity(SCORE, REVISION, model, self.panel_sha256, self.tasks_sha256, asked)

    @property
    def packages(self) -> tuple[str, ...]:
        """What every node must have in the driver's releases."""
        return PACKAGES

    @property
    def gpus(self) -> int:
        """What the scheduler is asked for."""
        return int(self.device.startswith("cuda"))


def perform_score(task: ScoreTask, report: Report) -> Manifest:
    """Score the model, and store a row for each document (panel.parquet) and item (items.parquet), and scores.json."""
    import torch

    from proxy_eval.export import load_model

    if task.threads is not None:
        torch.set_num_threads(task.threads)
    with model_folder(task.store, task.model) as folder, task.store.attempt(task.id) as attempt:
        weights, shape = load_model(folder)
        weights = {name: tensor.to(task.device) for name, tensor in weights.items()}
        model = Loaded(weights=weights, shape=shape, tokenizer=tokenizer_in(folder))
        said: dict[str, Any] = {}
        tables: dict[str, pa.Table] = {}
        if task.panel is not None:
            said["panel"], tables["panel.parquet"] = on_panel(model, task)
            report(task.id, None)
        if task.tasks is not None:
            said["tasks"], tables["items.parquet"] = on_tasks(model, task)
        for name, table in tables.items():
            pq.write_table(table, attempt.folder / name, compression="zstd")
        text = json.dumps(said, indent=1, sort_keys=True) + "\n"
        (attempt.folder / "scores.json").write_text(text, encoding="utf-8")
        failpoint("attempt.written")
        files = {
            name: file_entry(task.store, attempt, attempt.folder / name, tables[name].num_rows if name in tables else 0)
            for name in (*tables, "scores.json")
        }
    return Manifest(stage=SCORE, task=task.id, says={"scores": said}, files=files, timing_dependent=True)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model in memory: a stack of one."""

    weights: Any
    shape: Any
    tokenizer: Any


def tokenizer_in(folder: Path) -> Any:
    """The tokenizer of an exported model, with the end-of-text token that its configuration names."""
    from proxy_eval.tokenizer import tokenizer_of

    end = json.loads((folder / "config.json").read_text(encoding="utf-8"))["eos_token_id"]
    return tokenizer_of((folder / "tokenizer.json").read_bytes(), end=end)


@contextmanager
def model_folder(store: Store, model: Mapping[str, FileEntry]) -> Iterator[Path]:
    """Yield a folder of this machine that holds a model's files under their names."""
    with scratch() as folder:
        for name in MODEL_FILES:
            if isinstance(store, LocalStore):
                (folder / name).symlink_to(store.root / model[name].path)
            else:
                fetch(store, model[name].path, model[name].bytes, folder / name)
        yield folder


def on_panel(model: Loaded, task: ScoreTask) -> tuple[dict[str, Any], pa.Table]:
    """Bits per byte by domain and their mean, and a row for each document."""
    from proxy_eval.panel import read_panel
    from proxy_eval.score import panel_table, score_panel

    assert task.panel is not None, "asked for where there is a panel"
    panel = read_panel(task.panel)
    if panel.sha256 != task.panel_sha256:
        raise InputChanged(f"{task.panel} is another panel than when this was planned. Run the same command again.")
    scores = score_panel(model.weights, model.shape, model.tokenizer, panel)
    return {"sha256": panel.sha256, **panel_said(scores)}, panel_table(scores, ["model"]).drop_columns(["arm"])


def panel_said(scores: PanelScores) -> dict[str, Any]:
    """Bits per byte with standard errors over documents (null where a domain has one): macro, and by domain."""
    from proxy_eval.score import domain_bits, macro_bits

    mean, error = macro_bits(scores)
    bits, errors = domain_bits(scores)
    return {
        "macro": number(mean[0]),
        "standard_error": number(error[0]),
        "domains": {
            name: {"bits_per_byte": number(bits[0, at]), "standard_error": number(errors[0, at])}
            for at, name in enumerate(scores.domains)
        },
    }


def number(value: Any) -> float | None:
    """A float for JSON; None for NaN."""
    return float(value) if value == value else None


def on_tasks(model: Loaded, task: ScoreTask) -> tuple[dict[str, Any], pa.Table]:
    """Every metric of every task with its standard error, the tasks that the folder does not hold, a row an item."""
    from proxy_eval.cloze import item_table, score_items, summary_table
    from proxy_eval.tasks import read_tasks

    assert task.tasks is not None, "asked for where there are tasks"
    found = read_tasks(task.tasks, task.names or None, task.profile)
    scored = [score_items(model.weights, model.shape, model.tokenizer, one, pmi=task.pmi) for one in found.items]
    said: dict[str, dict[str, Any]] = {}
    for row in summary_table(scored, ["model"]).to_pylist():
        if row["subject"] is None:
            metric = {name: row[name] for name in ("mean", "standard_error", "items")}
            said.setdefault(row["task"], {})[row["metric"]] = metric
    items = pa.concat_tables([item_table(one, ["model"]) for one in scored]).drop_columns(["arm"])
    return {"by_task": said, "absent": list(found.absent)}, items


def tasks_sha256(folder: Path) -> str:
    """Hash of the names and bytes of all task files below a folder."""
    files = sorted(path for path in folder.rglob("*.jsonl*") if path.is_file())
    return identity([[str(path.relative_to(folder)), file_sha256(path)] for path in files])
