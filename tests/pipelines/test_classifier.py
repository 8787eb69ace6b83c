"""A model's score is a signal: that of the bare library, by the model of the recipe's sha256 and by no other."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fasttext import FastText

from filters.errors import RecipeError, ResourceMissing
from pipelines.classifier import Classifier, model_of
from pipelines.decide import Decider, check_here
from pipelines.recipe import Recipe, load_recipe, parse_recipe
from pipelines.resources import file_sha256
from pipelines.signals import signal_columns
from tests.pages import pages

GOOD = ["mill", "river", "stone", "wheel", "bridge", "grain", "meadow", "harvest", "miller", "baker"]
BAD = ["click", "cookie", "login", "cart", "shipping", "refund", "coupon", "banner", "popup", "offer"]


def text_of(words: list[str], seed: int, count: int = 60) -> str:
    """Half of the words of one kind, half of both; a line break after every tenth."""
    rng = random.Random(seed)
    drawn = [rng.choice(words if rng.random() < 0.5 else GOOD + BAD) for _ in range(count)]
    return "\n".join(" ".join(drawn[at : at + 10]) for at in range(0, count, 10))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    lines = [f"__label__hq {text_of(GOOD, seed)}".replace("\n", " ") for seed in range(300)]
    lines += [f"__label__cc {text_of(BAD, seed)}".replace("\n", " ") for seed in range(300)]
    (folder / "train.txt").write_text("\n".join(lines))
    # Each of fastText's threads fills a tenth of the input matrix: with one, the rest is what the memory held, in some
    # runs NaN. The eleventh fills what the division leaves.
    trained = FastText.train_supervised(
        input=str(folder / "train.txt"), dim=16, bucket=20_000, wordNgrams=2, epoch=5, thread=12, verbose=0
    )
    trained.save_model(str(folder / "hq.bin"))
    return folder / "hq.bin"


def recipe_of(model: Path, /, **step: Any) -> Recipe:
    given = {"name": "hq", "model": str(model), "sha256": file_sha256(model), "label": "__label__hq", **step}
    return Recipe.model_validate({"name": "a", "says": "b", "steps": [{"classifier": given}], "tokenizer": None})


def step_of(recipe: Recipe) -> Classifier:
    step = recipe.step(Classifier)
    assert step is not None
    return step


TEXTS = [text_of(GOOD if seed % 2 else BAD, 1000 + seed) for seed in range(40)]


def test_the_score_is_the_bare_librarys_whichever_label_is_best(model: Path) -> None:
    bare = FastText.load_model(str(model))
    expected = []
    for text in TEXTS:
        labels, found = bare.predict(text.replace("\n", " "), k=2)
        expected.append(dict(zip(labels, found, strict=True))["__label__hq"])
    step = step_of(recipe_of(model))
    assert step.measure(TEXTS)[step.signal.name].value.tolist() == expected
    assert len({score > 0.5 for score in expected}) == 2


def test_dclms_score_is_one_minus_that_of_the_other_label(model: Path) -> None:
    bare = FastText.load_model(str(model))
    expected = []
    for text in (texts := [*TEXTS, "  mill\x0briver\u2028stone \n"]):
        (label,), (found,) = bare.predict(" ".join(text.strip().splitlines()))
        expected.append(1 - found if label == "__label__cc" else found)
    step = step_of(recipe_of(model, kind="dclm"))
    assert step.measure(texts)["classifier.hq"].value.tolist() == expected
    # fastText adds 1e-5 to each probability, so that the two kinds differ.
    assert np.abs(step_of(recipe_of(model)).measure(texts)["classifier.hq"].value - expected).max() > 1e-5


def test_documents_at_the_bound_are_kept_by_low_and_dropped_by_above(model: Path) -> None:
    middle = step_of(recipe_of(model)).measure(TEXTS)["classifier.hq"].value
    bound = float(np.sort(middle)[20])
    for key, expected in (("low", middle >= bound), ("above", middle > bound)):
        with Decider(recipe_of(model, **{key: bound})) as decider:
            decided = decider.decide(pages(TEXTS))
        assert decided.kept == np.flatnonzero(expected).tolist()
        assert {decider.recipe.rules[at].name for at in decided.first if at >= 0} == {"classifier.hq"}


def test_without_bounds_the_score_is_stored_and_nothing_is_dropped(model: Path) -> None:
    recipe = recipe_of(model)
    assert recipe.rules == ()
    assert [column.name for column in signal_columns(recipe)] == ["classifier.hq"]
    with Decider(recipe, annotate=True) as decider:
        decided = decider.decide(pages(TEXTS))
    assert len(decided.kept) == len(TEXTS)
    rows, measured = decided.measured["classifier.hq"]
    assert rows.tolist() == list(range(len(TEXTS)))
    assert measured.value.tolist() == step_of(recipe).measure(TEXTS)["classifier.hq"].value.tolist()


def test_a_model_that_is_absent_or_another_is_named_with_what_was_found(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ResourceMissing, match=r"there is no model at .*none\.bin"):
        check_here(recipe_of(model, model=str(tmp_path / "none.bin")))
    (tmp_path / "other.bin").write_bytes(b"no model")
    with pytest.raises(ResourceMissing) as error:
        check_here(recipe_of(model, model=str(tmp_path / "other.bin")))
    assert file_sha256(tmp_path / "other.bin") in str(error.value)
    assert file_sha256(model) in str(error.value)
    with pytest.raises(ResourceMissing, match="no fastText classifier"):
        check_here(recipe_of(model, model=str(tmp_path / "other.bin"), sha256=file_sha256(tmp_path / "other.bin")))
    check_here(recipe_of(model))


def test_a_label_that_the_model_does_not_know_finds_the_nearest(model: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean '__label__hq'"):
        model_of(step_of(recipe_of(model, label="__label_hq")))


def test_the_model_is_part_of_the_hash_and_its_place_is_not(model: Path) -> None:
    recipe = recipe_of(model)
    assert recipe_of(model, model="elsewhere.bin").sha256 == recipe.sha256
    assert recipe_of(model, sha256="ab" * 32).sha256 != recipe.sha256
    assert recipe_of(model, newline="").sha256 != recipe.sha256
    assert recipe_of(model, low=0.5).sha256 != recipe_of(model, above=0.5).sha256
    assert "fasttext-numpy2" in recipe.packages
    assert recipe.models == ((str(model), file_sha256(model)),)


STEP = "{name: hq, model: hq.bin, sha256: " + "ab" * 32 + ", label: __label__hq}"
RECIPE = f"name: a\nsays: b\nsteps:\n  - classifier: {STEP}\n"


def test_a_relative_model_lies_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    assert step_of(load_recipe(str(tmp_path / "mine.yaml"))).model == str(tmp_path / "hq.bin")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("label:", "lable:", "a.yaml:4: unknown key 'lable' in steps.1.classifier; did you mean 'label'?"),
        ("sha256: a", "sha256: z", "a.yaml:4: steps.1.classifier.sha256"),
        ("hq.bin", "s3://bucket/hq.bin", "a model is read from a path, not from a URL"),
        ("name: hq", "low: 0.1, above: 0.1, name: hq", "`above` and `low` are both a lower bound"),
        ("name: hq", "low: 0.9, high: 0.1, name: hq", "no score lies above 0.9 and below 0.1"),
        ("name: hq", "name: h.q", "a.yaml:4: steps.1.classifier.name"),
        ("steps:", f"steps:\n  - classifier: {STEP}", "two steps measure classifier.hq"),
    ],
)
def test_what_is_wrong_with_a_step_is_named_with_its_line(old: str, new: str, message: str) -> None:
    assert old in RECIPE
    with pytest.raises(RecipeError) as error:
        parse_recipe(RECIPE.replace(old, new, 1), where="a.yaml")
    assert message in str(error.value)


@pytest.mark.full
@pytest.mark.timed
def test_a_score_costs_what_the_bare_library_asks_for(model: Path) -> None:
    step, bare = step_of(recipe_of(model)), FastText.load_model(str(model)).f.predict
    texts = [text_of(GOOD, seed, 600) for seed in range(400)]

    def ours() -> object:
        return step.measure(texts)

    def theirs() -> object:
        return [bare(text.replace("\n", " ") + "\n", -1, 0.0, "strict") for text in texts]

    def seconds(call: Any) -> float:
        begun = time.thread_time()
        call()
        return time.thread_time() - begun

    best = {call: min(seconds(call) for _ in range(15)) for call in (ours, theirs)}
    assert best[theirs] / best[ours] > 0.8
