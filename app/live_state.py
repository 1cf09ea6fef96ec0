"""State as the service reads it: of whichever generation is live, without a restart when another takes over.

Reads   the pointer to the live generation, once a second at most; items and behaviour of that generation
Writes  nothing

Both generations are kept current until the pointer moves, so a request that reads the one before answers a
second late and no more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adapters.redis_items import ItemStore
from schemas.behaviour import BehaviourReader, Interaction, ItemFigures, Trending, Window
from schemas.items import ItemState

LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class State:
    """Both readers of one generation."""

    items: ItemStore
    behaviour: BehaviourReader


class LiveState:
    """Implements schemas.items.Items and schemas.behaviour.BehaviourReader. Thread-safe; raises Transient."""

    def __init__(
        self,
        *,
        live: Callable[[], int],
        opened: Callable[[int], State],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live = live
        self._opened = opened
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._generation: int | None = None
        self._state: State | None = None
        self._next_look = 0.0

    def _now(self) -> State:
        """The live state. One thread asks; the others take what is known, as long as something is."""
        state = self._state
        if state is not None and self._monotonic() < self._next_look:
            return state
        if not self._lock.acquire(blocking=state is None):
            assert state is not None  # noqa: S101  without one the lock is waited for
            return state
        try:
            if self._state is None or self._monotonic() >= self._next_look:
                generation = self._live()
                if generation != self._generation or self._state is None:
                    self._state = self._opened(generation)
                    self._generation = generation
                self._next_look = self._monotonic() + LOOK_SECONDS
            return self._state
        finally:
            self._lock.release()

    def read(self, product_ids: Sequence[str]) -> dict[str, ItemState]:
        """See the protocol."""
        return self._now().items.read(product_ids)

    def ping(self) -> None:
        """See the protocol."""
        self._now().items.ping()

    def figures(self, product_ids: Sequence[str]) -> dict[str, ItemFigures]:
        """See the protocol."""
        return self._now().behaviour.figures(product_ids)

    def recent(self, user_id: str, *, limit: int) -> list[Interaction]:
        """See the protocol."""
        return self._now().behaviour.recent(user_id, limit=limit)

    def bought(self, user_id: str) -> set[str]:
        """See the protocol."""
        return self._now().behaviour.bought(user_id)

    def trending(self, window: Window, *, limit: int) -> list[Trending]:
        """See the protocol."""
        return self._now().behaviour.trending(window, limit=limit)
