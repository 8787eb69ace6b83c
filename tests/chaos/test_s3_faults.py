"""An S3 that fails: input is read from it and output written to it, and the dataset is the same to the byte.

`full` takes 20 seeds at 5 % to 30 % of all requests, every kind mixed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from filters.errors import OutputError
from infra.commands import run_recipe
from infra.run import Finished
from infra.store import open_store
from pipelines.recipe import load_recipe
from tests.chaos.oracle import RECIPE, TASK_BYTES, assert_whole, named, stored
from tests.servers.fault_proxy import Fault, FaultProxy, Faults, fault_proxy
from tests.servers.fixtures import forgotten_clients, new_bucket
from tests.servers.seaweed import S3

Faulty = Callable[[Faults], FaultProxy]
SEEDS = 20
MOST = 0.30
"""The odds that something goes wrong with a request are from 0.05, for the first seed, to this, for the last."""
ALL = tuple(Fault)


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """A run from S3 to S3 without a fault: its input, its dataset's hash, the requests that it took."""

    crawl: str
    sha256: str
    calls: int


def run(crawl: str, out: str) -> Finished:
    return run_recipe(load_recipe(RECIPE), [crawl], out, runner="inprocess", quiet=True, task_bytes=TASK_BYTES)


@pytest.fixture(scope="module")
def undisturbed(s3_server: S3, small_crawl: Path) -> Iterator[Undisturbed]:
    """The crawl in a bucket, and what one run makes of it."""
    with pytest.MonkeyPatch.context() as patch, fault_proxy(s3_server.endpoint, Faults(seed=0, odds={})) as proxy:
        for name, value in s3_server.behind(proxy.endpoint).environment.items():
            patch.setenv(name, value)
        with forgotten_clients():
            bucket = new_bucket(s3_server)
            client = s3_server.client()
            for path in sorted(small_crawl.iterdir()):
                key = f"{small_crawl.name}/{path.name}"
                client.put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=path.read_bytes())
            client.close()
            crawl = f"{bucket}/{small_crawl.name}"
            made = run(crawl, f"{bucket}/out")
            yield Undisturbed(crawl=crawl, sha256=made.dataset_sha256, calls=proxy.calls)


def mixed(seed: int, odds: float, kinds: tuple[Fault, ...] = ALL) -> Faults:
    """Each kind at the same odds, so that about `odds` of all requests go wrong."""
    # Four kinds fit every request, and one to three more those that write or get an object.
    return Faults(seed=seed, odds=dict.fromkeys(kinds, odds / 4))


def disturbed(
    undisturbed: Undisturbed, bucket: str, faulty: Faulty, seed: int, odds: float, kinds: tuple[Fault, ...] = ALL
) -> FaultProxy:
    """Run once under faults and hold it against the undisturbed run; return the proxy with its counts."""
    random.seed(seed)  # the jitter of retries
    proxy = faulty(mixed(seed, odds, kinds))
    run(undisturbed.crawl, f"{bucket}/out-{seed}")
    print(proxy)
    said = f"{proxy}; a run without faults makes {undisturbed.calls} calls"
    assert proxy.calls <= 2 * undisturbed.calls, said
    faulty(Faults(seed=0, odds={}))
    assert_whole(f"{bucket}/out-{seed}", undisturbed.sha256, said)
    assert named(f"{bucket}/out-{seed}") <= stored(f"{bucket}/out-{seed}").keys(), said
    return proxy


@pytest.mark.full
def test_a_run_on_a_failing_s3_makes_the_same_dataset(undisturbed: Undisturbed, bucket: str, faulty: Faulty) -> None:
    assert disturbed(undisturbed, bucket, faulty, 1, 0.1).made.total() > 10


@pytest.mark.full
def test_a_run_on_a_failing_s3_makes_the_same_dataset_over_seeds(
    undisturbed: Undisturbed, bucket: str, faulty: Faulty
) -> None:
    made: Counter[Fault] = Counter()
    for seed in range(SEEDS):
        odds = 0.05 + (MOST - 0.05) * seed / (SEEDS - 1)
        made += disturbed(undisturbed, bucket, faulty, seed, odds).made
    print(f"{made.total()} faults over {SEEDS} seeds: {dict(made)}")
    assert made.keys() == set(Fault)


@pytest.mark.full
@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
def test_one_kind_of_fault_at_its_worst_changes_nothing(
    undisturbed: Undisturbed, bucket: str, faulty: Faulty, fault: Fault
) -> None:
    proxy = disturbed(undisturbed, bucket, faulty, 3, 4 * 0.25, (fault,))
    assert proxy.made[fault] > 5, str(proxy)


MANIFEST = r"^PUT /\S+/_work/manifests/"


@pytest.mark.parametrize(
    "fault", [Fault.LOST_REPLY, pytest.param(Fault.FAILED_REPLY, marks=pytest.mark.full)], ids=lambda fault: fault.name
)
def test_a_stored_manifest_whose_reply_is_lost_is_known_as_ones_own(
    undisturbed: Undisturbed, bucket: str, faulty: Faulty, fault: Fault
) -> None:
    proxy = faulty(Faults(seed=1, odds={fault: 0.35}, where=MANIFEST))
    run(undisturbed.crawl, f"{bucket}/out")
    assert proxy.made[fault] >= 3, str(proxy)
    faulty(Faults(seed=0, odds={}))
    assert_whole(f"{bucket}/out", undisturbed.sha256, str(proxy))
    names = stored(f"{bucket}/out").keys()
    manifests = [name for name in names if name.startswith("_work/manifests/")]
    attempts = {name.rsplit("/", 1)[0] for name in names if name.startswith("_work/attempts/")}
    assert len(attempts) == len([name for name in manifests if "/cut/" not in name]), "an attempt was made twice"


@pytest.mark.full
def test_a_store_that_never_gets_better_ends_the_run_with_its_name(
    undisturbed: Undisturbed, bucket: str, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.patience.WAIT_SECONDS", 0.001)
    proxy = faulty(Faults(seed=1, odds={Fault.RESET: 1.0}, where=r"^PUT /\S+/_work/attempts/"))
    with pytest.raises(OutputError, match=f"{bucket}/out.*same command continues"):
        run(undisturbed.crawl, f"{bucket}/out")
    assert proxy.made.total() >= 10
    faulty(Faults(seed=0, odds={}))
    assert run(undisturbed.crawl, f"{bucket}/out").dataset_sha256 == undisturbed.sha256
    assert_whole(f"{bucket}/out", undisturbed.sha256)


def test_a_conflict_with_another_writer_is_asked_again(bucket: str, faulty: Faulty) -> None:
    proxy = faulty(Faults(seed=1, odds={Fault.CONFLICT: 1.0}, at_most=2))
    assert open_store(bucket).create("name", b"data")
    assert proxy.made[Fault.CONFLICT] == 2
    assert not open_store(bucket).create("name", b"other")
