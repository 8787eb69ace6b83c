"""Imports point one way: infra -> proxy_eval -> pipelines -> filters; nobody else installs our four names."""

import ast
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ["filters", "pipelines", "proxy_eval", "infra"]
ONLY_IN = {"ray": "infra", "torch": "proxy_eval", "typer": "infra", "rich": "infra"}


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def violations(package: str, source: str) -> set[str]:
    names = imported(ast.parse(source))
    upward = names & set(ORDER[ORDER.index(package) + 1 :])
    misplaced = {name for name, home in ONLY_IN.items() if name in names and ORDER.index(package) < ORDER.index(home)}
    return upward | misplaced


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_one_way(package: str) -> None:
    found = {
        str(path.relative_to(ROOT)): bad
        for path in (ROOT / package).rglob("*.py")
        if (bad := violations(package, path.read_text()))
    }
    assert found == {}


def test_the_check_sees_an_upward_import() -> None:
    assert violations("filters", "def f():\n    from pipelines.record import Page") == {"pipelines"}
    assert violations("pipelines", "import ray.util") == {"ray"}
    assert violations("infra", "import ray, filters.rule") == set()


@pytest.mark.parametrize("package", ORDER)
def test_nobody_else_installs_our_packages(package: str) -> None:
    assert set(packages_distributions().get(package, [])) <= {"gristmill"}
