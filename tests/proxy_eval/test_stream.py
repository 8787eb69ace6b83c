"""Streams: every token a target once an epoch, arms paired by order, shares met at every prefix, nothing to resume."""

from __future__ import annotations

import math
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.errors import InputError
from filters.rule import Bools
from proxy_eval import stream as module
from proxy_eval.pool import Pool
from proxy_eval.stream import Arm, Source, Stream, random_mask
from tests.proxy_eval.pools import numbered, pool_of

DOCUMENTS = 60
CONTEXT = 16
TEXTS = [None if at % 11 == 5 else numbered(at, words=at % 9 * 4 + 1) for at in range(DOCUMENTS)]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return pool_of(tmp_path_factory.mktemp("pool"), TEXTS[:20], TEXTS[20:])


def stream_of(*sources: Source, seed: int = 1, context: int = CONTEXT) -> Stream:
    return Stream(arm=Arm(name="arm", sources=sources), seed=seed, context=context)


def arm_of(pool: Pool, mask: Bools | None = None, *, seed: int = 1, context: int = CONTEXT) -> Stream:
    return stream_of(Source(pool=pool, mask=mask), seed=seed, context=context)


def flat(stream: Stream, tokens: int) -> list[int]:
    """The first `tokens` targets."""
    _, targets = stream.sequences(0, math.ceil(tokens / stream.context))
    return targets.ravel()[:tokens].tolist()


def epoch_tokens(pool: Pool, mask: Bools | None = None) -> int:
    read = (pool.counts > 0) & (mask if mask is not None else True)
    return int(pool.counts[read].sum() + read.sum())


def texts_in(pool: Pool, targets: list[int]) -> list[tuple[int, ...]]:
    """The tokens of each text in these targets, the last of which ends one."""
    assert targets[-1] == pool.tokenizer.end
    ends = [-1, *(at for at, token in enumerate(targets) if token == pool.tokenizer.end)]
    return [tuple(targets[first + 1 : last]) for first, last in pairwise(ends)]


def documents_in(pool: Pool, targets: list[int]) -> list[int]:
    """The documents of which these targets are made, in order; each must be whole."""
    numbers = {tuple(pool.tokens(at).tolist()): at for at in range(len(pool)) if pool.counts[at]}
    return [numbers[text] for text in texts_in(pool, targets)]


def order(pool: Pool, mask: Bools | None = None, *, seed: int = 1, epoch: int = 0) -> list[int]:
    total = epoch_tokens(pool, mask)
    return documents_in(pool, flat(arm_of(pool, mask, seed=seed), (epoch + 1) * total)[epoch * total :])


def some(number: int = 3) -> Bools:
    return np.arange(DOCUMENTS) % number != 1


def test_every_document_with_text_is_read_once_an_epoch(pool: Pool) -> None:
    full = sorted(np.flatnonzero(pool.counts).tolist())
    for epoch in range(3):
        assert sorted(order(pool, epoch=epoch)) == full


def test_targets_are_tokens_one_further_on_and_begin_after_an_end(pool: Pool) -> None:
    tokens, targets = arm_of(pool).sequences(0, 50)
    assert tokens.shape == targets.shape == (50, CONTEXT)
    assert tokens.dtype == targets.dtype == np.int64
    assert tokens.ravel()[0] == pool.tokenizer.end
    np.testing.assert_array_equal(tokens.ravel()[1:], targets.ravel()[:-1])


def test_an_arm_is_the_control_with_its_removed_documents_skipped(pool: Pool) -> None:
    for epoch in range(2):
        control = order(pool, epoch=epoch)
        assert order(pool, some(), epoch=epoch) == [document for document in control if some()[document]]


def test_two_views_of_the_same_documents_are_read_in_one_order(pool: Pool, tmp_path: Path) -> None:
    edited = pool_of(tmp_path, [text and f"edited {text}" for text in TEXTS])
    assert order(edited) == order(pool)


def test_epochs_and_seeds_have_orders_of_their_own(pool: Pool) -> None:
    orders = [tuple(order(pool, seed=seed, epoch=epoch)) for seed in (1, 2) for epoch in (0, 1)]
    assert len(set(orders)) == 4


def test_the_cut_into_parts_does_not_change_what_is_read(pool: Pool, tmp_path: Path) -> None:
    finer = pool_of(tmp_path, *([text] for text in TEXTS))
    assert flat(arm_of(finer), 2000) == flat(arm_of(pool), 2000)


def test_the_context_does_not_change_what_is_read(pool: Pool) -> None:
    assert flat(arm_of(pool, context=7), 2000) == flat(arm_of(pool, context=64), 2000)


def test_any_sequences_are_read_without_those_before(pool: Pool) -> None:
    tokens, targets = arm_of(pool).sequences(0, 300)
    for first, count in ((299, 1), (0, 5), (150, 100), (3, 0)):
        found = arm_of(pool).sequences(first, count)
        np.testing.assert_array_equal(found[0], tokens[first : first + count])
        np.testing.assert_array_equal(found[1], targets[first : first + count])


def test_blocks_of_the_order_do_not_change_it(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = arm_of(pool, some()).sequences(0, 400)
    monkeypatch.setattr(module, "BLOCK", 5)
    monkeypatch.setattr(module, "SCAN", 7)
    stream = arm_of(pool, some())
    for first in (0, 390, 0, 100):  # forwards and back, through blocks that were let go
        found = stream.sequences(first, 10)
        np.testing.assert_array_equal(found, [side[first : first + 10] for side in whole])
    np.testing.assert_array_equal(stream.sequences(0, 400), whole)


def test_a_budget_is_met_to_the_token(pool: Pool) -> None:
    total = epoch_tokens(pool)
    assert arm_of(pool).epochs(total) == 1.0
    assert arm_of(pool).epochs(total + 1) > 1.0
    assert arm_of(pool).epochs(total // 2) == total // 2 / total


def test_four_epochs_are_read_and_one_token_more_is_refused(pool: Pool) -> None:
    total = epoch_tokens(pool, some())
    assert arm_of(pool, some()).epochs(4 * total) == 4.0
    with pytest.raises(InputError, match=f"arm arm: .*Train on {4 * total:,} tokens") as raised:
        arm_of(pool, some()).epochs(5 * total)
    assert str(pool.folder) in str(raised.value)
    with pytest.raises(InputError):
        arm_of(pool, some()).epochs(4 * total + 1)


def test_an_arm_without_a_token_is_refused_by_name(pool: Pool) -> None:
    empty = Stream(arm=Arm(name="strict", sources=(Source(pool=pool, mask=pool.counts == 0),)), seed=1, context=8)
    with pytest.raises(InputError, match="arm strict has no token"):
        empty.sequences(0, 1)
    with pytest.raises(InputError, match="arm strict has no token"):
        empty.epochs(10)


def test_a_shuffled_document_keeps_its_tokens_and_its_place(pool: Pool) -> None:
    worst = np.arange(DOCUMENTS) % 4 == 0
    targets = flat(stream_of(Source(pool=pool, shuffled=worst)), epoch_tokens(pool))
    found = texts_in(pool, targets)
    for document, text in zip(order(pool), found, strict=True):
        plain = tuple(pool.tokens(document).tolist())
        assert sorted(text) == sorted(plain)
        if not worst[document] or len(text) > 9:  # shorter ones may come out as they went in
            assert (text == plain) != worst[document]


def test_a_shuffled_document_is_the_same_in_every_arm_seed_and_epoch(pool: Pool) -> None:
    worst = np.ones(DOCUMENTS, np.bool_)
    ways = []
    for seed in (1, 2):
        stream = stream_of(Source(pool=pool, shuffled=worst), seed=seed)
        found = texts_in(pool, flat(stream, 2 * epoch_tokens(pool)))
        ways += [sorted(found[: len(found) // 2]), sorted(found[len(found) // 2 :])]
    assert all(way == ways[0] for way in ways)
    fewer = stream_of(Source(pool=pool, mask=some(), shuffled=worst))
    assert set(texts_in(pool, flat(fewer, epoch_tokens(pool, some())))) < set(ways[0])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8), st.integers(0, 20_000))
def test_shares_are_within_a_sequence_of_the_weights_at_every_prefix(weights: list[float], first: int) -> None:
    shares = np.array(weights) / sum(weights)
    counts, owners = np.zeros(len(shares), np.int64), np.empty(first + 500, np.int64)
    module._deal(shares, 0, counts, owners)
    dealt = np.cumsum(owners[:, None] == np.arange(len(shares)), axis=0)
    due = np.arange(1, len(owners) + 1)[:, None] * shares
    assert np.abs(dealt - due).max() < 1 + 1e-9


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    texts = [numbered(1000 + at, words=3) for at in range(10)]
    return pool_of(tmp_path_factory.mktemp("other"), texts, key="other {}")


def test_a_mixture_reads_each_source_as_it_would_be_read_alone(
    pool: Pool, other: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEALT", 8)
    sources = Source(pool=pool, weight=3, mask=some()), Source(pool=other, weight=1)
    mixed = stream_of(*sources)
    _, targets = mixed.sequences(0, 80)
    alone = [stream_of(source).sequences(0, 80)[1] for source in sources]
    read = [0, 0]
    for row in targets:
        owner = next(at for at in (0, 1) if np.array_equal(row, alone[at][read[at]]))
        read[owner] += 1
    assert read == [60, 20]
    np.testing.assert_array_equal(stream_of(*sources).sequences(33, 9)[1], targets[33:42])


def test_the_source_that_a_mixture_repeats_too_often_is_named(pool: Pool, other: Pool) -> None:
    total = epoch_tokens(other)
    mixed = stream_of(Source(pool=pool, weight=9), Source(pool=other, weight=1, name="news"))
    epochs = mixed.source_epochs(20 * total)
    assert epochs[1] == pytest.approx(2, abs=CONTEXT / total)
    assert mixed.epochs(20 * total) == max(epochs)
    with pytest.raises(InputError, match="source news"):
        mixed.epochs(50 * total)


def test_epochs_of_a_mixture_count_every_token_once(pool: Pool, other: Pool) -> None:
    mixed = stream_of(Source(pool=pool, weight=2), Source(pool=other, weight=1))
    totals = np.array([epoch_tokens(pool), epoch_tokens(other)])
    for tokens in range(100, 100 + 3 * CONTEXT):
        assert np.dot(mixed.source_epochs(tokens), totals) == pytest.approx(tokens)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_weight_that_is_no_share_is_refused(pool: Pool, weight: float) -> None:
    with pytest.raises(InputError, match="positive"):
        Source(pool=pool, weight=weight)


def test_a_mask_of_another_pool_is_refused(pool: Pool) -> None:
    wrong: list[npt.NDArray[np.bool_]] = [np.ones(DOCUMENTS + 1, np.bool_), np.ones(DOCUMENTS, np.int64)]  # type: ignore
    for mask in wrong:
        with pytest.raises(ValueError, match="no mask of 60 documents"):
            Source(pool=pool, mask=mask)


def test_an_arm_has_sources_of_one_tokenizer(pool: Pool) -> None:
    with pytest.raises(InputError, match="one tokenizer"):
        Arm(name="none", sources=())


def test_a_stream_pickles_as_what_it_is(pool: Pool) -> None:
    stream = arm_of(pool, some())
    found = stream.sequences(5, 20)
    data = pickle.dumps(stream)
    assert len(data) < 2000
    np.testing.assert_array_equal(pickle.loads(data).sequences(5, 20), found)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return pool_of(tmp_path_factory.mktemp("many"), [numbered(at, words=at % 7) for at in range(3000)])


def test_orders_of_two_seeds_tell_nothing_of_each_other(many: Pool) -> None:
    ranks = np.array([np.argsort(order(many, seed=seed)) for seed in range(4)])
    correlations = np.corrcoef(ranks)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 4.5 / math.sqrt(3000)
    assert abs(np.corrcoef(ranks[0], np.arange(3000))[0, 1]) < 4.5 / math.sqrt(3000)


def test_a_random_mask_removes_the_fraction_and_a_larger_one_the_same_documents(many: Pool) -> None:
    tenth, third = random_mask(many, 0.1, "a"), random_mask(many, 0.3, "a")
    for mask, fraction in ((tenth, 0.1), (third, 0.3)):
        assert abs(np.mean(~mask) - fraction) < 4.5 * math.sqrt(fraction * (1 - fraction) / 3000)
    assert not (third & ~tenth).any()
    assert (random_mask(many, 0.1, "b") != tenth).any()
    assert random_mask(many, 0.0, "a").all() and not random_mask(many, 1.0, "a").any()


def test_a_random_mask_is_independent_of_the_order_that_is_read(many: Pool) -> None:
    removed = ~random_mask(many, 0.5, "1")
    first = order(many, seed=1)[:1000]
    assert abs(removed[first].mean() - 0.5) < 4.5 * 0.5 / math.sqrt(1000)
