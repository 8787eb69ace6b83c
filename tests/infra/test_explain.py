"""Why a document went where it went: every number, from the store and measured again, and what in the text made it."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.errors import InputError
from infra.cli import main
from infra.commands import run_recipe
from infra.look import Explanation, compared_note, explain
from infra.marked_text import explanation_page, marked_lines, segments
from infra.run import Finished
from pipelines.recipe import load_recipe
from pipelines.signals import signal_columns
from tests.conftest import page_html, warc_record

REPEATED = "<p>The same sentence stands here again and again, with no change at all.</p>" * 30
HOSTILE = (
    "<p>&lt;script&gt;alert(1)&lt;/script&gt; {} \u202e &lt;/pre&gt;&lt;img src=x onerror=alert(2)&gt; is code.</p>"
)
GERMAN = "<html><body><p>" + "Die Mühle steht am Fluss, und niemand weiß, wer sie gebaut hat. " * 20
PAGES = {
    "kept": page_html(0),
    "repeated": f"<html><body><article>{REPEATED}</article></body></html>",
    "hostile": page_html(1).replace("</article>", f"{HOSTILE}</article>"),
    "german": GERMAN,
    "bomb": "<div>" * 6_000,
}


def url(name: str) -> str:
    return f"https://mill.example/{list(PAGES).index(name)}"


def written(folder: Path) -> Path:
    path = folder / "pages.warc.gz"
    path.write_bytes(b"".join(warc_record(at, body.encode()) for at, body in enumerate(PAGES.values())))
    return path


def run(path: Path, out: Path, *, annotate: bool) -> Finished:
    recipe = load_recipe("fineweb-resiliparse")
    return run_recipe(recipe, [str(path)], out, runner="inprocess", quiet=True, annotate=annotate)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("explain")
    return run(written(folder), folder / "out", annotate=True)


def explained(made: Finished, name: str, *rules: str) -> Explanation:
    (one,) = explain(made, url(name), rules=rules)
    return one


def test_every_stored_number_is_told_and_agrees_with_a_second_measurement(made: Finished) -> None:
    for name in ("kept", "repeated", "hostile", "german"):
        one = explained(made, name)
        assert one.from_store
        assert one.note == ""
        assert [number.column for number in one.numbers] == [column.name for column in signal_columns(made.recipe)]
        assert [rule.name for rule, _, _ in one.verdicts] == [rule.name for rule in made.recipe.rules]
        failing = [rule.name for rule, _, passes in one.verdicts if not passes]
        assert (failing[0] if failing else None) == one.row["reason"]
        assert one.text


def test_other_numbers_than_those_stored_are_named() -> None:
    stored = pa.table({"a": [1], "b": [{"n": 1, "d": 2}], "c": [None]})
    again = pa.table({"a": [1], "b": [{"n": 2, "d": 2}], "c": [None]})
    assert compared_note(stored, stored, "") == ""
    assert compared_note(stored, again, "").endswith("other numbers than those stored: b")
    assert compared_note(stored, None, "gone") == "not measured again: gone"


def test_where_the_source_is_gone_the_stored_text_and_numbers_explain(tmp_path: Path) -> None:
    path = written(tmp_path)
    made = run(path, tmp_path / "out", annotate=True)
    before = explained(made, "repeated")
    path.unlink()
    one = explained(made, "repeated")
    assert one.note.startswith("not measured again")
    assert (one.numbers, one.verdicts, one.evidence, one.texts) == (
        before.numbers,
        before.verdicts,
        before.evidence,
        before.texts,
    )
    path.write_bytes(b"other bytes")
    assert "has changed since the run" in explained(made, "repeated").note


def test_without_signals_the_record_is_measured_now(tmp_path: Path) -> None:
    path = written(tmp_path)
    made = run(path, tmp_path / "out", annotate=False)
    one = explained(made, "repeated")
    assert not one.from_store
    assert one.evidence
    path.unlink()
    gone = explained(made, "repeated")
    assert (gone.numbers, gone.verdicts, gone.text) == ((), (), None)
    assert "cannot be read again" in gone.note


def test_a_quarantined_document_says_why_and_has_no_numbers(made: Finished) -> None:
    one = explained(made, "bomb")
    assert one.row["outcome"] == "quarantined"
    assert one.note
    assert one.text is None
    assert one.evidence == ()


def test_the_evidence_of_what_fails_adds_up_to_the_stored_number(made: Finished) -> None:
    one = explained(made, "repeated")
    numbers = {number.column: number.stored for number in one.numbers}
    columns = {rule.name: column for rule, column in one.columns}
    assert {found.rule.name for found in one.evidence} >= {
        "gopher_repetition.dup_para_frac",
        "gopher_repetition.dup_line_char_frac",
        "gopher_repetition.dup_10_gram",
        "fineweb.char_dup_ratio",
    }
    for found in one.evidence:
        total = sum(span.adds for span in found.spans)
        stored = numbers[columns[found.rule.name]]
        if found.sums == "numerator":
            assert total == (stored["n"] if isinstance(stored, dict) else stored), found.rule.name
        assert all(span.end <= len(one.texts[found.view]) for span in found.spans)
    assert {found.view for found in one.evidence} == {"raw", "c4_lines"}


def test_rules_that_pass_are_shown_where_they_are_asked_for(made: Finished) -> None:
    assert explained(made, "kept").evidence == ()
    (found,) = explained(made, "kept", "gopher_quality.stop_words").evidence
    assert {span.label for span in found.spans} == {"stop word"}
    with pytest.raises(InputError, match="did you mean 'gopher_quality.stop_words'"):
        explain(made, url("kept"), rules=["gopher_quality.stopwords"])


def test_segments_cut_where_marks_begin_and_end(made: Finished) -> None:
    one = explained(made, "repeated")
    found = [evidence.spans for evidence in one.evidence if evidence.view == "raw"]
    pieces = list(segments(len(one.texts["raw"]), found))
    assert "".join(one.texts["raw"][start:end] for start, end, _ in pieces) == one.texts["raw"]
    for start, _, over in pieces:
        assert list(over) == [at for at, spans in enumerate(found) if any(s.start <= start < s.end for s in spans)]


class Tags(HTMLParser):
    """The tags of a page, and what its attributes name."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [str(value) for name, value in attrs if name in ("href", "src")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_the_page_holds_no_markup_of_the_document_and_loads_nothing(made: Finished) -> None:
    page = explanation_page(explain(made, url("hostile")))
    assert "&lt;script&gt;alert(1)" in page
    seen = Tags()
    seen.feed(page)
    assert not {"script", "img", "link", "iframe", "object"} & seen.tags
    assert seen.handlers == []
    assert all(link.startswith("https://") for link in seen.links)
    assert "mark" in seen.tags
    assert "default-src 'none'" in page
    assert "\u202e" not in page
    assert "\\u{202e}" in page


def test_marks_are_in_brackets_where_there_are_no_colours(made: Finished) -> None:
    one = explained(made, "hostile")
    found = [evidence for evidence in one.evidence if evidence.rule.name == "c4.curly_bracket"]
    shown = marked_lines(one.texts["raw"], found, brackets=True).plain
    assert "⟦" in shown
    assert "\u202e" not in shown
    assert len(shown) < len(one.texts["raw"])  # what is not marked is shortened


def test_the_command_prints_writes_a_page_and_gives_data(made: Finished, tmp_path: Path, monkeypatch, capsys) -> None:
    page = tmp_path / "why.html"
    said = []
    for more in (["--html", str(page)], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["gristmill", "explain", made.store.url, url("repeated"), *more])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        said.append(capsys.readouterr().out)
    assert "measured again from its record, they are the same" in said[0]
    assert "paragraph seen before" in said[0]
    assert "FAILS" in said[0]
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    (one,) = json.loads(said[1])
    assert one["offset"] > 0
    assert {"file_path", "rules", "signals", "evidence", "texts"} <= one.keys()
    assert one["signals"]["gopher_repetition.dup_para_frac"]["stored"].keys() == {"n", "d"}


def test_a_document_is_found_by_its_key_in_the_files_of_its_task(made: Finished) -> None:
    from infra.look import row_of

    (outcome,) = made.outcomes
    entry = outcome.signals[0]
    table = pq.read_table(Path(made.store.url) / entry.path)
    for key in table.column("key").to_pylist():
        found = row_of(made.store, outcome.signals, key)
        assert found is not None
        assert found.column("key").to_pylist() == [key]
    assert row_of(made.store, outcome.signals, b"\0" * 16) is None
