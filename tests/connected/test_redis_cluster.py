"""Products, behaviour and embeddings over a Redis Cluster of three nodes, one killed under load."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from adapters.index_edge import EdgeIndex
from adapters.kafka_log import read_to_end
from app.local import TansuBroker
from app.settings import load_settings
from app.wiring import open_behaviour, open_store
from schemas.events import ProductUpserted, UserEvent
from schemas.vectors import BEHAVIOUR
from tests.support.behaviour_oracle import Logged, expected_items, items_in
from tests.support.draining import quick_settings
from tests.support.pipeline import QUICK_BEHAVIOUR, Pipeline
from tests.support.servers import LocalRedisCluster
from tests.support.shoppers import Shoppers

ITEMS = [f"p{number}" for number in range(12)]


def test_one_setting_makes_a_cluster_of_a_redis(redis_cluster: LocalRedisCluster) -> None:
    settings = load_settings({"SIMSTREAM_REDIS__URL": redis_cluster.url, "SIMSTREAM_REDIS__CLUSTER": "true"})
    assert len(open_store(settings).run_id().split()) == 3
    assert len(open_behaviour(settings).run_id().split()) == 3


def test_the_pipeline_sits_out_a_node_that_is_killed_and_catches_up(
    tansu: TansuBroker, namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    index = EdgeIndex(tmp_path / "index")
    with (
        LocalRedisCluster(tmp_path / "redis") as servers,
        Pipeline(
            kafka=quick_settings(tansu),
            redis_url=servers.url,
            redis_cluster=True,
            namespace=namespace,
            index=index,
            products_commit_delay_seconds=3.0,
        ) as pipeline,
    ):
        pipeline.start_behaviour()
        pipeline.publish([product(product_id, 1) for product_id in ITEMS])
        shoppers = Shoppers(Random(1))
        pipeline.publish(shoppers.events(1_000))
        pipeline.wait_until_drained(60.0)

        def arrive() -> None:
            for _ in range(40):
                pipeline.publish(shoppers.events(25))
                time.sleep(0.1)

        load = threading.Thread(target=arrive, daemon=True)
        load.start()
        time.sleep(1.0)
        servers.nodes[1].kill()
        pipeline.publish([product(product_id, 2) for product_id in ITEMS])
        time.sleep(1.5)
        servers.nodes[1].restart()
        servers.wait_ready()
        load.join()
        pipeline.wait_until_drained(60.0)
        said = [record.getMessage() for record in caplog.records]
        assert any("consumer_waits" in text and "Redis is away" in text for text in said)
        assert any("store_restarted consumer=behaviour" in text for text in said)
        log = [
            Logged(
                record.partition,
                record.offset,
                record.timestamp_ms,
                UserEvent.model_validate_json(record.value or b""),
            )
            for record in read_to_end(pipeline.settings, pipeline.topics.events.name)
        ]
        assert len(log) == 2_000
        assert items_in(pipeline.behaviour_store) == expected_items(log, QUICK_BEHAVIOUR.sketch)
        states = pipeline.store.read(ITEMS)
        for product_id in ITEMS:
            point, state = pipeline.point(product_id), states[product_id]
            assert point is not None
            assert state.behaviour is not None
            assert point.payload["revision"] == 2
            assert state.behaviour.made(point.payload["fingerprints"][BEHAVIOUR])
            assert point.vectors[BEHAVIOUR]
    index.close()


def product(product_id: str, revision: int) -> ProductUpserted:
    at = datetime.now(UTC)
    return ProductUpserted(
        product_id=product_id, revision=revision, occurred_at=at, title=f"Lamp {product_id} {revision}"
    )
