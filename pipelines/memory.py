"""How much memory a process has taken."""

from __future__ import annotations

import re
import resource
from pathlib import Path


def peak_memory(status: Path = Path("/proc/self/status")) -> int:
    """The most bytes of memory that were this process's at once (VmHWM of proc(5)).

    `getrusage` also counts what its parent held when it was started; it is asked where there is no such file.
    """
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        found = None
    return 1024 * (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
