"""`gristmill export`: a finished dataset as a folder that trainers read. Registered by `infra.cli`."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.options import Json, Out, Quiet
from infra.terminal import data, from_here

if TYPE_CHECKING:
    from infra.export import Exported


class Format(StrEnum):
    """What the folder is made for; one function each."""

    hf = "hf"


To = Annotated[str, typer.Option("--to", help="The folder or URL to fill; the same export there is completed.")]
FormatOption = Annotated[
    Format, typer.Option("--format", help="hf: Parquet and a card, for `datasets` and the Hugging Face Hub.")
]
Licence = Annotated[
    str | None,
    typer.Option("--licence", "--license", help="The Hub's identifier of a licence, as odc-by.", show_default=False),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Write nothing; show what would be written.")]


def export(
    out: Out,
    to: To,
    format: FormatOption = Format.hf,
    licence: Licence = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make the dataset of a finished run ready to use: a folder with its parts, their hashes, and a card."""
    from infra.export import export_hf
    from infra.progress import Progress
    from infra.run import read_run
    from infra.store import open_store
    from pipelines.accounts import Accounts

    exports = {Format.hf: export_hf}
    made, store = read_run(open_store(out)), open_store(to)
    with Progress(sys.stderr, quiet=quiet) as progress:
        if not dry_run:
            progress.stage("export", len(made.files["dataset"]), 0)
        done = exports[format](
            made,
            store,
            licence=licence,
            dry_run=dry_run,
            on_part=lambda name: progress.report(name, Accounts(), True),
        )
    if as_json:
        data(exported_json(done, format, dry_run=dry_run))
    else:
        show(done, format, dry_run=dry_run)


def show(done: Exported, format: Format, *, dry_run: bool) -> None:
    """Print what was written, or the whole card and what else would be."""
    here, count = from_here(done.url), len(done.files)
    size, rows = sum(file.bytes for file in done.files), sum(file.rows for file in done.files)
    print(f"{'would export' if dry_run else 'exported'}  {here}: {rows:,} documents, {size:,} bytes")
    if dry_run:
        for file in done.files:
            print(f"  {file.path}  {file.bytes:,} bytes{', there' * (file.path not in done.missing)}")
        print(f"  SHA256SUMS\n  README.md:\n\n{done.card}", end="")
        return
    print(f"          {count:,} part(s), {len(done.missing):,} of them written now; SHA256SUMS; README.md")
    if format is Format.hf:
        print(f'\nnext      load_dataset("{here}", split="train")')


def exported_json(done: Exported, format: Format, *, dry_run: bool) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "format": format.value,
        "to": done.url,
        "dry_run": dry_run,
        "files": [
            {"path": file.path, "sha256": file.sha256, "bytes": file.bytes, "rows": file.rows} for file in done.files
        ],
        "missing_before": list(done.missing),
        "dataset_sha256": done.dataset_sha256,
        "card": done.card,
    }
