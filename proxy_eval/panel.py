"""A panel: texts of some domains, fixed and held out, on which models are compared by bits per byte.

A built panel is a folder: `documents/DOMAIN.parquet` (id, text), and `panel.json` (`Panel`: what is in it, under which
licence, what was cut), written last. It does not depend on the order in which files are read. Its documents are those
of the smallest hash of (salt, text). Long documents are cut at paragraph ends first, so that one book is not the panel;
exact duplicates are removed, and what shares n-grams with the texts that models are trained on
(`proxy_eval.contamination`).

Memory: the candidates of all domains, which are `documents` or `size` for each, and one document, or one row group,
being read.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from heapq import heappop, heappush
from io import BufferedReader
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from filters.errors import InputError, OutputError, VerifyFailed
from proxy_eval.contamination import Matches, found_shares, index_of, matches_of, merged

FEW_DOMAINS = 8  # fewer are accepted and noted: a panel measures what it holds (precision is not validity)
PIECE = 8_000
"""Characters of a document's longest piece: 2,000 tokens, the context of the models that FineWeb compared."""
ENDINGS = (".jsonl", ".jsonl.gz", ".parquet", ".txt", ".txt.gz")

Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Source:
    """The files of one domain, in any order, and the licence of their texts."""

    name: str
    files: tuple[Path, ...]
    licence: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name):
            raise InputError(f"a domain cannot be called {self.name!r}: take letters, digits, '-', '_' and '.'")


@dataclass(frozen=True, kw_only=True)
class Domain:
    """What a panel holds of a domain, and what became of the rest.

    candidates: pieces that the budget took. duplicates, contaminated: those of them that were cut. bytes: of UTF-8.
    """

    name: str
    licence: str
    documents: int
    bytes: int
    sha256: str
    candidates: int
    duplicates: int
    contaminated: int


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel in `folder`. Two panels with the same sha256 hold the same documents."""

    folder: Path
    domains: tuple[Domain, ...]
    salt: str
    share: float
    decontaminated: bool
    sha256: str
    notes: tuple[str, ...]


def sources_in(folder: Path) -> tuple[Source, ...]:
    """Return a source for each folder in `folder`: its files, and the first line of its LICENSE (else "not stated").

    Raises InputError where a folder holds no file of texts, or there is no folder.
    """
    sources = []
    for domain in sorted(path for path in folder.glob("*") if path.is_dir()):
        files = tuple(sorted(path for path in domain.rglob("*") if path.name.endswith(ENDINGS)))
        if not files:
            raise InputError(f"{domain}: no file of texts; a domain's folder holds {', '.join(ENDINGS)}")
        stated = next(iter(sorted(domain.glob("LICEN[CS]E*"))), None)
        licence = "not stated" if stated is None else stated.read_text().split("\n", 1)[0].strip()
        sources.append(Source(name=domain.name, files=files, licence=licence))
    if not sources:
        raise InputError(f"{folder}: no domain; make a folder for each, with files of texts ({', '.join(ENDINGS)})")
    return tuple(sources)


def held_out(texts: Sequence[str], salt: str, share: float) -> Bools:
    """Return which texts are held out: about `share` of all texts, by a hash of salt and text.

    A pool that is made of the same source leaves exactly these out.
    """
    bound = round(share * 2**64)
    return np.array([_hash(salt, text) >> 64 < bound for text in texts], np.bool_)


def build_panel(
    folder: Path,
    sources: Sequence[Source],
    *,
    salt: str,
    share: float = 1.0,
    documents: int | None = None,
    size: int | None = 500_000,
    piece: int = PIECE,
    field: str = "text",
    against: Iterable[Sequence[str]] | None = None,
    overlap: float = 0.0,
) -> Panel:
    """Write a panel into `folder`, which must be new or empty, and return it.

    Of each source only what `held_out` says of (salt, share) is taken, and of that so many pieces, or pieces of so many
    bytes (the first that is met; None: no bound). `against` gives the texts that models are trained on in batches: a
    piece is cut where more than `overlap` of its n-grams stand there. The budget is met before anything is cut. Raises
    InputError where nothing is left.
    """
    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder}: not empty; give a new folder for the panel")
    sources = sorted(sources, key=lambda source: source.name)
    twice = next((one.name for one, other in pairwise(sources) if one.name == other.name), None)
    if twice is not None:
        raise InputError(f"panel: two sources are called {twice!r}; give each domain a name of its own")
    chosen = {
        source.name: _chosen(_pieces_of(source, salt, share, piece, field), salt, documents, size) for source in sources
    }
    distinct = _without_repeats(chosen)
    clean = _without_contaminated(distinct, against, overlap)
    domains = [
        _domain(source, len(chosen[source.name]), len(distinct[source.name]), clean[source.name]) for source in sources
    ]
    panel = Panel(
        folder=folder,
        domains=tuple(domains),
        salt=salt,
        share=share,
        decontaminated=against is not None,
        sha256=_panel_sha256(domains),
        notes=_notes(domains, decontaminated=against is not None),
    )
    (folder / "documents").mkdir(parents=True)
    for name, kept in clean.items():
        _write(folder / "documents" / f"{name}.parquet", kept)
    facts = asdict(panel)
    del facts["folder"]
    (folder / "panel.json").write_text(json.dumps(facts, indent=2) + "\n")
    return panel


def read_panel(folder: Path) -> Panel:
    """Return the panel in a folder. Raises InputError where none was finished there."""
    path = folder / "panel.json"
    if not path.exists():
        raise InputError(f"{folder}: no panel.json; build a panel with `gristmill panel build`")
    facts = json.loads(path.read_text())
    domains = tuple(Domain(**domain) for domain in facts.pop("domains"))
    return Panel(folder=folder, domains=domains, notes=tuple(facts.pop("notes")), **facts)


def documents(panel: Panel, name: str) -> tuple[list[str], list[str]]:
    """Return ids and texts of a domain. Raises VerifyFailed where they are not those that the panel was built of."""
    domain = next(domain for domain in panel.domains if domain.name == name)
    path = panel.folder / "documents" / f"{name}.parquet"
    table = pq.read_table(path)
    ids, texts = table["id"].to_pylist(), table["text"].to_pylist()
    if _sha256(list(zip(ids, texts, strict=True))) != domain.sha256:
        raise VerifyFailed(f"{path}: not the documents that panel.json names; build the panel anew, or copy it again")
    return ids, texts


def pieces(text: str, most: int) -> list[str]:
    """Return the text cut into pieces of at most `most` characters, which joined are the text.

    Cuts lie at the last end of a paragraph in the second half of a piece, or of a line, or of a word, in this order.
    """
    found, at = [], 0
    while len(text) - at > most:
        ends = (text.rfind(mark, at + most // 2, at + most) + len(mark) for mark in ("\n\n", "\n", " "))
        cut = next((end for end in ends if end > at + most // 2), at + most)
        found.append(text[at:cut])
        at = cut
    return [*found, text[at:]]


def _domain(source: Source, candidates: int, distinct: int, kept: list[tuple[str, str]]) -> Domain:
    if not kept:
        raise InputError(
            f"panel: nothing is left of {source.name!r}: of {candidates} candidates {distinct} are distinct, none of "
            "these is free of the pool's n-grams; give other texts, or leave the domain out"
        )
    return Domain(
        name=source.name,
        licence=source.licence,
        documents=len(kept),
        bytes=sum(len(text.encode()) for _, text in kept),
        sha256=_sha256(kept),
        candidates=candidates,
        duplicates=candidates - distinct,
        contaminated=distinct - len(kept),
    )


def _pieces_of(source: Source, salt: str, share: float, piece: int, field: str) -> Iterator[tuple[str, str]]:
    """Yield id and text of each piece of the held-out texts; a piece of white space alone is none."""
    for path in source.files:
        for name, text in _texts(path, field):
            if not held_out([text], salt, share)[0]:
                continue
            cut = pieces(text, piece)
            for number, part in enumerate(cut):
                if part.strip():
                    yield (name if len(cut) == 1 else f"{name}#{number}"), part


def _chosen(
    found: Iterator[tuple[str, str]], salt: str, most: int | None, size: int | None
) -> list[tuple[int, str, str]]:
    """Return (hash, id, text) of the pieces of the smallest hashes, sorted: the fewest that meet one of the budgets."""
    heap: list[tuple[int, str, str]] = []  # of negated hashes: the largest hash is the first to go
    held = 0
    for name, text in found:
        heappush(heap, (-_hash(salt, text), name, text))
        held += len(text.encode())
        while (most is not None and len(heap) > most) or (size is not None and held - len(heap[0][2].encode()) >= size):
            held -= len(heappop(heap)[2].encode())
    return sorted((-negated, name, text) for negated, name, text in heap)


def _without_repeats(chosen: dict[str, list[tuple[int, str, str]]]) -> dict[str, list[tuple[str, str]]]:
    """Return id and text of each text that no domain before, and no piece of a smaller id, has."""
    seen: set[int] = set()
    distinct: dict[str, list[tuple[str, str]]] = {}
    for domain, candidates in chosen.items():
        distinct[domain] = []
        for key, name, text in candidates:
            if key not in seen:
                seen.add(key)
                distinct[domain].append((name, text))
    return distinct


def _without_contaminated(
    held: dict[str, list[tuple[str, str]]], against: Iterable[Sequence[str]] | None, overlap: float
) -> dict[str, list[tuple[str, str]]]:
    """Return what shares no more than `overlap` of its n-grams with any of the texts."""
    if against is None:
        return held
    index = index_of([text for pairs in held.values() for _, text in pairs])
    matches: list[Matches] = []
    first = 0
    for texts in against:
        matches.append(matches_of(index, texts, first))
        first += len(texts)
    clean = iter((found_shares(index, merged(matches)) <= overlap).tolist())
    return {domain: [pair for pair in pairs if next(clean)] for domain, pairs in held.items()}


def _texts(path: Path, field: str) -> Iterator[tuple[str, str]]:
    """Yield id and text of every document of a file; one without an id is known by file name and number."""
    if path.name.endswith((".txt", ".txt.gz")):
        with _opened(path) as file:
            yield path.name, file.read().decode("utf-8-sig", "replace")
        return
    for number, row in enumerate(_rows(path, field)):
        text = row.get(field)
        if not isinstance(text, str):
            raise InputError(f"{path}, row {number + 1}: no text in {field!r}; the fields are {', '.join(row)}")
        yield str(row.get("id") or f"{path.name}:{number}"), text.encode("utf-8", "replace").decode()


def _rows(path: Path, field: str) -> Iterator[dict[str, Any]]:
    if path.name.endswith(".parquet"):
        with pq.ParquetFile(path) as table:
            columns = [name for name in ("id", field) if name in table.schema_arrow.names]
            for group in range(table.num_row_groups):
                yield from table.read_row_group(group, columns=columns).to_pylist()
        return
    with _opened(path) as file:
        for number, line in enumerate(file):  # of bytes, so that U+2028 and U+0085 end none
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}, row {number + 1}: no JSON ({error}); a .jsonl file is JSON Lines") from error
            if not isinstance(row, dict):
                raise InputError(f"{path}, row {number + 1}: not an object with the fields of a document")
            yield row


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.GzipFile(path) if path.name.endswith(".gz") else path.open("rb")


def _hash(salt: str, text: str) -> int:
    """Return 128 bits that order texts at random: two texts of 10^9 agree with probability 1.5e-21."""
    return xxhash.xxh3_128_intdigest(f"{salt}\0{text}".encode("utf-8", "surrogatepass"))


def _write(path: Path, kept: list[tuple[str, str]]) -> None:
    ids, texts = zip(*kept, strict=True)
    pq.write_table(pa.table({"id": pa.array(ids, pa.string()), "text": pa.array(texts, pa.string())}), path)


def _sha256(kept: list[tuple[str, str]]) -> str:
    whole = hashlib.sha256()
    for pair in kept:
        whole.update(json.dumps(pair).encode() + b"\n")
    return whole.hexdigest()


def _panel_sha256(domains: Sequence[Domain]) -> str:
    return hashlib.sha256("".join(f"{domain.name} {domain.sha256}\n" for domain in domains).encode()).hexdigest()


def _notes(domains: Sequence[Domain], *, decontaminated: bool) -> tuple[str, ...]:
    notes = []
    if len(domains) < FEW_DOMAINS:
        notes.append(f"{len(domains)} domains: fewer than {FEW_DOMAINS}, so that one domain moves the mean by much")
    if not decontaminated:
        notes.append("not compared with any pool: texts that models are trained on may be among these")
    silent = [domain.name for domain in domains if domain.licence == "not stated"]
    if silent:
        notes.append(f"no licence is stated for {', '.join(silent)}")
    return tuple(notes)
