"""A dedup step as a recipe writes it: profiles by name, and what a step is known by."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from pipelines.dedup.minhash import PROFILES
from pipelines.dedup.step import Dedup, NearDuplicates, ProfileName
from pipelines.recipe import Recipe


def step(**near: object) -> Dedup:
    return Dedup.model_validate({"minhash": near})


@pytest.mark.parametrize("name", get_args(ProfileName))
def test_a_profile_is_what_it_writes_out(name: str) -> None:
    minhash = PROFILES[name]
    named = step(profile=name)
    assert named.minhash is not None
    assert named.minhash.parameters == minhash
    written = step(ngram=minhash.ngram, bands=minhash.bands, rows=minhash.rows, hash=minhash.hash)
    assert (named, named.identity, named.fingerprints) == (written, written.identity, written.fingerprints)
    assert "profile" not in str(named.model_dump())


def test_every_profile_can_be_named() -> None:
    assert set(get_args(ProfileName)) == set(PROFILES)


def test_what_is_set_beside_a_profile_counts() -> None:
    near = step(profile="refinedweb", rows=10, threshold=0.9).minhash
    assert near == NearDuplicates(bands=450, rows=10, threshold=0.9)


def test_an_unknown_profile_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValidationError, match="fineweb.*refinedweb"):
        step(profile="fineweb2")


def test_keeping_figures_makes_another_recipe_and_other_signatures() -> None:
    def recipe(**near: object) -> Recipe:
        said = {"name": "t", "says": "t", "steps": [{"dedup": {"minhash": near}}], "tokenizer": None}
        return Recipe.model_validate(said)

    assert recipe(numbers="keep").process_sha256 != recipe().process_sha256
    assert recipe(threshold=0.9).process_sha256 == recipe().process_sha256
