"""Compiled loops from words to MinHash signatures: shingles, their hashes, and the least of each permutation.

A document's words stand in one buffer of UTF-8 with a blank after each, so that a shingle is a span of it. Numba
compiles a kernel at its first call and keeps the result on disk (`filters.kernels`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from filters.kernels import Codes, Hashes, Offsets, compiled

Bytes = npt.NDArray[np.uint8]
State = npt.NDArray[np.uint32]

MERSENNE = np.uint64((1 << 61) - 1)
SHIFT = np.uint64(61)
EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
"""The least of no numbers; no permutation gives it."""


@compiled
def joined(codes: Codes, spellings: Bytes, starts: Offsets) -> tuple[Bytes, Offsets]:
    """Return the words' spellings[starts[code]:starts[code + 1]], one after another, and where each begins and the
    last ends.
    """
    places = np.empty(len(codes) + 1, np.int64)
    places[0] = 0
    for word in range(len(codes)):
        code = codes[word]
        places[word + 1] = places[word] + starts[code + 1] - starts[code]
    buffer = np.empty(places[-1], np.uint8)
    for word in range(len(codes)):
        source = starts[codes[word]]
        for at in range(places[word], places[word + 1]):
            buffer[at] = spellings[source]
            source += 1
    return buffer, places


@compiled
def shingle_spans(places: Offsets, offsets: Offsets, ngram: int) -> tuple[Offsets, Offsets, Offsets]:
    """Return where the shingles begin and end, and which are each text's: ends[i] to ends[i + 1] of text i.

    Word k lies from places[k] to places[k + 1], a blank at its end, and text i has words offsets[i] to offsets[i + 1].
    """
    ends = np.zeros(len(offsets), np.int64)
    for text in range(len(offsets) - 1):
        ends[text + 1] = ends[text] + max(0, offsets[text + 1] - offsets[text] - ngram + 1)
    starts, stops = np.empty(ends[-1], np.int64), np.empty(ends[-1], np.int64)
    for text in range(len(offsets) - 1):
        word = offsets[text]
        for shingle in range(ends[text], ends[text + 1]):
            starts[shingle], stops[shingle] = places[word], places[word + ngram] - 1
            word += 1
    return starts, stops, ends


@compiled
def minima(hashes: Hashes, ends: Offsets, factors: Hashes, summands: Hashes) -> Hashes:
    """Return per text i and permutation k the least (hash * factors[k] + summands[k]) mod 2^61 - 1 of the text's
    hashes[ends[i]:ends[i + 1]]; EMPTY where it has none.

    The product and the sum wrap at 2^64, as datatrove's do.
    """
    least = np.full((len(ends) - 1, len(factors)), EMPTY)
    for text in range(len(ends) - 1):
        row = least[text]
        for shingle in range(ends[text], ends[text + 1]):
            value = hashes[shingle]
            for k in range(len(factors)):
                permuted = value * factors[k] + summands[k]
                permuted = (permuted & MERSENNE) + (permuted >> SHIFT)  # at most 2^61 + 6
                if permuted >= MERSENNE:
                    permuted -= MERSENNE
                if permuted < row[k]:
                    row[k] = permuted
    return least


# xxHash, https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md, XXH64.
PRIME_1 = np.uint64(0x9E3779B185EBCA87)
PRIME_2 = np.uint64(0xC2B2AE3D27D4EB4F)
PRIME_3 = np.uint64(0x165667B19E3779F9)
PRIME_4 = np.uint64(0x85EBCA77C2B2AE63)
PRIME_5 = np.uint64(0x27D4EB2F165667C5)
WORD = np.uint64(64)
ZERO = np.uint64(0)


@compiled
def read(buffer: Bytes, at: int, size: int) -> np.uint64:
    """The little-endian number in `size` bytes, 8 or 4."""
    value = ZERO
    for k in range(size):
        value |= np.uint64(buffer[at + k]) << np.uint64(8 * k)
    return value


@compiled
def rotated(value: np.uint64, bits: int) -> np.uint64:
    """The 64 bits rotated to the left."""
    return (value << np.uint64(bits)) | (value >> (WORD - np.uint64(bits)))


@compiled
def turn(lane: np.uint64, value: np.uint64) -> np.uint64:
    """A lane of XXH64 with 8 more bytes."""
    return rotated(lane + value * PRIME_2, 31) * PRIME_1


@compiled
def xxh64(buffer: Bytes, start: int, stop: int, seed: np.uint64) -> np.uint64:
    """XXH64 of buffer[start:stop]."""
    at = start
    if stop - start >= 32:
        lane_1, lane_2, lane_3, lane_4 = seed + PRIME_1 + PRIME_2, seed + PRIME_2, seed, seed - PRIME_1
        while at + 32 <= stop:
            lane_1 = turn(lane_1, read(buffer, at, 8))
            lane_2 = turn(lane_2, read(buffer, at + 8, 8))
            lane_3 = turn(lane_3, read(buffer, at + 16, 8))
            lane_4 = turn(lane_4, read(buffer, at + 24, 8))
            at += 32
        value = rotated(lane_1, 1) + rotated(lane_2, 7) + rotated(lane_3, 12) + rotated(lane_4, 18)
        for lane in (lane_1, lane_2, lane_3, lane_4):
            value = (value ^ turn(ZERO, lane)) * PRIME_1 + PRIME_4
    else:
        value = seed + PRIME_5
    value += np.uint64(stop - start)
    while at + 8 <= stop:
        value = rotated(value ^ turn(ZERO, read(buffer, at, 8)), 27) * PRIME_1 + PRIME_4
        at += 8
    if at + 4 <= stop:
        value = rotated(value ^ (read(buffer, at, 4) * PRIME_1), 23) * PRIME_2 + PRIME_3
        at += 4
    while at < stop:
        value = rotated(value ^ (np.uint64(buffer[at]) * PRIME_5), 11) * PRIME_1
        at += 1
    value = (value ^ (value >> np.uint64(33))) * PRIME_2
    value = (value ^ (value >> np.uint64(29))) * PRIME_3
    return value ^ (value >> np.uint64(32))


@compiled
def xxh64_hashes(buffer: Bytes, starts: Offsets, stops: Offsets) -> Hashes:
    """XXH64, seed 0, of each span of the buffer."""
    hashes = np.empty(len(starts), np.uint64)
    for span in range(len(starts)):
        hashes[span] = xxh64(buffer, starts[span], stops[span], ZERO)
    return hashes


@compiled
def band_hashes(rows: Bytes, bands: int) -> Hashes:
    """XXH64 of each of the `bands` equal parts of each row, with the number of the part as seed."""
    hashes = np.empty((len(rows), bands), np.uint64)
    size = rows.shape[1] // bands
    for row in range(len(rows)):
        for band in range(bands):
            hashes[row, band] = xxh64(rows[row], band * size, (band + 1) * size, np.uint64(band))
    return hashes
