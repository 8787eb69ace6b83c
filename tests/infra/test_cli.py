"""The command line: data on stdout, everything else on stderr, and the exit code says how it went."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.cli import app, byte_count, main
from infra.terminal import table, visible


def gristmill(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "infra.cli", *arguments], capture_output=True, text=True, check=False)


def inside(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """Run the command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.setattr(sys, "argv", ["gristmill", *arguments])
    try:
        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture(scope="session")
def finished(small_crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "out"
    done = gristmill(
        "run", "fineweb-resiliparse", "-i", str(small_crawl), "-o", str(out), "--runner", "inprocess", "--json"
    )
    assert done.returncode == 0, done.stderr
    funnel = json.loads(done.stdout)
    assert funnel["documents"] == 60
    assert "process: 1 task" in done.stderr
    return out


def test_inspect_gives_the_funnel_whose_equations_hold(finished: Path, monkeypatch, capsys) -> None:
    code, out, err = inside(monkeypatch, capsys, "inspect", str(finished), "--json")
    said: dict[str, Any] = json.loads(out)
    assert (code, err) == (0, "")
    wanted = {"records", "skipped", "damaged", "documents", "kept", "dropped", "duplicates", "quarantined"}
    assert wanted | {"unreadable_bytes"} <= said.keys()
    assert said["records"] == said["documents"] + sum(said["skipped"].values()) + said["damaged"]
    left = sum(said["dropped"].values()) + sum(said["duplicates"].values()) + sum(said["quarantined"].values())
    assert said["documents"] == said["kept"] + left


def test_inspect_without_json_is_a_table_a_person_can_read(finished: Path, monkeypatch, capsys) -> None:
    code, out, _ = inside(monkeypatch, capsys, "inspect", str(finished))
    assert code == 0
    assert "language.wanted" in out
    assert out.splitlines()[0].split() == ["stage", "reason", "count", "left"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect",),
        ("show",),
        ("show", "--dropped", "language.wanted"),
        ("show", "--quarantined"),
        ("verify",),
        ("explain", "https://mill.example/3"),
        ("gc",),
    ],
)
def test_every_command_on_a_run_speaks_json(finished: Path, monkeypatch, capsys, arguments: tuple[str, ...]) -> None:
    command, *more = arguments
    code, out, err = inside(monkeypatch, capsys, command, str(finished), *more, "--json")
    assert (code, err) == (0, "")
    json.loads(out)


@pytest.mark.parametrize("arguments", [("recipes",), ("recipes", "--show", "fineweb"), ("rules",), ("doctor",)])
def test_every_command_on_the_installation_speaks_json_and_words(
    monkeypatch, capsys, arguments: tuple[str, ...]
) -> None:
    code, out, _ = inside(monkeypatch, capsys, *arguments, "--json")
    assert code == 0
    json.loads(out)
    code, out, _ = inside(monkeypatch, capsys, *arguments)
    assert code == 0
    assert len(out.splitlines()) > 3


def test_recipes_show_prints_rules_bounds_citations_and_deviations(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = inside(monkeypatch, capsys, "recipes", "--show", "fineweb")
    for said in (
        "Deviations from the original",
        "gopher_quality.words_low",
        "[50, ∞)",
        "https://arxiv.org/abs/2112.11446",
    ):
        assert said in out


def test_show_reads_documents_and_explain_shows_the_rule_that_fails(finished: Path, monkeypatch, capsys) -> None:
    _, out, _ = inside(monkeypatch, capsys, "show", str(finished), "-n", "1")
    assert "https://mill.example/0" in out
    _, out, _ = inside(monkeypatch, capsys, "explain", str(finished), "https://mill.example/3")
    failing = [line for line in out.splitlines() if "FAILS" in line]
    assert "language.wanted" in failing[0]  # the reason; later rules are measured all the same


def test_plan_says_tasks_bytes_yield_and_time_and_writes_nothing(
    small_crawl: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    out = tmp_path / "out"
    arguments = ("plan", "fineweb-resiliparse", "-i", str(small_crawl), "-o", str(out), "--task-size", "8000", "--json")
    code, said, _ = inside(monkeypatch, capsys, *arguments)
    found = json.loads(said)
    assert code == 0
    assert found["tasks"] > 3
    assert 50 <= found["documents"] <= 70
    assert 0.5 < found["kept_fraction"] < 0.9
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "finweb", "-i", "x", "-o", "y"), 2, "did you mean 'fineweb'"),
        (("run", "fineweb", "-i", "no-such-file.warc.gz", "-o", "y"), 2, "no-such-file"),
        (("run", "fineweb", "-o", "y"), 2, "--input"),
        (("run", "fineweb", "-i", "x", "-o", "y", "--task-size", "much"), 2, "64MiB"),
        (("inspect", "no-such-folder"), 1, "no finished run"),
        (("rules", "--family", "gofer_quality"), 2, "gopher_quality"),
        (("no-such-command",), 2, "No such command"),
    ],
)
def test_errors_name_what_and_what_to_do_with_their_exit_code(
    tmp_path: Path, monkeypatch, capsys, arguments: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, err = inside(monkeypatch, capsys, *arguments)
    assert (found, out) == (code, "")
    assert said in err
    assert "Traceback" not in err


def test_a_document_that_is_not_there_and_a_rule_that_is_not_are_named(finished: Path, monkeypatch, capsys) -> None:
    code, _, err = inside(monkeypatch, capsys, "explain", str(finished), "https://nowhere.example/")
    assert (code, "https://nowhere.example/" in err) == (1, True)
    code, _, err = inside(monkeypatch, capsys, "show", str(finished), "--dropped", "language.wantd")
    assert (code, "did you mean 'language.wanted'" in err) == (2, True)


def test_over_the_quarantine_budget_is_exit_code_3(
    write_warc: Callable[[str, list[bytes]], Path], tmp_path: Path, monkeypatch, capsys
) -> None:
    path = write_warc("bad.warc.gz", [b"<div>" * 6_000] * 21)
    arguments = [
        "run",
        "fineweb-resiliparse",
        "-i",
        str(path),
        "-o",
        str(tmp_path / "out"),
        "--runner",
        "inprocess",
        "--quiet",
    ]
    code, out, err = inside(monkeypatch, capsys, *arguments)
    assert (code, out) == (3, "")
    assert "--allow-quarantined" in err


@pytest.mark.usefixtures("interruptible")
def test_interrupted_is_exit_code_130_and_says_how_to_go_on(small_crawl: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    started = subprocess.Popen(
        [
            Path(sys.executable).with_name("gristmill"),
            "run",
            "fineweb",
            "-i",
            str(small_crawl),
            "-o",
            out,
            "--runner",
            "inprocess",
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert started.stderr is not None
    for line in started.stderr:
        if b"process:" in line:
            break
    time.sleep(0.2)
    os.kill(started.pid, signal.SIGINT)
    output, errors = started.communicate(timeout=60)
    assert (started.returncode, output) == (130, b"")
    assert b"the same command continues" in errors


def test_control_and_hidden_characters_are_made_visible() -> None:
    assert visible("a\x1b[31m\u202eb\u200b\tc\n") == "a\\u{1b}[31m\\u{202e}b\\u{200b}\tc\n"


@pytest.mark.parametrize("length", [40, 200])
def test_names_stay_whole_where_they_leave_the_other_columns_room(
    length: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("FORCE_COLOR", "1")
    says = "what a rule removes " * 6
    table([("name", "left"), ("says", "left")], [("n" * length, says)])
    shown = capsys.readouterr().out
    assert ("n" * length in shown) == (length == 40)
    assert "what a rule removes what" in shown


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("64MiB", 64 << 20), ("1.5 GB", 1_500_000_000), ("8k", None)]
)
def test_sizes_are_read_with_their_units(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(Exception, match="is not a size"):
            byte_count(text)
    else:
        assert byte_count(text) == size


def test_every_command_has_help() -> None:
    runner = CliRunner()
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert {"demo", "run", "plan", "inspect", "show", "verify", "explain", "retry", "gc", "doctor"} <= set(names)
    for name in names:
        shown = runner.invoke(app, [name, "--help"])
        assert shown.exit_code == 0
        assert len(shown.output.splitlines()) > 5
