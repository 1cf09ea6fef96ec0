"""The publisher on both brokers: partitions of Java, honest acknowledgements, settings that hold."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from confluent_kafka import KafkaException
from pydantic import ValidationError

from adapters.kafka import PROTECTED, KafkaSettings, Publisher, Record, as_record
from adapters.kafka_admin import ensure_topics, open_admin
from adapters.kafka_log import read_to_end
from schemas.topics import Topic
from tests.support.draining import quick_settings
from tests.support.servers import ApacheKafka, Broker

#: Published test values of the hash that Java's clients partition with.
MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
PARTITIONS = 7


@pytest.fixture
def settings(broker: Broker) -> KafkaSettings:
    return quick_settings(broker)


@pytest.fixture
def topic(settings: KafkaSettings, namespace: str) -> str:
    declared = Topic(name=f"{namespace}t", key="id", carries=(), cleanup="delete")
    ensure_topics(open_admin(settings), [declared], partitions=PARTITIONS, replication_factor=1)
    return declared.name


@pytest.fixture
def publisher(settings: KafkaSettings) -> Iterator[Publisher]:
    opened = Publisher(settings)
    yield opened
    opened.close()


def test_a_key_goes_to_the_partition_where_a_java_client_puts_it(
    settings: KafkaSettings, topic: str, publisher: Publisher
) -> None:
    for key in MURMUR2:
        publisher.send(topic, key=key, value=b"v")
    assert publisher.flush(20) == 0
    found = {record.key: record.partition for record in read_to_end(settings, topic)}
    assert found == {key: (value & 0x7FFFFFFF) % PARTITIONS for key, value in MURMUR2.items()}
    assert len(set(found.values())) > 2  # the vectors do tell partitions apart


def test_a_record_comes_back_as_it_was_sent(
    settings: KafkaSettings, topic: str, publisher: Publisher
) -> None:
    answers: list[Exception | None] = []
    headers = [("lane", b"bulk"), ("lane", b"twice"), ("empty", b"")]
    publisher.send(
        topic, key="ü", value=b"\x00\xff", headers=headers, timestamp_ms=1_234, on_ack=answers.append
    )
    publisher.send(topic, key="ü", value=None, on_ack=answers.append)
    assert publisher.flush(20) == 0
    first, second = read_to_end(settings, topic)
    assert answers == [None, None]
    assert first == Record(
        topic, first.topic_id, first.partition, 0, 1_234, "ü".encode(), b"\x00\xff", tuple(headers)
    )
    assert (second.offset, second.value, second.headers) == (1, None, ())
    assert len(first.topic_id) > 10


class NamelessHeaders:
    """A message of the client whose header names are bytes of another encoding: asked for, it fails."""

    asked = 0

    def headers(self) -> object:
        self.asked += 1
        assert self.asked == 1, "the client's own process would have crashed"
        raise SystemError("<method 'headers'> returned a result with an exception set")

    def __getattr__(self, name: str) -> Callable[[], object]:
        values = {"topic": "t", "partition": 1, "offset": 7, "timestamp": (1, 5), "key": b"k", "value": b"v"}
        return lambda: values[name]


def test_a_record_whose_header_names_are_no_text_is_read_without_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    read: Callable[..., Record] = as_record
    assert read(NamelessHeaders(), "id") == Record("t", "id", 1, 7, 5, b"k", b"v", ())
    assert "record_headers_unreadable topic=t partition=1 offset=7" in caplog.text


def test_a_batch_arrives_whole_also_where_the_queue_has_no_room_for_it(
    settings: KafkaSettings, topic: str
) -> None:
    small = settings.model_copy(update={"options": {**settings.options, "queue.buffering.max.messages": 10}})
    publisher = Publisher(small)
    answers: dict[str, Exception | None] = {}
    keys = [f"k{number}" for number in range(100)]
    publisher.send_batch(topic, [(key, key.encode(), partial(answers.__setitem__, key)) for key in keys])
    publisher.send_batch(topic, [])
    assert publisher.flush(20) == 0
    publisher.close()
    assert answers == dict.fromkeys(keys)
    found = list(read_to_end(settings, topic))
    missing = sorted({*keys} - {(record.key or b"").decode() for record in found})
    again = [
        (one.partition, one.offset)
        for one in read_to_end(settings, topic)
        if (one.key or b"").decode() in missing
    ]
    assert not missing, f"{missing} of {len(found)}; a second reading finds them at {again}"
    assert len(found) == len(keys)
    assert all(record.key == record.value for record in found)


def test_a_record_larger_than_the_topic_allows_is_refused_to_whoever_sent_it(
    kafka: ApacheKafka, namespace: str
) -> None:
    settings = quick_settings(kafka)
    declared = Topic(f"{namespace}small", key="id", carries=(), cleanup="delete", max_message_bytes=10_000)
    ensure_topics(open_admin(settings), [declared], partitions=1, replication_factor=1)
    publisher = Publisher(settings)
    answers: dict[str, Exception | None] = {}
    for name, size in (("small", 9_000), ("large", 20_000), ("after", 9_000)):
        # Random enough that compression does not make it fit.
        body = b"".join(hash((name, number)).to_bytes(8, "big", signed=True) for number in range(size // 8))
        publisher.send(
            declared.name,
            key=name,
            value=body,
            on_ack=partial(answers.__setitem__, name),
        )
        publisher.flush(20)
    publisher.close()
    assert answers["small"] is None
    assert isinstance(answers["large"], KafkaException)
    assert "Message size too large" in str(answers["large"])
    assert answers["after"] is None  # the publisher goes on
    assert [record.key for record in read_to_end(settings, declared.name)] == [b"small", b"after"]


def test_a_record_larger_than_any_client_sends_is_refused_at_once(publisher: Publisher, topic: str) -> None:
    answers: list[Exception | None] = []
    publisher.send(topic, key="k", value=b"x" * (17 * 1024 * 1024), on_ack=answers.append)
    assert len(answers) == 1
    assert "Message size too large" in str(answers[0])


def test_a_broker_that_is_away_is_told_when_the_delivery_timeout_is_over() -> None:
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1", delivery_timeout_seconds=0.5)
    publisher = Publisher(settings)
    told, answers = threading.Event(), []

    def on_ack(error: Exception | None) -> None:
        answers.append(error)
        told.set()

    publisher.send("t", key="k", value=b"v", on_ack=on_ack)
    assert told.wait(10)
    assert isinstance(answers[0], KafkaException)
    publisher.close()


@pytest.mark.parametrize("option", sorted(PROTECTED))
def test_what_delivery_without_loss_rests_on_cannot_be_set(option: str) -> None:
    with pytest.raises(ValidationError, match=f"{option} cannot be set"):
        KafkaSettings(options={option: "x"})


def test_options_may_be_numbers_and_booleans_and_must_be_an_object() -> None:
    options: dict[str, object] = {"enable.ssl.certificate.verification": False, "session.timeout.ms": 7_000}
    settings = KafkaSettings.model_validate({"options": options})
    assert settings.options == {"enable.ssl.certificate.verification": "false", "session.timeout.ms": "7000"}
    with pytest.raises(ValidationError, match="expected a JSON object of librdkafka options"):
        KafkaSettings.model_validate({"options": "ssl"})
