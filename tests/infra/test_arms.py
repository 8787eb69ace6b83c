"""Masks from rules: they keep what the run keeps, what `whatif` counts, and refuse what they do not know by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from filters.errors import InputError, VerifyFailed
from filters.rule import Bools
from infra.annotated import run_rules
from infra.arms import kept_by, mask_rules
from infra.local_store import LocalStore
from infra.pool_files import kept_mask, read_mask
from infra.run import Finished
from infra.what_if import changed_rules, compared
from tests.annotated_run import annotated_run


@pytest.fixture(scope="module")
def made(small_crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    made = annotated_run(small_crawl, tmp_path_factory.mktemp("arms") / "out")
    assert len(made.files["signals"]) > 1
    return made


def mask(made: Finished, said: str) -> Bools:
    ruled = mask_rules(made, said)
    assert ruled is not None
    return kept_by(made, ruled)


def column(made: Finished, kind: str, name: str) -> list[object]:
    root = Path(made.store.url)
    return [value for entry in made.files[kind] for value in pq.read_table(root / entry.path).column(name).to_pylist()]


def test_the_rules_of_the_run_keep_what_it_kept_row_by_row(made: Finished) -> None:
    assert mask(made, "rules").tolist() == [outcome == "kept" for outcome in column(made, "signals", "outcome")]
    assert column(made, "signals", "key") == column(made, "text", "key")  # so it is a mask over texts, too


def test_every_document_is_no_mask_at_all(made: Finished) -> None:
    assert mask_rules(made, "all") is None


def test_a_mask_keeps_as_many_as_whatif_counts(made: Finished) -> None:
    bounded = next(rule for rule, _ in reversed(run_rules(made)) if rule.low is not None)
    other = next(rule.name for rule, _ in run_rules(made) if rule.name != bounded.name)
    asked = f"{bounded.name}.low={float(bounded.low or 0) + 1e9}"
    for said, changes in (
        (f"without:{bounded.name}", {"without": [bounded.name]}),
        (f"rules, without:{other},set:{asked}", {"without": [other], "bounds": [asked]}),
    ):
        found = compared(made, run_rules(made), changed_rules(made, **changes))
        assert mask(made, said).sum() == found.after.documents
    assert not mask(made, f"set:{asked}").any()


def test_only_one_rule_keeps_a_superset_and_all_of_them_keep_what_the_run_keeps(made: Finished) -> None:
    names = [rule.name for rule, _ in run_rules(made)]
    kept = mask(made, "rules")
    one = mask(made, f"only:{names[-1]}")
    assert one[kept].all() and one.sum() > kept.sum()
    assert (mask(made, ",".join(f"only:{name}" for name in names)) == kept).all()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("wihtout:gopher.x", "'wihtout:gopher.x' is no term; did you mean 'without'"),
        ("all,without:x", "let it stand alone"),
        ("without:no.such", "the run has no such rule"),
        ("only:gopher_quality.words,rules", "names all the rules there are"),
        ("", "is no term"),
    ],
)
def test_what_is_no_mask_is_named_with_what_is_right(made: Finished, said: str, expected: str) -> None:
    with pytest.raises(InputError) as error:
        mask_rules(made, said)
    assert expected in str(error.value)


def test_a_stored_mask_is_read_back_and_is_named_by_what_it_keeps(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    random = np.random.default_rng(1)
    for documents in (0, 1, 8, 1001):
        given = random.random(documents) < 0.5
        name = kept_mask(store, given)
        assert (read_mask(store, name, documents) == given).all() and kept_mask(store, given) == name
    assert kept_mask(store, np.zeros(8, np.bool_)) != kept_mask(store, np.zeros(7, np.bool_))
    with pytest.raises(VerifyFailed, match="is not the mask of 2,000 documents"):
        read_mask(store, name, 2000)
