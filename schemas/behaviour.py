"""What shoppers did, as the rest of the house reads it.

adapters/redis_behaviour.py implements `BehaviourReader`; the service is handed one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from schemas.events import UserEventType

#: The place of each type in counters, and in the score of a recent item.
TYPES: tuple[UserEventType, ...] = ("view", "click", "cart", "purchase", "share", "rate", "impression")
PLACE: Mapping[str, int] = {name: place for place, name in enumerate(TYPES)}

Window = Literal["1h", "24h", "7d", "30d"]


class Interaction(NamedTuple):
    """The newest thing a shopper did with an item."""

    item_id: str
    type: UserEventType
    at: datetime


class Trending(NamedTuple):
    """An item and how many shoppers interacted with it in a window, newer ones counting more."""

    item_id: str
    shoppers: float


@dataclass(frozen=True, slots=True)
class ItemFigures:
    """What happened to one item.

    `totals` and `windows` count every event once; `shoppers` and `buyers` estimate how many different people
    interacted with it and bought it, so that one account counts once.
    """

    totals: Mapping[UserEventType, int]
    windows: Mapping[Window, Mapping[UserEventType, int]]
    shoppers: Mapping[Window, float]
    buyers: Mapping[Window, float]

    def conversion(self, window: Window) -> float | None:
        """Buyers over shoppers in a window; None without any shopper."""
        shoppers = self.shoppers.get(window, 0.0)
        return min(1.0, self.buyers.get(window, 0.0) / shoppers) if shoppers else None


class BehaviourReader(Protocol):
    """Reads behaviour by raw user ids; the store knows only their keyed hashes. Raises Transient."""

    def figures(self, product_ids: Sequence[str]) -> dict[str, ItemFigures]:
        """Figures of each item that anything happened to."""
        ...

    def recent(self, user_id: str, *, limit: int) -> list[Interaction]:
        """A shopper's items, each once, the newest first."""
        ...

    def bought(self, user_id: str) -> set[str]:
        """The items that a shopper bought lately."""
        ...

    def trending(self, window: Window, *, limit: int) -> list[Trending]:
        """The items with the most shoppers in a window, best first."""
        ...
