"""MinHash signatures (Broder 1997), bit-identical to datatrove 0.10.1's `MinhashDedupSignature` for equal parameters.

A text is simplified (`pipelines.dedup.simplified`) and cut into words; every run of `ngram` words, joined by blanks, is
a shingle, and the hash of its UTF-8 is permuted by bands * rows functions (a * h + b) mod 2^61 - 1, a and b drawn from
`numpy.random.RandomState(seed)`. A signature holds the least value of each function: two texts agree in each with
their Jaccard similarity s as probability, so that they share a band of `rows` values with probability
1 - (1 - s^rows)^bands. A signature depends on its text alone: not on what was hashed before, with it, or where.

Where datatrove raises, on lone surrogates, there is a signature all the same, of three bytes for each. The signatures
of texts may differ in which a simplified chunk of more than 10,000 characters is not made of letters alone: it is cut,
for spaCy's time grows with the square of it (`pipelines.spacy_words`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import xxhash

from filters.splitter import WordSplitter
from filters.tokens import Column, Lexicon, TokenCodes, WordTable
from pipelines.dedup import minhash_kernels, sha1_kernels
from pipelines.dedup.simplified import Numbers, simplified_words

Hashes = npt.NDArray[np.uint64]
Sketches = npt.NDArray[np.uint16]
Counts = npt.NDArray[np.int64]

EMPTY = int(minhash_kernels.EMPTY)
"""Every value in the signature of a text without shingles, 2^64 - 1. Other values are below 2^61 - 1."""
SHINGLE_HASHES = {"xxhash64": minhash_kernels.xxh64_hashes, "sha1": sha1_kernels.sha1_hashes}


@dataclass(frozen=True, kw_only=True)
class MinHash:
    """What a signature is made of. Signatures can be compared where all of it is equal, and the words are."""

    ngram: int = 5
    bands: int = 14
    rows: int = 8
    hash: Literal["xxhash64", "sha1"] = "xxhash64"
    seed: int = 1
    numbers: Numbers = "zero"

    def __post_init__(self) -> None:
        if min(self.ngram, self.bands, self.rows) < 1:
            raise ValueError(f"ngram, bands and rows are at least 1; there are {self.ngram}, {self.bands}, {self.rows}")
        if self.hash not in SHINGLE_HASHES:
            raise ValueError(f"there is no hash {self.hash!r}; there are {', '.join(SHINGLE_HASHES)}")

    @property
    def size(self) -> int:
        """Values in a signature."""
        return self.bands * self.rows

    @property
    def threshold(self) -> float:
        """About where the probability of sharing a band rises most: (1 / bands)^(1 / rows), a Jaccard similarity.

        Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, §3.4.2.
        """
        return float((1 / self.bands) ** (1 / self.rows))

    def probability(self, similarity: float) -> float:
        """Of sharing a band at least, at this Jaccard similarity; §3.4.2 there."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


# What others used, as far as it can be set here. The words and their simplification stay datatrove's, the hash ours:
# of signatures, only those of DATATROVE and FINEWEB are theirs bit by bit.
DATATROVE = MinHash()
"""datatrove 0.10.1, `pipeline/dedup/minhash.py`, MinhashConfig's defaults. FineWeb-2 too (arXiv 2506.20920)."""
FINEWEB = MinHash(hash="sha1")
"""datatrove 0.10.1, `examples/fineweb.py`; arXiv 2406.17557, §3.4: 5-grams, 112 hashes in 14 buckets of 8."""
SLIMPAJAMA = MinHash(ngram=13, bands=9, rows=13)
"""Cerebras modelzoo, `slimpajama/README.md`, steps 3.1 and 3.2: 13-grams, bands by datasketch for 0.8 of 128. Those of
its `to_hash.py` are 13 characters, of text without punctuation; these are 13 words."""
REDPAJAMA_08 = MinHash(ngram=13, bands=9, rows=13)
"""RedPajama-Data, `configs/rp_v2.0.conf` and `app/src/dedupe/minhash.py`: 13-grams of normalised words, bands by
datasketch's formula for 0.8 of 128."""
REDPAJAMA_07 = MinHash(ngram=13, bands=14, rows=9)
"""There too, for 0.7 of 128."""
REFINEDWEB = MinHash(bands=450, rows=20)
"""arXiv 2306.01116, appendix G.3.1: 5-grams of GPT-2 tokens, 9,000 hashes in 450 buckets of 20."""
DOLMA3 = MinHash(bands=26, rows=11)
"""allenai/duplodocus, README.md, Configuration: 5-grams of cl100k_base tokens, 26 buckets of 11."""
STARCODER = MinHash(bands=25, rows=10)
"""bigcode-dataset, `near_deduplication/minhash_deduplication.py`: 5-grams, bands by datasketch's formula for 0.7 of
256. Its words are runs of [A-Za-z0-9_]."""
PROFILES = {
    "datatrove": DATATROVE,
    "fineweb": FINEWEB,
    "slimpajama": SLIMPAJAMA,
    "redpajama-v2@0.8": REDPAJAMA_08,
    "redpajama-v2@0.7": REDPAJAMA_07,
    "refinedweb": REFINEDWEB,
    "dolma3": DOLMA3,
    "starcoder": STARCODER,
}


def bands_for(threshold: float, size: int) -> tuple[int, int]:
    """Return (bands, rows), with bands * rows at most `size`, that split pairs at a similarity of `threshold` best.

    datasketch's choice: the least sum of the areas of false positives below the threshold and of false negatives above
    it. Raises ValueError where the threshold is not within 0 and 1, or only one band would do.
    """
    from datasketch import MinHashLSH  # 0.7 s, for scipy

    lsh = MinHashLSH(threshold=threshold, num_perm=size)
    return lsh.b, lsh.r


def permutations(minhash: MinHash) -> tuple[Hashes, Hashes]:
    """The factors a and summands b of the `size` permutations, as datatrove draws them."""
    random = np.random.RandomState(minhash.seed)
    prime = int(minhash_kernels.MERSENNE)
    factors = random.randint(1, prime, size=minhash.size, dtype=np.uint64)
    return factors, random.randint(0, prime, size=minhash.size, dtype=np.uint64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Signatures:
    """Of n texts. values: (n, size), the least value of each permutation; EMPTY in all of the row of a text without
    shingles. shingles: (n,), repeated ones counted again; 0 for a text with fewer words than `ngram`.
    """

    values: Hashes
    shingles: Counts


class Hasher:
    """Makes signatures of texts. One thread at a time; not for pickling.

    It remembers chunks of text with their words, in a lexicon of its own or a shared one, which bounds them (about 250
    MB, see there) and whose forgetting changes no signature. A call takes some 45 bytes for each word of its texts,
    beside what cutting them takes.
    """

    def __init__(self, minhash: MinHash, words: WordSplitter, *, lexicon: Lexicon | None = None) -> None:
        self.minhash = minhash
        self.splitter = simplified_words(words, minhash.numbers)
        self._vocabulary = (Lexicon() if lexicon is None else lexicon).vocabulary(self.splitter)
        self._hashes = SHINGLE_HASHES[minhash.hash]
        self._permutations = permutations(minhash)
        self._words = Spelling(self._vocabulary.table)

    def signatures(self, texts: Sequence[str]) -> Signatures:
        """The signatures of these texts."""
        return self.of(self._vocabulary.encode(texts))

    def of(self, words: TokenCodes) -> Signatures:
        """The same for texts whose words are known, as cut by `splitter`."""
        if self._words.table is not words.table:  # the lexicon has forgotten what it knew
            self._words = Spelling(words.table)
        buffer, places = minhash_kernels.joined(words.codes, *self._words.spelled())
        starts, stops, ends = minhash_kernels.shingle_spans(places, words.offsets, self.minhash.ngram)
        values = minhash_kernels.minima(self._hashes(buffer, starts, stops), ends, *self._permutations)
        return Signatures(values=values, shingles=np.diff(ends))


class Spelling:
    """The UTF-8 of the words of a table, a blank after each."""

    def __init__(self, table: WordTable) -> None:
        self.table = table
        self._bytes, self._starts = Column(np.uint8), Column(np.int64)
        self._starts.extend([0])

    def spelled(self) -> tuple[npt.NDArray[np.uint8], Counts]:
        """Return (bytes, starts): the word of each code so far is bytes[starts[code]:starts[code + 1]]."""
        new = self.table.words[len(self._starts) - 1 :]
        if new:
            spelled = [f"{word} ".encode("utf-8", "surrogatepass") for word in new]
            self._starts.extend(len(self._bytes) + np.cumsum(list(map(len, spelled)), dtype=np.int64))
            self._bytes.extend(np.frombuffer(b"".join(spelled), np.uint8))
        return self._bytes.view, self._starts.view


def band_hashes(values: Hashes, minhash: MinHash) -> Hashes:
    """One hash per band, (n, bands): XXH64 of the band's values as little-endian bytes, with the band's number, from 0,
    as seed. So bands of different numbers agree by chance alone, with probability 2^-64.

    Texts without shingles agree in all bands: leave them out before.
    """
    rows = np.ascontiguousarray(values, "<u8").view(np.uint8)
    assert rows.shape[1] == 8 * minhash.size, "the signatures are of this MinHash"
    return minhash_kernels.band_hashes(rows, minhash.bands)


def sketches(values: Hashes) -> Sketches:
    """The low 16 bits of each value, (n, size): b-bit MinHash with b = 16 (Li, König 2010).

    Values that differ agree in them with probability 2^-16, so the share of equal ones among unlike pairs is 1.5e-5.
    """
    return values.astype(np.uint16)


def signature_hashes(values: Hashes) -> Hashes:
    """XXH3-128 of each signature's values as little-endian bytes, (n, 2): the high and the low 64 bits.

    Among 10^10 signatures two that differ have one hash with probability 1.5e-19.
    """
    digests = b"".join(xxhash.xxh3_128_digest(row) for row in np.ascontiguousarray(values, "<u8"))
    return np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)
