"""Whether a store that queries do without answers at present: asked beside them, never by them.

Reads   the store, once in a while, on a thread of its own
Writes  nothing
Never   delays a query: it is told what was known a moment ago
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from schemas.errors import Halt, Transient

EVERY_SECONDS = 1.0
NOTE = (
    "item state (Redis) does not answer: neighbours are as the index last saw them,"
    " and changes of items are not yet in it"
)


class Standing:
    """Remembers whether `ping` raised when it was last called."""

    def __init__(
        self,
        ping: Callable[[], None],
        *,
        every_seconds: float = EVERY_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ping = ping
        self._every_seconds = every_seconds
        self._monotonic = monotonic
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="api-standing")
        self._asking: Future[None] | None = None
        self._next = monotonic()
        self._away = False

    def away(self) -> bool:
        """Whether it was away a moment ago; asks again in the background when that is old.

        Called on the event loop alone.
        """
        if (self._asking is None or self._asking.done()) and self._monotonic() >= self._next:
            self._next = self._monotonic() + self._every_seconds
            self._asking = self._pool.submit(self._ask)
        return self._away

    @property
    def known_away(self) -> bool:
        """Whether it was away when it was last asked; for any thread."""
        return self._away

    def _ask(self) -> None:
        try:
            self._ping()
        except (Transient, Halt):
            self._away = True
        else:
            self._away = False
