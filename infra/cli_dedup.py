"""`gristmill dedup`: copies found in tables."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from infra.options import (
    Address,
    Against,
    AllowEmptied,
    Anonymous,
    Inputs,
    Json,
    OutOption,
    Quiet,
    RunnerName,
    RunnerOption,
    TakeOver,
    TaskSize,
    Unauthenticated,
    Workers,
    byte_count,
)


class Method(StrEnum):
    """What makes two documents the same."""

    url = "url"
    text = "text"
    minhash = "minhash"


Methods = Annotated[
    list[Method],
    typer.Option("--method", "-m", help="url, text (equal but for case and white space) or minhash; may be repeated."),
]
Threshold = Annotated[
    float, typer.Option(min=0.01, max=1.0, help="minhash: least Jaccard similarity, estimated from sketches.")
]
Ngram = Annotated[int, typer.Option(min=1, help="minhash: words in a shingle.")]
Bands = Annotated[int, typer.Option(min=1, help="minhash: bands of a signature.")]
Rows = Annotated[int, typer.Option(min=1, help="minhash: hashes in a band.")]
Words = Annotated[str, typer.Option(help="minhash: the word splitter.")]
Text = Annotated[str, typer.Option(help="The column of the text.")]
Id = Annotated[str, typer.Option(help="The column of the id.")]
Url = Annotated[str, typer.Option(help="The column of the URL.")]
Date = Annotated[str, typer.Option(help="The column of the date.")]


def dedup(
    input: Inputs,
    out: OutOption,
    method: Methods,
    threshold: Threshold = 0.75,
    ngram: Ngram = 5,
    bands: Bands = 14,
    rows: Rows = 8,
    words: Words = "spacy_english",
    text_column: Text = "text",
    id_column: Id = "id",
    url_column: Url = "url",
    date_column: Date = "date",
    runner: RunnerOption = RunnerName.ray,
    workers: Workers = None,
    task_size: TaskSize = "256MiB",
    allow_emptied: AllowEmptied = False,
    against: Against = None,
    anonymous: Anonymous = False,
    address: Address = None,
    allow_unauthenticated_cluster: Unauthenticated = False,
    take_over: TakeOver = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Remove copies from Parquet or JSONL: a recipe of one dedup step, on the same runner, commits and accounts.

    More can be said in a recipe's `dedup` step: precedence, components, datatrove's survivors.
    """
    from infra.cli import report_run
    from infra.commands import run_recipe
    from pipelines.recipe import Recipe

    near = {"threshold": threshold, "ngram": ngram, "bands": bands, "rows": rows, "words": words}
    said: dict[str, Any] = {"url": {}, "text": {}, "minhash": near}
    recipe = Recipe.model_validate(
        {
            "name": "dedup",
            "says": "Copies removed, nothing else.",
            "read": {
                "text_column": text_column,
                "id_column": id_column,
                "url_column": url_column,
                "date_column": date_column,
            },
            "steps": [{"dedup": {one.value: said[one.value] for one in method}}],
            "tokenizer": None,
        }
    )
    made = run_recipe(
        recipe,
        input,
        out,
        runner=runner.value,
        workers=workers,
        task_bytes=byte_count(task_size),
        allow_emptied=allow_emptied,
        against=against or (),
        anonymous=anonymous,
        address=address,
        allow_unauthenticated=allow_unauthenticated_cluster,
        take_over=take_over,
        quiet=quiet,
    )
    report_run(made, as_json=as_json)
