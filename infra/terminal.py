"""What commands print on standard output: JSON, tables, documents. Nothing from a page reaches a terminal unseen."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from filters.rule import Rule

# Terminal control must not reach a terminal from a crawled page; neither must what reverses or hides text.
HIDDEN = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200B, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF}


def visible(text: str) -> str:
    """The text with control characters, but line breaks and tabs, and bidirectional or invisible ones as `\\u{...}`."""
    return "".join(
        f"\\u{{{ord(char):x}}}"
        if (ord(char) in HIDDEN or (unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"))
        else char
        for char in text
    )


def data(value: Any) -> None:
    """Print one JSON object."""
    # Text comes from crawled pages: on a terminal nothing but ASCII is safe to print as it is.
    print(json.dumps(value, indent=1, ensure_ascii=sys.stdout.isatty()))


def table(columns: Iterable[tuple[str, str]], rows: Iterable[Iterable[object]]) -> None:
    """Print a table; `columns` are (title, "left" or "right")."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in columns:
        shown.add_column(
            title,
            justify="right" if justify == "right" else "left",
            overflow="fold",
            no_wrap=justify == "right",  # what is too long for a terminal folds a name, never a number
        )
    for row in rows:
        shown.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else str(cell)) for cell in row))
    console = Console(highlight=False)
    # What reads a pipe wants a row on a line.
    (console if console.is_terminal else Console(highlight=False, width=1_000)).print(shown)


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


def print_rules(shown: Iterable[Rule]) -> None:
    """Print rules as a table."""
    table(
        [("rule", "left"), ("keeps", "left"), ("signal", "left"), ("source", "left")],
        [(rule.name, rule.bounds, rule.signal.says, f"{rule.paper.where} <{rule.paper.url}>") for rule in shown],
    )


def from_here(path: str) -> str:
    """The path or URL as one would type it in the present folder."""
    if "://" in path or not path.startswith("/"):
        return path
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
