"""Explanations of ranked hits: which seed each owes most to, and what the two have in common.

Reads   the index: the hits' vectors, and IDF figures
Writes  nothing
Never   runs for a query that does not ask why: it costs more than the query
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.api import Applied, Explanation, SeedShare
from schemas.vectors import BEHAVIOUR, DENSE_DIMENSIONS, LEXICAL, SparseVector, Vector
from service.catalogue import Catalogue, Target
from service.errors import Unavailable
from service.explain import Word, explanation, shared_terms, shoppers_in_common, words_of
from service.fusion import Asked, Scored
from service.idf import RememberedIdf
from service.presets import Wanted
from service.ranking import Query
from service.releases import LoadedRelease
from service.rules import Ruling
from service.seeds import Part
from service.selection import Chosen
from service.timing import INDEX, Timings

#: Seeds that are named; the others owe their hits to many.
MAX_NAMED_SEEDS = 5


class Explainer:
    """Says why, hit by hit. Thread-safe as its collaborators are."""

    def __init__(self, *, catalogue: Catalogue, idf: RememberedIdf) -> None:
        self._catalogue = catalogue
        self._idf = idf

    def explained(
        self,
        ranked: Sequence[Chosen],
        query: Query,
        parts: Sequence[Part],
        target: Target,
        notes: list[str],
        timings: Timings,
    ) -> dict[str, Explanation]:
        """An explanation per hit. Notes say what it cannot name."""
        queries = {one.dimension: one for one in query.asked}
        several = len(parts) > 1
        names = [name for name in queries if several or name == LEXICAL]
        if any(BEHAVIOUR in part.vectors for part in parts) and BEHAVIOUR not in names:
            names.append(BEHAVIOUR)
        with timings.asking(INDEX):
            ids = [one.scored.product_id for one in ranked]
            points = self._catalogue.index.fetch(target.collection, ids, vectors=names)
            idf = self._idf_of(queries.get(LEXICAL), target)
        terms = self._terms(queries.get(LEXICAL), target, idf, notes)
        owing = SeedParts(parts, queries, idf) if several else None
        explained = {}
        for one in ranked:
            product_id = one.scored.product_id
            point = points.get(product_id)
            vectors = point.vectors if point is not None else {}
            owed = owing.of(one.scored, vectors) if owing is not None else [1.0]
            related = query.relating.partners.get(product_id)
            if related is not None:
                owed[related.place] += query.relating.weight * related.score
            nearest = max(
                (place for place, part in enumerate(parts) if part.weight > 0), key=lambda place: owed[place]
            )
            explained[product_id] = explanation(
                parts[nearest].about,
                one.scored.payload,
                contributions={
                    name: one.scored.weights[name] * score for name, score in one.scored.dimensions.items()
                },
                terms=terms.shared(nearest, parts[nearest], vectors) if terms is not None else (),
                shoppers=shoppers_in_common(parts[nearest].vectors, vectors),
                seeds=_named(parts, owed) if several else (),
                related=related.by if related is not None else None,
                rules=_applied(one, query.wanted, query.ruling),
            )
        return explained

    def _idf_of(self, lexical: Asked | None, target: Target) -> dict[int, float]:
        if lexical is None or not isinstance(lexical.vector, SparseVector):
            return {}
        indices = lexical.vector.indices
        return dict(zip(indices, self._idf.of(target.collection, LEXICAL, indices), strict=True))

    def _terms(
        self, lexical: Asked | None, target: Target, idf: Mapping[int, float], notes: list[str]
    ) -> Terms | None:
        if lexical is None or not isinstance(lexical.vector, SparseVector):
            return None
        try:
            release = self._catalogue.loaded(target.release_id)
        except Unavailable:
            notes.append("explanations name no shared terms: the release's text recipe is not loaded here")
            return None
        return Terms(lexical.vector, idf, release)


class Terms:
    """Words that seeds and hits share; each seed's words are taken apart once."""

    def __init__(self, query: SparseVector, idf: Mapping[int, float], release: LoadedRelease) -> None:
        self._query = query
        self._idf = idf
        self._grams = release.recipe.grams
        self._words: dict[int, list[Word]] = {}

    def shared(self, place: int, seed: Part, hit: Mapping[str, Vector]) -> list[str]:
        """The words of the seed at `place` that the hit has too."""
        vector = hit.get(LEXICAL)
        if not isinstance(vector, SparseVector):
            return []
        if place not in self._words:
            self._words[place] = words_of(seed.about.words, self._grams)
        return shared_terms(self._words[place], self._query, vector, self._idf)


class SeedParts:
    """What each seed adds to a hit's weighted scores.

    A query is the weighted sum of the seeds' vectors over its length, and a score is linear in it; so the
    parts add up to the sum of weight * score over the hit's dimensions. Prepared once, for many hits.
    """

    def __init__(self, parts: Sequence[Part], queries: Mapping[str, Asked], idf: Mapping[int, float]) -> None:
        self._count = len(parts)
        self._dense: dict[str, NDArray[np.float64]] = {}
        self._sparse: dict[str, list[dict[int, float]]] = {}
        for name, one in queries.items():
            scales = [part.weight / (one.norm * one.unit) for part in parts]
            vectors = [part.vectors.get(name) for part in parts]
            if name in DENSE_DIMENSIONS:
                nothing = np.zeros(len(one.vector))
                rows = [nothing if vector is None else np.asarray(vector) for vector in vectors]
                self._dense[name] = np.array(rows) * np.array(scales)[:, None]
            else:
                weigh = idf if name == LEXICAL else None
                self._sparse[name] = [
                    _scaled(vector, scale, weigh) for vector, scale in zip(vectors, scales, strict=True)
                ]

    def of(self, hit: Scored, vectors: Mapping[str, Vector]) -> list[float]:
        """The parts of one hit with these vectors, in the order of the seeds."""
        owed = [0.0] * self._count
        for name in hit.dimensions:
            held = vectors.get(name)
            if isinstance(held, SparseVector):
                pairs = list(zip(held.indices, held.values, strict=True))
                products = [
                    sum(value * own[index] for index, value in pairs if index in own)
                    for own in self._sparse[name]
                ]
            elif held is not None:
                products = np.einsum("ij,j->i", self._dense[name], np.asarray(held)).tolist()
            else:
                continue
            owed = [sum_ + hit.weights[name] * product for sum_, product in zip(owed, products, strict=True)]
        return owed


def _scaled(vector: Vector | None, scale: float, weigh: Mapping[int, float] | None) -> dict[int, float]:
    if not isinstance(vector, SparseVector):
        return {}
    return {
        index: value * scale * (1.0 if weigh is None else weigh.get(index, 0.0))
        for index, value in zip(vector.indices, vector.values, strict=True)
    }


def _named(parts: Sequence[Part], owed: Sequence[float]) -> list[SeedShare]:
    """The seeds that the hit owes most to, best first; shares are of what all positive parts add up to."""
    total = sum(value for value in owed if value > 0)
    ranked = sorted((place for place, value in enumerate(owed) if value > 0), key=lambda place: -owed[place])
    return [
        SeedShare(seed=place, item_id=parts[place].product_id, share=round(owed[place] / total, 4))
        for place in ranked[:MAX_NAMED_SEEDS]
    ]


def _applied(one: Chosen, wanted: Wanted, ruling: Ruling) -> Applied:
    factors = one.scored.factors
    return Applied(
        preset=wanted.preset,
        same_category=_shown(factors.same_category),
        freshness=_shown(factors.freshness),
        diversity=one.overtook,
        brand_cap=one.capped if wanted.filter.brand_cap is not None else None,
        group=one.collapsed if wanted.filter.group == "collapse" else None,
        shop=ruling.applied(one.scored.payload),
    )


def _shown(factor: float | None) -> float | None:
    return None if factor is None else round(factor, 4)
