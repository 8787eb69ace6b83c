"""Which learning rate tells arms apart best at a size and budget: a known effect over the noise of seeds, not the loss.

In the arm `all` a hash sample of the documents has its tokens shuffled within each document; the arm `clean` is the
same without these documents. Both are trained at several learning rates and seeds, paired by seed, and compared on
held-out text. At 1.4M weights and 1M tokens the best loss is at 2e-3, where the spread over seeds swamps the effect,
and the best verdict at 1e-3 (docs/proxy.md). A calibration speaks for one schedule; under `wsd` a model is trained to
the step as an arm of an experiment is. What is found lies in the pool, where `ablate` and `train` look for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import stats

from infra.pool_files import kept_mask, local_pool, read_said
from infra.scores import Scored
from infra.scratch import scratch
from infra.stored import Store
from infra.training import calibration_name, training_of
from infra.training_work import Reads, Trial
from pipelines.cache import cache_folder
from proxy_eval.effects import ENDPOINTS
from proxy_eval.pool import Pool, read_pool
from proxy_eval.stream import random_mask
from proxy_eval.tokenizer import decode

if TYPE_CHECKING:
    from proxy_eval.steps import Training

Kind = Literal["wsd", "cosine"]
ALL, CLEAN = "all", "clean"
SHUFFLED_SHARE = 0.1
"""Of the documents: a rule that removes them does what a good rule does, and as much of it."""
HELD_OUT_BYTES = 500_000
HELD_OUT_SHARE = 0.1
"""Where no panel is given, so many bytes of the pool are one, and never more than this share of it."""
AROUND = (0.25, 0.5, 1.0, 2.0)
CONFIDENCE = 0.95
"""One-sided, that the clean arm is better at a rate."""
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What one learning rate gave. `all` and `clean` are macro bits per byte by seed, None for a model that diverged:
    its loss or gradient was not finite.

    effect: mean over seeds of clean minus all, less is better; standard_error: of that mean, over seeds; snr: their
    ratio without its sign; spread: standard deviation of `all` over seeds. None where fewer than two seeds say so.
    """

    learning_rate: float
    all: tuple[float | None, ...]
    clean: tuple[float | None, ...]
    effect: float | None
    standard_error: float | None
    snr: float | None
    spread: float | None

    @property
    def runs(self) -> tuple[float | None, ...]:
        """Of both arms."""
        return *self.all, *self.clean

    @property
    def diverged(self) -> int:
        """How many of the runs."""
        return sum(bits is None for bits in self.runs)

    @property
    def tells(self) -> bool:
        """Whether every run is whole and the clean arm is better with more than CONFIDENCE."""
        if self.diverged or self.snr is None or self.effect is None:
            return False
        return self.effect < 0 and self.snr > needed(len(self.all))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A sweep under one schedule, and the learning rate that it speaks for: of the largest SNR among those at which no
    run diverged and the clean arm is better with more than 95 % confidence (one-sided t over seeds); None where there
    is none such.
    """

    size: str
    tokens: int
    schedule: Kind
    pool_sha256: str
    panel_sha256: str
    seeds: tuple[int, ...]
    rates: tuple[Rate, ...]
    learning_rate: float | None


def sweep(
    store: Store,
    pool: str,
    *,
    size: str,
    tokens: int,
    rates: Sequence[float],
    seeds: Sequence[int],
    held_out: bool,
    schedule: Kind = "wsd",
) -> list[Trial]:
    """The trials of a sweep; their masks are put into the store. No `rates`: those of AROUND, times the rule's.
    `held_out`: the arms leave out the pool's own panel.
    """
    opened = read_pool(local_pool(pool))
    training, rate = training_under(schedule, read_said(pool), size=size, tokens=tokens)
    read = random_mask(opened, held_share(opened), "panel") if held_out else np.ones(len(opened), np.bool_)
    sound = random_mask(opened, SHUFFLED_SHARE, "shuffled")
    shuffled = kept_mask(store, ~sound)
    arms = {
        ALL: Reads(pool=pool, pool_sha256=opened.sha256, mask=kept_mask(store, read), shuffled=shuffled),
        CLEAN: Reads(pool=pool, pool_sha256=opened.sha256, mask=kept_mask(store, read & sound)),
    }
    return [
        Trial(
            arm=arm,
            sources=(source,),
            size=size,
            training=training,
            seed=seed,
            learning_rate=rate,
        )
        for rate in rates or [round_to(factor * rate) for factor in AROUND]
        for arm, source in arms.items()
        for seed in seeds
    ]


def training_under(schedule: Kind, said: Mapping[str, Any], *, size: str, tokens: int) -> tuple[Training, float]:
    """How a model is trained for a budget on a pool of which pool.json says this, and its learning rate by the rule.

    `cosine`: as `gristmill train` does for one budget. `wsd`: as an arm of an experiment is, on the schedule of a
    control with endpoints at ENDPOINTS times the budget: its warm-up is that of the smallest.
    """
    if schedule == "cosine":
        return training_of(said, size=size, tokens=[tokens], context=None)
    control, rate = training_of(said, size=size, tokens=[round(share * tokens) for share in ENDPOINTS], context=None)
    return replace(control, tokens=tokens, endpoints=()), rate


def round_to(rate: float) -> float:
    """Two digits of a learning rate are enough to name it."""
    return float(f"{rate:.2g}")


def held_share(pool: Pool) -> float:
    """The share of the documents that are the pool's own panel."""
    return min(HELD_OUT_SHARE, HELD_OUT_BYTES / max(1, int(pool.bytes.sum())))


def own_panel(pool: str) -> Path:
    """A panel of one domain, the documents of the pool that a sweep leaves out, in the user's cache; made once."""
    from proxy_eval.panel import Source, build_panel

    opened = read_pool(local_pool(pool))
    folder = cache_folder() / "panels" / opened.sha256
    if (folder / "panel.json").is_file():
        return folder
    chosen = np.flatnonzero(~random_mask(opened, held_share(opened), "panel") & (opened.counts > 0))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch("panel-", folder.parent) as coming:
        texts = coming / "pool.jsonl"
        with texts.open("w", encoding="utf-8") as file:
            for at in chosen.tolist():
                said = {"id": f"{opened.keys[at]:016x}", "text": decode(opened.tokenizer, opened.tokens(at))}
                file.write(json.dumps(said) + "\n")
        build_panel(
            coming / "panel",
            [Source(name="pool", files=(texts,), licence="that of the pool")],
            salt="calibration",
            size=None,
        )
        (coming / "panel").rename(folder)
    return folder


def calibration_of(
    scored: Sequence[Scored], *, size: str, tokens: int, seeds: Sequence[int], schedule: Kind
) -> Calibration:
    """What the scores of a sweep say."""
    bits = {
        (said["arm"], said["learning_rate"], said["seed"]): whole_bits(one)
        for one in scored
        for said in [one.model.said]
    }
    found = tuple(
        rate_of(rate, [bits[ALL, rate, seed] for seed in seeds], [bits[CLEAN, rate, seed] for seed in seeds])
        for rate in sorted({rate for _, rate, _ in bits})
    )
    clearest = max((one for one in found if one.tells), key=lambda one: one.snr or 0.0, default=None)
    return Calibration(
        size=size,
        tokens=tokens,
        schedule=schedule,
        pool_sha256=scored[0].model.said["sources"][0]["pool_sha256"],
        panel_sha256=scored[0].said["panel"]["sha256"],
        seeds=tuple(seeds),
        rates=found,
        learning_rate=None if clearest is None else clearest.learning_rate,
    )


def whole_bits(one: Scored) -> float | None:
    """Macro bits per byte of a model; None of one that diverged, whose score is that of its last finite weights."""
    return one.said["panel"]["macro"] if one.model.said["stopped"] is None else None


def needed(seeds: int) -> float:
    """The SNR above which an effect is told from the noise: 6.3 of two seeds, 2.9 of three, 2.1 of five."""
    return float(stats.t.ppf(CONFIDENCE, seeds - 1))


def rate_of(rate: float, all_: Sequence[float | None], clean: Sequence[float | None]) -> Rate:
    """The figures of one rate, over the seeds of which both models are whole."""
    pairs = [(one, other) for one, other in zip(all_, clean, strict=True) if one is not None and other is not None]
    effects = np.array([other - one for one, other in pairs])
    several = len(pairs) > 1
    error = float(effects.std(ddof=1)) / math.sqrt(len(pairs)) if several else None
    effect = float(effects.mean()) if pairs else None
    return Rate(
        learning_rate=rate,
        all=tuple(all_),
        clean=tuple(clean),
        effect=effect,
        standard_error=error,
        snr=abs(effect) / error if effect is not None and error else None,
        spread=float(np.std([one for one, _ in pairs], ddof=1)) if several else None,
    )


def kept_calibration(store: Store, found: Calibration, page: str) -> None:
    """Store its page in the pool and, where it chose a rate, what `train` reads; else what it read before is gone."""
    name = calibration_name(found.size, found.tokens)
    store.replace(name.removesuffix(".json") + ".html", page.encode())
    if found.learning_rate is None:
        store.remove([name])
    else:
        store.replace(name, (json.dumps(calibration_json(found), indent=1) + "\n").encode())


def calibration_json(found: Calibration) -> Mapping[str, Any]:
    """A calibration as plain data."""
    return {"format": FORMAT, **asdict(found)}


def calibration_said(said: Mapping[str, Any]) -> Calibration:
    """The calibration of which this is the plain data. One that names no schedule is of a time that knew the cosine
    alone.
    """
    rates = tuple(Rate(**{**rate, "all": tuple(rate["all"]), "clean": tuple(rate["clean"])}) for rate in said["rates"])
    given = {name: value for name, value in said.items() if name != "format"}
    return Calibration(**{"schedule": "cosine", **given, "seeds": tuple(said["seeds"]), "rates": rates})
