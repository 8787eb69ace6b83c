"""Runs against earlier ones: dump after dump, whatever happened to the earlier run, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from filters.errors import InputError, OutputError
from infra.clusters import clusters
from infra.commands import retry_quarantined, run_recipe
from infra.run import Finished, read_run
from infra.store import open_store
from infra.verify import verify
from pipelines.recipe import Recipe, load_recipe
from tests.infra.dedup_runs import NEAR, Document, cut_small, dumps, kept, planted, ran, recipe, rows, written

Write = Callable[[str, list[bytes]], Path]


@pytest.fixture(scope="module")
def documents(make_sentences: Callable[[int], str]) -> list[Document]:
    return planted(make_sentences)


@pytest.fixture(scope="module")
def source(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("dedup") / "in", documents, 4)


@pytest.mark.parametrize("mode", ["greedy", "components"])
def test_what_an_earlier_run_kept_stays(tmp_path: Path, mode: str) -> None:
    """Two documents of the earlier run that only a new one joins: the new one falls, and nothing else."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [letters[number // 26] + letters[number % 26] for number in range(400)]
    texts = {"left": words[:200], "right": words[40:240], "middle": words[20:220]}
    rows_of = [{"id": name, "text": " ".join(found), "url": "", "date": ""} for name, found in texts.items()]
    step = recipe(minhash={"threshold": 0.75, "mode": mode})
    first = ran(step, written(tmp_path / "in1", rows_of[:2], 1), tmp_path / "out1")
    assert kept(first) == {"left", "right"}
    second = ran(step, written(tmp_path / "in2", rows_of[2:], 1), tmp_path / "out2", against=[first.store.url])
    assert verify(second) > 0
    assert (second.accounts.kept, second.dedup["removed"]) == (0, {"minhash": 1})


def test_a_run_is_not_deduplicated_against_itself_nor_twice_against_one(source: Path, tmp_path: Path) -> None:
    step = recipe(text={})
    first = ran(step, source, tmp_path / "first")
    for against, out in (([first.store.url], "first"), ([first.store.url, f"{tmp_path}/./first"], "second")):
        with pytest.raises(InputError, match="--against names"):
            ran(step, source, tmp_path / out, against=against)
    assert read_run(open_store(tmp_path / "first")).dataset_sha256 == first.dataset_sha256


@pytest.mark.parametrize("methods", [{"minhash": NEAR}, {"text": {}, "minhash": NEAR}])
def test_dump_after_dump_keeps_what_all_at_once_keeps(
    documents: list[Document], tmp_path: Path, methods: dict[str, Any]
) -> None:
    step = recipe(**methods, precedence=["earliest_dump", "longest"])
    sources = dumps(documents, tmp_path)
    outs: list[str] = []
    found: set[str] = set()
    for index, source in enumerate(sources):
        one = ran(step, source, tmp_path / f"out{index}", against=tuple(outs))
        outs.append(one.store.url)
        assert verify(one) > 0
        found |= kept(one)
    gone = rows(one, "duplicates")
    assert set(gone["representative_run"].drop_nulls().to_list()) == {f"{tmp_path}/out0", f"{tmp_path}/out1"}
    run_recipe(
        step,
        [str(source) for source in sources],
        tmp_path / "whole",
        runner="inprocess",
        quiet=True,
        task_bytes=150_000,
    )
    assert found == kept(read_run(open_store(tmp_path / "whole")))


def test_a_run_that_stored_other_fingerprints_is_refused_by_name(source: Path, tmp_path: Path) -> None:
    first = ran(recipe(text={}), source, tmp_path / "first")
    for step in (recipe(minhash=NEAR), recipe(url={})):
        with pytest.raises(InputError, match="fingerprinted otherwise"):
            ran(step, source, tmp_path / "second", against=[first.store.url])
    with pytest.raises(InputError, match="no dedup step"):
        ran(load_recipe("fineweb-resiliparse"), source, tmp_path / "second", against=[first.store.url])
    assert not (tmp_path / "second").exists()


def test_a_later_run_reads_the_index_of_an_earlier_one_and_not_the_hashes_of_its_tasks(
    documents: list[Document], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = recipe(url={}, text={}, minhash=NEAR)
    sources = dumps(documents, tmp_path)
    first = ran(step, sources[0], tmp_path / "first")
    expected = ran(step, sources[1], tmp_path / "expected", against=[first.store.url])
    for name in ("urls", "texts", "twins", "bands"):
        for path in (tmp_path / "first/_work/attempts").rglob(f"{name}.parquet"):
            path.unlink()
    cut_small(monkeypatch)  # other ranges than those of the index
    again = ran(step, sources[1], tmp_path / "again", against=[first.store.url])
    assert (again.dataset_sha256, again.accounts) == (expected.dataset_sha256, expected.accounts)
    assert set(rows(again, "duplicates")["representative_run"].drop_nulls()) == {first.store.url}


def test_other_earlier_runs_on_one_out_give_what_a_new_out_gives(documents: list[Document], tmp_path: Path) -> None:
    step = recipe(text={}, minhash=NEAR)
    one, two, last = dumps(documents, tmp_path)
    earlier = [ran(step, source, tmp_path / f"out-{number}").store.url for number, source in enumerate((one, two))]
    hashes = set()
    for number, against in enumerate(([], earlier[:1], earlier, earlier[1:], earlier[:1])):
        made = ran(step, last, tmp_path / "out", against=against)
        fresh = ran(step, last, tmp_path / f"fresh-{number}", against=against)
        assert (made.dataset_sha256, made.accounts) == (fresh.dataset_sha256, fresh.accounts)
        assert made.done_now == 0 or not number
        hashes.add(made.dataset_sha256)
    assert len(hashes) == 4


EXTRACTED: dict[str, Any] = {"extract": {"engine": "trafilatura", "limits": {"deadline_seconds": 0.4}}}


def crawled(bodies: Sequence[str], step: Recipe, folder: Path, write_warc: Write, **options: Any) -> Finished:
    """A run over a file of these pages."""
    path = write_warc(f"{folder.name}.warc.gz", [body.encode() for body in bodies])
    return run_recipe(step, [str(path)], folder, runner="inprocess", quiet=True, **options)


def retried(out: Path) -> Finished:
    return retry_quarantined(
        out, deadline_seconds=60.0, memory_bytes=4 << 30, runner="inprocess", workers=None, quiet=True
    )


def test_what_a_retry_brings_in_is_deduplicated_and_later_runs_follow(
    write_warc: Write, make_page: Callable[..., str], tmp_path: Path
) -> None:
    """The slow page is a copy of the second and of one of the later run: longer, so that it stands for them."""
    steps = [EXTRACTED, {"dedup": {"minhash": NEAR}}]
    step = Recipe.model_validate({"name": "retry", "says": "A test.", "steps": steps, "tokenizer": None})
    links = "".join(f"<div><a href='/{number}'>link {number}</a></div>" for number in range(20_000))
    slow = make_page(2, sentences=60).replace("</article>", f"</article><footer>{links}</footer>")
    pages = [make_page(1), make_page(2, sentences=55), slow, make_page(3)]
    first = crawled(pages, step, tmp_path / "first", write_warc)
    assert (first.accounts.quarantined, first.accounts.kept) == ({"deadline": 1}, 3)
    later = [make_page(4), make_page(2, sentences=58)]
    second = crawled(later, step, tmp_path / "second", write_warc, against=[first.store.url])

    made = retried(tmp_path / "first")
    assert (made.accounts.kept, made.dedup["removed"]) == (3, {"minhash": 1})
    assert verify(made) > 0
    (gone,) = rows(made, "duplicates").to_dicts()
    assert gone["offset"] < rows(made, "clusters")["offset"].item()
    with pytest.raises(OutputError, match="has changed"):
        list(clusters(second))

    again = crawled(later, step, tmp_path / "second", write_warc, against=[made.store.url])
    fresh = crawled(later, step, tmp_path / "fresh", write_warc, against=[made.store.url])
    assert again.accounts == fresh.accounts
    assert rows(again, "dataset")["id"].to_list() == rows(fresh, "dataset")["id"].to_list()
    (cluster,) = clusters(again)
    assert (cluster.run, cluster.id) == (made.store.url, rows(made, "clusters")["id"].item())
