"""The account of a task, a stage or a run: every record, document and byte in exactly one place.

records = documents + skipped + damaged
documents = kept + dropped + duplicates + quarantined
input bytes = bytes of records + unreadable bytes
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from filters.errors import VerifyFailed

Counts = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """Counts of records and documents by what became of them, and bytes of input.

    `failed` counts documents by every rule that they fail, not only by the first: it enters no equation. `gate`
    holds the documents that the gate stopped, how many of them were extracted all the same, and how many of those
    were in a wanted language. `tokens` and `characters` are those of kept documents as published, `raw_characters`
    those of all annotated ones before edits.
    """

    records: int = 0
    documents: int = 0
    kept: int = 0
    skipped: Counts = field(default_factory=dict)
    damaged: Counts = field(default_factory=dict)
    dropped: Counts = field(default_factory=dict)
    duplicates: Counts = field(default_factory=dict)
    quarantined: Counts = field(default_factory=dict)
    failed: Counts = field(default_factory=dict)
    gate: Counts = field(default_factory=dict)
    input_bytes: int = 0
    record_bytes: int = 0
    unreadable: Counts = field(default_factory=dict)
    tokens: int = 0
    characters: int = 0
    raw_characters: int = 0

    def __add__(self, other: Accounts) -> Accounts:
        return total((self, other))

    def checked(self, where: str) -> Self:
        """Return self. Raises VerifyFailed naming `where` and the equation that does not hold."""
        equations: tuple[tuple[str, int, tuple[int | Counts, ...]], ...] = (
            ("records = documents + skipped + damaged", self.records, (self.documents, self.skipped, self.damaged)),
            (
                "documents = kept + dropped + duplicates + quarantined",
                self.documents,
                (self.kept, self.dropped, self.duplicates, self.quarantined),
            ),
            ("input bytes = bytes of records + unreadable", self.input_bytes, (self.record_bytes, self.unreadable)),
        )
        for equation, left, parts in equations:
            right = sum(part if isinstance(part, int) else sum(part.values()) for part in parts)
            if left != right:
                raise VerifyFailed(f"{where}: {equation} does not hold: {left:,} is not {right:,}.")
        return self

    def as_json(self) -> dict[str, Any]:
        """Plain data: keys of counts sorted, zeros left out."""
        said = {name: getattr(self, name) for name in COUNTED}
        return {
            name: {reason: count for reason, count in sorted(value.items()) if count}
            if isinstance(value, Mapping)
            else value
            for name, value in said.items()
        }

    def funnel(self) -> dict[str, Any]:
        """What `inspect --json` prints: counts by reason, `damaged` and unreadable bytes as totals."""
        said = self.as_json()
        shown = ("records", "skipped", "documents", "kept", "dropped", "duplicates", "quarantined")
        return {
            **{name: said[name] for name in shown},
            "damaged": sum(self.damaged.values()),
            "damaged_by_reason": said["damaged"],
            "unreadable_bytes": sum(self.unreadable.values()),
            "unreadable_by_reason": said["unreadable"],
            "input_bytes": self.input_bytes,
            "failed_any": said["failed"],
            "gate": said["gate"],
            "tokens": self.tokens,
            "characters": self.characters,
        }


COUNTED = tuple(one.name for one in fields(Accounts))
NUMBERS = tuple(one.name for one in fields(Accounts) if one.default == 0)
COUNTS = tuple(name for name in COUNTED if name not in NUMBERS)


def total(accounts: Iterable[Accounts]) -> Accounts:
    """The sum of accounts, count by count."""
    numbers = dict.fromkeys(NUMBERS, 0)
    counts: dict[str, dict[str, int]] = {name: {} for name in COUNTS}
    for one in accounts:
        for name in NUMBERS:
            numbers[name] += getattr(one, name)
        for name in COUNTS:
            held = counts[name]
            for reason, count in getattr(one, name).items():
                held[reason] = held.get(reason, 0) + count
    return Accounts(**numbers, **counts)  # type: ignore[arg-type]
