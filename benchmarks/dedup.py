"""MinHash signatures against datatrove 0.10.1, datasketch and rensa, and buckets and clusters against datatrove.

    python -m benchmarks.dedup [--quick] [--json] [--part signatures|clustering] [--crawl FOLDER]

Documents are English main texts of the crawl's pages in two halves, as in `benchmarks/rules.py`; without a crawl, those
of the demo crawl. From text to signature, one thread, models and kernels loaded outside the clock; process CPU seconds,
median of 3 runs. Ratios are ours over theirs in documents a second:

signatures_xxhash  14 bands of 8, 5-grams of spaCy's words in simplified text, as datatrove's MinhashDedupSignature
                   makes them; our lexicon has met the documents of the other half and none of these
signatures_sha1    the same with SHA-1, FineWeb's hash
datasketch, rensa  112 permutations of 5-grams of white-space words, their fastest calls for many documents, which take
                   the text as it is; ours with the same words, but of the simplified text, warm as above
clustering         see `benchmarks/dedup_clustering.py`

Agreement is the share of documents with the same signature as datatrove's, and with the same fate in its clusters.
Beside them: the same with an empty lexicon (cold), and what each profile costs.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash
from datasketch import MinHash as TheirMinHash
from datatrove.pipeline.dedup.minhash import HashConfig, MinhashConfig, MinhashDedupSignature
from rensa import RMinHash

from benchmarks.dedup_clustering import clustering
from benchmarks.oracle import CRAWL
from benchmarks.rules import english_texts, peak_mib
from pipelines.dedup.minhash import DATATROVE, EMPTY, FINEWEB, PROFILES, Hasher, MinHash
from pipelines.process import BATCH_PAGES
from pipelines.words import words_by_name

RUNS = 3
WORDS = "spacy_english"
RAW_WORDS = "whitespace"

Values = npt.NDArray[np.uint64]


def our_values(hasher: Hasher, texts: Sequence[str]) -> Values:
    """The signatures, as a worker makes them: so many texts at a time."""
    starts = range(0, len(texts), BATCH_PAGES)
    return np.concatenate([hasher.signatures(texts[at : at + BATCH_PAGES]).values for at in starts])


def datatrove_step(minhash: MinHash) -> MinhashDedupSignature:
    """datatrove's stage 1; its xxhash64 gives strings to `xxhash`, which since 4.0 wants bytes."""
    hashes = HashConfig(precision=64, hash_fc="sha1" if minhash.hash == "sha1" else "xxhash")
    step = MinhashDedupSignature("memory://none", MinhashConfig(hash_config=hashes))
    if minhash.hash == "xxhash64":
        step._hash_func = lambda text: xxhash.xxh64_intdigest(text.encode())
    return step


def datatrove_values(step: MinhashDedupSignature, texts: Sequence[str]) -> Values:
    """The signatures that its stage 1 would write."""
    rows = []
    for text in texts:
        shingles = step.get_shingles(text)
        empty = [[EMPTY] * DATATROVE.size]
        rows.append(np.array(step.get_signature(shingles) if shingles.size else empty, np.uint64).ravel())
    return np.stack(rows)


def raw_shingles(text: str) -> list[str]:
    """Runs of 5 white-space words, as users of datasketch and rensa make them."""
    words = text.split()
    return [" ".join(words[at : at + 5]) for at in range(len(words) - 4)]


def datasketch_values(texts: Sequence[str]) -> list[Any]:
    """datasketch's signatures of the distinct shingles."""
    shingles = ([shingle.encode() for shingle in set(raw_shingles(text))] for text in texts)
    return TheirMinHash.bulk(shingles, num_perm=DATATROVE.size)


def rensa_values(texts: Sequence[str]) -> Any:
    """rensa's, as a matrix of all."""
    return RMinHash.digest_matrix_from_token_sets(map(raw_shingles, texts), DATATROVE.size, 1)


def seconds(work: Callable[[], Any], *, runs: int = RUNS) -> float:
    """Median CPU seconds."""
    spent = []
    for _ in range(runs):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return median(spent)


def our_seconds(hasher: Hasher, texts: Sequence[str], *, runs: int = RUNS) -> float:
    """Median CPU seconds, each run with a copy of what the hasher has learned."""
    copies = iter([copy.deepcopy(hasher) for _ in range(runs)])
    return seconds(lambda: our_values(next(copies), texts), runs=runs)


def learned(minhash: MinHash, words: str, others: Sequence[str]) -> Hasher:
    """A hasher that has met these texts; its kernels are compiled."""
    hasher = Hasher(minhash, words_by_name(words))
    our_values(hasher, others)
    return hasher


def against_datatrove(minhash: MinHash, texts: Sequence[str], others: Sequence[str]) -> tuple[dict[str, float], float]:
    """Milliseconds a document, warm, cold and datatrove's, and the share of equal signatures."""
    warm, step = learned(minhash, WORDS, others), datatrove_step(minhash)
    datatrove_values(step, others[:1])
    equal = our_values(copy.deepcopy(warm), texts) == datatrove_values(step, texts)
    each = 1000 / len(texts)
    milliseconds = {
        "warm": each * our_seconds(warm, texts),
        "cold": each * our_seconds(Hasher(minhash, words_by_name(WORDS)), texts),
        "datatrove": each * seconds(lambda: datatrove_values(step, texts)),
    }
    return milliseconds, float(equal.all(axis=1).mean())


def signatures(*, quick: bool, crawl: Path | None = CRAWL) -> dict[str, Any]:
    """Ratios, agreement and details; texts from the demo crawl where there is no such crawl."""
    crawl = crawl if crawl is not None and crawl.is_dir() else None
    halves = english_texts(crawl, *((50, 150) if quick else (400, 700)))
    texts, others = halves.judged, halves.others
    found = {"xxhash": against_datatrove(DATATROVE, texts, others), "sha1": against_datatrove(FINEWEB, texts, others)}
    for rival in (datasketch_values, rensa_values):
        rival(others[:2])
    each = 1000 / len(texts)
    raw = {
        "ours": each * our_seconds(learned(DATATROVE, RAW_WORDS, others), texts),
        "datasketch": each * seconds(lambda: datasketch_values(texts)),
        "rensa": each * seconds(lambda: rensa_values(texts)),
    }
    profiles = {} if quick else {
        name: each * our_seconds(learned(minhash, WORDS, others), texts, runs=1) for name, minhash in PROFILES.items()
    }  # fmt: skip
    return {
        "ratios": {
            **{f"signatures_{name}": round(one["datatrove"] / one["warm"], 2) for name, (one, _) in found.items()},
            **{name: round(raw[name] / raw["ours"], 2) for name in ("datasketch", "rensa")},
        },
        "agreement": {f"signatures_{name}": equal for name, (_, equal) in found.items()},
        "details": {
            "documents": {"hashed": len(texts), "met_before": len(others)},
            "characters": round(sum(map(len, texts)) / len(texts)),
            "pages_from": "the crawl" if crawl else "the demo crawl",
            "cold_ratios": {name: round(one["datatrove"] / one["cold"], 2) for name, (one, _) in found.items()},
            "milliseconds": {name: rounded(one) for name, (one, _) in found.items()},
            "milliseconds_whitespace": rounded(raw),
            "milliseconds_profiles": rounded(profiles),
            "peak_mib": peak_mib(),
            "versions": {name: version(name) for name in ("datatrove", "datasketch", "rensa", "xxhash", "numba")},
        },
    }


def rounded(values: dict[str, float]) -> dict[str, float]:
    """To a microsecond, of milliseconds."""
    return {name: round(value, 3) for name, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer documents, no profiles; 10^5 in clusters")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--part", choices=["signatures", "clustering"], help="only this")
    parser.add_argument("--crawl", type=Path, default=CRAWL, help="folder with *.warc.gz")
    options = parser.parse_args()
    parts: dict[str, dict[str, Any]] = {}
    if options.part != "clustering":
        parts["signatures"] = signatures(quick=options.quick, crawl=options.crawl)
    if options.part != "signatures":
        parts["clustering"] = clustering(quick=options.quick)
    merged = {key: {k: v for part in parts.values() for k, v in part[key].items()} for key in ("ratios", "agreement")}
    if options.json:
        print(json.dumps(merged | {name: part["details"] for name, part in parts.items()}))
        return
    for name, ratio in merged["ratios"].items():
        print(f"{name}: {ratio}x")
    print("agreement: ", ", ".join(f"{name} {share:.2%}" for name, share in merged["agreement"].items()))
    for part in parts.values():
        for name, detail in part["details"].items():
            print(f"{name}: {detail}")


if __name__ == "__main__":
    main()
