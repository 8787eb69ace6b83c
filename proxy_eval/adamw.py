"""AdamW on a stack of A models held in flat buffers [A, length]: weights, gradient and two moments, one row a model.

Each tensor of the stack is a view into the rows, so that a norm is one reduction, and an all-reduce or a checkpoint is
one tensor. Matrices, the embedding among them, come first and decay; norms come last and do not (`decayed` floats
decay): the convention of nanoGPT and of Hugging Face's Trainer, whose other exception, biases, a Llama lacks.
nanotron's default lets the norms decay as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.optim.adamw import adamw

from proxy_eval.llama import Weights

ALIGNED = 64  # floats: every view begins on a cache line, and where a tensor core or a vector load wants it


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the tensors of one model lie in a row, and how long it is; what lies between them is 0 and stays so."""

    shapes: Mapping[str, tuple[int, ...]]
    offsets: Mapping[str, int]
    decayed: int
    length: int


def layout_of(weights: Weights) -> Layout:
    """Matrices first, then vectors, each in the order of the names."""
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in weights.items()}
    ordered = sorted(shapes, key=lambda name: len(shapes[name]) < 2)
    offsets, length, decayed = {}, 0, 0
    for name in ordered:
        offsets[name] = length
        length += math.ceil(math.prod(shapes[name]) / ALIGNED) * ALIGNED
        if len(shapes[name]) > 1:
            decayed = length
    return Layout(shapes=shapes, offsets=offsets, decayed=decayed, length=length)


def views(flat: torch.Tensor, layout: Layout) -> Weights:
    """The tensors [A, ...] inside the rows of `flat`, sharing its memory."""
    return {
        name: flat[:, layout.offsets[name] : layout.offsets[name] + math.prod(shape)].view(-1, *shape)
        for name, shape in layout.shapes.items()
    }


@dataclass(frozen=True, kw_only=True)
class Buffers:
    """What the optimizer reads and writes, each [A, length]; the gradient is 0 between steps."""

    layout: Layout
    weights: torch.Tensor
    gradient: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor

    def copy(self) -> Buffers:
        """The same weights and moments, to be changed apart; the gradient, 0 between steps, is shared."""
        return Buffers(
            layout=self.layout,
            weights=self.weights.clone(),
            gradient=self.gradient,
            first=self.first.clone(),
            second=self.second.clone(),
        )


def buffers_of(weights: Weights, device: torch.device) -> Buffers:
    """New buffers on the device that hold a copy of the weights; moments are 0."""
    layout = layout_of(weights)
    arms, dtype = next(iter(weights.values())).shape[0], next(iter(weights.values())).dtype
    flat = [torch.zeros(arms, layout.length, dtype=dtype, device=device) for _ in range(4)]
    for name, view in views(flat[0], layout).items():
        view.copy_(weights[name])
    return Buffers(layout=layout, weights=flat[0], gradient=flat[1], first=flat[2], second=flat[3])


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Decoupled weight decay (arXiv:1711.05101) and clipping of each model's own gradient norm; FineWeb's constants."""

    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0


def step(
    buffers: Buffers, optimizer: AdamW, number: int, rates: Sequence[float], norms: torch.Tensor, alive: Sequence[bool]
) -> None:
    """Take step `number` (from 1) of every model that is alive, at its own rate, and set the gradient to 0.

    `norms` [A] are the norms of the gradient's rows. The fused kernel goes over a row once and writes nothing else: a
    model's step does not depend on the others, and a model that is not alive is not touched. Models of one rate share
    a launch.
    """
    scale = (optimizer.clip / (norms + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
    buffers.gradient.mul_(scale[:, None])
    living = [arm for arm, lives in enumerate(alive) if lives]
    for rate in dict.fromkeys(rates[arm] for arm in living):
        arms = [arm for arm in living if rates[arm] == rate]
        for span, decay in (
            (slice(0, buffers.layout.decayed), optimizer.weight_decay),
            (slice(buffers.layout.decayed, None), 0.0),
        ):
            adamw(
                [buffers.weights[arm, span] for arm in arms],
                [buffers.gradient[arm, span] for arm in arms],
                [buffers.first[arm, span] for arm in arms],
                [buffers.second[arm, span] for arm in arms],
                max_exp_avg_sqs=[],
                state_steps=list(torch.full((len(arms),), number - 1.0, device=norms.device)),  # the call counts up
                fused=True,
                amsgrad=False,
                beta1=optimizer.betas[0],
                beta2=optimizer.betas[1],
                lr=rate,
                weight_decay=decay,
                eps=optimizer.epsilon,
                maximize=False,
            )
    buffers.gradient.zero_()
