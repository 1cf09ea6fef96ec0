"""User events on a real Redis: redelivered, reordered between owners or sent twice, each counts once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from adapters.behaviour_scripts import TIERS
from adapters.kafka import Record
from adapters.redis_behaviour import BehaviourStore
from adapters.redis_client import RedisSettings, connect
from adapters.redis_nodes import RedisNodes
from consumers.behaviour import BehaviourHandler, BehaviourSettings
from consumers.debounce import DebounceSettings
from consumers.erasures import Erasures, erasure_key
from consumers.interactions import Interaction
from consumers.interest import SketchSettings
from consumers.progress import Delivery, Progress
from schemas.errors import Halt, PoisonMessage, Transient
from schemas.events import ItemChanged, UserErased, UserEvent
from schemas.topics import Topics
from tests.support.behaviour_faults import COMPARED_ONCE, GUARDS_OFF, FaultyStore
from tests.support.behaviour_oracle import Logged, expected_items, expected_shopper, items_in, unpacked
from tests.support.servers import LocalRedisCluster, Redis
from tests.support.shoppers import Shoppers

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
TOPICS = Topics.named()
SKETCH = SketchSettings(members=8, half_life_days=30)
SETTINGS = BehaviourSettings(
    sketch=SKETCH,
    recent_items=5,
    debounce=DebounceSettings(delay_seconds=0.05, max_delay_seconds=0.2, interval_seconds=3_600),
)


class Publisher:
    """Remembers hints; acknowledges unless told not to."""

    def __init__(self) -> None:
        self.hints: list[ItemChanged] = []
        self.error: Exception | None = None

    def send_batch(self, topic: str, records: Sequence[tuple[str, bytes, Callable[..., None]]]) -> None:
        assert topic == TOPICS.changed.name
        for key, value, on_ack in records:
            hint = ItemChanged.model_validate_json(value)
            assert hint.product_id == key
            if self.error is None:
                self.hints.append(hint)
            on_ack(self.error)


#: On one Redis, and on a cluster of three nodes.
ON_BOTH = pytest.mark.parametrize("store", ["redis_server", "redis_cluster"], indirect=True)


@pytest.fixture
def store(request: pytest.FixtureRequest, namespace: str) -> Iterator[BehaviourStore]:
    name = getattr(request, "param", "redis_server")
    server: Redis | LocalRedisCluster = request.getfixturevalue(name)
    client = connect(RedisSettings(url=server.url, cluster=name == "redis_cluster"))
    yield BehaviourStore(nodes=RedisNodes(client), namespace=namespace, sketch_members=SKETCH.members)
    client.close()


@pytest.fixture
def make(store: BehaviourStore) -> Iterator[Callable[..., BehaviourHandler]]:
    made = []

    def one(**fields: Any) -> BehaviourHandler:
        given: dict[str, Any] = {"publisher": Publisher(), "store": store, **fields}
        made.append(BehaviourHandler(topics=TOPICS, settings=SETTINGS, **given))
        return made[-1]

    yield one
    for handler in made:
        handler.close()


def drawn(seed: int, count: int = 600) -> list[Logged]:
    """A log of three partitions: few items, repeated shoppers, some events sent twice, some late or early."""
    draw = Random(seed)
    offsets = [0, 0, 0]
    log: list[Logged] = []
    for event in Shoppers(draw, now=NOW).events(count):
        partition = sum(event.user_id.encode()) % 3
        # Offsets of a partition have gaps, as after transactions.
        offsets[partition] += draw.choice([1, 1, 1, 3])
        log.append(Logged(partition, offsets[partition], int(NOW.timestamp() * 1000), event))
    return log


def record(one: Logged, **fields: Any) -> Record:
    body = one.event.model_dump_json().encode()
    given: dict[str, Any] = {
        "topic": TOPICS.events.name,
        "topic_id": "topic-id-of-22-charact",
        "partition": one.partition,
        "offset": one.offset,
        "timestamp_ms": one.timestamp_ms,
        "key": one.event.user_id.encode(),
        "value": body,
        **fields,
    }
    return Record(**given)


def feed(handler: BehaviourHandler, log: Sequence[Logged]) -> list[Delivery[Interaction]]:
    """One batch, in the order given."""
    progress = Progress(None)
    batch = [Delivery(handler.decode(record(one)), one.offset, progress) for one in log]
    handler.handle(batch)
    settle(batch)
    return batch


def settle(batch: Sequence[Delivery[Interaction]]) -> None:
    """Wait for the second stage."""
    deadline = time.monotonic() + 20
    while not all(delivery.settled for delivery in batch):
        assert time.monotonic() < deadline, "the batch did not settle"
        time.sleep(0.0005)


def in_batches(draw: Random, log: Sequence[Logged]) -> Iterator[Sequence[Logged]]:
    start = 0
    while start < len(log):
        end = start + draw.randrange(1, 90)
        yield log[start:end]
        start = end


@ON_BOTH
@pytest.mark.parametrize("seed", range(4))
def test_counters_and_sketches_equal_the_oracle(
    seed: int, store: BehaviourStore, make: Callable[..., BehaviourHandler]
) -> None:
    log = drawn(seed)
    for batch in in_batches(Random(seed), log):
        feed(make(), batch)
    assert items_in(store) == expected_items(log, SKETCH)
    duplicates = len(log) - len({(one.event.user_id, one.event.event_id) for one in log})
    assert duplicates > 20, "nothing was sent twice: this proved nothing"


def at_work(seed: int, log: Sequence[Logged], owners: Sequence[BehaviourHandler]) -> int:
    """Owners that each read a partition from a commit on, in turns; how many records were handled again.

    A commit is a place before which everything was handled by somebody.
    """
    draw = Random(seed)
    handled = 0
    for partition in range(3):
        mine = [one for one in log if one.partition == partition]
        committed, reached = 0, [0] * len(owners)
        while committed < len(mine):
            number = draw.randrange(len(owners))
            if draw.random() < 0.2:
                reached[number] = committed  # this one was assigned the partition anew
            if draw.random() < 0.05:
                reached[number] = 0  # or told to read everything again
            batch = mine[reached[number] : reached[number] + draw.randrange(1, 40)]
            if batch:
                feed(owners[number], batch)
            handled += len(batch)
            reached[number] += len(batch)
            if draw.random() < 0.5:
                committed = max(committed, reached[number])
    return handled - len(log)


@pytest.mark.parametrize(
    ("seed", "store"),
    [*((seed, "redis_server") for seed in range(6)), (6, "redis_cluster"), (7, "redis_cluster")],
    indirect=["store"],
)
def test_owners_that_overlap_and_read_again_count_once(
    seed: int, store: BehaviourStore, make: Callable[..., BehaviourHandler]
) -> None:
    log = drawn(100 + seed)
    again = at_work(seed, log, [make(), make(), make()])
    assert again > 300
    assert items_in(store) == expected_items(log, SKETCH)


@pytest.mark.parametrize("fault", [GUARDS_OFF, COMPARED_ONCE])
def test_without_its_guard_the_same_work_counts_wrongly(
    fault: str, store: BehaviourStore, make: Callable[..., BehaviourHandler]
) -> None:
    nodes, namespace = store._nodes, store._namespace  # noqa: SLF001
    broken = FaultyStore(fault=fault, nodes=nodes, namespace=namespace, sketch_members=SKETCH.members)
    log = drawn(100)
    at_work(0, log, [make(store=broken), make(store=broken), make(store=broken)])
    found, wanted = items_in(broken), expected_items(log, SKETCH)
    assert found != wanted
    for product_id in wanted:  # and only the counters: sketches need no guard
        assert found[product_id]["sketch"] == wanted[product_id]["sketch"]
        assert found[product_id]["tau"] == wanted[product_id]["tau"]


@ON_BOTH
def test_recent_items_are_each_once_newest_first_and_bounded(
    store: BehaviourStore, make: Callable[..., BehaviourHandler]
) -> None:
    log = drawn(7)
    handler = make()
    for batch in in_batches(Random(7), log):
        feed(handler, batch)
        feed(handler, batch)
    for user_id in {one.event.user_id for one in log}:
        wanted = expected_shopper(log, user_id, SKETCH, SETTINGS.recent_items)
        name = handler._scorer.shopper(user_id).hash  # noqa: SLF001
        assert store.recent(name, 100) == wanted["recent"]
        (packed,) = store.touched([name])
        assert unpacked(packed or b"") == wanted["registers"]


def trends_in(store: BehaviourStore, log: Sequence[Logged]) -> dict[tuple[int, int], dict[bytes, float]]:
    """Every trending bucket that events of the log may be in."""
    found = {}
    for tier, (width, _) in enumerate(TIERS):
        numbers = sorted({int(one.event.occurred_at.timestamp()) // width for one in log})
        buckets = store.trend(tier, numbers, 100)
        found.update({(tier, number): dict(items) for number, items in zip(numbers, buckets, strict=True)})
    return found


def test_trending_is_the_same_whatever_came_in_one_batch(
    store: BehaviourStore, make: Callable[..., BehaviourHandler]
) -> None:
    log = [view(1, "u1", "a"), view(2, "u1", "a"), view(3, "u1", "b"), view(4, "u2", "b"), view(5, "u2", "a")]
    log += [view(6, "bot", "c"), view(7, "bot", "c"), view(8, "bot", "c")]
    draw = Random(5)
    log += [view(n, f"u{draw.randrange(9)}", f"p{draw.randrange(30)}") for n in range(9, 150)]
    together = make(now=lambda: NOW)
    for one in log:
        feed(together, [one])
    found = trends_in(store, log)
    other = BehaviourStore(nodes=store._nodes, namespace=f"{store._namespace}2.", sketch_members=8)  # noqa: SLF001
    feed(make(store=other, now=lambda: NOW), log)
    assert found == trends_in(other, log)
    hour = int(NOW.timestamp()) // 3_600
    assert set(found[0, hour]) >= {b"a", b"b"}
    assert b"c" not in found[0, hour], "one shopper is no trend, however often"


def test_a_replay_lists_nothing_in_hours_that_are_long_past(
    store: BehaviourStore, make: Callable[..., BehaviourHandler]
) -> None:
    log = [view(1, "u1", "a"), view(2, "u2", "a")]
    feed(make(now=lambda: NOW + timedelta(days=3)), log)
    listed = {tier for (tier, _), items in trends_in(store, log).items() if items}
    assert listed == {2}, "the hours and quarters of days are past, the days are not"


def view(number: int, user: str, product: str = "p1", **fields: Any) -> Logged:
    given = {"type": "view", "occurred_at": NOW, "event_id": f"e{number}", **fields}
    event = UserEvent(user_id=user, product_id=product, **given)
    return Logged(0, number, int(NOW.timestamp() * 1000), event)


def test_an_account_that_floods_is_one_shopper(
    store: BehaviourStore, make: Callable[..., BehaviourHandler]
) -> None:
    handler = make()
    for start in range(0, 10_000, 2_000):
        feed(handler, [view(number, "bot") for number in range(start, start + 2_000)])
    (state,) = store.states(["p1"])
    assert state is not None
    assert (state.totals[0], state.header.members, state.header.shoppers) == (10_000, 1, 1)


def test_a_whole_batch_of_one_account_holds_redis_up_for_a_moment_only(
    store: BehaviourStore, make: Callable[..., BehaviourHandler]
) -> None:
    handler = make()
    client = store._nodes.primaries()[0]  # noqa: SLF001
    client.slowlog_reset()
    log = [view(number, "bot", f"p{number % 5_000}") for number in range(12_000)]
    feed(handler, log)
    feed(handler, log)
    longest = max((entry["duration"] for entry in client.slowlog_get(128)), default=0) / 1e6
    # With a search through the string per event it is over ten seconds; the machine may be busy.
    assert longest < 2.0, f"one call took {longest:.2f} s"
    assert items_in(store) == expected_items(log, SKETCH)
    wanted = expected_shopper(log, "bot", SKETCH, SETTINGS.recent_items)
    assert store.recent(handler._scorer.shopper("bot").hash, 100) == wanted["recent"]  # noqa: SLF001


def test_ids_far_apart_are_outside_the_promise_and_the_window_stays_small(
    store: BehaviourStore, make: Callable[..., BehaviourHandler]
) -> None:
    handler = make()
    for start in range(0, 3_000, 300):
        progress = Progress(start)
        log = [view(number, "u1") for number in range(start, start + 300)]
        batch = [Delivery(handler.decode(record(one)), one.offset, progress) for one in log]
        handler.handle(batch)
        settle(batch)
    name = handler._scorer.shopper("u1").hash  # noqa: SLF001
    client = store._nodes.primaries()[0]  # noqa: SLF001
    window = client.get(store.shopper_key(name, "ids:topic-id:0"))
    assert isinstance(window, bytes)
    assert 256 <= len(window) // 14 <= 256 + 64 + 300
    feed(handler, [view(0, "u1")])  # read again: its guard knows
    (state,) = store.states(["p1"])
    assert state is not None
    assert state.totals[0] == 3_000


def test_an_impression_is_counted_and_is_no_interaction(
    store: BehaviourStore, make: Callable[..., BehaviourHandler]
) -> None:
    handler = make()
    bad = {"type": "rate", "value": "2"}
    feed(handler, [view(1, "u1", type="impression"), view(2, "u1", **bad), view(3, "u1", type="rate")])
    (state,) = store.states(["p1"])
    assert state is not None
    assert (state.totals, state.header.members, state.header.shoppers) == ([0, 0, 0, 0, 0, 2, 1], 0, 0)
    assert store.recent(handler._scorer.shopper("u1").hash, 10) == []  # noqa: SLF001


# --- what is announced ------------------------------------------------------------------------------


def test_an_item_that_moved_is_announced_once_per_delay_and_a_failed_hint_again(
    store: BehaviourStore, make: Callable[..., BehaviourHandler]
) -> None:
    clock = [NOW]
    publisher = Publisher()
    handler = make(publisher=publisher, now=lambda: clock[0])
    debounce = handler._debounce  # noqa: SLF001
    for number in range(20):
        feed(handler, [view(number, f"u{number}")])
    assert debounce.announce() == 0
    clock[0] += timedelta(seconds=0.1)
    assert debounce.announce() == 1
    assert debounce.announce() == 0
    assert [(hint.product_id, hint.dimensions) for hint in publisher.hints] == [("p1", ["behaviour"])]
    feed(handler, [view(100, "another")])
    clock[0] += timedelta(seconds=0.3)
    publisher.error = RuntimeError("broker away")
    with pytest.raises(Transient):
        debounce.announce()
    publisher.error = None
    assert debounce.announce() == 0, "it was taken a moment ago: somebody may be at it"
    clock[0] += timedelta(seconds=31)
    assert make(publisher=publisher, now=lambda: clock[0])._debounce.announce() == 1  # noqa: SLF001
    assert len(publisher.hints) == 2


class Interrupted(BehaviourStore):
    """Redis goes away behind the items: they are written, and what follows from them is not."""

    def add_trend(self, shoppers: Mapping[tuple[int, int], Mapping[str, float]]) -> None:
        raise Transient("Redis is away")


@ON_BOTH
def test_what_was_written_before_a_crash_is_announced_when_it_is_read_again(
    store: BehaviourStore, make: Callable[..., BehaviourHandler]
) -> None:
    """The second time nothing moves in the sketch, for it is there already."""
    clock, publisher = [NOW], Publisher()
    nodes, namespace = store._nodes, store._namespace  # noqa: SLF001
    broken = Interrupted(nodes=nodes, namespace=namespace, sketch_members=SKETCH.members)
    log = [view(1, "u1"), view(2, "u2")]
    killed, progress = make(store=broken), Progress(None)
    killed.handle([Delivery(killed.decode(record(one)), one.offset, progress) for one in log])
    deadline = time.monotonic() + 20
    while items_in(store) != expected_items(log, SKETCH):
        assert time.monotonic() < deadline
    killed.close()
    handler = make(publisher=publisher, now=lambda: clock[0])
    feed(handler, log)
    clock[0] += timedelta(seconds=1)
    assert handler._debounce.announce() == 1  # noqa: SLF001
    assert [hint.product_id for hint in publisher.hints] == ["p1"]
    hour = int(NOW.timestamp()) // 3_600
    assert [[item for item, _ in found] for found in store.trend(0, [hour], 10)] == [[b"p1"]]


@ON_BOTH
def test_an_owner_that_wakes_up_unmarks_only_what_it_took_itself(
    store: BehaviourStore, make: Callable[..., BehaviourHandler]
) -> None:
    """Else: it published before it slept, another took the item after a later change, and was killed."""
    feed(make(now=lambda: NOW), [view(1, "u1")])
    at = int(NOW.timestamp() * 1000)
    (mine,) = store.take_due(at + 1_000, limit=10, abandoned_ms=30_000)
    feed(make(now=lambda: NOW + timedelta(seconds=2)), [view(2, "u2")])
    (theirs,) = store.take_due(at + 3_000, limit=10, abandoned_ms=30_000)
    store.announced([mine], taken_ms=at + 1_000)
    assert store.take_due(at + 33_000, limit=10, abandoned_ms=30_000) == [theirs]
    store.announced([theirs], taken_ms=at + 33_000)
    assert store.take_due(at + 99_000, limit=10, abandoned_ms=30_000) == []


def test_other_settings_of_a_sketch_are_refused(
    store: BehaviourStore, make: Callable[..., BehaviourHandler]
) -> None:
    feed(make(), [view(1, "u1")])
    other = SETTINGS.model_copy(update={"sketch": SKETCH.model_copy(update={"half_life_days": 7.0})})
    handler = BehaviourHandler(store=store, publisher=Publisher(), topics=TOPICS, settings=other)  # type: ignore[arg-type]
    try:
        with pytest.raises(Halt, match="SIMSTREAM_BEHAVIOUR__SKETCH__"):
            feed(handler, [view(2, "u2")])
    finally:
        handler.close()


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (None, b"u1", "null record"),
        (b"{", b"u1", "JSON"),
        ({"type": "look"}, b"u1", "field 'type'"),
        ({"user_id": "u2"}, b"u1", "key records of this topic by user_id"),
        ({}, None, "key records of this topic by user_id"),
    ],
)
def test_what_cannot_be_read_is_poison_with_its_reason(
    value: Any, key: bytes | None, reason: str, make: Callable[..., BehaviourHandler]
) -> None:
    if isinstance(value, dict):
        whole = json.loads(view(1, "u1").event.model_dump_json())
        value = json.dumps({**whole, **value}).encode()
    with pytest.raises(PoisonMessage, match=reason):
        make().decode(record(view(1, "u1"), value=value, key=key))


# --- a Redis that lost its last seconds --------------------------------------------------------------


@ON_BOTH
def test_nothing_is_written_to_a_redis_that_was_restarted_before_the_loop_has_gone_back(
    store: BehaviourStore, make: Callable[..., BehaviourHandler]
) -> None:
    """What it lost has lower offsets than what is in hand: counting that would hide the loss for ever."""
    handler = make()
    handler.adopt("a run id that is no more")
    lost, in_hand = view(1, "u1"), view(2, "u1")
    progress = Progress(None)
    batch = [Delivery(handler.decode(record(in_hand)), 2, progress)]
    with pytest.raises(Transient, match="RESTARTED"):
        handler.handle(batch)
    assert items_in(store) == {}
    assert store.recent(handler._scorer.shopper("u1").hash, 10) == []  # noqa: SLF001
    # The loop: abandons what is in hand, seeks, and only then adopts.
    progress.abandon()
    handler.adopt(store.run_id())
    handler.handle(batch)
    assert items_in(store) == {}
    feed(handler, [lost, in_hand])
    assert items_in(store) == expected_items([lost, in_hand], SKETCH)


# --- who asked to be forgotten ------------------------------------------------------------------------


def test_events_of_a_shopper_up_to_their_erasure_leave_no_trace(
    store: BehaviourStore, make: Callable[..., BehaviourHandler]
) -> None:
    erasures = Erasures(key=b"k")
    erasures.take([erased("u1", NOW)])
    handler = make(erasures=erasures)
    late = view(3, "u1", "p2", occurred_at=NOW + timedelta(seconds=1))
    log = [view(1, "u1"), view(2, "u2"), replace(late, timestamp_ms=late.timestamp_ms + 1_000)]
    feed(handler, [*log, view(4, "u1", "p3", occurred_at=NOW + timedelta(hours=1))])  # recorded before it
    assert items_in(store) == expected_items(log[1:], SKETCH)
    client = store._nodes.primaries()[0]  # noqa: SLF001
    name = handler._scorer.shopper("u1").hash  # noqa: SLF001
    assert [item for item, _ in store.recent(name, 10)] == [b"p2"]
    assert len(client.keys(store.shopper_key(name, "ids:*"))) == 1
    assert client.hlen(store.shopper_key(name, "seen")) == 1


def erased(user_id: str, at: datetime, **fields: Any) -> Record:
    body = UserErased(erased_at=at).model_dump_json().encode()
    given = {"value": body, "key": erasure_key(user_id, b"k").encode(), **fields}
    return Record(TOPICS.erasures.name, "t", 0, 0, 0, **given)


def test_the_latest_erasure_counts_and_what_cannot_be_read_stops_nobody() -> None:
    erasures = Erasures(key=b"k")
    assert not erasures.covers("u1", 0.0)
    later = NOW + timedelta(days=1)
    erasures.take([erased("u1", later), erased("u1", NOW), erased("u2", NOW, value=b"{")])
    assert erasures.covers("u1", later.timestamp())
    assert not erasures.covers("u1", later.timestamp() + 0.001)
    assert not erasures.covers("u2", 0.0)
    erasures.take([erased("u1", NOW, value=None)])
    assert not erasures.covers("u1", 0.0)


def test_a_consumer_that_ends_stops_following_erasures_and_lets_go_of_the_topic(
    store: BehaviourStore,
) -> None:
    erasures, released = Erasures(key=b"k"), list[bool]()

    def poll(_: float) -> list[Record]:
        time.sleep(0.01)
        return []

    erasures.follow(poll, release=lambda: released.append(True))
    publisher: Any = Publisher()
    handler = BehaviourHandler(
        store=store, publisher=publisher, topics=TOPICS, settings=SETTINGS, erasures=erasures
    )
    assert not released
    handler.close()
    assert released == [True]


def test_a_follower_of_erasures_that_died_ends_the_consumer(make: Callable[..., BehaviourHandler]) -> None:
    erasures = Erasures(key=b"k")
    handler = make(erasures=erasures)
    assert handler.fatal() is None
    assert make().fatal() is None
    erasures.fatal = Halt("user.erasures cannot be read")
    assert handler.fatal() is erasures.fatal
