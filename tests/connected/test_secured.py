"""The wiring as it ships against secured servers: Kafka with TLS and SASL/SCRAM, Redis with TLS and an ACL.

Settings alone say so, secrets come from files, and no secret stands in a log, an error, a metric or a print.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from adapters.redis_client import connect, run_id
from app.runners import state_runner
from app.settings import Settings, load_settings
from app.wiring import make_topics, open_publisher, open_store
from schemas.errors import Halt, Transient
from schemas.events import ProductUpserted
from tests.support.secured import SecuredKafka, SecuredRedis
from tests.support.servers import require_kafka

KAFKA_SECRET, REDIS_SECRET, WRONG = "kafka-hunter2", "redis-hunter2", "wrong-hunter2"

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """Apache Kafka."""
    require_kafka()
    with SecuredKafka(tmp_path_factory.mktemp("kafka"), password=KAFKA_SECRET) as server:
        server.add_user()
        yield server


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredRedis]:
    """Redis."""
    with SecuredRedis(tmp_path_factory.mktemp("redis"), password=REDIS_SECRET) as server:
        yield server


def settings_of(
    folder: Path, kafka: SecuredKafka, namespace: str, *, redis_url: str, options: dict[str, str]
) -> Settings:
    """As a container gets them: addresses in the environment, secrets in files."""
    (folder / "redis-url").write_text(redis_url + "\n")
    (folder / "kafka-options").write_text(json.dumps(options))
    return load_settings(
        {
            "SIMSTREAM_NAMESPACE": namespace,
            "SIMSTREAM_KAFKA__BOOTSTRAP_SERVERS": kafka.secured_servers,
            "SIMSTREAM_KAFKA__OPTIONS_FILE": str(folder / "kafka-options"),
            "SIMSTREAM_KAFKA__PARTITIONS": "2",
            "SIMSTREAM_KAFKA__DELIVERY_TIMEOUT_SECONDS": "20",
            "SIMSTREAM_REDIS__URL_FILE": str(folder / "redis-url"),
            "SIMSTREAM_RELEASES__URL": str(folder / "releases"),
        }
    )


def test_a_product_passes_through_secured_servers_and_no_secret_is_shown(
    kafka: SecuredKafka,
    redis_server: SecuredRedis,
    namespace: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    options = kafka.options(KAFKA_SECRET)
    settings = settings_of(tmp_path, kafka, namespace, redis_url=redis_server.url, options=options)
    assert namespace + "catalog.products" in make_topics(settings)
    publisher = open_publisher(settings, "test")
    runner = state_runner("products", settings, publisher=publisher)
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    event = ProductUpserted(product_id="p", occurred_at=datetime.now(UTC), title="Lamp")
    topic = settings.named_topics().products.name
    publisher.send(topic, key="p", value=event.model_dump_json().encode())
    store = open_store(settings)
    until = time.monotonic() + 60.0
    while "p" not in store.read(["p"]):
        assert time.monotonic() < until, "nothing arrives"
        time.sleep(0.05)
    runner.stop()
    thread.join(30.0)
    publisher.close()
    shown = capfd.readouterr()
    metrics = generate_latest().decode()
    for text in (str(settings), repr(settings), caplog.text, shown.out, shown.err, metrics):
        assert "hunter2" not in text
    assert settings.kafka.options["sasl.password"] == KAFKA_SECRET


def test_a_wrong_password_is_refused_without_being_repeated(
    kafka: SecuredKafka,
    redis_server: SecuredRedis,
    namespace: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = settings_of(
        tmp_path, kafka, namespace, redis_url=redis_server.url_with(WRONG), options=kafka.options(WRONG)
    )
    with connect(settings.redis) as client, pytest.raises(Halt, match="credentials") as refused:
        run_id(client)
    with pytest.raises((Transient, Halt)) as away:
        make_topics(settings)
    for text in (str(refused.value), str(away.value), caplog.text):
        assert "hunter2" not in text


def test_a_server_that_nobody_vouches_for_is_not_spoken_to(
    kafka: SecuredKafka, redis_server: SecuredRedis, namespace: str, tmp_path: Path
) -> None:
    # Each is asked to trust the other's authority, which has never heard of it.
    other = kafka.certificates.ca
    url = redis_server.url.replace(str(redis_server.certificates.ca), str(other))
    options = {**kafka.options(KAFKA_SECRET), "ssl.ca.location": str(redis_server.certificates.ca)}
    settings = settings_of(tmp_path, kafka, namespace, redis_url=url, options=options)
    with connect(settings.redis) as client, pytest.raises(Transient, match="certificate verify failed"):
        run_id(client)
    with pytest.raises((Transient, Halt)):
        make_topics(settings)


def test_redis_knows_nobody_without_a_name(redis_server: SecuredRedis) -> None:
    anonymous = redis_server.url.replace(f"shop:{REDIS_SECRET}@", "")
    settings = load_settings({"SIMSTREAM_REDIS__URL": anonymous}).redis
    with connect(settings) as client, pytest.raises(Halt):
        run_id(client)
