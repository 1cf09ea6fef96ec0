"""A test's producer, and how it learns that everything it published has arrived, wherever consumers run.

Reads   commits of the consumers' groups, as somebody who is no member
Writes  records onto the topics of a shop, sentinel hints onto both lanes
Never   guesses that it is done: `wait_until_drained` follows every record to its commit
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from adapters.index_port import collection_name
from adapters.kafka import Headers, KafkaSettings
from adapters.kafka_reader import Partition
from app.local import TansuBroker
from schemas.events import ItemChanged, ProductEvent, ReviewEvent, ReviewPosted, ReviewRemoved, UserEvent
from schemas.topics import BULK_LANE, LANE_HEADER, Topic, Topics
from tests.support.servers import Broker

#: What a broker says that does not know yet, or no longer, who coordinates a group.
_COORDINATION = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)
ShopEvent = ProductEvent | ReviewEvent | UserEvent

#: Tansu lets a new group wait for half a session timeout before it hands out partitions; Apache refuses less
#: than six seconds.
QUICK_GROUPS = {"session.timeout.ms": "2000", "heartbeat.interval.ms": "500"}
#: How long the group of a proof waits for a member that says nothing; Apache Kafka allows no less.
SESSION_TIMEOUT_SECONDS = 6.0
#: An item that nobody ever publishes: a hint for it is served by doing nothing.
SENTINEL = "(drained?)"


def quick_settings(broker: Broker, *, partitions: int = 2) -> KafkaSettings:
    """Settings for clients of a test's broker: groups that form as fast as it allows, of as many members."""
    tansu = isinstance(broker, TansuBroker)
    return KafkaSettings(
        bootstrap_servers=broker.bootstrap_servers,
        partitions=partitions,
        replication_factor=1,
        options=QUICK_GROUPS if tansu else {},
        # As the embedded stack: of members that leave together, Tansu can keep one that all wait for.
        member_per_topic=not tansu,
    )


@dataclass(frozen=True, slots=True)
class Names:
    """Topics, groups and collection under one namespace: the same in every process that is given it."""

    namespace: str
    max_message_bytes: int | None = None

    @property
    def topics(self) -> Topics:
        """The house's topics; `catalog.products` with the limit asked for."""
        named = Topics.named(namespace=self.namespace)
        if self.max_message_bytes is None:
            return named
        return replace(named, products=replace(named.products, max_message_bytes=self.max_message_bytes))

    @property
    def collection(self) -> str:
        """The one collection of the test."""
        return collection_name("test", namespace=self.namespace)

    @property
    def products_group(self) -> str:
        """As app/runners.py names it."""
        return f"{self.namespace}simstream-products"

    @property
    def reviews_group(self) -> str:
        """As app/runners.py names it."""
        return f"{self.namespace}simstream-reviews"

    @property
    def behaviour_group(self) -> str:
        """As app/runners.py names it."""
        return f"{self.namespace}simstream-behaviour"

    @property
    def embeddings_group(self) -> str:
        """As app/runners.py names it."""
        return f"{self.namespace}simstream-embeddings-{self.collection.removeprefix(self.namespace)}"

    def group(self, consumer: str) -> str:
        """The group of a consumer."""
        return {
            "products": self.products_group,
            "reviews": self.reviews_group,
            "behaviour": self.behaviour_group,
            "embeddings": self.embeddings_group,
        }[consumer]

    def declared(self) -> list[Topic]:
        """The topics that the consumers use."""
        topics = self.topics
        inputs = (topics.products, topics.reviews, topics.events)
        used = {one.name for one in (*inputs, topics.changed, topics.changed_bulk, topics.updated)}
        return [one for one in topics.declared() if one.name.removesuffix(".dlq") in used]


class Shop:
    """A producer that knows where each record went: what it published is what has to be drained."""

    def __init__(self, settings: KafkaSettings, names: Names) -> None:
        self._topics = names.topics
        self._producer = Producer(
            {
                **settings.client_config("test-shop"),
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 2,
                "message.max.bytes": 16 * 1024 * 1024,
            }
        )
        #: One past the last acknowledged record, by partition.
        self.ends: dict[Partition, int] = {}
        self.failures: list[KafkaError] = []

    def _acknowledged(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failures.append(error)
            return
        part = Partition(message.topic() or "", message.partition() or 0)
        self.ends[part] = max(self.ends.get(part, 0), (message.offset() or 0) + 1)

    def send(
        self,
        topic: str,
        *,
        key: str | bytes | None,
        value: bytes | None,
        headers: Headers = (),
        timestamp_ms: int = 0,
        partition: int = -1,
    ) -> None:
        """Any record at all; `flush` says when the broker has it."""
        while True:
            try:
                self._producer.produce(
                    topic,
                    key=key,
                    value=value,
                    headers=list(headers),
                    timestamp=timestamp_ms,
                    partition=partition,
                    on_delivery=self._acknowledged,
                )
                break
            except BufferError:
                self._producer.poll(0.05)
        self._producer.poll(0)

    def publish(self, events: Iterable[ShopEvent], *, bulk: bool = False) -> int:
        """Events as a shop sends them; how many."""
        headers = [(LANE_HEADER, BULK_LANE.encode())] if bulk else []
        count = 0
        for event in events:
            topic, key = self._topics.products, event.product_id
            if isinstance(event, ReviewPosted | ReviewRemoved):
                topic = self._topics.reviews
            elif isinstance(event, UserEvent):
                topic, key = self._topics.events, event.user_id
            self.send(
                topic.name,
                key=key,
                value=event.model_dump_json(exclude_none=True).encode(),
                headers=headers,
            )
            count += 1
        return count

    def flush(self, timeout_seconds: float = 30.0) -> None:
        """Wait until the broker has everything. Raises AssertionError when it has not, or refused some."""
        left = self._producer.flush(timeout_seconds)
        assert left == 0, f"{left} records were not acknowledged"
        assert not self.failures, f"the broker refused {len(self.failures)} records: {self.failures[0]}"


def commits_of(settings: KafkaSettings, group: str, parts: Iterable[Partition]) -> dict[Partition, int]:
    """What the group has committed of these partitions, 0 where nothing; asked by no member of it.

    A busy broker may be about to find out who coordinates the group: that is asked again, for half a minute.
    """
    wanted = [TopicPartition(part.topic, part.number) for part in parts]
    deadline = time.monotonic() + 30.0
    asking = Consumer({**settings.client_config("test-commits"), "group.id": group})
    try:
        while True:
            try:
                answers = asking.committed(wanted, timeout=10.0)
                break
            except KafkaException as error:
                if error.args[0].code() not in _COORDINATION or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
    finally:
        asking.close()
    return {Partition(one.topic, one.partition): max(0, one.offset) for one in answers}


def wait_for_commits(
    settings: KafkaSettings,
    group: str,
    ends: Mapping[Partition, int],
    *,
    deadline: float,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Return once the group has committed every one of `ends`. Raises AssertionError after the deadline.

    `check` is called between looks and may raise: what a consumer died of, for example.
    """
    asking = Consumer(
        {**settings.client_config("test-commits"), "group.id": group, "enable.auto.commit": False}
    )
    asked = [TopicPartition(part.topic, part.number) for part in ends]
    found: dict[Partition, int] = {}
    try:
        while ends:
            check()
            try:
                answers = asking.committed(asked, timeout=10.0)
            except KafkaException:
                answers = []  # the broker is away, or its coordinator moves
            found = {Partition(one.topic, one.partition): one.offset for one in answers}
            late = {part: end for part, end in ends.items() if found.get(part, -1) < end}
            if not late:
                return
            if time.monotonic() > deadline:
                shown = ", ".join(f"{part} {found.get(part)} of {end}" for part, end in late.items())
                raise AssertionError(f"group {group} has not caught up: {shown}")
            time.sleep(0.02)
    finally:
        asking.close()


def wait_until_drained(
    settings: KafkaSettings,
    names: Names,
    shop: Shop,
    *,
    partitions: int,
    timeout_seconds: float,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Return once everything that was published is in Redis and the index, wherever the consumers run.

    1. products, and reviews if there are any, have committed all that the shop published: so every hint of it
       has been acknowledged.
    2. A sentinel hint goes to each partition of both lanes, and so behind every one of those hints.
    3. embeddings has committed the sentinels: so every hint before them was served.
    """
    deadline = time.monotonic() + timeout_seconds
    shop.flush(timeout_seconds)
    for topic, group in (
        (names.topics.products.name, names.products_group),
        (names.topics.reviews.name, names.reviews_group),
    ):
        ends = {part: end for part, end in shop.ends.items() if part.topic == topic}
        wait_for_commits(settings, group, ends, deadline=deadline, check=check)
    lanes = (names.topics.changed.name, names.topics.changed_bulk.name)
    now = datetime.now(UTC)
    for topic in lanes:
        for number in range(partitions):
            body = ItemChanged(product_id=SENTINEL, occurred_at=now).model_dump_json().encode()
            shop.send(topic, key=SENTINEL, value=body, partition=number)
    shop.flush(timeout_seconds)
    hints = {part: end for part, end in shop.ends.items() if part.topic in lanes}
    wait_for_commits(settings, names.embeddings_group, hints, deadline=deadline, check=check)
