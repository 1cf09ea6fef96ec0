"""How far one partition has come: records in offset order, each settled by whoever did its work.

Pure bookkeeping. The loop adds and collects; handlers settle from any thread. One past the last record before
which everything is settled is what may be committed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Generic, TypeVar, cast

E = TypeVar("E")


class Progress:
    """One stay of a partition with this process; a new assignment or a rewind starts a new one."""

    __slots__ = ("_lock", "_marks", "_settled", "abandoned", "committed", "in_flight", "reached")

    def __init__(self, committed: int | None) -> None:
        #: What the group's commit is, as far as known; None before the first.
        self.committed = committed
        #: One past the last record before which all are settled; None before the first record.
        self.reached: int | None = None
        self.abandoned = False
        self.in_flight: deque[Delivery[Any]] = deque()
        # How many of those are settled, and wait for an older one.
        self._settled = 0
        self._lock = threading.Lock()
        # (when, reached): the past of `reached`, for commits that trail the effect.
        self._marks: deque[tuple[float, int]] = deque()

    def collect(self, now: float) -> None:
        """Move past what has been settled. `now` is monotonic seconds."""
        moved = None
        count = 0
        while self.in_flight and self.in_flight[0].settled:
            moved = self.in_flight.popleft().offset + 1
            count += 1
        if moved is not None:
            with self._lock:
                self._settled -= count
            self.reached = moved
            self._marks.append((now, moved))

    @property
    def unsettled(self) -> int:
        """How many records in flight still have work to be done."""
        return len(self.in_flight) - self._settled

    def settle(self, delivery: Delivery[Any]) -> None:
        """Mark it, once, however many threads say so."""
        with self._lock:
            if not delivery.settled:
                delivery.settled = True
                self._settled += 1

    def settle_all(self, deliveries: Iterable[Delivery[Any]]) -> None:
        """`settle` many of this stay at once."""
        with self._lock:
            for delivery in deliveries:
                if not delivery.settled:
                    delivery.settled = True
                    self._settled += 1

    def due(self, now: float, delay_seconds: float) -> int | None:
        """What may be committed: reached at least `delay_seconds` ago and not yet committed."""
        found = None
        while self._marks and self._marks[0][0] <= now - delay_seconds:
            found = self._marks.popleft()[1]
        return found

    def commit_again(self, offset: int) -> None:
        """That commit did not arrive; a later one covers it."""
        if not self.abandoned and self.committed == offset:
            self._marks.appendleft((0.0, offset))

    def abandon(self) -> None:
        """The partition went elsewhere or is read again: what is in flight here no longer counts."""
        self.abandoned = True
        self.in_flight.clear()
        with self._lock:
            self._settled = 0
        self._marks.clear()


class Delivery(Generic[E]):
    """One record on its way through a handler. `event` is None until it has been parsed."""

    __slots__ = ("_progress", "event", "offset", "settled")

    def __init__(self, event: E | None, offset: int, progress: Progress) -> None:
        self.event = cast(E, event)
        self.offset = offset
        self.settled = False
        self._progress = progress

    @property
    def abandoned(self) -> bool:
        """Nobody waits for this record here any more: its next owner, or a second reading, has it."""
        return self._progress.abandoned

    @property
    def committed(self) -> int:
        """Up to where its partition is committed, as far as is known here; 0 before the first commit."""
        return self._progress.committed or 0

    def settle(self) -> None:
        """The record's whole effect is done, announcements included. Any thread; again is harmless."""
        self._progress.settle(self)

    def let_go(self) -> None:
        """Drop the event of a settled record: it may wait long for an older one before it is committed."""
        if self.settled:
            self.event = cast(E, None)


def settle_all(deliveries: Sequence[Delivery[Any]]) -> None:
    """Settle many records: each stay's lock is taken once for those that stand together."""
    for progress, together in groupby(deliveries, key=attrgetter("_progress")):
        progress.settle_all(together)
