"""The `dedup` step of a recipe: which documents count as the same, and which of them stays.

It stands last: copies are looked for among the documents that pass the rules, so that a document that a rule drops
never takes its copies with it. By URL first, then by text, then near-duplicates, each among what the one before left.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipelines.dedup.minhash import PROFILES, MinHash
from pipelines.dedup.simplified import Numbers
from pipelines.recipe_data import Data, known_words

PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Preference = Literal["longest", "shortest", "newest", "oldest", "earliest_dump"]
ProfileName = Literal[
    "datatrove", "fineweb", "slimpajama", "redpajama-v2@0.8", "redpajama-v2@0.7", "refinedweb", "dolma3", "starcoder"
]
SPEAKS_OF = {
    "longest": "length",
    "shortest": "length",
    "newest": "date",
    "oldest": "date",
    "earliest_dump": "dump",
}

EXACT = ("url", "text", "twin")
"""Methods that compare 128-bit hashes, in the order in which they are applied. Twins have one whole signature."""
METHODS = (*EXACT, "minhash")
BEFORE_PAIRS = (*EXACT, "earlier", "hashes")
BEFORE_EDGES = ("pairs", "firsts", "attach", "seconds")
"""Stages of `infra.dedup_work`, by how much of the step bears on them."""
REVISION = 1
"""Raise where the same step would find other copies, or store them otherwise."""


class ByUrl(Data):
    """Of the documents of one normalised URL the newest stays, or the oldest; where dates are equal, `precedence`
    decides.
    """

    keep: Literal["newest", "oldest"] = "newest"


class ByText(Data):
    """Of documents whose texts are equal but for case and white space the preferred one stays."""


class NearDuplicates(Data):
    """MinHash LSH (Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, §3.4). The defaults are
    FineWeb's with datatrove's faster hash.

    profile: what others used (`pipelines.dedup.minhash.PROFILES`); what is set beside it counts. numbers: zero, as in
    datatrove, makes each number 0, so that documents that differ in figures alone are the same; keep compares figures.
    threshold: least Jaccard similarity, estimated from sketches, at which a candidate pair counts; null: every
    candidate pair does. greedy: a document falls if, and only if, a document that stays is that similar to it.
    components: of everything joined by chains of pairs one stays; with `survivor: datatrove` the one that datatrove
    0.10.1 would keep, which needs `threshold: null`. bucket_cap: with how many documents of its bucket, the preferred
    ones, a document is compared.
    """

    profile: Annotated[ProfileName | None, Field(exclude=True)] = None
    ngram: PositiveInt = 5
    bands: PositiveInt = 14
    rows: PositiveInt = 8
    hash: Literal["xxhash64", "sha1"] = "xxhash64"
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 1
    numbers: Numbers = "zero"
    words: str = "spacy_english"
    threshold: Fraction | None = 0.75
    mode: Literal["greedy", "components"] = "greedy"
    survivor: Literal["preferred", "datatrove"] = "preferred"
    bucket_cap: Annotated[int, Field(gt=0, le=1 << 16)] = 64

    @model_validator(mode="before")
    @classmethod
    def _profile_written_out(cls, said: Any) -> Any:
        """So that a recipe is what it asks for, and not what that is called."""
        if not isinstance(said, dict) or said.get("profile") not in PROFILES:
            return said
        return asdict(PROFILES[said["profile"]]) | {name: value for name, value in said.items() if name != "profile"}

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        known_words(self.words)
        if self.bands * self.rows >= 1 << 16:
            raise ValueError(
                f"a signature of {self.bands} x {self.rows} hashes: at most 65,535, so that matches fit 16 bits"
            )
        return self

    @model_validator(mode="after")
    def _survivor_can_be_had(self) -> Self:
        if self.survivor == "datatrove" and (self.mode != "components" or self.threshold is not None):
            raise ValueError(
                "survivor: datatrove is that of unverified components: set mode: components, threshold: null"
            )
        if self.mode == "greedy" and self.threshold is None:
            raise ValueError(
                "greedy needs a threshold: only verified pairs are worth a document. Or set mode: components"
            )
        return self

    @property
    def values_bytes(self) -> int:
        """Bytes of a band's minima, which are stored where datatrove's survivors are asked for, and else not."""
        return 8 * self.rows if self.survivor == "datatrove" else 0

    @property
    def band_bytes(self) -> int:
        """Bytes of a row of bands: hash, document, order, tie, and the minima where they are stored."""
        return 28 + self.values_bytes

    @property
    def parameters(self) -> MinHash:
        """What signatures depend on."""
        return MinHash(
            ngram=self.ngram, bands=self.bands, rows=self.rows, hash=self.hash, seed=self.seed, numbers=self.numbers
        )


class Alarm(Data):
    """Stop where one domain with all its hosts, or one folder of input files, of at least `documents` documents loses
    more than `fraction` of them: that is rarely what was meant.
    """

    fraction: Fraction = 0.9
    documents: PositiveInt = 1000


class Dedup(Data):
    """Remove copies. `precedence` says which of several stays; where all of it is equal, the smallest id."""

    url: ByUrl | None = None
    text: ByText | None = None
    minhash: NearDuplicates | None = None
    precedence: Annotated[list[Preference], Field(min_length=1, max_length=2)] = ["longest", "newest"]
    alarm: Alarm = Alarm()

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if self.url is None and self.text is None and self.minhash is None:
            raise ValueError("dedup needs at least one of url, text, minhash")
        if len({SPEAKS_OF[name] for name in self.precedence}) < len(self.precedence):
            raise ValueError(f"{' and '.join(self.precedence)} speak of the same; name one of them")
        return self

    @property
    def exact(self) -> tuple[str, ...]:
        """The exact methods of this step, in order. Twins are found wherever near-duplicates are verified."""
        verified = self.minhash is not None and self.minhash.threshold is not None
        given = {"url": self.url is not None, "text": self.text is not None, "twin": verified}
        return tuple(method for method in EXACT if given[method])

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that bears on what is removed."""
        return self.model_dump(exclude={"alarm"}) | {"revision": REVISION}

    def identity_for(self, kind: str) -> dict[str, Any]:
        """What of it bears on one stage: copies and pairs do not depend on the threshold, nor on what is chosen."""
        if kind == "shares":
            return self.identity | {"alarm": self.alarm.model_dump()}
        if kind in BEFORE_PAIRS or kind.startswith(("index_", "after_")):
            return self.fingerprints
        if kind in BEFORE_EDGES:
            return self.fingerprints | {"bucket_cap": None if self.minhash is None else self.minhash.bucket_cap}
        return self.identity

    @property
    def fingerprints(self) -> dict[str, Any]:
        """Everything that bears on what is stored of each document: all else may change without reading texts."""
        said = self.model_dump(include={"url", "precedence"}) | {"text": self.text is not None, "revision": REVISION}
        if self.minhash is not None:
            said["minhash"] = self.minhash.model_dump(
                include={"ngram", "bands", "rows", "hash", "seed", "numbers", "words", "survivor"}
            )
        return said
