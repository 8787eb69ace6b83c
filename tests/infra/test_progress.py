"""What is shown of a run, and the gate's bound."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from infra.gate import at_most, gate_line, upper_bound
from infra.progress import Progress, clock_time
from pipelines.accounts import Accounts

SOME = Accounts(documents=50, kept=30, dropped={"url.domain": 19}, quarantined={"nesting": 1}, record_bytes=250)


def shown(*, quiet: bool = False) -> list[str]:
    stream, now = io.StringIO(), [0.0]
    with Progress(stream, quiet=quiet, clock=lambda: now[0]) as progress:
        progress.expect(1_000)
        progress.stage("process", 4, 1)
        progress.report("a", SOME)
        now[0] = 25.0
        progress.report("a", SOME)
        now[0] = 26.0
        progress.report("a", SOME)
    return stream.getvalue().splitlines()


def test_off_a_terminal_there_are_plain_lines_now_and_then() -> None:
    assert shown() == [
        "process: 4 tasks, 1 of them done before",
        "  50 documents  2/s  kept 30  dropped 19  quarantined 1   25%  1 min 15 s left",
    ]


def test_a_task_counts_as_it_goes_on_and_when_it_has_ended_nothing_of_it_is_held() -> None:
    progress = Progress(io.StringIO(), clock=lambda: 10.0)
    progress.stage("process", 3, 0)
    progress.report("a", Accounts(documents=10, kept=10, record_bytes=5))
    progress.report("b", Accounts(documents=1, dropped={"url.domain": 1}))
    progress.report("a", SOME)
    progress.report("a", SOME, ended=True)
    assert "  51 documents" in progress._text().plain
    assert "kept 30  dropped 20  quarantined 1" in progress._text().plain
    assert list(progress._running) == ["b"]
    progress.stage("pack", 2, 0)
    progress.report("c", Accounts(), ended=True)
    assert progress._text().plain == "  pack: 1 of 2 tasks"


def test_what_is_drawn_by_one_thread_may_be_counted_by_another() -> None:
    """A mapping that grows while it is gone through raises RuntimeError; threads take turns as often as they can."""
    progress = Progress(io.StringIO(), quiet=True)
    progress.stage("process", 1, 0)
    for number in range(100):
        progress.report(f"before-{number}", SOME)
    drawn: list[str] = []
    wrong: list[RuntimeError] = []

    def draw() -> None:
        try:
            while len(drawn) < 100:
                drawn.append(progress._text().plain)
        except RuntimeError as error:
            wrong.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        drawing = threading.Thread(target=draw)
        drawing.start()
        reported = 100
        while drawing.is_alive():
            progress.report(f"task-{reported}", SOME)
            reported += 1
        drawing.join()
    finally:
        sys.setswitchinterval(before)
    assert not wrong
    assert f"  {reported * SOME.documents:,} documents" in progress._text().plain


def test_quiet_says_nothing() -> None:
    assert shown(quiet=True) == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (18_720, "5 h 12 min")]
)
def test_times_are_words(seconds: float, text: str) -> None:
    assert clock_time(seconds) == text


def test_the_gates_bound_is_clopper_and_pearsons() -> None:
    # 1 - 0.05 ** (1 / 337) = 0.00885: nothing lost of 337.
    assert upper_bound(0, 337) == pytest.approx(1 - 0.05 ** (1 / 337), rel=1e-6)
    assert upper_bound(3, 100) == pytest.approx(0.0757, abs=1e-3)
    assert at_most(3, 100, upper_bound(3, 100)) == pytest.approx(0.05, rel=1e-6)
    assert upper_bound(0, 0) == upper_bound(5, 5) == 1.0


def test_what_is_said_of_the_gate_is_what_was_counted() -> None:
    assert "none of them was in the sample" in gate_line({"stopped": 5})
    assert "of 100 extracted all the same 3 were" in gate_line({"stopped": 900, "sampled": 100, "false_drops": 3})
