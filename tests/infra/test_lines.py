"""A `lines` step from documents to the packed dataset: the window is an input file, however the work is cut."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from filters.errors import InputError, RecipeError
from infra.card import limits, recipe_text, sources
from infra.commands import estimate, retry_quarantined, run_recipe
from infra.look import explain
from infra.plan import make_plan
from infra.rule_report import rule_report
from infra.run import Finished, read_run
from infra.sides import sides
from infra.store import open_store
from infra.verify import verify
from infra.what_if import changed_rules, compared, run_rules
from pipelines.dedup.lines import SETTINGS
from pipelines.process import TaskOptions
from pipelines.recipe import Recipe

NUMBERED = {"pattern": {"name": "sevens", "regex": "number 7[0-9]*\\.", "high": 0}}
SHORT = {"pattern": {"name": "letters", "regex": "[a-z]", "low": 500}}


def recipe(**step: Any) -> Recipe:
    """A recipe of a `lines` step between two patterns: the first drops some documents, the second needs a length."""
    steps = [NUMBERED, {"lines": step}, SHORT]
    return Recipe.model_validate({"name": "lines", "says": "A test.", "steps": steps, "tokenizer": None})


def ran(one: Recipe, source: Path | Sequence[Path], out: Path, **options: Any) -> Finished:
    inputs = [str(path) for path in ([source] if isinstance(source, Path) else source)]
    return run_recipe(one, inputs, out, runner="inprocess", quiet=True, **{"task_bytes": 20_000, **options})


def kept(made: Finished) -> dict[str, str]:
    """The texts of the dataset by id."""
    return {row["id"]: row["text"] for path in parts(made) for row in pl.read_parquet(path).to_dicts()}


def parts(made: Finished) -> list[str]:
    return [f"{made.store.url}/{entry.path}".removeprefix("file://") for entry in made.files["dataset"]]


def written(folder: Path, files: dict[str, Sequence[str]]) -> Path:
    """One JSONL file for each name, of documents NAME-NUMBER."""
    folder.mkdir(parents=True)
    for name, texts in files.items():
        rows = [{"id": f"{name}-{at}", "url": f"https://mill.example/{name}/{at}"} for at in range(len(texts))]
        lines = [json.dumps(row | {"text": text}) for row, text in zip(rows, texts, strict=True)]
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def source(make_sentences: Callable[[int], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five files of 24 documents that share paragraphs within and between files; some are of shared ones alone."""
    rng = random.Random(2)
    shared = [paragraph for number in range(4) for paragraph in make_sentences(number).split("\n")]

    def text(number: int) -> str:
        own = make_sentences(100 + number).split("\n")[: rng.randrange(4)]
        both = [f"This is the page of number {number}.", *own, *rng.sample(shared, rng.randrange(1, 5))]
        return "\n".join(both[1:] if number % 5 == 0 else both)

    files = {f"part-{file}": [text(24 * file + at) for at in range(24)] for file in range(5)}
    return written(tmp_path_factory.mktemp("lines") / "in", files)


@pytest.fixture(scope="module", params=SETTINGS)
def both(request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Finished]:
    """A run of each method, fast and annotated."""
    folder = tmp_path_factory.mktemp("lines")
    one = recipe(method=request.param, expected=200_000)
    return [ran(one, source, folder / name, annotate=name == "annotated") for name in ("fast", "annotated")]


def test_each_method_runs_and_the_account_holds(both: list[Finished], source: Path) -> None:
    method = both[0].recipe.steps[1].value.method  # type: ignore[union-attr]
    texts = {
        row["id"]: row["text"] for path in source.iterdir() for row in map(json.loads, path.read_text().splitlines())
    }
    for made in both:
        assert verify(made) > 0
        assert any(texts[name] != text for name, text in kept(made).items())
        assert sum(count for rule, count in made.accounts.dropped.items() if rule.startswith(f"{method}.")) > 0


def test_annotate_keeps_the_same_dataset_for_the_same_reasons(both: list[Finished]) -> None:
    fast, annotated = both
    assert fast.dataset_sha256 == annotated.dataset_sha256
    assert fast.accounts.dropped == annotated.accounts.dropped
    assert fast.accounts.dropped["pattern.sevens"] > 0


def test_the_stored_numbers_keep_what_the_run_kept(both: list[Finished]) -> None:
    _, made = both
    found = compared(made, run_rules(made), run_rules(made))  # raises where they do not
    assert (found.after.documents, found.without_text) == (made.accounts.kept, 0)
    report = rule_report(made)
    assert report.without_text == 0
    assert report.removed[0, 2, 0] > 0  # alone, by the rule before the step


def test_rules_after_the_step_can_be_moved_and_rules_before_it_cannot(both: list[Finished]) -> None:
    _, made = both
    method = made.recipe.rules[1].name.partition(".")[0]
    own = next(rule.name for rule in made.recipe.rules if rule.name.startswith(f"{method}."))
    for name in (own, "pattern.letters"):
        loose = compared(made, run_rules(made), changed_rules(made, without=[name]))
        assert loose.after.documents >= loose.before.documents
    for asked in ({"without": ["pattern.sevens"]}, {"bounds": ["pattern.sevens.high=3"]}):
        with pytest.raises(InputError, match="`lines` comes after it"):
            changed_rules(made, **asked)
    with pytest.raises(InputError, match="no bound of a rule"):
        changed_rules(made, bounds=[f"{method}.nothing=3"])


def test_the_window_is_a_file(tmp_path: Path) -> None:
    own = {name: [f"Of {name} alone.\nIn both.", f"Of {name} again.\nIn both."] for name in ("a", "b")}
    one = Recipe.model_validate(
        {"name": "t", "says": "t", "steps": [{"lines": {"method": "dolma_paragraphs"}}], "tokenizer": None}
    )
    made = ran(one, written(tmp_path / "in", own), tmp_path / "out", task_bytes=1 << 20)
    assert made.rollup.tasks == 1
    assert kept(made) == {
        "a-0": "Of a alone.\nIn both.",
        "a-1": "Of a again.",
        "b-0": "Of b alone.\nIn both.",
        "b-1": "Of b again.",
    }


@pytest.mark.parametrize("task_bytes", [1, 50_000, 1 << 30])
def test_neither_tasks_nor_the_order_of_inputs_change_the_dataset(
    source: Path, tmp_path: Path, task_bytes: int
) -> None:
    one = recipe(method="dclm_bff", expected=200_000, rate=0.2)
    files = sorted(source.iterdir())
    expected = ran(one, source, tmp_path / "one")
    made = ran(one, files[::-1], tmp_path / "two", task_bytes=task_bytes)
    assert made.dataset_sha256 == expected.dataset_sha256
    assert made.rollup.tasks == {1: 5, 50_000: made.rollup.tasks, 1 << 30: 1}[task_bytes]


def test_no_file_is_cut_and_none_is_walked_to_be_cut(source: Path, tmp_path: Path) -> None:
    def starts(large: Sequence[Any]) -> dict[str, list[int]]:
        raise AssertionError("a file was to be cut")

    options = TaskOptions(recipe=recipe(method="c4_spans"))
    planned = make_plan([str(source)], open_store(tmp_path), options, task_bytes=100, starts=starts)
    assert [len(task.slices) for task in planned.tasks] == [1] * 5
    assert all(one.start == 0 and one.end == one.source.size for task in planned.tasks for one in task.slices)


def test_a_run_that_stopped_for_want_of_room_is_resumed_with_more(
    make_sentences: Callable[[int], str], tmp_path: Path
) -> None:
    """With exact hashes the files that were done are not done again, and the result is that of one run."""
    few, many = [make_sentences(1)], [make_sentences(number) for number in range(2, 8)]
    source = written(tmp_path / "in", {"a": few, "b": many})
    step = {"method": "c4_t5_paragraphs", "words": "unicode_words"}
    with pytest.raises(RecipeError, match=r"b\.jsonl has more than the 30 .* Set `expected: 60`"):
        ran(recipe(**step, expected=30), source, tmp_path / "out", task_bytes=1)
    done = {path.name: path.read_bytes() for path in (tmp_path / "out" / "_work" / "manifests" / "process").iterdir()}
    assert len(done) == 1
    made = ran(recipe(**step, expected=300), source, tmp_path / "out", task_bytes=1)
    after = {path.name: path.read_bytes() for path in (tmp_path / "out" / "_work" / "manifests" / "process").iterdir()}
    assert done.items() < after.items()
    assert made.dataset_sha256 == ran(recipe(**step), source, tmp_path / "new").dataset_sha256


def test_single_documents_are_not_decided_again(source: Path, tmp_path: Path) -> None:
    made = ran(recipe(method="c4_spans"), source, tmp_path / "out")
    with pytest.raises(InputError, match="has a step `lines`, and what a document loses"):
        retry_quarantined(
            made.store.url, deadline_seconds=9, memory_bytes=1 << 30, runner="inprocess", workers=1, quiet=True
        )
    assert read_run(made.store).dataset_sha256 == made.dataset_sha256


def test_plan_says_what_the_window_takes_and_that_files_stay_whole(source: Path, tmp_path: Path) -> None:
    one = recipe(method="dclm_bff")
    said = estimate(one, [str(source)], tmp_path, workers=1, limit=None, task_bytes=100, pages=20)
    assert said["tasks"] == 5
    assert said["window_bytes_per_worker"] == one.steps[1].lines.memory  # type: ignore[union-attr]


def test_explain_measures_again_what_can_be_and_says_what_cannot(both: list[Finished]) -> None:
    fast, annotated = both
    wanted = next(iter(kept(fast)))
    (one,), (other,) = explain(fast, wanted), explain(annotated, wanted)
    for found in (one, other):
        assert (
            found.note
            == "what its step `lines` left depends on those before it in their file, and is not measured again"
        )
    assert [rule.name for rule, _, _ in one.verdicts] == ["pattern.sevens"]
    assert [rule.name for rule, _, _ in other.verdicts] == [rule.name for rule in annotated.recipe.rules]
    assert all(passes for _, _, passes in other.verdicts)


def test_two_recipes_are_compared_only_where_the_same_documents_enter_the_window(source: Path, tmp_path: Path) -> None:
    first = recipe(method="dolma_paragraphs")
    made = ran(first, source, tmp_path / "out", annotate=True)

    def missing(old: str, new: str) -> list[str]:
        said = first.model_dump_json()
        assert old in said
        other = Recipe.model_validate_json(said.replace(old, new))
        return [one for one in sides(made, first, other, ("a", "b")).missing if one.startswith("b: ")]

    assert missing('"low":500.0', '"low":400.0') == []
    assert "other documents enter" in missing('"high":0.0', '"high":1.0')[0]
    assert "its step `lines` is another" in missing('"expected":2400000', '"expected":90000')[0]


@pytest.mark.parametrize("rate", [None, 0.25])
def test_the_recipe_in_the_card_is_the_recipe(rate: float | None) -> None:
    one = recipe(method="dclm_bff", rate=rate)
    assert Recipe.model_validate(yaml.safe_load(recipe_text(one))).sha256 == one.sha256


def test_the_card_says_what_the_step_took_and_where_it_is_from(both: list[Finished]) -> None:
    made = both[0]
    method = made.recipe.steps[1].lines
    assert method is not None
    assert f"`{method.method}` took out of texts" in limits(made)
    assert method.paper.url in sources(made.recipe)
