"""One item's state against its point: what the index should show now, and what has to be encoded first.

Pure: reads and writes nothing. consumers/embeddings.py writes what comes out; consumers/reconcile.py asks the
same question to find what differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from consumers.review_digest import reviews_text
from schemas.events import ProductUpserted
from schemas.items import (
    CONTEXT,
    ItemState,
    PictureMark,
    context_fingerprint,
    live_payload,
    reviews_fingerprint,
    tombstone_payload,
)
from schemas.vectors import (
    BEHAVIOUR,
    CONTENT,
    IMAGE,
    LEXICAL,
    REVIEWS,
    DenseVector,
    Point,
    SparseVector,
    TextRecipe,
    Vector,
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text's vector, named by the fingerprint of what it was made from."""

    fingerprint: str
    vector: DenseVector


@dataclass(frozen=True, slots=True)
class Wanted:
    """A text that must be encoded before the item's point can equal its state."""

    fingerprint: str
    text: str


@dataclass(frozen=True, slots=True)
class Shoppers:
    """The vector `behaviour`, made from the sketch that `fingerprint` names."""

    fingerprint: str
    vector: SparseVector


@dataclass(frozen=True, slots=True)
class Pictured:
    """The picture of an item: its mark (None: it names none), and its vector, or why it has none, if known.

    schemas.items.PictureMark says what stands of it on a point.
    """

    mark: str | None
    vector: DenseVector | None = None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Assembly:
    """What to do about one item: a point to write (or None), texts to encode, dimensions that would move.

    `stale` names the dimensions that differ and for which nothing newer was given. `kept` names those whose
    vector is that of the standing point: it is part of `point` only if it was given. `payload_only`: all of
    the standing point's vectors stay. `lacks_picture`: its picture is still to come; nothing waits for it.
    """

    point: Point | None
    wanted: tuple[Wanted, ...]
    moved: tuple[str, ...]
    stale: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    payload_only: bool = False
    lacks_picture: bool = False

    @property
    def differs(self) -> bool:
        """Whether the point is not what the state asks for."""
        return self.point is not None or bool(self.wanted) or bool(self.stale) or self.lacks_picture


_NOTHING = Assembly(point=None, wanted=(), moved=())


def fingerprints_of(point: Point | None) -> Mapping[str, str]:
    """The fingerprints on a point by dimension; none for a missing or deleted one."""
    if point is None or point.payload.get("deleted"):
        return {}
    found: Mapping[str, str] = point.payload.get("fingerprints") or {}
    return found


def behaviour_moved(state: ItemState | None, point: Point | None) -> bool:
    """Whether the item has a sketch that its point's vector was not made from."""
    if state is None or state.deleted or state.behaviour is None:
        return False
    return not state.behaviour.made(fingerprints_of(point).get(BEHAVIOUR))


def assemble(
    product_id: str,
    state: ItemState | None,
    point: Point | None,
    *,
    recipe: TextRecipe,
    encoded: Mapping[str, Encoded],
    now: datetime,
    shoppers: Shoppers | None = None,
    picture: Pictured | None = None,
) -> Assembly:
    """Compare all dimensions of an item's state with its point, whatever the hint said.

    `encoded` holds vectors by fingerprint. A dimension whose new vector is not there yet keeps the old vector
    and the old fingerprint, so that a new price is visible at once; an item without any point waits for its
    first vector. Equal: write nothing.

    `shoppers` is given where the sketch has moved, or where the weights of its shoppers are to be compared.
    Without `picture` the dimension `image` is left as it stands.
    """
    product = state.product if state is not None else None
    if state is None or product is None:
        if point is None or point.payload.get("deleted"):
            return _NOTHING
        revision = state.revision if state is not None else int(point.payload.get("revision", 0))
        payload = tombstone_payload(product_id, revision=revision, deleted_at=now)
        return Assembly(Point(product_id=product_id, vectors={}, payload=payload), (), ("deleted",))

    draft = _Draft(point)
    draft.content(product, recipe, encoded)
    draft.reviews(state, encoded)
    draft.behaviour(state, shoppers)
    draft.picture(picture)
    draft.context(state, product)
    wanted, stale = tuple(draft.wanted), tuple(draft.stale)
    if CONTENT not in draft.marks or not draft.moved:
        return Assembly(None, wanted, (), stale, lacks_picture=draft.lacks_picture)
    updated_at = dict(point.payload.get("updated_at") or {}) if point is not None and draft.stored else {}
    updated_at.update(dict.fromkeys(draft.moved, now.isoformat()))
    payload = live_payload(
        state,
        fingerprints=draft.marks,
        updated_at={name: at for name, at in updated_at.items() if name in draft.marks},
        shoppers=draft.shoppers,
    )
    written = Point(product_id=product_id, vectors=draft.vectors, payload=payload)
    return Assembly(
        written,
        wanted,
        tuple(draft.moved),
        stale,
        kept=tuple(draft.kept),
        payload_only=bool(draft.stored) and draft.moved == [CONTEXT],
        lacks_picture=draft.lacks_picture,
    )


class _Draft:
    """A point being put together, dimension by dimension, from what is new and what stands."""

    def __init__(self, point: Point | None) -> None:
        self.stored = fingerprints_of(point)
        self._standing: Mapping[str, Vector] = point.vectors if point is not None and self.stored else {}
        self.shoppers = int(point.payload.get("shoppers") or 0) if point is not None and self.stored else 0
        self.vectors: dict[str, Vector] = {}
        self.marks: dict[str, str] = {}
        self.moved: list[str] = []
        self.kept: list[str] = []
        self.wanted: list[Wanted] = []
        self.stale: list[str] = []
        self.lacks_picture = False

    def content(self, product: ProductUpserted, recipe: TextRecipe, encoded: Mapping[str, Encoded]) -> None:
        text = recipe.fingerprint(product)
        if self.stored.get(CONTENT) == text:
            self._keep(CONTENT, LEXICAL)
        elif text in encoded:
            self._set(CONTENT, text, encoded[text].vector)
            self._set(LEXICAL, text, recipe.lexical(product))
        else:
            self.wanted.append(Wanted(text, recipe.content(product)))
            self._keep(CONTENT, LEXICAL)

    def reviews(self, state: ItemState, encoded: Mapping[str, Encoded]) -> None:
        text = reviews_text(state.reviews.digest, state.opinions) if state.reviews is not None else ""
        if not text:
            self._drop(REVIEWS)
            return
        mark = reviews_fingerprint(text)
        if self.stored.get(REVIEWS) == mark:
            self._keep(REVIEWS)
        elif mark in encoded:
            self._set(REVIEWS, mark, encoded[mark].vector)
        else:
            self.wanted.append(Wanted(mark, text))
            self._keep(REVIEWS)

    def behaviour(self, state: ItemState, shoppers: Shoppers | None) -> None:
        if state.behaviour is None:
            self._drop(BEHAVIOUR)
            self.shoppers = 0
        elif shoppers is not None and self.stored.get(BEHAVIOUR) != shoppers.fingerprint:
            # It may be newer than the state: it is read later. Then it is named as what it is.
            self._set(BEHAVIOUR, shoppers.fingerprint, shoppers.vector)
            self.shoppers = state.behaviour.shoppers
        elif shoppers is not None or state.behaviour.made(self.stored.get(BEHAVIOUR)):
            self._keep(BEHAVIOUR)
        else:
            self.stale.append(BEHAVIOUR)
            self._keep(BEHAVIOUR)

    def picture(self, found: Pictured | None) -> None:
        stands = self.stored.get(IMAGE)
        if found is None:
            self._keep(IMAGE)
        elif found.mark is None:
            self._drop(IMAGE)
        elif stands is not None and PictureMark.read(stands).picture == found.mark:
            self._keep(IMAGE)
        elif found.vector is not None:
            self._set(IMAGE, found.mark, found.vector)
        elif found.refused is not None:
            self.marks[IMAGE] = PictureMark(found.mark, found.refused).fingerprint
            self.moved.append(IMAGE)
        else:
            self.lacks_picture = True
            self._keep(IMAGE)

    def context(self, state: ItemState, product: ProductUpserted) -> None:
        rating = state.reviews.rating if state.reviews is not None else None
        mark = context_fingerprint(product, rating, state.opinions)
        self.marks[CONTEXT] = mark
        if self.stored.get(CONTEXT) != mark:
            self.moved.append(CONTEXT)

    def _set(self, dimension: str, mark: str, vector: Vector) -> None:
        self.vectors[dimension], self.marks[dimension] = vector, mark
        self.moved.append(dimension)

    def _keep(self, *dimensions: str) -> None:
        for dimension in dimensions:
            if dimension in self.stored:
                self.marks[dimension] = self.stored[dimension]
                self.kept.append(dimension)
                # A sparse vector without any entry is not stored: there is nothing to keep.
                if dimension in self._standing:
                    self.vectors[dimension] = self._standing[dimension]

    def _drop(self, dimension: str) -> None:
        if dimension in self.stored:
            self.moved.append(dimension)
