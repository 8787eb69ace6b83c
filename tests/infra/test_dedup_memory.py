"""What Ray is asked for grows with what was counted, and is bounded where work is cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.commit import FileEntry
from infra.dedup_memory import BASE, memory_needed
from infra.dedup_work import PERFORMED, Corpus, DedupTask
from infra.local_store import LocalStore
from infra.rollup import Rollup
from pipelines.dedup.edges import Share
from pipelines.dedup.ranges import Range
from pipelines.dedup.step import Dedup

GIB = 1 << 30


def needed(kind: str, documents: int, **rows: int) -> int:
    """What a task of this kind takes over so many documents, with an input of so many rows for each name."""
    step = Dedup.model_validate({"url": {}, "text": {}, "minhash": {}})
    rollup = Rollup(segments=(), tasks=0, retries={})
    corpus = Corpus(store=LocalStore(Path("/nowhere")), rollup=rollup, step=step, documents=documents)
    inputs = {name: (FileEntry(path="", sha256="", bytes=0, rows=count),) for name, count in rows.items()}
    return memory_needed(DedupTask(corpus=corpus, kind=kind, share=Share(within=Range(low=0, high=0)), inputs=inputs))


@pytest.mark.parametrize("kind", PERFORMED)
def test_a_small_corpus_asks_for_little(kind: str) -> None:
    assert BASE <= needed(kind, 1_000) < 2 * GIB


@pytest.mark.parametrize("kind", sorted(set(PERFORMED) - {"earlier"}))
def test_what_is_cut_is_bounded_but_for_a_bit_a_document(kind: str) -> None:
    documents = 10**10
    bits = 4 * documents // 8 if kind.startswith("after_") else documents // 4
    if kind != "survivors":
        assert needed(kind, documents) <= bits + 3 * GIB


def test_survivors_ask_for_their_edges_and_for_what_falls() -> None:
    few, many = needed("survivors", 10**10, edges=10**6), needed("survivors", 10**10, edges=10**9)
    assert few < 2 * GIB
    assert many > 120 * 10**9
    assert needed("survivors", 10**10, url=10**9, text=10**9) > 100 * 10**9
