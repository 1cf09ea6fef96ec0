"""Records that can never be parsed: put aside one by one, until there are too many to be an accident.

Reads   nothing
Writes  dead letters
Never   lets a wrong deploy empty a topic into its dead letters: that is Halt
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from pathlib import Path
from typing import TypeVar

from adapters.kafka import Record
from adapters.metrics import DEAD_LETTERS_TOTAL
from consumers.dead_letters import DeadLetters
from consumers.progress import Delivery
from schemas.errors import Halt, PoisonMessage, Transient

log = logging.getLogger(__name__)

E = TypeVar("E")

#: So many of the last records of a topic, and this share of them poison, is a bad deploy and not bad data.
POISON_WINDOW = 1_000
POISON_SHARE = 0.95


class Poison:
    """Dead-letters records of one consumer and watches their share. Thread-safe."""

    def __init__(self, *, consumer: str, dead_letters: DeadLetters, accept: int) -> None:
        self._consumer = consumer
        self._dead_letters = dead_letters
        self._accept = accept
        self._recent: dict[str, deque[bool]] = {}
        self._lock = threading.Lock()

    def parsed(
        self, unread: Sequence[tuple[Record, Delivery[E]]], decode: Callable[[Record], E]
    ) -> list[Delivery[E]]:
        """Parse records; what can never parse is dead-lettered. Raises Halt when nearly all of them are.

        A fault of `decode` itself counts as poison: raised again, every start would end on that record.
        """
        read: list[Delivery[E]] = []
        told = 0
        topic = unread[0][0].topic if unread else ""
        for record, delivery in unread:
            if delivery.abandoned:
                continue
            if record.topic != topic:
                self._good(topic, len(read) - told)
                topic, told = record.topic, len(read)
            try:
                delivery.event = decode(record)
            except (Transient, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001  whichever it is, it would be the same next time
                self._good(topic, len(read) - told)
                told = len(read)
                poison = error if isinstance(error, PoisonMessage) else _unread(error)
                self._bury(record, poison, on_done=delivery.settle)
            else:
                read.append(delivery)
        self._good(topic, len(read) - told)
        return read

    def _good(self, topic: str, count: int) -> None:
        """So many records of the topic were read, one after the other."""
        with self._lock:
            self._window(topic).extend(repeat(False, min(count, POISON_WINDOW)))

    def _bury(self, record: Record, poison: PoisonMessage, *, on_done: Callable[[], None]) -> None:
        """Dead-letter a record. Raises Halt when nearly all of the topic's last thousand were poison."""
        log.warning(
            "record_dead_lettered topic=%s partition=%d offset=%d reason=%s",
            record.topic,
            record.partition,
            record.offset,
            poison.reason,
        )
        DEAD_LETTERS_TOTAL.labels(consumer=self._consumer, topic=record.topic, reason=poison.kind).inc()
        self._dead_letters.put(record, poison.reason, on_done=on_done)
        with self._lock:
            if self._accept > 0:
                self._accept -= 1
                return
            window = self._window(record.topic)
            window.append(True)
            count = sum(window)
        if len(window) == POISON_WINDOW and count >= POISON_SHARE * POISON_WINDOW:
            raise Halt(
                f"{count} of the last {POISON_WINDOW} records of {record.topic} could not be read: that "
                "looks like a wrong producer or a wrong deploy, not like single bad records. They are in "
                f"{self._dead_letters.topic_of(record.topic)} (`simstream dlq list`). Mend the producer; or, "
                "if the records are to be skipped, start again with --accept-poison N for N more of them"
            )

    def _window(self, topic: str) -> deque[bool]:
        return self._recent.setdefault(topic, deque(maxlen=POISON_WINDOW))


def _unread(error: Exception) -> PoisonMessage:
    """Says what was raised and where, but not its message: that may repeat what a shopper wrote."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{last.name} ({Path(last.filename).name}:{last.lineno})"
    return PoisonMessage(f"the record could not be read: {type(error).__name__} in {where}")
