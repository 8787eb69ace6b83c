"""Tokenizers: trained the same each time, true to every text, found in any tokenizer.json, refused with a way out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from filters.errors import InputError
from pipelines.tokenizers import gpt2
from proxy_eval import tokenizer as module
from proxy_eval.tokenizer import (
    END,
    decode,
    encode,
    gpt2_tokenizer,
    read_tokenizer,
    tokenizer_of,
    train_tokenizer,
)
from tests.proxy_eval.pools import numbered, tokenizer

SHARED = Path(__file__).parents[3] / "shared" / "data" / "tokenizers"
TEXTS = ["", "The mill's 12 stones.\n\n  Två kvarnar, 水車 \U0001f33e\x00\r\n", f"an {END} is spelled", "ﬁne  \t x"]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back(text: str) -> None:
    tokens, lengths = encode(tokenizer(), [text])
    assert decode(tokenizer(), tokens) == text
    assert lengths.tolist() == [len(tokens)]


def test_texts_lie_one_after_another() -> None:
    tokens, lengths = encode(tokenizer(), TEXTS)
    cut = np.split(tokens, np.cumsum(lengths)[:-1])
    assert [decode(tokenizer(), one) for one in cut] == TEXTS
    assert tokens.dtype == np.uint16 and lengths.dtype == np.int64


def test_slices_change_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encode(tokenizer(), TEXTS)
    monkeypatch.setattr(module, "SLICE_CHARACTERS", 5)
    for got, wanted in zip(encode(tokenizer(), TEXTS), whole, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_no_text_has_no_token() -> None:
    tokens, lengths = encode(tokenizer(), [])
    assert len(tokens) == len(lengths) == 0


def test_a_text_cannot_spell_the_end_token() -> None:
    assert tokenizer().end not in encode(tokenizer(), [END])[0]
    assert gpt2_tokenizer().end not in encode(gpt2_tokenizer(), [END])[0]


def test_training_gives_the_same_bytes_in_any_process(tmp_path: Path, make_sentences: Callable[[int], str]) -> None:
    texts = [make_sentences(number) for number in range(10)]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    code = (
        "import json, sys; from proxy_eval.tokenizer import train_tokenizer; "
        "sys.stdout.buffer.write(train_tokenizer(json.load(open(sys.argv[1])), 400).json)"
    )
    other = {"PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "3", "TOKENIZERS_PARALLELISM": "true"}
    run = [sys.executable, "-c", code, str(tmp_path / "texts.json")]
    there = subprocess.run(run, env=os.environ | other, capture_output=True, check=True)
    assert train_tokenizer(texts, 400).json == train_tokenizer(iter(texts), 400).json == there.stdout


def test_a_trained_tokenizer_has_the_size_asked_for_and_ends_texts_with_token_0() -> None:
    assert (tokenizer().vocabulary, tokenizer().end) == (300, 0)


@pytest.mark.parametrize("vocabulary", [256, 4096])
def test_a_vocabulary_that_the_texts_cannot_give_is_refused(vocabulary: int) -> None:
    with pytest.raises(InputError, match="257 tokens"):
        train_tokenizer(["ab"], vocabulary)


def test_a_forked_process_encodes_and_nothing_is_warned_of() -> None:
    code = (
        "import os; from tests.proxy_eval.pools import tokenizer; from proxy_eval.tokenizer import encode\n"
        "encode(tokenizer(), ['a b'] * 100)\n"
        "child = os.fork()\n"
        "if not child: encode(tokenizer(), ['a b'] * 100); os._exit(0)\n"
        "raise SystemExit(os.waitpid(child, 0)[1])"
    )
    unset = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=unset, cwd=Path(__file__).parents[2], capture_output=True, check=True
    )
    assert done.stderr == b""


def test_gpt2_gives_tiktokens_tokens() -> None:
    found = gpt2_tokenizer()
    assert (found.vocabulary, found.end) == (50257, 50256)
    tokens, _ = encode(found, TEXTS)
    assert tokens.tolist() == [token for text in TEXTS for token in gpt2().encode_ordinary(text)]
    assert read_tokenizer("gpt2") == found


def test_a_tokenizer_json_is_read_from_its_file_or_folder(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(tokenizer().json)
    assert read_tokenizer(tmp_path) == read_tokenizer(str(tmp_path / "tokenizer.json")) == tokenizer()


def test_a_published_tokenizer_is_read() -> None:
    path = SHARED / "gpt-neo-test-tokenizer.json"
    if not path.is_file():
        pytest.skip("shared/data/tokenizers is not here")
    found = read_tokenizer(path)
    assert (found.vocabulary, found.end) == (50280, 50279)
    text = f"caf\u00e9 \u6c34\u8eca  and        code, {END}"
    assert decode(found, encode(found, [text])[0]) == text


def words(count: int = 3, *, specials: list[str] | None = None) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.WordLevel({f"w{number}": number for number in range(count)}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(specials or [])
    return made


@pytest.mark.parametrize("name", ["<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>"])
def test_the_end_token_is_found_by_its_usual_names(name: str) -> None:
    data = words(specials=["<pad>", name]).to_str().encode()
    assert tokenizer_of(data).end == 4


def test_the_caller_may_say_the_end_token() -> None:
    data = words(specials=["<stop>"]).to_str().encode()
    assert tokenizer_of(data, end="<stop>").end == tokenizer_of(data, end=3).end == 3
    for absent in (None, "</s>", 4):
        with pytest.raises(InputError, match="--end TOKEN"):
            tokenizer_of(data, end=absent)


def test_truncation_and_padding_of_a_file_do_not_reach_documents() -> None:
    made = words(specials=["</s>"])
    made.enable_truncation(2)
    made.enable_padding(length=9)
    tokens, lengths = encode(tokenizer_of(made.to_str().encode()), ["w1 w2 w1 w2", "w2"])
    assert (tokens.tolist(), lengths.tolist()) == ([1, 2, 1, 2, 2], [4, 1])


def test_more_than_65536_ids_are_32_bits_wide() -> None:
    narrow, wide = (tokenizer_of(words(count, specials=["</s>"]).to_str().encode()) for count in (65_535, 65_536))
    assert encode(narrow, ["w65534"])[0].dtype == np.uint16
    tokens, _ = encode(wide, ["w65535 w7"])
    assert tokens.dtype == np.uint32 and tokens.tolist() == [65_535, 7]


def test_bpe_dropout_of_a_file_is_off() -> None:
    said = json.loads(tokenizer().json)
    said["model"]["dropout"] = 0.9
    noisy = tokenizer_of(json.dumps(said).encode())
    np.testing.assert_array_equal(encode(noisy, [numbered(3)])[0], encode(tokenizer(), [numbered(3)])[0])


def test_a_sentencepiece_model_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    with pytest.raises(InputError, match="save_pretrained"):
        read_tokenizer(tmp_path / "tokenizer.model")


def test_what_is_no_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json is no tokenizer"):
        read_tokenizer(tmp_path)
    with pytest.raises(InputError, match="absent"):
        read_tokenizer(tmp_path / "absent")
