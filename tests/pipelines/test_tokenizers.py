"""GPT-2 token counts are those of Hugging Face tokenizers on the same files."""

import json
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from pipelines.resources import resource_path
from pipelines.tokenizers import gpt2, token_counts


def oracle() -> Tokenizer:
    vocabulary = json.loads(resource_path("gpt2/encoder.json").read_text(encoding="utf-8"))
    lines = resource_path("gpt2/vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines if line)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


HUGGING_FACE = oracle()


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_token_ids_equal_hugging_faces(text: str) -> None:
    assert gpt2().encode_ordinary(text) == HUGGING_FACE.encode(text, add_special_tokens=False).ids


def test_known_ids() -> None:
    assert gpt2().encode_ordinary("Hello world") == [15496, 995]
    assert token_counts("gpt2", ["", "Hello world"]) == [0, 2]


def test_one_word_of_a_million_letters_takes_no_quadratic_time() -> None:
    started = time.process_time()
    assert token_counts("gpt2", ["a" * 1_000_000])[0] > 0
    assert time.process_time() - started < 20
