"""A run from WARC to Parquet: one dataset hash whatever the workers, order, cuts and failures."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from filters.errors import InputChanged, OutputError, QuarantineBudgetExceeded, RecipeError, VerifyFailed
from infra.commands import retry_quarantined, run_recipe
from infra.commit import Manifest, committed
from infra.demo_pages import DemoPage, hostile_pages
from infra.local_store import LocalStore
from infra.look import explain, funnel_rows, rows_of
from infra.perform import perform
from infra.plan import make_plan
from infra.run import Finished, read_run, run_plan
from infra.runner import InProcess
from infra.store import open_store
from infra.verify import collect, verify
from infra.work import Report, Task
from pipelines.decide import Decider
from pipelines.extract import Parser
from pipelines.process import TaskOptions, process
from pipelines.recipe import Extract, Recipe, load_recipe
from pipelines.record import Slice
from pipelines.schema import DATASET
from pipelines.sources import cut, find_sources

RESILIPARSE = load_recipe("fineweb-resiliparse")


def run(inputs: Sequence[Path | str], out: Path, *, recipe: Recipe = RESILIPARSE, **options: object) -> Finished:
    settings = {"runner": "inprocess", "quiet": True, "task_bytes": 8_000} | options
    return run_recipe(recipe, [str(one) for one in inputs], out, **settings)  # type: ignore[arg-type]


def test_a_run_keeps_english_pages_and_accounts_for_every_record(small_crawl: Path, tmp_path: Path) -> None:
    made = run([small_crawl], tmp_path / "out")
    accounts = made.accounts
    assert (accounts.records, accounts.documents, accounts.skipped) == (120, 60, {"request": 60})
    assert accounts.kept == 60 - sum(accounts.dropped.values()) > 30
    assert accounts.dropped["language.wanted"] == 9
    assert verify(made) > 0
    table = pq.read_table(Path(made.store.url) / "dataset" / "part-00000.parquet")
    assert table.schema.equals(DATASET)
    row = table.to_pylist()[0]
    assert row["id"] == "<urn:uuid:00000000-0000-0000-0000-000000000000>"
    assert row["url"] == "https://mill.example/0"
    assert row["dump"] == "CC-MAIN-2024-10"
    assert row["date"] == "2024-03-01T00:00:00Z"
    assert row["language"] == "en"
    assert row["token_count"] > 500
    assert sum(table.column("token_count").to_pylist()) == accounts.tokens


def test_the_hash_is_one_for_task_sizes_and_orders_of_input(small_crawl: Path, tmp_path: Path) -> None:
    files = sorted(small_crawl.iterdir())
    hashes = {
        run(order, tmp_path / f"out-{number}-{size}", task_bytes=size).dataset_sha256
        for number, order in enumerate((files, files[::-1], [small_crawl]))
        for size in (3_000, 1 << 20)
    }
    assert len(hashes) == 1


def test_the_dropped_sample_does_not_depend_on_the_cut(small_crawl: Path, tmp_path: Path) -> None:
    made = [run([small_crawl], tmp_path / str(size), task_bytes=size, dropped_samples=4) for size in (3_000, 1 << 20)]
    assert made[0].files["dropped"][0].sha256 == made[1].files["dropped"][0].sha256
    rows = list(rows_of(made[0], "dropped", rule="language.wanted"))
    assert len(rows) == 4
    assert all("Mühle" in row["text"] and row["value"] < 0.65 and row["bounds"] == "(0.65, ∞)" for row in rows)


def test_all_dropped_documents_can_be_kept(small_crawl: Path, tmp_path: Path) -> None:
    made = run([small_crawl], tmp_path / "out", dropped_samples=None)
    assert len(list(rows_of(made, "dropped"))) == sum(made.accounts.dropped.values())


@pytest.mark.parametrize("seed", ["0", *(pytest.param(seed, marks=pytest.mark.full) for seed in ("1", "4242"))])
def test_the_hash_does_not_depend_on_the_hash_seed_of_python(small_crawl: Path, tmp_path: Path, seed: str) -> None:
    expected = run([small_crawl], tmp_path / "here").dataset_sha256
    command = [sys.executable, "-m", "infra.cli", "run", "fineweb-resiliparse", "-i", str(small_crawl), "--json"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "there"), "--runner", "inprocess", "--quiet", "--task-size", "5000"],
        env=os.environ | {"PYTHONHASHSEED": seed},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["dataset_sha256"] == expected


def test_a_second_run_does_nothing_and_another_recipe_only_what_it_changes(small_crawl: Path, tmp_path: Path) -> None:
    first = run([small_crawl], tmp_path / "out")
    assert first.done_now > 3
    again = run([small_crawl], tmp_path / "out")
    assert (again.done_now, again.dataset_sha256) == (0, first.dataset_sha256)
    said = RESILIPARSE.model_dump(mode="json")
    said["steps"][3]["rules"]["set"] = {"gopher_quality.words_low": {"low": 5_000.0}}
    other = run([small_crawl], tmp_path / "out", recipe=Recipe.model_validate(said))
    assert other.done_now == first.done_now
    assert other.accounts.kept == 0
    back = run([small_crawl], tmp_path / "out")
    assert (back.done_now, back.dataset_sha256) == (0, first.dataset_sha256)
    assert verify(back) > 0


def test_one_more_file_leaves_the_tasks_of_the_others_done(small_crawl: Path, tmp_path: Path) -> None:
    shutil.copytree(small_crawl, tmp_path / "crawl")
    (tmp_path / "crawl" / "part-2.warc.gz").rename(tmp_path / "later.warc.gz")
    first = run([tmp_path / "crawl"], tmp_path / "out", task_bytes=1)
    (tmp_path / "later.warc.gz").rename(tmp_path / "crawl" / "part-2.warc.gz")
    both = run([tmp_path / "crawl"], tmp_path / "out", task_bytes=1)
    assert both.done_before == first.done_now


def test_the_limit_takes_the_first_documents(small_crawl: Path, tmp_path: Path) -> None:
    made = run([small_crawl], tmp_path / "out", limit=23)
    assert made.accounts.documents == 23
    urls = pq.read_table(Path(made.store.url) / "dataset" / "part-00000.parquet").column("url").to_pylist()
    assert urls[0] == "https://mill.example/0"
    assert urls[-1] == "https://mill.example/22"
    assert verify(made) > 0


class Interrupted(InProcess):
    """A runner that dies after some tasks: what was committed stays."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.performed = 0

    def run(self, tasks: Sequence[Task], report: Report) -> Iterator[Manifest]:
        for task in tasks:
            if self.performed == self.after:
                raise KeyboardInterrupt
            self.performed += 1
            yield perform(task, report)


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_run_that_died_is_continued_and_only_the_rest_is_done(small_crawl: Path, tmp_path: Path, after: int) -> None:
    whole = run([small_crawl], tmp_path / "whole")
    options = TaskOptions(recipe=RESILIPARSE)
    plan = make_plan([str(small_crawl)], LocalStore(tmp_path / "out"), options, task_bytes=8_000)
    quiet = {"report": lambda *_: None, "on_stage": lambda *_: None}
    with pytest.raises(KeyboardInterrupt), Interrupted(after) as runner:
        run_plan(plan, LocalStore(tmp_path / "out"), options, runner, **quiet)  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="no finished run"):
        read_run(LocalStore(tmp_path / "out"))
    continued = run([small_crawl], tmp_path / "out")
    assert continued.done_before == after
    assert continued.dataset_sha256 == whole.dataset_sha256
    assert verify(continued) > 0


def test_two_attempts_of_every_task_make_one_output(small_crawl: Path, tmp_path: Path) -> None:
    options = TaskOptions(recipe=RESILIPARSE)
    plan = make_plan([str(small_crawl)], LocalStore(tmp_path / "out"), options, task_bytes=8_000)
    with InProcess() as runner:
        first = list(runner.run(plan.tasks, lambda *_: None))
        assert list(runner.run(plan.tasks, lambda *_: None)) == first
    collected = collect(LocalStore(tmp_path / "out"), older_than=-1)
    assert collected.files == 5 * len(plan.tasks)
    assert verify(run([small_crawl], tmp_path / "out")) > 0


def test_an_input_that_changes_after_the_plan_fails_its_task_by_name(small_crawl: Path, tmp_path: Path) -> None:
    shutil.copytree(small_crawl, tmp_path / "crawl")
    options = TaskOptions(recipe=RESILIPARSE)
    plan = make_plan([str(tmp_path / "crawl")], LocalStore(tmp_path / "out"), options)
    with (tmp_path / "crawl" / "part-1.warc.gz").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputChanged, match=r"part-1\.warc\.gz has changed"), InProcess() as runner:
        list(runner.run(plan.tasks, lambda *_: None))


def test_verify_names_a_flipped_byte_a_lost_part_and_a_wrong_account(small_crawl: Path, tmp_path: Path) -> None:
    made = run([small_crawl], tmp_path / "out")
    part = Path(made.store.url) / "dataset" / "part-00000.parquet"
    data = bytearray(part.read_bytes())
    part.unlink()
    with pytest.raises(VerifyFailed, match=r"part-00000\.parquet is gone"):
        verify(made)
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(VerifyFailed, match=r"part-00000\.parquet is not what was committed"):
        verify(made)
    made = run([small_crawl], tmp_path / "other")
    with pytest.raises(VerifyFailed, match="not the sum"):
        verify(replace(made, accounts=replace(made.accounts, kept=1)))


def test_a_strange_folder_is_not_written_into(small_crawl: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"thesis\.tex"):
        run([small_crawl], tmp_path)


def test_explain_gives_every_rule_of_a_document_kept_or_dropped(small_crawl: Path, tmp_path: Path) -> None:
    made = run([small_crawl], tmp_path / "out")
    (kept,) = explain(made, "https://mill.example/0")
    assert kept.row["outcome"] == "kept"
    assert [rule.name for rule, _, _ in kept.verdicts] == [rule.name for rule in RESILIPARSE.rules]
    assert all(passes for _, _, passes in kept.verdicts)
    (dropped,) = explain(made, "<urn:uuid:00000000-0000-0000-0000-000000000003>")
    assert (dropped.row["outcome"], dropped.row["reason"]) == ("dropped", "language.wanted")
    rule, value, passes = next(verdict for verdict in dropped.verdicts if not verdict[2])
    assert (rule.name, value, passes) == ("language.wanted", dropped.row["value"], False)
    assert [rule.name for rule, _, _ in dropped.verdicts] == [rule.name for rule in RESILIPARSE.rules]


def test_the_funnel_ends_at_what_was_kept(small_crawl: Path, tmp_path: Path) -> None:
    made = run([small_crawl], tmp_path / "out")
    rows = funnel_rows(made)
    assert rows[0].count == rows[0].left == made.accounts.records
    assert rows[-1].stage == "kept"
    assert rows[-1].count == rows[-1].left == made.accounts.kept


HOSTILE = {
    "deep_divs": "nesting",
    "many_attributes": "attributes",
    "long_table": "elements",
    "body_bomb": "body_bytes",
}


def hostile_record(number: int, page: DemoPage) -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in page.headers)
    http = f"HTTP/1.1 200 OK\r\n{headers}\r\n".encode() + page.body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012d}>\r\n"
        f"WARC-Target-URI: {page.url}\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + http + b"\r\n\r\n", 1, mtime=0)


def bombed_member(number: int) -> bytes:
    """A record of 300 MiB of zeros whose own gzip member has some 300 kB."""
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>"
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012d}>\r\n"
        f"WARC-Target-URI: https://bomb.example/\r\nContent-Length: {len(http) + (300 << 20)}\r\n\r\n"
    )
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    pieces = [packer.compress(head.encode() + http), *(packer.compress(bytes(1 << 20)) for _ in range(300))]
    return b"".join([*pieces, packer.compress(b"\r\n\r\n"), packer.flush()])


def test_hostile_pages_are_quarantined_by_name_within_the_deadline_and_their_neighbours_kept(
    write_warc: Callable[[str, list[bytes]], Path], make_page: Callable[..., str], tmp_path: Path
) -> None:
    pages = hostile_pages()
    records = [hostile_record(100 + number, pages[name]) for number, name in enumerate(HOSTILE)] + [bombed_member(99)]
    neighbours = write_warc("good.warc.gz", [make_page(number).encode() for number in range(len(records) + 1)])
    good = [neighbours.read_bytes()[one.start : one.end] for (one,) in cut(find_sources([str(neighbours)]), 1)]
    mixed = tmp_path / "hostile.warc.gz"
    mixed.write_bytes(good[0] + b"".join(bad + next_good for bad, next_good in zip(records, good[1:], strict=True)))
    started = time.monotonic()
    made = run([mixed], tmp_path / "out", recipe=load_recipe("fineweb"), task_bytes=1 << 30)
    assert time.monotonic() - started < 60
    found = {row["url"].rsplit("/", 1)[-1] or "member_bomb": row["reason"] for row in rows_of(made, "quarantined")}
    assert found == {**HOSTILE, "member_bomb": "compression_ratio"}
    assert made.accounts.kept == len(good)
    assert verify(made) > 0


def test_a_page_that_kills_its_parser_is_quarantined_and_its_neighbours_kept(
    write_warc: Callable[[str, list[bytes]], Path], make_page: Callable[..., str], tmp_path: Path
) -> None:
    script = tmp_path / "mortal_parser.py"
    script.write_text(
        "import os, signal\n"
        "from pipelines import parser_child\n"
        "def extract(html, options):\n"
        "    if 'KILL' in html: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return parser_child.resiliparse_text(html, options)\n"
        "parser_child.EXTRACTORS = (('resiliparse', extract),)\n"
        "parser_child.main()\n"
    )
    path = write_warc("pages.warc.gz", [make_page(1).encode(), b"<html>KILL</html>", make_page(2).encode()])
    step = RESILIPARSE.step(Extract)
    assert isinstance(step, Extract)
    folder = tmp_path / "task"
    folder.mkdir()
    (source,) = find_sources([str(path)])
    parser = Parser(step, None, None, command=[sys.executable, str(script)])
    with Decider(RESILIPARSE, parser=parser) as decider:
        whole = Slice(source=source, start=0, end=source.size)
        accounts = process([whole], TaskOptions(recipe=RESILIPARSE), folder, decider=decider)
    assert (accounts.kept, accounts.quarantined) == (2, {"parser_died": 1})
    (row,) = pq.read_table(folder / "quarantined.parquet").to_pylist()
    assert (row["url"], row["detail"]) == ("https://mill.example/1", "the parser ended with signal 11")


def test_too_many_quarantined_documents_stop_the_run_before_it_packs(
    write_warc: Callable[[str, list[bytes]], Path], tmp_path: Path
) -> None:
    bodies = [b"<div>" * 6_000] * 22
    with pytest.raises(QuarantineBudgetExceeded, match="22 of 22 documents were quarantined, 2 over"):
        run([write_warc("bad.warc.gz", bodies)], tmp_path / "out")
    assert not (tmp_path / "out" / "dataset").exists()
    made = run([tmp_path / "bad.warc.gz"], tmp_path / "out", allow_quarantined=True)
    assert (made.done_now, made.accounts.quarantined) == (0, {"nesting": 22})


def with_limits(recipe: Recipe, **limits: float) -> Recipe:
    said = recipe.model_dump(mode="json")
    for step in said["steps"]:
        if step["extract"]:
            step["extract"]["limits"] |= limits
    return Recipe.model_validate(said)


def test_a_retry_under_a_longer_deadline_brings_documents_in_at_their_place(
    write_warc: Callable[[str, list[bytes]], Path], make_page: Callable[..., str], tmp_path: Path
) -> None:
    links = "".join(f"<div><a href='/{number}'>link {number}</a></div>" for number in range(20_000))
    slow = make_page(2).replace("</article>", f"</article><footer>{links}</footer>")
    bodies = [make_page(1), slow, make_page(3), "<div>" * 6_000, make_page(5)]
    path = write_warc("pages.warc.gz", [body.encode() for body in bodies])
    recipe = load_recipe("fineweb")
    made = run([path], tmp_path / "out", recipe=with_limits(recipe, deadline_seconds=0.4))
    assert made.accounts.quarantined == {"deadline": 1, "nesting": 1}
    retried = retry_quarantined(
        tmp_path / "out", deadline_seconds=60.0, memory_bytes=4 << 30, runner="inprocess", workers=None, quiet=True
    )
    patient = run([path], tmp_path / "patient", recipe=with_limits(recipe, deadline_seconds=60.0))
    assert patient.accounts.quarantined == {"nesting": 1}
    assert retried.accounts.as_json() == patient.accounts.as_json()
    assert retried.dataset_sha256 == patient.dataset_sha256
    assert verify(retried) > 0
    again = run([path], tmp_path / "out", recipe=with_limits(recipe, deadline_seconds=0.4))
    assert (again.done_now, again.dataset_sha256) == (0, patient.dataset_sha256)


def test_a_folder_that_bears_one_of_our_names_is_not_taken_for_ours(small_crawl: Path, tmp_path: Path) -> None:
    shutil.copytree(small_crawl, tmp_path / "dataset")
    with pytest.raises(OutputError, match="dataset"):
        run([tmp_path / "dataset"], tmp_path)
    assert len(list((tmp_path / "dataset").iterdir())) == 3


def test_an_output_folder_inside_the_input_folder_is_no_input(small_crawl: Path, tmp_path: Path) -> None:
    shutil.copytree(small_crawl, tmp_path / "crawl")
    first = run([tmp_path / "crawl"], tmp_path / "crawl" / "out")
    again = run([tmp_path / "crawl"], tmp_path / "crawl" / "out")
    assert (again.done_now, again.dataset_sha256) == (0, first.dataset_sha256)


def test_a_second_command_on_the_same_folder_is_refused(small_crawl: Path, tmp_path: Path) -> None:
    with (
        open_store(tmp_path / "out").locked(take_over=False),
        pytest.raises(OutputError, match="another gristmill command"),
    ):
        run([small_crawl], tmp_path / "out")
    assert run([small_crawl], tmp_path / "out").accounts.kept > 0


def test_a_run_that_died_while_it_published_is_published_again(
    small_crawl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run([small_crawl], tmp_path / "out")
    (tmp_path / "out" / "run.json").unlink()
    (tmp_path / "out" / "dataset" / "part-00000.parquet").unlink()
    again = run([small_crawl], tmp_path / "out")
    assert (again.done_now, again.dataset_sha256) == (0, first.dataset_sha256)
    assert verify(again) > 0


def test_parts_that_move_to_another_number_get_its_name(
    write_warc: Callable[[str, list[bytes]], Path], make_page: Callable[..., str], tmp_path: Path
) -> None:
    recipe = Recipe.model_validate(RESILIPARSE.model_dump() | {"target_bytes": 9_000})
    write_warc("b.warc.gz", [make_page(number).encode() for number in range(6)])
    one = run([tmp_path / "b.warc.gz"], tmp_path / "out", recipe=recipe)
    write_warc("a.warc.gz", [make_page(number).encode() for number in range(10, 16)])
    two = run([tmp_path / "a.warc.gz", tmp_path / "b.warc.gz"], tmp_path / "out", recipe=recipe)
    assert len(two.files["dataset"]) > len(one.files["dataset"]) > 1
    names = sorted(path.name for path in (tmp_path / "out" / "dataset").iterdir())
    assert names == [f"part-{number:05d}.parquet" for number in range(len(names))]
    assert verify(two) > 0


def test_what_gave_no_document_is_listed_where_it_lies(small_crawl: Path, tmp_path: Path) -> None:
    data = (small_crawl / "part-0.warc.gz").read_bytes()
    (tmp_path / "bad.warc.gz").write_bytes(data + b"garbage at the end")
    made = run([tmp_path / "bad.warc.gz"], tmp_path / "out")
    (row,) = rows_of(made, "losses")
    assert (row["kind"], row["offset"], row["length"]) == ("unreadable", len(data), 18)
    assert made.accounts.unreadable == {row["reason"]: 18}
    assert verify(made) > 0


def test_a_retry_of_a_source_that_changed_is_refused(
    write_warc: Callable[[str, list[bytes]], Path], make_page: Callable[..., str], tmp_path: Path
) -> None:
    path = write_warc("pages.warc.gz", [make_page(1).encode(), b"<div>" * 6_000])
    run([path], tmp_path / "out")
    write_warc("pages.warc.gz", [make_page(2).encode(), make_page(3).encode()])
    with pytest.raises(InputChanged, match=r"pages\.warc\.gz has changed"):
        retry_quarantined(
            tmp_path / "out", deadline_seconds=9.0, memory_bytes=2 << 30, runner="inprocess", workers=None, quiet=True
        )


def test_a_language_that_the_model_does_not_know_is_named_before_anything_is_read(
    small_crawl: Path, tmp_path: Path
) -> None:
    said = RESILIPARSE.model_dump(mode="json")
    said["steps"][2]["language"]["keep"] = ["english"]
    with pytest.raises(RecipeError, match="knows no language 'english'"):
        run([small_crawl], tmp_path / "out", recipe=Recipe.model_validate(said))


def commands(small_crawl: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "infra.cli",
        "run",
        "fineweb-resiliparse",
        "-i",
        str(small_crawl),
        "--out",
        str(out),
        *more,
    ]


def kill_at_random(command: list[str], seed: int, out: Path) -> None:
    """Start a run in a process group of its own, and kill all of it at a random moment after its first commit."""
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not committed(LocalStore(out), "process") and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(random.Random(seed).uniform(0.0, 0.4))
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()


def killed_and_continued(small_crawl: Path, folder: Path, seed: int) -> None:
    whole = run([small_crawl], folder / "whole")
    command = commands(small_crawl, folder / "out", "--runner", "inprocess", "--task-size", "8000", "--quiet")
    kill_at_random(command, 10 * seed, folder / "out")
    done = len(committed(LocalStore(folder / "out"), "process"))
    continued = run([small_crawl], folder / "out")
    assert continued.done_before == done > 0
    assert continued.done_now == whole.done_now - done
    assert continued.dataset_sha256 == whole.dataset_sha256
    assert verify(continued) > 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_run_killed_at_a_random_moment_is_continued_to_the_same_bytes(
    small_crawl: Path, tmp_path: Path, seed: int
) -> None:
    killed_and_continued(small_crawl, tmp_path, seed)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(4, 24))
def test_twenty_runs_killed_at_random_moments_are_continued_to_the_same_bytes(
    small_crawl: Path, tmp_path: Path, seed: int
) -> None:
    killed_and_continued(small_crawl, tmp_path, seed)
