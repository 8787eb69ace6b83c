"""The three equations hold, or the account says which does not."""

from dataclasses import replace

import pytest

from filters.errors import VerifyFailed
from pipelines.accounts import Accounts, total

WHOLE = Accounts(
    records=10,
    documents=6,
    kept=1,
    skipped={"request": 2, "media_type": 1},
    damaged={"body": 1},
    dropped={"url.domain": 2},
    duplicates={"exact": 1},
    quarantined={"deadline": 2},
    input_bytes=100,
    record_bytes=90,
    unreadable={"garbage": 10},
)


def test_an_account_that_adds_up_is_returned() -> None:
    assert WHOLE.checked("here") is WHOLE
    assert (WHOLE + WHOLE).checked("here").records == 20


@pytest.mark.parametrize(
    ("wrong", "equation"),
    [
        ({"records": 11}, "records = documents + skipped + damaged"),
        ({"kept": 2}, "documents = kept + dropped + duplicates + quarantined"),
        ({"quarantined": {}}, "documents = kept + dropped + duplicates + quarantined"),
        ({"unreadable": {"garbage": 9}}, "input bytes = bytes of records + unreadable"),
    ],
)
def test_an_account_that_does_not_add_up_names_the_equation(wrong: dict[str, int], equation: str) -> None:
    with pytest.raises(VerifyFailed, match=equation.replace("+", r"\+")):
        replace(WHOLE, **wrong).checked("here")


def test_total_is_the_sum_by_reason_and_starts_at_nothing() -> None:
    assert total([]) == Accounts()
    both = total([WHOLE, Accounts(skipped={"request": 1, "revisit": 4})])
    assert both.skipped == {"request": 3, "media_type": 1, "revisit": 4}


def test_what_a_retry_takes_back_vanishes_from_the_account() -> None:
    difference = Accounts(kept=2, quarantined={"deadline": -2})
    after = (WHOLE + difference).checked("after a retry")
    assert after.as_json()["quarantined"] == {}
    assert after.kept == 3


def test_an_account_survives_json() -> None:
    assert Accounts(**WHOLE.as_json()) == WHOLE
