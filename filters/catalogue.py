"""Every family of rules and every edit that a recipe can name."""

from __future__ import annotations

from filters import c4, fineweb, gopher
from filters.edit import Edit
from filters.rule import Family

FAMILIES: tuple[Family, ...] = (
    gopher.REPETITION,
    gopher.QUALITY,
    c4.QUALITY,
    fineweb.QUALITY,
    gopher.REPETITION_2024_04,
    gopher.QUALITY_2024_04,
    fineweb.QUALITY_2024_04,
    fineweb.QUALITY_PAPER,
)
EDITS: tuple[Edit, ...] = (c4.LINES,)
