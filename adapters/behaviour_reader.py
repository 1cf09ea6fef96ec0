"""Behaviour as the service and the command line read it: figures, recent items, trending.

Reads   behaviour in Redis
Writes  nothing
Never   gives out a shopper's name: whoever asks brings the user id
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from adapters.behaviour_scripts import TIERS
from adapters.behaviour_state import ItemBehaviour
from adapters.redis_behaviour import BehaviourStore
from adapters.registers import distinct_of
from adapters.shopper_hash import shopper_hash
from schemas.behaviour import TYPES, Interaction, ItemFigures, Trending, Window

#: The tier that answers a window, and its length in seconds.
WINDOWS: dict[Window, tuple[int, int]] = {
    "1h": (0, 3_600),
    "24h": (1, 86_400),
    "7d": (2, 7 * 86_400),
    "30d": (2, 30 * 86_400),
}
#: How many of the best of each bucket are added up.
_TREND_READ = 1_000


class RedisBehaviourReader:
    """Implements schemas.behaviour.BehaviourReader. Thread-safe; raises Transient when Redis is away."""

    def __init__(
        self,
        *,
        store: BehaviourStore,
        hash_key: bytes,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._hash_key = hash_key
        self._now = now

    def figures(self, product_ids: Sequence[str]) -> dict[str, ItemFigures]:
        """See the protocol."""
        now = self._now().timestamp()
        states = self._store.states(product_ids)
        return {
            product_id: figures_of(state, now)
            for product_id, state in zip(product_ids, states, strict=True)
            if state is not None
        }

    def recent(self, user_id: str, *, limit: int) -> list[Interaction]:
        """See the protocol."""
        found = self._store.recent(shopper_hash(user_id, self._hash_key), limit)
        return [
            Interaction(
                item.decode(), TYPES[int(score) % 8], datetime.fromtimestamp(int(score) // 8 / 1000, tz=UTC)
            )
            for item, score in found
        ]

    def bought(self, user_id: str) -> set[str]:
        """See the protocol."""
        return {item.decode() for item in self._store.bought(shopper_hash(user_id, self._hash_key))}

    def trending(self, window: Window, *, limit: int) -> list[Trending]:
        """See the protocol. A bucket counts half as much as one that is half the window younger."""
        tier, seconds = WINDOWS[window]
        now = self._now().timestamp()
        buckets = buckets_of(tier, seconds, now)
        width = TIERS[tier][0]
        totals: dict[bytes, float] = {}
        for bucket, items in zip(buckets, self._store.trend(tier, buckets, _TREND_READ), strict=True):
            age = max(0.0, now - (bucket + 1) * width)
            weight = 0.5 ** (age / (seconds / 2))
            for item, shoppers in items:
                totals[item] = totals.get(item, 0.0) + weight * shoppers
        best = sorted(totals.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]
        return [Trending(item.decode(), shoppers) for item, shoppers in best]


def buckets_of(tier: int, seconds: int, now: float) -> list[int]:
    """The buckets that overlap the last `seconds`, the newest first."""
    width = TIERS[tier][0]
    newest, oldest = math.floor(now / width), math.floor((now - seconds) / width)
    return list(range(newest, oldest, -1)) if newest - oldest > 1 else [newest, oldest]


def figures_of(state: ItemBehaviour, now: float) -> ItemFigures:
    """Figures of one item at `now` in seconds. A window is of whole buckets, the newest that cover it."""
    windows, shoppers, buyers = {}, {}, {}
    for window, (tier, seconds) in WINDOWS.items():
        found = [
            state.tiers[tier][bucket]
            for bucket in buckets_of(tier, seconds, now)
            if bucket in state.tiers[tier]
        ]
        windows[window] = {
            name: sum(int(bucket[place]) for bucket in found) for place, name in enumerate(TYPES)
        }
        shoppers[window] = distinct_of([bucket[7] for bucket in found])
        buyers[window] = distinct_of([bucket[8] for bucket in found])
    totals = {name: int(state.totals[place]) for place, name in enumerate(TYPES)}
    return ItemFigures(totals, windows, shoppers, buyers)
