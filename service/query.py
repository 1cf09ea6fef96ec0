"""A request becomes ranked neighbours: candidates, exact scores of the best, one fused score.

Reads   the index, one collection per request; the release's encoder where a seed is not an item
Writes  nothing
Never   mixes two releases in one request; never touches an encoder when every seed is an item

Path: seeds' vectors -> one vector per dimension -> one `candidates` call (prefetches + formula) -> exact
`scores` of the best in every dimension -> weighted mean over the dimensions both sides have -> payload of the
final few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.api import (
    Answer,
    DimensionScore,
    Explanation,
    Hit,
    HitItem,
    HitRating,
    QueryOptions,
    SearchRequest,
    SimilarRequest,
)
from schemas.vectors import (
    CONTENT,
    LEXICAL,
    SPARSE_DIMENSIONS,
    VECTOR_DIMENSIONS,
    DimensionQuery,
    Point,
    SparseVector,
)
from service.catalogue import Catalogue, Target
from service.errors import Unanswerable, Unavailable
from service.explain import explanation, shared_terms, words_of
from service.filters import conditions
from service.idf import RememberedIdf
from service.ranking import Asked, Ranker, Scored
from service.seeds import About, Part, combined_dense, combined_sparse, inline_parts, item_part
from service.settings import ServiceSettings
from service.timing import ENCODER, INDEX, Timings


class QueryEngine:
    """Answers similar and search. Thread-safe; every method blocks: the API calls it from worker threads."""

    def __init__(self, *, catalogue: Catalogue, settings: ServiceSettings) -> None:
        self._catalogue = catalogue
        self._index = catalogue.index
        self._idf = RememberedIdf(catalogue.index)
        self._ranker = Ranker(index=catalogue.index, settings=settings)
        self._settings = settings

    def search(self, request: SearchRequest, timings: Timings) -> Answer:
        """Items that a text describes: the text is the only seed."""
        options = {name: getattr(request, name) for name in QueryOptions.model_fields}
        return self.similar(SimilarRequest.model_construct(seeds=[], text=request.text, **options), timings)

    def similar(self, request: SimilarRequest, timings: Timings) -> Answer:
        """Neighbours of the seeds. Raises the exceptions of service.errors, each a status of HTTP."""
        weights: Mapping[str, float] = request.weights or self._settings.weights  # type: ignore[assignment]
        target = self._catalogue.target(request.release_id, timings)
        notes = [
            f"dimension {name!r} is not in the collection: left out"
            for name in weights
            if name not in VECTOR_DIMENSIONS
        ]
        parts = self._parts(request, target, weights, timings)
        asked = self._asked(parts, target, weights, timings)
        if not any(one.weight > 0 for one in asked):
            raise Unanswerable(
                "the seeds have no dimension with a weight above 0 in common with the collection: they cancel"
                " each other out, or 'weights' names only dimensions that they do not have"
            )
        positive = [part for part in parts if part.weight > 0]
        price = next((part.about.price for part in positive if part.about.price is not None), None)
        where, ignored = conditions(
            request.filter,
            seeds=[part.product_id for part in parts if part.product_id is not None],
            groups=[part.about.group_id for part in positive if part.about.group_id is not None],
            price=price,
        )
        notes += ignored
        ranked = self._ranker.ranked(asked, target, where, request, price, timings)
        explained = self._explained(ranked, asked, positive, target, request.explain, notes, timings)
        hits = [_hit(scored, point, asked, explained.get(scored.product_id)) for scored, point in ranked]
        return Answer(
            items=hits, release_id=target.release_id, took_ms=round(timings.elapsed_ms(), 3), notes=notes
        )

    # --- seeds -------------------------------------------------------------------------------------

    def _parts(
        self, request: SimilarRequest, target: Target, weights: Mapping[str, float], timings: Timings
    ) -> list[Part]:
        ids = list(dict.fromkeys(seed.item_id for seed in request.seeds if seed.item_id is not None))
        points = self._catalogue.seed_points(target, ids, timings)
        parts = [item_part(seed, points[seed.item_id]) for seed in request.seeds if seed.item_id is not None]
        with timings.asking(ENCODER):
            inline = inline_parts(
                request.seeds,
                request.text,
                load=lambda: self._catalogue.loaded(target.release_id),
                dense=bool(weights.get(CONTENT)),
            )
        # In the order given, so that "the first positive seed" is what the client thinks it is.
        items, others = iter(parts), iter(inline)
        ordered = [next(items) if seed.item_id is not None else next(others) for seed in request.seeds]
        return ordered + list(others)

    def _asked(
        self, parts: Sequence[Part], target: Target, weights: Mapping[str, float], timings: Timings
    ) -> list[Asked]:
        asked = []
        for dimension in VECTOR_DIMENSIONS:
            weight = weights.get(dimension, 0.0)
            if weight == 0.0:
                continue
            if dimension in SPARSE_DIMENSIONS:
                found = self._asked_sparse(dimension, parts, weight, target, timings)
                if found is not None:
                    asked.append(found)
                continue
            dense: list[tuple[float, Any]] = [
                (part.weight, part.vectors[dimension]) for part in parts if dimension in part.vectors
            ]
            vector = combined_dense(dense) if dense else None
            if vector is not None:
                asked.append(Asked(dimension, vector, weight))
        return asked

    def _asked_sparse(
        self, dimension: str, parts: Sequence[Part], weight: float, target: Target, timings: Timings
    ) -> Asked | None:
        """The sparse query, and its score with itself: what a raw score is divided by to come to 0..1.

        The sum of items' vectors scores with itself what it scores with each, weighted: one small call.
        Anything inline has no point to be scored with, so its square is summed up with the live IDF.
        """
        sparse: list[tuple[float, SparseVector]] = []
        ids: list[str | None] = []
        for part in parts:
            vector = part.vectors.get(dimension)
            if isinstance(vector, SparseVector) and vector.indices:
                sparse.append((part.weight, vector))
                ids.append(part.product_id)
        combined = combined_sparse(sparse) if sparse else None
        if combined is None:
            return None
        query, norm = combined
        with timings.asking(INDEX):
            if all(product_id is not None for product_id in ids):
                known = [product_id for product_id in ids if product_id is not None]
                asked = [DimensionQuery(dimension, query, 1.0)]
                own = self._index.scores(target.collection, asked, list(dict.fromkeys(known)))[0]
                unit = sum(
                    part_weight * own.get(product_id, 0.0)
                    for (part_weight, _), product_id in zip(sparse, known, strict=True)
                )
                unit /= norm
            else:
                idf = self._idf.of(target.collection, dimension, query.indices)
                unit = sum(value * value * weigh for value, weigh in zip(query.values, idf, strict=True))
        return Asked(dimension, query, weight, unit) if unit > 0 else None

    # --- explanations ------------------------------------------------------------------------------

    def _explained(
        self,
        ranked: Sequence[tuple[Scored, Point]],
        asked: Sequence[Asked],
        positive: Sequence[Part],
        target: Target,
        explain: bool,
        notes: list[str],
        timings: Timings,
    ) -> dict[str, Explanation]:
        if not explain or not ranked:
            return {}
        seed = positive[0].about
        terms = self._terms(ranked, asked, seed, target, notes, timings)
        explained = {}
        for scored, point in ranked:
            contributions = {
                one.dimension: one.weight * scored.dimensions[one.dimension]
                for one in asked
                if one.dimension in scored.dimensions
            }
            explained[scored.product_id] = explanation(
                seed,
                point.payload,
                contributions=contributions,
                terms=terms.get(scored.product_id, []),
            )
        return explained

    def _terms(
        self,
        ranked: Sequence[tuple[Scored, Point]],
        asked: Sequence[Asked],
        seed: About,
        target: Target,
        notes: list[str],
        timings: Timings,
    ) -> dict[str, list[str]]:
        query = next((one.vector for one in asked if one.dimension == LEXICAL), None)
        if not isinstance(query, SparseVector):
            return {}
        try:
            recipe = self._catalogue.loaded(target.release_id).recipe
        except Unavailable:
            notes.append("explanations name no shared terms: the release's text recipe is not loaded here")
            return {}
        words = words_of(seed.words, recipe.grams)
        with timings.asking(INDEX):
            ids = [scored.product_id for scored, _ in ranked]
            points = self._index.fetch(target.collection, ids, vectors=True)
            idf = dict(
                zip(query.indices, self._idf.of(target.collection, LEXICAL, query.indices), strict=True)
            )
        found = {}
        for product_id, point in points.items():
            vector = point.vectors.get(LEXICAL)
            if isinstance(vector, SparseVector):
                found[product_id] = shared_terms(words, query, vector, idf)
        return found


def _hit(scored: Scored, point: Point, asked: Sequence[Asked], why: Explanation | None) -> Hit:
    payload = point.payload
    return Hit(
        item_id=scored.product_id,
        score=_rounded(scored.score),
        dimensions={
            one.dimension: DimensionScore(score=_rounded(scored.dimensions[one.dimension]), weight=one.weight)
            for one in asked
            if one.dimension in scored.dimensions
        },
        item=HitItem(
            item_id=scored.product_id,
            revision=payload["revision"],
            title=payload["title"],
            brand=payload.get("brand_name"),
            category=list(payload.get("category_path") or ()),
            price=payload.get("price_exact"),
            currency=payload.get("currency"),
            in_stock=payload.get("in_stock"),
            image_url=payload.get("image_url"),
            group_id=payload.get("group_id"),
            rating=_rating(payload),
        ),
        explanation=why,
    )


def _rating(payload: Mapping[str, Any]) -> HitRating | None:
    mean, count = payload.get("rating_mean"), payload.get("rating_count")
    return HitRating(mean=mean, count=count) if mean is not None and count else None


def _rounded(score: float) -> float:
    """Six digits. A hit can share more than the seed does with itself (rare words, repeated): shown as 1."""
    return round(min(score, 1.0), 6)
