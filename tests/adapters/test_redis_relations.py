"""adapters/redis_relations.py: a run of relations appears whole, and the one before goes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from adapters.redis_client import RedisSettings, connect
from adapters.redis_nodes import RedisNodes
from adapters.redis_relations import RelationStore
from app.local import LocalRedis
from schemas.relations import Bundle, Evidence, Known, Mined, Partner, Run

NOW = datetime(2026, 11, 26, tzinfo=UTC)
EVIDENCE = Evidence(together=12, other=40, expected=3.5, lift=2.5, lift_low=1.4, sure=True)
FOUND = Mined(
    baskets=30,
    visits=90,
    partners=(Partner(item_id="b:2", bought=EVIDENCE, later=0.8), Partner(item_id="c", seen=EVIDENCE)),
    bundles=(Bundle(items=("b:2", "c"), together=7),),
)


def run(name: str) -> Run:
    return Run(run=name, mined_at=NOW, baskets=100, visits=300, items=2, pairs=2)


def test_what_was_written_is_read_and_a_later_run_replaces_it(
    redis_server: LocalRedis, namespace: str
) -> None:
    with connect(RedisSettings(url=redis_server.url)) as client:
        nodes = RedisNodes(client)
        store, other = (RelationStore(nodes=nodes, namespace=name) for name in (namespace, namespace + "x."))
        assert store.of("a") == Known(None, None)
        assert store.of_all(["a"]) == (None, {})
        other.put(run("r1"), {"a": Mined(baskets=1, visits=1)}, keep_seconds=60)
        store.put(run("r1"), {"a": FOUND, "ü:{}": Mined(baskets=1, visits=2)}, keep_seconds=60)
        assert store.of("a") == Known(run("r1"), FOUND)
        assert store.of("ü:{}") == Known(run("r1"), Mined(baskets=1, visits=2))
        assert store.of("nothing") == Known(run("r1"), None)
        both = store.of_all(["nothing", "ü:{}", "a"])
        assert both == (run("r1"), {"a": FOUND, "ü:{}": Mined(baskets=1, visits=2)})
        assert store.of_all([]) == (run("r1"), {})
        store.put(run("r2"), {"b": FOUND}, keep_seconds=60)
        assert store.of("a") == Known(run("r2"), None)
        assert store.of("b") == Known(run("r2"), FOUND)
        keys = [key.decode() for key in client.scan_iter(match=f"{namespace}relations:*")]
        assert sorted(keys) == [f"{namespace}relations:live", f"{namespace}relations:r2:b"]
        assert all(0 < client.ttl(key) <= 60 for key in keys)
        assert other.of("a").mined == Mined(baskets=1, visits=1)


def test_a_run_that_was_cut_off_is_never_read_and_goes_with_the_next(
    redis_server: LocalRedis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(RedisSettings(url=redis_server.url)) as client:
        store = RelationStore(nodes=RedisNodes(client), namespace=namespace)
        store.put(run("r1"), {"a": FOUND}, keep_seconds=60)
        killed = client.eval

        def cut_off(script: str, *args: object, **options: object) -> object:
            raise KeyboardInterrupt

        monkeypatch.setattr(client, "eval", cut_off)
        with pytest.raises(KeyboardInterrupt):
            store.put(run("r2"), {"a": Mined(baskets=9, visits=9)}, keep_seconds=60)
        monkeypatch.setattr(client, "eval", killed)
        assert client.exists(f"{namespace}relations:r2:a")
        assert store.of("a") == Known(run("r1"), FOUND)
        store.put(run("r3"), {"a": FOUND}, keep_seconds=60)
        assert not client.exists(f"{namespace}relations:r2:a")


@pytest.mark.parametrize("begun", ["r1", "r3"])
def test_a_run_that_is_published_while_another_writes_its_keys_leaves_one_of_them_whole(
    redis_server: LocalRedis, namespace: str, monkeypatch: pytest.MonkeyPatch, begun: str
) -> None:
    """`begun` is held up between its keys and its pointer; r2 is published meanwhile. The later one stays."""
    with connect(RedisSettings(url=redis_server.url)) as client:
        store = RelationStore(nodes=RedisNodes(client), namespace=namespace)
        assert store.put(run("r0"), {"a": FOUND, "old": FOUND}, keep_seconds=60)
        whole, published = client.eval, []

        def held_up(*args: Any) -> Any:
            monkeypatch.setattr(client, "eval", whole)
            published.append(store.put(run("r2"), {"a": FOUND, "r2": FOUND}, keep_seconds=60))
            return whole(*args)

        monkeypatch.setattr(client, "eval", held_up)
        is_read = store.put(run(begun), {"a": FOUND, begun: FOUND}, keep_seconds=60)
        assert published == [True]
        assert is_read is (begun == "r3")
        later = max(begun, "r2")
        assert store.of_all(["a", "old", begun, "r2"]) == (run(later), {"a": FOUND, later: FOUND})
        keys = {
            key.decode().removeprefix(f"{namespace}relations:") for key in client.scan_iter(f"{namespace}*")
        }
        assert keys == {"live", f"{later}:a", f"{later}:{later}"}
