"""service/sink.py and the routes over it: nothing is acknowledged that the broker has not acknowledged."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from fastapi.testclient import TestClient

from schemas.errors import Halt
from schemas.events import UserEvent
from schemas.topics import Topics
from service.errors import Busy, TooLarge, Unavailable
from service.sink import Acknowledge, EventSink
from tests.service.shop import Shop
from tests.service.test_api import problem

TOPICS = Topics.named()


class Broker:
    """A publisher of which the test says what becomes of each record."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, bytes]] = []
        self.waiting: list[Acknowledge] = []
        self.closed = False
        #: None: nobody answers. Else what each record is answered with.
        self.answer: Exception | type[None] | None = type(None)
        self.fatal = False

    def send_batch(self, topic: str, records: Sequence[tuple[str, bytes, Acknowledge | None]]) -> None:
        """See the protocol."""
        for number, (key, value, on_ack) in enumerate(records):
            assert on_ack is not None
            if self.fatal and number == 1:
                raise Halt("fenced")
            self.records.append((topic, key, value))
            self.waiting.append(on_ack)
        if self.answer is not None:
            error = None if self.answer is type(None) else self.answer
            waiting, self.waiting = self.waiting, []
            # On a thread of its own, as librdkafka's client does.
            thread = threading.Thread(target=lambda: [on_ack(error) for on_ack in waiting])  # type: ignore[arg-type]
            thread.start()

    def close(self) -> None:
        """See the protocol."""
        self.closed = True


def sink_of(
    broker: Broker, *, ack_seconds: float = 0.2, most: int = 1_000, most_bytes: int = 10**7
) -> EventSink:
    return EventSink(
        opened=lambda: broker,
        ack_seconds=ack_seconds,
        grace_seconds=0.0,
        most_records=most,
        most_bytes=most_bytes,
    )


def event(number: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "type": "view",
        "user_id": f"u{number}",
        "product_id": "s1",
        "occurred_at": "2026-11-24T08:00:00Z",
        **more,
    }


def events(count: int) -> list[UserEvent]:
    return [UserEvent.model_validate(event(number)) for number in range(count)]


def posting(shop: Shop, broker: Broker) -> TestClient:
    return TestClient(shop.app(sink=sink_of(broker)))


def test_one_event_and_a_list_of_them_are_keyed_as_publish_does(shop: Shop) -> None:
    broker = Broker()
    with posting(shop, broker) as client:
        one = client.post("/v1/events", json=event())
        many = client.post("/v1/events", json=[event(1), event(2, kind="user_event", quantity=None)])
        products = client.post(
            "/v1/products",
            json=[
                {
                    "kind": "product_upserted",
                    "product_id": "p",
                    "occurred_at": "2026-11-24T08:00:00Z",
                    "title": "T",
                },
                {"kind": "product_deleted", "product_id": "p", "occurred_at": "2026-11-24T08:00:01Z"},
            ],
        )
        reviews = client.post(
            "/v1/reviews",
            json={
                "kind": "review_removed",
                "review_id": "r",
                "product_id": "p",
                "occurred_at": "2026-11-24T08:00:00Z",
            },
        )
    answers = (one, many, products, reviews)
    assert [answer.status_code for answer in answers] == [202] * 4
    assert [answer.json()["acknowledged"] for answer in answers] == [1, 2, 2, 1]
    assert [(topic, key) for topic, key, _ in broker.records] == [
        ("user.events", "u0"),
        ("user.events", "u1"),
        ("user.events", "u2"),
        ("catalog.products", "p"),
        ("catalog.products", "p"),
        ("catalog.reviews", "p"),
    ]
    assert json.loads(broker.records[0][2])["kind"] == "user_event"
    assert json.loads(broker.records[4][2])["kind"] == "product_deleted"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("events", {}, "0.event_id"),
        ("events", [], ""),
        ("events", [event()] * 501, ""),
        ("events", [event(), event(type="stare")], "1.type"),
        ("events", event(occurred_at="2026-11-24T08:00:00"), "0.occurred_at"),
        ("events", event(user_id=""), "0.user_id"),
        ("events", "text", "0"),
        ("products", {"product_id": "p"}, "0"),
        ("products", {"kind": "review_posted"}, "0"),
        ("reviews", {"kind": "review_posted", "review_id": "r"}, "0.review_posted.occurred_at"),
    ],
)
def test_a_wrong_event_is_named_by_its_place_and_nothing_of_the_post_is_sent(
    shop: Shop, path: str, body: Any, field: str
) -> None:
    broker = Broker()
    with posting(shop, broker) as client:
        errors = problem(client.post(f"/v1/{path}", json=body), 422)["errors"]
    assert errors[0]["field"] == field
    assert broker.records == []


def test_what_a_shopper_did_does_not_come_back_in_an_error(shop: Shop) -> None:
    with posting(shop, Broker()) as client:
        text = client.post("/v1/events", json=event(user_id="hunter2@example.org", type="stare")).text
    assert "hunter2" not in text


@pytest.mark.parametrize("answer", [None, TimeoutError("the broker is away")])
def test_without_the_brokers_word_there_is_none_from_us(shop: Shop, answer: Exception | None) -> None:
    broker = Broker()
    broker.answer = answer
    sink = sink_of(broker, ack_seconds=0.05)
    with TestClient(shop.app(sink=sink)) as client:
        refused = client.post("/v1/events", json=[event(1), event(2)])
        body = problem(refused, 503)
        assert body["errors"][0]["store"] == "broker"
        assert "0 of 2" in body["detail"]
        assert int(refused.headers["retry-after"]) >= 1
        ready = client.get("/health/ready").json()
        assert [each["store"] for each in ready["missing"]] == ["broker"]
        broker.answer = type(None)
        assert client.post("/v1/events", json=event(3)).status_code == 202
        assert client.get("/health/ready").json()["status"] == "ready"


def test_half_an_acknowledgement_is_none() -> None:
    broker = Broker()
    broker.answer = None

    async def post() -> None:
        posted = asyncio.create_task(sink_of(broker).publish(TOPICS.events, events(3)))
        while len(broker.waiting) < 3:
            await asyncio.sleep(0.001)
        broker.waiting[0](None)
        broker.waiting[1](OSError("no leader"))
        broker.waiting[2](None)
        await posted

    with pytest.raises(Unavailable, match=r"2 of 3 events \(no leader\).*post all of them again"):
        asyncio.run(post())


def test_what_waits_for_a_broker_that_is_away_is_bounded_and_its_room_comes_back() -> None:
    broker = Broker()
    broker.answer = None
    sink = sink_of(broker, ack_seconds=0.05, most=10)

    async def post(count: int) -> str:
        try:
            await sink.publish(TOPICS.events, events(count))
        except (Busy, Unavailable) as error:
            return type(error).__name__
        return "published"

    async def story() -> list[str]:
        said = [await post(6), await post(6), await post(4)]
        for on_ack in broker.waiting:
            on_ack(TimeoutError())
        broker.answer = type(None)
        broker.waiting = []
        return [*said, await post(10)]

    # Our own timeout frees no room: the record is still the client's until it says what became of it.
    assert asyncio.run(story()) == ["Unavailable", "Busy", "Unavailable", "published"]


def test_bytes_are_bounded_too() -> None:
    broker = Broker()
    broker.answer = None
    sink = sink_of(broker, most_bytes=1_000)
    with pytest.raises(Busy):
        asyncio.run(sink.publish(TOPICS.events, events(20)))
    assert broker.records == []


def test_an_event_larger_than_its_topic_takes_is_refused_before_anything_is_sent() -> None:
    broker = Broker()
    large = UserEvent.model_validate(event()).model_copy(update={"query": "x" * 2_000_000})
    with pytest.raises(TooLarge, match="event 1 takes"):
        asyncio.run(sink_of(broker).publish(TOPICS.events, [*events(1), large]))
    assert broker.records == []


def test_a_producer_that_can_never_send_again_is_replaced() -> None:
    broken, whole = Broker(), Broker()
    broken.fatal = True
    opened = iter([broken, whole])
    sink = EventSink(opened=lambda: next(opened), ack_seconds=0.2, most_records=3, most_bytes=10**7)
    with pytest.raises(Unavailable, match="start anew"):
        asyncio.run(sink.publish(TOPICS.events, events(3)))
    assert asyncio.run(sink.publish(TOPICS.events, events(3))) == 3
    broken.waiting[0](None)  # late, and counted nowhere
    assert asyncio.run(sink.publish(TOPICS.events, events(3))) == 3
    assert len(whole.records) == 6


def test_a_service_without_a_broker_says_so(client: TestClient) -> None:
    assert problem(client.post("/v1/events", json=event()), 503)["errors"][0]["store"] == "broker"
