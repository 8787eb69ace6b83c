"""A dedup step from documents to the packed dataset: who falls, why, and that nothing else changes it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import polars as pl
import pytest

from filters.errors import SourceEmptied, TaskFailed
from infra.commands import run_recipe
from infra.commit import FileEntry
from infra.dedup import check_shares
from infra.dedup_work import perform_dedup
from infra.run import Finished, read_run
from infra.store import open_store
from infra.verify import verify
from pipelines.dedup.fingerprints import normal_text, normal_url
from pipelines.dedup.removal import SHOWN_SHARES, shares_of
from pipelines.dedup.step import Alarm
from pipelines.storage import StoredFile
from tests.infra.dedup_runs import EVERY, NEAR, Document, cut_small, kept, planted, ran, recipe, rows, written


@pytest.fixture(scope="module")
def documents(make_sentences: Callable[[int], str]) -> list[Document]:
    return planted(make_sentences)


@pytest.fixture(scope="module")
def source(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("dedup") / "in", documents, 4)


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return ran(recipe(**EVERY), source, tmp_path_factory.mktemp("dedup") / "out")


def test_every_removed_document_names_a_kept_one_and_the_account_holds(
    made: Finished, documents: list[Document]
) -> None:
    assert verify(made) > 0
    gone, standing = rows(made, "duplicates"), rows(made, "clusters")
    assert len(gone) + made.accounts.kept == len(documents)
    assert set(gone["representative_id"].to_list()) <= kept(made)
    assert not set(gone["id"].to_list()) & kept(made)
    assert set(gone["method"].to_list()) >= {"url", "text", "minhash"}
    near = gone.filter(pl.col("method") == "minhash")
    assert near["similarity"].drop_nulls().min() >= 0.74
    assert gone.filter(pl.col("method") == "url")["similarity"].null_count() == (gone["method"] == "url").sum()
    sizes = dict(standing.select("id", "size").iter_rows())
    assert {name: len(some) + 1 for (name,), some in gone.group_by("representative_id")} == sizes
    assert made.dedup["removed"] == dict(made.accounts.duplicates)


def test_of_one_url_the_newest_stays_and_of_one_text_the_preferred(documents: list[Document], made: Finished) -> None:
    by_id = {one["id"]: one for one in documents}
    for gone in rows(made, "duplicates").iter_rows(named=True):
        one, other = by_id[gone["id"]], by_id[gone["representative_id"]]
        if gone["method"] == "text" and gone["similarity"] is not None:
            assert normal_text(one["text"]) == normal_text(other["text"])
            assert (len(other["text"]), other["date"]) >= (len(one["text"]), one["date"])
    urls: dict[str, list[Document]] = {}
    for one in documents:
        if one["url"]:
            urls.setdefault(normal_url(one["url"]), []).append(one)
    newest = [max(some, key=lambda one: one["date"]) for some in urls.values() if len(some) > 1]
    removed = set(rows(made, "duplicates").filter(pl.col("method") == "url")["id"].to_list())
    assert newest
    assert not {one["id"] for one in newest} & removed
    assert len(removed) == sum(len(some) - 1 for some in urls.values())


def test_a_document_falls_if_and_only_if_an_edge_leads_to_a_kept_preferred_one(
    made: Finished, source: Path, tmp_path: Path
) -> None:
    """By the definition, over the stored edges, where near-duplicates alone are looked for."""
    near = ran(recipe(minhash=NEAR), source, tmp_path / "out")
    entries = sorted((tmp_path / "out").rglob("edges.parquet"))
    edges = pl.concat([pl.read_parquet(path) for path in entries])
    names = [row["id"] for row in rows_in_order(near)]
    fell: set[int] = set()
    by_second: dict[int, list[int]] = {}
    order: dict[int, int] = {}
    for first, second, first_order, second_order in edges.select(
        "first", "second", "first_order", "second_order"
    ).iter_rows():
        order[first], order[second] = first_order, second_order
        by_second.setdefault(second, []).append(first)
        by_second.setdefault(first, []).append(second)
    for document in sorted(order, key=lambda one: (order[one], names[one])):
        better = [one for one in by_second[document] if (order[one], names[one]) < (order[document], names[document])]
        if any(one not in fell for one in better):
            fell.add(document)
    removed = rows(near, "duplicates").filter(pl.col("method") == "minhash")
    assert {names[one] for one in fell} == set(removed["id"].to_list())
    assert fell


def rows_in_order(made: Finished) -> list[Mapping[str, Any]]:
    """The documents of a run before deduplication, as they are numbered."""
    found: list[Mapping[str, Any]] = []
    for outcome in made.outcomes:
        for entry in outcome.kept:
            found += pl.read_parquet(f"{made.store.url}/{entry.path}".removeprefix("file://")).to_dicts()
    return found


def files_named(out: Path, name: str) -> list[Path]:
    """The files of this name that attempts left."""
    return sorted((out / "_work/attempts").rglob(f"{name}.parquet"))


@pytest.mark.full
def test_ranges_groups_and_tasks_change_nothing(
    made: Finished, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_small(monkeypatch)
    cut = ran(recipe(**EVERY), source, tmp_path / "cut")
    for name in ("pairs", "attached", "edges", "removed"):
        assert len(files_named(tmp_path / "cut", name)) > 4, name
    assert any("-of-" in path.parent.parent.name for path in files_named(tmp_path / "cut", "attached"))
    assert (cut.dataset_sha256, cut.accounts) == (made.dataset_sha256, made.accounts)
    assert rows(cut, "duplicates").equals(rows(made, "duplicates"))
    assert rows(cut, "clusters").equals(rows(made, "clusters"))


@pytest.mark.parametrize("survivor", ["preferred", "datatrove"])
def test_ranges_change_nothing_where_no_pair_is_verified(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survivor: str
) -> None:
    step = recipe(minhash={"threshold": None, "mode": "components", "survivor": survivor})
    whole = ran(step, source, tmp_path / "whole")
    cut_small(monkeypatch)
    cut = ran(step, source, tmp_path / "cut")
    assert rows(cut, "duplicates").equals(rows(whole, "duplicates"))
    (once,) = files_named(tmp_path / "whole", "index")
    sizes = [pl.read_parquet(path).height for path in files_named(tmp_path / "cut", "index")]
    assert len(sizes) > 4
    assert max(sizes) < pl.read_parquet(once).height / 3  # also where the hashes crowd


@pytest.mark.full
def test_a_range_reads_one_bit_a_document_of_what_fell_before(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infra import perform

    cut_small(monkeypatch)
    seen: dict[str, list[list[str]]] = {}

    def noting(task: Any, report: Any) -> Any:
        names = [PurePosixPath(entry.path).name for some in task.inputs.values() for entry in some]
        seen.setdefault(task.kind, []).append(names)
        return perform_dedup(task, report)

    monkeypatch.setattr(perform, "PERFORMERS", perform.PERFORMERS | {perform.DedupTask: noting})
    ran(recipe(**EVERY), source, tmp_path / "out")
    assert {kind: {tuple(names) for names in seen[kind]} for kind in ("url", "text", "twin", "pairs")} == {
        "url": {()},
        "text": {("gone.parquet",)},
        "twin": {("gone.parquet",)},
        "pairs": {("gone.parquet",)},
    }
    assert {len(names) for names in seen["named"]} == {1}


@pytest.mark.parametrize("seed", [1, 2])
def test_permuted_inputs_have_the_same_survivors(
    made: Finished, documents: list[Document], tmp_path: Path, seed: int
) -> None:
    shuffled = list(documents)
    random.Random(seed).shuffle(shuffled)
    again = ran(recipe(**EVERY), written(tmp_path / "in", shuffled, 3), tmp_path / "out")
    assert kept(again) == kept(made)
    pairs = [
        set(rows(one, "duplicates").select("id", "representative_id", "method", "similarity").iter_rows())
        for one in (again, made)
    ]
    assert pairs[0] == pairs[1]


def test_another_threshold_does_not_read_a_text_again_nor_look_for_pairs(source: Path, tmp_path: Path) -> None:
    first = ran(recipe(minhash=NEAR), source, tmp_path / "out")
    before = set((tmp_path / "out/_work/manifests/dedup").rglob("*.json"))
    again = ran(recipe(minhash={"threshold": 0.95}), source, tmp_path / "out")
    assert again.done_now == 0
    made = {path for path in (tmp_path / "out/_work/manifests/dedup").rglob("*.json") if path not in before}
    found = {"edges", "survivors", "named", "removed", "remove", "shares"}
    assert {path.parent.name for path in made} == found
    assert again.accounts.kept > first.accounts.kept
    fresh = ran(recipe(minhash={"threshold": 0.95}), source, tmp_path / "fresh")
    assert fresh.dataset_sha256 == again.dataset_sha256


@pytest.mark.parametrize(
    "kind", ["text", "after_text", "pairs", "firsts", "edges", "survivors", "named", "removed", "remove"]
)
def test_a_run_that_failed_within_a_stage_is_continued(
    made: Finished, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from infra import perform

    whole = perform.PERFORMERS

    def failing(task: Any, report: Any) -> Any:
        if getattr(task, "kind", "remove") == kind:
            raise TaskFailed("the machine is gone")
        return whole[type(task)](task, report)

    kinds = (perform.DedupTask, perform.RemoveTask)
    monkeypatch.setattr(perform, "PERFORMERS", whole | dict.fromkeys(kinds, failing))
    with pytest.raises(TaskFailed):
        ran(recipe(**EVERY), source, tmp_path / "out")
    monkeypatch.undo()
    done = set((tmp_path / "out/_work/manifests").rglob("*.json"))
    again = ran(recipe(**EVERY), source, tmp_path / "out")
    assert (again.done_now, again.dataset_sha256) == (0, made.dataset_sha256)
    assert done <= set((tmp_path / "out/_work/manifests").rglob("*.json"))


@pytest.mark.ray
@pytest.mark.full
def test_on_ray_the_bytes_are_those_of_one_process(made: Finished, source: Path, tmp_path: Path) -> None:
    options = {"runner": "ray", "workers": 2, "quiet": True, "task_bytes": 60_000}
    again = run_recipe(recipe(**EVERY), [str(source)], tmp_path / "out", **options)  # type: ignore[arg-type]
    assert (again.dataset_sha256, again.accounts) == (made.dataset_sha256, made.accounts)


@pytest.mark.full
def test_on_an_object_store_the_bytes_are_those_of_a_disk(made: Finished, source: Path, bucket: str) -> None:
    options = {"runner": "inprocess", "quiet": True, "task_bytes": 150_000}
    again = run_recipe(recipe(**EVERY), [str(source)], f"{bucket}/out", **options)  # type: ignore[arg-type]
    assert (again.dataset_sha256, again.accounts) == (made.dataset_sha256, made.accounts)
    assert verify(again) > 0


def test_a_source_that_loses_nearly_all_stops_the_run_unless_it_is_accepted(tmp_path: Path) -> None:
    text = "the same page again and again under another address every time that somebody asks for it"
    same = [{"id": f"{number}", "text": text, "url": f"https://one.com/{number}", "date": ""} for number in range(50)]
    step = recipe(text={}, alarm={"fraction": 0.9, "documents": 40})
    source = written(tmp_path / "in", same, 1)
    with pytest.raises(SourceEmptied, match=r"domain one\.com loses 49 of 50") as raised:
        ran(step, source, tmp_path / "out")
    assert "--allow-emptied" in str(raised.value)
    done = ran(step, source, tmp_path / "out", allow_emptied=True)
    assert (done.done_now, kept(done)) == (0, {"0"})
    assert read_run(open_store(tmp_path / "out")).dedup["clusters"] == {"50": 1}


def test_precedence_is_what_the_step_says(tmp_path: Path) -> None:
    base = "one two three four five six seven eight nine ten eleven twelve"
    some = [
        {"id": "old-long", "text": base.replace(" ", "   "), "url": "", "date": "2020-01-01"},
        {"id": "new-short", "text": base, "url": "", "date": "2024-01-01"},
        {"id": "b-unknown", "text": base, "url": "", "date": "somewhen"},
        {"id": "a-unknown", "text": base, "url": "", "date": ""},
    ]
    source = written(tmp_path / "in", some, 2)
    for precedence, survivor in {
        ("longest", "newest"): "old-long",
        ("newest", "longest"): "new-short",
        ("oldest",): "old-long",
        ("shortest", "newest"): "new-short",
    }.items():
        done = ran(recipe(text={}, precedence=list(precedence)), source, tmp_path / survivor / precedence[0])
        assert kept(done) == {survivor}, precedence
    alone = written(tmp_path / "unknown", some[2:], 1)
    assert kept(ran(recipe(text={}), alone, tmp_path / "last")) == {"a-unknown"}


def test_what_a_table_says_of_a_text_stays_where_nothing_else_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pl.DataFrame(
        {
            "text": ["a text", "another text"],
            "id": ["1", "2"],
            "dump": ["CC-MAIN-2020-05", None],
            "language": ["en", "de"],
            "language_score": [0.5, None],
            "token_count": [2, 7],
        }
    ).write_parquet(folder / "a.parquet")
    found = rows(ran(recipe(text={}), folder, tmp_path / "out"), "dataset")
    assert found["language"].to_list() == ["en", "de"]
    assert found["token_count"].to_list() == [2, 7]
    assert found["dump"].to_list() == ["CC-MAIN-2020-05", ""]
    assert found["language_score"].to_list() == [0.5, 0.0]


def test_a_corpus_of_nothing_and_of_one_document_are_defined(tmp_path: Path) -> None:
    for count in (0, 1):
        some = [{"id": "1", "text": "a b c d e f g", "url": "u", "date": ""}][:count]
        source = written(tmp_path / f"in{count}", some or [{"id": "x"}], 1)
        done = ran(recipe(**EVERY), source, tmp_path / f"out{count}")
        assert (done.accounts.kept, sum(done.accounts.duplicates.values())) == (count, 0)
        assert verify(done) > 0


def test_permuted_inputs_have_the_same_survivors_in_buckets_above_the_cap(
    tmp_path: Path, make_sentences: Callable[[int], str]
) -> None:
    """All of one length and no date: which ones a bucket compares with hangs on nothing but their ids."""
    rng = random.Random(3)
    words = make_sentences(1).split()[:120]
    some = []
    for number in range(60):
        mine = list(words)
        for place in rng.sample(range(120), 1 + number % 2):
            mine[place] = "".join(rng.choices("abcdefghij", k=len(mine[place])))
        some.append({"id": f"doc-{number:02d}", "text": " ".join(mine), "url": "", "date": ""})
    assert len({len(one["text"]) for one in some}) == 1
    found = []
    for seed in range(3):
        random.Random(seed).shuffle(some)
        step = recipe(minhash={"threshold": 0.8, "bucket_cap": 3})
        done = ran(step, written(tmp_path / f"in{seed}", some, 3), tmp_path / f"out{seed}")
        assert done.dedup["left_out"] > 100
        found.append(kept(done))
    assert found[0] == found[1] == found[2]


def test_numbers_that_no_count_can_be_are_kept_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pl.DataFrame({"text": ["a text"], "id": ["1"], "token_count": [-1]}).write_parquet(folder / "a.parquet")
    assert rows(ran(recipe(text={}), folder, tmp_path / "out"), "dataset")["token_count"].to_list() == [-1]


def test_the_alarm_names_a_source_that_ten_thousand_others_lost_more_than(tmp_path: Path) -> None:
    names = [f"{number}.example" for number in range(SHOWN_SHARES + 50)]
    rows_of = [{"kind": "domain", "name": name, "documents": 9_000, "removed": 2_000} for name in names]
    rows_of.append({"kind": "domain", "name": "emptied.example", "documents": 1_000, "removed": 950})
    pl.DataFrame(rows_of).write_parquet(tmp_path / "one.parquet")
    alarm = Alarm()
    found = shares_of([stored(tmp_path / "one.parquet")], alarm)
    assert len(found) == SHOWN_SHARES + 1
    pl.from_arrow(found).write_parquet(tmp_path / "shares.parquet")  # type: ignore[union-attr]
    size = (tmp_path / "shares.parquet").stat().st_size
    entry = FileEntry(path="shares.parquet", sha256="", bytes=size, rows=len(found))
    with pytest.raises(SourceEmptied, match=r"hosts.*domain emptied\.example loses 950 of 1,000\. "):
        check_shares(open_store(tmp_path), entry, alarm)


def stored(path: Path) -> StoredFile:
    return StoredFile(url=str(path), bytes=path.stat().st_size)


def test_reports_that_differ_in_figures_alone_are_the_same_unless_figures_are_kept(
    tmp_path: Path, make_sentences: Callable[[int], str]
) -> None:
    words = make_sentences(1).split(" ")
    for place in range(0, len(words), 6):
        words[place] = "{}"
    some = [
        {"id": str(number), "text": " ".join(words).format(*range(1000 * number, 1000 * number + 999)), "url": ""}
        for number in range(1, 4)
    ]
    source = written(tmp_path / "in", [one | {"date": ""} for one in some], 1)
    assert ran(recipe(minhash={}), source, tmp_path / "zero").dedup["removed"] == {"twin": 2}
    assert ran(recipe(minhash={"numbers": "keep"}), source, tmp_path / "keep").accounts.kept == 3


def test_a_chain_of_similar_documents_does_not_collapse_into_one(tmp_path: Path) -> None:
    """Each document has most words of the one before it: greedily every few stay, in one component one does."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [letters[number // 26] + letters[number % 26] for number in range(400)]
    some = [
        {"id": f"{place:03d}", "text": " ".join(words[place : place + 200]), "url": "", "date": ""}
        for place in range(0, 200, 4)
    ]
    source = written(tmp_path / "in", some, 2)
    greedy = ran(recipe(minhash=NEAR), source, tmp_path / "greedy")
    whole = ran(recipe(minhash=NEAR | {"mode": "components"}), source, tmp_path / "components")
    assert whole.accounts.kept < greedy.accounts.kept < len(some)
    assert np.all(np.diff(sorted(int(one) for one in kept(greedy))) >= 8)
