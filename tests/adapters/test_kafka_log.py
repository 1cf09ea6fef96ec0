"""A topic read to its end, and transactions that are whole or not there, on both brokers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer

from adapters.kafka import KafkaSettings, Publisher
from adapters.kafka_admin import ensure_topics, open_admin
from adapters.kafka_errors import END_OF_PARTITION
from adapters.kafka_log import Outgoing, Tail, Transactions, read_to_end
from adapters.kafka_reader import Partition
from adapters.kafka_spans import first_records
from schemas.errors import Halt, Transient
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


# --- errors that pass, and others --------------------------------------------------------------------------


class Said:
    """A message of partition 0 of the topic `t`: an error, or a record where there is none."""

    def __init__(self, error: KafkaError | None = None) -> None:
        self._error = error

    def error(self) -> KafkaError | None:
        return self._error

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 0

    offset = partition

    def timestamp(self) -> tuple[int, int]:
        return 1, 77

    def key(self) -> bytes:
        return b"k"

    value = key

    def headers(self) -> None:
        return None


class Broker0:
    """A consumer of one partition that is told what the test says, then nothing more."""

    def __init__(self, *said: Said, described: KafkaError | None = None) -> None:
        self._said, self._described = list(said), described

    def list_topics(self, topic: str, timeout: float) -> Any:
        found = SimpleNamespace(error=self._described, partitions={} if self._described else {0: None})
        return SimpleNamespace(topics={topic: found})

    def consume(self, limit: int, timeout: float) -> list[Said]:
        found, self._said = self._said[:limit], self._said[limit:]
        return found

    def assign(self, partitions: Any) -> None:
        """It reads what it is told."""

    pause = assign

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[[Broker0], KafkaSettings]:
    """Lets readers without a group read from the stub."""

    def use(broker: Broker0) -> KafkaSettings:
        for module in ("kafka_log", "kafka_spans"):
            monkeypatch.setattr(f"adapters.{module}.groupless", lambda *_, **__: broker)
        monkeypatch.setattr("adapters.kafka_log.AdminClient", lambda _: None)
        monkeypatch.setattr("adapters.kafka_log.topic_ids", lambda _, names: dict.fromkeys(names, "id"))
        monkeypatch.setattr("adapters.kafka_log._TIMEOUT_SECONDS", 0.05)
        return KafkaSettings()

    return use


#: The client calls none of them retriable. The last one stands for whatever nobody has thought of.
PASSES = [
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError._TRANSPORT,  # noqa: SLF001
    KafkaError.UNKNOWN,
]
REFUSED = [
    KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED),
    KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART),
    KafkaError(KafkaError.OFFSET_OUT_OF_RANGE),
    KafkaError(KafkaError.UNKNOWN, fatal=True),
]
END = Said(KafkaError(END_OF_PARTITION))


@pytest.mark.parametrize("code", PASSES)
def test_what_passes_ends_no_reader_without_a_group(
    told: Callable[[Broker0], KafkaSettings], code: int
) -> None:
    error = Said(KafkaError(code))
    tail = Tail(told(Broker0(error, Said())), "t")
    assert [record.value for record in tail.poll(0.0)] == [b"k"]
    assert len(list(read_to_end(told(Broker0(error, Said(), END)), "t"))) == 1
    assert first_records(told(Broker0(error, Said())), {Partition("t", 0): 0}) == {Partition("t", 0): 77}


@pytest.mark.parametrize("code", PASSES)
def test_what_does_not_pass_in_time_is_waited_for_by_whoever_asked(
    told: Callable[[Broker0], KafkaSettings], code: int
) -> None:
    error = KafkaError(code, "as the broker says")
    with pytest.raises(Transient, match="as the broker says"):
        list(read_to_end(told(Broker0(Said(error))), "t"))
    with pytest.raises(Transient, match="as the broker says"):
        first_records(told(Broker0(Said(error))), {Partition("t", 0): 0}, timeout_seconds=0.05)


@pytest.mark.parametrize("error", REFUSED, ids=str)
def test_what_never_passes_is_a_halt(told: Callable[[Broker0], KafkaSettings], error: KafkaError) -> None:
    with pytest.raises(Halt):
        Tail(told(Broker0(Said(error))), "t").poll(0.0)
    with pytest.raises(Halt):
        first_records(told(Broker0(Said(error))), {Partition("t", 0): 0})
    if error.code() != KafkaError.OFFSET_OUT_OF_RANGE:  # read on from the beginning
        with pytest.raises(Halt):
            list(read_to_end(told(Broker0(Said(error))), "t"))


def test_a_topic_that_is_not_described_is_not_one_without_partitions(
    told: Callable[[Broker0], KafkaSettings],
) -> None:
    """As empty, nobody would be known to have asked for erasure."""
    with pytest.raises(Transient):
        list(read_to_end(told(Broker0(described=KafkaError(KafkaError.LEADER_NOT_AVAILABLE))), "t"))
    with pytest.raises(Halt, match="does not exist"):
        Tail(told(Broker0(described=KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))), "t")
    with pytest.raises(Halt, match=r"does not describe t: .*uthorization"):
        Tail(told(Broker0(described=KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))), "t")
