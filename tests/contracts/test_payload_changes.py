"""The contract of a payload that changes while its vectors stay, for every index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient

from adapters.index_edge import EdgeIndex
from adapters.index_port import VectorIndex
from adapters.index_server import ServerIndex
from schemas.vectors import AnyOf, Between, Clause, PayloadChange, Point, SparseVector, Vector, Where
from tests.contracts.conftest import SPEC

VECTORS: dict[str, Vector] = {
    "content": [0.6, 0.8, 0.0, 0.0],
    "lexical": SparseVector((3, 9), (0.5, 0.25)),
    "behaviour": SparseVector((7,), (1.0,)),
}
NOW = 1_795_600_000_000_000


def payload(product_id: str, **fields: Any) -> dict[str, Any]:
    """A live item's."""
    return {"product_id": product_id, "deleted": False, **fields}


def written(index: VectorIndex, collection: str, *names: str, ticket: int = NOW, **fields: Any) -> None:
    """Whole points, with all vectors."""
    points = [Point(name, VECTORS, payload(name, **fields)) for name in names]
    index.upsert(collection, points, ticket=ticket)


def read(index: VectorIndex, collection: str, name: str = "a") -> Point:
    """A point as it stands, with its vectors."""
    return index.fetch(collection, [name], vectors=True)[name]


def change(before: Point, **fields: Any) -> PayloadChange:
    """A whole new payload for the point that was read."""
    return PayloadChange(before.product_id, payload(before.product_id, **fields), before.payload)


def found(index: VectorIndex, collection: str, where: Where) -> int:
    """How many points a filter matches."""
    return index.count(collection, where)


def test_a_payload_is_replaced_whole_and_the_vectors_stay(index: VectorIndex, collection: str) -> None:
    written(index, collection, "a", "b", price=10.0, brand="acme", attributes=["colour=black"])
    before = read(index, collection)
    changes = [change(before, price=9.5, category=["Shoes"], in_stock=True)]
    assert index.change_payloads(collection, changes, ticket=NOW + 1) == set()

    after = read(index, collection)
    assert dict(after.payload) == payload("a", price=9.5, category=["Shoes"], in_stock=True, ticket=NOW + 1)
    assert after.vectors == before.vectors
    assert read(index, collection, "b").payload["price"] == 10.0


def test_filters_see_the_new_payload_and_nothing_of_the_old_one(index: VectorIndex, collection: str) -> None:
    written(index, collection, "a", price=10.0, brand="acme", in_stock=True, category=["Shoes"])
    index.change_payloads(
        collection,
        [change(read(index, collection), price=12.5, in_stock=False, category=["Boots"])],
        ticket=NOW + 1,
    )
    matching: dict[str, Clause] = {
        "new price": Between("price", low=12.0, high=13.0),
        "out of stock": AnyOf("in_stock", (False,)),
        "new category": AnyOf("category", ("Boots",)),
    }
    gone: dict[str, Clause] = {
        "old price": Between("price", high=11.0),
        "old brand": AnyOf("brand", ("acme",)),
        "in stock": AnyOf("in_stock", (True,)),
        "old category": AnyOf("category", ("Shoes",)),
    }
    assert {name: found(index, collection, Where((clause,))) for name, clause in matching.items()} == (
        dict.fromkeys(matching, 1)
    )
    assert {name: found(index, collection, Where((clause,))) for name, clause in gone.items()} == (
        dict.fromkeys(gone, 0)
    )


def test_a_point_that_was_written_meanwhile_is_left_alone_and_named(
    index: VectorIndex, collection: str
) -> None:
    written(index, collection, "a", "b", version="read")
    changes = [change(read(index, collection, name), version="mine") for name in ("a", "b")]
    # By somebody who drew before us as well as by one who drew after us.
    written(index, collection, "a", ticket=NOW + 3, version="theirs")
    assert index.change_payloads(collection, changes, ticket=NOW + 5) == {"a"}
    assert [read(index, collection, name).payload["version"] for name in ("a", "b")] == ["theirs", "mine"]


def test_a_point_that_was_read_after_a_later_ticket_is_left_alone_and_named(
    index: VectorIndex, collection: str
) -> None:
    written(index, collection, "a", ticket=NOW + 9, version="later")
    late = [change(read(index, collection), version="mine")]
    assert index.change_payloads(collection, late, ticket=NOW + 5) == {"a"}
    assert read(index, collection).payload["version"] == "later"


def test_a_point_that_is_gone_is_named_and_does_not_come_back(index: VectorIndex, collection: str) -> None:
    written(index, collection, "a")
    gone = [change(read(index, collection), version="mine")]
    index.delete_where(collection, Where((AnyOf("deleted", (False,)),)))
    assert index.change_payloads(collection, gone, ticket=NOW + 5) == {"a"}
    assert index.fetch(collection, ["a"], vectors=False) == {}


def test_a_deleted_item_is_not_brought_back(index: VectorIndex, collection: str) -> None:
    written(index, collection, "a")
    late = [change(read(index, collection), version="mine")]
    hidden = Point("a", {}, {"product_id": "a", "deleted": True, "deleted_at": 1_000})
    index.upsert(collection, [hidden], ticket=NOW + 1)
    assert index.change_payloads(collection, late, ticket=NOW + 5) == {"a"}
    assert read(index, collection).payload["deleted"] is True


def test_the_same_change_sent_again_with_its_ticket_is_taken_and_changes_nothing(
    index: VectorIndex, collection: str
) -> None:
    written(index, collection, "a")
    once = [change(read(index, collection), version="mine")]
    for _ in range(2):
        assert index.change_payloads(collection, once, ticket=NOW + 1) == set()
    assert read(index, collection).payload["version"] == "mine"


def test_a_whole_write_that_read_before_the_change_is_refused(index: VectorIndex, collection: str) -> None:
    written(index, collection, "a", version="first")
    index.change_payloads(collection, [change(read(index, collection), version="mine")], ticket=NOW + 2)
    written(index, collection, "a", ticket=NOW + 1, version="stale")
    assert read(index, collection).payload["version"] == "mine"


def test_what_no_write_may_hold_is_refused_here_too(index: VectorIndex, collection: str) -> None:
    written(index, collection, "a")
    one = change(read(index, collection))
    with pytest.raises(ValueError, match="twice"):
        index.change_payloads(collection, [one, one], ticket=NOW + 1)
    foreign = PayloadChange("a", payload("b"), one.before)
    with pytest.raises(ValueError, match="names 'b'"):
        index.change_payloads(collection, [foreign], ticket=NOW + 1)
    assert index.change_payloads(collection, [], ticket=NOW + 1) == set()


class CarelessEdge(EdgeIndex):
    """The guard switched off."""

    def _unchanged(self, change: PayloadChange, ticket: int) -> Any:
        return super()._unchanged(_as_it_stands(self, change), ticket)


class CarelessServer(ServerIndex):
    """The guard switched off."""

    def _unchanged(self, change: PayloadChange, ticket: int) -> Any:
        return super()._unchanged(_as_it_stands(self, change), ticket)


def _as_it_stands(index: VectorIndex, change: PayloadChange) -> PayloadChange:
    now = index.fetch("c", [change.product_id], vectors=False)[change.product_id]
    return PayloadChange(change.product_id, change.payload, now.payload)


@pytest.fixture(params=["edge", "memory"])
def careless(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorIndex]:
    """An index that changes whatever stands there."""
    index: VectorIndex
    if request.param == "edge":
        index = CarelessEdge(tmp_path / "careless")
    else:
        index = CarelessServer(QdrantClient(":memory:"), local=True)
    yield index
    index.close()


def test_without_the_condition_a_change_undoes_a_later_write_so_the_tests_above_can_fail(
    careless: VectorIndex,
) -> None:
    careless.ensure_collection("c", SPEC)
    written(careless, "c", "a", version="read")
    mine = [change(read(careless, "c"), version="mine")]
    written(careless, "c", "a", ticket=NOW + 3, version="theirs")
    assert careless.change_payloads("c", mine, ticket=NOW + 5) == set()
    assert read(careless, "c").payload["version"] == "mine"
