"""A stack of Llamas as plain functions over a dictionary of tensors: RMSNorm, RoPE, SwiGLU, grouped-query attention.

`Weights` holds A models of one `Shape`: every tensor has a leading arm dimension [A, ...], and the keys are those of
Hugging Face's LlamaForCausalLM, so that export is a rename. Arms share kernels and nothing else: a model computes in a
stack what it computes alone. Rotation, normalisation and initialisation are those of `transformers`.

Letters at the end of a name are a tensor's dimensions: A arms, B sequences, T positions, N = B * T rows (R of them in
a chunk), D hidden, H heads, K key-value heads, E width of a head, F feedforward, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from filters.errors import InputError

Weights = dict[str, Tensor]
Rotation = tuple[Tensor, Tensor]

EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
HEAD = "lm_head.weight"
UNCOUNTED = -100  # a target that no loss counts, as in torch.nn.functional.cross_entropy

_BYTES_OF_LOGITS = {"cpu": 2 << 20, "cuda": 1 << 30}  # of a chunk: about a core's L2 cache; what fills a GPU


class Branches(NamedTuple):
    """Rows of sequences that share their beginning: the position in its sequence of each token, and its branch.

    A token sees those before it that are of its own branch or of branch 0, the shared beginning.
    """

    position_BT: Tensor
    branch_BT: Tensor


@dataclass(frozen=True, kw_only=True)
class Shape:
    """All that a Llama is but its weights. Defaults are those of FineWeb's ablation models."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    feedforward: int
    context: int
    theta: float = 10_000.0
    epsilon: float = 1e-5
    tied: bool = True
    init_std: float = 0.02

    def __post_init__(self) -> None:
        if self.hidden % self.heads or self.heads % self.kv_heads or self.head % 2:
            raise InputError(
                f"no Llama has {self.hidden} hidden units, {self.heads} heads and {self.kv_heads} key-value heads: "
                "heads must divide the hidden units into an even width, and key-value heads must divide the heads"
            )

    @property
    def head(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    @property
    def parameters(self) -> int:
        """Every weight of one model; the tied embedding once."""
        return sum(prod(size) for size in sizes_of_weights(self).values())

    @property
    def body(self) -> int:
        """The weights of one model without its embedding and head."""
        return self.parameters - self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of a training step for each token, at the full context.

        6 for each weight that is multiplied (the head is, the embedding is not) and 12 * layers * hidden * context for
        the full square of attention: model FLOPs as in PaLM, appendix B (https://arxiv.org/abs/2204.02311).
        """
        return 6 * (self.body + self.hidden * self.vocabulary) + 12 * self.layers * self.hidden * self.context


def _llama(hidden: int, layers: int, heads: int, feedforward: int, vocabulary: int, context: int = 2048) -> Shape:
    return Shape(
        vocabulary=vocabulary,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        feedforward=feedforward,
        context=context,
    )


SIZES: Mapping[str, Shape] = {
    "1M": _llama(128, 4, 4, 384, 4096, context=256),
    "4M": _llama(256, 4, 4, 704, 4096, context=256),
    "10M": _llama(256, 8, 4, 704, 16_384),
    "20M": _llama(384, 8, 6, 1024, 16_384),
    "60M": _llama(576, 10, 9, 1536, 32_768),
    "150M": _llama(768, 16, 12, 2048, 50_272),
    "300M": _llama(1024, 20, 16, 2752, 50_272),
    "530M": _llama(1280, 24, 20, 3456, 50_272),
    "1B": _llama(2048, 18, 32, 5504, 50_272),
    "fineweb-1.7B": _llama(2048, 24, 32, 8192, 50_272),
}
"""The ladder. Names are nominal: N counts every weight, the tied embedding once (`Shape.parameters`), at the vocabulary
given here. "1M" has 1.4 million, as the model that the learning rate of the smallest sizes was chosen on; the others
lie within 7 % of their names. "fineweb-1.7B" is FineWeb's own, GPT-2's vocabulary rounded up to a multiple of 8
(https://huggingface.co/datasets/HuggingFaceFW/fineweb/discussions/39)."""


def shape_of(size: str, vocabulary: int, context: int | None = None) -> Shape:
    """Return a shape of the ladder with a tokenizer's vocabulary. Raises InputError for a size that SIZES lacks."""
    if size not in SIZES:
        raise InputError(f"no model has the size {size!r}; there are {', '.join(SIZES)}")
    shape = SIZES[size]
    return replace(shape, vocabulary=vocabulary, context=shape.context if context is None else context)


def sizes_of_weights(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return the name and size of each weight of one model (without the arm), in the order in which they are drawn."""
    hidden, keys, feedforward = shape.hidden, shape.kv_heads * shape.head, shape.feedforward
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (hidden, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, hidden),
        "mlp.gate_proj.weight": (feedforward, hidden),
        "mlp.up_proj.weight": (feedforward, hidden),
        "mlp.down_proj.weight": (hidden, feedforward),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    sizes: dict[str, tuple[int, ...]] = {EMBEDDING: (shape.vocabulary, hidden)}
    for number in range(shape.layers):
        sizes |= {f"model.layers.{number}.{name}": size for name, size in layer.items()}
    sizes[FINAL_NORM] = (hidden,)
    return sizes if shape.tied else sizes | {HEAD: (shape.vocabulary, hidden)}


def initial(
    shape: Shape, seeds: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Weights:
    """Return one new model for each seed: norms are 1, all else is normal with `init_std`.

    A model depends on its seed, not on its place in the stack or the device: all is drawn in float32 on the CPU.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    weights = {}
    for name, size in sizes_of_weights(shape).items():
        if len(size) == 1:
            drawn = torch.ones(len(seeds), *size)
        else:
            drawn = torch.stack([torch.randn(size, generator=one) for one in generators]).mul_(shape.init_std)
        weights[name] = drawn.to(device, dtype)
    return weights


def head_of(weights: Weights) -> Tensor:
    """Return the head [A, V, D]: the embedding where it is tied."""
    return weights.get(HEAD, weights[EMBEDDING])


def hidden_states(
    weights: Weights,
    shape: Shape,
    tokens_ABT: Tensor,
    *,
    branches: Branches | None = None,
    autocast: torch.dtype | None = None,
    compiled: bool = False,
) -> Tensor:
    """Return what the head is multiplied with, normalised: [A, B, T, D].

    `autocast` is the type of the matmuls' operands (None: that of the weights); the residual stream and the norms keep
    that of the weights. `compiled`: layers go through torch.compile, once for each size of stack and batch.
    """
    embedding_AVD = weights[EMBEDDING]
    arms, _, length = tokens_ABT.shape
    dtype = autocast or embedding_AVD.dtype
    offsets_A = torch.arange(arms, device=tokens_ABT.device) * shape.vocabulary
    x_AND = F.embedding(tokens_ABT.flatten(1) + offsets_A[:, None], embedding_AVD.flatten(0, 1))
    rotation, bias = _rotation(shape, length, dtype, tokens_ABT.device), None
    if branches is not None:
        positions_BT = branches.position_BT.repeat(arms, 1)
        rotation, bias = (rotation[0][positions_BT], rotation[1][positions_BT]), _bias(branches, arms, dtype)
    block = _compiled(_block) if compiled else _block
    for number in range(shape.layers):
        x_AND = block(x_AND, _layer(weights, number), rotation, bias, shape, dtype)
    return _rms_norm(x_AND, weights[FINAL_NORM], shape.epsilon).view(*tokens_ABT.shape, shape.hidden)


def logits(weights: Weights, shape: Shape, tokens_ABT: Tensor, *, autocast: torch.dtype | None = None) -> Tensor:
    """Return all logits [A, B, T, V] in the type of the weights: a large tensor, for small inputs and tests."""
    x_AND = hidden_states(weights, shape, tokens_ABT, autocast=autocast).flatten(1, 2)
    head_AVD = head_of(weights)
    dtype = autocast or head_AVD.dtype
    return _linear(x_AND.to(dtype), head_AVD.to(dtype)).to(head_AVD.dtype).view(*tokens_ABT.shape, shape.vocabulary)


def token_losses(
    weights: Weights,
    shape: Shape,
    tokens_ABT: Tensor,
    targets_ABT: Tensor,
    *,
    autocast: torch.dtype | None = None,
    rows: int | None = None,
    compiled: bool = False,
) -> Tensor:
    """Return the nats [A, B, T] of each target, 0 where it is UNCOUNTED: an exact log-softmax in float32 or float64.

    Logits of `rows` positions of each arm exist at a time (None: as many as suit the device); with gradients they are
    computed again in the backward pass.
    """
    x_AND = hidden_states(weights, shape, tokens_ABT, autocast=autocast, compiled=compiled).flatten(1, 2)
    head_AVD = head_of(weights)
    dtype = autocast or head_AVD.dtype
    lowered = head_AVD.to(dtype)
    losses = [
        checkpoint(_chunk_losses, x_ARD, targets_AR, lowered, use_reentrant=False, preserve_rng_state=False)
        for x_ARD, targets_AR in _chunks(x_AND.to(dtype), targets_ABT.flatten(1), rows or _rows(head_AVD))
    ]
    return torch.cat(losses, dim=1).view(targets_ABT.shape)


def mean_losses(
    weights: Weights,
    shape: Shape,
    tokens_ABT: Tensor,
    targets_ABT: Tensor,
    *,
    counted: Tensor | None = None,
    autocast: torch.dtype | None = None,
    rows: int | None = None,
    compiled: bool = False,
) -> Tensor:
    """Return the mean loss [A] over each arm's counted targets, in nats: what training minimises.

    `counted` [A] is what the sum is divided by where the batch is a part of a larger one (None: its own counted
    targets). No logits are computed twice: the gradient of the head is made in the forward pass, chunk by chunk.
    """
    x_AND = hidden_states(weights, shape, tokens_ABT, autocast=autocast, compiled=compiled).flatten(1, 2)
    targets_AN, head_AVD = targets_ABT.flatten(1), head_of(weights)
    if counted is None:
        counted = (targets_AN != UNCOUNTED).sum(1).clamp(min=1)
    scale_A = counted.to(head_AVD.dtype).reciprocal()
    dtype = autocast or head_AVD.dtype
    summed_A: Tensor = _SummedLosses.apply(  # type: ignore[no-untyped-call]
        x_AND, head_AVD, targets_AN, scale_A, dtype, rows or _rows(head_AVD), compiled
    )
    return summed_A


def _layer(weights: Weights, number: int) -> Weights:
    prefix = f"model.layers.{number}."
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}


def _block(
    x_AND: Tensor, layer: Weights, rotation: Rotation, bias: Tensor | None, shape: Shape, dtype: torch.dtype
) -> Tensor:
    """Return the residual stream after one layer."""
    normed = _rms_norm(x_AND, layer["input_layernorm.weight"], shape.epsilon).to(dtype)
    queries, keys, values = (_linear(normed, layer[f"self_attn.{name}_proj.weight"].to(dtype)) for name in "qkv")
    mixed = _attention(queries, keys, values, rotation, bias, shape)
    x_AND = x_AND + _linear(mixed, layer["self_attn.o_proj.weight"].to(dtype))
    normed = _rms_norm(x_AND, layer["post_attention_layernorm.weight"], shape.epsilon).to(dtype)
    gate_ANF, up_ANF = (_linear(normed, layer[f"mlp.{name}_proj.weight"].to(dtype)) for name in ("gate", "up"))
    return x_AND + _linear(F.silu(gate_ANF) * up_ANF, layer["mlp.down_proj.weight"].to(dtype))


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # Each size is compiled by itself, and 64 are more stacks and batches than a process meets; the limit is 8 unasked.
    compiled: Callable[..., Any] = torch.compile(  # type: ignore[call-overload]
        function, fullgraph=True, dynamic=False, recompile_limit=64
    )
    return compiled


def _attention(
    queries_AND: Tensor, keys: Tensor, values: Tensor, rotation: Rotation, bias: Tensor | None, shape: Shape
) -> Tensor:
    """Return attention [A, N, D] in one call for all arms, causal without a bias; keys and values are [A, N, K * E]."""
    length = rotation[0].shape[-2]
    queries_BTHE, keys_BTKE, values_BTKE = (  # the sequences of all arms are B here
        projected.view(-1, length, projected.shape[-1] // shape.head, shape.head)
        for projected in (queries_AND, keys, values)
    )
    mixed_BHTE = F.scaled_dot_product_attention(
        _rotated(queries_BTHE, rotation).transpose(1, 2),
        _rotated(keys_BTKE, rotation).transpose(1, 2),
        values_BTKE.transpose(1, 2),
        attn_mask=bias,
        is_causal=bias is None,
        enable_gqa=shape.kv_heads != shape.heads,
    )
    return mixed_BHTE.transpose(1, 2).reshape(queries_AND.shape)


def _rotation(shape: Shape, length: int, dtype: torch.dtype, device: torch.device) -> Rotation:
    """Return cosine and sine [T, E] of RoPE (https://arxiv.org/abs/2104.09864), both halves of a head alike.

    Computed in float32 as `transformers` does, and anew in each forward pass: 0.15 ms of the 350 of a step at 1M.
    """
    powers = torch.arange(0, shape.head, 2, device=device).float() / shape.head
    angles = torch.outer(torch.arange(length, device=device).float(), shape.theta**-powers).repeat(1, 2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _linear(x_ANI: Tensor, weight_AOI: Tensor) -> Tensor:
    """Return [A, N, O]; for one arm by the kernels of a plain model."""
    if len(weight_AOI) == 1:
        return F.linear(x_ANI[0], weight_AOI[0])[None]
    return torch.bmm(x_ANI, weight_AOI.mT)


def _rms_norm(x_AND: Tensor, weight_AD: Tensor, epsilon: float) -> Tensor:
    normed: Tensor = _RmsNorm.apply(x_AND, weight_AD, epsilon)  # type: ignore[no-untyped-call]
    return normed


class _RmsNorm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + epsilon) * weight; derived by hand it takes 2.0 ms, by autograd 4.6 (2,048 x 128)."""

    @staticmethod
    def forward(ctx: Any, x_AND: Tensor, weight_AD: Tensor, epsilon: float) -> Tensor:
        squares_AN1 = torch.linalg.vector_norm(x_AND, dim=-1, keepdim=True).square()
        scale_AN1 = torch.rsqrt(squares_AN1 / x_AND.shape[-1] + epsilon)
        unit_AND = x_AND * scale_AN1
        ctx.save_for_backward(unit_AND, scale_AN1, weight_AD)
        return unit_AND * weight_AD[:, None]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        unit_AND, scale_AN1, weight_AD = ctx.saved_tensors
        by_weight_AND = upstream[0] * unit_AND
        along_AN1 = torch.bmm(by_weight_AND, weight_AD[..., None]) / unit_AND.shape[-1]
        by_unit_AND = upstream[0] * weight_AD[:, None]
        return torch.addcmul(by_unit_AND, unit_AND, along_AN1, value=-1) * scale_AN1, by_weight_AND.sum(1), None


def _bias(branches: Branches, arms: int, dtype: torch.dtype) -> Tensor:
    """Return what is added to the scores of attention, [A * B, 1, T, T]: 0 where a token is seen."""
    branch_BT = branches.branch_BT
    own = (branch_BT[:, None] == branch_BT[:, :, None]) | (branch_BT == 0)[:, None]
    bias_BTT = torch.zeros(own.shape, dtype=dtype, device=own.device).masked_fill_(~own.tril(), -torch.inf)
    return bias_BTT.repeat(arms, 1, 1)[:, None]


def _rotated(heads_BTHE: Tensor, rotation: Rotation) -> Tensor:
    turned: Tensor = _Rotated.apply(heads_BTHE, *rotation)  # type: ignore[no-untyped-call]
    return turned


class _Rotated(torch.autograd.Function):
    """RoPE on [B, T, H, E]. Its gradient is the rotation back: 4.7 ms for both, by autograd 10.6 (2,048 x 256)."""

    @staticmethod
    def forward(ctx: Any, heads_BTHE: Tensor, cosine_TE: Tensor, sine_TE: Tensor) -> Tensor:
        ctx.save_for_backward(cosine_TE, sine_TE)
        return _turned(heads_BTHE, cosine_TE, sine_TE)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        cosine_TE, sine_TE = ctx.saved_tensors
        return _turned(upstream[0], cosine_TE, -sine_TE), None, None


def _turned(heads_BTHE: Tensor, cosine_TE: Tensor, sine_TE: Tensor) -> Tensor:
    half, sine_T1E = heads_BTHE.shape[-1] // 2, sine_TE.unsqueeze(-2)
    turned = heads_BTHE * cosine_TE.unsqueeze(-2)
    turned[..., :half].addcmul_(heads_BTHE[..., half:], sine_T1E[..., :half], value=-1)
    turned[..., half:].addcmul_(heads_BTHE[..., :half], sine_T1E[..., half:])
    return turned


def _rows(head_AVD: Tensor) -> int:
    """Return how many rows of each arm a chunk of logits has: what suits the device, 128 at least."""
    room = _BYTES_OF_LOGITS.get(head_AVD.device.type, _BYTES_OF_LOGITS["cuda"])
    return max(128, room // (4 * head_AVD.shape[0] * head_AVD.shape[1]))


def _chunks(x_AND: Tensor, targets_AN: Tensor, rows: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(torch.split(x_AND, rows, 1), torch.split(targets_AN, rows, 1), strict=True))


def _chunk_losses(x_ARD: Tensor, targets_AR: Tensor, head_AVD: Tensor) -> Tensor:
    scores = _wide(_linear(x_ARD, head_AVD)).flatten(0, 1)
    losses = F.cross_entropy(scores, targets_AR.flatten(), ignore_index=UNCOUNTED, reduction="none")
    return losses.view_as(targets_AR)


def _wide(scores: Tensor) -> Tensor:
    return scores if scores.dtype == torch.float64 else scores.float()


class _SummedLosses(torch.autograd.Function):
    """Head and cross-entropy in one: the sum of losses times `scale` [A].

    Gradients are made beside the losses, from logits that are still in the cache, and only scaled in the backward pass
    (Liger Kernel, https://arxiv.org/abs/2410.10989, section 3.2): 90 ms where linear and cross_entropy take 175 (2,048
    rows of 128, 4,096 words, one core).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_AND: Tensor,
        head_AVD: Tensor,
        targets_AN: Tensor,
        scale_A: Tensor,
        dtype: torch.dtype,
        rows: int,
        compiled: bool,
    ) -> Tensor:
        lowered = head_AVD.to(dtype)
        # Fused on a GPU, where a chunk is gone through in memory; a CPU has it in its cache and gains nothing.
        scores_gradient = _compiled(_scores_gradient) if compiled and head_AVD.is_cuda else _scores_gradient
        summed_A, by_head_AVD, by_x = torch.zeros_like(scale_A), torch.zeros_like(head_AVD), []
        for x_ARD, targets_AR in _chunks(x_AND.to(dtype), targets_AN, rows):
            losses_A, by_scores_ARV, factor_AR1 = scores_gradient(_linear(x_ARD, lowered), targets_AR, scale_A)
            summed_A += losses_A
            by_x.append(_linear(by_scores_ARV, lowered.mT) * factor_AR1)
            factored_ARD = (x_ARD * factor_AR1).to(dtype)
            if dtype == head_AVD.dtype:
                by_head_AVD.baddbmm_(by_scores_ARV.mT, factored_ARD)
            else:
                by_head_AVD += torch.bmm(by_scores_ARV.mT, factored_ARD)
        ctx.save_for_backward(torch.cat(by_x, dim=1), by_head_AVD)
        return summed_A

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        by_x_AND, by_head_AVD = ctx.saved_tensors
        upstream_A11 = upstream[0][:, None, None]
        return by_x_AND * upstream_A11, by_head_AVD * upstream_A11, None, None, None, None, None


def _scores_gradient(scores_ARV: Tensor, targets_AR: Tensor, scale_A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sum of the losses times `scale` [A], and their gradient by the scores as [A, R, V] times [A, R, 1].

    The factor holds the softmax's denominator, so that the large tensor is gone through once less.
    """
    targets_AR1 = targets_AR[..., None]
    places_AR1 = targets_AR1.clamp(min=0)
    wide_ARV = _wide(scores_ARV)
    highest_AR1 = wide_ARV.amax(-1, keepdim=True)
    exponentials_ARV = (wide_ARV - highest_AR1).exp_()
    total_AR1 = exponentials_ARV.sum(-1, keepdim=True)
    scale_AR1 = (targets_AR1 != UNCOUNTED) * scale_A[:, None, None]
    losses_AR1 = total_AR1.log() + highest_AR1 - wide_ARV.gather(2, places_AR1)
    by_scores_ARV = exponentials_ARV.scatter_add_(2, places_AR1, -total_AR1)
    return (losses_AR1 * scale_AR1).sum((1, 2)), by_scores_ARV.to(scores_ARV.dtype), scale_AR1 / total_AR1
