"""Records that can never be applied, kept as they came: original bytes and key, and headers that say why.

Reads   nothing
Writes  `<topic>.dlq`; the identity of a dead letter is (topic id, partition, offset) of its record
Never   gives up: a dead letter that the broker does not acknowledge is sent again, too large a one in parts
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from adapters.kafka import Headers, Publisher, Record, is_too_large
from schemas.topics import DEAD_LETTER_HEADROOM_BYTES, DEAD_LETTER_SUFFIX

log = logging.getLogger(__name__)

TOPIC_HEADER = "simstream-dlq-topic"
TOPIC_ID_HEADER = "simstream-dlq-topic-id"
PARTITION_HEADER = "simstream-dlq-partition"
OFFSET_HEADER = "simstream-dlq-offset"
ERROR_HEADER = "simstream-dlq-error"
TIME_HEADER = "simstream-dlq-time"
TIMESTAMP_HEADER = "simstream-dlq-record-timestamp-ms"
#: `2/7`: this dead letter is the second of seven pieces of one record. Absent where it came in one.
PART_HEADER = "simstream-dlq-part"
_PART_BYTES = 256 * 1024
_ERROR_BYTES = 4_000
_RETRY_SECONDS = 1.0


def rewriter_of(topic: str, *, namespace: str = "") -> str:
    """The transactional id of whoever rewrites the dead letters of a topic: of two, the later one stays."""
    return f"{namespace}redrive-{topic}"


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
        headers = self._headers(record, reason)
        value = record.value
        if value is None or len(value) <= _PART_BYTES:
            self._send(record, value, headers, on_done)
            return

        def in_parts() -> None:
            self._send_in_parts(record, value, headers, on_done)

        self._send(record, value, headers, on_done, on_too_large=in_parts)

    def _headers(self, record: Record, reason: str) -> Headers:
        """Those of the record, as far as there is room, and ours."""
        ours = [
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
        return [*kept, *ours]

    def _send_in_parts(
        self, record: Record, value: bytes, headers: Headers, on_done: Callable[[], None]
    ) -> None:
        """A topic's limit is on what its producer compressed: it may have done that better than ours does."""
        starts = range(0, len(value), _PART_BYTES)
        missing, lock = set(starts), threading.Lock()

        def arrived(start: int) -> None:
            with lock:
                missing.discard(start)
                complete = not missing
            if complete:
                on_done()

        for number, start in enumerate(starts, 1):
            part = (PART_HEADER, f"{number}/{len(starts)}".encode())
            self._send(record, value[start : start + _PART_BYTES], [*headers, part], partial(arrived, start))

    def _send(
        self,
        record: Record,
        value: bytes | None,
        headers: Headers,
        on_done: Callable[[], None],
        *,
        on_too_large: Callable[[], None] | None = None,
    ) -> None:
        """Send until the broker has it, or until it says that this is too large, where that can be helped."""
        topic = self.topic_of(record.topic)

        def acknowledged(error: Exception | None) -> None:
            if error is None:
                on_done()
                return
            log.warning("dead_letter_waits topic=%s reason=%s", topic, error)
            # Settling nothing holds the commit back; trying again loses nothing. On a thread of its own: this
            # one may be the publisher's, which makes the room that a send waits for.
            if on_too_large is not None and is_too_large(error):
                again = threading.Timer(0.0, on_too_large)
            else:
                again = threading.Timer(_RETRY_SECONDS, send)
            again.daemon = True
            again.start()

        def send() -> None:
            self._publisher.send(topic, key=record.key, value=value, headers=headers, on_ack=acknowledged)

        send()
