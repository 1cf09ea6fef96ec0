"""Prices that get out of line are announced once, whatever is redelivered, replayed or killed in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from random import Random
from typing import Any, cast

import pytest

from adapters.kafka import Publisher, Record
from adapters.redis_client import RedisSettings, connect
from adapters.redis_insights import PriceMarks
from adapters.redis_nodes import RedisNodes
from app.local import LocalRedis
from consumers.price_insights import InsightSettings, PriceInsightsHandler
from consumers.progress import Delivery, Progress
from schemas.errors import PoisonMessage, Transient
from schemas.events import ItemChanged, PriceInsight
from schemas.topics import Topics

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
TOPICS = Topics.named()


class Judge:
    """What is true, written down; `waiting` are items that the index does not show yet."""

    def __init__(self) -> None:
        self.outliers: set[str] = set()
        self.waiting: set[str] = set()
        self.asked: list[str] = []
        #: Called before each answer.
        self.before: Callable[[str], None] = lambda product_id: None

    def judged(self, product_id: str, *, now: datetime) -> PriceInsight | None:
        self.asked.append(product_id)
        self.before(product_id)
        if product_id in self.waiting:
            return None
        outlier = product_id in self.outliers
        return PriceInsight(product_id=product_id, outlier=outlier, evidence="written down", found_at=now)


class Sent:
    """A publisher that remembers; refuses with `error`, says nothing when `silent`."""

    def __init__(self) -> None:
        self.insights: list[tuple[str, bool]] = []
        self.error: Exception | None = None
        self.silent = False

    def send(self, topic: str, *, key: str, value: bytes, on_ack: Callable[[Exception | None], None]) -> None:
        found = PriceInsight.model_validate_json(value)
        assert (topic, key) == ("insights.prices", found.product_id)
        if self.error is None and not self.silent:
            self.insights.append((found.product_id, found.outlier))
        if not self.silent:
            on_ack(self.error)

    def standing(self) -> set[str]:
        """What whoever reads the compacted topic takes for outliers."""
        return {name for name, outlier in dict(self.insights).items() if outlier}


class Time:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class World:
    """A handler and everything around it."""

    def __init__(self, marks: PriceMarks) -> None:
        self.judge, self.sent, self.marks, self.time = Judge(), Sent(), marks, Time()
        self.handler = PriceInsightsHandler(
            judge=self.judge,
            marks=marks,
            publisher=cast(Publisher, self.sent),
            topics=TOPICS,
            settings=InsightSettings(wait_seconds=1.0),
            ack_timeout_seconds=0.01,
            now=lambda: NOW,
            monotonic=self.time,
            sleep=self.time.sleep,
        )
        self.progress = Progress(None)

    def hints(self, *items: str, dimensions: list[str] | None = None) -> list[Delivery[ItemChanged]]:
        hints = [ItemChanged(product_id=one, occurred_at=NOW, dimensions=dimensions or []) for one in items]
        return [Delivery(hint, number, Progress(None)) for number, hint in enumerate(hints)]

    def handle(self, *items: str, **more: Any) -> list[Delivery[ItemChanged]]:
        deliveries = self.hints(*items, **more)
        self.handler.handle(deliveries)
        return deliveries


@pytest.fixture
def world(redis_server: LocalRedis, namespace: str) -> Iterator[World]:
    with connect(RedisSettings(url=redis_server.url)) as client:
        yield World(PriceMarks(nodes=RedisNodes(client), namespace=namespace))


def test_becoming_an_outlier_and_stopping_to_be_one_are_announced_once_each(world: World) -> None:
    world.handle("a", "b")
    assert world.sent.insights == []
    world.judge.outliers = {"a"}
    # Duplicates in a batch, redelivery, replay: what stands is not said again.
    for _ in range(3):
        world.handle("a", "b", "a")
    assert world.sent.insights == [("a", True)]
    world.judge.outliers = set()
    for _ in range(3):
        world.handle("a", "b")
    assert world.sent.insights == [("a", True), ("a", False)]


def test_hints_of_reviews_and_shoppers_alone_ask_nothing(world: World) -> None:
    (delivery,) = world.handle("a", dimensions=["behaviour", "reviews"])
    assert delivery.settled
    assert world.judge.asked == []
    world.handle("a", dimensions=["behaviour", "context"])
    assert world.judge.asked == ["a"]


def test_a_hint_waits_for_the_point_and_stays_unsettled_while_it_does_not_come(world: World) -> None:
    world.judge.outliers, world.judge.waiting = {"a", "b"}, {"b"}
    deliveries = world.hints("a", "b")
    with pytest.raises(Transient, match="newest state of 'b'"):
        world.handler.handle(deliveries)
    assert [delivery.settled for delivery in deliveries] == [True, False]
    assert world.time.now >= 1.0

    def shown_at_the_third_look(product_id: str) -> None:
        if world.judge.asked.count("b") % 3 == 0:
            world.judge.waiting = set()

    world.judge.asked, world.judge.before = [], shown_at_the_third_look
    world.handler.handle(deliveries[1:])
    assert world.sent.insights == [("a", True), ("b", True)]


@pytest.mark.parametrize("trouble", ["refused", "silent"])
def test_what_the_broker_did_not_take_is_not_marked_and_comes_again(world: World, trouble: str) -> None:
    world.judge.outliers = {"a"}
    world.sent.error = OSError("no leader") if trouble == "refused" else None
    world.sent.silent = trouble == "silent"
    deliveries = world.hints("a")
    with pytest.raises(Transient, match="price insight"):
        world.handler.handle(deliveries)
    assert not deliveries[0].settled
    assert world.marks.known(["a"]) == {"a": None}
    world.sent.error, world.sent.silent = None, False
    world.handler.handle(deliveries)
    assert world.sent.insights == [("a", True)]


def test_a_crash_before_the_mark_says_the_same_again_and_what_stands_is_right(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.judge.outliers = {"a"}
    with monkeypatch.context() as crashing:

        def dies(*args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

        crashing.setattr(world.marks, "mark", dies)
        with pytest.raises(KeyboardInterrupt):
            world.handle("a")
    world.handle("a")
    assert world.sent.insights == [("a", True), ("a", True)]
    assert world.sent.standing() == {"a"}


def test_what_was_told_before_a_crash_is_taken_back_though_the_price_was_mended_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.judge.outliers = {"a"}
    with monkeypatch.context() as away:

        def no_redis(*args: Any, **kwargs: Any) -> None:
            raise Transient("redis away")

        away.setattr(world.marks, "mark", no_redis)
        with pytest.raises(Transient):
            world.handle("a")
    assert world.sent.standing() == {"a"}
    world.judge.outliers = set()
    for _ in range(2):
        world.handle("a")
    assert world.sent.insights == [("a", True), ("a", False)]


def test_whoever_was_slow_does_not_have_the_last_word(world: World) -> None:
    """Between our look and our word another owner saw the new price and said so."""
    other = World(world.marks)
    other.sent = world.sent
    other.judge = world.judge
    world.judge.outliers = {"a"}
    announced = world.sent.send

    def slowly(topic: str, **record: Any) -> None:
        # The price is right again before ours is out. Nothing was marked: the other owner says nothing.
        world.judge.outliers = set()
        other.handler.handle(other.hints("a"))
        announced(topic, **record)

    world.sent.send = slowly  # type: ignore[method-assign]
    world.handle("a")
    assert world.sent.insights[0] == ("a", True)
    assert world.sent.standing() == set()
    assert world.marks.known(["a"]) == {"a": False}


def test_however_it_is_redelivered_and_killed_the_topic_ends_with_the_truth(world: World) -> None:
    draw = Random(5)
    items = [f"i{number}" for number in range(12)]
    killed = redelivered = 0
    for _ in range(200):
        name = draw.choice(items)
        world.judge.outliers ^= {name}
        batch = [name, *draw.sample(items, 3)]
        if draw.random() < 0.3:
            world.sent.error, killed = OSError("killed"), killed + 1
            deliveries = world.hints(*batch)
            with pytest.raises(Transient):
                world.handler.handle(deliveries)
            world.sent.error = None
            redelivered += 1
        world.handle(*batch)
    assert killed > 30
    assert redelivered == killed
    assert world.sent.standing() == world.judge.outliers
    known = world.marks.known(items)
    assert {one for one, outlier in known.items() if outlier} == world.judge.outliers
    # Nothing was said twice in a row of an item.
    for name in items:
        said = [outlier for one, outlier in world.sent.insights if one == name]
        assert all(one != other for one, other in pairwise(said))


def test_what_is_no_hint_is_poison(world: World) -> None:
    for value, said, kind in (
        (None, "null record", "null"),
        (b"{}", "occurred_at", "invalid"),
        (b'{"kind":"item_changed"}', "product_id", "invalid"),
    ):
        with pytest.raises(PoisonMessage, match=said) as caught:
            world.handler.decode(Record("items.changed", "t", 0, 1, 1_000, b"a", value, ()))
        assert caught.value.kind == kind
    assert world.handler.store_epoch() == world.marks.run_id()
