"""Log-likelihoods of token sequences under a stack of models, and bits per byte of a panel.

A sequence longer than the context is read in windows exactly as lm-evaluation-harness does (`loglikelihood_rolling`
with one token of context, `get_rolling_token_windows` and `make_disjoint_window`): the targets are cut into runs of one
context length, each run is predicted in one pass that reaches back as far as the context allows and one token at least.
A document of a panel begins with the end-of-text token, which is context for the first of its tokens and in no sum,
neither of nats nor of bytes.

Sequences that share a beginning (the choices of an item) are one row: the beginning is read once, and each sees it and
itself alone. All arms of a stack are scored in one pass over the same rows. Rows go in order of length, so that little
is padded; padding lies after a row, where causal attention never looks. Memory: the activations of `batch_tokens`
tokens of all arms together, for shared rows 4 bytes for each pair of a row's tokens, the logits of some of them, and 16
bytes for each sequence and arm. Log-softmax in float32, sums in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from proxy_eval.llama import EMBEDDING, Branches, Shape, Weights, head_of, hidden_states
from proxy_eval.panel import Panel, documents
from proxy_eval.tokenizer import Tokenizer, encode

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Tokens = NDArray[np.unsignedinteger]

_BATCH_TOKENS = {"cpu": 2_048, "cuda": 131_072}  # of all arms; a CPU is slower above, and 2 % below
_BYTES_OF_LOGITS = {"cpu": 8 << 20, "cuda": 512 << 20}


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """n sequences one after another: i is tokens[offsets[i]:offsets[i + 1]], of which the last counted[i] are scored.

    Neighbours with the same number in `shared` (None: there are none) have the same tokens before those that are
    scored.

    The first token of a sequence is never scored: counted[i] is less than its length (or both are 0).
    """

    tokens: Tokens
    offsets: Ints
    counted: Ints
    shared: Ints | None = None


class Scores(NamedTuple):
    """Of every arm and sequence, [A, n]: the nats of its scored tokens, and whether each was the likeliest of all
    tokens.
    """

    nats: Floats
    greedy: Bools


class Estimate(NamedTuple):
    """A mean and its standard error over documents or items, of one shape; NaN where there are too few."""

    mean: Floats
    standard_error: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class PanelScores:
    """What a stack of A models makes of the n documents of a panel. `domain` numbers them into `domains`."""

    domains: tuple[str, ...]
    domain: Ints
    ids: tuple[str, ...]
    nats: Floats
    tokens: Ints
    bytes: Ints


class _Spans(NamedTuple):
    """What rows of one pass each read, row by row: tokens[start:start + length], at `place` of the row.

    position: that of the first of them in its sequence; branch: 0 for what all of the row see (`llama.Branches`).
    """

    row: Ints
    start: Ints
    length: Ints
    place: Ints
    position: Ints
    branch: Ints


class _Runs(NamedTuple):
    """What of each row is scored, row by row: `counted` tokens of a sequence from tokens[target] on.

    The first of them is predicted at place `first` of the row, the others from place `rest` + 1 on.
    """

    row: Ints
    sequence: Ints
    target: Ints
    counted: Ints
    first: Ints
    rest: Ints


def score_panel(
    weights: Weights,
    shape: Shape,
    tokenizer: Tokenizer,
    panel: Panel,
    *,
    autocast: torch.dtype | None = None,
    batch_tokens: int | None = None,
) -> PanelScores:
    """Return the nats of each document of the panel under each model of the stack. The panel is held in memory."""
    by_domain = [documents(panel, domain.name) for domain in panel.domains]
    texts = [text for _, held in by_domain for text in held]
    tokens, lengths = encode(tokenizer, texts)
    scored = score_sequences(
        weights,
        shape,
        after_end_of_text(tokens, lengths, tokenizer.end),
        autocast=autocast,
        batch_tokens=batch_tokens,
    )
    return PanelScores(
        domains=tuple(domain.name for domain in panel.domains),
        domain=np.repeat(np.arange(len(by_domain)), [len(held) for _, held in by_domain]),
        ids=tuple(name for ids, _ in by_domain for name in ids),
        nats=scored.nats,
        tokens=lengths,
        bytes=np.array([len(text.encode()) for text in texts], np.int64),
    )


def domain_bits(scores: PanelScores) -> Estimate:
    """Return the bits per byte of each arm and domain, [A, domains]: all nats of a domain over all its bytes and ln 2.

    Standard error of that ratio over the domain's documents (linearised: Cochran, Sampling Techniques, 3rd ed., 2.11).
    """
    count = len(scores.domains)
    sizes = np.bincount(scores.domain, scores.bytes, count)
    documents_ = np.bincount(scores.domain, minlength=count)
    bits = scores.nats / math.log(2)
    mean = _by_group(bits, scores.domain, count) / sizes
    residual = bits - mean[:, scores.domain] * scores.bytes
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = _by_group(residual**2, scores.domain, count) * documents_ / (documents_ - 1)
    return Estimate(mean, np.where(documents_ > 1, np.sqrt(variance) / sizes, np.nan))


def macro_bits(scores: PanelScores) -> Estimate:
    """Return the bits per byte of each arm, [A]: the mean over the domains, which all weigh the same."""
    mean, error = domain_bits(scores)
    return Estimate(mean.mean(axis=1), np.sqrt((error**2).sum(axis=1)) / len(scores.domains))


def panel_table(scores: PanelScores, arms: Sequence[str]) -> pa.Table:
    """Return a row for each arm and document: arm, domain, id, nats, tokens, bytes."""
    repeats, names = len(arms), pa.array(scores.domains, pa.string())
    return pa.table(
        {
            "arm": pa.array(np.repeat(np.array(arms, object), len(scores.ids)), pa.string()),
            "domain": names.take(pa.array(np.tile(scores.domain, repeats))),
            "id": pa.array(scores.ids * repeats, pa.string()),
            "nats": scores.nats.ravel(),
            "tokens": np.tile(scores.tokens, repeats),
            "bytes": np.tile(scores.bytes, repeats),
        }
    )


def after_end_of_text(tokens: Tokens, lengths: Ints, end: int) -> Sequences:
    """Return each text after an end-of-text token; all tokens but that are scored."""
    starts = np.cumsum(lengths) - lengths
    filled = lengths > 0
    return Sequences(
        tokens=np.insert(tokens, starts[filled], end),
        offsets=np.cumsum(np.concatenate([[0], lengths + filled])),
        counted=lengths,
    )


def score_sequences(
    weights: Weights,
    shape: Shape,
    sequences: Sequences,
    *,
    autocast: torch.dtype | None = None,
    batch_tokens: int | None = None,
) -> Scores:
    """Return the nats of each sequence under each model of the stack, 0 where nothing is scored.

    `autocast` is the type of the matmuls' operands (None: that of the weights). `batch_tokens` counts those of all
    arms.
    """
    embedding = weights[EMBEDDING]
    arms, device = len(embedding), embedding.device.type
    spans, runs = _rows(sequences, shape.context)
    count = len(sequences.counted)
    nats, greedy = np.zeros((arms, count)), np.ones((arms, count), np.bool_)
    room = _BATCH_TOKENS.get(device, _BATCH_TOKENS["cuda"]) if batch_tokens is None else batch_tokens
    for rows in _batches(np.bincount(spans.row, spans.length).astype(np.int64), max(1, room // arms)):
        scored = _Runs(*_of_rows(runs, rows))
        losses, likeliest = _scored(weights, shape, sequences.tokens, _Spans(*_of_rows(spans, rows)), scored, autocast)
        for arm in range(arms):
            np.add.at(nats[arm], scored.sequence, losses[arm])
            np.logical_and.at(greedy[arm], scored.sequence, likeliest[arm])
    return Scores(nats, greedy)


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """Return start, start + 1, ... of each range, one after another."""
    before = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) - np.repeat(before - starts, lengths)


def _rows(sequences: Sequences, context: int) -> tuple[_Spans, _Runs]:
    """Return the rows that score all sequences: one for each group that shares a beginning, windows for the others."""
    grouped = np.zeros(len(sequences.counted), np.bool_)
    if sequences.shared is not None:
        fits = np.diff(sequences.offsets) <= context + 1
        groups, which, sizes = np.unique(sequences.shared, return_inverse=True, return_counts=True)
        grouped = ((np.bincount(which, ~fits) == 0) & (sizes > 1))[which] & (sequences.counted > 0)
    spans, runs = _window_rows(sequences, np.flatnonzero(~grouped), context)
    more_spans, more_runs = _shared_rows(sequences, np.flatnonzero(grouped), len(spans.row))
    return (
        _Spans(*(np.concatenate(columns) for columns in zip(spans, more_spans, strict=True))),
        _Runs(*(np.concatenate(columns) for columns in zip(runs, more_runs, strict=True))),
    )


def _window_rows(sequences: Sequences, those: Ints, context: int) -> tuple[_Spans, _Runs]:
    """Cut the scored tokens of those sequences into runs of `context`; each is read with as much before it as fits.

    A last run, which is shorter, thereby sees more context than one token, as in lm-evaluation-harness.
    """
    counted = sequences.counted[those]
    windows = -(-counted // context)
    at = np.repeat(np.arange(len(those)), windows)
    done = (np.arange(len(at)) - np.repeat(np.cumsum(windows) - windows, windows)) * context
    count = np.minimum(context, counted[at] - done)
    stop = sequences.offsets[1:][those][at] - 1 - (counted[at] - done - count)
    inputs = np.minimum(context, stop - sequences.offsets[:-1][those][at])
    row, zero, first = np.arange(len(at)), np.zeros(len(at), np.int64), inputs - count
    return (
        _Spans(row, stop - inputs, inputs, zero, zero, zero),
        _Runs(row, those[at], stop - count + 1, count, first, first),
    )


def _shared_rows(sequences: Sequences, those: Ints, row: int) -> tuple[_Spans, _Runs]:
    """Put the sequences of each group into a row: their beginning once, then all but the last token of each one's rest.

    Rows are numbered from `row` on.
    """
    counted, start = sequences.counted[those], sequences.offsets[:-1][those]
    before = sequences.offsets[1:][those] - start - counted
    shared = np.zeros(0, np.int64) if sequences.shared is None else sequences.shared[those]
    leads = np.flatnonzero(np.diff(shared, prepend=-1))
    sizes = np.diff(leads, append=len(those))
    rows = row + np.repeat(np.arange(len(leads)), sizes)
    read = np.cumsum(counted - 1) - (counted - 1)
    place = before + read - np.repeat(read[leads], sizes)
    branch = np.arange(len(those)) - np.repeat(leads, sizes) + 1
    zero = np.zeros(len(leads), np.int64)
    beginnings = _Spans(rows[leads], start[leads], before[leads], zero, zero, zero)
    rests = _Spans(rows, start + before, counted - 1, place, before, branch)
    order = np.lexsort((np.concatenate([zero, branch]), np.concatenate([rows[leads], rows])))
    return (
        _Spans(*(np.concatenate(columns)[order] for columns in zip(beginnings, rests, strict=True))),
        _Runs(rows, those, start + before, counted, before - 1, place - 1),
    )


def _of_rows(table: _Spans | _Runs, rows: Ints) -> list[Ints]:
    """Return the columns of a table, which is sorted by row, for these rows in their order; `row` counts them anew."""
    low, high = np.searchsorted(table.row, rows), np.searchsorted(table.row, rows, "right")
    at = ranges(low, high - low)
    return [np.repeat(np.arange(len(rows)), high - low), *(column[at] for column in table[1:])]


def _batches(lengths: Ints, room: int) -> Iterator[Ints]:
    """Yield rows, the longest first, so that a batch padded to its first has `room` tokens at most, or one row."""
    order = np.argsort(-lengths, kind="stable")
    at = 0
    while at < len(order):
        rows = max(1, room // int(lengths[order[at]]))
        yield order[at : at + rows]
        at += rows


@torch.inference_mode()
def _scored(
    weights: Weights, shape: Shape, tokens: Tokens, spans: _Spans, runs: _Runs, autocast: torch.dtype | None
) -> tuple[Floats, Bools]:
    """Return the nats [A, runs] of each run's tokens and whether all of them were the likeliest."""
    head = head_of(weights)
    size = (int(spans.row.max()) + 1, int((spans.place + spans.length).max()))
    at = ranges(spans.row * size[1] + spans.place, spans.length)

    def laid_out(values: Ints, padding: int) -> Tensor:
        grid = np.full(size, padding)
        grid.ravel()[at] = values
        return torch.from_numpy(grid).to(head.device)

    branches = None
    if spans.branch.any():
        branch = laid_out(np.repeat(spans.branch, spans.length), -1)
        branches = Branches(laid_out(ranges(spans.position, spans.length), 0), branch)
    inputs = laid_out(tokens[ranges(spans.start, spans.length)].astype(np.int64), 0).expand(len(head), -1, -1)
    hidden = hidden_states(weights, shape, inputs, branches=branches, autocast=autocast).flatten(1, 2)
    places = ranges(runs.row * size[1] + runs.rest, runs.counted)
    starts = np.cumsum(runs.counted) - runs.counted
    places[starts] = runs.row * size[1] + runs.first
    targets = torch.from_numpy(tokens[ranges(runs.target, runs.counted)].astype(np.int64)).to(head.device)
    losses, likeliest = _target_losses(hidden[:, torch.from_numpy(places).to(head.device)], targets, head, autocast)
    return (
        np.add.reduceat(losses.double().cpu().numpy(), starts, axis=1),
        np.logical_and.reduceat(likeliest.cpu().numpy(), starts, axis=1),
    )


def _target_losses(
    hidden: Tensor, targets: Tensor, head: Tensor, autocast: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """Return the nats [A, M] of M targets, and whether each is the likeliest token. Logits exist a part at a time."""
    dtype = head.dtype if autocast is None else autocast
    transposed = head.to(dtype).transpose(1, 2)
    rows = max(1, _BYTES_OF_LOGITS.get(head.device.type, _BYTES_OF_LOGITS["cuda"]) // (4 * head[..., 0].numel()))
    losses, likeliest = [], []
    for at in range(0, len(targets), rows):
        wanted = targets[at : at + rows]
        logits = torch.matmul(hidden[:, at : at + rows].to(dtype), transposed)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        found = logits.gather(2, wanted.expand(len(head), -1)[..., None])[..., 0]
        losses.append(logits.logsumexp(2) - found)
        likeliest.append(logits.argmax(2) == wanted)
    return torch.cat(losses, 1), torch.cat(likeliest, 1)


def _by_group(values: Floats, group: Ints, count: int) -> Floats:
    """Return the sums [A, count] of values [A, n] over each group."""
    return np.stack([np.bincount(group, row, count) for row in values])
