"""Language by lid.176: a newline is a space, the whole text counts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pipelines.langid import best_and_wanted, probabilities

MODEL = "lid.176.ftz"
SENTENCES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "langid" / "sentences.jsonl.gz"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The wheel had been turning since before anyone could remember, and nobody asked why.", "en"),
        ("Das Rad drehte sich schon, bevor sich irgendjemand erinnern konnte, und niemand fragte warum.", "de"),
        ("La roue tournait depuis si longtemps que personne ne savait plus pourquoi.", "fr"),
        ("Колесо вращалось ещё до того, как кто-либо мог вспомнить, и никто не спрашивал почему.", "ru"),
        ("その水車は誰も覚えていないほど昔から回り続けていた。", "ja"),
    ],
)
def test_plain_sentences_have_their_language(text: str, language: str) -> None:
    best, score, wanted = best_and_wanted(MODEL, text, [language])
    assert best == language
    assert score == wanted > 0.65


def test_the_probabilities_are_of_all_languages_and_sum_to_one() -> None:
    found = probabilities(MODEL, "A plain sentence in plain English.")
    assert len(found) > 100
    assert sum(found.values()) == pytest.approx(1.0, abs=0.01)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_a_newline_is_a_space_unless_the_recipe_says_nothing() -> None:
    lines = "The miller\nwatched the\nriver and\nthe old stone"
    assert best_and_wanted(MODEL, lines, ["en"]) == best_and_wanted(MODEL, lines.replace("\n", " "), ["en"])
    assert best_and_wanted(MODEL, lines, ["en"], "") == best_and_wanted(MODEL, lines.replace("\n", ""), ["en"])
    assert best_and_wanted(MODEL, lines, ["en"]) != best_and_wanted(MODEL, lines, ["en"], "")


def test_no_wanted_language_means_any() -> None:
    text = "Das Rad drehte sich schon lange."
    best, score, wanted = best_and_wanted(MODEL, text, [])
    assert (best, wanted) == ("de", score)


@pytest.mark.parametrize("text", ["", " ", "\n", "\x00", "a", "😀" * 10, "中", "\u202e"])
def test_odd_texts_have_some_answer(text: str) -> None:
    best, score, wanted = best_and_wanted(MODEL, text, ["en"])
    assert 0.0 <= wanted <= score <= 1.01
    assert isinstance(best, str)


@pytest.mark.skipif(not SENTENCES.is_file(), reason="the labelled sentences of shared/data/langid are not here")
def test_english_sentences_of_real_data_are_told_from_others() -> None:
    with gzip.open(SENTENCES, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    english = [row["text"] for row in rows if row["language"] == "en" and len(row["text"]) > 60][:300]
    others = [row["text"] for row in rows if row["language"] in ("de", "fr", "ru", "es")][:300]
    assert len(english) > 50
    assert len(others) > 50
    assert sum(best_and_wanted(MODEL, text, ["en"])[2] > 0.65 for text in english) / len(english) > 0.9
    assert sum(best_and_wanted(MODEL, text, ["en"])[2] > 0.65 for text in others) / len(others) < 0.02
