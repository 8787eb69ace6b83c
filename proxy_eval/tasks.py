"""Cloze tasks read from local files: questions in the sets' own fields become contexts, answers and the number of the
right one.

A task lies in `FOLDER/<task>/<split>.jsonl(.gz)`, with the field names of the Hugging Face data set. The split is fixed
for each task (`TASKS`); all its items are used. The whole answer is scored, never its letter, since letters are chance
for small models; there are no examples before the question. Lines end at "\\n" alone: several sets hold U+2028 and
U+0085 inside their texts.

Profile `fineweb`: the prompts of FineWeb's ablations (lighteval, group "early-signal",
https://huggingface.co/datasets/HuggingFaceFW/fineweb/blob/main/lighteval_tasks.py), and for LAMBADA, COPA, BoolQ and
SciQ, which are not in that group, those of lm-evaluation-harness. Profile `lm_eval`: the prompts of
lm-evaluation-harness 0.4.13.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from filters.errors import InputError
from filters.rule import Paper

Profile = Literal["fineweb", "lm_eval"]
Row = Mapping[str, Any]


class Question(NamedTuple):
    """One item: a context for each choice (the same one, but for partial evaluation), the choices' texts, the right
    one.
    """

    contexts: tuple[str, ...]
    answers: tuple[str, ...]
    gold: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """How a row becomes a question. `delimiter` stands before each answer and belongs to neither its characters nor its
    bytes.
    """

    ask: Callable[[Row], Question]
    delimiter: str = " "


@dataclass(frozen=True, kw_only=True)
class Task:
    """One set. `fields` are all that its rows may have; `harness` is lm-evaluation-harness's prompt (None: FineWeb's
    own).

    clusters: the field that names an item's subject, within which items are not independent.
    """

    name: str
    split: str
    fields: frozenset[str]
    prompt: Prompt
    harness: Prompt | None = None
    clusters: str | None = None
    paper: Paper


@dataclass(frozen=True, kw_only=True, eq=False)
class Items:
    """The n items of a task; choice k of all choices has contexts[k] and answers[k], item i the choices
    offsets[i]:offsets[i + 1].

    gold: the number of each item's right choice among its own. subjects: "" where the set has none. texts: each item
    with its right answer as it would stand in a text, without the prompt's own words: what contamination is looked for
    by.
    """

    task: str
    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    contexts: tuple[str, ...]
    answers: tuple[str, ...]
    texts: tuple[str, ...]
    delimiter: str
    offsets: NDArray[np.int64]
    gold: NDArray[np.int64]


class Found(NamedTuple):
    """The tasks that a folder holds, in the order of TASKS, and the names of those it does not."""

    items: tuple[Items, ...]
    absent: tuple[str, ...]


def read_tasks(folder: Path, names: Sequence[str] | None = None, profile: Profile = "fineweb") -> Found:
    """Return the items of these tasks (None: all that are known). A task without a folder is skipped, by name."""
    known = {task.name: task for task in TASKS}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise InputError(f"no task is called {unknown[0]!r}; there are {', '.join(known)}")
    wanted = [task for task in TASKS if names is None or task.name in names]
    present = [task for task in wanted if (folder / task.name).is_dir()]
    return Found(
        items=tuple(read_items(folder, task, profile) for task in present),
        absent=tuple(task.name for task in wanted if task not in present),
    )


def read_items(folder: Path, task: Task, profile: Profile = "fineweb") -> Items:
    """Return all items of a task, in the order of its file. Raises InputError with file, line and field where a row is
    not of the set.
    """
    prompt = task.harness if profile == "lm_eval" and task.harness is not None else task.prompt
    path = _file_of(folder / task.name, task.split)
    ids, subjects, questions = [], [], []
    for number, line in enumerate(_lines(path)):
        row, question = _question(task, prompt, line, f"{path}, line {number + 1}")
        ids.append(str(row.get("id", number)))
        subjects.append("" if task.clusters is None else row[task.clusters])
        questions.append(question)
    if not questions:
        raise InputError(f"{path}: no items; take the folder of {task.name} away, or fetch the file again")
    return Items(
        task=task.name,
        ids=tuple(ids),
        subjects=tuple(subjects),
        contexts=tuple(context for question in questions for context in question.contexts),
        answers=tuple(answer for question in questions for answer in question.answers),
        texts=tuple(f"{question.text} {question.answers[question.gold]}" for question in questions),
        delimiter=prompt.delimiter,
        offsets=np.cumsum([0, *(len(question.answers) for question in questions)]),
        gold=np.array([question.gold for question in questions], np.int64),
    )


def _question(task: Task, prompt: Prompt, line: bytes, where: str) -> tuple[Row, Question]:
    try:
        row: object = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: no JSON ({error}); a file of a task is JSON Lines") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: not an object; a line of a task is an object with the fields of its set")
    strange = sorted(set(row) - task.fields)
    if strange:
        raise InputError(f"{where}: {task.name} has no field {strange[0]!r}; it has {', '.join(sorted(task.fields))}")
    try:
        question = prompt.ask(row)
    except KeyError as error:
        raise InputError(
            f"{where}: the field {error} of {task.name} is absent, or a value is none of the set's"
        ) from error
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{where}: a value of {task.name} is not what the set has there ({error})") from error
    if not 0 <= question.gold < len(question.answers) or not all(question.answers):
        raise InputError(
            f"{where}: right answer {question.gold} of {question.answers}; there is no such one, or an empty one"
        )
    return row, question


def _file_of(folder: Path, split: str) -> Path:
    for path in (folder / f"{split}.jsonl", folder / f"{split}.jsonl.gz"):
        if path.exists():
            return path
    raise InputError(f"{folder}: no {split}.jsonl or {split}.jsonl.gz, the split on which this task is scored")


def _lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
        yield from file  # of bytes, which end at "\n" alone


def _asked(text: str, answers: Sequence[str], gold: int, template: str = "{}") -> Question:
    """The same context for every choice: the template with the text in the place of its first {}."""
    return Question((template.replace("{}", text, 1),) * len(answers), tuple(answers), gold, text)


def _labelled(row: Row, text: str, template: str = "{}") -> Question:
    """A question of ARC, OpenBookQA or CommonsenseQA: choices are {"text": [...], "label": [...]}."""
    return _asked(text, row["choices"]["text"], row["choices"]["label"].index(row["answerKey"].strip()), template)


def _hellaswag(row: Row, strip: bool) -> Question:
    """Brackets are left over from WikiHow. `strip`: as lm-evaluation-harness; else as FineWeb, a space at the end."""

    def cleaned(text: str) -> str:
        text = text.strip() if strip else text
        return re.sub(r"\[.*?\]", "", text.replace(" [title]", ". ")).replace("  ", " ")

    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}" + ("" if strip else " ")
    return _asked(cleaned(context), [cleaned(ending) for ending in row["endings"]], int(row["label"]))


def _piqa(row: Row) -> Question:
    return _asked(row["goal"], [row["sol1"], row["sol2"]], int(row["label"]), QUESTION)


def _social(row: Row, template: str = "{}") -> Question:
    answers = [row[name] for name in ("answerA", "answerB", "answerC")]
    return _asked(f"{row['context']} {row['question']}", answers, int(row["label"]) - 1, template)


def _winogrande(row: Row) -> Question:
    before, after = row["sentence"].split("_")
    options = [f"{row[option]} {after.strip()}" for option in ("option1", "option2")]
    return _asked(before, options, int(row["answer"]) - 1)


def _winogrande_partial(row: Row) -> Question:
    """Partial evaluation (Trinh and Le, arXiv:1806.02847): the option is context, and what follows it is scored."""
    at, gold = row["sentence"].index("_"), int(row["answer"]) - 1
    rest = row["sentence"][at + 1 :].strip()
    contexts = tuple(row["sentence"][:at] + row[option] for option in ("option1", "option2"))
    return Question(contexts, (rest, rest), gold, contexts[gold])


def _mmlu(row: Row, before: str = "The following are questions about {}.\n") -> Question:
    template = before.replace("{}", row["subject"].replace("_", " ")) + QUESTION
    return _asked(row["question"], row["choices"], int(row["answer"]), template)


def _mmlu_harness(row: Row) -> Question:
    stripped = {**row, "question": row["question"].strip()}
    return _mmlu(stripped, "The following are questions (with answers) about {}.\n\n")


def _copa(row: Row, space: str = "") -> Question:
    joint = {"cause": "because", "effect": "therefore"}[row["question"]]
    answers = [f"{space}{row[name][0].lower()}{row[name][1:]}" for name in ("choice1", "choice2")]
    return _asked(f"{row['premise'].strip()[:-1]} {joint}", answers, int(row["label"]))


def _lambada(row: Row) -> Question:
    context, last = row["text"].rsplit(" ", 1) if "text" in row else (row["context"], row["continuation"])
    return _asked(context, [last], 0)


def _boolq(row: Row) -> Question:
    return _asked(f"{row['passage']}\nQuestion: {row['question']}?", ["no", "yes"], int(row["answer"]), "{}\nAnswer:")


def _sciq(row: Row) -> Question:
    answers = [row[name] for name in ("distractor1", "distractor2", "distractor3", "correct_answer")]
    return _asked(f"{row['support'].lstrip()}\nQuestion: {row['question']}", answers, 3, "{}\nAnswer:")


def _letters(row: Row) -> Question:
    """CommonsenseQA as in lm-evaluation-harness: the choices stand in the prompt, the letter is scored."""
    listed = "".join(f"{letter}. {text}\n" for letter, text in zip("ABCDE", row["choices"]["text"], strict=True))
    return _asked(row["question"].strip(), "ABCDE", "ABCDE".index(row["answerKey"]), f"Question: {{}}\n{listed}Answer:")


QUESTION = "Question: {}\nAnswer:"

ARC = Paper(
    title="Think you have Solved Question Answering? Try ARC", url="https://arxiv.org/abs/1803.05457", where="2-3"
)
ARC_FIELDS = frozenset({"id", "question", "choices", "answerKey"})

TASKS = (
    Task(
        name="hellaswag",
        split="validation",
        fields=frozenset(
            {"ind", "activity_label", "ctx_a", "ctx_b", "ctx", "endings", "source_id", "split", "split_type", "label"}
        ),
        prompt=Prompt(ask=lambda row: _hellaswag(row, strip=False)),
        harness=Prompt(ask=lambda row: _hellaswag(row, strip=True)),
        paper=Paper(
            title="HellaSwag: Can a Machine Really Finish Your Sentence?",
            url="https://arxiv.org/abs/1905.07830",
            where="3",
        ),
    ),
    Task(
        name="arc_easy",
        split="test",
        fields=ARC_FIELDS,
        prompt=Prompt(ask=lambda row: _labelled(row, row["question"], QUESTION)),
        paper=ARC,
    ),
    Task(
        name="arc_challenge",
        split="test",
        fields=ARC_FIELDS,
        prompt=Prompt(ask=lambda row: _labelled(row, row["question"], QUESTION)),
        paper=ARC,
    ),
    Task(
        name="piqa",
        split="validation",
        fields=frozenset({"goal", "sol1", "sol2", "label"}),
        prompt=Prompt(ask=_piqa),
        paper=Paper(
            title="PIQA: Reasoning about Physical Commonsense in Natural Language",
            url="https://arxiv.org/abs/1911.11641",
            where="3",
        ),
    ),
    Task(
        name="openbookqa",
        split="validation",
        fields=frozenset(
            {"id", "question_stem", "choices", "answerKey", "fact1", "humanScore", "clarity", "turkIdAnonymized"}
        ),
        prompt=Prompt(ask=lambda row: _labelled(row, row["question_stem"])),
        paper=Paper(
            title="Can a Suit of Armor Conduct Electricity? A New Dataset for Open Book Question Answering",
            url="https://arxiv.org/abs/1809.02789",
            where="3",
        ),
    ),
    Task(
        name="commonsense_qa",
        split="validation",
        fields=frozenset({"id", "question", "question_concept", "choices", "answerKey"}),
        prompt=Prompt(ask=lambda row: _labelled(row, row["question"])),
        harness=Prompt(ask=_letters),
        paper=Paper(
            title="CommonsenseQA: A Question Answering Challenge Targeting Commonsense Knowledge",
            url="https://arxiv.org/abs/1811.00937",
            where="3",
        ),
    ),
    Task(
        name="social_iqa",
        split="validation",
        fields=frozenset({"context", "question", "answerA", "answerB", "answerC", "label"}),
        prompt=Prompt(ask=_social),
        harness=Prompt(ask=lambda row: _social(row, "Q: {}\nA:")),
        paper=Paper(
            title="SocialIQA: Commonsense Reasoning about Social Interactions",
            url="https://arxiv.org/abs/1904.09728",
            where="2",
        ),
    ),
    Task(
        name="winogrande",
        split="validation",
        fields=frozenset({"qID", "sentence", "option1", "option2", "answer"}),
        prompt=Prompt(ask=_winogrande, delimiter=""),
        harness=Prompt(ask=_winogrande_partial),
        paper=Paper(
            title="WinoGrande: An Adversarial Winograd Schema Challenge at Scale",
            url="https://arxiv.org/abs/1907.10641",
            where="3",
        ),
    ),
    Task(
        name="mmlu",
        split="test",
        fields=frozenset({"subject", "question", "choices", "answer"}),
        prompt=Prompt(ask=_mmlu),
        harness=Prompt(ask=_mmlu_harness),
        clusters="subject",
        paper=Paper(
            title="Measuring Massive Multitask Language Understanding",
            url="https://arxiv.org/abs/2009.03300",
            where="3",
        ),
    ),
    Task(
        name="lambada_openai",
        split="test",
        fields=frozenset({"context", "continuation", "text"}),
        prompt=Prompt(ask=_lambada),
        paper=Paper(
            title="The LAMBADA dataset: Word prediction requiring a broad discourse context",
            url="https://arxiv.org/abs/1606.06031",
            where="3; the 5,153 texts in OpenAI's form",
        ),
    ),
    Task(
        name="copa",
        split="validation",
        fields=frozenset({"premise", "choice1", "choice2", "question", "idx", "label"}),
        prompt=Prompt(ask=_copa),
        harness=Prompt(ask=lambda row: _copa(row, space=" ")),  # two spaces stand before a choice there
        paper=Paper(
            title="Choice of Plausible Alternatives: An Evaluation of Commonsense Causal Reasoning",
            url="https://people.ict.usc.edu/~gordon/copa.html",
            where="as in SuperGLUE, arXiv:1905.00537",
        ),
    ),
    Task(
        name="boolq",
        split="validation",
        fields=frozenset({"question", "answer", "passage", "title"}),
        prompt=Prompt(ask=_boolq),
        paper=Paper(
            title="BoolQ: Exploring the Surprising Difficulty of Natural Yes/No Questions",
            url="https://arxiv.org/abs/1905.10044",
            where="2",
        ),
    ),
    Task(
        name="sciq",
        split="test",
        fields=frozenset({"question", "support", "distractor1", "distractor2", "distractor3", "correct_answer"}),
        prompt=Prompt(ask=_sciq),
        paper=Paper(
            title="Crowdsourcing Multiple Choice Science Questions", url="https://arxiv.org/abs/1707.06209", where="3"
        ),
    ),
)
"""Every task that is known, with the split it is scored on: FineWeb's, where FineWeb has the task."""
