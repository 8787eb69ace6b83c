"""An arm by its rules: which documents of an annotated run it keeps, from the stored signals; no text is read.

A mask is terms parted by commas, in the words of `gristmill whatif`:

    all                   every document that has a text; stands alone
    rules                 what the rules of the run keep
    without:RULE          the same without one of them
    set:RULE.low=NUMBER   the same with a bound moved; `high` likewise
    with:RULE[@VIEW]      the same and a rule of the catalogue whose signal is stored
    only:RULE             this rule and those of other `only:` terms, and no others
    uncontaminated        no document with an item of the panel or tasks last looked for (infra/contamination.py)

Copies are no matter of rules: what deduplication took from the run comes back in every mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from filters.errors import InputError
from filters.rule import Bools
from infra.annotated import parts, processes_for, run_rules
from infra.contamination import clean_mask
from infra.pool import run_of
from infra.processes import processes
from infra.run import Finished
from infra.signal_rows import Part, Ruled, groups, verdicts
from infra.what_if import changed_rules
from pipelines.yaml_data import nearest

ALL, RULES, UNCONTAMINATED = "all", "rules", "uncontaminated"
KINDS = ("without", "set", "with", "only")
TERMS = f"`{ALL}`, `{RULES}`, `without:RULE`, `set:RULE.low=3.5`, `with:RULE`, `only:RULE` and `{UNCONTAMINATED}`"


def arm_mask(pool: str, said: Mapping[str, Any], mask: str, *, workers: int = 1) -> Bools | None:
    """The documents of a pool that a mask keeps; None: all. `said` is what pool.json says.

    Raises InputError for a mask that is none, and where the run that the pool was made of is not there.
    """
    terms = [term.strip() for term in mask.split(",")]
    rest = ",".join(term for term in terms if term != UNCONTAMINATED) or ALL
    made = None if rest == ALL else run_of(pool, said)
    ruled = None if made is None else mask_rules(made, rest)
    kept = None if made is None or ruled is None else kept_by(made, ruled, workers=workers)
    if UNCONTAMINATED not in terms:
        return kept
    clean = clean_mask(pool, said)
    return clean if kept is None else kept & clean


def mask_rules(made: Finished, said: str) -> Ruled | None:
    """The rules of a mask with their columns; None for `all`, which has none.

    Raises InputError for a term that is unknown, and for what stored numbers cannot answer (infra/what_if.py).
    """
    terms = [term.strip() for term in said.split(",")]
    if terms == [ALL]:
        return None
    asked: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for term in terms:
        kind, colon, value = term.partition(":")
        if colon and value and kind in asked:
            asked[kind].append(value)
        elif term != RULES:
            alone = f"--mask {said}: `{ALL}` keeps every document, whatever stands beside it; let it stand alone."
            hint = nearest(kind, (ALL, RULES, UNCONTAMINATED, *KINDS))
            unknown = f"--mask {said}: {term!r} is no term{hint} There are {TERMS}, parted by commas."
            raise InputError(alone if term == ALL else unknown)
    without, added = asked["without"], asked["with"]
    if asked["only"]:
        if without or added or RULES in terms:
            raise InputError(
                f"--mask {said}: `only:` names all the rules there are; leave out the others, and `rules`."
            )
        own = [rule.name for rule, _ in run_rules(made)]
        without = [name for name in own if name not in asked["only"]]
        added = [name for name in asked["only"] if name not in own]
    return changed_rules(made, bounds=asked["set"], without=without, added=added)


def kept_by(made: Finished, ruled: Ruled, *, workers: int = 1) -> Bools:
    """True for each document of `signals/`, part by part in their rows' order, that every rule was measured on and
    keeps. One byte a document. Raises VerifyFailed where a part cannot be read.
    """
    with processes(processes_for([made], workers)) as each_of:
        found = list(each_of(partial(kept_in, ruled=ruled), parts(made)))
    return np.concatenate(found) if found else np.zeros(0, np.bool_)


def kept_in(part: Part, *, ruled: Ruled) -> Bools:
    """The same for one part."""
    found = [verdicts(table, ruled).kept for table in groups(part, [name for _, name in ruled])]
    return np.concatenate(found) if found else np.zeros(0, np.bool_)
