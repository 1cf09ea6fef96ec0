"""What has been polled and waits for the handler's thread: live records first, bulk ones behind them.

Pure bookkeeping under one lock. A whole catalogue on the topic must not delay the price behind it, so the
loop reads ahead: bulk records wait here as they came, not even parsed, while live ones pass. A tenth of the
takes is kept for bulk records, so that they always move. While live records come, bulk batches are small.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from adapters.kafka import Record
from consumers.progress import Delivery
from schemas.topics import BULK_LANE, LANE_HEADER

E = TypeVar("E")
_BULK = (LANE_HEADER, BULK_LANE.encode())
_BULK_TURN = 10
#: For so long after a live record bulk ones are taken in small batches: the next live one may be on its way.
_LIVE_IS_NEAR_SECONDS = 1.0


class Unread(NamedTuple, Generic[E]):
    """A record that still has to be parsed, and its place among the records in flight."""

    record: Record
    delivery: Delivery[E]


def is_bulk(record: Record) -> bool:
    """Whether a record asks for the bulk lane."""
    return _BULK in record.headers


class Backlog(Generic[E]):
    """The two queues. Thread-safe."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._live_came = -_LIVE_IS_NEAR_SECONDS
        self._live: deque[Delivery[E]] = deque()
        self._bulk: deque[Unread[E]] = deque()
        self._bulk_by_topic: Counter[str] = Counter()
        self._takes = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, live: Sequence[Delivery[E]], bulk: Sequence[Unread[E]]) -> None:
        """Add what was polled."""
        with self._changed:
            if live:
                self._live_came = self._now()
            self._live.extend(live)
            self._bulk.extend(bulk)
            self._bulk_by_topic.update(unread.record.topic for unread in bulk)
            self._changed.notify()

    def take(self, limit: int) -> tuple[list[Delivery[E]], list[Unread[E]]] | None:
        """Up to `limit` live records, or half as many bulk ones (a tenth while live ones come).

        Waits for some; None once closed.
        """
        with self._changed:
            while not self._live and not self._bulk and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            self._takes += 1
            if self._bulk and (not self._live or self._takes % _BULK_TURN == 0):
                near = self._now() - self._live_came < _LIVE_IS_NEAR_SECONDS
                count = min(len(self._bulk), max(1, limit // (10 if near else 2)))
                unread = [self._bulk.popleft() for _ in range(count)]
                self._bulk_by_topic.subtract(one.record.topic for one in unread)
                return [], unread
            return [self._live.popleft() for _ in range(min(len(self._live), limit))], []

    def bulk_waiting(self, topic: str) -> int:
        """How many bulk records of a topic wait here."""
        return self._bulk_by_topic[topic]

    def close(self) -> None:
        """Wake the taker; it gets None from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
