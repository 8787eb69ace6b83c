"""An experiment is data: what it says is what is read, and what it cannot mean is named with line and nearest name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from filters.errors import RecipeError
from proxy_eval.experiment import Arm, Experiment, parse_experiment, read_experiment, same_mask

TEXT = """\
name: left-out
pool: pool
panel: s3://bucket/panel
tasks: /data/tasks
arms:
  - {name: words, mask: "without:gopher_quality.words_low"}
  - {name: raw, mask: all}
  - {name: plain, pool: plain_pool}
rungs:
  - {size: 1M, tokens: 1.5M, seeds: 4, learning_rates: [1e-3, 2.5e-4]}
  - {size: 4M, tokens: 20M}
"""


def read(text: str = TEXT) -> Experiment:
    return parse_experiment(text, where="e.yaml", folder=Path("/here"))


def test_what_is_written_is_what_is_read() -> None:
    found = read()
    assert found.rungs[0].tokens == 1_500_000 and found.rungs[1].tokens == 20_000_000
    assert found.rungs[0].learning_rates == [1e-3, 2.5e-4]
    assert (found.pool, found.panel, found.tasks) == ("/here/pool", "s3://bucket/panel", "/data/tasks")
    assert found.arms[2].pool == "/here/plain_pool"
    assert (found.budget.arms, found.budget.rungs, found.budget.placebos) == (3, 2, 3)


def test_the_rule_stands_in_the_base_where_the_arm_leaves_it_out() -> None:
    assert [arm.in_base for arm in read().arms] == [True, False, False]
    assert not Arm(name="x", mask="without:a,with:b", rule_in="arm").in_base
    assert Arm(name="x", mask="all", rule_in="base").in_base


def test_its_hash_is_of_what_it_says_and_not_of_where_things_lie() -> None:
    moved = parse_experiment(TEXT, where="e.yaml", folder=Path("/there"))
    assert moved.sha256 == read().sha256
    assert read(TEXT.replace("seeds: 4", "seeds: 5")).sha256 != read().sha256


def test_masks_are_the_same_whatever_the_order_of_their_terms() -> None:
    assert same_mask("rules, without:a,without:b", "without:b,without:a")
    assert not same_mask("rules", "all") and not same_mask("without:a", "rules")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("rungs:", "rnugs:", "e.yaml:9: unknown key 'rnugs' in the experiment; did you mean 'rungs'?"),
        ("size: 1M", "size: 2M", "e.yaml:10: rungs.1.size"),
        ("size: 1M", "sise: 1M", "unknown key 'sise' in rungs.1; did you mean 'size'?"),
        ("tokens: 1.5M", "tokens: many", "e.yaml:10: rungs.1.tokens"),
        ("tokens: 20M", "tokens: 1M", "at least the tokens of the one before"),
        ("[1e-3, 2.5e-4]", "[1e-3, 1e-3]", "one learning rate that sets verdicts"),
        ("name: raw", "name: words", "two arms are called 'words'"),
        ("name: raw", "name: garbage", "no arm may be called 'garbage'"),
        ("mask: all", "mask: rules", "raw has the mask of the base"),
        (", mask: all", "", "neither `mask` nor `pool`"),
        ("tasks: /data/tasks", "metric: gold", "the metric gold needs `tasks`"),
        ("pool: pool", "metric: loss\npool: pool", "'loss' is none of panel"),
        ("pool: pool", "metric: piqa/acc_nrm\npool: pool", "did you mean 'acc_norm'?"),
        ("pool: pool", "room: 2\npool: pool", "room for 2 arms, and here are 3"),
        ("pool: pool", "rope: 1.5\npool: pool", "e.yaml:2: rope"),
        ("pool: pool", "pool: 3", "e.yaml:2: pool"),
        ("seeds: 4", "seeds: 1", "`seeds` is at least 2: one seed tells nothing"),
        (TEXT, "", "e.yaml: empty; an experiment has at least `name`, `pool`, `panel`, `arms` and `rungs`."),
        (TEXT, "x" * (2 << 20), "an experiment has at most"),
    ],
)
def test_what_cannot_be_is_named_with_its_line(old: str, new: str, expected: str) -> None:
    with pytest.raises(RecipeError) as error:
        read(TEXT.replace(old, new, 1))
    if "size: 2M" in new:
        assert "did you mean" in str(error.value) or "there are" in str(error.value)
        expected = "no size of model is called '2M'"
    assert expected in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="absent.yaml: cannot be read"):
        read_experiment(tmp_path / "absent.yaml")
    (tmp_path / "e.yaml").write_text(TEXT)
    assert read_experiment(tmp_path / "e.yaml").pool == str(tmp_path / "pool")


def test_its_json_schema_says_that_counts_may_be_words() -> None:
    schema = Experiment.model_json_schema()
    assert schema["$defs"]["Rung"]["properties"]["tokens"]["type"] == ["integer", "string"]
    assert schema["additionalProperties"] is False


def fields_of(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    parts = {"Experiment": schema, **schema["$defs"]}
    return {f"{part}.{name}": field for part, said in parts.items() for name, field in said["properties"].items()}


def test_its_json_schema_describes_every_field() -> None:
    assert [
        name for name, field in fields_of(Experiment.model_json_schema()).items() if "description" not in field
    ] == []


def test_the_published_json_schema_is_that_of_the_code() -> None:
    """`gristmill ablate --schema > docs/experiment.schema.json` makes it anew."""
    stored = Path(__file__).parents[2] / "docs" / "experiment.schema.json"
    assert json.loads(stored.read_text(encoding="utf-8")) == Experiment.model_json_schema()
