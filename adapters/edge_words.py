"""Our points, vectors and filters in the words of `qdrant-edge-py`, and back. Pure.

What is stored: the payload as one JSON string, and beside it the fields of PAYLOAD_INDEXES, which filters
name. The engine converts a Python payload value by value, about 3 us each; the string halves the cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from qdrant_edge import FieldCondition, Filter, HasIdCondition, MatchAny, RangeFloat
from qdrant_edge import Point as EdgePoint
from qdrant_edge import SparseVector as EdgeSparse

from adapters.index_port import PAYLOAD_INDEXES, point_id
from adapters.index_words import check_clause, useful
from schemas.vectors import AnyOf, Between, Clause, Ids, Point, SparseVector, Vector, Where

BODY = "body"
_NO_IDS = HasIdCondition(set())


def stored_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A payload as the shard holds it: the fields that filters name, and all of it as JSON."""
    return {BODY: orjson.dumps(payload).decode(), **_fields(payload)}


def _fields(payload: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, kind in PAYLOAD_INDEXES.items():
        value = payload.get(name)
        if value is not None:
            fields[name] = int(value) if kind == "bool" else value
    return fields


def changed_payload(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Of `stored_payload(after)` what is not as in that of `before`; fields that went are None.

    Converting and indexing a field costs the engine 15 to 60 us, so those that stay are not sent again.
    """
    stands, asked = _fields(before), _fields(after)
    changed: dict[str, Any] = {BODY: orjson.dumps(after).decode()}
    changed |= {name: value for name, value in asked.items() if stands.get(name) != value}
    return changed | {name: None for name in stands if name not in asked}


def read_payload(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The payload that `stored_payload` was given."""
    payload: dict[str, Any] = orjson.loads(stored[BODY])
    return payload


def edge_vector(vector: Vector) -> Any:
    """A vector as the engine takes it fastest: a list of floats, or its own sparse type."""
    if isinstance(vector, SparseVector):
        # tuples are taken as they are, whatever the stubs say
        return EdgeSparse(vector.indices, vector.values)  # type: ignore[arg-type]
    return vector if isinstance(vector, list) else [float(value) for value in vector]


def house_vector(vector: Any) -> Vector:
    """The engine's vector in our words."""
    if isinstance(vector, EdgeSparse):
        return SparseVector(tuple(vector.indices), tuple(vector.values))
    dense: list[float] = vector
    return dense


def edge_filter(where: Where) -> Filter:
    """A filter in the engine's words. Raises ValueError for a field or value that cannot be filtered on."""
    return Filter(must=_conditions(where.must), must_not=_conditions(where.must_not))


def _conditions(clauses: Iterable[Clause]) -> list[Any]:
    return [_condition(clause) for clause in clauses]


def _condition(clause: Clause) -> Any:
    check_clause(clause)
    match clause:
        case Ids(product_ids):
            return HasIdCondition({point_id(product_id) for product_id in product_ids})
        case AnyOf(_, ()):
            return _NO_IDS
        case AnyOf(name, values):
            found: Any = [int(value) if isinstance(value, bool) else value for value in values]
            return FieldCondition(name, match=MatchAny(found))
        case Between(name, low, high):
            return FieldCondition(name, range=RangeFloat(gte=-1e308 if low is None else low, lte=high))


def no_newer_than(ticket: int) -> Filter:
    """Points that nobody has written with a larger ticket."""
    return edge_filter(Where(must=(Between("ticket", high=ticket),)))


def edge_point(point: Point, payload: Mapping[str, Any]) -> EdgePoint:
    """A whole point as the engine takes it, under `payload`; vectors without any value are left out."""
    vectors = {name: edge_vector(vector) for name, vector in point.vectors.items() if useful(vector)}
    return EdgePoint(point_id(point.product_id), vectors, stored_payload(payload))


def house_point(stored: Any, vectors: Any) -> Point:
    """The point behind what the engine returned: its payload (at least `body`), its vectors or None."""
    payload = read_payload(stored)
    found = {name: house_vector(vector) for name, vector in (vectors or {}).items()}
    return Point(product_id=payload["product_id"], vectors=found, payload=payload)
