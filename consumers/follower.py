"""A handler's second stage: done on a thread of its own, in order, while the first prepares the next batch.

Pure plumbing. A store that is away is waited for here, as the loop does for the first stage.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from adapters.metrics import TRANSIENT_ERRORS_TOTAL
from schemas.errors import Transient

log = logging.getLogger(__name__)

T = TypeVar("T")

BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 5.0


class Follower(Generic[T]):
    """Runs `work` on each batch until it succeeds. `waiting` batches may queue; then `put` blocks."""

    def __init__(self, *, name: str, work: Callable[[T], None], waiting: int = 1) -> None:
        self._name = name
        self._work = work
        self._waiting = waiting
        self._batches: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        #: What ended the thread, if something did.
        self.fatal: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, batch: T) -> None:
        """Hand a batch over; it is dropped, undone, once this is closed."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._batches) < self._waiting or self._closed.is_set())
            self._batches.append(batch)
            self._changed.notify_all()

    def close(self) -> None:
        """Stop after the batch in hand; what waits stays undone."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(30.0)

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                with self._changed:
                    self._changed.wait_for(lambda: bool(self._batches) or self._closed.is_set())
                    if self._closed.is_set():
                        return
                    batch = self._batches.popleft()
                    self._changed.notify_all()
                self._until_done(batch)
        except BaseException as error:  # noqa: BLE001  handed to the runner, which raises it
            self.fatal = error
            self._closed.set()
            with self._changed:
                self._changed.notify_all()

    def _until_done(self, batch: T) -> None:
        pause = BACKOFF_SECONDS
        while not self._closed.is_set():
            try:
                self._work(batch)
                return
            except Transient as error:
                log.warning("consumer_waits consumer=%s reason=%s", self._name, error)
                TRANSIENT_ERRORS_TOTAL.labels(stage=self._name).inc()
                self._closed.wait(pause)
                pause = min(pause * 2, MAX_BACKOFF_SECONDS)
