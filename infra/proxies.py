"""What the commands on small models do, as functions: the command line and a notebook call the same."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filters.errors import InputError, OutputError
from infra.placement import placed
from infra.pool_files import check_extra, fetch
from infra.pool_work import batches_of, texts_in
from infra.processes import cores
from infra.run import Finished, read_run
from infra.scores import Scored, score_all
from infra.store import open_store
from infra.stored import usable
from infra.training import Model, Read, label_of, model_named, planned, read_models, readings, train_all
from infra.training_progress import TrainingProgress, sink_of
from infra.training_work import METRICS_FILE, PACKAGES

if TYPE_CHECKING:
    from infra.calibration import Calibration, Kind
    from proxy_eval.panel import Panel


def train_models(
    pool: str,
    out: str,
    *,
    masks: Sequence[str] = ("all",),
    size: str = "1M",
    tokens: Sequence[int] = (5_000_000,),
    seeds: Sequence[int] = (1,),
    rates: Sequence[float] = (),
    context: int | None = None,
    mix: Sequence[str] = (),
    device: str = "auto",
    stack: int | None = None,
    ranks: int = 1,
    workers: int | None = None,
    address: str | None = None,
    allow_unauthenticated: bool = False,
    task_seconds: float | None = None,
    log: str | None = None,
    take_over: bool = False,
    quiet: bool = False,
    on_reads: Callable[[Sequence[Read]], object] = len,
) -> list[Model]:
    """Train a model for each mask, seed, learning rate and budget, and return all, those trained before among them.

    `on_reads` is told what each arm reads before anything is trained. Raises InputError where a mask is none, or an
    arm would come round more than 4 times, and ResourceMissing where torch is absent.
    """
    check_extra(*PACKAGES)
    store = open_store(out)
    with store.locked(take_over=take_over):
        trials = planned(
            store,
            pool,
            masks=masks,
            size=size,
            tokens=tokens,
            seeds=seeds,
            rates=rates,
            context=context,
            mix=mix,
            workers=cores(),
        )
        on_reads(list(readings(store, trials)))
        labels = {trial.id: label_of(trial, trial.training.tokens) for trial in trials}
        config = {
            labels[trial.id]: {"arm": trial.arm, "size": size, "seed": trial.seed, "learning_rate": trial.learning_rate}
            for trial in trials
        }
        sink = None if log is None else sink_of(log, project="gristmill", folder=f"{out}/{log}", config=config)
        with TrainingProgress(sys.stderr, labels=labels, sink=sink, quiet=quiet) as progress:
            return train_all(
                store,
                trials,
                placement=partial(
                    placed,
                    device=device,
                    workers=workers,
                    stack=stack,
                    address=address,
                    allow_unauthenticated=allow_unauthenticated,
                    ranks=ranks,
                ),
                progress=progress,
                address=address,
                allow_unauthenticated=allow_unauthenticated,
                task_seconds=task_seconds,
            )


def score_models(
    out: str,
    *,
    panel: Path | None = None,
    tasks: Path | None = None,
    names: Sequence[str] = (),
    profile: Literal["fineweb", "lm_eval"] = "fineweb",
    pmi: bool = False,
    model: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    address: str | None = None,
    allow_unauthenticated: bool = False,
    take_over: bool = False,
    quiet: bool = False,
) -> list[Scored]:
    """Score every model of a folder, or the one whose label begins with `model`, and return their scores."""
    check_extra(*PACKAGES)
    store = open_store(out)
    models = read_models(store)
    models = models if model is None else [model_named(models, model)]
    with store.locked(take_over=take_over), TrainingProgress(sys.stderr, labels={}, quiet=quiet) as progress:
        return score_all(
            store,
            models,
            panel=panel,
            tasks=tasks,
            names=names,
            profile=profile,
            pmi=pmi,
            device=device,
            workers=workers,
            progress=progress,
            address=address,
            allow_unauthenticated=allow_unauthenticated,
        )


def export_model(out: str, to: Path, *, model: str | None = None) -> Model:
    """Copy a model of a folder into `to`, new or empty, as Hugging Face's `from_pretrained` reads it, and return it.

    Raises InputError where `model` names none or several, OutputError where `to` holds something.
    """
    store = open_store(out)
    found = model_named(read_models(store), model)
    if to.exists() and any(to.iterdir()):
        raise OutputError(f"{to}: not empty. Choose another folder for --to.")
    with usable(to):
        to.mkdir(parents=True, exist_ok=True)
        for name, entry in found.files.items():
            if name != METRICS_FILE:
                fetch(store, entry.path, entry.bytes, to / name)
    return found


def panel_of(
    to: Path,
    folder: Path | None,
    *,
    domains: Sequence[str] = (),
    licences: Sequence[str] = (),
    against: Sequence[str] = (),
    salt: str = "panel",
    share: float = 1.0,
    documents: int | None = None,
    size: int | None = 500_000,
    field: str = "text",
) -> Panel:
    """Build a panel into `to` from the folders in `folder` and from `domains` (each NAME=PATH, with NAME=LICENCE among
    `licences`), without what shares n-grams with the texts of the runs `against`.
    """
    from proxy_eval.panel import ENDINGS, Source, build_panel, sources_in

    stated = dict(named("--licence", one) for one in licences)
    sources = [] if folder is None else list(sources_in(folder))
    for name, path in (named("--domain", one) for one in domains):
        there = Path(path)
        files = [there] if there.is_file() else [one for one in sorted(there.rglob("*")) if one.name.endswith(ENDINGS)]
        if not files:
            raise InputError(f"--domain {name}={path}: no file of texts there ({', '.join(ENDINGS)})")
        sources.append(Source(name=name, files=tuple(files), licence=stated.get(name, "not stated")))
    if not sources:
        raise InputError("say what the panel is made of: a folder with a folder for each domain, or --domain NAME=PATH")
    sources = [replace(one, licence=stated.get(one.name, one.licence)) for one in sources]
    runs = [read_run(open_store(one)) for one in against]
    texts = (batch for made in runs for batch in texts_of(made)) if runs else None
    return build_panel(to, sources, salt=salt, share=share, documents=documents, size=size, field=field, against=texts)


def named(option: str, said: str) -> tuple[str, str]:
    """The two sides of NAME=VALUE. Raises InputError where there are none."""
    name, equals, value = said.partition("=")
    if not (name and equals and value):
        raise InputError(f"{option} {said}: write NAME=VALUE")
    return name, value


def texts_of(made: Finished) -> Iterator[list[str]]:
    """The texts of a run in batches: of every document where it kept them all (--annotate), else what it published."""
    for entry in made.files["text" if made.options.annotate else "dataset"]:
        yield from (texts_in(batch) for batch in batches_of(made.store, entry, ["text"]))


def calibrate(
    pool: str,
    *,
    size: str = "1M",
    tokens: int = 1_000_000,
    schedule: Kind = "wsd",
    rates: Sequence[float] = (),
    seeds: int = 3,
    panel: Path | None = None,
    device: str = "auto",
    stack: int | None = None,
    workers: int | None = None,
    address: str | None = None,
    allow_unauthenticated: bool = False,
    take_over: bool = False,
    quiet: bool = False,
) -> Calibration:
    """Sweep the learning rate of a size, budget and schedule on a pool, and store there which tells arms apart best, if
    any does, in the place of what was stored for that size and budget.

    Without a panel, documents that the pool holds out of the sweep are one.
    """
    check_extra(*PACKAGES)
    from infra.calibration import calibration_of, kept_calibration, own_panel, sweep
    from infra.calibration_page import calibration_page

    there = open_store(pool)
    store = open_store(f"{there.url}/calibrations/{size}-{tokens}")
    numbers = range(1, seeds + 1)
    with store.locked(take_over=take_over):
        trials = sweep(
            store,
            there.url,
            size=size,
            tokens=tokens,
            rates=rates,
            seeds=numbers,
            held_out=panel is None,
            schedule=schedule,
        )
        labels = {trial.id: label_of(trial, trial.training.tokens) for trial in trials}
        with TrainingProgress(sys.stderr, labels=labels, quiet=quiet) as progress:
            models = train_all(
                store,
                trials,
                placement=partial(
                    placed,
                    device=device,
                    workers=workers,
                    stack=stack,
                    address=address,
                    allow_unauthenticated=allow_unauthenticated,
                ),
                progress=progress,
                address=address,
                allow_unauthenticated=allow_unauthenticated,
            )
            scored = score_all(
                store,
                models,
                panel=own_panel(there.url) if panel is None else panel,
                tasks=None,
                device=device,
                progress=progress,
            )
    found = calibration_of(scored, size=size, tokens=tokens, seeds=numbers, schedule=schedule)
    kept_calibration(there, found, calibration_page(found))
    return found
