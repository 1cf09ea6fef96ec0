"""Records that can never be applied, kept as they came: original bytes and key, and headers that say why.

Reads   nothing
Writes  `<topic>.dlq`; the identity of a dead letter is (topic id, partition, offset) of its record
Never   gives up: a dead letter that the broker has not acknowledged is sent again
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from adapters.kafka import Publisher, Record
from schemas.topics import DEAD_LETTER_HEADROOM_BYTES, DEAD_LETTER_SUFFIX

log = logging.getLogger(__name__)

TOPIC_HEADER = "simstream-dlq-topic"
TOPIC_ID_HEADER = "simstream-dlq-topic-id"
PARTITION_HEADER = "simstream-dlq-partition"
OFFSET_HEADER = "simstream-dlq-offset"
ERROR_HEADER = "simstream-dlq-error"
TIME_HEADER = "simstream-dlq-time"
TIMESTAMP_HEADER = "simstream-dlq-record-timestamp-ms"
_ERROR_BYTES = 4_000
_RETRY_SECONDS = 1.0


class DeadLetters:
    """Puts records on their topic's dead-letter topic."""

    def __init__(
        self, *, publisher: Publisher, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._publisher = publisher
        self._now = now

    @staticmethod
    def topic_of(topic: str) -> str:
        """Where the dead letters of `topic` go."""
        return topic + DEAD_LETTER_SUFFIX

    def put(self, record: Record, reason: str, *, on_done: Callable[[], None]) -> None:
        """Send the record with its reason; `on_done` is called once the broker has it, on another thread."""
        headers = [
            (TOPIC_HEADER, record.topic.encode()),
            (TOPIC_ID_HEADER, record.topic_id.encode()),
            (PARTITION_HEADER, str(record.partition).encode()),
            (OFFSET_HEADER, str(record.offset).encode()),
            (ERROR_HEADER, reason.encode("utf-8", "replace")[:_ERROR_BYTES]),
            (TIME_HEADER, self._now().isoformat().encode()),
            (TIMESTAMP_HEADER, str(record.timestamp_ms).encode()),
        ]
        kept, room = [], DEAD_LETTER_HEADROOM_BYTES // 2
        for name, value in record.headers:
            room -= len(name) + len(value)
            if room > 0 and not name.startswith("simstream-dlq-"):
                kept.append((name, value))

        def acknowledged(error: Exception | None) -> None:
            if error is None:
                on_done()
            else:
                log.warning("dead_letter_waits topic=%s reason=%s", self.topic_of(record.topic), error)
                # Settling nothing holds the commit back; trying again loses nothing.
                again = threading.Timer(_RETRY_SECONDS, send)
                again.daemon = True
                again.start()

        def send() -> None:
            self._publisher.send(
                self.topic_of(record.topic),
                key=record.key,
                value=record.value,
                headers=[*kept, *headers],
                on_ack=acknowledged,
            )

        send()
