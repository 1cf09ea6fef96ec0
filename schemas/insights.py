"""What is found out about items from their neighbours: bodies of the API, and events."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from schemas.api import HitItem
from schemas.events import Frozen
from schemas.relations import RelationBasis


class PriceBand(Frozen):
    """What comparable items cost, in the pack of the item that was asked about: quantiles of their prices.

    `spread` is the robust standard deviation of the natural logarithm of their prices: 0.25 means that two
    thirds cost within a factor of 1.28 of `median`. `items` counts them.
    """

    currency: str | None
    low: float
    quarter: float
    median: float
    three_quarters: float
    high: float
    spread: float
    items: int


class Comparable(Frozen):
    """One of the items that a price was compared with. `unit_price` is for one of its pack."""

    item_id: str
    title: str
    price: str
    unit_price: float
    pack: int
    condition: str | None = None
    similarity: float


PriceBasis = Literal["same pack, same condition", "unit price, same condition", "unit price, any condition"]


class PriceView(Frozen):
    """GET /v1/items/{item_id}/price. What cannot be said is null, and `evidence` says why.

    `position` is the share of comparable items that cost less. `ratio` is the price over the centre of the
    band, `score` its distance from there in standard deviations, on a logarithmic scale: below 0 is cheap.
    """

    item_id: str
    price: str | None = None
    currency: str | None = None
    pack: int = 1
    condition: str | None = None
    outlier: bool = False
    score: float | None = None
    ratio: float | None = None
    position: float | None = None
    band: PriceBand | None = None
    basis: PriceBasis | None = None
    evidence: str
    comparables: list[Comparable] = []
    release_id: str
    took_ms: float


class Relation(Frozen):
    """Another item that shoppers have together with the one asked about, more often than chance would.

    Of the baskets (`basis` "bought together") or visits ("looked at together"): `together` have both,
    `support` is their share of all, `confidence` their share of those with the item asked about,
    `confidence_back` of those with the other. `lift` is how many times as often as in shuffled baskets of
    the same sizes, drawn towards 1 where little is known; `lift_low` is its lower confidence bound, by
    which relations are ordered. `later` is the share of baskets in which the other was bought after the
    item; null where too few tell. `similarity` is of the texts.
    """

    item_id: str
    basis: RelationBasis
    together: int
    support: float
    confidence: float
    confidence_back: float
    lift: float
    lift_low: float
    later: float | None = None
    similarity: float
    item: HitItem


class BundleView(Frozen):
    """Items that are bought in one basket with the item asked about: `together` baskets have all of them."""

    items: list[HitItem]
    together: int
    confidence: float


class RelationsView(Frozen):
    """GET /v1/items/{item_id}/relations.

    `substitutes` are alike and looked at together, `complements` are bought together and not alike (or are
    bought together rather than compared). `baskets` and `visits` are how many the item was in; what they are
    too few for is left out, and `evidence` says what it rests on. `mined_at` is null before the first run.
    """

    item_id: str
    substitutes: list[Relation] = []
    complements: list[Relation] = []
    bundles: list[BundleView] = []
    baskets: int = 0
    visits: int = 0
    mined_at: datetime | None = None
    evidence: str
    release_id: str
    took_ms: float
