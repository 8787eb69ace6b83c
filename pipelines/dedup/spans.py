"""C4's spans of three sentences: all but the first of equal ones removed, as an edit and the rules over what is left.

"To deduplicate the data set, we discarded all but one of any three-sentence span occurring more than once in the data
set" (C4, 2.2). The paper says no more, and T5's code compares lines (`paragraphs.T5_LINES`); what spans are equal, and
what becomes of them, is datatrove 0.10.1's reading (`SentDedupConfig` with its defaults, one file, no index): three
sentences one after another, in `simplified` form, joined by blanks; a span with nothing left in that form is passed
over. Of equal spans the first in the window stays, others lose their three sentences, also where one of these was the
first of another span. A sentence goes with the white space before it. A document that lost some also loses the white
space at its beginning and after its last sentence; it needs 3 sentences, as in T5's code, and 50 words, as datatrove
alone asks; rules drop it otherwise. One that lost none stays as it is.

Sentences are those of the batch's word splitter: spaCy's for `spacy_english`, found at the few chunks that hold a mark
that can end a sentence, and datatrove's for `datatrove:LANG_Script`. The spans equal datatrove's three stages' (a test
runs them), except that datatrove cannot number a document's sentences beyond 65,535, and cuts no chunk that takes spaCy
quadratic time (`pipelines.spacy_english.manageable`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial, reduce
from itertools import accumulate, pairwise
from operator import and_
from typing import BinaryIO

import numpy as np
import xxhash

from filters import kernels_chunks
from filters.batch import TextBatch, counted, integers
from filters.c4 import C4
from filters.c4_t5 import T5_CODE
from filters.edit import Edited
from filters.errors import RecipeError
from filters.kernels import Counts, Hashes
from filters.rule import Paper, Rule, Signal
from filters.splitter import WordSplitter
from filters.token_flags import PUNCTUATED, TERMINATOR, character_flags
from filters.tokens import code_points
from pipelines.datatrove_words import ENGLISH, PREFIX, loaded, within_reason
from pipelines.dedup import bloom
from pipelines.dedup.bloom import Bools, Seen
from pipelines.dedup.paragraphs import removal_counts, removal_signals, summed
from pipelines.dedup.simplified import simplified

Sentences = Callable[[Sequence[str]], list[list[int]]]
"""For each text where its sentences end, rising; one begins where the one before ended, white space first."""

DATATROVE = Paper(
    title="datatrove 0.10.1",
    url="https://github.com/huggingface/datatrove",
    where="src/datatrove/pipeline/dedup/sentence_dedup.py, SentDedupConfig (min_doc_words)",
)


@dataclass(frozen=True, kw_only=True)
class Spans:
    """One way to remove spans of `length` sentences. Its signals are named NAME.what.

    rate: the budget of false positives of a Bloom filter; None: the hashes themselves. sentences, words: the least that
    must be left of a document that lost some; None: any.
    """

    name: str
    length: int
    rate: float | None
    sentences: int | None
    words: int | None
    paper: Paper

    def begin(self, expected: int) -> Window:
        """A window in which no more than `expected` different spans will be met. Takes `memory(expected)` bytes."""
        return Window(of=self, seen=bloom.begin(self._what, expected, self.rate))

    def read(self, file: BinaryIO) -> Window:
        """A window that goes on where the one that `write` wrote ended. Raises InputError if this is none."""
        return Window(of=self, seen=bloom.read(file, self._what))

    def memory(self, expected: int) -> int:
        """The bytes of a window of so many different spans."""
        return bloom.memory(expected, self.rate)

    @property
    def notices(self) -> tuple[Signal, ...]:
        """The signals of the edit."""
        return (
            *removal_signals(self.name, "sentences"),
            Signal(name=f"{self.name}.sentences", kind="count", says="sentences of the text left, cut anew"),
            Signal(name=f"{self.name}.words", kind="count", says="words left, symbols among them"),
        )

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, for `paragraphs.failing`."""
        _, _, characters, _, sentences, words = self.notices
        bounds = ((characters, 1, DATATROVE), (sentences, self.sentences, T5_CODE), (words, self.words, DATATROVE))
        return tuple(
            Rule(name=signal.name, signal=signal, low=low, paper=paper)
            for signal, low, paper in bounds
            if low is not None
        )

    @property
    def _what(self) -> str:
        return f"{self.name}, spans of {self.length} sentences"


C4_SPANS = Spans(name="c4_spans", length=3, rate=None, sentences=3, words=50, paper=C4)


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """The spans met so far."""

    of: Spans
    seen: Seen

    def write(self, file: BinaryIO) -> None:
        """Write what was met, for `Spans.read`."""
        self.seen.write(file)


def items(of: Spans, batch: TextBatch) -> int:
    """The spans of the texts: no more different ones can come of them."""
    return len(span_hashes(of, batch.texts, sentences_of(batch.vocabulary.splitter)(batch.texts))[0])


def edited(window: Window, batch: TextBatch) -> Edited:
    """Remove sentences from the texts, which are the next of the window."""
    of, sentences = window.of, sentences_of(batch.vocabulary.splitter)
    ends = sentences(batch.texts)
    keys, places = span_hashes(of, batch.texts, ends)
    offsets = np.cumsum([0, *map(len, ends)], dtype=np.int64)
    gone = covered(places[window.seen.put(keys)], of.length, int(offsets[-1]))
    removed = summed(gone, offsets)
    changed = np.flatnonzero(removed).tolist()
    texts = list(batch.texts)
    for at in changed:
        texts[at] = without_sentences(texts[at], ends[at], gone[offsets[at] : offsets[at + 1]])
    left = np.diff(offsets) - removed
    anew = left.copy()
    anew[changed] = list(map(len, sentences([texts[at] for at in changed])))
    signals = removal_counts(of.name, batch, texts, removed, left)
    signals[f"{of.name}.sentences"] = counted(anew)
    signals[f"{of.name}.words"] = counted(TextBatch(texts, batch.vocabulary).word_total)
    return Edited(texts=texts, signals=signals)


def without_sentences(text: str, ends: Sequence[int], gone: Bools) -> str:
    """The sentences of the text that stay, each with the white space before it, but none at the beginning."""
    spans = zip(pairwise([0, *ends]), gone.tolist(), strict=True)
    return "".join([text[start:end] for (start, end), one in spans if not one]).lstrip()


def covered(places: Counts, length: int, count: int) -> Bools:
    """Say of `count` sentences whether a span covers them, where spans begin at `places`, which are distinct."""
    steps = np.zeros(count + 1, np.int64)
    steps[places] += 1
    steps[places + length] -= 1
    return np.cumsum(steps)[:-1] > 0


def span_hashes(of: Spans, texts: Sequence[str], ends: Sequence[Sequence[int]]) -> tuple[Hashes, Counts]:
    """Return the xxh3-64 of each span of the texts, and the number of its first sentence among those of all texts.

    Spans that are empty in simplified form have none, nor have those with a sentence of white space alone.
    """
    keys: list[int] = []
    places: list[int] = []
    first = 0
    for text, stops in zip(texts, ends, strict=True):
        forms = [simplified(text[start:stop]) for start, stop in pairwise([0, *stops])]
        filled = len(forms) - bool(forms and text[stops[-2] if len(stops) > 1 else 0 : stops[-1]].isspace())
        for at in range(filled - of.length + 1):
            span = " ".join(forms[at : at + of.length])
            if span and not span.isspace():
                keys.append(xxhash.xxh3_64_intdigest(span.encode("utf-8", "surrogatepass")))
                places.append(first + at)
        first += len(forms)
    return np.array(keys, np.uint64), integers(places)


def sentences_of(splitter: WordSplitter) -> Sentences:
    """What finds the sentences of this splitter. Raises RecipeError for one that only counts them."""
    if splitter.sentence_ends is not None and splitter.chunk_local:
        return partial(sentencizer_ends, splitter)
    if splitter.name.startswith(PREFIX):
        return partial(datatrove_ends, splitter.name.removeprefix(PREFIX))
    raise RecipeError(
        f"The word splitter {splitter.name!r} does not say where sentences end; spans of sentences need spacy_english"
        f" or {PREFIX}LANG_Script."
    )


def datatrove_ends(language: str, texts: Sequence[str]) -> list[list[int]]:
    """Where the sentences of datatrove's tokenizer of this language end."""
    tokenizer = loaded(language)
    found = []
    for text in texts:
        given = within_reason(tokenizer, text)
        ends = [end for _, end in tokenizer.span_tokenize(given)]
        found.append(ends if len(given) == len(text) else without_blanks(text, given, ends))
    return found


def without_blanks(text: str, blanked: str, ends: Sequence[int]) -> list[int]:
    """The places in `text` of these in `blanked`, which is the text with blanks between characters that had none."""
    places, at = [0], 0
    for character in blanked:
        at += not (character == " " and text[at : at + 1] != " ")
        places.append(at)
    return [places[end] for end in ends]


def sentencizer_ends(splitter: WordSplitter, texts: Sequence[str]) -> list[list[int]]:
    """Where spaCy's sentencizer ends the sentences: before the first token but punctuation after a terminal mark.

    Only chunks with such a mark, and those after them, have to be cut into tokens. Where their tokens may depend on the
    chunk beside them, spaCy itself cuts the text.
    """
    points, offsets = code_points(texts)
    starts, stops, _, bounds = kernels_chunks.cut(points, offsets, True)
    marks = np.concatenate([[0], np.cumsum(np.isin(points, list(map(ord, splitter.sentence_ends or ()))))])
    rows = np.flatnonzero(marks[stops] > marks[starts])
    firsts = np.searchsorted(rows, bounds).tolist()
    found = []
    for at, text in enumerate(texts):
        span = slice(int(bounds[at]), int(bounds[at + 1]))
        chunks = Chunks(
            text=text, starts=(starts[span] - offsets[at]).tolist(), stops=(stops[span] - offsets[at]).tolist()
        )
        marked = (rows[firsts[at] : firsts[at + 1]] - span.start).tolist()
        ends = sentence_ends(splitter, chunks, marked)
        found.append(datatrove_ends(ENGLISH, [text])[0] if ends is None else ends)
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunks:
    """The chunks of a text as spans; an empty one stands where white space is a token of its own."""

    text: str
    starts: Sequence[int]
    stops: Sequence[int]

    def __getitem__(self, at: int) -> str:
        return self.text[self.starts[at] : self.stops[at]]


def sentence_ends(splitter: WordSplitter, chunks: Chunks, marked: Sequence[int]) -> list[int] | None:
    """Where the sentences of a text end, if only the chunks `marked`, which rise, hold a mark that may end one.

    None where the tokens of a chunk that matters may depend on the one beside it.
    """
    ends: list[int] = []
    count, ended, place, last = len(chunks.starts), False, 0, 0
    for first in marked:
        at = max(first, place)
        while at < count and (ended or at == first):
            start = chunks.starts[at]
            tokens = tokens_of(splitter, chunks[at])
            if in_context(splitter, chunks, at):
                return None
            for stop, kind in tokens.kinds:
                if kind & TERMINATOR:
                    ended = True
                elif ended and not kind & PUNCTUATED:
                    ends.append(last)
                    ended = False
                last = start + stop
            at += 1
        place = max(place, at)
    if count:
        whole = chunks.starts[-1] < chunks.stops[-1]
        ends.append(chunks.stops[-1] if whole else len(chunks.text))
    return ends


def in_context(splitter: WordSplitter, chunks: Chunks, at: int) -> bool:
    """Whether the tokens of this chunk may depend on the one before or after it."""
    for left in range(max(0, at - 1), min(at + 1, len(chunks.starts) - 1)):
        pair = chunks[left], chunks[left + 1]
        if all(pair) and splitter.joined(*pair) and any(tokens_of(splitter, chunk).unsteady for chunk in pair):
            return True
    return False


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """The tokens of a chunk: where each ends, and its flags. An empty chunk has one, of white space."""

    kinds: tuple[tuple[int, int], ...]
    unsteady: bool


@lru_cache(maxsize=1 << 16)
def tokens_of(splitter: WordSplitter, chunk: str) -> Tokens:
    """The tokens of one chunk. Those of 65,536 chunks are kept, in some 40 MB."""
    if not chunk:
        return Tokens(kinds=((0, 0),), unsteady=False)
    words = splitter.words([chunk])[0]
    ends = splitter.sentence_ends or frozenset()
    kinds = (TERMINATOR * (word in ends) | reduce(and_, map(character_flags, word)) & PUNCTUATED for word in words)
    return Tokens(
        kinds=tuple(zip(accumulate(map(len, words)), kinds, strict=True)),
        unsteady=splitter.unsteady is not None and splitter.unsteady(chunk, words),
    )
