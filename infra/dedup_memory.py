"""How much memory a task of a dedup step takes, from what was counted before it: what Ray is asked for.

A row costs what it takes at the peak of its stage, measured (docs/scale.md), and a worker `BASE` without any.
"""

from __future__ import annotations

from infra.dedup_work import AFTER, BAND_BYTES, DOCUMENTS, HASH_ROWS, INDEX, DedupTask
from pipelines.dedup.edges import PAIR_BYTES, SKETCH_BYTES
from pipelines.dedup.fingerprints import FILES
from pipelines.dedup.step import NearDuplicates

BASE = 512 << 20


def memory_needed(task: DedupTask) -> int:
    """Bytes that a task of this kind takes; those of one kind take about the same, one bucket or hash of very many
    documents aside.
    """
    count, near = task.corpus.count, task.corpus.step.minhash
    rows = {name: sum(entry.rows for entry in entries) for name, entries in task.inputs.items()}
    bits = -(-count // 8)
    if task.kind == "earlier" or task.kind.startswith(AFTER):
        return BASE + 4 * bits
    if task.kind in FILES or task.kind.startswith(INDEX) and task.kind != f"{INDEX}bands":
        return BASE + 2 * bits + 450 * min(count, HASH_ROWS)
    if task.kind == "survivors":
        return BASE + survivors_need(near, rows, count)
    if task.kind in ("named", "removed"):
        return BASE + 500 * min(count, DOCUMENTS)
    if near is not None and task.kind in (f"{INDEX}bands", "pairs"):
        return BASE + 2 * bits + 4 * min(count * near.bands * near.band_bytes, BAND_BYTES)
    if near is not None and task.kind in ("attach", "edges"):
        return BASE + 2 * min(2 * count * near.parameters.size, SKETCH_BYTES) + PAIR_BYTES // 4
    return BASE


def survivors_need(near: NearDuplicates | None, rows: dict[str, int], count: int) -> int:
    """Bytes for the choice among edges, or for all that fall, whichever is more."""
    joined = rows.get("edges", rows.get("pairs", 0))
    linked = min(2 * joined, count)
    choice = 20 * count if near is not None and near.survivor == "datatrove" else 90 * joined + 40 * linked
    fell = sum(rows.get(method, 0) for method in FILES) + linked
    return max(choice, 100 * min(fell, count))
