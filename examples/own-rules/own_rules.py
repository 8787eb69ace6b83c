"""A rule of one's own: pages that keep asking for a subscription are no prose."""

from __future__ import annotations

from filters.batch import TextBatch, counted
from filters.rule import Family, Paper, Rule, Signal, Signals

SOURCE = Paper(title="Our own reading of 200 pages", url="https://mill.example/newsletters", where="the page's table")
ASKED = Signal(name="own.newsletters", kind="count", says="how often the word newsletter occurs")


def measured(batch: TextBatch) -> Signals:
    """Every signal of the family, for every text of the batch."""
    return {ASKED.name: counted(batch.occurrences("newsletter"))}


FAMILY = Family(name="own", rules=(Rule(name="own.newsletters", signal=ASKED, high=3, paper=SOURCE),), measure=measured)
