"""Verification finds what is missing, outdated or should not be there, and lets what is on its way arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.index_edge import EdgeIndex
from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore, LogPosition, ProductWrite
from app.local import LocalRedis
from consumers.assembly import Encoded, assemble
from consumers.backfill import BulkAnnouncer
from consumers.verification import Verifier
from model.text import ProductText
from schemas.events import ItemChanged, ProductUpserted
from schemas.parsing import parse_event
from schemas.topics import Topics
from schemas.vectors import item_vectors
from tests.consumers.state import NOW
from tests.support.fake_encoder import FakeEncoder

COLLECTION = "items__r__1"
RECIPE, ENCODER = ProductText(), FakeEncoder()


class Pair:
    """Item state and a collection, written by hand."""

    def __init__(self, store: ItemStore, index: EdgeIndex) -> None:
        self.store, self.index = store, index
        self.naps = 0
        self.on_nap: Callable[[], object] = lambda: None

    def state(self, product_id: str, revision: int = 1, title: str | None = "a lamp") -> None:
        event = None
        if title is not None:
            event = ProductUpserted(product_id=product_id, revision=revision, occurred_at=NOW, title=title)
        self.store.apply(
            [
                ProductWrite(
                    product_id=product_id,
                    position=LogPosition("t", 0, revision, revision),
                    revision=revision,
                    body_hash=str(revision),
                    document=None if event is None else event.model_dump_json().encode(),
                    occurred_at=NOW.isoformat(),
                )
            ]
        )

    def write(self, *product_ids: str) -> None:
        """Bring these points up to their state, as the handler does."""
        for one, state in self.store.read(product_ids).items():
            encoded = {}
            if state.product is not None:
                mark = RECIPE.fingerprint(state.product)
                (vector,) = ENCODER.encode([RECIPE.content(state.product)])
                encoded[mark] = Encoded(mark, vector)
            point = self.index.fetch(COLLECTION, [one], vectors=True).get(one)
            made = assemble(one, state, point, recipe=RECIPE, encoded=encoded, now=NOW).point
            if made is not None:
                self.index.upsert(COLLECTION, [made], ticket=self.store.draw_ticket())

    def nap(self, seconds: float) -> None:
        self.naps += 1
        self.on_nap()

    def verifier(self) -> Verifier:
        return Verifier(
            store=self.store, index=self.index, collection=COLLECTION, recipe=RECIPE, rest=0.0, sleep=self.nap
        )


@pytest.fixture
def pair(tmp_path: Path, redis_server: LocalRedis, namespace: str) -> Iterator[Pair]:
    client = connect(RedisSettings(url=redis_server.url))
    index = EdgeIndex(tmp_path / "index")
    index.ensure_collection(COLLECTION, item_vectors(ENCODER.dimension))
    yield Pair(ItemStore(client=client, namespace=namespace), index)
    index.close()
    client.close()


def test_equal_sides_are_whole_and_counted(pair: Pair) -> None:
    for number in range(5):
        pair.state(f"p{number}")
    pair.state("gone", title=None)
    pair.write(*(f"p{number}" for number in range(5)))
    found = pair.verifier().run(patience_seconds=0.0)
    assert found.whole
    assert (found.items, found.points) == (5, 5)
    assert str(found) == "5 items, 5 points; every version equal"


@pytest.mark.parametrize("case", ["missing", "outdated", "deleted", "unknown"])
def test_each_kind_of_difference_is_named(pair: Pair, case: str) -> None:
    pair.state("good")
    pair.write("good")
    if case == "missing":
        pair.state("p1")
    elif case == "outdated":
        pair.state("p1")
        pair.write("p1")
        pair.state("p1", revision=2, title="another lamp")
    elif case == "deleted":
        pair.state("p1")
        pair.write("p1")
        pair.state("p1", revision=2, title=None)
    else:
        point = pair.index.fetch(COLLECTION, ["good"], vectors=True)["good"]
        stranger = type(point)("p1", point.vectors, {**point.payload, "product_id": "p1"})
        pair.index.upsert(COLLECTION, [stranger], ticket=pair.store.draw_ticket())
    found = pair.verifier().run(patience_seconds=0.05)
    assert found.differing == ("p1",)
    assert "not as their state: p1" in str(found)


def test_what_is_on_its_way_may_arrive(pair: Pair) -> None:
    pair.state("p1")
    pair.on_nap = lambda: pair.write("p1")
    assert pair.verifier().run(patience_seconds=10.0).whole
    assert pair.naps == 1


def test_patience_lasts_while_fewer_and_fewer_differ(pair: Pair) -> None:
    waiting = [f"p{number}" for number in range(4)]
    for one in waiting:
        pair.state(one)

    def arrive_one_by_one() -> None:
        if waiting:
            pair.write(waiting.pop())

    pair.on_nap = arrive_one_by_one
    assert pair.verifier().run(patience_seconds=5.0).whole
    assert pair.naps == 4


class Heard:
    """Takes the place of the publisher."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def send_batch(self, topic: str, records: list[tuple[str, bytes, object]]) -> None:
        for key, value, _ in records:
            assert parse_event(value, ItemChanged).product_id == key
            self.ids.append(key)

    def flush(self, timeout_seconds: float) -> int:
        return 0


def test_every_item_is_announced_at_the_pace_that_was_set(pair: Pair) -> None:
    for number in range(40):
        pair.state(f"p{number}")
    heard, clock = Heard(), [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    announcer = BulkAnnouncer(
        store=pair.store,
        publisher=heard,  # type: ignore[arg-type]
        topics=Topics.named(),
        per_second=10.0,
        monotonic=lambda: clock[0],
        sleep=sleep,
    )
    assert announcer.announce_all() == 40
    assert sorted(heard.ids) == sorted(f"p{number}" for number in range(40))
    assert clock[0] == pytest.approx(4.0)
