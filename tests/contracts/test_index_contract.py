"""One contract for every index: edge, the client's local mode, the test server, a real one where there is.

What is expected is computed here by hand, not taken from any engine.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient

from adapters.index_edge import EdgeIndex
from adapters.index_port import VectorIndex
from adapters.index_server import ServerIndex
from schemas.vectors import (
    AnyOf,
    Between,
    Candidate,
    CollectionSpec,
    DimensionQuery,
    FusedQuery,
    Ids,
    Point,
    SparseVector,
    Vector,
    Where,
)
from tests.contracts.conftest import SPEC

LIVE = Where(must_not=(AnyOf("deleted", (True,)),))
UNUSUAL_IDS = (
    "B00 X/../..?a=b&c#d",
    "{braces}{}",
    "製品-ß-🎧",
    'quote"\\back\nnew\tline',
    "é",  # composed
    "e\u0301",  # decomposed: another id, however alike it looks
    ".",
    "x" * 256,
    "0",
)


def point(
    product_id: str,
    dense: list[float] | None = None,
    sparse: dict[int, float] | None = None,
    shoppers: dict[int, float] | None = None,
    **payload: Any,
) -> Point:
    """A live point; without vectors where none are given."""
    vectors: dict[str, Vector] = {}
    if dense is not None:
        vectors["content"] = dense
    if sparse is not None:
        vectors["lexical"] = SparseVector(tuple(sparse), tuple(sparse.values()))
    if shoppers is not None:
        vectors["behaviour"] = SparseVector(tuple(shoppers), tuple(shoppers.values()))
    return Point(product_id, vectors, {"product_id": product_id, "deleted": False, **payload})


def tombstone(product_id: str) -> Point:
    """What stands for a deleted item."""
    return Point(product_id, {}, {"product_id": product_id, "deleted": True, "deleted_at": 1_000})


def unit(vector: list[float]) -> list[float]:
    """A vector over its length."""
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector]


def dot(left: list[float], right: list[float]) -> float:
    """The cosine of two unit vectors."""
    return sum(a * b for a, b in zip(left, right, strict=True))


def idf(documents: int, frequency: int) -> float:
    """Qdrant's inverse document frequency."""
    return math.log((documents - frequency + 0.5) / (frequency + 0.5) + 1)


def version_of(index: VectorIndex, collection: str, product_id: str) -> Any:
    """The field `version` of a stored point, which these tests write."""
    return index.fetch(collection, [product_id], vectors=False)[product_id].payload["version"]


# --- one way to write ------------------------------------------------------------------------------


def write_three_tickets(index: VectorIndex, collection: str) -> list[Any]:
    """The version that stands after writes with ticket 10, then 9 (stale), then 10 again, then 11."""
    seen = []
    for version, ticket in (("first", 10), ("stale", 9), ("equal", 10), ("newer", 11)):
        index.upsert(collection, [point("a", [1.0, 0, 0, 0], version=version)], ticket=ticket)
        seen.append(version_of(index, collection, "a"))
    return seen


def test_an_older_ticket_never_replaces_a_newer_point(index: VectorIndex, collection: str) -> None:
    assert write_three_tickets(index, collection) == ["first", "first", "equal", "newer"]


class UnconditionalEdge(EdgeIndex):
    """The guard switched off."""

    def _write_condition(self, ticket: int) -> None:
        return None


class UnconditionalServer(ServerIndex):
    """The guard switched off."""

    def _write_condition(self, ticket: int) -> None:
        return None


@pytest.fixture(params=["edge", "memory"])
def unguarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorIndex]:
    index: VectorIndex
    if request.param == "edge":
        index = UnconditionalEdge(tmp_path / "unguarded")
    else:
        index = UnconditionalServer(QdrantClient(":memory:"), local=True)
    yield index
    index.close()


def test_without_the_condition_a_stale_writer_wins_so_the_test_above_can_fail(
    unguarded: VectorIndex,
) -> None:
    unguarded.ensure_collection("c", SPEC)
    assert write_three_tickets(unguarded, "c") == ["first", "stale", "equal", "newer"]


def test_one_batch_inserts_the_missing_replaces_the_older_and_leaves_the_newer(
    index: VectorIndex, collection: str
) -> None:
    index.upsert(collection, [point("older", [1.0, 0, 0, 0], version=1)], ticket=5)
    index.upsert(collection, [point("newer", [1.0, 0, 0, 0], version=1)], ticket=50)
    batch = [point(name, [0, 1.0, 0, 0], version=2) for name in ("older", "newer", "missing")]
    index.upsert(collection, batch, ticket=20)

    found = index.fetch(collection, ["older", "newer", "missing"], vectors=True)
    assert {name: each.payload["version"] for name, each in found.items()} == {
        "older": 2,
        "newer": 1,
        "missing": 2,
    }
    assert {name: each.payload["ticket"] for name, each in found.items()} == {
        "older": 20,
        "newer": 50,
        "missing": 20,
    }
    assert found["newer"].vectors["content"] == pytest.approx([1, 0, 0, 0])


def test_tickets_as_large_as_milliseconds_are_told_apart(index: VectorIndex, collection: str) -> None:
    now = 1_795_600_000_000
    index.upsert(collection, [point("a", [1.0, 0, 0, 0], version=1)], ticket=now)
    index.upsert(collection, [point("a", [1.0, 0, 0, 0], version=2)], ticket=now - 1)
    assert version_of(index, collection, "a") == 1
    index.upsert(collection, [point("a", [1.0, 0, 0, 0], version=3)], ticket=now + 1)
    assert version_of(index, collection, "a") == 3


def test_a_ticket_read_back_with_the_payload_does_not_outlive_the_next_write(
    index: VectorIndex, collection: str
) -> None:
    index.upsert(collection, [point("a", [1.0, 0, 0, 0])], ticket=7)
    read = index.fetch(collection, ["a"], vectors=True)["a"]
    assert read.payload["ticket"] == 7
    index.upsert(collection, [read], ticket=8)
    assert index.fetch(collection, ["a"], vectors=False)["a"].payload["ticket"] == 8


def test_a_tombstone_replaces_the_whole_point_and_a_late_writer_does_not_bring_it_back(
    index: VectorIndex, collection: str
) -> None:
    index.upsert(collection, [point("a", [1.0, 0, 0, 0], {1: 1.0}, title="gone soon")], ticket=5)
    index.upsert(collection, [tombstone("a")], ticket=6)
    index.upsert(collection, [point("a", [1.0, 0, 0, 0], {1: 1.0}, title="late")], ticket=5)

    stands = index.fetch(collection, ["a"], vectors=True)["a"]
    assert stands.vectors == {}
    assert stands.payload == {"product_id": "a", "deleted": True, "deleted_at": 1_000, "ticket": 6}
    query = FusedQuery(
        (
            DimensionQuery("content", [1.0, 0, 0, 0], 1.0),
            DimensionQuery("lexical", SparseVector((1,), (1.0,)), 1.0),
        ),
        LIVE,
    )
    assert index.candidates(collection, query) == []
    assert index.count(collection) == 1
    assert index.count(collection, LIVE) == 0


def test_the_same_product_twice_in_one_write_is_refused_by_name(index: VectorIndex, collection: str) -> None:
    with pytest.raises(ValueError, match="'a' is twice"):
        index.upsert(collection, [point("a", [1.0, 0, 0, 0]), point("a", [0, 1.0, 0, 0])], ticket=1)
    assert index.count(collection) == 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_vector_that_is_not_finite_is_refused_by_name(
    index: VectorIndex, collection: str, wrong: float
) -> None:
    with pytest.raises(ValueError, match="'a': vector 'content' holds NaN or infinity"):
        index.upsert(collection, [point("a", [wrong, 0, 0, 0])], ticket=1)


def test_a_vector_of_the_wrong_length_is_refused(index: VectorIndex, collection: str) -> None:
    with pytest.raises(ValueError, match=r"(?i)dim|length|shape"):
        index.upsert(collection, [point("a", [1.0, 0.0])], ticket=1)
    assert index.count(collection) == 0


# --- reading ---------------------------------------------------------------------------------------


def test_what_was_written_is_read_back_payload_exactly_and_missing_ids_are_left_out(
    index: VectorIndex, collection: str
) -> None:
    payload: dict[str, Any] = {
        "title": "Kopfhörer 🎧",
        "revision": 2**53 - 1,
        "price": 19.9,
        "brand": None,
        "category": ["Audio", "Audio > Headphones"],
        "category_path": [],
        "fingerprints": {"content": "ab", "nested": {"deep": [1, 2.5, None, True]}},
        "in_stock": True,
    }
    index.upsert(
        collection, [point("a", [3.0, 4.0, 0, 0], {7: 0.6, 4_294_967_295: 0.8}, **payload)], ticket=3
    )

    found = index.fetch(collection, ["a", "missing"], vectors=True)
    assert list(found) == ["a"]
    assert found["a"].product_id == "a"
    assert found["a"].payload == {"product_id": "a", "deleted": False, "ticket": 3, **payload}
    assert set(found["a"].vectors) == {"content", "lexical"}
    assert found["a"].vectors["content"] == pytest.approx([0.6, 0.8, 0, 0])
    lexical = found["a"].vectors["lexical"]
    assert isinstance(lexical, SparseVector)
    assert lexical.indices == (7, 4_294_967_295)
    assert lexical.values == pytest.approx((0.6, 0.8))
    assert index.fetch(collection, ["a"], vectors=False)["a"].vectors == {}


def test_only_the_vectors_named_come_back_and_the_payload_always(index: VectorIndex, collection: str) -> None:
    index.upsert(
        collection,
        [point("a", [3.0, 4.0, 0, 0], {7: 0.6}, {1: 0.5}, version=1), point("b", [1.0, 0, 0, 0])],
        ticket=1,
    )
    for names in ((), ("content",), ("behaviour",), ("lexical", "content")):
        found = index.fetch(collection, ["a", "b"], vectors=names)
        assert set(found["a"].vectors) == set(names), names
        assert set(found["b"].vectors) == set(names) & {"content"}
        assert found["a"].payload["version"] == 1


def test_vectors_read_back_and_written_again_ten_times_do_not_drift(
    index: VectorIndex, collection: str
) -> None:
    index.upsert(collection, [point("a", [0.1, -0.7, 0.33, 0.12], {3: 0.123456789, 9: 0.7})], ticket=1)
    first = index.fetch(collection, ["a"], vectors=True)["a"]
    for ticket in range(2, 12):
        read = index.fetch(collection, ["a"], vectors=True)["a"]
        index.upsert(collection, [read], ticket=ticket)
    last = index.fetch(collection, ["a"], vectors=True)["a"]
    assert last.payload["ticket"] == 11
    assert last.vectors == first.vectors


def test_unusual_ids_are_stored_found_filtered_and_kept_apart(index: VectorIndex, collection: str) -> None:
    index.upsert(collection, [point(each, [1.0, 0, 0, 0]) for each in UNUSUAL_IDS], ticket=1)

    found = index.fetch(collection, UNUSUAL_IDS, vectors=False)
    assert set(found) == set(UNUSUAL_IDS)
    for each in UNUSUAL_IDS:
        assert index.count(collection, Where(must=(Ids((each,)),))) == 1
        assert index.count(collection, Where(must=(AnyOf("product_id", (each,)),))) == 1
    query = DimensionQuery("content", [1.0, 0, 0, 0], 1.0)
    assert {hit.product_id for hit in index.candidates(collection, FusedQuery((query,)))} == set(UNUSUAL_IDS)
    assert set(index.scores(collection, [query], UNUSUAL_IDS)[0]) == set(UNUSUAL_IDS)


def test_a_scan_shows_every_point_once_in_pages_tombstones_included_without_vectors(
    index: VectorIndex, collection: str
) -> None:
    index.upsert(collection, [point(f"p{n}", [1.0, n, 0, 0]) for n in range(25)], ticket=1)
    index.upsert(collection, [tombstone("p3")], ticket=2)

    pages = list(index.scan(collection, batch=10))
    assert [len(page) for page in pages] == [10, 10, 5]
    seen = [each for page in pages for each in page]
    assert sorted(each.product_id for each in seen) == sorted(f"p{n}" for n in range(25))
    assert all(each.vectors == {} for each in seen)
    assert [each.product_id for each in seen if each.payload["deleted"]] == ["p3"]


def test_empty_requests_have_empty_answers(index: VectorIndex, collection: str) -> None:
    query = DimensionQuery("content", [1.0, 0, 0, 0], 1.0)
    empty = DimensionQuery("lexical", SparseVector((), ()), 1.0)
    index.upsert(collection, [], ticket=1)
    assert index.fetch(collection, [], vectors=True) == {}
    assert list(index.scan(collection)) == []
    assert index.count(collection) == 0
    assert index.candidates(collection, FusedQuery((query,))) == []

    index.upsert(collection, [point("a", [1.0, 0, 0, 0], {})], ticket=1)
    assert set(index.fetch(collection, ["a"], vectors=True)["a"].vectors) == {"content"}
    assert index.candidates(collection, FusedQuery(())) == []
    assert index.candidates(collection, FusedQuery((empty,))) == []
    assert index.candidates(collection, FusedQuery((query,), limit=0)) == []
    assert [hit.product_id for hit in index.candidates(collection, FusedQuery((empty, query)))] == ["a"]
    assert index.scores(collection, [query], []) == [{}]
    assert index.scores(collection, [], ["a"]) == []
    scored = index.scores(collection, [empty, query], ["a"])
    assert scored[0] == {}
    assert scored[1] == pytest.approx({"a": 1.0})
    assert index.idf(collection, "lexical", []) == []


# --- filters ---------------------------------------------------------------------------------------

SHELF = (
    point("speaker", [1.0, 0, 0, 0], category=["Audio", "Home"], brand="acme", price=50.0, in_stock=True),
    point("headset", [1.0, 0, 0, 0], category=["Audio"], brand="bolt", price=20.0, in_stock=False),
    point("kettle", [1.0, 0, 0, 0], category=["Home"], brand="acme", price=30.0, in_stock=None),
    point("nothing", [1.0, 0, 0, 0], category=[], brand=None, price=None),
    tombstone("gone"),
)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where(), "speaker headset kettle nothing gone"),
        (LIVE, "speaker headset kettle nothing"),
        (Where(must=(AnyOf("category", ("Audio",)),)), "speaker headset"),
        (Where(must=(AnyOf("category", ("Home", "Garden")),)), "speaker kettle"),
        (Where(must=(AnyOf("category", ()),)), ""),
        (Where(must_not=(AnyOf("category", ()),)), "speaker headset kettle nothing gone"),
        (Where(must=(AnyOf("in_stock", (True,)),)), "speaker"),
        (Where(must=(AnyOf("in_stock", (False,)),)), "headset"),
        (Where(must=(AnyOf("in_stock", (True, False)),)), "speaker headset"),
        (Where(must_not=(AnyOf("in_stock", (True,)),)), "headset kettle nothing gone"),
        (Where(must=(AnyOf("deleted_at", (1_000, 5)),)), "gone"),
        (Where(must=(AnyOf("ticket", (4,)),)), "speaker headset kettle nothing gone"),
        (Where(must=(Between("price", 20.0, 30.0),)), "headset kettle"),
        (Where(must=(Between("price", low=20.5),)), "speaker kettle"),
        (Where(must=(Between("price", high=20.0),)), "headset"),
        (Where(must=(Between("price"),)), "speaker headset kettle"),
        (Where(must=(Between("deleted_at", high=999),)), ""),
        (Where(must=(Between("deleted_at", high=1_000),)), "gone"),
        (Where(must=(Ids(("kettle", "unknown")),)), "kettle"),
        (Where(must=(Ids(()),)), ""),
        (Where(must_not=(Ids(("kettle", "gone")),)), "speaker headset nothing"),
        (Where(must=(AnyOf("brand", ("acme",)), Between("price", low=40))), "speaker"),
        (
            Where(
                must=(AnyOf("brand", ("acme", "bolt")),),
                must_not=(Ids(("speaker",)), Between("price", high=25)),
            ),
            "kettle",
        ),
    ],
)
def test_filters_hold_in_counts_and_in_queries(
    index: VectorIndex, collection: str, where: Where, expected: str
) -> None:
    index.upsert(collection, SHELF, ticket=4)
    names = set(expected.split())
    assert index.count(collection, where) == len(names)
    query = FusedQuery((DimensionQuery("content", [1.0, 0, 0, 0], 1.0),), where)
    assert {hit.product_id for hit in index.candidates(collection, query)} == names - {"gone"}


@pytest.mark.parametrize(
    ("clause", "message"),
    [
        (AnyOf("colour", ("red",)), "cannot filter on 'colour'"),
        (AnyOf("in_stock", (1,)), "'in_stock' is of kind bool"),
        (AnyOf("ticket", (True,)), "'ticket' is of kind integer"),
        (AnyOf("price", ("cheap",)), "'price' is of kind float"),
        (Between("brand", 1, 2), "'brand' is of kind keyword"),
        (Between("price", math.nan, None), "range of 'price'"),
    ],
)
def test_a_filter_that_cannot_hold_is_refused_by_field_rather_than_matching_nothing(
    index: VectorIndex, collection: str, clause: AnyOf | Between, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        index.count(collection, Where(must=(clause,)))


def test_deleting_by_filter_removes_what_matches_and_nothing_else(
    index: VectorIndex, collection: str
) -> None:
    index.upsert(collection, SHELF, ticket=4)
    index.delete_where(collection, Where(must=(AnyOf("deleted", (True,)), Between("deleted_at", high=1_000))))
    names = {each.product_id for page in index.scan(collection) for each in page}
    assert names == {"speaker", "headset", "kettle", "nothing"}


# --- scores ----------------------------------------------------------------------------------------

DENSE = {"a": [1.0, 0.2, 0, 0], "b": [0.1, 1.0, 0.3, 0], "c": [0.5, 0.5, 0.5, 0.1], "d": [-1.0, 0, 0, 0]}
SPARSE = {"a": {1: 0.6, 2: 0.8}, "b": {2: 1.0}, "c": {1: 0.3, 3: 0.9}, "e": {2: 0.5, 4: 0.5}}
QUERY_DENSE = [1.0, 0.5, 0.0, 0.0]
QUERY_SPARSE = {1: 0.5, 2: 0.7, 9: 1.0}


def fill(index: VectorIndex, collection: str) -> None:
    """Five products: d has no grams, e no dense vector."""
    names = sorted(DENSE.keys() | SPARSE.keys())
    index.upsert(collection, [point(name, DENSE.get(name), SPARSE.get(name)) for name in names], ticket=1)
    index.upsert(collection, [tombstone("gone")], ticket=1)


def dense_score(name: str) -> float:
    return dot(unit(QUERY_DENSE), unit(DENSE[name]))


def frequency(gram: int) -> int:
    return sum(gram in grams for grams in SPARSE.values())


def sparse_score(name: str) -> float:
    shared = QUERY_SPARSE.keys() & SPARSE[name].keys()
    return sum(QUERY_SPARSE[gram] * idf(len(SPARSE), frequency(gram)) * SPARSE[name][gram] for gram in shared)


def queries(dense_weight: float, sparse_weight: float, candidates: int = 100) -> tuple[DimensionQuery, ...]:
    sparse = SparseVector(tuple(QUERY_SPARSE), tuple(QUERY_SPARSE.values()))
    return (
        DimensionQuery("content", QUERY_DENSE, dense_weight, candidates),
        DimensionQuery("lexical", sparse, sparse_weight, candidates),
    )


def scores_of(hits: list[Candidate]) -> dict[str, float]:
    return {hit.product_id: hit.score for hit in hits}


def test_exact_scores_are_cosines_and_idf_weighted_sums(index: VectorIndex, collection: str) -> None:
    fill(index, collection)
    content, lexical = index.scores(collection, queries(1, 1), ["a", "b", "c", "d", "e", "gone", "missing"])
    assert content == pytest.approx({name: dense_score(name) for name in DENSE}, abs=1e-6)
    # a product without the dimension is left out; one that shares no gram may be
    assert {name: score for name, score in lexical.items() if score} == pytest.approx(
        {name: sparse_score(name) for name in SPARSE}, abs=1e-6
    )
    assert "d" not in lexical


def test_scores_are_of_the_products_asked_for_only(index: VectorIndex, collection: str) -> None:
    fill(index, collection)
    content, _ = index.scores(collection, queries(1, 1), ["d", "b"])
    assert content == pytest.approx({"d": dense_score("d"), "b": dense_score("b")}, abs=1e-6)


@pytest.mark.parametrize(("dense_weight", "sparse_weight"), [(1.0, 1.0), (0.25, 2.0), (1.0, -0.5)])
def test_fused_candidates_are_the_weighted_sum_best_first(
    index: VectorIndex, collection: str, dense_weight: float, sparse_weight: float
) -> None:
    fill(index, collection)
    hits = index.candidates(collection, FusedQuery(queries(dense_weight, sparse_weight), LIVE))
    expected = {
        name: dense_weight * (dense_score(name) if name in DENSE else 0.0)
        + sparse_weight * (sparse_score(name) if name in SPARSE else 0.0)
        for name in DENSE.keys() | SPARSE.keys()
    }
    assert scores_of(hits) == pytest.approx(expected, abs=1e-6)
    assert [hit.product_id for hit in hits] == sorted(expected, key=lambda name: -expected[name])
    best = index.candidates(collection, FusedQuery(queries(dense_weight, sparse_weight), LIVE, limit=2))
    assert [hit.product_id for hit in best] == [hit.product_id for hit in hits[:2]]


def test_a_candidate_that_one_dimension_did_not_prefetch_counts_zero_there(
    index: VectorIndex, collection: str
) -> None:
    fill(index, collection)
    hits = scores_of(index.candidates(collection, FusedQuery(queries(1, 1, candidates=1), LIVE)))
    best_dense = max(DENSE, key=dense_score)
    best_sparse = max(SPARSE, key=sparse_score)
    assert best_dense == "a"
    assert best_sparse == "a"
    hits_two = scores_of(index.candidates(collection, FusedQuery(queries(1, 1, candidates=2), LIVE)))
    second_dense = sorted(DENSE, key=dense_score)[-2]
    second_sparse = sorted(SPARSE, key=sparse_score)[-2]
    assert second_dense != second_sparse
    assert hits == pytest.approx({"a": dense_score("a") + sparse_score("a")}, abs=1e-6)
    assert hits_two == pytest.approx(
        {**hits, second_dense: dense_score(second_dense), second_sparse: sparse_score(second_sparse)},
        abs=1e-6,
    )


def test_what_candidates_know_is_exact_and_need_not_be_scored_again(
    index: VectorIndex, collection: str
) -> None:
    fill(index, collection)
    asked = queries(1, 1)
    hits = index.candidates(collection, FusedQuery(asked, LIVE))
    names = [hit.product_id for hit in hits]
    exact = dict(zip(("content", "lexical"), index.scores(collection, asked, names), strict=True))
    for hit in hits:
        for dimension, score in hit.known.items():
            assert score == pytest.approx(exact[dimension][hit.product_id], abs=1e-6)
    content, lexical = index.scores(collection, asked, ["a", "b", "c"], known=[["a", "c"], []])
    assert content == pytest.approx({"b": dense_score("b")}, abs=1e-6)
    assert lexical["a"] == pytest.approx(sparse_score("a"), abs=1e-6)
    assert index.scores(collection, asked, ["a"], known=[["a"], ["a"]]) == [{}, {}]
    with pytest.raises(ValueError, match="1 queries, but 2"):
        index.scores(collection, asked, ["a"], known=[[]])


def test_candidates_bring_their_payload_as_it_was_written(index: VectorIndex, collection: str) -> None:
    payload: dict[str, Any] = {
        "title": "Kopfhörer 🎧",
        "rating_count": 12,
        "brand": None,
        "fingerprints": {"content": "ab"},
    }
    index.upsert(collection, [point("a", [1.0, 0, 0, 0], **payload), point("b", [0, 1.0, 0, 0])], ticket=3)
    query = FusedQuery((DimensionQuery("content", [1.0, 0.1, 0, 0], 1.0),), LIVE)
    found = {hit.product_id: hit.payload for hit in index.candidates(collection, query)}
    assert found["a"] == {"product_id": "a", "deleted": False, "ticket": 3, **payload}
    assert found["b"] == {"product_id": "b", "deleted": False, "ticket": 3}


def test_a_sparse_dimension_without_idf_scores_plain_sums_and_leaves_out_who_has_none(
    index: VectorIndex, collection: str
) -> None:
    bought = {"a": {1: 0.5, 2: 0.25}, "b": {2: 0.5}, "c": {3: 0.5}}
    index.upsert(
        collection, [point(name, [1.0, 0, 0, 0], shoppers=who) for name, who in bought.items()], ticket=1
    )
    index.upsert(collection, [point("cold", [1.0, 0, 0, 0])], ticket=1)
    query = DimensionQuery("behaviour", SparseVector((1, 2), (0.6, 0.8)), 1.0)

    (found,) = index.scores(collection, [query], ["a", "b", "c", "cold"])
    assert {name: score for name, score in found.items() if score} == pytest.approx({"a": 0.5, "b": 0.4})
    assert "cold" not in found
    hits = index.candidates(collection, FusedQuery((query,), LIVE))
    assert scores_of(hits[:2]) == pytest.approx({"a": 0.5, "b": 0.4})


def test_idf_is_what_the_engine_applies_seen_grams_and_unseen_ones(
    index: VectorIndex, collection: str
) -> None:
    fill(index, collection)
    grams = [1, 2, 3, 4, 99]
    expected = [idf(len(SPARSE), frequency(gram)) for gram in grams]
    assert index.idf(collection, "lexical", grams) == pytest.approx(expected, abs=1e-6)
    # a seed that is in the collection, scored with itself, equals the sum over its grams
    seed = SPARSE["c"]
    weights = dict(zip(seed, index.idf(collection, "lexical", list(seed)), strict=True))
    itself = index.scores(
        collection, [DimensionQuery("lexical", SparseVector(tuple(seed), tuple(seed.values())), 1.0)], ["c"]
    )
    assert itself[0]["c"] == pytest.approx(sum(weights[gram] * seed[gram] ** 2 for gram in seed), abs=1e-6)


def test_idf_follows_rewritten_and_deleted_points(index: VectorIndex, collection: str) -> None:
    fill(index, collection)
    index.upsert(collection, [point("b", DENSE["b"], {3: 1.0})], ticket=2)
    index.upsert(collection, [tombstone("e")], ticket=2)
    # left: a {1, 2}, b {3}, c {1, 3}
    assert index.idf(collection, "lexical", [1, 2, 3, 4]) == pytest.approx(
        [idf(3, 2), idf(3, 1), idf(3, 2), idf(3, 0)], abs=1e-6
    )


# --- collections and aliases -----------------------------------------------------------------------


def test_an_alias_moves_in_one_step_and_is_resolved_to_its_collection(index: VectorIndex) -> None:
    alias, first, second = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("items", "first", "second"))
    for name in (first, second):
        index.ensure_collection(name, SPEC)
    try:
        assert index.resolve(alias) is None
        index.set_alias(alias, first)
        assert index.resolve(alias) == first
        seen: set[str | None] = set()
        with ThreadPoolExecutor(1) as pool:
            watching = pool.submit(lambda: seen.update(index.resolve(alias) for _ in range(50)))
            for target in (second, first, second):
                index.set_alias(alias, target)
            watching.result(timeout=30)
        assert seen <= {first, second}
        assert index.resolve(alias) == second
        with pytest.raises(ValueError, match="missing-collection"):
            index.set_alias(alias, "missing-collection")
        assert index.resolve(alias) == second
    finally:
        for name in (first, second):
            index.drop_collection(name)


def test_a_collection_is_created_once_listed_and_dropped_once(index: VectorIndex, collection: str) -> None:
    index.upsert(collection, [point("a", [1.0, 0, 0, 0])], ticket=1)
    index.ensure_collection(collection, SPEC)
    assert index.count(collection) == 1
    assert collection in index.collections()
    index.drop_collection(collection)
    assert collection not in index.collections()
    index.drop_collection(collection)
    index.ensure_collection(collection, SPEC)
    assert index.count(collection) == 0


def test_a_collection_with_other_vectors_is_refused_not_reused(index: VectorIndex, collection: str) -> None:
    with pytest.raises(ValueError, match="exists with other vectors"):
        index.ensure_collection(collection, CollectionSpec(dense={"content": 8}))


def test_an_unknown_collection_is_named(index: VectorIndex) -> None:
    query = DimensionQuery("content", [1.0, 0, 0, 0], 1.0)
    calls: list[Callable[[], object]] = [
        lambda: index.upsert("nowhere", [point("a", [1.0, 0, 0, 0])], ticket=1),
        lambda: index.fetch("nowhere", ["a"], vectors=False),
        lambda: index.spec_of("nowhere"),
        lambda: index.count("nowhere"),
        lambda: index.candidates("nowhere", FusedQuery((query,))),
        lambda: list(index.scan("nowhere")),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="nowhere"):
            call()


def test_several_threads_search_while_one_writes(index: VectorIndex, collection: str) -> None:
    index.upsert(collection, [point("seed", [1.0, 0, 0, 0], {1: 1.0}, version=0)], ticket=1)
    query = FusedQuery(
        (
            DimensionQuery("content", [1.0, 0, 0, 0], 1.0),
            DimensionQuery("lexical", SparseVector((1,), (1.0,)), 1.0),
        ),
        LIVE,
        limit=200,
    )

    def search() -> int:
        rounds = 0
        for _ in range(20):
            assert "seed" in {hit.product_id for hit in index.candidates(collection, query)}
            assert set(index.scores(collection, query.dimensions, ["seed"])[0]) == {"seed"}
            rounds += 1
        return rounds

    with ThreadPoolExecutor(3) as pool:
        searching = [pool.submit(search) for _ in range(3)]
        for ticket in range(2, 12):
            batch = [point(f"p{n}", [1.0, n, 0, 0], {1: 0.1, n + 2: 1.0}, version=ticket) for n in range(10)]
            index.upsert(collection, [*batch, point("seed", [1.0, 0, 0, 0], {1: 1.0})], ticket=ticket)
        assert [future.result(timeout=60) for future in searching] == [20, 20, 20]
    assert {version_of(index, collection, f"p{n}") for n in range(10)} == {11}
