"""Ranking: candidates from the index, exact scores of the best in every dimension, the caps, the final few.

Reads   the index
Writes  nothing
Never   encodes, and never compares two currencies
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.index_port import VectorIndex
from schemas.api import Filter, QueryOptions
from schemas.vectors import SPARSE_DIMENSIONS, DimensionQuery, FusedQuery, Point, Vector, Where
from service.catalogue import Target
from service.filters import Price, narrowed
from service.settings import ServiceSettings
from service.timing import INDEX, Timings

#: Rounds that a brand cap or collapsing variants may take; each leaves out what those before have judged.
MAX_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Asked:
    """One dimension of the query: its vector, its weight, and the raw score that counts as 1."""

    dimension: str
    vector: Vector
    weight: float
    unit: float = 1.0


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate with its exact scores by dimension (absent: it does not have it) and the fused one."""

    product_id: str
    score: float
    dimensions: Mapping[str, float]


def fused(scores: Mapping[str, float], asked: Sequence[Asked]) -> float:
    """The weighted mean over the dimensions that seed and hit both have; 0 where there is none."""
    total = sum(abs(one.weight) for one in asked if one.dimension in scores)
    if total == 0:
        return 0.0
    return sum(one.weight * scores[one.dimension] for one in asked if one.dimension in scores) / total


class Ranker:
    """Ranks one collection's items for what is asked. Thread-safe: it keeps nothing between calls."""

    def __init__(self, *, index: VectorIndex, settings: ServiceSettings) -> None:
        self._index = index
        self._settings = settings

    def ranked(
        self,
        asked: Sequence[Asked],
        target: Target,
        where: Where,
        request: QueryOptions,
        price: Price | None,
        timings: Timings,
    ) -> list[tuple[Scored, Point]]:
        """The best `limit` with their payload. A brand cap or collapsing asks again for what it displaced."""
        wanted = request.filter
        picky = wanted.brand_cap is not None or wanted.group == "collapse"
        pool = max(self._settings.rescored, request.limit * 2 if picky else request.limit + 10)
        kept: list[tuple[Scored, Point]] = []
        rules = Rules(wanted, price)
        judged: list[str] = []
        for _ in range(MAX_ROUNDS):
            narrow = narrowed(where, ids=judged, brands=rules.full_brands, groups=rules.seen_groups)
            scored = self._scored(asked, target, narrow, pool, timings)
            exhausted = len(scored) < pool
            judged += [one.product_id for one in scored]
            scored = [one for one in scored if wanted.min_score is None or one.score >= wanted.min_score]
            if not picky:
                scored = scored[: request.limit]
            with timings.asking(INDEX):
                shown = [one.product_id for one in scored]
                points = self._index.fetch(target.collection, shown, vectors=False) if shown else {}
            for one in scored:
                point = points.get(one.product_id)
                if len(kept) < request.limit and point is not None and rules.admit(point.payload):
                    kept.append((one, point))
            if len(kept) >= request.limit or exhausted or not picky:
                break
        kept.sort(key=lambda pair: (-pair[0].score, pair[0].product_id))
        return kept

    def _scored(
        self, asked: Sequence[Asked], target: Target, where: Where, pool: int, timings: Timings
    ) -> list[Scored]:
        """The best `pool` candidates with exact scores in every dimension, best first."""
        total = sum(abs(one.weight) for one in asked)
        queries = [
            DimensionQuery(
                one.dimension,
                one.vector,
                one.weight / total / one.unit,
                candidates=max(self._settings.candidates, pool),
            )
            for one in asked
        ]
        with timings.asking(INDEX):
            found = self._index.candidates(
                target.collection, FusedQuery(tuple(queries), where=where, limit=pool)
            )
            ids = [candidate.product_id for candidate in found]
            if not ids:
                return []
            exact = self._index.scores(target.collection, queries, ids)
            absent = self._without(asked, target, ids, exact)
        scored = []
        for product_id in ids:
            scores = {
                one.dimension: raw.get(product_id, 0.0) / one.unit
                for one, raw in zip(asked, exact, strict=True)
                if product_id in raw or (one.dimension, product_id) not in absent
            }
            scored.append(Scored(product_id, fused(scores, asked), scores))
        scored.sort(key=lambda one: (-one.score, one.product_id))
        return scored

    def _without(
        self,
        asked: Sequence[Asked],
        target: Target,
        ids: Sequence[str],
        exact: Sequence[Mapping[str, float]],
    ) -> set[tuple[str, str]]:
        """(dimension, product) pairs that have no vector there, among those that the engine gave no score.

        A dense vector is always scored, so a missing score means a missing vector. A sparse one without a
        score may just share nothing, which is a true 0: only its point tells.
        """
        absent: set[tuple[str, str]] = set()
        unsure: set[str] = set()
        for one, raw in zip(asked, exact, strict=True):
            unscored = [product_id for product_id in ids if product_id not in raw]
            if one.dimension in SPARSE_DIMENSIONS:
                unsure.update(unscored)
            else:
                absent.update((one.dimension, product_id) for product_id in unscored)
        if unsure:
            points = self._index.fetch(target.collection, sorted(unsure), vectors=True)
            absent.update(
                (one.dimension, product_id)
                for one in asked
                if one.dimension in SPARSE_DIMENSIONS
                for product_id, point in points.items()
                if one.dimension not in point.vectors
            )
        return absent


class Rules:
    """What is decided hit by hit, best first: deleted meanwhile, currency, brand cap, one of each group."""

    def __init__(self, wanted: Filter, price: Price | None) -> None:
        self._wanted = wanted
        self._compares_price = wanted.price_ratio is not None and price is not None
        self._currency = price.currency if price is not None else None
        self._brands: Counter[str] = Counter()
        self.seen_groups: list[str] = []

    @property
    def full_brands(self) -> list[str]:
        """Brands that have reached the cap."""
        cap = self._wanted.brand_cap
        return [] if cap is None else [brand for brand, count in self._brands.items() if count >= cap]

    def admit(self, payload: Mapping[str, Any]) -> bool:
        """Whether this hit may be shown after those admitted before it."""
        if payload.get("deleted") or "title" not in payload:
            return False
        # A price without a currency is compared with its like only, which the index cannot say.
        if self._compares_price and payload.get("currency") != self._currency:
            return False
        brand, group = payload.get("brand"), payload.get("group_id")
        if self._wanted.group == "collapse" and group is not None:
            if group in self.seen_groups:
                return False
        if brand is not None and brand in self.full_brands:
            return False
        if self._wanted.group == "collapse" and group is not None:
            self.seen_groups.append(group)
        if brand is not None:
            self._brands[brand] += 1
        return True
