"""Item state on a real Redis Cluster of three nodes: what holds on one Redis holds on all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from redis.cluster import RedisCluster
from redis.utils import str_if_bytes

from adapters.redis_client import Outcome, RedisSettings, connect
from adapters.redis_items import ItemStore, ProductWrite
from adapters.redis_nodes import RedisNodes
from schemas.errors import Halt, Transient
from tests.adapters.test_redis_items import ODD_IDS, at, deletion, tombstone, upsert
from tests.support.servers import LocalRedisCluster

IDS = [f"p{number}" for number in range(60)]


@pytest.fixture(scope="module")
def nodes(redis_cluster: LocalRedisCluster) -> Iterator[RedisNodes]:
    client = connect(RedisSettings(url=redis_cluster.url, cluster=True))
    yield RedisNodes(client)
    client.close()


@pytest.fixture
def store(redis_cluster: LocalRedisCluster, namespace: str) -> Iterator[ItemStore]:
    client = connect(RedisSettings(url=redis_cluster.url, cluster=True))
    yield ItemStore(client=client, namespace=namespace)
    client.close()


def titles(store: ItemStore) -> dict[str, str | None]:
    return {
        product_id: state.product.title if state.product is not None else None
        for product_id, state in store.read(IDS).items()
    }


def test_the_keys_of_a_batch_lie_on_every_node_and_those_of_an_item_together(nodes: RedisNodes) -> None:
    keys = [f"item:{{{product_id}}}:product" for product_id in IDS]
    groups = nodes.by_node(keys)
    assert len(groups) == len(nodes.primaries()) == 3
    assert sorted(position for _, positions in groups for position in positions) == list(range(60))
    for product_id in IDS:
        product, sketch = (nodes.of(f"item:{{{product_id}}}:{what}") for what in ("product", "sketch"))
        assert product is sketch


def test_a_batch_over_all_nodes_is_answered_and_read_in_the_order_given(store: ItemStore) -> None:
    first = [
        upsert(5, at(number), title=f"five {product_id}", product_id=product_id)
        for number, product_id in enumerate(IDS)
    ]
    assert [one.outcome for one in store.apply(first)] == [Outcome.NEWER] * 60
    again = [
        replace(write, revision=4 + number % 3, document=None if number % 3 == 2 else write.document)
        for number, write in enumerate(first)
    ]
    wanted = [(Outcome.OLDER, Outcome.EQUAL, Outcome.NEWER)[number % 3] for number in range(60)]
    assert [one.outcome for one in store.apply(again)] == wanted
    assert titles(store) == {
        one: None if number % 3 == 2 else f"five {one}" for number, one in enumerate(IDS)
    }


def test_any_id_is_written_read_and_walked_as_it_is(store: ItemStore) -> None:
    store.apply([upsert(1, at(number), product_id=odd) for number, odd in enumerate(ODD_IDS)])
    states = store.read([*ODD_IDS, "unknown"])
    assert set(states) == set(ODD_IDS)
    assert sorted({found for page in store.scan_ids(batch=3) for found in page}) == sorted(ODD_IDS)


def test_any_order_of_arrival_ends_the_same(store: ItemStore, redis_cluster: LocalRedisCluster) -> None:
    draw = Random(1)
    history: list[ProductWrite] = []
    for number in range(400):
        product_id, where = draw.choice(IDS[:20]), at(number, partition=number % 2)
        made = draw.random()
        if made < 0.1:
            history.append(tombstone(where, product_id=product_id))
        elif made < 0.2:
            history.append(deletion(draw.randrange(9), where, product_id=product_id))
        else:
            title = f"title {draw.randrange(5)}"
            history.append(upsert(draw.randrange(9), where, title=title, product_id=product_id))
    store.apply(history)
    other = ItemStore(
        client=connect(RedisSettings(url=redis_cluster.url, cluster=True)),
        namespace=store.key("").split("item:")[0] + "2.",
    )
    for _ in range(2):
        draw.shuffle(history)
        other.apply(history)
    assert titles(store) == titles(other)


def test_scripts_that_one_node_forgot_are_loaded_there_again(store: ItemStore, nodes: RedisNodes) -> None:
    store.apply([upsert(1, at(0), product_id=product_id) for product_id in IDS])
    drawn = [store.draw_ticket()]
    for node in nodes.primaries():
        node.script_flush()
        answers = store.apply([upsert(2, at(1), product_id=product_id) for product_id in IDS])
        assert {one.outcome for one in answers} <= {Outcome.NEWER, Outcome.EQUAL}
        drawn.append(store.draw_ticket())
    assert drawn == sorted(set(drawn))


def test_a_node_that_is_killed_means_not_now_and_then_everything_is_there(tmp_path: Path) -> None:
    with LocalRedisCluster(tmp_path) as servers:
        client = connect(RedisSettings(url=servers.url, cluster=True))
        assert isinstance(client, RedisCluster)
        for node in servers.nodes:
            # What everysec may lose in the first second is not the matter here.
            node.ask("CONFIG", "SET", "appendfsync", "always")
        store = ItemStore(client=client)
        store.apply([upsert(1, at(number), product_id=one) for number, one in enumerate(IDS)])
        run_id = store.run_id()
        # The one that the URL names: whoever has connected knows the others as well.
        servers.nodes[0].kill()
        for call in (store.run_id, store.ping, lambda: store.read(IDS), lambda: list(store.scan_ids())):
            with pytest.raises(Transient):
                call()
        with pytest.raises(Transient):
            store.apply(
                [upsert(2, at(number), title="new", product_id=one) for number, one in enumerate(IDS)]
            )
        servers.nodes[0].restart()
        servers.wait_ready()
        assert set(titles(store)) == set(IDS)
        store.apply([upsert(2, at(number), title="new", product_id=one) for number, one in enumerate(IDS)])
        assert set(titles(store).values()) == {"new"}
        assert store.run_id() != run_id
        client.close()


def test_a_cluster_that_is_away_at_the_start_is_waited_for(tmp_path: Path) -> None:
    with LocalRedisCluster(tmp_path) as servers:
        url = servers.url
        for node in servers.nodes:
            node.kill()
        with pytest.raises(Transient, match="the cluster"):
            connect(RedisSettings(url=url, cluster=True))


def test_a_name_and_a_password_are_shown_to_every_node_and_wrong_ones_refused(
    redis_cluster: LocalRedisCluster,
) -> None:
    for node in redis_cluster.nodes:
        node.ask("ACL", "SETUSER", "shop", "on", ">hunter2", "~*", "&*", "+@all")
    address = redis_cluster.url.removeprefix("redis://")
    client = connect(RedisSettings(url=f"redis://shop:hunter2@{address}", cluster=True))
    asked = [str_if_bytes(node.acl_whoami()) for node in RedisNodes(client).primaries()]
    assert asked == ["shop"] * 3
    # Without the name a node would take anybody here for its user `default`.
    with connect(RedisSettings(url=redis_cluster.url, cluster=True)) as nobody:
        assert str_if_bytes(RedisNodes(nobody).primaries()[0].acl_whoami()) == "default"
    client.close()
    with pytest.raises(Halt, match="credentials") as refused:
        connect(RedisSettings(url=f"redis://shop:hunter3@{address}", cluster=True))
    assert "hunter3" not in str(refused.value)
