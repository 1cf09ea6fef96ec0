"""What shoppers did as baskets and visits: sets of items that one shopper had together. Pure.

Reads   rows of the archive, in memory
Writes  nothing
Never   counts an item twice in one of them, or one shopper for more than `most_occasions`

A basket is what one shopper bought with no longer pause than `basket_hours`; a visit what one looked at, by
the shop's session or a pause.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from schemas.events import Frozen

Ints = NDArray[np.int64]


class RelationSettings(Frozen):
    """How pairs are found; `surety` and `least_lift` as benchmarks/relations.py says."""

    #: How often `simstream up` looks; None: never, but `simstream relations mine` does at once.
    every_minutes: float | None = Field(default=None, gt=0)
    basket_hours: float = Field(default=12.0, gt=0)
    visit_gap_minutes: float = Field(default=30.0, gt=0)
    #: A basket or visit of more items is a reseller's or a robot's, and is left out.
    most_items: int = Field(default=100, ge=2, le=1_000)
    #: Of one shopper the newest so many baskets, and so many visits.
    most_occasions: int = Field(default=100, ge=1)
    #: Distinct shoppers behind a pair.
    least_shoppers: int = Field(default=5, ge=2)
    shrinkage: float = Field(default=2.0, gt=0)
    #: The lower bound lies this many standard deviations down, and must reach that lift.
    surety: float = Field(default=3.0, ge=0)
    least_lift: float = Field(default=1.1, ge=1)
    #: The surest partners that are kept of an item, of baskets and of visits.
    kept: int = Field(default=20, ge=1, le=200)
    #: What no run renews goes after so long.
    kept_days: float = Field(default=14.0, gt=0)


class Interactions(NamedTuple):
    """Events column by column. `item` and `shopper` are numbers, `visit` one of a named session or -1."""

    items: list[str]
    item: Ints
    shopper: Ints
    at_ms: Ints
    visit: Ints
    bought: NDArray[np.bool_]

    def rows(self, chosen: NDArray[np.bool_] | Ints) -> Interactions:
        """These events alone; the names stay."""
        return self._replace(
            item=self.item[chosen],
            shopper=self.shopper[chosen],
            at_ms=self.at_ms[chosen],
            visit=self.visit[chosen],
            bought=self.bought[chosen],
        )


class Occasions(NamedTuple):
    """Baskets or visits: a row for each item of each, ordered by both. `total` counts those with an item."""

    occasion: Ints
    item: Ints
    shopper: Ints
    at_ms: Ints
    total: int


def read_archive(table: Any) -> Interactions:
    """Rows of adapters/archive.py as columns."""
    products, shoppers, visits = (
        table[name].combine_chunks().dictionary_encode() for name in ("product", "shopper", "session")
    )
    return Interactions(
        items=products.dictionary.to_pylist(),
        item=products.indices.to_numpy(zero_copy_only=False).astype(np.int64),
        shopper=shoppers.indices.to_numpy(zero_copy_only=False).astype(np.int64),
        at_ms=table["at_ms"].to_numpy().astype(np.int64),
        visit=visits.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64),
        bought=np.array(table["type"].to_pylist(), dtype=object) == "purchase",
    )


def occasions(events: Interactions, gap_ms: int, settings: RelationSettings, *, named: bool) -> Occasions:
    """The events as baskets or visits: each item once in each, at its first time."""
    nothing = np.zeros(0, dtype=np.int64)
    if not len(events.item):
        return Occasions(nothing, nothing, nothing, nothing, 0)
    visit = events.visit if named else np.full(len(events.item), -1)
    order = np.lexsort((events.at_ms, visit, events.shopper))
    shopper, visit, at_ms = events.shopper[order], visit[order], events.at_ms[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (
        (shopper[1:] != shopper[:-1])
        | (visit[1:] != visit[:-1])
        | ((visit[1:] == -1) & (np.diff(at_ms) > gap_ms))
    )
    number = np.cumsum(new) - 1
    # A shopper's newest.
    starts, owners = at_ms[new], shopper[new]
    by_time = np.lexsort((-starts, owners))
    first = np.searchsorted(owners[by_time], owners[by_time], side="left")
    newest = np.empty(len(starts), dtype=bool)
    newest[by_time] = np.arange(len(starts)) - first < settings.most_occasions
    # Each item once, at its first time.
    item = events.item[order]
    once = np.lexsort((at_ms, item, number))
    number, item, shopper, at_ms = number[once], item[once], shopper[once], at_ms[once]
    keep = np.ones(len(number), dtype=bool)
    keep[1:] = (number[1:] != number[:-1]) | (item[1:] != item[:-1])
    keep &= newest[number]
    sizes = np.bincount(number[keep], minlength=len(starts))
    keep &= (sizes <= settings.most_items)[number]
    total = int(np.count_nonzero((sizes > 0) & (sizes <= settings.most_items)))
    return Occasions(number[keep], item[keep], shopper[keep], at_ms[keep], total)
