"""The user's cache: files that are dear to make and the same each time, shared by all processes of a user."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Where Gristmill keeps such files: below $XDG_CACHE_HOME, else ~/.cache. It may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gristmill"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that others see whole or not at all, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    Path(file.name).replace(path)
