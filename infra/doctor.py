"""Is this machine fit? Each check says what it found and, where it is a fault, what to do."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

from filters.errors import GristmillError


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check and its finding."""

    name: str
    ok: bool
    says: str


def checks() -> list[Check]:
    """Every check, in order; none stops the others."""
    found: list[Check] = []
    for name, look in CHECKS:
        try:
            found.append(Check(name=name, ok=True, says="; ".join(look())))
        except (GristmillError, PackageNotFoundError, OSError, ImportError) as error:
            found.append(Check(name=name, ok=False, says=str(error)))
    return found


def python() -> Iterator[str]:
    """Python's version and place."""
    yield f"{sys.version.split()[0]} at {sys.executable}"


def packages() -> Iterator[str]:
    """The versions of what decides the output."""
    for name in ("trafilatura", "resiliparse", "spacy", "polars", "pyarrow", "ray", "datatrove", "fasttext-numpy2"):
        yield f"{name} {version(name)}"


def one_fasttext() -> Iterator[str]:
    """Several packages install a module called fasttext and overwrite each other silently."""
    owners = sorted(set(packages_distributions().get("fasttext", [])))
    if owners != ["fasttext-numpy2"]:
        raise ImportError(
            f"the module fasttext belongs to {', '.join(owners) or 'nobody'}: uninstall all but fasttext-numpy2, "
            "then reinstall that one."
        )
    yield "fasttext-numpy2 alone"


def resources() -> Iterator[str]:
    """Model and tokenizer files by sha256."""
    from pipelines.resources import RESOURCES, resource_path

    for name in RESOURCES:
        resource_path(name)
    yield f"{len(RESOURCES)} files have their sha256"


def lists() -> Iterator[str]:
    """The URL lists, read or made."""
    from pipelines.urls import block_lists

    yield f"{block_lists().domains.shape[1]:,} domains"


def parser() -> Iterator[str]:
    """A parser child starts and answers."""
    from pipelines.extract import Parser
    from pipelines.recipe import Extract

    with Parser(Extract(engine="trafilatura"), None, None) as started:
        got = started.parse(
            "<html><body><p>" + "A parser that answers has read this sentence. " * 10 + "</p></body></html>"
        )
    if got.refused:
        raise OSError(f"the parser child refused a plain page: {got.refused} ({got.detail})")
    yield "a child process parses a page"


def space() -> Iterator[str]:
    """Free disk space here, and shared memory for Ray."""
    free = shutil.disk_usage(Path.cwd()).free
    if free < 2 << 30:
        raise OSError(f"only {free >> 20:,} MiB are free in {Path.cwd()}: a run needs about the size of its input")
    yield f"{free >> 30:,} GiB free in {Path.cwd()}"


CHECKS: tuple[tuple[str, Callable[[], Iterator[str]]], ...] = (
    ("python", python),
    ("packages", packages),
    ("fasttext", one_fasttext),
    ("resources", resources),
    ("URL lists", lists),
    ("parser", parser),
    ("space", space),
)
