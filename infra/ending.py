"""How a process ends when it is told to: cleanly, and in any case soon."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

GRACE_SECONDS = 30.0
"""From SIGTERM to the end of the process, whatever its cleaning up waits for."""
CODE = 128 + signal.SIGTERM
AGAIN_SECONDS = 0.1
"""From an interrupt that was dropped to its repetition."""


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """SIGTERM raises SystemExit(143), once; `GRACE_SECONDS` later the process ends, whatever it then waits for.

    Replaces another handler. Does nothing outside the main thread, where no handler can be set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    guard = threading.Timer(GRACE_SECONDS, os._exit, (CODE,))
    guard.daemon = True

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        guard.start()
        os.write(2, b"SIGTERM: ending; what is committed is kept, and the same command continues\n")
        raise SystemExit(CODE)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if not guard.is_alive():
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextmanager
def interrupts_repeated() -> Iterator[None]:
    """An interrupt that Python drops comes again, until it is met.

    It drops what is raised where nobody can catch it, such as a callback from C: numba makes one for each compiled
    function that it loads, and of 220 that were sent at the start of a stage three were without effect.
    """
    before = sys.unraisablehook

    def dropped(told: sys.UnraisableHookArgs) -> None:
        if issubclass(told.exc_type, KeyboardInterrupt):
            again = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT))
            again.daemon = True
            again.start()
        else:
            before(told)

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def handler_kept() -> Iterator[None]:
    """Whoever handles SIGTERM now handles it after the block, whatever the block sets. Ray sets handlers of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
