"""One published change is one trace, from its producer to the index; and nothing is traced unless asked for.

Spans are collected by the SDK's in-memory exporter: no collector runs here.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import ReadableSpan

from adapters import tracing
from adapters.kafka_log import read_to_end
from adapters.tracing import TRACE_HEADER
from schemas.events import ProductUpserted, ReviewPosted
from schemas.topics import BULK_LANE, LANE_HEADER
from service.api import create_app
from service.settings import ServiceSettings
from service.sink import EventSink
from tests.connected.conftest import MakePipeline
from tests.connected.test_pipeline import NOW, product
from tests.service.shop import StaticReleases
from tests.support.pipeline import Pipeline
from tests.support.spans import Spans

#: A trace that somebody else began, recorded and not recorded.
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
RECORDED, UNRECORDED = (f"00-{TRACE_ID}-b7ad6b7169203331-{flags}".encode() for flags in ("01", "00"))
JSON = {"content-type": "application/json"}

pytestmark = pytest.mark.parametrize("broker", ["tansu"], indirect=True)


@pytest.fixture
def spans() -> Iterator[Spans]:
    yield Spans()
    tracing.stop()


def encoded(event: ProductUpserted | ReviewPosted) -> bytes:
    return event.model_dump_json(exclude_none=True).encode()


def send(pipeline: Pipeline, event: ProductUpserted, *headers: tuple[str, bytes]) -> None:
    """As a producer of ours publishes."""
    topic = pipeline.topics.products.name
    pipeline.publisher.send(topic, key=event.product_id, value=encoded(event), headers=headers)


def path(spans: list[ReadableSpan]) -> list[str]:
    """The names of one trace's spans; each has to be the child of the one before."""
    for before, after in pairwise(spans):
        assert after.context is not None
        assert before.context is not None
        assert after.context.trace_id == before.context.trace_id
        assert after.parent is not None
        assert after.parent.span_id == before.context.span_id, f"{after.name} is no child of {before.name}"
    return [span.name for span in spans]


def test_a_published_product_is_one_trace_from_its_producer_to_the_index(
    spans: Spans, make_pipeline: MakePipeline
) -> None:
    with make_pipeline() as pipeline:
        topic = pipeline.topics.products.name
        send(pipeline, product())
        found = spans.wait_for("write index")
        assert path(found) == [f"send {topic}", f"process {topic}", "encode", "write index"]
        assert found[0].parent is None
        assert [span.status.is_ok for span in found] == [True] * 4
        # A new price runs no encoder, and its trace says so. It is another trace.
        send(pipeline, product(revision=2, price="5.00"))
        second = spans.wait_for("write index", 2)[len(found) :]
        assert path(second) == [f"send {topic}", f"process {topic}", "write index"]
        assert second[0].context is not None
        assert found[0].context is not None
        assert second[0].context.trace_id != found[0].context.trace_id


def test_a_posted_product_and_a_review_of_it_are_traced_from_the_request_on(
    spans: Spans, make_pipeline: MakePipeline
) -> None:
    with make_pipeline() as pipeline:
        pipeline.start_reviews()
        app = create_app(
            index=pipeline.index,
            store=pipeline.store,
            releases=StaticReleases(),
            settings=ServiceSettings(),
            topics=pipeline.topics,
            sink=EventSink(
                opened=lambda: pipeline.publisher, ack_seconds=20, most_records=10, most_bytes=10_000
            ),
        )
        review = ReviewPosted(
            review_id="r1", product_id="p1", occurred_at=NOW, rating=4, text="Great sound, a bit heavy."
        )
        with TestClient(app) as client:
            posted = client.post("/v1/products", content=encoded(product()), headers=JSON)
            assert posted.status_code == 202, posted.text
            found = spans.wait_for("write index")
            posted = client.post("/v1/reviews", content=encoded(review), headers=JSON)
            assert posted.status_code == 202, posted.text
            client.get("/health/live")
        topics = pipeline.topics.products.name, pipeline.topics.reviews.name
        assert path(found) == [
            "POST /v1/products",
            f"send {topics[0]}",
            f"process {topics[0]}",
            "encode",
            "write index",
        ]
        second = spans.wait_for("encode", 2)[len(found) :]
        assert [span.name for span in second][:3] == [
            "POST /v1/reviews",
            f"send {topics[1]}",
            f"process {topics[1]}",
        ]
        # The address may name a shopper or what was searched for; the route does not.
        assert found[0].attributes is not None
        assert found[0].attributes["http.route"] == "/v1/products"
        assert found[0].attributes["url.path"] == "(left out)"
        assert not [span for span in spans.all() if "health" in span.name]


def test_a_trace_that_the_producer_began_is_gone_on_with_or_left_alone_as_it_says(
    spans: Spans, make_pipeline: MakePipeline
) -> None:
    with make_pipeline() as pipeline:
        send(pipeline, product("recorded"), (TRACE_HEADER, RECORDED))
        first = spans.wait_for("write index")
        assert path(first) == [f"process {pipeline.topics.products.name}", "encode", "write index"]
        assert {f"{span.context.trace_id:032x}" for span in first if span.context} == {TRACE_ID}
        send(pipeline, product("unrecorded"), (TRACE_HEADER, UNRECORDED))
        send(pipeline, product("imported"), (LANE_HEADER, BULK_LANE.encode()))
        # Somebody who knows nothing of traces: the trace begins where the record is read.
        pipeline.publish([product("foreign")])
        pipeline.wait_until_drained()
        assert pipeline.point("unrecorded") is not None
        rest = spans.all()[len(first) :]
        assert path(rest) == path(first)
        assert rest[0].parent is None


def test_without_a_collector_no_record_gets_a_header(make_pipeline: MakePipeline) -> None:
    assert not tracing.on()
    with make_pipeline() as pipeline:
        send(pipeline, product())
        pipeline.publish([product("other")])  # which is drained after the first one, or together with it
        pipeline.wait_until_drained()
        for topic in (pipeline.topics.products, pipeline.topics.changed):
            records = list(read_to_end(pipeline.settings, topic.name))
            assert len(records) >= 2
            assert {record.headers for record in records} == {()}
