"""Rules over what language a text is in, and over whether there is a text at all."""

from __future__ import annotations

from filters.rule import Paper, Rule, Signal

FASTTEXT = Paper(
    title="Bag of Tricks for Efficient Text Classification; FastText.zip (lid.176)",
    url="https://arxiv.org/abs/1612.03651",
    where="the published model lid.176; threshold 0.65 from FineWeb (arXiv 2406.17557), 3.3",
)
TRAFILATURA = Paper(
    title="Trafilatura: A Web Scraping Library and Command-Line Tool for Text Discovery and Extraction",
    url="https://aclanthology.org/2021.acl-demo.15",
    where="2, main text extraction",
)

CHARACTERS = Signal(name="extract.characters", kind="count", says="characters of the extracted text")
WANTED = Signal(name="language.wanted", kind="score", says="the largest probability of a wanted language")
GATE = Signal(
    name="gate.wanted", kind="score", says="the largest probability of a wanted language in a cheap text of the page"
)

# datatrove's extractor step forwards a document only where the text is not empty.
EXTRACTED = Rule(name="extract.characters", signal=CHARACTERS, low=1, paper=TRAFILATURA, reason="extract_empty")
IN_LANGUAGE = Rule(name="language.wanted", signal=WANTED, low=0.65, low_open=True, paper=FASTTEXT, reason="language")
# Of 1,000 real pages, 634 of the 663 that end outside English fall below 0.1 and none of the 337 others does.
GATED = Rule(name="gate.wanted", signal=GATE, low=0.1, paper=FASTTEXT)
