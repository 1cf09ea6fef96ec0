"""Seeded shoppers for the proofs of behaviour: few items, many events, some sent twice, some late or early.

Reads   nothing
Writes  nothing
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random

from schemas.events import UserEvent, UserEventType

_TYPES: list[UserEventType] = ["view"] * 5
_TYPES += ["click", "cart", "purchase", "share", "rate", "impression"]
#: How old an event is when it is sent; the last one comes from a clock that runs ahead.
_AGES_SECONDS = (0, 60, 5_000, 90_000, 900_000, -9_999)
#: An event that is sent again is one of the latest so many.
_LATEST = 40


class Shoppers:
    """An endless stream of user events."""

    def __init__(
        self, draw: Random, *, shoppers: int = 60, items: int = 12, now: datetime | None = None
    ) -> None:
        self._draw = draw
        self._shoppers = shoppers
        self._items = items
        self._now = now
        self._sent: list[UserEvent] = []
        #: How many events were there, and how many of them had been sent before.
        self.count = self.again = 0

    def event(self) -> UserEvent:
        """The next one: one in ten was sent before."""
        draw = self._draw
        self.count += 1
        if self._sent and draw.random() < 0.1:
            self.again += 1
            return draw.choice(self._sent)
        kind = draw.choice(_TYPES)
        event = UserEvent(
            event_id=f"e{self.count}",
            type=kind,
            user_id=f"u{int(draw.paretovariate(0.8)) % self._shoppers}",
            product_id=f"p{int(draw.paretovariate(0.7)) % self._items}",
            occurred_at=(self._now or datetime.now(UTC)) - timedelta(seconds=draw.choice(_AGES_SECONDS)),
            value=str(draw.randrange(6)) if kind == "rate" else None,
        )
        self._sent = [*self._sent[1 - _LATEST :], event]
        return event

    def events(self, count: int) -> Iterator[UserEvent]:
        """So many of them."""
        for _ in range(count):
            yield self.event()
