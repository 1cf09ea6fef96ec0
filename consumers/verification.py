"""Whether a collection may be made live: it shows every item as its state is, and nothing else.

Reads   every item's state in Redis; every point of the collection (payload only); commits of its group
Writes  nothing
Never   trusts counts alone: each id is compared, fingerprints and all

While events arrive, some items are always on their way. So what differs is looked at again, a while later,
and an item fails only if it differs each time: a writer that lives makes it equal at some moment.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from adapters.index_port import VectorIndex
from adapters.redis_items import ItemStore
from consumers.assembly import assemble
from schemas.vectors import TextRecipe

log = logging.getLogger(__name__)

#: Ids named in a report; the rest is counted.
SHOWN_IDS = 5


@dataclass(frozen=True, slots=True)
class Verified:
    """What a look found. `differing` are the ids whose point was not equal to their state at any look."""

    items: int
    points: int
    differing: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether the collection shows everything as it is."""
        return not self.differing

    def __str__(self) -> str:
        shown = ", ".join(self.differing[:SHOWN_IDS])
        more = f" and {len(self.differing) - SHOWN_IDS} more" if len(self.differing) > SHOWN_IDS else ""
        found = f"{self.items} items, {self.points} points"
        return found + (f"; not as their state: {shown}{more}" if self.differing else "; every version equal")


class Verifier:
    """Compares one collection with item state.

    `rest` is the share of the time that a walk sleeps, so that queries of the same process are answered.
    """

    def __init__(
        self,
        *,
        store: ItemStore,
        index: VectorIndex,
        collection: str,
        recipe: TextRecipe,
        rest: float = 0.5,
        batch: int = 200,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._store = store
        self._index = index
        self._collection = collection
        self._recipe = recipe
        self._rest = rest
        self._batch = batch
        self._now = now
        self._sleep = sleep

    def run(self, *, patience_seconds: float, stopped: Callable[[], bool] = lambda: False) -> Verified:
        """Walk both sides, then look again at what differs, until nothing does or patience ends.

        Patience is renewed while the number of differing items falls. Raises Transient when a store is away.
        """
        items, points, differing = self._walk()
        fewest = len(differing)
        deadline = time.monotonic() + patience_seconds
        while differing and time.monotonic() < deadline and not stopped():
            self._sleep(0.2)
            differing = [one for page in _pages(differing, self._batch) for one in self._compared(page)[1]]
            if len(differing) < fewest:
                fewest, deadline = len(differing), time.monotonic() + patience_seconds
        found = Verified(items, points, tuple(differing))
        log.info("collection_verified collection=%s found=%s", self._collection, found)
        return found

    def _walk(self) -> tuple[int, int, list[str]]:
        """Live items, live points, and the ids that differ, from Redis' side and from the index's."""
        seen: set[str] = set()
        items = points = 0
        differing: list[str] = []
        for found in self._store.scan_ids(batch=self._batch):
            fresh = [product_id for product_id in dict.fromkeys(found) if product_id not in seen]
            seen.update(fresh)
            for page in _pages(fresh, self._batch):
                started = time.monotonic()
                live, unequal = self._compared(page)
                items += live
                differing += unequal
                self._pause(started)
        for batch in self._index.scan(self._collection, batch=self._batch):
            started = time.monotonic()
            points += sum(not point.payload.get("deleted") for point in batch)
            # What Redis has listed was compared above.
            strangers = [point.product_id for point in batch if point.product_id not in seen]
            differing += self._compared(strangers)[1]
            self._pause(started)
        return items, points, differing

    def _compared(self, product_ids: Sequence[str]) -> tuple[int, list[str]]:
        """How many live items, and those whose point is not what their state asks for, right now."""
        if not product_ids:
            return 0, []
        states = self._store.read(product_ids)
        points = self._index.fetch(self._collection, product_ids, vectors=False)
        live = sum(not state.deleted for state in states.values())
        return live, [
            one
            for one in product_ids
            if assemble(
                one, states.get(one), points.get(one), recipe=self._recipe, encoded={}, now=self._now()
            ).differs
        ]

    def _pause(self, started: float) -> None:
        if self._rest > 0:
            self._sleep((time.monotonic() - started) * self._rest / (1 - self._rest))


def _pages(found: Iterable[str], size: int) -> Iterator[list[str]]:
    ids = iter(found)
    while page := list(islice(ids, size)):
        yield page
