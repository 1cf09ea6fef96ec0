"""The oracle of behaviour sees each kind of damage, or its zeros would mean nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from adapters.redis_behaviour import BehaviourStore
from adapters.redis_client import RedisSettings, connect
from adapters.redis_nodes import RedisNodes
from consumers.behaviour import BehaviourHandler
from tests.consumers.test_behaviour import NOW, SETTINGS, SKETCH, TOPICS, Publisher, drawn, feed
from tests.support.behaviour_oracle import Damage, damage, name_of
from tests.support.servers import Redis

LOG = drawn(11)
ITEM = "p1"


@pytest.fixture
def client(redis_server: Redis) -> Iterator[redis.Redis]:
    opened = connect(RedisSettings(url=redis_server.url))
    assert isinstance(opened, redis.Redis)
    yield opened
    opened.close()


@pytest.fixture
def store(client: redis.Redis, namespace: str) -> BehaviourStore:
    """What the whole log came to."""
    made = BehaviourStore(nodes=RedisNodes(client), namespace=namespace, sketch_members=SKETCH.members)
    publisher: Any = Publisher()
    handler = BehaviourHandler(
        store=made, publisher=publisher, topics=TOPICS, settings=SETTINGS, now=lambda: NOW
    )
    feed(handler, LOG)
    handler.close()
    return made


def looked_up(store: BehaviourStore) -> dict[str, str]:
    ids = sorted({one.event.product_id for one in LOG})
    return {one: state.header.mark for one, state in zip(ids, store.states(ids), strict=True) if state}


def found(store: BehaviourStore, seen: dict[str, str]) -> Damage:
    return damage(store, LOG, SKETCH, recent_kept=SETTINGS.recent_items, seen=seen, now=NOW)


def test_what_the_log_comes_to_is_no_damage(store: BehaviourStore) -> None:
    answer = found(store, looked_up(store))
    assert answer.nothing, repr(answer)
    assert (answer.events, answer.items, answer.shoppers) == (
        600,
        12,
        len({one.event.user_id for one in LOG}),
    )


def test_an_item_that_moved_after_it_was_looked_up_was_not_announced(store: BehaviourStore) -> None:
    assert found(store, {**looked_up(store), ITEM: "older"}).silent == [ITEM]
    assert len(found(store, {}).silent) == 12


def test_an_event_that_is_missing_or_too_many_is_a_wrong_counter(store: BehaviourStore) -> None:
    last, seen = LOG[-1], looked_up(store)
    longer = [
        *LOG,
        replace(last, offset=last.offset + 9, event=last.event.model_copy(update={"event_id": "x"})),
    ]
    for log in (longer, LOG[:-1]):
        answer = damage(store, log, SKETCH, recent_kept=SETTINGS.recent_items, seen=seen, now=NOW)
        assert answer.counters == [last.event.product_id]


def test_a_member_that_is_gone_is_a_wrong_sketch(store: BehaviourStore, client: redis.Redis) -> None:
    seen = looked_up(store)
    client.zpopmin(store.sketch_key(ITEM))
    answer = found(store, seen)
    assert (answer.sketches, answer.counters, answer.silent) == ([ITEM], [], [])


def test_recent_items_and_trending_are_compared_as_well(store: BehaviourStore, client: redis.Redis) -> None:
    seen, user = looked_up(store), LOG[0].event.user_id
    client.delete(store.shopper_key(name_of(user, SKETCH), "recent"))
    for key in client.scan_iter(f"{store.state_key('').split('item:')[0]}trend:*"):
        client.zrem(key, ITEM)
    answer = found(store, seen)
    assert (answer.recents, answer.trends, answer.counters) == ([user], [ITEM], [])
