"""The model: stacks against models alone, losses against plain PyTorch, gradients against finite differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from filters.errors import InputError
from proxy_eval.export import member, stack
from proxy_eval.llama import (
    EMBEDDING,
    SIZES,
    UNCOUNTED,
    Shape,
    Weights,
    hidden_states,
    initial,
    logits,
    mean_losses,
    shape_of,
    sizes_of_weights,
    token_losses,
)

PLAIN = Shape(
    vocabulary=37, hidden=16, layers=2, heads=4, kv_heads=4, feedforward=24, context=12, init_std=0.3
)  # weights large enough that attention is far from uniform
GROUPED = replace(PLAIN, kv_heads=2)
UNTIED = replace(PLAIN, tied=False)
SHAPES = pytest.mark.parametrize("shape", [PLAIN, GROUPED, UNTIED], ids=["plain", "grouped", "untied"])


def batch_of(shape: Shape, arms: int, sequences: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tokens and targets [A, B, T]; every fifth target or so is not counted."""
    generator = torch.Generator().manual_seed(seed)
    size = (arms, sequences, shape.context)
    tokens, targets = (torch.randint(shape.vocabulary, size, generator=generator) for _ in range(2))
    return tokens, targets.where(torch.rand(size, generator=generator) > 0.2, UNCOUNTED)


def models_of(shape: Shape, seeds: Sequence[int], dtype: torch.dtype = torch.float64) -> Weights:
    """A stack whose norms are not 1, so that a forgotten one is seen."""
    weights = initial(shape, seeds, dtype=dtype)
    for name, weight in weights.items():
        if weight.ndim == 2:
            weight += torch.linspace(-0.5, 0.5, weight.numel(), dtype=dtype).view_as(weight) * (1 + len(name) % 3)
    return weights


def gradients(weights: Weights, losses: Tensor) -> Weights:
    return dict(zip(weights, torch.autograd.grad(losses.sum(), list(weights.values())), strict=True))


def leaves(weights: Weights) -> Weights:
    return {name: weight.clone().requires_grad_() for name, weight in weights.items()}


def assert_close(first: Weights, second: Weights, bound: float) -> None:
    for name, weight in first.items():
        torch.testing.assert_close(
            weight, second[name], atol=bound, rtol=bound, msg=lambda text, name=name: name + text
        )


@SHAPES
def test_a_stack_computes_what_its_models_compute_alone(shape: Shape) -> None:
    weights = leaves(models_of(shape, [1, 2, 3]))
    tokens, targets = batch_of(shape, 3)
    losses = mean_losses(weights, shape, tokens, targets)
    stacked = gradients(weights, losses)
    for arm in range(3):
        alone, one = leaves(member(weights, arm)), slice(arm, arm + 1)
        lonely = mean_losses(alone, shape, tokens[one], targets[one])
        torch.testing.assert_close(losses[one], lonely, atol=1e-12, rtol=1e-12)
        assert_close(member(stacked, arm), gradients(alone, lonely), 1e-12)
        for function in (logits, hidden_states):
            found = function(weights, shape, tokens)[one]
            torch.testing.assert_close(found, function(alone, shape, tokens[one]), atol=1e-12, rtol=1e-12)


def test_a_model_that_is_not_finite_leaves_the_others_as_they_are() -> None:
    sound = leaves(models_of(PLAIN, [1, 2, 3], torch.float32))
    broken = leaves(sound)
    with torch.no_grad():
        broken["model.layers.0.mlp.up_proj.weight"][1] = torch.nan
    tokens, targets = batch_of(PLAIN, 3)
    losses = [mean_losses(weights, PLAIN, tokens, targets) for weights in (sound, broken)]
    assert torch.isnan(losses[1][1])
    found = [gradients(weights, loss) for weights, loss in zip((sound, broken), losses, strict=True)]
    for arm in (0, 2):
        assert torch.equal(losses[0][arm], losses[1][arm])
        assert all(torch.equal(found[0][name][arm], found[1][name][arm]) for name in sound)


@SHAPES
def test_gradients_are_those_of_finite_differences(shape: Shape) -> None:
    small = replace(shape, vocabulary=7, hidden=8, layers=1, heads=2, kv_heads=shape.kv_heads // 2, feedforward=6)
    weights = leaves(models_of(replace(small, context=4), [1, 2]))
    tokens, targets = batch_of(replace(small, context=4), 2, sequences=2)

    def losses(*tensors: Tensor) -> Tensor:
        return mean_losses(dict(zip(weights, tensors, strict=True)), small, tokens, targets, rows=3)

    assert torch.autograd.gradcheck(losses, tuple(weights.values()), fast_mode=True, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("rows", [None, 1, 5, 1000])
@SHAPES
def test_the_loss_of_a_token_is_its_exact_log_softmax_however_it_is_cut(shape: Shape, rows: int | None) -> None:
    weights = models_of(shape, [1, 2], torch.float32)
    tokens, targets = batch_of(shape, 2)
    with torch.no_grad():
        found = token_losses(weights, shape, tokens, targets, rows=rows)
        expected = -logits(weights, shape, tokens).double().log_softmax(-1)
    counted = targets != UNCOUNTED
    expected = expected.gather(3, targets.clamp(min=0)[..., None])[..., 0] * counted
    assert found.dtype == torch.float32 and counted.any() and not counted.all()
    assert (found[~counted] == 0).all()
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("rows", [None, 1, 5, 1000])
@SHAPES
def test_the_mean_loss_and_its_gradient_are_those_of_the_tokens_losses(shape: Shape, rows: int | None) -> None:
    weights = leaves(models_of(shape, [1, 2]))
    tokens, targets = batch_of(shape, 2)
    counted = torch.tensor([50, 70])  # as of a step of which this is one of two micro-batches
    found = mean_losses(weights, shape, tokens, targets, counted=counted, rows=rows)
    expected = token_losses(weights, shape, tokens, targets, rows=rows).sum((1, 2)) / counted
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    upstream = torch.tensor([1.0, -3.0])
    assert_close(gradients(weights, found * upstream), gradients(weights, expected * upstream), 1e-12)
    own = mean_losses(weights, shape, tokens, targets) * (targets != UNCOUNTED).sum((1, 2))
    torch.testing.assert_close(own, found * counted, atol=1e-12, rtol=1e-12)


def test_a_batch_without_a_counted_target_has_no_loss_and_no_gradient() -> None:
    weights = leaves(models_of(PLAIN, [1]))
    tokens, targets = batch_of(PLAIN, 1)
    loss = mean_losses(weights, PLAIN, tokens, torch.full_like(targets, UNCOUNTED))
    assert loss.item() == 0.0
    assert all((gradient == 0).all() for gradient in gradients(weights, loss).values())


def test_a_token_does_not_change_what_stands_before_it() -> None:
    weights = models_of(GROUPED, [1])
    tokens, _ = batch_of(GROUPED, 1)
    changed = tokens.clone()
    changed[..., 7] = (changed[..., 7] + 1) % GROUPED.vocabulary
    before, after = (logits(weights, GROUPED, either) for either in (tokens, changed))
    torch.testing.assert_close(before[..., :7, :], after[..., :7, :], atol=1e-12, rtol=1e-12)
    assert ((before - after)[..., 7:, :].abs().amax(-1) > 1e-6).all()


class Largest(TorchDispatchMode):
    """Notes the elements of the largest tensor that any operation gives."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return found


@pytest.mark.parametrize("function", [mean_losses, token_losses])
def test_the_logits_of_a_batch_never_exist_at_once(function: Any) -> None:
    shape = replace(PLAIN, vocabulary=1000)
    weights = leaves(models_of(shape, [1, 2]))
    tokens, targets = batch_of(shape, 2)
    with Largest() as largest:
        gradients(weights, function(weights, shape, tokens, targets, rows=4))
    assert weights[EMBEDDING].numel() <= largest.elements < targets.numel() * shape.vocabulary / 2


@pytest.mark.parametrize("function", [mean_losses, token_losses])
def test_bfloat16_is_for_matmuls_only(function: Any) -> None:
    weights = leaves(models_of(GROUPED, [1, 2], torch.float32))
    tokens, targets = batch_of(GROUPED, 2)
    exact, lowered = (
        function(weights, GROUPED, tokens, targets, autocast=autocast) for autocast in (None, torch.bfloat16)
    )
    assert lowered.dtype == torch.float32
    assert not torch.equal(exact, lowered)
    torch.testing.assert_close(lowered.mean(), exact.mean(), atol=0.02, rtol=0.01)
    expected = gradients(weights, exact)
    for name, gradient in gradients(weights, lowered).items():
        assert gradient.dtype == torch.float32
        assert (gradient - expected[name]).norm() < 0.1 * expected[name].norm(), name


@pytest.mark.full
@pytest.mark.filterwarnings("default")  # TorchDynamo warns of what it does itself
@pytest.mark.parametrize(("shape", "autocast"), [(GROUPED, None), (PLAIN, torch.bfloat16)])
def test_compiled_layers_give_the_same_losses_and_gradients(shape: Shape, autocast: torch.dtype | None) -> None:
    tokens, targets = batch_of(shape, 2)
    weights = leaves(models_of(shape, [1, 2], torch.float32))
    found = [
        mean_losses(weights, shape, tokens, targets, autocast=autocast, compiled=compiled) for compiled in (True, False)
    ]
    bound = 1e-5 if autocast is None else 2e-2
    torch.testing.assert_close(found[0], found[1], atol=bound, rtol=bound)
    expected = gradients(weights, found[1])
    for name, gradient in gradients(weights, found[0]).items():
        assert (gradient - expected[name]).norm() < 3 * bound * expected[name].norm(), name


def test_a_model_depends_on_its_seed_and_not_on_its_place() -> None:
    one, three = initial(UNTIED, [7]), initial(UNTIED, [5, 6, 7])
    assert all(torch.equal(one[name], weight) for name, weight in member(three, 2).items())
    assert not torch.equal(three[EMBEDDING][0], three[EMBEDDING][1])
    again = stack([member(three, arm) for arm in range(3)])
    assert all(torch.equal(again[name], weight) for name, weight in three.items())


def test_first_weights_are_normal_and_first_norms_are_one() -> None:
    shape = SIZES["1M"]
    weights = initial(shape, [3])
    assert {name: tuple(weight.shape[1:]) for name, weight in weights.items()} == sizes_of_weights(shape)
    for name, weight in weights.items():
        if name.endswith("norm.weight"):
            assert (weight == 1).all()
        else:
            deviations = weight.numel() ** -0.5  # of the mean and, nearly, of the standard deviation
            assert abs(weight.mean() / shape.init_std) < 5 * deviations
            assert abs(weight.std() / shape.init_std - 1) < 5 * deviations


@pytest.mark.parametrize("name", SIZES)
def test_a_size_has_about_the_weights_that_it_is_named_after(name: str) -> None:
    shape = SIZES[name]
    nominal = {"M": 1e6, "B": 1e9}[name[-1]] * float(name[:-1].removeprefix("fineweb-"))
    assert abs(shape.parameters / nominal - 1) < (0.4 if name == "1M" else 0.15)
    assert shape.head == 64 if nominal >= 60e6 else shape.head % 8 == 0
    assert shape.feedforward % 64 == 0
    assert shape.body + shape.vocabulary * shape.hidden == shape.parameters


def test_the_model_of_fineweb_has_its_weights() -> None:
    shape = SIZES["fineweb-1.7B"]
    matrices = 24 * (4 * 2048**2 + 3 * 2048 * 8192) + 50_272 * 2048
    assert shape.parameters == matrices + (2 * 24 + 1) * 2048  # and its norms


@SHAPES
def test_model_flops_are_those_of_the_matmuls_and_of_whole_squares_of_attention(shape: Shape) -> None:
    weights = initial(shape, [1])
    tokens, _ = batch_of(shape, 1)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        logits(weights, shape, tokens)
    norms = (2 * shape.layers + 1) * shape.hidden
    assert 3 * counter.get_total_flops() == (shape.flops_per_token - 6 * norms) * tokens.numel()


def test_a_size_takes_the_vocabulary_of_a_tokenizer() -> None:
    assert shape_of("20M", 5000) == replace(SIZES["20M"], vocabulary=5000)
    assert shape_of("20M", 5000, context=512).context == 512
    with pytest.raises(InputError, match="'2M'; there are 1M, 4M"):
        shape_of("2M", 5000)


@pytest.mark.parametrize("wrong", [{"heads": 3}, {"kv_heads": 3}, {"heads": 16, "kv_heads": 16}])
def test_heads_that_do_not_divide_the_hidden_units_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="heads must divide"):
        replace(PLAIN, **wrong)
