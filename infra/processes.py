"""One function over many items, in this process or in several of this machine: what comes back is the same.

What the function gives of each item is handed over in the order of the items, whatever the number of processes. Each
holds one item at a time; of their results at most `AHEAD` a process are held here.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Protocol, TypeVar

from filters.errors import TaskFailed

K = TypeVar("K")
T = TypeVar("T")

AHEAD = 2
"""Items under way or done for each process, so that none waits while the oldest result is awaited."""
THREADS = "OMP_NUM_THREADS"


class EachOf(Protocol):
    """`map`, wherever it is done."""

    def __call__(self, ask: Callable[[K], T], items: Iterable[K], /) -> Iterator[T]:
        """Yield what `ask` returns of each item, in their order. Raises the error of the first one that has one."""
        ...


def cores() -> int:
    """How many processes this machine runs at a time."""
    return os.cpu_count() or 1


@contextmanager
def processes(count: int) -> Iterator[EachOf]:
    """Yield a `map` over `count` processes, which pickles its function, items and results; of one, over this process.

    Where the block is left by an error or an interrupt, and where this process is killed, they end at once, whatever
    they are doing. Raises TaskFailed where one of them dies.
    """
    if count == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of this process hold
    ended, alive = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=end_with, initargs=(ended,))
    try:
        yield partial(in_order, pool, AHEAD * count)
        pool.shutdown()
    except BrokenProcessPool as error:
        raise TaskFailed(
            f"one of {count} processes died, killed for want of memory perhaps. Fewer --workers need less."
        ) from error
    finally:
        alive.close()
        pool.shutdown(cancel_futures=True)
        ended.close()


def in_order(pool: ProcessPoolExecutor, ahead: int, ask: Callable[[K], T], items: Iterable[K], /) -> Iterator[T]:
    """Yield what `ask` returns of each item, in their order; `ahead` items are under way or done."""
    left = iter(items)
    with quiet_children():  # the first of these calls starts all processes
        under_way: deque[Future[T]] = deque(pool.submit(ask, item) for item in islice(left, ahead))
    while under_way:
        result = under_way.popleft().result()
        under_way.extend(pool.submit(ask, item) for item in islice(left, 1))
        yield result


@contextmanager
def quiet_children() -> Iterator[None]:
    """Processes started in the block have one thread of numeric libraries each, and are not interrupted by Ctrl-C: it
    reaches all processes of a terminal, and this one ends the others.
    """
    before = os.environ.get(THREADS)
    os.environ[THREADS] = before or "1"  # as many threads as cores in as many processes are 4,096 on 64 cores
    # A child inherits the mask; what comes meanwhile reaches this process after the block.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if before is None:
            del os.environ[THREADS]


def end_with(ended: Connection) -> None:
    """Have this process end when nobody holds the other end of the pipe: it would wait for work for ever."""
    threading.Thread(target=end_after, args=(ended,), daemon=True).start()


def end_after(ended: Connection) -> None:
    """End this process when nobody holds the other end of the pipe."""
    wait([ended])
    os._exit(1)
