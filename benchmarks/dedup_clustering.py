"""Buckets and clusters against datatrove 0.10.1's stages 2 and 3: CPU time for the same removed documents.

    python benchmarks/dedup_clustering.py [--quick] [--json]

Planted signatures, 14 bands of 8: 30 % of the documents copy another one's, each minimum with chance 0.956, so that a
copy shares seven bands in ten; ten sorted files. datatrove reads its `.minhash.sig` and writes `.dups` and `.remove`
with its defaults. Ours reads its bands from Parquet (hash, row, and the band's minima, without which the survivor is
not datatrove's), checks that they are sorted, writes pairs by range of hashes and reads them again, joins them and
writes what is removed. One process and one thread of work each; imports, compiling and the process's first 200 MB
of memory (0.1 s) outside the clock; user and system CPU seconds of it and its children, three rounds of both.

clustering   datatrove's time over ours, median of the rounds; its lower quartile stands in the details
agreement    share of documents with the same fate

`--quick` takes 10^5 documents. Else 10^6 as well, from which the ratio then is, and 10^7 for ours alone (11 GB of
scratch files). Growth is the exponent of our time between two sizes; memory is the peak of resident memory above that
before the work, in a process of its own. Beside them the default way, at 10^5 and 10^6: candidate pairs of hashes
alone, verified on sketches that lie in memory, greedy survivors.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.dedup import candidates, sketch, survivors
from pipelines.memory import peak_memory

BANDS, ROWS = 14, 8
SIZE = BANDS * ROWS
FILES = 10
ROUNDS = 3
COPIES, SHARED = 0.3, 0.956
PRIME = np.uint64((1 << 61) - 1)
GROUP_ROWS = 1 << 14
RANGE_ROWS = 1 << 20
"""Rows of one range of hashes, about, which take 200 MiB at work."""
THRESHOLD = 0.75

Unsigned = npt.NDArray[np.uint64]
Documents = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Documents of which some copy another one's minima; every value is a function of document and column."""

    sources: Documents
    files: list[range]

    def minima(self, documents: range, band: int) -> Unsigned:
        """The minima of a band, shape (documents, ROWS)."""
        columns = np.arange(band * ROWS, (band + 1) * ROWS, dtype=np.uint64)
        numbers = np.arange(documents.start, documents.stop, dtype=np.uint64)[:, None]
        sources = self.sources[documents.start : documents.stop].astype(np.uint64)[:, None]
        own = scattered(numbers * np.uint64(SIZE) + columns) > np.uint64(int(SHARED * 2**64))
        contents = np.where(own, numbers + np.uint64(1 << 40), sources)
        return scattered(contents * np.uint64(SIZE) + columns + np.uint64(1 << 62)) % PRIME


def scattered(values: Unsigned) -> Unsigned:
    """A bijection of 64-bit integers that looks random (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def planted(count: int) -> Planted:
    rng = np.random.default_rng(0)
    sources = np.arange(count)
    copies = np.flatnonzero(rng.random(count) < COPIES)
    sources[copies] = (rng.random(len(copies)) * copies).astype(np.int64)
    ends = [count * file // FILES for file in range(FILES + 1)]
    return Planted(sources=sources, files=[range(begin, end) for begin, end in pairwise(ends)])


def sorted_rows(values: Unsigned) -> Documents:
    """The sequence in which datatrove sorts rows: by all minima, then by place."""
    order = np.argsort(values[:, 0], kind="stable")
    equal = values[order[1:], 0] == values[order[:-1], 0]
    tied = np.append(equal, False) | np.append(False, equal)
    rows = order[tied]
    order[tied] = rows[np.lexsort((rows, *values[rows].T[::-1]))]
    return order


def write_inputs(folder: Path, work: Planted, *, theirs: bool) -> None:
    """Write each file's bands for us, and for datatrove if asked."""
    kind = np.dtype([(f"field{row}", "<u8") for row in range(ROWS)] + [("document", "<u4")])
    schema = pa.schema([("hash", pa.uint64()), ("values", pa.binary(8 * ROWS)), ("row", pa.uint32())])
    (folder / "bands").mkdir(parents=True)
    for file, documents in enumerate(work.files):
        path = folder / "bands" / f"{file:05d}.parquet"
        with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
            for band in range(BANDS):
                values = work.minima(documents, band)
                order = sorted_rows(values)
                values = values[order]
                whole = np.zeros((len(values), BANDS), np.uint64)
                whole[:, band] = values[:, 0]
                hashes = candidates.merge_hashes(whole, BANDS)[:, band]
                packed = pa.FixedSizeBinaryArray.from_buffers(
                    pa.binary(8 * ROWS), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))]
                )
                rows = pa.array(order.astype(np.uint32))
                writer.write_table(pa.Table.from_arrays([pa.array(hashes), packed, rows], schema=schema), GROUP_ROWS)
                if theirs:
                    records = np.zeros(len(values), kind)
                    for row in range(ROWS):
                        records[f"field{row}"] = values[:, row]
                    records["document"] = order
                    bucket = folder / "signatures" / f"bucket_{band:03d}"
                    bucket.mkdir(parents=True, exist_ok=True)
                    records.tofile(bucket / f"{file:05d}.minhash.sig")


def datatrove_removed(folder: Path, work: Planted, scratch: Path) -> Documents:
    """The documents that datatrove's stages 2 and 3 remove."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster

    config = MinhashConfig(num_buckets=BANDS, hashes_per_bucket=ROWS)
    for band in range(BANDS):
        MinhashDedupBuckets(f"{folder}/signatures", f"{scratch}/pairs", config=config).run(None, band, BANDS)
    MinhashDedupCluster(f"{scratch}/pairs", f"{scratch}/removed", config=config).run(None, 0, 1)
    files = sorted((scratch / "removed").glob("*.remove"))
    return np.concatenate([np.fromfile(path, "<u4") + work.files[int(path.stem)].start for path in files])


@dataclass(frozen=True, kw_only=True)
class Bands:
    """Sorted files of bands and their footers, which are read once."""

    paths: list[Path]
    footers: list[pq.FileMetaData]

    def ranges(self) -> list[tuple[int, int]]:
        """Ranges [low, high) of hashes with about RANGE_ROWS rows each, by the statistics of row groups."""
        groups = [footer.row_group(index) for footer in self.footers for index in range(footer.num_row_groups)]
        least = sorted((group.column(0).statistics.min, group.num_rows) for group in groups)
        rows = np.cumsum([count for _, count in least])
        cuts = np.searchsorted(rows, np.arange(RANGE_ROWS, rows[-1], RANGE_ROWS))
        return list(pairwise(sorted({0, *(least[at][0] for at in cuts), 1 << 64})))

    def within(self, low: int, high: int, columns: list[str]) -> Iterator[tuple[int, Unsigned, pa.Table]]:
        """(file, hashes, other columns) of the rows of a range. Raises ValueError where a file is not sorted."""
        for file, (path, footer) in enumerate(zip(self.paths, self.footers, strict=True)):
            groups = []
            for index in range(footer.num_row_groups):
                found = footer.row_group(index).column(0).statistics
                if found.min < high and found.max >= low:
                    groups.append(index)
            if not groups:
                continue
            with pq.ParquetFile(path, metadata=footer, memory_map=True) as parquet:
                table = parquet.read_row_groups(groups, ["hash", *columns], use_threads=False)
            hashes = table.column("hash").to_numpy()
            if (hashes[1:] < hashes[:-1]).any():
                raise ValueError(f"{path} is not sorted by hash")
            begin = np.searchsorted(hashes, np.uint64(low))
            end = len(hashes) if high == 1 << 64 else np.searchsorted(hashes, np.uint64(high))
            yield file, hashes[begin:end], table.slice(begin, end - begin)


def bands_of(folder: Path) -> Bands:
    paths = sorted(folder.glob("*.parquet"))
    return Bands(paths=paths, footers=[pq.read_metadata(path) for path in paths])


def binary_rows(tables: list[pa.Table]) -> Unsigned:
    """The column of values, fixed-size binary, of all these tables: rows of unsigned integers."""
    width = 8 * ROWS
    chunks = []
    for chunk in (chunk for table in tables for chunk in table.column("values").chunks):
        chunks.append(np.frombuffer(chunk.buffers()[1], np.uint64, len(chunk) * ROWS, chunk.offset * width))
    return np.concatenate(chunks).reshape(-1, ROWS)


def documents_of(parts: list[tuple[int, Unsigned, pa.Table]], firsts: list[int]) -> Documents:
    """The number of each row's document."""
    return np.concatenate([firsts[file] + table.column("row").to_numpy().astype(np.int64) for file, _, table in parts])


def our_removed(folder: Path, firsts: list[int], count: int, scratch: Path) -> Documents:
    """The documents that our components remove."""
    bands = bands_of(folder / "bands")
    written = []
    for number, (low, high) in enumerate(bands.ranges()):
        parts = list(bands.within(low, high, ["values", "row"]))
        hashes = np.concatenate([some for _, some, _ in parts])
        values, documents = binary_rows([table for _, _, table in parts]), documents_of(parts, firsts)
        del parts
        first, second = candidates.chained_pairs(hashes, values, documents)
        written.append(scratch / f"pairs-{number:05d}.parquet")
        pq.write_table(
            pa.table({"first": first, "second": second}), written[-1], compression="lz4", use_dictionary=False
        )

    def pairs() -> Iterator[tuple[Documents, Documents]]:
        for path in written:
            table = pq.read_table(path, use_threads=False)
            yield table.column("first").to_numpy(), table.column("second").to_numpy()

    kept = survivors.components(count, pairs())
    removed = np.flatnonzero(kept != np.arange(count))
    pq.write_table(pa.table({"document": removed, "representative": kept[removed]}), scratch / "removed.parquet")
    return removed


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def timed(work: Callable[[Path], Documents]) -> tuple[float, Documents]:
    """CPU seconds of work in a scratch folder, and its result."""
    with tempfile.TemporaryDirectory() as scratch:
        began = cpu_seconds()
        found = work(Path(scratch))
        return cpu_seconds() - began, found


def warm_up() -> None:
    """Compile, and import, what is timed."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as scratch:
        work = planted(1000)
        write_inputs(Path(folder), work, theirs=True)
        our_removed(Path(folder), [documents.start for documents in work.files], 1000, Path(scratch))
        datatrove_removed(Path(folder), work, Path(scratch) / "datatrove")
        default_way(Path(folder), work)


def measured_alone(folder: str, firsts: list[int], count: int) -> dict[str, float]:
    """CPU seconds, removed documents and peak memory a document of ours, in the process that this is called in."""
    with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as scratch:
        work = planted(1000)
        write_inputs(Path(small), work, theirs=False)
        our_removed(Path(small), [documents.start for documents in work.files], 1000, Path(scratch))
    before = psutil.Process().memory_info().rss
    seconds, removed = timed(lambda scratch: our_removed(Path(folder), firsts, count, scratch))
    return {
        "seconds": round(seconds, 3),
        "removed": len(removed),
        "peak_bytes_a_document": round((peak_memory() - before) / count, 1),
    }


def in_new_process(folder: Path, work: Planted) -> dict[str, float]:
    """`measured_alone` in a process that holds nothing else."""
    firsts = [documents.start for documents in work.files]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured_alone, (str(folder), firsts, len(work.sources)))


def default_way(folder: Path, work: Planted) -> dict[str, float]:
    """CPU seconds by step of hashes -> candidate pairs -> verified edges -> greedy survivors, and what they found."""
    count = len(work.sources)
    hashed, order, sketches = (
        folder / "hashes",
        scattered(np.arange(count, dtype=np.uint64)),
        np.zeros((count, SIZE), np.uint16),
    )
    hashed.mkdir()
    for file, documents in enumerate(work.files):
        of_band = []
        for band in range(BANDS):
            values = work.minima(documents, band)
            sketches[documents.start : documents.stop, band * ROWS : (band + 1) * ROWS] = values.astype(np.uint16)
            factors = scattered(np.arange(ROWS, dtype=np.uint64) + np.uint64(band * ROWS))
            of_band.append((values * factors).sum(axis=1, dtype=np.uint64))
        hashes, rows = np.concatenate(of_band), np.tile(np.arange(len(documents), dtype=np.uint32), BANDS)
        by = np.argsort(hashes)
        table = pa.table({"hash": hashes[by], "row": rows[by], "order": order[documents.start + rows[by]]})
        pq.write_table(table, hashed / f"{file:05d}.parquet", GROUP_ROWS, compression="none", use_dictionary=False)
    return default_steps(bands_of(hashed), work, order, sketches)


def default_steps(bands: Bands, work: Planted, order: Unsigned, sketches: npt.NDArray[np.uint16]) -> dict[str, float]:
    """The timed part of `default_way`."""
    began = cpu_seconds()
    blocks = []
    for low, high in bands.ranges():
        parts = list(bands.within(low, high, ["row", "order"]))
        hashes = np.concatenate([some for _, some, _ in parts])
        orders = np.concatenate([table.column("order").to_numpy() for _, _, table in parts])
        documents = documents_of(parts, [documents.start for documents in work.files])
        found = candidates.candidate_pairs(hashes, documents, orders)
        blocks.append((found.first, found.second))
    first, second = candidates.distinct_pairs(*(np.concatenate(ends) for ends in zip(*blocks, strict=True)))
    paired = cpu_seconds()
    matches = sketch.matching(sketches, sketches, first, second)
    good = matches >= sketch.least_matches(THRESHOLD, SIZE)
    edges = survivors.Edges(first=first[good], second=second[good], matches=matches[good])
    verified = cpu_seconds()
    documents = survivors.with_edges(edges)
    contested = survivors.contested(edges, order[edges.first], order[edges.second])
    assert not len(contested), "the planted order has no ties"
    ranks = survivors.ranks(documents, order[documents], contested, pa.array([], pa.string()))
    chosen = survivors.greedy(edges, documents, ranks)
    return {
        "pairs_seconds": round(paired - began, 3),
        "verify_seconds": round(verified - paired, 3),
        "greedy_seconds": round(cpu_seconds() - verified, 3),
        "pairs": len(first),
        "edges": len(edges.first),
        "removed": int((chosen.representatives != chosen.documents).sum()),
    }


def compared(count: int) -> dict[str, Any]:
    """Both sides at a size, in rounds, and the default way."""
    work = planted(count)
    firsts = [documents.start for documents in work.files]
    rounds, agreement = [], 1.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, work, theirs=True)
        timed(lambda scratch: our_removed(folder, firsts, count, scratch))
        for _ in range(ROUNDS):
            their_seconds, theirs = timed(lambda scratch: datatrove_removed(folder, work, scratch))
            our_seconds, ours = timed(lambda scratch: our_removed(folder, firsts, count, scratch))
            rounds.append((their_seconds, our_seconds))
            agreement = min(agreement, 1 - len(np.setxor1d(ours, theirs)) / count)
        alone = in_new_process(folder, work)
        default = default_way(folder, work)
    ratios = [theirs / ours for theirs, ours in rounds]
    return {
        "documents": count,
        "datatrove_seconds": round(median(theirs for theirs, _ in rounds), 2),
        "our_seconds": round(median(ours for _, ours in rounds), 3),
        "ratio": round(median(ratios), 1),
        "ratio_lower_quartile": round(quantiles(ratios, n=4, method="inclusive")[0], 1),
        "agreement": agreement,
        "removed": len(ours),
        "alone": alone,
        "default": default,
    }


def ours_alone(count: int) -> dict[str, Any]:
    """Ours at a size that datatrove's Python takes too long for."""
    work = planted(count)
    with tempfile.TemporaryDirectory() as name:
        write_inputs(Path(name), work, theirs=False)
        runs = [in_new_process(Path(name), work) for _ in range(ROUNDS)]
    return {"documents": count} | {key: median(run[key] for run in runs) for key in runs[0]}


def clustering(*, quick: bool) -> dict[str, Any]:
    """Ratios, agreement and details, as `benchmarks/dedup.py` prints them."""
    warm_up()
    sizes = [compared(count) for count in ([100_000] if quick else [100_000, 1_000_000])]
    details: dict[str, Any] = {"compared": sizes}
    if not quick:
        details["alone"] = ours_alone(10_000_000)
        seconds = [*(size["our_seconds"] for size in sizes), details["alone"]["seconds"]]
        details["growth_exponents"] = [round(math.log10(more / less), 3) for less, more in pairwise(seconds)]
    return {
        "ratios": {"clustering": sizes[-1]["ratio"]},
        "agreement": {"clustering": min(size["agreement"] for size in sizes)},
        "details": details,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10^5 documents, about a minute")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    found = clustering(quick=options.quick)
    if options.json:
        print(json.dumps(found))
        return
    for size in found["details"]["compared"]:
        print(
            f"{size['documents']:,} documents: datatrove {size['datatrove_seconds']} s, ours {size['our_seconds']} s, "
            f"{size['ratio']}x (lower quartile {size['ratio_lower_quartile']}x), agreement {size['agreement']:.2%}"
        )
        print(f"  alone: {size['alone']}\n  default way: {size['default']}")
    for name in ("alone", "growth_exponents"):
        if name in found["details"]:
            print(f"{name}: {found['details'][name]}")


if __name__ == "__main__":
    main()
