"""From a price on catalog.products to a record on insights.prices, through a broker, Redis and an index."""

from __future__ import annotations

import time
from typing import Any

from adapters.index_port import LIVE_ALIAS
from adapters.kafka import Publisher
from adapters.kafka_admin import ensure_topics, open_admin
from adapters.kafka_log import read_to_end
from adapters.redis_client import RedisSettings
from app.insights import insights_runner
from app.local import LocalRedis
from app.settings import Settings
from consumers.runner import RunnerSettings
from schemas.events import PriceInsight, ProductUpserted
from schemas.parsing import parse_event
from tests.connected.test_pipeline import NOW
from tests.support.pipeline import Pipeline, RunnerThread

PATIENCE_SECONDS = 30.0


def lamp(number: int, price: str, revision: int = 1) -> ProductUpserted:
    fields: dict[str, Any] = {"currency": "EUR", "category": ["Home", "Lamps"], "brand": "Lumen"}
    return ProductUpserted(
        product_id=f"lamp{number}",
        title=f"Desk lamp of brass, model {number}",
        revision=revision,
        occurred_at=NOW,
        price=price,
        **fields,
    )


def said(pipeline: Pipeline) -> list[tuple[str, bool]]:
    records = read_to_end(pipeline.settings, pipeline.topics.insights_prices.name)
    found = [parse_event(record.value or b"", PriceInsight) for record in records]
    assert all(one.evidence for one in found)
    return [(one.product_id, one.outlier) for one in found]


def wait_until_said(pipeline: Pipeline, expected: list[tuple[str, bool]]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while (found := said(pipeline)) != expected:
        assert time.monotonic() < until, found
        time.sleep(0.2)


def test_a_price_that_gets_out_of_line_and_back_is_told_once_each(
    pipeline: Pipeline, redis_server: LocalRedis
) -> None:
    namespace = pipeline.names.namespace
    settings = Settings(
        namespace=namespace,
        kafka=pipeline.settings,
        redis=RedisSettings(url=redis_server.url),
        loop=RunnerSettings(commit_interval_seconds=0.05),
    )
    ensure_topics(
        open_admin(pipeline.settings), [pipeline.topics.insights_prices], partitions=1, replication_factor=1
    )
    pipeline.index.set_alias(namespace + LIVE_ALIAS, pipeline.collection)
    pipeline.publish([lamp(number, str(36 + number)) for number in range(12)])
    pipeline.wait_until_drained()
    publisher = Publisher(pipeline.settings, client_id="test-insights")
    running = RunnerThread(insights_runner(settings, publisher=publisher, index=pipeline.index), "insights")
    try:
        pipeline.publish([lamp(3, "160", revision=2), lamp(4, "42", revision=2)])
        wait_until_said(pipeline, [("lamp3", True)])
        pipeline.publish([lamp(3, "41", revision=3), lamp(5, "9", revision=2)])
        until = time.monotonic() + PATIENCE_SECONDS
        while len(said(pipeline)) < 3:
            assert time.monotonic() < until, said(pipeline)
            running.check()
            time.sleep(0.2)
        assert said(pipeline)[0] == ("lamp3", True)
        assert sorted(said(pipeline)[1:]) == [("lamp3", False), ("lamp5", True)]
    finally:
        running.stop()
        publisher.close()
