"""How much longer larger work takes: what one machine does beside it, and where its memory comes from, left out."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable

MOST = 2.3
"""How much longer twice a large input may take; what is above 2 is for the caches."""
RUNS, PAIRS, SURE = 3, 24, 0.9
LONG = 0.25  # seconds
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # as malloc.h numbers them
KEPT, USUAL = {TRIM_THRESHOLD: -1, MMAP_MAX: 0}, {TRIM_THRESHOLD: 128 << 10, MMAP_MAX: 65_536}

Work = Callable[[], object]


def manage_memory(settings: dict[int, int]) -> None:
    """Tell glibc how to; elsewhere nothing."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for name, value in settings.items():
            assert library.mallopt(name, value)


def seconds(work: Work) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def shortest(prepare: Callable[[int], Work], size: int) -> float:
    """The shortest of RUNS, or of the fewer that take a quarter of a second together."""
    taken: list[float] = []
    while sum(taken) < LONG and len(taken) < RUNS:
        taken.append(seconds(prepare(size)))
    return min(taken)


def growth(prepare: Callable[[int], Work], size: int, times: int = 2, most: float = MOST) -> float:
    """How much longer work of `times` the size takes, each by the shortest of all its runs.

    `prepare(size)` makes the work; making it is not timed, nor is the first run of the large size, which is given the
    memory that all others use. What else the machine does only ever adds to a run, so more runs of both tell better:
    they are taken until the growth is at most `most`, or after the first of both, by which it is told less well, at
    most SURE of that; PAIRS are enough.
    """
    seconds(prepare(times * size))
    small = large = found = math.inf
    for pair in range(PAIRS):
        small = min(small, shortest(prepare, size))
        large = min(large, shortest(prepare, times * size))
        found = large / max(small, 0.001)  # below a millisecond there is nothing to tell
        if found <= (most if pair else SURE * most):
            break
    return found
