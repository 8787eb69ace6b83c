"""What a dedup step took for the same: its figures, its largest clusters, how their documents differ.

Read from what the step committed, where documents are numbered as they follow one another, those of the earlier runs
that it looked at first: two documents of one id are two. Memory: a row group of the step's files or of texts, one
task's ids, two texts with their shingles, and 200 bytes for each document that is listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.errors import InputError, NoSuchDocument, OutputError
from filters.tokens import Lexicon
from infra.commit import FileEntry
from infra.dedup import earlier_run
from infra.dedup_work import Corpus
from infra.rollup import TaskOutcome, outcomes
from infra.run import Finished, read_run
from infra.store import open_store
from infra.stored import Store
from infra.word_diff import Stretch, word_diff
from pipelines.dedup.ranges import Documents
from pipelines.dedup.simplified import simplified_words
from pipelines.dedup.step import METHODS, Dedup, NearDuplicates
from pipelines.dedup.survivors import rehydration_weights
from pipelines.words import words_by_name

LISTED = 10_000
"""Removed documents of one cluster that are listed where all are asked for; `duplicates/` has the others."""
SOURCES = 5
"""Domains and folders of input in a summary."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """How many documents a domain, or a folder of input, had before the step, and how many of them fell."""

    name: str
    documents: int
    removed: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a dedup step counted.

    removed: documents by method, in the order of the methods. clusters and buckets: how many have so many documents.
    compared and verified: pairs, None where candidates count unverified. left_out: pairs within buckets that the cap
    left out. domains and folders: those that lost most.
    """

    step: Dedup
    documents: int
    removed: Mapping[str, int]
    clusters: Mapping[int, int]
    buckets: Mapping[int, int]
    compared: int | None
    verified: int | None
    left_out: int | None
    domains: tuple[Loss, ...]
    folders: tuple[Loss, ...]


@dataclass(frozen=True, kw_only=True)
class Member:
    """A removed document. `similarity` is the step's estimate, None where it compared the two by nothing.

    compared: whether its text was read; then `exact` is the Jaccard similarity of the shingles of both texts, None
    where neither has any. diff: from the kept text to this one, where it was asked for.
    """

    id: str
    url: str
    method: str
    similarity: float | None
    compared: bool
    exact: float | None
    diff: tuple[Stretch, ...] | None


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A kept document and removed ones that it stands for, the least similar first, those never compared before them.

    run: the earlier run that holds the kept one; None for this one. size: of all, the kept one among them. weight: how
    often FineWeb-2 would repeat it.
    """

    id: str
    url: str
    run: str | None
    size: int
    weight: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A row of a task's file of kept documents, in the store of its run."""

    store: Store
    entry: FileEntry
    row: int


def step_of(made: Finished) -> Dedup:
    """The dedup step of a run. Raises InputError where it has none."""
    step = made.recipe.step(Dedup)
    if step is None:
        raise InputError(
            f"{made.store.url}: its recipe {made.recipe.name} has no dedup step, so there are no clusters. To look for "
            f"copies in what it kept: gristmill dedup -m text -m minhash -i {made.store.url}/dataset -o OUT"
        )
    return step


def corpus_of(made: Finished) -> Corpus:
    """What the dedup step of a run saw. Raises InputError where it has none, OutputError where an earlier run is
    gone.
    """
    step = step_of(made)
    earlier = tuple(earlier_run(read_run(open_store(url)), step) for url in made.against)
    corpus = Corpus(store=made.store, rollup=made.rollup, step=step, documents=made.dedup["documents"], earlier=earlier)
    if corpus.id != made.dedup["corpus"]:
        raise OutputError(
            f"{made.store.url}: an earlier run that it was compared with has changed: {', '.join(made.against)}. "
            "Run the same command again: only what follows from the change is made anew."
        )
    return corpus


def found_files(made: Finished, name: str) -> list[FileEntry]:
    """What the dedup step of a run found: `removed`, `clusters` or `shares`, in order of documents."""
    return [FileEntry(**entry) for entry in made.dedup["files"][name]]


def summary(made: Finished) -> Summary:
    """The figures of a run's dedup step. Raises InputError where it has none."""
    step, counted = step_of(made), made.dedup
    (shares_file,) = found_files(made, "shares")
    shares = stored_table(made.store, shares_file).to_pylist()
    return Summary(
        step=step,
        documents=counted["documents"],
        removed={method: counted["removed"][method] for method in METHODS if method in counted["removed"]},
        clusters=by_size(counted["clusters"]),
        buckets=by_size(counted.get("buckets", {})),
        compared=counted.get("compared"),
        verified=counted.get("verified"),
        left_out=counted.get("left_out"),
        domains=losses(shares, "domain"),
        folders=losses(shares, "folder"),
    )


def by_size(counts: Mapping[str, int]) -> dict[int, int]:
    """Counts by size, as JSON has them, by number, rising."""
    return dict(sorted((int(size), count) for size, count in counts.items()))


def losses(shares: Sequence[Mapping[str, Any]], kind: str) -> tuple[Loss, ...]:
    """The sources of one kind that lost most."""
    rows = [row for row in shares if row["kind"] == kind and row["removed"]]
    rows.sort(key=lambda row: (-row["removed"], row["name"] or ""))
    return tuple(
        Loss(name=row["name"] or "", documents=row["documents"], removed=row["removed"]) for row in rows[:SOURCES]
    )


def clusters(
    made: Finished, *, count: int = 10, least: int = 2, members: int = 3, wanted: str | None = None, diff: bool = True
) -> Iterator[Cluster]:
    """The `count` largest clusters of at least `least` documents, of each up to `members` removed ones, or, where
    `wanted` is given, those of the documents with this id or URL, with all their members up to `LISTED`.

    In order of size, where equal as they lie in the dataset. The texts of `members` documents of each, and of those
    wanted, are compared with the kept one's; `diff` shows one of them, the wanted or the least similar. Raises
    InputError where the run has no dedup step, NoSuchDocument where no cluster has the wanted one, and OutputError.
    """
    corpus = corpus_of(made)
    files = {name: found_files(made, name) for name in ("removed", "clusters")}
    asked = np.zeros(0, np.int64) if wanted is None else document_numbers(corpus, wanted)
    if wanted is None:
        heads = largest(group_frames(made.store, files["clusters"], ["document", "size"]), count, least)
    else:
        heads = heads_of(made.store, files, asked, wanted, count)
    among = least_similar(made.store, files["removed"], heads["document"], members if wanted is None else LISTED, asked)
    places = places_of(corpus, np.union1d(heads["document"], among["document"]))
    return _clusters(corpus, heads, among, places, Comparison(asked=set(asked.tolist()), members=members, diff=diff))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Which documents' texts are compared: those asked for, and of each cluster the first so many."""

    asked: set[int]
    members: int
    diff: bool


def _clusters(
    corpus: Corpus, heads: pl.DataFrame, among: pl.DataFrame, places: Mapping[int, Place], comparison: Comparison
) -> Iterator[Cluster]:
    """The clusters of these heads, one after the other."""
    similarity = shingle_jaccard(corpus.step.minhash or NearDuplicates())
    weights = rehydration_weights(heads["size"].to_numpy()).tolist()
    for (head, size), weight in zip(heads.select("document", "size").iter_rows(), weights, strict=True):
        rows = among.filter(pl.col("representative") == head).to_dicts()
        named = read_rows(places, [head, *(row["document"] for row in rows)], ["id", "url"])
        compared = {row["document"] for row in rows[: comparison.members]}
        compared |= comparison.asked & {row["document"] for row in rows}
        shown = next((row["document"] for row in rows if row["document"] in comparison.asked), None)
        shown = rows[0]["document"] if shown is None else shown
        text = text_of(places, head)
        found = []
        for row in rows:
            number = row["document"]
            other = text_of(places, number) if number in compared else None
            found.append(
                Member(
                    **named[number],
                    method=row["method"],
                    similarity=row["similarity"],
                    compared=other is not None,
                    exact=None if other is None else similarity(text, other),
                    diff=word_diff(text, other) if comparison.diff and other is not None and number == shown else None,
                )
            )
        run = places[head].store.url if head < corpus.before else None
        yield Cluster(**named[head], run=run, size=size, weight=weight, members=tuple(found))


# Nothing is read by threads of Arrow's: one that lets go of a buffer of a Python file while Python ends aborts the
# process (in 6 of 11 commands that ended right after their last read; pyarrow 26.0).
def opened(store: Store, entry: FileEntry) -> BinaryIO:
    """A committed file, for reading. Raises OutputError where it is gone."""
    try:
        return store.open(entry.path, entry.bytes)
    except FileNotFoundError:
        raise OutputError(
            f"{store.url}/{entry.path} is gone. Restore it, or run the same command that made it into an empty folder."
        ) from None


def stored_table(store: Store, entry: FileEntry, columns: Sequence[str] | None = None) -> pa.Table:
    """These columns of a committed file, by default all."""
    with opened(store, entry) as raw, pq.ParquetFile(raw) as file:
        return file.read(columns=None if columns is None else list(columns), use_threads=False)


def group_frames(store: Store, entries: Iterable[FileEntry], columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """These columns of committed files, row group by row group."""
    for entry in entries:
        with opened(store, entry) as raw, pq.ParquetFile(raw) as file:
            for group in range(file.num_row_groups):
                frame = pl.from_arrow(file.read_row_group(group, columns=list(columns), use_threads=False))
                assert isinstance(frame, pl.DataFrame)
                yield frame


def largest(frames: Iterator[pl.DataFrame], count: int, least: int) -> pl.DataFrame:
    """The `count` rows (document, size) of the largest size, at least `least`; where equal, by document."""
    held = pl.DataFrame(schema={"document": pl.Int64, "size": pl.Int64})
    for frame in frames:
        some = pl.concat([held, frame.filter(pl.col("size") >= least)])
        held = some.sort("size", "document", descending=[True, False]).head(count)
    return held


def heads_of(
    store: Store, files: Mapping[str, Sequence[FileEntry]], documents: Documents, wanted: str, count: int
) -> pl.DataFrame:
    """The documents that stand for these, or for others and have this id: (document, size), the largest clusters first.

    Raises NoSuchDocument where there is none.
    """
    known = pl.Series(documents)
    asked = pl.col("document").is_in(known.implode()) | pl.col("representative_id").is_in(spellings(wanted))
    columns = ["document", "representative", "representative_id"]
    frames = group_frames(store, files["removed"], columns)
    heads = pl.concat([known, *(frame.filter(asked)["representative"] for frame in frames)]).unique()
    sizes = group_frames(store, files["clusters"], ["document", "size"])
    found = largest((frame.filter(pl.col("document").is_in(heads.implode())) for frame in sizes), count, 2)
    if not len(found):
        raise NoSuchDocument(
            f"no cluster of {store.url} has a document with the id or URL {wanted!r}: nothing was taken for the same. "
            f"What became of it: gristmill explain {store.url} {wanted}"
        )
    return found


def spellings(wanted: str) -> list[str]:
    """How an id may be written in full."""
    return [wanted, f"<{wanted}>", f"<urn:uuid:{wanted}>"]


def least_similar(
    store: Store, removed: Sequence[FileEntry], heads: pl.Series, count: int, asked: Documents
) -> pl.DataFrame:
    """For each of these heads the `count` removed documents of least similarity, and those asked for.

    Rows (document, representative, method, similarity), those never compared first; where equal, by document.
    """
    columns = ["document", "representative", "method", "similarity"]
    kinds = {"document": pl.Int64, "representative": pl.Int64, "method": pl.String, "similarity": pl.Float64}
    held = pl.DataFrame(schema=kinds)
    extra = pl.col("document").is_in(pl.Series(asked).implode())
    place = pl.int_range(pl.len()).over("representative")
    for frame in group_frames(store, removed, columns):
        some = pl.concat([held, frame.filter(pl.col("representative").is_in(heads.implode()))])
        held = some.sort("similarity", "document", nulls_last=False).filter((place < count) | extra)
    return held


def tasks_of(corpus: Corpus) -> Iterator[tuple[Store, TaskOutcome, int]]:
    """The tasks in the order in which documents are numbered, those of earlier runs first: the store, what is committed
    there, and the number of the first document.
    """
    first = 0
    runs = [(one.store, one.rollup) for one in corpus.earlier]
    for store, rollup in (*runs, (corpus.store, corpus.rollup)):
        for outcome in outcomes(store, rollup):
            yield store, outcome, first
            first += sum(entry.rows for entry in outcome.kept)


def document_numbers(corpus: Corpus, wanted: str) -> Documents:
    """The documents of this run, removed ones or ones that stand for others, whose id or URL this is."""
    condition = pc.field("id").isin(spellings(wanted)) | (pc.field("url") == wanted)
    found: list[int] = []
    for store, outcome, first in tasks_of(corpus):
        if first < corpus.before:
            continue
        starts = list(accumulate((entry.rows for entry in outcome.kept), initial=first))
        gone = stored_table(store, outcome.removal["duplicates"], ["id", "url", "file", "row"])
        found += [starts[row["file"]] + row["row"] for row in gone.filter(condition).to_pylist()]
        heads = stored_table(store, outcome.removal["clusters"], ["id", "url", "key"])
        if len(keys := heads.filter(condition).column("key")):
            found += [starts[file] + row for file, row in rows_of_keys(store, outcome, keys)]
    return np.array(sorted(found), np.int64)


def rows_of_keys(store: Store, outcome: TaskOutcome, keys: pa.ChunkedArray) -> Iterator[tuple[int, int]]:
    """(file, row) of the kept documents of a task that have these keys."""
    for file, entry in enumerate(outcome.kept):
        there = pc.is_in(stored_table(store, entry, ["key"]).column("key"), keys.combine_chunks())
        for row in np.flatnonzero(there.to_numpy()).tolist():
            yield file, row


def places_of(corpus: Corpus, documents: Documents) -> dict[int, Place]:
    """Where each of these documents, sorted, lies."""
    found: dict[int, Place] = {}
    for store, outcome, first in tasks_of(corpus):
        for entry in outcome.kept:
            begin, end = np.searchsorted(documents, [first, first + entry.rows])
            some = documents[begin:end].tolist()
            found |= {number: Place(store=store, entry=entry, row=number - first) for number in some}
            first += entry.rows
    return found


def read_rows(
    places: Mapping[int, Place], documents: Sequence[int], columns: Sequence[str]
) -> dict[int, dict[str, Any]]:
    """These columns of these documents. Reads each row group that has one of them once."""
    by_file: dict[tuple[str, str], list[int]] = {}
    for number in documents:
        place = places[number]
        by_file.setdefault((place.store.url, place.entry.path), []).append(number)
    found: dict[int, dict[str, Any]] = {}
    for numbers in by_file.values():
        place = places[numbers[0]]
        with place.store.open(place.entry.path, place.entry.bytes) as raw, pq.ParquetFile(raw) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            starts = np.array([0, *accumulate(sizes)])
            rows = np.array([places[number].row for number in numbers])
            groups = np.searchsorted(starts, rows, side="right") - 1
            for group in np.unique(groups).tolist():
                some = np.flatnonzero(groups == group)
                table = file.read_row_group(group, columns=list(columns), use_threads=False)
                taken = table.take(pa.array(rows[some] - starts[group])).to_pylist()
                found |= {numbers[at]: row for at, row in zip(some.tolist(), taken, strict=True)}
    return found


def text_of(places: Mapping[int, Place], document: int) -> str:
    """The text that was compared."""
    text: str = read_rows(places, [document], ["text"])[document]["text"]
    return text


def shingle_jaccard(near: NearDuplicates) -> Callable[[str, str], float | None]:
    """The Jaccard similarity of the sets of shingles of two texts, runs of `ngram` words of the simplified texts: what
    MinHash estimates. None where neither text has a shingle.
    """
    vocabulary = Lexicon().vocabulary(simplified_words(words_by_name(near.words), near.numbers))

    def similarity(one: str, other: str) -> float | None:
        words = vocabulary.encode([one, other])
        shingles = [
            runs_of(words.codes[start:end], near.ngram)
            for start, end in zip(words.offsets[:-1].tolist(), words.offsets[1:].tolist(), strict=True)
        ]
        _, number = np.unique(np.concatenate(shingles), axis=0, return_inverse=True)
        left, right = (np.unique(some) for some in np.split(number.ravel(), [len(shingles[0])]))
        both = len(np.intersect1d(left, right, assume_unique=True))
        return both / (len(left) + len(right) - both) if len(left) + len(right) else None

    return similarity


def runs_of(codes: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """Every run of so many codes, shape (runs, length)."""
    if len(codes) < length:
        return np.zeros((0, length), codes.dtype)
    return np.lib.stride_tricks.sliding_window_view(codes, length)
