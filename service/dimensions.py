"""The seeds of a request become one query vector per dimension, with the raw score that counts as 1 there.

Reads   the index, for the seeds' lexical score with themselves
Writes  nothing
Never   knows what is asked of the hits
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adapters.index_port import VectorIndex
from schemas.vectors import (
    BEHAVIOUR,
    IMAGE,
    SPARSE_DIMENSIONS,
    VECTOR_DIMENSIONS,
    DimensionQuery,
    SparseVector,
)
from service.catalogue import Target
from service.fusion import Asked, evidence_of
from service.idf import RememberedIdf
from service.seeds import Part, combined_dense, combined_sparse, length
from service.settings import ServiceSettings
from service.timing import INDEX, Timings


class Dimensions:
    """Puts the query of each dimension together. Thread-safe as its collaborators are."""

    def __init__(self, *, index: VectorIndex, idf: RememberedIdf, settings: ServiceSettings) -> None:
        self._index = index
        self._idf = idf
        self._settings = settings

    def asked(
        self, parts: Sequence[Part], target: Target, weights: Mapping[Any, float], timings: Timings
    ) -> list[Asked]:
        """A query for each dimension that has a weight and that a seed has."""
        asked = []
        for dimension in VECTOR_DIMENSIONS:
            weight = weights.get(dimension, 0.0)
            if weight == 0.0:
                continue
            if dimension in SPARSE_DIMENSIONS:
                found = self._sparse(dimension, parts, weight, target, timings)
            else:
                found = _dense(dimension, parts, weight)
            if found is not None:
                asked.append(found)
        return asked

    def lacking(
        self, weights: Mapping[Any, float], asked: Sequence[Asked], target: Target, timings: Timings
    ) -> list[str]:
        """A note where a request weighs pictures and the collection has none; it has all other dimensions."""
        if not weights.get(IMAGE) or any(one.dimension == IMAGE for one in asked):
            return []
        with timings.asking(INDEX):
            held = self._index.spec_of(target.collection).dense
        return [] if IMAGE in held else [f"weights.{IMAGE} was ignored: the collection holds no pictures"]

    def _sparse(
        self, dimension: str, parts: Sequence[Part], weight: float, target: Target, timings: Timings
    ) -> Asked | None:
        having: list[tuple[Part, SparseVector]] = []
        for part in parts:
            vector = part.vectors.get(dimension)
            if isinstance(vector, SparseVector) and vector.indices:
                having.append((part, vector))
        combined = combined_sparse([(part.weight, vector) for part, vector in having]) if having else None
        if combined is None:
            return None
        query, norm = combined
        if dimension == BEHAVIOUR:
            return self._behaviour(query, norm, parts, having, weight)
        with timings.asking(INDEX):
            unit = self._itself(dimension, query, norm, having, target)
        return Asked(dimension, query, weight, unit, norm=norm) if unit > 0 else None

    def _behaviour(
        self,
        query: SparseVector,
        norm: float,
        parts: Sequence[Part],
        having: Sequence[tuple[Part, SparseVector]],
        weight: float,
    ) -> Asked | None:
        """Norms are shrunk, so an item scores below 1 with itself: the seeds' mean length counts as 1.

        No IDF and no call of the index: the engine's score is the plain product of two vectors.
        """
        total = sum(abs(part.weight) for part, _ in having)
        unit = sum(abs(part.weight) * length(vector) for part, vector in having) / total
        known = evidence_of(
            [(part.weight, part.shoppers) for part in parts], self._settings.evidence_shoppers
        )
        if known == 0 or unit == 0:
            return None
        return Asked(BEHAVIOUR, query, weight, unit, evidence=known, norm=norm)

    def _itself(
        self,
        dimension: str,
        query: SparseVector,
        norm: float,
        having: Sequence[tuple[Part, SparseVector]],
        target: Target,
    ) -> float:
        """The query's score with itself.

        The sum of items' vectors scores with itself what it scores with each, weighted: one small call.
        Anything inline has no point to be scored with, so its square is summed up with the live IDF.
        """
        known = [(part.weight, part.product_id) for part, _ in having if part.product_id is not None]
        if len(known) < len(having):
            idf = self._idf.of(target.collection, dimension, query.indices)
            return sum(value * value * weigh for value, weigh in zip(query.values, idf, strict=True))
        ids = list(dict.fromkeys(product_id for _, product_id in known))
        own = self._index.scores(target.collection, [DimensionQuery(dimension, query, 1.0)], ids)[0]
        return sum(weight * own.get(product_id, 0.0) for weight, product_id in known) / norm


def _dense(dimension: str, parts: Sequence[Part], weight: float) -> Asked | None:
    having: list[tuple[float, Any]] = [
        (part.weight, part.vectors[dimension]) for part in parts if dimension in part.vectors
    ]
    combined = combined_dense(having) if having else None
    if combined is None:
        return None
    vector, norm = combined
    return Asked(dimension, vector, weight, norm=norm)
