"""The arms of an experiment: which documents each reads, what its rule removes, and the placebos beside them.

The control reads what the base mask keeps, but for a share of the documents that nobody reads: they are the planted
garbage, which one placebo reads with their tokens shuffled. The rule that removes exactly these gives the control back,
document by document. Memory: a pool's columns, one byte a document for each distinct mask, one bit for each arm's.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from filters.errors import InputError
from filters.rule import Bools
from infra.work import identity
from proxy_eval.effects import ENDPOINTS
from proxy_eval.experiment import CONTROL, Experiment, terms
from proxy_eval.experiment import Arm as SaidArm
from proxy_eval.stream import MAX_EPOCHS, random_mask

if TYPE_CHECKING:
    from proxy_eval.pool import Pool

Kind = Literal["control", "arm", "matched", "same", "random", "garbage"]
MaskOf = Callable[[str, str], Bools | None]
"""Of a pool's URL and a mask: the documents it keeps; None: all."""

MATCHED = "matched:"
GARBAGE = "garbage"
"""Salt of the hash that chooses the planted documents."""
FEWEST = 20
"""Planted documents that a run should read; of fewer the share that it reads varies by more than a fifth."""
RANDOM_BOUNDS = (0.02, 0.5)
"""Of the share that random removal takes: so little would be no test, so much would change the epochs."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Documents that have a text, and their tokens with an end token for each."""

    documents: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Yield:
    """What a mask takes away from the control's documents and adds to them; of a single rule what it removes that the
    other rules would leave (`alone`), and what it removes of all documents (`at_all`).
    """

    lost: Volume
    gained: Volume
    alone: Volume | None = None
    at_all: Volume | None = None


NONE = Volume(documents=0, tokens=0)
NOTHING = Yield(lost=NONE, gained=NONE)


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmPlan:
    """An arm: the pool and the documents that it reads (`bits`: packed, of `count`), some of them shuffled."""

    name: str
    kind: Kind
    pool: str
    pool_sha256: str
    said: str
    in_base: bool
    reads: Volume
    changes: Yield
    count: int
    bits: bytes
    shuffled: bytes | None = None
    of: str | None = None  # of a matched removal: the arm that it is matched to

    @property
    def mask(self) -> Bools:
        """True for the documents that it reads."""
        return unpacked(self.bits, self.count)

    @property
    def shuffled_mask(self) -> Bools:
        """True for the documents whose tokens it reads shuffled."""
        return np.zeros(self.count, np.bool_) if self.shuffled is None else unpacked(self.shuffled, self.count)

    @property
    def identity(self) -> str:
        """Hash of what it reads, and of the side on which its rule stands."""
        shuffled = None if self.shuffled is None else hashlib.sha256(self.shuffled).hexdigest()
        return identity(self.pool_sha256, hashlib.sha256(self.bits).hexdigest(), shuffled, self.in_base)

    def epochs(self, tokens: int) -> float:
        """How often its documents are read on so many tokens."""
        return tokens / self.reads.tokens


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a run may read of what a rule changes: documents in the mean over seeds, and their share of its tokens."""

    documents: float
    share: float


def seen(arm: ArmPlan, control: ArmPlan, tokens: int) -> Seen | None:
    """What a run of so many tokens reads of what the arm has and the control has not, or the reverse, whichever is
    more; None where every document may differ, being of another view.
    """
    if arm.pool_sha256 != control.pool_sha256:
        return None
    sides = ((arm.changes.gained, arm), (arm.changes.lost, control))
    found = [
        Seen(documents=part.documents * min(1.0, reader.epochs(tokens)), share=part.tokens / reader.reads.tokens)
        for part, reader in sides
    ]
    return max(found, key=lambda one: one.share)


def planned_arms(experiment: Experiment, open_pool: Callable[[str], Pool], mask_of: MaskOf) -> tuple[ArmPlan, ...]:
    """The control, the arms of the file, matched removals where one comes round again, and the placebos."""
    pool, share = open_pool(experiment.pool), experiment.placebos.garbage

    @cache
    def kept(url: str, mask: str) -> Bools:
        found, opened = mask_of(url, mask), open_pool(url)
        return opened.counts > 0 if found is None else found & (opened.counts > 0)

    base = kept(experiment.pool, experiment.base)
    read = base & random_mask(pool, share, GARBAGE)
    control = arm_plan(CONTROL, "control", experiment.pool, pool, experiment.base, read, NOTHING)
    arms = []
    for one in experiment.arms:
        url, said = one.pool or experiment.pool, one.mask or experiment.base
        opened = open_pool(url)
        if opened.tokenizer.sha256 != pool.tokenizer.sha256:
            raise InputError(
                f"arm {one.name}: {url} has another tokenizer than {experiment.pool}. Make both with one: gristmill "
                f"pool OUT --tokenizer {experiment.pool}/tokenizer.json"
            )
        mask = kept(url, said) & random_mask(opened, share, GARBAGE)
        alone, at_all = rule_yield(one, experiment, pool, kept)
        changes = replace(difference(pool, read, opened, mask), alone=alone, at_all=at_all)
        arms.append(arm_plan(one.name, "arm", url, opened, said, mask, changes, in_base=one.in_base))
    refuse_idle(arms, pool.sha256)
    matched = [matched_arm(one, control, open_pool) for one in arms if repeats(one, control, experiment)]
    removed = experiment.placebos.random or random_share(arms, control)
    every = (control, *arms, *matched, *placebo_arms(control, pool, base, share=share, removed=removed))
    check_epochs(experiment, every)
    check_garbage(experiment, every[-1])
    return every


def placebo_arms(control: ArmPlan, pool: Pool, base: Bools, *, share: float, removed: float) -> tuple[ArmPlan, ...]:
    """The control again, a random part of it, and all that the base keeps with the `share` that no other arm reads,
    shuffled.
    """
    read = control.mask
    some, garbage = read & random_mask(pool, removed, "random"), ~random_mask(pool, share, GARBAGE)
    return (
        replace(control, name="same", kind="same"),
        arm_plan(
            "random",
            "random",
            control.pool,
            pool,
            f"{control.said}, {removed:.1%} removed at random",
            some,
            difference(pool, read, pool, some),
        ),
        arm_plan(
            "garbage",
            "garbage",
            control.pool,
            pool,
            f"{control.said}, {share:.1%} of it shuffled",
            base,
            difference(pool, read, pool, base),
            in_base=True,
            shuffled=np.packbits(garbage).tobytes(),
        ),
    )


def arm_plan(
    name: str, kind: Kind, url: str, pool: Pool, said: str, mask: Bools, changes: Yield, **more: Any
) -> ArmPlan:
    """An arm with its volume. Raises InputError where its mask keeps nothing."""
    reads = volume(pool, mask)
    if reads.documents == 0:
        raise InputError(f"arm {name}: {said} keeps no document that has a text. Loosen the rules, or leave it out.")
    return ArmPlan(
        **{"in_base": False, **more},
        name=name,
        kind=kind,
        pool=url,
        pool_sha256=pool.sha256,
        said=said,
        reads=reads,
        changes=changes,
        count=len(pool),
        bits=np.packbits(mask).tobytes(),
    )


def difference(pool: Pool, control: Bools, other: Pool, mask: Bools) -> Yield:
    """What a mask takes from the control's documents and adds to them; in another pool a document is known by its key,
    which is that of the page, whatever was made of it.
    """
    if other is pool:
        return Yield(lost=volume(pool, control & ~mask), gained=volume(pool, mask & ~control))
    lost = control & ~np.isin(pool.keys, other.keys[mask])
    return Yield(lost=volume(pool, lost), gained=volume(other, mask & ~np.isin(other.keys, pool.keys[control])))


def unpacked(bits: bytes, count: int) -> Bools:
    """A mask of so many documents from its bits."""
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=count).view(np.bool_)


def volume(pool: Pool, mask: Bools) -> Volume:
    """Of the documents of a mask."""
    counts = pool.counts[mask]
    documents = int(np.count_nonzero(counts))
    return Volume(documents=documents, tokens=int(counts.sum()) + documents)


def rule_yield(
    arm: SaidArm, experiment: Experiment, pool: Pool, kept: Callable[[str, str], Bools]
) -> tuple[Volume | None, Volume | None]:
    """What the arm's rule removes that the others of the run leave, and what it removes of all documents; None where
    the arm is no single rule of the experiment's pool.
    """
    new = [term for term in terms(arm.mask or "") if term not in terms(experiment.base)]
    kind, _, rule = new[-1].partition(":") if new else ("", "", "")
    if arm.pool is not None or len(new) != 1 or kind not in ("without", "with", "only") or not rule:
        return None, None
    text, only = pool.counts > 0, kept(experiment.pool, f"only:{rule}")
    rules, other = kept(experiment.pool, "rules"), f"{'with' if kind == 'with' else 'without'}:{rule}"
    try:
        beside = kept(experiment.pool, other)
    except InputError:  # `only:` names a rule of the catalogue that is none of the run's
        beside = kept(experiment.pool, f"with:{rule}")
    return volume(pool, rules ^ beside), volume(pool, text & ~only)


def refuse_idle(arms: Sequence[ArmPlan], pool_sha256: str) -> None:
    """Raise InputError naming the arms that read just what the control reads: there is nothing to judge."""
    idle = [one.name for one in arms if one.pool_sha256 == pool_sha256 and unchanged(one.changes)]
    if idle:
        raise InputError(
            f"{', '.join(idle)}: on this pool the rule removes no document that the control reads, nor lets one in. "
            "Leave the arm out; a rule that changes nothing here is neither good nor bad here."
        )


def unchanged(changes: Yield) -> bool:
    """True where nothing is lost and nothing gained."""
    return changes.lost.documents == 0 and changes.gained.documents == 0


def repeats(arm: ArmPlan, control: ArmPlan, experiment: Experiment) -> bool:
    """True where the smaller of the two comes round again at some rung."""
    less, more = by_size(arm, control)
    return less.epochs(max(rung.tokens for rung in experiment.rungs)) > 1 and less.reads.tokens < more.reads.tokens


def by_size(arm: ArmPlan, control: ArmPlan) -> tuple[ArmPlan, ArmPlan]:
    """The two, that which has fewer tokens to read first: the arm, or the control where the rule is left out."""
    return (control, arm) if control.reads.tokens < arm.reads.tokens else (arm, control)


def matched_arm(arm: ArmPlan, control: ArmPlan, open_pool: Callable[[str], Pool]) -> ArmPlan:
    """What the larger of the two reads, but for as many tokens removed at random as leave those of the smaller, to a
    document or so.
    """
    less, more = by_size(arm, control)
    pool, salt, mask = open_pool(more.pool), f"matched {arm.name}", more.mask
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        kept = volume(pool, mask & random_mask(pool, middle, salt)).tokens
        low, high = (middle, high) if kept > less.reads.tokens else (low, middle)
    found = mask & random_mask(pool, low, salt)
    said = f"{more.said}, as many tokens removed at random as leave {less.name}'s"
    changes = difference(open_pool(control.pool), control.mask, pool, found)
    name, sides = MATCHED + arm.name, {"of": arm.name, "in_base": arm.in_base}  # its effect has the sign of the arm's
    return arm_plan(name, "matched", more.pool, pool, said, found, changes, **sides)


def random_share(arms: Sequence[ArmPlan], control: ArmPlan) -> float:
    """The median over arms of the share of the tokens by which they differ from the control, within RANDOM_BOUNDS."""
    shares = [
        max(one.changes.lost.tokens, one.changes.gained.tokens) / max(one.reads.tokens, control.reads.tokens)
        for one in arms
    ]
    return float(np.clip(np.median(shares), *RANDOM_BOUNDS))


def check_epochs(experiment: Experiment, arms: Sequence[ArmPlan]) -> None:
    """Raise InputError where the control or an arm would be read more than MAX_EPOCHS times."""
    most = max(rung.tokens for rung in experiment.rungs)
    for arm in arms:
        wanted = round(ENDPOINTS[-1] * most) if arm.kind == "control" else most
        if arm.epochs(wanted) > MAX_EPOCHS:
            raise InputError(
                f"arm {arm.name} has {arm.reads.tokens:,} tokens and would read {wanted:,}: {arm.epochs(wanted):.1f} "
                f"epochs, and above {MAX_EPOCHS:.0f} a repeated token teaches too little. Take fewer tokens or a "
                "larger pool."
            )


def check_garbage(experiment: Experiment, garbage: ArmPlan) -> None:
    """Raise InputError where a run reads less than one planted document in the mean: the placebo says nothing then."""
    planted = garbage.changes.gained
    for rung in experiment.rungs:
        reads = planted.documents * min(1.0, garbage.epochs(rung.tokens))
        if reads < 1:
            needed = math.ceil(FEWEST * garbage.reads.tokens / max(planted.documents, 1))
            enough = planted.documents >= FEWEST
            raise InputError(
                f"{rung.size} x {rung.tokens:,} tokens: a run reads {reads:.1f} of the {planted.documents:,} documents "
                "that are planted as garbage, so the placebo could never be seen. "
                + (f"Train on {needed:,} tokens or more, or raise" if enough else "Take a larger pool, or raise")
                + f" `placebos: {{garbage: {experiment.placebos.garbage:g}}}`: {FEWEST} documents or so should be read."
            )
