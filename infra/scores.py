"""Scores of the models of a folder: each committed beside them, what was scored before is not scored again.

`scores/LABEL/` holds `panel.parquet` (a row for each document), `items.parquet` (for each item of each task) and
`scores.json`, of the panel and the tasks that were asked for last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from filters.errors import InputError
from infra.commit import Manifest, committed
from infra.finish import finish_stage
from infra.placement import scoring_place
from infra.score_work import SCORE, ScoreTask, tasks_sha256
from infra.stored import Store
from infra.training import Model, runner_for
from infra.training_progress import TrainingProgress

SCORES = "scores"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A model with what scores.json says of it."""

    model: Model
    said: Mapping[str, Any]


def score_all(
    store: Store,
    models: Sequence[Model],
    *,
    panel: Path | None,
    tasks: Path | None,
    names: Sequence[str] = (),
    profile: Literal["fineweb", "lm_eval"] = "fineweb",
    pmi: bool = False,
    device: str,
    workers: int | None = None,
    progress: TrainingProgress,
    address: str | None = None,
    allow_unauthenticated: bool = False,
) -> list[Scored]:
    """Score the models and return them with their scores, in order. The caller holds the store's lock.

    Raises InputError where neither a panel nor tasks are given, and what reading them raises.
    """
    from proxy_eval.panel import read_panel

    if panel is None and tasks is None:
        raise InputError("say what to score on: --panel PANEL (`gristmill panel build`), --tasks FOLDER, or both")
    panel_sha256 = None if panel is None else read_panel(panel).sha256
    found = None if tasks is None else tasks_sha256(tasks)
    made = {
        model.label: ScoreTask(
            store=store,
            model=model.files,
            panel=None if panel is None else panel.absolute(),
            panel_sha256=panel_sha256,
            tasks=None if tasks is None else tasks.absolute(),
            tasks_sha256=found,
            names=tuple(names),
            profile=profile,
            pmi=pmi,
        )
        for model in models
    }
    done = committed(store, SCORE)
    weights = {made[model.label].id: int(model.said["parameters"]) for model in models}
    left = [count for name, count in weights.items() if name not in done]
    placement = scoring_place(device, workers, address, weights=left, read=bytes_below(panel, tasks))
    alike = {task.id: replace(task, device=placement.device, threads=placement.threads) for task in made.values()}
    with runner_for(placement, address, allow_unauthenticated, None) as runner:
        manifests = finish_stage(
            store, SCORE, alike.values(), len(alike), runner, report=progress.report, on_stage=progress.stage
        )
    return [published(store, model, manifests[made[model.label].id]) for model in models]


def bytes_below(*folders: Path | None) -> int:
    """Of all files below these folders."""
    found = (path for folder in folders if folder is not None for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in found)


def published(store: Store, model: Model, manifest: Manifest) -> Scored:
    """Show the scores under the model's label."""
    store.show(f"{SCORES}/{model.label}", [(entry.path, name) for name, entry in manifest.files.items()])
    return Scored(model=model, said=manifest.says["scores"])
