"""Items of a panel and of tasks in a pool's texts: found where they are planted, cut by a mask, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from filters.errors import InputError
from infra.arms import arm_mask
from infra.contamination import check_pool
from infra.pool import make_pool
from infra.pool_files import read_said
from infra.proxies import panel_of
from infra.run import Finished
from tests.annotated_run import annotated_run


@pytest.fixture(scope="module")
def made(small_crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return annotated_run(small_crawl, tmp_path_factory.mktemp("contaminated") / "out")


@pytest.fixture(scope="module")
def pool(made: Finished, tmp_path_factory: pytest.TempPathFactory) -> str:
    to = tmp_path_factory.mktemp("pool") / "pool"
    return make_pool(made.store.url, to, vocabulary=400, runner="inprocess", quiet=True).url


def texts(made: Finished) -> list[str]:
    root = Path(made.store.url)
    return [text for entry in made.files["text"] for text in pq.read_table(root / entry.path)["text"].to_pylist()]


def test_items_that_stand_in_the_pool_are_found_and_their_documents_cut(
    made: Finished, pool: str, make_sentences: Callable[[int], str], tmp_path: Path
) -> None:
    inside = texts(made)[7]
    words = inside.split()
    folder = tmp_path / "domains" / "mills"
    folder.mkdir(parents=True)
    lines = [json.dumps({"text": text}) for text in (make_sentences(90_001), " ".join(words[20:60]).upper())]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")
    panel_of(tmp_path / "panel", tmp_path / "domains")
    task = tmp_path / "tasks" / "copa"
    task.mkdir(parents=True)
    row = {"premise": "Nobody ever wrote of this.", "question": "cause", "choice1": "It is of no matter at all.",
           "choice2": "It was forgotten long ago.", "idx": 0, "label": 1}  # fmt: skip
    (task / "validation.jsonl").write_text(json.dumps(row) + "\n")

    with pytest.raises(InputError, match="gristmill panel check"):
        arm_mask(pool, read_said(pool), "uncontaminated")
    found = check_pool(pool, panel=tmp_path / "panel", tasks=tmp_path / "tasks", runner="inprocess", quiet=True)
    by_name = {one.name: one for one in found.groups}
    assert (by_name["panel/mills"].items, by_name["panel/mills"].found) == (2, 1)
    assert (by_name["copa"].items, by_name["copa"].found) == (1, 0)
    holding = [at for at, text in enumerate(texts(made)) if " ".join(words[20:60]) in " ".join((text or "").split())]
    clean = arm_mask(pool, read_said(pool), "uncontaminated")
    assert clean is not None and np.flatnonzero(~clean).tolist() == holding and found.cut == len(holding) > 0
    with pytest.raises(InputError, match="nobody has looked"):
        arm_mask(pool, read_said(pool) | {"sha256": "of another pool"}, "uncontaminated")
    kept, both = (arm_mask(pool, read_said(pool), said) for said in ("rules", "rules, uncontaminated"))
    assert kept is not None and both is not None and (both == kept & clean).all() and both.sum() < kept.sum()
    rows = pq.read_table(Path(pool) / "contamination" / "items.parquet").to_pylist()
    assert [row["found"] == row["ngrams"] for row in rows].count(True) == 1


def test_without_items_there_is_nothing_to_look_for(pool: str) -> None:
    with pytest.raises(InputError, match="say what to look for"):
        check_pool(pool, runner="inprocess", quiet=True)
