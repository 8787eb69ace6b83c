"""An exported dataset: `datasets` loads it offline, its card parses, and nothing that is there is overwritten."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt

from filters.errors import InputError, OutputError, VerifyFailed
from infra import export as exporting
from infra.card import Part, card, code, dump_configs, escaped, hub_languages, size_category
from infra.cli import main
from infra.commands import run_recipe
from infra.export import Exported, distinct, export_hf
from infra.look import rows_of
from infra.run import Finished, read_run
from infra.store import open_store
from pipelines.recipe import Recipe, Step, load_recipe, parse_recipe
from pipelines.schema import DATASET

# In a process of its own: where `datasets` and the Hub's client look, and that they stay offline, is read at import.
LOAD = """
import json, sys
from datasets import load_dataset
folder, cache, name = sys.argv[1:]
found = load_dataset(folder, name, split="train", cache_dir=cache)
print(json.dumps({"rows": found.to_list(), "num_bytes": found.info.splits["train"].num_bytes}))
"""


def loaded(folder: Path, tmp_path: Path, name: str = "default") -> dict[str, Any]:
    """What `datasets.load_dataset` makes of a folder, offline."""
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hub"),
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    command = [sys.executable, "-c", LOAD, str(folder), str(tmp_path / "cache"), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run(crawls: list[Path], out: Path | str, parts: int) -> Finished:
    """Make a dataset of these crawls in so many parts."""
    recipe = load_recipe("fineweb-resiliparse")
    given = [str(crawl) for crawl in crawls]
    made = run_recipe(recipe, given, out, runner="inprocess", quiet=True)
    target = max(1, -(-made.accounts.characters // parts))
    return run_recipe(recipe.model_copy(update={"target_bytes": target}), given, out, runner="inprocess", quiet=True)


@pytest.fixture(scope="module")
def crawls(small_crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two dumps of as many documents."""
    return [small_crawl, shutil.copytree(small_crawl, tmp_path_factory.mktemp("crawls") / "CC-MAIN-2024-18")]


@pytest.fixture(scope="module")
def made(crawls: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Three parts of two dumps: the second one holds documents of both."""
    made = run(crawls, tmp_path_factory.mktemp("export") / "out", parts=3)
    assert len(made.files["dataset"]) == 3
    return read_run(made.store)


def export(made: Finished, to: Path | str, **options: Any) -> Exported:
    return export_hf(made, open_store(to), **options)


def front(folder: Path) -> dict[str, Any]:
    """The front matter of the card in a folder."""
    _, text, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    said: dict[str, Any] = yaml.safe_load(text)
    return said


def test_datasets_loads_the_same_rows_in_the_same_order_offline(made: Finished, tmp_path: Path) -> None:
    export(made, tmp_path / "hf")
    found = loaded(tmp_path / "hf", tmp_path)
    assert found["rows"] == list(rows_of(made, "dataset"))
    (split,) = front(tmp_path / "hf")["dataset_info"]["splits"]
    assert split["num_examples"] == made.accounts.kept
    assert split["num_bytes"] == pytest.approx(found["num_bytes"], rel=0.01)


def test_a_dump_is_a_configuration_where_no_part_holds_two(made: Finished, crawls: list[Path], tmp_path: Path) -> None:
    two = run(crawls, shutil.copytree(made.store.url, tmp_path / "out"), parts=2)
    export(two, tmp_path / "hf")
    found = loaded(tmp_path / "hf", tmp_path, "CC-MAIN-2024-18")
    assert found["rows"] == [row for row in rows_of(two, "dataset") if row["dump"] == "CC-MAIN-2024-18"]
    names = ["default", "CC-MAIN-2024-10", "CC-MAIN-2024-18"]
    assert [one["config_name"] for one in front(tmp_path / "hf")["configs"]] == names
    assert [one["config_name"] for one in front(tmp_path / "hf")["dataset_info"]] == names
    DatasetCard.load(tmp_path / "hf" / "README.md")


def part(*dumps: str) -> Part:
    return Part(path="p", rows=1, bytes=1, arrow_bytes=1, dumps=frozenset(dumps), languages=frozenset())


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ([part("a"), part("b"), part("a")], ["a", "b"]),
        ([part("a"), part("a")], []),
        ([part("a"), part("a", "b")], []),
        ([part("a"), part("")], []),
        ([part("a"), part("default")], []),
        ([part("a"), part("../b")], []),
        ([part("a"), part()], []),
    ],
)
def test_dumps_that_share_a_part_or_have_no_fit_name_are_no_configurations(parts: list[Part], names: list[str]) -> None:
    assert list(dump_configs(parts)) == names


def test_the_card_is_a_dataset_card_with_the_figures_of_the_run(made: Finished, tmp_path: Path) -> None:
    done = export(made, tmp_path / "hf", licence="odc-by")
    said = front(tmp_path / "hf")
    parsed = DatasetCard.load(tmp_path / "hf" / "README.md")
    assert parsed.data.to_dict() == said
    assert (said["license"], said["language"], said["size_categories"]) == ("odc-by", ["en"], ["n<1K"])
    assert said["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]},
    ]
    info = said["dataset_info"]
    assert [one["name"] for one in info["features"]] == DATASET.names
    assert info["download_size"] == sum(file.bytes for file in done.files)
    for rule, count in made.accounts.dropped.items():
        assert re.search(rf"^\| dropped \| `{re.escape(rule)}` \| [^|]+ \| {count:,} \|", parsed.text, re.MULTILINE)
    accounts = made.accounts
    assert f"{accounts.kept:,} of {accounts.documents:,} documents are kept" in parsed.text
    assert f"{accounts.tokens:,} tokens" in parsed.text
    assert made.dataset_sha256 in parsed.text
    assert "`CC-MAIN-2024-10`, `CC-MAIN-2024-18`) share files" in parsed.text
    for rule in made.recipe.rules:
        assert f"<{rule.paper.url}>" in parsed.text


def test_no_licence_is_made_up(made: Finished, tmp_path: Path) -> None:
    export(made, tmp_path / "hf")
    assert front(tmp_path / "hf")["license"] == "unknown"
    assert "None was stated" in (tmp_path / "hf" / "README.md").read_text()
    with pytest.raises(InputError, match="odc-by"):
        export(made, tmp_path / "other", licence="Open Data Commons")
    assert not (tmp_path / "other").exists()


def test_the_recipe_in_the_card_makes_the_same_dataset(made: Finished, tmp_path: Path) -> None:
    export(made, tmp_path / "hf")
    text = (tmp_path / "hf" / "README.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)\n```", text, re.DOTALL)
    recipe = parse_recipe(block, where="card")
    assert recipe.sha256 == made.recipe.sha256
    assert recipe.target_bytes == made.recipe.target_bytes
    assert made.recipe.sha256 in text
    assert "run recipe.yaml --input" in text  # the name is that of a recipe which comes with Gristmill, and is another


def carded(made: Finished, **changed: Any) -> str:
    """The card of the run, had it been like this."""
    recipe = made.recipe.model_dump(mode="json") | changed.pop("recipe", {})
    other = replace(made, recipe=Recipe.model_validate(recipe), **changed)
    return card(other, [part("d")], DATASET, recipe_sha256="0" * 64, licence=None)


def test_duplicates_stand_in_the_funnel_and_by_method(made: Finished) -> None:
    copies = {"text": 3, "minhash": made.accounts.kept - 4}
    found = carded(made, accounts=replace(made.accounts, kept=1, duplicates=copies))
    passed = 1 + sum(copies.values())
    assert "| duplicates | `text` |  | 3 |" in found
    assert f"Duplicates among the {passed:,} documents that passed the rules" in found
    assert f"| `text` | documents of the same text, but for case and white space | 3 | {3 / passed:.2%} |" in found
    assert "Nobody looked for duplicate documents" in carded(made)


def test_the_card_of_a_run_with_a_dedup_step_says_what_it_removed(crawls: list[Path], tmp_path: Path) -> None:
    said = load_recipe("fineweb-resiliparse").model_dump(mode="json")
    said["steps"].append({"dedup": {"text": {}, "minhash": {"threshold": 0.8}}})
    made = run_recipe(
        Recipe.model_validate(said), [str(one) for one in crawls], tmp_path / "out", runner="inprocess", quiet=True
    )
    found = export(made, tmp_path / "hf").card
    copies = made.accounts.duplicates["text"]
    assert copies == made.accounts.kept  # one dump is a copy of the other
    assert f"| duplicates | `text` |  | {copies:,} | {made.accounts.kept:,} |" in found
    assert f"{copies:,} of the documents kept stand for others, none for more than 1." in found
    assert "threshold: 0.8" in found
    assert "doi.org/10.1109/SEQUEN.1997.666900" in found


def test_what_others_wrote_forms_no_markup(made: Finished) -> None:
    bad = "x|y\n---\n# <script>alert(`1`)</script> [a](javascript:1) \x1b[31m\u202e: {}"
    counts = {"a|b`c": made.accounts.documents}
    accounts = replace(made.accounts, kept=0, dropped={}, duplicates=counts)
    found = carded(
        made, recipe={"name": bad, "says": bad, "deviations": [bad]}, accounts=replace(accounts, quarantined={})
    )
    _, text, body = found.split("---\n", 2)
    assert yaml.safe_load(text)["pretty_name"].startswith("x|y --- # <script>alert(`1`)</script> [a](javascript:1) ")
    page = MarkdownIt("commonmark").enable("table").render(body)
    # Title, name twice, what it says, a deviation; name and what it says in the recipe.
    assert page.count("&lt;script&gt;alert(") == page.count("[a](javascript:1)") == 7
    for markup in ("<script", 'href="javascript', "\x1b", "\u202e"):
        assert markup not in page
    assert (page.count("<h1>"), page.count("<h2>"), page.count("<details>"), page.count("</details>")) == (1, 7, 1, 1)
    (row,) = re.findall(r"<tr>\s*<td>duplicates</td>.*?</tr>", page, re.DOTALL)
    assert (row.count("<td"), "<code>a|b`c</code>" in row) == (5, True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a", "`a`"), ("a`b", "``a`b``"), ("`", "`` ` ``"), ("a\n\nb", "`a b`"), ("a``b`", "``` a``b` ```")],
)
def test_code_within_a_line_shows_its_backticks(text: str, shown: str) -> None:
    assert code(text) == shown


def test_markdown_is_escaped_and_plain_words_are_not() -> None:
    assert escaped("plain words, 3.5 - (yes)") == "plain words, 3.5 - (yes)"
    assert escaped("*a* _b_ <c> [d] `e` #f\n|g|") == r"\*a\* \_b\_ \<c\> \[d\] \`e\` \#f \|g\|"


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1_000, "1K<n<10K"),
        (9_999, "1K<n<10K"),
        (10_000, "10K<n<100K"),
        (5_000_000, "1M<n<10M"),
        (10**9, "1B<n<10B"),
        (10**12 - 1, "100B<n<1T"),
        (10**12, "n>1T"),
    ],
)
def test_sizes_have_the_hubs_names(rows: int, name: str) -> None:
    assert size_category(rows) == name


def test_labels_of_models_become_codes_of_languages() -> None:
    assert hub_languages(["eng_Latn", "deu_Latn", "en", "en", "", "not a label"]) == ["deu", "en", "eng"]


def test_the_card_names_norwegian_as_a_text_and_not_as_false(made: Finished) -> None:
    norwegian = replace(part("d"), languages=frozenset({"no"}))
    _, text, _ = card(made, [norwegian], DATASET, recipe_sha256="0" * 64, licence=None).split("---\n", 2)
    assert yaml.safe_load(text)["language"] == ["no"]


def test_the_values_of_a_column_are_those_of_its_rows(tmp_path: Path) -> None:
    columns = {"language": ["en", "en", "de", "fr", None, None], "other": [1, 2, 3, 4, 5, 6]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=2)
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        assert distinct(file, "language") == {"en", "de", "fr"}
        assert distinct(file, "dump") == frozenset()


def test_every_kind_of_step_was_thought_of_in_the_cards_limits() -> None:
    """A step that removes personal data or questions of benchmarks makes a sentence of `infra.card.limits` untrue."""
    judging = {"url", "gate", "language", "rules", "classifier", "pattern", "datatrove", "dedup"}
    assert set(Step.model_fields) <= judging | {"extract", "edit", "lines"}


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file of a folder with its inode and the time it was changed."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_second_export_touches_nothing(made: Finished, tmp_path: Path) -> None:
    first = export(made, tmp_path / "hf")
    before = identities(tmp_path / "hf")
    again = export(made, tmp_path / "hf")
    assert (len(first.missing), again.missing) == (3, ())
    assert identities(tmp_path / "hf") == before
    assert sorted(before) == ["README.md", "SHA256SUMS", *(file.path for file in first.files)]
    assert first.files[2].path == "data/train-00002-of-00003.parquet"


def test_parts_on_one_file_system_are_links_and_the_sums_are_theirs(made: Finished, tmp_path: Path) -> None:
    done = export(made, tmp_path / "hf")
    for entry, file in zip(made.files["dataset"], done.files, strict=True):
        assert (tmp_path / "hf" / file.path).samefile(Path(made.store.url) / entry.path)
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / "hf", check=False, capture_output=True)
    assert checked.returncode == 0


def test_parts_are_copied_where_the_file_system_has_no_links(made: Finished, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(exporting, "linked", lambda source, path: False)
    done = export(made, tmp_path / "hf")
    for entry, file in zip(made.files["dataset"], done.files, strict=True):
        source, copy = Path(made.store.url) / entry.path, tmp_path / "hf" / file.path
        assert not copy.samefile(source)
        assert copy.read_bytes() == source.read_bytes()


def copied(made: Finished, folder: Path) -> Finished:
    """The same run in a folder of its own, where a file may be damaged."""
    return read_run(open_store(shutil.copytree(made.store.url, folder)))


def damage(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.mark.parametrize("harm", ["flipped", "short", "gone", "footer"])
def test_a_damaged_part_is_named_and_the_same_export_goes_on_once_it_is_restored(
    made: Finished, tmp_path: Path, harm: str
) -> None:
    here = copied(made, tmp_path / "out")
    path = tmp_path / "out" / "dataset" / "part-00001.parquet"
    whole = path.read_bytes()
    flipped = whole[:500] + bytes([whole[500] ^ 1]) + whole[501:]
    footer = whole[:-100] + bytes(92) + whole[-8:]
    damage(path, {"flipped": flipped, "short": whole[:-1], "footer": footer, "gone": b""}[harm])
    if harm == "gone":
        path.unlink()
    with pytest.raises(VerifyFailed, match=r"dataset/part-00001\.parquet"):
        export(here, tmp_path / "hf")
    assert not (tmp_path / "hf" / "README.md").exists()
    assert not (tmp_path / "hf" / "data" / "train-00001-of-00003.parquet").exists()
    damage(path, whole) if path.exists() else path.write_bytes(whole)
    if harm == "flipped":  # found while the parts were brought, the others at its side
        assert (tmp_path / "hf" / "data" / "train-00000-of-00003.parquet").exists()
    export(here, tmp_path / "hf")
    assert sorted(identities(tmp_path / "hf")) == [
        "README.md",
        "SHA256SUMS",
        *(f"data/train-0000{at}-of-00003.parquet" for at in range(3)),
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("notes.txt", r"holds other things \(notes\.txt\)"),
        ("SHA256SUMS", "another dataset"),
        ("README.md", "somebody edited it"),
        ("data/train-00003-of-00003.parquet", "is no part of this dataset"),
        ("data/train-00001-of-00003.parquet", "has 5 bytes for"),
    ],
)
def test_something_else_in_the_folder_is_refused_by_name_and_stays(
    made: Finished, tmp_path: Path, name: str, said: str
) -> None:
    folder = tmp_path / "hf"
    if name == "notes.txt":
        folder.mkdir()
    else:
        export(made, folder)
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_text("other")
    before = identities(folder)
    with pytest.raises(OutputError, match=said) as raised:
        export(made, folder)
    assert str(folder) in str(raised.value)
    assert (folder / name).read_text() == "other"
    assert identities(folder) == before


def test_a_clone_of_a_repository_and_files_of_its_owner_are_no_hindrance(made: Finished, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    (folder / ".git").mkdir(parents=True)
    (folder / ".gitattributes").write_text("*.parquet filter=lfs\n")
    export(made, folder)
    (folder / "LICENSE").write_text("A licence.")
    assert export(made, folder).missing == ()


def test_a_folder_left_by_an_export_that_was_killed_is_removed(made: Finished, tmp_path: Path) -> None:
    left = tmp_path / "hf" / ".gristmill-export-killed"
    left.mkdir(parents=True)
    (left / "train-00000-of-00003.parquet").write_bytes(b"half")
    export(made, tmp_path / "hf")
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == ["README.md", "SHA256SUMS", "data"]


def test_an_empty_dataset_is_refused_as_none_could_load_it(tmp_path: Path, write_warc) -> None:
    made = run([write_warc("short.warc.gz", [b"<p>Too short to keep.</p>"])], tmp_path / "out", parts=1)
    with pytest.raises(OutputError, match="kept no document"):
        export(made, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_an_object_store_can_be_read_and_written(made: Finished, bucket: str, tmp_path: Path) -> None:
    to = f"{bucket}/corpora/hf"
    there = export(made, to)
    assert (len(there.missing), export(made, to).missing) == (3, ())
    store = open_store(to)
    assert {one.name for one in store.listed("")} == {"README.md", "SHA256SUMS", *(file.path for file in there.files)}
    for entry, file in zip(made.files["dataset"], there.files, strict=True):
        assert store.read(file.path) == made.store.read(entry.path)
    store.remove([there.files[1].path])
    assert export(made, to).missing == (there.files[1].path,)


def test_a_run_in_an_object_store_is_exported_here_and_its_damage_named(
    small_crawl: Path, bucket: str, tmp_path: Path
) -> None:
    made = run([small_crawl], f"{bucket}/out", parts=2)
    export(made, tmp_path / "hf")
    assert loaded(tmp_path / "hf", tmp_path)["rows"] == list(rows_of(made, "dataset"))
    name = made.files["dataset"][1].path
    whole = made.store.read(name)
    made.store.replace(name, whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    with pytest.raises(VerifyFailed, match=name):
        export(made, tmp_path / "other")


def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.setattr(sys, "argv", ["gristmill", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


def test_a_dry_run_writes_nothing_and_shows_the_card(made: Finished, tmp_path: Path, monkeypatch, capsys) -> None:
    arguments = ("export", made.store.url, "--format", "hf", "--to", str(tmp_path / "hf"))
    code, out, err = typed(monkeypatch, capsys, *arguments, "--dry-run")
    assert (code, err) == (0, "")
    assert not (tmp_path / "hf").exists()
    shown = out.partition("README.md:\n\n")[2]
    assert "data/train-00002-of-00003.parquet" in out
    assert typed(monkeypatch, capsys, *arguments)[0] == 0
    assert shown == (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")


def test_the_command_speaks_json_and_says_what_is_wrong(made: Finished, tmp_path: Path, monkeypatch, capsys) -> None:
    arguments = ("export", made.store.url, "--to", str(tmp_path / "hf"))
    code, out, err = typed(monkeypatch, capsys, *arguments, "--licence", "Free!")
    assert (code, out, "--licence Free!" in err) == (2, "", True)
    code, out, err = typed(monkeypatch, capsys, *arguments, "--json")
    assert (code, "export: 3 tasks" in err) == (0, True)
    said = json.loads(out)
    assert len(said["files"]) == len(said["missing_before"]) == 3
    assert said["dataset_sha256"] == made.dataset_sha256
    code, out, err = typed(monkeypatch, capsys, *arguments, "--licence", "odc-by", "--quiet")
    assert (code, out, "README.md" in err) == (1, "", True)
