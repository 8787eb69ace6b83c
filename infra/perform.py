"""One task, of any stage, from its value to its manifest."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from filters.errors import VerifyFailed
from infra.commit import Manifest, commit
from infra.contamination_work import ContaminationTask, perform_contamination
from infra.dedup_work import DedupTask, RemoveTask, perform_dedup, perform_remove
from infra.pool_work import TokenizerTask, TokensTask, perform_tokenizer, perform_tokens
from infra.score_work import ScoreTask, perform_score
from infra.training_work import TrainTask, perform_train
from infra.work import (
    CutTask,
    PackTask,
    ProcessTask,
    Report,
    RetryTask,
    Task,
    perform_cut,
    perform_pack,
    perform_process,
    perform_retry,
)
from pipelines.memory import peak_memory

PERFORMERS: dict[type, Callable[[Any, Report], Manifest]] = {
    CutTask: perform_cut,
    ProcessTask: perform_process,
    RetryTask: perform_retry,
    PackTask: perform_pack,
    DedupTask: perform_dedup,
    RemoveTask: perform_remove,
    TokenizerTask: perform_tokenizer,
    TokensTask: perform_tokens,
    TrainTask: perform_train,
    ScoreTask: perform_score,
    ContaminationTask: perform_contamination,
}


def perform(task: Task, report: Report) -> Manifest:
    """Do one task and return the manifest in force. Safe to do twice, at the same time, or again after any failure."""
    started = time.monotonic()
    try:
        manifest = PERFORMERS[type(task)](task, report)
    except FileNotFoundError as error:
        raise VerifyFailed(
            f"task {task.id}: a committed file is gone ({error}). Restore it, or run into an empty folder."
        ) from error
    measured = {
        "seconds": round(time.monotonic() - started, 3),
        "peak_rss_bytes": peak_memory(),
    }
    return commit(task.store, replace(manifest, measured=measured))
