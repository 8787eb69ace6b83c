"""The Slurm script, run with stand-ins for Slurm's and Ray's commands."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parent.parent.parent / "infra" / "deploy"

STUBS = {
    "scontrol": """
case "$1 $2" in
    "show hostnames") printf '%s\\n' n1 n2 n3 ;;
    "show job") echo "   JobState=$STUB_STATE Reason=None" ;;
esac
""",
    "srun": '[[ -z $STUB_SRUN_FAILS ]] || exit 1\necho $$ >>"$STUB_FOLDER/steps"\nexec sleep 600\n',
    "ray": """
[[ $1 != health-check || -s $STUB_FOLDER/steps ]] || exit 1
if [[ $1 == list && $(wc -l <"$STUB_FOLDER/steps") == 2 ]]; then
    echo "both steps listed" >>"$STUB_FOLDER/log"
    for ((i = 0; i < STUB_JOINED; i++)); do echo '"node_id": "x",'; done
fi
""",
    "gristmill": """
stat --format=%a "$RAY_AUTH_TOKEN_PATH" >"$STUB_FOLDER/mode"
cp "$RAY_AUTH_TOKEN_PATH" "$STUB_FOLDER/token"
echo "$RAY_AUTH_MODE $RAY_ADDRESS ${RAY_AUTH_TOKEN:-none}" >"$STUB_FOLDER/environment"
trap 'kill $!; echo "gristmill ends" >>"$STUB_FOLDER/log"; exit "$STUB_ON_TERM"' TERM
if [[ -n $STUB_STAYS ]]; then sleep 600 & wait; fi
exit "$STUB_STATUS"
""",
}


class Slurm:
    """`slurm.sh` with stand-ins first on PATH, each of which logs its words in `log`."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.shared = folder, folder / "shared"
        self.shared.mkdir()
        (folder / "bin").mkdir()
        for name, text in STUBS.items():
            stub = folder / "bin" / name
            stub.write_text(f'#!/bin/bash\necho "{name} $*" >>"$STUB_FOLDER/log"\n{text}')
            stub.chmod(0o755)
        self.environment = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "n[1-3]",
            "SLURM_CPUS_PER_TASK": "16",
            "SLURM_SUBMIT_DIR": str(self.shared),
            "GRISTMILL_HEAD_IP": "10.0.0.1",
            "RAY_AUTH_TOKEN": "a-token-that-must-not-be-used",
            "STUB_FOLDER": str(folder),
            "STUB_STATE": "RUNNING",
            "STUB_SRUN_FAILS": "",
            "STUB_JOINED": "3",
            "STUB_STAYS": "",
            "STUB_STATUS": "0",
            "STUB_ON_TERM": "143",
            **settings,
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(DEPLOY / "slurm.sh"), *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str) -> tuple[int, str]:
        return self.end(self.start(*words))

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        try:
            said, _ = process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, said

    @property
    def log(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()

    @property
    def live_steps(self) -> list[str]:
        return [pid for pid in (self.folder / "steps").read_text().split() if Path(f"/proc/{pid}").exists()]


RUN = ("fineweb", "s3://crawl/warc/", "s3://corpus/out", "--task-size", "64MiB")


def test_the_slurm_script_is_shell() -> None:
    subprocess.run(["bash", "-n", str(DEPLOY / "slurm.sh")], check=True)
    assert (DEPLOY / "slurm.sh").stat().st_mode & stat.S_IXUSR


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say() -> None:
    subprocess.run(["shellcheck", "--severity=warning", str(DEPLOY / "slurm.sh")], check=True)


def test_slurm_starts_the_head_then_the_workers_then_the_run(tmp_path: Path) -> None:
    slurm = Slurm(tmp_path)
    status, said = slurm.run(*RUN)
    assert status == 0, said
    steps = [line for line in slurm.log if line.startswith(("srun", "gristmill"))]
    head, workers, run = steps
    assert "--nodelist=n1" in head.split()
    assert "ray start --head --node-ip-address=10.0.0.1" in head
    assert {"--nodes=2", "--exclude=n1", "--address=10.0.0.1:6379", "--num-cpus=16"} <= set(workers.split())
    assert slurm.log[-2:] == ["both steps listed", run]
    options = "--input s3://crawl/warc/ --out s3://corpus/out --address auto --task-size 64MiB"
    assert run == f"gristmill run fineweb {options}"
    assert not [line for line in slurm.log if "requeue" in line]
    assert slurm.live_steps == []


def test_slurms_token_is_private_new_told_to_nobody_and_gone_at_the_end(tmp_path: Path) -> None:
    slurm = Slurm(tmp_path)
    _, said = slurm.run(*RUN)
    token = (tmp_path / "token").read_text()
    assert re.fullmatch(r"[0-9a-f]{64}", token)
    assert (tmp_path / "mode").read_text().strip() == "600"
    assert (tmp_path / "environment").read_text().split() == ["token", "10.0.0.1:6379", "none"]
    assert token not in said
    assert not [line for line in slurm.log if token in line]
    assert list(slurm.shared.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "status", "requeued"),
    [
        ({}, 143, True),
        ({"STUB_STATE": "COMPLETING"}, 143, False),  # somebody typed scancel
        ({"STUB_ON_TERM": "0"}, 0, False),  # it was just done
    ],
)
def test_a_preempted_job_goes_back_into_the_queue_after_its_run_has_ended(
    tmp_path: Path, settings: dict[str, str], status: int, requeued: bool
) -> None:
    slurm = Slurm(tmp_path, STUB_STAYS="yes", **settings)
    process = slurm.start(*RUN)
    until = time.monotonic() + 30
    while not (tmp_path / "environment").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.2)  # the stand-in sets its trap after it has written that file
    process.send_signal(signal.SIGTERM)
    code, said = slurm.end(process)
    assert code == status, said
    assert "gristmill ends" in slurm.log
    assert ("scontrol requeue 7" in slurm.log) == requeued
    if requeued:
        assert slurm.log.index("gristmill ends") < slurm.log.index("scontrol requeue 7")
    assert slurm.live_steps == []
    assert list(slurm.shared.iterdir()) == []


def test_slurm_goes_on_without_nodes_that_do_not_come_and_says_so(tmp_path: Path) -> None:
    slurm = Slurm(tmp_path, STUB_JOINED="2", GRISTMILL_WAIT="1")
    status, said = slurm.run(*RUN)
    assert status == 0
    assert "2 of 3 nodes" in said
    assert slurm.log[-1].startswith("gristmill run")


@pytest.mark.parametrize(
    ("settings", "words", "status"),
    [({"STUB_SRUN_FAILS": "yes"}, RUN, 1), ({}, RUN[:2], 2), ({"STUB_STATUS": "3"}, RUN, 3)],
)
def test_slurm_passes_on_what_went_wrong(
    tmp_path: Path, settings: dict[str, str], words: tuple[str, ...], status: int
) -> None:
    code, said = Slurm(tmp_path, **settings).run(*words)
    assert code == status, said
