"""A task whose input changes while it works commits nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from filters.errors import InputChanged
from infra import work
from infra.commands import retry_quarantined, run_recipe
from infra.commit import committed
from infra.local_store import LocalStore
from infra.perform import perform
from infra.work import CUT, RETRY, CutTask
from pipelines.recipe import load_recipe
from pipelines.sources import find_sources

WriteWarc = Callable[[str, list[bytes]], Path]


def changed_by(path: Path, call: Callable[..., object]) -> Callable[..., object]:
    """The call; when it is done, somebody has touched the file."""

    def touched(*given: object, **named: object) -> object:
        made = call(*given, **named)
        os.utime(path, ns=(1, 1))
        return made

    return touched


def test_a_file_that_changes_while_it_is_cut_is_not_cut(
    write_warc: WriteWarc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_warc("pages.warc.gz", [b"<p>one", b"<p>two"])
    (source,) = find_sources([str(path)])
    store = LocalStore(tmp_path / "out")
    monkeypatch.setattr(work, "record_starts", changed_by(path, work.record_starts))
    with pytest.raises(InputChanged, match=r"pages\.warc\.gz has changed"):
        perform(CutTask(store=store, source=source, task_bytes=1), lambda _, __: None)
    assert committed(store, CUT) == set()


def test_a_file_that_changes_while_it_is_retried_is_not_retried(
    write_warc: WriteWarc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_warc("deep.warc.gz", [b"<html><body>" + b"<div>" * 100_000 + b"deep"])
    out = tmp_path / "out"
    made = run_recipe(load_recipe("fineweb-resiliparse"), [str(path)], out, runner="inprocess", quiet=True)
    assert sum(made.accounts.quarantined.values()) == 1
    monkeypatch.setattr(work, "reprocess", changed_by(path, work.reprocess))
    with pytest.raises(InputChanged, match=r"deep\.warc\.gz has changed"):
        retry_quarantined(out, deadline_seconds=5.0, memory_bytes=2 << 30, runner="inprocess", workers=None, quiet=True)
    assert committed(LocalStore(out), RETRY) == set()
