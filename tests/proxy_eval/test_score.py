"""Bits per byte of a panel: windows of lm-evaluation-harness by hand, arms of a stack as alone, ratios and errors."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from proxy_eval.llama import Shape, Weights, logits
from proxy_eval.panel import Source, build_panel
from proxy_eval.score import (
    PanelScores,
    Sequences,
    after_end_of_text,
    domain_bits,
    macro_bits,
    panel_table,
    score_panel,
    score_sequences,
)
from proxy_eval.tokenizer import encode
from tests.proxy_eval.tiny import SENTENCES, tiny_shape, tiny_tokenizer, tiny_weights

END = 0


def nats(weights: Weights, shape: Shape, arm: int, read: list[int], scored: list[int]) -> float:
    """The loss of the last tokens of `read`'s continuation, straight from the logits of one window."""
    rows = torch.tensor([[read]]).expand(len(next(iter(weights.values()))), -1, -1)
    table = logits(weights, shape, rows)[arm, 0].log_softmax(-1)[-len(scored) :]
    return -float(table.gather(1, torch.tensor(scored)[:, None]).sum())


def sequences(*rows: list[int]) -> Sequences:
    lengths = np.array([len(row) for row in rows], np.int64)
    return after_end_of_text(np.array([token for row in rows for token in row], np.uint16), lengths, END)


def test_a_document_is_read_in_the_windows_of_the_harness() -> None:
    shape = tiny_shape(context=4)
    weights = tiny_weights(shape)
    document = [17, 5, 201, 33, 9, 150, 42, 77, 12, 300]  # 4 + 4 + 2 tokens
    scored = score_sequences(weights, shape, sequences(document)).nats
    for arm in range(2):
        expected = (
            nats(weights, shape, arm, [END, 17, 5, 201], [17, 5, 201, 33])
            + nats(weights, shape, arm, [33, 9, 150, 42], [9, 150, 42, 77])
            + nats(
                weights, shape, arm, [150, 42, 77, 12], [12, 300]
            )  # a last window reaches back over the whole context
        )
        assert scored[arm, 0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8])
def test_every_token_of_a_document_is_scored_once(length: int) -> None:
    shape = tiny_shape(context=4)
    weights = tiny_weights(shape)
    document = list(range(1, length + 1))
    expected, at = 0.0, 0
    while at < length:
        stop = min(at + 4, length)
        whole = [END, *document]
        expected += nats(weights, shape, 1, whole[max(0, stop - 4) : stop], document[at:stop])
        at = stop
    assert score_sequences(weights, shape, sequences(document)).nats[1, 0] == pytest.approx(expected, rel=1e-12)


def test_a_document_without_tokens_has_no_nats() -> None:
    shape = tiny_shape()
    weights = tiny_weights(shape)
    alone = score_sequences(weights, shape, sequences([5, 6]))
    among = score_sequences(weights, shape, sequences([], [5, 6], []))
    assert among.nats[:, [0, 2]].tolist() == [[0, 0], [0, 0]]
    assert among.nats[:, 1] == pytest.approx(alone.nats[:, 0], rel=1e-12)


def test_greedy_holds_where_every_scored_token_is_the_likeliest() -> None:
    shape = tiny_shape(context=4)
    weights = tiny_weights(shape, seeds=(1,))
    document: list[int] = []
    for _ in range(4):
        read = torch.tensor([[[END, *document]]])
        document.append(int(logits(weights, shape, read)[0, 0, -1].argmax()))
    other = [*document[:2], (document[2] + 1) % shape.vocabulary, document[3]]
    assert score_sequences(weights, shape, sequences(document, other)).greedy.tolist() == [[True, False]]


def test_an_arm_of_a_stack_scores_as_it_does_alone_and_batches_do_not_matter() -> None:
    shape = tiny_shape(context=8)
    weights = tiny_weights(shape, seeds=(3, 4, 5))
    rng = np.random.default_rng(0)
    rows = sequences(*(rng.integers(1, 320, size).tolist() for size in (3, 40, 8, 1, 17)))
    whole = score_sequences(weights, shape, rows)
    for arm in range(3):
        one = {name: weight[arm : arm + 1] for name, weight in weights.items()}
        alone = score_sequences(one, shape, rows, batch_tokens=11)
        assert alone.nats[0] == pytest.approx(whole.nats[arm], rel=1e-11)
        assert (alone.greedy[0] == whole.greedy[arm]).all()


def test_log_softmax_is_in_float32_where_matmuls_are_not() -> None:
    shape = tiny_shape()
    weights = tiny_weights(shape, dtype=torch.float32)
    rows = sequences(list(range(1, 30)))
    exact = score_sequences(weights, shape, rows).nats
    lowered = score_sequences(weights, shape, rows, autocast=torch.bfloat16).nats
    assert (lowered != exact).all()
    assert lowered == pytest.approx(exact, rel=0.02)


def test_bits_per_byte_of_a_panel_count_bytes_and_no_end_token(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(SENTENCES[0])
    (tmp_path / "b.txt").write_text("Größe: 5 µm – nicht mehr.")
    panel = build_panel(
        tmp_path / "panel",
        [Source(name=name, files=(tmp_path / f"{name}.txt",), licence="ours") for name in "ab"],
        salt="",
    )
    shape = tiny_shape()
    weights = tiny_weights(shape)
    scores = score_panel(weights, shape, tiny_tokenizer(), panel)
    assert scores.bytes.tolist() == [len(SENTENCES[0]), len("Größe: 5 µm – nicht mehr.".encode())]
    _, lengths = encode(tiny_tokenizer(), [SENTENCES[0], "Größe: 5 µm – nicht mehr."])
    assert scores.tokens.tolist() == lengths.tolist()
    bits = domain_bits(scores).mean
    assert bits == pytest.approx(scores.nats / scores.bytes / math.log(2), rel=1e-12)
    assert macro_bits(scores).mean == pytest.approx(bits.mean(axis=1), rel=1e-12)
    table = panel_table(scores, ["one", "two"])
    assert table["arm"].to_pylist() == ["one", "one", "two", "two"]
    assert table["domain"].to_pylist() == ["a", "b"] * 2
    assert table["nats"].to_pylist() == scores.nats.ravel().tolist()


def drawn(rng: np.random.Generator, documents: int) -> PanelScores:
    sizes = rng.integers(50, 500, documents)
    return PanelScores(
        domains=("a",),
        domain=np.zeros(documents, np.int64),
        ids=("",) * documents,
        nats=(sizes * rng.normal(0.9, 0.2, documents))[None],
        tokens=sizes,
        bytes=sizes,
    )


def test_the_standard_error_is_what_the_ratio_varies_by() -> None:
    rng = np.random.default_rng(1)
    samples = [domain_bits(drawn(rng, 60)) for _ in range(2_000)]
    spread = np.std([sample.mean[0, 0] for sample in samples])
    assert np.mean([sample.standard_error[0, 0] for sample in samples]) == pytest.approx(spread, rel=0.06)


def test_the_error_of_one_document_is_unknown() -> None:
    assert np.isnan(domain_bits(drawn(np.random.default_rng(2), 1)).standard_error).all()
