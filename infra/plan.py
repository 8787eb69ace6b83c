"""From inputs to tasks: what will be read, cut how, and what is already done."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filters.errors import InputError
from infra.stored import Store
from infra.work import ProcessTask
from pipelines.dedup.lines import Lines
from pipelines.process import TaskOptions
from pipelines.read import ReadOptions, read_slice
from pipelines.record import Page, Refused, Slice, Source
from pipelines.sources import cut, find_sources
from pipelines.storage import local_path

TASK_BYTES = 256 << 20

Starts = Callable[[Sequence[Source]], Mapping[str, Sequence[int]]]
"""Takes the files that are too large for one task and gives, by path, where records begin in them."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The inputs in order and the tasks over them; tasks are in the order of the dataset."""

    sources: tuple[Source, ...]
    tasks: tuple[ProcessTask, ...]

    @property
    def input_bytes(self) -> int:
        """Bytes that the tasks read."""
        return sum(one.end - one.start for task in self.tasks for one in task.slices)


def make_plan(
    inputs: Sequence[str],
    store: Store,
    options: TaskOptions,
    *,
    task_bytes: int = TASK_BYTES,
    limit: int | None = None,
    relative_to: Path | None = None,
    anonymous: bool = False,
    starts: Starts | None = None,
) -> Plan:
    """Return the plan for these inputs: with `limit`, for the first that many documents of them only.

    `starts` finds where files larger than `task_bytes` may be cut; by default they are walked here, one by one. Where
    the recipe has a `lines` step no file is cut: what a document loses depends on those before it in its file. Raises
    InputError where nothing is found.
    """
    # What a run wrote is no input of it, not even where --out lies in an input folder.
    ours = place(store.url) + "/"
    found_sources = find_sources(inputs, relative_to=relative_to, anonymous=anonymous)
    sources = [one for one in found_sources if not place(one.url).startswith(ours)]
    if not sources:
        raise InputError("no input. Give --input a file, a folder, a glob, a list of paths (*.paths.gz) or a URL.")
    if options.recipe.step(Lines) is not None:
        cuts = cut(sources, task_bytes, whole)
    elif starts is None:
        cuts = cut(sources, task_bytes)
    else:
        found = starts([source for source in sources if source.size > task_bytes])
        cuts = cut(sources, task_bytes, lambda source: found[source.path])
    if limit is not None:
        cuts = limited(cuts, limit, options.recipe.read.options())
    tasks = tuple(ProcessTask(store=store, slices=slices, options=options) for slices in cuts)
    return Plan(sources=tuple(sources), tasks=tasks)


def whole(source: Source) -> tuple[int, ...]:
    """Where a file is cut that must not be: nowhere."""
    return ()


def place(url: str) -> str:
    """One spelling for all of a file's: local paths without links, URLs of one store under one protocol."""
    if (local := local_path(url)) is not None:
        return str(local.resolve())
    protocol, _, rest = url.partition("://")
    folded = re.sub(r"/{2,}", "/", rest.split("@", 1)[0] if protocol.startswith("abfs") else rest).strip("/")
    return f"{SAME_STORE.get(protocol, protocol)}://{folded}"


SAME_STORE = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}


def limited(cuts: Sequence[tuple[Slice, ...]], limit: int, options: ReadOptions) -> list[tuple[Slice, ...]]:
    """The cuts up to and with the document number `limit`, in the order of the input. Reads that far."""
    short: list[tuple[Slice, ...]] = []
    left = limit
    for slices in cuts:
        taken: list[Slice] = []
        for one in slices:
            if left <= 0:
                break
            end = one.start
            for event in read_slice(one, options):
                if isinstance(event, Page | Refused):
                    if left <= 0 and event.length:
                        end = event.position.offset
                        break
                    left -= 1
            else:
                end = one.end
            taken.append(replace(one, end=end))
        if taken:
            short.append(tuple(taken))
    return short
