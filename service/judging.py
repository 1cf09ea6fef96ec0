"""How good rankings are: recall, NDCG and hit rate of each query, and intervals of their means. Pure.

A query has relevant items, at least one; found is what was answered, best first. Of k:

    recall    relevant items among the first k, over all relevant ones
    NDCG      sum of 1 / log2(2 + place) over relevant items among the first k (places from 0), over the
              largest sum that so many relevant items could have (Järvelin and Kekäläinen 2002)
    hit rate  the share of queries with a relevant item among the first k

Intervals are percentiles of means of queries drawn with replacement (Efron 1979). Two configurations are
compared by their difference query by query, which is what a paired bootstrap draws from.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Metric = Literal["recall", "ndcg", "hit_rate"]
METRICS: tuple[Metric, ...] = ("recall", "ndcg", "hit_rate")
DRAWS = 2_000
#: Draws that are held in memory at once, times queries.
_CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `count` queries and the middle 95 % of what other draws of such queries would give."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def significant(self) -> bool:
        """Whether zero lies outside: of a difference, that it is not by chance (at 95 %)."""
        return self.low > 0 or self.high < 0


def judged(found: Sequence[str], relevant: Collection[str], k: int) -> dict[Metric, float]:
    """The figures of one query. Raises ValueError where nothing is relevant."""
    if not relevant:
        raise ValueError("a query without a relevant item says nothing")
    wanted = frozenset(relevant)
    places = [place for place, item in enumerate(found[:k]) if item in wanted]
    return {
        "recall": len(places) / len(wanted),
        "ndcg": sum(map(gain, places)) / ideal(len(wanted), k),
        "hit_rate": float(bool(places)),
    }


def gain(place: int) -> float:
    """What a relevant item at a place is worth, the first place (0) being worth 1."""
    return 1.0 / math.log2(2 + place)


def ideal(relevant: int, k: int) -> float:
    """The largest sum of gains that so many relevant items can have among k."""
    return sum(map(gain, range(min(relevant, k))))


def interval(values: Sequence[float], *, seed: int, draws: int = DRAWS) -> Interval:
    """The mean of the values with its 95 % interval. Raises ValueError without values."""
    if not len(values):
        raise ValueError("an interval needs at least one value")
    held = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means: list[NDArray[np.float64]] = []
    left = draws
    while left > 0:
        now = max(1, min(left, _CELLS // len(held)))
        means.append(held[rng.integers(len(held), size=(now, len(held)))].mean(axis=1))
        left -= now
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Interval(float(held.mean()), float(low), float(high), len(held))


def intervals(queries: Sequence[Mapping[Metric, float]], *, seed: int) -> dict[Metric, Interval]:
    """Each figure's mean over the queries."""
    return {metric: interval([query[metric] for query in queries], seed=seed) for metric in METRICS}
