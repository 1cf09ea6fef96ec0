"""A batch as work: sums come to the same as single events, and what cannot matter is left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from adapters.behaviour_scripts import SPLIT
from adapters.behaviour_work import ItemWork, Moved
from adapters.redis_behaviour import BehaviourStore
from adapters.redis_client import RedisSettings, connect
from adapters.redis_nodes import RedisNodes
from consumers import interactions
from consumers.behaviour import BehaviourHandler
from consumers.interactions import shopper_works
from consumers.progress import Delivery, Progress
from schemas.errors import Transient
from tests.consumers.test_behaviour import (
    SETTINGS,
    SKETCH,
    TOPICS,
    Publisher,
    drawn,
    feed,
    in_batches,
    record,
    settle,
    view,
)
from tests.support.behaviour_oracle import Logged, expected_items, items_in
from tests.support.servers import Redis


class Counting(BehaviourStore):
    """Counts what it is asked to apply as sums and singly, and sums that were answered with a split."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.sums = self.single = self.splits = self.members = 0

    def _items_of(
        self, topic: str, works: Sequence[ItemWork], epoch: str | None, *, singly: bool
    ) -> list[Moved]:
        self.sums += sum(work.summed is not None and not singly for work in works)
        self.single += sum(work.summed is None or singly for work in works)
        self.members += sum(len(work.members) // 2 for work in works)
        moved = super()._items_of(topic, works, epoch, singly=singly)
        self.splits += sum(one.much == SPLIT for one in moved)
        return moved


@pytest.fixture
def stores(redis_server: Redis, namespace: str) -> Iterator[Callable[[], Counting]]:
    client = connect(RedisSettings(url=redis_server.url))
    made: list[str] = []

    def one() -> Counting:
        made.append(f"{namespace}{len(made)}.")
        return Counting(nodes=RedisNodes(client), namespace=made[-1], sketch_members=SKETCH.members)

    yield one
    client.close()


@pytest.fixture
def handler_on() -> Iterator[Callable[[BehaviourStore], BehaviourHandler]]:
    made: list[BehaviourHandler] = []

    def one(store: BehaviourStore) -> BehaviourHandler:
        publisher: Any = Publisher()
        made.append(BehaviourHandler(store=store, publisher=publisher, topics=TOPICS, settings=SETTINGS))
        return made[-1]

    yield one
    for handler in made:
        handler.close()


Stores = Callable[[], Counting]
HandlerOn = Callable[[BehaviourStore], BehaviourHandler]


def raw(store: BehaviourStore, log: Sequence[Logged]) -> Any:
    """Everything of the items, guards and what is derived included."""
    ids = sorted({one.event.product_id for one in log})
    return store.states(ids), store.sketches(ids)


@pytest.mark.parametrize("seed", range(3))
def test_sums_leave_the_same_state_as_single_events(
    seed: int, stores: Stores, handler_on: HandlerOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = drawn(seed, 500)
    found = []
    for summed_from in (1, 10_000):
        monkeypatch.setattr(interactions, "SUMMED_FROM", summed_from)
        store = stores()
        handler = handler_on(store)
        for batch in in_batches(Random(seed), log):
            feed(handler, batch)
        assert (store.sums, store.single)[summed_from == 1] == 0
        found.append(raw(store, log))
    assert found[0] == found[1]
    assert items_in(store) == expected_items(log, SKETCH)


def test_a_sum_of_which_a_part_was_counted_is_applied_event_by_event(
    stores: Stores, handler_on: HandlerOn
) -> None:
    log = [view(number, f"u{number % 7}") for number in range(40)]
    store = stores()
    feed(handler_on(store), log[:15])
    feed(handler_on(store), log)
    assert store.splits == 1
    assert items_in(store) == expected_items(log, SKETCH)
    feed(handler_on(store), log)
    assert store.splits == 1, "all of it was counted before: that is no split"
    assert items_in(store) == expected_items(log, SKETCH)


@pytest.mark.parametrize("restarted", [True, False])
def test_an_event_that_cannot_enter_the_sketch_is_left_out_until_redis_is_another(
    restarted: bool, stores: Stores, handler_on: HandlerOn
) -> None:
    """A Redis that was restarted may have lost what made tau small."""
    log = [view(number, f"u{number}") for number in range(400)]
    store = stores()
    handler = handler_on(store)
    handler.adopt(store.run_id())
    for start in range(0, 400, 50):
        feed(handler, log[start : start + 50])
    assert store.members < 300, "nothing was left out: this proved nothing"
    assert items_in(store) == expected_items(log, SKETCH)
    client = store._nodes.primaries()[0]  # noqa: SLF001
    client.delete(store.state_key("p1"), store.sketch_key("p1"))
    if restarted:
        handler.adopt(f"{store.run_id()} and another")
    feed(handler, log)
    # The negative control: in the same epoch nobody may lose anything.
    assert (items_in(store) == expected_items(log, SKETCH)) is restarted


class Away(Counting):
    """Takes no items while it is away."""

    away = True

    def apply_items(self, topic: str, works: Sequence[ItemWork], *, epoch: str | None) -> list[Moved]:
        if self.away and works:
            raise Transient("Redis is away")
        return super().apply_items(topic, works, epoch=epoch)


def test_a_partition_that_goes_while_its_items_wait_leaves_no_gap_behind_its_guard(
    redis_server: Redis, namespace: str, handler_on: HandlerOn
) -> None:
    """The second batch is summed up already, and holds records of another partition that stays."""
    client = connect(RedisSettings(url=redis_server.url))
    store = Away(nodes=RedisNodes(client), namespace=namespace, sketch_members=SKETCH.members)
    handler = handler_on(store)
    goes = [view(number, f"u{number}") for number in range(20)]
    stays = [replace(view(number, f"v{number}"), partition=1) for number in range(20)]
    gone, standing = Progress(None), Progress(None)
    batches = [
        [Delivery(handler.decode(record(one)), one.offset, gone) for one in goes[:10]],
        [
            Delivery(handler.decode(record(one)), one.offset, gone if one.partition == 0 else standing)
            for one in [*goes[10:], *stays]
        ],
    ]
    for batch in batches:
        handler.handle(batch)
    time.sleep(0.05)  # the second batch comes as far as it can
    gone.abandon()
    store.away = False
    settle(batches[1][10:])
    assert items_in(store) == expected_items(stays, SKETCH)
    feed(handler, goes)  # its next owner
    assert items_in(store) == expected_items([*goes, *stays], SKETCH)
    client.close()


def test_what_shoppers_did_is_by_shopper_and_partition(handler_on: HandlerOn, stores: Stores) -> None:
    handler = handler_on(stores())
    log = [view(1, "u1"), view(2, "u2", type="impression"), view(3, "u1", "p2", type="purchase")]
    events = [handler.decode(record(one)) for one in log]
    moved = events[0]._replace(partition=7)
    first, impression, other = shopper_works("t", [*events, moved], {0: 5, 7: 0}).values()
    assert (first.field, first.committed, other.field, other.committed) == ("t:0", 5, "t:7", 0)
    assert first.shopper == other.shopper
    assert first.entries == [events[0].entry, events[2].entry]
    ms = int(events[0].second * 1000)
    assert first.recent == [ms * 8, "p1", ms * 8 + 3, "p2"]
    assert first.bought == [ms, "p2"]
    assert (impression.recent, impression.touched, len(impression.entries)) == ([], [], 1)
