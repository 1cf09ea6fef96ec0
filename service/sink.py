"""Events that came over HTTP go onto Kafka; who posted them hears of it when the broker has said so.

Reads   nothing
Writes  catalog.products, catalog.reviews, user.events, keyed as `simstream publish` keys them
Never   acknowledges what the broker has not; holds more than its bound while the broker is away
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from schemas.errors import Halt
from schemas.events import Frozen
from schemas.topics import Topic
from service.errors import Busy, TooLarge, Unavailable
from service.timing import BROKER

#: What a record is larger on the wire than its key and value.
_RECORD_OVERHEAD_BYTES = 128
_AGAIN = "post all of them again: an event counts once, however often it comes"
Acknowledge = Callable[[Exception | None], None]


class Sends(Protocol):
    """What a sink needs of adapters.kafka.Publisher."""

    def send_batch(self, topic: str, records: Sequence[tuple[str, bytes, Acknowledge | None]]) -> None:
        """Hand over; each `Acknowledge` is called once, on any thread. Raises Halt when it cannot go on."""
        ...

    def close(self) -> None:
        """Wait a little for acknowledgements, then stop."""
        ...


class EventSink:
    """Publishes, and waits for the broker. `opened` makes a publisher when the first event comes.

    The publisher itself gives up on a record after `ack_seconds` at the latest, so that what nobody waits
    for any more does not pile up; `grace_seconds` more are for it to say so.
    """

    def __init__(
        self,
        *,
        opened: Callable[[], Sends],
        ack_seconds: float,
        grace_seconds: float = 1.0,
        most_records: int,
        most_bytes: int,
    ) -> None:
        self._opened = opened
        self._wait_seconds = ack_seconds + grace_seconds
        self._most_records = most_records
        self._most_bytes = most_bytes
        self._publisher: Sends | None = None
        self._lock = threading.Lock()
        self._pending_records = 0
        self._pending_bytes = 0
        #: Why the last post failed; None after one that did not.
        self.away: str | None = None

    async def publish(self, topic: Topic, events: Sequence[Frozen]) -> int:
        """How many events the broker has acknowledged: all. Raises TooLarge, Busy or Unavailable."""
        records = [
            (str(getattr(event, topic.key)), event.model_dump_json(exclude_none=True).encode())
            for event in events
        ]
        sizes = [len(key.encode()) + len(value) for key, value in records]
        for number, size in enumerate(sizes):
            if size + _RECORD_OVERHEAD_BYTES > topic.max_message_bytes:
                raise TooLarge(
                    f"event {number} takes {size} bytes, and {topic.name} takes {topic.max_message_bytes} at"
                    " most: shorten its longest text"
                )
        publisher = self._open()
        self._reserve(len(records), sum(sizes))
        receipt = _Receipt(sizes, self._release)
        batch = [(key, value, partial(receipt.note, number)) for number, (key, value) in enumerate(records)]
        try:
            publisher.send_batch(topic.name, batch)
        except Halt as error:
            receipt.abandon()
            self._start_anew()
            raise self._failed(f"the producer had to start anew ({error}): {_AGAIN}") from None
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait_seconds):
                await receipt.complete
        if receipt.acknowledged < len(records):
            raise self._failed(
                f"the broker has acknowledged {receipt.acknowledged} of {len(records)} events"
                f" ({receipt.reason or 'it does not answer'}): {_AGAIN}"
            )
        self.away = None
        return receipt.acknowledged

    def close(self) -> None:
        """End the publisher, if there is one."""
        if self._publisher is not None:
            self._publisher.close()

    def _open(self) -> Sends:
        if self._publisher is None:
            self._publisher = self._opened()
        return self._publisher

    def _start_anew(self) -> None:
        """A fatal error of the idempotent producer: another one may go on."""
        broken, self._publisher = self._publisher, None
        if broken is not None:
            threading.Thread(target=broken.close, name="sink-close", daemon=True).start()

    def _failed(self, reason: str) -> Unavailable:
        self.away = reason
        return Unavailable(BROKER, reason)

    def _reserve(self, records: int, size: int) -> None:
        with self._lock:
            full = (
                self._pending_records + records > self._most_records
                or self._pending_bytes + size > self._most_bytes
            )
            if not full:
                self._pending_records += records
                self._pending_bytes += size
        if full:
            # Not sent, so not half acknowledged either.
            raise Busy(f"{self._pending_records} events wait for the broker already")

    def _release(self, size: int) -> None:
        with self._lock:
            self._pending_records -= 1
            self._pending_bytes -= size


class _Receipt:
    """What the broker says of one post. Made on the event loop, noted on any thread, each record once."""

    def __init__(self, sizes: Sequence[int], release: Callable[[int], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.complete: asyncio.Future[None] = self._loop.create_future()
        self._left = dict(enumerate(sizes))
        self._release = release
        self._lock = threading.Lock()
        self.acknowledged = 0
        self.reason: str | None = None

    def note(self, number: int, error: Exception | None) -> None:
        """The broker's word on one record."""
        with self._lock:
            size = self._left.pop(number, None)
            if size is None:
                return  # abandoned
            if error is None:
                self.acknowledged += 1
            elif self.reason is None:
                self.reason = str(error)
            finished = not self._left
        self._release(size)
        if finished and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._finish)

    def abandon(self) -> None:
        """Nobody will say more of what is left."""
        with self._lock:
            left, self._left = list(self._left.values()), {}
        for size in left:
            self._release(size)

    def _finish(self) -> None:
        if not self.complete.done():
            self.complete.set_result(None)
