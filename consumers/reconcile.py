"""Walk item state and the index, in both directions, and announce what differs.

Reads   every item's state in Redis; every point of one collection (payload only)
Writes  publishes ItemChanged on the bulk lane; the embeddings consumer does the writing
Never   announces a mass deletion unasked: an empty or foreign Redis must not empty the index
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from adapters.index_port import VectorIndex
from adapters.kafka import Publisher
from adapters.redis_items import ItemStore
from consumers.assembly import Assembly, Pictured, Shoppers, assemble
from consumers.shopper_vectors import Fingerprints
from schemas.errors import Halt, Transient
from schemas.events import ItemChanged, Product
from schemas.items import ItemState
from schemas.topics import Topics
from schemas.vectors import IMAGE, Point, SparseVector, TextRecipe

#: More deletions than this many, and than this share of the points, need a person's word.
FREE_DELETES = 100
FREE_DELETES_SHARE = 0.01
_FLUSH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a walk found: items with state, points, and how many of each kind were announced."""

    items: int
    points: int
    outdated: int
    missing: int
    surplus: int

    @property
    def announced(self) -> int:
        """How many hints were published."""
        return self.outdated + self.missing + self.surplus


class Reconciler:
    """Compares item state with one collection.

    With `picture_mark` what has a picture and no vector of it, nor a reason, is announced as well.

    With `weigh` the weights of every item's shoppers too, which takes the longest part of the walk.
    """

    def __init__(
        self,
        *,
        store: ItemStore,
        index: VectorIndex,
        collection: str,
        recipe: TextRecipe,
        publisher: Publisher,
        topics: Topics,
        weigh: Callable[[], Fingerprints] | None = None,
        picture_mark: Callable[[Product], str | None] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        batch: int = 500,
    ) -> None:
        self._store = store
        self._index = index
        self._collection = collection
        self._recipe = recipe
        self._publisher = publisher
        self._topic = topics.changed_bulk.name
        self._weigh = weigh
        self._picture_mark = picture_mark
        self._now = now
        self._batch = batch

    def run(self, *, accept_deletes: int = 0) -> Reconciled:
        """Announce every difference; returns once the broker has all hints.

        Raises Halt, with nothing announced, when more than 1 % of the points (and more than 100) would be
        deleted and `accept_deletes` allows fewer; Transient when a store or the broker is away: run it again.
        """
        points, outdated, surplus = self._walk_index()
        allowed = max(FREE_DELETES, int(FREE_DELETES_SHARE * points), accept_deletes)
        if len(surplus) > allowed:
            raise Halt(
                f"reconcile would delete {len(surplus)} of {points} points, because Redis knows no such live "
                "items: is this the right Redis, restored whole? If they really are to go, run "
                f"`simstream reconcile --accept-deletes {len(surplus)}`"
            )
        items, missing = self._walk_state()
        refusals: list[Exception] = []
        for page in (dict.fromkeys(surplus, ()), outdated, dict.fromkeys(missing, ())):
            self._announce(page, refusals)
        if self._publisher.flush(_FLUSH_SECONDS):
            raise Transient("the broker did not acknowledge every announcement in time")
        if refusals:
            raise Transient(f"the broker refused {len(refusals)} announcements: {refusals[0]}")
        return Reconciled(items, points, len(outdated), len(missing), len(surplus))

    def _walk_index(self) -> tuple[int, dict[str, Sequence[str]], list[str]]:
        """How many live points there are, which are outdated and in what, and which should not be there."""
        count = 0
        outdated: dict[str, Sequence[str]] = {}
        surplus: list[str] = []
        weigh = self._weigh() if self._weigh is not None else None
        for page in self._index.scan(self._collection, batch=self._batch):
            states = self._store.read([point.product_id for point in page])
            warm = [one for one, state in states.items() if state.behaviour is not None]
            vectors = weigh(warm) if weigh is not None and warm else {}
            for point in page:
                deleted = bool(point.payload.get("deleted"))
                count += not deleted
                state = states.get(point.product_id)
                found = self._compared(point, state, vectors.get(point.product_id))
                if not found.differs:
                    continue
                if state is None or state.deleted:
                    surplus.append(point.product_id)
                else:
                    lacking = [IMAGE] if found.lacks_picture else []
                    outdated[point.product_id] = [*found.moved, *found.stale, *lacking]
        return count, outdated, surplus

    def _walk_state(self) -> tuple[int, list[str]]:
        """How many live items there are, and the ids of those without a point."""
        seen: set[str] = set()
        missing: list[str] = []
        items = 0
        for page in _pages(self._store.scan_ids(batch=self._batch), self._batch):
            fresh = [product_id for product_id in page if product_id not in seen]
            seen.update(fresh)
            live = [one for one, state in self._store.read(fresh).items() if not state.deleted]
            items += len(live)
            known = self._index.fetch(self._collection, live, vectors=False)
            missing += [product_id for product_id in live if product_id not in known]
        return items, missing

    def _compared(self, point: Point, state: ItemState | None, vector: str | None) -> Assembly:
        """What would become of the point, if its behaviour were of that fingerprint; it is not written."""
        mark, product = self._picture_mark, state.product if state is not None else None
        return assemble(
            point.product_id,
            state,
            point,
            recipe=self._recipe,
            encoded={},
            now=self._now(),
            shoppers=Shoppers(vector, SparseVector((), ())) if vector is not None else None,
            picture=Pictured(mark(product)) if mark is not None and product is not None else None,
        )

    def _announce(self, items: Mapping[str, Sequence[str]], refusals: list[Exception]) -> None:
        def on_ack(error: Exception | None) -> None:
            if error is not None:
                refusals.append(error)

        now = self._now()
        for product_id, dimensions in items.items():
            hint = ItemChanged(product_id=product_id, dimensions=list(dimensions), occurred_at=now)
            self._publisher.send(
                self._topic, key=product_id, value=hint.model_dump_json().encode(), on_ack=on_ack
            )


def _pages(found: Iterator[list[str]], size: int) -> Iterator[list[str]]:
    """Redis answers a walk in pages of any size; the index is asked in pages of one size."""
    ids = (product_id for page in found for product_id in page)
    while page := list(islice(ids, size)):
        yield page
