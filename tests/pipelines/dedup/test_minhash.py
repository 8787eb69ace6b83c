"""Signatures are datatrove 0.10.1's, bit by bit, whatever was hashed before; bands find pairs as theory says."""

import gzip
import hashlib
import json
import random
import time
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice

import numpy as np
import pytest
import xxhash
from datatrove.pipeline.dedup.minhash import HashConfig, MinhashConfig, MinhashDedupSignature
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.oracle import CRAWL, DATA
from benchmarks.rules import english_texts
from filters.batch import TextBatch
from filters.tokens import Lexicon
from pipelines.dedup.minhash import (
    DATATROVE,
    DOLMA3,
    EMPTY,
    FINEWEB,
    PROFILES,
    REDPAJAMA_07,
    REDPAJAMA_08,
    STARCODER,
    Hasher,
    Hashes,
    MinHash,
    Signatures,
    band_hashes,
    bands_for,
    signature_hashes,
    sketches,
)
from pipelines.dedup.minhash_kernels import xxh64, xxh64_hashes
from pipelines.dedup.sha1_kernels import LANES, sha1_hashes
from pipelines.words import words_by_name
from tests.pipelines.dedup.hostile_texts import hostile

SENTENCE = "The 3.5 mills of İzmir (built 1,204) ground 20% more—so they said: “flour, ﬂour & flöur”… "


@cache
def oracle(minhash: MinHash, language: str = "eng_Latn") -> MinhashDedupSignature:
    """datatrove's step; its xxhash64 gives strings to `xxhash`, which since 4.0 wants bytes."""
    step = MinhashDedupSignature(
        output_folder="memory://none",
        config=MinhashConfig(
            n_grams=minhash.ngram,
            num_buckets=minhash.bands,
            hashes_per_bucket=minhash.rows,
            seed=minhash.seed,
            hash_config=HashConfig(precision=64, hash_fc="sha1" if minhash.hash == "sha1" else "xxhash"),
        ),
        language=language,
    )
    if minhash.hash == "xxhash64":
        step._hash_func = lambda text: xxhash.xxh64_intdigest(text.encode())
    return step


def theirs(texts: Sequence[str], minhash: MinHash, language: str = "eng_Latn") -> Signatures:
    step = oracle(minhash, language)
    shingles = [step.get_shingles(text) for text in texts]
    rows = [
        np.concatenate(step.get_signature(some)) if some.size else np.full(minhash.size, EMPTY) for some in shingles
    ]
    return Signatures(
        values=np.array(rows, np.uint64).reshape(-1, minhash.size), shingles=np.array(list(map(len, shingles)))
    )


def hasher(minhash: MinHash = DATATROVE, words: str = "spacy_english", lexicon: Lexicon | None = None) -> Hasher:
    return Hasher(minhash, words_by_name(words), lexicon=lexicon)


def assert_equal(one: Signatures, other: Signatures) -> None:
    assert one.shingles.tolist() == other.shingles.tolist()
    assert (one.values != other.values).any(axis=1).nonzero()[0].tolist() == []


def corpus(name: str) -> Iterator[str]:
    with gzip.open(DATA / "corpora" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def chosen(texts: Iterator[str], one_in: int, most: int) -> list[str]:
    return list(islice((text for text in texts if xxhash.xxh32_intdigest(text.encode()) % one_in == 0), most))


# ---- parity with datatrove


@pytest.mark.skipif(not DATA.is_dir(), reason="the real documents of shared/data are not here")
@pytest.mark.parametrize("minhash", [DATATROVE, FINEWEB], ids=["xxhash64", "sha1"])
def test_signatures_of_a_sample_of_real_documents_are_datatroves(minhash: MinHash) -> None:
    texts = [text for name in ("gov_blog_18f", "reuters21578") for text in chosen(corpus(name), 40, 12)]
    texts += chosen((text[:20_000] for text in corpus("spamassassin_mail")), 40, 12)
    expected = theirs(texts, minhash)
    assert len(texts) > 30
    assert np.median(expected.shingles) > 100
    assert_equal(hasher(minhash).signatures(texts), expected)


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not CRAWL.is_dir(), reason="the real pages of shared/data/crawl are not here")
@pytest.mark.parametrize("minhash", [DATATROVE, FINEWEB], ids=["xxhash64", "sha1"])
def test_signatures_of_every_english_document_of_the_crawl_are_datatroves(minhash: MinHash) -> None:
    halves = english_texts(CRAWL, 10_000, 10_000)
    ours = hasher(minhash, lexicon=Lexicon(max_chunks=60_000))  # forgets twice on the way
    compared = 0
    for texts in (halves.judged, halves.others):
        for at in range(0, len(texts), 200):
            some = texts[at : at + 200]
            assert_equal(ours.signatures(some), theirs(some, minhash))
            compared += len(some)
    assert compared > 1300


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not DATA.is_dir(), reason="the real documents of shared/data are not here")
@pytest.mark.parametrize("name", ["gov_blog_18f", "reuters21578", "spamassassin_mail", "openstax_textbooks"])
def test_signatures_of_corpora_are_datatroves(name: str) -> None:
    texts = chosen((text[:50_000] for text in corpus(name)), 5, 600)
    assert len(texts) > 100
    assert_equal(hasher().signatures(texts), theirs(texts, DATATROVE))


@settings(max_examples=100, deadline=None)
@given(st.lists(hostile, max_size=3))
@example(["", " ", "\x00", "\n", "\n\n", "\u0301", "1", "日本語" * 300, "مرحبا " * 6, "😀" * 10, "İ" * 10, "İ " * 10])
@example(["≮space≯ a b c d ‘s ‘ s e", "a \u0301 b \u0316 c\x00d e", "ΑΣ ΑΣΑ Σ ς σ", "١٢ ٣٫٥ 𝟙𝟚 \U00011f50 ५ 1,5 1.5.5"])
def test_signatures_of_hostile_texts_are_datatroves(texts: list[str]) -> None:
    for minhash in (MinHash(ngram=2, bands=3, rows=2), MinHash(ngram=2, bands=3, rows=2, hash="sha1")):
        assert_equal(hasher(minhash).signatures(texts), theirs(texts, minhash))


@pytest.mark.parametrize(
    "minhash",
    [
        MinHash(ngram=1, bands=1, rows=1, seed=0),
        MinHash(ngram=13, bands=9, rows=13, seed=7),
        MinHash(ngram=3, bands=26, rows=11, seed=(1 << 32) - 1, hash="sha1"),
        MinHash(ngram=40, bands=2, rows=5, hash="sha1"),  # messages of several blocks
    ],
)
def test_other_parameters_give_datatroves_signatures(minhash: MinHash) -> None:
    texts = [SENTENCE, SENTENCE * 9, "", "one", "a b c d e f g h i j k l m n o p " * 5]
    assert_equal(hasher(minhash).signatures(texts), theirs(texts, minhash))


def test_words_of_another_language_give_datatroves_signatures() -> None:
    texts = ["El agua está a 1,5 km del molino de Íñigo; ¿dónde? gonna cannot dont. " * 3, "peu"]
    found = hasher(words="datatrove:spa_Latn").signatures(texts)
    assert_equal(found, theirs(texts, DATATROVE, "spa_Latn"))
    assert found.shingles[0] < hasher().signatures(texts).shingles[0], "English makes two words of each of the last"


# ---- a signature depends on its text alone


def test_signatures_do_not_depend_on_what_was_hashed_before_or_with_them() -> None:
    rng = random.Random(3)
    texts = [" ".join(rng.choices(SENTENCE.split(), k=rng.randrange(40))) + f" no{i}" for i in range(60)]
    expected = hasher().signatures(texts)
    forgetful = hasher(lexicon=Lexicon(max_chunks=20))
    one_by_one = [forgetful.signatures([text]) for text in texts]
    assert_equal(expected, Signatures(
        values=np.concatenate([one.values for one in one_by_one]),
        shingles=np.concatenate([one.shingles for one in one_by_one]),
    ))  # fmt: skip
    backwards = hasher().signatures(texts[::-1])
    assert_equal(expected, Signatures(values=backwards.values[::-1], shingles=backwards.shingles[::-1]))


def test_a_lexicon_shared_with_the_rules_changes_no_signature() -> None:
    lexicon = Lexicon(max_chunks=30)
    ours = hasher(lexicon=lexicon)
    for number in range(4):
        texts = [f"{SENTENCE} {'x' * number} {SENTENCE}", "a b c d e f " * number]
        batch = TextBatch(texts, lexicon.vocabulary(words_by_name("spacy_english")))
        assert batch.tokens.codes.size > 30
        assert_equal(ours.of(batch.words(ours.splitter)), hasher().signatures(texts))


def test_texts_of_fewer_words_than_a_shingle_are_marked() -> None:
    found = hasher().signatures(["", "—…!", "one two three four", "one two three four five", "1 2 3 4 5 6"])
    assert found.shingles.tolist() == [0, 0, 0, 1, 2]
    assert (found.values[:3] == EMPTY).all()
    assert (found.values[3:] < (1 << 61) - 1).all()


def test_no_texts_give_no_signatures() -> None:
    found = hasher().signatures([])
    assert found.values.shape == (0, 112)
    assert band_hashes(found.values, DATATROVE).shape == (0, 14)
    assert signature_hashes(found.values).shape == (0, 2)


def test_lone_surrogates_have_a_signature() -> None:
    found = hasher().signatures(["a \ud800 b c d e", "a \udfff b c d e", "a \ud800 b c d e"])
    assert (found.values[0] == found.values[2]).all()
    assert (found.values[0] != found.values[1]).any()


def test_equal_texts_have_equal_signatures_whatever_their_case_marks_and_numbers() -> None:
    found = hasher().signatures(["The Café, open since 1,204!", "the cafe open\nsince 99", "the cafe closed since 0"])
    assert (found.values[0] == found.values[1]).all()
    assert (found.values[0] != found.values[2]).any()


@pytest.mark.parametrize("text", ["😀" * 100_000, "‘s" * 100_000, "a0" * 100_000, "a " * 200_000, "≮" * 100_000])
def test_time_is_bounded_on_one_long_chunk(text: str) -> None:
    ours = hasher()
    started = time.process_time()
    ours.signatures([text])
    assert time.process_time() - started < 20  # spaCy takes 13 s for 9,000 of the first, and the square of it for more


# ---- kernels against the libraries that define them


@pytest.mark.parametrize("count", [0, 1, LANES - 1, LANES, 3 * LANES + 5])
def test_hashes_of_spans_are_those_of_hashlib_and_xxhash(count: int) -> None:
    rng = random.Random(count)
    buffer = rng.randbytes(1000)
    spans = [(start, start + (size if count < LANES else rng.randrange(200))) for size, start in enumerate(
        rng.randrange(800) for _ in range(count)
    )]  # fmt: skip
    starts, stops = np.array(spans, np.int64).reshape(-1, 2).T.copy()
    messages = [buffer[start:stop] for start, stop in spans]
    data = np.frombuffer(buffer, np.uint8).copy()  # a kernel is compiled anew for arrays that are read-only
    assert xxh64_hashes(data, starts, stops).tolist() == [xxhash.xxh64_intdigest(some) for some in messages]
    assert sha1_hashes(data, starts, stops).tolist() == [
        int.from_bytes(hashlib.sha1(some).digest()[:8], "little") for some in messages
    ]


def test_hashes_are_right_at_every_length() -> None:
    data = np.frombuffer(random.Random(1).randbytes(300), np.uint8).copy()
    starts, stops = np.full(290, 3), np.arange(3, 293)
    messages = [data[3:stop].tobytes() for stop in stops]
    assert xxh64_hashes(data, starts, stops).tolist() == list(map(xxhash.xxh64_intdigest, messages))
    assert [int(xxh64(data, 3, stop, np.uint64(stop))) for stop in stops] == [
        xxhash.xxh64_intdigest(some, seed=int(stop)) for some, stop in zip(messages, stops, strict=True)
    ]
    assert sha1_hashes(data, starts, stops).tolist() == [
        int.from_bytes(hashlib.sha1(some).digest()[:8], "little") for some in messages
    ]


# ---- what is stored of a signature


def some_values(minhash: MinHash) -> Hashes:
    values = np.random.default_rng(5).integers(0, (1 << 61) - 1, (20, minhash.size), np.uint64)
    values[:, minhash.rows : 2 * minhash.rows] = values[:, : minhash.rows]  # two bands with the same values
    return values


@pytest.mark.parametrize("minhash", [DATATROVE, DOLMA3], ids=["14x8", "26x11"])
def test_band_hashes_are_xxh64_of_the_rows_with_the_bands_number_as_seed(minhash: MinHash) -> None:
    values = some_values(minhash)
    expected = [
        [xxhash.xxh64_intdigest(rows.tobytes(), seed=band) for band, rows in enumerate(np.split(row, minhash.bands))]
        for row in values.astype("<u8")
    ]
    found = band_hashes(values, minhash)
    assert found.tolist() == expected
    assert len(np.unique(found)) == found.size, "equal values in other bands have other hashes"


def test_band_hashes_do_not_depend_on_how_the_values_lie_in_memory() -> None:
    values = some_values(DATATROVE)
    assert (band_hashes(np.asfortranarray(values), DATATROVE) == band_hashes(values, DATATROVE)).all()
    assert (band_hashes(values[::2], DATATROVE) == band_hashes(values, DATATROVE)[::2]).all()
    assert (signature_hashes(np.asfortranarray(values)) == signature_hashes(values)).all()


def test_sketches_are_the_low_16_bits() -> None:
    values = some_values(DATATROVE)
    assert sketches(values).dtype == np.uint16
    assert (sketches(values) == values % (1 << 16)).all()


def test_signature_hashes_are_xxh3_of_all_values() -> None:
    values = some_values(DATATROVE)
    values[7, 111] ^= np.uint64(1)
    found = signature_hashes(values)
    assert [(int(high) << 64) + int(low) for high, low in found] == [
        xxhash.xxh3_128_intdigest(row.astype("<u8").tobytes()) for row in values
    ]


# ---- parameters


@pytest.mark.parametrize("wrong", [{"ngram": 0}, {"bands": 0}, {"rows": -1}, {"hash": "md5"}])
def test_parameters_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|xxhash64, sha1"):
        MinHash(**wrong)  # type: ignore[arg-type]


def test_threshold_and_probability_are_those_that_datatrove_states() -> None:
    assert DATATROVE.threshold == pytest.approx(0.719, abs=5e-4)
    assert DATATROVE.probability(0.8) == pytest.approx(0.924, abs=5e-4)
    assert DATATROVE.probability(0.75) == pytest.approx(0.772, abs=5e-4)
    assert (DATATROVE.probability(0), DATATROVE.probability(1)) == (0, 1)
    assert REDPAJAMA_08.threshold > REDPAJAMA_07.threshold
    assert {minhash.size for minhash in PROFILES.values()} == {112, 117, 126, 9000, 286, 250}


@pytest.mark.parametrize(
    ("threshold", "size", "minhash"), [(0.8, 128, REDPAJAMA_08), (0.7, 128, REDPAJAMA_07), (0.7, 256, STARCODER)]
)
def test_bands_for_a_threshold_are_those_that_others_got_from_datasketch(
    threshold: float, size: int, minhash: MinHash
) -> None:
    assert bands_for(threshold, size) == (minhash.bands, minhash.rows)


def areas(minhash: MinHash, threshold: float) -> float:
    """False positives below the threshold and false negatives above it, as areas."""
    wrong = [
        minhash.probability(s) if s < threshold else 1 - minhash.probability(s) for s in (np.arange(2000) + 0.5) / 2000
    ]
    return float(np.mean(wrong))


@pytest.mark.parametrize("threshold", [0.5, 0.75, 0.9])
def test_bands_for_a_threshold_have_the_least_area_of_errors(threshold: float) -> None:
    bands, rows = bands_for(threshold, 64)
    best = areas(MinHash(bands=bands, rows=rows), threshold)
    others = [MinHash(bands=bands, rows=rows) for bands in range(1, 65) for rows in range(1, 64 // bands + 1)]
    assert best <= min(areas(other, threshold) for other in others) + 1e-4


def test_bands_for_a_threshold_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="threshold"):
        bands_for(1.5, 112)


# ---- theory


def planted(rng: random.Random, shared: int, own: int, pairs: int) -> list[tuple[str, str]]:
    """Pairs of texts with `shared` shingles of 5 words in common and `own` ones each; s = shared / (shared + 2 own)."""

    def words(count: int) -> list[str]:
        return ["".join(rng.choices("bcdfghjklm", k=9)) for _ in range(count)]

    return [
        (" ".join([*same, *words(own)]), " ".join([*same, *words(own)]))
        for same in (words(shared + 4) for _ in range(pairs))
    ]


def agreement(pairs: Sequence[tuple[str, str]], minhash: MinHash) -> tuple[Hashes, Hashes]:
    ours = hasher(minhash, words="whitespace", lexicon=Lexicon(max_chunks=200_000))
    left, right = ([ours.signatures([pair[side] for pair in pairs[at : at + 500]]).values
                    for at in range(0, len(pairs), 500)] for side in (0, 1))  # fmt: skip
    return np.concatenate(left), np.concatenate(right)


def test_values_agree_as_often_as_the_jaccard_similarity_says() -> None:
    for shared, own in ((18, 9), (32, 4), (38, 1)):
        left, right = agreement(planted(random.Random(own), shared, own, 300), DATATROVE)
        similarity = shared / (shared + 2 * own)
        error = (similarity * (1 - similarity) / left.size) ** 0.5
        assert (left == right).mean() == pytest.approx(similarity, abs=5 * error)


SHARED_AND_OWN = [(18, 9), (22, 9), (24, 8), (26, 7), (28, 6), (36, 6), (32, 4), (34, 3), (36, 2), (38, 1)]


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("shared", "own"), SHARED_AND_OWN)
def test_planted_pairs_share_a_band_as_often_as_theory_says(shared: int, own: int) -> None:
    """20,000 pairs for each similarity from 0.5 to 0.95; a point is 2.8 standard deviations or more."""
    left, right = agreement(planted(random.Random(own), shared, own, pairs=20_000), DATATROVE)
    candidates = (band_hashes(left, DATATROVE) == band_hashes(right, DATATROVE)).any(axis=1)
    assert candidates.mean() == pytest.approx(DATATROVE.probability(shared / (shared + 2 * own)), abs=0.01)
