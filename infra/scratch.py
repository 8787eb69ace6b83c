"""Folders of this machine for files in the making. None outlives its process for long, however that ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRATCH = "gristmill-scratch-"


@contextmanager
def scratch(prefix: str = SCRATCH, base: Path | None = None) -> Iterator[Path]:
    """Yield a folder of this machine, and remove it at the end, with those whose process died before it could.

    It lies in `base`, by default where temporary files go, under a name that begins with `prefix`. The owner holds a
    lock of the kernel on it, which goes with the process, in any container; it gets the name under which others look
    at it when it is held.
    """
    base = Path(tempfile.gettempdir()) if base is None else base
    made = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=base))
    held = os.open(made, os.O_RDONLY)
    folder = base / made.name.removeprefix(".")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        made.rename(folder)
        for other in base.glob(f"{prefix}*"):
            if other != folder:
                remove_if_abandoned(other)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def remove_if_abandoned(folder: Path) -> None:
    """Remove a scratch folder that no process holds."""
    try:
        held = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(held)
