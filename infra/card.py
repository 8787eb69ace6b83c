"""The card of an exported dataset: README.md with the front matter that the Hub and `datasets` read.

A pure function of what run.json and the footers of the parts say, of the licence, and of the packages that are
installed. Whatever was written by others (names, reasons, recipes) is data here: it forms no Markdown, HTML or YAML.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import yaml

from filters.errors import ResourceMissing
from filters.rule import Paper
from infra.gate import gate_line
from infra.look import funnel_rows
from infra.run import Finished
from infra.terminal import visible
from pipelines.dedup.lines import Lines
from pipelines.dedup.step import Dedup, NearDuplicates
from pipelines.recipe import EditStep, Language, Recipe, load_recipe, recipe_names

PATTERN = "data/train-*"
DEFAULT = "default"
UNKNOWN = "unknown"
"""The Hub's identifier of a licence that nobody has stated: hf.co/docs/hub/repositories-licenses."""
SHOWN_DUMPS = 20
MEANINGS = {
    "text": "main text of the page, after the recipe's edits",
    "id": "WARC-Record-ID of the page's record",
    "dump": "crawl that the page is from",
    "url": "address of the page",
    "date": "when it was fetched",
    "file_path": "file that holds its record, as it was given to the run",
    "language": "label of the language model",
    "language_score": "probability that the model gives to that label",
    "token_count": "tokens of the text; null where the recipe names no tokenizer",
}
"""FineWeb's nine columns, `pipelines.schema.DATASET`."""
SAME = {
    "url": "documents of the same address, normalised",
    "text": "documents of the same text, but for case and white space",
    "twin": "documents of the same MinHash signature",
}
"""What each exact method of `pipelines.dedup.step` takes for duplicates, in the order in which they are applied."""
MINHASH = Paper(
    title="On the Resemblance and Containment of Documents",
    url="https://doi.org/10.1109/SEQUEN.1997.666900",
    where="MinHash",
)
DTYPES = {"double": "float64", "float": "float32", "halffloat": "float16"}
"""Arrow's names of types where `datasets` has others."""
# What Hub and `datasets` take for the name of a configuration; others are bad in file names on some system.
CONFIG_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
# ISO 639-1 to 639-3: what the Hub takes. GlotLID's labels are these with a script, `eng_Latn`.
LANGUAGE_CODE = re.compile(r"[a-z]{2,3}")
MARKUP = re.compile(r"([\\`*_\[\]<>&~$#|])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One Parquet file of the export: its path there, rows, bytes, bytes as Arrow in memory (about), and the values
    of two columns.
    """

    path: str
    rows: int
    bytes: int
    arrow_bytes: int
    dumps: frozenset[str]
    languages: frozenset[str]


def card(made: Finished, parts: Sequence[Part], schema: pa.Schema, *, recipe_sha256: str, licence: str | None) -> str:
    """The text of README.md: front matter, then a description for people."""
    front = yaml.safe_dump(
        front_matter(made, parts, schema, licence), sort_keys=False, allow_unicode=True, width=1_000_000
    )
    sections = (
        [f"# {escaped(title(made.recipe, parts))}", *summary(made, parts)],
        ["## Load it", *loading(parts)],
        ["## How it was made", *making(made, recipe_sha256)],
        ["## What left, and what remains", *funnel(made)],
        ["## Columns", columns(schema)],
        ["## Limits", limits(made)],
        ["## Licence", licence_said(licence)],
        *(
            [["## Sources", "What the steps of the recipe come from:", cited]]
            if (cited := sources(made.recipe))
            else []
        ),
    )
    return f"---\n{front}---\n\n" + "\n\n".join(block for section in sections for block in section) + "\n"


def front_matter(made: Finished, parts: Sequence[Part], schema: pa.Schema, licence: str | None) -> dict[str, Any]:
    """The metadata, in the Hub's words: hf.co/docs/hub/datasets-cards, datasets-manual-configuration."""
    by_dump = dump_configs(parts)
    configs = {DEFAULT: parts, **by_dump}
    info = [{"config_name": name, **dataset_info(some, schema)} for name, some in configs.items()]
    languages = hub_languages(one for part in parts for one in part.languages)
    return {
        "license": licence or UNKNOWN,
        **({"language": languages} if languages else {}),
        "pretty_name": title(made.recipe, parts),
        "size_categories": [size_category(sum(part.rows for part in parts))],
        "task_categories": ["text-generation"],
        "tags": ["gristmill", "pretraining"],
        "configs": [
            {
                "config_name": name,
                "data_files": [
                    {"split": "train", "path": PATTERN if name == DEFAULT else [part.path for part in some]},
                ],
            }
            for name, some in configs.items()
        ],
        # One configuration is a mapping without its name, several are a list: as `datasets` writes them.
        "dataset_info": info if by_dump else dataset_info(parts, schema),
    }


def dataset_info(parts: Sequence[Part], schema: pa.Schema) -> dict[str, Any]:
    """Features, splits and sizes of these parts. `datasets` checks the number of examples when it loads them."""
    size = sum(part.arrow_bytes for part in parts)
    return {
        "features": [{"name": field.name, "dtype": dtype(field.type)} for field in schema],
        "splits": [{"name": "train", "num_bytes": size, "num_examples": sum(part.rows for part in parts)}],
        "download_size": sum(part.bytes for part in parts),
        "dataset_size": size,
    }


def dtype(kind: pa.DataType) -> str:
    """What `datasets` calls an Arrow type; the columns of a dataset are flat."""
    return DTYPES.get(str(kind), str(kind))


def dump_configs(parts: Sequence[Part]) -> dict[str, list[Part]]:
    """The parts of each dump, where there are several and no part holds documents of two; else nothing.

    A part is cut by rows, wherever a dump ends, so that this needs luck or a run for each dump.
    """
    configs: dict[str, list[Part]] = {}
    for part in parts:
        name = next(iter(part.dumps), "")
        if len(part.dumps) != 1 or name == DEFAULT or not CONFIG_NAME.fullmatch(name):
            return {}
        configs.setdefault(name, []).append(part)
    return dict(sorted(configs.items())) if len(configs) > 1 else {}


def hub_languages(labels: Iterable[str]) -> list[str]:
    """The ISO codes among these labels of a language model, sorted."""
    codes = {label.partition("_")[0] for label in labels}
    return sorted(code for code in codes if LANGUAGE_CODE.fullmatch(code))


def size_category(rows: int) -> str:
    """The Hub's name for this number of rows: `n<1K`, `1K<n<10K` ... `100B<n<1T`, `n>1T`."""
    if rows < 1_000:
        return "n<1K"
    if rows >= 10**12:
        return "n>1T"
    bounds = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    at = len(str(rows)) - 4
    return f"{bounds[at]}<n<{bounds[at + 1]}"


def title(recipe: Recipe, parts: Sequence[Part]) -> str:
    """The recipe and the dumps in one line."""
    dumps = dumps_of(parts)
    said = ", ".join(dumps) if len(dumps) <= 3 else f"{len(dumps):,} dumps"
    return visible_line(f"{recipe.name}, {said}" if dumps else recipe.name)


def dumps_of(parts: Sequence[Part]) -> list[str]:
    """The dumps of all parts that have a name."""
    return sorted({dump for part in parts for dump in part.dumps} - {""})


def summary(made: Finished, parts: Sequence[Part]) -> Iterator[str]:
    """What it is, in numbers."""
    accounts, recipe = made.accounts, made.recipe
    tokens = "" if recipe.tokenizer is None else f"{accounts.tokens:,} tokens ({code(recipe.tokenizer)}), "
    size = sum(part.bytes for part in parts)
    yield (
        f"{accounts.kept:,} documents, {tokens}{accounts.characters:,} characters, in "
        f"{counted(len(parts), 'Parquet file')} ({size:,} bytes): texts of crawled web pages, for pretraining language "
        "models."
    )
    yield f"Recipe {code(recipe.name)}: {escaped(recipe.says)}"


def loading(parts: Sequence[Part]) -> Iterator[str]:
    """How to load it, and which configurations there are."""
    yield (
        "```python\nfrom datasets import load_dataset\n\n"
        'documents = load_dataset("FOLDER", split="train")  # streaming=True reads on the way, and copies nothing\n```'
    )
    yield "`FOLDER` is this folder, or the name of the dataset on the Hub. `SHA256SUMS` holds the hash of every file."
    dumps = dumps_of(parts)
    shown = ", ".join(map(code, dumps[:SHOWN_DUMPS])) + (" ..." if len(dumps) > SHOWN_DUMPS else "")
    if dump_configs(parts):
        yield f"Each of the {len(dumps):,} dumps is a configuration of its own, too: {shown}."
    elif len(dumps) > 1:
        yield (
            f"The {len(dumps):,} dumps ({shown}) share files, so there is one configuration: select by the column "
            "`dump`."
        )


def making(made: Finished, recipe_sha256: str) -> Iterator[str]:
    """Recipe, hashes, commands, deviations, and the recipe in full."""
    recipe, accounts = made.recipe, made.accounts
    versions = versions_said(recipe, recipe_sha256)
    facts = [
        ("recipe", code(recipe.name)),
        ("sha256 of the recipe", code(recipe_sha256)),
        ("input", f"{accounts.input_bytes:,} bytes, {accounts.records:,} records"),
        ("sha256 of the dataset", code(made.dataset_sha256)),
        ("exported by", f"Gristmill {version('gristmill')}"),
        *([("versions", versions)] if versions else []),
    ]
    yield table(("", ""), facts)
    shipped = is_shipped(recipe)
    named = shlex.quote(recipe.name) if shipped else "recipe.yaml"
    dump = "" if made.options.dump is None else f" --dump {shlex.quote(visible_line(made.options.dump))}"
    yield fenced(
        f"gristmill run {named} --input PAGES --out OUT{dump}\ngristmill export OUT --format hf --to FOLDER", "sh"
    )
    yield (
        ("" if shipped else "`recipe.yaml` is the recipe below. ")
        + "`PAGES` are the files that the column `file_path` names. The same pages give the same documents in the same "
        "parts, byte for byte, on any number of machines."
    )
    if recipe.deviations:
        yield "Where the recipe deviates from its original:"
        yield "\n".join(f"* {escaped(one)}" for one in recipe.deviations)
    yield "<details>\n<summary>The recipe in full</summary>"
    yield fenced(recipe_text(recipe), "yaml")
    yield "</details>"


def versions_said(recipe: Recipe, recipe_sha256: str) -> str:
    """The packages that bear on the dataset, where those of this machine are those of the run; else nothing."""
    try:
        if recipe.sha256 != recipe_sha256:
            return ""
        return ", ".join(f"{name} {release}" for name, release in recipe.identity["versions"].items())
    except (PackageNotFoundError, ResourceMissing):
        return ""


def is_shipped(recipe: Recipe) -> bool:
    """True where the recipe of this name that comes with Gristmill is this one."""
    return recipe.name in recipe_names() and load_recipe(recipe.name).model_dump() == recipe.model_dump()


def recipe_text(recipe: Recipe) -> str:
    """The recipe as YAML that makes the same; without defaults, deviations, and the folder of a model (a machine's)."""
    said = recipe.model_dump(mode="json", exclude_defaults=True, exclude={"deviations"})
    for step in said["steps"]:
        for value in step.values():
            if "model" in value:
                value["model"] = PurePath(value["model"]).name
    text: str = yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=110)
    if visible(text) != text:  # YAML can say by escapes what nobody would see
        text = yaml.safe_dump(said, sort_keys=False, width=110)
    return text.rstrip("\n")


def funnel(made: Finished) -> Iterator[str]:
    """The way from records to documents kept, line by line, and what became of the duplicates."""
    accounts = made.accounts
    bounds = {rule.name: rule.bounds for rule in made.recipe.rules}
    rows = [
        (
            row.stage,
            code(row.reason) if row.reason else "",
            bounds.get(row.reason, ""),
            f"{row.count:,}",
            f"{row.left:,}",
        )
        if row.reason
        else (f"**{row.stage}**", "", "", "", f"**{row.left:,}**")
        for row in funnel_rows(made)
    ]
    yield table(("", "reason", "keeps", "leave", "remain"), rows, right=2)
    whole = max(1, accounts.documents)
    left = {
        "dropped by a rule, the first that they fail": accounts.dropped,
        "duplicates of one that stays": accounts.duplicates,
        "quarantined, as no parser may meet them or they broke one": accounts.quarantined,
    }
    gone = {why: sum(counts.values()) for why, counts in left.items()}
    yield (
        "\n".join(
            (
                f"* {accounts.kept:,} of {accounts.documents:,} documents are kept ({accounts.kept / whole:.1%});",
                *(f"* {count:,} are {why} ({count / whole:.1%});" for why, count in gone.items() if count),
            )
        ).removesuffix(";")
        + "."
    )
    yield duplicates_said(made)
    if accounts.gate:
        yield f"Gate before the extractor: {gate_line(accounts.gate)}."


def duplicates_said(made: Finished) -> str:
    """How many duplicates were removed, by method, as a share of the documents that passed the rules."""
    found = {name: count for name, count in made.accounts.duplicates.items() if count}
    step = made.recipe.step(Dedup)
    passed = made.accounts.kept + sum(found.values())
    if step is None and not found:
        return "Nobody looked for duplicate documents: the recipe has no step for it."
    if not found:
        return f"No duplicate was found among the {passed:,} documents that passed the rules."
    near = None if step is None else step.minhash
    same = SAME | ({} if near is None else {"minhash": near_said(near)})
    rows = [
        (code(name), same.get(name, ""), f"{found[name]:,}", f"{found[name] / passed:.2%}")
        for name in sorted(found, key=[*same, *sorted(found)].index)
    ]
    said = f"Duplicates among the {passed:,} documents that passed the rules:\n\n"
    said += table(("method", "duplicates are", "removed", "share"), rows, right=2)
    sizes = {int(size): count for size, count in made.dedup.get("clusters", {}).items()}
    if sizes:
        standing, largest = sum(sizes.values()), max(sizes)
        said += f"\n\n{standing:,} of the documents kept stand for others, none for more than {largest - 1:,}."
    return said


def near_said(near: NearDuplicates) -> str:
    """What a recipe takes for near-duplicates."""
    hashed = f"MinHash, {near.bands} bands of {near.rows} rows over {near.ngram}-grams of words"
    if near.threshold is None:
        return f"all that chains of documents with a band in common join ({hashed})"
    alike = f"an estimated Jaccard similarity of {near.threshold:g} or more ({hashed})"
    if near.mode == "greedy":
        return f"documents with {alike} to one that stays"
    return f"all that chains of documents with {alike} join"


def columns(schema: pa.Schema) -> str:
    """Name, type and meaning of each column."""
    rows = [(code(field.name), code(dtype(field.type)), MEANINGS.get(field.name, "")) for field in schema]
    return table(("column", "type", "meaning"), rows)


def limits(made: Finished) -> str:
    """What whoever trains on it should know."""
    edits = ", ".join(code(step.value.edit.name) for step in made.recipe.steps if isinstance(step.value, EditStep))
    unless = f"unless an edit of the recipe ({edits}) took them out" if edits else "for the recipe has no edit"
    said = [
        "The texts are other people's, as they stood on the web: with their errors, opinions, and what may hurt.",
        f"Names, addresses and other personal data stand in the texts wherever they stood on the pages, {unless}.",
        "Nobody looked for the questions of benchmarks in the texts.",
    ]
    if (lines := made.recipe.step(Lines)) is not None:
        said.append(
            f"{code(lines.method)} took out of texts what stood earlier in the same input file; what two files have in "
            "common is in both."
        )
    if made.recipe.rules:
        said.append(
            "The rules measure form (lengths, repetition, characters), not truth. They drop some good pages, above all "
            "of kinds that look unlike prose, and keep some bad ones."
        )
    if made.recipe.step(Language) is not None:
        said.append("`language` is the guess of a model, and worst on short texts and among closely related languages.")
    return "\n".join(f"* {one}" for one in said)


def licence_said(licence: str | None) -> str:
    """The licence, or that there is none yet."""
    if licence is None:
        return (
            "None was stated when this folder was written, and so the front matter says `unknown`. Whoever publishes "
            "the dataset states one there (`license:`) and here."
        )
    return f"{code(licence)}, stated by whoever exported the dataset. The texts are other people's all the same."


def sources(recipe: Recipe) -> str:
    """The papers and code that the recipe's steps are from, each with the places in it; empty where none is."""
    places: dict[tuple[str, str], list[str]] = {}
    papers = [rule.paper for rule in recipe.rules]
    papers += [step.value.edit.paper for step in recipe.steps if isinstance(step.value, EditStep)]
    papers += [lines.paper] if (lines := recipe.step(Lines)) is not None else []
    papers += [MINHASH] if (dedup := recipe.step(Dedup)) is not None and dedup.minhash is not None else []
    for paper in dict.fromkeys(papers):
        places.setdefault((paper.title, paper.url), []).append(paper.where)
    return "\n".join(
        f"* {escaped(name)}. {linked(url)} ({escaped('; '.join(where))})" for (name, url), where in places.items()
    )


def counted(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def visible_line(text: str) -> str:
    """The text in one line, control characters and hidden ones made visible."""
    return visible(" ".join(text.split()))


def escaped(text: str) -> str:
    """The text in one line of Markdown that shows it as it is."""
    return MARKUP.sub(r"\\\1", visible_line(text))


def code(text: str) -> str:
    """The text as code within a line."""
    line = visible_line(text)
    ticks = "`" * (longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def fenced(text: str, language: str) -> str:
    """The text as a block of code."""
    ticks = "`" * max(3, longest_run(text) + 1)
    return f"{ticks}{language}\n{text}\n{ticks}"


def longest_run(text: str) -> int:
    """Length of the longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)


def linked(url: str) -> str:
    """The URL as a link where it is one that a browser opens, else as code."""
    return f"<{url}>" if re.fullmatch(r"https?://[^\s<>\\`]+", url) else code(url)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, right: int = 0) -> str:
    """A table of cells that are Markdown already; the last `right` columns are flush right."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in cells) + " |"

    marks = ["---"] * (len(titles) - right) + ["--:"] * right
    return "\n".join([line(titles), line(marks), *(line(row) for row in rows)])
