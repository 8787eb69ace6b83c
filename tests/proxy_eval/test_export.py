"""A model in the hands of others: `transformers` computes the same logits, and what is loaded is what was exported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from filters.errors import InputError
from proxy_eval.export import export_model, load_model, member, stack
from proxy_eval.llama import HEAD, SIZES, Shape, Weights, initial, logits, shape_of
from proxy_eval.tokenizer import Tokenizer, encode
from tests.proxy_eval.tiny import SENTENCES, tiny_shape, tiny_tokenizer

GROUPED = tiny_shape()
FINEWEB = replace(SIZES["fineweb-1.7B"], vocabulary=400, hidden=128, layers=3, heads=2, kv_heads=2, feedforward=512)
SHAPES = {
    "grouped": GROUPED,
    "untied": replace(GROUPED, kv_heads=4, tied=False),
    "other constants": replace(GROUPED, theta=500_000.0, epsilon=1e-2),
    "1M": shape_of("1M", 4096),
    "fineweb scaled down": FINEWEB,
}


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import transformers

    return transformers


def models_of(shape: Shape, seeds: Sequence[int]) -> Weights:
    """A stack with the logits of a trained model, in the order of 10, and norms that are not 1."""
    weights = initial(replace(shape, init_std=shape.hidden**-0.5), seeds)
    for weight in weights.values():
        if weight.ndim == 2:
            weight += torch.linspace(-0.5, 0.5, weight.numel()).view_as(weight)
    return weights


def tokens_of(shape: Shape, sequences: int = 2) -> torch.Tensor:
    size = (1, sequences, min(shape.context, 256))
    return torch.randint(shape.vocabulary, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_transformers_computes_the_logits_of_an_exported_model(shape: Shape, transformers: Any, tmp_path: Path) -> None:
    weights, tokens = models_of(shape, [1, 2]), tokens_of(shape)
    export_model(weights, 1, shape, tiny_tokenizer().json, tmp_path)
    model, loading = transformers.LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values()), loading
    assert model.num_parameters() == shape.parameters
    with torch.no_grad():
        ours, theirs = logits(member(weights, 1), shape, tokens)[0], model(tokens[0]).logits
    assert ours.std() > 0.5
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_loaded_model_gives_the_same_logits_bit_for_bit(shape: Shape, tmp_path: Path) -> None:
    weights, tokens = models_of(shape, [1, 2]), tokens_of(shape)
    export_model(weights, 1, shape, tiny_tokenizer().json, tmp_path / "new" / "folder")
    loaded, found = load_model(tmp_path / "new" / "folder")
    assert found == shape
    assert torch.equal(logits(loaded, shape, tokens), logits(member(weights, 1), shape, tokens))


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_that_transformers_saved_is_loaded(tied: bool, transformers: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
    )
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    weights, shape = load_model(tmp_path)
    assert (HEAD in weights) is not tied
    tokens = tokens_of(shape)
    with torch.no_grad():
        torch.testing.assert_close(logits(weights, shape, tokens)[0], model(tokens[0]).logits, atol=1e-5, rtol=0)


def test_the_exported_tokenizer_encodes_as_the_pool_was_encoded(transformers: Any, tmp_path: Path) -> None:
    tokenizer: Tokenizer = tiny_tokenizer()
    export_model(models_of(GROUPED, [1]), 0, GROUPED, tokenizer.json, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(SENTENCES[3]).input_ids == encode(tokenizer, [SENTENCES[3]])[0].tolist()
    assert theirs.decode(theirs(SENTENCES[3]).input_ids) == SENTENCES[3]
    assert theirs.bos_token_id == theirs.eos_token_id == tokenizer.end
    config = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert config.eos_token_id == tokenizer.end


def test_a_stack_is_exported_from_any_memory(tmp_path: Path) -> None:
    sizes = {name: weight.shape for name, weight in initial(GROUPED, [1]).items()}
    flat = torch.randn(2, sum(size.numel() for size in sizes.values()))  # one buffer for all, as an optimiser has it
    cut = dict(zip(sizes, torch.split(flat, [size.numel() for size in sizes.values()], 1), strict=True))
    weights = {name: part.view(2, *sizes[name][1:]) for name, part in cut.items()}
    for arm in range(2):
        export_model(weights, arm, GROUPED, tiny_tokenizer().json, tmp_path / str(arm))
    again = stack([load_model(tmp_path / str(arm))[0] for arm in range(2)])
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tmp_path: Path) -> None:
    shape = replace(GROUPED, vocabulary=GROUPED.vocabulary - 1)
    with pytest.raises(InputError, match="the tokenizer has 320 ids, the model 319"):
        export_model(initial(shape, [1]), 0, shape, tiny_tokenizer().json, tmp_path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_type": "mistral"}, "'model_type': 'mistral'"),
        ({"hidden_act": "gelu"}, "'hidden_act': 'gelu'"),
        ({"attention_bias": True}, "'attention_bias': True"),
        ({"head_dim": 16}, "'head_dim': 16"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, "'rope_type': 'llama3'"),
        ({"hidden_size": 64}, "is not the model of its config.json: model.embed_tokens.weight"),
        ({"num_hidden_layers": 3}, "is not the model of its config.json: model.layers.2.input_layernorm.weight"),
        ({"tie_word_embeddings": False}, "lm_head.weight .* is absent"),
    ],
)
def test_a_model_that_would_be_computed_wrongly_is_refused(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    export_model(initial(GROUPED, [1]), 0, GROUPED, tiny_tokenizer().json, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    without_width = {key: value for key, value in config.items() if key != "head_dim" or "head_dim" in changed}
    (tmp_path / "config.json").write_text(json.dumps(without_width | changed))
    with pytest.raises(InputError, match=said):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_without_a_readable_model_is_named(name: str, tmp_path: Path) -> None:
    export_model(initial(GROUPED, [1]), 0, GROUPED, tiny_tokenizer().json, tmp_path)
    (tmp_path / name).write_bytes(b"{")
    with pytest.raises(InputError, match=f"{name} cannot be read"):
        load_model(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name} cannot be read"):
        load_model(tmp_path)


def test_a_config_that_lacks_a_field_is_refused(tmp_path: Path) -> None:
    export_model(initial(GROUPED, [1]), 0, GROUPED, tiny_tokenizer().json, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rms_norm_eps"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="lacks rms_norm_eps"):
        load_model(tmp_path)
