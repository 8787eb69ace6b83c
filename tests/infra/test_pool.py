"""A pool from an annotated run: its rows, the same hash however it was made, nothing done twice, errors by name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tokenizers

from filters.errors import InputError, OutputError
from infra.arms import kept_by, mask_rules
from infra.commands import run_recipe
from infra.pool import make_pool, run_of
from infra.pool_files import local_pool, read_said
from infra.run import Finished
from pipelines.recipe import load_recipe
from proxy_eval.pool import Pool, read_pool
from tests.annotated_run import annotated_run

VOCABULARY = 400


@pytest.fixture(scope="module")
def made(small_crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return annotated_run(small_crawl, tmp_path_factory.mktemp("pooled") / "out")


def pooled(made: Finished, to: Path, **options: object) -> Pool:
    given = {"vocabulary": VOCABULARY, "runner": "inprocess", "quiet": True} | options
    make_pool(made.store.url, to, **given)  # type: ignore[arg-type]
    return read_pool(to)


@pytest.fixture(scope="module")
def pool(made: Finished, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return pooled(made, tmp_path_factory.mktemp("pool") / "pool")


def texts(made: Finished, kind: str = "text") -> list[str | None]:
    root = Path(made.store.url)
    tables = [pq.read_table(root / entry.path, columns=["text"]) for entry in made.files[kind]]
    return [text for table in tables for text in table.column("text").to_pylist()]


def decoded(pool: Pool, documents: np.ndarray) -> list[str]:
    tokenizer = tokenizers.Tokenizer.from_str(pool.tokenizer.json.decode())
    return [tokenizer.decode(pool.tokens(int(at)).tolist(), skip_special_tokens=False) for at in documents]


def test_its_rows_are_those_of_the_runs_parts_and_say_their_texts(made: Finished, pool: Pool, tmp_path: Path) -> None:
    raw = pooled(made, tmp_path / "raw", view="raw")
    assert [part.documents for part in raw.parts] == [entry.rows for entry in made.files["text"]]
    assert len(raw.parts) > 1
    given = [text or "" for text in texts(made)]
    assert decoded(raw, np.arange(len(raw))) == given
    assert raw.bytes.tolist() == [len(text.encode()) for text in given]
    ruled = mask_rules(made, "rules")
    assert ruled is not None
    kept = np.flatnonzero(kept_by(made, ruled))
    assert sorted(decoded(pool, kept)) == sorted(text or "" for text in texts(made, "dataset"))  # the edited texts


def test_a_text_that_is_edited_has_other_tokens_than_the_raw_one(
    small_crawl: Path, make_page, write_warc, tmp_path: Path
) -> None:
    page = make_page(1).replace("</article>", "<p>You need javascript for the ledger of the old mill.</p></article>")
    path = write_warc("pages.warc.gz", [page.encode(), make_page(2).encode()])
    recipe = load_recipe("fineweb-resiliparse")
    made = run_recipe(recipe, [str(path)], tmp_path / "out", runner="inprocess", quiet=True, annotate=True)
    raw, edited = (pooled(made, tmp_path / view, view=view) for view in ("raw", "c4_lines"))
    assert any("javascript" in text for text in decoded(raw, np.arange(2)))
    assert not any("javascript" in text for text in decoded(edited, np.arange(2)))
    assert edited.origin["view"] == "c4_lines" and edited.sha256 != raw.sha256


def test_made_again_it_does_nothing_and_elsewhere_it_has_the_same_hash(
    made: Finished, pool: Pool, tmp_path: Path
) -> None:
    said = (pool.folder / "pool.json").stat().st_mtime_ns
    again = make_pool(made.store.url, pool.folder, vocabulary=VOCABULARY, runner="inprocess", quiet=True)
    assert (again.done_now, again.done_before) == (0, len(pool.parts))
    assert (pool.folder / "pool.json").stat().st_mtime_ns == said
    assert pooled(made, tmp_path / "other").sha256 == pool.sha256


def test_a_run_that_was_moved_is_noted_and_nothing_is_tokenised_anew(
    small_crawl: Path, made: Finished, pool: Pool, tmp_path: Path
) -> None:
    moved = annotated_run(small_crawl, tmp_path / "moved")
    again = make_pool(moved.store.url, pool.folder, vocabulary=VOCABULARY, runner="inprocess", quiet=True)
    assert again.done_now == 0 and again.said["sha256"] == pool.sha256
    assert run_of(str(pool.folder), again.said).store.url == moved.store.url
    make_pool(made.store.url, pool.folder, vocabulary=VOCABULARY, runner="inprocess", quiet=True)


@pytest.mark.full
def test_killed_at_any_place_and_run_again_it_has_the_same_hash(made: Finished, pool: Pool, tmp_path: Path) -> None:
    to = tmp_path / "pool"
    command = [sys.executable, "-m", "infra.cli", "pool", made.store.url, "--out", str(to), "--workers", "1"]
    command += ["--vocabulary", str(VOCABULARY), "--quiet"]
    for place in ("attempt.written=kill,at:2", "attempt.stored=kill,at:1"):
        armed = os.environ | {"GRISTMILL_FAILPOINTS": place}
        ended = subprocess.run(command, env=armed, check=False, capture_output=True)
        assert ended.returncode == -signal.SIGKILL and not (to / "pool.json").exists()
    again = make_pool(made.store.url, to, vocabulary=VOCABULARY, runner="inprocess", quiet=True)
    assert again.said["sha256"] == pool.sha256
    assert 0 < again.done_now < len(pool.parts) + 1


def test_with_a_tokenizer_of_ones_own_none_is_trained(made: Finished, pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(pool.tokenizer.json)
    given = pooled(made, tmp_path / "given", tokenizer=str(path))
    assert given.sha256 == pool.sha256
    assert not list((tmp_path / "given" / "_work" / "manifests").glob("tokenizer/*"))


def test_what_a_pool_cannot_be_made_of_is_named(small_crawl: Path, made: Finished, tmp_path: Path) -> None:
    recipe = load_recipe("fineweb-resiliparse")
    fast = run_recipe(recipe, [str(small_crawl)], tmp_path / "fast", runner="inprocess", quiet=True)
    with pytest.raises(InputError, match="--annotate"):
        make_pool(fast.store.url, tmp_path / "a", runner="inprocess", quiet=True)
    with pytest.raises(InputError, match="--view nonsense: the run has raw, c4_lines"):
        make_pool(made.store.url, tmp_path / "a", view="nonsense", runner="inprocess", quiet=True)
    with pytest.raises(OutputError, match="gristmill pool OUT --out"):
        read_said(str(tmp_path / "nowhere"))


def test_a_pool_of_another_run_than_lies_there_now_gives_no_masks(pool: Pool) -> None:
    said = json.loads((pool.folder / "pool.json").read_text())
    said["origin"]["texts_sha256"] = "0"
    with pytest.raises(InputError, match="other texts than"):
        run_of(str(pool.folder), said)


def test_a_pool_in_an_object_store_is_fetched_once(
    made: Finished, pool: Pool, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = f"{bucket}/pool"
    make_pool(made.store.url, url, vocabulary=VOCABULARY, runner="inprocess", quiet=True)
    folder = local_pool(url)
    assert read_pool(folder).sha256 == pool.sha256
    inode = (folder / "pool.json").stat().st_ino
    assert local_pool(url) == folder and (folder / "pool.json").stat().st_ino == inode


@pytest.mark.full
@pytest.mark.ray
def test_it_has_the_same_hash_on_two_workers(made: Finished, pool: Pool, tmp_path: Path) -> None:
    assert pooled(made, tmp_path / "ray", runner="ray", workers=2).sha256 == pool.sha256
