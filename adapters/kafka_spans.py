"""How far topics reach: from which record to which, since when, and what is left behind a commit.

Reads   ends of partitions; single records, without a group
Writes  nothing
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition

from adapters.kafka import KafkaSettings
from adapters.kafka_admin import partition_numbers
from adapters.kafka_errors import END_OF_PARTITION, OUTSIDE_THE_LOG, refuse_final
from adapters.kafka_log import groupless
from adapters.kafka_reader import Partition
from schemas.errors import Halt, Transient

_TIMEOUT_SECONDS = 15.0


class Span(NamedTuple):
    """Offsets of a partition: its oldest record, and one past its newest."""

    start: int
    end: int


def spans(settings: KafkaSettings, topics: Sequence[str]) -> dict[Partition, Span]:
    """Each partition of the topics. Raises Halt for a topic that does not exist, Transient."""
    consumer = groupless(settings, "simstream-spans")
    try:
        found = {}
        for topic in topics:
            for number in partition_numbers(consumer, topic):
                asked = TopicPartition(topic, number)
                found[Partition(topic, number)] = Span(
                    *consumer.get_watermark_offsets(asked, timeout=_TIMEOUT_SECONDS)
                )
        return found
    except KafkaException as error:
        raise Transient(f"the broker does not say how far topics reach: {error.args[0].str()}") from error
    finally:
        consumer.close()


def first_records(
    settings: KafkaSettings, offsets: Mapping[Partition, int], *, timeout_seconds: float = _TIMEOUT_SECONDS
) -> dict[Partition, int | None]:
    """The timestamp (ms) of the first record at or behind each offset; None where there is none.

    An offset below the end does not mean that there is one: a transaction ends with a mark that nobody reads.
    Raises Transient when the broker falls silent.
    """
    found: dict[Partition, int | None] = {}
    consumer = groupless(settings, "simstream-probe", **{"enable.partition.eof": True})
    try:
        consumer.assign(_positions(offsets))
        deadline, trouble = time.monotonic() + timeout_seconds, ""
        while len(found) < len(offsets):
            if time.monotonic() > deadline:
                missing = len(offsets) - len(found)
                raise Transient(f"the broker said nothing about {missing} partitions{trouble}")
            for message in consumer.consume(1, 0.2):
                part = Partition(message.topic() or "", message.partition() or 0)
                reason = message.error()
                if reason is None:
                    found.setdefault(part, message.timestamp()[1])
                elif reason.code() == END_OF_PARTITION:
                    found.setdefault(part, None)
                elif reason.code() in OUTSIDE_THE_LOG:
                    raise Halt(f"{part.topic} cannot be read: {reason.str()}")
                else:
                    refuse_final(reason, f"{part.topic}[{part.number}]")
                    trouble = f" ({reason.str()})"
                    continue
                _leave(consumer, part)
        return found
    finally:
        consumer.close()


def _positions(offsets: Mapping[Partition, int]) -> list[TopicPartition]:
    return [TopicPartition(part.topic, part.number, offset) for part, offset in offsets.items()]


def _leave(consumer: Consumer, part: Partition) -> None:
    """Read no more of it: one record was enough."""
    consumer.pause([TopicPartition(part.topic, part.number)])


def behind(commits: Mapping[Partition, int | None], wanted: Mapping[Partition, Span]) -> dict[Partition, int]:
    """Where each partition goes on that is not committed to its end; that there are records is not said."""
    places = {part: max(span.start, commits.get(part) or 0) for part, span in wanted.items()}
    return {part: place for part, place in places.items() if place < wanted[part].end}
