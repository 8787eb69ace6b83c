"""What workers read of a pool: its files on their machine, and masks over its documents."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from filters.errors import OutputError, ResourceMissing, VerifyFailed
from filters.rule import Bools
from infra.node import installed
from infra.scratch import scratch
from infra.store import open_store
from infra.stored import Store, read_decoded
from pipelines.cache import cache_folder
from pipelines.storage import local_path

POOL_FILE, TOKENIZER_FILE = "pool.json", "tokenizer.json"
MASKS = "_work/masks"


def check_extra(*names: str) -> None:
    """Raise ResourceMissing naming the extra where one of these distributions is not installed."""
    if absent := [name for name in names if installed(name) is None]:
        raise ResourceMissing(f"this command needs {', '.join(absent)}: pip install 'gristmill[proxy]'")


def read_said(url: str) -> dict[str, Any]:
    """What pool.json says. Raises OutputError where no pool is whole there."""
    try:
        said: dict[str, Any] = read_decoded(open_store(url), POOL_FILE, json.loads)
    except FileNotFoundError:
        raise OutputError(
            f"{url}: no pool ({POOL_FILE} is not there). Make one: gristmill pool OUT --out {url}"
        ) from None
    return said


def local_pool(url: str) -> Path:
    """A folder of this machine that holds the pool: its own, or a copy in the user's cache, fetched once, by its hash.

    Raises OutputError where no pool is whole there, and VerifyFailed where a file is not what pool.json says.
    """
    from proxy_eval.pool import read_pool, verify_pool

    if (local := local_path(url)) is not None:
        return local
    store, cache = open_store(url), cache_folder() / "pools"
    folder = cache / str(read_said(url)["sha256"])
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with scratch("fetch-", cache) as coming:
        whole = coming / "pool"
        for one in (*store.listed("tokens"), *store.listed("documents")):
            (whole / one.name).parent.mkdir(parents=True, exist_ok=True)
            fetch(store, one.name, one.bytes, whole / one.name)
        for name in (TOKENIZER_FILE, POOL_FILE):
            (whole / name).write_bytes(store.read(name))
        verify_pool(read_pool(whole))
        try:
            whole.rename(folder)
        except OSError:  # another process was first
            if not folder.is_dir():
                raise
    return folder


def fetch(store: Store, name: str, size: int, path: Path) -> None:
    """Copy a stored file to a path, 8 MiB at a time."""
    with store.open(name, size) as raw, path.open("xb") as file:
        while block := raw.read(8 << 20):
            file.write(block)


def holds(store: Store, name: str, data: bytes) -> bool:
    """True where the store has just these bytes under the name."""
    try:
        return store.read(name) == data
    except FileNotFoundError:
        return False


def kept_mask(store: Store, mask: Bools) -> str:
    """Store a mask, one bit a document, under its hash; return that."""
    bits = np.packbits(mask).tobytes()
    sha256 = hashlib.sha256(len(mask).to_bytes(8, "little") + bits).hexdigest()
    store.create(f"{MASKS}/{sha256}", bits)
    return sha256


def read_mask(store: Store, sha256: str, documents: int) -> Bools:
    """A mask by its hash, over so many documents. Raises VerifyFailed where it is gone or is that of others."""
    return read_bits(store, f"{MASKS}/{sha256}", documents)


def read_bits(store: Store, name: str, documents: int) -> Bools:
    """A stored bit for each of so many documents. Raises VerifyFailed where they are not there."""
    try:
        bits = np.frombuffer(store.read(name), np.uint8)
    except FileNotFoundError:
        bits = np.zeros(0, np.uint8)
    if len(bits) != -(-documents // 8):
        raise VerifyFailed(f"{store.url}/{name} is not the mask of {documents:,} documents. Run again.")
    return np.unpackbits(bits, count=documents).view(np.bool_)
