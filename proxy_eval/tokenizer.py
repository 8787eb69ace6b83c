"""Texts as token ids: any `tokenizer.json` of Hugging Face `tokenizers`, or a byte-level BPE trained on the pool.

A tokenizer is the bytes of its file, and pickles as such. Encoding adds no special tokens and knows none: a text that
spells `<|endoftext|>` gets the tokens of these characters, so no document can end itself. Truncation, padding and BPE
dropout that a file asks for are off: a document is encoded whole, and the same each time. One thread, unless
TOKENIZERS_PARALLELISM was set: so a process may be forked after it has encoded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from filters.errors import InputError
from pipelines.resources import resource_path

Tokens = npt.NDArray[np.unsignedinteger]
Ints = npt.NDArray[np.int64]

END = "<|endoftext|>"
END_NAMES = (END, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "<EOS>")
"""How tokenizers call their end-of-text token; the first that one has is taken."""
SLICE_CHARACTERS = 1 << 20
"""Encoded at a time: an encoding takes some 150 bytes a token, so 40 MB, until its ids are an array."""


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """A tokenizer: its file, the sha256 of that, how many ids it has, and the id that ends a text.

    `end` also stands before the first token of a text.
    """

    json: bytes = field(repr=False)
    sha256: str
    vocabulary: int
    end: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Little-endian uint16 up to 65,536 ids, else uint32."""
        return np.dtype("<u2" if self.vocabulary <= 1 << 16 else "<u4")


def tokenizer_of(data: bytes, *, end: str | int | None = None, name: str = "tokenizer.json") -> Tokenizer:
    """The tokenizer of a `tokenizer.json`; `end` is its end-of-text token, by spelling or id. `name` is for errors.

    Raises InputError where it is none, or where no token of END_NAMES is in it and `end` is not given or not there.
    """
    try:
        loaded = _loaded(data)
    except ValueError as error:
        raise InputError(f"{name} is no tokenizer.json of Hugging Face tokenizers: {error}.") from error
    names = loaded.get_vocab()
    vocabulary = max(names.values(), default=-1) + 1
    if isinstance(end, int):
        found = end if loaded.id_to_token(end) is not None else None
    else:
        found = next((names[one] for one in ((end,) if end else END_NAMES) if one in names), None)
    if found is None:
        asked = f"no token {end!r}" if end is not None else f"none of the usual end-of-text tokens {END_NAMES}"
        raise InputError(f"{name} has {asked}. Name the token that ends a text in it (`--end TOKEN`).")
    return Tokenizer(json=data, sha256=hashlib.sha256(data).hexdigest(), vocabulary=vocabulary, end=found)


def read_tokenizer(path: str | Path, *, end: str | None = None) -> Tokenizer:
    """The tokenizer of a file, or of the `tokenizer.json` in a folder; `gpt2` is GPT-2's, of Gristmill's own resources.

    Raises InputError where there is none, saying how a SentencePiece or tiktoken model is converted.
    """
    if str(path) == "gpt2":
        return gpt2_tokenizer()
    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"{file} cannot be read ({error.strerror}). Give a tokenizer.json, a folder that holds one, or `gpt2`."
        ) from error
    if file.suffix in (".model", ".tiktoken"):
        raise InputError(
            f"{file} is a SentencePiece or tiktoken model; Gristmill reads tokenizer.json. Convert it once, where "
            "transformers is installed: transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(OUT) writes "
            "OUT/tokenizer.json."
        )
    return tokenizer_of(data, end=end, name=str(file))


def gpt2_tokenizer() -> Tokenizer:
    """GPT-2's byte-level BPE (Radford et al. 2019, 2.2) of 50,257 tokens, from its published vocabulary and merges."""
    files = [str(resource_path(f"gpt2/{name}")) for name in ("encoder.json", "vocab.bpe")]
    made = _byte_level(models.BPE.from_file(*files))
    made.add_special_tokens([END])
    return tokenizer_of(made.to_str().encode(), name="gpt2")


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE of exactly `vocabulary` tokens with GPT-2's regex, learned from these texts; END is token 0.

    The same texts give the same bytes. It encodes any text, and decodes it to the same. Memory: the distinct words.
    Raises InputError where the texts have too few pairs that come twice.
    """
    _serial_by_default()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocabulary <= len(alphabet):
        raise InputError(f"a byte-level BPE has {len(alphabet) + 1} tokens at least, and not {vocabulary:,}.")
    made = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, min_frequency=2, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    if (found := made.get_vocab_size()) < vocabulary:
        raise InputError(
            f"the texts give {found:,} tokens and not {vocabulary:,}: no other pair comes twice. Train on more text, "
            "or ask for fewer tokens."
        )
    return tokenizer_of(made.to_str().encode(), name="the trained tokenizer")


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tokens, Ints]:
    """The tokens of all texts one after another, and how many each has; no special tokens.

    About 0.4 million tokens a second on one core.
    """
    loaded = _loaded(tokenizer.json)
    found: list[Tokens] = [np.zeros(0, tokenizer.dtype)]
    lengths: list[int] = []
    for some in _slices(texts):
        ids = [encoding.ids for encoding in loaded.encode_batch_fast(some, add_special_tokens=False)]
        lengths += map(len, ids)
        found.append(np.fromiter(chain.from_iterable(ids), tokenizer.dtype))
    return np.concatenate(found), np.array(lengths, np.int64)


def decode(tokenizer: Tokenizer, tokens: Sequence[int] | Tokens) -> str:
    """The text of these tokens, special ones spelled out."""
    return _loaded(tokenizer.json).decode([int(token) for token in tokens], skip_special_tokens=False)


def _byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = decoders.ByteLevel()
    return made


@lru_cache(maxsize=8)
def _loaded(data: bytes) -> tokenizers.Tokenizer:
    _serial_by_default()
    loaded = tokenizers.Tokenizer.from_buffer(data)
    loaded.no_truncation()
    loaded.no_padding()
    loaded.encode_special_tokens = True
    if isinstance(loaded.model, models.BPE):
        loaded.model.dropout = None
    return loaded


def _serial_by_default() -> None:
    """Let no thread pool be made that a fork would break (and be warned of) where nobody asked for one."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _slices(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in order, in lists that end with the text that brings them to SLICE_CHARACTERS."""
    pending: list[str] = []
    size = 0
    for text in texts:
        pending.append(text)
        size += len(text)
        if size >= SLICE_CHARACTERS:
            yield pending
            pending, size = [], 0
    if pending:
        yield pending
