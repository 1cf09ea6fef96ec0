"""Which of the scored candidates are shown, and in what order: rules hit by hit, and diversity. Pure.

Diversity is maximal marginal relevance (Carbonell and Goldstein, 1998): each place goes to the candidate with
the highest (1 - diversity) * score - diversity * (largest similarity to those already placed).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.api import Filter
from service.filters import Price
from service.fusion import Scored

#: How near each candidate of a pool is to the one at a place in it, shape (pool,).
Likeness = Callable[[int], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A hit, and what kept better ones out of its place."""

    scored: Scored
    #: Better candidates that it went before, for diversity's sake; None where that was not asked for.
    overtook: int | None = None
    #: Candidates left out before it, for their brand and for their group.
    capped: int = 0
    collapsed: int = 0


class Rules:
    """What is decided hit by hit, best first: deleted meanwhile, currency, brand cap, one of each group."""

    def __init__(self, wanted: Filter, price: Price | None) -> None:
        self._cap = wanted.brand_cap
        self._collapses = wanted.group == "collapse"
        self._compares_price = wanted.price_ratio is not None and price is not None
        self._currency = price.currency if price is not None else None
        self._brands: Counter[str] = Counter()
        self.seen_groups: dict[str, None] = {}
        self.capped = 0
        self.collapsed = 0

    @property
    def full_brands(self) -> list[str]:
        """Brands that have reached the cap."""
        cap = self._cap
        return [] if cap is None else [brand for brand, count in self._brands.items() if count >= cap]

    def admit(self, payload: Mapping[str, Any]) -> bool:
        """Whether this hit may be shown after those admitted before it."""
        if payload.get("deleted") or "title" not in payload:
            return False
        # A price without a currency is compared with its like only, which the index cannot say.
        if self._compares_price and payload.get("currency") != self._currency:
            return False
        brand, group = payload.get("brand"), payload.get("group_id")
        if self._collapses and group is not None and group in self.seen_groups:
            self.collapsed += 1
            return False
        if self._cap is not None and brand is not None and self._brands[brand] >= self._cap:
            self.capped += 1
            return False
        if self._collapses and group is not None:
            self.seen_groups[group] = None
        if brand is not None:
            self._brands[brand] += 1
        return True


def chosen(
    pool: Sequence[Scored],
    rules: Rules,
    limit: int,
    *,
    diversity: float = 0.0,
    likeness: Likeness | None = None,
) -> list[Chosen]:
    """At most `limit` of `pool`, which is ordered best first; in that order without diversity."""
    shown: list[Chosen] = []
    if likeness is None or diversity == 0:
        for one in pool:
            if len(shown) >= limit:
                break
            if rules.admit(one.payload):
                shown.append(Chosen(one, None, rules.capped, rules.collapsed))
        return shown

    judged: set[int] = set()

    def admit(place: int) -> bool:
        judged.add(place)
        if not rules.admit(pool[place].payload):
            return False
        overtook = sum(better not in judged for better in range(place))
        shown.append(Chosen(pool[place], overtook, rules.capped, rules.collapsed))
        return True

    scores = np.array([one.score for one in pool])
    marginal(scores, likeness, diversity=diversity, limit=limit, admit=admit)
    return shown


def marginal(
    scores: NDArray[np.float64],
    likeness: Likeness,
    *,
    diversity: float,
    limit: int,
    admit: Callable[[int], bool] = lambda place: True,
) -> list[int]:
    """Places in the order of maximal marginal relevance; one that `admit` refuses is passed over for good.

    At equal relevance the earlier place wins. With diversity 0 that is the order of the scores.
    """
    order: list[int] = []
    left = np.ones(len(scores), dtype=bool)
    nearest = np.zeros(len(scores))
    while len(order) < limit and left.any():
        worth = np.where(left, (1 - diversity) * scores - diversity * nearest, -np.inf)
        place = int(np.argmax(worth))
        left[place] = False
        if admit(place):
            # What lies on the other side of the origin is different, not more than different.
            nearest = np.maximum(nearest, likeness(place))
            order.append(place)
    return order
