"""Who holds a lock that is an object: enough of a process to tell, on its machine, whether it still lives."""

from __future__ import annotations

import json
import os
import socket
import uuid
from pathlib import Path
from typing import Any


def boot_id() -> str:
    """What tells this machine, since it was started, from all others; empty where the system has no such thing."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.is_file() else ""


def started_at(pid: int | str) -> str:
    """When a process of this machine started, in ticks; empty where there is none: numbers are given anew."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def this_process() -> dict[str, Any]:
    """What a lock says of its holder. Containers of one machine may share host name and process numbers."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return {
        "host": socket.gethostname(),
        "boot": boot_id(),
        "space": space,
        "pid": os.getpid(),
        "started": started_at("self"),
        "mark": uuid.uuid4().hex,
    }


def holder_of(data: bytes) -> dict[str, Any]:
    """The holder that a lock names. Raises ValueError where it names none."""
    said = json.loads(data)
    if not isinstance(said, dict) or not this_process().keys() <= said.keys():
        raise ValueError("it names no holder")
    return said


def is_gone(holder: dict[str, Any]) -> bool:
    """True where the process was one of this machine and lives no more."""
    here = this_process()
    if not here["boot"] or any(holder[name] != here[name] for name in ("boot", "host", "space")):
        return False
    return bool(started_at(holder["pid"]) != holder["started"])
