"""A budget is met to the token, a stack is what its models are alone, and a step is what a plain PyTorch loop does."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from filters.errors import InputError
from proxy_eval import llama
from proxy_eval.hyperparameters import Schedule, wsd
from proxy_eval.llama import shape_of
from proxy_eval.steps import Member, Training, engine_of, measured_speed
from proxy_eval.train import Progress, Trained, train
from tests.proxy_eval.small_runs import (
    SHAPE,
    STEP,
    ArrayStream,
    largest_difference,
    member,
    row,
    same_bits,
    text,
    training,
)

CONSTANT = dataclasses.replace(wsd(0), decay=0.01)  # the middle of no step lies in the decay
DIVERGING = 1e38  # a rate after which the next loss is not finite


def end(trained: Trained) -> llama.Weights:
    return trained.endpoints[-1].weights


def test_a_run_learns_the_pattern_of_its_text() -> None:
    [endpoint] = train(training(tokens=60 * STEP), [member(1, rate=1e-2)]).endpoints
    assert endpoint.losses[0, 0] == pytest.approx(math.log(SHAPE.vocabulary), abs=0.1)
    assert endpoint.losses[0, -1] < 3.0


@pytest.mark.parametrize("left", [1, SHAPE.context, SHAPE.context + 3, STEP - 1, STEP])
def test_the_last_step_counts_what_is_left_of_the_budget_and_reads_no_more(left: int) -> None:
    needed = 2 * STEP + math.ceil(left / SHAPE.context) * SHAPE.context
    whole = text(1)
    stream = ArrayStream(whole[: needed + 1])  # a window more would fail
    runs = training(tokens=2 * STEP + left, schedule=CONSTANT)
    learner = Member(stream=stream, seed=1, learning_rate=1e-3)
    [endpoint] = train(runs, [learner]).endpoints
    before = end(train(dataclasses.replace(runs, tokens=2 * STEP), [learner]))
    tokens, targets = (torch.tensor(part) for part in ArrayStream(whole).sequences(8, 4))
    targets.view(-1)[left:] = llama.UNCOUNTED
    expected = llama.mean_losses(before, SHAPE, tokens[None], targets[None])
    assert endpoint.losses.shape == (1, 3)
    assert endpoint.losses[0, 2] == pytest.approx(float(expected), abs=1e-6)


def test_micro_batches_do_not_change_what_a_step_is() -> None:
    whole = train(training(precision="float64"), [member(1)])
    parts = train(training(precision="float64", micro=1), [member(1)])
    assert largest_difference(end(whole), end(parts)) < 1e-12


def different_members() -> list[Member]:
    """Seeds, rates and texts of their own; the last reads what the first reads."""
    return [member(1), member(2, rate=3e-3), member(3, rate=3e-4, of=9), member(4, of=1)]


@pytest.mark.full
def test_fifty_steps_of_a_stack_are_those_of_its_models_alone() -> None:
    runs = training(tokens=50 * STEP, precision="float64")
    stacked = train(runs, different_members()).endpoints[-1]
    for arm, alone in enumerate(different_members()):
        single = train(runs, [alone]).endpoints[-1]
        assert largest_difference(row(stacked.weights, arm), single.weights) <= 1e-9
        np.testing.assert_allclose(stacked.losses[arm], single.losses[0], rtol=0, atol=1e-6)


def test_one_step_of_a_stack_in_float32_is_that_of_its_models_alone() -> None:
    runs = training(tokens=STEP, schedule=wsd(0))
    stacked = end(train(runs, different_members()))
    for arm, alone in enumerate(different_members()):
        assert largest_difference(row(stacked, arm), end(train(runs, [alone]))) <= 1e-5


def test_members_of_one_stream_have_it_read_once() -> None:
    asked = []

    class Counted(ArrayStream):
        def sequences(self, first: int, count: int):  # type: ignore[no-untyped-def]
            asked.append((first, count))
            return super().sequences(first, count)

    stream = Counted(text(1))
    members = [Member(stream=stream, seed=seed, learning_rate=1e-3) for seed in (1, 2, 3)]
    train(training(tokens=3 * STEP), members)
    assert asked.count((4, 4)) == 1


@pytest.mark.parametrize("arm", [0, 1, 2])
def test_a_member_that_diverges_stops_alone_with_its_last_good_weights(arm: int) -> None:
    healthy = [member(1), member(2), member(3)]
    members = healthy.copy()
    members[arm] = member(arm + 1, rate=DIVERGING)
    runs = training(schedule=CONSTANT)
    [without] = train(runs, healthy).endpoints
    [found] = train(runs, members).endpoints
    assert found.stopped == tuple(1 if other == arm else None for other in range(3))
    for other in {0, 1, 2} - {arm}:
        assert same_bits(row(found.weights, other), row(without.weights, other))
        np.testing.assert_array_equal(found.losses[other], without.losses[other])
    one_step = train(dataclasses.replace(runs, tokens=STEP), members).endpoints[-1]
    assert same_bits(row(found.weights, arm), row(one_step.weights, arm))
    assert np.isfinite(found.losses[arm, 0])
    assert np.isnan(found.losses[arm, 2:]).all()


def test_a_run_in_which_every_member_has_stopped_ends() -> None:
    seen: list[Progress] = []
    [endpoint] = train(training(schedule=wsd(0)), [member(1, rate=DIVERGING)], on_step=seen.append).endpoints
    assert endpoint.stopped == (1,)
    assert len(seen) == 2
    assert endpoint.losses.shape == (1, 11)


@pytest.mark.full
def test_endpoints_of_one_trunk_are_runs_of_their_budgets_bit_for_bit() -> None:
    budgets = (5 * STEP, 6 * STEP + 7, 20 * STEP)
    runs = training(tokens=31 * STEP - 3, schedule=wsd(2 * STEP), endpoints=budgets)
    members = [member(1), member(2, rate=3e-3)]
    seen: list[Progress] = []
    trained = train(runs, members, on_step=seen.append)
    assert [endpoint.tokens for endpoint in trained.endpoints] == [*budgets, 31 * STEP - 3]
    for endpoint in trained.endpoints:
        [alone] = train(dataclasses.replace(runs, tokens=endpoint.tokens, endpoints=()), members).endpoints
        assert same_bits(endpoint.weights, alone.weights)
        np.testing.assert_array_equal(endpoint.losses, alone.losses)
    apart = sum(runs.steps(budget) for budget in runs.budgets)
    assert len(seen) < 0.8 * apart


def test_progress_counts_down_to_the_end() -> None:
    seen: list[Progress] = []
    runs = training(tokens=20 * STEP, schedule=wsd(2 * STEP), endpoints=(10 * STEP,))
    train(runs, [member(1), member(2, rate=2e-3)], on_step=seen.append)
    left = [round(said.eta * said.tokens_per_second / (2 * STEP)) for said in seen]
    assert left == list(range(len(seen) - 1, -1, -1))
    assert [said.step for said in seen] == [*range(1, 11), *range(9, 21)]
    assert {said.budget for said in seen[:10]} == {10 * STEP}
    assert seen[-1].tokens == 20 * STEP
    assert seen[4].learning_rates == pytest.approx((1e-3, 2e-3))
    assert seen[0].learning_rates == pytest.approx((0.25e-3, 0.5e-3))
    assert all(a.seconds < b.seconds for a, b in itertools.pairwise(seen))


def test_waiting_for_data_is_measured() -> None:
    class Slow(ArrayStream):
        def sequences(self, first: int, count: int):  # type: ignore[no-untyped-def]
            time.sleep(0.1)
            return super().sequences(first, count)

    slow = train(training(), [Member(stream=Slow(text(1)), seed=1, learning_rate=1e-3)])
    assert 0.1 <= slow.waiting * slow.seconds < slow.seconds  # of the first step at least
    assert slow.tokens_per_second == pytest.approx(training().tokens / slow.seconds)
    assert slow.peak_bytes > 1 << 20


def test_bfloat16_products_leave_weights_in_float32_and_losses_close() -> None:
    half = train(training(precision="bfloat16"), [member(1)]).endpoints[-1]
    single = train(training(), [member(1)]).endpoints[-1]
    assert {tensor.dtype for tensor in half.weights.values()} == {torch.float32}
    np.testing.assert_allclose(half.losses, single.losses, atol=0.05)
    assert not same_bits(half.weights, single.weights)


@pytest.mark.parametrize(("amx", "products"), [(True, torch.bfloat16), (False, None)])
def test_precision_follows_the_hardware(
    monkeypatch: pytest.MonkeyPatch, amx: bool, products: torch.dtype | None
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx})
    assert engine_of(training(precision="auto"), torch.device("cpu")).autocast == products
    assert engine_of(training(precision="float32"), torch.device("cpu")).autocast is None


@pytest.mark.parametrize(
    ("compiler", "tokens", "compiles"), [("cc", 10**9, True), ("cc", STEP, False), ("", 10**9, False)]
)
def test_a_long_run_is_compiled_where_there_is_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiler: str, tokens: int, compiles: bool
) -> None:
    (tmp_path / "cc").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", compiler or "none")
    long = training(shape=shape_of("1M", 4096), tokens=tokens, schedule=wsd(0), compile=None)
    assert engine_of(long, torch.device("cpu")).compiled is compiles
    assert engine_of(dataclasses.replace(long, compile=not compiles), torch.device("cpu")).compiled is not compiles


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokens": 0}, "at least 1"),
        ({"micro": 3}, "divide a step"),
        ({"endpoints": (STEP,)}, "need the schedule wsd"),
        ({"endpoints": (10**9,), "schedule": wsd(0)}, "between 1 and"),
        ({"schedule": Schedule(warmup=11 * STEP)}, "give a shorter one"),
        ({"schedule": wsd(2 * STEP), "endpoints": (2 * STEP,)}, "give a shorter one"),
    ],
)
def test_a_training_that_makes_no_sense_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        training(**changes)


def test_the_speed_of_a_stack_is_measured_over_all_its_members() -> None:
    assert measured_speed(training(), 3, "cpu", seconds=0.1) > 0


def test_a_plain_loop_over_transformers_loses_the_same() -> None:
    runs, learner = training(tokens=20 * STEP, schedule=Schedule(warmup=5 * STEP)), member(1, rate=3e-3)
    ours = train(runs, [learner]).endpoints[-1].losses[0]
    theirs = transformers_losses(runs, learner)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def transformers_losses(runs: Training, learner: Member, seed: int | None = None) -> NDArray[np.float32]:
    """Losses of LlamaForCausalLM in a plain loop with torch.optim.AdamW: our first weights, or its own of this seed."""
    transformers = pytest.importorskip("transformers")
    shape = runs.shape
    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.feedforward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        rms_norm_eps=shape.epsilon,
        rope_theta=shape.theta,
        initializer_range=shape.init_std,
        tie_word_embeddings=shape.tied,
        use_cache=False,
    )
    if seed is not None:
        torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(config)
    if seed is None:
        first = {name: tensor[0] for name, tensor in llama.initial(shape, [learner.seed]).items()}
        missing = model.load_state_dict(first, strict=False)
        assert missing.missing_keys == ["lm_head.weight"]  # tied
        assert missing.unexpected_keys == []
    groups = [
        {"params": [weight for weight in model.parameters() if weight.ndim > 1], "weight_decay": 0.1},
        {"params": [weight for weight in model.parameters() if weight.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for step in range(runs.steps(runs.tokens)):
        tokens, targets = (
            torch.as_tensor(part) for part in learner.stream.sequences(step * runs.sequences, runs.sequences)
        )
        logits = model(input_ids=tokens).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learner.learning_rate * runs.factor(step, runs.tokens)
        optimizer.step()
        losses.append(float(loss.detach()))
    return np.array(losses, np.float32)


@pytest.mark.full
def test_a_million_weights_end_where_transformers_ends_within_the_spread_of_seeds() -> None:
    """Three seeds each, 1M, 300 steps of two sequences; each side draws its own first weights."""
    shape = shape_of("1M", 4096)
    tokens = 300 * 2 * shape.context
    rng = np.random.default_rng(0)
    drawn = rng.zipf(1.3, tokens + 1) % shape.vocabulary  # a vocabulary of few common and many rare tokens
    follows = rng.random(len(drawn)) < 0.5
    drawn[1:][follows[1:]] = (7 * drawn[:-1][follows[1:]] + 3) % shape.vocabulary
    stream = ArrayStream(drawn, shape.context)
    runs = training(shape=shape, tokens=tokens, sequences=2, schedule=Schedule(warmup=tokens // 20))
    members = [Member(stream=stream, seed=seed, learning_rate=1e-3) for seed in (1, 2, 3)]
    ours = np.array([train(runs, [learner]).endpoints[-1].losses[0, -50:].mean() for learner in members])
    theirs = np.array([transformers_losses(runs, learner, learner.seed)[-50:].mean() for learner in members])
    spread = math.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / 2)
    assert abs(ours.mean() - theirs.mean()) <= 3 * spread * math.sqrt(2 / 3)
    assert ours.mean() < math.log(shape.vocabulary) - 1


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")  # Dynamo warns of what it does itself while it traces
def test_compiled_kernels_give_the_same_losses_and_the_same_bits_each_time() -> None:
    compiled = train(training(compile=True), different_members()).endpoints[-1]
    again = train(training(compile=True), different_members()).endpoints[-1]
    eager = train(training(), different_members()).endpoints[-1]
    np.testing.assert_allclose(compiled.losses, eager.losses, rtol=0, atol=1e-4)
    assert same_bits(compiled.weights, again.weights)
