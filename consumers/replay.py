"""What differs when consumers replay the topics into new state: nothing is announced before the log's end.

Reads   nothing
Writes  what the publisher behind it writes, once it is open
Never   buries a record twice: what the live consumers have dead-lettered is passed over

Everything else is the consumers as they always run.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from adapters.kafka import Acknowledge, Headers, Publisher, Record
from adapters.kafka_reader import Partition
from consumers.dead_letters import DeadLetters


class GatedPublisher(Publisher):
    """Acknowledges whatever it is given, at once, until it is opened; from then on it publishes.

    An item written while it was closed has its state in Redis, where a walk over all items finds it. So open
    it first, and walk then.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._behind = publisher
        self._open = threading.Event()

    def open(self) -> None:
        """Publish from now on."""
        self._open.set()

    def send(
        self,
        topic: str,
        *,
        key: str | bytes | None,
        value: bytes | None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
        on_ack: Acknowledge | None = None,
    ) -> None:
        """See Publisher."""
        if self._open.is_set():
            self._behind.send(
                topic, key=key, value=value, headers=headers, timestamp_ms=timestamp_ms, on_ack=on_ack
            )
        elif on_ack is not None:
            on_ack(None)

    def send_batch(self, topic: str, records: Sequence[tuple[str, bytes, Acknowledge | None]]) -> None:
        """See Publisher."""
        if self._open.is_set():
            self._behind.send_batch(topic, records)
            return
        for _, _, on_ack in records:
            if on_ack is not None:
                on_ack(None)

    def flush(self, timeout_seconds: float) -> int:
        """See Publisher."""
        return self._behind.flush(timeout_seconds)

    def close(self) -> None:
        """Nothing: the publisher behind it belongs to whoever made it."""


class KnownDeadLetters(DeadLetters):
    """Buries only what the live consumers have not read yet.

    `known` is how far they have: one past the last record of each partition that is done, so that a dead
    letter below it is on its topic already. Above it one record may be buried by both.
    """

    def __init__(self, *, publisher: Publisher, known: Mapping[Partition, int | None]) -> None:
        super().__init__(publisher=publisher)
        self._known = known
        #: Records passed over, by topic.
        self.passed: Counter[str] = Counter()

    def put(self, record: Record, reason: str, *, on_done: Callable[[], None]) -> None:
        """See DeadLetters."""
        if record.offset < (self._known.get(Partition(record.topic, record.partition)) or 0):
            self.passed[record.topic] += 1
            on_done()
            return
        super().put(record, reason, on_done=on_done)
