"""Real servers for the whole session, and a namespace per test so that they can be shared.

Reads   SIMSTREAM_KAFKA__BOOTSTRAP_SERVERS, SIMSTREAM_REDIS__URL: servers to use instead of starting some

A test that kills, pauses or fills a server starts one of its own: `with ApacheKafka(tmp_path) as ...`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from app.local import LocalRedis, TansuBroker
from tests.support.servers import (
    ApacheKafka,
    Broker,
    Kafka,
    LocalRedisCluster,
    Redis,
    RunningKafka,
    RunningRedis,
    require_kafka,
)


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for the fixture `kafka` needs Apache Kafka: the marker follows from that."""
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.kafka)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Apache Kafka; topics are not created by themselves."""
    if address := os.environ.get("SIMSTREAM_KAFKA__BOOTSTRAP_SERVERS"):
        yield RunningKafka(address)
        return
    require_kafka()
    with ApacheKafka(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TansuBroker]:
    """The broker of the embedded stack."""
    with TansuBroker(tmp_path_factory.mktemp("tansu")) as server:
        yield server


@pytest.fixture(scope="session", params=["tansu", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Both brokers, one after the other: what must hold on either."""
    server: Broker = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """Redis as the embedded stack runs it."""
    if url := os.environ.get("SIMSTREAM_REDIS__URL"):
        yield RunningRedis(url)
        return
    with LocalRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedisCluster]:
    """Three Redis nodes that share the slots."""
    with LocalRedisCluster(tmp_path_factory.mktemp("redis-cluster")) as servers:
        yield servers


@pytest.fixture
def namespace() -> str:
    """A prefix that no other test uses, for topics, groups, keys and collections."""
    return f"t{uuid.uuid4().hex[:10]}."
