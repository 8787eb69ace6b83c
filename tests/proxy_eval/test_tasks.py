"""Rows of every set become the prompts of FineWeb and of lm-evaluation-harness; what is no such row is named."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from filters.errors import InputError
from proxy_eval.tasks import TASKS, Items, Profile, read_items, read_tasks

BENCHMARKS = Path(__file__).parents[3] / "shared" / "data" / "benchmarks"
BY_NAME = {task.name: task for task in TASKS}

ARC = {
    "id": "Q1",
    "question": "What melts?",
    "choices": {"text": ["ice", "sand"], "label": ["1", "2"]},
    "answerKey": "2",
}
ROWS: dict[str, dict[str, Any]] = {
    "hellaswag": {
        "activity_label": "Baking",
        "ctx_a": "[header] How to bake [title] Warm  the oven",
        "ctx_b": "she",
        "endings": ["burns it.", "[step] waits."],
        "label": "1",
    },
    "arc_easy": ARC,
    "arc_challenge": ARC,
    "piqa": {"goal": "open a jar", "sol1": "turn the lid", "sol2": "hit it", "label": 0},
    "openbookqa": {
        "id": "7",
        "question_stem": "Fish live in",
        "choices": {"text": ["air", "water"], "label": ["A", "B"]},
        "answerKey": "B",
    },
    "commonsense_qa": {
        "id": "x",
        "question": "Where is a door? ",
        "question_concept": "door",
        "choices": {"text": ["wall", "sea", "sky", "cup", "sun"], "label": ["A", "B", "C", "D", "E"]},
        "answerKey": "A",
    },
    "social_iqa": {
        "context": "Ann fell.",
        "question": "How is she?",
        "answerA": "sad",
        "answerB": "hurt",
        "answerC": "tall",
        "label": "2",
    },
    "winogrande": {
        "sentence": "The cup broke the plate since the _ was hard.",
        "option1": "cup",
        "option2": "plate",
        "answer": "1",
    },
    "mmlu": {"subject": "world_history", "question": " Who won? ", "choices": ["he", "she", "they", "it"], "answer": 2},
    "lambada_openai": {"context": "He picked up the", "continuation": "phone"},
    "copa": {
        "premise": "The tap was open. ",
        "choice1": "Water ran.",
        "choice2": "It rained.",
        "question": "effect",
        "idx": 3,
        "label": 0,
    },
    "boolq": {"question": "is it wet", "answer": True, "passage": "Rain is wet."},
    "sciq": {
        "support": " Ice melts.",
        "question": "What melts?",
        "distractor1": "a",
        "distractor2": "b",
        "distractor3": "c",
        "correct_answer": "ice",
    },
}
SAME = None
PROMPTS: dict[str, tuple[tuple[list[str], list[str], int], tuple[list[str], list[str], int] | None]] = {
    # contexts and whole continuations, and the right one: FineWeb's, lm-evaluation-harness's where it is another
    "hellaswag": (
        (["Baking: How to bake. Warm the oven She "] * 2, [" burns it.", "  waits."], 1),
        (["Baking: How to bake. Warm the oven She"] * 2, [" burns it.", "  waits."], 1),
    ),
    "arc_easy": ((["Question: What melts?\nAnswer:"] * 2, [" ice", " sand"], 1), SAME),
    "arc_challenge": ((["Question: What melts?\nAnswer:"] * 2, [" ice", " sand"], 1), SAME),
    "piqa": ((["Question: open a jar\nAnswer:"] * 2, [" turn the lid", " hit it"], 0), SAME),
    "openbookqa": ((["Fish live in"] * 2, [" air", " water"], 1), SAME),
    "commonsense_qa": (
        (["Where is a door? "] * 5, [" wall", " sea", " sky", " cup", " sun"], 0),
        (
            ["Question: Where is a door?\nA. wall\nB. sea\nC. sky\nD. cup\nE. sun\nAnswer:"] * 5,
            [" A", " B", " C", " D", " E"],
            0,
        ),
    ),
    "social_iqa": (
        (["Ann fell. How is she?"] * 3, [" sad", " hurt", " tall"], 1),
        (["Q: Ann fell. How is she?\nA:"] * 3, [" sad", " hurt", " tall"], 1),
    ),
    "winogrande": (
        (["The cup broke the plate since the "] * 2, ["cup was hard.", "plate was hard."], 0),
        (
            ["The cup broke the plate since the cup", "The cup broke the plate since the plate"],
            [" was hard.", " was hard."],
            0,
        ),
    ),
    "mmlu": (
        (
            ["The following are questions about world history.\nQuestion:  Who won? \nAnswer:"] * 4,
            [" he", " she", " they", " it"],
            2,
        ),
        (
            ["The following are questions (with answers) about world history.\n\nQuestion: Who won?\nAnswer:"] * 4,
            [" he", " she", " they", " it"],
            2,
        ),
    ),
    "lambada_openai": ((["He picked up the"], [" phone"], 0), SAME),
    "copa": (
        (["The tap was open therefore"] * 2, [" water ran.", " it rained."], 0),
        (["The tap was open therefore"] * 2, ["  water ran.", "  it rained."], 0),
    ),
    "boolq": ((["Rain is wet.\nQuestion: is it wet?\nAnswer:"] * 2, [" no", " yes"], 1), SAME),
    "sciq": ((["Ice melts.\nQuestion: What melts?\nAnswer:"] * 4, [" a", " b", " c", " ice"], 3), SAME),
}


def written(folder: Path, name: str, *rows: object) -> Path:
    path = folder / name / f"{BY_NAME[name].split}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompts(items: Items) -> tuple[list[str], list[str], int]:
    return list(items.contexts), [items.delimiter + answer for answer in items.answers], int(items.gold[0])


@pytest.mark.parametrize("name", BY_NAME)
def test_a_row_becomes_the_prompts_of_both_profiles(tmp_path: Path, name: str) -> None:
    written(tmp_path, name, ROWS[name])
    fineweb, harness = PROMPTS[name]
    assert prompts(read_items(tmp_path, BY_NAME[name])) == fineweb
    assert prompts(read_items(tmp_path, BY_NAME[name], "lm_eval")) == (harness or fineweb)


def test_contamination_is_looked_for_by_the_item_without_the_prompts_words(tmp_path: Path) -> None:
    written(tmp_path, "mmlu", ROWS["mmlu"])
    written(tmp_path, "winogrande", ROWS["winogrande"])
    mmlu, winogrande = (read_items(tmp_path, BY_NAME[name]) for name in ("mmlu", "winogrande"))
    assert " ".join(mmlu.texts[0].split()) == "Who won? they"
    assert " ".join(winogrande.texts[0].split()) == "The cup broke the plate since the cup was hard."


def test_ids_subjects_and_choices_stay_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "mmlu", *({**ROWS["mmlu"], "subject": subject} for subject in ("b", "a")))
    path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    items = read_items(tmp_path, BY_NAME["mmlu"])
    assert (items.ids, items.subjects, items.offsets.tolist()) == (("0", "1"), ("b", "a"), [0, 4, 8])
    written(tmp_path, "arc_easy", ARC)
    assert read_items(tmp_path, BY_NAME["arc_easy"]).ids == ("Q1",)


def test_a_line_ends_at_a_line_feed_alone(tmp_path: Path) -> None:
    row = json.dumps({**ROWS["piqa"], "goal": "a\u2028b\u0085c"}, ensure_ascii=False)
    written(tmp_path, "piqa", {}).write_text(row + "\n" + row + "\n", encoding="utf-8")
    assert read_items(tmp_path, BY_NAME["piqa"]).contexts == ("Question: a\u2028b\u0085c\nAnswer:",) * 4


def test_lambada_is_read_in_either_form(tmp_path: Path) -> None:
    written(tmp_path, "lambada_openai", {"text": "He picked up the phone"})
    assert prompts(read_items(tmp_path, BY_NAME["lambada_openai"])) == PROMPTS["lambada_openai"][0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"goal": "g", "sol1": "a", "label": 0}, r"line 2: the field 'sol2' of piqa"),
        ({**ROWS["piqa"], "answer": 1}, r"line 2: piqa has no field 'answer'; it has goal, label, sol1, sol2"),
        ({**ROWS["piqa"], "label": 2}, r"line 2: right answer 2 of \('turn the lid', 'hit it'\)"),
        ({**ROWS["piqa"], "label": "x"}, r"line 2: a value of piqa is not what the set has"),
        ({**ROWS["piqa"], "sol1": ""}, r"line 2: .* or an empty one"),
        ([1], r"line 2: not an object"),
    ],
)
def test_a_row_that_is_not_of_the_set_is_named(tmp_path: Path, row: object, message: str) -> None:
    path = written(tmp_path, "piqa", ROWS["piqa"], row)
    with pytest.raises(InputError, match=message) as error:
        read_items(tmp_path, BY_NAME["piqa"])
    assert str(path) in str(error.value)


def test_a_task_without_a_folder_is_skipped_by_name_and_others_are_errors(tmp_path: Path) -> None:
    written(tmp_path, "piqa", ROWS["piqa"])
    found = read_tasks(tmp_path, ["copa", "piqa"])
    assert ([items.task for items in found.items], found.absent) == (["piqa"], ("copa",))
    assert set(read_tasks(tmp_path).absent) == set(BY_NAME) - {"piqa"}
    with pytest.raises(InputError, match="no task is called 'pica'"):
        read_tasks(tmp_path, ["pica"])
    (tmp_path / "copa").mkdir()
    with pytest.raises(InputError, match=r"no validation\.jsonl"):
        read_tasks(tmp_path)
    written(tmp_path, "copa")
    with pytest.raises(InputError, match="no items"):
        read_tasks(tmp_path)


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="no shared/data/benchmarks beside the checkout")
@pytest.mark.parametrize("profile", ["fineweb", "lm_eval"])
def test_all_items_of_the_real_sets_are_read(profile: Profile) -> None:
    """The sizes that the sets are published with."""
    found = read_tasks(BENCHMARKS, profile=profile)
    assert found.absent == ("sciq",)
    assert {items.task: len(items.gold) for items in found.items} == {
        "hellaswag": 10_042,
        "arc_easy": 2_376,
        "arc_challenge": 1_172,
        "piqa": 1_838,
        "openbookqa": 500,
        "commonsense_qa": 1_221,
        "social_iqa": 1_954,
        "winogrande": 1_267,
        "mmlu": 14_042,
        "lambada_openai": 5_153,
        "copa": 100,
        "boolq": 3_270,
    }
    mmlu = next(items for items in found.items if items.task == "mmlu")
    assert len(set(mmlu.subjects)) == 57
