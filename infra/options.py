"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class RunnerName(StrEnum):
    """Where tasks run."""

    ray = "ray"
    inprocess = "inprocess"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Out = Annotated[str, typer.Argument(help="The folder or URL of a finished run.", show_default=False)]
RecipeName = Annotated[
    str, typer.Argument(help="A recipe's name (`gristmill recipes`) or a YAML file.", show_default=False)
]
Inputs = Annotated[
    list[str],
    typer.Option(
        "--input",
        "-i",
        help="A file, folder, glob, list of paths (*.paths.gz), fsspec URL, or crawl (cc:CC-MAIN-2024-10[:FIRST-LAST], "
        "cc+s3:...); may be repeated.",
    ),
]
OutOption = Annotated[
    str,
    typer.Option("--out", "-o", help="The output folder or URL (s3://, gs://, az://); what it has is continued."),
]
RunnerOption = Annotated[RunnerName, typer.Option("--runner", help="Where tasks run.")]
Workers = Annotated[int | None, typer.Option("--workers", "-w", min=1, help="Tasks at a time (default: one a core).")]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Only the first N documents of the input; of Parquet, whole row groups."),
]
TaskSize = Annotated[str, typer.Option("--task-size", help="Input bytes of one task, for instance 64MiB.")]
Anonymous = Annotated[bool, typer.Option("--anonymous", help="Read remote inputs without credentials.")]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Take a store from a command that died on another machine.")
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Join the Ray cluster that this machine is a node of: `auto`, or HOST:PORT."),
]
Unauthenticated = Annotated[
    bool, typer.Option("--allow-unauthenticated-cluster", help="Go on where the cluster asks for no token.")
]
TaskDeadline = Annotated[
    float, typer.Option("--task-deadline", min=0.01, help="Hours after which a task is tried on another worker, too.")
]
Dump = Annotated[str | None, typer.Option("--dump", help="The `dump` column (default: CC-MAIN-... in the path).")]
DroppedSamples = Annotated[str, typer.Option(help="Dropped documents to keep for each rule: a number, or `all`.")]
Annotate = Annotated[
    bool, typer.Option("--annotate", help="Keep every document, with its text and every signal of the recipe.")
]
AllSignals = Annotated[
    bool, typer.Option("--all-signals", help="With --annotate: the signals of every family, not the recipe's alone.")
]
Against = Annotated[
    list[str] | None,
    typer.Option("--against", help="Dedup: an earlier run whose documents stay; may be repeated.", show_default=False),
]
AllowEmptied = Annotated[
    bool, typer.Option("--allow-emptied", help="Go on where dedup takes nearly all of a domain or a folder of input.")
]
AllowQuarantined = Annotated[bool, typer.Option("--allow-quarantined", help="Go on above the quarantine budget.")]


def byte_count(text: str) -> int:
    """`64MiB`, `1GB`, `4096` as bytes."""
    units = {"": 1, "b": 1}
    units |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)}
    units |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)}
    digits = text.rstrip("BbIiKkMmGgTt ")
    unit = text[len(digits) :].strip().lower()
    try:
        size = int(float(digits) * units[unit])
    except (ValueError, KeyError):
        raise typer.BadParameter(f"{text!r} is not a size; write it like 64MiB or 1GB") from None
    if size < 1:
        raise typer.BadParameter(f"{text!r}: at least one byte")
    return size


def plain_count(text: str) -> int:
    """`20M`, `1.5B`, `4k`, `5000000` as a number of tokens, in powers of a thousand."""
    units = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
    digits = text.rstrip("kKmMbBtT ")
    try:
        count = float(digits.replace("_", "")) * units[text[len(digits) :].strip().lower()]
    except (ValueError, KeyError):
        raise typer.BadParameter(f"{text!r} is no number of tokens; write it like 20M") from None
    if count < 1 or count != int(count):
        raise typer.BadParameter(f"{text!r}: a whole number of tokens, at least one")
    return int(count)


def dropped_count(text: str) -> int | None:
    """The number of samples, or None for `all`."""
    if text == "all":
        return None
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is neither a number nor `all`")
    return int(text)
