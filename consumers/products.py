"""Product events become item state; a changed item is announced on items.changed.

Reads   catalog.products
Writes  item state in Redis; publishes ItemChanged, on the bulk lane where the record asks for it
Never   touches the index: consumers/embeddings.py is the only writer of vectors

Announcing is part of the effect: a record settles when the broker has acknowledged the hint it caused. A
crash between the write and the announcement is redelivered with an equal revision, which announces again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from adapters import tracing
from adapters.kafka import Publisher, Record
from adapters.redis_client import Outcome
from adapters.redis_items import ItemStore, LogPosition, ProductWrite
from consumers.announcing import COMMIT_DELAY_SECONDS, Announcer, traced_hints
from consumers.backlog import is_bulk
from consumers.progress import Delivery
from consumers.revised import body_hash, check_revision, product_key, recorded_at
from schemas.errors import PoisonMessage
from schemas.events import ProductDeleted, ProductUpserted
from schemas.items import digest
from schemas.parsing import InvalidEvent, parse_event
from schemas.topics import Topics

_TEXT_DIMENSIONS = ["content", "lexical"]


@dataclass(frozen=True, slots=True)
class ProductChange:
    """One decoded record of catalog.products: what to write, and the lane its hint travels in."""

    write: ProductWrite
    occurred_at: datetime
    bulk: bool
    #: Where it stands in its trace, if it has one.
    place: str | None = None


class ProductsHandler:
    """Applies product events to item state and announces what changed."""

    name = "products"
    commit_delay_seconds = COMMIT_DELAY_SECONDS
    in_order = False

    def __init__(
        self, *, store: ItemStore, publisher: Publisher, topics: Topics, ack_timeout_seconds: float = 30.0
    ) -> None:
        self._store = store
        self._announcer = Announcer(
            publisher=publisher, topics=topics, ack_timeout_seconds=ack_timeout_seconds
        )
        self.topics: Sequence[str] = (topics.products.name,)

    def decode(self, record: Record) -> ProductChange:
        """Parse a record. Raises PoisonMessage naming the field and what was expected."""
        position = LogPosition(record.topic_id, record.partition, record.offset, record.timestamp_ms)
        recorded, bulk, key = recorded_at(record), is_bulk(record), product_key(record)
        place = tracing.carried(record.headers, begins=True)
        if record.value is None:
            return ProductChange(
                write=ProductWrite(product_id=key, position=position, revision=None),
                occurred_at=recorded,
                bulk=bulk,
                place=place,
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
                "key records by product_id, or compaction removes the wrong product",
                "key",
            )
        check_revision(event, recorded)
        upsert = event if isinstance(event, ProductUpserted) else None
        return ProductChange(
            write=ProductWrite(
                product_id=event.product_id,
                position=position,
                revision=event.order,
                body_hash=body_hash(record.value).hex(),
                document=upsert.model_dump_json(exclude_none=True).encode() if upsert else None,
                occurred_at=event.occurred_at.isoformat(),
                text_hash=_text_hash(upsert) if upsert else "",
            ),
            occurred_at=event.occurred_at,
            bulk=bulk,
            place=place,
        )

    def handle(self, deliveries: Sequence[Delivery[ProductChange]]) -> None:
        """Write, announce, wait for the broker, settle. Raises Transient with the rest still unsettled."""
        topic = self.topics[0]
        with tracing.stage(
            f"process {topic}", (one.event.place for one in deliveries), topic=topic
        ) as places:
            self._handle(deliveries, places)

    def _handle(self, deliveries: Sequence[Delivery[ProductChange]], places: tracing.Places) -> None:
        # 1. State first: one round trip, each write applied only if it is newer.
        applied = self._store.apply([delivery.event.write for delivery in deliveries])
        consumed_at = datetime.now(UTC)
        # 2. One hint per item of the batch; an older event is silent. 3. It settles with its acknowledgement.
        announced: dict[str, list[Delivery[ProductChange]]] = {}
        text_moved = set()
        for delivery, answer in zip(deliveries, applied, strict=True):
            product_id = delivery.event.write.product_id
            if answer.outcome is Outcome.OLDER:
                delivery.settle()
            else:
                announced.setdefault(product_id, []).append(delivery)
            if answer.text_changed:
                text_moved.add(product_id)
        # A redelivered equal is announced without text: what it changed is no longer known, and hints carry
        # no state.
        dimensions = {one: [*(_TEXT_DIMENSIONS if one in text_moved else ()), "context"] for one in announced}
        ids = (delivery.event.write.product_id for delivery in deliveries)
        self._announcer.announce(
            announced, dimensions, consumed_at=consumed_at, places=traced_hints(ids, places)
        )

    def store_epoch(self) -> str | None:
        """Redis' run id: when it changes, effects younger than the commit may be gone."""
        return self._store.run_id()

    def adopt(self, epoch: str | None) -> None:
        """State is compared by revision: whichever incarnation takes it."""

    def fatal(self) -> BaseException | None:
        """This handler has no thread of its own that could die."""
        return None

    def close(self) -> None:
        """Nothing to release: collaborators belong to whoever made them."""


def _text_hash(product: ProductUpserted) -> str:
    """Names the fields that text is made from, so that a hint can say whether text moved."""
    return digest(product.title, product.brand, product.category, product.attributes, product.description)
