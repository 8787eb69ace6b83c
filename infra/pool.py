"""A pool: one text view of an annotated run as tokens, made once, in a store of its own.

POOL holds `tokens/part-NNNNN.bin`, `documents/part-NNNNN.parquet`, `tokenizer.json` and, written last and read first,
`pool.json` (proxy_eval/pool.py). Part k has the rows of part k of the run's `text/` and `signals/`, in their order, so
a mask from signals is a mask of the pool. Below `_work/` lie manifests and attempts as in a run's folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filters.errors import InputError, OutputError
from infra.annotated import stored_schema
from infra.commit import FileEntry, Manifest, committed
from infra.finish import finish_stage
from infra.pool_files import POOL_FILE, TOKENIZER_FILE, check_extra, holds
from infra.pool_work import KINDS, TOKENIZER, TOKENS, TokenizerTask, TokensTask, view_edits
from infra.progress import Progress
from infra.run import Finished, read_run
from infra.runner import Runner, make_runner
from infra.signal_rows import Part, groups
from infra.store import open_store
from infra.stored import Store
from infra.work import identity
from pipelines.recipe import EditStep

if TYPE_CHECKING:
    from proxy_eval.tokenizer import Tokenizer

SAMPLE_CHARACTERS = 64_000_000
"""That a tokenizer is trained on, at most: about a minute on one core."""
SAMPLE_PARTS = 64
"""That the sample is drawn from, spread evenly over the run: no task reads all of a large one."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A pool as it was just made: pool.json as data, and how many tasks were done for it now and before."""

    url: str
    said: Mapping[str, Any]
    done_now: int
    done_before: int


def make_pool(
    out: str | Path,
    to: str | Path,
    *,
    tokenizer: str | None = None,
    end: str | None = None,
    vocabulary: int = 8192,
    view: str = "published",
    workers: int | None = None,
    runner: str = "ray",
    address: str | None = None,
    allow_unauthenticated: bool = False,
    take_over: bool = False,
    quiet: bool = False,
) -> Made:
    """Tokenise a view of the annotated run in `out` into `to`; what `to` has from before is kept.

    `tokenizer`: a file, or `gpt2`; None: one of `vocabulary` tokens is trained. `end`: its token at the end of a text.
    Raises InputError where the run kept no texts, has no such view, or the tokenizer cannot be used.
    """
    check_extra("tokenizers")
    from proxy_eval.tokenizer import read_tokenizer, tokenizer_of

    store, made = open_store(to), read_run(open_store(out))
    stored_schema(made)
    name, edits = view_edits(made.recipe, view)
    given = None if tokenizer is None else read_tokenizer(tokenizer, end=end)
    with (
        Progress(sys.stderr, quiet=quiet) as progress,
        store.locked(take_over=take_over),
        make_runner(runner, workers, address=address, allow_unauthenticated=allow_unauthenticated) as started,
    ):
        entry = trained(store, made, edits, vocabulary, started, progress) if given is None else kept(store, given)
        chosen = given or tokenizer_of(store.read(entry.path))
        tasks = [
            TokensTask(
                store=store, run=made.store, text=text, number=number, edits=edits, tokenizer=entry, end=chosen.end
            )
            for number, text in enumerate(made.files["text"])
        ]
        before = len({task.id for task in tasks} & committed(store, TOKENS))
        found = finish_stage(store, TOKENS, tasks, len(tasks), started, report=progress.report, on_stage=progress.stage)
        origin = {
            "run": made.store.url,
            "texts_sha256": texts_sha256(made),
            "recipe": made.recipe.name,
            "recipe_sha256": made.recipe.sha256,
            "view": name,
        }
        said = publish(store, chosen, [found[task.id] for task in tasks], origin)
    return Made(url=store.url, said=said, done_now=len(tasks) - before, done_before=before)


def kept(store: Store, given: Tokenizer) -> FileEntry:
    """The entry of a tokenizer that was given, in the store under its hash."""
    name = f"_work/tokenizers/{given.sha256}.json"
    store.create(name, given.json)
    return FileEntry(path=name, sha256=given.sha256, bytes=len(given.json), rows=0)


def trained(
    store: Store, made: Finished, edits: Sequence[EditStep], vocabulary: int, runner: Runner, progress: Progress
) -> FileEntry:
    """The entry of a tokenizer trained on a hash sample of the run, in a task of its own."""
    count = len(made.files["text"])
    chosen = sorted({at * count // min(count, SAMPLE_PARTS) for at in range(min(count, SAMPLE_PARTS))})
    characters = sum(
        int(table.column("characters").fill_null(0).to_numpy().sum(dtype="int64"))
        for at in chosen
        for table in groups(Part(store=made.store, entry=made.files["signals"][at]), ["characters"])
    )
    task = TokenizerTask(
        store=store,
        run=made.store,
        text=tuple(made.files["text"][at] for at in chosen),
        edits=tuple(edits),
        vocabulary=vocabulary,
        share=min(1.0, SAMPLE_CHARACTERS / max(1, characters)),
    )
    found = finish_stage(store, TOKENIZER, [task], 1, runner, report=progress.report, on_stage=progress.stage)
    return found[task.id].files[TOKENIZER]


def publish(store: Store, tokenizer: Tokenizer, parts: Sequence[Manifest], origin: Mapping[str, Any]) -> dict[str, Any]:
    """Show the files under their names, then write pool.json and return it as data; what is there is not touched."""
    from proxy_eval.pool import PartFacts, pool_json

    data = pool_json(tokenizer, [PartFacts(**manifest.says) for manifest in parts], origin)
    said: dict[str, Any] = json.loads(data)
    if not holds(store, POOL_FILE, data):
        store.remove([POOL_FILE])
        for kind in KINDS:
            pairs = [(one.files[kind].path, Path(one.files[kind].path).name) for one in parts]
            store.show(kind, pairs)
            names = {f"{kind}/{short}" for _, short in pairs}
            store.remove([one.name for one in store.listed(kind, "part-") if one.name not in names])
        store.replace(TOKENIZER_FILE, tokenizer.json)
        store.replace(POOL_FILE, data)
    return said


def texts_sha256(made: Finished) -> str:
    """Hash of the texts of a run, part by part: what a pool's rows are the rows of."""
    return identity([entry.sha256 for entry in made.files["text"]])


def run_of(url: str, said: Mapping[str, Any]) -> Finished:
    """The run that a pool was made of. Raises InputError where it is not there, or has other texts now."""
    where = said["origin"]["run"]
    again = f"Where it lies elsewhere now, `gristmill pool OUT --out {url}` notes that, and tokenises nothing anew."
    try:
        made = read_run(open_store(where))
    except OutputError as error:
        raise InputError(
            f"{url} was made of the run in {where}, whose signals give the masks. {error} {again}"
        ) from error
    if not made.options.annotate or texts_sha256(made) != said["origin"]["texts_sha256"]:
        raise InputError(f"{url} was made of other texts than {where} has now. {again}")
    return made
