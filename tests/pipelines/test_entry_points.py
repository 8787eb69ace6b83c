"""What another distribution adds is found by its entry point, named with its origin, and part of a recipe's hash."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from filters.errors import RecipeError
from pipelines import entry_points
from pipelines.recipe import families, parse_recipe

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own-rules"
DOCUMENTS = [ROOT / "docs" / "own-rules.md", EXAMPLE / "README.md"]


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the example."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(target), str(EXAMPLE)]
    subprocess.run(command, check=True)
    return target


def distribution(folder: Path, name: str, entry_points: str, modules: dict[str, str]) -> Path:
    """A distribution as pip leaves it."""
    described = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(entry_points)
    for module, code in modules.items():
        (folder / f"{module}.py").write_text(code)
    return folder


def gristmill(line: str, *, cwd: Path, installed: list[Path]) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, [*installed, ROOT]))
    command = [sys.executable, "-m", "infra.cli", *shlex.split(line)]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def lib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose distributions are installed in this process, for one test."""
    (tmp_path / "lib").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "lib")
    before = set(sys.modules)
    cached = (entry_points.loaded, entry_points.installed_families, entry_points.installed_edits)
    for one in cached:
        one.cache_clear()
    yield tmp_path / "lib"
    for one in cached:
        one.cache_clear()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_documents_commands_run_where_the_example_is_installed(
    document: Path, installed: Path, small_crawl: Path, tmp_path: Path
) -> None:
    (tmp_path / "crawl").symlink_to(small_crawl)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    lines = "".join(blocks(document, "console")).splitlines()
    typed = [line.removeprefix("$ gristmill ") for line in lines if line.startswith("$ gristmill ")]
    assert len(typed) >= 2
    for line in typed:
        quiet = " --runner inprocess --quiet" if line.startswith("run ") else ""
        done = gristmill(line + quiet, cwd=tmp_path, installed=[installed])
        assert done.returncode == 0, (line, done.stderr)
    assert (tmp_path / "own" / "signals").is_dir()


def test_rules_shows_what_a_family_comes_from(installed: Path, tmp_path: Path) -> None:
    done = gristmill("rules --family own", cwd=tmp_path, installed=[installed])
    assert "own, from gristmill-own-rules 1.0.0" in done.stdout
    assert "own.newsletters" in done.stdout
    (rule,) = json.loads(gristmill("rules --family own --json", cwd=tmp_path, installed=[installed]).stdout)["own"]
    assert rule["from"] == "gristmill-own-rules 1.0.0"
    absent = gristmill("rules --family own", cwd=tmp_path, installed=[])
    assert absent.returncode == 2


def test_an_own_rule_drops_what_it_should(installed: Path, tmp_path: Path) -> None:
    text = " ".join(["The miller walked along the river and thought about the harvest of the year."] * 5)
    rows = [{"id": str(count), "text": text + " Our newsletter." * count} for count in range(5)]
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = (EXAMPLE / "recipe.yaml").read_text().replace("  - extract: {engine: resiliparse}\n", "")
    (tmp_path / "mine.yaml").write_text(recipe)
    line = "run mine.yaml -i pages.jsonl -o out --runner inprocess --quiet --json"
    done = gristmill(line, cwd=tmp_path, installed=[installed])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dropped"] == {"own.newsletters": 2}


def test_distribution_and_release_are_part_of_the_hash(installed: Path, tmp_path: Path) -> None:
    code = (
        "import json; from pipelines.recipe import load_recipe; "
        f"recipe = load_recipe({str(EXAMPLE / 'recipe.yaml')!r}); print(json.dumps(recipe.identity['versions']))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    said = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout
    assert json.loads(said)["gristmill-own-rules"] == "1.0.0"


FAMILIES = "[gristmill.families]\n{name} = {value}\n"
FAMILY = """\
from filters.rule import Family, Paper, Rule, Signal
S = Signal(name="{signal}", kind="count", says="{says}")
P = Paper(title="a", url="https://mill.example", where="b")
FAMILY = Family(name="{family}", rules=(Rule(name="{rule}", signal=S, low=1, paper=P),), measure=dict)
"""


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (("mine", "mine.r", "mine.s", "x"), ("mine", "b.r", "b.s", "x"), "have a family called 'mine'"),
        (("a", "mine.r", "a.s", "x"), ("b", "mine.r", "b.s", "x"), "have a rule called 'mine.r'"),
        (("a", "a.r", "mine.s", "x"), ("b", "b.r", "mine.s", "y"), "'mine.s' is one signal in"),
    ],
)
def test_two_things_of_one_name_are_refused_with_both_origins(
    one: tuple[str, ...], other: tuple[str, ...], message: str, lib: Path
) -> None:
    for name, (family, rule, signal, says) in (("first-rules", one), ("other-rules", other)):
        module = name.replace("-", "_")
        code = FAMILY.format(family=family, rule=rule, signal=signal, says=says)
        distribution(lib, name, FAMILIES.format(name=family, value=f"{module}:FAMILY"), {module: code})
    with pytest.raises(RecipeError) as error:
        families()
    assert message in str(error.value)
    assert "first-rules 1.0 and " in str(error.value)
    assert "other-rules 1.0" in str(error.value)


@pytest.mark.parametrize(
    ("family", "value", "message"),
    [
        ("gopher_quality", "mine:FAMILY", "a family called 'gopher_quality': Gristmill itself and mine 1.0"),
        ("classifier", "mine:FAMILY", "a family called 'classifier': Gristmill itself and mine 1.0"),
        ("mine", "mine:NOTHING", "mine 1.0 adds 'mine' to gristmill.families, and mine:NOTHING cannot be loaded"),
        ("mine", "absent:FAMILY", "absent:FAMILY cannot be loaded: No module named 'absent'"),
        ("mine", "mine:S", "it is a Signal, and has to be a Family"),
    ],
)
def test_what_a_distribution_adds_wrongly_is_named_with_it(family: str, value: str, message: str, lib: Path) -> None:
    code = FAMILY.format(family=family, rule="mine.r", signal="mine.s", says="x")
    distribution(lib, "mine", FAMILIES.format(name="mine", value=value), {"mine": code})
    with pytest.raises(RecipeError) as error:
        families()
    assert message in str(error.value)


EDIT_AND_FILTER = """\
from datatrove.pipeline.filters.base_filter import BaseFilter
from filters.edit import Edit, Edited
from filters.rule import Paper


def apply(batch):
    return Edited(texts=[text.replace("newsletter", "letter") for text in batch.texts], signals={})


class EvenFilter(BaseFilter):
    name = "even"

    def filter(self, doc):
        return "newsletter" not in doc.text, "newsletters"


EDIT = Edit(name="letters", apply=apply, notices=(), paper=Paper(title="a", url="https://mill.example", where="b"))
"""


def test_edits_and_datatrove_filters_are_added_in_the_same_way(tmp_path: Path) -> None:
    points = "[gristmill.edits]\nletters = more:EDIT\n[gristmill.datatrove_filters]\neven = more:EvenFilter\n"
    distribution(tmp_path / "lib", "more", points, {"more": EDIT_AND_FILTER})
    recipe = "name: a\nsays: b\nsteps:\n  - {edit}  - datatrove: {filter: EvenFilter}\n  - rules: {families: []}\n"
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps({"id": "1", "text": "A newsletter."}) + "\n"))
    for edit, kept in (("", 0), ("edit: {name: letters, words: unicode_words}\n", 1)):
        text = recipe.replace("  - {edit}", f"  - {edit}" if edit else "")
        (tmp_path / "mine.yaml").write_text(text)
        line = f"run mine.yaml -i pages.jsonl -o out{kept} --runner inprocess --quiet --json"
        done = gristmill(line, cwd=tmp_path, installed=[tmp_path / "lib"])
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["kept"] == kept


@pytest.mark.parametrize(
    "text", [text for path in DOCUMENTS for text in blocks(path, "yaml")], ids=lambda text: text.split()[1]
)
def test_the_documents_recipes_are_recipes(text: str) -> None:
    assert parse_recipe(text, where="own-rules.md").steps


def test_the_documents_code_is_the_examples() -> None:
    (code,) = blocks(ROOT / "docs" / "own-rules.md", "python")
    assert code in (EXAMPLE / "own_rules.py").read_text(encoding="utf-8")
