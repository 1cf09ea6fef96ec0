"""What the service looks up by name: the live collection, its release, items and their points.

Reads   the index, item state, behaviour where there is any, the releases loaded in this process
Writes  nothing
Never   ranks: service/query.py does
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapters.index_port import LIVE_ALIAS, VectorIndex, release_of
from schemas.api import DimensionAge, ItemBehaviour, ItemRating, ItemView, ReleaseView
from schemas.api_watch import MapRequest, MapView, Place
from schemas.behaviour import BehaviourReader, ItemFigures
from schemas.items import (
    CONTEXT,
    Items,
    ItemState,
    PictureMark,
    RatingPrior,
    ReviewState,
    context_fingerprint,
)
from schemas.vectors import CONTENT, IMAGE, AnyOf, Point, SparseVector, Where
from service.errors import (
    DeletedItem,
    NotSearchableYet,
    Refused,
    Unavailable,
    UnknownItem,
    UnknownRelease,
    shown,
)
from service.places import placed
from service.releases import LoadedRelease, ReleaseNotLoaded, Releases
from service.timing import BEHAVIOUR, ENCODER, INDEX, ITEMS, Timings

NOT_DELETED = Where(must_not=(AnyOf("deleted", (True,)),))


@dataclass(frozen=True, slots=True)
class Target:
    """The collection that one request uses for all it does, and the release it was built with."""

    collection: str
    release_id: str


class Catalogue:
    """Look-ups of the service. Thread-safe; remembers which collection it answers from."""

    def __init__(
        self,
        *,
        index: VectorIndex,
        store: Items,
        releases: Releases,
        alias: str = LIVE_ALIAS,
        behaviour: BehaviourReader | None = None,
        rating_prior: RatingPrior | None = None,
    ) -> None:
        self.index = index
        self._behaviour = behaviour
        self._prior = rating_prior or RatingPrior()
        self._store = store
        self._releases = releases
        self._alias = alias
        # The last collection that was live and whose encoder was loaded here.
        self._previous: str | None = None

    def target(self, release_id: str | None, timings: Timings) -> Target:
        """The live collection, or that of the release named. Raises Unavailable, UnknownRelease."""
        with timings.asking(INDEX):
            live = self.index.resolve(self._alias)
        if release_id is None:
            if live is None:
                raise Unavailable(
                    INDEX, f"no collection is live yet: the alias {self._alias!r} points nowhere"
                )
            answering = self._answering(live, timings)
            return Target(answering, release_of(answering))
        if live is not None and release_of(live) == release_id:
            return Target(live, release_id)
        with timings.asking(INDEX):
            names = self.index.collections()
        own = [
            name
            for name in names
            if name.startswith(f"{self._alias}__")
            and name.count("__") >= 2
            and release_of(name) == release_id
        ]
        if not own:
            raise UnknownRelease(f"no collection holds vectors of release {shown(release_id)}")
        return Target(max(own, key=_generation), release_id)

    def _answering(self, live: str, timings: Timings) -> str:
        """The live collection; the one before, by its real name, until this process has the live encoder."""
        previous = self._previous
        if previous == live:
            return live
        try:
            self._releases.loaded(release_of(live))
        except ReleaseNotLoaded:
            if previous is None:
                return live  # queries by item need no encoder
            with timings.asking(INDEX):
                return previous if previous in self.index.collections() else live
        self._previous = live
        return live

    def loaded(self, release_id: str) -> LoadedRelease:
        """The release's encoder and recipe. Raises Unavailable where this process has not loaded it."""
        try:
            return self._releases.loaded(release_id)
        except ReleaseNotLoaded as error:
            raise Unavailable(ENCODER, f"{error}; queries by item are answered all the same") from error

    def seed_points(self, target: Target, item_ids: Sequence[str], timings: Timings) -> dict[str, Point]:
        """Seeds with vectors. Raises UnknownItem, DeletedItem or NotSearchableYet for a missing one."""
        if not item_ids:
            return {}
        with timings.asking(INDEX):
            points = self.index.fetch(target.collection, item_ids, vectors=True)
        for item_id in item_ids:
            if not searchable(points.get(item_id)):
                raise self._why_missing(item_id, timings)
        return points

    def shows(self, item_id: str, timings: Timings) -> bool | None:
        """Whether the index shows the newest state of an item that is for sale; None where there is none."""
        state = self._state(item_id, timings)
        if state is None or state.deleted:
            return None
        target = self.target(None, timings)
        with timings.asking(INDEX):
            point = self.index.fetch(target.collection, [item_id], vectors=(CONTENT,)).get(item_id)
        return searchable(point) and point is not None and self._is_of(point, state, target)

    def _is_of(self, point: Point, state: ItemState, target: Target) -> bool:
        """Whether a point shows this state. Not by its revision: one that changes nothing is not written."""
        product, marks = state.product, point.payload["fingerprints"]
        rating = state.reviews.rating if state.reviews is not None else None
        if product is None or marks.get(CONTEXT) != context_fingerprint(product, rating, state.opinions):
            return False
        try:
            recipe = self._releases.loaded(target.release_id).recipe
        except ReleaseNotLoaded:
            return bool(point.payload["title"] == product.title)
        return bool(marks.get(CONTENT) == recipe.fingerprint(product))

    def _why_missing(self, item_id: str, timings: Timings) -> Refused:
        state = self._state(item_id, timings)
        if state is None:
            return UnknownItem(f"no item {shown(item_id)} in the catalogue")
        if state.deleted:
            return DeletedItem(f"item {shown(item_id)} has left the catalogue")
        return NotSearchableYet(f"item {shown(item_id)} waits for its first vectors: repeat in a second")

    def _state(self, item_id: str, timings: Timings) -> ItemState | None:
        with timings.asking(ITEMS):
            return self._store.read([item_id]).get(item_id)

    def item(self, item_id: str, timings: Timings) -> ItemView:
        """Item state, what shoppers did, and what the index shows.

        Raises UnknownItem, DeletedItem, Unavailable.
        """
        state = self._state(item_id, timings)
        if state is None:
            raise UnknownItem(f"no item {shown(item_id)} in the catalogue")
        if state.product is None:
            raise DeletedItem(f"item {shown(item_id)} has left the catalogue")
        with timings.asking(INDEX):
            live = self.index.resolve(self._alias)
            answering = self._answering(live, timings) if live is not None else None
            points = self.index.fetch(answering, [item_id], vectors=False) if answering is not None else {}
        payload = points[item_id].payload if item_id in points else {}
        if payload.get("deleted"):
            payload = {}
        figures = self._figures(item_id, timings)
        product = state.product.model_dump(exclude={"kind", "product_id", "revision", "occurred_at", "price"})
        return ItemView(
            item_id=item_id,
            revision=state.revision,
            indexed_revision=payload.get("revision"),
            occurred_at=state.occurred_at,
            price=None if state.product.price is None else str(state.product.price),
            rating=_rating(state.reviews, self._prior),
            opinions=list(payload.get("opinions") or ()),
            counters=dict(figures.totals) if figures is not None else {},
            behaviour=_behaviour_view(figures) if figures is not None else None,
            dimensions=_ages(payload),
            **product,
        )

    def _figures(self, item_id: str, timings: Timings) -> ItemFigures | None:
        if self._behaviour is None:
            return None
        with timings.asking(BEHAVIOUR):
            return self._behaviour.figures([item_id]).get(item_id)

    def release(self, timings: Timings) -> ReleaseView:
        """The live release and what it runs as. `model` is unknown here until its encoder is loaded (503)."""
        target = self.target(None, timings)
        manifest = self.loaded(target.release_id).manifest
        with timings.asking(INDEX):
            points = self.index.count(target.collection, NOT_DELETED)
        return ReleaseView(
            release_id=target.release_id,
            collection=target.collection,
            model=manifest.base_model,
            dimension=manifest.dimension,
            points=points,
            created_at=manifest.created_at,
            parent=manifest.parent,
            figures=dict(manifest.figures),
        )

    def places(self, request: MapRequest, timings: Timings) -> MapView:
        """The items on a plane. Raises Unavailable, UnknownRelease."""
        target = self.target(request.release_id, timings)
        with timings.asking(INDEX):
            ids = list(dict.fromkeys(request.item_ids))
            points = self.index.fetch(target.collection, ids, vectors=[CONTENT])
        vectors: dict[str, Sequence[float]] = {}
        for item_id, point in points.items():
            vector = point.vectors.get(CONTENT)
            if searchable(point) and vector is not None and not isinstance(vector, SparseVector):
                vectors[item_id] = vector
        found, share = placed(vectors)
        return MapView(
            places=[Place(item_id=item_id, x=x, y=y) for item_id, (x, y) in found.items()],
            shown=share,
            release_id=target.release_id,
            took_ms=round(timings.elapsed_ms(), 3),
        )

    def missing(self) -> list[dict[str, str]]:
        """What every ranking needs and this process has not: store and reason, empty when it is ready."""
        try:
            self.loaded(self.target(None, Timings()).release_id)
        except Unavailable as error:
            return error.errors
        return []

    def degraded(self) -> list[dict[str, str]]:
        """What some routes need and is away, while neighbours of items are answered: store and reason."""
        try:
            with Timings().asking(ITEMS):
                self._store.ping()
        except Unavailable as error:
            return error.errors
        return []


def searchable(point: Point | None) -> bool:
    """Whether a point can be a seed: it is there, not deleted, and has vectors."""
    return point is not None and not point.payload.get("deleted") and bool(point.vectors)


def _rating(reviews: ReviewState | None, prior: RatingPrior) -> ItemRating | None:
    rating = reviews.rating if reviews is not None else None
    if rating is None:
        return None
    return ItemRating(
        mean=round(rating.mean, 4),
        count=rating.count,
        histogram={str(stars): number for stars, number in enumerate(rating.histogram)},
        bayesian_mean=round(rating.bayesian_mean(prior), 4),
    )


def _behaviour_view(figures: ItemFigures) -> ItemBehaviour:
    return ItemBehaviour(
        windows={window: dict(counts) for window, counts in figures.windows.items()},
        shoppers=dict(figures.shoppers),
        buyers=dict(figures.buyers),
        conversion={window: figures.conversion(window) for window in figures.shoppers},
    )


def _ages(payload: dict[str, Any] | Any) -> dict[str, DimensionAge]:
    fingerprints, updated = payload.get("fingerprints") or {}, payload.get("updated_at") or {}
    return {
        name: DimensionAge(updated_at=updated[name], fingerprint=fingerprint)
        for name, fingerprint in fingerprints.items()
        # A picture that was refused has no vector.
        if name in updated and not (name == IMAGE and PictureMark.read(fingerprint).refused is not None)
    }


def _generation(collection: str) -> int:
    # A collection filled from another generation of the state says so behind its number.
    last = collection.rpartition("__")[2].partition("-")[0]
    return int(last) if last.isdigit() else 0
