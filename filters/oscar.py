"""OSCAR's annotations of document quality: tiny, short_sentences, header, footer and noisy, each as a signal and a
rule.

Source: oscar-project/ungoliant, src/transformers (`tiny.rs`, `sentence_filter.rs`, `header.rs`, `noisy.rs`), its
filter of records in src/filtering (`record.rs`, `sentence.rs`) and the order of things in
src/pipelines/oscardoc/pipeline.rs. OSCAR publishes the annotations and leaves the choice to its users; a rule here
keeps what is not annotated.

Lines are those of Rust's `str::lines`: between line feeds, a carriage return before one belongs to it, and what
follows the last one is a line unless it is empty. A sentence is a line. What counts as short differs, as it does
there: at most 100 characters for `short_sentences`, fewer than 100 bytes of UTF-8 for header and footer, fewer than
100 characters for the filter of records. Where the code compares with a rounded-down half of n, "more than that" is a
share above 0.5.

What OSCAR does in this order: `EDIT` (lines of at most 100 characters go from both ends of the text), the filter of
records (`oscar.long_line_characters`, the only one of these rules that OSCAR itself applies, and to every document),
language identification by lines, annotations. Documents that are noisy and tiny, and nothing else, are dropped there;
no rule is a conjunction, so that is left to those who read the signals.

Where this differs: a share of nothing is undefined, so a text of fewer than five lines, which has no header, fails
`header` and `footer`, and an empty one all shares; both are `tiny` anyway. The categories of letters and marks are
those of Python's Unicode tables. Block lists of URLs and the perplexity of adult content need assets and are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from filters.edit import Edit, Edited
from filters.rule import Family, Paper, Rule, Signal, Signals

if TYPE_CHECKING:
    from filters.batch import TextBatch

TITLE = "Towards a Cleaner Document-Oriented Multilingual Crawled Corpus"
URL = "https://arxiv.org/abs/2201.06642"

SHORT = 100
"""Characters, or bytes, of a short line: `Length::default`, `Header::default`."""
SHARE = 5
"""Header and footer are a fifth of the lines each: `header_pctg` 0.2."""


def paper(file: str) -> Paper:
    """OSCAR 22.01's paper, and the file of ungoliant that holds the number."""
    return Paper(title=TITLE, url=URL, where=f"oscar-project/ungoliant, src/{file}")


LINES = Signal(name="oscar.lines", kind="count", says="lines")
SHORT_SENTENCES = Signal(name="oscar.short_sentences", kind="ratio", says="lines of at most 100 characters / lines")
HEADER = Signal(
    name="oscar.header", kind="ratio", says="lines of fewer than 100 bytes in the first fifth of the lines / that fifth"
)
FOOTER = Signal(
    name="oscar.footer", kind="ratio", says="lines of fewer than 100 bytes in the last fifth of the lines / that fifth"
)
NOISY = Signal(name="oscar.noisy", kind="ratio", says="characters that are no letters and no marks / characters")
LONG_LINES = Signal(
    name="oscar.long_line_characters",
    kind="ratio",
    says="characters in lines of at least 100 characters / characters in lines",
)
TRIMMED = Signal(name="oscar.lines_trimmed", kind="count", says="lines of at most 100 characters cut from both ends")


def measured(batch: TextBatch) -> Signals:
    """Every signal of the family, from one walk over lines and characters."""
    from filters.batch import counted, ratio
    from filters.characters import point_classes
    from filters.kernels_oscar import line_counts

    points, lines = batch.points, batch.lines
    found = line_counts(
        points.values, points.offsets, lines.starts, lines.ends, lines.offsets, point_classes(), SHORT, SHARE
    )
    return {
        LINES.name: counted(found[:, 0]),
        SHORT_SENTENCES.name: ratio(found[:, 1], found[:, 0]),
        HEADER.name: ratio(found[:, 3], found[:, 2]),
        FOOTER.name: ratio(found[:, 4], found[:, 2]),
        NOISY.name: ratio(found[:, 7], batch.characters),
        LONG_LINES.name: ratio(found[:, 6], found[:, 5]),
    }


QUALITY = Family(
    name="oscar",
    rules=(
        Rule(name="oscar.long_line_characters", signal=LONG_LINES, low=0.6, paper=paper("filtering/record.rs")),
        Rule(name="oscar.tiny", signal=LINES, low=5, paper=paper("transformers/tiny.rs")),
        Rule(
            name="oscar.short_sentences",
            signal=SHORT_SENTENCES,
            high=0.5,
            paper=paper("transformers/sentence_filter.rs"),
        ),
        Rule(name="oscar.header", signal=HEADER, high=0.5, paper=paper("transformers/header.rs")),
        Rule(name="oscar.footer", signal=FOOTER, high=0.5, paper=paper("transformers/header.rs")),
        Rule(name="oscar.noisy", signal=NOISY, high=0.5, paper=paper("transformers/noisy.rs")),
    ),
    measure=measured,
)


def rust_lines(text: str) -> list[str]:
    """The lines that Rust's `str::lines` gives."""
    *closed, last = text.split("\n")
    lines = [line.removesuffix("\r") for line in closed]
    return [*lines, last] if last else lines


def trimmed(text: str) -> tuple[str, int]:
    """The text from its first line of more than SHORT characters to its last one, and how many lines went."""
    lines = rust_lines(text)
    long = [at for at, line in enumerate(lines) if len(line) > SHORT]
    if not long:
        return "", len(lines)
    return "\n".join(lines[long[0] : long[-1] + 1]), len(lines) - (long[-1] - long[0] + 1)


def without_short_ends(batch: TextBatch) -> Edited:
    """Cut the short lines at both ends of every text; a text of short lines alone becomes empty."""
    from filters.batch import counted, integers

    found = [trimmed(text) for text in batch.texts]
    signals = {TRIMMED.name: counted(integers(count for _, count in found))}
    return Edited(texts=[text for text, _ in found], signals=signals)


EDIT = Edit(
    name="oscar_lines",
    apply=without_short_ends,
    notices=(TRIMMED,),
    paper=paper("transformers/sentence_filter.rs, RemoveShortSentences"),
)
