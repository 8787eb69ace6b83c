"""The parser child: what a page does costs that page alone."""

import sys
import textwrap
import time
from pathlib import Path

import pytest

from pipelines.extract import Parser
from pipelines.recipe import Extract, Gate, Language, Limits

PROSE = "".join(
    f"<p>The mill stands by the river, and sentence number {n} says that it turns all day.</p>" for n in range(30)
)
PAGE = f"<html><body><article><h1>A mill</h1>{PROSE}</article></body></html>"

BROKEN_PARSER = """
    import os, signal, sys, time
    from pipelines import parser_child

    def extract(html, options):
        if "CRASH" in html: os.kill(os.getpid(), signal.SIGSEGV)
        if "EXIT" in html: os._exit(7)
        if "SPIN" in html:
            while True: pass
        if "SLEEP" in html: time.sleep(3600)
        if "RAISE" in html: raise ValueError("no such tag")
        if "EAT" in html: return str(len(bytearray(8 << 30)))
        return "text of " + html[:20]

    parser_child.EXTRACTORS = (("trafilatura", extract),)
    parser_child.main()
"""


def broken(folder: Path, limits: Limits) -> Parser:
    script = folder / "broken_parser.py"
    script.write_text(textwrap.dedent(BROKEN_PARSER))
    return Parser(Extract(engine="trafilatura", limits=limits), None, None, command=[sys.executable, str(script)])


@pytest.mark.parametrize("engine", ["trafilatura", "resiliparse"])
def test_an_engine_gives_the_main_text(engine: str) -> None:
    with Parser(Extract.model_validate({"engine": engine}), None, None) as parser:
        got = parser.parse(PAGE)
    assert got.refused is None
    assert "sentence number 29 says" in got.text
    assert "<p>" not in got.text


def test_the_same_page_gives_the_same_text_however_often_it_is_read() -> None:
    with Parser(Extract(engine="trafilatura"), None, None) as parser:
        texts = {parser.parse(PAGE).text for _ in range(6)}
    assert len(texts) == 1
    assert texts != {""}


@pytest.mark.parametrize(
    ("html", "reason", "detail"),
    [
        ("CRASH", "parser_died", "signal 11"),
        ("EXIT", "parser_died", "status 7"),
        ("RAISE", "parser_error", "ValueError: no such tag"),
        ("EAT", "parser_memory", "memory_bytes"),
    ],
)
def test_a_page_that_breaks_the_parser_is_refused_and_its_neighbours_are_not(
    tmp_path: Path, html: str, reason: str, detail: str
) -> None:
    with broken(tmp_path, Limits(deadline_seconds=5.0)) as parser:
        assert parser.parse("before").text == "text of before"
        got = parser.parse(html)
        assert (got.refused, got.timing_dependent) == (reason, False)
        assert detail in got.detail
        assert parser.parse("after").text == "text of after"


@pytest.mark.parametrize("html", ["SPIN", "SLEEP"])
def test_a_page_that_takes_for_ever_is_refused_after_the_deadline(tmp_path: Path, html: str) -> None:
    with broken(tmp_path, Limits(deadline_seconds=0.5)) as parser:
        parser.parse("warm")
        started = time.monotonic()
        got = parser.parse(html)
        waited = time.monotonic() - started
        assert (got.refused, got.timing_dependent) == ("deadline", True)
        assert waited < 4 * 0.5 + 2
        assert parser.parse("after").text == "text of after"


def test_memory_that_earlier_pages_filled_is_not_charged_to_the_next(tmp_path: Path) -> None:
    script = tmp_path / "leaking_parser.py"
    script.write_text(
        textwrap.dedent(
            """
            from pipelines import parser_child
            kept = []
            def extract(html, options):
                kept.append(bytearray(300 << 20))
                return "text"
            parser_child.EXTRACTORS = (("trafilatura", extract),)
            parser_child.main()
            """
        )
    )
    extract = Extract(engine="trafilatura", limits=Limits(memory_bytes=1 << 30))
    with Parser(extract, None, None, command=[sys.executable, str(script)]) as parser:
        assert [parser.parse("page").refused for _ in range(6)] == [None] * 6
        assert parser.restarts > 0


def test_a_page_larger_than_the_pipe_is_parsed(tmp_path: Path) -> None:
    with broken(tmp_path, Limits()) as parser:
        assert parser.parse("x" * (8 << 20)).text == "text of " + "x" * 20


def test_the_child_sees_no_secret_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "canary")
    script = tmp_path / "looking_parser.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, socket
            from pipelines import parser_child
            def extract(html, options):
                return repr(sorted(os.environ)) + " " + ",".join(name for _, name in socket.if_nameindex())
            parser_child.EXTRACTORS = (("trafilatura", extract),)
            parser_child.main()
            """
        )
    )
    with Parser(Extract(engine="trafilatura"), None, None, command=[sys.executable, str(script)]) as parser:
        environment, interfaces = parser.parse("x").text.rsplit(" ", 1)
    assert "RAY" not in environment
    assert "PATH" in environment
    if interfaces != "lo":
        pytest.skip("this kernel lets no process give up its network")


def test_the_gate_stops_a_page_in_another_language_and_the_sample_reads_it_all_the_same() -> None:
    german = PAGE.replace("The mill stands by the river", "Die Mühle steht am Fluss").replace(
        "says that it turns all day", "sagt, dass sie sich den ganzen Tag dreht"
    )
    with Parser(Extract(engine="resiliparse"), Gate(), Language()) as parser:
        assert not parser.parse(PAGE).gated
        stopped = parser.parse(german)
        assert stopped.gated
        assert stopped.text == ""
        assert stopped.wanted < 0.1
        sampled = parser.parse(german, despite_gate=True)
        assert not sampled.gated
        assert "Mühle" in sampled.text
        assert sampled.wanted == stopped.wanted
