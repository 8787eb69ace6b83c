"""What a person sees while a run goes on: one live line on a terminal, a plain line now and then elsewhere, or
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pipelines.accounts import Accounts, total

PLAIN_SECONDS = 10.0


class Progress:
    """Counts what tasks report and shows it on `stream`. `clock` gives seconds."""

    def __init__(self, stream: TextIO, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = Console(file=stream, highlight=False)
        self._quiet = quiet
        self._clock = clock
        self._live: Live | None = None
        self._tasks: dict[str, Accounts] = {}
        self._stage, self._total, self._before, self._bytes = "", 0, 0, 0
        self._started = self._shown = clock()

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

    def expect(self, input_bytes: int) -> None:
        """Say how many bytes the tasks to come will read: the time left is counted by bytes."""
        self._bytes = input_bytes

    def stage(self, name: str, tasks: int, before: int) -> None:
        """Begin a stage of so many tasks, of which some were done before."""
        self._stage, self._total, self._before = name, tasks, before
        self._tasks = {}
        self._started = self._clock()
        done = f", {before} of them done before" if before else ""
        self.say(f"{name}: {tasks} task{'s' * (tasks != 1)}{done}")

    def report(self, task: str, accounts: Accounts) -> None:
        """Take a task's account so far."""
        self._tasks[task] = accounts
        if self._live is None and not self._quiet and self._clock() - self._shown >= PLAIN_SECONDS:
            self._shown = self._clock()
            self.say(self._text().plain)

    def say(self, line: str) -> None:
        """Print one line, unless quiet."""
        if not self._quiet:
            self._console.print(Text(line), soft_wrap=True)

    def _text(self) -> Text:
        now = total(self._tasks.values())
        seconds = max(1e-6, self._clock() - self._started)
        if self._stage != "process":
            return Text(f"  {self._stage}: {len(self._tasks)} of {self._total - self._before} tasks")
        dropped, quarantined = sum(now.dropped.values()), sum(now.quarantined.values())
        read = now.record_bytes + sum(now.unreadable.values())
        left = ""
        if read and self._bytes > read:
            left = f"  {read / self._bytes:4.0%}  {clock_time(seconds * (self._bytes - read) / read)} left"
        return Text(
            f"  {now.documents:,} documents  {now.documents / seconds:,.0f}/s  kept {now.kept:,}  dropped {dropped:,}  "
            f"quarantined {quarantined:,}{left}"
        )


def clock_time(seconds: float) -> str:
    """Seconds as `12 s`, `3 min 20 s`, `5 h 12 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
