"""What the index has taken, as it happens: items.updated, handed to whoever listens.

Reads   items.updated, from where it ends when somebody first asks
Writes  nothing
Never   runs while nobody asks; lets a listener that is slow hold up the others, or pile up what it has missed
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from adapters.kafka import Record
from schemas.errors import Halt, Transient
from schemas.events import ItemUpdated
from schemas.parsing import InvalidEvent, parse_event
from service.errors import Busy

log = logging.getLogger(__name__)
#: Updates that the figures are made of.
KEPT = 2_000
#: Updates that wait for one listener; older ones are passed over.
WAITING = 200
IDLE_SECONDS = 120.0
RETRY_SECONDS = 1.0
_POLL_SECONDS = 0.5


class Source(Protocol):
    """What a feed needs of adapters.kafka_log.Tail."""

    def poll(self, timeout_seconds: float, *, limit: int = 1_000) -> list[Record]:
        """What has arrived. Raises Halt or Transient."""
        ...

    def close(self) -> None:
        """Let go of the topic."""
        ...


class Listener:
    """One who listens, on one event loop: what has come and was not taken yet."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._waiting: deque[ItemUpdated] = deque(maxlen=WAITING)
        self._came = 0

    def hand(self, updates: Sequence[ItemUpdated]) -> None:
        """More has come; called on any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._take, updates)

    def _take(self, updates: Sequence[ItemUpdated]) -> None:
        self._waiting.extend(updates)
        self._came += len(updates)
        self._arrived.set()

    async def taken(self, timeout_seconds: float) -> tuple[list[ItemUpdated], int]:
        """What has come since the last call, and how much was too much to keep; ([], 0) when time is up."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._arrived.wait()
        except TimeoutError:
            return [], 0
        updates, came = list(self._waiting), self._came
        self._waiting.clear()
        self._came = 0
        self._arrived.clear()
        return updates, came - len(updates)


class UpdateFeed:
    """Follows the topic on a thread while somebody asks. `opened` opens it at its end."""

    def __init__(
        self,
        *,
        opened: Callable[[], Source],
        most_listeners: int,
        idle_seconds: float = IDLE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._opened = opened
        self._most = most_listeners
        self._idle_seconds = idle_seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._listeners: set[Listener] = set()
        self._recent: deque[ItemUpdated] = deque(maxlen=KEPT)
        self._asked = 0.0
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        #: Why the topic cannot be followed at present.
        self.away: str | None = None

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        """One more listener. Raises Busy when there are as many as may be."""
        listener = Listener()
        with self._lock:
            if len(self._listeners) >= self._most:
                raise Busy(f"{self._most} listen already", retry_after_seconds=30)
            self._listeners.add(listener)
        self._wake()
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.discard(listener)
                self._asked = self._monotonic()

    def recent(self) -> list[ItemUpdated]:
        """The newest updates since somebody began to ask, oldest first."""
        self._wake()
        with self._lock:
            return list(self._recent)

    @property
    def ended(self) -> bool:
        """Whether `close` was called: streams end."""
        return self._ended.is_set()

    def close(self) -> None:
        """Stop following, and end every stream."""
        self._ended.set()
        thread = self._thread
        if thread is not None:
            thread.join(10.0)

    def _wake(self) -> None:
        with self._lock:
            self._asked = self._monotonic()
            if (self._thread is None or not self._thread.is_alive()) and not self.ended:
                self._thread = threading.Thread(target=self._follow, name="update-feed", daemon=True)
                self._thread.start()

    def _wanted(self) -> bool:
        with self._lock:
            idle = not self._listeners and self._monotonic() - self._asked > self._idle_seconds
            if idle:
                self._recent.clear()
                self._thread = None  # decided under the lock: who asks next starts another
        return not idle and not self.ended

    def _follow(self) -> None:
        while self._wanted():
            try:
                source = self._opened()
            except (Transient, Halt) as error:
                self._pause(error)
                continue
            try:
                while self._wanted():
                    self._pass_on(source.poll(_POLL_SECONDS))
                    self.away = None
                return
            except (Transient, Halt) as error:
                self._pause(error)
            finally:
                source.close()

    def _pause(self, error: BaseException) -> None:
        self.away = str(error)
        log.warning("updates_unavailable reason=%s", ascii(self.away))
        self._ended.wait(RETRY_SECONDS)

    def _pass_on(self, records: Sequence[Record]) -> None:
        updates = []
        for record in records:
            if record.value is not None:
                try:
                    updates.append(parse_event(record.value, ItemUpdated))
                except InvalidEvent:
                    log.warning("update_unreadable partition=%d offset=%d", record.partition, record.offset)
        if updates:
            with self._lock:
                self._recent.extend(updates)
                listeners = list(self._listeners)
            for listener in listeners:
                listener.hand(updates)
