"""The memory of hashes: never forgets, is wrong no more often than its budget, and never takes more than it has room
for.
"""

import io
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.errors import InputError, RecipeError
from pipelines.dedup import bloom

RATES = (0.1, 0.01, 1e-3, 1e-6)
hashes = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), max_size=60)


def array(keys: list[int]) -> np.ndarray:
    return np.array(keys, np.uint64)


def filled(expected: int, rate: float | None, seed: int) -> bloom.Seen:
    """A memory that holds as many hashes as it has room for."""
    seen, rng = bloom.begin("test", expected, rate), np.random.default_rng(seed)
    while seen.items < expected:
        seen.put(rng.integers(0, 2**64, expected - seen.items, np.uint64))
    return seen


def stored(seen: bloom.Seen) -> bytes:
    file = io.BytesIO()
    seen.write(file)
    return file.getvalue()


@settings(deadline=None)
@given(hashes)
def test_the_hashes_themselves_are_a_set(keys: list[int]) -> None:
    seen = bloom.begin("test", len(set(keys)), None)
    one_by_one = [
        keys[at] in keys[:at] or (keys[at] < 2 and {0, 1} & set(keys[:at]) != set()) for at in range(len(keys))
    ]
    assert seen.put(array(keys)).tolist() == one_by_one
    assert seen.holds(array(keys)).all()


@settings(deadline=None)
@given(hashes, st.sampled_from(RATES))
def test_a_filter_forgets_nothing(keys: list[int], rate: float) -> None:
    seen = bloom.begin("test", len(keys), rate)
    found = seen.put(array(keys))
    assert all(found[at] for at in range(len(keys)) if keys[at] in keys[:at])
    assert seen.holds(array(keys)).all()


@settings(deadline=None)
@given(hashes, st.integers(1, 7), st.sampled_from((None, 0.3)))
def test_it_does_not_matter_how_the_hashes_are_batched(keys: list[int], size: int, rate: float | None) -> None:
    whole, parts = bloom.begin("test", 60, rate), bloom.begin("test", 60, rate)
    found = [parts.put(array(keys[at : at + size])) for at in range(0, len(keys), size)]
    assert whole.put(array(keys)).tolist() == [bool(one) for some in found for one in some]
    assert stored(whole) == stored(parts)


@pytest.mark.parametrize(("rate", "asked"), [(0.1, 200_000), (0.01, 1_000_000), (1e-3, 3_000_000), (1e-4, 4_000_000)])
def test_a_full_filter_keeps_its_budget_and_is_no_larger_than_that_takes(rate: float, asked: int) -> None:
    seen = filled(100_000, rate, seed=1)
    wrong = seen.holds(np.random.default_rng(2).integers(0, 2**64, asked, np.uint64)).mean()
    deviation = math.sqrt(rate / asked)
    assert wrong < rate + 4 * deviation
    assert wrong > 0.8 * rate - 4 * deviation
    assert abs(wrong - seen.false_positive_rate) < 4 * deviation


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("expected", [50_000, 10**7, 60 * 10**9])
def test_blocks_cost_little_more_than_the_bits_that_bloom_needs(rate: float, expected: int) -> None:
    least = -expected / (1 - rate) * math.log(rate) / math.log(2) ** 2 / 8
    assert least < bloom.memory(expected, rate) < 1.05 * least


def test_the_rate_falls_with_the_load() -> None:
    seen = bloom.begin("test", 10_000, 0.01)
    rates = []
    for seed in range(4):
        rates.append(seen.false_positive_rate)
        seen.put(np.random.default_rng(seed).integers(0, 2**64, 2_000, np.uint64))
    assert rates[0] == 0
    assert rates == sorted(set(rates))


@pytest.mark.parametrize("rate", [None, 0.01])
def test_memory_is_what_is_taken(rate: float | None) -> None:
    assert bloom.begin("test", 12_345, rate).words.nbytes == bloom.memory(12_345, rate)


@pytest.mark.parametrize("rate", [None, 0.01, 1e-6])
def test_more_hashes_than_expected_are_refused_by_name(rate: float | None) -> None:
    seen = filled(1_000, rate, seed=3)
    before = stored(seen)
    known = np.arange(0)
    assert seen.put(known.astype(np.uint64)).tolist() == []
    with pytest.raises(RecipeError, match="test: room was made for 1,000 different hashes"):
        seen.put(np.random.default_rng(4).integers(0, 2**64, 5_000, np.uint64))
    assert seen.items == 1_000
    assert stored(seen) == before


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1e-18])
def test_a_rate_that_cannot_be_kept_is_refused(rate: float) -> None:
    with pytest.raises(RecipeError, match="false-positive rate"):
        bloom.begin("test", 10**6, rate)


def test_room_for_nothing_holds_nothing() -> None:
    for rate in (None, 0.01):
        seen = bloom.begin("test", 0, rate)
        assert not seen.holds(array([0, 1, 2**64 - 1])).any()
        with pytest.raises(RecipeError):
            seen.put(array([7]))


@pytest.mark.parametrize("rate", [None, 0.01])
def test_what_is_stored_answers_alike(rate: float | None) -> None:
    seen = filled(3_000, rate, seed=5)
    again = bloom.read(io.BytesIO(stored(seen)), "test")
    asked = np.random.default_rng(6).integers(0, 2**64, 20_000, np.uint64)
    for copy in (again, pickle.loads(pickle.dumps(seen))):
        assert (copy.items, copy.expected, copy.rate) == (seen.items, seen.expected, seen.rate)
        assert np.array_equal(copy.holds(asked), seen.holds(asked))
        assert stored(copy) == stored(seen)


def test_stored_hashes_do_not_depend_on_the_order_in_which_they_came() -> None:
    keys = np.random.default_rng(7).integers(0, 2**64, 500, np.uint64)
    forth, back = bloom.begin("test", 500, None), bloom.begin("test", 500, None)
    forth.put(keys)
    back.put(keys[::-1])
    assert stored(forth) == stored(back)


@pytest.mark.parametrize("rate", [None, 0.01])
def test_what_is_no_index_of_this_is_refused(rate: float | None) -> None:
    whole = stored(filled(100, rate, seed=8))
    for data, said in ((whole, "no index of other"), (b"\x00\xff" * 100, "line of JSON"), (b"[1]\n", "in the format")):
        with pytest.raises(InputError, match=said):
            bloom.read(io.BytesIO(data), "other")
    with pytest.raises(InputError, match="cut short: 3 of"):
        bloom.read(io.BytesIO(whole[:-3]), "test")


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 10**12), st.sampled_from((0.3, 0.01, 1e-6)))
def test_a_filter_is_sized_so_that_its_rate_is_below_the_budget(items: int, rate: float) -> None:
    if rate > 2 * items / 2**63:
        blocks, probes = bloom.filter_size(items, rate)
        came = math.ceil(items / (1 - rate))
        assert bloom.false_positive_rate(blocks, probes, came) <= rate
        if blocks > 1:
            assert bloom.false_positive_rate(blocks - 1, probes, came) > rate
