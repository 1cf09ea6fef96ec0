"""Hints become points: the only consumer that makes vectors.

Reads   items.changed, items.changed.bulk
Writes  points of one collection, through consumers/point_writer.py
Never   trusts a hint's content: it only says: look again. One that names behaviour says: look at its
        shoppers as well

Three threads beside the loop's own, and those of pictures (consumers/pictures.py). One compares entries with
their points and writes what differs. Two encode the texts that it wants, one live texts and one bulk ones,
and make their entries due again. Bulk texts go in large batches and in the background, where the encoder lets
everything else come first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial

from pydantic import Field

from adapters import tracing
from adapters.index_port import VectorIndex
from adapters.kafka import Publisher, Record
from adapters.metrics import (
    ENCODE_BATCH_TEXTS,
    ENCODE_SECONDS,
    FRESHNESS_SECONDS,
    OLDEST_CHANGE_SECONDS,
    TRANSIENT_ERRORS_TOTAL,
    WORK_ENTRIES,
)
from adapters.redis_items import ItemStore
from consumers.assembly import Encoded, Wanted
from consumers.hints import read_hint
from consumers.pictures import Pictures
from consumers.point_writer import BehaviourVectors, PointWriter
from consumers.progress import Delivery
from consumers.work import BULK, LIVE, Entry, Hint, Worklist
from schemas.errors import Transient
from schemas.events import Frozen
from schemas.topics import Topics
from schemas.vectors import BEHAVIOUR, Encoder, TextRecipe

log = logging.getLogger(__name__)

_LANES = {LIVE: "live", BULK: "bulk"}
_QUEUES = ("due", "unencoded")


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
        pictures: Pictures | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._encoder = encoder
        self._pictures = pictures
        self._bulk_topic = topics.changed_bulk.name
        self._settings = settings
        self._now = now
        self.topics: Sequence[str] = (topics.changed.name, topics.changed_bulk.name)
        self._work = Worklist(bulk_share=settings.bulk_share)
        self._writer = PointWriter(
            store=store,
            index=index,
            collection=collection,
            recipe=recipe,
            behaviour=behaviour,
            pictures=pictures,
            publisher=publisher,
            updated_topic=topics.updated.name,
            work=self._work,
            tombstone_grace_seconds=settings.tombstone_grace_seconds,
            now=now,
        )
        self._collection = collection
        self._show_work()
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
        change = read_hint(record)
        lane = BULK if record.topic == self._bulk_topic else LIVE
        weigh = BEHAVIOUR in change.dimensions
        place = tracing.carried(record.headers)
        return Hint(change.product_id, lane, change.occurred_at, change.consumed_at, weigh, place)

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
        if self._pictures is not None:
            self._pictures.close()
        self._hide_work()

    def _show_work(self) -> None:
        """Metrics of what is in hand, asked for when they are read."""
        for lane, name in _LANES.items():
            oldest = OLDEST_CHANGE_SECONDS.labels(collection=self._collection, lane=name)
            oldest.set_function(partial(self._work.oldest_seconds, lane))
            for queue in _QUEUES:
                entries = WORK_ENTRIES.labels(collection=self._collection, queue=f"{queue}, {name}")
                entries.set_function(partial(self._work.waiting, queue, lane))

    def _hide_work(self) -> None:
        for name in _LANES.values():
            with suppress(KeyError):  # hidden before
                OLDEST_CHANGE_SECONDS.remove(self._collection, name)
                for queue in _QUEUES:
                    WORK_ENTRIES.remove(self._collection, f"{queue}, {name}")

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
                    self._writer.serve(taken)
                    taken = []  # they are not put back for a sweep that fails
                if time.monotonic() >= next_sweep:
                    # One that fails waits for its next turn, too: it must not hold up the writes.
                    next_sweep = time.monotonic() + self._settings.sweep_interval_seconds
                    self._writer.sweep()
                pause = self._settings.backoff_seconds
            except Transient as error:
                log.warning("consumer_waits consumer=%s reason=%s", self.name, error)
                TRANSIENT_ERRORS_TOTAL.labels(stage="embeddings-writer").inc()
                # Whether it was written is not known: what is read again gets a new ticket.
                self._work.put_back([entry for entry, _ in taken])
                self._closed.wait(pause)
                pause = min(pause * 2, self._settings.max_backoff_seconds)

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
        lane = _LANES[BULK if background else LIVE]
        ENCODE_BATCH_TEXTS.labels(lane=lane).observe(len(taken))
        with ENCODE_SECONDS.labels(lane=lane).time(), _traced(taken):
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


@contextmanager
def _traced(taken: Sequence[tuple[Entry, Wanted]]) -> Iterator[None]:
    """The changes that wait for these texts stand behind their encoding from then on."""
    entries = {id(entry): entry for entry, _ in taken} if tracing.on() else {}
    hints = [(entry, hint) for entry in entries.values() for hint in entry.hints_traced()]
    with tracing.stage("encode", (entry.stands(hint) for entry, hint in hints)) as places:
        yield
    for (entry, hint), place in zip(hints, places, strict=False):
        if place is not None:
            entry.moved = {**entry.moved, hint: place}
