"""Every family of rules and every edit that a recipe can name."""

from __future__ import annotations

from filters import (
    bigscience,
    c4,
    c4_t5,
    ccnet,
    dclm,
    dolma,
    dolma3,
    fineweb,
    fineweb2_languages,
    gopher,
    madlad,
    matrix_en,
    matrix_zh,
    oscar,
    redpajama,
    refinedweb,
    starcoder,
)
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
    c4_t5.QUALITY,
    c4_t5.PAPER_QUALITY,
    refinedweb.QUALITY,
    dclm.QUALITY,
    dolma.QUALITY,
    dolma3.QUALITY,
    dolma3.REMOVAL,
    madlad.QUALITY,
    redpajama.QUALITY,
    matrix_en.QUALITY,
    matrix_zh.QUALITY,
    bigscience.QUALITY,
    bigscience.ENGLISH,
    oscar.QUALITY,
    ccnet.QUALITY,
    starcoder.QUALITY,
    starcoder.DATA,
    *fineweb2_languages.FAMILIES,
)
EDITS: tuple[Edit, ...] = (
    c4.LINES,
    c4_t5.LINES,
    c4_t5.PAPER_LINES,
    refinedweb.LINES,
    dolma3.EDIT,
    matrix_zh.TEXT,
    oscar.EDIT,
)
