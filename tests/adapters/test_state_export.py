"""Canonical lines of state: what they show, what they leave out, and that nothing is left out silently."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis

from adapters.behaviour_work import ItemWork, ShopperWork
from adapters.redis_behaviour import BehaviourStore
from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from adapters.redis_nodes import RedisNodes
from adapters.state_export import export_state
from schemas.errors import Halt
from tests.consumers.state import State
from tests.support.servers import Redis


@pytest.fixture
def client(redis_server: Redis) -> Iterator[redis.Redis]:
    found = connect(RedisSettings(url=redis_server.url))
    assert isinstance(found, redis.Redis)
    yield found
    found.close()


def behave(client: redis.Redis, namespace: str, generation: int, *, offset: int, views: int = 2) -> None:
    """Two shoppers look at p1; where in the log is of no matter for what it comes to."""
    store = BehaviourStore(nodes=RedisNodes(client), namespace=namespace, generation=generation)
    store.claim_epoch("e1")
    work = ShopperWork(b"\x80234567\xff", "topic:0", 0)
    work.entries.append(b"event-id" + offset.to_bytes(6, "big"))
    work.recent += (8_000, "p1")
    work.touched.append(17)
    store.apply_shoppers([work], epoch=None, recent_kept=5, bought_kept=5)
    members = [part for number in range(views) for part in (str(number), 100 + number)]
    events = [(0, offset + number, 1_000, 8 + 16, 17 + 16 * number) for number in range(views)]
    item = ItemWork("p1", members, events)
    store.apply_items("topic", [item], epoch=None)
    store.mark({"p1": offset})
    store.add_trend({(0, offset): {"p1": 2.0}})


def test_where_in_the_log_events_stood_and_what_is_still_to_be_announced_makes_no_difference(
    client: redis.Redis, namespace: str
) -> None:
    behave(client, namespace, 1, offset=7)
    behave(client, namespace, 2, offset=70)
    one, two = (
        list(export_state(nodes=RedisNodes(client), namespace=namespace, generation=number))
        for number in (1, 2)
    )
    assert one == two
    assert [json.loads(line)[0] for line in one] == [
        "behaviour:epoch",
        "item:{p1}:behaviour",
        "item:{p1}:sketch",
        "shopper:{80323334353637ff}:recent",
        "shopper:{80323334353637ff}:seen",
    ]
    behave(client, namespace, 3, offset=7, views=3)
    three = list(export_state(nodes=RedisNodes(client), namespace=namespace, generation=3))
    assert [a == b for a, b in zip(one, three, strict=True)] == [True, False, False, True, True]


def test_lines_are_sorted_whatever_the_order_of_writing(client: redis.Redis, namespace: str) -> None:
    for generation, ids in ((1, ["p2", "p1", "ä"]), (2, ["ä", "p1", "p2"])):
        state = State(client, ItemStore(client=client, namespace=namespace, generation=generation))
        # The same place in the log, whatever the order.
        for product_id in ids:
            State(client, state.store).put(product_id)
    nodes = RedisNodes(client)
    one, two = (list(export_state(nodes=nodes, namespace=namespace, generation=number)) for number in (1, 2))
    assert one == two
    assert [json.loads(line)[0] for line in one] == [
        "item:{p1}:product",
        "item:{p2}:product",
        "item:{ä}:product",
    ]
    assert json.loads(json.loads(one[0])[1]["doc"])["product_id"] == "p1"


def test_a_key_that_the_export_does_not_know_is_refused(client: redis.Redis, namespace: str) -> None:
    client.set(f"{namespace}item:{{p1}}:novelty", "x")
    with pytest.raises(Halt, match=r"does not know what .*item:\{p1\}:novelty"):
        list(export_state(nodes=RedisNodes(client), namespace=namespace))
