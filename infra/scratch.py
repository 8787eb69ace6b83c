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
def scratch() -> Iterator[Path]:
    """Yield a folder of this machine, and remove it at the end, with those whose process died before it could.

    The owner holds a lock of the kernel on its folder, which goes with the process, in any container; the folder gets
    the name under which others look at it when it is held.
    """
    base = Path(tempfile.gettempdir())
    made = Path(tempfile.mkdtemp(prefix=".gristmill-", dir=base))
    held = os.open(made, os.O_RDONLY)
    folder = base / f"{SCRATCH}{made.name.removeprefix('.gristmill-')}"
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        made.rename(folder)
        for other in base.glob(f"{SCRATCH}*"):
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
