"""Memory that a process has taken."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.memory import peak_memory


@pytest.mark.parametrize("status", [Path("/proc/self/status"), Path("no such file")])
def test_what_was_held_at_once_counts_when_it_is_given_back(status: Path) -> None:
    before = peak_memory(status)
    held = np.ones(before // 8 + (8 << 20))  # 64 MiB more than ever
    del held
    assert before + (60 << 20) < peak_memory(status)


def test_what_the_parent_holds_is_not_the_childs() -> None:
    held = np.ones(48 << 20)  # 384 MiB
    command = [sys.executable, "-c", "from pipelines.memory import peak_memory; print(peak_memory())"]
    child = int(
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout
    )
    assert child < held.nbytes / 4
