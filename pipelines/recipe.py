"""Recipes: YAML, data only, that say what a corpus is made of. Nothing in a recipe names code, paths of code or
machines.

A recipe is a list of steps (`url`, `gate`, `extract`, `language`, `rules`, `edit`, `lines`, `classifier`, `pattern`,
`datatrove`, `dedup`), each a mapping of one key. Names resolve against explicit tuples and installed entry points.
Every error names file, line and the nearest right name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from filters import catalogue, language, pattern, url
from filters.edit import Edit
from filters.errors import RecipeError
from filters.rule import Family, Rule, Signal, Signals
from pipelines import yaml_data
from pipelines.classifier import Classifier
from pipelines.datatrove_filter import Datatrove
from pipelines.dedup.lines import Lines
from pipelines.dedup.step import Dedup
from pipelines.entry_points import installed_edits, installed_families
from pipelines.read import ReadOptions
from pipelines.recipe_data import Data, Name, known_words
from pipelines.recipe_data import known as known
from pipelines.resources import RESOURCES, resource_sha256
from pipelines.words import word_packages

PositiveInt = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Kind = TypeVar("Kind", bound="Data")


class Read(Data):
    """Which records are documents, and how large one may be. The defaults are datatrove's meaning."""

    record_types: list[Literal["response", "conversion", "resource"]] = ["response", "conversion"]
    media_types: list[str] = ["text/html", "application/xhtml+xml"]
    statuses: list[Annotated[list[Annotated[int, Field(ge=100, le=999)]], Field(min_length=2, max_length=2)]] | None = (
        None
    )
    max_body_bytes: Annotated[int, Field(gt=0, le=1 << 30)] = 32 << 20
    max_ratio: Positive = 200.0
    max_text_bytes: PositiveInt = 16 << 20
    text_column: str = "text"
    id_column: str = "id"
    url_column: str = "url"
    date_column: str = "date"

    def options(self) -> ReadOptions:
        """The same as the reader takes it."""
        statuses = None if self.statuses is None else tuple((low, high) for low, high in self.statuses)
        return ReadOptions(
            record_types=tuple(self.record_types),
            media_types=tuple(self.media_types),
            statuses=statuses,
            max_body_bytes=self.max_body_bytes,
            max_ratio=self.max_ratio,
            text_column=self.text_column,
            id_column=self.id_column,
            url_column=self.url_column,
            date_column=self.date_column,
        )


class Url(Data):
    """Drop pages whose URL is on a block list. `case_sensitive` is datatrove's behaviour: words of the URL keep their
    case.
    """

    lists: Literal["datatrove-0.10"] = "datatrove-0.10"
    case_sensitive: bool = True
    soft_words: PositiveInt = 2


class Limits(Data):
    """What a page may have before a parser meets it, and what the parser may use."""

    max_depth: PositiveInt = 5_000
    max_attributes: PositiveInt = 5_000
    max_elements: PositiveInt = 150_000
    deadline_seconds: Annotated[float, Field(gt=0, le=86_400)] = 10.0
    memory_bytes: Annotated[int, Field(ge=512 << 20, le=1 << 50)] = 2 << 30


class Gate(Data):
    """Drop pages that a cheap text shows to be in no wanted language, before the dear extractor meets them.

    Pages below `low` are dropped. A hash sample of them, `sample` of all, is extracted all the same to measure the
    gate's false drops; the sample changes no output.
    """

    low: Fraction = 0.1
    characters: PositiveInt = 3_000
    sample: Fraction = 0.02


class Extract(Data):
    """Main text of a page. Defaults are FineWeb's for trafilatura and DCLM's for resiliparse."""

    engine: Literal["trafilatura", "resiliparse"]
    favor_precision: bool = True
    include_comments: bool = False
    deduplicate: bool = True
    limits: Limits = Limits()

    @property
    def engine_version(self) -> str:
        """Distribution and version, as it enters the recipe's identity."""
        return f"{self.engine} {version(self.engine)}"


class Language(Data):
    """Keep documents whose probability of one of `keep` lies above `above`; an empty `keep` takes any language."""

    model: str = "lid.176.ftz"
    keep: list[str] = ["en"]
    above: Fraction = 0.65
    newline: Literal[" ", ""] = " "


class Bounds(Data):
    """Other bounds for a rule; a side that is left out keeps its own."""

    low: float | None = None
    high: float | None = None


class Rules(Data):
    """Drop documents that fail a rule of these families; `set` moves bounds, `without` leaves rules out."""

    families: list[str]
    words: str = "spacy_english"
    set: dict[str, Bounds] = {}
    without: list[str] = []

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        for name in self.families:
            known(name, [family.name for family in families()], "family of rules")
        known_words(self.words)
        names = [rule.name for family in self.resolved_families for rule in family.rules]
        for name in (*self.set, *self.without):
            known(name, names, "rule of these families")
        if both := sorted(self.set.keys() & set(self.without)):
            raise ValueError(f"{both[0]} stands in `set` and in `without`; take one of them")
        return self

    @property
    def resolved_families(self) -> tuple[Family, ...]:
        """The families by name, in the recipe's order."""
        by_name = {family.name: family for family in families()}
        return tuple(by_name[name] for name in self.families)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in order, with the recipe's bounds."""
        return tuple(
            rule.bounded(low=moved.low, high=moved.high) if (moved := self.set.get(rule.name)) else rule
            for family in self.resolved_families
            for rule in family.rules
            if rule.name not in self.without
        )


class EditStep(Data):
    """Rewrite the text; what the edit notices are signals that later rules read."""

    name: str
    words: str = "spacy_english"

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        known(self.name, [edit.name for edit in edits()], "edit")
        known_words(self.words)
        return self

    @property
    def edit(self) -> Edit:
        """The edit by name."""
        return next(edit for edit in edits() if edit.name == self.name)


class Pattern(Data):
    """Drop documents in which a regular expression (RE2's) matches too often or not often enough.

    The bounds are of the number of matches, or of matches per character. Without bounds nothing is dropped.
    """

    name: Name
    regex: str
    low: float | None = None
    high: float | None = None
    per: Literal["document", "character"] = "document"

    @model_validator(mode="after")
    def _can_be_searched(self) -> Self:
        pattern.compiled(self.regex)
        return self

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What the step measures."""
        return pattern.pattern_signals(self.name)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rule, where there are bounds."""
        if self.low is None and self.high is None:
            return ()
        signal = self.signals[self.per == "character"]
        name = f"pattern.{self.name}"
        return (Rule(name=name, signal=signal, low=self.low, high=self.high, paper=pattern.PAPER),)

    def measure(self, texts: Sequence[str]) -> Signals:
        """Both signals of each text."""
        return pattern.matches(self.name, self.regex, texts)


OwnStep = Classifier | Pattern | Datatrove
"""Steps that bring their signal with them: their name is the recipe's, and there may be several."""
AnyStep = Url | Gate | Extract | Language | Rules | EditStep | Lines | OwnStep | Dedup


class Step(Data):
    """One step; exactly one of its keys is given."""

    url: Url | None = None
    gate: Gate | None = None
    extract: Extract | None = None
    language: Language | None = None
    rules: Rules | None = None
    edit: EditStep | None = None
    lines: Lines | None = None
    classifier: Classifier | None = None
    pattern: Pattern | None = None
    datatrove: Datatrove | None = None
    dedup: Dedup | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a step has exactly one of {', '.join(type(self).model_fields)}; this one has {given}")
        return self

    @property
    def value(self) -> AnyStep:
        """The step itself."""
        found: AnyStep = next(filter(None, (getattr(self, name) for name in type(self).model_fields)))
        return found


class Recipe(Data):
    """What a corpus is made of, from records to Parquet parts."""

    name: str
    says: str
    deviations: list[str] = []
    read: Read = Read()
    steps: list[Step]
    tokenizer: str | None = "gpt2"
    target_bytes: PositiveInt = 512 << 20

    @model_validator(mode="after")
    def _order_makes_sense(self) -> Self:
        kinds = [type(step.value) for step in self.steps]
        for kind in (Url, Gate, Extract, Language, Lines, Dedup):
            if kinds.count(kind) > 1:
                raise ValueError(f"{kind.__name__.lower()} stands {kinds.count(kind)} times; once is enough")
        if Gate in kinds and (Language not in kinds or Extract not in kinds):
            raise ValueError("a gate needs an extract and a language step: it asks for the same languages")
        if Dedup in kinds[:-1]:
            raise ValueError("copies are looked for among the documents that pass the rules: put dedup last")
        on_text = (Rules, EditStep, Lines, Classifier, Pattern, Datatrove)
        judged = [index for index, kind in enumerate(kinds) if kind in on_text]
        if judged and any(kind not in (*on_text, Dedup) for kind in kinds[judged[0] :]):
            raise ValueError(
                "url, gate, extract and language end a document's way at once: put them before rules and edit"
            )
        texts = [index for index, kind in enumerate(kinds) if kind in (Language, *on_text)]
        if Extract in kinds and texts and kinds.index(Extract) > texts[0]:
            raise ValueError("language, rules and edit work on text: put extract before them")
        if Url in kinds and Gate in kinds and kinds.index(Gate) < kinds.index(Url):
            raise ValueError("a URL is looked up at no cost: put url before gate")
        if Extract in kinds and Gate in kinds and kinds.index(Gate) > kinds.index(Extract):
            raise ValueError("the gate spares the extractor: put gate before extract")
        for rule in self.rules:
            if rule.low is not None and rule.high is not None and rule.low > rule.high:
                raise ValueError(f"{rule.name} would keep {rule.bounds}, which is nothing: low lies above high")
        names = [rule.name for rule in self.rules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the same rule stands twice: {', '.join(twice)}")
        own = [signal.name for step in self.steps if isinstance(step.value, OwnStep) for signal in step.value.signals]
        if twice := sorted({name for name in own if own.count(name) > 1}):
            raise ValueError(f"two steps measure {twice[0]}: give each a `name` of its own")
        if self.tokenizer is not None:
            known(self.tokenizer, ["gpt2"], "tokenizer")
        return self

    def step(self, kind: type[Kind]) -> Kind | None:
        """The step of this kind, if the recipe has one."""
        return next((step.value for step in self.steps if isinstance(step.value, kind)), None)

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """Every rule that can drop a document, in recipe order: the first that fails is the reason."""
        return tuple(rule for step in self.steps for rule in step_rules(step.value))

    @cached_property
    def words(self) -> str:
        """The word splitter of the first step that has one."""
        named = (step.value.words for step in self.steps if isinstance(step.value, Rules | EditStep))
        return next(named, "spacy_english")

    @cached_property
    def packages(self) -> list[str]:
        """The distributions whose release bears on what this recipe makes."""
        names = {"resiliparse"}  # decodes characters, whatever extracts
        for step in self.steps:
            value = step.value
            if isinstance(value, Url):
                names |= {"datatrove", "tldextract", "pyahocorasick"}
            elif isinstance(value, Extract):
                names |= {"lxml", value.engine}
            elif isinstance(value, Language | Classifier):
                names |= {"fasttext-numpy2"}
            elif isinstance(value, Pattern):
                names |= {"google-re2"}
            elif isinstance(value, Datatrove):
                names |= value.packages
            elif isinstance(value, Lines | Dedup):
                names |= {"xxhash", "tldextract"} if isinstance(value, Dedup) else {"xxhash"}
            if isinstance(value, Rules | EditStep | Lines | Dedup):
                for words in used_words(value):
                    names |= word_packages(words)
            if isinstance(value, Rules | EditStep):
                names |= added_by(value)
        return sorted(names | ({"tiktoken"} if self.tokenizer else set()))

    @property
    def models(self) -> tuple[tuple[str, str], ...]:
        """The models that the recipe names by a path, with their sha256: every machine needs them."""
        found = (step.value for step in self.steps if isinstance(step.value, Classifier))
        return tuple(dict.fromkeys((step.model, step.sha256) for step in found))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that bears on the output and nothing else: parameters, rules, revisions, versions, sha256 of
        models.
        """
        steps = []
        for step in self.steps:
            value = step.value
            said: dict[str, Any] = {
                "step": type(value).__name__,
                **(
                    value.identity
                    if isinstance(value, Lines)
                    else value.model_dump(exclude=NOT_IDENTITY.get(type(value)))
                ),
            }
            said["rules"] = [
                [rule.name, rule.signal.name, rule.signal.revision, rule.low, rule.high, rule.low_open, rule.high_open]
                for rule in step_rules(value)
            ]
            if isinstance(value, Extract):
                said["engine"] = value.engine_version
            if isinstance(value, EditStep):
                said["revision"] = value.edit.revision
            if isinstance(value, Language):
                said["sha256"] = resource_sha256(value.model)
            steps.append(said)
        tokenizer = None if self.tokenizer is None else [self.tokenizer, RESOURCES["gpt2/vocab.bpe"].sha256]
        return {
            "format": FORMAT,
            "read": self.read.model_dump(),
            "steps": steps,
            "tokenizer": tokenizer,
            "versions": {name: version(name) for name in self.packages},
        }

    @cached_property
    def sha256(self) -> str:
        """Hash of the identity; the name and the prose do not enter it."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    @cached_property
    def process_sha256(self) -> str:
        """The same of what bears on single documents: from a dedup step only what is stored of each to compare them."""
        if (dedup := self.step(Dedup)) is None:
            return self.sha256
        steps = [*self.identity["steps"][:-1], {"step": "Dedup", **dedup.fingerprints}]
        return hashlib.sha256(json.dumps({**self.identity, "steps": steps}, sort_keys=True).encode()).hexdigest()


FORMAT = 1
"""Raise when the meaning of stored files changes; it enters every task's identity."""


# A model is what its sha256 says, wherever it lies; bounds and rules left out show in the rules.
NOT_IDENTITY: Mapping[type[Data], set[str]] = {
    Rules: {"set", "without"},
    Classifier: {"model"},
    Dedup: {"alarm"},
}


def used_words(step: Rules | EditStep | Lines | Dedup) -> set[str]:
    """The word splitters that a step uses: its own, and those that its families or its edit fix."""
    if isinstance(step, Lines):
        return {step.splitter}
    if isinstance(step, Dedup):
        return set() if step.minhash is None else {step.minhash.words}
    fixed = {step.edit.words} if isinstance(step, EditStep) else {family.words for family in step.resolved_families}
    return {words or step.words for words in fixed}


def families() -> tuple[Family, ...]:
    """Every family that a recipe can name: ours, then those that other distributions add."""
    return (*catalogue.FAMILIES, *(one.value for one in installed_families()))


def edits() -> tuple[Edit, ...]:
    """Every edit that a recipe can name: ours, then those that other distributions add."""
    return (*catalogue.EDITS, *(one.value for one in installed_edits()))


def added_by(step: Rules | EditStep) -> set[str]:
    """The distributions that add a family or the edit of this step."""
    if isinstance(step, EditStep):
        return {one.distribution for one in installed_edits() if one.value.name == step.name}
    return {one.distribution for one in installed_families() if one.value.name in step.families}


def step_rules(step: AnyStep) -> tuple[Rule, ...]:
    """The rules that one step applies, in order."""
    if isinstance(step, Url):
        return tuple(
            rule.bounded(low=None, high=step.soft_words - 1) if rule.name == "url.soft_words" else rule
            for rule in url.RULES
        )
    if isinstance(step, Gate):
        return (language.GATED.bounded(low=step.low, high=None),)
    if isinstance(step, Extract):
        return (language.EXTRACTED,)
    if isinstance(step, Language):
        return (language.IN_LANGUAGE.bounded(low=step.above, high=None),)
    return () if isinstance(step, EditStep | Dedup) else step.rules


ALIASES = {"fineweb": "fineweb@datatrove-0.10"}


def recipe_names() -> list[str]:
    """Names of the recipes that come with Gristmill."""
    folder = files("pipelines") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(name: str) -> Recipe:
    """Return the recipe of this name, or of this YAML file where it ends in .yaml or .yml.

    Raises RecipeError with file, line and the nearest right name.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        try:
            return parse_recipe(path.read_text(encoding="utf-8"), where=name, folder=path.parent)
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"{name}: cannot be read ({error}). Check the path, or see `gristmill recipes`."
            ) from error
    names = recipe_names()
    resolved = ALIASES.get(name, name)
    if resolved not in names:
        hint = yaml_data.nearest(name, [*names, *ALIASES])
        raise RecipeError(f"no recipe is called {name!r}{hint} (`gristmill recipes` lists them; a file ends in .yaml.)")
    text = (files("pipelines") / "recipes" / f"{resolved}.yaml").read_text(encoding="utf-8")
    return parse_recipe(text, where=f"{resolved}.yaml")


def parse_recipe(text: str, *, where: str, folder: Path = Path()) -> Recipe:
    """Return the recipe in `text`; errors name `where` and the line. Relative paths in it lie below `folder`."""
    data, lines = yaml_data.load(text, where=where)
    try:
        return Recipe.model_validate(data, context={"folder": folder})
    except ValidationError as error:
        raise RecipeError("\n".join(yaml_data.located(error, lines, where=where, model=Recipe))) from error
