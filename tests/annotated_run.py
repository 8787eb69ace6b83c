"""A small run with --annotate in several parts, for tests of what is made from it."""

from __future__ import annotations

from pathlib import Path

from infra.commands import run_recipe
from infra.run import Finished, read_run
from infra.store import open_store
from pipelines.recipe import load_recipe


def annotated_run(crawl: Path, out: Path, *, parts: int = 3, dump: str | None = None) -> Finished:
    """The crawl under `fineweb-resiliparse`, every document with its text and signals, in so many parts."""
    recipe = load_recipe("fineweb-resiliparse")
    options = {"runner": "inprocess", "quiet": True, "annotate": True, "dump": dump}
    made = run_recipe(recipe, [str(crawl)], out, **options)  # type: ignore[arg-type]
    characters = sum(entry.rows for entry in made.files["text"]) and made.accounts.characters
    recipe = recipe.model_copy(update={"target_bytes": max(1, -(-characters // parts))})
    run_recipe(recipe, [str(crawl)], out, **options)  # type: ignore[arg-type]
    return read_run(open_store(out))
