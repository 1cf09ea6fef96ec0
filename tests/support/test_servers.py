"""Both brokers and Redis work as the other tests assume: records survive, and absence is told, not hidden."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.support import servers
from tests.support.servers import ApacheKafka, Broker, require_kafka


def produce(bootstrap_servers: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap_servers, "enable.idempotence": True})
    failures: list[object] = []
    for value in values:
        producer.produce(
            topic, value, key=value, on_delivery=lambda error, _: failures.append(error) if error else None
        )
    assert producer.flush(20) == 0
    assert failures == []


def consume(bootstrap_servers: str, topic: str, count: int) -> list[bytes]:
    """The values of all partitions, sorted; at most `count`, fewer if they do not come in time."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    try:
        found = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in found])
        values: list[bytes] = []
        while len(values) < count and (messages := consumer.consume(count, timeout=10)):
            for message in messages:
                assert message.error() is None
                values.append(message.value() or b"")
        return sorted(values)
    finally:
        consumer.close()


def create(bootstrap_servers: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.create_topics([NewTopic(topic, num_partitions=3, replication_factor=1)])[topic].result(10)


def test_records_come_back_from_either_broker(broker: Broker, namespace: str) -> None:
    topic, values = f"{namespace}t", [b"%03d" % number for number in range(100)]
    create(broker.bootstrap_servers, topic)
    produce(broker.bootstrap_servers, topic, values)
    assert consume(broker.bootstrap_servers, topic, 100) == values


@pytest.mark.kafka
def test_apache_kafka_keeps_what_it_acknowledged_through_kill_9_and_a_pause(tmp_path: Path) -> None:
    require_kafka()
    values = [b"%03d" % number for number in range(100)]
    with ApacheKafka(tmp_path) as server:
        create(server.bootstrap_servers, "t")
        produce(server.bootstrap_servers, "t", values)
        address = server.bootstrap_servers
        server.kill()
        server.restart()
        assert server.bootstrap_servers == address
        assert consume(address, "t", 100) == values
        server.pause()
        server.resume()
        assert consume(address, "t", 100) == values


def test_a_machine_without_java_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs Java 17"):
        require_kafka()


def test_in_ci_a_machine_without_java_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="needs Java 17"):
        require_kafka()


def test_without_maven_the_jars_that_are_there_are_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "java").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SIMSTREAM_CACHE", str(tmp_path / "cache"))
    reason = servers.missing()
    assert reason is not None
    assert "Maven" in reason
    complete = tmp_path / "cache" / f"kafka-{servers.KAFKA_VERSION}" / "complete"
    complete.parent.mkdir(parents=True)
    complete.touch()
    assert servers.missing() is None
