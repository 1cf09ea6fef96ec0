"""What is found out about items from their neighbours: bodies of the API, and events."""

from __future__ import annotations

from typing import Literal

from schemas.events import Frozen


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
