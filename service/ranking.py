"""Ranking: candidates from the index, exact scores of the best in every dimension, rules, the final few.

Reads   the index
Writes  nothing
Never   encodes, and never compares two currencies
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.index_port import VectorIndex
from schemas.vectors import (
    BEHAVIOUR,
    CONTENT,
    SPARSE_DIMENSIONS,
    Candidate,
    DimensionQuery,
    FusedQuery,
    Where,
)
from service.catalogue import Target
from service.filters import Price, holds, narrowed
from service.fusion import (
    NO_FACTORS,
    Asked,
    Factors,
    Scored,
    age_seconds,
    category_factor,
    freshness_factor,
    fused,
    weights_for,
)
from service.presets import Wanted
from service.related import NOTHING_RELATED, RELATIONS, Relating
from service.rules import NOTHING_SAID, Ruling
from service.selection import Chosen, Likeness, Rules, chosen
from service.settings import ServiceSettings
from service.timing import INDEX, Timings

#: Rounds that rules may take; each leaves out what those before have judged.
MAX_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for, in vectors and conditions; `leaves` are the positive seeds' category paths."""

    asked: Sequence[Asked]
    where: Where
    wanted: Wanted
    price: Price | None = None
    leaves: Collection[tuple[str, ...]] = ()
    ruling: Ruling = NOTHING_SAID
    relating: Relating = NOTHING_RELATED


class Ranker:
    """Ranks one collection's items for what is asked. Thread-safe: it keeps nothing between calls."""

    def __init__(
        self, *, index: VectorIndex, settings: ServiceSettings, clock: Callable[[], datetime]
    ) -> None:
        self._index = index
        self._settings = settings
        self._clock = clock

    def ranked(self, query: Query, target: Target, timings: Timings) -> list[Chosen]:
        """The best `limit`. What the rules left out of too few is asked for again."""
        wanted, ruling = query.wanted, query.ruling
        least = wanted.filter.min_score
        picky = wanted.filter.brand_cap is not None or wanted.filter.group == "collapse" or ruling.picky
        more = picky or wanted.diversity > 0
        size = max(self._settings.rescored, wanted.limit * 2 if more else wanted.limit + 10)
        found: list[Scored] = []
        judged: list[str] = []
        shown: list[Chosen] = []
        rules = Rules(wanted.filter, query.price)
        for _ in range(MAX_ROUNDS):
            where = narrowed(query.where, ids=judged, brands=rules.full_brands, groups=rules.seen_groups)
            queries = self._queries(query, size)
            candidates, lifted = self._candidates(query, queries, target, where, size, timings, not judged)
            full = len(candidates) >= size
            candidates += lifted
            judged += [candidate.product_id for candidate in candidates]
            kept = [candidate for candidate in candidates if not ruling.refuses(candidate.payload)]
            scored = self._scored(query, queries, target, kept, timings)
            found += [
                one
                for one in scored
                if least is None or one.score >= least or one.product_id in ruling.pinned
            ]
            found.sort(key=lambda one: (-one.score, one.product_id))
            rules = Rules(wanted.filter, query.price)
            shown = self._shown(found, rules, query, target, timings)
            raised = {candidate.product_id for candidate in lifted}
            usual = [one for one in scored if one.product_id not in raised]
            if not full or (least is not None and _reached(least, usual)):
                break
            sunk = _sunk(shown, usual)
            if len(shown) >= wanted.limit and not sunk:
                break
            # Those that a factor took below `min_score`: others below the candidates may have lost nothing.
            fell = 0 if least is None else sum(one.score < least for one in usual)
            if not picky and not sunk and not fell:
                break
            if sunk or 2 * (len(kept) - fell) < len(candidates):
                size *= 2
        return shown

    def _shown(
        self, found: Sequence[Scored], rules: Rules, query: Query, target: Target, timings: Timings
    ) -> list[Chosen]:
        """The hits among what was found, best first; in front of them what the shop pinned."""
        wanted, pinned = query.wanted, query.ruling.pinned
        front = [one for one in found if one.product_id in pinned] if pinned else []
        others = [one for one in found if one.product_id not in pinned] if pinned else found
        first = chosen(front, rules, wanted.limit)
        diverse = bool(others) and wanted.diversity > 0
        return first + chosen(
            others,
            rules,
            wanted.limit - len(first),
            diversity=wanted.diversity,
            likeness=self._likeness(others, target, timings) if diverse else None,
        )

    def _queries(self, query: Query, size: int) -> list[DimensionQuery]:
        total = sum(abs(one.weight) for one in query.asked)
        return [
            DimensionQuery(
                one.dimension,
                one.vector,
                one.weight * one.evidence / total / one.unit,
                candidates=max(self._settings.candidates, size),
            )
            for one in query.asked
        ]

    def _candidates(
        self,
        query: Query,
        queries: Sequence[DimensionQuery],
        target: Target,
        where: Where,
        size: int,
        timings: Timings,
        first: bool,
    ) -> tuple[list[Candidate], list[Candidate]]:
        """The best `size`; in the first round also what a rule pins, and the best of what is lifted or mined.

        Those may lie below the others as they are, and what raises them has to reach them. What is pinned is
        fetched: it may be nothing that the dimensions of the query could find.
        """
        with timings.asking(INDEX):
            found = self._index.candidates(
                target.collection, FusedQuery(tuple(queries), where=where, limit=size)
            )
            held = {candidate.product_id for candidate in found}
            lifted = []
            for raised in [*query.ruling.raised(), *query.relating.raised(size)] if first else ():
                both = Where((*where.must, *raised.must), where.must_not)
                others = self._index.candidates(
                    target.collection, FusedQuery(tuple(queries), where=both, limit=size)
                )
                lifted += [candidate for candidate in others if candidate.product_id not in held]
                held |= {candidate.product_id for candidate in others}
            pinned = sorted(query.ruling.pinned.keys() - held) if first else []
            points = self._index.fetch(target.collection, pinned, vectors=False) if pinned else {}
        lifted += [
            Candidate(product_id, 0.0, point.payload)
            for product_id, point in points.items()
            if holds(where, point.payload)
        ]
        return found, lifted

    def _scored(
        self,
        query: Query,
        queries: Sequence[DimensionQuery],
        target: Target,
        found: Sequence[Candidate],
        timings: Timings,
    ) -> list[Scored]:
        """The candidates with exact scores in every dimension."""
        asked = query.asked
        ids = [candidate.product_id for candidate in found]
        known = [
            {one.product_id: one.known[name] for one in found if name in one.known}
            for name in (each.dimension for each in asked)
        ]
        with timings.asking(INDEX):
            others = self._index.scores(target.collection, queries, ids, known=known)
        exact = [had | more for had, more in zip(known, others, strict=True)]
        weights = weights_for(asked)
        relating = query.relating
        if relating.partners:
            weights[RELATIONS] = relating.weight
        factors = self._factors(query, found)
        scored = []
        for place, candidate in enumerate(found):
            product_id, payload = candidate.product_id, candidate.payload
            scores: dict[str, float] = {}
            for one, raw in zip(asked, exact, strict=True):
                score = raw.get(product_id)
                if score is None:
                    if not _shares_nothing(one.dimension, candidate):
                        continue
                    score = 0.0
                if weights[one.dimension] != 0:
                    scores[one.dimension] = score / one.unit
            if relating.partners:
                scores[RELATIONS] = relating.score(product_id)
            applied = factors[place] if factors else NO_FACTORS
            score = applied.of(fused(scores, weights))
            scored.append(Scored(product_id, score, scores, weights, payload, applied))
        return scored

    def _factors(self, query: Query, found: Sequence[Candidate]) -> list[Factors]:
        """What each candidate's score is multiplied by; empty where nothing asks for a factor."""
        wanted = query.wanted
        ruling = query.ruling
        if wanted.same_category == 0 and wanted.freshness == 0 and not ruling.lifts:
            return []
        now = self._clock()
        half_life = self._settings.freshness_half_life_days * 86_400
        factors = []
        for candidate in found:
            payload = candidate.payload
            age = age_seconds(payload, now) if wanted.freshness else None
            factors.append(
                Factors(
                    self._category_factor(query, payload),
                    None if age is None else freshness_factor(wanted.freshness, age, half_life),
                    ruling.factor(payload) if ruling.lifts else None,
                )
            )
        return factors

    @staticmethod
    def _category_factor(query: Query, payload: Mapping[str, Any]) -> float | None:
        """`same_category`, with what the shop calls the same; a bridged category is no foreign one.

        Another shelf is a guess at what goes with an item: of what is mined it is known.
        """
        wanted = query.wanted.same_category
        if wanted < 0 and query.relating.score(payload.get("product_id", "")) > 0:
            return None
        if wanted > 0 and any(rule.kind == "bridge" for rule in query.ruling.applied(payload)):
            return None
        path = query.ruling.book.leaf(payload.get("category_path") or ())
        return category_factor(wanted, query.leaves, path)

    def _likeness(self, pool: Sequence[Scored], target: Target, timings: Timings) -> Likeness:
        """Cosines of the candidates' content vectors; 0 where one is gone meanwhile."""
        ids = [one.product_id for one in pool]
        with timings.asking(INDEX):
            points = self._index.fetch(target.collection, ids, vectors=(CONTENT,))
        held = {product_id: point.vectors[CONTENT] for product_id, point in points.items() if point.vectors}
        nothing = np.zeros(len(next(iter(held.values()), ())))
        vectors = np.array([held.get(product_id, nothing) for product_id in ids])

        def cosines(place: int) -> NDArray[np.float64]:
            # Not `@`: BLAS would start threads for 10 us of work, and wait for them on a busy machine.
            row: NDArray[np.float64] = np.einsum("ij,j->i", vectors, vectors[place])
            return row

        return cosines


def _reached(least: float, usual: Sequence[Scored]) -> bool:
    """Whether the candidates reach down to `min_score`, so that what lies below them cannot pass.

    Judged before the factors: one that lost by its category or age says nothing of those below, nor does one
    that the shop boosted.
    """
    return any(one.plain < least and (one.factors.shop or 1.0) <= 1.0 for one in usual)


def _sunk(shown: Sequence[Chosen], usual: Sequence[Scored]) -> bool:
    """Whether a hit stands low because the shop demoted it, and others below the candidates would pass it.

    What lies below the candidates scores at most what the lowest of them did before the shop's factors.
    """
    demoted = [one.scored.score for one in shown if (one.scored.factors.shop or 1.0) < 1.0]
    floor = min((one.plain for one in usual), default=0.0)
    return bool(demoted) and min(demoted) < floor


def _shares_nothing(dimension: str, candidate: Candidate) -> bool:
    """Whether a candidate without a score has 0 in the dimension, and is not without it.

    A dense vector is always scored. A sparse one that shares no index may be left out by the engine: that is
    a true 0, and its fingerprint on the point tells it from a vector that is missing. An item that nobody
    touched has no shopper in common either. Were it judged by its text alone, it would pass items that share
    shoppers: texts score several times as high.
    """
    return dimension == BEHAVIOUR or (
        dimension in SPARSE_DIMENSIONS and dimension in (candidate.payload.get("fingerprints") or {})
    )
