"""What commands print on standard output: JSON, tables, documents. Nothing from a page reaches a terminal unseen."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from filters.errors import OutputError
from filters.rule import Rule

# Terminal control must not reach a terminal from a crawled page; neither must what reverses or hides text.
HIDDEN = {*range(0x202A, 0x202F), *range(0x2060, 0x2070), *range(0xE0000, 0xE0080)}
HIDDEN |= {0xAD, 0x61C, 0x200B, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF}


def visible(text: str) -> str:
    """The text with control characters, but line breaks and tabs, and bidirectional or invisible ones as `\\u{...}`."""
    return "".join(
        f"\\u{{{ord(char):x}}}"
        if (ord(char) in HIDDEN or (unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"))
        else char
        for char in text
    )


def page_written(path: Path, make: Callable[[], str]) -> None:
    """Write what `make` gives to `path`. Raises OutputError before making it where nothing can be written there."""
    try:
        with path.open("a", encoding="utf-8"):
            pass
        path.write_text(make(), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error}). Choose another file for --html.") from error


def data(value: Any) -> None:
    """Print one JSON object."""
    # Text comes from crawled pages: on a terminal nothing but ASCII is safe to print as it is.
    print(json.dumps(value, indent=1, ensure_ascii=sys.stdout.isatty()))


def table(columns: Iterable[tuple[str, str]], rows: Iterable[Iterable[object]]) -> None:
    """Print a table; `columns` are (title, "left" or "right")."""
    console = Console(highlight=False)
    # What reads a pipe wants a row on a line.
    console = console if console.is_terminal else Console(highlight=False, width=1_000)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    short = max((len(row[0]) for row in cells), default=0) <= console.width // 2
    for title, justify in columns:
        shown.add_column(
            title,
            justify="right" if justify == "right" else "left",
            overflow="fold",
            # A folded number is none, and a folded name cannot be copied; a narrow terminal folds names all the same.
            no_wrap=justify == "right" or (shown.columns == [] and short and console.width >= 100),
        )
    for row in cells:
        shown.add_row(*map(Text, row))
    console.print(shown)


def print_documents(rows: list[dict[str, Any]]) -> None:
    """Print rows with a rule between them, and a word where there is none."""
    console = Console(highlight=False)
    for row in rows:
        text = row.pop("text", None)
        console.rule(style="dim")
        for name, value in row.items():
            if value not in (None, ""):
                console.print(Text(f"{name}: ", style="bold"), Text(visible(str(value))), sep="", soft_wrap=True)
        if text is not None:
            console.print(Text("\n" + visible(text)), soft_wrap=True)
    if not rows:
        console.print("nothing here")


def print_rules(shown: Sequence[Rule]) -> None:
    """Print rules as a table, and below it where they come from."""
    papers = {rule.paper: 0 for rule in shown}
    papers = {paper: number for number, paper in enumerate(papers, start=1)}
    table(
        [("rule", "left"), ("keeps", "left"), ("signal", "left"), ("source", "right")],
        [(rule.name, rule.bounds, rule.signal.says, f"[{papers[rule.paper]}]") for rule in shown],
    )
    for paper, number in papers.items():
        print(f"[{number}] {paper.title}; {paper.where}\n    {paper.url}")


def from_here(path: str) -> str:
    """The path or URL as one would type it in the present folder."""
    if "://" in path or not path.startswith("/"):
        return path
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
