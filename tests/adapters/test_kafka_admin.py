"""Topics are created as declared, and ones that somebody else made are compared and never changed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from adapters.kafka import KafkaSettings
from adapters.kafka_admin import compare_topics, delete_records, ensure_topics, open_admin, topic_ids
from schemas.errors import Halt, Transient
from schemas.topics import DAY_MS, DEAD_LETTER_HEADROOM_BYTES, Topic, Topics
from tests.support.draining import quick_settings
from tests.support.servers import ApacheKafka, Broker


def config_of(admin: AdminClient, topic: str) -> dict[str, str | None]:
    (future,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    return {name: entry.value for name, entry in future.result(10).items()}


def test_missing_topics_are_created_once_on_either_broker(broker: Broker, namespace: str) -> None:
    admin = open_admin(quick_settings(broker))
    declared = list(Topics.named(namespace=namespace).declared())[:4]
    assert ensure_topics(admin, declared[:2], partitions=3, replication_factor=1) == [
        topic.name for topic in declared[:2]
    ]
    assert ensure_topics(admin, declared, partitions=3, replication_factor=1) == [
        topic.name for topic in declared[2:]
    ]
    assert ensure_topics(admin, declared, partitions=3, replication_factor=1) == []
    found = admin.list_topics(timeout=10).topics
    assert {len(found[topic.name].partitions) for topic in declared} == {3}
    ids = topic_ids(admin, [topic.name for topic in declared])
    assert len(set(ids.values())) == len(declared)


def test_apache_kafka_keeps_every_setting_that_is_declared(kafka: ApacheKafka, namespace: str) -> None:
    admin = open_admin(quick_settings(kafka))
    topics = Topics.named(namespace=namespace)
    declared = list(topics.declared())
    ensure_topics(admin, declared, partitions=1, replication_factor=1)
    for topic in declared:
        found = config_of(admin, topic.name)
        assert {name: found[name] for name in topic.config()} == topic.config()
    products = config_of(admin, topics.products.name)
    assert (products["cleanup.policy"], products["delete.retention.ms"]) == ("compact", str(30 * DAY_MS))
    letters = config_of(admin, topics.products.dead_letters)
    assert int(letters["max.message.bytes"] or 0) == (
        int(products["max.message.bytes"] or 0) + DEAD_LETTER_HEADROOM_BYTES
    )
    assert compare_topics(admin, declared) == []


def test_a_topic_that_somebody_else_made_is_compared_and_left_alone(
    kafka: ApacheKafka, namespace: str
) -> None:
    admin = open_admin(quick_settings(kafka))
    declared = Topic(
        f"{namespace}t", "id", (), "compact", delete_retention_ms=DAY_MS, max_message_bytes=2**20
    )
    theirs = replace(declared, cleanup="delete", retention_ms=1_000, max_message_bytes=1_000)
    ensure_topics(admin, [theirs], partitions=1, replication_factor=1)
    missing = replace(declared, name=f"{namespace}missing")
    differences = compare_topics(admin, [declared, missing])
    said = {(one.topic, one.finding): one.remedy for one in differences}
    assert said == {
        (missing.name, "does not exist"): "create it with `simstream topics`",
        (declared.name, "cleanup.policy is delete, simstream needs compact"): (
            f"kafka-configs --alter --topic {declared.name} --add-config cleanup.policy=compact"
        ),
        (declared.name, "retention.ms is 1000, simstream needs -1"): (
            f"kafka-configs --alter --topic {declared.name} --add-config retention.ms=-1"
        ),
        (declared.name, "max.message.bytes is 1000, simstream needs 1048576"): (
            f"kafka-configs --alter --topic {declared.name} --add-config max.message.bytes=1048576"
        ),
    }
    assert ensure_topics(admin, [declared], partitions=1, replication_factor=1) == []
    assert config_of(admin, declared.name)["cleanup.policy"] == "delete"


def test_larger_limits_and_longer_retention_than_declared_are_no_difference(
    kafka: ApacheKafka, namespace: str
) -> None:
    admin = open_admin(quick_settings(kafka))
    declared = Topic(f"{namespace}t", "id", (), "delete", retention_ms=DAY_MS)
    theirs = replace(declared, retention_ms=-1, max_message_bytes=2 * declared.max_message_bytes)
    ensure_topics(admin, [theirs], partitions=1, replication_factor=1)
    assert compare_topics(admin, [declared]) == []
    assert [one.finding for one in compare_topics(admin, [replace(theirs, max_message_bytes=2**22)])] == [
        f"max.message.bytes is {theirs.max_message_bytes}, simstream needs {2**22}"
    ]


def test_a_broker_that_refuses_is_a_halt_and_one_that_is_away_is_transient(
    kafka: ApacheKafka, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = Topic(f"{namespace}t", "id", (), "delete")
    with pytest.raises(Halt, match=f"could not create topic {declared.name}"):
        ensure_topics(open_admin(quick_settings(kafka)), [declared], partitions=1, replication_factor=3)
    with pytest.raises(Halt, match="does not exist: create it with `simstream topics`"):
        topic_ids(open_admin(quick_settings(kafka)), [declared.name])
    monkeypatch.setattr("adapters.kafka_admin._TIMEOUT_SECONDS", 0.5)
    away = open_admin(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    with pytest.raises(Transient):
        ensure_topics(away, [declared], partitions=1, replication_factor=1)
    with pytest.raises(Transient):
        topic_ids(away, [declared.name])


class Answering:
    """An admin client that answers each request with the next of these codes; None: done."""

    def __init__(self, *codes: int | None) -> None:
        self._codes = list(codes)
        self.asked: list[list[tuple[int, int]]] = []

    def _answered(self) -> Future[None]:
        future, code = Future[None](), self._codes.pop(0)
        future.set_result(None) if code is None else future.set_exception(KafkaException(KafkaError(code)))
        return future

    def list_topics(self, timeout: float) -> Any:
        return SimpleNamespace(topics={})

    def create_topics(self, topics: Sequence[Any], request_timeout: float) -> dict[str, Future[None]]:
        return {topic.topic: self._answered() for topic in topics}

    def delete_records(
        self, parts: Sequence[TopicPartition], request_timeout: float
    ) -> dict[TopicPartition, Future[None]]:
        self.asked.append([(part.partition, part.offset) for part in parts])
        return {part: self._answered() for part in parts}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError.REQUEST_TIMED_OUT, Transient),
        (KafkaError.NOT_CONTROLLER, Transient),
        (KafkaError._TRANSPORT, Transient),  # noqa: SLF001
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, Halt),
        (KafkaError.INVALID_REPLICATION_FACTOR, Halt),
    ],
)
def test_a_controller_that_moves_is_waited_for_and_a_refusal_is_not(
    code: int, expected: type[BaseException]
) -> None:
    """The client calls none of them retriable."""
    admin: Any = Answering(code)
    with pytest.raises(expected, match="could not create topic t"):
        ensure_topics(admin, [Topic("t", "id", (), "delete")], partitions=1, replication_factor=1)


def test_records_are_deleted_though_a_leader_moves_and_its_remedy_is_not_a_topic_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved = KafkaError.NOT_LEADER_FOR_PARTITION
    admin: Any = Answering(None, moved, moved, None)
    delete_records(admin, "t", {0: 5, 1: 7})
    assert admin.asked == [[(0, 5), (1, 7)], [(1, 7)], [(1, 7)]]
    monkeypatch.setattr("adapters.kafka_admin._TIMEOUT_SECONDS", 0.0)
    gone: Any = Answering(moved, moved)
    with pytest.raises(Transient, match="records of t were not deleted"):
        delete_records(gone, "t", {0: 5})
    refusing: Any = Answering(KafkaError.POLICY_VIOLATION)
    with pytest.raises(Halt, match=r"set cleanup\.policy to delete"):
        delete_records(refusing, "t", {0: 5})
