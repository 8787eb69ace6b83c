"""What a process does when it is told to end."""

import ctypes
import sys
import time

import pytest

from infra.ending import interrupts_repeated


@ctypes.CFUNCTYPE(None)
def interrupted_in_a_callback() -> None:
    raise KeyboardInterrupt


def failed_in_a_callback() -> None:
    raise ValueError("in a callback")


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_that_python_drops_comes_again(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), interrupts_repeated():
        interrupted_in_a_callback()
        time.sleep(60)
    assert capsys.readouterr().err == ""


def test_other_errors_that_python_drops_are_told_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_value))
    hook = sys.unraisablehook
    with interrupts_repeated():
        ctypes.CFUNCTYPE(None)(failed_in_a_callback)()
    assert [str(error) for error in told] == ["in a callback"]
    assert sys.unraisablehook is hook
