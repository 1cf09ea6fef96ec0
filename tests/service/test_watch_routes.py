"""The routes that watch: changes as they arrive, the pipeline, releases, recent items, a map."""

from __future__ import annotations

import json
import socket
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from adapters.index_port import LIVE_ALIAS
from schemas.api_watch import DeadLetterView, ReleaseRecord
from schemas.errors import Transient
from schemas.events import ItemUpdated
from schemas.releases import Verdict
from schemas.rollouts import RolloutState
from service.access import Keyring
from service.api import create_app
from service.keys import ApiSettings, Scope, new_key
from service.server import Service
from service.settings import ServiceSettings
from service.watching import AT_ONCE, Watched
from tests.service.shop import COLLECTION, RELEASE, Shop
from tests.service.test_api import problem
from tests.service.test_feed import Topic, eventually, feed_of, update
from tests.support.fake_behaviour import FakeBehaviour, visits
from tests.support.serving import connected, request_head, serving


def here(item_id: str, **more: Any) -> ItemUpdated:
    return update(item_id, collection=COLLECTION, **more)


# --- the stream ----------------------------------------------------------------------------------


def read_until(client: socket.socket, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data:
        part = client.recv(65_536)
        assert part, data
        data += part
    return data


def messages(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith("data: ")]


def test_a_change_is_sent_with_the_title_of_its_item(shop: Shop) -> None:
    topic = Topic()
    app = shop.app(watched=Watched(feed=feed_of(topic)))
    timed = seconds_observed()
    with serving(app) as address, connected(address) as client:
        client.sendall(request_head("GET", "/v1/updates"))
        head = read_until(client, b": listening")
        assert b"text/event-stream" in head
        assert b"no-store" in head
        topic.send(here("s1", calls=1), update("s2", collection="items__other__1"), here("gone"))
        (said,) = messages(read_until(client, b"\n\n"))
    (first, second) = said["updates"]
    assert (first["item_id"], first["encoder_calls"], first["freshness_ms"]) == ("s1", 1, 40.0)
    assert first["title"]
    assert (second["item_id"], second["title"]) == ("gone", None)
    # How long somebody listened is no time that an answer took.
    assert seconds_observed() == timed


def seconds_observed() -> float:
    value = REGISTRY.get_sample_value("simstream_http_seconds_count", {"route": "/v1/updates"})
    return value or 0.0


def test_what_comes_too_fast_is_counted(shop: Shop) -> None:
    topic = Topic()
    with serving(shop.app(watched=Watched(feed=feed_of(topic)))) as address, connected(address) as client:
        client.sendall(request_head("GET", "/v1/updates"))
        read_until(client, b": listening")
        topic.send(*(here("s1") for _ in range(AT_ONCE + 5)))
        seen = passed_over = 0
        while seen + passed_over < AT_ONCE + 5:
            for said in messages(read_until(client, b"\n\n")):
                seen += len(said["updates"])
                passed_over += said["passed_over"]
    assert seen + passed_over == AT_ONCE + 5
    assert passed_over > 0


def test_listeners_are_bounded_and_one_that_leaves_makes_room(shop: Shop) -> None:
    feed = feed_of(Topic(), most=1)
    with serving(shop.app(watched=Watched(feed=feed))) as address:
        with connected(address) as client:
            client.sendall(request_head("GET", "/v1/updates"))
            read_until(client, b": listening")
            with connected(address) as other:
                other.sendall(request_head("GET", "/v1/updates"))
                refused = read_until(other, b"listen already")
            assert b" 503 " in refused
            assert b"retry-after: 30" in refused

        def heard() -> bool:
            with connected(address) as client:
                client.sendall(request_head("GET", "/v1/updates"))
                return b" 200 " in client.recv(65_536)

        eventually(heard)


def test_a_service_that_ends_ends_its_streams(shop: Shop) -> None:
    watched = Watched(feed=feed_of(Topic()))
    service_started = time.monotonic()
    service = Service(shop.app(watched=watched), host="127.0.0.1", port=0, ending=watched.close)
    thread = threading.Thread(target=service.run, daemon=True)
    thread.start()
    time.sleep(0.3)
    with connected(service.address) as client:
        client.sendall(request_head("GET", "/v1/updates"))
        read_until(client, b": listening")
        service.stop()
        # Without `ending` it would wait as long as an answer may take to be read: 31 s.
        thread.join(15.0)
        assert not thread.is_alive()
        assert client.recv(65_536) in (b"0\r\n\r\n", b"")
    assert time.monotonic() - service_started < 25.0


def test_without_a_broker_the_stream_says_so(client: TestClient) -> None:
    assert problem(client.get("/v1/updates"), 503)["errors"][0]["store"] == "broker"


# --- the pipeline --------------------------------------------------------------------------------


LETTER = DeadLetterView(
    identity="t:0:1", topic="catalog.products", error="title: is required", died_at="2026", redriven=False
)


def pipeline(shop: Shop, registry: CollectorRegistry, watched: Watched) -> dict[str, Any]:
    app = create_app(
        index=shop.index,
        store=shop.store,
        releases=shop.releases,
        settings=ServiceSettings(),
        registry=registry,
        watched=watched,
    )
    with TestClient(app) as client:
        answer = client.get("/v1/pipeline")
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        return found


def test_the_pipeline_shows_lag_freshness_and_dead_letters(shop: Shop) -> None:
    registry = CollectorRegistry()
    labels = ["consumer", "topic"]
    lag = Gauge("simstream_lag_records", "lag", [*labels, "partition"], registry=registry)
    lag.labels("products", "p", "0").set(1)
    lag.labels("products", "p", "1").set(3)
    Counter("simstream_records_total", "records", labels, registry=registry).labels("products", "p").inc(9)
    dead = Counter("simstream_dead_letters_total", "dead", [*labels, "reason"], registry=registry)
    dead.labels("products", "p", "invalid").inc()
    topic = Topic()
    feed = feed_of(topic)
    feed.recent()
    topic.send(*(here("s1", took_ms=ms) for ms in (10, 20, 30)), here("s2", calls=2, took_ms=90))
    eventually(lambda: len(feed.recent()) == 4)
    found = pipeline(shop, registry, Watched(feed=feed, dead_letters=lambda: [LETTER]))
    feed.close()
    everything, text, other = found["freshness"]
    assert (everything["updates"], everything["p50_ms"], everything["p99_ms"]) == (4, 20.0, 90.0)
    assert (text["updates"], text["p50_ms"]) == (1, 90.0)
    assert (other["updates"], other["p95_ms"]) == (3, 30.0)
    assert found["encoder_calls"] == 2
    assert found["consumers"] == [
        {"consumer": "products", "topic": "p", "lag_records": 4, "records": 9, "dead_letters": 1}
    ]
    assert found["dead_letters"][0]["error"] == "title: is required"
    assert found["notes"] == []


def test_what_cannot_be_seen_is_said_instead(shop: Shop) -> None:
    def away() -> list[DeadLetterView]:
        raise Transient("no broker")

    found = pipeline(shop, CollectorRegistry(), Watched(dead_letters=away))
    assert found["consumers"] == []
    assert len(found["notes"]) == 3
    assert "dead letters cannot be read at present: no broker" in found["notes"]


def test_dead_letters_are_read_once_in_a_while_and_not_for_each_who_looks(shop: Shop) -> None:
    read = []

    def letters() -> list[DeadLetterView]:
        read.append(1)
        return [LETTER]

    with TestClient(shop.app(watched=Watched(dead_letters=letters))) as client:
        for _ in range(3):
            assert client.get("/v1/pipeline").json()["dead_letters"]
    assert len(read) == 1


# --- releases ------------------------------------------------------------------------------------


def test_the_alias_alone_says_which_release_is_live(shop: Shop) -> None:
    since = datetime(2026, 11, 24, 8, tzinfo=UTC)
    records = [
        ReleaseRecord(
            release_id="newer",
            collection=f"{LIVE_ALIAS}__newer__1",
            state=RolloutState.LIVE,  # it says so, and is not
            since=since,
            verdict=Verdict(passed=False, reasons=["forgets"]),
        ),
        ReleaseRecord(release_id=RELEASE, collection=COLLECTION, state=RolloutState.VERIFIED, since=since),
    ]
    with TestClient(shop.app(watched=Watched(releases=lambda: records))) as client:
        found = client.get("/v1/releases").json()["releases"]
    assert [(one["release_id"], one["live"], one["searchable"]) for one in found] == [
        (RELEASE, True, True),
        ("newer", False, False),
    ]
    assert found[1]["verdict"]["reasons"] == ["forgets"]


def test_while_records_cannot_be_read_the_live_release_is_known_all_the_same(shop: Shop) -> None:
    def away() -> list[ReleaseRecord]:
        raise Transient("no Redis")

    with TestClient(shop.app(watched=Watched(releases=away))) as client:
        answer = client.get("/v1/releases").json()
    assert [(one["release_id"], one["live"]) for one in answer["releases"]] == [(RELEASE, True)]
    assert "no Redis" in answer["notes"][0]


# --- recent items and the map --------------------------------------------------------------------


def test_recent_items_are_those_that_recommendations_start_from(shop: Shop) -> None:
    behaviour = FakeBehaviour(shopped={"u1": visits("s1", "gone", "c1")}, purchases={"u1": {"c1"}})
    with TestClient(shop.app(behaviour=behaviour)) as client:
        found = client.get("/v1/users/u1/recent").json()["items"]
        assert client.get("/v1/users/nobody/recent").json() == {"items": []}
    assert [(one["item_id"], one["bought"]) for one in found] == [
        ("s1", False),
        ("gone", False),
        ("c1", True),
    ]
    assert found[0]["item"]["title"]
    assert found[1]["item"] is None


def test_items_without_content_have_no_place_on_the_map(client: TestClient) -> None:
    answer = client.post("/v1/map", json={"item_ids": ["s1", "s2", "c1", "no such item", "s1"]}).json()
    assert {place["item_id"] for place in answer["places"]} == {"s1", "s2", "c1"}
    assert all(-1 <= place[axis] <= 1 for place in answer["places"] for axis in ("x", "y"))
    assert answer["release_id"] == RELEASE
    problem(client.post("/v1/map", json={"item_ids": []}), 422)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/updates", None),
        ("GET", "/v1/pipeline", None),
        ("GET", "/v1/releases", None),
        ("GET", "/v1/users/u1/recent", None),
        ("POST", "/v1/map", {"item_ids": ["s1"]}),
    ],
)
def test_watching_needs_the_scope_read(shop: Shop, method: str, path: str, body: Any) -> None:
    key, kept = new_key("writer", frozenset({Scope.PUBLISH}))
    with TestClient(shop.app(keyring=Keyring(ApiSettings(keys=(kept.entry(),))))) as client:
        refused = client.request(method, path, json=body, headers={"Authorization": f"Bearer {key}"})
        assert problem(refused, 403)["errors"][0]["scope"] == "read"


def test_another_release_on_the_map_needs_the_scope_admin(shop: Shop) -> None:
    key, kept = new_key("reader", frozenset({Scope.READ}))
    with TestClient(shop.app(keyring=Keyring(ApiSettings(keys=(kept.entry(),))))) as client:
        body = {"item_ids": ["s1"], "release_id": RELEASE}
        refused = client.post("/v1/map", json=body, headers={"Authorization": f"Bearer {key}"})
        assert problem(refused, 403)["errors"][0]["scope"] == "admin"
