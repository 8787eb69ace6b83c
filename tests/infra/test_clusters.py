"""What dedup took for the same: figures that add up, whole clusters, similarities and texts as they are."""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

import infra.clusters
from filters.errors import InputError, NoSuchDocument, OutputError
from infra.cli import main
from infra.cli_clusters import binned, diff_rows
from infra.clusters import Cluster, clusters, shingle_jaccard, summary
from infra.commands import run_recipe
from infra.run import Finished
from infra.word_diff import word_diff
from pipelines.dedup.simplified import simplified_words
from pipelines.dedup.step import NearDuplicates
from pipelines.dedup.survivors import rehydration_weights
from pipelines.recipe import Recipe
from pipelines.words import words_by_name

Document = dict[str, Any]
HOSTILE = "\x1b[2J\x1b]0;owned\x07 \u202eevil\u202c \u200bword"
METHODS = {"url": {}, "text": {}, "minhash": {"threshold": 0.7}}


def recipe(*steps: dict[str, Any]) -> Recipe:
    said = {"name": "dedup", "says": "A test.", "steps": list(steps), "tokenizer": None}
    return Recipe.model_validate(said)


def changed(text: str, rng: random.Random, words: int) -> str:
    """The text with so many words exchanged."""
    parts = text.split(" ")
    for place in rng.sample(range(len(parts)), words):
        parts[place] = f"changed{rng.randrange(10**6)}"
    return " ".join(parts)


@pytest.fixture(scope="module")
def documents(make_sentences: Callable[[int], str]) -> list[Document]:
    """Clusters of 2 to 12: near copies, exact ones, ones of a URL; one of hostile texts, two whose kept documents have
    one id. And one document alone.
    """

    def sentences(number: int) -> str:
        return make_sentences(number)[:1_500]

    rng = random.Random(7)
    found: list[Document] = []

    def add(text: str, *, name: str = "", url: str = "") -> None:
        number = len(found)
        found.append(
            {
                "id": name or f"doc-{number:03d}",
                "text": text,
                "url": url or f"https://mill{number % 3}.example/{number}",
                "date": "",
            }
        )

    for number in range(20):
        text = sentences(number)
        add(f"{text} longest of all", url=f"https://of-one.example/{number}")
        for copy in range(min(number, 10)):
            add(changed(text, rng, 1 + copy))
        if number % 4 == 0:
            add(text.upper())
        if number % 5 == 0:
            add(sentences(100 + number), url=f"http://www.of-one.example/{number}/?utm_source=x")
    hostile = sentences(50)
    add(f"{hostile} {HOSTILE} and more", name="hostile-kept\x1b[31m", url="https://evil.example/\x1b[0m")
    add(f"{hostile} {HOSTILE[::-1]}", name="hostile-gone")
    for number in (60, 61):
        add(f"{sentences(number)} and its end", name="of-two")
        add(sentences(number), name=f"like-{number}")
    add("three words only", name="short-kept ")
    add("THREE words only", name="short-gone")
    add(sentences(70), name="alone")
    return found


def ran(
    step: Recipe, folder: Path, documents: list[Document], *, files: int = 4, against: Sequence[str] = ()
) -> Finished:
    (folder / "in").mkdir(parents=True)
    size = -(-len(documents) // files)
    for index in range(files):
        lines = [json.dumps(one) + "\n" for one in documents[index * size : (index + 1) * size]]
        (folder / f"in/part-{index}.jsonl").write_text("".join(lines))
    source, out = [str(folder / "in")], folder / "out"
    return run_recipe(step, source, out, runner="inprocess", quiet=True, task_bytes=50_000, against=against)


@pytest.fixture(scope="module")
def made(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return ran(recipe({"dedup": METHODS}), tmp_path_factory.mktemp("clusters"), documents)


def rows(made: Finished, kind: str) -> pl.DataFrame:
    files = [f"{made.store.url}/{entry.path}" for entry in made.files[kind]]
    return pl.concat([pl.read_parquet(path.removeprefix("file://")) for path in files])


def whole(made: Finished) -> list[Cluster]:
    return list(clusters(made, count=1_000, members=1_000))


@pytest.fixture(scope="module")
def found(made: Finished) -> list[Cluster]:
    return whole(made)


def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command line prints."""
    monkeypatch.setattr(sys, "argv", ["gristmill", "clusters", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None)
    return capsys.readouterr().out


def folder_of(made: Finished) -> str:
    return made.store.url.removeprefix("file://")


def test_the_figures_are_those_of_the_published_folders(made: Finished, documents: list[Document]) -> None:
    found = summary(made)
    gone, standing = rows(made, "duplicates"), rows(made, "clusters")
    assert found.documents == len(documents)
    assert dict(found.removed) == dict(gone["method"].value_counts().iter_rows())
    assert list(found.removed) == [name for name in ("url", "text", "twin", "minhash") if name in found.removed]
    assert dict(found.clusters) == dict(standing["size"].value_counts().sort("size").iter_rows())
    assert sum(count for size, count in found.clusters.items()) == len(standing)
    assert found.compared is not None
    assert found.verified is not None
    assert found.compared >= found.verified > 0
    for kind, losses in (("domain", found.domains), ("folder", found.folders)):
        assert losses, kind
        assert [one.removed for one in losses] == sorted((one.removed for one in losses), reverse=True)
    (folder,) = found.folders
    assert (folder.documents, folder.removed) == (len(documents), len(gone))


def test_clusters_are_those_of_the_published_folders_the_largest_first(made: Finished, found: list[Cluster]) -> None:
    assert [one.size for one in found] == sorted(rows(made, "clusters")["size"].to_list(), reverse=True)
    assert [one.weight for one in found] == rehydration_weights(
        pl.Series([one.size for one in found]).to_numpy()
    ).tolist()
    assert all(one.size == len(one.members) + 1 for one in found)
    said = [
        (member.id, member.url, member.method, member.similarity, one.id) for one in found for member in one.members
    ]
    columns = ["id", "url", "method", "similarity", "representative_id"]
    assert sorted(said, key=repr) == sorted(rows(made, "duplicates").select(columns).iter_rows(), key=repr)


def test_of_many_members_those_never_compared_come_first_then_the_least_similar(
    made: Finished, found: list[Cluster]
) -> None:
    for one, short in zip(found, clusters(made, count=1_000, members=2), strict=True):
        known = [member.similarity for member in one.members if member.similarity is not None]
        assert known == sorted(known)
        assert [member.similarity for member in one.members[len(one.members) - len(known) :]] == known
        assert [member.id for member in short.members] == [member.id for member in one.members[:2]]


def test_the_exact_similarity_is_that_of_the_shingles_of_both_texts(
    made: Finished, found: list[Cluster], documents: list[Document]
) -> None:
    splitter = simplified_words(words_by_name("spacy_english"))
    texts = {one["id"]: one["text"] for one in documents}

    def shingles(text: str) -> set[tuple[str, ...]]:
        (words,) = splitter.words([text])
        return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}

    for one in found:
        for member in one.members:
            if "of-two" in (one.id, member.id):
                continue
            left, right = shingles(texts[one.id]), shingles(texts[member.id])
            assert member.exact == (len(left & right) / len(left | right) if left | right else None)
            if member.method == "minhash":
                assert member.similarity is not None
                assert member.exact is not None
                # Five standard errors of 112 minima, where they are largest.
                assert abs(member.similarity - member.exact) < 5 * 0.5 / 112**0.5


def test_texts_without_shingles_have_no_similarity() -> None:
    similarity = shingle_jaccard(NearDuplicates(ngram=3, words="whitespace"))
    assert similarity("one two", "one two") is None
    assert similarity("one two", "one two three") == 0
    assert similarity("a b c a b c", "a b c a") == 2 / 3


def test_every_text_differs_from_the_kept_one_as_its_diff_says(
    made: Finished, found: list[Cluster], documents: list[Document]
) -> None:
    texts = {one["id"]: one["text"] for one in documents}
    for one in found:
        (shown,) = (member for member in one.members if member.diff is not None)
        if one.id != "of-two":
            assert shown.diff == word_diff(texts[one.id], texts[shown.id])
            assert shown.id == one.members[0].id
    assert all(member.diff is None for one in clusters(made, diff=False) for member in one.members)


def test_two_kept_documents_of_one_id_have_their_own_clusters(made: Finished, found: list[Cluster]) -> None:
    both = [one for one in found if one.id == "of-two"]
    assert sorted(member.id for one in both for member in one.members) == ["like-60", "like-61"]
    assert all(member.exact is not None and member.exact > 0.9 for one in both for member in one.members)
    assert len(list(clusters(made, wanted="of-two"))) == 2


def test_the_cluster_of_a_document_is_found_by_any_of_its_members(made: Finished, found: list[Cluster]) -> None:
    largest = found[0]
    for name in (largest.id, largest.url, largest.members[-1].id, largest.members[4].url):
        (one,) = clusters(made, wanted=name, members=1)
        assert (one.id, [member.id for member in one.members]) == (
            largest.id,
            [member.id for member in largest.members],
        )
        asked = [member for member in one.members if member.id == name or member.url == name]
        (shown,) = (member for member in one.members if member.diff is not None)
        assert shown == (asked[0] if asked else one.members[0])
        assert sum(member.compared for member in one.members) == 1 + (bool(asked) and asked[0] != one.members[0])


def test_a_document_of_no_cluster_is_said_to_be_of_none(made: Finished) -> None:
    for name in ("nothing", "alone"):
        with pytest.raises(NoSuchDocument, match=f"gristmill explain .* {name}"):
            clusters(made, wanted=name)


def test_what_an_earlier_run_keeps_stands_for_copies_of_this_one(
    made: Finished, found: list[Cluster], documents: list[Document], tmp_path: Path
) -> None:
    kept, gone = found[0].id, found[1].members[0].id
    texts = {one["id"]: one for one in documents}
    again = [{**texts["alone"], "id": "again-1"}, {**texts["alone"], "id": "again-2"}, {**texts[kept], "id": "again-3"}]
    later = ran(recipe({"dedup": METHODS}), tmp_path, again, files=2, against=[made.store.url])
    assert [(one.id, one.run, one.size) for one in whole(later)] == [
        ("alone", made.store.url, 3),
        (kept, made.store.url, 2),
    ]
    assert [member.exact for one in whole(later) for member in one.members] == [1, 1, 1]
    for name in ("alone", "again-2"):
        (one,) = clusters(later, wanted=name)
        assert [member.id for member in one.members] == ["again-1", "again-2"]
    with pytest.raises(NoSuchDocument):
        clusters(later, wanted=gone)
    assert whole(made) == found


def test_only_clusters_of_the_least_size_and_as_many_as_asked_for(made: Finished, found: list[Cluster]) -> None:
    sizes = [one.size for one in found]
    assert [one.size for one in clusters(made, count=3)] == sizes[:3]
    assert [one.size for one in clusters(made, count=100, least=8)] == [size for size in sizes if size >= 8]
    assert list(clusters(made, least=1_000)) == []


def test_groups_of_rows_and_tasks_change_nothing(
    made: Finished, found: list[Cluster], documents: list[Document], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.schema.GROUP_ROWS", 5)
    monkeypatch.setattr("pipelines.dedup.fingerprints.GROUP_ROWS", 3)
    again = ran(recipe({"dedup": METHODS}), tmp_path, documents, files=1)
    assert again.rollup.tasks < made.rollup.tasks
    (entry,) = next(iter(again.outcomes)).kept
    assert pq.read_metadata(f"{folder_of(again)}/{entry.path}").num_row_groups > 5
    assert whole(again) == found
    name = found[0].members[-1].id
    assert list(clusters(again, wanted=name)) == list(clusters(made, wanted=name))


def test_a_cluster_too_large_to_list_is_listed_in_part(
    made: Finished, found: list[Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = found[0]
    monkeypatch.setattr(infra.clusters, "LISTED", 2)
    (one,) = clusters(made, wanted=largest.members[-1].id)
    assert [member.id for member in one.members] == [largest.members[at].id for at in (0, 1, -1)]


def test_a_run_without_a_dedup_step_says_what_to_type(documents: list[Document], tmp_path: Path) -> None:
    bare = ran(recipe({"rules": {"families": ["gopher_quality"]}}), tmp_path, documents[:3], files=1)
    for ask in (summary, clusters):
        with pytest.raises(InputError, match=r"no dedup step.*gristmill dedup -m text -m minhash -i .*/dataset"):
            ask(bare)


def test_what_the_step_found_may_be_gone(documents: list[Document], tmp_path: Path) -> None:
    some = ran(recipe({"dedup": {"text": {}}}), tmp_path, documents[:3], files=1)
    for path in (tmp_path / "out/_work/attempts").rglob("clusters-*.parquet"):
        path.unlink()
    with pytest.raises(OutputError, match="is gone"):
        list(clusters(some))


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"text": {}}, "near-duplicates were not looked for"),
        ({"minhash": {"threshold": None, "mode": "components"}}, "were not compared"),
        ({"minhash": {"bucket_cap": 1}}, "pairs of large buckets left out: there a document meets the 1\npreferred"),
    ],
)
def test_what_was_compared_is_said_of_every_kind_of_step(
    documents: list[Document],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: dict[str, Any],
    said: str,
) -> None:
    some = ran(recipe({"dedup": step}), tmp_path, documents, files=1)
    assert said in typed(monkeypatch, capsys, folder_of(some))
    for one in whole(some):
        assert all(member.compared for member in one.members)


def test_a_corpus_without_copies_has_no_clusters(
    documents: list[Document], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = ran(recipe({"dedup": METHODS}), tmp_path, documents[:1], files=1)
    assert list(clusters(alone)) == []
    assert re.search(r"removed +0 ", typed(monkeypatch, capsys, folder_of(alone)))


def test_without_a_terminal_marks_stand_in_lines_of_80_columns(
    made: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = typed(monkeypatch, capsys, folder_of(made), "--count", "4")
    assert "\x1b" not in printed
    assert "{+changed" in printed
    assert "[-" in printed
    assert re.search(r"… [\d,]+ equal words …", printed)
    columns = [line for line in printed.splitlines() if " │ " in line]
    assert columns
    assert {line.index("│") for line in columns} == {39}
    assert max(map(len, columns)) <= 80


def test_on_a_terminal_colours_mark_and_the_columns_fit_its_width(
    made: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for asked, width in ((120, 120), (40, 80)):
        monkeypatch.setenv("COLUMNS", str(asked))
        printed = typed(monkeypatch, capsys, folder_of(made), "--count", "4")
        assert "\x1b[1;32mchanged" in printed
        assert "{+" not in printed
        plain = re.sub(r"\x1b\[[0-9;]*m", "", printed)
        widths = [len(line) for line in plain.splitlines() if " │ " in line]
        assert width - 20 < max(widths) <= width


def test_nothing_of_a_page_reaches_the_terminal_unseen(
    made: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = typed(monkeypatch, capsys, folder_of(made), "--id", "hostile-gone")
    assert "\\u{1b}[2J\\u{1b}]0;owned\\u{7}" in "".join(printed.split("│")).replace("\n", "").replace(" ", "")
    assert "hostile-kept\\u{1b}[31m" in printed
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u200b\u202a-\u202e]", printed)


def test_long_differences_and_long_words_are_cut_as_they_are_shown() -> None:
    first = " ".join(f"left{number}" for number in range(2_000))
    second = " ".join(f"right{number}" for number in range(2_000))
    shown = [row for row in diff_rows(word_diff(first, second), marked=True) if not isinstance(row, str)]
    assert all(len(side.plain.split()) < 100 for row in shown for side in row)
    ((left, _),) = diff_rows(word_diff("x" * 100_000, "y"), marked=True)
    assert isinstance(left, object)
    assert len(str(left)) < 300
    many = [word for number in range(400) for word in (f"w{number}", "the", "same", "five", "words", "here")]
    other = [word if word[0] != "w" or not word[1:].isdigit() else f"v{word[1:]}" for word in many]
    said = [row for row in diff_rows(word_diff(" ".join(many), " ".join(other)), marked=True) if isinstance(row, str)]
    assert re.fullmatch(r"[\d,]+ more differences, [\d,]+ words", said[-1])


def test_json_is_one_object_of_stable_names(
    made: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = json.loads(typed(monkeypatch, capsys, folder_of(made), "--json", "--count", "2"))
    assert set(said) == {"format", "summary", "clusters"}
    figures = {"documents", "removed", "clusters", "buckets", "compared", "verified", "left_out", "domains", "folders"}
    assert set(said["summary"]) == figures | {"step"}
    assert [set(one) for one in said["clusters"]] == [{"id", "url", "run", "size", "weight", "members"}] * 2
    members = [member for one in said["clusters"] for member in one["members"]]
    for member in members:
        assert set(member) == {"id", "url", "method", "similarity", "compared", "exact", "diff"}
    (first, *_) = (member["diff"] for member in members if member["diff"] is not None)
    assert {frozenset(one) for one in first} == {frozenset({"kind", "words"}), frozenset({"kind", "kept", "removed"})}


def test_every_size_falls_into_one_line_of_the_histogram() -> None:
    counts = {size: size for size in (1, 2, 3, 4, 5, 9, 10, 99, 100, 999, 1_000, 10**9)}
    found = binned(counts)
    assert list(found) == ["1", "2", "3", "4", "5-9", "10-99", "100-999", "1,000+"]
    assert sum(found.values()) == sum(counts.values())
    assert found["5-9"] == 5 + 9
