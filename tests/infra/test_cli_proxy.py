"""The commands on small models, typed one after another: pool, train, panel, score, export-model, calibrate."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from filters.errors import InputError, OutputError
from infra import calibration
from infra.calibration import own_panel, sweep
from infra.cli import main
from infra.local_store import LocalStore
from infra.options import plain_count
from infra.pool_files import read_mask
from infra.proxies import export_model, named, panel_of, train_models
from proxy_eval.export import load_model
from proxy_eval.panel import documents, read_panel
from proxy_eval.pool import read_pool
from proxy_eval.tokenizer import decode
from tests.annotated_run import annotated_run

TASKS = {"copa": {"premise": "The mill stood still.", "question": "cause", "choice1": "The brook was frozen.",
                  "choice2": "The baker was asleep.", "idx": 0, "label": 0}}  # fmt: skip


@pytest.fixture(scope="module")
def out(small_crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return annotated_run(small_crawl, tmp_path_factory.mktemp("typed") / "out").store.url


@pytest.fixture(scope="module")
def domains(make_sentences: Callable[[int], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains of held-out texts, and one of a task."""
    folder = tmp_path_factory.mktemp("domains")
    for first, name in ((10_000, "mills"), (20_000, "rivers")):
        (folder / name).mkdir()
        lines = [json.dumps({"id": str(at), "text": make_sentences(first + at)}) for at in range(6)]
        (folder / name / "texts.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "mills" / "LICENSE").write_text("CC0-1.0\n")
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    for name, row in TASKS.items():
        (folder / name).mkdir()
        (folder / name / "validation.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps({**row, 'label': 1})}\n")
    return folder


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command line in this process, see that it ends well, and return what it printed."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["gristmill", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert not end.value.code, said.err
        return said.out

    return run


@pytest.mark.full
def test_from_a_run_to_scores_and_a_folder_for_transformers(
    out: str, domains: Path, tasks: Path, tmp_path: Path, typed: Callable[..., str]
) -> None:
    pool, models, panel = tmp_path / "pool", tmp_path / "models", tmp_path / "panel"
    said = json.loads(typed("pool", out, "--out", pool, "--vocabulary", 400, "--workers", 1, "--quiet", "--json"))
    assert said["sha256"] == read_pool(pool).sha256
    options = ("--size", "1M", "--context", 32, "--tokens", "5k", "--workers", 1, "--quiet")
    arms = ("--mask", "all", "--mask", "rules", "--seed", 1, "--seed", 2)
    trained = json.loads(typed("train", pool, "--out", models, *arms, *options, "--json"))
    assert [(one["arm"], one["seed"]) for one in trained] == [("all", 1), ("all", 2), ("rules", 1), ("rules", 2)]
    assert "all-1M-5000-seed1" in typed("train", pool, "--out", models, *arms, *options)  # nothing is trained again

    built = json.loads(typed("panel", "build", domains, "--out", panel, "--against", out, "--json"))
    assert [one["licence"] for one in built["domains"]] == ["CC0-1.0", "not stated"]
    scores = json.loads(
        typed("score", models, "--panel", panel, "--tasks", tasks, "--task", "copa", "--quiet", "--json")
    )
    for one in scores:
        bits = [domain["bits_per_byte"] for domain in one["panel"]["domains"].values()]
        assert one["panel"]["macro"] == pytest.approx(sum(bits) / 2)
        assert one["tasks"]["by_task"]["copa"]["acc"]["mean"] == 0.5  # the same item with both answers right
        folder = models / "scores" / one["model"]
        table = pq.read_table(folder / "panel.parquet")
        assert table.num_rows == sum(len(documents(read_panel(panel), name)[0]) for name in ("mills", "rivers"))
        nats, size = (sum(table.column(name).to_pylist()) for name in ("nats", "bytes"))
        assert min(bits) <= nats / size / math.log(2) <= max(bits)
        assert pq.read_table(folder / "items.parquet").num_rows == 2
        assert json.loads((folder / "scores.json").read_text())["panel"]["macro"] == one["panel"]["macro"]
    shown = typed("score", models, "--panel", panel, "--tasks", tasks, "--quiet")
    assert "bits per byte" in shown and "copa" in shown and "not there: " in shown

    typed("export-model", models, "--model", "rules-1M-5000-seed2", "--to", tmp_path / "hf")
    weights, shape = load_model(tmp_path / "hf")
    assert shape.context == 32 and len(weights["model.norm.weight"]) == 1
    assert not (tmp_path / "hf" / "metrics.parquet").exists()
    with pytest.raises(OutputError, match="not empty"):
        export_model(str(models), tmp_path / "hf", model="rules-1M-5000-seed2")


def test_a_sweep_plants_shuffled_documents_in_one_arm_and_holds_its_panel_out_of_both(
    out: str, tmp_path: Path, typed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(calibration, "SHUFFLED_SHARE", 0.3)
    monkeypatch.setattr(calibration, "HELD_OUT_SHARE", 0.2)
    typed("pool", out, "--out", tmp_path / "pool", "--vocabulary", 400, "--workers", 1, "--quiet")
    pool, store = str(tmp_path / "pool"), LocalStore(tmp_path / "sweep")
    opened = read_pool(tmp_path / "pool")
    trials = sweep(store, pool, size="1M", tokens=10_000, rates=[1e-3, 4e-3], seeds=[1, 2], held_out=True)
    assert [(one.arm, one.seed) for one in trials] == [(arm, seed) for arm in ("all", "clean") for seed in (1, 2)] * 2
    arms = {one.arm: one.sources[0] for one in trials}
    read, clean = (read_mask(store, str(arms[arm].mask), len(opened)) for arm in ("all", "clean"))
    planted = read_mask(store, str(arms["all"].shuffled), len(opened))
    assert arms["clean"].shuffled is None and (clean == (read & ~planted)).all()
    assert 0 < (read & planted).sum() < read.sum()
    panel = read_panel(own_panel(pool))
    texts = {decode(opened.tokenizer, opened.tokens(int(at))) for at in np.flatnonzero(~read & (opened.counts > 0))}
    assert set(documents(panel, "pool")[1]) == texts != set()
    assert own_panel(pool) == panel.folder


@pytest.mark.full
def test_calibrate_from_end_to_end(out: str, tmp_path: Path, typed: Callable[..., str]) -> None:
    pool = tmp_path / "pool"
    typed("pool", out, "--out", pool, "--vocabulary", 400, "--workers", 1, "--quiet")
    options = ("--tokens", "30k", "--rate", "1e-3", "--rate", "2e-3", "--seeds", 2, "--workers", 1, "--quiet", "--json")
    found = json.loads(typed("calibrate", pool, *options))
    assert found["schedule"] == "wsd"
    assert [one["learning_rate"] for one in found["rates"]] == [1e-3, 2e-3]
    assert all(len(one["all"]) == len(one["clean"]) == 2 for one in found["rates"])
    chosen = (pool / "calibrations" / "1M-30000.json").is_file()
    assert chosen == (found["learning_rate"] is not None) and (pool / "calibrations" / "1M-30000.html").is_file()


@pytest.mark.parametrize(("said", "count"), [("20M", 20_000_000), ("1.5B", 1_500_000_000), ("5_000", 5000)])
def test_a_number_of_tokens_is_read(said: str, count: int) -> None:
    assert plain_count(said) == count


def test_what_is_said_wrongly_is_named(out: str, domains: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--domain mills: write NAME=VALUE"):
        named("--domain", "mills")
    with pytest.raises(InputError, match="say what the panel is made of"):
        panel_of(tmp_path / "panel", None)
    with pytest.raises(OutputError, match="no pool"):
        train_models(str(tmp_path / "nowhere"), str(tmp_path / "models"), quiet=True)


def test_no_other_command_loads_torch() -> None:
    code = "import sys, infra.cli, infra.commands, infra.perform, infra.proxies; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
