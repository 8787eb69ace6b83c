"""The demo's small models: part of its crawl as a pool, the rest as a panel, an arm with the rules and one without."""

from __future__ import annotations

from pathlib import Path

from infra.commands import run_recipe
from infra.demo_crawl import DUMP
from infra.pool import make_pool
from infra.proxies import panel_of, score_models, train_models
from infra.scores import Scored
from pipelines.recipe import load_recipe

READ, HELD_OUT = ("demo-00000", "demo-00001", "demo-00002"), "demo-00003"
TOKENS, CONTEXT, VOCABULARY = 60_000, 64, 1024
"""Some 120 steps for each model: seconds, and no verdict."""


def demo_models(crawl: Path, out: Path, *, quiet: bool) -> list[Scored]:
    """Annotate three files of the crawl below `out`, tokenise them, train a 1M model on all of it and one on what the
    rules keep, and score both on what the rules keep of a fourth file. Under a minute.
    """
    recipe = load_recipe("fineweb-resiliparse")
    files = [str(crawl / DUMP / f"{name}.warc.gz") for name in READ]
    given = {"runner": "inprocess", "quiet": True, "allow_quarantined": True}
    run_recipe(recipe, files, out / "annotated", annotate=True, **given)  # type: ignore[arg-type]
    held = [str(crawl / DUMP / f"{HELD_OUT}.warc.gz")]
    run_recipe(recipe, held, out / "held_out", **given)  # type: ignore[arg-type]
    pool = make_pool(out / "annotated", out / "pool", vocabulary=VOCABULARY, runner="inprocess", quiet=quiet).url
    panel = out / "panel"
    if not (panel / "panel.json").is_file():
        texts = out / "held_out" / "dataset"
        panel_of(panel, None, domains=[f"crawl={texts}"], against=[str(out / "annotated")])
    models = str(out / "models")
    train_models(
        pool, models, masks=["all", "rules"], tokens=[TOKENS], context=CONTEXT, device="cpu", workers=1, quiet=quiet
    )
    return score_models(models, panel=panel, device="cpu", quiet=quiet)
