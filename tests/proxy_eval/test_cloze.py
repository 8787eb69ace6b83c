"""Choices get the log-likelihood of their own tokens, metrics follow their formulas, and errors their clusters."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from filters.errors import InputError
from proxy_eval.cloze import (
    FINEWEB_TASKS,
    METRICS,
    Scored,
    answer_sizes,
    fineweb_aggregate,
    item_table,
    mean_over_items,
    metrics_of,
    score_items,
    split_tokens,
    summary_table,
)
from proxy_eval.llama import hidden_states, logits
from proxy_eval.score import score_sequences
from proxy_eval.tasks import Items
from proxy_eval.tokenizer import decode, encode
from tests.proxy_eval.tiny import SENTENCES, tiny_shape, tiny_tokenizer, tiny_weights


def items(
    contexts: list[str], answers: list[list[str]], gold: list[int], task: str = "piqa", subjects: tuple[str, ...] = ()
) -> Items:
    """Each question with its choices."""
    return Items(
        task=task,
        ids=tuple(str(at) for at in range(len(gold))),
        subjects=subjects or ("",) * len(gold),
        contexts=tuple(context for context, some in zip(contexts, answers, strict=True) for _ in some),
        answers=tuple(answer for some in answers for answer in some),
        texts=("",) * len(gold),
        delimiter=" ",
        offsets=np.cumsum([0, *map(len, answers)]),
        gold=np.array(gold),
    )


QUESTIONS = items(
    [SENTENCES[0], "", "A question that ends with white space: \n"],
    [["the flour", "a bridge", "it"], ["Ünder the river", "spring"], ["1987", "two people"]],
    [1, 0, 1],
)


def pair(context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Context and continuation as tokens, each by itself: where a split is one of the tokenizer's own."""
    left, _ = encode(tiny_tokenizer(), [context])
    right, _ = encode(tiny_tokenizer(), [continuation])
    return left.tolist(), right.tolist()


def test_white_space_at_the_end_of_a_context_goes_to_the_continuation() -> None:
    tokenizer = tiny_tokenizer()
    found = split_tokens(tokenizer, ["The river \n"], [" froze"])
    left, right = pair("The river", " \n froze")
    assert found.tokens.tolist() == left + right
    assert found.counted.tolist() == [len(right)]


def test_an_empty_context_is_the_end_of_text_token() -> None:
    tokenizer = tiny_tokenizer()
    found = split_tokens(tokenizer, ["The river", "", " "], [" froze", "spring", "spring"])
    left, right = pair("The river", " froze")
    bare, spaced = pair("spring", " spring")
    assert found.tokens.tolist() == [*left, *right, tokenizer.end, *bare, tokenizer.end, *spaced]
    assert found.offsets.tolist() == np.cumsum([0, len(left + right), 1 + len(bare), 1 + len(spaced)]).tolist()
    assert found.counted.tolist() == [len(right), len(bare), len(spaced)]


def test_tokens_that_span_the_border_are_scored_as_the_harness_scores_them() -> None:
    """`encode(whole)` beyond the length of `encode(context)`, after the tokens of the context alone."""
    tokenizer = tiny_tokenizer()
    found = split_tokens(tokenizer, ["counted t"], ["he days"])
    context, _ = encode(tokenizer, ["counted t"])
    whole, _ = encode(tokenizer, ["counted the days"])
    assert decode(tokenizer, whole[: len(context)]) == "counted the", "the tokenizer joins across this border"
    assert found.tokens.tolist() == [*context.tolist(), *whole[len(context) :].tolist()]


def test_an_answer_without_a_token_of_its_own_is_refused() -> None:
    with pytest.raises(InputError, match="'e' has no token of its own after 'Th'"):
        split_tokens(tiny_tokenizer(), ["Th"], ["e"])


def test_a_choice_gets_the_log_likelihood_of_its_own_tokens() -> None:
    shape = tiny_shape(context=64)
    weights = tiny_weights(shape)
    scored = score_items(weights, shape, tiny_tokenizer(), QUESTIONS, pmi=True)
    left, right = pair(SENTENCES[0], " a bridge")
    table = logits(weights, shape, torch.tensor([[left + right]]).expand(2, -1, -1))[:, 0].log_softmax(-1)
    for arm in range(2):
        expected = sum(float(table[arm, len(left) - 1 + at, token]) for at, token in enumerate(right))
        assert scored.loglikelihoods[arm, 1] == pytest.approx(expected, rel=1e-12)
    assert scored.unconditional is not None
    alone = score_items(weights, shape, tiny_tokenizer(), items(["Answer:"], [["a bridge"]], [0]))
    assert scored.unconditional[:, 1] == pytest.approx(alone.loglikelihoods[:, 0], rel=1e-12)


def test_a_long_context_loses_its_beginning() -> None:
    tokenizer, shape = tiny_tokenizer(), tiny_shape(context=16)
    weights = tiny_weights(shape)
    long = " ".join(SENTENCES)
    scored = score_items(weights, shape, tokenizer, items([long], [["the river"]], [0]))
    left, right = pair(long, " the river")
    kept = (left + right)[-17:]
    table = logits(weights, shape, torch.tensor([[kept[:-1]]]).expand(2, -1, -1))[:, 0].log_softmax(-1)
    expected = table[:, range(16 - len(right), 16), right].sum(1)
    assert scored.loglikelihoods[:, 0] == pytest.approx(expected.numpy(), rel=1e-12)


def test_an_answer_longer_than_the_context_is_scored_whole() -> None:
    tokenizer, shape = tiny_tokenizer(), tiny_shape(context=8)
    weights = tiny_weights(shape)
    long = " ".join(SENTENCES)
    _, right = pair("It said", f" {long}")
    scored = score_items(weights, shape, tokenizer, items(["It said"], [[long]], [0]))
    assert len(right) > 16
    assert (scored.loglikelihoods < -len(right) * 0.5 * math.log(shape.vocabulary)).all()


def test_choices_share_their_context_and_score_as_they_do_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items of one to five choices; of one the context is cut, which differs by choice; of one the contexts differ."""
    tokenizer, shape = tiny_tokenizer(), tiny_shape(context=48)
    weights = tiny_weights(shape)
    choices = ["the flour", "a bridge over the river", "it", "spring", "1987 and before that"]
    asked = [(SENTENCES[at % 4], choices[: 1 + at]) for at in range(5)] + [
        ("", choices),
        (" ".join(SENTENCES), choices),
    ]
    pairs = [(context, f" {answer}", at) for at, (context, answers) in enumerate(asked) for answer in answers]
    contexts, continuations, item = zip(*pairs, ("one sack", " is", 7), ("two sacks", " is", 7), strict=True)
    read: list[int] = []

    def watched(*given: Any, **named: Any) -> torch.Tensor:
        read.append(given[2].numel())
        return hidden_states(*given, **named)

    monkeypatch.setattr("proxy_eval.score.hidden_states", watched)
    found = []
    for items_ in (None, np.array(item)):
        sequences = split_tokens(tokenizer, contexts, continuations, items_)
        found.append((score_sequences(weights, shape, sequences, batch_tokens=600), sum(read)))
        read.clear()
    (alone, tokens_alone), (together, tokens_together) = found
    assert together.nats == pytest.approx(alone.nats, rel=1e-11)
    assert (together.greedy == alone.greedy).all()
    assert tokens_together < 0.7 * tokens_alone


# Two arms, two items of three and of two choices, one of a single choice.
GIVEN = Scored(
    items=items(["q", "q", "q"], [["aaaa", "bb", "ccc"], ["ü", "dddd"], ["word"]], [1, 1, 0], subjects=("x", "y", "y")),
    loglikelihoods=np.array([[-6.0, -5.0, -6.0, -1.0, -2.0, -3.0], [-1.0, -4.0, -3.0, -2.0, -2.0, -3.0]]),
    greedy=np.array([[False] * 5 + [True], [False] * 6]),
    unconditional=np.array([[-6.0, -1.0, -1.0, -9.0, -1.0, -1.0]] * 2),
)


def test_metrics_follow_their_formulas() -> None:
    found = metrics_of(GIVEN)
    e = math.exp
    assert set(found) == set(METRICS)
    assert found["acc"].tolist() == [[1, 0, 1], [0, 0, 0]]
    assert found["acc_norm"][:, :2].tolist() == [[0, 1], [0, 1]]  # per character -1.5 -2.5 -2, -1 -0.5
    assert found["acc_pmi"][:, :2].tolist() == [[0, 0], [0, 0]]
    assert found["bits_per_byte"][0] == pytest.approx([5 / 2 / math.log(2), 2 / 4 / math.log(2), 3 / 4 / math.log(2)])
    assert found["correct_prob"][0] == pytest.approx([e(-2.5), e(-0.5), e(-0.75)])
    assert found["total_prob"][0, :2] == pytest.approx([e(-1.5) + e(-2.5) + e(-2), e(-1) + e(-0.5)])
    assert found["norm_correct_prob"][0, 0] == pytest.approx(e(-2.5) / (e(-1.5) + e(-2.5) + e(-2)))
    assert found["margin"][0, :2] == pytest.approx([e(-2.5) - e(-1.5), e(-0.5) - e(-1)])
    assert found["soft_log"][1, :2] == pytest.approx([-4 - math.log(e(-1) + e(-4) + e(-3)), -math.log(2)])
    assert found["centred"][0] == pytest.approx([1, -1, 1])
    assert found["centred"][1] == pytest.approx([-0.5, -1, 0])


def test_a_single_choice_has_no_metric_that_compares() -> None:
    found = metrics_of(GIVEN)
    absent = {name for name, values in found.items() if np.isnan(values[:, 2]).all()}
    assert absent == {"acc_norm", "acc_pmi", "total_prob", "norm_correct_prob", "margin", "soft_log"}
    assert all(not np.isnan(values[:, :2]).any() for values in found.values())


def test_pmi_is_absent_where_it_was_not_asked_for() -> None:
    assert np.isnan(metrics_of(replace(GIVEN, unconditional=None))["acc_pmi"]).all()


def test_characters_and_bytes_are_those_of_the_answer_without_the_space() -> None:
    characters, bytes_ = answer_sizes(GIVEN.items)
    assert characters.tolist() == [4, 2, 3, 1, 4, 4]
    assert bytes_.tolist() == [4, 2, 3, 2, 4, 4]


def test_the_table_holds_every_choice_and_metric_of_every_arm_and_item() -> None:
    table = item_table(GIVEN, ["control", "rule"])
    assert table["arm"].to_pylist() == ["control"] * 3 + ["rule"] * 3
    assert table["item"].to_pylist() == ["0", "1", "2"] * 2
    assert table["subject"].to_pylist() == ["x", "y", "y"] * 2
    assert table["loglikelihoods"].to_pylist()[3:5] == [[-1.0, -4.0, -3.0], [-2.0, -2.0]]
    assert table["bytes"].to_pylist()[1] == [2, 4]
    assert table["greedy"].to_pylist()[2] == [True]
    assert table["margin"].to_pylist()[2] is None
    assert set(METRICS) < set(table.column_names)
    assert item_table(replace(GIVEN, unconditional=None), ["a", "b"])["unconditional"].to_pylist() == [None] * 6


def test_the_error_of_a_mean_is_that_of_independent_items() -> None:
    values = np.random.default_rng(0).normal(size=(2, 50))
    mean, error = mean_over_items(values, [""] * 50)
    assert mean == pytest.approx(values.mean(1))
    assert error == pytest.approx(values.std(1, ddof=1) / math.sqrt(50))


def test_items_of_one_subject_count_as_one_where_they_are_copies() -> None:
    values = np.random.default_rng(0).normal(size=(2, 50))
    whole = mean_over_items(values, [""] * 50)
    copied = mean_over_items(np.repeat(values, 4, axis=1), [str(at // 4) for at in range(200)])
    assert copied.mean == pytest.approx(whole.mean)
    assert copied.standard_error == pytest.approx(whole.standard_error)
    assert np.isnan(mean_over_items(values, ["one"] * 50).standard_error).all()


def test_a_summary_has_subjects_and_no_metric_without_a_value() -> None:
    rows = summary_table([GIVEN], ["control", "rule"]).to_pylist()
    acc = {(row["arm"], row["subject"]): (row["mean"], row["items"]) for row in rows if row["metric"] == "acc"}
    assert acc[("control", None)] == (pytest.approx(1.0 * 2 / 3), 3)
    assert acc[("control", "x")] == (1.0, 1)
    assert acc[("rule", "y")] == (0.0, 2)
    margins = {row["subject"]: row["items"] for row in rows if row["metric"] == "margin" and row["arm"] == "rule"}
    assert margins == {None: 2, "x": 1, "y": 1}
    assert next(row for row in rows if row["subject"] == "x")["standard_error"] is None
    bare = replace(GIVEN, unconditional=None)
    assert "acc_pmi" not in summary_table([bare], ["control", "rule"])["metric"].to_pylist()


def test_finewebs_aggregate_weighs_arc_and_the_subjects_of_mmlu_as_one_task_each() -> None:
    def right(task: str, share: list[int], subjects: tuple[str, ...] = ()) -> Scored:
        """An item for each number: right where it is 1."""
        asked = items(["q"] * len(share), [["a", "b"]] * len(share), [0] * len(share), task, subjects)
        values = np.array([[-1.0 - (not hit), -1.5] for hit in share]).reshape(1, -1)
        return Scored(items=asked, loglikelihoods=values, greedy=values > 0, unconditional=None)

    some = [right(task, [1, 0]) for task in FINEWEB_TASKS if task not in ("arc", "mmlu")]
    arc = [right("arc_easy", [1, 1]), right("arc_challenge", [0, 0])]
    mmlu = right("mmlu", [1, 1, 1, 0], subjects=("a", "a", "a", "b"))
    assert fineweb_aggregate([*some, *arc, mmlu]).tolist() == [0.5]
    with pytest.raises(InputError, match="mmlu was not scored"):
        fineweb_aggregate([*some, *arc])
