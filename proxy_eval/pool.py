"""A pool: one text view of a run as tokens, in a folder that every arm over this view reads.

`tokens/part-NNNNN.bin` are the tokens of a part's documents one after another, little-endian (`Tokenizer.dtype`),
without end tokens; `documents/part-NNNNN.parquet` has a row for each document in the same order: `key`, `tokens`,
`bytes` (UTF-8, of its text). Part k is part k of the run's `text/` and `signals/` row by row, so that a mask made of
signals is a mask of the pool; a document without text has 0 tokens. `tokenizer.json` is the tokenizer, and `pool.json`
says the rest: it is written last, and a folder without it is no pool.

Memory of an open pool: 24 bytes a document when all of `keys`, `counts`, `starts` were asked for, 8 more for `bytes`;
once in a process, however often the pool is opened.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.errors import InputChanged, InputError, VerifyFailed
from pipelines.cache import write_whole
from pipelines.resources import file_sha256
from pipelines.schema import read_table, write_parquet
from pipelines.storage import StoredFile
from proxy_eval.tokenizer import Ints, Tokenizer, Tokens, encode, tokenizer_of

Hashes = npt.NDArray[np.uint64]
Scalar = TypeVar("Scalar", np.int64, np.uint64)

FORMAT = 1
FACTS, TOKENIZER = "pool.json", "tokenizer.json"
DOCUMENTS = pa.schema([("key", pa.binary(16)), ("tokens", pa.uint32()), ("bytes", pa.uint32())])


@dataclass(frozen=True, kw_only=True)
class PartFacts:
    """One part: its documents, their tokens and UTF-8 bytes, and what its two files must be."""

    documents: int
    tokens: int
    bytes: int
    tokens_sha256: str
    documents_sha256: str
    documents_size: int


def token_file(number: int) -> str:
    """Name of a part's tokens in the pool."""
    return f"tokens/part-{number:05}.bin"


def document_file(number: int) -> str:
    """Name of a part's documents in the pool."""
    return f"documents/part-{number:05}.parquet"


def write_part(
    folder: Path,
    number: int,
    tokenizer: Tokenizer,
    batches: Iterable[tuple[Sequence[bytes], Sequence[str | None]]],
) -> PartFacts:
    """Write both files of a part below `folder`; a batch is keys and texts of some documents, None where one has none.

    The same rows give the same bytes, however they come in batches. Holds one batch, and 24 bytes a document.
    """
    tokens_path, documents_path = folder / token_file(number), folder / document_file(number)
    for path in (tokens_path, documents_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[pa.RecordBatch] = []
    total = size = 0
    with tokens_path.open("wb") as file:
        for keys, texts in batches:
            given = [text or "" for text in texts]
            tokens, lengths = encode(tokenizer, given)
            sizes = np.array([len(text.encode()) for text in given], np.uint32)
            file.write(tokens.tobytes())
            total, size = total + len(tokens), size + int(sizes.sum(dtype=np.int64))
            columns = [pa.array(keys, pa.binary(16)), pa.array(lengths.astype(np.uint32)), pa.array(sizes)]
            rows.append(pa.RecordBatch.from_arrays(columns, schema=DOCUMENTS))
    return PartFacts(
        documents=write_parquet(documents_path, rows, DOCUMENTS),
        tokens=total,
        bytes=size,
        tokens_sha256=file_sha256(tokens_path),
        documents_sha256=file_sha256(documents_path),
        documents_size=documents_path.stat().st_size,
    )


def pool_sha256(tokenizer: Tokenizer, parts: Sequence[PartFacts]) -> str:
    """What a pool is: the sha256 over its tokenizer, its end token, and the hashes of its parts in their order."""
    lines = [f"{tokenizer.sha256} {tokenizer.end}", *(f"{one.tokens_sha256} {one.documents_sha256}" for one in parts)]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def pool_json(tokenizer: Tokenizer, parts: Sequence[PartFacts], origin: Mapping[str, Any]) -> bytes:
    """The bytes of `pool.json`; `origin` says what the texts are (run, view), and is no part of the pool's sha256."""
    said = {
        "format": FORMAT,
        "sha256": pool_sha256(tokenizer, parts),
        "tokenizer": {"sha256": tokenizer.sha256, "vocabulary": tokenizer.vocabulary, "end": tokenizer.end},
        "documents": sum(part.documents for part in parts),
        "tokens": sum(part.tokens for part in parts),
        "bytes": sum(part.bytes for part in parts),
        "origin": dict(origin),
        "parts": [asdict(part) for part in parts],
    }
    return json.dumps(said, indent=1).encode() + b"\n"


def write_pool(folder: Path, tokenizer: Tokenizer, parts: Sequence[PartFacts], origin: Mapping[str, Any]) -> None:
    """Make a pool of the parts that `write_part` wrote below `folder`."""
    write_whole(folder / TOKENIZER, tokenizer.json)
    write_whole(folder / FACTS, pool_json(tokenizer, parts, origin))


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """An open pool of n documents, numbered from 0 through its parts. Columns are read when first asked for.

    It pickles as its folder, and is opened anew where it arrives: InputChanged is raised where it is another one there.
    """

    folder: Path
    sha256: str
    tokenizer: Tokenizer
    parts: tuple[PartFacts, ...] = field(repr=False)
    origin: Mapping[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return sum(part.documents for part in self.parts)

    @cached_property
    def keys(self) -> Hashes:
        """A 64-bit hash of each document's key, uint64 [n]: its halves folded, as a key is itself a hash."""
        return self._column("key", np.empty(len(self), np.uint64), _folded)

    @cached_property
    def counts(self) -> Ints:
        """Tokens of each document, int64 [n], without an end token."""
        counts = self._column("tokens", np.empty(len(self), np.int64), np.asarray)
        if (found := int(counts.sum())) != (said := self._ends[-1]):
            raise VerifyFailed(f"{self.folder}: its documents have {found:,} tokens and its parts {said:,}. {AGAIN}")
        return counts

    @cached_property
    def bytes(self) -> Ints:
        """UTF-8 bytes of each document's text, int64 [n]."""
        return self._column("bytes", np.empty(len(self), np.int64), np.asarray)

    @cached_property
    def starts(self) -> Ints:
        """Where each document's tokens begin among those of all parts, int64 [n]."""
        starts = np.cumsum(self.counts)
        starts -= self.counts
        return starts

    def tokens(self, document: int) -> Tokens:
        """The tokens of a document, mapped and not copied."""
        return self.span(int(self.starts[document]), int(self.counts[document]))

    def span(self, start: int, count: int) -> Tokens:
        """`count` tokens from a place in [0, tokens of all parts) on; all must lie in one part, as a document's do."""
        if count == 0:
            return np.zeros(0, self.tokenizer.dtype)
        part = bisect_right(self._ends, start) - 1
        start -= self._ends[part]
        return self._mapped[part][start : start + count]

    @cached_property
    def _ends(self) -> list[int]:
        """Tokens before each part, and of all: parts + 1 numbers."""
        return list(accumulate((part.tokens for part in self.parts), initial=0))

    @cached_property
    def _mapped(self) -> list[Tokens]:
        dtype = self.tokenizer.dtype
        return [
            _mapped(self.folder / token_file(number), dtype) if part.tokens else np.zeros(0, dtype)
            for number, part in enumerate(self.parts)
        ]

    def _column(self, name: str, out: npt.NDArray[Scalar], values: Callable[[pa.Array], Any]) -> npt.NDArray[Scalar]:
        """`out` [n], filled with the values of a column part by part: no other copy of the whole column exists.

        Raises VerifyFailed where a part cannot be read or has other rows.
        """
        first = 0
        for number, part in enumerate(self.parts):
            path = self.folder / document_file(number)
            try:
                table = read_table(StoredFile(url=str(path), bytes=part.documents_size), columns=[name])
            except (pa.ArrowException, OSError) as error:
                raise VerifyFailed(f"{path} cannot be read ({error}). {AGAIN}") from error
            if len(table) != part.documents:
                raise VerifyFailed(f"{path} has {len(table):,} rows and not {part.documents:,}. {AGAIN}")
            for chunk in table.column(name).chunks:
                out[first : first + len(chunk)] = values(chunk)
                first += len(chunk)
        return out

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.folder, self.sha256)


AGAIN = "Build the pool anew (`gristmill pool`)."
_open: WeakValueDictionary[tuple[Path, bytes], Pool] = WeakValueDictionary()  # the arms of a stack share columns


def read_pool(folder: Path) -> Pool:
    """Open the pool in a folder, and look at each file's size. One that this process holds open is given again.

    Raises InputError where there is none, VerifyFailed naming the file that is absent or not what `pool.json` says.
    """
    folder = folder.absolute()
    try:
        data = (folder / FACTS).read_bytes()
        said = json.loads(data)
    except FileNotFoundError as error:
        raise InputError(f"{folder} holds no pool: it has no {FACTS}, which is written last. {AGAIN}") from error
    except (OSError, ValueError) as error:
        raise VerifyFailed(f"{folder / FACTS} cannot be read ({error}). {AGAIN}") from error
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise InputError(f"{folder / FACTS} is of another version of Gristmill, or no pool. {AGAIN}")
    parts = tuple(PartFacts(**part) for part in said["parts"])
    tokenizer = _pool_tokenizer(folder, said["tokenizer"])
    for number, part in enumerate(parts):
        _check_size(folder / token_file(number), part.tokens * tokenizer.dtype.itemsize)
        _check_size(folder / document_file(number), part.documents_size)
    if pool_sha256(tokenizer, parts) != said["sha256"]:
        raise VerifyFailed(f"{folder / FACTS} was changed: its parts do not give its sha256. {AGAIN}")
    pool = Pool(folder=folder, sha256=said["sha256"], tokenizer=tokenizer, parts=parts, origin=said["origin"])
    return _open.setdefault((folder, data), pool)


def verify_pool(pool: Pool) -> None:
    """Read every byte of a pool. Raises VerifyFailed naming the first file that is not what was written."""
    for number, part in enumerate(pool.parts):
        for name, sha256 in (
            (token_file(number), part.tokens_sha256),
            (document_file(number), part.documents_sha256),
        ):
            if file_sha256(pool.folder / name) != sha256:
                raise VerifyFailed(f"{pool.folder / name} is not what was written (sha256). {AGAIN}")


def _mapped(path: Path, dtype: np.dtype[Any]) -> Tokens:
    """The tokens of a file that is not empty, mapped for reading in places far from each other."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Else the system reads ahead: 2.8 MB in 9 ms for a document of 1 kB of a cold file of 2 GB, and not 5 kB in 0.4 ms.
    mapped.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(mapped, dtype)


def _folded(keys: pa.Array) -> Hashes:
    """Keys of 16 bytes as 64-bit integers."""
    halves = np.frombuffer(keys.buffers()[1], ">u8")[2 * keys.offset :][: 2 * len(keys)]
    folded: Hashes = (halves[0::2] ^ halves[1::2]).astype(np.uint64)
    return folded


def _pool_tokenizer(folder: Path, said: Mapping[str, Any]) -> Tokenizer:
    path = folder / TOKENIZER
    try:
        data = path.read_bytes()
    except OSError as error:
        raise VerifyFailed(f"{path} cannot be read ({error.strerror}). {AGAIN}") from error
    if hashlib.sha256(data).hexdigest() != said["sha256"]:
        raise VerifyFailed(f"{path} is not the tokenizer that the pool was made with. Restore it. {AGAIN}")
    return tokenizer_of(data, end=said["end"], name=str(path))


def _check_size(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise VerifyFailed(f"{path} is absent ({error.strerror}). {AGAIN}") from error
    if found != size:
        raise VerifyFailed(f"{path} has {found:,} bytes and not {size:,}. {AGAIN}")


def _reopened(folder: Path, sha256: str) -> Pool:
    pool = read_pool(folder)
    if pool.sha256 != sha256:
        raise InputChanged(f"{folder} holds another pool than the one this work was planned for. Start it anew.")
    return pool
