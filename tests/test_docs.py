"""What the documents tell a reader to type works, and what they point at exists."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from filters import catalogue
from infra.cli import app, main
from pipelines.common_crawl import crawl_of, is_crawl
from pipelines.recipe import Recipe, parse_recipe, recipe_names

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md")))]


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)


def commands() -> list[str]:
    lines = [line for document in DOCUMENTS for block in blocks(document, "sh") for line in block.splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def test_the_readmes_commands_run_one_after_the_other(
    small_crawl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a small crawl, in process; every `gristmill` line of every document is typed as it stands."""
    (tmp_path / "crawl").symlink_to(small_crawl)
    for domain in ("books", "news"):
        (tmp_path / "domains" / domain).mkdir(parents=True)
        (tmp_path / "domains" / domain / "one.txt").write_text(
            f"What stands in {domain} is held out of every pool.\n" * 9
        )
    monkeypatch.chdir(tmp_path)
    typed = [line for line in commands() if line.startswith("gristmill ")]
    assert len(typed) >= 11
    for line in sorted(typed, key=lambda line: not line.startswith("gristmill run ")):
        arguments = shlex.split(line, comments=True)[1:]
        if arguments[0] in ("run", "dedup"):
            arguments += ["--runner", "inprocess", "--quiet"]
        if arguments[0] == "explain":
            arguments[2] = "https://mill.example/3"
        if arguments[0] in ("pool", "train", "score"):
            arguments += ["--workers", "1", "--quiet"]
        if arguments[0] == "pool":
            arguments += ["--vocabulary", "512"]
        if arguments[0] == "train":
            arguments[arguments.index("--tokens") + 1] = "2k"
        monkeypatch.setattr(sys, "argv", ["gristmill", *arguments])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        assert code == 0, (line, capsys.readouterr().err)
    capsys.readouterr()


def test_every_other_command_of_the_documents_is_a_target_or_a_file_that_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in commands():
        words = shlex.split(line, comments=True)
        if words[0] == "make":
            assert words[1] in targets, line
        elif words[0] in ("python", ".venv/bin/python"):
            assert (ROOT / words[1]).is_file(), line
        else:
            assert words[0] == "gristmill", line


def typed_elsewhere() -> list[str]:
    """Commands that need a cluster or the internet: lines of `console` blocks that begin with `$ gristmill`."""
    text = "".join(block for document in DOCUMENTS for block in blocks(document, "console"))
    return [line[2:] for line in text.replace("\\\n", " ").splitlines() if line.startswith("$ gristmill ")]


@pytest.mark.parametrize("line", sorted(set(typed_elsewhere())))
def test_commands_for_elsewhere_are_understood(line: str) -> None:
    group: Any = typer.main.get_command(app)
    _, name, *arguments = shlex.split(line, comments=True)
    assert name in group.commands
    with group.commands[name].make_context(name, arguments) as context:
        for given in context.params.get("input") or []:
            if is_crawl(given):
                crawl_of(given)


def test_every_console_block_shows_what_is_typed() -> None:
    assert len(typed_elsewhere()) >= 10
    for document in DOCUMENTS:
        assert all("$ " in block for block in blocks(document, "console"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_paths_in_a_document_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    linked = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    named = re.findall(r"`((?:filters|pipelines|infra|proxy_eval|tests|benchmarks|docs)/[\w@./-]+\.\w+)`", text)
    missing = [path for path in linked if not (ROOT / document).parent.joinpath(path).exists()]
    missing += [path for path in named if not (ROOT / path).exists()]
    assert missing == []


def test_the_readmes_recipe_is_a_recipe() -> None:
    (text,) = blocks("README.md", "yaml")
    recipe = parse_recipe(text, where="README.md")
    (rule,) = [rule for rule in recipe.rules if rule.name == "gopher_quality.words_low"]
    assert rule.low == 30


def test_every_command_and_every_recipe_stands_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names = [one.name or one.callback.__name__ for one in app.registered_commands if one.callback]
    assert [name for name in names if name != "demo" and f"gristmill {name}" not in text] == []
    assert [name for name in recipe_names() if name not in text] == []


@pytest.mark.parametrize(
    "name", ["pipeline", "extraction", "decoding", "overhead", "rules", "scheduling", "simulation", "dedup", "proxy"]
)
def test_every_benchmark_takes_the_two_flags_and_says_what_it_measures(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = __import__(f"benchmarks.{name}", fromlist=["main"])
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit):
        module.main()
    shown = capsys.readouterr().out
    assert "--quick" in shown
    assert "--json" in shown


def test_the_json_schema_of_recipes_is_published_and_is_that_of_the_code() -> None:
    """`gristmill recipes --schema > docs/recipe.schema.json` makes it anew."""
    stored = json.loads((ROOT / "docs" / "recipe.schema.json").read_text(encoding="utf-8"))
    assert stored == Recipe.model_json_schema()


def test_every_family_has_signals_and_every_rule_a_source() -> None:
    for family in catalogue.FAMILIES:
        assert family.signals
        for rule in family.rules:
            assert rule.paper.title
            assert rule.paper.url.startswith("https://")
            assert rule.paper.where
