"""One item's state against its point: what the index should show now, and what has to be encoded first.

Pure: reads and writes nothing. consumers/embeddings.py writes what comes out; consumers/reconcile.py asks the
same question to find what differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from schemas.events import Product
from schemas.items import ItemState, context_fingerprint, live_payload, tombstone_payload
from schemas.vectors import CONTENT, LEXICAL, DenseVector, Point, TextRecipe, Vector

CONTEXT = "context"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text's vector, named by the fingerprint of what it was made from."""

    fingerprint: str
    vector: DenseVector


@dataclass(frozen=True, slots=True)
class Wanted:
    """A text that must be encoded before the item's point can equal its state."""

    fingerprint: str
    product: Product


@dataclass(frozen=True, slots=True)
class Assembly:
    """What to do about one item: a point to write (or None), a text to encode (or None), what would move."""

    point: Point | None
    wanted: Wanted | None
    moved: tuple[str, ...]


_NOTHING = Assembly(point=None, wanted=None, moved=())


def fingerprints_of(point: Point | None) -> Mapping[str, str]:
    """The fingerprints on a point by dimension; none for a missing or deleted one."""
    if point is None or point.payload.get("deleted"):
        return {}
    found: Mapping[str, str] = point.payload.get("fingerprints") or {}
    return found


def assemble(
    product_id: str,
    state: ItemState | None,
    point: Point | None,
    *,
    recipe: TextRecipe,
    encoded: Encoded | None,
    now: datetime,
) -> Assembly:
    """Compare all dimensions of an item's state with its point, whatever the hint said.

    A dimension whose new vector is not encoded yet keeps the old vector and the old fingerprint, so that a
    new price is visible at once; an item without any point waits for its first vector. Equal: write nothing.
    """
    product = state.product if state is not None else None
    if state is None or product is None:
        if point is None or point.payload.get("deleted"):
            return _NOTHING
        revision = state.revision if state is not None else int(point.payload.get("revision", 0))
        payload = tombstone_payload(product_id, revision=revision, deleted_at=now)
        return Assembly(Point(product_id=product_id, vectors={}, payload=payload), None, ("deleted",))

    text, context = recipe.fingerprint(product), context_fingerprint(product)
    stored = fingerprints_of(point)
    moved: list[str] = []
    vectors: Mapping[str, Vector]
    wanted: Wanted | None = None
    written_text = text
    if stored.get(CONTENT) == text and point is not None:
        vectors = point.vectors
    elif encoded is not None and encoded.fingerprint == text:
        vectors = {CONTENT: encoded.vector, LEXICAL: recipe.lexical(product)}
        moved += [CONTENT, LEXICAL]
    else:
        wanted = Wanted(fingerprint=text, product=product)
        if point is None or not stored:
            return Assembly(None, wanted, ())
        vectors, written_text = point.vectors, stored[CONTENT]
    if stored.get(CONTEXT) != context:
        moved.append(CONTEXT)
    if not moved:
        return Assembly(None, wanted, ())

    updated_at = dict(point.payload.get("updated_at") or {}) if point is not None and stored else {}
    updated_at.update(dict.fromkeys(moved, now.isoformat()))
    payload = live_payload(
        state,
        fingerprints={CONTENT: written_text, LEXICAL: written_text, CONTEXT: context},
        updated_at=updated_at,
    )
    return Assembly(Point(product_id=product_id, vectors=vectors, payload=payload), wanted, tuple(moved))
