"""A shopper's dead letters go, those of others stay as they were."""

from __future__ import annotations

import json
from random import Random

import pytest

from adapters.kafka import KafkaSettings, Record
from adapters.kafka_log import read_to_end
from app.local import TansuBroker
from consumers.dead_letter_purge import purge_dead_letters
from consumers.dead_letters import DeadLetters
from consumers.redrive import read_dead_letters, redrive
from schemas.errors import Halt
from tests.consumers.test_redrive import bury, made_topic
from tests.support.draining import quick_settings
from tests.support.servers import Kafka


@pytest.fixture
def settings(kafka: Kafka) -> KafkaSettings:
    return quick_settings(kafka)


def record(topic: str, offset: int, value: bytes, *, key: bytes = b"p1") -> Record:
    return Record(topic, "topic-id", 0, offset, 1_234, key, value, (("source", b"shop"),))


def noise(seed: int) -> str:
    """More than a dead-letter topic takes at once, however it is compressed."""
    return Random(seed).randbytes(1_300_000).hex()


def by(user_id: str, **more: object) -> bytes:
    return json.dumps({"user_id": user_id, **more}).encode()


def test_only_the_shoppers_own_go_and_a_second_time_finds_none(
    settings: KafkaSettings, namespace: str
) -> None:
    topic = made_topic(settings, namespace)
    theirs = {
        0: record(topic, 0, by("u1")),
        1: record(topic, 1, b"\xff broken", key=b"u1"),
        2: record(topic, 2, b'{"user_id": "u1", broken'),
        3: record(topic, 3, by("u1", text=noise(1))),  # in parts
    }
    others = {
        10: record(topic, 10, by("u11")),
        11: record(topic, 11, by("u2", note="u1 told me")),
        12: record(topic, 12, b'{"user_id": "u-1", broken'),
        13: record(topic, 13, by("u2", text=noise(2))),
        14: record(topic, 14, b"[" * 100_000),
    }
    bury(settings, *((one, "cannot be read") for one in (*theirs.values(), *others.values())))
    before = {one.identity.offset: one for one in read_dead_letters(settings, topic)}
    assert before.keys() == theirs.keys() | others.keys()

    assert purge_dead_letters(settings, topic, "u1", namespace=namespace) > len(theirs)

    after = {one.identity.offset: one for one in read_dead_letters(settings, topic)}
    assert after == {offset: before[offset] for offset in others}
    assert all(item.key != b"u1" for item in read_to_end(settings, DeadLetters.topic_of(topic)))
    assert purge_dead_letters(settings, topic, "u1", namespace=namespace) == 0


def test_a_user_whose_id_is_a_number_is_not_a_partition_an_offset_or_a_place_in_an_error(
    settings: KafkaSettings, namespace: str
) -> None:
    topic = made_topic(settings, namespace)
    bury(settings, (record(topic, 7, b"\xff broken"), "invalid JSON at line 1 column 0"))
    (letter,) = read_dead_letters(settings, topic)
    redrive(settings, topic, namespace=namespace, chosen=lambda _: True)
    before = list(read_to_end(settings, DeadLetters.topic_of(topic)))
    assert len(before) == 2, "the letter, and the mark that it was redriven"
    for user in ("0", "1", "7"):
        assert purge_dead_letters(settings, topic, user, namespace=namespace) == 0
    assert list(read_to_end(settings, DeadLetters.topic_of(topic))) == before
    (after,) = read_dead_letters(settings, topic)
    assert after.redriven
    assert after.identity == letter.identity


def test_a_topic_without_any_of_theirs_is_not_written(settings: KafkaSettings, namespace: str) -> None:
    topic = made_topic(settings, namespace)
    bury(settings, (record(topic, 0, by("u2")), "cannot be read"))
    (before,) = read_to_end(settings, DeadLetters.topic_of(topic))
    assert purge_dead_letters(settings, topic, "u1", namespace=namespace) == 0
    assert list(read_to_end(settings, DeadLetters.topic_of(topic))) == [before]


def test_a_broker_that_deletes_nothing_is_said_and_nothing_is_written(
    tansu: TansuBroker, namespace: str
) -> None:
    settings = quick_settings(tansu)
    topic = made_topic(settings, namespace)
    bury(settings, (record(topic, 0, by("u1")), "cannot be read"))
    with pytest.raises(Halt, match=r"1 dead letters on .* stay"):
        purge_dead_letters(settings, topic, "u1", namespace=namespace)
    assert len(list(read_to_end(settings, DeadLetters.topic_of(topic)))) == 1
