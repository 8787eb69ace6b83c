"""Our components remove exactly what datatrove 0.10.1 removes: its own stages 2 and 3 on the same signatures, and all
four on the same texts.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import xxhash
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)

from pipelines.dedup import candidates, survivors
from pipelines.dedup.minhash import Hasher, MinHash
from pipelines.words import words_by_name

CORPORA = Path(__file__).parents[4] / "shared" / "data" / "corpora"
Signatures = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Clustered:
    """By document number: removed ones; the pairs of each band in sequence; (document, cluster), (document, size)."""

    removed: list[int]
    pairs: list[list[tuple[int, int]]]
    clusters: list[tuple[int, int]]
    sizes: list[tuple[int, int]]


def config(bands: int, rows: int) -> MinhashConfig:
    return MinhashConfig(num_buckets=bands, hashes_per_bucket=rows)


def write_signatures(folder: Path, values: Signatures, bands: int, files: Sequence[range]) -> None:
    """The sorted files of stage 1, one for each band and range of documents."""
    rows = values.shape[1] // bands
    kind = np.dtype([(f"field{row}", "<u8") for row in range(rows)] + [("document", "<u4")])
    for band in range(bands):
        (folder / f"bucket_{band:03d}").mkdir(parents=True)
        for number, documents in enumerate(files):
            records = np.zeros(len(documents), kind)
            for row in range(rows):
                records[f"field{row}"] = values[documents.start : documents.stop, band * rows + row]
            records["document"] = np.arange(len(documents))
            records.sort(order=kind.names)
            (folder / f"bucket_{band:03d}" / f"{number:05d}.minhash.sig").write_bytes(records.tobytes())


def datatrove(folder: Path, minhash: MinhashConfig, files: Sequence[range], workers: int = 1) -> Clustered:
    """Stages 2 and 3 on `folder`/signatures, `workers` a band."""
    firsts = [documents.start for documents in files]
    tasks = minhash.num_buckets * workers
    for rank in range(tasks):
        MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/pairs", config=minhash).run(None, rank, tasks)
    stage = MinhashDedupCluster(
        f"{folder}/pairs", f"{folder}/removed", config=minhash, save_cluster_id=True, save_cluster_size=True
    )
    stage.run(None, 0, 1)

    def rows(pattern: str, form: str, where: str) -> list[tuple[int, tuple[int, ...]]]:
        return [
            (int(path.name[:5] if where == "pairs" else path.stem), row)
            for path in sorted((folder / where).glob(pattern))
            for row in struct.iter_unpack(form, path.read_bytes())
        ]

    def described(ending: str) -> list[tuple[int, int]]:
        return [(firsts[file] + row[0], row[1]) for file, row in rows(f"*.{ending}", "<2I", "removed")]

    pairs: list[list[tuple[int, int]]] = [[] for _ in range(minhash.num_buckets)]
    for band, (one, first, other, second) in rows("*.dups", "<4I", "pairs"):
        pairs[band].append((firsts[one] + first, firsts[other] + second))
    return Clustered(
        removed=[firsts[file] + row[0] for file, row in rows("*.remove", "<I", "removed")],
        pairs=pairs,
        clusters=described("clusters"),
        sizes=described("sizes"),
    )


def ours(values: Signatures, bands: int, seed: int = 0) -> Clustered:
    """The same from signatures alone, rows of all bands shuffled and cut into ranges of hashes."""
    hashes = candidates.merge_hashes(values, bands).ravel()
    minima = values.reshape(len(hashes), -1)
    documents = np.repeat(np.arange(len(values)), bands)
    cuts = np.sort(np.random.default_rng(seed).choice(hashes, 9))
    range_of = np.searchsorted(cuts, hashes, side="right")
    blocks, pairs = [], list[list[tuple[int, int]]]([[] for _ in range(bands)])
    for number in range(10):
        inside = np.random.default_rng(number).permutation(np.flatnonzero(range_of == number))
        blocks.append(candidates.chained_pairs(hashes[inside], minima[inside], documents[inside]))
    for band in range(bands):
        of_band = slice(band, None, bands)
        chained = candidates.chained_pairs(hashes[of_band], minima[of_band], documents[of_band])
        pairs[band] = list(zip(*(end.tolist() for end in chained), strict=True))
    kept = survivors.components(len(values), blocks)
    sizes, ids = survivors.cluster_sizes(kept), survivors.cluster_ids(kept)
    joined = np.flatnonzero(ids >= 0)
    return Clustered(
        removed=np.flatnonzero(kept != np.arange(len(kept))).tolist(),
        pairs=pairs,
        clusters=list(zip(joined.tolist(), ids[joined].tolist(), strict=True)),
        sizes=list(zip(joined.tolist(), sizes[joined].tolist(), strict=True)),
    )


def planted(count: int, bands: int, rows: int, seed: int) -> Signatures:
    """Signatures of which two thirds take their minima from one or two others: chains, bridges and twins.

    Similar documents share the first minimum of bands in which they differ later, so the sequence of buckets hangs on
    all minima of a band.
    """
    rng = np.random.default_rng(seed)
    values = rng.integers(0, (1 << 61) - 1, (count, bands * rows), dtype=np.uint64)
    for document in np.flatnonzero(rng.random(count) < 0.67).tolist()[1:]:
        one, other = rng.integers(0, document, 2)
        share = rng.choice([0.7, 0.9, 0.97, 1.0])
        taken = rng.random(bands * rows) < share
        values[document, taken] = values[one, taken]
        half = taken & (rng.random(bands * rows) < rng.choice([0.0, 0.5]))
        values[document, half] = values[other, half]
    return values


def files_of(sizes: Sequence[int]) -> list[range]:
    ends = np.cumsum([0, *sizes]).tolist()
    return [range(begin, end) for begin, end in zip(ends, ends[1:], strict=False)]


@pytest.mark.parametrize(("bands", "rows", "workers"), [(14, 8, 1), (5, 2, 1), (9, 3, 2)])
def test_removed_documents_pairs_and_clusters_are_datatroves(
    tmp_path: Path, bands: int, rows: int, workers: int
) -> None:
    files = files_of([700, 500, 0, 800])
    values = planted(2000, bands, rows, seed=bands)
    write_signatures(tmp_path / "signatures", values, bands, files)
    expected = datatrove(tmp_path, config(bands, rows), files, workers)
    assert len(expected.removed) > 100
    assert ours(values, bands) == expected


def test_the_sequence_of_pairs_decides_who_stays(tmp_path: Path) -> None:
    """With hashes that do not rise as datatrove merges, clusters are the same and some survivors are not."""
    files = files_of([1000, 1000])
    values = planted(2000, 5, 2, seed=1)
    write_signatures(tmp_path / "signatures", values, 5, files)
    expected = datatrove(tmp_path, config(5, 2), files)
    minima = values.reshape(-1, 2)
    hashes = minima[:, 0] * np.uint64(0x9E3779B97F4A7C15) + minima[:, 1] * np.uint64(3)
    hashes += np.tile(np.arange(5, dtype=np.uint64), 2000)
    pairs = candidates.chained_pairs(hashes, np.zeros((len(hashes), 0), np.uint64), np.repeat(np.arange(2000), 5))
    kept = survivors.components(2000, [pairs])
    ids = survivors.cluster_ids(kept)
    joined = np.flatnonzero(ids >= 0)
    assert list(zip(joined.tolist(), ids[joined].tolist(), strict=True)) == expected.clusters
    assert np.flatnonzero(kept != np.arange(2000)).tolist() != expected.removed


def four_stages(folder: Path, texts: Sequence[Sequence[str]]) -> list[int]:
    """Documents that datatrove's whole deduplication leaves of these files, by number."""
    minhash = config(14, 8)
    numbers = iter(range(sum(map(len, texts))))
    files = [[Document(text=text, id=str(next(numbers))) for text in some] for some in texts]
    for rank, documents in enumerate(files):
        first = MinhashDedupSignature(f"{folder}/signatures", config=minhash)
        first._hash_func = lambda shingle: xxhash.xxh64_intdigest(shingle.encode())  # xxhash 4 takes bytes only
        first.run(iter(documents), rank, len(files))
    datatrove(folder, minhash, files_of(list(map(len, texts))))
    stage = MinhashDedupFilter(f"{folder}/removed")
    return [int(kept.id) for rank, documents in enumerate(files) for kept in stage.run(iter(documents), rank)]


def whole_chain(texts: Sequence[str]) -> list[int]:
    """Documents that we leave, from their texts on; one without shingles shares no bucket."""
    found = Hasher(MinHash(), words_by_name("spacy_english")).signatures(texts)
    there = np.flatnonzero(found.shingles > 0)
    values = found.values[there]
    hashes = candidates.merge_hashes(values, 14).ravel()
    pairs = candidates.chained_pairs(hashes, values.reshape(-1, 8), np.repeat(there, 14))
    kept = survivors.components(len(texts), [pairs])
    return np.flatnonzero(kept == np.arange(len(texts))).tolist()


def variants(texts: Sequence[str], seed: int) -> list[str]:
    """Copies with some words changed: from none to one in twenty."""
    rng = np.random.default_rng(seed)
    found = []
    for text in texts:
        words = np.array(text.split(" "), object)
        changed = rng.random(len(words)) < rng.choice([0.0, 0.002, 0.01, 0.05])
        words[changed] = [f"word{number}" for number in rng.integers(0, 10_000, int(changed.sum()))]
        found.append(" ".join(words))
    return found


def test_texts_are_left_as_datatroves_four_stages_leave_them(
    tmp_path: Path, make_sentences: Callable[[int], str]
) -> None:
    texts = [make_sentences(number)[:1200] for number in range(12)]
    files = [
        [*texts, "", "One two three four."],
        variants(texts * 3, 1),
        variants(texts, 2) + ["", "One two three four.", "One two three four five.", "one, two: three four five!"],
    ]
    left = four_stages(tmp_path, files)
    assert 12 < len(left) < 45
    assert whole_chain([text for some in files for text in some]) == left


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["reuters21578", "spamassassin_mail"])
def test_real_documents_are_left_as_datatroves_four_stages_leave_them(tmp_path: Path, name: str) -> None:
    path = CORPORA / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"needs the real documents in {path}")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in islice(lines, 2500)]
    left = four_stages(tmp_path, [texts[:600], texts[600:1500], texts[1500:]])
    assert len(left) < len(texts)
    assert whole_chain(texts) == left


@pytest.mark.full
def test_100_000_documents_are_clustered_as_by_datatrove(tmp_path: Path) -> None:
    files = files_of([25_000, 40_000, 35_000])
    values = planted(100_000, 14, 8, seed=4)
    write_signatures(tmp_path / "signatures", values, 14, files)
    assert ours(values, 14) == datatrove(tmp_path, config(14, 8), files)
