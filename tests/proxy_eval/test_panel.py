"""A panel is the same from the same texts, keeps what is held out apart, cuts books, and is decontaminated."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.errors import InputError, OutputError, VerifyFailed
from proxy_eval.panel import Panel, Source, build_panel, documents, held_out, pieces, read_panel, sources_in

Texts = Callable[[int], str]


def source(folder: Path, name: str, texts: list[str]) -> Source:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"id": f"{name}-{at}", "text": text}) + "\n" for at, text in enumerate(texts)))
    return Source(name=name, files=(path,), licence="CC0-1.0")


def contents(panel: Panel) -> dict[str, set[str]]:
    return {domain.name: set(documents(panel, domain.name)[1]) for domain in panel.domains}


def test_a_panel_does_not_depend_on_the_order_of_files_and_rows(tmp_path: Path, make_sentences: Texts) -> None:
    texts = [make_sentences(number) for number in range(12)]
    forward = [source(tmp_path, "a", texts[:6]), source(tmp_path, "b", texts[6:])]
    one = build_panel(tmp_path / "one", forward, salt="s", size=9_000)
    source(tmp_path, "a", texts[:6][::-1])
    two = build_panel(tmp_path / "two", forward[::-1], salt="s", size=9_000)
    assert one.sha256 != two.sha256  # ids are numbers of rows here
    assert contents(one) == contents(two)
    again = build_panel(tmp_path / "again", forward, salt="s", size=9_000)
    assert replace(again, folder=two.folder) == two
    assert read_panel(tmp_path / "two") == two
    assert contents(build_panel(tmp_path / "other", forward, salt="t", size=9_000)) != contents(two)


def test_what_is_held_out_is_in_the_panel_and_the_rest_is_not(tmp_path: Path, make_sentences: Texts) -> None:
    texts = [make_sentences(number) for number in range(200)]
    held = held_out(texts, "s", 0.2)
    assert 20 < held.sum() < 60
    panel = build_panel(tmp_path / "panel", [source(tmp_path, "a", texts)], salt="s", share=0.2, size=None)
    assert contents(panel)["a"] == {text for text, out in zip(texts, held, strict=True) if out}
    more = held_out(texts, "s", 0.4)
    assert (more >= held).all()


@pytest.mark.parametrize(("most", "size", "expected"), [(3, None, 3), (None, 1, 1), (100, None, 12), (2, 1, 1)])
def test_a_budget_takes_the_fewest_pieces_that_meet_it(
    tmp_path: Path, make_sentences: Texts, most: int | None, size: int | None, expected: int
) -> None:
    texts = [make_sentences(number) for number in range(12)]
    given = source(tmp_path, "a", texts)
    panel = build_panel(tmp_path / "panel", [given], salt="", documents=most, size=size)
    assert panel.domains[0].documents == expected
    whole = build_panel(tmp_path / "whole", [given], salt="", size=None)
    assert documents(panel, "a")[1] == documents(whole, "a")[1][:expected]


def test_pieces_are_the_text_and_end_with_paragraphs(make_sentences: Texts) -> None:
    book = "\n\n".join(make_sentences(number) for number in range(5))
    cut = pieces(book, 3_000)
    assert "".join(cut) == book
    assert max(map(len, cut)) <= 3_000
    assert all(piece.endswith("\n") for piece in cut[:-1])
    assert pieces("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]
    assert pieces("one two three four", 10) == ["one two ", "three four"]
    assert pieces("short", 10) == ["short"]


def test_one_book_is_not_the_panel(tmp_path: Path, make_sentences: Texts) -> None:
    book = "\n\n".join(make_sentences(number) for number in range(30))
    texts = [book, *(make_sentences(number) for number in range(30, 60))]
    panel = build_panel(tmp_path / "panel", [source(tmp_path, "a", texts)], salt="", documents=30, piece=5_000)
    ids, found = documents(panel, "a")
    assert max(map(len, found)) <= 5_000
    assert 0 < sum(name.startswith("a-0#") for name in ids) < 30


def test_copies_are_removed_within_and_between_domains(tmp_path: Path, make_sentences: Texts) -> None:
    texts = [make_sentences(number) for number in range(4)]
    sources = [source(tmp_path, "a", [texts[0], texts[0], texts[1]]), source(tmp_path, "b", texts)]
    panel = build_panel(tmp_path / "panel", sources, salt="")
    assert contents(panel) == {"a": set(texts[:2]), "b": set(texts[2:])}
    assert [domain.duplicates for domain in panel.domains] == [1, 2]


def test_what_stands_in_the_pool_is_cut(tmp_path: Path, make_sentences: Texts) -> None:
    texts = [make_sentences(number) for number in range(6)]
    pool = [["nothing of it"], [make_sentences(9), f"Before. {texts[2].upper()[:900]}"]]
    given = [source(tmp_path, "a", texts[:3]), source(tmp_path, "b", texts[3:])]
    panel = build_panel(tmp_path / "panel", given, salt="", against=pool)
    assert contents(panel) == {"a": set(texts[:2]), "b": set(texts[3:])}
    assert [domain.contaminated for domain in panel.domains] == [1, 0]
    lenient = build_panel(tmp_path / "lenient", given, salt="", against=pool, overlap=0.9)
    assert lenient.domains[0].contaminated == 0


def test_a_domain_that_stands_in_the_pool_whole_is_an_error(tmp_path: Path, make_sentences: Texts) -> None:
    given = source(tmp_path, "a", [make_sentences(0)])
    with pytest.raises(InputError, match="nothing is left of 'a'"):
        build_panel(tmp_path / "panel", [given], salt="", against=[[make_sentences(0)]])
    assert not (tmp_path / "panel").exists()


def test_few_domains_no_pool_and_no_licence_are_noted(tmp_path: Path, make_sentences: Texts) -> None:
    names = "abcdefgh"
    sources = [source(tmp_path, name, [make_sentences(ord(name))]) for name in names]
    few = build_panel(tmp_path / "few", sources[:7], salt="", against=[])
    assert [note.split(":")[0] for note in few.notes] == ["7 domains"]
    unlicensed = [replace(one, licence="not stated") for one in sources]
    enough = build_panel(tmp_path / "enough", unlicensed, salt="")
    assert [note.split(" ")[0] for note in enough.notes] == ["not", "no"]


def test_every_format_is_read(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three"
    for name in ("rows", "zipped", "table", "plain", "plain_zipped"):
        (tmp_path / "in" / name).mkdir(parents=True)
    row = json.dumps({"text": text}, ensure_ascii=False) + "\n"
    (tmp_path / "in/rows/x.jsonl").write_text(row)
    (tmp_path / "in/zipped/x.jsonl.gz").write_bytes(gzip.compress(row.replace("one", "two").encode()))
    pq.write_table(pa.table({"text": [f"table {text}"], "more": [1]}), tmp_path / "in/table/x.parquet")
    (tmp_path / "in/plain/x.txt").write_text(f"plain {text}")
    (tmp_path / "in/plain_zipped/x.txt.gz").write_bytes(gzip.compress(f"gz {text}".encode()))
    (tmp_path / "in/rows/LICENSE").write_text("MIT\nPermission is hereby granted\n")
    sources = sources_in(tmp_path / "in")
    assert [one.licence for one in sources] == ["not stated"] * 2 + ["MIT"] + ["not stated"] * 2
    assert contents(build_panel(tmp_path / "panel", sources, salt="")) == {
        "plain": {f"plain {text}"},
        "plain_zipped": {f"gz {text}"},
        "rows": {text},
        "table": {f"table {text}"},
        "zipped": {text.replace("one", "two")},
    }


def test_errors_say_what_is_missing_and_where(tmp_path: Path) -> None:
    given = source(tmp_path, "a", ["text"])
    with pytest.raises(InputError, match=r"a\.jsonl, row 1: no text in 'body'; the fields are id, text"):
        build_panel(tmp_path / "panel", [given], salt="", field="body")
    with pytest.raises(InputError, match="'a/b'"):
        Source(name="a/b", files=(), licence="")
    with pytest.raises(InputError, match="two sources are called 'a'"):
        build_panel(tmp_path / "panel", [given, given], salt="")
    given.files[0].write_text('{"text": "fine"}\n{"text": ')
    with pytest.raises(InputError, match=r"a\.jsonl, row 2: no JSON"):
        build_panel(tmp_path / "panel", [given], salt="")
    given.files[0].write_text('["text"]\n')
    with pytest.raises(InputError, match=r"a\.jsonl, row 1: not an object"):
        build_panel(tmp_path / "panel", [given], salt="")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="no domain"):
            sources_in(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no file of texts"):
        sources_in(tmp_path)
    with pytest.raises(InputError, match=r"no panel\.json"):
        read_panel(tmp_path)
    with pytest.raises(OutputError, match="not empty"):
        build_panel(tmp_path, [given], salt="")


def test_documents_that_were_changed_are_refused(tmp_path: Path) -> None:
    panel = build_panel(tmp_path / "panel", [source(tmp_path, "a", ["one text", "another"])], salt="")
    path = tmp_path / "panel/documents/a.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(VerifyFailed, match=r"a\.parquet"):
        documents(panel, "a")
