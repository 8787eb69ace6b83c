"""Our trainer against LlamaForCausalLM in a plain loop: training steps of one size, on the same machine, in one run.

    python benchmarks/proxy.py [--quick] [--json]

A step is forward, backward, clipping and AdamW on 8 sequences of 256 tokens, at 1M and (not with --quick) 4M, of text
with Zipf's distribution. The plain loop is `model(input_ids, labels=...)`, `clip_grad_norm_` and `torch.optim.AdamW`,
bf16 by `torch.autocast`; ours is `proxy_eval.steps.take_step` as `train` calls it by default. Every contestant is
warmed, and compiled if it is to be, outside the clock; then they take turns. Tokens a CPU second, median of 3 turns:

fp32_vs_transformers_fp32   ours in float32 over transformers in float32, eager
bf16_vs_transformers_fp32   ours with bfloat16 products over the same
bf16_vs_transformers_bf16   ours with bfloat16 products over transformers with bfloat16 products, eager

transformers compiled, and ours the other way (eager where `train` compiles, compiled where it does not), are shown
beside them. A CPU without AMX has no fast bfloat16 products: what it does then is measured and said.

On a GPU, where there is one: a stack of 32 models of 4M over one after another; model FLOPs of 150M over those of
measured bfloat16 matrix products (MFU); the share of time that waits for data, and peak memory.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from proxy_eval.export import config_of
from proxy_eval.hyperparameters import Schedule, hyperparameters
from proxy_eval.llama import Shape, shape_of
from proxy_eval.steps import (
    Batch,
    Member,
    Training,
    backward_of,
    begin,
    engine_of,
    measured_speed,
    multiplies_bfloat16,
    take_step,
)
from proxy_eval.train import train

TURNS = 3
SEQUENCES = 8
RATE = 1e-3


@dataclass(frozen=True)
class Zipf:
    """A stream of tokens of which few are common and many are rare."""

    shape: Shape

    def sequences(self, first: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        drawn = np.random.default_rng(first).zipf(1.2, (count, self.shape.context + 1)) % self.shape.vocabulary
        return drawn[:, :-1], drawn[:, 1:]


def training_of(size: str, precision: Any, *, compiled: bool | None, tokens: int = 10**9) -> Training:
    """The default training of a size; `compiled` None: as `train` decides."""
    shape = shape_of(size, 50_272 if size == "150M" else 4096)
    return Training(
        shape=shape,
        tokens=tokens,
        sequences=SEQUENCES if shape.context == 256 else hyperparameters(size, shape, tokens).sequences,
        micro=None if shape.context == 256 else 16,
        schedule=Schedule(warmup=0),
        precision=precision,
        compile=compiled,
    )


def our_step(size: str, precision: str, *, compiled: bool | None) -> Callable[[], None]:
    """A function that takes one step of our trainer."""
    engine = engine_of(training_of(size, precision, compiled=compiled), torch.device("cpu"))
    position = begin(engine, [1])
    backward = backward_of(engine, position.buffers)
    tokens, targets = (torch.from_numpy(part)[None] for part in Zipf(engine.training.shape).sequences(0, SEQUENCES))
    batch = Batch(tokens=tokens, targets=targets, counted=engine.training.step_tokens)
    return lambda: take_step(engine, position, backward, batch, [RATE])


def plain_step(size: str, precision: str, *, compiled: bool) -> Callable[[], None]:
    """A function that takes one step of LlamaForCausalLM in a plain loop."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = shape_of(size, 4096)
    config = LlamaConfig(**{**config_of(shape), "use_cache": False})
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
    called = torch.compile(model, dynamic=False) if compiled else model
    tokens = torch.from_numpy(Zipf(shape).sequences(0, SEQUENCES)[0])

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = called(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def tokens_per_cpu_second(steps: dict[str, Callable[[], None]], tokens: int, seconds: float) -> dict[str, float]:
    """For each contestant the median of its turns, each of about so many CPU seconds; the contestants take turns."""
    counts = {}
    for name, step in steps.items():
        step()  # allocates, compiles
        step()
        began = time.process_time()
        step()
        counts[name] = max(1, round(seconds / (time.process_time() - began)))
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(TURNS):
        for name, step in steps.items():
            began = time.process_time()
            for _ in range(counts[name]):
                step()
            spent[name].append((time.process_time() - began) / counts[name])
    return {name: round(tokens / median(times), 1) for name, times in spent.items()}


def on_cpu(size: str, *, quick: bool) -> dict[str, Any]:
    """Speeds and ratios at one size."""
    default = engine_of(training_of(size, "float32", compiled=None), torch.device("cpu")).compiled
    steps: dict[str, Callable[[], None]] = {}
    for precision in ("float32", "bfloat16"):
        steps[f"ours_{precision}"] = our_step(size, precision, compiled=default)
        steps[f"transformers_{precision}"] = plain_step(size, precision, compiled=False)
        if not quick:
            steps[f"ours_{precision}_{'eager' if default else 'compiled'}"] = our_step(
                size, precision, compiled=not default
            )
            steps[f"transformers_{precision}_compiled"] = plain_step(size, precision, compiled=True)
    speed = tokens_per_cpu_second(steps, SEQUENCES * 256, 0.7 if quick else 6.0)
    return {
        "compiled_by_default": default,
        "ratios": {
            "fp32_vs_transformers_fp32": round(speed["ours_float32"] / speed["transformers_float32"], 3),
            "bf16_vs_transformers_fp32": round(speed["ours_bfloat16"] / speed["transformers_float32"], 3),
            "bf16_vs_transformers_bf16": round(speed["ours_bfloat16"] / speed["transformers_bfloat16"], 3),
        },
        "tokens_per_cpu_second": speed,
    }


def matmul_flops() -> float:
    """Floating-point operations a second of bfloat16 matrix products on the GPU: the best of five of 8192 cubed."""
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(5):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(20):
            left @ right
        torch.cuda.synchronize()
        best = max(best, 20 * 2 * 8192**3 / (time.perf_counter() - began))
    return best


def on_gpu() -> dict[str, Any]:
    """What a stack gains, MFU of one large model, the share of time waiting for data, peak memory."""
    small = training_of("4M", "auto", compiled=None)
    large = training_of("150M", "auto", compiled=None)
    stacked, single = (measured_speed(small, members, "cuda", seconds=10) for members in (32, 1))
    alone = measured_speed(large, 1, "cuda", seconds=30)
    peak = matmul_flops()
    whole = training_of("4M", "auto", compiled=None, tokens=400 * SEQUENCES * 256)
    members = [Member(stream=Zipf(whole.shape), seed=seed, learning_rate=RATE) for seed in range(32)]
    trained = train(whole, members, device="cuda")
    return {
        "device": torch.cuda.get_device_name(),
        "stack_of_32_over_one_after_another": round(stacked / single, 2),
        "mfu_150M": round(alone * large.shape.flops_per_token / peak, 3),
        "waiting": round(trained.waiting, 4),
        "peak_mib": round(trained.peak_bytes / 2**20),
        "tokens_per_second": {"stack of 32, 4M": round(stacked), "4M": round(single), "150M": round(alone)},
    }


def measured(*, quick: bool) -> dict[str, Any]:
    """Every size of this machine; the ratios at the top are those of 1M."""
    sizes = {size: on_cpu(size, quick=quick) for size in (("1M",) if quick else ("1M", "4M"))}
    return {
        "ratios": sizes["1M"]["ratios"],
        "sizes": sizes,
        "threads": torch.get_num_threads(),
        "amx": multiplies_bfloat16(torch.device("cpu")),
        "gpu": on_gpu() if torch.cuda.is_available() else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1M alone and nothing beside it, at most 50 s")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    found = measured(quick=options.quick)
    if options.json:
        print(json.dumps(found))
        return
    for size, rows in found["sizes"].items():
        print(f"{size}, {found['threads']} threads; tokens a CPU second:")
        for name, speed in rows["tokens_per_cpu_second"].items():
            print(f"  {name:32} {speed:10.0f}")
        print("  ratios: ", ", ".join(f"{name} {ratio}" for name, ratio in rows["ratios"].items()))
    if not found["amx"]:
        print("this CPU has no AMX: bfloat16 products are emulated, and `train` keeps to float32")
    print(f"GPU: {found['gpu'] or 'none'}")


if __name__ == "__main__":
    main()
