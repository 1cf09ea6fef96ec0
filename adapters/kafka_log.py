"""A topic read from its beginning to its end, without a group; and records written in one transaction.

Reads   every partition of one topic, committed records only
Writes  what it is handed, all of it or none
Never   commits offsets: it leaves no trace on the broker
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from adapters.kafka import CLIENT_MAX_BYTES, Headers, KafkaSettings, Record, as_record, is_too_large
from adapters.kafka_admin import partition_numbers, topic_ids
from adapters.kafka_errors import END_OF_PARTITION, OUTSIDE_THE_LOG, refuse_final
from schemas.errors import Halt, Transient

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 30.0


class TopicLog:
    """One topic, to be read from given offsets to its present end, without a group."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        admin = AdminClient(settings.client_config("simstream-log-admin"))
        #: A topic made anew under the same name has another.
        self.topic_id = topic_ids(admin, [topic])[topic]

    def read_on(self, starts: Mapping[int, int]) -> Iterator[Record]:
        """Records from each partition's offset on, from the beginning for a partition that is not named.

        Records that retention took before they were read are said and passed over.
        """
        return _read(self._settings, self._topic, self.topic_id, starts)


def read_to_end(settings: KafkaSettings, topic: str) -> Iterator[Record]:
    """Every record that the topic holds now, partitions mixed.

    Raises Halt when the topic does not exist, Transient when the broker falls silent for half a minute.
    """
    return TopicLog(settings, topic).read_on({})


def _read(settings: KafkaSettings, topic: str, identity: str, starts: Mapping[int, int]) -> Iterator[Record]:
    consumer = groupless(settings, "simstream-log", **{"enable.partition.eof": True})
    try:
        open_partitions = set(partition_numbers(consumer, topic))
        consumer.assign(
            [
                TopicPartition(topic, number, starts.get(number, OFFSET_BEGINNING))
                for number in open_partitions
            ]
        )
        quiet_since, trouble = time.monotonic(), ""
        while open_partitions:
            for message in consumer.consume(1_000, 0.2):
                reason, number = message.error(), message.partition() or 0
                if reason is None:
                    yield as_record(message, identity)
                elif reason.code() == END_OF_PARTITION:
                    open_partitions.discard(number)
                elif reason.code() in OUTSIDE_THE_LOG:
                    log.warning(
                        "log_gap topic=%s partition=%d wanted=%s reason=%s",
                        topic,
                        number,
                        starts.get(number),
                        reason.str(),
                    )
                    consumer.seek(TopicPartition(topic, number, OFFSET_BEGINNING))
                else:
                    refuse_final(reason, f"{topic}[{number}]")
                    trouble = f" ({reason.str()})"
                    continue
                quiet_since, trouble = time.monotonic(), ""
            if time.monotonic() - quiet_since > _TIMEOUT_SECONDS:
                raise Transient(
                    f"the broker said nothing about {topic} for {_TIMEOUT_SECONDS:.0f} s{trouble}"
                )
    finally:
        consumer.close()


class Tail:
    """One topic from its beginning and onwards, without a group; a partition added later is not followed.

    `from_end` leaves out what was there before.
    """

    def __init__(self, settings: KafkaSettings, topic: str, *, from_end: bool = False) -> None:
        self._identity = topic_ids(AdminClient(settings.client_config("simstream-tail-admin")), [topic])[
            topic
        ]
        self._consumer = groupless(settings, "simstream-tail")
        numbers = partition_numbers(self._consumer, topic)
        start = OFFSET_END if from_end else OFFSET_BEGINNING
        self._consumer.assign([TopicPartition(topic, number, start) for number in numbers])

    def poll(self, timeout_seconds: float, *, limit: int = 1_000) -> list[Record]:
        """What has arrived; waits for the first record only.

        Raises Halt when the topic cannot be read; what passes by itself is said and waited for.
        """
        messages = self._consumer.consume(1, timeout_seconds)
        if messages:
            messages += self._consumer.consume(limit - 1, 0)
        for message in messages:
            reason = message.error()
            if reason is None:
                continue
            if reason.code() in OUTSIDE_THE_LOG:
                raise Halt(f"{message.topic()} cannot be read: {reason.str()}")
            refuse_final(reason, f"{message.topic()}[{message.partition()}]")
        return [as_record(message, self._identity) for message in messages if message.error() is None]

    def close(self) -> None:
        """Let go of the topic."""
        self._consumer.close()


def groupless(settings: KafkaSettings, client_id: str, **options: bool) -> Consumer:
    """A consumer that commits nothing; it reads what it is assigned."""
    return Consumer(
        {
            **settings.client_config(client_id, consumes=True),
            # The client insists on a group; nothing is committed to it.
            "group.id": f"{client_id}-{uuid.uuid4()}",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            **options,
        }
    )


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record to write."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Transactions:
    """Writes batches of records, each whole or not at all; a later holder of the name fences this one."""

    def __init__(self, settings: KafkaSettings, *, transactional_id: str) -> None:
        self._producer = Producer(
            {
                "message.max.bytes": CLIENT_MAX_BYTES,
                # What comes back onto a topic has been on it: it must not take more room now.
                "compression.type": "zstd",
                **settings.client_config(f"simstream-{transactional_id}"),
                "transactional.id": transactional_id,
                "partitioner": "murmur2_random",
            }
        )
        try:
            self._producer.init_transactions(_TIMEOUT_SECONDS)
        except KafkaException as error:
            raise Transient(f"the broker did not open a transaction: {error.args[0].str()}") from error

    def write(self, records: Sequence[Outgoing]) -> None:
        """Write them in one transaction.

        Raises Halt when another process took over or a record is too large for its topic, else Transient.
        """
        try:
            self._producer.begin_transaction()
            for record in records:
                self._producer.produce(
                    record.topic, key=record.key, value=record.value, headers=list(record.headers)
                )
            self._producer.commit_transaction(_TIMEOUT_SECONDS)
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.fatal():
                raise Halt(f"another process is doing the same work: {reason.str()}") from error
            too_large = is_too_large(error)
            if too_large or reason.txn_requires_abort():
                self._producer.abort_transaction(_TIMEOUT_SECONDS)
            if too_large:
                raise Halt(
                    f"one of {len(records)} records is larger than its topic takes ({reason.str()}): raise "
                    "the topic's max.message.bytes, or leave that record out"
                ) from error
            raise Transient(f"the broker did not take the transaction: {reason.str()}") from error
