"""Hints become points: the only writer of vectors.

Reads   items.changed, items.changed.bulk; item state in Redis; points of one collection
Writes  whole points of that collection, one conditional upsert per batch; publishes ItemUpdated, best effort
Never   trusts a hint's content (it only says: look again), nor writes without a ticket drawn before reading.
        One that names behaviour says: look at its shoppers as well

Three threads beside the loop's own. The writer compares entries with their points and writes what differs:

1. draw a ticket   2. read the items' state   3. read their points   4. assemble whole points
5. one conditional upsert   6. settle hints whose point equals the state; texts without a vector wait for

the encoders, one thread for live texts and one for bulk ones, which make their entries due again. Bulk
texts go in large batches and in the background, where the encoder lets everything else come first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from pydantic import Field

from adapters.index_port import VectorIndex
from adapters.kafka import Publisher, Record
from adapters.metrics import (
    FRESHNESS_SECONDS,
    INDEX_WRITE_BATCH_POINTS,
    INDEX_WRITES_TOTAL,
    SKIPPED_ENCODINGS_TOTAL,
    TRANSIENT_ERRORS_TOTAL,
)
from adapters.redis_items import ItemStore
from consumers.assembly import Assembly, Encoded, Shoppers, Wanted, assemble, behaviour_moved
from consumers.progress import Delivery
from consumers.work import BULK, LIVE, Entry, Hint, Worklist
from schemas.errors import PoisonMessage, Transient
from schemas.events import Frozen, InvalidEvent, ItemChanged, ItemUpdated, StageTimes, parse_event
from schemas.items import ItemState
from schemas.topics import Topics
from schemas.vectors import BEHAVIOUR, AnyOf, Between, Encoder, Point, TextRecipe, Where

log = logging.getLogger(__name__)


class EmbeddingsSettings(Frozen):
    """Batch sizes of the threads, the bulk lane's share of writes, and how long tombstones stay."""

    # At least two, one for each lane.
    write_batch_points: int = Field(default=256, ge=2)
    live_batch_texts: int = Field(default=32, ge=1)
    bulk_batch_texts: int = Field(default=256, ge=1)
    bulk_share: float = Field(default=0.1, ge=0.1, le=0.9)
    tombstone_grace_seconds: float = Field(default=24 * 3600.0, gt=0)
    sweep_interval_seconds: float = Field(default=600.0, gt=0)
    backoff_seconds: float = Field(default=0.1, gt=0)
    max_backoff_seconds: float = Field(default=5.0, gt=0)


class BehaviourVectors(Protocol):
    """Makes vectors of shoppers' sketches; reads Redis."""

    def read(self, product_ids: Sequence[str]) -> Mapping[str, Shoppers]:
        """The vector of each item that has a sketch. Raises Transient when Redis is away."""
        ...


class EmbeddingsHandler:
    """Keeps one collection equal to item state, with one release's encoder."""

    name = "embeddings"
    #: The index is durable when it answers, so a commit need not trail it.
    commit_delay_seconds = 0.0
    in_order = False

    def __init__(
        self,
        *,
        store: ItemStore,
        index: VectorIndex,
        collection: str,
        encoder: Encoder,
        recipe: TextRecipe,
        publisher: Publisher,
        topics: Topics,
        settings: EmbeddingsSettings,
        behaviour: BehaviourVectors | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._index = index
        self._collection = collection
        self._encoder = encoder
        self._recipe = recipe
        self._behaviour = behaviour
        self._publisher = publisher
        self._updated_topic = topics.updated.name
        self._bulk_topic = topics.changed_bulk.name
        self._settings = settings
        self._now = now
        self.topics: Sequence[str] = (topics.changed.name, topics.changed_bulk.name)
        self._work = Worklist(bulk_share=settings.bulk_share)
        self._closed = threading.Event()
        self._fatal: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._guarded, args=(loop,), name=f"embeddings-{name}", daemon=True)
            for name, loop in (
                ("writer", self._write_loop),
                ("live-encoder", self._encode_live),
                ("bulk-encoder", self._encode_bulk),
            )
        ]
        for thread in self._threads:
            thread.start()

    def decode(self, record: Record) -> Hint:
        """Parse a hint. Raises PoisonMessage naming the field and what was expected."""
        if record.value is None:
            raise PoisonMessage("a hint must not be a null record: publish an ItemChanged")
        try:
            change = parse_event(record.value, ItemChanged)
        except InvalidEvent as error:
            raise PoisonMessage(str(error)) from error
        lane = BULK if record.topic == self._bulk_topic else LIVE
        weigh = BEHAVIOUR in change.dimensions
        return Hint(change.product_id, lane, change.occurred_at, change.consumed_at, weigh)

    def handle(self, deliveries: Sequence[Delivery[Hint]]) -> None:
        """Take the hints into the work; they settle once their points equal the state."""
        self._work.add(deliveries)

    def store_epoch(self) -> str | None:
        """The index loses nothing it has acknowledged; what Redis loses, products announces again."""
        return None

    def adopt(self, epoch: str | None) -> None:
        """The index has but one."""

    def fatal(self) -> BaseException | None:
        """What ended one of the two threads, if something did."""
        return self._fatal

    def close(self) -> None:
        """Stop both threads; hints in hand stay unsettled."""
        self._closed.set()
        self._work.close()
        for thread in self._threads:
            thread.join(30.0)

    def _guarded(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:  # noqa: BLE001  handed to the runner, which raises it
            self._fatal = error

    # --- the writer --------------------------------------------------------------------------------

    def _write_loop(self) -> None:
        pause = self._settings.backoff_seconds
        next_sweep = time.monotonic()
        while not self._closed.is_set():
            taken = self._work.take_due(self._settings.write_batch_points, timeout_seconds=0.2)
            try:
                if taken:
                    self._serve(taken)
                elif time.monotonic() >= next_sweep:
                    self._sweep()
                    next_sweep = time.monotonic() + self._settings.sweep_interval_seconds
                pause = self._settings.backoff_seconds
            except Transient as error:
                log.warning("consumer_waits consumer=%s reason=%s", self.name, error)
                TRANSIENT_ERRORS_TOTAL.labels(stage="embeddings-writer").inc()
                # Whether it was written is not known: what is read again gets a new ticket.
                self._work.put_back([entry for entry, _ in taken])
                self._closed.wait(pause)
                pause = min(pause * 2, self._settings.max_backoff_seconds)

    def _serve(self, taken: Sequence[tuple[Entry, int]]) -> None:
        ids = [entry.product_id for entry, _ in taken]
        # 1. The ticket comes before both reads: whoever holds a later one has read later.
        ticket = self._store.draw_ticket()
        # 2. and 3.
        states = self._store.read(ids)
        points = self._index.fetch(self._collection, ids, vectors=True)
        newest = max((int(point.payload.get("ticket") or 0) for point in points.values()), default=0)
        if newest >= ticket:
            # Somebody was quicker, or Redis lost its counter and its new clock is behind: our write would be
            # refused, by a writer who in the second case read before us. A larger ticket, and read again.
            ticket = self._store.draw_ticket(floor=newest)
            states = self._store.read(ids)
            points = self._index.fetch(self._collection, ids, vectors=True)
        shoppers = self._shoppers(states, points, {entry.product_id for entry, _ in taken if entry.weigh})
        # 4.
        now = self._now()
        assemblies = [
            assemble(
                entry.product_id,
                states.get(entry.product_id),
                points.get(entry.product_id),
                recipe=self._recipe,
                encoded=entry.encoded,
                now=now,
                shoppers=shoppers.get(entry.product_id),
            )
            for entry, _ in taken
        ]
        # 5. A refused point was written by somebody who read later than we did: our hint is served.
        writes = [assembly.point for assembly in assemblies if assembly.point is not None]
        if writes:
            self._index.upsert(self._collection, writes, ticket=ticket)
            INDEX_WRITE_BATCH_POINTS.observe(len(writes))
        # 6.
        searchable_at = self._now()
        updates = []
        for (entry, hints), assembly in zip(taken, assemblies, strict=True):
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

    def _sweep(self) -> None:
        """Remove tombstones older than the grace: no writer that old can still be on its way."""
        oldest = self._now() - timedelta(seconds=self._settings.tombstone_grace_seconds)
        self._index.delete_where(
            self._collection,
            Where(must=(AnyOf("deleted", (True,)), Between("deleted_at", high=oldest.timestamp()))),
        )

    # --- the encoder -------------------------------------------------------------------------------

    def _encode_live(self) -> None:
        self._encode_lane(LIVE, self._settings.live_batch_texts)

    def _encode_bulk(self) -> None:
        self._encode_lane(BULK, self._settings.bulk_batch_texts)

    def _encode_lane(self, lane: int, limit: int) -> None:
        while not self._closed.is_set():
            taken = self._work.take_unencoded(lane, limit, timeout_seconds=0.2)
            if taken:
                self._encode(taken, background=lane == BULK)

    def _encode(self, taken: Sequence[tuple[Entry, Wanted]], *, background: bool) -> None:
        vectors = self._encoder.encode([wanted.text for _, wanted in taken], background=background)
        now = self._now()
        for entry, _ in taken:
            age = (now - entry.occurred_at).total_seconds()
            FRESHNESS_SECONDS.labels(stage="encoded").observe(max(0.0, age))
        results = [
            (entry, Encoded(fingerprint=wanted.fingerprint, vector=vector))
            for (entry, wanted), vector in zip(taken, vectors, strict=True)
        ]
        self._work.encoded(results, now)


def _told(error: Exception | None) -> None:
    """An ItemUpdated is best effort: one that was refused is said, and nothing waits for it."""
    if error is not None:
        log.warning("item_updated_not_published reason=%s", error)
