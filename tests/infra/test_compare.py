"""What `gristmill compare` says of an experiment that a trainer of known truth has run on a real pool."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from filters.errors import OutputError
from infra import cli_compare, experiments
from infra.ablate import Measured, Run, ablate
from infra.cli import app, main
from infra.commit import FileEntry
from infra.comparison import POINTS, Report, band_of, compare, comparison_json, deciding_runs, read_report
from infra.experiment_findings import results_of
from infra.experiment_plan import Plan
from infra.experiment_results import RESULTS, Bounds, encoded, read_results
from infra.experiments import plan_of, reads_of
from infra.local_store import LocalStore
from infra.pool import make_pool, run_of
from infra.pool_files import read_said
from infra.proxies import panel_of
from infra.removed_samples import EXCERPT, SHOWN, some_rows
from infra.repetition import comment, repetition
from infra.score_export import export_scores
from infra.training_work import METRICS
from proxy_eval.experiment import Experiment, parse_experiment
from tests.annotated_run import annotated_run
from tests.conftest import warc_record
from tests.infra.test_ablate import Trainer

TOKENS, STEPS = 20_000, 430
GOOD, IDLE = "c4.curly_bracket", "lorem"
RULES = {GOOD: (GOOD,), IDLE: ("c4.lorem_ipsum_first", "c4.lorem_ipsum")}
"""Left out by each arm: all rules that reject the pages that it reads and the control does not."""
HOSTILE = "\x1b[31mred\x1b[0m"


@pytest.fixture(scope="module")
def pool(small_crawl: Path, make_page: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside the small crawl's pages some that one rule alone removes, and some that another does."""
    folder = tmp_path_factory.mktemp("compare")
    crawl = folder / "crawl" / "CC-MAIN-2024-10"
    crawl.mkdir(parents=True)
    for path in small_crawl.iterdir():
        (crawl / path.name).symlink_to(path)
    for file, first, words in (
        (8, 90, "The old mill { stands } near the bridge."),
        (9, 110, "Lorem ipsum dolor is what a printer sets where a text is to come."),
    ):
        pages = [make_page(at).replace("</article>", f"<p>{words}</p></article>") for at in range(first, first + 9)]
        records = [warc_record(1000 * file + at, page.encode()) for at, page in enumerate(pages)]
        (crawl / f"part-{file}.warc.gz").write_bytes(b"".join(records))
    made = annotated_run(crawl, folder / "run")
    make_pool(made.store.url, folder / "pool", vocabulary=400, runner="inprocess", quiet=True)
    (folder / "domains" / "mills").mkdir(parents=True)
    (folder / "domains" / "mills" / "one.txt").write_text("What stands here is held out of every pool.\n" * 9)
    panel_of(folder / "panel", folder / "domains")
    return folder


def experiment(folder: Path, **changed: Any) -> Experiment:
    lines = [
        "name: small",
        f"says: {json.dumps(f'what two rules are worth {HOSTILE}')}",
        f"pool: {folder / 'pool'}",
        f"panel: {folder / 'panel'}",
        f"bank: {folder / 'bank.json'}",
        "placebos: {garbage: 0.4}",  # of so few documents, whose keys hang on where the test lies
        "arms:",
        *(
            f"  - {{name: {name}, mask: '{','.join(f'without:{rule}' for rule in rules)}'}}"
            for name, rules in RULES.items()
        ),
        "rungs:",
        f"  - {{size: 1M, tokens: {TOKENS}, seeds: 6, learning_rates: [1e-3, 2e-4], context: 32, "
        "expected: {tokens_per_second: 1e3}}",
    ]
    found = parse_experiment("\n".join(lines), where="small.yaml")
    return Experiment.model_validate({**found.model_dump(), **changed})


def ran(plan: Plan, out: Path, **truth: float) -> Report:
    """Run a plan with models that are nothing but their losses and the documents that they read."""
    store = LocalStore(out)
    trainer = Trainer(plan, **{GOOD: 0.3, IDLE: 0.0, **truth})

    def measure(runs: list[Run]) -> list[Measured]:
        found = trainer(runs)
        for run, one in zip(runs, found, strict=True):
            for label in one.labels:
                put_model(store, plan, run, label)
        return found

    state = ablate(plan, store, measure, on_look=lambda state: None)  # type: ignore[arg-type]
    store.replace(RESULTS, encoded(results_of(state)))
    return read_report(str(out))


def put_model(store: LocalStore, plan: Plan, run: Run, label: str) -> None:
    folder = store.root / "models" / label
    folder.mkdir(parents=True, exist_ok=True)
    steps = np.arange(1, STEPS + 1)
    losses = (5 - np.log(steps) / 3 + 0.01 * run.seed).astype(np.float32)
    columns = [steps, steps * 10, losses, np.full(STEPS, run.rate)]
    pq.write_table(pa.table(columns, schema=METRICS), folder / "metrics.parquet")
    path = folder / "metrics.parquet"
    entry = FileEntry(path=f"models/{label}/metrics.parquet", sha256="", bytes=path.stat().st_size, rows=STEPS)
    weights = replace(entry, path=f"models/{label}/model.safetensors", sha256="w" * 64)
    said = {
        "arm": run.arm,
        "seed": run.seed,
        "stopped": None,
        "parameters": 1_400_000,
        "sources": [asdict(reads_of(store, plan.arm(run.arm)))],
        "files": {"metrics.parquet": asdict(entry), "model.safetensors": asdict(weights)},
    }
    (folder / "run.json").write_text(json.dumps(said))


@pytest.fixture(scope="module")
def plan(pool: Path) -> Plan:
    return plan_of(experiment(pool))


@pytest.fixture(scope="module")
def report(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return ran(plan, tmp_path_factory.mktemp("out") / "experiment")


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Type a command; how it ended, what it printed, and what it complained of."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gristmill", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")


def plain_lines(printed: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", printed).splitlines()


def test_a_report_draws_every_arm_over_its_tokens_with_the_spread_of_its_seeds(report: Report) -> None:
    (rung,) = report.results.rungs
    bands = report.curves[0]
    assert set(bands) == {"control", GOOD, IDLE, "same", "random", "garbage"}
    for band in bands.values():
        assert len(band.tokens) == len(band.mean) == len(band.low) == len(band.high) == POINTS
        assert band.tokens[-1] == 10 * STEPS and list(band.tokens) == sorted(set(band.tokens))
        assert all(low <= mean <= high for low, mean, high in zip(band.low, band.mean, band.high, strict=True))
    seeds = {run.seed for run in report.results.arms[0].runs if run.learning_rate == rung.learning_rates[0]}
    assert bands[GOOD].high[0] - bands[GOOD].low[0] == pytest.approx(0.01 * (max(seeds) - min(seeds)), abs=1e-5)
    assert report.notes == ()


def test_a_band_is_of_the_seeds_that_live_and_ends_with_the_last() -> None:
    tokens = np.arange(1, 11)
    whole, stopped = np.linspace(4.0, 3.1, 10), np.linspace(6.0, 5.1, 10)
    stopped[6:] = np.nan
    both = band_of([(tokens, whole), (tokens, stopped)])
    assert both.tokens == tuple(range(1, 11))
    assert both.mean[5] == pytest.approx(4.5) and both.mean[6] == pytest.approx(3.4) and both.high[6] == both.low[6]
    assert band_of([(tokens, stopped)]).tokens == tuple(range(1, 7))
    averaged = band_of([(np.arange(1, 1_001), np.arange(1, 1_001) * 1.0)])
    assert averaged.tokens[:2] == (5, 10) and averaged.mean[:2] == (3.0, 8.0)


def test_samples_are_the_documents_that_a_rule_removes_with_every_rule_that_rejects_them(
    report: Report, pool: Path, plan: Plan
) -> None:
    said = read_said(str(pool / "pool"))
    made = run_of(str(pool / "pool"), said)
    rows = pa.concat_tables([pq.read_table(pool / "run" / entry.path) for entry in made.files["text"]])
    texts = {key.hex(): text for key, text in zip(rows["key"].to_pylist(), rows["text"].to_pylist(), strict=True)}
    keys = list(texts)
    for name in (GOOD, IDLE):
        removed = plan.arm(name).mask & ~plan.arm("control").mask
        assert len(report.samples[name]) == min(SHOWN, removed.sum()) > 0
        for sample in report.samples[name]:
            assert removed[keys.index(sample.key)]
            assert sample.rules == RULES[name] and sample.url is not None and "mill.example" in sample.url
            assert sample.text == texts[sample.key][:EXCERPT]
    assert {one.key for one in report.samples[GOOD]} & {one.key for one in report.samples[IDLE]} == set()
    assert read_report(report.place).samples == report.samples


def test_rows_are_chosen_from_all_over_and_always_the_same() -> None:
    removed = np.ones(100_000, np.bool_)
    rows = some_rows(removed)
    assert len(rows) == SHOWN and (rows == some_rows(removed)).all() and np.ptp(rows) > 30_000
    few = np.zeros(10, np.bool_)
    few[[2, 7]] = True
    assert some_rows(few).tolist() == [2, 7] and len(some_rows(np.zeros(3, np.bool_))) == 0


def test_what_is_gone_is_said_and_the_verdicts_stand(report: Report, pool: Path, tmp_path: Path) -> None:
    shutil.copytree(report.place, tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "models" / report.results.arms[0].runs[0].label)
    some = read_report(str(tmp_path / "moved"))
    assert any("1 of" in note and "models are not there" in note for note in some.notes)
    assert any(f"none of {GOOD}" in note for note in some.notes) and some.samples[IDLE] == report.samples[IDLE]
    (pool / "run").rename(pool / "elsewhere")
    try:
        without = read_report(report.place)
    finally:
        (pool / "elsewhere").rename(pool / "run")
    assert without.results == report.results and without.curves == report.curves and without.samples == {}
    assert any("samples: none can be shown" in note for note in without.notes)
    assert any("gone, or changed since" in line for line in without.repeat)
    for part in (pool / "run" / "text").glob("*.parquet"):
        part.rename(part.with_suffix(".away"))
    try:
        unread = read_report(report.place)
    finally:
        for part in (pool / "run" / "text").glob("*.away"):
            part.rename(part.with_suffix(".parquet"))
    assert unread.results == report.results and unread.samples == {}
    assert [note.split(".")[0] for note in unread.notes] == ["samples: none can be shown"]
    assert not any("gone" in line for line in unread.repeat)  # the run itself is there


def test_runs_of_the_pilot_alone_stand_in_no_curve(report: Report) -> None:
    (rung,) = report.results.rungs
    control = replace(
        report.results.control, runs=tuple(replace(run, pilot=False) for run in report.results.control.runs)
    )
    every = deciding_runs(control, rung)
    assert len(every) > 1 and {run.tokens for run in every} == {TOKENS}
    piloted = [replace(run, pilot=run.seed == every[0].seed) for run in control.runs]
    assert deciding_runs(replace(control, runs=tuple(piloted)), rung) == every[1:]


def test_where_there_is_no_experiment_the_command_that_makes_one_is_named(
    tmp_path: Path, typed: Callable[..., tuple[int, str, str]]
) -> None:
    with pytest.raises(OutputError, match="gristmill ablate EXPERIMENT"):
        read_report(str(tmp_path))
    code, _, complaint = typed("compare", tmp_path)
    assert code == 1 and "no experiment" in complaint


def test_what_is_to_be_repeated_is_a_script_that_this_version_understands(report: Report, plan: Plan) -> None:
    group: Any = typer.main.get_command(app)
    commands = [shlex.split(line.split("|")[0]) for line in report.repeat if line.startswith("gristmill ")]
    assert [words[1] for words in commands] == ["run", "pool", "compare", "ablate"]
    for _, name, *arguments in commands:
        with group.commands[name].make_context(name, arguments):
            pass
    assert all(line.startswith(("gristmill ", "# ")) for line in report.repeat)
    pins = "\n".join(report.repeat)
    for sha256 in (plan.experiment.sha256, plan.panel_sha256, plan.arm("control").pool_sha256):
        assert sha256 in pins
    assert "seeds 1-" in pins and "learning rates 0.001, 0.0002" in pins and "numpy " in pins
    assert Experiment.model_validate(report.results.experiment).sha256 == plan.experiment.sha256


def test_nothing_that_another_wrote_into_results_is_a_command_of_the_script(report: Report, tmp_path: Path) -> None:
    live = "1M; touch live\ntouch live #`touch live`$(touch live)"
    said = json.loads(json.dumps(report.results.experiment))
    said |= {"pool": live, "panel": live, "arms": [{**arm, "pool": f"{live}'"} for arm in said["arms"]]}
    (rung,) = report.results.rungs
    rung = replace(rung, size=live, name=live, calibration={"rates": [], "panel_sha256": "p"})
    identity = {**report.results.identity, "panel": "p", "tasks": live}
    found = replace(
        report.results, name=live, experiment=said, experiment_sha256=live, rungs=(rung,), identity=identity
    )
    script = "\n".join([*repetition(live, found), comment(live)])
    asked = f"gristmill() {{ echo $1 >> asked; }}; jq() {{ :; }}\n{script}"
    subprocess.run(["bash", "-c", asked], cwd=tmp_path, check=True, capture_output=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["asked", "experiment.yaml"]
    assert (tmp_path / "asked").read_text().split() == ["calibrate", "compare", "ablate"]


def test_two_experiments_are_compared_where_they_judged_the_same(report: Report, pool: Path, tmp_path: Path) -> None:
    again = compare(report, report)
    assert [one.note for one in again.changes] == ["same pool, control, models and metric"] * 2
    rung = experiment(pool).rungs[0].model_copy(update={"tokens": 25_000})
    other = ran(plan_of(experiment(pool, rungs=[rung], metric="panel/mills", rope=0.02)), tmp_path / "other")
    later = replace(other.results.arms[0], name="later")
    grown = replace(other, results=replace(other.results, arms=(other.results.arms[0], later)))
    notes = {one.arm: one.note for one in compare(report, grown).changes}
    assert notes[GOOD] == "not comparable: metric panel and panel/mills; tokens 20,000 and 25,000"
    assert notes[IDLE] == "only in the first" and notes["later"] == "only in the second"
    assert compare(report).changes == ()


def test_intervals_that_lie_apart_and_other_promises_are_said(report: Report) -> None:
    first = report.results
    moved = replace(first.arms[0], doublings=replace(first.arms[0].doublings, low=0.8, high=0.9))
    pooled = replace(first.arms[1], pool="f" * 64)
    second = replace(first, arms=(moved, pooled), error=0.1)
    longer = {**first.identity, "rungs": [[*first.identity["rungs"][0][:3], 64]]}
    apart, elsewhere = compare(report, replace(report, results=second)).changes
    assert apart.note.endswith("the intervals lie apart; verdicts by another ROPE or error")
    assert elsewhere.note == "not comparable: another pool"
    (change, _) = compare(report, replace(report, results=replace(first, identity=longer))).changes
    assert change.note == "not comparable: context 32 and 64"


def test_an_experiment_reads_from_its_verdicts_to_its_price(
    report: Report, typed: Callable[..., tuple[int, str, str]]
) -> None:
    code, printed, _ = typed("compare", report.place)
    lines = plain_lines(printed)
    assert code == 0 and HOSTILE not in printed and "\\u{1b}[31mred" in printed
    (good,) = (line for line in lines if line.startswith(GOOD) and "KEEP" in line)
    assert re.search(r"KEEP +\+\d+\.\d % +\+\d+\.\d % +\+\d+\.\d % +\d", good)
    assert lines.index(good) < next(at for at, line in enumerate(lines) if line.startswith("garbage"))
    (yields,) = (line for line in lines if line.startswith(GOOD) and line is not good and "KEEP" not in line)
    assert report.results.arms[0].yields.alone is not None
    assert str(report.results.arms[0].yields.alone.documents) in yields.split()
    assert any(line.startswith("cost ") and "planned at most" in line for line in lines)
    assert any(line.startswith("noise ") and "rho" in line for line in lines)


def test_noise_that_no_pilot_measured_is_said_to_be_planned(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    (rung,) = report.results.rungs
    for fixed, said in (
        (replace(rung.fixed, rho_low=0.2, rho_high=0.9), False),
        (replace(rung.fixed, rho_low=None, rho_high=None), True),
    ):
        cli_compare.show_rung(replace(rung, fixed=fixed))
        (noise,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("noise"))
        assert ("as planned, no pilot" in noise) is said


def test_ablate_ends_with_what_compare_prints(
    report: Report, pool: Path, typed: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    path = tmp_path / "small.json"  # which is YAML
    path.write_text(json.dumps(experiment(pool).model_dump(mode="json")))
    monkeypatch.setattr(experiments, "run_experiment", lambda plan, out, **how: report.results)
    code, printed, _ = typed("ablate", path, "--out", report.place, "--quiet")
    again, shown, _ = typed("compare", report.place)
    assert code == again == 0 and printed.startswith(shown) and "results.json" in printed.removeprefix(shown)


def test_sixty_arms_are_legible_in_eighty_columns(
    report: Report, narrow: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_compare, "width_here", lambda: 80)
    some = report.results.arms[0]
    undecided = replace(some, verdict="UNDECIDED", next_look=NEXT)
    arms = [replace(some, name=f"gopher_repetition.top_{at}_gram", share=share(at)) for at in range(30)]
    arms += [replace(undecided, name=f"fineweb.some_rule_of_a_long_name_{at}", share=share(-at)) for at in range(30)]
    cli_compare.show(compare(replace(report, results=replace(report.results, arms=tuple(arms)))))
    lines = plain_lines(capsys.readouterr().out)
    assert max(map(len, lines)) <= 80
    ranked = [line.split()[0] for line in lines if line.startswith("gopher") and "KEEP" in line]
    assert ranked == [f"gopher_repetition.top_{at}_gram" for at in reversed(range(30))]
    assert sum("…" in line for line in lines) == 0


NEXT = {"cost": {"runs": 2, "tokens": 3e6, "hours": 0.25, "money": 1.5}, "seeds": 3}


def share(at: int) -> Bounds:
    return Bounds(estimate=at / 100, low=None, high=None)


def test_what_is_beyond_the_curve_is_not_said_as_a_number() -> None:
    assert cli_compare.interval(Bounds(estimate=1.0, low=0.4, high=None)) == ("> +100 %", "+32.0 %", "> +100 %")
    assert cli_compare.interval(Bounds(estimate=-1.0, low=None, high=-1.0)) == ("< -50 %", "< -50 %", "-50.0 %")
    assert cli_compare.interval(Bounds(estimate=None, low=None, high=None)) == ("", "", "")


def test_a_void_experiment_says_so_first_and_fails(
    plan: Plan, tmp_path: Path, typed: Callable[..., tuple[int, str, str]]
) -> None:
    void = ran(plan, tmp_path / "void", random=0.5)
    code, printed, _ = typed("compare", void.place)
    lines = plain_lines(printed)
    assert code == 1 and lines[0].startswith("VOID") and "random" in lines[0]
    assert not any(re.match(r"[\w.]+ +(KEEP|REJECT|NEUTRAL|UNDECIDED) ", line) for line in lines)
    assert any(re.match(rf"{GOOD} +void ", line) for line in lines)
    code, printed, _ = typed("compare", void.place, "--json")
    assert code == 1 and json.loads(printed)["reports"][0]["results"]["status"] == "void"
    assert compare(void, void).changes[0].note.endswith("; no verdict of the first or the second holds")


def test_json_is_all_of_it(report: Report, typed: Callable[..., tuple[int, str, str]]) -> None:
    code, printed, _ = typed("compare", report.place, report.place, "--json")
    found = json.loads(printed)
    assert code == 0 and found == json.loads(json.dumps(comparison_json(compare(report, report))))
    assert set(found) == {"reports", "changes"} and len(found["reports"]) == 2
    assert set(found["reports"][0]) == {"place", "results", "curves", "samples", "repeat", "notes"}
    assert read_results(json.dumps(found["reports"][0]["results"]).encode()) == report.results


def test_two_experiments_stand_side_by_side(report: Report, typed: Callable[..., tuple[int, str, str]]) -> None:
    code, printed, _ = typed("compare", report.place, report.place)
    lines = plain_lines(printed)
    assert code == 0 and lines[0].startswith("first ") and any(line.startswith("second ") for line in lines)
    assert sum("same pool, control, models and metric" in line for line in lines) == 2


def test_where_no_model_has_scores_the_command_that_gives_some_is_named(report: Report, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="gristmill score"):
        export_scores(report.place, tmp_path, "lm-eval")


def test_the_experiment_in_the_documents_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "verdicts.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    found = parse_experiment(said, where="docs/verdicts.md")
    assert [arm.in_base for arm in found.arms] == [True, False] and found.rungs[0].tokens == 2_000_000
