"""Scores of several dimensions become one: evidence, renormalisation, factors. Pure.

docs/similarity.md explains each formula with an example whose numbers come from here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from schemas.vectors import CONTENT, Vector


@dataclass(frozen=True, slots=True)
class Asked:
    """One dimension of the query: its vector, its weight, and the raw score that counts as 1.

    `evidence` is the seeds' part in how much the dimension counts. `norm` is the length of the seeds'
    weighted sum, of which `vector` is the direction.
    """

    dimension: str
    vector: Vector
    weight: float
    unit: float = 1.0
    evidence: float = 1.0
    norm: float = 1.0


class Factors(NamedTuple):
    """What a score was multiplied by, each None where nothing was asked for or known."""

    same_category: float | None = None
    freshness: float | None = None
    #: Of the shop's own rules.
    shop: float | None = None

    def of(self, score: float) -> float:
        """The score with the factors applied. A negative one stays: less of it would be more."""
        if score <= 0:
            return score
        for factor in self:
            if factor is not None:
                score *= factor
        return score


NO_FACTORS = Factors()


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate: its exact score in each dimension it has, what each counted with, and the fused one."""

    product_id: str
    score: float
    dimensions: Mapping[str, float]
    weights: Mapping[str, float]
    payload: Mapping[str, Any]
    factors: Factors = NO_FACTORS

    @property
    def plain(self) -> float:
        """The score before the factors."""
        return fused(self.dimensions, self.weights)


def evidence(shoppers: float, half: float) -> float:
    """How much `shoppers` shoppers say, from 0 towards 1: n / (n + half), so a half at `half` of them.

    The form in which Koren (2008, Factorization meets the neighborhood, section 2.2) shrinks similarities.
    """
    return shoppers / (shoppers + half) if shoppers > 0 else 0.0


def evidence_of(seeds: Sequence[tuple[float, float]], half: float) -> float:
    """Evidence of several seeds, (weight, shoppers) each: the mean by the size of their weights.

    A seed that nobody touched counts with 0: that part of the request is not in the behaviour vector either.
    """
    total = sum(abs(weight) for weight, _ in seeds)
    if total == 0:
        return 0.0
    return sum(abs(weight) * evidence(shoppers, half) for weight, shoppers in seeds) / total


def weights_for(asked: Sequence[Asked]) -> dict[str, float]:
    """What each dimension counts with, for every hit of the query: behaviour by the evidence of the seeds."""
    return {one.dimension: one.weight * one.evidence for one in asked}


def fused(scores: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The weighted mean over the dimensions that seed and hit both have; 0 where there is none."""
    total = sum(abs(weights[name]) for name in scores)
    if total == 0:
        return 0.0
    return sum(weights[name] * score for name, score in scores.items()) / total


def category_factor(wanted: float, leaves: Collection[tuple[str, ...]], path: Sequence[str]) -> float | None:
    """`same_category` for a hit with this category path: 1 - its size on the side that loses.

    None where it makes no difference, or where the seeds or the hit have no category.
    """
    if wanted == 0 or not leaves or not path:
        return None
    loses = (tuple(path) in leaves) != (wanted > 0)
    return 1.0 - abs(wanted) if loses else None


def freshness_factor(wanted: float, age_seconds: float, half_life_seconds: float) -> float:
    """1 for what is new, 1 - `wanted` for what is old, half way between the two after one half-life."""
    left: float = 0.5 ** (max(0.0, age_seconds) / half_life_seconds)
    return 1.0 - wanted * (1.0 - left)


def age_seconds(payload: Mapping[str, Any], now: datetime) -> float | None:
    """How long an item has been as it is: since the older of its last event and its text's last encoding.

    A price change is an event and a new release encodes everything again; neither alone makes an item new.
    """
    times = (payload.get("occurred_at"), (payload.get("updated_at") or {}).get(CONTENT))
    known = [datetime.fromisoformat(time) for time in times if time is not None]
    return (now - min(known)).total_seconds() if known else None
