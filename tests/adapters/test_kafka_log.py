"""A topic read to its end, and transactions that are whole or not there, on both brokers."""

from __future__ import annotations

from random import Random

import pytest
from confluent_kafka import Producer

from adapters.kafka import KafkaSettings, Publisher
from adapters.kafka_admin import ensure_topics, open_admin
from adapters.kafka_log import Outgoing, Tail, Transactions, read_to_end
from schemas.errors import Halt
from schemas.topics import Topic
from tests.support.draining import quick_settings
from tests.support.servers import Broker, Kafka


@pytest.fixture
def settings(broker: Broker) -> KafkaSettings:
    return quick_settings(broker)


@pytest.fixture
def topic(settings: KafkaSettings, namespace: str) -> str:
    declared = Topic(f"{namespace}t", "id", (), "delete")
    ensure_topics(open_admin(settings), [declared], partitions=3, replication_factor=1)
    return declared.name


def values(settings: KafkaSettings, topic: str) -> list[bytes]:
    return sorted(record.value or b"" for record in read_to_end(settings, topic))


def outgoing(topic: str, *bodies: bytes) -> list[Outgoing]:
    return [Outgoing(topic, body[:9], body, (("h", b"1"),)) for body in bodies]


def test_a_topic_is_read_to_its_end_whatever_partitions_are_empty(
    settings: KafkaSettings, topic: str
) -> None:
    assert values(settings, topic) == []
    publisher = Publisher(settings)
    for number in range(500):
        publisher.send(topic, key="one key, one partition", value=b"%03d" % number)
    publisher.flush(20)
    publisher.close()
    assert values(settings, topic) == [b"%03d" % number for number in range(500)]
    assert [record.offset for record in read_to_end(settings, topic)] == list(range(500))


@pytest.mark.parametrize("size", [2 * 1024 * 1024, 17 * 1024 * 1024], ids=["the broker", "the client"])
def test_a_record_too_large_for_its_topic_is_said_and_nothing_beside_it_is_written(
    kafka: Kafka, namespace: str, size: int
) -> None:
    settings = quick_settings(kafka)
    declared = Topic(f"{namespace}t", "id", (), "delete")
    ensure_topics(open_admin(settings), [declared], partitions=1, replication_factor=1)
    transactions = Transactions(settings, transactional_id=f"{declared.name}-tx")
    with pytest.raises(Halt, match=r"one of 2 records is larger.*max\.message\.bytes"):
        transactions.write(outgoing(declared.name, b"small", Random(1).randbytes(size)))
    assert values(settings, declared.name) == []


def test_a_missing_topic_is_a_halt(settings: KafkaSettings, namespace: str) -> None:
    with pytest.raises(Halt, match="does not exist"):
        list(read_to_end(settings, f"{namespace}missing"))


def test_a_transaction_is_there_whole_once_it_is_committed(settings: KafkaSettings, topic: str) -> None:
    transactions = Transactions(settings, transactional_id=f"{topic}-tx")
    transactions.write(outgoing(topic, b"a", b"b", b"c"))
    transactions.write(outgoing(topic, b"d"))
    assert values(settings, topic) == [b"a", b"b", b"c", b"d"]


@pytest.mark.kafka
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
def test_an_open_transaction_shows_nothing_and_the_next_holder_of_its_name_ends_it(
    settings: KafkaSettings, topic: str
) -> None:
    """What a process left behind that was killed between its records and the commit.

    Apache Kafka only: Tansu 0.6 shows the records of a transaction that was never committed.
    """
    killed = Producer(
        {"bootstrap.servers": settings.bootstrap_servers, "transactional.id": f"{topic}-tx", "acks": "all"}
    )
    killed.init_transactions(20)
    killed.begin_transaction()
    killed.produce(topic, key=b"half", value=b"half")
    assert killed.flush(20) == 0
    successor = Transactions(settings, transactional_id=f"{topic}-tx")
    assert values(settings, topic) == []
    successor.write(outgoing(topic, b"whole"))
    assert values(settings, topic) == [b"whole"]


def test_a_holder_that_was_succeeded_writes_nothing_more(settings: KafkaSettings, topic: str) -> None:
    first = Transactions(settings, transactional_id=f"{topic}-tx")
    first.write(outgoing(topic, b"first"))
    second = Transactions(settings, transactional_id=f"{topic}-tx")
    with pytest.raises(Halt, match="another process is doing the same work"):
        first.write(outgoing(topic, b"stale"))
    second.write(outgoing(topic, b"second"))
    assert values(settings, topic) == [b"first", b"second"]


def test_another_name_fences_nobody(settings: KafkaSettings, topic: str) -> None:
    """The negative control of the fence."""
    first = Transactions(settings, transactional_id=f"{topic}-one")
    Transactions(settings, transactional_id=f"{topic}-two")
    first.write(outgoing(topic, b"first"))
    assert values(settings, topic) == [b"first"]


def test_a_tail_follows_a_topic_from_its_beginning(settings: KafkaSettings, topic: str) -> None:
    publisher = Publisher(settings)
    publisher.send(topic, key="a", value=b"before")
    publisher.flush(20)
    tail = Tail(settings, topic)
    assert [record.value for record in tail.poll(10.0)] == [b"before"]
    assert tail.poll(0.05) == []
    publisher.send(topic, key="b", value=b"after")
    assert [record.value for record in tail.poll(10.0)] == [b"after"]
    tail.close()
    publisher.close()
