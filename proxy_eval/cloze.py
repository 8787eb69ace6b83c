"""Cloze tasks scored: the log-likelihood of every choice of every item, all metrics of an item, and their means.

Tokens of context and continuation are split as in lm-evaluation-harness: white space at the end of a context moves to
the continuation, and what `encode(context + continuation)` has beyond `encode(context)` is the continuation. A context
that is empty is the end-of-text token. What is longer than the model's context loses its beginning; a continuation that
alone is longer is scored in windows (`proxy_eval.score`), where the harness gives up. No special tokens are added. All
items, never some.

An item has K choices; choice k has log-likelihood l_k in nats, n_k characters and b_k UTF-8 bytes, without the space
before it; g is the right one. The metrics are those of OLMES and DataDecide (arXiv:2406.08446, arXiv:2504.11393,
section 2), of DCLM's CORE (arXiv:2406.11794) and of lm-evaluation-harness; argmax takes the first of equals, as there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from filters.errors import InputError
from proxy_eval.llama import Shape, Weights
from proxy_eval.score import Bools, Estimate, Floats, Ints, Sequences, Tokens, ranges, score_sequences
from proxy_eval.tasks import Items
from proxy_eval.tokenizer import Tokenizer, encode

METRICS: Mapping[str, str] = {
    "acc": "argmax of l_k is g; of a single choice: each of its tokens is the likeliest (LAMBADA)",
    "acc_norm": "argmax of l_k / n_k is g",
    "acc_pmi": "argmax of l_k - log p(choice after 'Answer:') is g",
    "bits_per_byte": "-l_g / (b_g ln 2): less is better",
    "correct_prob": "exp(l_g / n_g)",
    "total_prob": "sum of exp(l_k / n_k): fluency, which does not tell right from wrong",
    "norm_correct_prob": "exp(l_g / n_g) / sum of exp(l_k / n_k)",
    "margin": "exp(l_g / n_g) - the largest exp(l_k / n_k) of the others",
    "soft_log": "log of the softmax of l_k at g",
    "centred": "(acc - r) / (1 - r), r = 1 / K: 0 is chance",
}
"""Every metric of an item. All but acc, bits_per_byte, correct_prob and centred need at least two choices."""

LOWER_IS_BETTER = frozenset({"bits_per_byte"})

_UNCONDITIONAL = "Answer:"

FINEWEB_TASKS = ("commonsense_qa", "hellaswag", "openbookqa", "piqa", "social_iqa", "winogrande", "arc", "mmlu")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """What a stack of A models makes of the items of a task.

    loglikelihoods: nats [A, choices]. greedy [A, choices]: whether each token was the likeliest. unconditional: the
    log-likelihoods after "Answer:" alone, None where they were not asked for.
    """

    items: Items
    loglikelihoods: Floats
    greedy: Bools
    unconditional: Floats | None


def score_items(
    weights: Weights,
    shape: Shape,
    tokenizer: Tokenizer,
    items: Items,
    *,
    pmi: bool = False,
    autocast: torch.dtype | None = None,
    batch_tokens: int | None = None,
) -> Scored:
    """Return the log-likelihood of each choice of each item under each model of the stack. `pmi`: one more pass."""

    def scored(contexts: Sequence[str], continuations: Sequence[str], item: Ints | None) -> tuple[Floats, Bools]:
        sequences = split_tokens(tokenizer, contexts, continuations, item)
        return score_sequences(weights, shape, sequences, autocast=autocast, batch_tokens=batch_tokens)

    item = np.repeat(np.arange(len(items.gold)), np.diff(items.offsets))
    nats, greedy = scored(items.contexts, [items.delimiter + answer for answer in items.answers], item)
    unconditional = None
    if pmi:
        unconditional = -scored(
            [_UNCONDITIONAL] * len(items.answers), [f" {answer}" for answer in items.answers], None
        )[0]
    return Scored(items=items, loglikelihoods=-nats, greedy=greedy, unconditional=unconditional)


def split_tokens(
    tokenizer: Tokenizer, contexts: Sequence[str], continuations: Sequence[str], item: Ints | None = None
) -> Sequences:
    """Return each context with its continuation as tokens; those of the continuation are scored.

    Neighbours of one item (None: there are no items) and one context share it.
    """
    stripped = [context.rstrip() for context in contexts]
    moved = [
        context[len(bare) :] + continuation
        for context, bare, continuation in zip(contexts, stripped, continuations, strict=True)
    ]
    distinct = {context: number for number, context in enumerate(dict.fromkeys(stripped))}
    tokens, lengths = encode(tokenizer, list(distinct))
    whole, whole_lengths = encode(tokenizer, [bare + rest for bare, rest in zip(stripped, moved, strict=True)])
    which = np.array([distinct[context] for context in stripped], np.int64)
    before = lengths[which]
    counted = whole_lengths - before
    if len(counted) and counted.min() <= 0:
        at = int(counted.argmin())
        raise InputError(
            f"the answer {continuations[at]!r} has no token of its own after {contexts[at][-60:]!r}: this tokenizer "
            "joins it with the context; such an item cannot be scored, leave it out"
        )
    everything: Tokens = np.concatenate([tokens, whole, np.array([tokenizer.end], tokens.dtype)])
    empty = before == 0  # after the end-of-text token
    starts = np.where(empty, len(everything) - 1, (np.cumsum(lengths) - lengths)[which])
    tails = len(tokens) + np.cumsum(whole_lengths) - counted
    spans = np.stack([starts, tails], axis=1).ravel(), np.stack([np.where(empty, 1, before), counted], axis=1).ravel()
    return Sequences(
        tokens=everything[ranges(*spans)],
        offsets=np.cumsum(np.concatenate([[0], np.where(empty, 1, before) + counted])),
        counted=counted,
        shared=None
        if item is None
        else np.cumsum((np.diff(which, prepend=-1) != 0) | (np.diff(item, prepend=-1) != 0)),
    )


def metrics_of(scored: Scored) -> dict[str, Floats]:
    """Return every metric of METRICS as [A, items]; NaN where an item does not have it."""
    items = scored.items
    choices = np.diff(items.offsets)
    characters, sizes = answer_sizes(items)
    each = np.arange(len(choices))
    likelihoods = _padded(scored.loglikelihoods, items.offsets, -np.inf)
    lengths = _padded(characters[None].astype(float), items.offsets, 1.0)
    per_character = likelihoods / lengths
    probability = np.exp(per_character)
    gold = likelihoods[:, each, items.gold]
    correct = probability[:, each, items.gold]
    others = probability.copy()
    others[:, each, items.gold] = -np.inf
    several = choices > 1
    first = scored.greedy[:, items.offsets[:-1]]
    acc = np.where(several, likelihoods.argmax(2) == items.gold, first).astype(float)
    chance = np.where(several, 1 / choices, 0.0)
    found = {
        "acc": acc,
        "acc_norm": (per_character.argmax(2) == items.gold).astype(float),
        "acc_pmi": np.full_like(acc, np.nan),
        "bits_per_byte": -gold / (sizes[items.offsets[:-1] + items.gold] * math.log(2)),
        "correct_prob": correct,
        "total_prob": probability.sum(2),
        "norm_correct_prob": correct / probability.sum(2),
        "margin": correct - others.max(2),
        "soft_log": gold - np.logaddexp.reduce(likelihoods, axis=2),
        "centred": (acc - chance) / (1 - chance),
    }
    if scored.unconditional is not None:
        gain = _padded(scored.loglikelihoods - scored.unconditional, items.offsets, -np.inf)
        found["acc_pmi"] = (gain.argmax(2) == items.gold).astype(float)
    for name in ("acc_norm", "acc_pmi", "total_prob", "norm_correct_prob", "margin", "soft_log"):
        found[name] = np.where(several, found[name], np.nan)
    return found


def answer_sizes(items: Items) -> tuple[Ints, Ints]:
    """Return characters and UTF-8 bytes of each choice, [choices], without the delimiter before it."""
    sizes = [(len(answer), len(answer.encode())) for answer in items.answers]
    characters, bytes_ = np.array(sizes, np.int64).reshape(-1, 2).T
    return characters, bytes_


def item_table(scored: Scored, arms: Sequence[str]) -> pa.Table:
    """Return a row for each arm and item: what its choices got, their lengths, and every metric (null: it has none).

    Columns: arm, task, item, subject, gold, loglikelihoods and unconditional (nats), characters, bytes (a list each, of
    a number for each choice), greedy (a list), then METRICS.
    """
    items, repeats = scored.items, len(arms)
    count, characters_bytes = len(items.gold), answer_sizes(items)

    def lists(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> pa.Array:
        offsets = np.concatenate([[0], *(items.offsets[1:] + arm * items.offsets[-1] for arm in range(repeats))])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values.ravel()))

    columns = {
        "arm": pa.array(np.repeat(np.array(arms, object), count), pa.string()),
        "task": pa.array([items.task] * (repeats * count), pa.string()),
        "item": pa.array(items.ids * repeats, pa.string()),
        "subject": pa.array([subject or None for subject in items.subjects] * repeats, pa.string()),
        "gold": np.tile(items.gold, repeats),
        "loglikelihoods": lists(scored.loglikelihoods),
        "unconditional": pa.nulls(repeats * count, pa.list_(pa.float64()))
        if scored.unconditional is None
        else lists(scored.unconditional),
        "characters": lists(np.tile(characters_bytes[0], repeats)),
        "bytes": lists(np.tile(characters_bytes[1], repeats)),
        "greedy": lists(scored.greedy),
    }
    for name, values in metrics_of(scored).items():
        columns[name] = pa.array(values.ravel(), mask=np.isnan(values.ravel()))
    return pa.table(columns)


def mean_over_items(values: Floats, subjects: Sequence[str]) -> Estimate:
    """Return the mean [A] of values [A, items] and its standard error over items; NaN where no item has a value.

    Items of one subject (other than "") are not independent: the error is clustered by subject (Miller,
    arXiv:2411.00640, section 2.2). With a single subject, or a single item, it is NaN.
    """
    held = ~np.isnan(values[0])
    values = values[:, held]
    count = values.shape[1]
    if not count:
        return Estimate(np.full(len(values), np.nan), np.full(len(values), np.nan))
    mean = values.mean(axis=1)
    names = [subject for subject, kept in zip(subjects, held, strict=True) if kept]
    groups = np.unique(names, return_inverse=True)[1] if any(names) else np.arange(count)
    clusters = int(groups.max()) + 1
    sums = np.stack([np.bincount(groups, row) for row in values - mean[:, None]])
    if clusters < 2:
        return Estimate(mean, np.full(len(values), np.nan))
    return Estimate(mean, np.sqrt((sums**2).sum(axis=1) * clusters / (clusters - 1)) / count)


def summary_table(scored: Sequence[Scored], arms: Sequence[str]) -> pa.Table:
    """Return a row for each arm, task and metric that has a value: mean, standard_error (null: unknown), items.

    A task whose items have subjects has rows for each of them besides (`subject`; null: all of them).
    """
    rows: list[tuple[str, str, str | None, str, float, float, int]] = []
    for one in scored:
        subjects = np.array(one.items.subjects)
        for metric, values in metrics_of(one).items():
            for subject in (None, *(sorted(set(one.items.subjects)) if any(one.items.subjects) else ())):
                kept = np.ones(len(subjects), np.bool_) if subject is None else subjects == subject
                within = list(subjects[kept]) if subject is None else [""] * int(kept.sum())
                mean, error = mean_over_items(values[:, kept], within)
                items = int((~np.isnan(values[0, kept])).sum())
                rows += [
                    (arm, one.items.task, subject, metric, float(mean[at]), float(error[at]), items)
                    for at, arm in enumerate(arms)
                    if items
                ]
    names = ("arm", "task", "subject", "metric", "mean", "standard_error", "items")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    return pa.table({**columns, "standard_error": pa.array(columns["standard_error"], from_pandas=True)})


def fineweb_aggregate(scored: Sequence[Scored], metric: str = "acc_norm") -> Floats:
    """Return FineWeb's aggregate [A]: the mean over eight tasks, ARC being the mean of its two sets and MMLU that of
    its subjects.

    Raises InputError where one of them was not scored.
    """
    means: dict[str, Floats] = {}
    for one in scored:
        values, subjects = metrics_of(one)[metric], np.array(one.items.subjects)
        groups = [values[:, subjects == subject].mean(axis=1) for subject in sorted(set(one.items.subjects))]
        means[one.items.task] = np.stack(groups).mean(axis=0)
    if "arc_easy" in means and "arc_challenge" in means:
        means["arc"] = (means["arc_easy"] + means["arc_challenge"]) / 2
    absent = [task for task in FINEWEB_TASKS if task not in means]
    if absent:
        raise InputError(f"FineWeb's aggregate is over {', '.join(FINEWEB_TASKS)}; {absent[0]} was not scored")
    aggregate: Floats = np.stack([means[task] for task in FINEWEB_TASKS]).mean(axis=0)
    return aggregate


def _padded(values: Floats, offsets: Ints, filling: float) -> Floats:
    """Return values [A, choices] as [A, items, most choices]."""
    choices = np.diff(offsets)
    places = np.arange(choices.max()) < choices[:, None]
    padded = np.full((len(values), *places.shape), filling)
    padded[:, places] = values
    return padded
