"""One model of a stack as a Hugging Face folder that `transformers` and lm-evaluation-harness read, and back.

It holds model.safetensors (float32, the names of `Weights` without the arm), config.json, generation_config.json,
tokenizer.json and tokenizer_config.json. A model that was exported and loaded gives the same logits, bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from filters.errors import InputError
from proxy_eval.llama import Shape, Weights, sizes_of_weights
from proxy_eval.tokenizer import tokenizer_of

MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.json"

_FIELDS = {
    "vocabulary": "vocab_size",
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "feedforward": "intermediate_size",
    "context": "max_position_embeddings",
    "epsilon": "rms_norm_eps",
    "tied": "tie_word_embeddings",
    "init_std": "initializer_range",
}
"""A field of Shape by its name in config.json; `theta` stands deeper there."""

_FIXED: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
}
"""What every model of ours has, and a model must have to be one of ours."""


def stack(models: Sequence[Weights]) -> Weights:
    """Return models of one shape as one stack, in their order."""
    return {name: torch.cat([model[name] for model in models]) for name in models[0]}


def member(weights: Weights, arm: int) -> Weights:
    """Return one model of a stack as a stack of one, on the same memory."""
    return {name: weight[arm : arm + 1] for name, weight in weights.items()}


def export_model(
    weights: Weights, arm: int, shape: Shape, tokenizer_json: bytes, folder: Path, *, end: str | int | None = None
) -> None:
    """Write one model of a stack and its tokenizer into a folder, made where it is not there.

    `end` is the end-of-text token where it has none of the usual names; the model knows it as beginning and end.
    Raises InputError where the tokenizer has no such token or more ids than the model.
    """
    tokenizer = tokenizer_of(tokenizer_json, end=end)
    if tokenizer.vocabulary > shape.vocabulary:
        raise InputError(
            f"the tokenizer has {tokenizer.vocabulary} ids, the model {shape.vocabulary}: "
            "export it with the tokenizer of the pool that it was trained on"
        )
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: weight[arm].detach().to("cpu", torch.float32, copy=True) for name, weight in weights.items()}
    save_file(tensors, folder / MODEL_FILE, metadata={"format": "pt"})
    (folder / "tokenizer.json").write_bytes(tokenizer_json)
    ends = {"bos_token_id": tokenizer.end, "eos_token_id": tokenizer.end}
    _write(folder / "generation_config.json", ends)
    _write(folder / "tokenizer_config.json", _tokenizer_config(tokenizer_json, tokenizer.end, shape.context))
    _write(folder / CONFIG_FILE, config_of(shape) | ends)


def config_of(shape: Shape) -> dict[str, Any]:
    """Return the config.json of a shape, readable by transformers 4 and 5."""
    rope = {"rope_type": "default", "rope_theta": shape.theta}
    return {
        **_FIXED,
        **{theirs: getattr(shape, ours) for ours, theirs in _FIELDS.items()},
        "head_dim": shape.head,
        "rope_theta": shape.theta,  # transformers 4
        "rope_parameters": rope,  # transformers 5
        "dtype": "float32",
    }


def load_model(folder: Path) -> tuple[Weights, Shape]:
    """Return a folder's model as a stack of one in float32, with its shape.

    Raises InputError where the folder holds no model, another architecture, or weights that its config does not have.
    """
    shape = shape_of_config(_read_config(folder / CONFIG_FILE), str(folder))
    try:
        tensors = load_file(folder / MODEL_FILE)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{folder / MODEL_FILE} cannot be read ({error}). Give a folder of `gristmill train`."
        ) from error
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    sizes = sizes_of_weights(shape)
    if found != sizes:
        wrong = sorted(name for name in found.keys() | sizes.keys() if found.get(name) != sizes.get(name))
        raise InputError(
            f"{folder / MODEL_FILE} is not the model of its {CONFIG_FILE}: {wrong[0]} (and {len(wrong) - 1} more) is "
            f"{found.get(wrong[0], 'absent')}, not {sizes.get(wrong[0], 'absent')}. Export the model anew."
        )
    return {name: tensors[name].float()[None] for name in sizes}, shape


def shape_of_config(config: Mapping[str, Any], name: str) -> Shape:
    """Return the shape that a config.json describes; `name` is for errors.

    Raises InputError where a field is absent, or says what `proxy_eval.llama` does not compute.
    """
    absent = sorted({*_FIELDS.values(), "model_type"} - config.keys())
    if absent:
        raise InputError(f"{name} lacks {', '.join(absent)}. Give the folder of a Llama as `transformers` saves it.")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    shape = Shape(
        **{ours: config[theirs] for ours, theirs in _FIELDS.items()},
        theta=rope.get("rope_theta", config.get("rope_theta", 10_000.0)),
    )
    expected = {key: value for key, value in _FIXED.items() if key != "architectures"} | {"head_dim": shape.head}
    differing = {key: config[key] for key, value in expected.items() if config.get(key, value) not in (value, None)}
    if rope.get("rope_type", "default") != "default":
        differing["rope_type"] = rope["rope_type"]
    if differing:
        raise InputError(f"{name} says {differing}: only Llamas with SwiGLU, plain RoPE and no biases can be scored.")
    return shape


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}). Give a folder of `gristmill train`.") from error
    return config


def _tokenizer_config(tokenizer_json: bytes, end: int, context: int) -> dict[str, Any]:
    """Return what `AutoTokenizer` asks for: the end-of-text token, before and after a text."""
    spelled = Tokenizer.from_buffer(tokenizer_json).id_to_token(end)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": spelled,
        "eos_token": spelled,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }


def _write(file: Path, value: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
