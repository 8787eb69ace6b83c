"""Main text of pages, by a parser in a child process with a deadline and a memory limit.

A page that a check on its bytes refuses, that kills the child, or that outlasts the deadline costs itself alone: it
comes back with a reason. What the checks refuse depends on the page only; a deadline depends on the machine, and is
marked so.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filters.errors import TaskFailed
from pipelines.page_shape import shape_refusal
from pipelines.parser_child import ANSWER, FAILED, GATED, OUT_OF_MEMORY, READY, REQUEST
from pipelines.recipe import Extract, Gate, Language

START_SECONDS = 120.0
# A parser that sleeps or waits uses no CPU; it is stopped after this many deadlines of wall time.
WALL_PER_CPU = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """The text of one page, or why there is none.

    `gated`: the gate stopped it. `wanted`: the gate's probability, NaN without a gate. `refused`: why it is
    quarantined.
    """

    text: str = ""
    gated: bool = False
    wanted: float = float("nan")
    refused: str | None = None
    detail: str = ""
    timing_dependent: bool = False


class Parser:
    """A child process that parses pages one at a time; started when first needed, and again after it was stopped.

    `command` is replaced in tests by parsers that crash or hang.
    """

    def __init__(
        self, extract: Extract, gate: Gate | None, language: Language | None, *, command: list[str] | None = None
    ) -> None:
        self.limits = extract.limits
        settings: dict[str, Any] = extract.model_dump(
            include={"engine", "favor_precision", "include_comments", "deduplicate"}
        )
        settings["memory_bytes"] = extract.limits.memory_bytes
        settings["gate"] = None
        if gate is not None and language is not None:
            settings["gate"] = {
                "low": gate.low,
                "characters": gate.characters,
                "model": language.model,
                "keep": language.keep,
            }
        self._command = [*(command or [sys.executable, "-m", "pipelines.parser_child"]), json.dumps(settings)]
        self._child: subprocess.Popen[bytes] | None = None
        self.restarts = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the child, if there is one."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
            self._child = None

    def parse(self, html: str, *, despite_gate: bool = False) -> Extracted:
        """Return the text of one page, or the reason why it has none. Never raises for what a page does.

        A page whose parser died is tried once more in a fresh one, so that what earlier pages left in its memory, or a
        moment's want of memory, is not charged to it.
        """
        body = html.encode("utf-8", "replace")
        if refused := shape_refusal(body, self.limits):
            return Extracted(refused=refused, detail=f"the page has more than {self._limit(refused)}")
        got = self._parse(body, despite_gate)
        if got.refused in ("parser_died", "parser_memory"):
            got = self._parse(body, despite_gate)
        return got

    def _parse(self, body: bytes, despite_gate: bool) -> Extracted:
        child = self._started()
        deadline = Deadline(child.pid, self.limits.deadline_seconds)
        answered = False
        try:
            self._send(child, REQUEST.pack(len(body), despite_gate) + body, deadline)
            status, wanted, length = ANSWER.unpack(self._receive(child, ANSWER.size, deadline))
            text = self._receive(child, length, deadline).decode("utf-8")
            answered = True
        except TimeoutError:
            detail = f"no text within {self.limits.deadline_seconds:g} CPU seconds"
            return Extracted(refused="deadline", detail=detail, timing_dependent=True)
        except (EOFError, BrokenPipeError):
            return self._died(child)
        finally:
            if not answered:
                self.close()  # whatever came between: an answer may be on its way, and the next page must not get it
        if status == FAILED:
            return Extracted(refused="parser_error", detail=text)
        return Extracted(text=text, gated=status == GATED, wanted=wanted)

    def _died(self, child: subprocess.Popen[bytes]) -> Extracted:
        """Why the child ended. Being killed, and want of memory on the machine, are no facts of the page alone."""
        try:
            code = child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
        if code == OUT_OF_MEMORY:
            detail = f"the parser needed more than memory_bytes = {self.limits.memory_bytes:,}"
            return Extracted(refused="parser_memory", detail=detail)
        detail = f"the parser ended with {exit_name(code)}"
        return Extracted(refused="parser_died", detail=detail, timing_dependent=code == -signal.SIGKILL)

    def _limit(self, reason: str) -> str:
        names = {"nesting": "max_depth", "attributes": "max_attributes", "elements": "max_elements"}
        return f"{names[reason]} = {getattr(self.limits, names[reason]):,}"

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=child_environment()
            )
            self.restarts += 1
            deadline = Deadline(self._child.pid, START_SECONDS)
            try:
                self._receive(self._child, len(READY), deadline)
            except (EOFError, TimeoutError) as error:
                self.close()
                raise TaskFailed(f"the parser process does not start: {' '.join(self._command)}") from error
            assert self._child.stdin is not None, "opened as a pipe"
            os.set_blocking(self._child.stdin.fileno(), False)
        return self._child

    def _send(self, child: subprocess.Popen[bytes], data: bytes, deadline: Deadline) -> None:
        assert child.stdin is not None, "opened as a pipe"
        view = memoryview(data)
        while view:
            _, writable, _ = select.select([], [child.stdin], [], deadline.patience())
            if writable:
                view = view[child.stdin.write(view) or 0 :]
            else:
                deadline.check()

    def _receive(self, child: subprocess.Popen[bytes], size: int, deadline: Deadline) -> bytes:
        assert child.stdout is not None, "opened as a pipe"
        parts: list[bytes] = []
        while size > 0:
            readable, _, _ = select.select([child.stdout], [], [], deadline.patience())
            if not readable:
                deadline.check()
                continue
            part = child.stdout.read(min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class Deadline:
    """Seconds of CPU that a process may use from now on; a busy machine does not shorten it.

    Wall time may be `WALL_PER_CPU` times as long, so that a parser that waits for ever ends too.
    """

    def __init__(self, pid: int, seconds: float) -> None:
        self._pid = pid
        self._seconds = seconds
        self._wall = time.monotonic()
        self._cpu = cpu_seconds(pid)

    def patience(self) -> float:
        """How long to wait before the next `check`."""
        return max(0.01, min(1.0, self._wall + self._seconds - time.monotonic()))

    def check(self) -> None:
        """Raise TimeoutError once the deadline has passed."""
        waited = time.monotonic() - self._wall
        if waited < self._seconds:
            return
        if waited > WALL_PER_CPU * self._seconds or cpu_seconds(self._pid) - self._cpu >= self._seconds:
            raise TimeoutError


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far; 0 where it is gone or there is no /proc (wall time decides then)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def child_environment() -> dict[str, str]:
    """What a parser may see of our environment: where its code lies, nothing else."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def exit_name(code: int) -> str:
    """`signal 11` or `status 1`."""
    return f"signal {-code}" if code < 0 else f"status {code}"
