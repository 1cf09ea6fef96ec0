"""What shoppers' baskets and visits say about pairs of items, as the miner keeps it and the service reads it.

consumers/relations.py finds it, adapters/redis_relations.py keeps it and implements `RelationReader`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from schemas.events import Frozen

#: What a pair rests on: baskets, or visits.
RelationBasis = Literal["bought together", "looked at together"]


class Evidence(Frozen):
    """How often two items were in one basket (or one visit), and how often chance would have put them there.

    `together` and `other` (those with the other item) are counts; `expected` is what shuffled baskets of the
    same sizes would have. `lift` is together over expected, drawn towards 1 where little is expected,
    `lift_low` its lower confidence bound. `sure` says that the bound is high enough, and enough shoppers.
    """

    together: int
    other: int
    expected: float
    lift: float
    lift_low: float
    sure: bool


class Partner(Frozen):
    """One other item. `later`: of the baskets with an order, the share in which it came after the item."""

    item_id: str
    bought: Evidence | None = None
    seen: Evidence | None = None
    later: float | None = None


class Bundle(Frozen):
    """Two more items that are bought together with the item, all three in `together` baskets."""

    items: tuple[str, str]
    together: int


class Mined(Frozen):
    """What is known of one item: in how many baskets and visits it was, and with what beyond chance."""

    baskets: int
    visits: int
    partners: tuple[Partner, ...] = ()
    bundles: tuple[Bundle, ...] = ()


class Run(Frozen):
    """One run of the miner, as a whole."""

    run: str
    mined_at: datetime
    baskets: int
    visits: int
    items: int
    pairs: int


class Known(NamedTuple):
    """The run that is live, None before the first; what it found of an item, None for nothing."""

    run: Run | None
    mined: Mined | None


class RelationReader(Protocol):
    """Reads what the newest complete run found. Raises Transient when the store is away."""

    def of(self, product_id: str) -> Known:
        """What is known of an item."""
        ...

    def of_all(self, product_ids: Sequence[str]) -> tuple[Run | None, Mapping[str, Mined]]:
        """The run that is live, and what it found of each of these items; those without anything left out."""
        ...
