"""Product events become item state; a changed item is announced on items.changed.

Reads   catalog.products
Writes  item state in Redis; publishes ItemChanged, on the bulk lane where the record asks for it
Never   touches the index: consumers/embeddings.py is the only writer of vectors

Announcing is part of the effect: a record settles when the broker has acknowledged the hint it caused. A
crash between the write and the announcement is redelivered with an equal revision, which announces again.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from pydantic import TypeAdapter, ValidationError

from adapters.kafka import Acknowledge, Publisher, Record
from adapters.metrics import FRESHNESS_SECONDS
from adapters.redis_items import Applied, ItemStore, LogPosition, Outcome, ProductWrite
from consumers.progress import Delivery
from schemas.errors import PoisonMessage, Transient
from schemas.events import (
    MAX_REVISION,
    Id,
    InvalidEvent,
    ItemChanged,
    ProductDeleted,
    ProductUpserted,
    explain,
    parse_event,
)
from schemas.items import digest
from schemas.topics import BULK_LANE, LANE_HEADER, Topics

#: A derived revision comes from the producer's clock; further ahead than this it would block later events.
MAX_CLOCK_AHEAD = timedelta(minutes=10)
#: Redis with AOF everysec may lose its last seconds, so commits trail the effect by more than that.
COMMIT_DELAY_SECONDS = 3.0
#: The last millisecond that a datetime can say; a record's timestamp is whatever its producer wrote.
_LAST_MS = 253_402_300_799_000
_PRODUCT_ID: TypeAdapter[str] = TypeAdapter(Id)
_TEXT_DIMENSIONS = ["content", "lexical"]


@dataclass(frozen=True, slots=True)
class ProductChange:
    """One decoded record of catalog.products: what to write, and the lane its hint travels in."""

    write: ProductWrite
    occurred_at: datetime
    bulk: bool


class ProductsHandler:
    """Applies product events to item state and announces what changed."""

    name = "products"
    commit_delay_seconds = COMMIT_DELAY_SECONDS
    in_order = False

    def __init__(
        self, *, store: ItemStore, publisher: Publisher, topics: Topics, ack_timeout_seconds: float = 30.0
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._topics = topics
        self._ack_timeout_seconds = ack_timeout_seconds
        self.topics: Sequence[str] = (topics.products.name,)

    def decode(self, record: Record) -> ProductChange:
        """Parse a record. Raises PoisonMessage naming the field and what was expected."""
        position = LogPosition(record.topic_id, record.partition, record.offset, record.timestamp_ms)
        recorded_at = datetime.fromtimestamp(min(max(0, record.timestamp_ms), _LAST_MS) / 1000, tz=UTC)
        bulk = any(name == LANE_HEADER and value == BULK_LANE.encode() for name, value in record.headers)
        key = _key(record)
        if record.value is None:
            return ProductChange(
                write=ProductWrite(product_id=key, position=position, revision=None),
                occurred_at=recorded_at,
                bulk=bulk,
            )
        try:
            event = cast(
                ProductUpserted | ProductDeleted,
                parse_event(record.value, ProductUpserted, ProductDeleted),
            )
        except InvalidEvent as error:
            raise PoisonMessage(str(error)) from error
        if key != event.product_id:
            raise PoisonMessage(
                f"the record's key is {key!r} but field 'product_id' is {event.product_id!r}: "
                "key records by product_id, or compaction removes the wrong product"
            )
        # As a difference: a sum could pass the last date there is.
        if event.revision is None and event.occurred_at - recorded_at > MAX_CLOCK_AHEAD:
            raise PoisonMessage(
                f"field 'occurred_at' ({event.occurred_at.isoformat()}) is more than 10 minutes ahead of the "
                f"record's timestamp ({recorded_at.isoformat()}) and no 'revision' is given: "
                "mend the producer's clock, or send a revision"
            )
        if event.order > MAX_REVISION:
            raise PoisonMessage(
                f"field 'occurred_at' ({event.occurred_at.isoformat()}) is too late to derive a revision "
                f"from (at most {MAX_REVISION} microseconds): mend the producer's clock, or send a revision"
            )
        upsert = event if isinstance(event, ProductUpserted) else None
        return ProductChange(
            write=ProductWrite(
                product_id=event.product_id,
                position=position,
                revision=event.order,
                body_hash=hashlib.blake2b(record.value, digest_size=8).hexdigest(),
                document=upsert.model_dump_json(exclude_none=True).encode() if upsert else None,
                occurred_at=event.occurred_at.isoformat(),
                text_hash=_text_hash(upsert) if upsert else "",
            ),
            occurred_at=event.occurred_at,
            bulk=bulk,
        )

    def handle(self, deliveries: Sequence[Delivery[ProductChange]]) -> None:
        """Write, announce, wait for the broker, settle. Raises Transient with the rest still unsettled."""
        # 1. State first: one round trip, each write applied only if it is newer.
        applied = self._store.apply([delivery.event.write for delivery in deliveries])
        consumed_at = datetime.now(UTC)
        # 2. One hint per item of the batch; an older event is silent.
        announced: dict[str, list[tuple[Delivery[ProductChange], Applied]]] = {}
        for delivery, answer in zip(deliveries, applied, strict=True):
            if answer.outcome is Outcome.OLDER:
                delivery.settle()
            else:
                announced.setdefault(delivery.event.write.product_id, []).append((delivery, answer))
        acknowledgements = _Acknowledgements(len(announced))
        hints: dict[str, list[tuple[str, bytes, Acknowledge]]] = {}
        for product_id, parts in announced.items():
            topic, hint, on_ack = self._hint(product_id, parts, consumed_at, acknowledgements)
            hints.setdefault(topic, []).append((product_id, hint, on_ack))
        for topic, batch in hints.items():
            self._publisher.send_batch(topic, batch)
        # 3. Nothing settles before the broker has the hints it caused.
        if announced and not acknowledgements.wait(self._ack_timeout_seconds):
            raise Transient("the broker did not acknowledge the announcements in time")
        if acknowledgements.failure is not None:
            raise Transient(f"the broker refused announcements: {acknowledgements.failure}")

    def _hint(
        self,
        product_id: str,
        parts: list[tuple[Delivery[ProductChange], Applied]],
        consumed_at: datetime,
        acknowledgements: _Acknowledgements,
    ) -> tuple[str, bytes, Acknowledge]:
        """Its topic, its body, and what its acknowledgement settles."""
        changes = [delivery.event for delivery, _ in parts]
        text_changed = any(answer.text_changed for _, answer in parts)
        # A live change among bulk ones must not wait for the import.
        bulk = all(change.bulk for change in changes)
        topic = self._topics.changed_bulk if bulk else self._topics.changed
        # A redelivered equal is announced with no dimension: what it changed is no longer known, and hints
        # carry no state.
        hint = ItemChanged(
            product_id=product_id,
            dimensions=([*_TEXT_DIMENSIONS] if text_changed else []) + ["context"],
            occurred_at=max(change.occurred_at for change in changes),
            consumed_at=consumed_at,
        )

        def on_ack(error: Exception | None) -> None:
            if error is None:
                for delivery, _ in parts:
                    delivery.settle()
                for change in changes:
                    age = (consumed_at - change.occurred_at).total_seconds()
                    FRESHNESS_SECONDS.labels(stage="consumed").observe(max(0.0, age))
            acknowledgements.count(error)

        return topic.name, hint.model_dump_json().encode(), on_ack

    def store_epoch(self) -> str | None:
        """Redis' run id: when it changes, effects younger than the commit may be gone."""
        return self._store.run_id()

    def fatal(self) -> BaseException | None:
        """This handler has no thread of its own that could die."""
        return None

    def close(self) -> None:
        """Nothing to release: collaborators belong to whoever made them."""


class _Acknowledgements:
    """Counts broker acknowledgements of one batch; the last one wakes the waiter."""

    def __init__(self, expected: int) -> None:
        self._missing = expected
        self._lock = threading.Lock()
        self._done = threading.Event()
        self.failure: Exception | None = None

    def count(self, error: Exception | None) -> None:
        """One acknowledgement, or one refusal, has come; called on the publisher's thread."""
        with self._lock:
            self._missing -= 1
            if error is not None:
                self.failure = error
            if self._missing <= 0:
                self._done.set()

    def wait(self, timeout_seconds: float) -> bool:
        """Whether all have come in time."""
        return self._done.wait(timeout_seconds)


def _key(record: Record) -> str:
    if record.key is None:
        raise PoisonMessage("the record has no key: key records of this topic by product_id")
    try:
        key = record.key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PoisonMessage("the record's key is not UTF-8: key records by product_id") from error
    try:
        return _PRODUCT_ID.validate_python(key)
    except ValidationError as error:
        raise PoisonMessage(f"the record's key: {explain(error)}") from error


def _text_hash(product: ProductUpserted) -> str:
    """Names the fields that text is made from, so that a hint can say whether text moved."""
    return digest(product.title, product.brand, product.category, product.attributes, product.description)
