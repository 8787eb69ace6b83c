"""CCNet's limit of length, on the lines that its reader leaves.

Source: facebookresearch/cc_net, `process_wet_file.py` (`group_by_docs`, `parse_doc`, `parse_warc_file`) and `mine.py`
(`min_len`). Its reader strips every line of a WET record, passes over blank ones, takes the first that is left for the
title, and drops a document where the others, joined by line feeds, have fewer than 300 characters.

`ccnet.characters` is that number. A text that an extractor made has no title in its first line: to hold the whole text
to a limit, bound `ccnet.characters_with_title`. A document without any line is dropped, as there; so is one with a
title alone.

Where this differs: lines end at line feeds alone, in Python's text mode also at a carriage return in their midst. What
else makes CCNet needs more than the text: paragraphs seen in 50 shards, fastText's language, the perplexity of a KenLM
model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from filters.rule import Family, Paper, Rule, Signal, Signals

if TYPE_CHECKING:
    from filters.batch import TextBatch

PAPER = Paper(
    title="CCNet: Extracting High Quality Monolingual Datasets from Web Crawl Data",
    url="https://arxiv.org/abs/1911.00359",
    where="facebookresearch/cc_net, cc_net/mine.py, Config.min_len; cc_net/process_wet_file.py, parse_warc_file",
)

CHARACTERS = Signal(
    name="ccnet.characters", kind="count", says="characters of the stripped lines but the first, one more between lines"
)
WHOLE = Signal(
    name="ccnet.characters_with_title", kind="count", says="characters of the stripped lines, one more between lines"
)
LINES = Signal(name="ccnet.lines", kind="count", says="lines that are not blank, but the first")


def measured(batch: TextBatch) -> Signals:
    """Blank lines are no lines."""
    import numpy as np

    from filters.batch import counted

    lines = batch.stripped_lines
    lengths = lines.ends - lines.starts
    filled = np.flatnonzero(lengths)
    bounds = np.searchsorted(filled, lines.offsets)  # the filled lines of document i are bounds[i] to bounds[i + 1]
    sums = np.concatenate([[0], np.cumsum(lengths[filled])])
    first, last = bounds[:-1], bounds[1:]
    count = last - first
    after_title = np.minimum(first + 1, last)
    return {
        CHARACTERS.name: counted(sums[last] - sums[after_title] + np.maximum(count - 2, 0)),
        WHOLE.name: counted(sums[last] - sums[first] + np.maximum(count - 1, 0)),
        LINES.name: counted(last - after_title),
    }


QUALITY = Family(
    name="ccnet",
    rules=(Rule(name="ccnet.characters", signal=CHARACTERS, low=300, paper=PAPER),),
    measure=measured,
    unruled=(WHOLE, LINES),
)
