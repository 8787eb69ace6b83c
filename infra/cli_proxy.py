"""`gristmill pool` and `gristmill train`: an annotated run as tokens, and small models trained on arms of it.

Registered by `infra.cli`. torch is imported when a command that needs it runs, not before.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from infra.options import Address, Json, Out, Quiet, TakeOver, TaskDeadline, Unauthenticated, Workers, plain_count
from infra.terminal import data, from_here, table, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from infra.training import Model, Read


class Device(StrEnum):
    """What trains."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Log(StrEnum):
    """Where metrics go beside the terminal and metrics.parquet."""

    trackio = "trackio"
    wandb = "wandb"
    tensorboard = "tensorboard"


Pool = Annotated[str, typer.Argument(help="The folder or URL of a pool (`gristmill pool`).", show_default=False)]
Size = Annotated[str, typer.Option(help="1M, 4M, 10M, 20M, 60M, 150M, 300M, 530M, 1B or fineweb-1.7B.")]
DeviceOption = Annotated[Device, typer.Option(help="What trains; auto: a GPU where there is one.")]
Stack = Annotated[
    int | None, typer.Option(min=1, help="Models trained as one on a GPU (default: measured).", show_default=False)
]
Masks = Annotated[
    list[str] | None,
    typer.Option(
        "--mask",
        help="An arm by its rules, terms parted by commas: all, rules, without:RULE, set:RULE.low=3.5, with:RULE, "
        "only:RULE; may be repeated.  \\[default: all]",
        show_default=False,
    ),
]


def pool(
    out: Out,
    to: Annotated[str, typer.Option("--out", "-o", help="The pool's folder or URL; what it has is continued.")],
    tokenizer: Annotated[
        str | None,
        typer.Option(help="A tokenizer.json, or gpt2 (default: a BPE trained on the pool).", show_default=False),
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="Its token at the end of a text, where it has no usual one.", show_default=False)
    ] = None,
    vocabulary: Annotated[int, typer.Option(min=257, help="Tokens of a tokenizer that is trained.")] = 8192,
    view: Annotated[
        str, typer.Option(help="The text: raw, published (after every edit), or a view by name.")
    ] = "published",
    workers: Workers = None,
    address: Address = None,
    allow_unauthenticated_cluster: Unauthenticated = False,
    take_over: TakeOver = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Tokenise the documents of an annotated run once, for all models that will be trained on parts of them."""
    from infra.pool import make_pool
    from infra.runner import usual_runner

    made = make_pool(
        out,
        to,
        tokenizer=tokenizer,
        end=end,
        vocabulary=vocabulary,
        view=view,
        workers=workers,
        runner=usual_runner(workers, address),
        address=address,
        allow_unauthenticated=allow_unauthenticated_cluster,
        take_over=take_over,
        quiet=quiet,
    )
    said = {name: value for name, value in made.said.items() if name != "parts"}
    if as_json:
        data({**said, "tasks_done_now": made.done_now})
        return
    print(f"pool      {from_here(made.url)}  {said['documents']:,} documents, {said['tokens']:,} tokens")
    vocabulary = said["tokenizer"]["vocabulary"]
    print(f"          {said['bytes'] / max(1, said['tokens']):.2f} bytes a token, vocabulary {vocabulary:,}")
    print(f"          sha256 {said['sha256']}")
    print(f"\nnext      gristmill train {from_here(made.url)} --size 1M --tokens 5M --out models")


def train(
    pool: Pool,
    out: Annotated[str, typer.Option("--out", "-o", help="The folder or URL of models; those it has are kept.")],
    mask: Masks = None,
    size: Size = "1M",
    tokens: Annotated[
        list[str] | None,
        typer.Option(
            help="The budget; repeated, one trunk is decayed at each (schedule wsd).  \\[default: 5M]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(help="First weights and order of documents; may be repeated.  \\[default: 1]", show_default=False),
    ] = None,
    learning_rate: Annotated[
        list[float] | None,
        typer.Option(
            min=0.0,
            help="Peak; may be repeated (default: of the pool's calibration, else of the rule).",
            show_default=False,
        ),
    ] = None,
    context: Annotated[int | None, typer.Option(min=16, help="Tokens of a sequence (default: of the size).")] = None,
    mix: Annotated[
        list[str] | None,
        typer.Option(
            help="POOL=SHARE: another pool at this share of every arm's tokens; may be repeated.", show_default=False
        ),
    ] = None,
    device: DeviceOption = Device.auto,
    stack: Stack = None,
    ranks: Annotated[int, typer.Option(min=1, help="Workers that share every batch of a model.")] = 1,
    workers: Workers = None,
    address: Address = None,
    allow_unauthenticated_cluster: Unauthenticated = False,
    task_deadline: TaskDeadline = 6.0,
    log: Annotated[Log | None, typer.Option(help="Send losses there, too.", show_default=False)] = None,
    take_over: TakeOver = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a small Llama for each mask, seed and learning rate. Run it again to continue what was interrupted."""
    from infra.proxies import train_models

    def reads(found: Iterable[Read]) -> None:
        if not quiet:
            show_reads(found)

    models = train_models(
        pool,
        out,
        masks=mask or ["all"],
        size=size,
        tokens=[plain_count(one) for one in tokens or ["5M"]],
        seeds=seed or [1],
        rates=learning_rate or (),
        context=context,
        mix=mix or (),
        device=device.value,
        stack=stack,
        ranks=ranks,
        workers=workers,
        address=address,
        allow_unauthenticated=allow_unauthenticated_cluster,
        task_seconds=3600 * task_deadline,
        log=None if log is None else log.value,
        take_over=take_over,
        quiet=quiet,
        on_reads=reads,
    )
    if as_json:
        data([model_json(one) for one in models])
        return
    show_models(models)
    print(f"\nnext      gristmill score {from_here(out)} --panel PANEL")


def show_reads(found: Iterable[Read]) -> None:
    """Print to stderr what each arm reads, before anything is trained."""
    for one in found:
        again = "  (documents come again: more than one epoch)" * (one.epochs > 1)
        print(
            f"{visible(one.arm)}: {one.documents:,} documents, {one.tokens:,} tokens, {one.epochs:.2f} epochs{again}",
            file=sys.stderr,
        )


def show_models(models: Sequence[Model]) -> None:
    """Print a line for each model."""
    columns = [
        ("model", "left"),
        ("tokens", "right"),
        ("epochs", "right"),
        ("last loss", "right"),
        ("tokens/s", "right"),
    ]
    table(
        columns,
        [
            (
                one.label,
                one.said["tokens"],
                f"{one.said['epochs']:.2f}",
                last_loss(one),
                f"{one.said['tokens_per_second']:,.0f}",
            )
            for one in models
        ],
    )


def last_loss(model: Model) -> str:
    """Mean of the last steps' losses in nats, or where it stopped."""
    stopped = model.said["stopped"]
    return f"{model.said['loss']:.3f}" if stopped is None else f"not finite at step {stopped:,}"


def model_json(model: Model) -> dict[str, Any]:
    """A model as plain data, without its files' hashes."""
    return {"model": model.label, **{name: value for name, value in model.said.items() if name != "files"}}


def calibrate(
    pool: Pool,
    size: Size = "1M",
    tokens: Annotated[str, typer.Option(help="The budget of each model.")] = "1M",
    schedule: Annotated[
        Literal["wsd", "cosine"],
        typer.Option(help="wsd: what `gristmill ablate` trains. cosine: `gristmill train` of one budget."),
    ] = "wsd",
    rate: Annotated[
        list[float] | None,
        typer.Option(
            help="A learning rate to try; may be repeated (default: four around the rule's).", show_default=False
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Seeds of each arm at each rate.")] = 3,
    panel: Annotated[
        Path | None, typer.Option(help="A panel (default: documents held out of the pool).", show_default=False)
    ] = None,
    device: DeviceOption = Device.auto,
    stack: Stack = None,
    workers: Workers = None,
    address: Address = None,
    allow_unauthenticated_cluster: Unauthenticated = False,
    take_over: TakeOver = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Find the learning rate at which a known effect stands out most from the noise of seeds; `ablate` and `train` then
    take it.
    """
    from infra.proxies import calibrate as calibrated

    budget = plain_count(tokens)
    found = calibrated(
        pool,
        size=size,
        tokens=budget,
        schedule=schedule,
        rates=rate or (),
        seeds=seeds,
        panel=panel,
        device=device.value,
        stack=stack,
        workers=workers,
        address=address,
        allow_unauthenticated=allow_unauthenticated_cluster,
        take_over=take_over,
        quiet=quiet,
    )
    from infra.calibration import calibration_json
    from infra.calibration_page import TITLES, rate_cells, sentences

    if as_json:
        data(calibration_json(found))
        return
    table([(name, "right") for name in TITLES], [rate_cells(one) for one in found.rates])
    print()
    for sentence in sentences(found):
        print(textwrap.fill(sentence, min(120, shutil.get_terminal_size().columns)))
    print(f"\ncharts    {from_here(pool)}/calibrations/{size}-{budget}.html")
