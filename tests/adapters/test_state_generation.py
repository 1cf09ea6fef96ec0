"""The pointer to the live state: numbers, prefixes, taking over, and what is removed of the others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from adapters.redis_nodes import RedisNodes
from adapters.state_generation import FIRST, Generations, group_suffix, state_prefix
from schemas.errors import Halt
from tests.consumers.state import State
from tests.support.servers import Redis


@pytest.fixture
def client(redis_server: Redis) -> Iterator[redis.Redis]:
    found = connect(RedisSettings(url=redis_server.url))
    assert isinstance(found, redis.Redis)
    yield found
    found.close()


@pytest.fixture
def generations(client: redis.Redis, namespace: str) -> Generations:
    return Generations(nodes=RedisNodes(client), namespace=namespace)


def test_the_first_generation_has_the_keys_and_groups_of_before_there_were_any() -> None:
    assert (state_prefix("shop.", FIRST), group_suffix(FIRST)) == ("shop.", "")
    assert (state_prefix("shop.", 3), group_suffix(3)) == ("shop.g3:", "-g3")


def test_another_generation_takes_over_and_whoever_works_on_the_one_before_is_told(
    generations: Generations,
) -> None:
    assert generations.live() == FIRST
    assert [generations.make(), generations.make()] == [2, 3]
    generations.standing(FIRST)
    generations.take_over(3)
    generations.standing(3)
    with pytest.raises(Halt, match="generation 3 of the state has taken over from generation 1"):
        generations.standing(FIRST)
    assert generations.make() == 4


def test_a_redis_that_forgot_its_numbers_gives_none_below_the_live_one(
    generations: Generations, client: redis.Redis, namespace: str
) -> None:
    generations.take_over(5)
    client.delete(f"{namespace}state:made")
    assert generations.make() == 6


def test_items_of_two_generations_do_not_see_each_other_and_share_their_tickets(
    client: redis.Redis, namespace: str
) -> None:
    one = ItemStore(client=client, namespace=namespace)
    two = ItemStore(client=client, namespace=namespace, generation=2)
    State(client, one).put("p1", title="One")
    State(client, two).put("p1", title="Two")
    State(client, two).put("p2")
    assert [page for page in one.scan_ids()] == [["p1"]]
    assert sorted(product_id for page in two.scan_ids() for product_id in page) == ["p1", "p2"]
    titles = [store.read(["p1"])["p1"].product for store in (one, two)]
    assert [product.title for product in titles if product is not None] == ["One", "Two"]
    tickets = [store.draw_ticket() for store in (one, two, one, two)]
    assert tickets == sorted(set(tickets))


def test_retired_generations_are_removed_and_the_live_one_and_other_keys_stay(
    generations: Generations, client: redis.Redis, namespace: str
) -> None:
    for generation in (FIRST, generations.make(), generations.make()):
        State(client, ItemStore(client=client, namespace=namespace, generation=generation)).put("p1")
        client.set(f"{state_prefix(namespace, generation)}{{dirty-3}}:due", "x")
    client.set(f"{namespace}release:{{all}}:rollouts", "x")
    generations.take_over(2)
    with pytest.raises(Halt, match="generation 2 of the state is the live one"):
        generations.drop(2)
    assert generations.retired() == [1, 3]
    assert [generations.drop(number) for number in (1, 3)] == [2, 2]
    left = sorted(key.decode()[len(namespace) :] for key in client.scan_iter(match=f"{namespace}*"))
    assert left == [
        "g2:item:{p1}:product",
        "g2:{dirty-3}:due",
        "release:{all}:rollouts",
        "state:generation",
        "state:made",
    ]
