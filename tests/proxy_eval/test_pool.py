"""Pools: rows as they were given, the same bytes again, and every damage named."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from filters.errors import InputChanged, InputError, VerifyFailed
from proxy_eval.pool import pool_sha256, read_pool, verify_pool, write_part, write_pool
from proxy_eval.tokenizer import decode
from tests.proxy_eval.pools import key_of, numbered, pool_of, tokenizer

PARTS: list[list[str | None]] = [[numbered(1), None, "é"], [], [None], ["", numbered(2)]]
TEXTS = [text for part in PARTS for text in part]


def test_documents_lie_row_by_row_through_the_parts(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, *PARTS)
    assert len(pool) == len(TEXTS)
    assert [decode(pool.tokenizer, pool.tokens(at)) for at in range(len(pool))] == [text or "" for text in TEXTS]
    assert pool.bytes.tolist() == [len((text or "").encode()) for text in TEXTS]
    assert [bool(count) for count in pool.counts] == [bool(text) for text in TEXTS]
    assert pool.origin == {"view": "raw"}


def test_a_stored_key_is_the_one_that_was_given(tmp_path: Path) -> None:
    pool_of(tmp_path, ["a", "b"])
    column = pq.read_table(tmp_path / "documents" / "part-00000.parquet").column("key")
    assert column.to_pylist() == [key_of(0), key_of(1)]


def test_keys_are_64_bit_numbers_of_the_key_alone(tmp_path: Path) -> None:
    one, other = pool_of(tmp_path / "a", ["a", "b", "c"]), pool_of(tmp_path / "b", ["x"], ["y", None])
    assert one.keys.dtype == np.uint64
    np.testing.assert_array_equal(one.keys, other.keys)
    assert len(set(one.keys.tolist())) == 3


def test_the_same_rows_give_the_same_bytes_however_they_come(tmp_path: Path) -> None:
    texts = [numbered(number) if number % 3 else None for number in range(30)]
    keys = [key_of(number) for number in range(30)]
    whole = write_part(tmp_path / "a", 4, tokenizer(), [(keys, texts)])
    cut = write_part(tmp_path / "b", 4, tokenizer(), [(keys[:7], texts[:7]), (keys[7:], texts[7:])])
    assert whole == cut
    for name in ("tokens/part-00004.bin", "documents/part-00004.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_sums_of_a_part_are_those_of_its_rows(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, *PARTS)
    assert sum(part.documents for part in pool.parts) == len(TEXTS)
    assert sum(part.tokens for part in pool.parts) == pool.counts.sum()
    assert sum(part.bytes for part in pool.parts) == pool.bytes.sum()


def test_a_pool_is_its_tokenizer_end_token_and_parts(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, *PARTS)
    other = replace(pool.tokenizer, sha256="0" * 64)
    another_end = replace(pool.tokenizer, end=5)
    found = {
        pool.sha256,
        pool_sha256(other, pool.parts),
        pool_sha256(another_end, pool.parts),
        pool_sha256(pool.tokenizer, pool.parts[::-1]),
    }
    assert len(found) == 4
    assert pool_of(tmp_path / "again", *PARTS).sha256 == pool.sha256


def test_a_pool_pickles_as_its_folder(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, *PARTS)
    assert pool.counts.sum()
    data = pickle.dumps(pool)
    assert len(data) < 500
    np.testing.assert_array_equal(pickle.loads(data).tokens(0), pool.tokens(0))
    pool_of(tmp_path, ["another"])
    with pytest.raises(InputChanged, match="another pool"):
        pickle.loads(data)


def test_columns_are_held_once_in_a_process(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, *PARTS)
    assert read_pool(tmp_path).counts is pickle.loads(pickle.dumps(pool)).counts is pool.counts


def test_a_relative_folder_stays_the_same_pool_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool_of(tmp_path / "pool", ["a"])
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(read_pool(Path("pool")))
    monkeypatch.chdir("/")
    assert len(pickle.loads(data)) == 1


def test_a_folder_without_its_last_file_is_no_pool(tmp_path: Path) -> None:
    write_part(tmp_path, 0, tokenizer(), [([key_of(0)], ["a"])])
    with pytest.raises(InputError, match=r"no pool.json"):
        read_pool(tmp_path)


def edit_facts(folder: Path, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    said = json.loads((folder / "pool.json").read_text())
    change(said)
    (folder / "pool.json").write_text(json.dumps(said))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: cut_short(folder / "tokens/part-00000.bin"), r"part-00000\.bin has .* bytes and not"),
        (lambda folder: cut_short(folder / "documents/part-00003.parquet"), r"part-00003\.parquet has"),
        (lambda folder: (folder / "tokens/part-00003.bin").unlink(), r"part-00003\.bin is absent"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer\.json cannot be read"),
        (lambda folder: (folder / "tokenizer.json").write_bytes(b"{}"), "not the tokenizer"),
        (lambda folder: (folder / "pool.json").write_bytes(b"{"), r"pool\.json cannot be read"),
        (lambda folder: edit_facts(folder, lambda said: said["parts"].pop(1)), "do not give its sha256"),
        (lambda folder: edit_facts(folder, lambda said: said["tokenizer"].update(end=7)), "do not give its sha256"),
    ],
)
def test_what_is_wrong_with_a_pool_is_named(tmp_path: Path, damage: Callable[[Path], object], said: str) -> None:
    # Parts of the same sizes, so that one taken out of pool.json shows by its hash alone.
    pool_of(tmp_path, ["ab"], ["ab"], ["ab"], ["ab"], ["ab"])
    damage(tmp_path)
    with pytest.raises(VerifyFailed, match=said):
        read_pool(tmp_path)


def test_a_pool_of_another_version_is_refused(tmp_path: Path) -> None:
    pool_of(tmp_path, ["a"])
    edit_facts(tmp_path, lambda said: said.update(format=99))
    with pytest.raises(InputError, match="another version"):
        read_pool(tmp_path)


def test_a_changed_byte_is_found_by_verification(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, *PARTS)
    verify_pool(pool)
    path = tmp_path / "tokens/part-00003.bin"
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerifyFailed, match=r"part-00003\.bin"):
        verify_pool(read_pool(tmp_path))


def test_documents_that_are_not_those_of_the_tokens_are_refused(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, *PARTS)
    longer = [replace(pool.parts[0], documents=4), *pool.parts[1:]]
    write_pool(tmp_path, tokenizer(), longer, {})
    with pytest.raises(VerifyFailed, match=r"part-00000\.parquet has 3 rows and not 4"):
        _ = read_pool(tmp_path).counts


def test_a_documents_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, *PARTS)
    path = tmp_path / "documents/part-00000.parquet"
    path.write_bytes(b"x" * pool.parts[0].documents_size)
    with pytest.raises(VerifyFailed, match=r"part-00000\.parquet cannot be read"):
        _ = read_pool(tmp_path).keys
