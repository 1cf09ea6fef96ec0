"""What both index adapters check before they translate: filters, points, vectors. Pure.

Never  knows an engine: a caller gets the same ValueError whichever index is behind the port
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from adapters.index_port import PAYLOAD_INDEXES, point_id
from schemas.vectors import (
    AnyOf,
    Between,
    Clause,
    DimensionQuery,
    Ids,
    PayloadChange,
    Point,
    SparseVector,
    Vector,
    Where,
)

_PYTHON_KIND = {"keyword": str, "integer": int, "bool": bool}


def check_clause(clause: Clause) -> None:
    """Raise ValueError for a field without an index, or a value of another kind than the field's."""
    if isinstance(clause, Ids):
        return
    kind = PAYLOAD_INDEXES.get(clause.field)
    if kind is None:
        raise ValueError(f"cannot filter on {clause.field!r}: only on {', '.join(PAYLOAD_INDEXES)}")
    if isinstance(clause, AnyOf):
        wanted = _PYTHON_KIND.get(kind)
        wrong = [value for value in clause.values if type(value) is not wanted]
        if wrong:
            raise ValueError(f"field {clause.field!r} is of kind {kind}: it never equals {wrong[0]!r}")
    if isinstance(clause, Between):
        if kind not in ("integer", "float"):
            raise ValueError(f"field {clause.field!r} is of kind {kind}: it has no range, use AnyOf")
        for bound in (clause.low, clause.high):
            if bound is not None and not math.isfinite(bound):
                raise ValueError(f"range of {clause.field!r}: {bound} is no bound; None is open")


def checked_ids(written: Sequence[Point] | Sequence[PayloadChange]) -> None:
    """Raise ValueError if two share an id or a payload names another id."""
    seen: set[str] = set()
    for one in written:
        if one.product_id in seen:
            raise ValueError(f"product {one.product_id!r} is twice in one write")
        seen.add(one.product_id)
        if one.payload.get("product_id") != one.product_id:
            raise ValueError(
                f"product {one.product_id!r}: its payload names {one.payload.get('product_id')!r}"
            )


def checked_points(points: Sequence[Point]) -> None:
    """Raise ValueError if two points share an id, a payload names another id, or a number is not finite."""
    checked_ids(points)
    for point in points:
        for name, vector in point.vectors.items():
            values = vector.values if isinstance(vector, SparseVector) else vector
            if not math.isfinite(sum(values)):
                raise ValueError(f"product {point.product_id!r}: vector {name!r} holds NaN or infinity")


def as_read(change: PayloadChange, ticket: int) -> Where:
    """The point of a change, as long as it is the one that was read and no newer than `ticket`."""
    seen = int(change.before["ticket"])
    # An empty range, where it is newer, holds for no point.
    return Where(must=(Ids((change.product_id,)), Between("ticket", low=seen, high=min(seen, ticket))))


def not_taken(by_id: Mapping[str, str], found: Iterable[Any], ticket: int) -> set[str]:
    """The products, by their points' ids, whose point carries another ticket or is not among `found`.

    `found` are records of either engine, read with their ticket.
    """
    taken = {by_id[str(one.id)] for one in found if (one.payload or {}).get("ticket") == ticket}
    return set(by_id.values()) - taken


def useful(vector: Vector) -> bool:
    """Whether a vector has anything in it; engines refuse or forget empty ones, so they are left out."""
    return len(vector.values if isinstance(vector, SparseVector) else vector) > 0


def to_score(
    queries: Sequence[DimensionQuery], product_ids: Sequence[str], known: Sequence[Collection[str]]
) -> dict[int, dict[str, str]]:
    """What has to be scored: by the place of its query, products by the ids of their points.

    Raises ValueError where `known` is given for other queries than these.
    """
    if known and len(known) != len(queries):
        raise ValueError(f"known scores of {len(known)} queries, but {len(queries)} are asked")
    by_product = {product_id: point_id(product_id) for product_id in product_ids}
    asked = {}
    for place, query in enumerate(queries):
        had = known[place] if known else ()
        wanted = {point: product for product, point in by_product.items() if product not in had}
        if wanted and useful(query.vector):
            asked[place] = wanted
    return asked
