"""`gristmill score`, `export-model` and `panel build`: what trained models are worth. Registered by `infra.cli`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli_proxy import Device, DeviceOption
from infra.options import Address, Json, Quiet, TakeOver, Unauthenticated, Workers, byte_count
from infra.terminal import data, from_here, table, visible

if TYPE_CHECKING:
    from infra.scores import Scored


class Profile(StrEnum):
    """Whose prompts."""

    fineweb = "fineweb"
    lm_eval = "lm_eval"


SHOWN_METRICS = ("acc", "acc_norm", "bits_per_byte", "correct_prob")

Models = Annotated[str, typer.Argument(help="The folder or URL of models (`gristmill train`).", show_default=False)]
ModelName = Annotated[
    str | None, typer.Option("--model", help="Only the model whose name begins so.", show_default=False)
]


def score(
    models: Models,
    panel: Annotated[
        Path | None, typer.Option(help="A panel (`gristmill panel build`): bits per byte.", show_default=False)
    ] = None,
    tasks: Annotated[
        Path | None, typer.Option(help="A folder with a folder for each task: cloze tasks.", show_default=False)
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be repeated.", show_default=False)] = None,
    profile: Annotated[
        Profile, typer.Option(help="The prompts: FineWeb's, or lm-evaluation-harness's.")
    ] = Profile.fineweb,
    pmi: Annotated[bool, typer.Option("--pmi", help="acc_pmi, too: one more pass.")] = False,
    model: ModelName = None,
    device: DeviceOption = Device.auto,
    workers: Workers = None,
    address: Address = None,
    allow_unauthenticated_cluster: Unauthenticated = False,
    take_over: TakeOver = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Score every model of a folder, on every document and item; results are kept beside the models."""
    from infra.proxies import score_models

    found = score_models(
        models,
        panel=panel,
        tasks=tasks,
        names=task or (),
        profile=profile.value,
        pmi=pmi,
        model=model,
        device=device.value,
        workers=workers,
        address=address,
        allow_unauthenticated=allow_unauthenticated_cluster,
        take_over=take_over,
        quiet=quiet,
    )
    if as_json:
        data([{"model": one.model.label, "arm": one.model.said["arm"], **one.said} for one in found])
        return
    if panel is not None:
        show_panel(found)
    if tasks is not None:
        show_tasks(found)
    print(f"\nscores    {from_here(models)}/scores  a row for each document and item, and scores.json")


def show_panel(found: Sequence[Scored]) -> None:
    """Print bits per byte: the mean over domains with its standard error over documents, then every domain."""
    domains = list(found[0].said["panel"]["domains"])
    columns = [("bits per byte", "left"), ("macro", "right"), *((visible(name), "right") for name in domains)]
    rows = []
    for one in found:
        said = one.said["panel"]
        bits = [f"{said['domains'][name]['bits_per_byte']:.4f}" for name in domains]
        rows.append((one.model.label, with_error(said["macro"], said["standard_error"]), *bits))
    table(columns, rows)


def show_tasks(found: Sequence[Scored]) -> None:
    """Print a line for each task and model, and which tasks there were none of."""
    columns = [("task", "left"), ("model", "left"), ("items", "right"), *((name, "right") for name in SHOWN_METRICS)]
    print()
    table(
        columns,
        [
            (task, one.model.label, said["acc"]["items"], *(cell(said, name) for name in SHOWN_METRICS))
            for task in found[0].said["tasks"]["by_task"]
            for one in found
            for said in [one.said["tasks"]["by_task"][task]]
        ],
    )
    if absent := found[0].said["tasks"]["absent"]:
        print(f"\nnot there: {', '.join(absent)}")


def cell(said: Mapping[str, Any], metric: str) -> str:
    """A metric of a task with its standard error; empty where the task has no such metric."""
    return with_error(said[metric]["mean"], said[metric]["standard_error"]) if metric in said else ""


def with_error(mean: float, error: float | None) -> str:
    """`1.2345 ± 0.0012`."""
    return f"{mean:.4f}" if error is None else f"{mean:.4f} ± {error:.4f}"


def export_model(
    models: Models,
    to: Annotated[Path, typer.Option("--to", help="A new folder, for Hugging Face's from_pretrained.")],
    model: ModelName = None,
    as_json: Json = False,
) -> None:
    """Copy a model into a folder that `transformers` reads: a LlamaForCausalLM, its configuration and tokenizer."""
    from infra.proxies import export_model as exported

    found = exported(models, to, model=model)
    if as_json:
        data({"model": found.label, "to": str(to), "files": sorted(path.name for path in to.iterdir())})
        return
    print(f"exported  {found.label} -> {to}")
    print(f'\nnext      AutoModelForCausalLM.from_pretrained("{to}")')


panel = typer.Typer(help="Held-out texts on which models are compared.", no_args_is_help=True)


@panel.command("build")
def build(
    to: Annotated[Path, typer.Option("--out", "-o", help="The panel's folder, new or empty.")],
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="A folder with a folder of texts (JSONL, Parquet, txt) for each domain.", show_default=False
        ),
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PATH: a domain's file or folder; may be repeated.", show_default=False),
    ] = None,
    licence: Annotated[
        list[str] | None,
        typer.Option("--licence", "--license", help="NAME=LICENCE of a domain; may be repeated.", show_default=False),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="A run whose texts are to share no 13-gram with it; may be repeated.", show_default=False),
    ] = None,
    size: Annotated[str, typer.Option("--size", help="Text of each domain.")] = "500kB",
    documents: Annotated[int | None, typer.Option(min=1, help="Documents of each domain.", show_default=False)] = None,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Held out of each domain, by hash of the text.")] = 1.0,
    salt: Annotated[str, typer.Option(help="Of that hash.")] = "panel",
    field: Annotated[str, typer.Option(help="The field with the text.")] = "text",
    as_json: Json = False,
) -> None:
    """Make a panel: texts of several domains, without duplicates and without what stands in the runs given."""
    from dataclasses import asdict

    from infra.proxies import panel_of

    made = panel_of(
        to,
        folder,
        domains=domain or (),
        licences=licence or (),
        against=against or (),
        salt=salt,
        share=share,
        documents=documents,
        size=byte_count(size),
        field=field,
    )
    if as_json:
        data({**asdict(made), "folder": str(made.folder)})
        return
    columns = [("domain", "left"), ("documents", "right"), ("bytes", "right"), ("duplicates", "right")]
    columns += [("in the runs", "right"), ("licence", "left")]
    table(
        columns,
        [
            (one.name, one.documents, one.bytes, one.duplicates, one.contaminated, visible(one.licence))
            for one in made.domains
        ],
    )
    print(f"\nsha256    {made.sha256}")
    for note in made.notes:
        print(f"note      {visible(note)}")


@panel.command("check")
def check(
    pool: Annotated[str, typer.Argument(help="The folder or URL of a pool.", show_default=False)],
    panel: Annotated[Path | None, typer.Option(help="A panel.", show_default=False)] = None,
    tasks: Annotated[Path | None, typer.Option(help="A folder of cloze tasks.", show_default=False)] = None,
    overlap: Annotated[float, typer.Option(min=0.0, max=1.0, help="Of an item's n-grams, that are no matter.")] = 0.0,
    workers: Workers = None,
    address: Address = None,
    allow_unauthenticated_cluster: Unauthenticated = False,
    take_over: TakeOver = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Look what of a panel and of tasks stands in a pool; `train --mask uncontaminated` then reads none of it."""
    from dataclasses import asdict

    from infra.contamination import check_pool
    from infra.runner import usual_runner

    found = check_pool(
        pool,
        panel=panel,
        tasks=tasks,
        overlap=overlap,
        workers=workers,
        runner=usual_runner(workers, address),
        address=address,
        allow_unauthenticated=allow_unauthenticated_cluster,
        take_over=take_over,
        quiet=quiet,
    )
    if as_json:
        data(asdict(found))
        return
    columns = [("items", "left"), ("items", "right"), ("long enough", "right"), ("found", "right")]
    table(columns, [(visible(one.name), one.items, one.claimed, one.found) for one in found.groups])
    print(f"\ndocuments {found.cut:,} of {found.documents:,} hold some: `train --mask uncontaminated` leaves them out")
