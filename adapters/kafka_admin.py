"""Topics as they should be: created with the right cleanup, read back, compared.

Reads   topic descriptions and configurations
Writes  creates what is missing; never changes a topic that exists, says instead how it differs
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from adapters.kafka import KafkaSettings
from adapters.kafka_errors import passes
from schemas.errors import Halt, Transient
from schemas.topics import Topic

_TIMEOUT_SECONDS = 15.0
#: Two processes start at once: the other one was quicker.
_EXISTS = KafkaError.TOPIC_ALREADY_EXISTS


class Difference(NamedTuple):
    """A topic that is not as it should be, and what to do about it."""

    topic: str
    finding: str
    remedy: str


class Shape(NamedTuple):
    """How a topic is laid out: its partitions, and the copies of the one that has fewest."""

    partitions: int
    copies: int


def open_admin(settings: KafkaSettings) -> AdminClient:
    """An admin client for the functions below."""
    return AdminClient(settings.client_config("simstream-admin"))


def ensure_topics(
    admin: AdminClient, topics: Iterable[Topic], *, partitions: int, replication_factor: int
) -> list[str]:
    """Create what is missing and wait until it can be described; the names created.

    Raises Transient when the broker is away, Halt when it refuses (for example too few brokers).
    """
    wanted = list(topics)
    existing = _existing(admin)
    missing = [topic for topic in wanted if topic.name not in existing]
    if not missing:
        return []
    futures = admin.create_topics(
        [
            NewTopic(
                topic.name,
                num_partitions=partitions,
                replication_factor=replication_factor,
                config=topic.config(),
            )
            for topic in missing
        ],
        request_timeout=_TIMEOUT_SECONDS,
    )
    for name, future in futures.items():
        try:
            _answer(future, f"topic {name} was not created")
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() == _EXISTS:
                continue
            if passes(reason):
                raise Transient(f"could not create topic {name}: {reason.str()}") from error
            raise Halt(f"could not create topic {name}: {reason.str()}") from error
    _wait_described(admin, [topic.name for topic in missing])
    return [topic.name for topic in missing]


def _answer(future: Future[Any], otherwise: str) -> Any:
    """What the broker answered. The client's own timeout ends first or not at all: either means away."""
    try:
        return future.result(_TIMEOUT_SECONDS + 1.0)
    except TimeoutError as error:
        raise Transient(f"{otherwise}: the broker does not answer") from error


def _existing(admin: AdminClient) -> set[str]:
    try:
        return set(admin.list_topics(timeout=_TIMEOUT_SECONDS).topics)
    except KafkaException as error:
        raise Transient(f"the broker does not answer: {error.args[0].str()}") from error


def _wait_described(admin: AdminClient, names: Sequence[str]) -> None:
    """Creation is asynchronous on the broker: a consumer that asks too early would see no such topic."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        try:
            topic_ids(admin, names)
            return
        except (Halt, Transient):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def delete_records(admin: AdminClient, topic: str, before: Mapping[int, int]) -> None:
    """Delete the records of each partition below its offset; insists for a while where a leader moves.

    Raises Transient, Halt where it is refused.
    """
    asked = [TopicPartition(topic, number, offset) for number, offset in before.items()]
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while asked:
        waiting = _delete_records(admin, topic, asked)
        if not waiting:
            return
        if time.monotonic() > deadline:
            reason = next(iter(waiting.values()))
            raise Transient(f"records of {topic} were not deleted: {reason.str()}")
        asked = list(waiting)
        time.sleep(0.1)


def _delete_records(
    admin: AdminClient, topic: str, asked: list[TopicPartition]
) -> dict[TopicPartition, KafkaError]:
    """Asks once. What was not deleted and may be in a moment, each with why."""
    waiting: dict[TopicPartition, KafkaError] = {}
    for part, future in admin.delete_records(asked, request_timeout=_TIMEOUT_SECONDS).items():
        try:
            _answer(future, f"records of {topic} were not deleted")
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if passes(reason):
                waiting[part] = reason
                continue
            raise Halt(
                f"the broker does not delete records of {topic}[{part.partition}] below {part.offset}: "
                f"{reason.str()}; where topics are compacted, set cleanup.policy to delete"
            ) from error
    return waiting


def partition_numbers(consumer: Consumer, topic: str) -> list[int]:
    """The numbers of a topic's partitions.

    Raises Halt for a topic that does not exist or may not be seen, Transient when the broker is away.
    """
    try:
        described = consumer.list_topics(topic, timeout=_TIMEOUT_SECONDS).topics[topic]
    except KafkaException as error:
        raise Transient(f"the broker does not describe {topic}: {error.args[0].str()}") from error
    reason: KafkaError | None = described.error
    if reason is None:
        return sorted(described.partitions)
    if reason.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise Halt(f"topic {topic} does not exist: create it with `simstream topics`")
    if passes(reason):
        raise Transient(f"the broker does not describe {topic}: {reason.str()}")
    raise Halt(f"the broker does not describe {topic}: {reason.str()}")


def topic_ids(admin: AdminClient, names: Sequence[str]) -> dict[str, str]:
    """Each topic's id, which a topic made anew under the same name does not share.

    Raises Halt for a topic that does not exist, Transient when the broker is away.
    """
    if not names:
        return {}
    found = {}
    for name, future in admin.describe_topics(
        TopicCollection(list(names)), request_timeout=_TIMEOUT_SECONDS
    ).items():
        try:
            found[name] = str(_answer(future, f"topic {name} was not described").topic_id)
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise Halt(f"topic {name} does not exist: create it with `simstream topics`") from error
            raise Transient(f"could not describe topic {name}: {reason.str()}") from error
    return found


def shapes(admin: AdminClient) -> tuple[int, dict[str, Shape]]:
    """How many brokers there are, and the shape of every topic. Raises Transient when the broker is away."""
    try:
        found = admin.list_topics(timeout=_TIMEOUT_SECONDS)
    except KafkaException as error:
        raise Transient(f"the broker does not answer: {error.args[0].str()}") from error
    return len(found.brokers), {
        name: Shape(
            len(topic.partitions), min((len(part.replicas) for part in topic.partitions.values()), default=0)
        )
        for name, topic in found.topics.items()
    }


def compare_topics(admin: AdminClient, topics: Iterable[Topic]) -> list[Difference]:
    """How topics that somebody else created differ from what simstream needs."""
    wanted = list(topics)
    existing = _existing(admin)
    differences = [
        Difference(topic.name, "does not exist", "create it with `simstream topics`")
        for topic in wanted
        if topic.name not in existing
    ]
    resources = {
        ConfigResource(ResourceType.TOPIC, topic.name): topic for topic in wanted if topic.name in existing
    }
    if not resources:
        return differences
    for resource, future in admin.describe_configs(list(resources), request_timeout=_TIMEOUT_SECONDS).items():
        topic = resources[resource]
        try:
            entries = _answer(future, f"the settings of {topic.name} were not read")
        except KafkaException as error:
            raise Transient(f"could not read the settings of {topic.name}: {error.args[0].str()}") from error
        for name, value in topic.config().items():
            actual = entries[name].value if name in entries else None
            if not _fits(name, value, actual):
                differences.append(
                    Difference(
                        topic.name,
                        f"{name} is {actual}, simstream needs {value}",
                        f"kafka-configs --alter --topic {topic.name} --add-config {name}={value}",
                    )
                )
    return differences


def _fits(name: str, wanted: str, actual: str | None) -> bool:
    """More is enough for sizes and retentions (-1 is for ever); a cleanup policy has to be the very one."""
    if actual is None or name == "cleanup.policy":
        return actual is None or actual == wanted
    if name.endswith(".ms"):
        return actual == "-1" or (wanted != "-1" and int(actual) >= int(wanted))
    return int(actual) >= int(wanted)
