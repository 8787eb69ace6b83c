"""Who is kept follows from edges and precedence alone, and equals the definition read aloud."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup import candidates, survivors
from pipelines.dedup.survivors import Edges, Survivors
from tests.growth import Work, growth

Graph = dict[tuple[int, int], int]
"""Matches of the edges between documents, the smaller number first."""
Keys = dict[int, tuple[int, str]]
"""Each document's order and id."""
COMPILES = settings(deadline=None)  # the first example does


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, Keys]:
    count = draw(st.integers(1, 12))
    numbers = draw(st.lists(st.integers(0, 2**40), min_size=count, max_size=count, unique=True))
    pairs = st.tuples(st.sampled_from(numbers), st.sampled_from(numbers)).filter(lambda pair: pair[0] < pair[1])
    graph = draw(st.dictionaries(pairs, st.integers(80, 82), max_size=30)) if count > 1 else {}
    key = st.tuples(st.sampled_from([0, 1, 2**64 - 1]), st.sampled_from(["a", "b", "é", "zz", "\U0001f600", "\uffff"]))
    return graph, {number: draw(key) for number in numbers}


def edges_of(graph: Graph, turned: bool = False) -> Edges:
    first, second = np.array(list(graph), np.int64).reshape(-1, 2).T
    matches = np.array(list(graph.values()), np.uint16)
    return (
        Edges(first=second, second=first, matches=matches)
        if turned
        else Edges(first=first, second=second, matches=matches)
    )


def greedy(graph: Graph, keys: Keys, turned: bool = False) -> dict[int, tuple[int, int]]:
    """Who stands for each document, and their matches; the ids that are asked for and no others."""
    edges = edges_of(graph, turned)
    documents = survivors.with_edges(edges)
    contested = survivors.contested(edges, orders(edges.first, keys), orders(edges.second, keys))
    return by_number(survivors.greedy(edges, documents, ranks(documents, contested, keys)))


def preferred(graph: Graph, keys: Keys) -> dict[int, tuple[int, int]]:
    """The same of components."""
    edges = edges_of(graph)
    documents = survivors.with_edges(edges)
    contested = survivors.contested_in_components(edges, documents, orders(documents, keys))
    return by_number(survivors.preferred(edges, documents, ranks(documents, contested, keys)))


def orders(documents: npt.NDArray[np.int64], keys: Keys) -> npt.NDArray[np.uint64]:
    return np.array([keys[one][0] for one in documents.tolist()], np.uint64)


def ranks(documents: npt.NDArray[np.int64], contested: npt.NDArray[np.int64], keys: Keys) -> npt.NDArray[np.int64]:
    ids = pa.array([keys[one][1] for one in contested.tolist()], pa.string())
    return survivors.ranks(documents, orders(documents, keys), contested, ids)


def by_number(found: Survivors) -> dict[int, tuple[int, int]]:
    rows = zip(found.documents.tolist(), found.representatives.tolist(), found.matches.tolist(), strict=True)
    return {number: (representative, matches) for number, representative, matches in rows}


def neighbours(graph: Graph) -> dict[int, dict[int, int]]:
    found: dict[int, dict[int, int]] = {}
    for (one, other), matches in graph.items():
        found.setdefault(one, {})[other] = matches
        found.setdefault(other, {})[one] = matches
    return found


def preference(keys: Keys) -> Callable[[int], tuple[int, bytes, int]]:
    return lambda number: (keys[number][0], keys[number][1].encode(), number)


def greedily(graph: Graph, keys: Keys) -> dict[int, tuple[int, int]]:
    """The definition: in order of precedence, a document falls if and only if a kept one before it is its neighbour."""
    near, found, kept = neighbours(graph), dict[int, tuple[int, int]](), set[int]()
    for number in sorted(near, key=preference(keys)):
        standing = {one: matches for one, matches in near[number].items() if one in kept}
        if standing:
            most = max(standing.values())
            found[number] = min(one for one, matches in standing.items() if matches == most), most
        else:
            kept.add(number)
            found[number] = number, 0
    return found


@COMPILES
@given(graphs(), st.booleans())
def test_greedy_is_its_definition(drawn: tuple[Graph, Keys], turned: bool) -> None:
    graph, keys = drawn
    found, expected = greedy(graph, keys, turned), greedily(graph, keys)
    assert found.keys() == expected.keys()
    near = neighbours(graph)
    for number, (representative, matches) in found.items():
        assert (representative == number) == (expected[number][0] == number)
        assert matches == expected[number][1]
        assert representative == number or near[number][representative] == matches
        assert found[representative][0] == representative


@COMPILES
@given(graphs())
def test_of_equal_matches_the_preferred_stands(drawn: tuple[Graph, Keys]) -> None:
    graph, keys = drawn
    keys = {number: (place, "") for place, number in enumerate(sorted(keys, key=lambda one: -one))}
    near = neighbours(graph)
    found = greedy(graph, keys)
    kept = {number for number, (representative, _) in found.items() if representative == number}
    for number, (representative, matches) in found.items():
        rivals = [one for one in near[number] if one in kept and near[number][one] == matches]
        assert representative == (number if number in kept else min(rivals, key=preference(keys)))


@COMPILES
@given(graphs())
def test_of_a_component_the_preferred_document_stays(drawn: tuple[Graph, Keys]) -> None:
    graph, keys = drawn
    found = preferred(graph, keys)
    clusters = {number: {number} for number in neighbours(graph)}
    for one, other in graph:
        merged = clusters[one] | clusters[other]
        clusters |= dict.fromkeys(merged, merged)
    for number, (representative, matches) in found.items():
        assert found[representative][0] == representative
        assert {one for one in found if found[one][0] == representative} == clusters[number]
        assert representative == min(clusters[number], key=preference(keys))
        pair = min(number, representative), max(number, representative)
        assert matches == graph.get(pair, 0)


@COMPILES
@given(graphs(), st.randoms(use_true_random=False))
def test_numbers_and_sequence_of_edges_do_not_choose(drawn: tuple[Graph, Keys], random: object) -> None:
    graph, keys = drawn
    keys = {number: (order, f"{id_}{number}") for number, (order, id_) in keys.items()}
    shuffled = list(keys)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    new = dict(zip(keys, shuffled, strict=True))
    again = {
        (min(new[a], new[b]), max(new[a], new[b])): matches for (a, b), matches in sorted(graph.items(), reverse=True)
    }
    for choose in (greedy, preferred):
        kept = []
        for some, names in ((graph, keys), (again, {new[number]: key for number, key in keys.items()})):
            found = choose(some, names)
            kept.append({names[number][1] for number, (standing, _) in found.items() if standing == number})
        assert kept[0] == kept[1]


@COMPILES
@given(graphs(), st.integers(0, 12))
def test_earlier_dumps_first_keep_what_all_at_once_keeps(drawn: tuple[Graph, Keys], early: int) -> None:
    graph, keys = drawn
    first = set(sorted(keys, key=preference(keys))[:early])
    keys = {number: (int(number not in first), id_) for number, (_, id_) in keys.items()}

    def removed(some: Graph) -> set[int]:
        return {number for number, (standing, _) in greedy(some, keys).items() if standing != number}

    before = removed({pair: matches for pair, matches in graph.items() if first.issuperset(pair)})
    after = removed({pair: matches for pair, matches in graph.items() if not before & set(pair)})
    assert before | after == removed(graph)


def chain(count: int) -> Edges:
    return Edges(first=np.arange(count - 1), second=np.arange(1, count), matches=np.full(count - 1, 100, np.uint16))


@pytest.mark.parametrize("backwards", [False, True])
def test_of_a_chain_every_other_document_is_kept(backwards: bool) -> None:
    count = 100_000
    edges, documents = chain(count), np.arange(count)
    began = time.process_time()
    found = survivors.greedy(edges, documents, documents[::-1].copy() if backwards else documents)
    assert (np.flatnonzero(found.representatives == documents) % 2 == int(backwards)).all()
    assert (found.representatives == documents).sum() == count // 2
    assert survivors.preferred(edges, documents, documents).representatives.max() == 0
    assert time.process_time() - began < 5  # compiling included; it takes 0.02 s


def test_a_hub_stands_for_all_its_spokes() -> None:
    spokes = 200_000
    edges = Edges(
        first=np.arange(1, spokes + 1), second=np.zeros(spokes, np.int64), matches=np.full(spokes, 90, np.uint16)
    )
    documents = survivors.with_edges(edges)
    found = survivors.greedy(edges, documents, documents)
    assert (found.representatives == 0).all()
    first_is_last = survivors.greedy(edges, documents, np.append(spokes, np.arange(spokes)))
    assert (first_is_last.representatives == documents)[1:].all()
    assert first_is_last.representatives[0] == 1


def test_no_edges_have_no_survivors() -> None:
    assert greedy({}, {}) == preferred({}, {}) == {}


def test_only_documents_that_share_an_edge_and_an_order_are_contested() -> None:
    edges = edges_of({(1, 2): 90, (2, 3): 90, (3, 8): 90, (4, 5): 90, (6, 7): 90})
    keys = {number: (order, "") for number, order in {1: 5, 2: 5, 3: 4, 4: 5, 5: 6, 6: 0, 7: 0, 8: 5}.items()}
    documents = survivors.with_edges(edges)
    assert survivors.contested(edges, orders(edges.first, keys), orders(edges.second, keys)).tolist() == [1, 2, 6, 7]
    assert survivors.contested_in_components(edges, documents, orders(documents, keys)).tolist() == [6, 7]


@COMPILES
@given(
    st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 50), min_size=1, max_size=40, unique=True),
    st.integers(0, 2**63 - 1),
)
def test_places_are_found_wherever_the_documents_lie(numbers: list[int], other: int) -> None:
    documents = np.array(sorted(numbers), np.int64)
    assert survivors.places_of(np.array(numbers), documents).tolist() == [sorted(numbers).index(one) for one in numbers]
    if other not in numbers:
        with pytest.raises(ValueError, match="not among"):
            survivors.places_of(np.array([numbers[0], other]), documents)


def test_what_does_not_fit_together_is_refused() -> None:
    edges, documents = edges_of({(1, 2): 90}), np.array([1, 2])
    with pytest.raises(ValueError, match="not among"):
        survivors.greedy(edges, np.array([1, 3]), np.arange(2))
    with pytest.raises(ValueError, match="not among"):
        survivors.greedy(edges, np.zeros(0, np.int64), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="1 documents with 0 ids"):
        survivors.ranks(documents, np.zeros(2, np.uint64), np.array([1]), pa.array([], pa.string()))
    with pytest.raises(ValueError, match="document 2 to itself"):
        survivors.greedy(edges_of({(2, 2): 90}), documents, np.arange(2))
    with pytest.raises(ValueError, match="3 to 3 of 3"):
        survivors.components(3, [(np.array([0]), np.array([3]))])


def dict_components(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    """datatrove 0.10.1's union-find, with numbers for (file, document)."""
    parents, sizes = list(range(count)), [1] * count

    def root(node: int) -> int:
        while parents[node] != node:
            node = parents[node]
        return node

    for first, second in pairs:
        one, other = root(first), root(second)
        if one != other:
            if sizes[one] < sizes[other]:
                one, other = other, one
            parents[other] = one
            sizes[one] += sizes[other]
    return [root(node) for node in range(count)]


@COMPILES
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=60), st.integers(1, 7))
def test_components_are_joined_in_sequence_by_size(pairs: list[tuple[int, int]], block: int) -> None:
    columns = np.array(pairs, np.int64).reshape(-1, 2)
    blocks = [
        (some[:, 0].copy(), some[:, 1].copy())
        for some in (columns[at : at + block] for at in range(0, len(columns), block))
    ]
    found = survivors.components(20, blocks)
    expected = dict_components(20, pairs)
    assert found.tolist() == expected
    sizes = Counter(expected)
    assert survivors.cluster_sizes(found).tolist() == [sizes[one] for one in expected]
    heads: dict[int, int] = {}
    for number, one in enumerate(expected):
        heads.setdefault(one, number)
    assert survivors.smallest_members(found).tolist() == [heads[one] for one in expected]
    several = [one for one in heads if sizes[one] > 1]
    assert survivors.cluster_ids(found).tolist() == [several.index(one) if one in several else -1 for one in expected]


def test_weights_are_those_of_fineweb_2() -> None:
    sizes = np.array([1, 2, 3, 4, 5, 99, 100, 999, 1000, 10**9])
    assert survivors.rehydration_weights(sizes).tolist() == [1, 2, 3, 3, 5, 5, 8, 8, 1, 1]


def random_edges(count: int) -> Edges:
    """As many edges as documents, between neighbours at up to 50 places."""
    rng = np.random.default_rng(count)
    first = rng.integers(0, count - 50, count)
    matches = rng.integers(84, 112, count).astype(np.uint16)
    return Edges(first=first, second=first + rng.integers(1, 50, count), matches=matches)


def test_memory_is_at_most_40_bytes_a_document_and_50_an_edge() -> None:
    edges = random_edges(200_000)
    documents = survivors.with_edges(edges)
    order = np.random.default_rng(0).integers(0, 1 << 60, len(documents), dtype=np.uint64)
    nothing = np.zeros(0, np.int64), pa.array([], pa.string())
    for choose in (survivors.greedy, survivors.preferred):
        choose(random_edges(100), np.arange(100), np.arange(100))
        tracemalloc.start()
        ranks = survivors.ranks(documents, order, *nothing)
        ranking = tracemalloc.get_traced_memory()[1] + documents.nbytes + order.nbytes
        tracemalloc.reset_peak()
        choose(edges, documents, ranks)
        choosing = tracemalloc.get_traced_memory()[1] + documents.nbytes
        tracemalloc.stop()
        assert ranking < 40.1 * len(documents)
        assert choosing < 40.1 * len(documents) + 50 * len(edges.first)


def test_components_take_8_bytes_a_document() -> None:
    count = 1_000_000
    survivors.components(10, [(np.arange(9), np.arange(1, 10))])
    pairs = [(np.arange(999), np.arange(1, 1000))]
    tracemalloc.start()
    survivors.components(count, pairs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8.1 * count


Row = tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]


def planted_ranges(count: int) -> list[Row]:
    """(hashes, documents) of 14 bands in ranges of 2^18 rows: three documents in ten copy 0.7 of another's."""
    rng = np.random.default_rng(count)
    owners = np.tile(np.arange(count)[:, None], (1, 14))
    copied = (rng.random(count) < 0.3)[:, None] & (rng.random((count, 14)) < 0.7)
    owners = np.where(copied, rng.integers(0, count, count)[:, None], owners)
    hashes = (owners * 14 + np.arange(14)).astype(np.uint64).ravel() * np.uint64(0x9E3779B97F4A7C15)
    cuts = np.sort(hashes)[1 << 18 :: 1 << 18]
    of_range = np.searchsorted(cuts, hashes, side="right")
    documents = np.repeat(np.arange(count), 14)
    return [(hashes[of_range == one], documents[of_range == one]) for one in range(len(cuts) + 1)]


def clustered(ranges: list[Row], count: int, mode: str) -> int:
    """Documents removed."""
    if mode == "components":
        nothing = [np.zeros((len(hashes), 0), np.uint64) for hashes, _ in ranges]
        pairs = (
            candidates.chained_pairs(hashes, none, one) for (hashes, one), none in zip(ranges, nothing, strict=True)
        )
        return int((survivors.components(count, pairs) != np.arange(count)).sum())
    order = np.arange(count, dtype=np.uint64)[::-1].copy()
    found = [candidates.candidate_pairs(hashes, one, order[one]) for hashes, one in ranges]
    first, second = candidates.distinct_pairs(
        np.concatenate([one.first for one in found]), np.concatenate([one.second for one in found])
    )
    edges = Edges(first=first, second=second, matches=np.full(len(first), 100, np.uint16))
    documents = survivors.with_edges(edges)
    ranks = survivors.ranks(documents, order[documents], np.zeros(0, np.int64), pa.array([], pa.string()))
    chosen = survivors.greedy(edges, documents, ranks)
    return int((chosen.representatives != documents).sum())


@pytest.mark.full
@pytest.mark.timed
@pytest.mark.usefixtures("kept_memory")
@pytest.mark.parametrize("mode", ["greedy", "components"])
def test_time_grows_as_the_documents_do(mode: str) -> None:
    def prepare(count: int) -> Work:
        ranges = planted_ranges(count)

        def work() -> None:
            assert 0.2 < clustered(ranges, count, mode) / count < 0.35

        return work

    assert growth(prepare, 100_000, times=16, most=16**1.1) <= 16**1.1
