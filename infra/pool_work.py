"""What a worker does for a pool: texts of a run to a tokenizer, texts of one part to tokens.

A part of a pool is a pure function of the texts of one part of `text/`, the edits that make its view, and the
tokenizer: its name holds the hashes of these and no path, so a run that was moved is not tokenised anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from filters.batch import TextBatch
from filters.errors import InputError
from filters.tokens import Lexicon
from infra.commit import FileEntry, Manifest, file_entry
from infra.failpoints import failpoint
from infra.signal_rows import Part, readable
from infra.stored import Store
from infra.work import Report, identity
from pipelines.accounts import Accounts
from pipelines.recipe import EditStep, Recipe
from pipelines.signals import RAW, view_made, views
from pipelines.words import word_packages, words_by_name

if TYPE_CHECKING:
    from proxy_eval.tokenizer import Tokenizer

TOKENIZER, TOKENS = "tokenizer", "tokens"
KINDS = ("tokens", "documents")
"""The folders of a pool, in each a file for every part."""
PACKAGES = ("tokenizers",)
REVISION = 1
"""Of what these tasks make; raised when the same texts give other files."""
PUBLISHED = "published"
BATCH = 256
"""Texts that are edited and tokenised at a time: about 1 MB of web text."""


@dataclass(frozen=True, kw_only=True)
class TokenizerTask:
    """Train a byte-level BPE of `vocabulary` tokens on the documents of some parts whose key, as a share of all keys,
    lies below `share`.
    """

    store: Store
    run: Store
    text: tuple[FileEntry, ...]
    edits: tuple[EditStep, ...]
    vocabulary: int
    share: float

    @property
    def packages(self) -> tuple[str, ...]:
        """What every node must have in the driver's releases."""
        return PACKAGES

    @property
    def id(self) -> str:
        """Hash of the texts, the view, and what is asked of the tokenizer."""
        texts = [entry.sha256 for entry in self.text]
        packages = version("tokenizers")
        return identity(TOKENIZER, REVISION, texts, said_of(self.edits), self.vocabulary, self.share, packages)


@dataclass(frozen=True, kw_only=True)
class TokensTask:
    """Tokenise part `number` of a run. `tokenizer` is a file of the pool's store, `end` its end-of-text token."""

    store: Store
    run: Store
    text: FileEntry
    number: int
    edits: tuple[EditStep, ...]
    tokenizer: FileEntry
    end: int

    @property
    def packages(self) -> tuple[str, ...]:
        """What every node must have in the driver's releases."""
        return PACKAGES

    @property
    def id(self) -> str:
        """Hash of the texts, the view and the tokenizer, and the number that names the files."""
        return identity(
            TOKENS, REVISION, self.number, self.text.sha256, said_of(self.edits), self.tokenizer.sha256
        )  # fmt: skip


def said_of(edits: Sequence[EditStep]) -> list[Any]:
    """Edits as plain data, with the releases of what cuts words for them."""
    return [
        [step.name, words, [[name, version(name)] for name in word_packages(words)]]
        for step in edits
        for words in [step.edit.words or step.words]
    ]


def view_edits(recipe: Recipe, asked: str) -> tuple[str, tuple[EditStep, ...]]:
    """The name of a text view, and the edits that make it of the raw text. `asked`: a name, or `published`: the text
    that the run publishes.

    Raises InputError where the recipe makes no such view, or by steps that only a run can replay.
    """
    made: dict[str, tuple[EditStep, ...] | None] = {RAW: ()}
    for step, view in views(recipe):
        if (edit := view_made(step.value)) is not None:
            before, after = made[view], edit if view == RAW else f"{view}+{edit}"
            if before is not None and isinstance(step.value, EditStep):
                made[after] = (*before, step.value)
            else:
                made[after] = None
    name = list(made)[-1] if asked == PUBLISHED else asked
    if name not in made:
        raise InputError(f"--view {asked}: the run has {', '.join(made)}; `{PUBLISHED}` is the last of them.")
    if (edits := made[name]) is None:
        raise InputError(
            f"--view {asked}: {name} is made by a step that only a run can replay (`lines`, or a datatrove filter that "
            "rewrites). Take --view raw, or another view of the run."
        )
    return name, edits


def documents_of(
    run: Store, entry: FileEntry, edits: Sequence[EditStep], lexicon: Lexicon
) -> Iterator[tuple[list[bytes], list[str]]]:
    """(keys, texts of the view) of a part of `text/` in the order of its rows, `BATCH` at a time; a document without a
    text has an empty one. Raises VerifyFailed where the part cannot be read.
    """
    for batch in batches_of(run, entry, ["key", "text"]):
        yield batch.column("key").to_pylist(), edited(texts_in(batch), edits, lexicon)


def batches_of(run: Store, entry: FileEntry, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Columns of a part of a run, `BATCH` rows at a time. Raises VerifyFailed where it cannot be read."""
    with (
        readable(Part(store=run, entry=entry)),
        run.open(entry.path, entry.bytes) as raw,
        pq.ParquetFile(raw) as file,
    ):
        yield from file.iter_batches(batch_size=BATCH, columns=columns, use_threads=False)


def texts_in(batch: pa.RecordBatch) -> list[str]:
    """The texts of a batch, empty where there is none."""
    return [text or "" for text in batch.column("text").to_pylist()]


def edited(texts: list[str], edits: Sequence[EditStep], lexicon: Lexicon) -> list[str]:
    """The texts after these edits, one after the other."""
    for step in edits:
        words = words_by_name(step.edit.words or step.words)
        texts = list(step.edit.apply(TextBatch(texts, lexicon.vocabulary(words))).texts)
    return texts


def perform_tokenizer(task: TokenizerTask, report: Report) -> Manifest:
    """Train on the sample, part by part."""
    from proxy_eval.tokenizer import train_tokenizer

    below = int(task.share * 2**64)
    seen = 0

    def sample() -> Iterator[str]:
        nonlocal seen
        lexicon = Lexicon()
        for entry in task.text:
            for keys, texts in documents_of(task.run, entry, task.edits, lexicon):
                chosen = [text for key, text in zip(keys, texts, strict=True) if int.from_bytes(key[:8], "big") < below]
                seen += len(chosen)
                yield from filter(None, chosen)
            report(task.id, Accounts())

    made = train_tokenizer(sample(), task.vocabulary)
    with task.store.attempt(task.id) as attempt:
        path = attempt.folder / "tokenizer.json"
        path.write_bytes(made.json)
        failpoint("attempt.written")
        entry = file_entry(task.store, attempt, path, made.vocabulary)
    return Manifest(stage=TOKENIZER, task=task.id, says={"documents": seen}, files={TOKENIZER: entry})


def perform_tokens(task: TokensTask, report: Report) -> Manifest:
    """Tokenise one part."""
    from proxy_eval.pool import document_file, token_file, write_part

    def documents() -> Iterator[tuple[list[bytes], list[str]]]:
        for batch in documents_of(task.run, task.text, task.edits, Lexicon()):
            yield batch
            report(task.id, Accounts())

    tokenizer = held_tokenizer(task.store, task.tokenizer, task.end)
    with task.store.attempt(task.id) as attempt:
        facts = write_part(attempt.folder, task.number, tokenizer, documents())
        failpoint("attempt.written")
        files = {}
        for kind, name in zip(KINDS, (token_file(task.number), document_file(task.number)), strict=True):
            path = (attempt.folder / name).rename(attempt.folder / Path(name).name)
            files[kind] = file_entry(task.store, attempt, path, facts.documents)
    return Manifest(stage=TOKENS, task=task.id, says=asdict(facts), files=files)


_held: dict[str, Tokenizer] = {}


def held_tokenizer(store: Store, entry: FileEntry, end: int) -> Tokenizer:
    """A stored tokenizer, kept in this process from task to task."""
    from proxy_eval.tokenizer import tokenizer_of

    if entry.sha256 not in _held:
        _held.clear()
        _held[entry.sha256] = tokenizer_of(store.read(entry.path), end=end)
    return _held[entry.sha256]
