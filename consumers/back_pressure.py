"""A topic that has too much in flight is paused, and resumed at half; polling goes on, so the group keeps us.

Reads   how much of each partition is in hand
Writes  metrics; pauses and resumes partitions
Never   counts a bulk record that is only read ahead as work in hand: live ones have to be able to pass it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from adapters.kafka_reader import GroupReader, Partition
from adapters.metrics import IN_FLIGHT_RECORDS, PAUSED_TOPICS, READ_AHEAD_RECORDS
from consumers.progress import Progress

#: Settled records that wait for an older bulk one, about 150 bytes each, per record read ahead.
_PASSED_PER_READ_AHEAD = 4


class BackPressure:
    """Pauses and resumes topics of one consumer. Called by the thread that polls."""

    def __init__(
        self,
        *,
        reader: GroupReader,
        consumer: str,
        topics: Sequence[str],
        in_flight_records: int,
        read_ahead_records: int,
    ) -> None:
        """`in_flight_records` may be in hand of a topic, `read_ahead_records` more wait unread."""
        self._reader = reader
        self._consumer = consumer
        self._topics = topics
        self._in_flight_records = in_flight_records
        self._read_ahead_records = read_ahead_records
        self._paused: set[str] = set()

    def apply(self, progress: Mapping[Partition, Progress], *, bulk_waiting: Callable[[str], int]) -> None:
        """Decide for each topic. `bulk_waiting`: how many bulk records of it nobody has looked at yet."""
        IN_FLIGHT_RECORDS.labels(consumer=self._consumer).set(sum(one.unsettled for one in progress.values()))
        READ_AHEAD_RECORDS.labels(consumer=self._consumer).set(
            sum(bulk_waiting(topic) for topic in self._topics)
        )
        PAUSED_TOPICS.labels(consumer=self._consumer).set(len(self._paused))
        for topic in self._topics:
            parts = [part for part in progress if part.topic == topic]
            unsettled = sum(progress[part].unsettled for part in parts)
            # Bulk records that nobody has looked at yet are read ahead, so that live ones can pass them;
            ahead = bulk_waiting(topic)
            # and those that have passed wait, settled and small, until the commit can pass too.
            passed = sum(len(progress[part].in_flight) for part in parts) - unsettled
            full = max(
                (unsettled - ahead) / self._in_flight_records,
                ahead / self._read_ahead_records,
                passed / (_PASSED_PER_READ_AHEAD * self._read_ahead_records),
            )
            if full >= 1 and topic not in self._paused:
                self._paused.add(topic)
                self._reader.pause(parts)
            elif full <= 0.5 and topic in self._paused:
                self._paused.discard(topic)
                self._reader.resume(parts)

    def lift(self, progress: Mapping[Partition, Progress]) -> None:
        """Resume everything: the next `apply` decides again."""
        self._reader.resume([part for part in progress if part.topic in self._paused])
        self._paused.clear()
