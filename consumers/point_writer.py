"""The only writer of vectors: items in hand are compared with their points, and what differs is written.

Reads   item state in Redis; points of one collection
Writes  points of that collection, whole or their payload alone, each conditionally; publishes ItemUpdated,
        best effort
Never   writes without a ticket drawn before reading

1. draw a ticket   2. read the items' state   3. read their points   4. assemble what they should be
5. write: one conditional upsert of whole points; where all vectors stay, the payload alone, if the point is
still the one that was read   6. settle hints whose point equals the state; texts without a vector are wanted
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Protocol

from adapters import tracing
from adapters.index_port import VectorIndex
from adapters.kafka import Publisher
from adapters.metrics import (
    FRESHNESS_SECONDS,
    INDEX_SECONDS,
    INDEX_WRITE_BATCH_POINTS,
    INDEX_WRITES_TOTAL,
    SEARCHABLE_SECONDS,
    SKIPPED_ENCODINGS_TOTAL,
)
from adapters.redis_items import ItemStore
from consumers.assembly import Assembly, Pictured, Shoppers, assemble, behaviour_moved
from consumers.work import BULK, LIVE, Entry, Worklist
from schemas.events import ItemUpdated, Product, StageTimes
from schemas.items import ItemState
from schemas.vectors import IMAGE, AnyOf, Between, PayloadChange, Point, TextRecipe, Where

log = logging.getLogger(__name__)

_LANES = {LIVE: "live", BULK: "bulk"}


class BehaviourVectors(Protocol):
    """Makes vectors of shoppers' sketches; reads Redis."""

    def read(self, product_ids: Sequence[str]) -> Mapping[str, Shoppers]:
        """The vector of each item that has a sketch. Raises Transient when Redis is away."""
        ...


class PictureVectors(Protocol):
    """Vectors of pictures, as far as they have come."""

    def of(self, product: Product) -> Pictured:
        """The picture of a product."""
        ...

    def want(self, product_id: str, product: Product) -> None:
        """Get it, and announce the item then."""
        ...

    def written(self, fingerprints: Sequence[str]) -> None:
        """These stand on points by now."""
        ...


class PointWriter:
    """Keeps points of one collection equal to item state, given the vectors of their texts."""

    def __init__(
        self,
        *,
        store: ItemStore,
        index: VectorIndex,
        collection: str,
        recipe: TextRecipe,
        behaviour: BehaviourVectors | None,
        pictures: PictureVectors | None,
        publisher: Publisher,
        updated_topic: str,
        work: Worklist,
        tombstone_grace_seconds: float,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._index = index
        self._collection = collection
        self._recipe = recipe
        self._behaviour = behaviour
        self._pictures = pictures
        self._publisher = publisher
        self._updated_topic = updated_topic
        self._work = work
        self._tombstone_grace = timedelta(seconds=tombstone_grace_seconds)
        self._now = now

    def serve(self, taken: Sequence[tuple[Entry, int]]) -> None:
        """Write what differs, settle what is done. Raises Transient; the entries then have to be put back."""
        ids = [entry.product_id for entry, _ in taken]
        # 1. The ticket comes before both reads: whoever holds a later one has read later.
        ticket = self._store.draw_ticket()
        # 2. and 3.
        states = self._store.read(ids)
        points = self._fetch(ids, vectors=False)
        newest = max((int(point.payload.get("ticket") or 0) for point in points.values()), default=0)
        if newest >= ticket:
            # Somebody was quicker, or Redis lost its counter and its new clock is behind: our write would be
            # refused, by a writer who in the second case read before us. A larger ticket, and read again.
            ticket = self._store.draw_ticket(floor=newest)
            states = self._store.read(ids)
            points = self._fetch(ids, vectors=False)
        shoppers = self._shoppers(states, points, {entry.product_id for entry, _ in taken if entry.weigh})
        # 4.
        entries = [entry for entry, _ in taken]
        assemblies = self._assembled(entries, states, points, shoppers)
        # 5. A refused point was written by somebody who read later than we did: our hint is served.
        whole = [one.point for one in assemblies if one.point is not None and not one.payload_only]
        if whole:
            with INDEX_SECONDS.labels(call="write").time(), _traced(entries, whole):
                self._index.upsert(self._collection, whole, ticket=ticket)
        changes = [
            PayloadChange(one.point.product_id, one.point.payload, points[one.point.product_id].payload)
            for one in assemblies
            if one.point is not None and one.payload_only
        ]
        # A payload that was refused says less: who wrote it need not have read later. It is compared again.
        refused = self._change(entries, changes, ticket=ticket) if changes else set()
        if whole or changes:
            INDEX_WRITE_BATCH_POINTS.observe(len(whole) + len(changes))
        # 6.
        searchable_at = self._now()
        updates = []
        for (entry, hints), assembly in zip(taken, assemblies, strict=True):
            if entry.product_id in refused:
                self._work.put_back([entry])
                continue
            self._look_after_picture(assembly, states.get(entry.product_id))
            if assembly.point is not None:
                updates.append((entry.product_id, self._update(entry, assembly, searchable_at), _told))
            if assembly.wanted:
                self._work.want(entry, assembly.wanted, rewritten=assembly.point is not None)
            elif assembly.stale:
                self._work.put_back([entry])
            else:
                if entry.encoder_calls == 0:
                    SKIPPED_ENCODINGS_TOTAL.inc()
                self._work.served(entry, hints)
        # Nobody waits for these.
        self._publisher.send_batch(self._updated_topic, updates)

    def _look_after_picture(self, assembly: Assembly, state: ItemState | None) -> None:
        """Want what lacks, let go of what is written. The hints do not wait for it."""
        if self._pictures is None or state is None or state.product is None:
            return
        if assembly.lacks_picture:
            self._pictures.want(state.product_id, state.product)
        elif IMAGE in assembly.moved and assembly.point is not None:
            mark = assembly.point.payload["fingerprints"].get(IMAGE)
            self._pictures.written([mark] if mark is not None else [])

    def _fetch(self, ids: Sequence[str], *, vectors: bool) -> dict[str, Point]:
        with INDEX_SECONDS.labels(call="read").time():
            return self._index.fetch(self._collection, ids, vectors=vectors)

    def _change(self, entries: Sequence[Entry], changes: Sequence[PayloadChange], *, ticket: int) -> set[str]:
        with INDEX_SECONDS.labels(call="payload").time(), _traced(entries, changes):
            return self._index.change_payloads(self._collection, changes, ticket=ticket)

    def _assembled(
        self,
        entries: Sequence[Entry],
        states: Mapping[str, ItemState],
        points: dict[str, Point],
        shoppers: Mapping[str, Shoppers],
    ) -> list[Assembly]:
        """What each point should be. `points` come without vectors, and get them where a write needs them."""
        now = self._now()

        def one(entry: Entry) -> Assembly:
            name = entry.product_id
            state = states.get(name)
            product = state.product if state is not None else None
            return assemble(
                name,
                state,
                points.get(name),
                recipe=self._recipe,
                encoded=entry.encoded,
                now=now,
                shoppers=shoppers.get(name),
                picture=self._pictures.of(product) if self._pictures and product is not None else None,
            )

        found = [one(entry) for entry in entries]
        # Reading a vector costs ten times what its payload does, and most changes need none of them. A point
        # may have been written since: what comes out is made from this second reading alone.
        lacking = [
            place
            for place, made in enumerate(found)
            if made.point is not None and made.kept and not made.payload_only
        ]
        if lacking:
            ids = [entries[place].product_id for place in lacking]
            whole = self._fetch(ids, vectors=True)
            for name in ids:
                del points[name]
            points.update(whole)
            for place in lacking:
                found[place] = one(entries[place])
        return found

    def _shoppers(
        self, states: Mapping[str, ItemState], points: Mapping[str, Point], weigh: Collection[str]
    ) -> Mapping[str, Shoppers]:
        """The behaviour vectors of the items whose sketch has moved since their point was written.

        `weigh` names items whose shoppers may weigh something else by now.
        """
        moved = [
            one
            for one, state in states.items()
            if behaviour_moved(state, points.get(one)) or (one in weigh and state.behaviour is not None)
        ]
        if not moved or self._behaviour is None:
            return {}
        return self._behaviour.read(moved)

    def _update(self, entry: Entry, assembly: Assembly, searchable_at: datetime) -> bytes:
        """One ItemUpdated; counts it."""
        point = assembly.point
        assert point is not None  # noqa: S101  the caller has checked
        deleted = bool(point.payload["deleted"])
        INDEX_WRITES_TOTAL.labels(kind="tombstone" if deleted else "live").inc()
        age = (searchable_at - entry.occurred_at).total_seconds()
        FRESHNESS_SECONDS.labels(stage="searchable").observe(max(0.0, age))
        for dimension in assembly.moved:
            SEARCHABLE_SECONDS.labels(dimension=dimension, lane=_LANES[entry.lane]).observe(max(0.0, age))
        update = ItemUpdated(
            product_id=entry.product_id,
            collection=self._collection,
            dimensions=list(assembly.moved),
            encoder_calls=entry.encoder_calls,
            revision=point.payload["revision"],
            deleted=deleted,
            stages=StageTimes(
                occurred_at=entry.occurred_at,
                consumed_at=entry.consumed_at,
                encoded_at=entry.encoded_at,
                searchable_at=searchable_at,
            ),
        )
        return update.model_dump_json().encode()

    def sweep(self) -> None:
        """Remove tombstones older than the grace: no writer that old can still be on its way."""
        oldest = self._now() - self._tombstone_grace
        self._index.delete_where(
            self._collection,
            Where(must=(AnyOf("deleted", (True,)), Between("deleted_at", high=oldest.timestamp()))),
        )


def _traced(
    entries: Sequence[Entry], written: Sequence[Point | PayloadChange]
) -> AbstractContextManager[tracing.Places]:
    """The spans of one write, for the changes behind what is written."""
    names = {one.product_id for one in written} if tracing.on() else set()
    found = (entry for entry in entries if entry.product_id in names)
    return tracing.stage(
        "write index", (entry.stands(hint) for entry in found for hint in entry.hints_traced())
    )


def _told(error: Exception | None) -> None:
    """An ItemUpdated is best effort: one that was refused is said, and nothing waits for it."""
    if error is not None:
        log.warning("item_updated_not_published reason=%s", error)
