"""What a person sees while a run goes on: one live line on a terminal, a plain line now and then elsewhere, or
nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pipelines.accounts import Accounts

PLAIN_SECONDS = 10.0


class Shown(NamedTuple):
    """The numbers of an account that are shown: 0.2 kB, where an account with 24 rules takes 6."""

    documents: int = 0
    kept: int = 0
    dropped: int = 0
    quarantined: int = 0
    bytes_read: int = 0


def shown(accounts: Accounts) -> Shown:
    """What is shown of an account."""
    return Shown(
        documents=accounts.documents,
        kept=accounts.kept,
        dropped=sum(accounts.dropped.values()),
        quarantined=sum(accounts.quarantined.values()),
        bytes_read=accounts.record_bytes + sum(accounts.unreadable.values()),
    )


class Screen:
    """Shows `_text` on `stream`: live on a terminal, a plain line now and then elsewhere. `clock` gives seconds.

    A thread draws while another one reports: what both touch is behind `_lock`, which is never held while drawing.
    """

    def __init__(self, stream: TextIO, *, quiet: bool, clock: Callable[[], float]) -> None:
        self._console = Console(file=stream, highlight=False)
        self._quiet, self._clock = quiet, clock
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._shown = clock()

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet:
            self._live = Live(get_renderable=self._text, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """Print one line, unless quiet."""
        if not self._quiet:
            self._console.print(Text(line), soft_wrap=True)

    def _show_plain(self) -> None:
        """Print the text where nothing is live and the last one was printed a while ago."""
        if self._live is None and not self._quiet and self._clock() - self._shown >= PLAIN_SECONDS:
            self._shown = self._clock()
            self.say(self._text().plain)

    def _text(self) -> Text:
        raise NotImplementedError


class Progress(Screen):
    """Counts what tasks report of pages, and shows it."""

    def __init__(self, stream: TextIO, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, quiet=quiet, clock=clock)
        self._sum, self._ended = Shown(), 0
        self._running: dict[str, Shown] = {}
        self._stage, self._total, self._before, self._bytes = "", 0, 0, 0
        self._started = clock()

    def expect(self, input_bytes: int) -> None:
        """Say how many bytes the tasks to come will read: the time left is counted by bytes."""
        self._bytes = input_bytes

    def stage(self, name: str, tasks: int, before: int) -> None:
        """Begin a stage of so many tasks, of which some were done before."""
        with self._lock:
            self._stage, self._total, self._before = name, tasks, before
            self._sum, self._ended = Shown(), 0
            self._running = {}
            self._started = self._clock()
        done = f", {before} of them done before" if before else ""
        self.say(f"{name}: {tasks} task{'s' * (tasks != 1)}{done}")

    def report(self, task: str, accounts: Accounts, ended: bool = False) -> None:
        """Take a task's account so far, or the whole of it where the task has ended: nothing of it is held then."""
        now = shown(accounts)
        with self._lock:
            before = self._running.pop(task, Shown())
            self._sum = Shown(*(whole + new - old for whole, new, old in zip(self._sum, now, before, strict=True)))
            if ended:
                self._ended += 1
            else:
                self._running[task] = now
        self._show_plain()

    def _text(self) -> Text:
        with self._lock:
            now, tasks, started = self._sum, self._ended + len(self._running), self._started
            stage, due = self._stage, self._total - self._before
        seconds = max(1e-6, self._clock() - started)
        if stage != "process":
            return Text(f"  {stage}: {tasks} of {due} tasks")
        left = ""
        if now.bytes_read and self._bytes > now.bytes_read:
            to_read = self._bytes - now.bytes_read
            left = f"  {now.bytes_read / self._bytes:4.0%}  {clock_time(seconds * to_read / now.bytes_read)} left"
        return Text(
            f"  {now.documents:,} documents  {now.documents / seconds:,.0f}/s  kept {now.kept:,}  "
            f"dropped {now.dropped:,}  quarantined {now.quarantined:,}{left}"
        )


def clock_time(seconds: float) -> str:
    """Seconds as `12 s`, `3 min 20 s`, `5 h 12 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
