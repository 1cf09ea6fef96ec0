"""What shoppers did, from lists in memory. Implements schemas.behaviour.BehaviourReader.

Remembers what it was asked (`asked`), and can be away: every call then raises Transient, as without Redis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from schemas.behaviour import Interaction, ItemFigures, Trending, Window
from schemas.errors import Transient
from schemas.events import UserEventType

LATEST = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def visits(*items: str | tuple[str, UserEventType]) -> list[Interaction]:
    """Interactions, the newest first and a minute apart; a plain id was viewed."""
    pairs: list[tuple[str, UserEventType]] = [
        (each, "view") if isinstance(each, str) else each for each in items
    ]
    return [
        Interaction(item_id, kind, LATEST - timedelta(minutes=number))
        for number, (item_id, kind) in enumerate(pairs)
    ]


@dataclass
class FakeBehaviour:
    """`shopped` and `purchases` are by user, `items` by item, `windows` by window: shoppers of each item."""

    shopped: Mapping[str, Sequence[Interaction]] = field(default_factory=dict)
    purchases: Mapping[str, set[str]] = field(default_factory=dict)
    items: Mapping[str, ItemFigures] = field(default_factory=dict)
    windows: Mapping[Window, Mapping[str, float]] = field(default_factory=dict)
    away: bool = False
    asked: list[str] = field(default_factory=list)

    def figures(self, product_ids: Sequence[str]) -> dict[str, ItemFigures]:
        """Figures of each item that anything happened to."""
        self._answer("figures")
        return {product_id: self.items[product_id] for product_id in product_ids if product_id in self.items}

    def recent(self, user_id: str, *, limit: int) -> list[Interaction]:
        """A shopper's items, the newest first."""
        self._answer("recent")
        return list(self.shopped.get(user_id, ()))[:limit]

    def bought(self, user_id: str) -> set[str]:
        """The items that a shopper bought."""
        self._answer("bought")
        return set(self.purchases.get(user_id, ()))

    def trending(self, window: Window, *, limit: int) -> list[Trending]:
        """The items of a window, the one with the most shoppers first."""
        self._answer("trending")
        ranked = sorted(self.windows.get(window, {}).items(), key=lambda pair: (-pair[1], pair[0]))
        return [Trending(item_id, shoppers) for item_id, shoppers in ranked[:limit]]

    def _answer(self, method: str) -> None:
        self.asked.append(method)
        if self.away:
            raise Transient("Redis did not answer within 5 s")
