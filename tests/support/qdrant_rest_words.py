"""qdrant-client's request models in the words of `qdrant-edge-py`: the part of Qdrant's REST API that we use.

Never  accepts what it does not know: an unknown condition, query or formula is `Unsupported` (answered 400)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from qdrant_client import models
from qdrant_edge import (
    Expression,
    FieldCondition,
    Filter,
    Formula,
    HasIdCondition,
    HasVectorCondition,
    MatchAny,
    MatchValue,
    Prefetch,
    QuantizationSearchParams,
    Query,
    QueryRequest,
    RangeFloat,
    SearchParams,
)
from qdrant_edge import Point as EdgePoint
from qdrant_edge import SparseVector as EdgeSparse

from adapters.edge_words import BODY, read_payload, stored_payload


class Unsupported(ValueError):
    """A request that the real server may know and this one does not."""


def edge_point(point: models.PointStruct) -> EdgePoint:
    """A point as EdgeIndex stores it."""
    if not isinstance(point.vector, Mapping):
        raise Unsupported("vectors must be named")
    vectors = {name: _vector(vector) for name, vector in point.vector.items()}
    return EdgePoint(str(point.id), vectors, stored_payload(point.payload or {}))


def edge_filter(where: models.Filter | None) -> Filter | None:
    """A filter; booleans become 0 and 1, as EdgeIndex stores them."""
    if where is None:
        return None
    if where.min_should is not None:
        raise Unsupported("min_should")
    return Filter(
        must=_conditions(where.must), should=_conditions(where.should), must_not=_conditions(where.must_not)
    )


def _conditions(found: Any) -> list[Any] | None:
    if found is None:
        return None
    return [_condition(condition) for condition in (found if isinstance(found, list) else [found])]


def _condition(condition: Any) -> Any:
    match condition:
        case models.Filter():
            return edge_filter(condition)
        case models.HasIdCondition(has_id=ids):
            return HasIdCondition({str(point_id) for point_id in ids})
        case models.HasVectorCondition(has_vector=name):
            return HasVectorCondition(name)
        case models.FieldCondition(key=key, match=models.MatchValue(value=value)):
            return FieldCondition(key, match=MatchValue(int(value) if isinstance(value, bool) else value))
        case models.FieldCondition(key=key, match=models.MatchAny(any=some)):
            either: Any = list(some)
            return FieldCondition(key, match=MatchAny(either))
        case models.FieldCondition(key=key, range=models.Range(gte=gte, gt=gt, lte=lte, lt=lt)):
            return FieldCondition(key, range=RangeFloat(gte=gte, gt=gt, lte=lte, lt=lt))
    raise Unsupported(f"condition {type(condition).__name__}: {condition!r}")


def edge_query(request: models.QueryRequest) -> QueryRequest:
    """A query with its prefetches. Payload and vectors of the hits are asked for as the request says."""
    prefetches = request.prefetch or []
    return QueryRequest(
        limit=request.limit if request.limit is not None else 10,
        offset=request.offset,
        query=_query(request.query, request.using),
        filter=edge_filter(request.filter),
        params=_params(request.params),
        prefetches=[
            _prefetch(prefetch) for prefetch in (prefetches if isinstance(prefetches, list) else [prefetches])
        ],
        with_payload=bool(request.with_payload),
        with_vector=request.with_vector or False,
    )


def _params(params: models.SearchParams | None) -> SearchParams | None:
    if params is None:
        return None
    more = params.quantization
    return SearchParams(
        exact=bool(params.exact),
        quantization=None
        if more is None
        else QuantizationSearchParams(rescore=more.rescore, oversampling=more.oversampling),
    )


def _prefetch(prefetch: models.Prefetch) -> Prefetch:
    if prefetch.prefetch:
        raise Unsupported("nested prefetches")
    return Prefetch(
        limit=prefetch.limit if prefetch.limit is not None else 10,
        query=_query(prefetch.query, prefetch.using),
        filter=edge_filter(prefetch.filter),
        params=_params(prefetch.params),
    )


def _query(query: Any, using: str | None) -> Any:
    match query:
        case models.FormulaQuery(formula=formula, defaults=defaults):
            return Formula(_expression(formula), defaults)
        case models.NearestQuery(nearest=vector, mmr=None):
            return Query.Nearest(_vector(vector), using=using)
        case list() | models.SparseVector():
            return Query.Nearest(_vector(query), using=using)
    raise Unsupported(f"query {type(query).__name__}")


def _expression(expression: Any) -> Expression:
    match expression:
        case models.SumExpression(sum=terms):
            return Expression.Sum([_expression(term) for term in terms])
        case models.MultExpression(mult=terms):
            return Expression.Mult([_expression(term) for term in terms])
        case str():
            return Expression.Variable(expression)
        case float() | int():
            return Expression.Constant(float(expression))
    raise Unsupported(f"expression {type(expression).__name__}")


def _vector(vector: Any) -> Any:
    if isinstance(vector, models.SparseVector):
        return EdgeSparse(vector.indices, vector.values)
    if isinstance(vector, list):
        return vector
    raise Unsupported(f"vector {type(vector).__name__}")


def record(found: Any, *, payload: Any, vectors: bool) -> dict[str, Any]:
    """A stored point, or a hit, as the REST API shows it."""
    shown: dict[str, Any] = {"id": str(found.id)}
    if payload:
        stored = found.payload
        if isinstance(payload, list):
            shown["payload"] = {
                name: value for name, value in read_payload(stored).items() if name in payload
            }
        else:
            shown["payload"] = orjson.Fragment(stored[BODY])
    if vectors:
        shown["vector"] = {
            name: {"indices": vector.indices, "values": vector.values}
            if isinstance(vector, EdgeSparse)
            else vector
            for name, vector in found.vector.items()
        }
    return shown


def hit(found: Any, *, payload: Any, vectors: bool) -> dict[str, Any]:
    """A scored hit as the REST API shows it."""
    return {
        **record(found, payload=payload, vectors=vectors),
        "version": found.version,
        "score": found.score,
    }
