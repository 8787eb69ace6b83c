"""MADLAD-400's rules 2 (list case) and 5 (cursed substrings), as AllenAI's datamap-rs measures them for Dolma 3.

Sentences lie between runs of ". ! ?" that white space follows; those that are blank do not count. Rule 2: a sentence
of at least 12 words of UAX #29, more than half of which begin with a capital. Rule 5: a sentence in which a cursed
phrase occurs. A document needs 5 sentences, and fewer than 20 % of them may fall under either rule.

Doubts. The phrases are written down from memory of the data set's card and not compared with it again; all count as
the regular expressions that they are there ("Vol\\." is "Vol."). datamap-rs keeps them in a packed file and takes all
but the last four literally, so that seven of them, as printed, could never match. Its white space is Unicode's
White_Space, which lacks U+001C to U+001F. The paper splits sentences by a program of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from filters.rule import Family, Paper, Rule, Signal, Signals
from filters.splitters_words import UAX29

if TYPE_CHECKING:
    from filters.batch import TextBatch

PAPER = Paper(
    title="MADLAD-400: A Multilingual And Document-Level Large Audited Dataset",
    url="https://arxiv.org/abs/2309.04662",
    where="2.3, Filtering, and appendix on cursed substrings; allenai/datamap-rs, src/map_fxn.rs,"
    " Madlad400SentenceAnnotator and Madlad400RuleFilter",
)

PHRASES = (
    " №", "\ufffd\ufffd\ufffd", "aute irure dolor ", " sunt in culpa qui ", "orem ipsum ", " quis nostrud ",
    " adipisicing ", " dolore eu ", " cupidatat ", "autem vel eum", "wisi enim ad", " sex ", " porn ", "黄色电影",
    "mp3", "ownload", "Vol.", " Ep.", "Episode", " шт.", "Develop", "Facebook", " crusher ", " xxx ",
)  # fmt: skip
"""Cursed wherever they occur. Besides them: a bar at the end, ENDINGS, nine groups of one, three or four characters
with a blank before each, and four pairs of characters with a comma after each."""
ENDINGS = (" nr.", " г.", " кг.")
"""Cursed at the end of a sentence, so of a text: elsewhere the full stop belongs to no sentence."""

SENTENCES = Signal(name="madlad.sentences", kind="count", says="sentences that are not blank")
LIST_CASE = Signal(
    name="madlad.list_case_ratio",
    kind="ratio",
    says="sentences of at least 12 words, more than half with a capital first / sentences",
)
CURSED = Signal(name="madlad.cursed_ratio", kind="ratio", says="sentences with a cursed phrase / sentences")
QUESTIONABLE = Signal(name="madlad.questionable_ratio", kind="ratio", says="sentences under rule 2 or 5 / sentences")


def measured(batch: TextBatch) -> Signals:
    """Every signal of the family."""
    from filters import kernels_web
    from filters.batch import counted, ratio
    from filters.characters import point_classes
    from filters.phrases import phrases
    from filters.word_break import word_break_classes

    points, table = batch.points, phrases(PHRASES)
    width = max(map(len, ENDINGS))
    endings = np.array([[0] * (width - len(text)) + [ord(mark) for mark in text] for text in ENDINGS], np.uint32)
    counts = kernels_web.questionable_sentences(
        points.values, points.offsets, point_classes(), word_break_classes(), table.symbols, table.steps, table.found,
        endings,
    )  # fmt: skip
    sentences = counts[:, kernels_web.SENTENCES]
    return {
        SENTENCES.name: counted(sentences),
        LIST_CASE.name: ratio(counts[:, kernels_web.LIST_CASE], sentences),
        CURSED.name: ratio(counts[:, kernels_web.CURSED], sentences),
        QUESTIONABLE.name: ratio(counts[:, kernels_web.QUESTIONABLE], sentences),
    }


QUALITY = Family(
    name="madlad",
    rules=(
        Rule(name=SENTENCES.name, signal=SENTENCES, low=5, paper=PAPER),
        Rule(name=QUESTIONABLE.name, signal=QUESTIONABLE, high=0.2, high_open=True, paper=PAPER),
    ),
    measure=measured,
    unruled=(LIST_CASE, CURSED),
    words=UAX29.name,
)
