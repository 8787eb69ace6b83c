"""How large the noise between runs is: variances with degrees of freedom, and the bank that keeps them.

With two or three seeds an arm's own variance says next to nothing (2 degrees of freedom: a factor of six either way),
so what is known comes from three places, and each counts for what it is worth (`moderated`):

* the arm's own seeds, which are exact for this arm;
* the other arms of the experiment: arms differ from each other, so however many they are, they count for less than
  ARM_DF degrees of freedom;
* earlier campaigns at the same rung and metric: pools and machines differ too, so all of them count for less than
  CAMPAIGN_DF, and for nothing where this experiment's own noise contradicts them.

In formulas: a scaled inverse chi-squared (inverse-gamma) prior and its posterior (Gelman et al., Bayesian Data
Analysis, 3rd ed. 2013, section 2.6), used for many small samples in parallel as by Smyth, Stat. Appl. Genet. Mol. Biol.
3(1), article 3 (2004). A mean of variances is never below their typical value, so where arms differ it errs to the wide
side.

The bank is JSON: one entry for each (rung, metric, kind, campaign), replaced as a whole and never added to, so that
what is written twice counts once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from filters.errors import InputError, OutputError

Floats = NDArray[np.float64]
Kind = Literal["run", "pair", "doubling"]  # of a run; of a paired difference; of the gain by twice the tokens
KINDS: tuple[Kind, ...] = ("run", "pair", "doubling")

# What we take variances to differ by; the standard deviation of log sigma is sqrt(1 / (2 df)).
# arms: a fifth (0.18); without a spread intervals were a sixth narrower, and 3-4 % of experiments of uneven arms missed
ARM_DF = 15.0
CAMPAIGN_DF = 8.0  # campaigns: a quarter (0.25), so that a bank 30 % off is nothing unusual
PAIRS_SHARE = 0.5  # correlation of two arms' differences from one control, where every run has noise of its own
DISAGREEMENT = 0.01  # size of the test that sets the bank aside


@dataclass(frozen=True, kw_only=True)
class Variance:
    """Estimated variances and their degrees of freedom, of one shape; where df is 0 nothing is known and value is 0.

    The law assumed: value * df / truth is chi-squared with df degrees of freedom.
    """

    value: Floats
    df: Floats


UNKNOWN = Variance(value=np.zeros(()), df=np.zeros(()))


def pooled(first: Variance, second: Variance) -> Variance:
    """Return what two independent estimates of one variance say together: prior and data give the posterior."""
    df = first.df + second.df
    total = first.value * first.df + second.value * second.df
    return Variance(value=np.divide(total, df, out=np.zeros(np.shape(df)), where=df > 0), df=np.asarray(df))


def blurred(known: Variance, spread: float) -> Variance:
    """Return what `known` says of another member of a family whose variances are spread like `spread` df.

    The log of an estimate has a variance of about 2 / df, and spreads add: 1/df = 1/df(known) + 1/spread. That is the
    first term of trigamma(df / 2), and keeps fewer degrees of freedom than the whole function would (4.0 of 8 and 8,
    not 4.4).
    """
    return Variance(value=known.value, df=known.df / (1 + known.df / spread))


def family(members: Variance, correlation: float) -> Variance:
    """Return the pooled variance [...] of samples [..., m] that are correlated, at the df that it is `worth`."""
    df = np.asarray(members.df.sum(axis=-1))
    total = (members.value * members.df).sum(axis=-1)
    value = np.divide(total, df, out=np.zeros_like(df), where=df > 0)
    return Variance(value=value, df=worth(df, (members.df > 0).sum(axis=-1), correlation))


def worth(df: Floats, members: NDArray[np.int64], correlation: float) -> Floats:
    """Return the degrees of freedom of the pooled variance of `members` samples that have `df` together.

    For m normal samples of n, correlated by c, Var(mean of s^2) = 2 sigma^4 / (n - 1) * (1/m + (1 - 1/m) c^2). At c =
    1/2 the pool has 4 m (n - 1) / (m + 3) degrees of freedom, not m (n - 1): 4 (n - 1) however many arms there are.
    """
    return np.asarray(df / (1 + np.maximum(members - 1, 0) * correlation**2))


def disagreement(first: Variance, second: Variance) -> Floats:
    """Return the two-sided p-value of an F test that two estimates are of one variance; 1 where one is empty."""
    known = (first.df > 0) & (second.df > 0) & (second.value > 0)
    ratio = np.divide(first.value, second.value, out=np.ones(np.shape(known)), where=known)
    df = np.maximum(first.df, 1e-9), np.maximum(second.df, 1e-9)
    tail = np.minimum(stats.f.cdf(ratio, *df), stats.f.sf(ratio, *df))
    return np.where(known, np.minimum(1.0, 2 * tail), 1.0)


def moderated(
    own: Variance, others: Variance, bank: Variance = UNKNOWN, *, arm_df: float = ARM_DF, size: float = DISAGREEMENT
) -> Variance:
    """Return the noise variance of each arm from its own seeds, the other arms and the bank (already `blurred`).

    The bank is left out where an F test of size `size` finds that it contradicts the experiment; the test is of the
    bank's blurred degrees of freedom, so an ordinary difference between campaigns is no contradiction. The others are
    never left out: the same test of an arm against them is for reports, for it finds one three times as noisy in every
    second experiment of five seeds, but in every fifth at two, where the errors are made.
    """
    trusted = disagreement(pooled(own, others), bank) >= size
    family = pooled(others, Variance(value=bank.value, df=np.where(trusted, bank.df, 0.0)))
    return pooled(own, blurred(family, arm_df))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one campaign measured at one rung: the variances of its arms, in squared units of the metric."""

    rung: str  # size, tokens and learning rate, as the experiment spells them
    metric: str
    kind: Kind
    campaign: str
    values: tuple[float, ...]
    dfs: tuple[float, ...]

    def __post_init__(self) -> None:
        sound = all(np.isfinite(v) and v >= 0 for v in (*self.values, *self.dfs))
        if len(self.values) != len(self.dfs) or not sound:
            raise InputError(f"{spelled(self)} needs one variance and one df an arm, finite and not negative.")


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Entries of many campaigns, one for each key, in the order of their keys."""

    entries: tuple[Entry, ...] = ()


def with_entries(bank: Bank, entries: Iterable[Entry]) -> Bank:
    """Return the bank with these entries, each in the place of an earlier one of its key."""
    by_key = {key(entry): entry for entry in (*bank.entries, *entries)}
    return Bank(entries=tuple(by_key[k] for k in sorted(by_key)))


def prior(
    bank: Bank, rung: str, metric: str, kind: Kind, *, campaign: str, campaign_df: float = CAMPAIGN_DF
) -> Variance:
    """Return what the other campaigns say of `campaign`'s noise at this rung; UNKNOWN where none has measured it.

    Each campaign is blurred before they are averaged, so a large one does not speak for all, and their average once
    more, for this campaign differs from the average as they do: fewer than `campaign_df` degrees of freedom come back.
    """
    average = UNKNOWN
    for entry in bank.entries:
        if (entry.rung, entry.metric, entry.kind) == (rung, metric, kind) and entry.campaign != campaign:
            average = pooled(average, blurred(whole(entry), campaign_df))
    return blurred(average, campaign_df)


def whole(entry: Entry) -> Variance:
    """Return the pooled variance of a campaign's arms."""
    arms = Variance(value=np.asarray(entry.values, np.float64), df=np.asarray(entry.dfs, np.float64))
    return family(arms, PAIRS_SHARE if entry.kind == "pair" else 0.0)


def read_bank(path: Path) -> Bank:
    """Return the bank in a file, an empty one where there is no file; InputError where it cannot be read."""
    if not path.exists():
        return Bank()
    try:
        rows = json.loads(path.read_text())["entries"]
        entries = [Entry(**{**row, "values": tuple(row["values"]), "dfs": tuple(row["dfs"])}) for row in rows]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no noise bank ({error}): mend it, or move it away to begin a new one.") from error
    return with_entries(Bank(), entries)


def write_bank(bank: Bank, path: Path) -> None:
    """Put the bank into a file, whole or not at all; OutputError where that is not possible."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps({"entries": [asdict(entry) for entry in bank.entries]}, indent=1) + "\n")
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error}): name a bank in a folder that can be.") from error


def key(entry: Entry) -> tuple[str, str, str, str]:
    """Return what an entry is found by."""
    return entry.rung, entry.metric, entry.kind, entry.campaign


def spelled(entry: Entry) -> str:
    """Return an entry's name for a person."""
    return f"The noise of {entry.metric} ({entry.kind}) at {entry.rung} in campaign {entry.campaign!r}"
