"""StarCoder's rules for source code: the length of lines, the share of letters and digits, no XML; size for data
files.

Source: bigcode-project/bigcode-dataset, preprocessing/filtering.py and arguments.py. The numbers it reads are columns
of The Stack v1, whose code is not published; what they count follows from its published rows. A file of 3,225
characters in 108 lines has avg_line_length 29.8611111111 = 3225/108, max_line_length 135 and alphanum_fraction
0.6096124031 = 1966/3225; one of 747 characters and 30 line feeds, the last at its end, 24.0967741935 = 747/31, 49 and
0.6626506024 = 495/747. So lines are what lies between line feeds, an empty one after the last; the mean counts the
line feeds, the longest line does not; and an underscore counts as a letter (in the first file 121 of the 1,966).

`QUALITY` is the filter named `basic` with its defaults, and the one named `xml`. `DATA` holds the limits of size for
JSON and YAML files. The Stack's numbers are taken as characters; whether it counts bytes cannot be told from rows in
ASCII, nor whether letters beyond ASCII count. The Stack v2 counts otherwise: no underscores, no line feeds in the
mean.

Where this differs: the share of nothing is undefined, so an empty file fails. Left out, because text alone cannot
tell: limits by file extension (`starcoder.alpha_fraction` is the signal that their column "Alpha filter" bounds), the
share of displayed text in HTML, the share of comments (a parser for each language), characters / tokens of StarCoder's
tokenizer, stars.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from filters.rule import Family, Paper, Rule, Signal, Signals

if TYPE_CHECKING:
    from filters.batch import TextBatch

TITLE = "StarCoder: may the source be with you!"
URL = "https://arxiv.org/abs/2305.06161"
CODE = "bigcode-project/bigcode-dataset, preprocessing"
BASIC = Paper(title=TITLE, url=URL, where=f"{CODE}/filtering.py, basic_filters; {CODE}/arguments.py")
XML = Paper(title=TITLE, url=URL, where=f"{CODE}/filtering.py, filter_xml")
SIZE = Paper(title=TITLE, url=URL, where=f"{CODE}/arguments.py, min_size and max_size; {CODE}/README.md, JSON and YAML")

XML_HEADER = "<?xml version="
XML_REACH = 100
"""Characters at the beginning of a file in which the header is looked for."""

LONGEST = Signal(name="starcoder.max_line_length", kind="count", says="characters of the longest line")
MEAN = Signal(name="starcoder.mean_line_length", kind="ratio", says="characters, line feeds among them / lines")
ALPHANUMERIC = Signal(
    name="starcoder.alphanum_fraction", kind="ratio", says="letters, digits and underscores / characters"
)
HEADERS = Signal(
    name="starcoder.xml_header", kind="count", says="1 where '<?xml version=' lies in the first 100 characters"
)
ALPHABETIC = Signal(name="starcoder.alpha_fraction", kind="ratio", says="letters / characters")
CHARACTERS = Signal(name="starcoder.characters", kind="count", says="characters")


def measured_code(batch: TextBatch) -> Signals:
    """The signals of source code."""
    from filters.batch import counted, integers, ratio
    from filters.characters import point_classes
    from filters.kernels_starcoder import code_counts

    found = code_counts(batch.points.values, batch.points.offsets, point_classes())
    return {
        LONGEST.name: counted(found[:, 1]),
        MEAN.name: ratio(batch.characters, found[:, 0]),
        ALPHANUMERIC.name: ratio(found[:, 2], batch.characters),
        HEADERS.name: counted(integers(text.find(XML_HEADER, 0, XML_REACH) >= 0 for text in batch.texts)),
        ALPHABETIC.name: ratio(found[:, 3], batch.characters),
    }


def measured_size(batch: TextBatch) -> Signals:
    """The size of data files."""
    from filters.batch import counted

    return {CHARACTERS.name: counted(batch.characters)}


QUALITY = Family(
    name="starcoder",
    rules=(
        Rule(name="starcoder.max_line_length", signal=LONGEST, high=1000, paper=BASIC),
        Rule(name="starcoder.mean_line_length", signal=MEAN, high=100, paper=BASIC),
        Rule(name="starcoder.alphanum_fraction", signal=ALPHANUMERIC, low=0.25, paper=BASIC),
        Rule(name="starcoder.xml_header", signal=HEADERS, high=0, paper=XML),
    ),
    measure=measured_code,
    unruled=(ALPHABETIC,),
)
DATA = Family(
    name="starcoder_data",
    rules=(Rule(name="starcoder_data.characters", signal=CHARACTERS, low=100, high=5000, paper=SIZE),),
    measure=measured_size,
)
