"""Rebuild equals live (I9): everything made anew from the topics is what the live consumers came to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from fastapi.testclient import TestClient

from adapters.index_edge import EdgeIndex
from adapters.index_port import collection_name
from adapters.redis_client import connect
from adapters.state_generation import state_prefix
from app.filling import Filling
from app.local import LocalRedis
from app.rebuild import remove_retired
from app.wiring import alias_of, open_generations, open_store
from consumers.reconcile import Reconciled
from schemas.errors import Halt
from schemas.events import ProductUpserted, UserEvent
from schemas.vectors import BEHAVIOUR, CONTENT, LEXICAL, REVIEWS, item_vectors
from tests.consumers.state import State
from tests.support.draining import quick_settings
from tests.support.rebuilding import (
    FORGOTTEN,
    PARTITIONS,
    LivingShop,
    erase,
    living,
    mixture,
    prompt_commits,
    quick,
    unlike,
)
from tests.support.servers import Kafka

NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt_commits(monkeypatch)


@pytest.fixture
def shop(kafka: Kafka, redis_server: LocalRedis, namespace: str, tmp_path: Path) -> Iterator[LivingShop]:
    """An empty shop; nothing runs yet."""
    index = EdgeIndex(tmp_path / "index")
    settings = quick(quick_settings(kafka, partitions=PARTITIONS), redis_server.url, namespace)
    with living(settings, index) as made:
        yield made
    index.close()


class Answers:
    """What the service said while somebody kept asking."""

    def __init__(self) -> None:
        self.codes: Counter[int] = Counter()
        self.first_wrong = ""


@contextmanager
def asking(shop: LivingShop) -> Iterator[Answers]:
    """Ask all the time, on a thread."""
    answers, stopped = Answers(), threading.Event()

    def ask() -> None:
        with TestClient(shop.app()) as client:
            while not stopped.is_set():
                for path in ("/v1/items/p1/similar", "/v1/items/p1", "/v1/trending?window=24h"):
                    answer = client.get(path)
                    answers.codes[answer.status_code] += 1
                    if answer.status_code != 200 or (path.endswith("similar") and not answer.json()["items"]):
                        answers.first_wrong = answers.first_wrong or f"{path}: {answer.text}"
                stopped.wait(0.02)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield answers
    finally:
        stopped.set()
        thread.join(20.0)


@contextmanager
def publishing(shop: LivingShop, count: Callable[[int], None]) -> Iterator[None]:
    """Somebody new looks at p1, over and over, on a thread."""
    stopped = threading.Event()

    def publish() -> None:
        number = 0
        while not stopped.is_set():
            number += 1
            shop.shop.publish([view(f"visitor{number}", "p1")])
            count(number)
            stopped.wait(0.05)

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(20.0)


def view(user_id: str, product_id: str) -> UserEvent:
    return UserEvent(
        event_id=f"{user_id}-{product_id}",
        type="view",
        user_id=user_id,
        product_id=product_id,
        occurred_at=datetime.now(UTC),
    )


def lamp(product_id: str, revision: int = 10_000) -> ProductUpserted:
    return ProductUpserted(
        product_id=product_id, revision=revision, occurred_at=NOW, title=f"Lamp {product_id} of brass"
    )


def test_a_rebuild_from_the_log_equals_what_the_live_consumers_came_to(shop: LivingShop) -> None:
    erase(shop, FORGOTTEN, at=NOW - timedelta(seconds=100))
    shop.start()
    draw = Random(7)
    shop.shop.publish(mixture(draw, count=500, now=NOW))
    shop.shop.publish([lamp(f"p{number}") for number in range(10)])
    shop.shop.send(shop.names.topics.products.name, key="p13", value=None)
    shop.drain()
    again = sum(shop.read_again(consumer) for consumer in ("products", "reviews", "behaviour"))
    shop.shop.publish(mixture(draw, count=300, now=NOW, first=500))
    shop.shop.publish([lamp(f"p{number}", 10_001) for number in range(10)])
    # One who has touched one item, and later touches eight more: there they weigh less by then, and nothing
    # has happened to it since.
    shop.shop.publish([lamp("p20"), view("wanderer", "p20")])
    shop.drain()
    shop.shop.publish([view("wanderer", f"p{number}") for number in range(2, 10)])
    shop.drain()
    before = shop.points(shop.collection)
    outdated = shop.reconcile()
    shop.drain()
    live = shop.points(shop.collection)
    assert shop.reconcile() == 0
    reweighed = [one for one in unlike(before, live) if one.endswith(BEHAVIOUR)]
    assert outdated > 0
    assert reweighed, "no vector was wrong before it was reconciled: its fingerprint proves nothing"

    done = shop.rebuild().run()

    state, rebuilt = shop.export(1), shop.export(done.generation)
    print(
        f"{len(state)} keys; {again} records read twice; {outdated} points outdated, {len(reweighed)} of "
        f"them by their shoppers' weights; {done}"
    )
    assert again > 500
    assert b"".join(state) == b"".join(rebuilt)
    kinds = Counter(line.decode().partition("}:")[2].partition('"')[0] for line in state)
    assert {"product", "reviews", "reviews:texts", "behaviour", "sketch", "seen", "recent"} <= kinds.keys()
    found = shop.points(done.collection)
    assert {name for point in found.values() for name in point.vectors} == {
        CONTENT,
        LEXICAL,
        REVIEWS,
        BEHAVIOUR,
    }
    assert unlike(live, found) == []
    assert done.missing == done.resurrected == 0
    assert done.since == {}

    # Negative controls: one counter, and one vector, of which the comparison must take notice.
    redis = connect(shop.settings.redis)
    key = f"{state_prefix(shop.settings.namespace, done.generation)}item:{{p1}}:behaviour"
    raw = redis.get(key)
    assert isinstance(raw, bytes)
    redis.set(key, raw[:-1] + bytes([raw[-1] ^ 1]))
    assert shop.export(done.generation) != state
    assert unlike(live, found | {"p1": found["p2"]}) != []


def test_an_event_that_the_rebuild_does_not_see_makes_the_exports_differ(shop: LivingShop) -> None:
    shop.start()
    shop.shop.publish([lamp("p1"), lamp("p2"), view("u1", "p1"), view("u2", "p1")])
    shop.drain()
    done = shop.rebuild().run()
    assert shop.export(1) == shop.export(done.generation)
    # The old consumers have stopped, so only the new state hears of this.
    for thread in shop.running.values():
        assert isinstance(thread.wait_ended(20.0), Halt)
    shop.running.clear()
    shop.start()
    shop.shop.publish([view("u3", "p1")])
    shop.shop.flush()
    prefix = f"{state_prefix(shop.settings.namespace, done.generation)}item:{{p1}}:sketch"
    redis = connect(shop.settings.redis)
    wait_until(lambda: redis.zcard(prefix) == 3)
    assert shop.export(1) != shop.export(done.generation)


def test_queries_are_answered_all_through_the_switch_and_no_event_is_lost(shop: LivingShop) -> None:
    shop.start()
    shop.shop.publish([lamp(f"p{number}") for number in range(8)])
    shop.shop.publish([view(f"u{user}", f"p{item}") for user in range(6) for item in range(4)])
    shop.drain()
    sent = [0]

    def count(number: int) -> None:
        sent[0] = number

    with asking(shop) as answers, publishing(shop, count):
        done = shop.rebuild().run()
        old = dict(shop.running)
        for consumer, thread in old.items():
            assert isinstance(thread.wait_ended(20.0), Halt), consumer
            assert "start it again" in str(thread.failure)
        shop.running.clear()
        shop.start()
        wait_until(lambda: sent[0] > 40)
    shop.shop.flush()
    assert open_generations(shop.settings).live() == done.generation
    assert shop.index.resolve(alias_of(shop.settings)) == done.collection
    assert open_store(shop.settings).generation == done.generation
    print(f"{answers.codes}; {sent[0]} events meanwhile; {done}")
    assert answers.first_wrong == ""
    assert set(answers.codes) == {200}
    assert answers.codes[200] > 50
    with TestClient(shop.app()) as client:
        expected = 6 + sent[0]
        wait_until(lambda: client.get("/v1/items/p1").json()["counters"]["view"] == expected)


def test_without_erased_events_a_rebuild_forgets_what_the_live_state_still_knows(shop: LivingShop) -> None:
    shop.start()
    shop.shop.publish([lamp("p1"), view("u1", "p1"), view("u2", "p1")])
    shop.drain()
    erase(shop, ["u1"], at=datetime.now(UTC))
    done = shop.rebuild().run()
    prefixes = [state_prefix(shop.settings.namespace, number) for number in (1, done.generation)]
    redis = connect(shop.settings.redis)
    assert [redis.zcard(f"{prefix}item:{{p1}}:sketch") for prefix in prefixes] == [2, 1]
    shoppers = [len(list(redis.scan_iter(match=f"{prefix}shopper:*:recent"))) for prefix in prefixes]
    assert shoppers == [2, 1]


def test_what_retention_has_removed_is_said_and_too_much_of_it_switches_nothing(
    shop: LivingShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.rebuild.FREE_DELETES", 0)
    events = shop.names.topics.events.name
    shop.start()
    shop.shop.publish(view(f"u{user}", "p1") for user in range(9))
    shop.drain()
    # Kafka lets nobody cut a compacted topic, so these are two that catalog.products has never carried.
    State(connect(shop.settings.redis), open_store(shop.settings)).put_all(["p1", "p2"])
    shop.cut(events)
    between = datetime.now(UTC)
    shop.shop.publish([lamp("p3"), *(view(f"u{user}", "p3") for user in range(9))])
    shop.drain()
    with pytest.raises(Halt, match=r"2 of 3 items are not on .* and nothing was switched"):
        shop.rebuild().run()
    assert open_generations(shop.settings).live() == 1
    assert shop.index.resolve(alias_of(shop.settings)) == shop.collection

    def broken(self: Filling) -> None:
        raise Halt("the index is full")

    with monkeypatch.context() as broke:
        broke.setattr(Filling, "until_written", broken)
        with pytest.raises(Halt, match="the index is full"):
            shop.rebuild().run(accept_missing=2)
    assert open_generations(shop.settings).live() == 1
    assert shop.index.collections() == [shop.collection]

    done = shop.rebuild().run(accept_missing=2)
    assert (done.generation, done.items, done.missing) == (4, 1, 2)
    assert done.since.keys() == {events}
    since = done.since[events]
    assert since is not None
    assert between - timedelta(seconds=1) < since < datetime.now(UTC)
    said = "\n".join(done.sentences())
    assert f"{events} begins at {since.isoformat()}: retention has removed what was before" in said
    assert "2 items of the old state are not on the topics any more" in said
    shop.stop()
    state = shop.export(4)
    assert remove_retired(shop.settings) > 0
    assert [shop.export(number) for number in (1, 2, 3, 4)] == [[], [], [], state]


def test_a_rebuild_that_fails_leaves_alone_what_another_of_the_same_release_fills(
    shop: LivingShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.start()
    shop.shop.publish([lamp("p1"), lamp("p2"), view("u1", "p1")])
    shop.drain()
    failing, other = shop.rebuild(), shop.rebuild()
    replayed, go = threading.Event(), threading.Event()
    failures: list[str] = []

    def compare(*_: object, **__: object) -> None:
        replayed.set()
        assert go.wait(60.0)
        raise Halt("the topics no longer hold it")

    def fail() -> None:
        try:
            failing.run()
        except Halt as error:
            failures.append(str(error))

    monkeypatch.setattr(failing, "_compare", compare)
    first = threading.Thread(target=fail, daemon=True)
    write = Filling.write

    def writing(self: Filling) -> None:
        """The other one ends while this one has made its collection."""
        write(self)
        go.set()
        first.join(60.0)

    monkeypatch.setattr(Filling, "write", writing)
    first.start()
    assert replayed.wait(60.0)
    done = other.run()
    assert failures == ["the topics no longer hold it"]
    assert shop.index.resolve(alias_of(shop.settings)) == done.collection
    assert sorted(shop.index.collections()) == sorted([shop.collection, done.collection])
    assert shop.points(done.collection).keys() == {"p1", "p2"}
    assert done.collection.endswith(f"__2-g{done.generation}")


def test_a_rebuild_does_not_retire_what_went_live_meanwhile(
    shop: LivingShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.start()
    shop.shop.publish([lamp("p1")])
    shop.drain()
    promoted = collection_name("newer", namespace=shop.settings.namespace)
    equal = Filling.equal

    def meanwhile(self: Filling) -> Reconciled:
        shop.index.ensure_collection(promoted, item_vectors(shop.encoder.dimension))
        shop.index.set_alias(alias_of(shop.settings), promoted)
        return equal(self)

    monkeypatch.setattr(Filling, "equal", meanwhile)
    with pytest.raises(Halt, match=r"release newer \(.*\) went live meanwhile.* Run it again"):
        shop.rebuild().run()
    assert open_generations(shop.settings).live() == 1
    assert shop.index.resolve(alias_of(shop.settings)) == promoted
    assert sorted(shop.index.collections()) == sorted([shop.collection, promoted])


def test_a_collection_of_the_same_name_that_somebody_else_has_made_stays(
    shop: LivingShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = "theirs"
    monkeypatch.setattr("app.rebuild.next_collection", lambda *_, **__: theirs)
    shop.index.ensure_collection(theirs, item_vectors(shop.encoder.dimension))
    with pytest.raises(Halt, match="theirs is there already"):
        shop.rebuild().run()
    assert theirs in shop.index.collections()


def wait_until(reached: Callable[[], object], timeout_seconds: float = 90.0) -> None:
    deadline = threading.Event()
    timer = threading.Timer(timeout_seconds, deadline.set)
    timer.daemon = True
    timer.start()
    while not reached():
        assert not deadline.wait(0.05), "it did not happen in time"
    timer.cancel()
